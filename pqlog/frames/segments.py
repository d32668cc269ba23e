"""Segments: a frame's messages as one piece of bytes, an Arrow IPC stream. Here they are read; writer.py makes them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pqlog.errors import DecodeError, Error, StoreError
from pqlog.frames import dtypes, keys, notes, stream
from pqlog.frames.parse import without_pickles
from pqlog.keys import KEY
from pqlog.store.values import Row

CALL, START = b"pqlog.call", b"pqlog.row"
"""In a segment's schema metadata: of which call's frame it is a part, and the number of its first row there."""
HIDDEN = b"pqlog.hidden"
"""In a field's metadata: that the messages do not have this field. It is an index without a name."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Of which call's frame a table is a part."""

    call: bytes
    start: int
    """The number of its first row there."""


def read(row: Row, topic: str, columns: frozenset[str] | None = None) -> pa.Table:
    """The part of a segment that was asked for; of its columns those, if given."""
    wanted = None if columns is None else columns | ({row.key} if row.key is not None else set())
    with told(topic, row.offset):
        return _part(stream.decode, row, wanted)


def _part(decode: Callable[[bytes, frozenset[str] | None, int], pa.Table], row: Row, wanted: Any) -> pa.Table:
    table = decode(row.value, wanted, row.whole or 0)
    if row.key is not None and row.key not in table.schema.names:
        raise ValueError(f"it has no field {row.key!r}, which is to be the key")
    _check_metadata(table.schema)
    return without_pickles(table.slice(row.skip, row.rows))


_decode_kept = functools.lru_cache(maxsize=2)(stream.decode)
"""For readers of single messages, who ask for the same segment again and again."""


@contextlib.contextmanager
def told(topic: str, offset: int) -> Iterator[None]:
    """Whatever is raised by what a segment holds, as an error of ours: it may come from anybody."""
    try:
        yield
    except Error:
        raise
    except MemoryError as error:
        raise StoreError(f"there is not enough memory for the segment at offset {offset} of topic {topic!r}") from error
    except Exception as error:  # Arrow, pandas and NumPy raise anything
        raise DecodeError(topic, offset, f"its segment is damaged: {type(error).__name__}: {error}") from error


def _check_metadata(schema: pa.Schema) -> None:
    """Raise if the notes on a table are of another form than those of `segments_of`."""
    metadata = schema.metadata or {}
    if CALL in metadata and not metadata[START].isdigit():
        raise ValueError("its place in a frame is no number")
    notes.frame_note_of(schema)
    for field in schema:
        notes.note_of(field)


def origin(table: pa.Table, row: Row) -> Origin | None:
    """Where a table that was read from `row` comes from."""
    metadata = table.schema.metadata or {}
    if CALL not in metadata:
        return None
    return Origin(metadata[CALL], int(metadata[START]) + row.skip)


def is_hidden(field: pa.Field) -> bool:
    return HIDDEN in (field.metadata or {})


def visible(table: pa.Table) -> pa.Table:
    """The columns that are fields of the messages."""
    shown = [name for field, name in zip(table.schema, table.schema.names, strict=True) if not is_hidden(field)]
    return table if len(shown) == table.num_columns else table.select(shown)


def unpack(row: Row, topic: str) -> tuple[Sequence[str | None] | None, Sequence[Any]]:
    """The keys (None if it has none) and the values, as dicts, of a segment's part."""
    with told(topic, row.offset):
        table = _part(_decode_kept, row, None)
        texts = key_texts(table, row)
        found = None if texts is None else texts.to_pylist()
        shown = visible(table)
        columns = [dtypes.python_values(*pair) for pair in zip(shown.columns, shown.schema, strict=True)]
        if not columns:
            return found, [{} for _ in range(table.num_rows)]
        names = shown.schema.names
        return found, [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def key_texts(table: pa.Table, row: Row) -> pa.ChunkedArray | None:
    """The keys of a table that was read from `row`; None if it has none."""
    if row.key is None:
        return None
    index = table.schema.get_field_index(row.key)
    return keys.texts(table.column(index), table.schema.field(index), KEY)


def cut(row: Row, topic: str) -> bytes:
    """The part of a segment that was asked for, as a segment of its own: with its dtypes, without its place."""
    with told(topic, row.offset):
        table = _part(_decode_kept, row, None)
        metadata = {name: note for name, note in (table.schema.metadata or {}).items() if name not in (CALL, START)}
        return stream.encode(table.replace_schema_metadata(metadata))
