"""A frame becomes segments: encoded, read again, and compared with what was put before any of it is stored."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from pqlog.errors import ArgumentError, EncodeError
from pqlog.frames import inputs, keys, notes, python, stream
from pqlog.frames.ahead import submit
from pqlog.frames.parse import free
from pqlog.frames.segments import CALL, HIDDEN, START, is_hidden
from pqlog.keys import ID, KEY, RefusedError
from pqlog.store.values import Segment

ROWS = stream.MOST_ROWS
"""Messages in a segment at most: what one reader decodes to get at a single one."""
BYTES = 64 << 20
"""A segment of long values holds fewer messages: what they take in memory stays below this."""


def segments_of(
    frame: Any, key: str | None, headers: str | None, ids: str | None = None, index: bool = True
) -> Iterator[tuple[Segment, list[str] | None]]:
    """The segments of a frame, each with the ids of its messages, if they have any.

    Each has been read again and compared with the frame.

    Parameters
    ----------
    frame : pandas.DataFrame, or object with ``__arrow_c_stream__``
        The latter is read as a stream: it need not fit into memory.
    key : str or None
        The field that is each message's key.
    headers : str or None
        JSON text.
    ids : str, optional
        The field that is each message's id.
    index : bool
        Whether a pandas index goes along also where it only numbers the rows.

    Raises
    ------
    EncodeError
        A column would not come back as it is; or the field `key` has values that are no keys, `ids` such that are no
        ids.
    ArgumentError
        There is no field `key` or `ids`, or the columns' names are not distinct.
    """
    of_pandas = inputs.pandas_frame(frame, index)
    reader = inputs.stream_of(frame) if of_pandas is None else inputs.from_pandas(of_pandas)
    try:
        stream.check_types(reader.schema)
    except ValueError as error:
        raise EncodeError(f"{error}. Convert it first", value_type="DataFrame", codec="arrow") from error
    names = [name for field, name in zip(reader.schema, reader.schema.names, strict=True) if not is_hidden(field)]
    for what, name in (("key", key), ("ids", ids)):
        if name is not None:
            _check_named(what, name, names)
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ArgumentError(f"the frame has several columns named {', '.join(map(repr, twice))}: rename them")
    made = _made(reader, key, ids)
    first = next(made, None)
    if first is None:
        return
    second = next(made, None)
    if second is None:
        _verify(first, of_pandas)
        yield first.segment(key, headers), first.ids
        return
    with ThreadPoolExecutor(1, thread_name_prefix="pqlog-verify") as beside:  # while the next one is made
        waiting = first, submit(beside, _verify, first, of_pandas)
        for one in itertools.chain([second], made):
            following = one, submit(beside, _verify, one, of_pandas)
            waiting[1].result()
            yield waiting[0].segment(key, headers), waiting[0].ids
            waiting = following
        waiting[1].result()
        yield waiting[0].segment(key, headers), waiting[0].ids


class _Made(NamedTuple):
    """A segment, not verified yet."""

    value: bytes
    part: pa.Table
    """What it was made of."""
    start: int
    """The number of its first row in the frame."""
    ids: list[str] | None

    def segment(self, key: str | None, headers: str | None) -> Segment:
        return Segment(self.value, self.part.num_rows, key, headers)


def _made(reader: pa.RecordBatchReader, key: str | None, ids: str | None) -> Iterator[_Made]:
    """The segments of one call."""
    call = secrets.token_hex(8).encode()
    start = 0
    for part in _parts(reader):
        if key is not None:
            _texts(part, key, KEY, start)
        texts = None if ids is None else _texts(part, ids, ID, start).to_pylist()
        first = start
        for value, rows in _encoded(part, call, start):
            at = start - first
            yield _Made(value, part.slice(at, rows), start, None if texts is None else texts[at : at + rows])
            start += rows


def _check_named(what: str, name: str, names: Sequence[str]) -> None:
    """Raise unless a frame has the field that is to be the key, or the ids."""
    if name not in names:
        raise ArgumentError(f"{what}={name!r} is no field of the frame: it has {', '.join(map(repr, names))}")


def _texts(part: pa.Table, name: str, what: str, start: int) -> pa.ChunkedArray:
    """The keys of a part whose first row is row `start` of its frame; raises where a value is none."""
    index = part.schema.get_field_index(name)
    try:
        return keys.texts(part.column(index), part.schema.field(index), what)
    except RefusedError as error:
        raise error.encode_error("arrow", start) from None


def thin(segment: Segment, mask: bytes | None, start: int) -> Iterator[Segment]:
    """A segment without some of its messages, as if the frame had been filtered before it was put.

    Parameters
    ----------
    mask : bytes or None
        1 for each that stays; None if all do, while other segments of the same frame lose some.
    start : int
        How many messages of the segments before stay.
    """
    table = _with_index(stream.decode(segment.value, None, segment.rows))
    if mask is not None:
        table = stream.filtered(table, pa.array([bool(stays) for stays in mask])).combine_chunks()
    first = start
    for value, rows in _encoded(table, (table.schema.metadata or {})[CALL], start):
        _verify(_Made(value, table.slice(start - first, rows), start, None), None)
        yield Segment(value, rows, segment.key, segment.headers)
        start += rows


def _with_index(table: pa.Table) -> pa.Table:
    """A table of pandas whose index is a column, if it was a range: of which some will be missing."""
    metadata = table.schema.metadata or {}
    note = notes.frame_note_of(table.schema)
    if note is None:
        return table
    for number, level in enumerate(note.levels):
        level.freq = None
        if level.step is not None and level.field is None:
            first = level.start + int(metadata[START]) * level.step
            values = range(first, first + table.num_rows * level.step, level.step)
            level.field = free(f"__index_level_{number}__", dict.fromkeys(table.schema.names))
            field = notes.noted(pa.field(level.field, pa.int64()), notes.Note("int64"))
            field = field.with_metadata({**field.metadata, HIDDEN: b"index"})
            table = table.append_column(field, pa.array(values, pa.int64()))
        level.step = None
    return table.replace_schema_metadata({**metadata, notes.FRAME: msgspec.json.encode(note)})


def _encoded(part: pa.Table, call: bytes, start: int) -> Iterator[tuple[bytes, int]]:
    """A part of a call's frame as one segment, or as several where one would be too large to be read again."""
    metadata = {**(part.schema.metadata or {}), CALL: call, START: b"%d" % start}
    try:
        value = stream.encode(part.replace_schema_metadata(metadata))
    except stream.TooLargeError as error:
        if part.num_rows == 1:
            raise EncodeError(f"row {start}: {error}; split it", value_type="frame", codec="arrow") from error
        half = part.num_rows // 2
        yield from _encoded(part.slice(0, half), call, start)
        yield from _encoded(part.slice(half), call, start + half)
    except Exception as error:  # Arrow raises anything
        raise _unlike(_culprit(part), f"cannot be kept ({error})") from error
    else:
        yield value, part.num_rows


def _culprit(part: pa.Table) -> str:
    """The column that cannot be encoded."""
    for field in part.schema:
        try:
            stream.decode(stream.encode(part.select([field.name])), None)
        except Exception:
            return f"column {field.name!r} ({field.type})"
    return "the frame"


def _parts(reader: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """What a reader gives, in tables of a segment's size."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in reader:
        most = max(1, min(ROWS, batch.num_rows * BYTES // max(1, batch.nbytes)))
        for first in range(0, batch.num_rows, most):
            part = batch.slice(first, most)
            if rows and rows + part.num_rows > most:
                yield _joined(waiting)
                waiting, rows = [], 0
            waiting.append(part)
            rows += part.num_rows
    if rows:
        yield _joined(waiting)


def _joined(batches: Sequence[pa.RecordBatch]) -> pa.Table:
    table = pa.Table.from_batches(batches)
    try:
        return table.combine_chunks()
    except pa.ArrowException as error:  # of two dictionaries there may be too many values for one
        for field, column in zip(table.schema, table.columns, strict=True):
            try:
                pa.table([column], names=["c"]).combine_chunks()
            except pa.ArrowException:
                raise _unlike(f"column {field.name!r} ({field.type})", f"cannot be kept ({error})") from error
        raise


def _verify(made: _Made, of_pandas: Any) -> None:
    """Raise unless a segment gives back what was put: as a table, as messages, as a frame of pandas."""
    value, part, start, _ = made
    try:
        table = stream.decode(value, None, part.num_rows)
    except Exception as error:
        raise _unlike(_culprit(part), f"cannot be read again ({error})") from error
    for field, back, column, again in zip(part.schema, table.schema, part.columns, table.columns, strict=True):
        if not field.equals(back, check_metadata=True) or not stream.same(column, again):
            raise _unlike(f"column {field.name!r} ({field.type})", "would not come back as it is")
        try:
            python.check(again, field)
        except Exception as error:
            raise _unlike(
                f"column {field.name!r} ({field.type})",
                f"has values that a message cannot have ({error})",
            ) from error
    if of_pandas is not None:
        from pqlog.frames import pandas_table

        note = notes.frame_note_of(table.schema)
        assert note is not None
        try:
            frame = pandas_table.from_table(table, note, start)
            part_of = of_pandas.iloc[start : start + part.num_rows]
            changed = pandas_table.difference(part_of, frame)
        except Exception as error:  # an extension dtype may raise anything
            raise _unlike("the frame", f"cannot be made again ({type(error).__name__}: {error})") from error
        if changed is not None:
            raise _unlike(changed, "would not come back as it is")


def _unlike(what: str, how: str) -> EncodeError:
    return EncodeError(f"{what} {how}. Convert it first", value_type="DataFrame", codec="arrow")
