"""A selection of a topic as a polars frame."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from pqlog import extras
from pqlog.errors import ArgumentError
from pqlog.frames import parse


def from_table(table: pa.Table) -> Any:
    """The polars frame of an Arrow table.

    Raises
    ------
    ArgumentError
        polars has no type for a column, which is named.
    """
    polars = extras.package("polars")
    table = parse.rows_table(list(map(_readable, table.schema)), table.columns, table.num_rows)
    if any(_has_arrays(field.type) for field in table.schema):
        table = _without_offsets(table)
    try:
        return polars.from_arrow(table)
    except BaseException as error:  # of Rust's panics polars makes one that is no Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError)):
            raise
        for field in table.schema:
            try:
                polars.from_arrow(table.select([field.name]))
            except BaseException as reason:
                if isinstance(reason, (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError)):
                    raise
                raise ArgumentError(
                    f"polars cannot hold the column {field.name!r} ({field.type}): {reason}. Leave it out with "
                    f"columns=, or use to_arrow() or to_pandas()"
                ) from reason
        raise


def _readable(field: pa.Field) -> pa.Field:
    """A field without metadata that are no text, of which polars makes a panic."""
    metadata = field.metadata or {}
    try:
        b"".join([*metadata, *metadata.values()]).decode()
    except UnicodeDecodeError:
        return field.remove_metadata()
    return field


def _has_arrays(of: pa.DataType) -> bool:
    children = [of.field(index).type for index in range(of.num_fields)]
    return pa.types.is_fixed_size_list(of) or any(map(_has_arrays, children))


def _without_offsets(table: pa.Table) -> pa.Table:
    """The same table in buffers of its own: polars misreads the nulls of a part of a column of arrays."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return pa.ipc.open_stream(sink.getvalue()).read_all()
