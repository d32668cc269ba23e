"""The pieces of a stretch of a topic: runs of messages as columns, read by one thread while another parses."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from pqlog import extras
from pqlog.codecs import UNDECODABLE
from pqlog.errors import DecodeError, Error
from pqlog.frames import parse, reshape, segments
from pqlog.frames.reshape import TIME
from pqlog.source import Source, Stretch, stop_of
from pqlog.store.api import Lines, Row, Span

CHUNK_ROWS = 100_000
CHUNK_BYTES = 32 << 20
SMALL = 20_000
"""A stretch of so few messages is not worth a thread."""
NEAR = 512
"""Chosen messages no further apart than this are read in one run."""


class Piece(NamedTuple):
    """A run of messages."""

    offsets: pa.Array
    times: pa.Array
    keys: pa.Array | None
    fields: pa.Table
    topic: str
    frame: pa.Table | None = None
    """The part of a segment that it comes from, with the frame's own metadata."""
    origin: segments.Origin | None = None

    def told(self) -> AbstractContextManager[None]:
        """Whatever is raised by what it holds, as an error of ours."""
        return segments.told(self.topic, self.offsets[0].as_py() if len(self.offsets) else 0)

    def slice(self, start: int, rows: int) -> Piece:
        """A part of it."""
        origin = self.origin and segments.Origin(self.origin.call, self.origin.start + start)
        keys = None if self.keys is None else self.keys.slice(start, rows)
        frame = None if self.frame is None else self.frame.slice(start, rows)
        offsets, times = self.offsets.slice(start, rows), self.times.slice(start, rows)
        return Piece(offsets, times, keys, self.fields.slice(start, rows), self.topic, frame, origin)

    def filter(self, mask: pa.Array) -> Piece:
        """The messages where `mask` is true."""
        keys = None if self.keys is None else self.keys.filter(mask)
        return Piece(self.offsets.filter(mask), self.times.filter(mask), keys, self.fields.filter(mask), self.topic)


@dataclass(frozen=True, slots=True)
class View:
    """How a stretch is wanted as a table.

    Attributes
    ----------
    columns : tuple of str, optional
        The only fields, in this order.
    flatten : bool
        Whether the fields of nested objects are columns of their own.
    times : tuple of str
        Fields of ISO text that are wanted as times.
    """

    columns: tuple[str, ...] | None = None
    flatten: bool = False
    times: tuple[str, ...] = ()

    @property
    def wanted(self) -> frozenset[str] | None:
        """The fields of the messages that have to be read."""
        if self.columns is None:
            return None
        outer = [name.partition(".")[0] for name in self.columns] if self.flatten else []
        return frozenset([*self.columns, *outer])


def pieces(stretch: Stretch, view: View, progress: bool = False) -> Iterator[Piece]:
    """The messages of a stretch in order, in pieces of bounded size."""
    with extras.progress_bar(len(stretch.span), "reading", progress) as done:
        for piece in _chosen(stretch, view):
            done(len(piece.offsets))
            with piece.told():
                if view.flatten:
                    piece = piece._replace(fields=reshape.flatten(piece.fields))
                if view.times:
                    piece = piece._replace(fields=reshape.parse_times(piece.fields, view.times, piece.offsets))
            if view.columns is not None:
                there = set(piece.fields.schema.names)
                piece = piece._replace(fields=piece.fields.select([name for name in view.columns if name in there]))
            yield piece


def _chosen(stretch: Stretch, view: View) -> Iterator[Piece]:
    if stretch.latest is None:
        yield from _span(stretch.source, stretch.span, stretch.key, view.wanted)
        return
    for chosen in latest_runs(stretch):
        span = Span(int(chosen[0]), int(chosen[-1]) + 1)
        for piece in _span(stretch.source, span, None, view.wanted):
            yield piece.filter(pa.array(np.isin(piece.offsets.to_numpy(), chosen)))


def latest_runs(stretch: Stretch) -> Iterator[list[int]]:
    """The offsets of the last message of each key, ascending, in runs that lie close together."""
    offsets = _latest(stretch)
    if len(offsets):
        yield from (run.tolist() for run in np.split(offsets, np.flatnonzero(np.diff(offsets) > NEAR) + 1))


def _latest(stretch: Stretch) -> Any:
    assert stretch.latest is not None
    newest: dict[Any, int] = {}
    field = None if stretch.latest == "key" else stretch.latest
    view = View(columns=() if field is None else (field,))
    for piece in pieces(Stretch(stretch.source, stretch.span, stretch.key), view):
        column = piece.keys
        if field is not None:
            column = piece.fields.column(field) if field in piece.fields.schema.names else None
        if column is not None:
            newest.update(zip(column.to_pylist(), piece.offsets.to_pylist(), strict=True))
    newest.pop(None, None)
    return np.sort(np.fromiter(newest.values(), np.int64, len(newest)))


def _span(source: Source, span: Span, key: str | None, wanted: frozenset[str] | None) -> Iterator[Piece]:
    reader = _Reader(source, key, wanted)
    if len(span) <= SMALL:
        found = reader.fetch(span)
        while found is not None:
            yield from reader.parse(found[0])
            found = reader.fetch(found[1])
        return
    with ThreadPoolExecutor(1, thread_name_prefix="pqlog-read") as ahead:
        waiting = ahead.submit(reader.fetch, span)
        while (found := waiting.result()) is not None:
            waiting = ahead.submit(reader.fetch, found[1])
            yield from reader.parse(found[0])


class _Reader:
    """What the messages of a topic are read and parsed with, from one end of a stretch to the other."""

    def __init__(self, source: Source, key: str | None, wanted: frozenset[str] | None) -> None:
        self._source, self._key, self._wanted, self._topic = source, key, wanted, source.topic.name
        self._json = parse.JsonParser(wanted)
        self._is_json = source.topic.codec == "json"

    def fetch(self, span: Span) -> tuple[Lines | Sequence[Row], Span] | None:
        """The next run of a span, and what is left behind it; None at its end."""
        engine, topic = self._source.engine, self._source.topic
        if not len(span):
            return None
        if self._key is None:
            lines = engine.read_lines(topic, span, CHUNK_ROWS, CHUNK_BYTES)
            if lines is not None:
                return lines, Span(lines.offset + lines.rows, span.stop)
        rows = engine.read(topic, span, parse.SLICE_ROWS, CHUNK_BYTES, self._key)
        return (rows, Span(stop_of(rows[-1]), span.stop)) if rows else None

    def parse(self, found: Lines | Sequence[Row]) -> Iterator[Piece]:
        """The messages of a run as columns."""
        if isinstance(found, Lines):
            yield from self._lines(found)
            return
        start = 0
        for index, row in enumerate(found):
            if row.rows is not None:
                yield from self._singles(found[start:index])
                yield from self._segment(row)
                start = index + 1
        yield from self._singles(found[start:])

    def _lines(self, lines: Lines) -> Iterator[Piece]:
        offsets = pa.array(np.arange(lines.offset, lines.offset + lines.rows))
        keys = None
        if lines.keys is not None:
            keys = pa.array(msgspec.json.Decoder(str | None).decode_lines(lines.keys), pa.string())
        yield from self._tables(lines, offsets, _times(lines), keys)

    def _singles(self, rows: Sequence[Row]) -> Iterator[Piece]:
        if not rows:
            return
        offsets = pa.array([row.offset for row in rows], pa.int64())
        times = pa.array([row.time for row in rows], pa.int64()).cast(TIME)
        keys = None
        if any(row.key is not None for row in rows):
            keys = pa.array([row.key for row in rows], pa.string())
        if self._is_json:
            lines = Lines(rows[0].offset, len(rows), b"\n".join([row.value for row in rows]), b"", None)
            yield from self._tables(lines, offsets, times, keys)
        else:
            values = [message.value for message in self._source.messages(rows)]
            fields = parse.table_of(values, self._wanted, column_of=_python_column)
            yield Piece(offsets, times, keys, fields, self._topic)

    def _tables(self, lines: Lines, offsets: pa.Array, times: pa.Array, keys: pa.Array | None) -> Iterator[Piece]:
        start = 0
        if self._wanted is not None and not self._wanted:
            yield Piece(offsets, times, keys, parse.rows_table([], [], lines.rows), self._topic)
            return
        try:
            for table in self._json.parse(lines):
                rows = table.num_rows
                key = None if keys is None else keys.slice(start, rows)
                yield Piece(offsets.slice(start, rows), times.slice(start, rows), key, table, self._topic)
                start += rows
        except UNDECODABLE as error:
            if isinstance(error, Error):
                raise
            for index in range(start, lines.rows):  # which one was it?
                offset = offsets[index].as_py()
                list(self._source.messages(self._source.rows(Span(offset, offset + 1))))
            raise DecodeError(self._source.topic.name, offsets[start].as_py(), "its JSON is damaged") from None

    def _segment(self, row: Row) -> Iterator[Piece]:
        with segments.told(self._topic, row.offset):
            piece = self._piece(row)
        if self._key is not None:
            if piece.keys is None:
                return
            piece = piece.filter(pc.equal(piece.keys, self._key).fill_null(False))
            if not len(piece.offsets):
                return
        yield piece

    def _piece(self, row: Row) -> Piece:
        table = segments.read(row, self._topic, self._wanted)
        names = segments.field_names(table)
        texts = segments.key_texts(table, row)
        keys = None if texts is None else texts.combine_chunks()
        fields = table.rename_columns(list(names.values())).replace_schema_metadata(None)
        if self._wanted is not None:
            fields = fields.select([name for name in fields.schema.names if name in self._wanted])
        offsets = pa.array(np.arange(row.offset, row.offset + table.num_rows))
        times = pa.repeat(pa.scalar(row.time, TIME), table.num_rows)
        return Piece(offsets, times, keys, fields, self._topic, table, segments.origin(table, row))


def _times(lines: Lines) -> pa.Array:
    if b"\n" not in lines.times:
        return pa.repeat(pa.scalar(int(lines.times), TIME), lines.rows)
    read = pa.csv.ReadOptions(column_names=["t"], use_threads=False)
    return pa.csv.read_csv(io.BytesIO(lines.times), read_options=read).column("t").combine_chunks().cast(TIME)


def _python_column(name: str, values: Sequence[Any]) -> tuple[pa.Field, pa.Array]:
    """A column of values of codecs other than JSON; what has no exact form in Arrow or JSON is pickled."""
    kinds = {type(value) for value in values} - {type(None)}
    if kinds == {bytes}:
        return pa.field(name, pa.binary()), pa.array(values, pa.binary())
    if kinds == {date}:
        return pa.field(name, pa.date32()), pa.array(values, pa.date32())
    if kinds == {datetime} and {value.tzinfo for value in values if value is not None} <= {UTC}:
        return pa.field(name, TIME), pa.array(values, TIME)
    if kinds <= {str, int, float, bool, dict, list}:
        field, column = parse.column_of(name, values)
        if not parse.is_json(field) or parse.json_texts(values) is not None:
            return field, column
    return parse.pickle_field(name), parse.pickled(values)
