"""The pieces of a stretch of a topic: runs of messages as columns, read by one thread while another parses."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from pqlog import extras
from pqlog.codecs import UNDECODABLE
from pqlog.errors import DecodeError, TrimmedError
from pqlog.frames import latest, parse, reshape, runs, segments, stream
from pqlog.frames.conform import conform
from pqlog.frames.projection import Projection
from pqlog.frames.reshape import TIME
from pqlog.frames.schema import Facts
from pqlog.source import Source, Stretch, headers_of
from pqlog.store.api import Lines, Row, Span

HEADERS = pa.map_(pa.string(), pa.string())
_NOTHING = pa.table({})


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
    of_frame: bool = False
    headers: pa.Array | None = None
    """None also where they were not asked for."""
    read_again: Callable[[pa.Array, frozenset[str]], pa.Table] | None = None
    """Gives fields of messages once more, each value as it is; None where they are so already."""

    def exact(self, objects: frozenset[str]) -> Piece:
        """The same, with the values of these fields as they are: in a column of doubles some may be integers."""
        if self.read_again is None:
            return self
        doubles = {
            field.name
            for field, column in zip(self.fields.schema, self.fields.columns, strict=True)
            if pa.types.is_floating(field.type) and column.null_count < len(column)
        }
        names = objects & doubles
        if not names:
            return self
        again = self.read_again(self.offsets, names)
        fields = self.fields
        for name in names:
            index = fields.schema.get_field_index(name)
            fields = fields.set_column(index, again.schema.field(name), again.column(name))
        return self._replace(fields=fields)

    def told(self) -> AbstractContextManager[None]:
        """Whatever is raised by what it holds, as an error of ours."""
        return segments.told(self.topic, self.offsets[0].as_py() if len(self.offsets) else 0)

    def slice(self, start: int, rows: int) -> Piece:
        """A part of it."""
        origin = self.origin and segments.Origin(self.origin.call, self.origin.start + start)
        return self._each(lambda column: column.slice(start, rows))._replace(origin=origin)

    def filter(self, mask: pa.Array) -> Piece:
        """The messages where `mask` is true."""
        with self.told():
            return self._each(lambda columns: stream.filtered(columns, mask))._replace(frame=None, origin=None)

    def _each(self, cut: Callable[[Any], Any]) -> Piece:
        keys, headers, frame = (
            None if given is None else cut(given) for given in (self.keys, self.headers, self.frame)
        )
        return self._replace(
            offsets=cut(self.offsets),
            times=cut(self.times),
            keys=keys,
            fields=cut(self.fields),
            frame=frame,
            headers=headers,
        )


def pieces(
    stretch: Stretch, projection: Projection, progress: bool = False, objects: frozenset[str] = frozenset()
) -> Iterator[Piece]:
    """The messages of a stretch in order, in pieces of bounded size.

    The values of the fields `objects` are kept as they are, each for itself, as far as they are known to be mixed.
    """
    with extras.progress_bar(len(stretch.span), "reading", progress) as done:
        for piece in _read(stretch, projection, objects):
            done(len(piece.offsets))
            yield piece


def _read(stretch: Stretch, projection: Projection, objects: frozenset[str]) -> Iterator[Piece]:
    source, span, key, by = stretch
    if by is not None:
        yield from chosen(source, latest.latest_of(stretch), projection, objects)
        return
    reader = _Reader(source, key, projection, projection.source_fields, objects)
    for run in runs.runs(source, span, key, headers=projection.has_headers):
        for piece in reader.parse(run):
            yield _reshaped(source, piece, projection, objects)


def chosen(
    source: Source, offsets: Any, projection: Projection, objects: frozenset[str] = frozenset()
) -> Iterator[Piece]:
    """The messages at these offsets, which ascend; what lies between them has no part in what the columns are."""
    reader = _Reader(source, None, projection, projection.source_fields, objects, offsets)
    for near in latest.close(offsets):
        for run in runs.runs(source, Span(near[0], near[-1] + 1), headers=projection.has_headers):
            for piece in reader.parse(run):
                yield _reshaped(source, piece, projection, objects)


def _reshaped(source: Source, piece: Piece, projection: Projection, objects: frozenset[str]) -> Piece:
    with piece.told():
        if projection.flatten:
            makers = {b"json": (parse.column_of, parse.object_column), b"pickle": (_python_column, _python_objects)}
            piece = piece._replace(fields=reshape.flatten(piece.fields, makers, objects))
        if projection.parse_dates:
            timed = projection.date_columns(piece.fields.schema.names)
            piece = piece._replace(fields=reshape.parse_times(piece.fields, timed, piece.offsets))
    if projection.columns is not None:
        names = piece.fields.schema.names
        if projection.flatten:
            selected = reshape.among(names, projection.columns)
        else:
            selected = [name for name in projection.columns if name in names]
        piece = piece._replace(fields=piece.fields.select(selected))
    if not piece.of_frame:
        piece = piece._replace(read_again=functools.partial(_read_again, source, projection))
    return piece


def _read_again(source: Source, projection: Projection, offsets: pa.Array, names: frozenset[str]) -> pa.Table:
    """Fields of the messages at these offsets, each value as it is."""
    outer = frozenset(reshape.path_of(name)[0] if projection.flatten else name for name in names)
    plain = Projection(flatten=projection.flatten)
    reader = _Reader(source, None, plain, outer, names, offsets.to_numpy())
    facts, found = Facts(), []
    for near in latest.close(offsets.to_numpy()):
        for run in runs.runs(source, Span(near[0], near[-1] + 1)):
            for piece in reader.parse(run):
                fields = _reshaped(source, piece, plain, names).fields
                fields = fields.select([name for name in fields.schema.names if name in names])
                facts.add(fields)
                found.append(fields)
    schema = facts.schema()
    if sum(len(fields) for fields in found) != len(offsets) or set(schema.names) != names:
        raise TrimmedError(offsets[0].as_py(), source.engine.span(source.topic).first)
    return pa.concat_tables([conform(fields, schema) for fields in found])


class _Reader:
    """Parses the runs of a topic, from one end of a stretch to the other; of the messages only those `at`, if given."""

    def __init__(
        self,
        source: Source,
        key: str | None,
        projection: Projection,
        wanted: frozenset[str] | None,
        objects: frozenset[str],
        at: Any = None,
    ) -> None:
        self._source, self._key, self._wanted, self._topic = source, key, wanted, source.topic.name
        self._with_headers, self._at = projection.has_headers, at
        self._objects = projection.top_level(objects)
        self._json = parse.JsonParser(wanted, self._objects)

    def parse(self, run: runs.Run) -> Iterator[Piece]:
        """The messages of a run as columns."""
        if isinstance(run, Lines):
            yield from self._lines(run)
            return
        for part in runs.parts(run):
            yield from self._segment(part) if isinstance(part, Row) else self._singles(part)

    def _lines(self, lines: Lines) -> Iterator[Piece]:
        offsets = pa.array(np.arange(lines.offset, lines.offset + lines.rows))
        keys = None
        if lines.keys is not None:
            keys = pa.array(msgspec.json.Decoder(str | None).decode_lines(lines.keys), pa.string())
        times = _times(lines)
        if self._at is not None:
            mask = latest.among(offsets.to_numpy(), self._at)
            texts = lines.values.split(b"\n")
            if len(texts) != lines.rows:
                runs.blame(None, self._source, offsets.to_pylist())
            some = [texts[index] for index in np.flatnonzero(mask)]
            if not some:
                return
            lines = Lines(lines.offset, len(some), b"\n".join(some), b"", None)
            offsets, times = offsets.filter(mask), times.filter(mask)
            keys = None if keys is None else keys.filter(mask)
        yield from self._tables(lines, Piece(offsets, times, keys, _NOTHING, self._topic))

    def _singles(self, rows: Sequence[Row]) -> Iterator[Piece]:
        if self._at is not None:
            mask = latest.among(np.array([row.offset for row in rows]), self._at)
            rows = [row for row, there in zip(rows, mask, strict=True) if there]
        if not rows:
            return
        offsets = pa.array([row.offset for row in rows], pa.int64())
        times = pa.array([row.time for row in rows], pa.int64()).cast(TIME)
        keys = None
        if any(row.key is not None for row in rows):
            keys = pa.array([row.key for row in rows], pa.string())
        head = Piece(offsets, times, keys, _NOTHING, self._topic, headers=self._headers(rows))
        if self._source.topic.codec == "json":
            lines = Lines(rows[0].offset, len(rows), runs.joined(rows), b"", None)
            yield from self._tables(lines, head)
        else:
            values = [message.value for message in self._source.messages(rows)]
            fields = parse.table_of(values, self._wanted, _python_column, self._objects, _python_objects)
            yield head._replace(fields=fields)

    def _headers(self, rows: Sequence[Row]) -> pa.Array | None:
        """The headers of rows, one for each."""
        if not self._with_headers:
            return None
        found: dict[str | None, int] = {None: 0}  # most rows have the same, and each is decoded once
        maps: list[list[tuple[str, str]] | None] = [None]
        for row in rows:
            if row.headers not in found:
                found[row.headers] = len(maps)
                try:
                    maps.append(list(headers_of(row).items()))
                except UNDECODABLE as error:
                    raise DecodeError(self._topic, row.offset, f"its headers are none: {error}") from error
        return pa.array(maps, HEADERS).take(pa.array([found[row.headers] for row in rows]))

    def _tables(self, lines: Lines, head: Piece) -> Iterator[Piece]:
        start = 0
        if self._wanted is not None and not self._wanted:
            yield head._replace(fields=parse.rows_table([], [], lines.rows))
            return
        try:
            for table in self._json.parse(lines):
                yield head.slice(start, table.num_rows)._replace(fields=table)
                start += table.num_rows
        except UNDECODABLE as error:
            runs.blame(error, self._source, head.offsets.to_pylist()[start:])

    def _segment(self, row: Row) -> Iterator[Piece]:
        with segments.told(self._topic, row.offset):
            piece = self._piece(row)
        if self._key is not None:
            if piece.keys is None:
                return
            piece = piece.filter(pc.equal(piece.keys, self._key).fill_null(False))
        if self._at is not None:
            piece = piece.filter(pa.array(latest.among(piece.offsets.to_numpy(), self._at)))
        if len(piece.offsets):
            yield piece

    def _piece(self, row: Row) -> Piece:
        table = segments.read(row, self._topic, self._wanted)
        texts = segments.key_texts(table, row)
        keys = None if texts is None else texts.combine_chunks()
        fields = segments.visible(table).replace_schema_metadata(None)
        if self._wanted is not None:
            fields = fields.select([name for name in fields.schema.names if name in self._wanted])
        offsets = pa.array(np.arange(row.offset, row.offset + table.num_rows))
        times = pa.repeat(pa.scalar(row.time, TIME), table.num_rows)
        headers = self._headers([row])
        if headers is not None:
            headers = headers.take(pa.nulls(table.num_rows, pa.int64()).fill_null(0))
        return Piece(offsets, times, keys, fields, self._topic, table, segments.origin(table, row), True, headers)


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
        if not parse.is_json(field):
            return field, column
    return _python_objects(name, values)


def _python_objects(name: str, values: Sequence[Any]) -> tuple[pa.Field, pa.Array]:
    column = parse.json_texts(values)
    if column is not None:
        return parse.json_field(name), column
    return parse.pickle_field(name), parse.pickled(values)
