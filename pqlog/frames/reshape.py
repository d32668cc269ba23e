"""Columns on request: the fields of nested objects, and times of text."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from pqlog.errors import ArgumentError
from pqlog.frames import parse
from pqlog.frames.dtypes import python_values

TIME = pa.timestamp("us", tz="UTC")


def flatten(table: pa.Table, objects: frozenset[str] = frozenset()) -> pa.Table:
    """The fields of nested objects as columns of their own, ``outer.inner``, as deep as they go.

    The values of the columns `objects` are kept as they are, each for itself.
    """
    used = dict.fromkeys(table.schema.names)
    fields: list[pa.Field] = []
    columns: list[Any] = []
    for field, column in zip(table.schema, table.columns, strict=True):
        inner: pa.Table | None = None
        if pa.types.is_struct(field.type):
            flat = column.combine_chunks().flatten()
            inner = pa.table(flat, [f"{field.name}.{child.name}" for child in field.type])
        elif parse.is_json(field):
            values = parse.decode_text(column.to_pylist())
            inner_rows = [value if isinstance(value, dict) else {} for value in values]
            others = [None if isinstance(value, dict) and value else value for value in values]
            if any(inner_rows):
                named = [{f"{field.name}.{key}": value for key, value in row.items()} for row in inner_rows]
                inner = parse.table_of(named, None, objects=objects)
            if inner is None or any(value is not None for value in others):
                kept, array = parse.column_of(field.name, others)
                fields.append(kept)
                columns.append(array)
        else:
            fields.append(field)
            columns.append(column)
        if inner is not None:
            inner = flatten(inner, objects)
            for child, array in zip(inner.schema, inner.columns, strict=True):
                name = parse.free(child.name, used)
                used[name] = None
                fields.append(child.with_name(name))
                columns.append(array)
    return parse.rows_table(fields, columns, table.num_rows)


def parse_times(table: pa.Table, names: Sequence[str], offsets: pa.Array) -> pa.Table:
    """The fields `names` as times; `offsets` for error messages."""
    for name in names:
        index = table.schema.get_field_index(name)
        if index < 0 or pa.types.is_null(table.schema.field(index).type):
            continue
        field, column = table.schema.field(index), table.column(index)
        if pa.types.is_timestamp(field.type):
            parsed = column.cast(pa.timestamp("us", field.type.tz)).cast(TIME)
        else:
            try:
                parsed = column.cast(TIME) if pa.types.is_string(field.type) and not parse.is_json(field) else None
            except pa.ArrowInvalid:  # some have no zone, or are no times at all
                parsed = None
            if parsed is None:
                parsed = _one_by_one(name, python_values(column, field), offsets)
        table = table.set_column(index, pa.field(name, TIME), parsed)
    return table


def _one_by_one(name: str, values: Sequence[Any], offsets: pa.Array) -> pa.Array:
    times: list[datetime | None] = []
    for index, value in enumerate(values):
        try:
            when = None if value is None else datetime.fromisoformat(value)
        except (TypeError, ValueError):
            raise ArgumentError(
                f"times: the field {name!r} of message {offsets[index]} is {value!r}, which is no ISO 8601 time"
            ) from None
        times.append(when.replace(tzinfo=UTC) if when is not None and when.tzinfo is None else when)
    return pa.array(times, TIME)
