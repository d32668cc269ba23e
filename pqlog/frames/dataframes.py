"""A stretch of a topic as pandas frames: with dtypes that hold every value, or those of the frames that were put."""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pqlog.errors import ArgumentError
from pqlog.frames import parse, segments
from pqlog.frames.pieces import Piece, View, pieces
from pqlog.frames.tables import Layout, Meta, Survey, check_rows, read, read_ahead, regroup
from pqlog.source import CHUNK_BYTES, CHUNK_ROWS, Stretch, stop_of
from pqlog.store.api import Span


def to_pandas(stretch: Stretch, view: View, meta: Meta, dtype_backend: str | None, progress: bool) -> pd.DataFrame:
    """The messages of a stretch as a pandas frame."""
    _check_backend(dtype_backend)
    found, layout = read(stretch, view, meta, progress)
    return frame_of(found, layout, view, dtype_backend)


def chunks(
    stretch: Stretch, view: View, meta: Meta, rows: int, dtype_backend: str | None, progress: bool
) -> Iterator[pd.DataFrame]:
    """The messages of a stretch as pandas frames of so many rows, all with the same dtypes."""
    check_rows(rows)
    _check_backend(dtype_backend)
    found, layout = read_ahead(stretch, view, meta, progress)
    for part in regroup(found, rows):
        yield frame_of(part, layout, view, dtype_backend)


def head(stretch: Stretch, n: int) -> pd.DataFrame:
    """The first `n` messages as a frame."""
    _check_n(n)
    found = next(regroup(pieces(_up_to(stretch, n), View()), n), []) if n else []
    return _surveyed(found)


def _up_to(stretch: Stretch, n: int) -> Stretch:
    """A stretch that ends with its first `n` messages of a key: behind them may lie all of the topic."""
    source, span, key, latest = stretch
    if key is None or latest is not None:
        return stretch
    rest = span
    while n > 0 and (rows := source.engine.read(source.topic, rest, min(n, CHUNK_ROWS), CHUNK_BYTES, key)):
        n -= sum(1 for _ in source.messages(rows, key))
        rest = Span(stop_of(rows[-1]), rest.stop)
    return stretch._replace(span=Span(span.first, span.stop if n > 0 else rest.first))


def tail(stretch: Stretch, n: int) -> pd.DataFrame:
    """The last `n` messages as a frame."""
    _check_n(n)
    source, span, key, latest = stretch
    if key is None and latest is None:
        stretch = stretch._replace(span=Span(source.engine.from_end(source.topic, n, span), span.stop))
    elif latest is None:
        newest = list(itertools.islice(source.backwards(span, key), n))
        stretch = stretch._replace(span=Span(newest[-1].offset if newest else span.stop, span.stop))
    found: deque[Piece] = deque()
    rows = 0
    for piece in pieces(stretch, View()):
        found.append(piece)
        rows += len(piece.offsets)
        while rows - len(found[0].offsets) >= n:
            rows -= len(found.popleft().offsets)
    if rows > n:
        found[0] = found[0].slice(rows - n, len(found[0].offsets) - (rows - n))
    return _surveyed(list(found) if n else [])


def _check_n(n: int) -> None:
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise ArgumentError(f"n is a number of messages, not {n!r}")


def _surveyed(found: list[Piece]) -> pd.DataFrame:
    survey = Survey(View(), meta=True)
    for piece in found:
        survey.add(piece)
    return frame_of(found, survey.layout(), View(), None)


def _check_backend(dtype_backend: str | None) -> None:
    if dtype_backend not in (None, "pyarrow", "numpy_nullable"):
        raise ArgumentError(f'dtype_backend is "pyarrow", "numpy_nullable" or None, not {dtype_backend!r}')


def frame_of(part: Sequence[Piece], layout: Layout, view: View, dtype_backend: str | None) -> pd.DataFrame:
    """Pieces as a pandas frame."""
    if not part:
        return _frame_of(part, layout, view, dtype_backend)
    with part[0].told():
        try:
            return _frame_of(part, layout, view, dtype_backend)
        except Exception:
            for piece in part[len(part) == 1 :]:  # which one is it?
                with piece.told():
                    _frame_of([piece], layout, view, dtype_backend)
            raise


def _frame_of(part: Sequence[Piece], layout: Layout, view: View, dtype_backend: str | None) -> pd.DataFrame:
    if not layout.meta and dtype_backend is None:
        frame = _as_it_was_put(part, view)
        if frame is not None:
            return frame
    table = layout.table(part)
    objects = {}
    for index in range(len(table.schema) - 1, -1, -1):
        if parse.mark(table.schema.field(index)) is not None:
            field = layout.fields.field(index - len(layout.meta))
            objects[table.schema.names[index]] = _objects(part, field.name)
            table = table.remove_column(index)
    if "_headers" in layout.meta:
        position = layout.meta.index("_headers")
        objects["_headers"] = [None if found is None else dict(found) for found in table.column(position).to_pylist()]
        table = table.remove_column(position)
    frame = _plain_frame(table, layout, dtype_backend)
    if not len(table.schema):
        frame = pd.DataFrame(index=pd.RangeIndex(sum(len(piece.offsets) for piece in part)))
    for name, values in objects.items():
        frame[name] = _object_column(values, frame.index)
    order = list(layout.schema.names)
    frame = frame[order] if list(frame.columns) != order else frame
    return frame.set_index("offset") if "offset" in layout.meta else frame


def _objects(part: Sequence[Piece], name: str) -> list[Any]:
    """A column of nested or mixed values as Python objects."""
    values: list[Any] = []
    for piece in part:
        index = piece.fields.schema.get_field_index(name)
        if index < 0:
            values += [None] * len(piece.offsets)
        else:
            values += parse.python_values(piece.fields.column(index), piece.fields.schema.field(index))
    return values


def _object_column(values: list[Any], index: pd.Index) -> pd.Series:
    """A column of Python objects, which pandas shall not make anything else of."""
    array = np.empty(len(values), dtype=object)
    for position, value in enumerate(values):  # one by one: NumPy would make a matrix of lists of one length
        array[position] = value
    return pd.Series(array, index=index, dtype=object)


_NULLABLE = {pa.bool_(): "boolean", **{getattr(pa, n.lower())(): n for n in ("Int8", "Int16", "Int32", "Int64")}}
_NULLABLE |= {getattr(pa, name.lower())(): name for name in ("UInt8", "UInt16", "UInt32", "UInt64")}


def _plain_frame(table: pa.Table, layout: Layout, dtype_backend: str | None) -> pd.DataFrame:
    if dtype_backend == "pyarrow":
        return table.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)
    if dtype_backend == "numpy_nullable":
        nullable = {**_NULLABLE, pa.float32(): "Float32", pa.float64(): "Float64", pa.string(): "string"}
        return table.to_pandas(
            types_mapper=lambda t: pd.api.types.pandas_dtype(nullable[t]) if t in nullable else None,
            ignore_metadata=True,
        )
    fields = dict(zip(layout.names, layout.fields.names, strict=True))
    notes = []
    for field, name in zip(layout.fields, layout.names, strict=True):
        if name not in table.schema.names:
            continue
        note = layout.pandas.get(field.name)
        if note is not None:
            notes.append({**note, "name": name, "field_name": name})
        elif field.name in layout.nulls and field.type in _NULLABLE:
            dtype = _NULLABLE[field.type]
            notes.append(
                {"name": name, "field_name": name, "pandas_type": dtype.lower(), "numpy_type": dtype, "metadata": None}
            )
    metadata = {"index_columns": [], "column_indexes": [], "columns": notes, "pandas_version": pd.__version__}
    frame = table.replace_schema_metadata({b"pandas": json.dumps(metadata).encode()}).to_pandas()
    for position, name in enumerate(table.schema.names):
        if name in fields:
            _restore(frame, position, table.column(name), layout.pandas.get(fields[name]))
    return frame


def _restore(frame: pd.DataFrame, position: int, column: pa.ChunkedArray, note: dict[str, Any] | None) -> None:
    """Give a column its dtype back where pyarrow makes another of it."""
    if note is None:
        return
    if segments.ARROW_DTYPE in note:
        array = pd.arrays.ArrowExtensionArray(column)
        frame.isetitem(position, pd.Series(array, index=frame.index))
    elif note["numpy_type"] == "object" and frame.dtypes.iloc[position] != parse.OBJECTS:
        frame.isetitem(position, _object_column(column.to_pylist(), frame.index))


def _as_it_was_put(part: Sequence[Piece], view: View) -> pd.DataFrame | None:
    """The frame of one call of `put_many`, or a run of its rows, with its index; None if it is anything else."""
    if not part or view != View():
        return None
    expected = part[0].origin
    for piece in part:
        if piece.origin is None or expected is None or piece.origin != expected:
            return None
        expected = type(expected)(expected.call, expected.start + len(piece.offsets))
    first = part[0].frame
    if first is None or b"pandas" not in (first.schema.metadata or {}):
        return None
    table = pa.concat_tables([piece.frame.replace_schema_metadata(None) for piece in part if piece.frame is not None])
    metadata = json.loads(first.schema.metadata[b"pandas"])
    start = part[0].origin.start if part[0].origin is not None else 0
    for index in metadata["index_columns"]:
        if isinstance(index, dict):  # a range: of its rows, these
            step = index["step"]
            index["start"] += start * step
            index["stop"] = index["start"] + table.num_rows * step
    marked = {field.name: field for field in first.schema if parse.mark(field) is not None}
    texts = {name: table.column(name) for name in marked}
    for name in marked:  # as nulls for now: pyarrow would take the text for text
        table = table.set_column(table.schema.get_field_index(name), name, pa.nulls(table.num_rows))
    frame: pd.DataFrame = table.replace_schema_metadata({b"pandas": json.dumps(metadata).encode()}).to_pandas()
    for position, note in enumerate(metadata["columns"][: frame.shape[1]]):
        name = note["field_name"]
        if name in marked:
            values = parse.python_values(texts[name], marked[name])
            frame.isetitem(position, _object_column(values, frame.index))
        else:
            _restore(frame, position, table.column(name), note)
    return frame
