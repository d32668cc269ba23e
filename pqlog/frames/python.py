"""What Arrow holds and Python does not: the year 20000, nanoseconds of a time of day, structs with a field twice.

A message's value is a Python object, so a column that has such a value is refused when it is put.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from pqlog.frames import parse

_NAT = -(2**63)


def check(column: pa.ChunkedArray, field: pa.Field) -> None:
    """Raise anything if a value of a column has no exact form in Python."""
    if parse.mark(field) is not None:
        parse.python_values(column, field)
        return
    for chunk in column.chunks:
        _check(chunk)


def _check(array: pa.Array, nested: bool = False) -> None:
    of, is_ = array.type, pa.types
    if not len(array) or array.null_count == len(array):
        return
    if is_.is_primitive(of) or is_.is_decimal(of) or _is_bytes(of):
        _check_flat(array)
    elif isinstance(array, pa.ExtensionArray):
        _check(array.storage)
        array.slice(0, 1_000).to_pylist()
    elif is_.is_dictionary(of):
        if nested and array.dictionary.null_count:
            raise ValueError("a dictionary within another type has a null entry")
        _check(array.dictionary)
    elif is_.is_struct(of):
        names = [child.name for child in of]
        if len(set(names)) < len(names):
            raise ValueError("its structs have two fields of one name")
        for child in array.flatten():
            _check(child, True)
    elif is_.is_map(of):
        array.slice(0, 1).to_pylist()
        _check(array.keys, True)
        _check(array.items, True)
    elif is_.is_list(of) or is_.is_large_list(of) or is_.is_fixed_size_list(of):
        _check(array.flatten(), True)
    else:
        array.to_pylist()


def _is_bytes(of: pa.DataType) -> bool:
    is_ = pa.types
    return bool(
        is_.is_string(of)
        or is_.is_large_string(of)
        or is_.is_string_view(of)
        or is_.is_binary(of)
        or is_.is_large_binary(of)
        or is_.is_binary_view(of)
        or is_.is_fixed_size_binary(of)
    )


def _check_flat(array: pa.Array) -> None:
    of, is_ = array.type, pa.types
    if is_.is_date64(of) and not array.cast(pa.date32(), safe=False).cast(of).equals(array):
        raise ValueError("a date64 that is not midnight")
    if is_.is_time64(of) and of.unit == "ns":
        array.cast(pa.time64("us"))
    if is_.is_temporal(of) and of.bit_width in (32, 64):
        ints = pa.int64() if of.bit_width == 64 else pa.int32()
        bounds = pc.min_max(array.view(ints))
        if (is_.is_timestamp(of) or is_.is_duration(of)) and bounds["min"].as_py() == _NAT:
            raise ValueError("the least of its values is what pandas and NumPy take for none (NaT)")
        pa.array([bounds["min"].as_py(), bounds["max"].as_py()], ints).view(of).to_pylist()
