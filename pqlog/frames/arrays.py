"""Arrow arrays: what Arrow's own functions do for some types only, and comparison to the last bit."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pqlog.frames.arrow_types import without_views


def single_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column as one array."""
    if isinstance(column, pa.Array):
        return column
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks or [pa.nulls(0, column.type)])


def identical_columns(one: pa.ChunkedArray, other: pa.ChunkedArray) -> bool:
    """Whether two columns are the same to the last bit; in Arrow, a NaN does not equal itself."""
    return bool(one.equals(other)) or (len(one) == len(other) and _identical(single_array(one), single_array(other)))


def _identical(one: pa.Array, other: pa.Array) -> bool:
    of, is_ = one.type, pa.types
    if of != other.type or len(one) != len(other):
        return False
    if is_.is_floating(of):
        bits = {16: pa.uint16(), 32: pa.uint32(), 64: pa.uint64()}[of.bit_width]
        return bool(one.view(bits).equals(other.view(bits)))
    if one.equals(other):
        return True
    if isinstance(one, pa.ExtensionArray):
        return _identical(one.storage, other.storage)
    if is_.is_dictionary(of):
        return bool(one.indices.equals(other.indices)) and _identical(one.dictionary, other.dictionary)
    if is_.is_struct(of):
        return bool(one.is_valid().equals(other.is_valid())) and all(map(_identical, one.flatten(), other.flatten()))
    if is_.is_list(of) or is_.is_large_list(of) or is_.is_fixed_size_list(of):
        lengths = pc.list_value_length(one), pc.list_value_length(other)
        return bool(lengths[0].equals(lengths[1])) and _identical(one.flatten(), other.flatten())
    return bool(of.num_fields) and repr(one.to_pylist()) == repr(other.to_pylist())


def filter_rows(columns: Any, mask: Any) -> Any:
    """The rows of an array, a column or a table where `mask` is true; Arrow's own filter lacks some types."""
    if isinstance(columns, pa.Table):
        if not columns.num_columns:
            return columns.filter(mask)
        filtered = [filter_rows(column, mask) for column in columns.columns]
        return pa.Table.from_arrays(filtered, schema=columns.schema)
    plain = without_views(columns.type)
    try:
        return columns.filter(mask) if plain == columns.type else columns.cast(plain).filter(mask).cast(columns.type)
    except pa.ArrowNotImplementedError:  # then row by row
        rows = [index for index, selected in enumerate(mask.to_pylist()) if selected]
        parts = [columns.slice(row, 1) for row in rows] or [columns.slice(0, 0)]
        if isinstance(columns, pa.Array):
            return pa.concat_arrays(parts)
        return pa.chunked_array([pa.concat_arrays([single_array(part) for part in parts])])


def take_rows(table: pa.Table, rows: Any) -> pa.Table:
    """Some rows of a table, given by their numbers; Arrow's own take lacks some types."""
    indices = pa.array(rows)
    return pa.Table.from_arrays([take_column(column, indices) for column in table.columns], schema=table.schema)


def take_column(column: pa.ChunkedArray, indices: pa.Array) -> pa.ChunkedArray:
    """The same of one column."""
    plain = without_views(column.type)
    try:
        return column.take(indices) if plain == column.type else column.cast(plain).take(indices).cast(column.type)
    except pa.ArrowNotImplementedError:  # then row by row
        array = single_array(column)
        parts = [array.slice(row, 1) for row in indices.to_pylist()]
        return pa.chunked_array([pa.concat_arrays(parts)], column.type)


def decode_dictionary(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The values of a column of a dictionary; Arrow's own cast and take lack some types."""
    of = column.type.value_type
    plain = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}.get(of, of)
    chunks = [chunk.dictionary.cast(plain).take(chunk.indices) for chunk in column.chunks]
    return pa.chunked_array(chunks, plain).cast(of)
