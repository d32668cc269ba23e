"""The last message of each key, or of each value of a field."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pqlog import fields
from pqlog.codecs import UNDECODABLE, is_text
from pqlog.errors import ArgumentError
from pqlog.frames import parse, segments, stream
from pqlog.frames.dtypes import python_values
from pqlog.frames.notes import note_of
from pqlog.frames.runs import blame, decode_lines, joined, parts, runs, values
from pqlog.store.values import Lines, Row
from pqlog.stream import Selection

NEAR = 512
"""Chosen messages no further apart than this are read in one run."""

_PLAIN = (str, int, bool, bytes)
"""Types whose values are the same if they are equal."""
_NAN = float("nan")
_NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


class Latest:
    """Finds which messages are the latest, in one selection after the other.

    Two messages are about the same if what they go by is of one type and equal: 1, 1.0, True and "1" are four. It is
    read from the messages themselves, since a column would make one of them that depends on what lies near by.

    Parameters
    ----------
    by : str
        ``"key"``, or the name of a field.
    """

    def __init__(self, by: str) -> None:
        self._field = None if by == "key" else by
        self._newest: dict[Any, dict[Any, int]] = {}
        """By the kind of value, the offset of the last message with each."""
        self._decoder = _decoder(by)

    def add(self, selection: Selection) -> None:
        """Read a selection, which lies behind those before."""
        for run in runs(selection.topic, selection.span, selection.key):
            if isinstance(run, Lines):
                self._take(self._of_lines(selection, run), range(run.offset, run.offset + run.rows))
                continue
            for part in parts(run):
                if isinstance(part, Row):
                    self._add_segment(selection, part)
                else:
                    self._take(self._of_rows(selection, part), [row.offset for row in part])

    def check(self, selection: Selection) -> None:
        """Raise if nothing was found since no message has the field."""
        if self._field is not None and not any(self._newest.values()):
            unknown = fields.unknown([self._field], values(selection), fields.columns)
            if unknown is not None:
                raise ArgumentError(f"latest(by={self._field!r}): {unknown.said}")

    def offsets(self) -> Any:
        """The offsets of the latest, ascending."""
        count = sum(map(len, self._newest.values()))
        return np.sort(np.fromiter((at for kind in self._newest.values() for at in kind.values()), np.int64, count))

    def _of_lines(self, selection: Selection, lines: Lines) -> Sequence[Any]:
        if self._field is None:
            return [None] * lines.rows if lines.keys is None else decode_lines(lines.keys)
        return self._of_json(selection, lines.values, range(lines.offset, lines.offset + lines.rows))

    def _of_rows(self, selection: Selection, rows: Sequence[Row]) -> Sequence[Any]:
        if self._field is None:
            return [row.key for row in rows]
        if is_text(selection.topic.codec_name):
            return self._of_json(selection, joined(rows), [row.offset for row in rows])
        return [self._of(message.value) for message in selection.topic.messages(rows)]

    def _of_json(self, selection: Selection, text: bytes, offsets: Sequence[int]) -> Sequence[Any]:
        found = None
        if self._decoder is not None:
            with contextlib.suppress(*UNDECODABLE):  # some are no objects, or no JSON
                found = [one.by for one in self._decoder.decode_lines(text)]
        if found is None:
            try:
                found = [self._of(value) for value in decode_lines(text)]
            except UNDECODABLE as error:
                blame(error, selection.topic, offsets)
        if len(found) != len(offsets):
            blame(None, selection.topic, offsets)
        return found

    def _of(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return value.get(self._field)
        return value if self._field == "value" else None

    def _add_segment(self, selection: Selection, row: Row) -> None:
        topic = selection.topic.name
        with segments.told(topic, row.offset):
            table = segments.read(row, topic, frozenset(() if self._field is None else [self._field]))
            offsets = np.arange(row.offset, row.offset + table.num_rows)
            keys = segments.key_texts(table, row)
            if self._field is None:
                column, field = keys, pa.field("", pa.string())
            else:
                at = segments.visible(table).schema.get_field_index(self._field)
                column, field = (None, None) if at < 0 else (table.column(self._field), table.schema.field(self._field))
            if column is None:
                return
            if selection.key is not None:
                if keys is None:
                    return
                mask = pc.equal(keys, selection.key).fill_null(False).combine_chunks()
                column, offsets = stream.filtered(column, mask), offsets[mask.to_numpy(zero_copy_only=False)]
            kind, found = _of_column(column, field)
            self._take(found, offsets.tolist(), kind)

    def _take(self, found: Sequence[Any], offsets: Sequence[int], kind: Any = None) -> None:
        """Values in the order of their messages, all of one kind if it is given."""
        kinds = {type(value) for value in found}
        if kind is None and len(kinds) == 1 and (only := kinds.pop()) in _PLAIN:
            kind = only
        if kind is not None:
            newest = self._newest.setdefault(kind, {})
            newest.update((value, at) for value, at in zip(found, offsets, strict=True) if value is not None)
            return
        for value, offset in zip(found, offsets, strict=True):
            if value is not None:
                try:
                    kind, same = identity(value)
                    self._newest.setdefault(kind, {})[same] = offset
                except (TypeError, RecursionError) as error:
                    raise ArgumentError(
                        f"latest(by={self._field!r}): the field of message {offset} is a {type(value).__name__} that "
                        f"cannot be compared: {error}"
                    ) from error


def latest_of(selection: Selection) -> Any:
    """The offsets of the latest messages of a selection, ascending."""
    assert selection.latest is not None
    latest = Latest(selection.latest)
    latest.add(selection)
    latest.check(selection)
    return latest.offsets()


def latest_runs(selection: Selection) -> Iterator[list[int]]:
    """The offsets of the latest messages of a selection, ascending, in runs that lie close together."""
    return close(latest_of(selection))


def close(offsets: Any) -> Iterator[list[int]]:
    """Ascending offsets in runs that lie close together."""
    if len(offsets):
        yield from (run.tolist() for run in np.split(offsets, np.flatnonzero(np.diff(offsets) > NEAR) + 1))


def among(offsets: Any, chosen: Any) -> Any:
    """Which of some offsets are among those that are chosen, which ascend: a mask."""
    at = np.searchsorted(chosen, offsets)
    at[at == len(chosen)] = 0
    return chosen[at] == offsets if len(chosen) else np.zeros(len(offsets), bool)


def identity(value: Any) -> tuple[Any, Any]:
    """What two values have in common that are of one kind and equal; raises `TypeError` if none can be told."""
    kind = type(value)
    if kind in _PLAIN:
        return kind, value
    if kind is float:
        return kind, value if value == value else _NAN
    if isinstance(value, datetime):
        aware = value.tzinfo is not None
        since = datetime(1970, 1, 1, tzinfo=UTC if aware else None)
        return ("datetime", aware), (value - since) // timedelta(microseconds=1) * 1000 + getattr(
            value, "nanosecond", 0
        )
    if isinstance(value, timedelta):
        return "timedelta", value // timedelta(microseconds=1) * 1000 + getattr(value, "nanoseconds", 0)
    if isinstance(value, time) and value.tzinfo is None:
        micros = ((value.hour * 60 + value.minute) * 60 + value.second) * 10**6 + value.microsecond
        return "time", micros * 1000
    if isinstance(value, (list, tuple)):
        return kind, tuple(map(identity, value))
    if isinstance(value, dict):
        return kind, frozenset((identity(name), identity(inner)) for name, inner in value.items())
    hash(value)
    return kind, value if value == value else _NAN  # Decimal("NaN") is not itself


def _of_column(column: pa.ChunkedArray, field: pa.Field) -> tuple[Any, Sequence[Any]]:
    """The values of a column of a frame; and of which kind they are, if all are and stand for themselves."""
    of, note = column.type, note_of(field)
    if note is not None and note.is_opaque:
        return None, python_values(column, field)
    if pa.types.is_timestamp(of) or pa.types.is_duration(of) or pa.types.is_time(of):
        kind = ("datetime", of.tz is not None) if pa.types.is_timestamp(of) else "timedelta"
        numbers = column.cast(pa.int32() if pa.types.is_time32(of) else pa.int64()).to_pylist()
        unit = _NANOSECONDS[of.unit]
        whole = [None if number is None else number * unit for number in numbers]
        return "time" if pa.types.is_time(of) else kind, whole
    if pa.types.is_dictionary(of):
        column = parse.decoded(column)
    return None, python_values(column, field)


def _decoder(field: str) -> Any:
    """A decoder of lines of JSON objects, of which it reads one field; None where msgspec has none for its name."""
    try:
        of = msgspec.defstruct("By", [("by", Any, None)], rename={"by": field}, gc=False)
        return msgspec.json.Decoder(of)
    except ValueError:
        return None
