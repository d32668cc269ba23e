"""Keys and ids: the text of a message's field, by one rule for values and frames.

Text stays as it is. An integer becomes its decimal text, a date and a UUID become their standard text, a member of an
Enum becomes its value by the same rule. None, NaN, NA and NaT mean that there is no key. Everything else is refused
when it is put: a float, a bool, a time, bytes or a list could become different texts, depending on how it was put.

`pqlog.frames.keys` does the same for columns.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from pqlog import check
from pqlog.errors import ArgumentError, EncodeError

KEY, ID = "key", "id"
"""What a field is used as. An id must not be missing or empty."""

_PLAIN = {str, type(None)}


class RefusedError(ValueError):
    """A value cannot be a key or an id.

    Attributes
    ----------
    index : int
        The position of the value; 0 is the first.
    reason : str
        What is wrong with it, and what to do.
    value_type : str
        The type of the value.
    """

    def __init__(self, index: int, reason: str, value_type: str) -> None:
        super().__init__(reason)
        self.index, self.reason, self.value_type = index, reason, value_type

    def encode_error(self, codec: str, before: int) -> EncodeError:
        """The error for the caller of the put; `before` values came before these."""
        return EncodeError(self.reason, value_type=self.value_type, codec=codec, index=before + self.index)


def text(value: Any) -> str | None:
    """The text of a value, or None if the value is missing; raises `TypeError` if it cannot be a key."""
    if value is None or type(value) is str:
        return value
    if isinstance(value, Enum):
        return text(value.value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return str(int(value))
    if is_missing(value):
        return None
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"a value of type {type(value).__name__} cannot be a key")


def is_missing(value: Any) -> bool:
    """Whether a value stands for a missing one."""
    kind = type(value)
    if kind.__module__.startswith("pandas.") and kind.__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, (float, Decimal)) or kind.__module__ == "numpy":
        try:
            return bool(value != value)
        except Exception:  # an array, or a signalling NaN
            return False
    return value is None


def texts(values: Sequence[Any], field: str, what: str) -> list[str | None]:
    """The texts of a field's values, one for each.

    Parameters
    ----------
    field : str
        The name of the field, for the error.
    what : {KEY, ID}
        What the field is used as.

    Raises
    ------
    RefusedError
        A value cannot be a key or an id; or it is missing or empty, and is used as the id.
    """
    kinds = set(map(type, values))
    if kinds <= _PLAIN:
        found: list[str | None] = list(values)
    elif kinds == {int}:
        found = _decimal(values, field, what)
    else:
        found = []
        for index, value in enumerate(values):
            try:
                found.append(text(value))
            except (TypeError, ValueError) as error:  # a ValueError for an int with too many digits for str()
                raise RefusedError(index, reason(field, what, value), type(value).__name__) from error
    if not "".join(filter(None, found)).isascii():
        for index, one in enumerate(found):
            try:
                check.text(f"the field {field!r}, which is used as the {what},", one or "")
            except ArgumentError as error:
                raise RefusedError(index, str(error), "str") from None
    return required(found, field) if what == ID else found


def _decimal(values: Sequence[int], field: str, what: str) -> list[str | None]:
    try:
        return list(map(str, values))
    except ValueError as error:
        index = next(index for index, value in enumerate(values) if abs(value) >= 10**600)
        raise RefusedError(index, reason(field, what, values[index]), "int") from error


def required(found: Sequence[str | None], field: str) -> list[str | None]:
    """The same texts; raises if one is missing or empty."""
    if not all(found):
        index = next(index for index, one in enumerate(found) if not one)
        how = "missing" if found[index] is None else "empty"
        said = (
            f"the field {field!r}, which is used as the id, is {how}: each message needs an id. Fill it in, or leave "
            f"that message out"
        )
        raise RefusedError(index, said, "message")
    return list(found)


def reason(field: str, what: str, value: Any) -> str:
    """Why a value is refused."""
    advice = f"convert it to text, for instance with str(), and put that as {field!r} or as another field"
    return (
        f"the field {field!r}, which is used as the {what}, is {_shown(value)} (of type {type(value).__name__}), but "
        f"{'an' if what == ID else 'a'} {what} must be text, an integer, a date or a UUID: {advice}"
    )


def _shown(value: Any) -> str:
    try:
        shown = repr(value)
    except Exception:  # an int with too many digits for repr(), or a class of the caller's
        return "a value that cannot be shown"
    return shown if len(shown) <= 60 else shown[:57] + "..."


def column(values: Sequence[Any], field: str) -> list[Any]:
    """A field of many values: the item with that name for mappings, the attribute for others; None if it is missing."""
    if set(map(type, values)) == {dict}:
        return [value.get(field) for value in values]
    return [_field(value, field) for value in values]


def _field(value: Any, field: str) -> Any:
    if field.startswith("__") and not isinstance(value, Mapping):
        return None  # every text has the same __doc__
    try:
        return value[field] if isinstance(value, Mapping) else getattr(value, field)
    except (KeyError, AttributeError):
        return None
