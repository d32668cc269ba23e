"""What is read is what was put, by every route, whatever a frame holds; or the put says what cannot be kept.

The contract is in routes.py, the frames come from strategies.py. Each kind of pandas column and
each Arrow type is also searched by itself, so that rare ones are not left to chance.
"""

import warnings

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import strategies as st

import pqlog
from tests.frames import routes
from tests.frames.search import search, shares
from tests.frames.strategies import (
    KINDS,
    LEAVES,
    MOST_ROWS,
    POLARS,
    arrow_tables,
    column,
    pandas_frames,
    pick,
    polars_frames,
)

PLACES = st.integers(0, MOST_ROWS - 1), st.none() | st.integers(1, MOST_ROWS)
MESSAGE = pick([1, "x", {"c0": 1}, {"c0": 0.5}, {"c0": "x"}, {"c0": None}, {"c0": [1]}, {"c0": {"a": 1}}, {"other": 1}])


@pytest.fixture
def log_in_memory():
    """One log for many examples: opening one takes longer than putting a small frame."""
    with pqlog.open(":memory:") as log:
        yield log


def part(start, stop):
    """Some of the rows: at least one, if there are any."""
    return (start, None if stop is None else start + stop)


def frame_of(kind, rows):
    return st.builds(lambda cells: pd.DataFrame({"c0": cells}), column(kind, rows))


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_of_column_is_the_same_by_every_route(name):
    def check(frame, start, neighbour):
        assert routes.pandas_problems(frame, start % len(frame), None, neighbour) == []

    frames = st.integers(1, 4).flatmap(lambda rows: frame_of(KINDS[name], rows))
    search(check, frames, PLACES[0], st.none() | MESSAGE, fast=1, long=10)


def check_frame(frame, start, stop):
    start, stop = part(min(start, max(0, len(frame) - 1)), stop)
    assert routes.pandas_problems(frame, start, stop) == []


@shares(2)
def test_a_frame_of_pandas_is_the_same_by_every_route(share):
    search(check_frame, pandas_frames(), *PLACES, fast=60, long=400, share=share)


@shares(8)
def test_a_frame_of_pandas_comes_back_as_it_was_put(log_in_memory, share):
    """Only the cheapest routes, so that a long search can try more frames."""

    def check(frame, start, stop):
        start, stop = part(min(start, max(0, len(frame) - 1)), stop)
        assert routes.as_put_problems(log_in_memory, frame, start, stop) == []

    search(check, pandas_frames(), *PLACES, fast=100, long=2_500, share=share)


def check_neighbours(frame, neighbour):
    assert routes.pandas_problems(frame, neighbour=neighbour) == []


@shares(2)
def test_beside_a_neighbour_each_value_stays_what_it_is(share):
    neighbours = pandas_frames(plain=True) | arrow_tables(plain=True) | MESSAGE
    search(check_neighbours, pandas_frames(plain=True), neighbours, fast=30, long=500, share=share)


@pytest.mark.parametrize("type_", LEAVES, ids=str)
def test_each_type_of_arrow_is_the_same_by_every_route(type_):
    def check(table, neighbour):
        assert routes.arrow_problems(table, neighbour=neighbour) == []

    search(check, arrow_tables(st.just(type_)), st.none() | MESSAGE, fast=1, long=20)


def check_table(table, start, stop):
    start, stop = part(min(start, max(0, len(table) - 1)), stop)
    assert routes.arrow_problems(table, start, stop) == []


@shares(2)
def test_a_table_of_arrow_is_the_same_by_every_route(share):
    search(check_table, arrow_tables(), *PLACES, fast=60, long=500, share=share)


@pytest.mark.parametrize("name", POLARS)
def test_each_type_of_polars_is_the_same_by_every_route(name):
    def check(frame, start):
        assert routes.polars_problems(frame, start % max(1, len(frame))) == []

    search(check, polars_frames([name]), PLACES[0], fast=1, long=20)


def check_polars(frame, start, stop):
    start, stop = part(min(start, max(0, len(frame) - 1)), stop)
    assert routes.polars_problems(frame, start, stop) == []


@shares(1)
def test_a_frame_of_polars_is_the_same_by_every_route(share):
    search(check_polars, polars_frames(), *PLACES, fast=30, long=300, share=share)


def check_parquet(frame):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert routes.parquet_problems(frame) == []


@shares(1)
def test_parquet_holds_it_or_names_the_column(share):
    search(check_parquet, pandas_frames() | arrow_tables(), fast=30, long=500, share=share)


def test_subclasses_of_frames_are_frames(log):
    class Mine(pd.DataFrame):
        @property
        def _constructor(self):
            return Mine

    Mine.__module__ = "elsewhere"
    frame = Mine({"a": [1, 2]}, index=["x", "y"])
    log.put_many(frame)
    assert routes.difference(pd.DataFrame(frame), log.to_pandas(metadata=False)) is None


def test_a_stream_is_the_same_as_its_table(log):
    table = pa.table({"n": [1, 2, 3], "s": pa.array(["a", None, "c"]).dictionary_encode()})
    log.put_many(table.to_reader(max_chunksize=1))
    assert routes.table_difference(table.unify_dictionaries(), log.to_arrow(metadata=False)) is None


def test_what_is_refused_leaves_nothing_behind(log):
    log.put_many(pd.DataFrame({"a": [1]}))
    with pytest.raises(pqlog.Error, match="'b'"):
        log.put_many(pd.DataFrame({"a": [1], "b": [object()]}))
    assert [message.value for message in log] == [{"a": 1}]
