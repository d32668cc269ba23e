"""A pandas frame as an Arrow table, and back exactly as it was: columns, index, labels."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa

from pqlog.errors import ArgumentError, EncodeError
from pqlog.frames import dtypes, ipc, objects
from pqlog.frames.arrays import identical_columns, take_column
from pqlog.frames.columns import Column, exact_json_column, unused_name
from pqlog.frames.dtypes import OBJECT_DTYPE
from pqlog.frames.notes import FRAME, FrameNote, Level, note_of


def to_table(frame: pd.DataFrame, hidden: bytes) -> pa.Table:
    """The table of a frame; fields that the messages do not have are marked with `hidden`.

    Raises
    ------
    ArgumentError
        The labels cannot be names of fields.
    EncodeError
        A column, the index or the labels would not come back as they were.
    """
    names = _field_names(frame)
    _check_sparse(frame)
    columns = [dtypes.pack(frame.iloc[:, position], name) for position, name in enumerate(names)]
    levels = [_level(frame.index, number, names, hidden) for number in range(frame.index.nlevels)]
    columns += [column for _, column in levels if column is not None]
    note = FrameNote(
        len(names),
        [level for level, _ in levels],
        [_name(name, "index") for name in frame.index.names],
        isinstance(frame.index, pd.MultiIndex),
        _name(frame.columns.name, "columns"),
        _labels(frame.columns, names),
        getattr(frame.columns, "freqstr", None),
        _attrs(frame.attrs),
    )
    if not columns:  # a table without columns would have no rows
        columns.append((pa.field("rows", pa.null(), metadata={hidden: b"rows"}), pa.nulls(len(frame))))
    schema = pa.schema([field for field, _ in columns], metadata={FRAME: msgspec.json.encode(note)})
    return pa.Table.from_arrays([array for _, array in columns], schema=schema)


def take(frame: pd.DataFrame, rows: Any) -> pd.DataFrame:
    """``frame.take(rows)``, also where Arrow has no take for a type of pandas's, such as views."""
    try:
        return frame.take(rows)
    except pa.ArrowNotImplementedError:
        columns = [_taken(frame.iloc[:, number].array, rows) for number in range(frame.shape[1])]
        index = frame.index
        if not isinstance(index, pd.MultiIndex):
            index = pd.Index(_taken(index.array, rows), name=index.name)
        else:
            index = index.take(rows)
        taken = pd.DataFrame(dict(enumerate(columns)), index=index, copy=False)
        taken.columns, taken.attrs = frame.columns, frame.attrs
        return taken


def _taken(array: Any, rows: Any) -> Any:
    try:
        return array.take(rows)
    except pa.ArrowNotImplementedError:
        return pd.arrays.ArrowExtensionArray(take_column(pa.chunked_array(array.__arrow_array__()), pa.array(rows)))


def _field_names(frame: pd.DataFrame) -> list[str]:
    if frame.columns.nlevels > 1:
        raise ArgumentError("the frame has columns of several levels: flatten their names first")
    names = [str(label) for label in frame.columns]
    if len(set(names)) < len(names):
        repeated = dict.fromkeys(name for name in names if names.count(name) > 1)
        raise ArgumentError(f"the frame has several columns named {', '.join(map(repr, repeated))}: rename them")
    return names


def _check_sparse(frame: pd.DataFrame) -> None:
    sparse = [name for name, dtype in frame.dtypes.items() if isinstance(dtype, pd.SparseDtype)]
    if sparse:
        raise ArgumentError(
            f"the frame has sparse columns, which Arrow does not keep: {', '.join(map(repr, sparse))}. Make them dense "
            f"with frame.astype({{name: frame[name].dtype.subtype for name in ...}})"
        )


def _level(index: pd.Index[Any], number: int, taken: Sequence[str], hidden: bytes) -> tuple[Level, Column | None]:
    """A level of an index, and its column if it has one."""
    if isinstance(index, pd.RangeIndex) and index.name is None:
        return Level(start=index.start, step=index.step), None
    values = index.get_level_values(number)
    name = None if values.name is None else str(values.name)
    is_field = name is not None and name not in taken and list(map(str, index.names)).count(name) == 1
    field_name = name if is_field and name is not None else f"__index_level_{number}__"
    try:
        field, array = dtypes.pack(values, field_name)
    except EncodeError as error:
        place = "the index" if index.nlevels == 1 else f"level {number} of the index"
        reason = error.reason.replace(f"column {field_name!r}", place, 1)
        raise EncodeError(reason, value_type="DataFrame", codec="arrow") from error
    if not is_field:
        field = field.with_name(unused_name(field.name, dict.fromkeys([*taken, *map(str, index.names)])))
        field = field.with_metadata({**(field.metadata or {}), hidden: b"index"})
    if isinstance(index, pd.RangeIndex):
        return Level(field.name, index.start, index.step), (field, array)
    return Level(field.name, freq=getattr(values, "freqstr", None)), (field, array)


def _name(name: Any, whose: str) -> Any:
    if name is not None and exact_json_column([name]) is None:
        raise EncodeError(
            f"the name of the {whose}, {name!r}, would not come back as it is: convert it to text",
            value_type="DataFrame",
            codec="arrow",
        )
    return name


def _labels(labels: pd.Index[Any], names: Sequence[str]) -> str | None:
    default = pd.Index(names)
    if type(labels) is pd.Index and labels.dtype == default.dtype and list(labels) == names:
        return None
    if isinstance(labels, pd.RangeIndex):
        labels = pd.Index(labels.to_numpy())  # equal, and what pandas itself returns for most frames
    try:
        field, array = dtypes.pack(labels, "labels")
    except EncodeError as error:
        raise EncodeError(
            f"the columns have names that would not come back as they are: {error.reason}. Convert them to text: "
            f"frame.columns = frame.columns.map(str)",
            value_type="DataFrame",
            codec="arrow",
        ) from error
    table = pa.Table.from_arrays([array], schema=pa.schema([field]))
    return base64.b64encode(ipc.encode(table)).decode()


def _attrs(attrs: dict[Any, Any]) -> dict[str, Any]:
    named = {key: value for key, value in attrs.items() if isinstance(key, str)}
    return {key: value for key, value in named.items() if value is None or exact_json_column([value]) is not None}


def from_table(table: pa.Table, note: FrameNote, start: int) -> pd.DataFrame:
    """The frame that a table was, or its rows from row `start` on.

    Raises
    ------
    Exception
        Any kind of exception: the note is not of this table.
    """
    rows = table.num_rows
    index = _index(table, note, start)
    columns = {}
    for position in range(note.columns):
        columns[position] = _array(table.column(position), table.schema.field(position))
    frame = pd.DataFrame(columns) if columns else pd.DataFrame(index=pd.RangeIndex(rows))
    frame.index = index
    if note.labels is None:
        labels = pd.Index(table.schema.names[: note.columns])
    else:
        stored = ipc.decode(base64.b64decode(note.labels, validate=True), None)
        values = _array(stored.column(0), stored.schema.field(0))
        labels = _with_freq(pd.Index(values, dtype=values.dtype, copy=False), note.freq)
    frame.columns = labels.rename(note.name)
    frame.attrs = note.attrs
    return frame


def _array(column: pa.ChunkedArray, field: pa.Field) -> Any:
    note = note_of(field)
    if note is None:
        raise ValueError(f"its column {field.name!r} has no note of its dtype")
    return dtypes.restore(column, field, note)


def _index(table: pa.Table, note: FrameNote, start: int) -> pd.Index[Any]:
    levels: list[pd.Index[Any]] = []
    for level in note.levels:
        if level.step is not None:
            first = level.start + start * level.step
            levels.append(pd.RangeIndex(first, first + table.num_rows * level.step, level.step))
            continue
        values = _array(table.column(level.field), table.schema.field(level.field))
        levels.append(_with_freq(pd.Index(values, dtype=values.dtype, copy=False), level.freq))
    if note.is_multi:
        return pd.MultiIndex.from_arrays(levels, names=note.names)
    return levels[0].rename(note.names[0])


def _with_freq(index: pd.Index[Any], freq: str | None) -> pd.Index[Any]:
    if freq is not None and isinstance(index, (pd.DatetimeIndex, pd.TimedeltaIndex)):
        index.freq = freq
    return index


def difference(frame: pd.DataFrame, back: pd.DataFrame) -> str | None:
    """The first part in which two frames differ: a column, the index, or the labels; None if they do not."""
    if not _same_index(frame.columns, back.columns):
        return "the names of the columns"
    if not _same_index(frame.index, back.index):
        return "the index"
    for position, label in enumerate(frame.columns):
        one, other = frame.iloc[:, position], back.iloc[:, position]
        if one.dtype != other.dtype or not _same_values(one.array, other.array):
            return f"column {label!r} ({one.dtype})"
    return None


def _same_index(one: pd.Index[Any], other: pd.Index[Any]) -> bool:
    if isinstance(one, pd.MultiIndex) != isinstance(other, pd.MultiIndex) or len(one) != len(other):
        return False
    if list(one.names) != list(other.names):
        return False
    if getattr(one, "freq", None) != getattr(other, "freq", None):
        return False
    for number in range(one.nlevels):
        level, same = one.get_level_values(number), other.get_level_values(number)
        if level.dtype != same.dtype or not _same_values(level.array, same.array):
            return False
    return True


def _same_values(one: Any, other: Any) -> bool:
    if isinstance(one, pd.arrays.NumpyExtensionArray):
        one, other = one.to_numpy(), other.to_numpy()
    dtype = one.dtype
    if dtype == OBJECT_DTYPE:
        return objects.first_change([objects.plain_of(value) for value in one], list(other)) is None
    if isinstance(dtype, pd.CategoricalDtype):
        return (
            _same_index(one.categories, other.categories)
            and one.ordered == other.ordered
            and np.array_equal(one.codes, other.codes)
        )
    if isinstance(dtype, np.dtype) and dtype.kind == "f":
        one, other = np.asarray(one), np.asarray(other)
        bits = f"u{dtype.itemsize}"
        return bool(((one.view(bits) == other.view(bits)) | (np.isnan(one) & np.isnan(other))).all())
    if isinstance(dtype, np.dtype) and dtype.kind in "mM":
        return np.array_equal(np.asarray(one).view("i8"), np.asarray(other).view("i8"))
    if isinstance(dtype, np.dtype):
        return np.array_equal(np.asarray(one), np.asarray(other))
    return _same_extension(one, other)


def _same_extension(one: Any, other: Any) -> bool:
    if not type(one).__module__.startswith("pandas."):  # conversion to Arrow may lose the same for both
        present = ~one.isna()
        return bool((one.isna() == other.isna()).all() and (one[present] == other[present]).all())
    if hasattr(one, "__arrow_array__"):
        return identical_columns(_chunked(pa.array(one)), _chunked(pa.array(other)))
    return bool(one.equals(other))


def _chunked(array: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    return array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])
