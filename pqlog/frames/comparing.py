"""Comparing values: those of columns with one another and with given ones, exactly, whatever their types.

Two values are of one kind if both are numbers, text, booleans, times or bytes; others are of no kind. NaN equals itself
and is greater than every other number, as in DuckDB, PostgreSQL and polars. A time without a zone is in UTC.
"""

from __future__ import annotations

import math
import operator as operators
import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pqlog.frames.arrays import decode_dictionary, single_array
from pqlog.frames.arrow_types import MAX_EXACT_INTEGER, NANOSECONDS, is_binary, is_text

Operand = Any
"""A pyarrow.Array of one kind, or a list of values of any."""

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operators.eq,
    "!=": operators.ne,
    "<": operators.lt,
    "<=": operators.le,
    ">": operators.gt,
    ">=": operators.ge,
}
_COMPUTE = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def operand_of(column: Any) -> pa.Array | None:
    """A column as an array of a type that is compared here; None if its values have to be compared one by one."""
    array = single_array(column)
    if isinstance(array, pa.ExtensionArray):
        return None
    if pa.types.is_dictionary(array.type):
        array = single_array(decode_dictionary(pa.chunked_array([array])))
    of = array.type
    if is_text(of) and not pa.types.is_string(of):
        return array.cast(pa.large_string())
    if is_binary(of) and not pa.types.is_binary(of):
        return array.cast(pa.large_binary())
    if pa.types.is_date32(of):
        return array.cast(pa.timestamp("s"))
    if pa.types.is_date64(of):
        return array.cast(pa.timestamp("ms"))
    if pa.types.is_floating(of) and of.bit_width < 64:
        return array.cast(pa.float64())
    return None if _kind(of) is None and not pa.types.is_null(of) else array


def _kind(of: pa.DataType) -> str | None:
    is_ = pa.types
    if is_.is_integer(of) or is_.is_floating(of):
        return "number"
    if is_.is_boolean(of):
        return "boolean"
    if is_text(of):
        return "text"
    if is_binary(of):
        return "bytes"
    return "time" if is_.is_timestamp(of) else None


def kind_of_value(value: Any) -> str | None:
    """The kind of a Python value."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float, Decimal)):
        return "number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, bytes):
        return "bytes"
    return "time" if isinstance(value, date) else None


# one by one


def compare_values(operator: str, one: Any, other: Any) -> bool | None:
    """A comparison of two Python values; None if it is unknown."""
    if one is None or other is None:
        return None
    kind = kind_of_value(one)
    if kind is None or kind != kind_of_value(other):
        return None if operator not in ("=", "!=") else (operator == "!=") if kind != kind_of_value(other) else None
    if kind == "time":
        one, other = nanoseconds(one), nanoseconds(other)
    elif kind == "number" and (one != one or other != other):
        one, other = one != one, other != other
        if not (one and other):  # only one is NaN: True, and greater
            return _OPERATORS[operator](int(one), int(other))
    return _OPERATORS[operator](one, other)


def nanoseconds(when: date) -> int:
    """A time in nanoseconds since 1970."""
    if not isinstance(when, datetime):
        when = datetime(when.year, when.month, when.day)
    aware = when.replace(tzinfo=UTC) if when.tzinfo is None else when
    return (aware - _EPOCH) // timedelta(microseconds=1) * 1000 + int(getattr(when, "nanosecond", 0))


def given(value: Any, kind: str | None) -> Any:
    """A given value, to be compared with values of a kind: text in ISO 8601 is a time where the others are times."""
    if kind == "time" and isinstance(value, str):
        try:
            when = datetime.fromisoformat(value)
        except ValueError:
            return value
        return when.replace(tzinfo=UTC) if when.tzinfo is None else when
    return value


def is_among(value: Any, others: Sequence[Any]) -> bool | None:
    """Whether a value equals one of some given ones; None if it is unknown."""
    kind = kind_of_value(value)
    found = [compare_values("=", value, given(other, kind)) for other in others]
    return True if True in found else None if None in found else False


def as_values(operand: Operand) -> list[Any]:
    """The values of an operand."""
    return operand if isinstance(operand, list) else operand.to_pylist()


def _each(test: Callable[[Any], bool | None], operand: Operand) -> pa.Array:
    return pa.array([test(value) for value in as_values(operand)], pa.bool_())


# columns


def compare(operator: str, left: Operand, right: Operand) -> pa.Array:
    """A comparison of two columns, row by row."""
    if not isinstance(left, list) and not isinstance(right, list):
        if pa.types.is_null(left.type) or pa.types.is_null(right.type):
            return pa.nulls(len(left), pa.bool_())
        if _kind(left.type) != _kind(right.type):
            both = pc.and_(left.is_valid(), right.is_valid())
            answer = pa.scalar({"=": False, "!=": True}.get(operator), pa.bool_())
            return pc.if_else(both, answer, pa.scalar(None, pa.bool_()))
        if left.type == right.type and not pa.types.is_floating(left.type):
            return _COMPUTE[operator](left, right)
        if _are_exact_doubles(left) and _are_exact_doubles(right):
            return _COMPUTE[operator](left, right)
    pairs = zip(as_values(left), as_values(right), strict=True)
    return pa.array([compare_values(operator, one, other) for one, other in pairs], pa.bool_())


def _are_exact_doubles(array: pa.Array) -> bool:
    """Whether all are numbers that a double holds, and none is NaN."""
    if pa.types.is_floating(array.type):
        return not pc.any(pc.is_nan(array)).as_py()
    if not pa.types.is_integer(array.type):
        return False
    bounds = pc.min_max(array).as_py()
    return all(bound is None or abs(bound) <= MAX_EXACT_INTEGER for bound in bounds.values())


def compare_with(operator: str, operand: Operand, value: Any) -> pa.Array:
    """A comparison of a column with a given value."""
    if isinstance(operand, list):
        return _each(lambda one: compare_values(operator, one, given(value, kind_of_value(one))), operand)
    if value is None or pa.types.is_null(operand.type):
        return pa.nulls(len(operand), pa.bool_())
    kind = _kind(operand.type)
    value = given(value, kind)
    if kind != kind_of_value(value):
        return _where_valid(operand, {"=": False, "!=": True}.get(operator))
    if kind == "number":
        if pa.types.is_floating(operand.type):
            return _compare_doubles(operator, operand, value)
        return _compare_integers(operator, operand, value)
    if kind == "time":
        unit = Fraction(nanoseconds(value), NANOSECONDS[operand.type.unit])
        return _compare_integers(operator, operand.cast(pa.int64()), unit)
    return _COMPUTE[operator](operand, pa.scalar(value, operand.type))


def _where_valid(operand: pa.Array, answer: bool | None) -> pa.Array:
    """The same answer for each value, and null for nulls."""
    return pc.if_else(operand.is_valid(), pa.scalar(answer, pa.bool_()), pa.scalar(None, pa.bool_()))


def _compare_integers(operator: str, array: pa.Array, value: Any) -> pa.Array:
    """A comparison with any number: one with a fraction lies between two integers."""
    if isinstance(value, float) and not math.isfinite(value):
        return _where_valid(array, compare_values(operator, 0, value))
    exact = Fraction(value)
    bits, is_signed = array.type.bit_width, pa.types.is_signed_integer(array.type)
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if is_signed else (0, (1 << bits) - 1)
    if exact.denominator != 1:
        if operator in ("=", "!="):
            return _where_valid(array, operator == "!=")
        exact, operator = Fraction(math.floor(exact)), "<=" if operator in ("<", "<=") else ">"
    if not low <= exact <= high:
        return _where_valid(array, _OPERATORS[operator](0, exact))
    return _COMPUTE[operator](array, pa.scalar(int(exact), array.type))


def _compare_doubles(operator: str, array: pa.Array, value: Any) -> pa.Array:
    """A comparison with any number: one that no double is lies between two doubles."""
    is_nan = pc.is_nan(array)
    if value != value:
        answer = {"=": is_nan, "!=": pc.invert(is_nan), "<": pc.invert(is_nan), ">=": is_nan}.get(operator)
        return _where_valid(array, operator == "<=") if answer is None else answer
    try:
        double = float(value)
    except OverflowError:
        double = math.inf if value > 0 else -math.inf
    if double != value:  # between that double and the next one
        if operator in ("=", "!="):
            return _where_valid(array, operator == "!=")
        is_below = double < value
        operator = {"<": "<=" if is_below else "<", "<=": "<=" if is_below else "<"}.get(operator, operator)
        operator = {">": ">" if is_below else ">=", ">=": ">" if is_below else ">="}.get(operator, operator)
    answer = _COMPUTE[operator](array, pa.scalar(double))
    return pc.or_(answer, is_nan) if operator in (">", ">=") else answer


def among(operand: Operand, values: Sequence[Any]) -> pa.Array:
    """Whether each value of a column equals one of some given ones."""
    if isinstance(operand, list):
        return _each(lambda one: is_among(one, values), operand)
    if pa.types.is_null(operand.type):
        return pa.nulls(len(operand), pa.bool_())
    kind = _kind(operand.type)
    values = [given(value, kind) for value in values]
    alike = [value for value in values if kind_of_value(value) == kind]
    if kind in ("text", "bytes") or _are_integers(alike, operand.type):
        found = pc.is_in(operand, value_set=pa.array(alike, operand.type), skip_nulls=True)
    else:
        found = pa.repeat(pa.scalar(False), len(operand))
        for value in alike:
            found = pc.or_(found, pc.fill_null(compare_with("=", operand, value), False))
    if None in values:  # then it is unknown whether it is none of them
        return pc.if_else(found, pa.scalar(True), pa.scalar(None, pa.bool_()))
    return pc.if_else(operand.is_valid(), found, pa.scalar(None, pa.bool_()))


def _are_integers(values: Sequence[Any], of: pa.DataType) -> bool:
    """Whether numbers are integers, which a type of signed integers holds."""
    if not pa.types.is_signed_integer(of):
        return False
    limit = 1 << of.bit_width - 1
    return all(isinstance(value, int) and -limit <= value < limit for value in values)


def matches(operand: Operand, pattern: str, ignores_case: bool) -> pa.Array:
    """Whether each text of a column has a match of a regular expression; null for all that is not text."""
    if not isinstance(operand, list) and _kind(operand.type) == "text":
        return pc.match_substring_regex(operand, pattern, ignore_case=ignores_case)
    texts = [value if isinstance(value, str) else None for value in as_values(operand)]
    return pc.match_substring_regex(pa.array(texts, pa.string()), pattern, ignore_case=ignores_case)


def changed_case(operand: Operand, function: str) -> Operand:
    """A column with its texts in lower or upper case; null where a value is not text."""
    change = pc.utf8_lower if function == "lower" else pc.utf8_upper
    if not isinstance(operand, list) and _kind(operand.type) == "text":
        return change(operand)
    return change(pa.array([value if isinstance(value, str) else None for value in as_values(operand)], pa.string()))


def booleans(operand: Operand) -> pa.Array:
    """A column as conditions: null for all that is not a boolean."""
    if not isinstance(operand, list):
        return operand if pa.types.is_boolean(operand.type) else pa.nulls(len(operand), pa.bool_())
    return pa.array([value if isinstance(value, bool) else None for value in operand], pa.bool_())


def like_pattern(pattern: str, escape: str | None) -> str:
    """The regular expression of a pattern of LIKE; raises ValueError if the escape character escapes nothing."""
    found, characters = [], iter(pattern)
    for character in characters:
        if character == escape:
            following = next(characters, None)
            if following is None:
                raise ValueError(f"the pattern {pattern!r} ends with its escape character")
            found.append(re.escape(following))
        else:
            found.append({"%": ".*", "_": "."}.get(character) or re.escape(character))
    return rf"(?s)\A{''.join(found)}\z"
