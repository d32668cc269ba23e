"""Expressions of polars and of pyarrow: which columns they need, and what they can be within bounds."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pqlog import extras
from pqlog.errors import ArgumentError
from pqlog.fields import METADATA_COLUMNS
from pqlog.frames.arrays import filter_rows
from pqlog.frames.comparing import kind_of_value
from pqlog.frames.conditions import (
    Among,
    Both,
    Bounds,
    Compare,
    Condition,
    Field,
    IsNull,
    IsTrue,
    Known,
    Literal,
    Not,
    Term,
    Unclear,
)

# pyarrow

_ROW = "pqlog row"


def select(expression: Any, table: pa.Table) -> pa.Table:
    """The rows of a table of which an expression is true."""
    try:
        return table.filter(expression)
    except pa.ArrowNotImplementedError:  # its own filter lacks some types
        return filter_rows(table, mask(expression, table))


def mask(expression: Any, table: pa.Table) -> Any:
    """For each row of a table whether an expression is true."""
    rows = pa.array(np.arange(table.num_rows))
    columns = {**dict(zip(table.column_names, table.columns, strict=True)), _ROW: rows}
    try:
        found = pa.table(columns).filter(expression).column(_ROW)
    except pa.ArrowException as error:
        raise ArgumentError(f"where: pyarrow cannot evaluate {expression}: {error}") from error
    answer = np.zeros(table.num_rows, bool)
    answer[found.to_numpy()] = True
    return pa.array(answer)


def names_of(expression: Any, schema: pa.Schema) -> tuple[str, ...]:
    """The columns of a schema that an expression needs: those without which it is an error."""
    empty = schema.empty_table()
    _bind(expression, empty)
    needed = []
    for name in schema.names:
        rest = empty.drop_columns([name])
        try:
            (rest if rest.num_columns else pa.table({_ROW: pa.array([], pa.int64())})).filter(expression)
        except pa.ArrowException:
            needed.append(name)
    return tuple(needed)


def _bind(expression: Any, table: pa.Table) -> None:
    try:
        (table if table.num_columns else pa.table({_ROW: pa.array([], pa.int64())})).filter(expression)
    except pa.ArrowException as error:
        said = str(error).partition("\n")[0]
        raise ArgumentError(f"where: pyarrow cannot evaluate {expression} on these messages: {said}") from error


class Guarantee:
    """Whether an expression can be true within bounds: found out by pyarrow itself.

    pyarrow simplifies the filter of a dataset by what it knows of each of its fragments, and leaves out those of which
    it cannot be true. The fragment here stands for messages; it is never opened.
    """

    def __init__(self, expression: Any, schema: pa.Schema) -> None:
        self._expression, self._schema = expression, schema
        self._dataset = dataset = extras.package("pyarrow.dataset")  # it takes a second to load
        self._format, self._files = dataset.IpcFileFormat(), extras.package("pyarrow.fs").LocalFileSystem()

    def may_match(self, known: Known) -> bool:
        """Whether it may be true of a message, given what is known of columns."""
        guarantee = pc.scalar(True)
        for of, bounds in known.items():
            guarantee = guarantee & self._within(of.path[0], bounds)
        fragment = self._format.make_fragment("none", self._files, guarantee)
        dataset = self._dataset.FileSystemDataset([fragment], self._schema, self._format, self._files)
        return any(True for _ in dataset.get_fragments(self._expression))

    def _within(self, name: str, bounds: Bounds) -> Any:
        index = self._schema.get_field_index(name)
        if index < 0 or bounds.low is None or bounds.high is None or bounds.has_nulls:
            return pc.scalar(True)
        of = self._schema.field(index).type
        try:
            low, high = pa.scalar(bounds.low, of), pa.scalar(bounds.high, of)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            return pc.scalar(True)
        return (pc.field(name) >= low) & (pc.field(name) <= high)


# polars

_COMPARISONS = {"Eq": "=", "NotEq": "!=", "Lt": "<", "LtEq": "<=", "Gt": ">", "GtEq": ">="}


_ELEMENTWISE = {
    "Boolean": {"IsNull", "IsNotNull", "IsNan", "IsNotNan", "IsFinite", "IsInfinite", "IsBetween", "Not",
                "AnyHorizontal", "AllHorizontal", "IsClose"},
    "StringExpr": {"Contains", "StartsWith", "EndsWith", "Lowercase", "Uppercase", "LenChars", "LenBytes",
                   "StripChars", "StripCharsStart", "StripCharsEnd", "StripPrefix", "StripSuffix", "Slice", "Head",
                   "Tail", "Find", "Extract", "Replace", "JsonPathMatch"},
    "TemporalExpr": {"Year", "IsoYear", "Quarter", "Month", "Week", "WeekDay", "Day", "OrdinalDay", "Hour", "Minute",
                     "Second", "Millisecond", "Microsecond", "Date", "Time", "Truncate", "TimeStamp"},
    "StructExpr": {"FieldByName"},
    "Pow": {"Generic", "Sqrt", "Cbrt"},
}  # fmt: skip
"""Functions whose result for a message depends on that message alone, by the families that polars has."""
_ALSO_ELEMENTWISE = {"Negate", "Abs", "Round", "Floor", "Ceil", "FillNull", "Coalesce", "Clip", "Sign"}


def tree_of(expression: Any) -> Any:
    """The tree of an expression of polars, as polars writes it; None if it has none.

    polars may write it differently one day. Then it is not understood, and `is_elementwise` is false of it.
    """
    try:
        return json.loads(expression.meta.serialize(format="json"))
    except Exception:
        return None


def is_elementwise(node: Any) -> bool:
    """Whether a tree is known to be evaluated for each message by itself."""
    match node:
        case {"Column": str()} | {"Literal": {"Dyn": _} | {"Scalar": _}}:
            return True
        case {"BinaryExpr": {"left": left, "right": right}}:
            return is_elementwise(left) and is_elementwise(right)
        case {"Alias": [of, _]} | {"Cast": {"expr": of}}:
            return is_elementwise(of)
        case {"Ternary": {"predicate": test, "truthy": one, "falsy": other}}:
            return all(map(is_elementwise, (test, one, other)))
        case {"Function": {"input": inputs, "function": function}}:
            return _is_elementwise_function(function, inputs) and all(map(is_elementwise, inputs))
    return False


def _is_elementwise_function(function: Any, inputs: list[Any]) -> bool:
    family, name = next(iter(function.items())) if isinstance(function, dict) else (function, None)
    name = next(iter(name)) if isinstance(name, dict) else name
    if (family, name) == ("Boolean", "IsIn"):
        return "Literal" in inputs[1]
    return family in _ALSO_ELEMENTWISE or name in _ELEMENTWISE.get(family, ())


def condition_of(tree: Any) -> Condition:
    """What is understood of a tree, for comparing it with bounds; the rest may be anything."""
    try:
        return _condition(tree)
    except Exception:
        return Unclear()


def _condition(node: Any) -> Condition:
    match node:
        case {"BinaryExpr": {"left": left, "op": "And" | "LogicalAnd", "right": right}}:
            return Both(_condition(left), _condition(right), True)
        case {"BinaryExpr": {"left": left, "op": "Or" | "LogicalOr", "right": right}}:
            return Both(_condition(left), _condition(right), False)
        case {"BinaryExpr": {"left": left, "op": operator, "right": right}} if operator in _COMPARISONS:
            terms = _term(left), _term(right)
            return Unclear() if None in terms else Compare(_COMPARISONS[operator], *terms)  # type: ignore[arg-type]
        case {"Function": {"input": [of, *more], "function": {"Boolean": function}}}:
            return _function(of, more, function)
        case {"Column": _}:
            return IsTrue(_term(node))  # type: ignore[arg-type]
    return Unclear()


def _function(of: Any, more: list[Any], function: Any) -> Condition:
    if function == "Not":
        return Not(_condition(of))
    term = _term(of)
    if term is None:
        return Unclear()
    match function, more:
        case "IsNull", []:
            return IsNull(term)
        case "IsNotNull", []:
            return Not(IsNull(term))
        case {"IsBetween": {"closed": closed}}, [low, high]:
            first, last = _term(low), _term(high)
            if first is not None and last is not None:
                above = Compare(">=" if closed in ("Both", "Left") else ">", term, first)
                return Both(above, Compare("<=" if closed in ("Both", "Right") else "<", term, last), True)
        case {"IsIn": {"nulls_equal": False}}, [{"Literal": {"Scalar": {"List": data}}}]:
            values = pa.ipc.open_stream(bytes(data)).read_all().column(0).to_pylist()
            values = values[0] if values and isinstance(values[0], list) else values
            if values and all(kind_of_value(value) or value is None for value in values):
                return Among(term, tuple(values))
    return Unclear()


def _term(node: Any) -> Term | None:
    match node:
        case {"Column": str(name)}:
            return Field((name,), is_metadata=name in METADATA_COLUMNS.values())
        case {"Literal": {"Dyn": {"Int": int(value)}} | {"Dyn": {"Float": float(value)}}}:
            return Literal(value)
        case {"Literal": {"Scalar": dict(scalar)}}:
            ((kind, value),) = scalar.items()
            return _scalar(kind, value)
    return None


def _scalar(kind: str, value: Any) -> Literal | None:
    if kind == "Null":
        return Literal(None)
    if kind in ("String", "Boolean") or (kind.startswith(("Int", "UInt", "Float")) and isinstance(value, (int, float))):
        return Literal(value)
    if kind == "Date":
        return Literal(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=value))
    if kind == "Datetime":
        count, unit, _ = value
        each = {"Microseconds": 1, "Milliseconds": 1000}.get(unit)
        return (
            None if each is None else Literal(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=count * each))
        )
    return None
