"""Python objects as Arrow columns: of Arrow's type for them, or as JSON text, whichever gives the same objects back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa

from pqlog.errors import EncodeError
from pqlog.frames.arrays import single_array
from pqlog.frames.columns import decoded_values, exact_json_column, json_field
from pqlog.frames.equality import identical
from pqlog.frames.notes import OBJECT, Note, noted

_JSON_TYPES = frozenset({str, bool, int, float, list, dict})
"""Types that JSON has."""
_INFERABLE = frozenset({str, bytes, bool, int, float, Decimal, date, datetime, time, timedelta, UUID, type(None)})
"""Types for which Arrow may infer one of its own: some others, NumPy's times among numbers, crash the process."""


Packed = tuple[pa.Field, pa.Array]


def pack_objects(values: Sequence[Any], name: str) -> Packed:
    """Python objects as a field with this name, and its array.

    Raises
    ------
    EncodeError
        Neither Arrow's type nor JSON text gives exactly the same objects back.
    """
    if set(map(type, values)) <= {np.ndarray, type(None)} and any(value is not None for value in values):
        return _pack_arrays(values, name)
    plain, missing = _without_missing([plain_of(value) for value in values], name)
    return _pack_pandas_scalars(plain, missing, name) or _pack_plain(plain, Note(OBJECT, missing=missing), name)


def _pack_plain(values: Sequence[Any], note: Note, name: str) -> Packed:
    types = {type(value) for value in values} - {type(None)}
    if types == {str}:
        try:
            return noted(pa.field(name, pa.string()), note), pa.array(values, pa.string())
        except ValueError as error:  # a surrogate
            raise refused(name, OBJECT, f"{error}") from error
    prefers_json = types <= _JSON_TYPES and (len(types) > 1 or not types.isdisjoint((list, dict)))
    for pack in (_as_json, _as_arrow) if prefers_json else (_as_arrow, _as_json):
        packed = pack(name, values)
        if packed is not None and first_change(values, _unpack(*packed)) is None:
            return noted(packed[0], note), packed[1]
    raise refused(name, OBJECT, _reason(name, values))


def _pack_arrays(values: Sequence[Any], name: str) -> Packed:
    """One-dimensional NumPy arrays, the form in which `pandas.read_parquet` returns lists."""
    dtypes = {str(value.dtype) for value in values if value is not None}
    (dtype, *others) = dtypes
    if others or any(value is not None and value.ndim != 1 for value in values):
        raise refused(name, OBJECT, "it has arrays of several dtypes, or of several dimensions: convert them to lists")
    if dtype == "object":
        lists = [None if value is None else [plain_of(item) for item in value.tolist()] for value in values]
        field, array = pack_objects(lists, name)
    else:
        try:
            array = single_array(pa.array(values, pa.list_(pa.from_numpy_dtype(np.dtype(dtype)))))
        except (pa.ArrowException, TypeError) as error:
            raise refused(name, OBJECT, f"it has arrays of {dtype}: convert them to lists") from error
        field = pa.field(name, array.type)
    return noted(field, Note(OBJECT, array=dtype)), array


def plain_of(value: Any) -> Any:
    """A NumPy scalar as the same value of Python's types; any other object as it is."""
    if not isinstance(value, np.generic):
        return value
    if isinstance(value, bytes):
        return bytes(value)  # item() strips trailing zeros
    if isinstance(value, str):
        return str.__str__(value)
    return value.item() if value.dtype.kind in "biuf" else value


def _unpack(field: pa.Field, array: pa.Array) -> list[Any]:
    """The objects of a column, or None for all of them if Python cannot represent one."""
    try:
        return decoded_values(pa.chunked_array([array]), field)
    except (OverflowError, ValueError):
        return [None] * len(array)


def _reason(name: str, values: Sequence[Any]) -> str:
    """Why objects cannot be kept."""
    reason = "it has values for which Arrow has no common type, and which JSON cannot hold"
    packed = _as_arrow(name, values)
    if packed is None:
        types = sorted({type(value).__name__ for value in values} - {"NoneType"})
        reason += f" ({', '.join(types)})"
    else:
        back = _unpack(*packed)
        row = first_change(values, back)
        if row is not None:
            reason = f"row {row}, {_short(values[row])}, would come back as {_short(back[row])}"
    return f"{reason}. Convert that column, or put frame.to_dict('records') into a topic with another codec"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _without_missing(values: list[Any], name: str) -> tuple[list[Any], str | None]:
    """The values with None for missing ones, and what stood for these if it was not None."""
    import pandas as pd

    singletons = {id(None): "None", id(pd.NA): "NA", id(pd.NaT): "NaT"}
    markers = {singletons[id(value)] for value in values if id(value) in singletons}
    if any(type(value) is float and value != value for value in values):
        markers.add("nan")
    if len(markers) > 1:
        raise refused(
            name,
            OBJECT,
            f"it has {' and '.join(sorted(markers))} for missing values, and only one can be kept: "
            f"frame[{name!r}] = frame[{name!r}].where(frame[{name!r}].notna(), None) makes all of them None",
        )
    if not markers or markers == {"None"}:
        return values, None
    (marker,) = markers
    if marker == "nan":
        return [None if type(value) is float and value != value else value for value in values], marker
    return [None if id(value) in singletons else value for value in values], marker


def _as_json(name: str, values: Sequence[Any]) -> Packed | None:
    column = exact_json_column(values)
    return None if column is None else (json_field(name), column)


def _pack_pandas_scalars(values: Sequence[Any], missing: str | None, name: str) -> Packed | None:
    """Timestamps or Timedeltas of pandas, which have units; None for other objects."""
    import pandas as pd

    types = {type(value) for value in values} - {type(None)}
    if types not in ({pd.Timestamp}, {pd.Timedelta}):
        return None
    present = [value for value in values if value is not None]
    units, zones = {value.unit for value in present}, {str(getattr(value, "tz", None)) for value in present}
    if len(units) > 1 or len(zones) > 1:
        raise refused(name, OBJECT, "it has times of several units or zones: convert it with pandas.to_datetime")
    unit = units.pop()
    times = pd.Series([pd.NaT if value is None else value for value in values]).dt.as_unit(unit)
    array = single_array(pa.array(times))
    return noted(pa.field(name, array.type), Note(OBJECT, missing=missing, unit=unit)), array


def _as_arrow(name: str, values: Sequence[Any]) -> Packed | None:
    if not all(map(_is_inferable, values)):
        return None
    try:
        array = single_array(pa.array(values, from_pandas=False))
    except Exception:  # an object may be anything, and raise anything
        return None
    return pa.field(name, array.type), array


def _is_inferable(value: Any) -> bool:
    kind = type(value)
    if kind in (list, tuple, set):
        return all(map(_is_inferable, value))
    if kind is dict:
        return all(type(key) is str for key in value) and all(map(_is_inferable, value.values()))
    return kind in _INFERABLE


def first_change(values: Sequence[Any], back: Sequence[Any]) -> int | None:
    """The first position where two equally long sequences of objects differ; None if there is none."""
    pairs = enumerate(zip(values, back, strict=True))
    return next((position for position, (one, other) in pairs if not identical(one, other)), None)


def refused(name: str, dtype: Any, reason: str) -> EncodeError:
    return EncodeError(f"column {name!r} ({dtype}): {reason}", value_type="DataFrame", codec="arrow")
