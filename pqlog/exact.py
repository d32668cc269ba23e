"""What is read is what was put: finds where a value changes when it is encoded and decoded again.

Most values come back equal, which a single comparison shows. The others are compared part by part, and only these
differences are accepted (docs/concepts.md has them as a table):

- tuples and named tuples become lists, and subclasses of dict and list become plain ones;
- datetime, date, time, timedelta, UUID and Decimal become text that converts back without loss;
- a member of an Enum becomes its value;
- dataclasses, attrs classes, Structs and pydantic models become objects with their fields;
- NumPy's scalars and arrays, and pandas' Timestamp, become Python's numbers, lists and datetimes.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import msgspec


class _Absent:
    """What an object has that lacks a field; msgspec's UNSET is a value, which is left out and so would be lost."""

    def __repr__(self) -> str:
        return "nothing"


_ABSENT = _Absent()

_TEXTS = (datetime, date, time, timedelta, UUID, Decimal)
"""Types that are stored as text."""


class Change(NamedTuple):
    """A value that would not come back as it is."""

    path: str
    """Where it is: ``$.a[3]``."""
    value: Any
    said: str
    """What it would become."""


def is_pydantic(thing: Any) -> bool:
    """Whether it is a pydantic model, or its class; finding out does not need pydantic itself."""
    return hasattr(thing, "model_validate_json") and hasattr(thing, "model_dump")


def plain(value: Any) -> Any:
    """The equivalent of a value that msgspec cannot encode: of a pydantic model, or a value of NumPy or pandas.

    Raises
    ------
    NotImplementedError
        No such value is equivalent.
    """
    kind = type(value)
    if is_pydantic(value) and not isinstance(value, type):
        return value.model_dump(mode="json", by_alias=True, round_trip=True)
    module = kind.__module__.partition(".")[0]
    if module == "numpy" and hasattr(value, "tolist"):
        return _plain_numpy(value)
    if module == "pandas" and hasattr(value, "to_pydatetime") and not getattr(value, "nanosecond", 1):
        return value.to_pydatetime()
    raise NotImplementedError(f"{kind.__qualname__} cannot be encoded here")


def _plain_numpy(value: Any) -> Any:
    found, kind = value, value.dtype.kind
    if kind in "mM" and value.dtype.name.endswith(("[ns]", "[ps]", "[fs]", "[as]")):
        found = value.astype(f"{kind}8[us]")
    if (
        kind == "V"
        or hasattr(value, "mask")
        or (kind in "mM" and ("[" not in value.dtype.name or (found != value).any()))  # finer than µs, or NaT
        or (
            kind in "mM" and any(isinstance(one, int) for one in found.ravel().tolist())
        )  # outside of the years 1..9999
    ):
        raise NotImplementedError(f"numpy.{type(value).__name__} of {value.dtype} cannot be encoded as it is")
    found = found.tolist()
    if type(found) is type(value):  # a long double gives itself
        raise NotImplementedError(f"numpy.{type(value).__name__} cannot be encoded")
    return found


def change(value: Any, back: Any, keys_are_text: bool, path: str = "$") -> Change | None:
    """The first place where `back` is not what `value` was; None if it holds the same.

    Parameters
    ----------
    value : object
        What was encoded.
    back : object
        What decoding gave.
    keys_are_text : bool
        Whether the codec knows no other keys of dicts.
    """
    kind = type(value)
    if isinstance(value, enum.Enum):
        value = value.value
        return change(value, back, keys_are_text, path)
    if isinstance(value, dict) and isinstance(back, dict):
        return _change_of_dict(value, back, keys_are_text, path)
    if isinstance(value, (list, tuple)) and isinstance(back, (list, tuple)):
        if len(value) != len(back):
            return Change(path, value, f"would come back with {len(back)} items")
        return _first(
            change(one, other, keys_are_text, f"{path}[{index}]")
            for index, (one, other) in enumerate(zip(value, back, strict=True))
        )
    if isinstance(value, _TEXTS) and _is_text_of(value, back):
        return None
    if is_pydantic(kind):
        return None if _is_model_of(value, back) else _changed(path, value, back)
    fields = _fields(value)
    if fields is not None:
        return _change_of_object(value, fields, back, keys_are_text, path)
    if kind.__module__.partition(".")[0] in ("numpy", "pandas"):
        return change(plain(value), back, keys_are_text, path)
    if _equal(value, back) or (kind is float and type(back) is float and value != value and back != back):
        return None
    return _changed(path, value, back)


def _equal(one: Any, other: Any) -> bool:
    return type(one) is type(other) and (one == other) is True


def _changed(path: str, value: Any, back: Any) -> Change:
    shown = repr(back)
    return Change(path, value, f"would come back as {shown if len(shown) < 40 else shown[:37] + '...'}")


def _first(changes: Iterable[Change | None]) -> Change | None:
    return next((found for found in changes if found is not None), None)


def _change_of_dict(value: dict[Any, Any], back: dict[Any, Any], keys_are_text: bool, path: str) -> Change | None:
    for key in value:
        plain_key = key.value if isinstance(key, enum.Enum) else key
        if keys_are_text and not isinstance(plain_key, str):
            return Change(path, key, f"has the key {key!r}, which would come back as text")
        if plain_key not in back:
            return Change(path, key, f"has the key {key!r}, which would come back as another")
    if len(value) != len(back):
        return Change(path, value, "has keys that would come back as one")
    return _first(
        change(one, other, keys_are_text, f"{path}{_step(key)}")
        for (key, one), other in zip(value.items(), back.values(), strict=True)
    )


def _step(key: Any) -> str:
    return f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r}]"


def _is_text_of(value: Any, back: Any) -> bool:
    if isinstance(value, Decimal):
        return str(value) == str(back)
    base = next(base for base in _TEXTS if isinstance(value, base))
    made = msgspec.convert(back, base) if isinstance(back, str) else back
    return type(made) is base and _instant(made) == _instant(value)


def _instant(value: Any) -> Any:
    """For comparing times of different zones: in the hour that a clock repeats, == says that they are not equal."""
    return value.astimezone(UTC) if isinstance(value, datetime) and value.tzinfo is not None else value


def _is_model_of(value: Any, back: Any) -> bool:
    made = back if type(back) is type(value) else type(value).model_validate_json(msgspec.json.encode(back))
    return bool(made == value)


def _fields(value: Any) -> dict[str, str] | None:
    """The names of an object's fields, and their names when it is encoded."""
    if isinstance(value, msgspec.Struct):
        return dict(zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True))
    if dataclasses.is_dataclass(value):
        return {field.name: field.name for field in dataclasses.fields(value)}
    if hasattr(value, "__attrs_attrs__"):
        return {field.name: field.name for field in value.__attrs_attrs__}
    return None


def _change_of_object(
    value: Any, fields: Mapping[str, str], back: Any, keys_are_text: bool, path: str
) -> Change | None:
    config = getattr(value, "__struct_config__", None)
    if config is not None and config.array_like and isinstance(back, list):
        tags = 0 if config.tag is None else 1
        back = dict(zip(fields.values(), back[tags:], strict=False))
    for name, encoded in fields.items():
        one = getattr(value, name, _ABSENT)
        if type(back) is type(value):
            other = getattr(back, name, _ABSENT)
        elif isinstance(back, dict):
            other = back.get(encoded, _ABSENT)
        else:
            return _changed(path, value, back)
        if one is other or (other is _ABSENT and config is not None and config.omit_defaults):
            continue
        found = change(one, other, keys_are_text, f"{path}.{name}")
        if found is not None:
            return found
    return None
