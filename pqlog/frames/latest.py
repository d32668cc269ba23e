"""The latest message of each key, or of each value of a field."""

from __future__ import annotations

import contextlib
import copy
import itertools
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
from pqlog.frames import segments
from pqlog.frames.arrays import decode_dictionary, filter_rows
from pqlog.frames.arrow_types import NANOSECONDS
from pqlog.frames.dtypes import python_values
from pqlog.frames.matching import matcher_of
from pqlog.frames.notes import note_of
from pqlog.frames.parse import decode_lines
from pqlog.frames.places import nearby, unmoved
from pqlog.frames.prefetch import Part, blocks, called, json_lines, raise_undecodable, read_values, split_segments
from pqlog.store.sealed import SealedPart
from pqlog.store.values import Lines, Row
from pqlog.stream import Selection

_PLAIN = (str, int, bool, bytes)
"""Types whose equal values are identical."""
_NAN = float("nan")


class Latest:
    """Finds the latest messages of one range after the other.

    Two keys are the same if they have the same type and are equal: 1, 1.0, True and "1" are four keys. They are read
    from the messages themselves, since in a column their types would depend on the other values in it.

    Parameters
    ----------
    by : str
        ``"key"``, or the name of the field that is the key.
    """

    def __init__(self, by: str) -> None:
        self._field = None if by == "key" else by
        self._newest: dict[Any, dict[Any, int]] = {}
        """By the type of key, and then by key, the offset of the latest message."""
        self._decoder = _decoder(by)

    def copy(self) -> Latest:
        other = copy.copy(self)
        other._newest = {type_: dict(newest) for type_, newest in self._newest.items()}
        return other

    def add(self, selection: Selection) -> None:
        """Read the next range; ranges must be added in order."""
        matcher = matcher_of(selection)
        spans, headers = [selection.span], False
        if matcher is not None:
            spans, headers = matcher.spans(selection.span), matcher.projection.has_headers
        for span in spans:
            for block in blocks(selection.topic, span, selection.key, headers=headers):
                for part in [block] if isinstance(block, Lines) else split_segments(block):
                    self._add_part(selection, part, None if matcher is None else matcher.mask(part))

    def _add_part(self, selection: Selection, part: Lines | Row | Sequence[Row], mask: Any) -> None:
        if isinstance(part, Row):
            self._add_segment(selection, part, mask)
            return
        if isinstance(part, Lines):
            offsets: Sequence[int] = part.all_offsets
            keys = self._keys_of_lines(selection, part, offsets)
        else:
            offsets = [row.offset for row in part]
            keys = self._keys_of_rows(selection, part)
        if mask is not None:
            keys, offsets = list(itertools.compress(keys, mask)), list(itertools.compress(offsets, mask))
        self._add_keys(selection, keys, offsets)

    def check(self, selection: Selection) -> None:
        """Raise if there are no keys because no message has the field."""
        if self._field is not None and not any(self._newest.values()):
            unknown = fields.unknown([self._field], read_values(selection), fields.columns)
            if unknown is not None:
                raise ArgumentError(f"latest(by={self._field!r}): {unknown.said}")

    def offsets(self) -> Any:
        """The offsets of the latest messages, ascending."""
        count = sum(map(len, self._newest.values()))
        offsets = (offset for newest in self._newest.values() for offset in newest.values())
        return np.sort(np.fromiter(offsets, np.int64, count))

    def _keys_of_lines(self, selection: Selection, lines: Lines, offsets: Sequence[int]) -> Sequence[Any]:
        if self._field is None:
            if lines.keys is None or isinstance(lines.keys, list):
                return lines.keys or [None] * lines.rows
            return decode_lines(lines.keys)
        return self._keys_of_json(selection, lines.values, offsets)

    def _keys_of_rows(self, selection: Selection, rows: Sequence[Row]) -> Sequence[Any]:
        if self._field is None:
            return [row.key for row in rows]
        if is_text(selection.topic.codec_name):
            return self._keys_of_json(selection, json_lines(rows), [row.offset for row in rows])
        return [self._key_of(message.value) for message in selection.topic.messages(rows)]

    def _keys_of_json(self, selection: Selection, text: bytes, offsets: Sequence[int]) -> Sequence[Any]:
        keys = None
        if self._decoder is not None:
            with contextlib.suppress(*UNDECODABLE):  # some are not objects, or not JSON
                keys = [value.by for value in self._decoder.decode_lines(text)]
        if keys is None:
            try:
                keys = [self._key_of(value) for value in decode_lines(text)]
            except UNDECODABLE as error:
                raise_undecodable(error, selection.topic, offsets)
        if len(keys) != len(offsets):
            raise_undecodable(None, selection.topic, offsets)
        return keys

    def _key_of(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return value.get(self._field)
        return value if self._field == "value" else None

    def _add_segment(self, selection: Selection, row: Row, mask: Any = None) -> None:
        topic = selection.topic.name
        with segments.row_errors(topic, row):
            table = segments.read(row, topic, frozenset(() if self._field is None else [self._field]))
            offsets = np.arange(row.offset, row.offset + table.num_rows)
            message_keys = segments.key_texts(table, row)
            if self._field is None:
                column, field = message_keys, pa.field("", pa.string())
            elif self._field in segments.visible(table).schema.names:
                column, field = table.column(self._field), table.schema.field(self._field)
            else:
                return
            if column is None:
                return
            if selection.key is not None:
                if message_keys is None:
                    return
                of_key = pc.equal(message_keys, selection.key).fill_null(False).combine_chunks()
                of_key = of_key.to_numpy(zero_copy_only=False)
                mask = of_key if mask is None else of_key & mask
            if mask is not None:
                column, offsets = filter_rows(column, pa.array(mask)), offsets[mask]
            type_, keys = _keys_of_column(column, field)
            self._add_keys(selection, keys, offsets.tolist(), type_)

    def _add_keys(self, selection: Selection, keys: Sequence[Any], offsets: Sequence[int], type_: Any = None) -> None:
        """Take keys into account, in the order of their messages; all are of one type if that is given."""
        if type_ is None:
            type_ = _common_plain_type(keys)
        if type_ is not None:
            newest = self._newest.setdefault(type_, {})
            newest.update((key, offset) for key, offset in zip(keys, offsets, strict=True) if key is not None)
            return
        for key, offset in zip(keys, offsets, strict=True):
            if key is not None:
                try:
                    type_, plain = identity(key)
                    self._newest.setdefault(type_, {})[plain] = offset
                except (TypeError, RecursionError) as error:
                    raise ArgumentError(
                        f"latest(by={self._field!r}): the field of {called(selection.topic, offset)} is a "
                        f"{type(key).__name__} that cannot be compared: {error}"
                    ) from error


def _common_plain_type(keys: Sequence[Any]) -> type | None:
    types = {type(key) for key in keys}
    return next(iter(types)) if len(types) == 1 and types.issubset(_PLAIN) else None


def latest_of(selection: Selection) -> Any:
    """The offsets of the latest messages of a range, ascending."""
    assert selection.latest is not None
    latest = Latest(selection.latest)
    latest.add(selection)
    latest.check(selection)
    return latest.offsets()


def latest_groups(selection: Selection) -> Iterator[list[int]]:
    """The offsets of the latest messages of a range, ascending, in groups that are close together."""
    with unmoved(selection.topic):
        yield from nearby(selection.topic, latest_of(selection))


def at_offsets(offsets: Any, part: Part) -> Any:
    """For each message of a part whether it is at one of some ascending offsets."""
    if isinstance(part, Lines):
        return contains(offsets, np.asarray(part.all_offsets, np.int64))
    if isinstance(part, Row | SealedPart):
        return contains(offsets, np.arange(part.offset, part.stop))
    return contains(offsets, np.array([row.offset for row in part]))


def contains(offsets: Any, candidates: Any) -> Any:
    """For each of some candidates whether it is among ascending offsets: a mask."""
    positions = np.searchsorted(offsets, candidates)
    positions[positions == len(offsets)] = 0
    return offsets[positions] == candidates if len(offsets) else np.zeros(len(candidates), bool)


def identity(value: Any) -> tuple[Any, Any]:
    """A type and a hashable value that identical values have in common; raises `TypeError` if there is none."""
    kind = type(value)
    if kind in _PLAIN:
        return kind, value
    if kind is float:
        return kind, value if value == value else _NAN
    if isinstance(value, datetime):
        epoch = datetime(1970, 1, 1, tzinfo=None if value.tzinfo is None else UTC)
        nanos = (value - epoch) // timedelta(microseconds=1) * 1000 + getattr(value, "nanosecond", 0)
        return ("datetime", value.tzinfo is not None), nanos
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
    return kind, value if value == value else _NAN  # Decimal("NaN") does not equal itself


def _keys_of_column(column: pa.ChunkedArray, field: pa.Field) -> tuple[Any, Sequence[Any]]:
    """The values of a column of a frame; with their type if they are as `identity` would return them."""
    of, note = column.type, note_of(field)
    if note is not None and note.is_opaque:
        return None, python_values(column, field)
    if pa.types.is_timestamp(of) or pa.types.is_duration(of) or pa.types.is_time(of):
        numbers = column.cast(pa.int32() if pa.types.is_time32(of) else pa.int64()).to_pylist()
        nanos = [None if number is None else number * NANOSECONDS[of.unit] for number in numbers]
        if pa.types.is_timestamp(of):
            return ("datetime", of.tz is not None), nanos
        return "time" if pa.types.is_time(of) else "timedelta", nanos
    if pa.types.is_dictionary(of):
        column = decode_dictionary(column)
    return None, python_values(column, field)


def _decoder(field: str) -> Any:
    """A decoder of JSON lines that reads only one field; None if msgspec does not support its name."""
    try:
        of = msgspec.defstruct("By", [("by", Any, None)], rename={"by": field}, gc=False)
        return msgspec.json.Decoder(of)
    except ValueError:
        return None
