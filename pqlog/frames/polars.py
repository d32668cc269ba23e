"""Arrow tables as polars frames."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from pqlog import extras
from pqlog.errors import ArgumentError
from pqlog.frames.columns import make_table


def from_table(table: pa.Table) -> Any:
    """The polars frame of an Arrow table.

    Raises
    ------
    ArgumentError
        polars has no type for a column, which the error names.
    """
    polars = extras.package("polars")
    table = make_table(list(map(_without_binary_metadata, table.schema)), table.columns, table.num_rows)
    if any(_has_arrays(field.type) for field in table.schema):
        table = _without_offsets(table)
    try:
        return polars.from_arrow(table)
    except BaseException as error:  # polars' panics derive from BaseException
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


def _without_binary_metadata(field: pa.Field) -> pa.Field:
    """A field without metadata that is not UTF-8, for which polars panics."""
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
    """The same table in new buffers: polars misreads the nulls in a slice of a column of arrays."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return pa.ipc.open_stream(sink.getvalue()).read_all()
