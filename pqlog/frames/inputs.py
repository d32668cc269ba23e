"""Whatever put_many accepts as a frame, as a stream of Arrow record batches."""

from __future__ import annotations

import sys
from typing import Any

import pyarrow as pa

from pqlog.errors import ArgumentError, EncodeError
from pqlog.frames import notes
from pqlog.frames.columns import mark_of
from pqlog.frames.segments import HIDDEN


def stream_of(frame: Any) -> pa.RecordBatchReader:
    """A frame that is not one of pandas as a stream of record batches."""
    if hasattr(frame, "collect") and hasattr(frame, "lazy"):  # a LazyFrame of polars
        frame = frame.collect()
    _check_not_a_column(frame)
    return _without_our_metadata(_reader_of(frame))


def _reader_of(frame: Any) -> pa.RecordBatchReader:
    if isinstance(frame, pa.RecordBatchReader):
        return frame  # through Arrow's C interface, an error of its source would lose its type
    if isinstance(frame, pa.Table):
        return frame.to_reader()
    if isinstance(frame, pa.RecordBatch):
        return pa.RecordBatchReader.from_batches(frame.schema, [frame])
    kind = _kind_of(frame)
    if kind.startswith("polars."):
        _check_polars(frame)
    try:
        return pa.RecordBatchReader.from_stream(frame)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise ArgumentError(
            f"put_many takes frames and iterables of values, and this {kind} is neither: {error}"
        ) from error


def _kind_of(frame: Any) -> str:
    return f"{type(frame).__module__.partition('.')[0]}.{type(frame).__name__}"


def _check_not_a_column(frame: Any) -> None:
    if hasattr(frame, "to_frame"):  # a Series, or an Index
        as_frame, as_values = "put_many(column.to_frame())", "put_many(list(column))"
    elif isinstance(frame, (pa.Array, pa.ChunkedArray)):
        as_frame, as_values = "put_many(pyarrow.table({'name': column}))", "put_many(column.to_pylist())"
    else:
        return
    raise ArgumentError(
        f"a {_kind_of(frame)} is one column: {as_frame} keeps it as a frame with its type, "
        f"{as_values} puts its values, one message each"
    )


def _check_polars(frame: Any) -> None:
    for name, dtype in zip(frame.columns, frame.dtypes, strict=True):
        reason = None
        if str(dtype) == "Object":
            reason = "holds Python objects, and Arrow would get only their addresses"
        elif "Int128" in str(dtype):
            reason = "holds integers of 128 bits, for which Arrow has no type"
        if reason is not None:
            raise EncodeError(
                f"column {name!r} (polars.{dtype}) {reason}: convert it, or put frame.to_dicts()",
                value_type="DataFrame",
                codec="arrow",
            )


def pandas_frame(frame: Any, index: bool) -> Any:
    """The frame if it is one of pandas, or of a subclass; without an index that only numbers rows unless `index`."""
    pandas = sys.modules.get("pandas")
    if pandas is None or not isinstance(frame, pandas.DataFrame):
        return None
    if index:
        return frame
    levels = [level for level, name in enumerate(frame.index.names) if name in _ROW_NUMBERS]
    return frame.reset_index(level=levels, drop=True) if levels else frame


_ROW_NUMBERS = frozenset([None, "offset"])
"""Names of levels of the index that a stage does not put as fields; batches give out frames with the index "offset"."""


def from_pandas(frame: Any) -> pa.Table:
    """The table of a frame of pandas."""
    from pqlog.frames import pandas_table

    return pandas_table.to_table(frame, HIDDEN)


def with_plain_index(frame: Any) -> Any:
    """A frame of pandas whose index is neither a range nor regular times: any of its rows have the same labels."""
    import pandas as pd

    index = frame.index
    if isinstance(index, pd.RangeIndex):
        return frame.set_axis(pd.Index(index.to_numpy(), name=index.name))
    if isinstance(index, (pd.DatetimeIndex, pd.TimedeltaIndex)) and index.freq is not None:
        index = index.copy()
        index.freq = None
        return frame.set_axis(index)
    return frame


def _without_our_metadata(reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """A stream from outside, without metadata that only we may set."""
    schema = reader.schema
    fields = [notes.noted(field, None) for field in schema]
    fields = [field if mark_of(field) is None or _is_json_text(field) else field.remove_metadata() for field in fields]
    metadata = {key: text for key, text in (schema.metadata or {}).items() if not key.startswith(b"pqlog.")}
    if not fields:
        fields = [pa.field("rows", pa.null(), metadata={HIDDEN: b"rows"})]
    cleaned = pa.schema(fields, metadata=metadata)
    if cleaned.equals(schema, check_metadata=True):
        return reader
    batches = (
        pa.RecordBatch.from_arrays(batch.columns or [pa.nulls(batch.num_rows)], schema=cleaned) for batch in reader
    )
    return pa.RecordBatchReader.from_batches(cleaned, batches)


def _is_json_text(field: pa.Field) -> bool:
    return mark_of(field) == b"json" and pa.types.is_string(field.type)
