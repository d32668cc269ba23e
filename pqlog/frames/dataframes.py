"""A stretch of a topic as pandas frames: with dtypes that hold every value, or those of the frames that were put."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

from pqlog.errors import ArgumentError
from pqlog.frames import dtypes, notes, pandas_table, parse, stream
from pqlog.frames.latest import latest_of
from pqlog.frames.pieces import Piece, chosen, pieces
from pqlog.frames.projection import Projection
from pqlog.frames.tables import Layout, Survey, check_size, read, read_ahead, regroup
from pqlog.source import CHUNK_BYTES, CHUNK_ROWS, Stretch, stop_of
from pqlog.store.api import Span


def to_pandas(stretch: Stretch, projection: Projection, dtype_backend: str | None, progress: bool) -> pd.DataFrame:
    """The messages of a stretch as a pandas frame."""
    _check_backend(dtype_backend)
    found, layout = read(stretch, projection, progress)
    return frame_of(found, layout, dtype_backend)


def chunks(
    stretch: Stretch, projection: Projection, chunksize: int, dtype_backend: str | None, progress: bool
) -> Iterator[pd.DataFrame]:
    """The messages of a stretch as pandas frames of so many rows, all with the same dtypes."""
    check_size("chunksize", chunksize)
    _check_backend(dtype_backend)
    found, layout = read_ahead(stretch, projection, progress)
    for part in regroup(found, chunksize):
        yield frame_of(part, layout, dtype_backend)


def head(stretch: Stretch, n: int) -> pd.DataFrame:
    """The first `n` messages as a frame."""
    _check_n(n)
    if stretch.latest is not None:
        return _surveyed(chosen(stretch.source, latest_of(stretch)[:n], Projection()))
    found = next(regroup(pieces(_up_to(stretch, n), Projection()), n), []) if n else []
    if found:  # the last may be cut from one whose columns follow from messages behind them, too
        first, last = found[0].offsets[0].as_py(), found[-1].offsets[-1].as_py()
        found = list(pieces(stretch._replace(span=Span(first, last + 1)), Projection()))
    return _surveyed(found)


def _up_to(stretch: Stretch, n: int) -> Stretch:
    """A stretch that ends with its first `n` messages of a key: behind them may lie all of the topic."""
    source, span, key, _ = stretch
    if key is None:
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
    if latest is not None:
        return _surveyed(chosen(source, latest_of(stretch)[-n:] if n else [], Projection()))
    if key is None:
        first = source.engine.from_end(source.topic, n, span)
    else:
        newest = list(itertools.islice(source.backwards(span, key), n))
        first = newest[-1].offset if newest else span.stop
    return _surveyed(pieces(stretch._replace(span=Span(first, span.stop)), Projection()))


def _check_n(n: int) -> None:
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise ArgumentError(f"n is a number of messages, not {n!r}")


def _surveyed(found: Iterable[Piece]) -> pd.DataFrame:
    survey = Survey(Projection())
    found = list(found)
    for piece in found:
        survey.add(piece)
    return frame_of(found, survey.layout(), None)


def _check_backend(dtype_backend: str | None) -> None:
    if dtype_backend not in (None, "pyarrow", "numpy_nullable"):
        raise ArgumentError(f'dtype_backend is "pyarrow", "numpy_nullable" or None, not {dtype_backend!r}')


def frame_of(part: Sequence[Piece], layout: Layout, dtype_backend: str | None) -> pd.DataFrame:
    """Pieces as a pandas frame."""
    if not part:
        return _frame_of(part, layout, dtype_backend)
    with part[0].told():
        try:
            return _frame_of(part, layout, dtype_backend)
        except Exception:
            for piece in part[len(part) == 1 :]:  # which one is it?
                with piece.told():
                    _frame_of([piece], layout, dtype_backend)
            raise


def _frame_of(part: Sequence[Piece], layout: Layout, dtype_backend: str | None) -> pd.DataFrame:
    if layout.is_frame_as_put and dtype_backend is None:
        frame = _as_it_was_put(part)
        if frame is not None:
            return frame
    part = [piece.exact(layout.objects) for piece in part]
    table = layout.table(part)
    special: dict[str, Any] = {}
    for field, name in zip(layout.fields, layout.names, strict=True):
        note = layout.notes.get(field.name)
        if dtype_backend == "numpy_nullable" and (note is None or not note.is_opaque):
            note = None  # its own dtypes are wanted
        if parse.mark(field) is not None or (dtype_backend != "pyarrow" and _is_object(field, note)):
            special[name] = dtypes.object_series(_objects(part, field.name), note)
        elif dtype_backend != "pyarrow" and note is not None:
            special[name] = dtypes.restore(table.column(name), field, note, field.name in layout.nulls)
        elif dtype_backend is None and pa.types.is_dictionary(field.type):
            dictionary = layout.dictionaries.get(field.name)
            if dictionary is not None:
                special[name] = dtypes.category_of(table.column(name), dictionary)
            else:  # several would make a category of other ones in each chunk
                position = table.schema.get_field_index(name)
                table = table.set_column(position, name, parse.decoded(table.column(position)))
    if "_headers" in layout.metadata:
        headers = [None if found is None else dict(found) for found in table.column("_headers").to_pylist()]
        special["_headers"] = dtypes.object_series(headers, None)
    plain = table.select([name for name in table.column_names if name not in special])
    frame = _plain_frame(plain, layout, dtype_backend)
    if not plain.num_columns:
        frame = pd.DataFrame(index=pd.RangeIndex(table.num_rows))
    if special:
        columns = {name: special[name] if name in special else frame[name] for name in layout.schema.names}
        frame = pd.DataFrame(columns, index=frame.index)
    return frame.set_index("offset") if "offset" in layout.metadata else frame


def _is_object(field: pa.Field, note: notes.Note | None) -> bool:
    """Whether a column has Python objects in pandas."""
    if note is not None:
        return note.dtype == notes.OBJECT
    of = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    return not stream.is_plain(of)


def _objects(part: Sequence[Piece], name: str) -> list[Any]:
    """A column of nested or mixed values as Python objects."""
    values: list[Any] = []
    for piece in part:
        index = piece.fields.schema.get_field_index(name)
        if index < 0:
            values += [None] * len(piece.offsets)
        else:
            values += dtypes.python_values(piece.fields.column(index), piece.fields.schema.field(index))
    return values


_NULLABLE = {pa.float32(): "Float32", pa.float64(): "Float64", pa.string(): "string", pa.bool_(): "boolean"}


def _plain_frame(table: pa.Table, layout: Layout, dtype_backend: str | None) -> pd.DataFrame:
    if dtype_backend == "pyarrow":
        return table.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)
    if dtype_backend == "numpy_nullable":
        return table.to_pandas(types_mapper=_nullable, ignore_metadata=True)
    nulls = {name for field, name in zip(layout.fields, layout.names, strict=True) if field.name in layout.nulls}
    holes = {}
    for name in table.column_names:
        of = table.schema.field(name).type
        if name in nulls and (pa.types.is_integer(of) or pa.types.is_boolean(of)):
            holes[name] = _nullable(of).__from_arrow__(table.column(name))
    whole = table.select([name for name in table.column_names if name not in holes])
    frame: pd.DataFrame = whole.to_pandas(ignore_metadata=True)
    if not holes:
        return frame
    index = frame.index if whole.num_columns else pd.RangeIndex(table.num_rows)
    return pd.DataFrame({name: holes[name] if name in holes else frame[name] for name in table.column_names}, index)


def _nullable(of: pa.DataType) -> Any:
    if pa.types.is_integer(of):
        return pd.api.types.pandas_dtype(dtypes.nullable(of))
    return pd.api.types.pandas_dtype(_NULLABLE[of]) if of in _NULLABLE else None


def _as_it_was_put(part: Sequence[Piece]) -> pd.DataFrame | None:
    """The frame of one call of `put_many`, or a run of its rows, with its index; None if it is anything else."""
    if not part:
        return None
    expected = part[0].origin
    for piece in part:
        if piece.origin is None or expected is None or piece.origin != expected:
            return None
        expected = type(expected)(expected.call, expected.start + len(piece.offsets))
    first = part[0].frame
    note = None if first is None else notes.frame_note_of(first.schema)
    if note is None or first is None or part[0].origin is None:
        return None
    whole = pa.concat_tables([piece.frame.replace_schema_metadata(None) for piece in part if piece.frame is not None])
    return pandas_table.from_table(whole, note, part[0].origin.start)
