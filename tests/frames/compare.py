"""What it means for a frame to be the same: to the type, the bit, and the kind of missing value.

pandas' and Arrow's own comparisons miss differences that a user would see: ``1`` for ``True``, ``None`` for ``nan``, a
`Timestamp` for a `datetime`, ``-0.0`` for ``0.0``. Each function here says what differs, or None.
"""

from __future__ import annotations

import datetime
import decimal
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

MISSING = (type(None), type(pd.NA), type(pd.NaT))


def _text(value: Any) -> str:
    try:
        text = f"{type(value).__name__} {value!r}"
    except Exception as error:  # some cannot even be shown
        text = f"{type(value).__name__} ({error})"
    return text if len(text) < 120 else text[:117] + "..."


def same(one: Any, other: Any) -> bool:
    """Whether two objects are the same: type, value and contents."""
    if isinstance(one, np.generic) and isinstance(other, np.generic):
        if one.dtype != other.dtype:  # their classes may differ: two of C's integer types have the same size
            return False
    elif type(one) is not type(other):
        return False
    if isinstance(one, MISSING):
        return True
    if isinstance(one, (float, np.floating)):
        return bool(one == other and np.signbit(one) == np.signbit(other)) or bool(one != one and other != other)
    if isinstance(one, (complex, np.complexfloating)):
        return same(one.real, other.real) and same(one.imag, other.imag)
    if isinstance(one, decimal.Decimal):
        return one.as_tuple() == other.as_tuple()
    if isinstance(one, pd.Timestamp):
        return bool(one.asm8 == other.asm8) and one.unit == other.unit and str(one.tzinfo) == str(other.tzinfo)
    if isinstance(one, (datetime.datetime, datetime.time)):
        plain = one.replace(tzinfo=None) == other.replace(tzinfo=None)
        return plain and one.fold == other.fold and _same_zone(one.tzinfo, other.tzinfo)
    if isinstance(one, Mapping):
        return len(one) == len(other) and all(
            same(a, b) and same(one[a], other[b]) for a, b in zip(one, other, strict=True)
        )
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, (set, frozenset)):
        return one == other and sorted(map(str, map(type, one))) == sorted(map(str, map(type, other)))
    if isinstance(one, (np.datetime64, np.timedelta64)):
        return one.dtype == other.dtype and bool(one.view("int64") == other.view("int64"))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and all(map(same, one.flat, other.flat))
    if isinstance(one, pd.Interval):
        return same(one.left, other.left) and same(one.right, other.right) and one.closed == other.closed
    if isinstance(one, pd.DataFrame):
        return difference(one, other) is None
    if isinstance(one, pd.Series):
        return difference(one.to_frame(), other.to_frame()) is None
    return bool(one == other)


def _same_zone(one: Any, other: Any) -> bool:
    """A zone is its name: UTC may be `datetime.UTC` or a `ZoneInfo`."""
    return str(one) == str(other)


def _same_dtype(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, pd.CategoricalDtype):
        return one.ordered == other.ordered and labels_difference(one.categories, other.categories) is None
    if isinstance(one, pd.SparseDtype):
        return bool(one.subtype == other.subtype) and same(one.fill_value, other.fill_value)
    if isinstance(one, pd.DatetimeTZDtype):
        return one.unit == other.unit and str(one.tz) == str(other.tz)
    if isinstance(one, pd.IntervalDtype):
        return one.closed == other.closed and _same_dtype(one.subtype, other.subtype)
    if isinstance(one, pd.StringDtype):
        return one.storage == other.storage and same(one.na_value, other.na_value)
    return bool(one == other)


def values_difference(one: Any, other: Any) -> str | None:
    """How two pandas arrays differ: Series, indexes, or extension arrays."""
    if not _same_dtype(one.dtype, other.dtype):
        return f"dtype {one.dtype!r} became {other.dtype!r}"
    if len(one) != len(other):
        return f"{len(one)} values became {len(other)}"
    if isinstance(one.dtype, pd.ArrowDtype):
        return arrow_difference(one.array._pa_array, other.array._pa_array)
    if _same_bits(one, other):
        return None
    if isinstance(one.dtype, pd.SparseDtype):
        one, other = one.array.to_dense(), other.array.to_dense()
    for position, (a, b) in enumerate(zip(one, other, strict=True)):
        if one.dtype == object:  # in columns of objects, NumPy's scalars count as Python's
            a, b = (value.item() if isinstance(value, np.generic) else value for value in (a, b))
        if not same(a, b):
            return f"value {position} was {_text(a)}, is {_text(b)}"
    return None


def _same_bits(one: Any, other: Any) -> bool:
    """Whether they are known to be the same without comparing each value."""
    if isinstance(one.dtype, np.dtype) and one.dtype.kind in "iufbmM":
        return one.to_numpy().tobytes() == other.to_numpy().tobytes()
    if isinstance(one.dtype, pd.StringDtype):
        return [None if value is one.dtype.na_value else value for value in one] == [
            None if value is other.dtype.na_value else value for value in other
        ]
    return False


def _listed(index: pd.Index) -> pd.Index:
    """A range as the numbers that it represents."""
    return pd.Index(index.to_numpy(), name=index.name) if isinstance(index, pd.RangeIndex) else index


def labels_difference(one: pd.Index, other: pd.Index) -> str | None:
    """How two sets of labels or categories differ: a range is its numbers, as it is to pandas."""
    return index_difference(_listed(one), _listed(other))


def index_difference(one: pd.Index, other: pd.Index) -> str | None:
    """How two indexes differ."""
    if type(one) is not type(other):
        return f"{type(one).__name__} became {type(other).__name__}"
    if not same(tuple(one.names), tuple(other.names)):
        return f"names {list(one.names)!r} became {list(other.names)!r}"
    if isinstance(one, pd.RangeIndex):
        return (
            None
            if (one.equals(other) and one.step == other.step) or (len(one) == len(other) <= 1 and one.equals(other))
            else f"{one!r} became {other!r}"
        )
    if isinstance(one, pd.MultiIndex):
        for level in range(one.nlevels):
            found = values_difference(one.get_level_values(level), other.get_level_values(level))
            if found is not None:
                return f"level {level}: {found}"
        return None
    if getattr(one, "freq", None) != getattr(other, "freq", None):
        return f"freq {one.freq!r} became {other.freq!r}"
    return values_difference(one, other)


def difference(one: pd.DataFrame, other: pd.DataFrame, freq: bool = True) -> str | None:
    """The first difference between two frames."""
    if type(one) is not type(other):
        return f"{type(one).__name__} became {type(other).__name__}"
    if one.shape != other.shape:
        return f"shape {one.shape} became {other.shape}"
    found = labels_difference(one.columns, other.columns)
    if found is not None:
        return f"labels: {found}"
    mine, others = one.index, other.index
    if not freq:
        mine, others = _without_freq(mine), _without_freq(others)
    found = index_difference(mine, others)
    if found is not None:
        return f"index: {found}"
    for position, label in enumerate(one.columns):
        found = values_difference(one.iloc[:, position], other.iloc[:, position])
        if found is not None:
            return f"column {label!r}: {found}"
    attrs = kept_attrs(one.attrs)
    return None if same(attrs, kept_attrs(other.attrs)) else f"attrs {attrs!r} became {other.attrs!r}"


def kept_attrs(attrs: dict[Any, Any]) -> dict[Any, Any]:
    """Those of a frame's attributes that JSON can hold: the others are not kept."""
    found = {}
    for key, value in attrs.items():
        try:
            if same({key: value}, json.loads(json.dumps({key: value}, allow_nan=False))):
                found[key] = value
        except (TypeError, ValueError):
            continue
    return found


def _without_freq(index: pd.Index) -> pd.Index:
    return index._with_freq(None) if isinstance(index, (pd.DatetimeIndex, pd.TimedeltaIndex)) else index


# Arrow


def schema_difference(one: pa.Schema, other: pa.Schema) -> str | None:
    """How two schemas differ, including the metadata of fields, but not that of the schemas."""
    if one.names != other.names:
        return f"names {one.names} became {other.names}"
    for a, b in zip(one, other, strict=True):
        if not a.equals(b, check_metadata=True):
            return f"field {a.name!r}: {a!s} {a.metadata or ''} became {b!s} {b.metadata or ''}"
    return None


def table_difference(one: pa.Table, other: pa.Table) -> str | None:
    """How two tables differ, in schema and values."""
    found = schema_difference(one.schema, other.schema)
    if found is not None:
        return found
    if one.num_rows != other.num_rows:
        return f"{one.num_rows} rows became {other.num_rows}"
    for position, name in enumerate(one.schema.names):
        found = arrow_difference(one.column(position), other.column(position))
        if found is not None:
            return f"column {name!r}: {found}"
    return None


def arrow_difference(one: Any, other: Any) -> str | None:
    """How two Arrow arrays differ, ignoring chunks: NaN is NaN, and -0.0 is not 0.0."""
    if not one.type.equals(other.type, check_metadata=True):
        return f"type {one.type} became {other.type}"
    if len(one) != len(other):
        return f"{len(one)} values became {len(other)}"
    for position, (a, b) in enumerate(zip(_plain(one), _plain(other), strict=True)):
        if not same(a, b):
            return f"value {position} was {_text(a)}, is {_text(b)}"
    return None


_COUNTED = {"timestamp": 64, "duration": 64, "date32": 32, "date64": 64, "time32": 32, "time64": 64}


def _plain(array: Any) -> list[Any]:
    """An array as Python objects that hold all of it, including the year 20000 and nanoseconds."""
    if isinstance(array, pa.ChunkedArray):
        return [value for chunk in array.chunks for value in _plain(chunk)]
    t, is_ = array.type, pa.types
    if isinstance(t, pa.BaseExtensionType):
        return _plain(array.storage)
    if is_.is_dictionary(t):
        values = _plain(array.dictionary)
        return [None if i is None else values[i] for i in array.indices.to_pylist()]
    if is_.is_run_end_encoded(t):
        values = _plain(array.values)
        ends = array.run_ends.to_pylist()
        run, found = 0, []
        for position in range(len(array)):
            while ends[run] <= position + array.offset:
                run += 1
            found.append(values[run])
        return found
    if is_.is_union(t):  # its own type_codes and offsets are those of the array that it is a slice of
        part = slice(array.offset, array.offset + len(array))
        buffers = array.buffers()
        codes = np.frombuffer(buffers[1], "int8")[part].tolist() if len(array) else []
        dense = t.mode == "dense"
        places = np.frombuffer(buffers[2], "int32")[part].tolist() if dense and len(array) else range(len(array))
        children = {code: _plain(array.field(i)) for i, code in enumerate(t.type_codes)}
        return [(code, children[code][place]) for code, place in zip(codes, places, strict=True)]
    if is_.is_struct(t):
        # Not array.flatten(): it aborts the process where a child is a union.
        children = [_plain(array.field(i)) for i in range(t.num_fields)]
        rows = list(zip(*children, strict=True)) if children else [()] * len(array)
        return [row if valid else None for row, valid in zip(rows, array.is_valid().to_pylist(), strict=True)]
    if is_.is_map(t) or is_.is_list(t) or is_.is_large_list(t) or is_.is_fixed_size_list(t) or _is_view(t):
        return _lists(array)
    width = next((bits for name, bits in _COUNTED.items() if getattr(is_, f"is_{name}")(t)), None)
    if width is not None:
        return array.view(pa.int64() if width == 64 else pa.int32()).to_pylist()  # type: ignore[no-any-return]
    return array.to_pylist()  # type: ignore[no-any-return]


def _is_view(t: pa.DataType) -> bool:
    return bool(pa.types.is_list_view(t) or pa.types.is_large_list_view(t))


def _lists(array: Any) -> list[Any]:
    found: list[Any] = []
    for valid, scalar in zip(array.is_valid().to_pylist(), array, strict=True):
        found.append(_plain(scalar.values) if valid else None)
    return found


# what is read as rows


def missing(value: Any) -> bool:
    """Whether a cell is one of the missing values of pandas and NumPy."""
    if isinstance(value, MISSING):
        return True
    if isinstance(value, (np.datetime64, np.timedelta64)):
        return bool(np.isnat(value))
    return False


def same_row_value(cell: Any, got: Any) -> bool:
    """Whether a row's value is that of the cell, as Python's own type, with None for a missing value."""
    if got is None:
        return missing(cell) or (isinstance(cell, (float, np.floating)) and math.isnan(cell))
    if isinstance(cell, (np.datetime64, np.timedelta64)):
        cell = pd.Timestamp(cell) if isinstance(cell, np.datetime64) else pd.Timedelta(cell)
    if isinstance(cell, (np.generic, np.ndarray)):
        cell = cell.tolist()
    if isinstance(cell, pd.Timestamp) and isinstance(got, datetime.datetime):
        made = pd.Timestamp(got)
        return bool(made == cell) and str(made.tzinfo) == str(cell.tzinfo) and made is not pd.NaT
    if isinstance(cell, pd.Interval) and isinstance(got, pd.Interval):  # where one is missing, ints become floats
        return cell.left == got.left and cell.right == got.right and cell.closed == got.closed
    if isinstance(cell, pd.Timedelta) and isinstance(got, datetime.timedelta):
        return bool(pd.Timedelta(got) == cell)
    return same(cell, got)
