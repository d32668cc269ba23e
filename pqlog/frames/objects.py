"""Python objects as columns of Arrow: of Arrow's own type for them, or as JSON text, if the same objects come back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa

from pqlog.errors import EncodeError
from pqlog.frames import parse, stream
from pqlog.frames.notes import OBJECT, Note, noted

_PLAIN = frozenset({str, bool, int, float, list, dict})
"""What JSON holds."""
_GUESSABLE = frozenset({str, bytes, bool, int, float, Decimal, date, datetime, time, timedelta, UUID, type(None)})
"""What Arrow's guess of a type is asked for: of some others, NumPy's times among numbers, it kills the process."""


def pack_objects(values: Sequence[Any], name: str) -> tuple[pa.Field, pa.Array]:
    """Python objects as a field of this name and its array: as Arrow's type for them, or as JSON text.

    Raises
    ------
    EncodeError
        Neither gives exactly the same objects back.
    """
    if set(map(type, values)) <= {np.ndarray, type(None)} and any(value is not None for value in values):
        return _pack_arrays(values, name)
    plain, missing = _without_missing([plain_of(value) for value in values], name)
    boxed = _pack_boxed(plain, missing, name)
    if boxed is not None:
        return boxed
    note = Note(OBJECT, missing=missing)
    kinds = {type(value) for value in plain} - {type(None)}
    if kinds == {str}:
        try:
            return noted(pa.field(name, pa.string()), note), pa.array(plain, pa.string())
        except ValueError as error:  # a surrogate
            raise refused(name, OBJECT, f"{error}") from error
    is_json = kinds <= _PLAIN and (len(kinds) > 1 or not kinds.isdisjoint((list, dict)))
    ways = (_as_json, _as_arrow) if is_json else (_as_arrow, _as_json)
    for way in ways:
        found = way(name, plain)
        if found is not None and first_change(plain, _back(*found)) is None:
            return noted(found[0], note), found[1]
    raise refused(name, OBJECT, _said(name, plain))


def _pack_arrays(values: Sequence[Any], name: str) -> tuple[pa.Field, pa.Array]:
    """Arrays of one dimension, as `pandas.read_parquet` gives lists."""
    dtypes = {str(value.dtype) for value in values if value is not None}
    (dtype, *others) = dtypes
    if others or any(value is not None and value.ndim != 1 for value in values):
        raise refused(name, OBJECT, "it has arrays of several dtypes, or of several dimensions: make them lists")
    if dtype == "object":
        lists = [None if value is None else [plain_of(one) for one in value.tolist()] for value in values]
        field, array = pack_objects(lists, name)
    else:
        try:
            array = stream.in_one(pa.array(values, pa.list_(pa.from_numpy_dtype(np.dtype(dtype)))))
        except (pa.ArrowException, TypeError) as error:
            raise refused(name, OBJECT, f"it has arrays of {dtype}: make them lists") from error
        field = pa.field(name, array.type)
    return noted(field, Note(OBJECT, array=dtype)), array


def plain_of(value: Any) -> Any:
    """A scalar of NumPy as Python's, which is the same; any other object as it is."""
    if not isinstance(value, np.generic):
        return value
    if isinstance(value, bytes):
        return bytes(value)  # item() cuts what ends with zeros
    if isinstance(value, str):
        return str.__str__(value)
    return value.item() if value.dtype.kind in "biuf" else value


def _back(field: pa.Field, array: pa.Array) -> list[Any]:
    """What becomes of objects; all of it None where Python has no value for one of them."""
    try:
        return _values(field, array)
    except (OverflowError, ValueError):
        return [None] * len(array)


def _values(field: pa.Field, array: pa.Array) -> list[Any]:
    return parse.python_values(pa.chunked_array([array]), field)


def _said(name: str, values: Sequence[Any]) -> str:
    """Why objects cannot be kept."""
    said = "it has values that Arrow has no common type for, and JSON does not hold"
    found = _as_arrow(name, values)
    if found is not None:
        back = _back(*found)
        at = first_change(values, back)
        if at is not None:
            said = f"row {at}, {_short(values[at])}, would come back as {_short(back[at])}"
    else:
        kinds = sorted({type(value).__name__ for value in values} - {"NoneType"})
        said += f" ({', '.join(kinds)})"
    return f"{said}. Convert that column, or put frame.to_dict('records') into a topic with another codec"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _without_missing(values: list[Any], name: str) -> tuple[list[Any], str | None]:
    """The values with None for what is missing, and what stood for it, if that was something else."""
    import pandas as pd

    markers = {"NA" if value is pd.NA else "NaT" for value in values if value is pd.NA or value is pd.NaT}
    if any(value is None for value in values):
        markers.add("None")
    if any(type(value) is float and value != value for value in values):
        markers.add("nan")
    if len(markers) > 1:
        raise refused(
            name,
            OBJECT,
            f"it has {' and '.join(sorted(markers))} for what is missing, and one is kept only: "
            f"frame[{name!r}] = frame[{name!r}].where(frame[{name!r}].notna(), None) makes all of them None",
        )
    if not markers or markers == {"None"}:
        return values, None
    (marker,) = markers
    if marker == "nan":
        return [None if type(value) is float and value != value else value for value in values], marker
    gone = pd.NA if marker == "NA" else pd.NaT
    return [None if value is gone else value for value in values], marker


def _as_json(name: str, values: Sequence[Any]) -> tuple[pa.Field, pa.Array] | None:
    column = parse.json_texts(values)
    return None if column is None else (parse.json_field(name), column)


def _pack_boxed(values: Sequence[Any], missing: str | None, name: str) -> tuple[pa.Field, pa.Array] | None:
    """pandas' Timestamps or Timedeltas, which have a unit of their own."""
    import pandas as pd

    kinds = {type(value) for value in values} - {type(None)}
    if kinds not in ({pd.Timestamp}, {pd.Timedelta}):
        return None
    found = [value for value in values if value is not None]
    units, zones = {value.unit for value in found}, {str(getattr(value, "tz", None)) for value in found}
    if len(units) > 1 or len(zones) > 1:
        raise refused(name, OBJECT, "it has times of several units or zones: convert it with pandas.to_datetime")
    unit = units.pop()
    times = pd.Series([pd.NaT if value is None else value for value in values]).dt.as_unit(unit)
    array = stream.in_one(pa.array(times))
    return noted(pa.field(name, array.type), Note(OBJECT, missing=missing, unit=unit)), array


def _as_arrow(name: str, values: Sequence[Any]) -> tuple[pa.Field, pa.Array] | None:
    if not all(map(_is_guessable, values)):
        return None
    try:
        array = stream.in_one(pa.array(values, from_pandas=False))
    except Exception:  # an object may be anything, and raise anything
        return None
    return pa.field(name, array.type), array


def _is_guessable(value: Any) -> bool:
    kind = type(value)
    if kind in (list, tuple, set):
        return all(map(_is_guessable, value))
    if kind is dict:
        return all(type(key) is str for key in value) and all(map(_is_guessable, value.values()))
    return kind in _GUESSABLE


def first_change(values: Sequence[Any], back: Sequence[Any]) -> int | None:
    """The first place where two sequences of objects of one length do not have the same; None if there is none."""
    pairs = enumerate(zip(values, back, strict=True))
    return next((at for at, (one, other) in pairs if not parse.same(one, other)), None)


def refused(name: str, dtype: Any, reason: str) -> EncodeError:
    return EncodeError(f"column {name!r} ({dtype}): {reason}", value_type="DataFrame", codec="arrow")
