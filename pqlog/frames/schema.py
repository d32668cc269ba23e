"""One schema for the pieces of a reading: for the same messages always the same, however they fall into pieces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pqlog.frames import parse
from pqlog.frames.parse import EXACT, json_field, mark, python_values


class Facts:
    """What is known of the columns of all pieces so far.

    Attributes
    ----------
    rows : int
        Messages in all pieces.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._columns: dict[str, _Column] = {}

    def add(self, piece: pa.Table) -> None:
        """Take a piece into account."""
        for field, column in zip(piece.schema, piece.columns, strict=True):
            self._columns.setdefault(field.name, _Column()).add(field, column)
        self.rows += piece.num_rows

    def schema(self) -> pa.Schema:
        """The schema that holds all pieces."""
        return pa.schema([column.field(name) for name, column in self._columns.items()])

    def has_nulls(self, name: str) -> bool:
        """Whether a message has no value in that column."""
        return name not in self._columns or self._columns[name].valid < self.rows


class _Column:
    def __init__(self) -> None:
        self.valid = 0
        self._fields: dict[tuple[pa.DataType, bytes | None], pa.Field] = {}
        self._exact = True
        """Whether every integer has a double of its own."""

    def add(self, field: pa.Field, column: pa.ChunkedArray) -> None:
        self.valid += len(column) - column.null_count
        self._fields.setdefault((field.type, mark(field)), field)
        if pa.types.is_integer(field.type) and self._exact:
            bounds = pc.min_max(column).as_py()
            self._exact = bounds["min"] is None or (bounds["min"] >= -EXACT and bounds["max"] <= EXACT)

    def field(self, name: str) -> pa.Field:
        fields = [field for field in self._fields.values() if not pa.types.is_null(field.type)]
        if not fields:
            return pa.field(name, pa.null())
        if len(fields) == 1:
            return fields[0].with_name(name).with_nullable(True)
        if any(mark(field) == b"pickle" for field in fields):
            return parse.pickle_field(name)
        if any(mark(field) == b"json" for field in fields):
            return json_field(name)
        type_ = _common([field.type for field in fields], self._exact)
        return json_field(name) if type_ is None else pa.field(name, type_)


def _common(types: Sequence[pa.DataType], exact: bool) -> pa.DataType | None:
    """A type that holds the values of all of these exactly; None if there is none."""
    is_ = pa.types
    if all(is_.is_integer(t) for t in types):
        return None if pa.uint64() in types else pa.int64()
    if all(is_.is_integer(t) or is_.is_floating(t) for t in types):
        return pa.float64() if exact or not any(is_.is_integer(t) for t in types) else None
    if all(_is_text(t) for t in types):
        return pa.large_string() if any(is_.is_large_string(t) for t in types) else pa.string()
    if all(is_.is_timestamp(t) for t in types):
        zones = {t.tz for t in types}
        if None in zones and len(zones) > 1:
            return None  # a time without a zone is none of the other's
        unit = max((t.unit for t in types), key=("s", "ms", "us", "ns").index)
        return pa.timestamp(unit, tz=zones.pop() if len(zones) == 1 else "UTC")
    families = (is_.is_decimal, is_.is_list, is_.is_struct, is_.is_duration, is_.is_time, is_.is_date, _is_bytes)
    for family in families:
        if all(family(t) for t in types):
            try:
                merged = pa.unify_schemas([pa.schema([("c", t)]) for t in types], promote_options="permissive")
            except pa.ArrowException:
                return None
            return merged.field("c").type
    return None


def _is_text(t: pa.DataType) -> bool:
    if pa.types.is_dictionary(t):
        t = t.value_type
    return bool(pa.types.is_string(t) or pa.types.is_large_string(t) or t == pa.string_view())


def _is_bytes(t: pa.DataType) -> bool:
    return bool(pa.types.is_binary(t) or pa.types.is_large_binary(t) or pa.types.is_fixed_size_binary(t))


def conform(piece: pa.Table, schema: pa.Schema) -> pa.Table:
    """A piece with exactly these columns."""
    columns = []
    for field in schema:
        index = piece.schema.get_field_index(field.name)
        if index < 0:
            columns.append(pa.nulls(piece.num_rows, field.type))
        else:
            columns.append(_cast(piece.column(index), piece.schema.field(index), field))
    if not columns:
        return piece.select([])
    return pa.Table.from_arrays(columns, schema=schema)


def _cast(column: pa.ChunkedArray, had: pa.Field, wanted: pa.Field) -> pa.ChunkedArray:
    if pa.types.is_null(had.type):
        return pa.nulls(len(column), wanted.type)
    if mark(wanted) == mark(had) is not None:
        return column
    if mark(wanted) == b"pickle":
        return parse.pickled(python_values(column, had))
    if mark(wanted) == b"json":
        return parse.json_column([_plain(value) for value in python_values(column, had)])
    if had.type == wanted.type:
        return column
    if pa.types.is_dictionary(had.type) and not pa.types.is_dictionary(wanted.type):
        column = column.cast(had.type.value_type)
    return column.cast(wanted.type)


def _plain(value: Any) -> Any:
    """What JSON takes: a time with nanoseconds, which pyarrow gives as pandas', as its ISO text."""
    return value.isoformat() if hasattr(value, "nanosecond") else value
