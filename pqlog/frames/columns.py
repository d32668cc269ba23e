"""What a column is: its field, its values as Python objects, and the marks of fields of JSON text and pickles.

A column of decoded JSON values has one of five types: bool, int64, double, string, or JSON text. The last holds nested
and mixed values and is marked in the field's metadata.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from itertools import chain
from typing import Any, NamedTuple, Protocol

import msgspec
import pyarrow as pa

from pqlog.codecs import UNDECODABLE
from pqlog.errors import ArgumentError
from pqlog.frames.arrow_types import MAX_EXACT_INTEGER, TIME
from pqlog.frames.equality import identical

MAX_FIELDS = 5_000
"""A topic with more different fields is refused as a table: a million keys used as fields would take all memory."""

_MARK = b"pqlog"
_INT64 = range(-(2**63), 2**63)


def json_field(name: str) -> pa.Field:
    """A field of JSON text."""
    return pa.field(name, pa.string(), metadata={_MARK: b"json"})


def pickle_field(name: str) -> pa.Field:
    """A field of pickled objects, for topics with values for which Arrow has no type."""
    return pa.field(name, pa.binary(), metadata={_MARK: b"pickle"})


def mark_of(field: pa.Field) -> bytes | None:
    """How a field's values are encoded: ``b"json"``, ``b"pickle"``, or None for not at all."""
    return field.metadata.get(_MARK) if field.metadata else None


def is_json(field: pa.Field) -> bool:
    """Whether a field is one of JSON text."""
    return mark_of(field) == b"json"


def pickle_column(values: Sequence[Any]) -> pa.Array:
    """The column of a `pickle_field`."""
    return pa.array([None if value is None else pickle.dumps(value) for value in values], pa.binary())


def json_column(values: Sequence[Any]) -> pa.Array:
    """The column of a `json_field`."""
    encode = msgspec.json.encode
    return pa.array([None if value is None else encode(value) for value in values], pa.binary()).cast(pa.string())


def exact_json_column(values: Sequence[Any]) -> pa.Array | None:
    """A `json_column`; None if decoding it would not give back identical objects."""
    try:
        column = json_column(values)
    except (*UNDECODABLE, TypeError, OverflowError):
        return None
    return column if all(map(identical, decode_json_texts(column.to_pylist()), values)) else None


def decode_json_texts(column: Iterable[str | None]) -> list[Any]:
    """The values of a column of JSON text."""
    decode = msgspec.json.decode
    try:
        return [None if text is None else decode(text) for text in column]
    except (*UNDECODABLE, TypeError) as error:
        raise ValueError(f"a column is marked as JSON text, but holds something else: {error}") from error


def without_pickle_marks(table: pa.Table) -> pa.Table:
    """A table from a file, whose pickles are plain bytes: reading a file must never run code from it."""
    for index, field in enumerate(table.schema):
        if mark_of(field) == b"pickle":
            table = table.set_column(index, field.remove_metadata(), table.column(index))
    return table


def decoded_values(column: pa.ChunkedArray, field: pa.Field) -> list[Any]:
    """The values of a column as Python objects, with JSON text and pickles decoded."""
    if mark_of(field) == b"json":
        return decode_json_texts(column.to_pylist())
    if mark_of(field) == b"pickle":  # pickled by this process, from values that it was allowed to unpickle
        return [None if data is None else pickle.loads(data) for data in column.to_pylist()]  # noqa: S301
    if not column.null_count and (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return column.to_numpy().tolist()  # type: ignore[no-any-return]  # five times as fast
    return column.to_pylist()  # type: ignore[no-any-return]


Column = tuple[pa.Field, pa.Array]


class MakeColumn(Protocol):
    """Makes a column of Python values."""

    def __call__(self, name: str, values: Sequence[Any], /) -> Column: ...


class ColumnMakers(NamedTuple):
    """How a codec's decoded values become columns."""

    typed: MakeColumn
    """Makes a column of the narrowest type that holds every value exactly."""
    mixed: MakeColumn
    """Makes a column in which each value stays as it is, of whatever types they are."""


def typed_column(name: str, values: Sequence[Any]) -> Column:
    """A column of decoded JSON values, of the narrowest type that holds every value exactly."""
    types = {type(value) for value in values} - {type(None)}
    if not types:
        return pa.field(name, pa.null()), pa.nulls(len(values))
    if types == {str}:
        return pa.field(name, pa.string()), pa.array(values, pa.string())
    if types == {bool}:
        return pa.field(name, pa.bool_()), pa.array(values, pa.bool_())
    if types <= {int, float}:
        numbers = [value for value in values if value is not None]
        if types == {int} and min(numbers) in _INT64 and max(numbers) in _INT64:
            return pa.field(name, pa.int64()), pa.array(values, pa.int64())
        if float in types and all(type(n) is float or -MAX_EXACT_INTEGER <= n <= MAX_EXACT_INTEGER for n in numbers):
            return pa.field(name, pa.float64()), pa.array(values, pa.float64())
    return mixed_column(name, values)


def mixed_column(name: str, values: Sequence[Any]) -> Column:
    """A column of decoded JSON values, each as it is."""
    return json_field(name), json_column(values)


def typed_python_column(name: str, values: Sequence[Any]) -> Column:
    """A column of values of other codecs than JSON; those without an exact form in Arrow or JSON are pickled."""
    types = {type(value) for value in values} - {type(None)}
    if types == {bytes}:
        return pa.field(name, pa.binary()), pa.array(values, pa.binary())
    if types == {date}:
        return pa.field(name, pa.date32()), pa.array(values, pa.date32())
    if types == {datetime} and {value.tzinfo for value in values if value is not None} <= {UTC}:
        return pa.field(name, TIME), pa.array(values, TIME)
    if types <= {str, int, float, bool, dict, list}:
        field, column = typed_column(name, values)
        if not is_json(field):
            return field, column
    return mixed_python_column(name, values)


def mixed_python_column(name: str, values: Sequence[Any]) -> Column:
    """A column of values of other codecs than JSON, each as it is: as JSON text if that is exact, else pickled."""
    column = exact_json_column(values)
    if column is not None:
        return json_field(name), column
    return pickle_field(name), pickle_column(values)


JSON_COLUMNS = ColumnMakers(typed_column, mixed_column)
PYTHON_COLUMNS = ColumnMakers(typed_python_column, mixed_python_column)


def table_of(
    values: Sequence[Any],
    fields: frozenset[str] | None,
    mixed: frozenset[str] = frozenset(),
    makers: ColumnMakers = JSON_COLUMNS,
) -> pa.Table:
    """Decoded values as a table of their fields; a value that is not an object is in the column ``value``.

    Parameters
    ----------
    fields : frozenset of str, optional
        The only fields to take.
    mixed : frozenset of str
        The fields whose values must each stay as they are.
    """
    rows = [value if isinstance(value, Mapping) else {"value": value} for value in values]
    if not set(map(type, chain.from_iterable(rows))) <= {str}:
        rows = [_with_text_names(row) for row in rows]
    names = dict.fromkeys(chain.from_iterable(rows))
    if fields is not None:
        names = {name: None for name in names if name in fields}
    check_field_count(len(names))
    columns: list[Column] = []
    for name in names:
        make = makers.mixed if name in mixed else makers.typed
        columns.append(make(name, [row.get(name) for row in rows]))
    return make_table([field for field, _ in columns], [column for _, column in columns], len(rows))


def _with_text_names(row: Mapping[Any, Any]) -> dict[str, Any]:
    """An object with the texts of its names, which do not depend on other messages; those that are text stay."""
    used = {name: None for name in row if type(name) is str}
    named = {}
    for name, value in row.items():
        if type(name) is not str:
            name = unused_name(str(name), used)
            used[name] = None
        named[name] = value
    return named


def make_table(fields: Sequence[pa.Field], columns: Sequence[Any], rows: int) -> pa.Table:
    """A table that keeps its number of rows even if it has no column."""
    if not fields:
        return pa.table({"": pa.nulls(rows)}).select([])
    return pa.Table.from_arrays(list(columns), schema=pa.schema(fields))


def unused_name(name: str, used: Mapping[str, Any]) -> str:
    """`name`, with underscores appended until it is not in use."""
    while name in used:
        name += "_"
    return name


def check_field_count(count: int) -> None:
    """Raise if there are too many fields for a table."""
    if count > MAX_FIELDS:
        raise ArgumentError(
            f"the messages have more than {MAX_FIELDS:,} different fields, too many for a table: name the ones you "
            f"need with columns=, or iterate over the messages"
        )
