"""The columns of pandas as columns of Arrow, each with a note by which exactly the same column is made again.

Arrow's type says what a value is, and the note, in the metadata of the field, what pandas had it as: the dtype, and
what stands for a missing value. Whether the same comes back is not taken for granted: `pack_objects` looks at every
object, and the segment of a frame is read again before it is put.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import numpy as np
import pyarrow as pa

from pqlog.errors import EncodeError
from pqlog.frames import parse, stream

if TYPE_CHECKING:
    import pandas as pd

NOTE = b"pqlog.pandas"
"""In the metadata of a field."""
ARROW = "arrow"
"""The dtype, in a note, of all Arrow dtypes: which one it is, the field says."""
OBJECT = "object"
CATEGORY = "category"


class Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """What pandas had a column as.

    Attributes
    ----------
    dtype : str
        Its name; ``"arrow"`` for every Arrow dtype.
    storage : str, optional
        Of pandas' own text dtypes.
    missing : {"nan", "NA", "NaT"}, optional
        What stands for null among objects; None if it is None.
    array : str, optional
        The NumPy dtype of objects that are arrays.
    unit : str, optional
        That of objects that are pandas' Timestamps or Timedeltas.
    ordered : bool
        Of a category.
    categories : Note, optional
        Of a category: what the index of its categories is.
    stored : str, optional
        Categories for which Arrow's dictionary has only their text: an Arrow stream, in base64.
    """

    dtype: str
    storage: str | None = None
    missing: str | None = None
    array: str | None = None
    unit: str | None = None
    ordered: bool = False
    categories: Note | None = None
    stored: str | None = None

    @property
    def is_opaque(self) -> bool:
        """Whether Arrow gives other values than pandas for such a column."""
        return self.stored is not None or self.unit is not None or self.dtype.startswith(("period[", "interval["))


FRAME = b"pqlog.frame"
"""In a schema's metadata: a `FrameNote`."""


class Level(msgspec.Struct, omit_defaults=True):
    """A level of an index: a column of the table, a range, or a range that is a column as well, since it has a name.

    Attributes
    ----------
    field : str, optional
        The column.
    start, step : int, optional
        The range.
    freq : str, optional
        pandas' frequency of times.
    """

    field: str | None = None
    start: int = 0
    step: int | None = None
    freq: str | None = None


class FrameNote(msgspec.Struct, omit_defaults=True):
    """What a pandas frame has beside its columns.

    Attributes
    ----------
    columns : int
        How many columns of the table are columns of the frame; the first ones.
    levels : list of Level
        Its index.
    names : list
        Those of the levels, each None or what JSON holds.
    is_multi : bool
        Whether the index is a MultiIndex.
    name : object
        That of the labels.
    labels : str, optional
        The labels, unless they are the names of the columns: an Arrow stream, in base64.
    freq : str, optional
        pandas' frequency of labels that are times.
    attrs : dict
        What the frame's owner noted.
    """

    columns: int
    levels: list[Level]
    names: list[Any]
    is_multi: bool = False
    name: Any = None
    labels: str | None = None
    freq: str | None = None
    attrs: dict[str, Any] = {}


def frame_note_of(schema: pa.Schema) -> FrameNote | None:
    """What a schema says of the frame that it was; None if that was not of pandas."""
    text = (schema.metadata or {}).get(FRAME)
    return None if text is None else msgspec.json.decode(text, type=FrameNote)


def note_of(field: pa.Field) -> Note | None:
    """The note of a field; None if it was not put by pandas.

    Raises
    ------
    msgspec.ValidationError
        There is one, of another form than ours.
    """
    text = (field.metadata or {}).get(NOTE)
    return None if text is None else msgspec.json.decode(text, type=Note)


def noted(field: pa.Field, note: Note | None) -> pa.Field:
    """A field with this note."""
    metadata = {key: text for key, text in (field.metadata or {}).items() if key != NOTE}
    if note is not None:
        metadata[NOTE] = msgspec.json.encode(note)
    return field.with_metadata(metadata or None)


# to Arrow


def pack(values: pd.Series[Any] | pd.Index[Any], name: str) -> tuple[pa.Field, pa.Array]:
    """A column as a field of this name and its array.

    Raises
    ------
    EncodeError
        It would not come back as it is.
    """
    import pandas as pd

    dtype = values.dtype
    if dtype == parse.OBJECTS:
        return pack_objects(values.tolist(), name)
    if isinstance(dtype, pd.CategoricalDtype):
        return _pack_category(values.array, name)
    try:
        array = _in_one(pa.array(pd.Series(values, copy=False), from_pandas=True))
    except Exception as error:  # an extension dtype may raise anything
        raise _refused(name, dtype, f"Arrow does not hold it: {error}") from error
    if isinstance(dtype, pd.ArrowDtype):
        note = Note(ARROW)
    elif isinstance(dtype, pd.StringDtype):
        note = Note(str(dtype), storage=dtype.storage)
    else:
        note = Note(str(dtype))
    return noted(pa.field(name, array.type), note), array


def _in_one(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(array, pa.ChunkedArray):
        return array.chunk(0) if array.num_chunks == 1 else pa.concat_arrays(array.chunks or [pa.array([], array.type)])
    return array


def _refused(name: str, dtype: Any, reason: str) -> EncodeError:
    return EncodeError(f"column {name!r} ({dtype}): {reason}", value_type="DataFrame", codec="arrow")


def _pack_category(values: pd.Categorical, name: str) -> tuple[pa.Field, pa.Array]:
    field, categories = pack(values.categories, name)
    note = note_of(field)
    stored = None
    if parse.mark(field) is not None or note is None or note.is_opaque or not stream.is_plain(categories.type):
        table = pa.Table.from_arrays([categories], schema=pa.schema([field.with_name("categories")]))
        stored = base64.b64encode(stream.encode(table)).decode()
        labels = [str(category) for category in values.categories]
        if len(set(labels)) < len(labels):
            labels = [repr(category) for category in values.categories]
        categories, note = pa.array(labels, pa.string()), None
    codes = pa.array(values.codes, mask=values.codes < 0)
    array = pa.DictionaryArray.from_arrays(codes, categories, ordered=bool(values.ordered))
    of = Note(CATEGORY, ordered=bool(values.ordered), categories=note, stored=stored)
    return noted(pa.field(name, array.type), of), array


# objects

_PLAIN = frozenset({str, bool, int, float, list, dict})
"""What JSON holds."""
_GUESSABLE = frozenset({str, bytes, bool, int, float, Decimal, date, datetime, time, timedelta, UUID, type(None)})
"""What Arrow's guess of a type is asked for: of some others, NumPy's times among numbers, it kills the process."""


def pack_objects(values: Sequence[Any], name: str) -> tuple[pa.Field, pa.Array]:
    """Python objects as a field of this name and its array: as Arrow's type for them, or as JSON text.

    Raises
    ------
    EncodeError
        Neither gives exactly the same objects back.
    """
    if set(map(type, values)) <= {np.ndarray, type(None)} and any(value is not None for value in values):
        return _pack_arrays(values, name)
    plain, missing = _without_missing([plain_of(value) for value in values], name)
    boxed = _pack_boxed(plain, missing, name)
    if boxed is not None:
        return boxed
    note = Note(OBJECT, missing=missing)
    kinds = {type(value) for value in plain} - {type(None)}
    if kinds == {str}:
        try:
            return noted(pa.field(name, pa.string()), note), pa.array(plain, pa.string())
        except ValueError as error:  # a surrogate
            raise _refused(name, OBJECT, f"{error}") from error
    is_json = kinds <= _PLAIN and (len(kinds) > 1 or not kinds.isdisjoint((list, dict)))
    ways = (_as_json, _as_arrow) if is_json else (_as_arrow, _as_json)
    for way in ways:
        found = way(name, plain)
        if found is not None and first_change(plain, _back(*found)) is None:
            return noted(found[0], note), found[1]
    raise _refused(name, OBJECT, _said(name, plain))


def _pack_arrays(values: Sequence[Any], name: str) -> tuple[pa.Field, pa.Array]:
    """Arrays of one dimension, as `pandas.read_parquet` gives lists."""
    dtypes = {str(value.dtype) for value in values if value is not None}
    (dtype, *others) = dtypes
    if others or any(value is not None and value.ndim != 1 for value in values):
        raise _refused(name, OBJECT, "it has arrays of several dtypes, or of several dimensions: make them lists")
    if dtype == "object" or np.dtype(dtype).kind not in "biuf":
        lists = [None if value is None else [plain_of(one) for one in value.tolist()] for value in values]
        field, array = pack_objects(lists, name)
        if dtype != "object":
            raise _refused(name, OBJECT, f"it has arrays of {dtype}: make them lists")
    else:
        array = _in_one(pa.array(values, pa.list_(pa.from_numpy_dtype(np.dtype(dtype)))))
        field = pa.field(name, array.type)
    return noted(field, Note(OBJECT, array=dtype)), array


def plain_of(value: Any) -> Any:
    """A scalar of NumPy as Python's, which is the same; any other object as it is."""
    return value.item() if isinstance(value, np.generic) and value.dtype.kind in "biufUS" else value


def _back(field: pa.Field, array: pa.Array) -> list[Any]:
    """What becomes of objects; all of it None where Python has no value for one of them."""
    try:
        return _values(field, array)
    except (OverflowError, ValueError):
        return [None] * len(array)


def _values(field: pa.Field, array: pa.Array) -> list[Any]:
    return parse.python_values(pa.chunked_array([array]), field)


def _said(name: str, values: Sequence[Any]) -> str:
    """Why objects cannot be kept."""
    said = "it has values that Arrow has no common type for, and JSON does not hold"
    found = _as_arrow(name, values)
    if found is not None:
        back = _back(*found)
        at = first_change(values, back)
        if at is not None:
            said = f"row {at}, {_short(values[at])}, would come back as {_short(back[at])}"
    else:
        kinds = sorted({type(value).__name__ for value in values} - {"NoneType"})
        said += f" ({', '.join(kinds)})"
    return f"{said}. Convert that column, or put frame.to_dict('records') into a topic with another codec"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _without_missing(values: list[Any], name: str) -> tuple[list[Any], str | None]:
    """The values with None for what is missing, and what stood for it, if that was something else."""
    import pandas as pd

    markers = {"NA" if value is pd.NA else "NaT" for value in values if value is pd.NA or value is pd.NaT}
    if any(value is None for value in values):
        markers.add("None")
    if any(type(value) is float and value != value for value in values):
        markers.add("nan")
    if len(markers) > 1:
        raise _refused(
            name,
            OBJECT,
            f"it has {' and '.join(sorted(markers))} for what is missing, and one is kept only: "
            f"frame[{name!r}] = frame[{name!r}].where(frame[{name!r}].notna(), None) makes all of them None",
        )
    if not markers or markers == {"None"}:
        return values, None
    (marker,) = markers
    if marker == "nan":
        return [None if type(value) is float and value != value else value for value in values], marker
    gone = pd.NA if marker == "NA" else pd.NaT
    return [None if value is gone else value for value in values], marker


def _as_json(name: str, values: Sequence[Any]) -> tuple[pa.Field, pa.Array] | None:
    column = parse.json_texts(values)
    return None if column is None else (parse.json_field(name), column)


def _pack_boxed(values: Sequence[Any], missing: str | None, name: str) -> tuple[pa.Field, pa.Array] | None:
    """pandas' Timestamps or Timedeltas, which have a unit of their own."""
    import pandas as pd

    kinds = {type(value) for value in values} - {type(None)}
    if kinds not in ({pd.Timestamp}, {pd.Timedelta}):
        return None
    found = [value for value in values if value is not None]
    units, zones = {value.unit for value in found}, {str(getattr(value, "tz", None)) for value in found}
    if len(units) > 1 or len(zones) > 1:
        raise _refused(name, OBJECT, "it has times of several units or zones: convert it with pandas.to_datetime")
    unit = units.pop()
    array = _in_one(pa.array(pd.Series([pd.NaT if value is None else value for value in values]).dt.as_unit(unit)))
    return noted(pa.field(name, array.type), Note(OBJECT, missing=missing, unit=unit)), array


def _as_arrow(name: str, values: Sequence[Any]) -> tuple[pa.Field, pa.Array] | None:
    if not all(map(_is_guessable, values)):
        return None
    try:
        array = _in_one(pa.array(values, from_pandas=False))
    except Exception:  # an object may be anything, and raise anything
        return None
    return pa.field(name, array.type), array


def _is_guessable(value: Any) -> bool:
    kind = type(value)
    if kind in (list, tuple, set):
        return all(map(_is_guessable, value))
    if kind is dict:
        return all(type(key) is str for key in value) and all(map(_is_guessable, value.values()))
    return kind in _GUESSABLE


def first_change(values: Sequence[Any], back: Sequence[Any]) -> int | None:
    """The first place where two sequences of objects of one length do not have the same; None if there is none."""
    pairs = enumerate(zip(values, back, strict=True))
    return next((at for at, (one, other) in pairs if not parse.same(one, other)), None)


# and back


def python_values(column: pa.ChunkedArray, field: pa.Field) -> list[Any]:
    """The values of a column as Python objects; what is missing as None."""
    note = note_of(field)
    if note is None or not note.is_opaque:
        return parse.python_values(column, field)
    import pandas as pd

    if note.unit is not None:
        values = column.to_pandas()
    elif note.stored is not None:
        coded = _restore_category(column, note)
        categories = coded.categories.tolist()
        return [None if code < 0 else categories[code] for code in coded.codes]
    else:
        values = pd.Series(restore(column, field, note), copy=False)
    return [None if gone else value for value, gone in zip(values.tolist(), values.isna(), strict=True)]


def restore(column: pa.ChunkedArray, field: pa.Field, note: Note, holes: bool = False) -> Any:
    """The array of pandas or NumPy, or the Series, that was a column.

    With `holes` an integer column is nullable, whether or not a value is missing here.
    """
    import pandas as pd

    if note.dtype == ARROW:
        return pd.arrays.ArrowExtensionArray(column)
    if note.dtype == OBJECT:
        return objects(python_values(column, field), note)
    if note.dtype == CATEGORY:
        return _restore_category(column, note)
    if note.storage is not None:
        missing = np.nan if note.dtype == "str" else pd.NA
        dtype: Any = pd.StringDtype(note.storage, na_value=missing)
    else:
        dtype = pd.api.types.pandas_dtype(note.dtype)
    if (holes or column.null_count) and isinstance(dtype, np.dtype) and dtype.kind in "iub":
        dtype = pd.api.types.pandas_dtype("boolean" if dtype.kind == "b" else nullable(column.type))
    if not isinstance(dtype, np.dtype):
        if column.null_count == len(column) and isinstance(dtype, pd.IntervalDtype):
            return pd.array([np.nan] * len(column), dtype)  # of nothing but nulls pandas makes another dtype
        return dtype.__from_arrow__(column)
    if dtype.kind not in "biufmM":  # of a file from anybody: a text may take any memory
        raise ValueError(f"no column has the dtype {note.dtype:.40}")
    return column.to_numpy().astype(dtype, copy=False)


def _array_of(values: Sequence[Any], of: np.dtype[Any]) -> Any:
    array = np.empty(len(values), of)
    if len(values):
        array[:] = values
    return array


def nullable(of: pa.DataType) -> str:
    """The name of pandas' dtype for integers of a type some of which are missing."""
    return f"{'U' if pa.types.is_unsigned_integer(of) else ''}Int{of.bit_width}"


def objects(values: Sequence[Any], note: Note | None = None) -> Any:
    """A column of Python objects, which neither NumPy nor pandas shall make anything else of."""
    import pandas as pd

    gone, of = None, None
    if note is not None:
        gone = {None: None, "nan": np.nan, "NA": pd.NA, "NaT": pd.NaT}[note.missing]
        of = None if note.array is None else np.dtype(note.array)
        if of is not None and of.kind not in "biufO":
            raise ValueError(f"no array has the dtype {note.array:.40}")
    array = np.empty(len(values), dtype=object)
    for position, value in enumerate(values):  # one by one: NumPy would make a matrix of lists of one length
        array[position] = gone if value is None else value if of is None else _array_of(value, of)
    return pd.Series(array, dtype=object, copy=False)


def _restore_category(column: pa.ChunkedArray, note: Note) -> pd.Categorical:

    if note.stored is not None:
        table = stream.decode(base64.b64decode(note.stored, validate=True), None)
        categories = _index(table.column(0), table.schema.field(0))
    else:
        chunks = [chunk for chunk in column.chunks if len(chunk.dictionary)] or column.chunks
        dictionary = chunks[0].dictionary if chunks else pa.array([], column.type.value_type)
        field = noted(pa.field("categories", dictionary.type), note.categories)
        categories = _index(pa.chunked_array([dictionary]), field)
    return _category(column, categories, note.ordered)


def _category(column: pa.ChunkedArray, categories: pd.Index[Any], ordered: bool) -> pd.Categorical:
    import pandas as pd

    codes = [chunk.indices.cast(pa.int64()).fill_null(-1).to_numpy() for chunk in column.chunks]
    dtype = pd.CategoricalDtype(categories, ordered)
    return pd.Categorical.from_codes(np.concatenate(codes) if codes else [], dtype=dtype)


def category_of(column: pa.ChunkedArray, dictionary: pa.Array) -> pd.Categorical:
    """A column of a dictionary that pandas did not put."""
    import pandas as pd

    categories = pd.Index(pa.chunked_array([dictionary]).to_pandas())
    return _category(column, categories, column.type.ordered)


def _index(column: pa.ChunkedArray, field: pa.Field) -> pd.Index[Any]:
    import pandas as pd

    note = note_of(field)
    values = objects(parse.python_values(column, field)) if note is None else restore(column, field, note)
    return pd.Index(values, dtype=values.dtype, copy=False)
