"""One place for types: how messages fall into puts, frames, segments and chunks changes no type and no value."""

import contextlib
import json
from typing import Any, NamedTuple
from unittest import mock

import msgspec
import pandas as pd
import pyarrow as pa
from hypothesis import strategies as st

import pqlog
from pqlog.frames import writer
from pqlog.frames.conform import conform
from pqlog.frames.inference import SchemaInference
from pqlog.frames.representable import check_representable
from tests.frames.compare import difference, schema_difference, table_difference
from tests.frames.compare import same as identical
from tests.frames.search import search, shares
from tests.frames.strategies import KINDS, LEAVES, TEXT, arrow_columns, arrow_tables, pandas_frames, pick
from tests.frames.test_values import cell, chunks_of, same

# Few names and kinds of values, so that they collide.
NUMBERS = pick([0, 1, -1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, 2**63, 2**64, -(2**70)])
FRACTIONS = pick([0.5, -0.0, 1.0, 1e300, 2.0**53, 5e-324])
SCALARS = st.one_of(NUMBERS, FRACTIONS, TEXT, st.none(), st.booleans())
VALUES = st.one_of(
    NUMBERS, FRACTIONS, SCALARS, st.lists(SCALARS, max_size=2), st.dictionaries(pick("ab"), SCALARS, max_size=2)
)
OBJECTS = st.dictionaries(pick(["a", "b", "offset"]), VALUES, max_size=3)
MESSAGES = st.lists(st.one_of(OBJECTS, OBJECTS, OBJECTS, VALUES), min_size=1, max_size=8)
# A column of a frame has the name of a field of the messages.
FRAMED = [
    "int64",
    "int8",
    "uint64",
    "Int64",
    "float32",
    "float64",
    "Float64",
    "bool",
    "boolean",
    "str",
    "string",
    "datetime64[s]",
    "datetime64[ns]",
    "datetime64[us, UTC]",
    "timedelta64[ns]",
    "category of str",
    "category of str, ordered",
    "category of int64",
    "objects: ints",
    "objects: huge ints",
    "objects: mixed",
    "objects: JSON",
    "objects: missing",
    "objects: ints and floats",
    "objects: decimals, exponents",
    "objects: dates",
    "objects: moments of all kinds",
    "objects: dicts",
    "int64[pyarrow]",
    "string[pyarrow]",
    "dictionary<values=string, indices=int8, ordered=0>[pyarrow]",
    "list<item: int64>[pyarrow]",
]
assert set(FRAMED) <= set(KINDS)


@st.composite
def sequences(draw: Any) -> list[Any]:
    """Messages and frames, one after the other."""
    parts: list[Any] = []
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            frame = draw(pandas_frames(FRAMED, plain=True))
            frame.columns = draw(st.permutations(["a", "b", "offset"]))[: frame.shape[1]]
            parts.append(frame)
        else:
            parts += draw(MESSAGES)
    return parts


class Split(NamedTuple):
    """How a sequence is split when it is put and read."""

    cuts: list[bool]
    """For each message, whether a put_many call ends after it."""
    segment_rows: int
    chunk_rows: int


WHOLE = Split([False], 65_536, 100_000)
SPLITS = st.builds(Split, st.lists(st.booleans(), min_size=1, max_size=6), st.integers(1, 3), st.integers(1, 4))


@contextlib.contextmanager
def reading(split: Split):
    with chunks_of(split.chunk_rows), mock.patch.object(writer, "SEGMENT_ROWS", split.segment_rows):
        yield


def put(log: Any, parts: list[Any], split: Split) -> bool:
    """Put a sequence in these splits; False if a part is refused."""
    number, waiting = 0, []

    def cut() -> bool:
        nonlocal number
        number += 1
        return split.cuts[number % len(split.cuts)]

    def flush() -> None:
        if len(waiting) == 1:
            log.put(waiting[0])
        elif waiting:
            log.put_many(waiting)
        waiting.clear()

    try:
        for part in parts:
            if not isinstance(part, pd.DataFrame):
                waiting.append(part)
                if cut():
                    flush()
                continue
            flush()
            start = 0
            for stop in range(1, len(part) + 1):
                if stop == len(part) or cut():
                    log.put_many(part.iloc[start:stop])
                    start = stop
        flush()
    except pqlog.Error:
        return False
    return True


def read(log: Any, rows: int) -> tuple[Any, Any, Any, Any, Any]:
    """The result of all routes that have types, without the times of the puts."""
    table = log.to_arrow().drop_columns("_time")
    frame = log.to_pandas().drop(columns="_time").reset_index()
    stream = log.to_batches(batch_size=rows)
    assert schema_difference(log.to_arrow().schema, stream.schema) is None
    chunks = [chunk.drop(columns="_time").reset_index() for chunk in log.chunks(chunksize=rows)]
    return table, frame, stream.read_all().drop_columns("_time"), chunks, list(log.history().values())


def check_split(parts: list[Any], split: Split) -> None:
    with pqlog.open(":memory:") as whole, pqlog.open(":memory:") as log:
        with reading(WHOLE):
            if not put(whole, parts, WHOLE):
                return
            expected = read(whole, 1000)
        with reading(split):
            assert put(log, parts, split)
            problem = split_problem(expected, read(log, split.chunk_rows))
    assert problem is None, problem


def split_problem(expected: Any, found: Any) -> str | None:
    """How two readings differ; all routes of the second agree."""
    table, frame, *_, values = expected
    other, framed, stream, chunks, rows = found
    problem = table_difference(table, other)
    if problem is not None:
        return f"Arrow: {problem}"
    problem = table_difference(other, stream)
    if problem is not None:
        return f"the stream: {problem}"
    if not identical(values, rows):
        return f"rows {values} became {rows}"
    problem = difference(frame, framed)
    if problem is not None:
        return f"pandas: {problem}"
    start = 0
    for chunk in chunks:
        problem = difference(framed.iloc[start : start + len(chunk)].reset_index(drop=True), chunk)
        if problem is not None:
            return f"the chunk at {start}: {problem}"
        start += len(chunk)
    return None if start == len(frame) else f"{len(frame)} rows became {start} in chunks"


@shares(1)
def test_how_messages_and_frames_are_split_changes_nothing(share):
    search(check_split, sequences(), SPLITS, fast=25, long=500, share=share)


def check_messages(messages: list[Any], split: Split) -> None:
    """If there are only messages, the value of each cell is known."""
    check_split(messages, split)
    with pqlog.open(":memory:") as log, reading(split):
        assert put(log, messages, split)
        plain = [json.loads(msgspec.json.encode(message)) for message in messages]
        found = log.to_pandas(metadata=False)
        rows = [message if isinstance(message, dict) else {"value": message} for message in plain]
        assert list(found.columns) == list(dict.fromkeys(name for row in rows for name in row))
        for name in found.columns:
            doubles = str(found[name].dtype) == "float64"
            for row, got in zip(rows, found[name], strict=True):
                assert same(row.get(name), cell(got), doubles), (name, row, got, found.dtypes)


@shares(1)
def test_how_messages_are_split_changes_nothing(share):
    search(check_messages, MESSAGES, SPLITS, fast=25, long=300, share=share)


@shares(4)
def test_the_types_of_messages_do_not_depend_on_how_they_are_read(share):
    """The same with the cheapest routes alone, in one log."""

    def check(messages, split):
        first = (log.last or 0) + 1
        assert put(log, messages, split)
        history = log[first:]
        table = history.to_arrow().drop_columns("_time")
        with reading(split):
            again = log[first:].to_batches(batch_size=split.segment_rows).read_all().drop_columns("_time")
        assert table_difference(table, again) is None
        assert identical(list(history.values()), [json.loads(msgspec.json.encode(message)) for message in messages])

    with pqlog.open(":memory:") as log:
        search(check, MESSAGES, SPLITS, fast=50, long=2_500, share=share)


def check_tables(tables: list[Any], split: Split) -> None:
    """Consecutive Arrow tables: cut anywhere, they are read as one."""
    with pqlog.open(":memory:") as whole, pqlog.open(":memory:") as log:
        try:
            for table in tables:
                whole.put_many(table)
        except pqlog.Error:
            return
        with reading(split):
            for table in tables:
                for start in range(0, len(table), split.chunk_rows):
                    log.put_many(table.slice(start, split.chunk_rows))
            one, other = (one.to_arrow().drop_columns("_time") for one in (whole, log))
            assert table_difference(one, other) is None
            assert identical(list(whole.history().values()), list(log.history().values()))
            assert table_difference(other, log.to_batches(batch_size=2).read_all().drop_columns("_time")) is None
            frames = [one.to_pandas().drop(columns="_time") for one in (whole, log)]
            assert list(frames[0].dtypes) == list(frames[1].dtypes)


@shares(1)
def test_how_tables_are_split_changes_nothing(share):
    tables = st.lists(arrow_tables(plain=True), min_size=1, max_size=2)
    search(check_tables, tables, SPLITS, fast=30, long=700, share=share)


# The chunks of a column: nested ones are left to the searches above.
COLUMNS = st.lists(st.sampled_from(LEAVES).flatmap(lambda type_: arrow_columns(type_, 2)), min_size=2, max_size=3)


def check_pieces(columns: list[Any]) -> None:
    """However a column is divided into chunks, and in whatever order: one type, and the same values in it."""
    whole = [pa.table({"c": column}) for column in columns]
    try:
        for table in whole:
            check_representable(table.column(0), table.schema.field(0))
    except Exception:  # no put takes it
        return
    rows = [table.slice(number, 1) for table in whole for number in range(len(table))]
    found = []
    for chunks in (whole, rows, whole[::-1]):
        inference = SchemaInference()
        for chunk in chunks:
            inference.add(chunk)
        found.append(inference.schema())
    assert schema_difference(found[0], found[1]) is None
    assert found[0].types == found[2].types
    one, other = (pa.concat_tables(conform(chunk, found[0]) for chunk in chunks) for chunks in (whole, rows))
    assert table_difference(one, other) is None


@shares(6)
def test_the_type_of_a_column_does_not_depend_on_its_pieces(share):
    search(check_pieces, COLUMNS, fast=100, long=4_200, share=share)
