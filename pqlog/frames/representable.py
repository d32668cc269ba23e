"""Values that Arrow can hold and Python cannot: the year 20000, times of day with nanoseconds, repeated field names.

A message's value is a Python object, so a column with such a value is refused when it is put.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from pqlog.frames.arrow_types import is_binary, is_text
from pqlog.frames.columns import decoded_values, mark_of

_NAT = -(2**63)


def check_representable(column: pa.ChunkedArray, field: pa.Field) -> None:
    """Raise any kind of exception if a value of a column has no exact form in Python."""
    if mark_of(field) is not None:
        decoded_values(column, field)
        return
    for chunk in column.chunks:
        _check(chunk)


def _check(array: pa.Array, is_nested: bool = False) -> None:
    of, is_ = array.type, pa.types
    if not len(array) or array.null_count == len(array):
        return
    if is_.is_primitive(of) or is_.is_decimal(of) or is_text(of) or is_binary(of):
        _check_flat(array)
    elif isinstance(array, pa.ExtensionArray):
        _check(array.storage)
        array.slice(0, 1_000).to_pylist()
    elif is_.is_dictionary(of):
        if is_nested and array.dictionary.null_count:
            raise ValueError("a dictionary within another type has a null entry")
        _check(array.dictionary)
    elif is_.is_struct(of):
        names = [child.name for child in of]
        if len(set(names)) < len(names):
            raise ValueError("its structs have two fields with the same name")
        for child in array.flatten():
            _check(child, is_nested=True)
    elif is_.is_map(of):
        array.slice(0, 1).to_pylist()
        _check(array.keys, is_nested=True)
        _check(array.items, is_nested=True)
    elif is_.is_list(of) or is_.is_large_list(of) or is_.is_fixed_size_list(of):
        _check(array.flatten(), is_nested=True)
    else:
        array.to_pylist()


def _check_flat(array: pa.Array) -> None:
    of, is_ = array.type, pa.types
    if is_.is_date64(of) and not array.cast(pa.date32(), safe=False).cast(of).equals(array):
        raise ValueError("it has a date64 that is not midnight")
    if is_.is_time64(of) and of.unit == "ns":
        array.cast(pa.time64("us"))
    if is_.is_temporal(of) and of.bit_width in (32, 64):
        ints = pa.int64() if of.bit_width == 64 else pa.int32()
        bounds = pc.min_max(array.view(ints))
        if (is_.is_timestamp(of) or is_.is_duration(of)) and bounds["min"].as_py() == _NAT:
            raise ValueError("the smallest possible value means NaT in pandas and NumPy")
        pa.array([bounds["min"].as_py(), bounds["max"].as_py()], ints).view(of).to_pylist()
