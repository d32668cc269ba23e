"""Sealed messages as columns: the buffers of a piece become arrays as they are, and no JSON is parsed.

The table is the one that the same messages give as JSON lines: the columns of a piece and those of its lines are of the
same types, in the same order.
"""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from pqlog.frames.columns import Column, check_field_count, make_table, mixed_column, typed_column
from pqlog.store import columns
from pqlog.store.columns import Part, unpack
from pqlog.store.sealed import Field, Piece, SealedPart

_TYPES = {"b": "<i1", "h": "<i2", "i": "<i4", "q": "<i8", "d": "<f8", "B": "u1", "H": "<u2"}


def table_of(part: SealedPart, fields: frozenset[str] | None, mixed: frozenset[str]) -> pa.Table:
    """The fields of sealed objects; the parameters are those of `pqlog.frames.columns.table_of`."""
    piece, within = part.piece, slice(part.start, part.start + part.rows)
    shapes, numbers = piece.head.shapes, None
    if piece.head.shape is not None:
        numbers = np.asarray(unpack(piece.head.shape, piece.rows, piece.read))
        shapes = [shapes[number] for number in dict.fromkeys(numbers[within].tolist())]
    known = {field.name: field for field in piece.head.fields}
    names = [name for name in dict.fromkeys(itertools.chain.from_iterable(shapes)) if fields is None or name in fields]
    check_field_count(len(names))
    made = [_column(piece, known[name], numbers, within, name in mixed) for name in names]
    return make_table([field for field, _ in made], [column for _, column in made], part.rows)


def _column(piece: Piece, field: Field, numbers: Any, within: slice, is_mixed: bool) -> Column:
    """One field of some of the messages."""
    where = None
    if numbers is not None:
        has = np.array([field.name in shape for shape in piece.head.shapes])
        where = has[numbers]
    if is_mixed or _is_json(field.part):
        values = [
            msgspec.json.decode(value) if isinstance(value, msgspec.Raw) else value
            for value in unpack(field.part, field.rows, piece.read)
        ]
        if where is not None:
            if int(where.sum()) != len(values):
                raise ValueError("a field has not as many values as messages")
            others = iter(values)
            values = [next(others) if is_there else None for is_there in where]
        return (mixed_column if is_mixed else typed_column)(field.name, values[within])
    column = array_of(field.part, field.rows, piece.read)
    if where is not None:
        column = _spread(column, where)
    column = column[within.start : within.stop]
    if column.null_count == len(column):
        column = pa.nulls(len(column))
    return pa.field(field.name, column.type), column


def _is_json(part: Part | None) -> bool:
    return part is not None and (part.kind == "json" or _is_json(part.inner))


def array_of(part: Part, rows: int, read: columns.Read) -> Any:
    """The values of a part."""
    columns.check_count(rows)
    column = _ARRAYS[part.kind](part, rows, read)
    if len(column) != rows:
        raise ValueError(f"{len(column)} values for {rows} messages")
    return column


def _same(part: Part, rows: int, read: columns.Read) -> Any:
    return pa.nulls(rows) if part.value is None else pa.repeat(pa.scalar(part.value), rows)


def _numbers(part: Part, read: columns.Read) -> Any:
    if part.buffer is None:
        raise ValueError("a buffer is missing")
    return np.frombuffer(read(part.buffer), _TYPES[part.code])


def _integers(part: Part, rows: int, read: columns.Read) -> Any:
    return pa.array(_numbers(part, read).astype(np.int64))


def _steps(part: Part, rows: int, read: columns.Read) -> Any:
    if part.buffer is None:
        return pa.array(np.arange(rows) * columns.step_of(part) + part.number)
    return pa.array(np.cumsum(np.concatenate(([part.number], _numbers(part, read)), dtype=np.int64)))


def _decimals(part: Part, rows: int, read: columns.Read) -> Any:
    if not part.number:
        raise ValueError("nothing can be divided by 0")
    return pa.array(array_of(_inner(part), rows, read).to_numpy() / part.number)


def _doubles(part: Part, rows: int, read: columns.Read) -> Any:
    return pa.array(_numbers(part, read))


def _booleans(part: Part, rows: int, read: columns.Read) -> Any:
    if part.buffer is None:
        raise ValueError("a buffer is missing")
    return pa.array(np.frombuffer(read(part.buffer), np.bool_))


def _texts(part: Part, rows: int, read: columns.Read) -> Any:
    if part.buffer is None:
        raise ValueError("a buffer is missing")
    data = read(part.buffer)
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == 10)
    if len(ends) != rows - 1:
        raise ValueError("it has not as many texts as values")
    starts = np.concatenate(([0], ends + 1, [len(data) + 1]))
    offsets = (starts - np.arange(rows + 1)).astype(np.int32)
    text = data.replace(b"\n", b"")
    text.decode()  # Arrow would not tell that it is no text
    return pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(text))


def _choices(part: Part, rows: int, read: columns.Read) -> Any:
    return array_of(_inner(part), part.number, read).take(pa.array(_numbers(part, read)))


def _nulls(part: Part, rows: int, read: columns.Read) -> Any:
    if part.buffer is None:
        raise ValueError("a buffer is missing")
    return _spread(array_of(_inner(part), part.number, read), np.frombuffer(read(part.buffer), np.bool_))


def _inner(part: Part) -> Part:
    if part.inner is None:
        raise ValueError("a part is missing")
    return part.inner


def _spread(column: Any, where: Any) -> Any:
    """A column with nulls between its values: these go where the mask is true."""
    if int(where.sum()) != len(column):
        raise ValueError("the number of nulls is not as it was")
    return column.take(pa.array(np.cumsum(where) - 1, mask=~where))


_ARRAYS: dict[str, Any] = {
    "same": _same,
    "integers": _integers,
    "steps": _steps,
    "decimals": _decimals,
    "doubles": _doubles,
    "booleans": _booleans,
    "texts": _texts,
    "choices": _choices,
    "nulls": _nulls,
}


def times(part: SealedPart) -> Any:
    """When the messages were put, as numbers."""
    piece = part.piece
    return array_of(piece.head.times, piece.rows, piece.read)[part.start : part.start + part.rows]


def keys(part: SealedPart) -> Any:
    """Their keys; None if they have none."""
    piece, within = part.piece, slice(part.start, part.start + part.rows)
    if not piece.has_keys:
        return None
    if _is_json(piece.head.keys):  # some have line feeds
        return pa.array(piece.keys[within], pa.string())
    return array_of(piece.head.keys, piece.rows, piece.read)[within].cast(pa.string())
