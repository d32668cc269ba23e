"""Casting a chunk's fields to the schema of the whole range."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from pqlog.frames.arrays import decode_dictionary
from pqlog.frames.columns import mark_of, pickle_column
from pqlog.frames.dtypes import python_values


def conform(table: pa.Table, schema: pa.Schema, dictionaries: Mapping[str, pa.Array] | None = None) -> pa.Table:
    """A table with exactly the columns of `schema`; `dictionaries` are those of columns without a value here."""
    columns = []
    for field in schema:
        index = table.schema.get_field_index(field.name)
        column = None if index < 0 else table.column(index)
        if dictionaries and field.name in dictionaries and (column is None or column.null_count == len(column)):
            codes = pa.nulls(table.num_rows, field.type.index_type)
            dictionary = dictionaries[field.name]
            columns.append(pa.DictionaryArray.from_arrays(codes, dictionary, ordered=field.type.ordered))
        elif column is None:
            columns.append(pa.nulls(table.num_rows, field.type))
        else:
            columns.append(_cast(column, table.schema.field(index), field))
    if not columns:
        return table.select([])
    return pa.Table.from_arrays(columns, schema=schema)


def _cast(column: pa.ChunkedArray, source: pa.Field, target: pa.Field) -> pa.ChunkedArray:
    if source.type == target.type and mark_of(target) == mark_of(source):
        return column
    if column.null_count == len(column):
        return pa.nulls(len(column), target.type)
    if mark_of(target) == b"pickle":
        return pickle_column(python_values(column, source))
    if mark_of(target) == b"json":
        return lenient_json_column(python_values(column, source))
    if pa.types.is_dictionary(source.type) and not pa.types.is_dictionary(target.type):
        column = decode_dictionary(column)
    return column.cast(target.type)


def lenient_json_column(values: Sequence[Any]) -> pa.Array:
    """Values of any kind as JSON text; those that JSON cannot express become strings."""
    texts = [None if value is None else _encode(_for_json(value)) for value in values]
    return pa.array(texts, pa.binary()).cast(pa.string())


def _for_json(value: Any) -> Any:
    """A value that JSON has: infinities and NaN are text as in protobuf's JSON, times are ISO 8601."""
    kind = type(value)
    if kind is float:
        if value - value != 0:
            return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
        return value
    if isinstance(value, (list, tuple)):
        return [_for_json(item) for item in value]
    if kind is dict:
        return {key if isinstance(key, str) else str(key): _for_json(item) for key, item in value.items()}
    if isinstance(value, (datetime.date, datetime.time)) or hasattr(value, "isoformat"):
        return value.isoformat()
    return value


_encode = msgspec.json.Encoder(enc_hook=str).encode
