"""Segments: a frame's messages as one piece of bytes, an Arrow IPC stream, and back."""

from __future__ import annotations

import functools
import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pqlog.errors import ArgumentError, DecodeError, EncodeError
from pqlog.frames.parse import OBJECTS, json_field, json_texts, python_values, without_pickles
from pqlog.store.api import Row, Segment

ROWS = 65_536
"""Messages in a segment at most: what one reader decodes to get at a single one."""
BYTES = 64 << 20
"""A segment of long values holds fewer messages: what they take in memory stays below this."""

_OPTIONS = pa.ipc.IpcWriteOptions(compression="zstd")
ARROW_DTYPE = "pqlog_arrow_dtype"
"""In pandas' note of a column: that it had an Arrow dtype."""
_CALL, _START = b"pqlog.call", b"pqlog.row"
"""In a segment's schema metadata: of which call's frame it is a part, and the number of its first row there."""


# putting


def segments_of(frame: Any, key: str | None, headers: str | None) -> Iterator[Segment]:
    """The segments of a frame.

    Parameters
    ----------
    frame : pandas.DataFrame, or object with ``__arrow_c_stream__``
        The latter is read as a stream: it need not fit into memory.
    key : str or None
        The field that is each message's key.
    headers : str or None
        JSON text.

    Raises
    ------
    EncodeError
        A column has objects that Arrow has no type for.
    ArgumentError
        There is no field `key`, or the columns' names are not distinct.
    """
    reader = _stream(frame)
    names = reader.schema.names
    if key is not None and key not in names:
        raise ArgumentError(f"key={key!r} is no field of the frame: it has {', '.join(map(repr, names))}")
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ArgumentError(f"the frame has several columns named {', '.join(map(repr, twice))}: rename them")
    call = secrets.token_hex(8).encode()
    start = 0
    for part in _parts(reader):
        metadata = {**(reader.schema.metadata or {}), _CALL: call, _START: b"%d" % start}
        yield Segment(_encoded(part.replace_schema_metadata(metadata)), part.num_rows, key, headers)
        start += part.num_rows


def cut(row: Row, topic: str) -> bytes:
    """The part of a segment that was asked for, as a segment of its own."""
    return _encoded(read(row, topic).replace_schema_metadata(None))


def _encoded(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_OPTIONS) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


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
    return _part(_open, row, topic, wanted)


def _part(open: Callable[[bytes, frozenset[str] | None], pa.Table], row: Row, topic: str, wanted: Any) -> pa.Table:
    try:
        return without_pickles(open(row.value, wanted).slice(row.skip, row.rows))
    except (pa.ArrowException, OSError) as error:
        raise DecodeError(topic, row.offset, f"its segment is damaged: {error}") from error


def _open(value: bytes, columns: frozenset[str] | None) -> pa.Table:
    reader = pa.ipc.open_stream(value)
    if columns is not None:
        which = [i for i, name in enumerate(reader.schema.names) if name in columns]
        if len(which) < len(reader.schema.names):
            if not which:
                which = [0]  # an empty list would mean all
            reader = pa.ipc.open_stream(value, options=pa.ipc.IpcReadOptions(included_fields=which))
    return reader.read_all()


_open_kept = functools.lru_cache(maxsize=2)(_open)
"""For readers of single messages, who ask for the same segment again and again."""


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
    table = _part(_open_kept, row, topic, None)
    keys = None if row.key is None else text_keys(table.column(row.key)).to_pylist()
    names = field_names(table)
    columns = [python_values(column, field) for field, column in zip(table.schema, table.columns, strict=True)]
    fields = list(names.values())
    return keys, [dict(zip(fields, values, strict=True)) for values in zip(*columns, strict=True)]


def text_keys(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A key column as text."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column if pa.types.is_string(column.type) else column.cast(pa.string())
