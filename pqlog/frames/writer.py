"""Writing segments: a frame is encoded, decoded again and compared with the original before any of it is stored."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from pqlog.errors import ArgumentError, EncodeError
from pqlog.frames import inputs, ipc, keys, notes
from pqlog.frames.arrays import filter_rows, identical_columns
from pqlog.frames.arrow_types import check_types
from pqlog.frames.background import submit
from pqlog.frames.columns import unused_name
from pqlog.frames.representable import check_representable
from pqlog.frames.segments import CALL, HIDDEN, START, is_hidden
from pqlog.keys import ID, KEY, RefusedError
from pqlog.store.values import Segment

SEGMENT_ROWS = ipc.MAX_ROWS
"""Messages in a segment at most; to read a single message, all of its segment is decoded."""
SEGMENT_BYTES = 64 << 20
"""What a segment's messages take in memory at most; a segment with long values has fewer messages."""


def segments_of(
    frame: Any, key: str | None, headers: str | None, ids: str | None = None, index: bool = True
) -> Iterator[tuple[Segment, list[str] | None]]:
    """The segments of a frame, each with the ids of its messages if they have any.

    Each has been decoded again and compared with the frame.

    Parameters
    ----------
    frame : pandas.DataFrame, or object with ``__arrow_c_stream__``
        The latter is read as a stream, which need not fit into memory.
    key : str or None
        The field that is the messages' key.
    headers : str or None
        JSON text.
    ids : str, optional
        The field that is the messages' id.
    index : bool
        Whether to include a pandas index that only numbers the rows.

    Raises
    ------
    EncodeError
        A column would not come back as it is; or a value of the field `key` cannot be a key, or one of `ids` an id.
    ArgumentError
        There is no field `key` or `ids`, or several columns have the same name.
    """
    pandas_frame = inputs.pandas_frame(frame, index)
    reader = inputs.stream_of(frame) if pandas_frame is None else inputs.from_pandas(pandas_frame)
    _check_schema(reader.schema, key, ids)
    for encoded in _verified(_encoded_segments(reader, key, ids), pandas_frame):
        yield Segment(encoded.value, encoded.table.num_rows, key, headers), encoded.ids


def _check_schema(schema: pa.Schema, key: str | None, ids: str | None) -> None:
    try:
        check_types(schema)
    except ValueError as error:
        raise EncodeError(f"{error}. Convert it before you put it", value_type="DataFrame", codec="arrow") from error
    names = [name for field, name in zip(schema, schema.names, strict=True) if not is_hidden(field)]
    for option, name in (("key", key), ("ids", ids)):
        if name is not None and name not in names:
            raise ArgumentError(f"{option}={name!r} is not a field of the frame: it has {', '.join(map(repr, names))}")
    if len(set(names)) < len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise ArgumentError(f"the frame has several columns named {', '.join(map(repr, repeated))}: rename them")


class _Encoded(NamedTuple):
    """An encoded segment, not verified yet."""

    value: bytes
    table: pa.Table
    """What was encoded."""
    start: int
    """The number of its first row in the frame."""
    ids: list[str] | None


def _verified(segments: Iterator[_Encoded], pandas_frame: Any) -> Iterator[_Encoded]:
    """Verify segments, each in another thread while the next one is encoded."""
    first, second = next(segments, None), next(segments, None)
    if first is None:
        return
    if second is None:
        _verify(first, pandas_frame)
        yield first
        return
    with ThreadPoolExecutor(1, thread_name_prefix="pqlog-verify") as executor:
        encoded, verification = first, submit(executor, _verify, first, pandas_frame)
        for following in itertools.chain([second], segments):
            next_verification = submit(executor, _verify, following, pandas_frame)
            verification.result()
            yield encoded
            encoded, verification = following, next_verification
        verification.result()
        yield encoded


def _encoded_segments(reader: pa.RecordBatchReader, key: str | None, ids: str | None) -> Iterator[_Encoded]:
    """The segments of one call."""
    call = secrets.token_hex(8).encode()
    start = 0
    for part in _parts(reader):
        if key is not None:
            _texts(part, key, KEY, start)
        texts = None if ids is None else _texts(part, ids, ID, start).to_pylist()
        first = start
        for value, rows in _encode(part, call, start):
            skip = start - first
            yield _Encoded(value, part.slice(skip, rows), start, None if texts is None else texts[skip : skip + rows])
            start += rows


def _texts(part: pa.Table, name: str, what: str, start: int) -> pa.ChunkedArray:
    """The keys or ids of a part that begins with row `start` of its frame; raises if a value cannot be one."""
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
        1 for each message to keep; None for all, if other segments of the same frame lose some.
    start : int
        How many messages of earlier segments are kept: the number of this segment's first row in the frame.
    """
    table = _with_index(ipc.decode(segment.value, None, segment.rows))
    if mask is not None:
        table = filter_rows(table, pa.array(list(map(bool, mask)))).combine_chunks()
    first = start
    for value, rows in _encode(table, (table.schema.metadata or {})[CALL], start):
        _verify(_Encoded(value, table.slice(start - first, rows), start, None), None)
        yield Segment(value, rows, segment.key, segment.headers)
        start += rows


def _with_index(table: pa.Table) -> pa.Table:
    """A table of pandas with its index as a column if it was a range, some numbers of which will be missing."""
    metadata = table.schema.metadata or {}
    note = notes.frame_note_of(table.schema)
    if note is None:
        return table
    for number, level in enumerate(note.levels):
        level.freq = None
        if level.step is not None and level.field is None:
            first = level.start + int(metadata[START]) * level.step
            values = range(first, first + table.num_rows * level.step, level.step)
            level.field = unused_name(f"__index_level_{number}__", dict.fromkeys(table.schema.names))
            field = notes.noted(pa.field(level.field, pa.int64()), notes.Note("int64"))
            field = field.with_metadata({**field.metadata, HIDDEN: b"index"})
            table = table.append_column(field, pa.array(values, pa.int64()))
        level.step = None
    return table.replace_schema_metadata({**metadata, notes.FRAME: msgspec.json.encode(note)})


def _encode(part: pa.Table, call: bytes, start: int) -> Iterator[tuple[bytes, int]]:
    """A part of a frame as one segment, or as several if one would be too large to be decoded."""
    metadata = {**(part.schema.metadata or {}), CALL: call, START: b"%d" % start}
    try:
        value = ipc.encode(part.replace_schema_metadata(metadata))
    except ipc.TooLargeError as error:
        if part.num_rows == 1:
            raise EncodeError(f"row {start}: {error}; split it", value_type="frame", codec="arrow") from error
        half = part.num_rows // 2
        yield from _encode(part.slice(0, half), call, start)
        yield from _encode(part.slice(half), call, start + half)
    except Exception as error:  # Arrow raises anything
        raise _refusal(_failing_column(part), f"cannot be kept ({error})") from error
    else:
        yield value, part.num_rows


def _failing_column(part: pa.Table) -> str:
    """The column that cannot be encoded."""
    for field in part.schema:
        try:
            ipc.decode(ipc.encode(part.select([field.name])), None)
        except Exception:
            return f"column {field.name!r} ({field.type})"
    return "the frame"


def _parts(reader: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """The rows of a reader in tables of a segment's size."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in reader:
        most = max(1, min(SEGMENT_ROWS, batch.num_rows * SEGMENT_BYTES // max(1, batch.nbytes)))
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
    except pa.ArrowException as error:  # two dictionaries may have too many values for one
        for field, column in zip(table.schema, table.columns, strict=True):
            try:
                pa.table([column], names=["c"]).combine_chunks()
            except pa.ArrowException:
                raise _refusal(f"column {field.name!r} ({field.type})", f"cannot be kept ({error})") from error
        raise


def _verify(encoded: _Encoded, pandas_frame: Any) -> None:
    """Raise unless a segment gives back what was put, as a table and as a pandas frame."""
    original = encoded.table
    try:
        table = ipc.decode(encoded.value, None, original.num_rows)
    except Exception as error:
        raise _refusal(_failing_column(original), f"cannot be read back ({error})") from error
    for index, field in enumerate(original.schema):
        _verify_column(field, original.column(index), table.schema.field(index), table.column(index))
    if pandas_frame is not None:
        _verify_frame(table, pandas_frame.iloc[encoded.start : encoded.start + original.num_rows], encoded.start)


def _verify_column(field: pa.Field, column: pa.ChunkedArray, back: pa.Field, values: pa.ChunkedArray) -> None:
    name = f"column {field.name!r} ({field.type})"
    if not field.equals(back, check_metadata=True) or not identical_columns(column, values):
        raise _refusal(name, "would not come back as it is")
    try:
        check_representable(values, field)
    except Exception as error:
        raise _refusal(name, f"has values that a message cannot have ({error})") from error


def _verify_frame(table: pa.Table, frame: Any, start: int) -> None:
    from pqlog.frames import pandas_table

    note = notes.frame_note_of(table.schema)
    assert note is not None
    try:
        changed = pandas_table.difference(frame, pandas_table.from_table(table, note, start))
    except Exception as error:  # an extension dtype may raise anything
        raise _refusal("the frame", f"cannot be rebuilt ({type(error).__name__}: {error})") from error
    if changed is not None:
        raise _refusal(changed, "would not come back as it is")


def _refusal(what: str, how: str) -> EncodeError:
    return EncodeError(f"{what} {how}. Convert it before you put it", value_type="DataFrame", codec="arrow")
