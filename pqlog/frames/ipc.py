"""A table as an Arrow IPC stream, and back, for streams from untrusted sources.

Arrow trusts what it reads: offsets that point beyond their buffer crash the process, and a few kilobytes may claim to
be many gigabytes. So a stream is examined before it is decompressed, and its table before anything uses it. `encode`
and `decode` have the same limits, so whatever `encode` accepts, `decode` returns.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pqlog.frames.arrow_types import check_types, is_text, is_variable_width, is_view

MAX_ROWS = 65_536
"""Rows in a stream, at most."""
MAX_BYTES = 1_000_000_000
"""What a table may take in memory, both encoded and with dictionaries expanded. SQLite stores no larger value."""

_OPTIONS = pa.ipc.IpcWriteOptions(compression="zstd")


class TooLargeError(ValueError):
    """A table takes more than `MAX_BYTES`."""


def encode(table: pa.Table) -> bytes:
    """The stream of a table; raises `TooLargeError`."""
    check_types(table.schema)
    table = _without_unused_text(table)
    _check_expanded_size(table)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_OPTIONS) as writer:
        writer.write_table(table)
    stream: bytes = sink.getvalue().to_pybytes()
    _check_declared_size(stream)
    return stream


def decode(stream: bytes, columns: frozenset[str] | None, rows: int | None = None) -> pa.Table:
    """The table of a stream, or those of its columns that are given.

    Parameters
    ----------
    rows : int, optional
        The number of rows that it must have.

    Raises
    ------
    Exception
        Any kind of exception: it is not a valid stream, has another number of rows, or is too large.
    """
    declared = _check_declared_size(stream)
    if rows is None:
        rows = declared
    if rows > MAX_ROWS or declared != rows:
        raise ValueError(f"it has {declared:,} rows, not {rows:,}")
    reader = pa.ipc.open_stream(stream)
    check_types(reader.schema)
    names = reader.schema.names
    if len(set(names)) < len(names):
        raise ValueError("it has two columns with the same name")
    if columns is not None:
        included = [index for index, name in enumerate(names) if name in columns]
        if len(included) < len(names):
            included = included or [0]  # an empty list would mean all
            reader = pa.ipc.open_stream(stream, options=pa.ipc.IpcReadOptions(included_fields=included))
    table = reader.read_all()
    table.validate(full=True)
    _check_expanded_size(table)
    return table


def _without_unused_text(table: pa.Table) -> pa.Table:
    """A table without the text of other rows: a slice of a column of views holds the text of the whole column."""
    for index, field in enumerate(table.schema):
        if is_view(field.type):
            plain = pa.large_string() if is_text(field.type) else pa.large_binary()
            table = table.set_column(index, field, table.column(index).cast(plain).cast(field.type))
    return table


# the size that a stream declares


def _check_declared_size(stream: bytes) -> int:
    """How many rows a stream has; raises if it would take too much memory when decompressed."""
    rows = total = 0
    for message in pa.ipc.MessageReader.open_stream(stream):
        if message.type == "schema":
            continue
        metadata = message.metadata.to_pybytes()
        batch = _fields(metadata, _follow(metadata, _fields(metadata, _follow(metadata, 0))[2]))
        if message.type == "record batch":
            length = _number(metadata, batch[0])
            if length < 0:
                raise ValueError("it has a negative number of rows")
            rows += length
        else:  # a dictionary, which contains a batch
            batch = _fields(metadata, _follow(metadata, batch[1]))
        compressed = len(batch) > 3 and batch[3] > 0
        for start, size in _buffers(metadata, batch[2]):
            total += max(size, _number(message.body, start)) if compressed and size >= 8 else size
        if total > MAX_BYTES:
            raise TooLargeError(f"it takes more than {MAX_BYTES:,} bytes of memory")
    return rows


# The metadata of a message is a flatbuffer, which Arrow has verified, see https://arrow.apache.org/docs/format/Columnar.html:
# Message(version, type, header: RecordBatch or DictionaryBatch, ...),
# RecordBatch(length, nodes, buffers: [(offset, length)], compression, ...), DictionaryBatch(id, data: RecordBatch, ...)


def _number(data: Any, at: int) -> int:
    return int.from_bytes(memoryview(data)[at : at + 8], "little", signed=True) if at else 0


def _follow(data: bytes, at: int) -> int:
    """Where a flatbuffer's reference points."""
    return at + int(struct.unpack_from("<I", data, at)[0])


def _fields(data: bytes, table: int) -> list[int]:
    """Where the fields of a flatbuffer's table lie; 0 for those that are absent."""
    names = table - int(struct.unpack_from("<i", data, table)[0])
    (size,) = struct.unpack_from("<H", data, names)
    offsets = struct.unpack_from(f"<{size // 2 - 2}H", data, names + 4)
    return [table + offset if offset else 0 for offset in offsets]


def _buffers(data: bytes, field: int) -> Iterator[tuple[int, int]]:
    if field:
        vector = _follow(data, field)
        (count,) = struct.unpack_from("<I", data, vector)
        yield from struct.iter_unpack("<qq", data[vector + 4 : vector + 4 + 16 * count])


# the size of its values


def _check_expanded_size(table: pa.Table) -> None:
    """Raise if the values would take too much memory once dictionaries, which share values, are expanded."""
    total = sum(_expanded_bytes(chunk) for column in table.columns for chunk in column.chunks)
    if total > MAX_BYTES:
        raise TooLargeError(f"its values take more than {MAX_BYTES:,} bytes of memory")


def _expanded_bytes(array: pa.Array) -> int:
    """A rough upper bound of the bytes that the values of an array take."""
    of, is_ = array.type, pa.types
    each = 16 * len(array)
    if isinstance(array, pa.ExtensionArray):
        return _expanded_bytes(array.storage)
    if is_.is_struct(of) or (is_.is_union(of) and of.mode == "sparse"):
        return each + sum(_expanded_bytes(array.field(index)) for index in range(of.num_fields))
    if is_.is_list(of) or is_.is_large_list(of) or is_.is_map(of):
        first, last = (array.offsets[at].as_py() for at in (0, -1))
        return each + _expanded_bytes(array.values.slice(first, last - first))
    if is_.is_fixed_size_list(of):
        return each + _expanded_bytes(array.values.slice(array.offset * of.list_size, len(array) * of.list_size))
    if is_.is_dictionary(of):
        if is_variable_width(of.value_type):
            lengths = pc.fill_null(pc.take(_byte_lengths(array.dictionary), array.indices), 0)
            return each + _expanded_bytes(array.dictionary) + (pc.sum(lengths).as_py() or 0)
        return _expanded_bytes(array.dictionary) + len(array) * _largest_value_bytes(array.dictionary)
    if is_.is_run_end_encoded(of):
        return _expanded_bytes(array.values) + len(array) * _largest_value_bytes(array.values)
    if is_.is_union(of):
        parts = [array.field(index) for index in range(of.num_fields)]
        return sum(map(_expanded_bytes, parts)) + len(array) * max(map(_largest_value_bytes, parts), default=0)
    if is_.is_list_view(of) or is_.is_large_list_view(of):
        items = pc.sum(pc.list_value_length(array)).as_py() or 0
        return each + _expanded_bytes(array.values) + items * _largest_value_bytes(array.values)
    if is_variable_width(of):
        return each + (pc.sum(_byte_lengths(array)).as_py() or 0)
    return each + (0 if is_.is_null(of) else of.byte_width * len(array) if of.bit_width >= 8 else 0)


def _largest_value_bytes(array: pa.Array) -> int:
    """An upper bound of how many bytes the largest value of an array takes, roughly."""
    if is_variable_width(array.type):
        return 16 + (pc.max(_byte_lengths(array)).as_py() or 0)
    if array.type.num_fields or isinstance(array, pa.ExtensionArray) or pa.types.is_dictionary(array.type):
        return _expanded_bytes(array)
    return 16 if pa.types.is_null(array.type) else 16 + array.type.bit_width // 8


def _byte_lengths(array: pa.Array) -> pa.Array:
    """The length of each text in bytes; may be null for a null."""
    if not is_view(array.type):
        return pc.binary_length(array)
    if not len(array):
        return pa.array([], pa.int32())
    views = np.frombuffer(array.buffers()[1], np.int32)  # 16 bytes each, the first four are the length
    lengths = views[4 * array.offset : 4 * (array.offset + len(array)) : 4]
    return pc.if_else(array.is_valid(), pa.array(lengths), 0)
