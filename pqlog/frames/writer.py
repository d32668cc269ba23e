"""Writing segments: a frame is encoded, decoded again and compared with the original before any of it is stored."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pqlog.errors import ArgumentError, EncodeError, Error, TooLargeError
from pqlog.frames import inputs, ipc, keys, notes, partitioning
from pqlog.frames.arrays import filter_rows, identical_columns, take_rows
from pqlog.frames.arrow_types import check_types
from pqlog.frames.background import submit
from pqlog.frames.representable import check_representable
from pqlog.frames.segments import CALL, START, is_hidden, key_texts, read, row_errors, with_index
from pqlog.keys import ID, KEY, RefusedError
from pqlog.partitioning import Partitioner
from pqlog.store.values import Row, Segment

SEGMENT_ROWS = ipc.MAX_ROWS
"""Messages in a segment at most; to read a single message, all of its segment is decoded."""
MIN_THREADED_ROWS = 5_000
"""To verify a smaller segment takes hardly longer than to give it to a thread."""
MAX_BYTES, NOTES_BYTES = 1 << 40, 100
"""How large a segment may be where nothing is said; and what a topic needs beside it."""
SEGMENT_BYTES = 64 << 20
"""What a segment's messages take in memory at most; a segment with long values has fewer messages."""


def segments_of(
    frame: Any,
    partitioner: Partitioner,
    key: str | None,
    headers: str | None,
    ids: str | None = None,
    index: bool = True,
) -> Iterator[tuple[int, Segment, list[str] | None]]:
    """The segments of a frame, each with its partition, and with the ids of its messages if they have any.

    Each has been decoded again and compared with the frame.

    Parameters
    ----------
    frame : pandas.DataFrame, or object with ``__arrow_c_stream__``
        The latter is read as a stream, which need not fit into memory.
    partitioner : Partitioner
        What the messages are put into. A pandas frame for several partitions is as if it had been sorted by them.
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
    reader = inputs.stream_of(frame) if pandas_frame is None else inputs.from_pandas(pandas_frame).to_reader()
    _check_schema(reader.schema, key, ids)
    if pandas_frame is None or partitioner.partitions == 1:
        parts = _parts(reader, key, ids, partitioner)
    else:
        table = reader.read_all()
        partitions = _partitions_of(table, key, 0, partitioner)
        if len(np.unique(partitions)) > 1:
            table, pandas_frame = with_index(table), inputs.with_plain_index(pandas_frame)
        parts = _cut(table, partitions, ids, 0)
    most = MAX_BYTES if partitioner.max_bytes is None else partitioner.max_bytes
    most -= NOTES_BYTES + len(key or "") + len(headers or "")
    for encoded in _verified(_encoded_segments(parts, most), pandas_frame):
        part = encoded.part
        its_ids = None if part.ids is None else part.ids.to_pylist()
        yield part.partition, Segment(encoded.value, part.table.num_rows, key, headers), its_ids


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


class _Part(NamedTuple):
    """Rows of a frame that are put together."""

    partition: int
    table: pa.Table
    rows: range | Any
    """Their numbers in the frame; an array of NumPy if others lie in between."""
    ids: pa.ChunkedArray | None

    def slice(self, start: int, rows: int) -> _Part:
        """Some of these."""
        ids = None if self.ids is None else self.ids.slice(start, rows)
        return _Part(self.partition, self.table.slice(start, rows), self.rows[start : start + rows], ids)


class _Encoded(NamedTuple):
    """An encoded segment, not verified yet."""

    value: bytes
    part: _Part
    """What was encoded."""
    start: int
    """The number of its first row among all that were encoded."""


def _verified(segments: Iterator[_Encoded], pandas_frame: Any) -> Iterator[_Encoded]:
    """Verify segments: large ones each in another thread while the next one is encoded."""
    first = None
    for encoded in segments:
        if encoded.part.table.num_rows >= min(MIN_THREADED_ROWS, SEGMENT_ROWS):
            first = encoded
            break
        _verify(encoded, pandas_frame)
        yield encoded
    if first is None:
        return
    second = next(segments, None)
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


def _encoded_segments(parts: Iterable[_Part], most_bytes: int) -> Iterator[_Encoded]:
    """The segments of one call, none of them larger than that."""
    call = secrets.token_hex(8).encode()
    start = 0
    for part in parts:
        for encoded in _encode(part, call, start, most_bytes):
            yield encoded
            start += encoded.part.table.num_rows


def _parts(reader: pa.RecordBatchReader, key: str | None, ids: str | None, partitioner: Partitioner) -> Iterator[_Part]:
    """The rows of a stream; for several partitions, they are cut out of as many rows as a few segments have."""
    start = 0
    is_cut = key is not None and partitioner.partitions > 1
    for table in _tables(reader, SEGMENT_ROWS * (partitioner.partitions if is_cut else 1)):
        if is_cut:
            yield from _cut(table, _partitions_of(table, key, start, partitioner), ids, start)
        else:
            if key is not None:
                _texts(table, key, KEY, start)
            texts = None if ids is None else _texts(table, ids, ID, start)
            rows = range(start, start + table.num_rows)
            yield _Part(partitioner.next_for(table.num_rows), table, rows, texts)
        start += table.num_rows


def _partitions_of(table: pa.Table, key: str | None, start: int, partitioner: Partitioner) -> Any:
    """The partition of each row of a table that begins with row `start` of its frame."""
    if key is None:
        return partitioning.runs(table.num_rows, _rows_of_a_segment(table), partitioner)
    return partitioning.partitions_of(_texts(table, key, KEY, start), partitioner)


def _cut(table: pa.Table, partitions: Any, ids: str | None, start: int) -> Iterator[_Part]:
    """The rows of such a table, those of each partition together."""
    texts = None if ids is None else _texts(table, ids, ID, start)
    for partition, rows in partitioning.rows_by_partition(partitions, _rows_of_a_segment(table)):
        if isinstance(rows, range):
            whole = _Part(partition, table, range(start, start + table.num_rows), texts)
            yield whole.slice(rows.start, len(rows))
        else:
            yield _Part(partition, take_rows(table, rows), start + rows, None if texts is None else texts.take(rows))


def _rows_of_a_segment(table: pa.Table | pa.RecordBatch, most: int = 0) -> int:
    """How many rows of a table make a segment; or at most `most` rows that take as much memory."""
    rows: int = min(most or SEGMENT_ROWS, table.num_rows * SEGMENT_BYTES // max(1, table.nbytes))
    return max(1, rows)


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
    table = ipc.decode(segment.value, None, segment.rows)
    metadata = table.schema.metadata or {}
    table = with_index(table, int(metadata[START]))
    if mask is not None:
        table = filter_rows(table, pa.array(list(map(bool, mask)))).combine_chunks()
    for encoded in _encode(_Part(0, table, range(start, start + table.num_rows), None), metadata[CALL], start):
        _verify(encoded, None)
        yield Segment(encoded.value, encoded.part.table.num_rows, segment.key, segment.headers)


def with_key(row: Row, topic: str, key: str) -> Row | None:
    """The messages of a row that have a key, as a segment of their own; None if none has it, the row if all have it."""
    table = read(row, topic)
    with row_errors(topic, row):
        texts = key_texts(table, row)
        has_key = [] if texts is None else [text == key for text in texts.to_pylist()]
        if not any(has_key):
            return None
        if all(has_key):
            return row
        metadata = dict(table.schema.metadata or {})
        start = int(metadata.get(START, 0)) + row.skip
        table = filter_rows(with_index(table, start), pa.array(has_key)).combine_chunks()
        if START in metadata:
            metadata = dict(table.schema.metadata or {}) | {START: b"%d" % (start + has_key.index(True))}
            table = table.replace_schema_metadata(metadata)
        rows = table.num_rows
        return row._replace(
            offset=row.offset + has_key.index(True), value=ipc.encode(table), rows=rows, skip=0, whole=rows
        )


def _encode(part: _Part, call: bytes, start: int, most_bytes: int = MAX_BYTES) -> Iterator[_Encoded]:
    """A part of a frame as one segment, or as several if one would be too large to be decoded, or to be put."""
    table = part.table
    metadata = {**(table.schema.metadata or {}), CALL: call, START: b"%d" % start}
    try:
        value = ipc.encode(table.replace_schema_metadata(metadata))
    except ipc.TooLargeError as error:
        problem: Error = EncodeError(f"row {part.rows[0]}: {error}; split it", value_type="frame", codec="arrow")
    except Exception as error:  # Arrow raises anything
        raise _refusal(_failing_column(table), f"cannot be kept ({error})") from error
    else:
        if len(value) <= most_bytes:
            yield _Encoded(value, part, start)
            return
        problem = TooLargeError(
            f"row {part.rows[0]} of the frame takes {len(value):,} bytes, and the topic takes {most_bytes:,} at most. "
            f"Nothing was put: split it"
        )
    if table.num_rows == 1:
        raise problem
    half = table.num_rows // 2
    yield from _encode(part.slice(0, half), call, start, most_bytes)
    yield from _encode(part.slice(half, table.num_rows - half), call, start + half, most_bytes)


def _failing_column(part: pa.Table) -> str:
    """The column that cannot be encoded."""
    for field in part.schema:
        try:
            ipc.decode(ipc.encode(part.select([field.name])), None)
        except Exception:
            return f"column {field.name!r} ({field.type})"
    return "the frame"


def _tables(reader: pa.RecordBatchReader, most_rows: int) -> Iterator[pa.Table]:
    """The rows of a reader in tables of at most `most_rows`, and of a segment's size in memory."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in reader:
        most = _rows_of_a_segment(batch, most_rows)
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
    original = encoded.part.table
    try:
        table = ipc.decode(encoded.value, None, original.num_rows)
    except Exception as error:
        raise _refusal(_failing_column(original), f"cannot be read back ({error})") from error
    for index, field in enumerate(original.schema):
        _verify_column(field, original.column(index), table.schema.field(index), table.column(index))
    if pandas_frame is not None:
        _verify_frame(table, pandas_frame, encoded.part.rows, encoded.start)


def _verify_column(field: pa.Field, column: pa.ChunkedArray, back: pa.Field, values: pa.ChunkedArray) -> None:
    name = f"column {field.name!r} ({field.type})"
    if not field.equals(back, check_metadata=True) or not identical_columns(column, values):
        raise _refusal(name, "would not come back as it is")
    try:
        check_representable(values, field)
    except Exception as error:
        raise _refusal(name, f"has values that a message cannot have ({error})") from error


def _verify_frame(table: pa.Table, pandas_frame: Any, rows: range | Any, start: int) -> None:
    from pqlog.frames import pandas_table

    is_slice = isinstance(rows, range)
    frame = pandas_frame.iloc[rows.start : rows.stop] if is_slice else pandas_table.take(pandas_frame, rows)
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
