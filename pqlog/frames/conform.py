"""A piece of a reading in the schema of the whole."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from pqlog.frames import parse
from pqlog.frames.dtypes import python_values
from pqlog.frames.parse import mark


def conform(piece: pa.Table, schema: pa.Schema, dictionaries: Mapping[str, pa.Array] | None = None) -> pa.Table:
    """A piece with exactly these columns; `dictionaries` are for those of which it has no value."""
    columns = []
    for field in schema:
        index = piece.schema.get_field_index(field.name)
        column = None if index < 0 else piece.column(index)
        if dictionaries and field.name in dictionaries and (column is None or column.null_count == len(column)):
            codes = pa.nulls(piece.num_rows, field.type.index_type)
            dictionary = dictionaries[field.name]
            columns.append(pa.DictionaryArray.from_arrays(codes, dictionary, ordered=field.type.ordered))
        elif column is None:
            columns.append(pa.nulls(piece.num_rows, field.type))
        else:
            columns.append(_cast(column, piece.schema.field(index), field))
    if not columns:
        return piece.select([])
    return pa.Table.from_arrays(columns, schema=schema)


def _cast(column: pa.ChunkedArray, had: pa.Field, wanted: pa.Field) -> pa.ChunkedArray:
    if had.type == wanted.type and mark(wanted) == mark(had):
        return column
    if column.null_count == len(column):
        return pa.nulls(len(column), wanted.type)
    if mark(wanted) == b"pickle":
        return parse.pickled(python_values(column, had))
    if mark(wanted) == b"json":
        return json_texts(python_values(column, had))
    if pa.types.is_dictionary(had.type) and not pa.types.is_dictionary(wanted.type):
        column = parse.decoded(column)
    return column.cast(wanted.type)


def json_texts(values: Sequence[Any]) -> pa.Array:
    """Values of any kind as JSON text; what JSON does not hold as text within it."""
    texts = [None if value is None else _encode(_plain(value)) for value in values]
    return pa.array(texts, pa.binary()).cast(pa.string())


def _plain(value: Any) -> Any:
    """What JSON holds: infinities and NaN as the words that protobuf's JSON has for them, times as ISO 8601."""
    kind = type(value)
    if kind is float:
        if value - value != 0:
            return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if kind is dict:
        return {key if isinstance(key, str) else str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (datetime.date, datetime.time)) or hasattr(value, "isoformat"):
        return value.isoformat()
    return value


_encode = msgspec.json.Encoder(enc_hook=str).encode
