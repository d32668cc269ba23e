"""Columns of pandas as columns of Arrow and back, with notes of what Arrow's types do not say.

Arrow's type says what a value is, the note which dtype it has in pandas and what stands for a missing value. That the
same column comes back is not taken for granted: a frame's segment is read again before it is put.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pqlog.frames import ipc
from pqlog.frames.arrays import single_array
from pqlog.frames.arrow_types import is_plain
from pqlog.frames.columns import decoded_values, mark_of
from pqlog.frames.notes import ARROW, CATEGORY, OBJECT, Note, note_of, noted
from pqlog.frames.objects import pack_objects, refused

if TYPE_CHECKING:
    import pandas as pd

OBJECT_DTYPE = np.dtype(object)
"""The dtype of columns of Python objects; that of pandas' text columns has the same kind, but is a different one."""


def pack(values: pd.Series[Any] | pd.Index[Any], name: str) -> tuple[pa.Field, pa.Array]:
    """A column as an Arrow field with this name, and its array.

    Raises
    ------
    EncodeError
        It would not come back as it is.
    """
    import pandas as pd

    dtype = values.dtype
    if dtype == OBJECT_DTYPE:
        return pack_objects(values.tolist(), name)
    if isinstance(dtype, pd.CategoricalDtype):
        return _pack_category(values.array, name)
    try:
        array = single_array(pa.array(pd.Series(values, copy=False), from_pandas=True))
    except Exception as error:  # an extension dtype may raise anything
        raise refused(name, dtype, f"Arrow cannot hold it: {error}") from error
    if isinstance(dtype, (pd.PeriodDtype, pd.IntervalDtype)):
        array = array.storage  # its type is registered only if pandas is imported
    if isinstance(dtype, pd.ArrowDtype):
        note = Note(ARROW)
    elif isinstance(dtype, pd.StringDtype):
        note = Note(str(dtype), storage=dtype.storage)
    else:
        note = Note(str(dtype))
    return noted(pa.field(name, array.type), note), array


def _pack_category(values: pd.Categorical, name: str) -> tuple[pa.Field, pa.Array]:
    field, categories = pack(values.categories, name)
    note = note_of(field)
    stored = None
    if mark_of(field) is not None or note is None or note.is_opaque or not is_plain(categories.type):
        table = pa.Table.from_arrays([categories], schema=pa.schema([field.with_name("categories")]))
        stored = base64.b64encode(ipc.encode(table)).decode()
        labels = [str(category) for category in values.categories]
        if len(set(labels)) < len(labels):
            labels = [repr(category) for category in values.categories]
        categories, note = pa.array(labels, pa.string()), None
    codes = pa.array(values.codes, mask=values.codes < 0)
    array = pa.DictionaryArray.from_arrays(codes, categories, ordered=bool(values.ordered))
    freq = getattr(values.categories, "freqstr", None)
    category = Note(CATEGORY, ordered=bool(values.ordered), categories=note, stored=stored, freq=freq)
    return noted(pa.field(name, array.type), category), array


def python_values(column: pa.ChunkedArray, field: pa.Field) -> list[Any]:
    """The values of a column as Python objects, with None for missing ones."""
    note = note_of(field)
    if note is None or not note.is_opaque:
        return decoded_values(column, field)
    import pandas as pd

    if note.unit is not None:
        values = column.to_pandas()
    elif note.stored is not None:
        category = _restore_category(column, note)
        categories = category.categories.tolist()
        return [None if code < 0 else categories[code] for code in category.codes]
    else:
        dtype = pd.api.types.pandas_dtype(note.dtype)
        if column.null_count == len(column):
            return [None] * len(column)
        present = iter(dtype.__from_arrow__(column.drop_null()).tolist())
        return [next(present) if is_valid else None for is_valid in column.is_valid().to_pylist()]
    return [None if is_missing else value for value, is_missing in zip(values.tolist(), values.isna(), strict=True)]


def restore(column: pa.ChunkedArray, field: pa.Field, note: Note, has_nulls: bool = False) -> Any:
    """The array of pandas or NumPy, or the Series, that a column was.

    With `has_nulls`, an integer column becomes nullable even if no value is missing here.
    """
    import pandas as pd

    has_nulls = has_nulls or bool(column.null_count)
    if note.dtype == ARROW:
        return pd.arrays.ArrowExtensionArray(column)
    if note.dtype == OBJECT:
        return object_series(python_values(column, field), note)
    if note.dtype == CATEGORY:
        return _restore_category(column, note)
    dtype = _restore_dtype(column, note, has_nulls)
    if isinstance(dtype, np.dtype):
        if dtype.kind not in "biufmM":  # the file may come from anybody, and a dtype of text may take any memory
            raise ValueError(f"no column has the dtype {note.dtype:.40}")
        return column.to_numpy().astype(dtype, copy=False)
    if isinstance(dtype, pd.IntervalDtype) and has_nulls and _is_integer(dtype.subtype):
        return object_series(python_values(column, noted(field, note)))  # pandas' intervals of integers have no null
    if isinstance(dtype, pd.IntervalDtype) and column.null_count == len(column):
        return pd.array([np.nan] * len(column), dtype)  # of nulls alone, pandas makes another dtype
    return dtype.__from_arrow__(column)


def _restore_dtype(column: pa.ChunkedArray, note: Note, has_nulls: bool) -> Any:
    import pandas as pd

    if note.storage is not None:
        return pd.StringDtype(note.storage, na_value=np.nan if note.dtype == "str" else pd.NA)
    dtype = pd.api.types.pandas_dtype(note.dtype)
    if has_nulls and isinstance(dtype, np.dtype) and dtype.kind in "iub":
        return pd.api.types.pandas_dtype("boolean" if dtype.kind == "b" else nullable(column.type))
    return dtype


def _is_integer(dtype: Any) -> bool:
    return isinstance(dtype, np.dtype) and dtype.kind in "iu"


def _array_of(values: Sequence[Any], of: np.dtype[Any]) -> Any:
    array = np.empty(len(values), of)
    if len(values):
        array[:] = values
    return array


def nullable(of: pa.DataType) -> str:
    """The name of pandas' nullable dtype for integers of a type."""
    return f"{'U' if pa.types.is_unsigned_integer(of) else ''}Int{of.bit_width}"


def object_series(values: Sequence[Any], note: Note | None = None) -> Any:
    """A column of Python objects, which neither NumPy nor pandas converts to anything else."""
    import pandas as pd

    missing, array_dtype = None, None
    if note is not None:
        missing = {None: None, "nan": np.nan, "NA": pd.NA, "NaT": pd.NaT}[note.missing]
        array_dtype = None if note.array is None else np.dtype(note.array)
        if array_dtype is not None and array_dtype.kind not in "biufO":
            raise ValueError(f"no array has the dtype {note.array:.40}")
    objects = np.empty(len(values), dtype=object)
    for position, value in enumerate(values):  # one by one: of lists of the same length NumPy would make a matrix
        if value is None:
            objects[position] = missing
        else:
            objects[position] = value if array_dtype is None else _array_of(value, array_dtype)
    return pd.Series(objects, dtype=object, copy=False)


def _restore_category(column: pa.ChunkedArray, note: Note) -> pd.Categorical:
    import pandas as pd

    if note.stored is not None:
        table = ipc.decode(base64.b64decode(note.stored, validate=True), None)
        categories = _index(table.column(0), table.schema.field(0))
    else:
        chunks = [chunk for chunk in column.chunks if len(chunk.dictionary)] or column.chunks
        dictionary = chunks[0].dictionary if chunks else pa.array([], column.type.value_type)
        field = noted(pa.field("categories", dictionary.type), note.categories)
        categories = _index(pa.chunked_array([dictionary]), field)
    if note.freq is not None and isinstance(categories, (pd.DatetimeIndex, pd.TimedeltaIndex)):
        categories.freq = note.freq
    return _category(column, categories, note.ordered)


def _category(column: pa.ChunkedArray, categories: pd.Index[Any], ordered: bool) -> pd.Categorical:
    import pandas as pd

    codes = [chunk.indices.cast(pa.int64()).fill_null(-1).to_numpy() for chunk in column.chunks]
    dtype = pd.CategoricalDtype(categories, ordered)
    return pd.Categorical.from_codes(np.concatenate(codes) if codes else [], dtype=dtype)


def category_of(column: pa.ChunkedArray, dictionary: pa.Array) -> pd.Categorical:
    """A column of a dictionary that was not put by pandas."""
    import pandas as pd

    categories = pd.Index(pa.chunked_array([dictionary]).to_pandas())
    return _category(column, categories, column.type.ordered)


def _index(column: pa.ChunkedArray, field: pa.Field) -> pd.Index[Any]:
    import pandas as pd

    note = note_of(field)
    values = object_series(decoded_values(column, field)) if note is None else restore(column, field, note)
    return pd.Index(values, dtype=values.dtype, copy=False)
