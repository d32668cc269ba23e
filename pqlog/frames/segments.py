"""Segments: a frame's messages as one piece of bytes, an Arrow IPC stream, and back."""

from __future__ import annotations

import contextlib
import functools
import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa

from pqlog.errors import ArgumentError, DecodeError, EncodeError, Error, StoreError
from pqlog.frames import keys, stream
from pqlog.frames.parse import OBJECTS, json_field, json_texts, python_values, without_pickles
from pqlog.keys import ID, KEY, RefusedError
from pqlog.store.api import Row, Segment

ROWS = stream.MOST_ROWS
"""Messages in a segment at most: what one reader decodes to get at a single one."""
BYTES = 64 << 20
"""A segment of long values holds fewer messages: what they take in memory stays below this."""

ARROW_DTYPE = "pqlog_arrow_dtype"
"""In pandas' note of a column: that it had an Arrow dtype."""
_CALL, _START = b"pqlog.call", b"pqlog.row"
"""In a segment's schema metadata: of which call's frame it is a part, and the number of its first row there."""


# putting


def segments_of(
    frame: Any, key: str | None, headers: str | None, ids: str | None = None
) -> Iterator[tuple[Segment, list[str] | None]]:
    """The segments of a frame, each with the ids of its messages, if they have any.

    Parameters
    ----------
    frame : pandas.DataFrame, or object with ``__arrow_c_stream__``
        The latter is read as a stream: it need not fit into memory.
    key : str or None
        The field that is each message's key.
    headers : str or None
        JSON text.
    ids : str, optional
        The field that is each message's id.

    Raises
    ------
    EncodeError
        A column has objects that Arrow has no type for; or the field `key` has values that are no keys, `ids` such
        that are no ids.
    ArgumentError
        There is no field `key` or `ids`, or the columns' names are not distinct.
    """
    reader = _stream(frame)
    names = reader.schema.names
    for what, name in (("key", key), ("ids", ids)):
        if name is not None:
            _check_named(what, name, names, frame)
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ArgumentError(f"the frame has several columns named {', '.join(map(repr, twice))}: rename them")
    call = secrets.token_hex(8).encode()
    start = 0
    for part in _parts(reader):
        if key is not None:
            _texts(part, key, KEY, start)
        texts = None if ids is None else _texts(part, ids, ID, start).to_pylist()
        first = start
        for value, rows in _encoded(part, call, start):
            at = start - first
            yield Segment(value, rows, key, headers), None if texts is None else texts[at : at + rows]
            start += rows


def _check_named(what: str, name: str, names: Sequence[str], frame: Any) -> None:
    """Raise unless a frame has the field that is to be the key."""
    if name in names:
        return
    if name in getattr(getattr(frame, "index", None), "names", ()):
        raise ArgumentError(f"{name!r} is the frame's index, a range, which is no field: put frame.reset_index()")
    raise ArgumentError(f"{what}={name!r} is no field of the frame: it has {', '.join(map(repr, names))}")


def _texts(part: pa.Table, name: str, what: str, start: int) -> pa.ChunkedArray:
    """The keys of a part whose first row is row `start` of its frame; raises where a value is none."""
    index = part.schema.get_field_index(name)
    try:
        return keys.texts(part.column(index), part.schema.field(index), what)
    except RefusedError as error:
        raise error.encode_error("arrow", start) from None


def thin(segment: Segment, mask: bytes | None, start: int) -> Iterator[Segment]:
    """A segment without some of its messages, as if the frame had been filtered before it was put.

    Parameters
    ----------
    mask : bytes or None
        1 for each that stays; None if all do, while other segments of the same frame lose some.
    start : int
        How many messages of the segments before stay.
    """
    table = _with_index(stream.decode(segment.value, None, segment.rows))
    if mask is not None:
        table = _only(table, [index for index, stays in enumerate(mask) if stays])
    for value, rows in _encoded(table, (table.schema.metadata or {})[_CALL], start):
        yield Segment(value, rows, segment.key, segment.headers)
        start += rows


def _only(table: pa.Table, rows: Sequence[int]) -> pa.Table:
    """Some rows of a table."""
    try:
        return table.take(pa.array(rows, pa.int64()))
    except pa.ArrowNotImplementedError:  # unions, say: one by one
        return pa.concat_tables([table.slice(row, 1) for row in rows]).combine_chunks()


def _with_index(table: pa.Table) -> pa.Table:
    """A table of pandas whose index is a column, if it was a range: of which some will be missing."""
    metadata = table.schema.metadata or {}
    if b"pandas" not in metadata:
        return table
    notes = json.loads(metadata[b"pandas"])
    for number, index in enumerate(notes["index_columns"]):
        if isinstance(index, dict):
            first = index["start"] + int(metadata[_START]) * index["step"]
            values = range(first, first + table.num_rows * index["step"], index["step"])
            name = f"__index_level_{number}__" if index["name"] is None else index["name"]
            table = table.append_column(name, pa.array(values, pa.int64()))
            notes["index_columns"][number] = name
            int64 = {"pandas_type": "int64", "numpy_type": "int64", "metadata": None}
            notes["columns"].append({"name": index["name"], "field_name": name, **int64})
    return table.replace_schema_metadata({**metadata, b"pandas": json.dumps(notes).encode()})


def _encoded(part: pa.Table, call: bytes, start: int) -> Iterator[tuple[bytes, int]]:
    """A part of a call's frame as one segment, or as several where one would be too large to be read again."""
    metadata = {**(part.schema.metadata or {}), _CALL: call, _START: b"%d" % start}
    try:
        value = stream.encode(part.replace_schema_metadata(metadata))
    except stream.TooLargeError as error:
        if part.num_rows == 1:
            raise EncodeError(f"row {start}: {error}; split it", value_type="frame", codec="arrow") from error
        half = part.num_rows // 2
        yield from _encoded(part.slice(0, half), call, start)
        yield from _encoded(part.slice(half), call, start + half)
    else:
        yield value, part.num_rows


def cut(row: Row, topic: str) -> bytes:
    """The part of a segment that was asked for, as a segment of its own."""
    return stream.encode(read(row, topic).replace_schema_metadata(None))


def _stream(frame: Any) -> pa.RecordBatchReader:
    kind = f"{type(frame).__module__.partition('.')[0]}.{type(frame).__name__}"
    if hasattr(frame, "to_frame"):  # a Series, or an Index
        raise ArgumentError(
            f"a {kind} is one column: put_many(column.to_frame()) keeps it as a frame with its type, "
            f"put_many(list(column)) puts its values, a message each"
        )
    if isinstance(frame, (pa.Array, pa.ChunkedArray)):
        raise ArgumentError(
            f"a {kind} is one column: put_many(pyarrow.table({{'name': column}})) keeps it as a frame with its type, "
            f"put_many(column.to_pylist()) puts its values, a message each"
        )
    if hasattr(frame, "collect") and hasattr(frame, "lazy"):
        frame = frame.collect()
        return _stream(frame)
    if kind.startswith("pandas."):
        return _from_pandas(frame).to_reader()
    if isinstance(frame, pa.RecordBatch):
        return pa.Table.from_batches([frame]).to_reader()
    try:
        return pa.RecordBatchReader.from_stream(frame)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise ArgumentError(
            f"put_many takes frames and iterables of values, and this {kind} is neither: {error}"
        ) from error


def _parts(reader: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """What a reader gives, in tables of a segment's size."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in reader:
        most = max(1, min(ROWS, batch.num_rows * BYTES // max(1, batch.nbytes)))
        for first in range(0, batch.num_rows, most):
            part = batch.slice(first, most)
            if rows and rows + part.num_rows > most:
                yield pa.Table.from_batches(waiting).combine_chunks()
                waiting, rows = [], 0
            waiting.append(part)
            rows += part.num_rows
    if rows:
        yield pa.Table.from_batches(waiting).combine_chunks()


def _from_pandas(frame: Any) -> pa.Table:
    if frame.columns.nlevels > 1:
        raise ArgumentError("the frame has columns of several levels: flatten their names first")
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()].unique().tolist()
        raise ArgumentError(f"the frame has several columns named {', '.join(map(repr, twice))}: rename them")
    sparse = [name for name, dtype in frame.dtypes.items() if hasattr(dtype, "fill_value")]
    if sparse:
        raise ArgumentError(
            f"the frame has sparse columns, which Arrow does not keep: {', '.join(map(repr, sparse))}. Put them dense, "
            f"with frame.astype({{name: frame[name].dtype.subtype for name in ...}})"
        )
    texts: dict[int, pa.Array] = {}
    plain = frame
    for position, dtype in enumerate(frame.dtypes):
        text = _json_column(frame.iloc[:, position]) if dtype == OBJECTS else None
        if text is not None:
            if plain is frame:
                plain = frame.copy(deep=False)
            plain.isetitem(position, None)  # keeps its place, and its dtype in the metadata
            texts[position] = text
    try:
        table = pa.Table.from_pandas(plain)
    except Exception as error:  # an object in a cell may be anything, and raise anything
        reason = f"{_culprit(plain)}: {error}. Convert that column, or put frame.to_dict('records')"
        raise EncodeError(reason, value_type="DataFrame", codec="arrow") from error
    for position, text in texts.items():
        table = table.set_column(position, json_field(table.schema.names[position]), text)
    return _with_arrow_dtypes(table, frame)


def _with_arrow_dtypes(table: pa.Table, frame: Any) -> pa.Table:
    """Note which columns had one of pandas' Arrow dtypes: by its name alone, Arrow's text is taken for pandas'."""
    import pandas as pd

    which = [position for position, dtype in enumerate(frame.dtypes) if isinstance(dtype, pd.ArrowDtype)]
    if not which:
        return table
    notes = json.loads(table.schema.metadata[b"pandas"])
    for position in which:
        notes["columns"][position][ARROW_DTYPE] = True
    return table.replace_schema_metadata({**table.schema.metadata, b"pandas": json.dumps(notes).encode()})


def _json_column(column: Any) -> pa.Array | None:
    """Objects such as lists, dicts and mixed values as JSON text, if that gives exactly the same objects back.

    Arrow would give lists back as arrays, and dicts with each other's keys; and it has no type for mixed values.
    """
    values = column.tolist()
    kinds = {type(value) for value in values} - {type(None)}
    if not kinds or kinds == {str} or not kinds <= {str, bool, int, float, list, dict}:
        return None
    return json_texts(values)


def _culprit(frame: Any) -> str:
    """Which column it is that Arrow cannot take."""
    for name in frame.columns:
        try:
            pa.array(frame[name], from_pandas=True)
        except Exception:
            return f"column {name!r}"
    return "the index"


# getting


@dataclass(frozen=True, slots=True)
class Origin:
    """Of which call's frame a table is a part."""

    call: bytes
    start: int
    """The number of its first row there."""


def read(row: Row, topic: str, columns: frozenset[str] | None = None) -> pa.Table:
    """The part of a segment that was asked for; of its columns those, if given."""
    wanted = None if columns is None else columns | ({row.key} if row.key is not None else set())
    with told(topic, row.offset):
        return _part(stream.decode, row, wanted)


def _part(decode: Callable[[bytes, frozenset[str] | None, int], pa.Table], row: Row, wanted: Any) -> pa.Table:
    table = decode(row.value, wanted, row.whole or 0)
    if row.key is not None and row.key not in table.schema.names:
        raise ValueError(f"it has no field {row.key!r}, which is to be the key")
    _check_metadata(table.schema.metadata or {})
    return without_pickles(table.slice(row.skip, row.rows))


_decode_kept = functools.lru_cache(maxsize=2)(stream.decode)
"""For readers of single messages, who ask for the same segment again and again."""


@contextlib.contextmanager
def told(topic: str, offset: int) -> Iterator[None]:
    """Whatever is raised by what a segment holds, as an error of ours: it may come from anybody."""
    try:
        yield
    except Error:
        raise
    except MemoryError as error:
        raise StoreError(f"there is not enough memory for the segment at offset {offset} of topic {topic!r}") from error
    except Exception as error:  # Arrow, pandas and NumPy raise anything
        raise DecodeError(topic, offset, f"its segment is damaged: {type(error).__name__}: {error}") from error


def _check_metadata(metadata: Mapping[bytes, bytes]) -> None:
    """Raise if the notes on a table are of another form than those of `segments_of`."""
    if _CALL in metadata and not metadata[_START].isdigit():
        raise ValueError("its place in a frame is no number")
    if b"pandas" in metadata:
        msgspec.json.decode(metadata[b"pandas"], type=_Notes)


class _Range(msgspec.Struct):
    start: int
    stop: int
    step: int


class _Note(msgspec.Struct):
    field_name: str | None
    pandas_type: str
    numpy_type: str


class _Notes(msgspec.Struct):
    """What is used of pandas' notes: https://pandas.pydata.org/docs/development/developer.html."""

    index_columns: list[str | _Range]
    columns: list[_Note]


def origin(table: pa.Table, row: Row) -> Origin | None:
    """Where a table that was read from `row` comes from."""
    metadata = table.schema.metadata or {}
    if _CALL not in metadata:
        return None
    return Origin(metadata[_CALL], int(metadata[_START]) + row.skip)


def field_names(table: pa.Table) -> dict[str, str]:
    """The columns of a segment, and the names of the fields that they are: an index without a name is ``index``."""
    names: dict[str, str] = {}
    for name in table.schema.names:
        level = name.removeprefix("__index_level_").removesuffix("__")
        plain = name
        if name != level and level.isdigit():
            plain = "index" if level == "0" else f"index_{level}"
            while plain in table.schema.names or plain in names.values():
                plain += "_"
        names[name] = plain
    return names


def unpack(row: Row, topic: str) -> tuple[Sequence[str | None] | None, Sequence[Any]]:
    """The keys (None if it has none) and the values, as dicts, of a segment's part."""
    with told(topic, row.offset):
        table = _part(_decode_kept, row, None)
        texts = key_texts(table, row)
        names = field_names(table)
        columns = [python_values(column, field) for field, column in zip(table.schema, table.columns, strict=True)]
        fields = list(names.values())
        found = None if texts is None else texts.to_pylist()
        return found, [dict(zip(fields, values, strict=True)) for values in zip(*columns, strict=True)]


def key_texts(table: pa.Table, row: Row) -> pa.ChunkedArray | None:
    """The keys of a table that was read from `row`; None if it has none."""
    if row.key is None:
        return None
    index = table.schema.get_field_index(row.key)
    return keys.texts(table.column(index), table.schema.field(index), KEY)
