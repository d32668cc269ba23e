"""`scan()`: a LazyFrame that gives what the whole frame gives, and reads only what a query needs."""

import datetime as dt
from unittest import mock

import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import pqlog
from pqlog.frames import reading, segments
from pqlog.readable import selection_of
from pqlog.store.sqlite import sealing

c = pl.col
QUERIES = [
    lambda f: f,
    lambda f: f.select("ms"),
    lambda f: f.select("level", "offset"),
    lambda f: f.select(pl.len()),
    lambda f: f.head(3),
    lambda f: f.slice(10, 5),
    lambda f: f.tail(4),
    lambda f: f.filter(c("ms") > 300),
    lambda f: f.filter(c("ms") > c("ms").mean()),
    lambda f: f.filter(c("ms").cum_sum() > 100).head(3),
    lambda f: f.filter(c("ms") > 300).select(pl.len()),
    lambda f: f.filter(c("ms") > 300).head(5),
    lambda f: f.head(40).filter(c("ms") > 300),
    lambda f: f.filter(c("level").str.contains("rr") & (c("offset") < 9)).select("o"),
    lambda f: f.filter(c("level").is_null() | c("level").is_in(["info"])),
    lambda f: f.filter(c("_time") > dt.datetime(2020, 1, 1, tzinfo=dt.UTC)).select(c("ms").max()),
    lambda f: f.filter(c("_time") < dt.datetime(2020, 1, 1, tzinfo=dt.UTC)),
    lambda f: f.filter(c("o").str.json_path_match("$.x") == "7"),
    lambda f: f.group_by("level").agg(c("ms").sum()).sort("level"),
    lambda f: f.sort("ms", descending=True).head(2),
    lambda f: f.with_row_index().filter(c("index") > 90),
    lambda f: f.join(f.select("ms", other="offset"), on="ms").sort("ms"),
]


@pytest.fixture(params=["values", "sealed", "partitions", "frames"])
def log(request):
    log = pqlog.open(":memory:").topic("t", partitions=3 if request.param == "partitions" else 1)
    levels = ["error", "info", None]
    values = [{"ms": n * 10, "level": levels[n % 3], "o": {"x": n}} for n in range(100)]
    for at in range(0, 100, 25):
        part = values[at : at + 25]
        log.put_many(pd.DataFrame(part).assign(o="{}") if request.param == "frames" else part, key="level")
        if request.param == "sealed" and at < 75:
            with mock.patch.object(sealing, "LEAST", 1):
                log.seal(before=at + 20)
    return log


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_has_the_result_that_it_has_on_the_whole_frame(log, query):
    assert_frame_equal(query(log.scan()).collect(), query(log.to_polars().lazy()).collect())


def test_it_takes_the_options_of_a_frame(log):
    options = {"metadata": ["key", "offset"], "flatten": True}
    assert_frame_equal(log.scan(**options).collect(), log.to_polars(**options))
    assert log.scan(["ms"], metadata=False).collect_schema() == {"ms": pl.Int64}
    if "o.x" in log.to_polars(**options).columns:
        found = log.scan(**options).filter(c("o.x") > 97).select("o.x").collect()["o.x"]
        assert sorted(found) == [98, 99]


def test_it_is_of_a_history_too(log):
    history = log.history(where="ms >= 500", key="error")
    assert_frame_equal(history.scan().filter(c("ms") < 700).collect(), history.to_polars().filter(c("ms") < 700))
    assert history.latest().scan().select("ms").collect()["ms"].to_list() == [990]


def test_it_is_of_the_range_of_now(log):
    scan = log.scan()
    log.put_many([{"ms": "text"}])
    assert scan.select(pl.len()).collect().item() == 100
    assert scan.collect()["ms"].dtype == pl.Int64
    assert log.scan().select(pl.len()).collect().item() == 101


NUMBERS = st.sampled_from([0, 1, -1, 2**53, 2**53 + 1, 0.5, -0.0, 2.0**53, 1e300, float("nan")])
EXPRESSIONS = st.recursive(
    st.builds(
        lambda name, method, value: getattr(c(name), method)(value),
        st.sampled_from(["a", "b", "offset"]),
        st.sampled_from(["gt", "ge", "lt", "le", "eq", "ne", "eq_missing"]),
        NUMBERS,
    )
    | st.sampled_from(["a", "b"]).map(lambda name: c(name).is_null())
    | st.tuples(st.sampled_from(["a", "b"]), NUMBERS, NUMBERS).map(lambda p: c(p[0]).is_between(p[1], p[2])),
    lambda inner: (
        inner.map(lambda e: ~e)
        | st.tuples(inner, inner).map(lambda p: p[0] & p[1])
        | st.tuples(inner, inner).map(lambda p: p[0] | p[1])
    ),
    max_leaves=4,
)


@given(st.lists(st.tuples(st.none() | NUMBERS, st.none() | NUMBERS), min_size=1, max_size=20), EXPRESSIONS)
def test_any_filter_gives_what_it_gives_on_the_frame(rows, expression):
    log = pqlog.open(":memory:")
    for at in range(0, len(rows), 5):
        log.put_many(pd.DataFrame(rows[at : at + 5], columns=["a", "b"], dtype="float64"))
    wanted = log.to_polars().filter(expression)
    assert_frame_equal(log.scan().filter(expression).collect(), wanted)
    assert log.history(where=expression).to_arrow(columns=[])["offset"].to_pylist() == wanted["offset"].to_list()


@pytest.fixture
def read(monkeypatch):
    """The fields of segments that are read, and the spans."""
    found = []
    original, chunks = segments.read, reading.column_blocks
    monkeypatch.setattr(
        segments, "read", lambda row, name, columns: found.append(columns) or original(row, name, columns)
    )
    monkeypatch.setattr(
        reading, "column_blocks", lambda s, span, *a, **k: found.append(tuple(span)) or chunks(s, span, *a, **k)
    )
    return found


def test_only_the_columns_that_a_query_needs_are_read(read):
    log = pqlog.open(":memory:")
    log.put_many(pd.DataFrame({"a": range(10), "b": range(10), "d": range(10)}))
    scan = log.scan()
    scan.collect_schema()
    read.clear()
    assert scan.filter(c("a") > 3).select(c("b").sum()).collect().item() == 39
    assert read == [(1, 11), {"a"}, {"a", "b"}]  # the others only where some match
    read.clear()
    assert scan.filter(c("a") > 30).select(c("b").sum()).collect().item() == 0
    assert read == [(1, 11), {"a"}]


def test_only_the_range_that_a_query_needs_is_read(read):
    log = pqlog.open(":memory:")
    log.put_many({"n": n} for n in range(1000))
    scan = log.scan()
    scan.collect_schema()
    time = log[-1].time
    for query, wanted in [
        (scan.filter(c("offset") > 990), (991, 1001)),
        (scan.filter((c("offset") <= 10) & (c("n") > 3)), (1, 11)),
        (scan.head(7), (1, 8)),
    ]:
        read.clear()
        query.collect()
        assert read == [wanted]
    read.clear()
    assert scan.filter(c("_time") > time).collect().height == 0
    assert read == []


def test_a_trim_of_partitions_is_an_error_and_never_other_messages(tmp_path):
    log = pqlog.open(tmp_path / "events.db").topic("t", partitions=2)
    for n in range(10):
        log.put({"n": n}, key=str(n))
    scan = log.scan()
    assert scan.collect().height == 10
    log.partition(0).trim(before=3)
    with pytest.raises((pqlog.TrimmedError, pl.exceptions.PolarsError), match="trimmed"):
        scan.collect()
    assert log.scan().collect().height == len(log)


def test_a_selection_of_now_may_be_read_after_a_trim(tmp_path):
    log = pqlog.open(tmp_path / "events.db")
    log.put_many({"n": n} for n in range(10))
    scan = log.scan()
    log.trim(before=6)
    assert scan.collect()["n"].to_list() == [5, 6, 7, 8, 9]
    assert selection_of(log).span.first == 6
