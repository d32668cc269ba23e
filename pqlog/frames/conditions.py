"""Conditions: what a predicate says of a message, as a tree that is evaluated on columns, and on what is known of them.

A condition is true, false or unknown of a message, as in SQL: unknown where a value is missing. Values of different
kinds (numbers, text, booleans, times, bytes) are unequal, and whether one is less than the other is unknown. So the
answer depends on the message alone, and not on the types that the columns of a chunk happen to have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from pqlog.frames import comparing
from pqlog.frames.comparing import Operand, compare, compare_values, kind_of_value

TRUE, FALSE, UNKNOWN = 1, 2, 4
"""What a condition may be for some messages: a sum of these."""
ANYTHING = TRUE | FALSE | UNKNOWN
_TURNED = {"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


class Bounds(NamedTuple):
    """What is known of the values that some messages have in a column."""

    low: Any
    """No value is less; None if nothing is known, or if there are no values."""
    high: Any
    has_nulls: bool = True
    """Whether some of the messages may have no value."""
    has_values: bool = True
    """Whether some of the messages may have one."""
    contains: Callable[[Any], bool] | None = None
    """False only of values that no message has."""


Known = Mapping["Field", Bounds]
"""What is known of columns, by what refers to them."""


class Columns(Protocol):
    """The columns that conditions are evaluated on."""

    rows: int

    def operand(self, field: Field) -> Operand:
        """The values of a column: an array of one kind, or a list of values of any kind."""
        ...


class Condition(Protocol):
    """A part of a tree."""

    def mask(self, columns: Columns) -> pa.Array:
        """For each message true, false, or null for unknown."""
        ...

    def possible(self, known: Known) -> int:
        """What it may be for messages of which something is known: a sum of `TRUE`, `FALSE` and `UNKNOWN`."""
        ...


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the messages, or one of the metadata columns.

    Attributes
    ----------
    path : tuple of str
        Of more than one name for a field of nested objects, and for a header.
    is_metadata : bool
    """

    path: tuple[str, ...]
    is_metadata: bool = False


@dataclass(frozen=True, slots=True)
class Literal:
    """A value that is given: None, a bool, int, float, str, bytes, or a datetime with a time zone."""

    value: Any


@dataclass(frozen=True, slots=True)
class Text:
    """The text of an operand after a function: ``"lower"`` or ``"upper"``."""

    function: str
    of: Field


Term = Field | Literal | Text


def _operand(term: Term, columns: Columns) -> Operand | Literal:
    if isinstance(term, Literal):
        return term
    if isinstance(term, Field):
        return columns.operand(term)
    return comparing.changed_case(columns.operand(term.of), term.function)


def _constant(value: bool | None, rows: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, pa.bool_()), rows)


def _bounds(term: Term, known: Known) -> Bounds | None:
    return known.get(term) if isinstance(term, Field) else None


@dataclass(frozen=True, slots=True)
class Compare:
    """A comparison: ``=``, ``!=``, ``<``, ``<=``, ``>``, ``>=``."""

    operator: str
    left: Term
    right: Term

    def mask(self, columns: Columns) -> pa.Array:
        left, right = _operand(self.left, columns), _operand(self.right, columns)
        if isinstance(left, Literal) and isinstance(right, Literal):
            return _constant(compare_values(self.operator, left.value, right.value), columns.rows)
        if isinstance(left, Literal):
            return comparing.compare_with(_TURNED[self.operator], right, left.value)
        if isinstance(right, Literal):
            return comparing.compare_with(self.operator, left, right.value)
        return compare(self.operator, left, right)

    def possible(self, known: Known) -> int:
        if isinstance(self.right, Literal):
            return _possible(self.operator, _bounds(self.left, known), self.right.value)
        if isinstance(self.left, Literal):
            return _possible(_TURNED[self.operator], _bounds(self.right, known), self.left.value)
        return ANYTHING


def _possible(operator: str, bounds: Bounds | None, value: Any) -> int:
    """What a comparison of values within bounds with a given one may be."""
    if value is None:
        return UNKNOWN
    if bounds is None:
        return ANYTHING
    unknown = UNKNOWN if bounds.has_nulls else 0
    if not bounds.has_values:
        return unknown
    low, high = bounds.low, bounds.high
    value = comparing.given(value, kind_of_value(low))
    if low is None or high is None:
        found = TRUE | FALSE
    elif not kind_of_value(low) == kind_of_value(high) == kind_of_value(value):
        return ANYTHING
    elif operator in ("<", "<="):
        found = _either(compare_values(operator, low, value), compare_values(operator, high, value))
    elif operator in (">", ">="):
        found = _either(compare_values(operator, high, value), compare_values(operator, low, value))
    else:
        is_within = compare_values("<=", low, value) and compare_values("<=", value, high)
        is_all = compare_values("=", low, value) and compare_values("=", high, value)
        found = (TRUE if is_within else 0) | (0 if is_all else FALSE)
        if operator == "!=":
            found = _negated(found)
    if bounds.contains is not None and operator in ("=", "!=") and not bounds.contains(value):
        found &= ~(TRUE if operator == "=" else FALSE)
    return found | unknown


def _either(is_some: bool | None, is_all: bool | None) -> int:
    return (TRUE if is_some else 0) | (0 if is_all else FALSE)


def _negated(possible: int) -> int:
    return (TRUE if possible & FALSE else 0) | (FALSE if possible & TRUE else 0) | possible & UNKNOWN


@dataclass(frozen=True, slots=True)
class Among:
    """Whether a value is one of some others, of which there is at least one."""

    of: Term
    values: tuple[Any, ...]

    def mask(self, columns: Columns) -> pa.Array:
        operand = _operand(self.of, columns)
        if isinstance(operand, Literal):
            return _constant(comparing.is_among(operand.value, self.values), columns.rows)
        return comparing.among(operand, self.values)

    def possible(self, known: Known) -> int:
        bounds = _bounds(self.of, known)
        each = [_possible("=", bounds, value) for value in self.values]
        some = TRUE if any(one & TRUE for one in each) else 0
        unknown = UNKNOWN if any(one & UNKNOWN for one in each) else 0
        return some | unknown | FALSE


@dataclass(frozen=True, slots=True)
class Matches:
    """Whether all of a text matches a regular expression (of RE2)."""

    of: Term
    pattern: str
    ignores_case: bool = False

    def mask(self, columns: Columns) -> pa.Array:
        operand = _operand(self.of, columns)
        if isinstance(operand, Literal):
            operand = [operand.value] * columns.rows
        return comparing.matches(operand, self.pattern, self.ignores_case)

    def possible(self, known: Known) -> int:
        return ANYTHING


@dataclass(frozen=True, slots=True)
class IsNull:
    """Whether there is no value."""

    of: Term

    def mask(self, columns: Columns) -> pa.Array:
        operand = _operand(self.of, columns)
        if isinstance(operand, Literal):
            return _constant(operand.value is None, columns.rows)
        return (
            pa.array([value is None for value in operand], pa.bool_())
            if isinstance(operand, list)
            else pc.is_null(operand)
        )

    def possible(self, known: Known) -> int:
        bounds = _bounds(self.of, known)
        if bounds is None:
            return TRUE | FALSE
        return (TRUE if bounds.has_nulls else 0) | (FALSE if bounds.has_values else 0)


@dataclass(frozen=True, slots=True)
class IsTrue:
    """A value as a condition: unknown unless it is a boolean."""

    of: Term

    def mask(self, columns: Columns) -> pa.Array:
        operand = _operand(self.of, columns)
        if isinstance(operand, Literal):
            return _constant(operand.value if isinstance(operand.value, bool) else None, columns.rows)
        return comparing.booleans(operand)

    def possible(self, known: Known) -> int:
        return ANYTHING


@dataclass(frozen=True, slots=True)
class Not:
    of: Condition

    def mask(self, columns: Columns) -> pa.Array:
        return pc.invert(self.of.mask(columns))

    def possible(self, known: Known) -> int:
        return _negated(self.of.possible(known))


@dataclass(frozen=True, slots=True)
class Certainly:
    """Whether a condition is certainly true: false, too, where it is unknown."""

    of: Condition

    def mask(self, columns: Columns) -> pa.Array:
        return pc.fill_null(self.of.mask(columns), False)

    def possible(self, known: Known) -> int:
        found = self.of.possible(known)
        return found & TRUE | (FALSE if found & (FALSE | UNKNOWN) else 0)


@dataclass(frozen=True, slots=True)
class Both:
    """AND (`is_all`), or OR, of two conditions."""

    left: Condition
    right: Condition
    is_all: bool

    def mask(self, columns: Columns) -> pa.Array:
        combine = pc.and_kleene if self.is_all else pc.or_kleene
        return combine(self.left.mask(columns), self.right.mask(columns))

    def possible(self, known: Known) -> int:
        left, right = self.left.possible(known), self.right.possible(known)
        weak, strong = (TRUE, FALSE) if self.is_all else (FALSE, TRUE)
        found = left & right & weak | (left | right) & strong
        if (left | right) & UNKNOWN and left & (UNKNOWN | weak) and right & (UNKNOWN | weak):
            found |= UNKNOWN
        return found


@dataclass(frozen=True, slots=True)
class Unclear:
    """A condition that cannot be evaluated here: it may be anything."""

    def mask(self, columns: Columns) -> pa.Array:
        raise AssertionError("it is only compared with bounds")

    def possible(self, known: Known) -> int:
        return ANYTHING


def fields_of(condition: Any) -> frozenset[Field]:
    """The columns that a condition is about."""
    if isinstance(condition, Field):
        return frozenset([condition])
    names = getattr(condition, "__dataclass_fields__", ())
    return frozenset().union(*(fields_of(getattr(condition, name)) for name in names))
