"""Segments: a frame's messages as one piece of bytes, an Arrow IPC stream, and back."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from pqlog.errors import ArgumentError, DecodeError, EncodeError
from pqlog.store.api import Row, Segment

ROWS = 65_536
"""Messages in a segment at most: what one reader decodes to get at a single one."""

_OPTIONS = pa.ipc.IpcWriteOptions(compression="zstd")


def segments(frame: Any, key: str | None, headers: str | None) -> Iterator[Segment]:
    """The segments of a pandas, polars or Arrow frame.

    Parameters
    ----------
    frame : object with ``__arrow_c_stream__``
    key : str or None
        The field that is each message's key.
    headers : str or None
        JSON text.

    Raises
    ------
    EncodeError
        A column has objects that Arrow has no type for.
    ArgumentError
        There is no field `key`.
    """
    table = _table(frame)
    if key is not None and key not in table.schema.names:
        raise ArgumentError(f"key={key!r} is no field of the frame: it has {', '.join(map(repr, table.schema.names))}")
    for batch in table.combine_chunks().to_batches(max_chunksize=ROWS):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema, options=_OPTIONS) as writer:
            writer.write_batch(batch)
        yield Segment(sink.getvalue().to_pybytes(), batch.num_rows, key, headers)


def _table(frame: Any) -> pa.Table:
    if type(frame).__module__.partition(".")[0] == "pandas":
        if frame.columns.nlevels > 1:
            raise ArgumentError("the frame has columns of several levels: flatten their names first")
        try:
            return pa.Table.from_pandas(frame)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            reason = f"{'; '.join(map(str, error.args))}. Convert that column, or put frame.to_dict('records')"
            raise EncodeError(reason, value_type="DataFrame", codec="arrow") from error
    return pa.table(frame)


def read(row: Row, topic: str) -> pa.Table:
    """The part of a segment that was asked for."""
    try:
        return _open(row.id, row.value).slice(row.skip, row.rows)
    except (pa.ArrowException, OSError) as error:
        raise DecodeError(topic, row.offset, f"its segment is damaged: {error}") from error


@functools.lru_cache(maxsize=2)
def _open(id: int, value: bytes) -> pa.Table:
    return pa.ipc.open_stream(value).read_all()


def unpack(row: Row, topic: str) -> tuple[Sequence[str | None] | None, Sequence[Any]]:
    """The keys (None if it has none) and the values, as dicts, of a segment's part."""
    table = read(row, topic)
    keys = None if row.key is None else text_keys(table.column(row.key)).to_pylist()
    fields = [name for name in table.schema.names if not name.startswith("__index_level_")]
    return keys, table.select(fields).to_pylist()


def text_keys(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A key column as text."""
    return column if pa.types.is_string(column.type) else column.cast(pa.string())
