"""Predicates: what ``where=`` takes, as what finds messages: text, or an expression of polars or pyarrow."""

from __future__ import annotations

import hashlib
import pickle
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pqlog import check, extras
from pqlog.errors import ArgumentError
from pqlog.fields import METADATA_COLUMNS
from pqlog.frames import comparing, expressions, polars, sql_text
from pqlog.frames.chunks import Chunk
from pqlog.frames.columns import decoded_values, mark_of, typed_column
from pqlog.frames.comparing import Operand
from pqlog.frames.conditions import TRUE, Condition, Field, Known, fields_of
from pqlog.frames.inference_pass import infer_output
from pqlog.frames.matching import Matcher, Where
from pqlog.frames.notes import note_of
from pqlog.frames.output_schema import OutputSchema, metadata_column
from pqlog.frames.projection import Projection
from pqlog.frames.reading import project
from pqlog.stream import Selection

_OPTION_OF = {column: option for option, column in METADATA_COLUMNS.items()}


def where_of(value: Any) -> Where:
    """The predicate that a ``where=`` states, checked as far as it can be before anything is read."""
    if isinstance(value, str):
        return TextWhere(value, sql_text.condition_of(value))
    if isinstance(value, pc.Expression):
        return ArrowWhere(_digest(pickle.dumps(value)), value)
    if "polars" in sys.modules and isinstance(value, sys.modules["polars"].Expr):
        return PolarsWhere.of(value)
    raise ArgumentError(
        f"where must be text such as \"ms > 300 and level = 'error'\", or an expression of polars or pyarrow.compute, "
        f"not {value!r}"
    )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# text


@dataclass(frozen=True, slots=True)
class TextWhere:
    """A condition as text; it does not depend on the types of columns."""

    text: str
    condition: Condition = field(compare=False)

    @property
    def identity(self) -> str:
        """The text itself."""
        return self.text

    def matcher(self, selection: Selection) -> Matcher:
        """What finds its messages in a range."""
        fields = fields_of(self.condition)
        columns = tuple(sorted({one.path[0] for one in fields if not one.is_metadata}))
        metadata = tuple(sorted({_OPTION_OF[one.path[0]] for one in fields if one.is_metadata}))
        return Matcher(
            selection.topic,
            Projection(columns, metadata=metadata),
            frozenset(),
            lambda chunk: self.condition.mask(_ChunkColumns(chunk)),
            lambda known: bool(self.condition.possible(known) & TRUE),
            fields,
            set(columns),
        )


class _ChunkColumns:
    """The columns of a chunk, for conditions."""

    def __init__(self, chunk: Chunk) -> None:
        self._chunk, self.rows = chunk, len(chunk.offsets)

    def operand(self, field: Field) -> Operand:
        """The values of a column."""
        if field.is_metadata:
            column = metadata_column(self._chunk, field.path[0])
            return _header(column, field.path[1]) if len(field.path) > 1 else comparing.operand_of(column)
        fields = self._chunk.fields
        index = fields.schema.get_field_index(field.path[0])
        if index < 0:
            return pa.nulls(self.rows)
        return _nested(fields.column(index), fields.schema.field(index), field.path[1:])


def _header(headers: pa.Array, name: str) -> pa.Array:
    """A header of each message; of two with one name the last, as in a dict."""
    return pc.map_lookup(headers, pa.scalar(name), "last")


def _nested(column: Any, of: pa.Field, path: tuple[str, ...]) -> Operand:
    """A column, or a field of the objects in it."""
    note = note_of(of)
    is_plain = mark_of(of) is None and (note is None or not note.is_opaque)
    while path and is_plain and pa.types.is_struct(of.type) and of.type.get_field_index(path[0]) >= 0:
        column, of, path = pc.struct_field(column, path[0]), of.type.field(path[0]), path[1:]
    operand = comparing.operand_of(column) if is_plain else None
    if path and operand is not None:
        return pa.nulls(len(column))
    if operand is not None:
        return operand
    values = _python_values(column, of)
    for name in path:
        values = [value.get(name) if isinstance(value, Mapping) else None for value in values]
    return _typed(values)


def _python_values(column: Any, of: pa.Field) -> list[Any]:
    if not isinstance(column, pa.ChunkedArray):
        column = pa.chunked_array([column])
    if mark_of(of) is not None or note_of(of) is None:
        return decoded_values(column, of)
    return extras.load("frames.dtypes").python_values(column, of)  # type: ignore[no-any-return]


def _typed(values: list[Any]) -> Operand:
    """Values as an array, if they are all of one type that JSON has."""
    if {type(value) for value in values} <= {type(None), str, int, float, bool}:
        of, column = typed_column("", values)
        if mark_of(of) is None:
            return column
    return values


# expressions of others, which are evaluated by them, on columns of the types that they have in the whole range


@dataclass(frozen=True, slots=True)
class ArrowWhere:
    """An expression of pyarrow.compute."""

    identity: str
    expression: Any = field(compare=False)

    @property
    def text(self) -> str:
        """As pyarrow shows it, which leaves out some of long lists."""
        return str(self.expression)

    def matcher(self, selection: Selection) -> Matcher:
        """What finds its messages in a range."""
        return _matcher(selection, self)

    def names(self, schema: pa.Schema) -> tuple[str, ...]:
        """The columns that it needs."""
        return expressions.names_of(self.expression, schema)

    def bound(self, selection: Selection, projection: Projection, output: OutputSchema) -> Matcher:
        """The same, where the columns of the range are known."""
        guarantee = expressions.Guarantee(self.expression, output.schema)
        return _bound(selection, projection, output, self, guarantee.may_match)

    def evaluate(self, table: pa.Table) -> Any:
        """Whether it is true of each row of a table."""
        return expressions.mask(self.expression, table)

    def select(self, table: pa.Table) -> pa.Table:
        """The rows of a table that it is true of."""
        return expressions.select(self.expression, table)


@dataclass(frozen=True, slots=True)
class PolarsWhere:
    """An expression of polars."""

    identity: str
    expression: Any = field(compare=False)
    condition: Condition = field(compare=False)
    """What is understood of it here, for comparing it with bounds."""

    @property
    def text(self) -> str:
        """As polars shows it, which leaves out some of long lists."""
        return str(self.expression)

    @classmethod
    def of(cls, expression: Any) -> PolarsWhere:
        """That of an expression; refused if what it says of a message depends on other messages."""
        tree = expressions.tree_of(expression)
        if not expressions.is_elementwise(tree):
            raise ArgumentError(
                f"where takes an expression of which each message decides by itself, of common functions, not "
                f"{expression}: filter the frame, or log.scan(), by this one"
            )
        return cls(_digest(expression.meta.serialize()), expression, expressions.condition_of(tree))

    @classmethod
    def pushed(cls, expression: Any) -> PolarsWhere:
        """That of an expression that polars itself asks to apply to each piece of what it scans."""
        condition = expressions.condition_of(expressions.tree_of(expression))
        return cls(_digest(expression.meta.serialize()), expression, condition)

    def matcher(self, selection: Selection) -> Matcher:
        """What finds its messages in a range."""
        return _matcher(selection, self)

    def names(self, schema: pa.Schema) -> tuple[str, ...]:
        """The columns that it needs."""
        return tuple(dict.fromkeys(self.expression.meta.root_names()))

    def bound(self, selection: Selection, projection: Projection, output: OutputSchema) -> Matcher:
        """The same, where the columns of the range are known."""

        def may_match(known: Known) -> bool:
            return bool(self.condition.possible(known) & TRUE)

        return _bound(selection, projection, output, self, may_match)

    def evaluate(self, table: pa.Table) -> Any:
        """Whether it is true of each row of a table."""
        found = polars.from_table(table).select(self.expression.alias("")).to_series()
        if found.dtype != sys.modules["polars"].Boolean:
            raise ArgumentError(f"where must be true or false of each message, and {self.text} is {found.dtype}")
        mask = found.fill_null(False).to_arrow().cast(pa.bool_())
        return pa.repeat(mask[0], table.num_rows) if len(mask) == 1 != table.num_rows else mask


ExpressionWhere = ArrowWhere | PolarsWhere


def _matcher(selection: Selection, where: ExpressionWhere) -> Matcher:
    """What finds the messages of an expression, in columns of the types that they have in the whole range."""
    if not selection.total():  # there are no columns: not those of the expression either
        return Matcher(selection.topic, Projection(), frozenset(), _never, lambda known: False, frozenset())
    options = tuple(option for option in METADATA_COLUMNS if option != "partition" or selection.topic.has_partitions)
    without = tuple(option for option in options if option != "headers")  # for these, all rows would be read
    output = infer_output(selection._replace(where=None), Projection(metadata=without))
    output = replace(output, metadata=tuple(METADATA_COLUMNS[option] for option in options))
    return where.bound(selection, Projection(metadata=options), output)


def _never(chunk: Chunk) -> Any:
    raise AssertionError("there are no messages")


def _bound(
    selection: Selection,
    projection: Projection,
    output: OutputSchema,
    where: ExpressionWhere,
    may_match: Callable[[Known], bool],
) -> Matcher:
    """What finds messages by columns of a range, as they are in its table."""
    names = where.names(output.schema)
    unknown = [name for name in names if name not in output.schema.names]
    if unknown:
        near = check.near(unknown[0], output.schema.names)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(output.schema.names[:8])}"
        raise ArgumentError(f"where: no message here has a field {unknown[0]!r}: {hint}")
    part = output.select(names)
    narrow = projection.narrowed(part)

    def mask(chunk: Chunk) -> Any:
        return where.evaluate(part.table([project(chunk, narrow, part.mixed)]))

    fields = frozenset(Field((name,), is_metadata=name in output.metadata) for name in names)
    return Matcher(selection.topic, narrow, part.mixed, mask, may_match, fields)
