"""A table as an Arrow IPC stream, and the way back, for streams from anybody.

Arrow trusts what it reads: offsets that point beyond their buffer kill the process, and a few kilobytes may say that
they are many gigabytes. So a stream is looked at before it is decompressed, and its table before anything uses it. What
`encode` accepts, `decode` gives back: both have the same limits.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MOST_ROWS = 65_536
"""In a stream."""
MOST_BYTES = 1_000_000_000
"""What a table may take: in Arrow's form, and with each of its values written out. SQLite keeps no larger value."""

_OPTIONS = pa.ipc.IpcWriteOptions(compression="zstd")


class TooLargeError(ValueError):
    """A table takes more than `MOST_BYTES`."""


def encode(table: pa.Table) -> bytes:
    """The stream of a table; raises `TooLargeError`."""
    check_types(table.schema)
    table = _compact(table)
    _check_expanded(table)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_OPTIONS) as writer:
        writer.write_table(table)
    stream: bytes = sink.getvalue().to_pybytes()
    _check_declared(stream)
    return stream


def decode(stream: bytes, columns: frozenset[str] | None, rows: int | None = None) -> pa.Table:
    """The table of a stream; of its columns those, if given. `rows` is how many it is said to have, if that is known.

    Raises
    ------
    Exception
        Of any kind: it is no stream, not of so many rows, too large, or contradicts itself.
    """
    declared = _check_declared(stream)
    if rows is None:
        rows = declared
    if rows > MOST_ROWS or declared != rows:
        raise ValueError(f"it has {declared:,} rows, not {rows:,}")
    reader = pa.ipc.open_stream(stream)
    check_types(reader.schema)
    names = reader.schema.names
    if len(set(names)) < len(names):
        raise ValueError("it has two columns of one name")
    if columns is not None:
        which = [index for index, name in enumerate(names) if name in columns]
        if len(which) < len(names):
            which = which or [0]  # an empty list would mean all
            reader = pa.ipc.open_stream(stream, options=pa.ipc.IpcReadOptions(included_fields=which))
    table = reader.read_all()
    table.validate(full=True)
    _check_expanded(table)
    return table


def same(one: pa.ChunkedArray, other: pa.ChunkedArray) -> bool:
    """Whether two columns are the same to the last bit; Arrow takes no NaN for equal to itself."""
    return bool(one.equals(other)) or (len(one) == len(other) and _same(in_one(one), in_one(other)))


def in_one(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """The values of a column in one array."""
    if isinstance(column, pa.Array):
        return column
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks or [pa.nulls(0, column.type)])


def _same(one: pa.Array, other: pa.Array) -> bool:
    of, is_ = one.type, pa.types
    if of != other.type or len(one) != len(other):
        return False
    if is_.is_floating(of):
        bits = {16: pa.uint16(), 32: pa.uint32(), 64: pa.uint64()}[of.bit_width]
        return bool(one.view(bits).equals(other.view(bits)))
    if one.equals(other):
        return True
    if isinstance(one, pa.ExtensionArray):
        return _same(one.storage, other.storage)
    if is_.is_dictionary(of):
        return bool(one.indices.equals(other.indices)) and _same(one.dictionary, other.dictionary)
    if is_.is_struct(of):
        return bool(one.is_valid().equals(other.is_valid())) and all(map(_same, one.flatten(), other.flatten()))
    if is_.is_list(of) or is_.is_large_list(of) or is_.is_fixed_size_list(of):
        lengths = pc.list_value_length(one), pc.list_value_length(other)
        return bool(lengths[0].equals(lengths[1])) and _same(one.flatten(), other.flatten())
    return bool(of.num_fields) and repr(one.to_pylist()) == repr(other.to_pylist())


def check_types(schema: pa.Schema) -> None:
    """Raise for types that Arrow has, but cannot compute with in all places where it has to."""
    for field in schema:
        odd = _odd(field.type)
        if odd is not None:
            raise ValueError(f"column {field.name!r} ({field.type}): Arrow supports the type {odd} only in part")


def _odd(of: pa.DataType) -> str | None:
    """The first type within a type that is refused; None if there is none."""
    is_ = pa.types
    if isinstance(of, pa.BaseExtensionType):
        return _odd(of.storage_type)
    if is_.is_dictionary(of):
        return None if is_plain(of.value_type) else str(of)
    children = [of.field(index).type for index in range(of.num_fields)]
    if is_.is_list_view(of) or is_.is_large_list_view(of):
        return None if is_plain(of.value_type) else str(of)
    if is_.is_union(of) or is_.is_run_end_encoded(of) or (is_.is_fixed_size_list(of) and not of.list_size):
        return str(of)
    return next((odd for child in children if (odd := _odd(child)) is not None), None)


def widest(of: pa.DataType) -> int:
    """How many bytes a null of a type takes."""
    is_ = pa.types
    if isinstance(of, pa.BaseExtensionType):
        return widest(of.storage_type)
    if is_.is_fixed_size_binary(of):
        return int(of.byte_width)
    children = sum(widest(of.field(index).type) for index in range(of.num_fields))
    return max(16, children) * (of.list_size if is_.is_fixed_size_list(of) else 1)


def is_plain(of: pa.DataType) -> bool:
    """Whether a type is neither nested nor rare: one of which there can be a dictionary."""
    is_ = pa.types
    return not isinstance(of, pa.BaseExtensionType) and bool(
        is_.is_integer(of)
        or is_.is_floating(of)
        or is_.is_boolean(of)
        or is_.is_string(of)
        or is_.is_large_string(of)
        or is_.is_string_view(of)
        or is_.is_binary(of)
        or is_.is_large_binary(of)
        or is_.is_binary_view(of)
        or is_.is_fixed_size_binary(of)
        or is_.is_timestamp(of)
        or is_.is_duration(of)
        or is_.is_date(of)
        or is_.is_time(of)
        or is_.is_decimal128(of)
        or is_.is_decimal256(of)
        or is_.is_null(of)
    )


def filtered(columns: Any, mask: Any) -> Any:
    """The rows of an array, a column or a table where `mask` is true; Arrow's own filter does not know all types."""
    if isinstance(columns, pa.Table):
        if not columns.num_columns:
            return columns.filter(mask)
        found = [filtered(column, mask) for column in columns.columns]
        return pa.Table.from_arrays(found, schema=columns.schema)
    plain = _without_views(columns.type)
    try:
        return columns.filter(mask) if plain == columns.type else columns.cast(plain).filter(mask).cast(columns.type)
    except pa.ArrowNotImplementedError:  # one by one
        rows = [index for index, stays in enumerate(mask.to_pylist()) if stays]
        parts = [columns.slice(row, 1) for row in rows] or [columns.slice(0, 0)]
        if isinstance(columns, pa.Array):
            return pa.concat_arrays(parts)
        return pa.chunked_array([pa.concat_arrays([in_one(part) for part in parts])])


def _without_views(of: pa.DataType) -> pa.DataType:
    """A type with plain text in place of views."""
    is_ = pa.types
    if is_.is_string_view(of) or is_.is_binary_view(of):
        return pa.large_string() if is_.is_string_view(of) else pa.large_binary()
    if is_.is_struct(of):
        return pa.struct([field.with_type(_without_views(field.type)) for field in of])
    if is_.is_map(of):
        return of
    if is_.is_fixed_size_list(of):
        return pa.list_(of.value_field.with_type(_without_views(of.value_type)), of.list_size)
    if is_.is_list(of) or is_.is_large_list(of):
        make = pa.list_ if is_.is_list(of) else pa.large_list
        return make(of.value_field.with_type(_without_views(of.value_type)))
    return of


def _compact(table: pa.Table) -> pa.Table:
    """Without the texts of rows that it does not have: part of a column of views keeps those of the whole."""
    for index, field in enumerate(table.schema):
        if is_view(field.type):
            plain = pa.large_string() if pa.types.is_string_view(field.type) else pa.large_binary()
            table = table.set_column(index, field, table.column(index).cast(plain).cast(field.type))
    return table


# what a stream says of itself


def _check_declared(stream: bytes) -> int:
    """How many rows a stream has; raises if it takes too much memory once it is decompressed."""
    rows = total = 0
    for message in pa.ipc.MessageReader.open_stream(stream):
        if message.type == "schema":
            continue
        metadata = message.metadata.to_pybytes()
        batch = _fields(metadata, _follow(metadata, _fields(metadata, _follow(metadata, 0))[2]))
        if message.type == "record batch":
            length = _number(metadata, batch[0])
            if length < 0:
                raise ValueError("it has fewer than no rows")
            rows += length
        else:  # a dictionary, which has a batch in it
            batch = _fields(metadata, _follow(metadata, batch[1]))
        compressed = len(batch) > 3 and batch[3] > 0
        for start, size in _buffers(metadata, batch[2]):
            total += max(size, _number(message.body, start)) if compressed and size >= 8 else size
        if total > MOST_BYTES:
            raise TooLargeError(f"it takes more than {MOST_BYTES:,} bytes of memory")
    return rows


# Its metadata are flatbuffers, which Arrow has verified, of https://arrow.apache.org/docs/format/Columnar.html:
# Message(version, type, header: RecordBatch or DictionaryBatch, ...),
# RecordBatch(length, nodes, buffers: [(offset, length)], compression, ...), DictionaryBatch(id, data: RecordBatch, ...)


def _number(data: Any, at: int) -> int:
    return int.from_bytes(memoryview(data)[at : at + 8], "little", signed=True) if at else 0


def _follow(data: bytes, at: int) -> int:
    """Where a reference points."""
    return at + int(struct.unpack_from("<I", data, at)[0])


def _fields(data: bytes, table: int) -> list[int]:
    """Where the fields of a table lie; 0 for those that are left out."""
    names = table - int(struct.unpack_from("<i", data, table)[0])
    (size,) = struct.unpack_from("<H", data, names)
    offsets = struct.unpack_from(f"<{size // 2 - 2}H", data, names + 4)
    return [table + offset if offset else 0 for offset in offsets]


def _buffers(data: bytes, field: int) -> Iterator[tuple[int, int]]:
    if field:
        vector = _follow(data, field)
        (count,) = struct.unpack_from("<I", data, vector)
        yield from struct.iter_unpack("<qq", data[vector + 4 : vector + 4 + 16 * count])


# what becomes of it


def _check_expanded(table: pa.Table) -> None:
    """Raise if the values would take too much memory, each written out: a dictionary has one text for many rows."""
    total = sum(_expanded(chunk) for column in table.columns for chunk in column.chunks)
    if total > MOST_BYTES:
        raise TooLargeError(f"its values take more than {MOST_BYTES:,} bytes of memory")


def _expanded(array: pa.Array) -> int:
    """About how many bytes the values of an array take, or more."""
    of, is_ = array.type, pa.types
    each = 16 * len(array)
    if isinstance(array, pa.ExtensionArray):
        return _expanded(array.storage)
    if is_.is_struct(of) or (is_.is_union(of) and of.mode == "sparse"):
        return each + sum(_expanded(array.field(index)) for index in range(of.num_fields))
    if is_.is_list(of) or is_.is_large_list(of) or is_.is_map(of):
        first, last = (array.offsets[at].as_py() for at in (0, -1))
        return each + _expanded(array.values.slice(first, last - first))
    if is_.is_fixed_size_list(of):
        return each + _expanded(array.values.slice(array.offset * of.list_size, len(array) * of.list_size))
    if is_.is_dictionary(of):
        if _is_bytes(of.value_type):
            lengths = pc.fill_null(pc.take(_lengths(array.dictionary), array.indices), 0)
            return each + _expanded(array.dictionary) + (pc.sum(lengths).as_py() or 0)
        return _expanded(array.dictionary) + len(array) * _widest(array.dictionary)
    if is_.is_run_end_encoded(of):
        return _expanded(array.values) + len(array) * _widest(array.values)
    if is_.is_union(of):
        parts = [array.field(index) for index in range(of.num_fields)]
        return sum(map(_expanded, parts)) + len(array) * max(map(_widest, parts), default=0)
    if is_.is_list_view(of) or is_.is_large_list_view(of):
        items = pc.sum(pc.list_value_length(array)).as_py() or 0
        return each + _expanded(array.values) + items * _widest(array.values)
    if _is_bytes(of):
        return each + (pc.sum(_lengths(array)).as_py() or 0)
    return each + (0 if is_.is_null(of) else of.byte_width * len(array) if of.bit_width >= 8 else 0)


def _widest(array: pa.Array) -> int:
    """About how many bytes the largest value of an array takes, or more."""
    if _is_bytes(array.type):
        return 16 + (pc.max(_lengths(array)).as_py() or 0)
    if array.type.num_fields or isinstance(array, pa.ExtensionArray) or pa.types.is_dictionary(array.type):
        return _expanded(array)
    return 16 if pa.types.is_null(array.type) else 16 + array.type.bit_width // 8


def _is_bytes(of: pa.DataType) -> bool:
    is_ = pa.types
    return bool(
        is_.is_string(of) or is_.is_binary(of) or is_.is_large_string(of) or is_.is_large_binary(of) or is_view(of)
    )


def is_binary(of: pa.DataType) -> bool:
    """Whether values of a type are bytes, which need not be text."""
    is_ = pa.types
    return bool(is_.is_binary(of) or is_.is_large_binary(of) or is_.is_binary_view(of) or is_.is_fixed_size_binary(of))


def is_view(of: pa.DataType) -> bool:
    return bool(pa.types.is_string_view(of) or pa.types.is_binary_view(of))


def _lengths(array: pa.Array) -> pa.Array:
    """How many bytes each text has; of a null perhaps none."""
    if not is_view(array.type):
        return pc.binary_length(array)
    if not len(array):
        return pa.array([], pa.int32())
    views = np.frombuffer(array.buffers()[1], np.int32)  # of 16 bytes, of which the length is the first four
    lengths = views[4 * array.offset : 4 * (array.offset + len(array)) : 4]
    return pc.if_else(array.is_valid(), pa.array(lengths), 0)
