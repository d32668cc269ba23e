"""A stretch of a topic as one table, or as a stream of them: for Arrow, pandas, polars."""

from __future__ import annotations

import json
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pqlog import extras
from pqlog.errors import ArgumentError
from pqlog.frames import parse, segments
from pqlog.frames.pieces import TIME, Piece, View, pieces
from pqlog.frames.schema import Facts, conform
from pqlog.history import Stretch
from pqlog.store.api import Span

BATCH_ROWS = 65_536
KEEP_BYTES = 64 << 20
"""Of a stream as much is kept while its schema is being found out, so that a short one is read once only."""

META = ("offset", "_time", "_key")


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of a reading: the same for all its pieces.

    Attributes
    ----------
    fields : pyarrow.Schema
        The fields of the messages, by their own names.
    names : tuple of str
        What they are called in the table: a name that is taken has an underscore behind it.
    meta : tuple of str
        Which of ``offset``, ``_time``, ``_key`` come first.
    nulls : frozenset of str
        The fields that some message has no value for.
    pandas : dict of str to dict
        What pandas noted of a column's dtype, where the frames that were put agree on it.
    """

    fields: pa.Schema
    names: tuple[str, ...]
    meta: tuple[str, ...]
    nulls: frozenset[str]
    pandas: dict[str, dict[str, Any]]

    @property
    def schema(self) -> pa.Schema:
        """The schema of the Arrow table."""
        meta = {"offset": pa.int64(), "_time": TIME, "_key": pa.string()}
        named = [field.with_name(name) for field, name in zip(self.fields, self.names, strict=True)]
        return pa.schema([*(pa.field(name, meta[name]) for name in self.meta), *named])

    def table(self, part: Sequence[Piece]) -> pa.Table:
        """Pieces as one table."""
        if not part:
            return self.schema.empty_table()
        return pa.concat_tables([self._one(piece) for piece in part])

    def _one(self, piece: Piece) -> pa.Table:
        rows = len(piece.offsets)
        keys = pa.nulls(rows, pa.string()) if piece.keys is None else piece.keys
        head = {"offset": piece.offsets, "_time": piece.times, "_key": keys}
        columns = [*(head[name] for name in self.meta), *conform(piece.fields, self.fields).columns]
        return parse.rows_table(list(self.schema), columns, rows)


class Survey:
    """Finds out the layout of a reading from its pieces."""

    def __init__(self, view: View, meta: bool) -> None:
        self._view, self._meta = view, meta
        self._facts = Facts()
        self._keys = False
        self._notes: dict[str, dict[str, Any] | None] = {}

    def add(self, piece: Piece) -> None:
        """Take a piece into account."""
        self._facts.add(piece.fields)
        self._keys = self._keys or piece.keys is not None
        notes = _pandas_notes(piece)
        for name in piece.fields.schema.names:
            note = notes.get(name)
            if self._notes.setdefault(name, note) != note:
                self._notes[name] = None

    def layout(self) -> Layout:
        """The layout of all pieces so far."""
        fields = self._facts.schema()
        if self._view.columns is not None:
            by_name = {field.name: field for field in fields}
            fields = pa.schema([by_name.get(name, pa.field(name, pa.null())) for name in self._view.columns])
        parse.check_fields(len(fields))
        meta = META if self._meta and self._keys else META[:2] if self._meta else ()
        used: dict[str, None] = dict.fromkeys(META if self._meta else ())
        names = []
        for name in fields.names:
            name = parse.free(name, used)
            used[name] = None
            names.append(name)
        nulls = frozenset(name for name in fields.names if self._facts.has_nulls(name))
        notes = {name: note for name, note in self._notes.items() if note is not None and name in fields.names}
        return Layout(fields, tuple(names), meta, nulls, notes)


def _pandas_notes(piece: Piece) -> dict[str, dict[str, Any]]:
    if piece.frame is None or not (piece.frame.schema.metadata or {}).get(b"pandas"):
        return {}
    return {note["field_name"]: note for note in json.loads(piece.frame.schema.metadata[b"pandas"])["columns"]}


def read(stretch: Stretch, view: View, meta: bool, progress: bool) -> tuple[list[Piece], Layout]:
    """All pieces of a stretch, and their layout."""
    survey = Survey(view, meta)
    found = []
    for piece in pieces(stretch, view, progress):
        survey.add(piece)
        found.append(piece)
    return found, survey.layout()


def to_arrow(stretch: Stretch, view: View, meta: bool, progress: bool) -> pa.Table:
    """The messages of a stretch as one table."""
    found, layout = read(stretch, view, meta, progress)
    return layout.table(found)


def to_polars(stretch: Stretch, view: View, meta: bool, progress: bool) -> Any:
    """The messages of a stretch as a polars frame."""
    return extras.package("polars").from_arrow(to_arrow(stretch, view, meta, progress))


# streams

_layouts: OrderedDict[tuple[Any, ...], Layout] = OrderedDict()
"""Of the latest streams: messages never change, so a stretch's layout is found out once."""


def _survey(stretch: Stretch, view: View, meta: bool) -> tuple[list[Piece] | None, Layout]:
    """The layout of a stretch; and its pieces, if they are few."""
    about = (*stretch.identity, view, meta)
    if about in _layouts:
        return None, _layouts[about]
    survey = Survey(view, meta)
    kept: list[Piece] | None = []
    size = 0
    for piece in pieces(stretch, view):
        survey.add(piece)
        if kept is not None:
            size += piece.fields.nbytes
            kept.append(piece)
            if size > KEEP_BYTES:
                kept = None
    layout = _layouts[about] = survey.layout()
    while len(_layouts) > 64:
        _layouts.popitem(last=False)
    return kept, layout


def layout_of(stretch: Stretch, view: View, meta: bool) -> Layout:
    """The layout of the stream of a stretch."""
    return _survey(stretch, view, meta)[1]


def schema(stretch: Stretch, view: View, meta: bool) -> pa.Schema:
    """The schema of the stream of a stretch."""
    return layout_of(stretch, view, meta).schema


def to_batches(stretch: Stretch, view: View, meta: bool, rows: int, progress: bool) -> pa.RecordBatchReader:
    """The messages of a stretch as a stream of record batches."""
    check_rows(rows)
    kept, layout = _survey(stretch, view, meta)

    def batches() -> Iterator[pa.RecordBatch]:
        for part in regroup(pieces(stretch, view, progress) if kept is None else kept, rows):
            yield from layout.table(part).combine_chunks().to_batches()

    return pa.RecordBatchReader.from_batches(layout.schema, batches())


def regroup(found: Iterator[Piece] | list[Piece], rows: int) -> Iterator[list[Piece]]:
    """Pieces in groups of so many messages; the last may have fewer."""
    group: list[Piece] = []
    room = rows
    for piece in found:
        start, size = 0, len(piece.offsets)
        while start < size:
            part = piece if start == 0 and size <= room else piece.slice(start, min(room, size - start))
            group.append(part)
            start += len(part.offsets)
            room -= len(part.offsets)
            if not room:
                yield group
                group, room = [], rows
    if group:
        yield group


def check_rows(rows: int) -> None:
    """A number of messages."""
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        raise ArgumentError(f"rows is a number of messages, 1 or more, not {rows!r}")


# pandas


def to_pandas(stretch: Stretch, view: View, meta: bool, dtype_backend: str | None, progress: bool) -> pd.DataFrame:
    """The messages of a stretch as a pandas frame."""
    _check_backend(dtype_backend)
    found, layout = read(stretch, view, meta, progress)
    return frame_of(found, layout, view, dtype_backend)


def chunks(
    stretch: Stretch, view: View, meta: bool, rows: int, dtype_backend: str | None, progress: bool
) -> Iterator[pd.DataFrame]:
    """The messages of a stretch as pandas frames of so many rows, all with the same dtypes."""
    check_rows(rows)
    _check_backend(dtype_backend)
    kept, layout = _survey(stretch, view, meta)
    for part in regroup(pieces(stretch, view, progress) if kept is None else kept, rows):
        yield frame_of(part, layout, view, dtype_backend)


def head(stretch: Stretch, n: int) -> pd.DataFrame:
    """The first `n` messages as a frame."""
    _check_n(n)
    found = next(regroup(pieces(stretch, View()), n), []) if n else []
    return _surveyed(found)


def tail(stretch: Stretch, n: int) -> pd.DataFrame:
    """The last `n` messages as a frame."""
    _check_n(n)
    source, span, key, latest = stretch
    if key is None and latest is None:
        stretch = stretch._replace(span=Span(source.engine.from_end(source.topic, n, span), span.stop))
    newest: deque[Piece] = deque()
    rows = 0
    for piece in pieces(stretch, View()):
        newest.append(piece)
        rows += len(piece.offsets)
        while rows - len(newest[0].offsets) >= n:
            rows -= len(newest.popleft().offsets)
    if rows > n:
        newest[0] = newest[0].slice(rows - n, len(newest[0].offsets) - (rows - n))
    return _surveyed(list(newest) if n else [])


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
    frame = _plain_frame(table, layout, dtype_backend)
    if not len(table.schema):
        frame = pd.DataFrame(index=pd.RangeIndex(sum(len(piece.offsets) for piece in part)))
    for name, values in objects.items():
        frame[name] = _object_column(values, frame.index)
    order = list(layout.schema.names)
    frame = frame[order] if list(frame.columns) != order else frame
    return frame.set_index("offset") if layout.meta else frame


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
