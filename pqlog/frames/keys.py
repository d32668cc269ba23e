"""Keys and ids from columns: `pqlog.keys` for many rows at once."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from pqlog import keys
from pqlog.frames import dtypes
from pqlog.frames.arrays import decode_dictionary
from pqlog.frames.columns import mark_of
from pqlog.frames.notes import note_of
from pqlog.keys import ID, RefusedError


def texts(column: pa.ChunkedArray, field: pa.Field, what: str) -> pa.ChunkedArray:
    """The texts of a column, one per row.

    Raises
    ------
    RefusedError
        As for `pqlog.keys.texts`; with a hint if pandas has integers as floats in the column.
    """
    note = note_of(field)
    is_plain = mark_of(field) is None and not (note is not None and note.is_opaque)
    result = _by_type(column) if is_plain else _of_objects(column, field, what)
    if result is None:
        result = _of_each(column, field, what)
    if what == ID and (result.null_count or pc.any(pc.equal(result, "")).as_py()):
        keys.required(result.to_pylist(), field.name)
    return result


def _by_type(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """The texts of a type whose values all have one; None for other types."""
    of, is_ = column.type, pa.types
    if is_.is_string(of):
        return column
    if is_.is_dictionary(of):
        return _by_type(decode_dictionary(column))
    if is_.is_large_string(of) or is_.is_string_view(of) or is_.is_integer(of) or is_.is_date32(of) or is_.is_null(of):
        return column.cast(pa.string())
    return None


def _of_each(column: pa.ChunkedArray, field: pa.Field, what: str) -> pa.ChunkedArray:
    """The texts of a column, value by value; raises at the first that cannot be a key."""
    values: list[str | None] = []
    for index, scalar in enumerate(column):
        value = _value(scalar)
        try:
            values.append(keys.text(value))
        except (TypeError, ValueError) as error:
            reason = keys.reason(field.name, what, value) + _hint(column, field.name)
            raise RefusedError(index, reason, type(value).__name__) from error
    return pa.chunked_array([pa.array(values, pa.string())])


def _of_objects(column: pa.ChunkedArray, field: pa.Field, what: str) -> pa.ChunkedArray:
    """The texts of a column of Python objects."""
    result = keys.texts(dtypes.python_values(column, field), field.name, what)
    return pa.chunked_array([pa.array(result, pa.string())])


def _value(scalar: pa.Scalar) -> object:
    try:
        return scalar.as_py()
    except Exception:  # Python has no such value: nanoseconds without pandas, the year 20000
        return scalar


def _hint(column: pa.ChunkedArray, name: str) -> str:
    if not pa.types.is_floating(column.type):
        return ""
    numbers = pc.drop_null(pc.if_else(pc.is_nan(column), None, column))
    if not pc.all(pc.equal(numbers, pc.trunc(numbers))).as_py():
        return ""
    return (
        f". These are whole numbers that pandas keeps as floats, as it does if some are missing: "
        f'frame.astype({{"{name}": "Int64"}}) makes integers of them'
    )
