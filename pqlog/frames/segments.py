"""Reading segments: the messages of a frame in one Arrow IPC stream. Writing them is in writer.py."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from pqlog.errors import DecodeError, Error, StoreError
from pqlog.frames import dtypes, ipc, keys, notes
from pqlog.frames.columns import unused_name, without_pickle_marks
from pqlog.keys import KEY
from pqlog.store.values import Row

CALL, START = b"pqlog.call", b"pqlog.row"
"""In a segment's schema metadata: the call whose frame it is a part of, and the number of its first row there."""
HIDDEN = b"pqlog.hidden"
"""In a field's metadata: messages do not have this field. It is an index without a name."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The part of a frame that a table is."""

    call: bytes
    """Identifies the call that put the frame."""
    start: int
    """The number of its first row in the frame."""


def read(row: Row, topic: str, columns: frozenset[str] | None = None) -> pa.Table:
    """The part of a segment that a row refers to; only some of its columns if given."""
    wanted = None if columns is None else columns | ({row.key} if row.key is not None else set())
    with row_errors(topic, row):
        return _part(ipc.decode, row, wanted)


def check(row: Row, topic: str) -> None:
    """Raise `DecodeError` unless a row can be read."""
    table = read(row, topic)
    with row_errors(topic, row):
        key_texts(table, row)


def _part(decode: Callable[[bytes, frozenset[str] | None, int], pa.Table], row: Row, wanted: Any) -> pa.Table:
    table = decode(row.value, wanted, row.whole or 0)
    if row.key is not None and row.key not in table.schema.names:
        raise ValueError(f"it has no field {row.key!r}, which is its key")
    _check_metadata(table.schema)
    return without_pickle_marks(table.slice(row.skip, row.rows))


_decode_cached = functools.lru_cache(maxsize=2)(ipc.decode)
"""For readers of single messages, who read the same segment many times."""


@contextlib.contextmanager
def as_decode_errors(topic: str, offset: int, partition: int | None = None) -> Iterator[None]:
    """Turn exceptions that a segment's content causes into errors of ours: the file may come from anybody."""
    try:
        yield
    except Error:
        raise
    except MemoryError as error:
        raise StoreError(f"there is not enough memory for the segment at offset {offset} of topic {topic!r}") from error
    except Exception as error:  # Arrow, pandas and NumPy raise anything
        raise DecodeError(
            topic, offset, f"its segment is damaged: {type(error).__name__}: {error}", partition
        ) from error


def row_errors(topic: str, row: Row) -> AbstractContextManager[None]:
    """The same for the content of a row."""
    return as_decode_errors(topic, row.partition_offset, row.partition)


def _check_metadata(schema: pa.Schema) -> None:
    """Raise if our metadata of a table is not as `segments_of` makes it."""
    metadata = schema.metadata or {}
    if CALL in metadata and not metadata[START].isdigit():
        raise ValueError("its row number in a frame is not a number")
    notes.frame_note_of(schema)
    for field in schema:
        notes.note_of(field)


def origin(table: pa.Table, row: Row) -> Origin | None:
    """The part of a frame that a table read from `row` is; None if it is not from a frame."""
    metadata = table.schema.metadata or {}
    if CALL not in metadata:
        return None
    return Origin(metadata[CALL], int(metadata[START]) + row.skip)


def with_index(table: pa.Table, start: int = 0) -> pa.Table:
    """A table of pandas with its index as a column if it was a range, some numbers of which will be missing.

    The number of the table's first row in its frame is `start`.
    """
    metadata = table.schema.metadata or {}
    note = notes.frame_note_of(table.schema)
    if note is None:
        return table
    for number, level in enumerate(note.levels):
        level.freq = None
        if level.step is not None and level.field is None:
            first = level.start + start * level.step
            values = first + np.arange(table.num_rows, dtype=np.int64) * level.step
            level.field = unused_name(f"__index_level_{number}__", dict.fromkeys(table.schema.names))
            field = notes.noted(pa.field(level.field, pa.int64()), notes.Note("int64"))
            field = field.with_metadata({**field.metadata, HIDDEN: b"index"})
            table = table.append_column(field, pa.array(values))
        level.step = None
    return table.replace_schema_metadata({**metadata, notes.FRAME: msgspec.json.encode(note)})


def is_hidden(field: pa.Field) -> bool:
    return HIDDEN in (field.metadata or {})


def visible(table: pa.Table) -> pa.Table:
    """The columns that are fields of the messages."""
    names = [name for field, name in zip(table.schema, table.schema.names, strict=True) if not is_hidden(field)]
    return table if len(names) == table.num_columns else table.select(names)


def unpack(row: Row, topic: str) -> tuple[Sequence[str | None] | None, Sequence[Any]]:
    """The keys (None if it has none) and the values, as dicts, of the part of a segment that a row refers to."""
    with row_errors(topic, row):
        table = _part(_decode_cached, row, None)
        texts = key_texts(table, row)
        message_keys = None if texts is None else texts.to_pylist()
        fields = visible(table)
        columns = [dtypes.python_values(*pair) for pair in zip(fields.columns, fields.schema, strict=True)]
        if not columns:
            return message_keys, [{} for _ in range(table.num_rows)]
        names = fields.schema.names
        return message_keys, [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def key_texts(table: pa.Table, row: Row) -> pa.ChunkedArray | None:
    """The keys of a table read from `row`; None if it has none."""
    if row.key is None:
        return None
    index = table.schema.get_field_index(row.key)
    return keys.texts(table.column(index), table.schema.field(index), KEY)


def cut(row: Row, topic: str, in_frame: bool = False) -> bytes:
    """The part of a segment that a row refers to as a segment of its own.

    With `in_frame` it stays a part of its frame: a copy of the log then gives the same frame.
    """
    with row_errors(topic, row):
        table = _part(_decode_cached, row, None)
        metadata = dict(table.schema.metadata or {})
        if START in metadata:
            metadata[START] = b"%d" % (int(metadata[START]) + row.skip)
        if not in_frame:
            metadata = {name: note for name, note in metadata.items() if name not in (CALL, START)}
        return ipc.encode(table.replace_schema_metadata(metadata))
