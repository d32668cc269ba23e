"""Columns of a stretch of a topic, without a Python object per message where that can be."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json

from pqlog.frames import segments
from pqlog.history import Source, stop_of
from pqlog.message import Message, to_micros
from pqlog.store.api import Lines, Span

CHUNK_ROWS = 100_000
CHUNK_BYTES = 64 << 20
_TIME = pa.timestamp("us", tz="UTC")
_EXACT = 2**53


def to_arrow(source: Source, span: Span, key: str | None) -> pa.Table:
    """The messages of a span as one table."""
    pieces = list(_pieces(source, span, key))
    return _unify(pieces) if pieces else pa.table({"offset": pa.array([], pa.int64()), "_time": pa.array([], _TIME)})


def to_pandas(source: Source, span: Span, key: str | None) -> pd.DataFrame:
    """The messages of a span as a frame with the index ``offset``."""
    table = to_arrow(source, span, key)
    frame = table.to_pandas(types_mapper=None, ignore_metadata=True)
    for name, column in zip(table.column_names, table.columns, strict=True):
        if column.null_count and pa.types.is_integer(column.type):
            frame[name] = column.to_pandas(types_mapper={column.type: pd.Int64Dtype()}.get)
        elif column.null_count and pa.types.is_boolean(column.type):
            frame[name] = column.to_pandas(types_mapper={column.type: pd.BooleanDtype()}.get)
    return frame.set_index("offset")


def _pieces(source: Source, span: Span, key: str | None) -> Iterator[pa.Table]:
    while len(span):
        lines = source.engine.read_lines(source.topic, span, CHUNK_ROWS, CHUNK_BYTES) if key is None else None
        if lines is not None:
            piece = _parse(lines)
            if piece is None:
                part = Span(lines.offset, lines.offset + lines.rows)
                piece = _one_by_one(list(source.messages(source.rows(part))))
            yield piece
            span = Span(lines.offset + lines.rows, span.stop)
            continue
        rows = source.engine.read(source.topic, span, 1 if key is None else CHUNK_ROWS, CHUNK_BYTES, key)
        if not rows:
            return
        for row in rows:
            if row.rows is None or key is not None:
                messages = list(source.messages([row], key))
                if messages:
                    yield _one_by_one(messages)
            else:
                yield _segment(source, row)
        span = Span(stop_of(rows[-1]), span.stop)


def _segment(source: Source, row: Any) -> pa.Table:
    fields = segments.read(row, source.topic.name)
    count = fields.num_rows
    head: dict[str, Any] = {
        "offset": pa.array(range(row.offset, row.offset + count), pa.int64()),
        "_time": pa.repeat(pa.scalar(row.time, _TIME), count),
    }
    if row.key is not None:
        head["_key"] = segments.text_keys(fields.column(row.key))
    for name in fields.column_names:
        head.setdefault(name, fields.column(name))
    return pa.table(head)


def _parse(lines: Lines) -> pa.Table | None:
    """A run of JSON objects by pyarrow's parser; None where that could change a value."""
    if not lines.values.startswith(b"{"):
        return None
    size = len(lines.values) + 1
    read = pa.json.ReadOptions(block_size=size, use_threads=False)
    try:
        fields = pa.json.read_json(io.BytesIO(lines.values), read_options=read)
        times = [field.name for field in fields.schema if pa.types.is_timestamp(field.type)]
        if times:
            schema = pa.schema([(name, pa.string()) for name in times])
            options = pa.json.ParseOptions(explicit_schema=schema)
            fields = pa.json.read_json(io.BytesIO(lines.values), read_options=read, parse_options=options)
    except pa.ArrowInvalid:
        return None
    if fields.num_rows != lines.rows or len(set(fields.column_names)) != fields.num_columns:
        return None
    for column in fields.columns:
        if pa.types.is_nested(column.type) or pa.types.is_timestamp(column.type):
            return None
        if pa.types.is_floating(column.type) and (pc.max(pc.abs(column)).as_py() or 0) >= _EXACT:
            return None
    if {"offset", "_time", "_key"} & set(fields.column_names):
        return None
    head: dict[str, Any] = {"offset": pa.array(range(lines.offset, lines.offset + lines.rows), pa.int64())}
    head["_time"] = _times(lines)
    if lines.keys is not None:
        head["_key"] = pa.array(msgspec.json.Decoder(str | None).decode_lines(lines.keys), pa.string())
    return pa.table({**head, **dict(zip(fields.column_names, fields.columns, strict=True))})


def _times(lines: Lines) -> Any:
    if b"\n" not in lines.times:
        return pa.repeat(pa.scalar(int(lines.times), _TIME), lines.rows)
    read = pa.csv.ReadOptions(column_names=["t"], use_threads=False)
    return pa.csv.read_csv(io.BytesIO(lines.times), read_options=read).column("t").cast(_TIME)


def _one_by_one(messages: Sequence[Message]) -> pa.Table:
    """Decoded messages as a table; what has no type of its own is JSON text."""
    head: dict[str, Any] = {
        "offset": pa.array([m.offset for m in messages], pa.int64()),
        "_time": pa.array([to_micros(m.time) for m in messages], pa.int64()).cast(_TIME),
    }
    if any(m.key is not None for m in messages):
        head["_key"] = pa.array([m.key for m in messages], pa.string())
    values = [m.value if isinstance(m.value, dict) else {"value": m.value} for m in messages]
    names = dict.fromkeys(str(name) for value in values for name in value)
    for name in names:
        target = f"{name}_" if name in ("offset", "_time", "_key") else name
        head[target] = _array([value.get(name) for value in values])
    return pa.table(head)


def _array(values: list[Any]) -> pa.Array:
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) <= 1 and not kinds & {dict, list, tuple}:
        try:
            return pa.array(values)
        except (pa.ArrowException, OverflowError):
            pass
    return pa.array([None if v is None else msgspec.json.encode(v).decode() for v in values], pa.string())


def _unify(pieces: list[pa.Table]) -> pa.Table:
    if len(pieces) == 1:
        return pieces[0]
    try:
        return pa.concat_tables(pieces, promote_options="default")
    except pa.ArrowException:
        return pa.concat_tables(pieces, promote_options="permissive")
