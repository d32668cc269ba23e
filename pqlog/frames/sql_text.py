"""Text in SQL's grammar as a condition. sqlglot parses it, in DuckDB's dialect; nothing of it is ever executed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pqlog import extras
from pqlog.errors import ArgumentError
from pqlog.fields import METADATA_COLUMNS
from pqlog.frames.comparing import like_pattern
from pqlog.frames.conditions import (
    Among,
    Both,
    Certainly,
    Compare,
    Condition,
    Field,
    IsNull,
    IsTrue,
    Literal,
    Matches,
    Not,
    Term,
    Text,
)

MAX_TEXT = 100_000
"""The longest text; a longer list of values is better given as an expression."""
_COMPARISONS = {"EQ": "=", "NEQ": "!=", "LT": "<", "LTE": "<=", "GT": ">", "GTE": ">="}


def condition_of(text: str) -> Condition:
    """The condition that a text states.

    Raises
    ------
    ArgumentError
        It is not an expression of SQL, or has something that is not supported; the error shows where.
    MissingExtraError
        sqlglot is not installed.
    """
    if len(text) > MAX_TEXT:
        raise ArgumentError(
            f"where has {len(text):,} characters, and may have {MAX_TEXT:,}: use an expression of polars"
        )
    sqlglot = extras.package("sqlglot")
    try:
        found = sqlglot.parse(text, dialect="duckdb", error_level=sqlglot.ErrorLevel.RAISE)
    except sqlglot.errors.SqlglotError as error:
        raise _not_sql(text, error) from None
    except RecursionError:
        raise ArgumentError("where is nested too deeply") from None
    if len(found) != 1 or found[0] is None:
        said = "it is empty" if not any(found) else "it has several statements"
        raise ArgumentError(f"where takes one condition, such as \"ms > 300 and level = 'error'\": {said}")
    try:
        return _Translator(text).condition(found[0])
    except RecursionError:
        raise ArgumentError("where is nested too deeply") from None


def _not_sql(text: str, error: Any) -> ArgumentError:
    details = (getattr(error, "errors", None) or [{}])[0]
    line, column, word = details.get("line"), details.get("col"), details.get("highlight") or ""
    said = str(details.get("description") or error).partition(" but got <")[0].partition(" missing for <")[0]
    if line is None:
        return ArgumentError(f"where is not a condition of SQL: {said}")
    return ArgumentError(f"where is not a condition of SQL: {said}\n{_shown(text, line, column - len(word) + 1)}")


def _shown(text: str, line: int, column: int) -> str:
    """A line of a text, with a mark under a column, which counts from 1."""
    lines = text.split("\n")
    shown = lines[min(line, len(lines)) - 1]
    return f"  {shown}\n  {' ' * (max(1, column) - 1)}^"


class _Translator:
    """Translates the tree of a text."""

    def __init__(self, text: str) -> None:
        self._text = text

    def condition(self, node: Any) -> Condition:
        """A node as a condition."""
        kind = type(node).__name__
        self._check(node)
        if node.args.get("negate"):
            return Not(self._positive(node, kind))
        return self._positive(node, kind)

    def _check(self, node: Any) -> None:
        """Raise if a node has an argument that is not known here: it may say something else than it seems to."""
        if any(value and name not in _ARGUMENTS for name, value in node.args.items()):
            raise self._unsupported(node)

    def _positive(self, node: Any, kind: str) -> Condition:
        if kind in _COMPARISONS:
            return self._compare(_COMPARISONS[kind], node)
        method: Callable[[Any], Condition] | None = getattr(self, f"_{kind.lower()}", None)
        if kind in _CONDITIONS and method is not None:
            return method(node)
        if kind in ("Column", "Bracket", "Dot", "Boolean", "Null"):
            return IsTrue(self._term(node))
        raise self._unsupported(node)

    def _paren(self, node: Any) -> Condition:
        return self.condition(node.this)

    def _not(self, node: Any) -> Condition:
        return Not(self.condition(node.this))

    def _and(self, node: Any) -> Condition:
        return self._chain(node, True)

    def _or(self, node: Any) -> Condition:
        return self._chain(node, False)

    def _chain(self, node: Any, is_all: bool) -> Condition:
        """A chain of ANDs or ORs, as balanced as can be: a long one would be nested too deeply."""
        parts = [self.condition(part) for part in node.flatten()]
        while len(parts) > 1:
            pairs = [parts[at : at + 2] for at in range(0, len(parts), 2)]
            parts = [Both(pair[0], pair[1], is_all) if len(pair) == 2 else pair[0] for pair in pairs]
        return parts[0]

    def _compare(self, operator: str, node: Any) -> Condition:
        left, right = self._term(node.this), self._term(node.expression)
        return Compare(operator, *self._as_times(node, left, right))

    def _is(self, node: Any) -> Condition:
        of, value = node.this, node.expression
        if type(value).__name__ == "Null":
            return IsNull(self._term(of))
        if type(value).__name__ == "Boolean":
            condition = self.condition(of)
            return Certainly(condition if value.this else Not(condition))
        raise self._unsupported(value)

    def _nullsafeeq(self, node: Any) -> Condition:
        left, right = self._as_times(node, self._term(node.this), self._term(node.expression))
        same = Certainly(Compare("=", left, right))
        return Both(same, Both(IsNull(left), IsNull(right), True), False)

    def _nullsafeneq(self, node: Any) -> Condition:
        return Not(self._nullsafeeq(node))

    def _between(self, node: Any) -> Condition:
        of = self._term(node.this)
        low, high = (self._as_times(node, of, self._term(node.args[name]))[1] for name in ("low", "high"))
        return Both(Compare(">=", of, low), Compare("<=", of, high), True)

    def _in(self, node: Any) -> Condition:
        if not node.expressions:
            raise self._unsupported(node)
        of = self._term(node.this)
        values = []
        for item in node.expressions:
            value = self._as_times(item, of, self._term(item))[1]
            if not isinstance(value, Literal):
                raise self._unsupported(item, "IN takes values that are given")
            values.append(value.value)
        return Among(of, tuple(values))

    def _like(self, node: Any, escape: str | None = None) -> Condition:
        pattern = self._term(node.expression)
        if not isinstance(pattern, Literal) or not isinstance(pattern.value, str):
            raise self._unsupported(node.expression, "LIKE takes a pattern that is given")
        try:
            return Matches(self._term(node.this), like_pattern(pattern.value, escape), type(node).__name__ == "ILike")
        except ValueError as error:
            raise self._unsupported(node.expression, str(error)) from None

    _ilike = _like

    def _escape(self, node: Any) -> Condition:
        escape = node.expression
        if type(node.this).__name__ not in ("Like", "ILike") or not escape.is_string or len(escape.this) != 1:
            raise self._unsupported(node)
        return self._like(node.this, escape.this)

    # terms

    def _term(self, node: Any) -> Term:
        """A node as a field, or as a value that is given."""
        self._check(node)
        kind = type(node).__name__
        if kind == "Paren":
            return self._term(node.this)
        if kind in ("Column", "Bracket", "Dot"):
            return self._field(node)
        if kind in ("Lower", "Upper"):
            of = self._term(node.this)
            if isinstance(of, Field):
                return Text(kind.lower(), of)
        return Literal(self._value(node))

    def _field(self, node: Any) -> Field:
        path = self._path(node)
        metadata = METADATA_COLUMNS.values()
        if path[0] in metadata:
            if path[0] == "_headers" and len(path) != 2:
                raise self._unsupported(node, "name a header: _headers['source']")
            if path[0] != "_headers" and len(path) != 1:
                raise self._unsupported(node, f"{path[0]} has no fields")
            return Field(path, is_metadata=True)
        if path[0].endswith("_") and path[0].rstrip("_") in {name.rstrip("_") for name in metadata}:
            path = (path[0][:-1], *path[1:])  # as a column of a frame is named, where the name is taken
        return Field(path)

    def _path(self, node: Any) -> tuple[str, ...]:
        kind = type(node).__name__
        if kind == "Column":
            if any(type(part).__name__ != "Identifier" for part in node.parts):
                raise self._unsupported(node)
            return tuple(part.name for part in node.parts)
        if kind == "Dot" and type(node.expression).__name__ == "Identifier":
            return (*self._path(node.this), node.expression.name)
        if kind == "Bracket" and len(node.expressions) == 1 and node.expressions[0].is_string:
            return (*self._path(node.this), node.expressions[0].this)
        raise self._unsupported(node)

    def _value(self, node: Any) -> Any:
        kind = type(node).__name__
        if kind == "Literal":
            return node.this if node.is_string else self._number(node)
        if kind == "Neg" and type(node.this).__name__ == "Literal" and not node.this.is_string:
            return -self._number(node.this)
        if kind == "Boolean":
            return bool(node.this)
        if kind == "Null":
            return None
        if kind == "Cast" and node.this.is_string and node.to.this.name in _TIMES:
            return self._time(node.this, node.this.this)
        raise self._unsupported(node)

    def _number(self, node: Any) -> int | float:
        text = node.this
        try:
            return int(text) if text.isdigit() else float(text)
        except ValueError:
            raise self._unsupported(node, "it is not a number") from None

    def _time(self, node: Any, text: str) -> datetime:
        try:
            when = datetime.fromisoformat(text)
        except ValueError:
            raise self._unsupported(node, f"{text!r} is not a time: write ISO 8601") from None
        return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)

    def _as_times(self, node: Any, left: Term, right: Term) -> tuple[Term, Term]:
        """Two terms that are compared; text is a time where the other is the time of the message."""
        terms = [left, right]
        for at, other in ((0, right), (1, left)):
            term = terms[at]
            if other == _TIME and isinstance(term, Literal) and isinstance(term.value, str):
                terms[at] = Literal(self._time(node, term.value))
        return terms[0], terms[1]

    def _unsupported(self, node: Any, said: str = "") -> ArgumentError:
        places = [part.meta["start"] for part in node.walk() if "start" in part.meta]
        what = said or f"{node.sql(dialect='duckdb')[:60]!r} is not supported"
        text = f"where: {what}. It takes comparisons, AND, OR, NOT, IN, BETWEEN, LIKE and IS NULL of fields and values"
        if not places:
            return ArgumentError(text)
        before = self._text[: min(places)]
        line = before.count("\n") + 1
        return ArgumentError(f"{text}\n{_shown(self._text, line, len(before) - before.rfind(chr(10)))}")


_TIME = Field(("_time",), is_metadata=True)
_TIMES = {"TIMESTAMP", "TIMESTAMPTZ", "TIMESTAMPNTZ", "DATE", "DATETIME"}
_ARGUMENTS = {
    "this", "expression", "expressions", "low", "high", "table", "db", "catalog", "to", "is_string", "quoted", "negate",
}  # fmt: skip
"""The arguments of sqlglot's nodes that are taken into account."""
_CONDITIONS = {
    "Paren", "Not", "And", "Or", "Is", "NullSafeEQ", "NullSafeNEQ", "Between", "In", "Like", "ILike", "Escape",
}  # fmt: skip
