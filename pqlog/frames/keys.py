"""Keys and ids of columns: `pqlog.keys` for many rows at once."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from pqlog import keys
from pqlog.frames import dtypes, parse
from pqlog.frames.notes import note_of
from pqlog.keys import ID, RefusedError


def texts(column: pa.ChunkedArray, field: pa.Field, what: str) -> pa.ChunkedArray:
    """The texts of a column, one for each row.

    Raises
    ------
    RefusedError
        As by `pqlog.keys.texts`; with a hint where a column of pandas has integers as floats.
    """
    note = note_of(field)
    is_plain = parse.mark(field) is None and not (note is not None and note.is_opaque)
    found = _by_type(column) if is_plain else None
    if found is None:
        found = _one_by_one(column, field, what) if is_plain else _of_objects(column, field, what)
    if what == ID and (found.null_count or pc.any(pc.equal(found, "")).as_py()):
        keys.required(found.to_pylist(), field.name)
    return found


def _by_type(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """The texts where the type alone says what they are."""
    of, is_ = column.type, pa.types
    if is_.is_string(of):
        return column
    if is_.is_dictionary(of):
        return _by_type(parse.decoded(column))
    if is_.is_date64(of):
        column, of = column.cast(pa.date32()), pa.date32()
    if is_.is_large_string(of) or is_.is_string_view(of) or is_.is_integer(of) or is_.is_date32(of) or is_.is_null(of):
        return column.cast(pa.string())
    return None


def _one_by_one(column: pa.ChunkedArray, field: pa.Field, what: str) -> pa.ChunkedArray:
    """The texts of values that are what they are one by one; a column of what is no key ends at its first value."""
    values: list[str | None] = []
    for index, scalar in enumerate(column):
        value = _value(scalar)
        try:
            values.append(keys.text(value))
        except (TypeError, ValueError) as error:
            said = keys.reason(field.name, what, value) + _hint(column, field.name)
            raise RefusedError(index, said, type(value).__name__) from error
    return pa.chunked_array([pa.array(values, pa.string())])


def _of_objects(column: pa.ChunkedArray, field: pa.Field, what: str) -> pa.ChunkedArray:
    """The texts of a column that stands for objects."""
    found = keys.texts(dtypes.python_values(column, field), field.name, what)
    return pa.chunked_array([pa.array(found, pa.string())])


def _value(scalar: pa.Scalar) -> object:
    try:
        return scalar.as_py()
    except Exception:  # what Python does not hold: nanoseconds without pandas, the year 20000
        return scalar


def _hint(column: pa.ChunkedArray, name: str) -> str:
    if not pa.types.is_floating(column.type):
        return ""
    numbers = pc.drop_null(pc.if_else(pc.is_nan(column), None, column))
    if not pc.all(pc.equal(numbers, pc.trunc(numbers))).as_py():
        return ""
    return (
        f". These are whole numbers that pandas keeps as floats, as it does where some are missing: "
        f'frame.astype({{"{name}": "Int64"}}) makes integers of them'
    )
