"""Readers of frames: pyarrow, polars, DuckDB, dask, narwhals' protocol; as streams, live, and latest of each key."""

import datetime

import dask.dataframe
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pqlog
from tests.interrupts import everywhere, moments

ROWS = [{"city": city, "n": n} for n, city in enumerate(["Brno", "Praha", "Brno", "Plzeň"] * 3)]


@pytest.fixture
def sales(log):
    """Twelve messages: some one by one, some as a frame."""
    log.put_many(ROWS[:5], key="city")
    log.put_many(pd.DataFrame(ROWS[5:9]), key="city")
    log.put_many(ROWS[9:], key="city")
    return log


def test_an_arrow_stream_is_read_by_everyone(sales):
    whole = sales.to_arrow()
    assert pa.table(sales).equals(whole)
    assert pa.table(sales[-4:]).num_rows == 4
    assert pl.DataFrame(sales[-4:])["n"].to_list() == [8, 9, 10, 11]
    assert pl.DataFrame(sales).shape == (12, 5)
    assert pd.DataFrame.from_arrow(sales[-4:])["n"].tolist() == [8, 9, 10, 11]
    h = sales.history()  # noqa: F841 - DuckDB finds it by its name
    assert duckdb.sql("SELECT city, sum(n) FROM h GROUP BY city ORDER BY city").fetchall() == [
        ("Brno", 0 + 2 + 4 + 6 + 8 + 10),
        ("Plzeň", 3 + 7 + 11),
        ("Praha", 1 + 5 + 9),
    ]
    assert duckdb.from_arrow(sales[2:5]).aggregate("sum(n)").fetchall() == [(1 + 2 + 3,)]
    con = duckdb.connect()
    con.register("sales", sales)
    assert con.sql("SELECT count(*) FROM sales WHERE _key = 'Brno'").fetchall() == [(6,)]
    assert con.sql("SELECT count(*) FROM sales").fetchall() == [(12,)]  # each query is a fresh stream


def test_batches_of_a_client_are_readable_too(sales):
    seen = []
    for batch in sales.batches("etl", size=5):
        assert pa.table(batch).num_rows == len(batch) == len(batch.to_polars())
        assert batch.head(2).index.tolist() == [batch.first, batch.first + 1]
        seen += batch.to_pandas(["n"])["n"].tolist()
    assert seen == list(range(12))


def test_streams_have_batches_of_the_size_asked_for(sales):
    reader = sales.to_batches(batch_size=5, columns=["n"], metadata=False)
    assert reader.schema.names == ["n"]
    assert [batch.num_rows for batch in reader] == [5, 5, 2]
    assert [len(frame) for frame in sales.chunks(chunksize=7)] == [7, 5]
    with pytest.raises(pqlog.ArgumentError, match="batch_size must be a number"):
        sales.to_batches(batch_size=0)


def test_dictionaries_that_cannot_be_one_stay_several_in_a_stream(log):
    for start in (0, 100):
        texts = [f"text {number}" for number in range(start, start + 100)]
        dictionary = pa.DictionaryArray.from_arrays(pa.array(range(100), pa.int8()), texts)
        log.put_many(pa.table({"c": pa.ListArray.from_arrays(range(101), dictionary)}))
    found = log.to_batches(batch_size=200, metadata=False).read_all()
    assert found["c"].to_pylist() == [[f"text {number}"] for number in range(200)]
    assert log.to_pandas()["c"].tolist() == found["c"].to_pylist()


def test_a_long_stream_reads_the_log_twice_but_keeps_none_of_it(log, monkeypatch):
    monkeypatch.setattr("pqlog.frames.inference_pass.BUFFER_BYTES", 1000)
    log.put_many({"n": n} for n in range(5_000))
    log.put({"n": 0.5})
    assert pa.types.is_floating(log.to_batches().schema.field("n").type)
    frames = list(log.chunks(chunksize=1000))
    assert [len(frame) for frame in frames] == [1000] * 5 + [1]
    assert {str(frame["n"].dtype) for frame in frames} == {"float64"}


def test_head_and_tail(sales):
    assert sales.head()["n"].tolist() == [0, 1, 2, 3, 4]
    assert sales.tail(3)["n"].tolist() == [9, 10, 11]
    assert sales[3:8].tail(2)["n"].tolist() == [5, 6]
    assert sales.history(key="Brno").head(2)["n"].tolist() == [0, 2]
    assert sales.history(key="Brno").tail(2)["n"].tolist() == [8, 10]
    assert sales.history().latest().tail(1)["n"].tolist() == [11]
    assert len(sales.head(0)) == len(sales.tail(0)) == 0
    assert len(sales.head(99)) == len(sales.tail(99)) == 12
    with pytest.raises(pqlog.ArgumentError, match="n must be a number"):
        sales.head(-1)


def test_head_and_tail_follow_from_their_own_messages(log):
    """Their columns and dtypes are those of the same messages read as a range, whatever is next to them."""
    log.put_many([{"a": n} for n in range(5)], key="x")
    log.put_many([{"a": 2.5, "b": 1} for _ in range(5)], key="x")
    log.put_many(pd.DataFrame({"a": [2**60, 3], "s": ["x", "y"], "k": ["x", "y"]}), key="k")
    log.put_many([{"a": "text"}, {"a": 1}], key="x")
    log.put_many([{"a": n} for n in range(3)], key="x")
    whole = log.last
    for n in range(1, whole + 1):
        pd.testing.assert_frame_equal(log.head(n), log[1 : n + 1].to_pandas())
        pd.testing.assert_frame_equal(log.tail(n), log[whole + 1 - n :].to_pandas())
    of = [message.offset for message in log.history(key="x")]
    for n in range(1, len(of) + 1):
        first, last = log.history(key="x", stop=of[n - 1] + 1), log.history(key="x", start=of[-n])
        pd.testing.assert_frame_equal(log.history(key="x").head(n), first.to_pandas())
        pd.testing.assert_frame_equal(log.history(key="x").tail(n), last.to_pandas())
    assert log.head(5)["a"].dtype == "int64"


def test_head_and_tail_of_the_latest_follow_from_their_own_messages(log):
    values = [{"a": 1}, {"a": 2}, {"a": 0.5, "b": 1}, {"a": "text"}, {"a": 3}, {"a": 4}]
    for number, value in enumerate(values):
        log.put(value, key=str(number))
    latest = log.history().latest()
    for n in range(1, 7):
        pd.testing.assert_frame_equal(latest.head(n), log[1 : n + 1].to_pandas())
        pd.testing.assert_frame_equal(latest.tail(n), log[7 - n :].to_pandas())
    assert len(latest.head(0)) == len(latest.tail(0)) == 0


def test_by_key_over_segments_and_messages(sales):
    frame = sales.history(key="Brno").to_pandas()
    assert frame["n"].tolist() == [0, 2, 4, 6, 8, 10]
    assert set(frame["_key"]) == {"Brno"}
    assert len(list(sales.history(key="Brno"))) == 6
    assert len(sales.history(key="Wien").to_pandas()) == 0


KEYS = st.lists(st.tuples(st.sampled_from([None, "a", "b", "c"]), st.booleans()), max_size=15)


@settings(max_examples=100)
@given(KEYS, st.integers(1, 16), st.integers(1, 3))
def test_latest_is_the_last_message_of_each_key(puts, stop, near):
    with pqlog.open(":memory:") as log, pytest.MonkeyPatch.context() as patch:
        patch.setattr("pqlog.frames.latest.MAX_GAP", near)
        newest = {}
        for offset, (key, as_frame) in enumerate(puts, start=1):
            if as_frame:
                log.put_many(pd.DataFrame({"k": [key], "n": [offset]}), key="k")
            else:
                log.put({"k": key, "n": offset}, key=key)
            if key is not None and offset < stop:
                newest[key] = offset
        history = log.history(stop=stop)
        for latest in (history.latest(), history.latest(by="k")):
            assert [message.offset for message in latest] == sorted(newest.values())
            assert latest.to_pandas().index.tolist() == sorted(newest.values())
            assert len(list(latest)) == len(newest)
        if len(history):
            with pytest.raises(pqlog.ArgumentError, match="no message here has a field 'nothing'"):
                list(history.latest(by="nothing"))


def test_live_reads_only_what_is_new(sales, monkeypatch):
    live = sales.live(["n"])
    asked = []
    from pqlog.frames import live as module

    read = module.read_chunks
    monkeypatch.setattr(module, "read_chunks", lambda part, how: asked.append(part.span) or read(part, how))
    assert live.refresh() is live.frame
    sales.put({"n": 0.5})
    assert live.refresh()["n"].tolist() == [*range(12), 0.5]
    assert [tuple(span) for span in asked] == [(13, 14)]
    assert len(live) == 13


@pytest.mark.parametrize("of", ["all", "latest"])
@pytest.mark.parametrize("kind", ["messages", "frame"])
def test_live_drops_what_was_trimmed(log, of, kind):
    def now():
        return log if of == "all" else log.history().latest()

    first = [{"k": "a", "n": 1, "gone": 1}, {"k": "b", "n": 2.5}, {"k": "c", "n": 3}]
    if kind == "frame":
        log.put_many(pd.DataFrame(first), key="k")
    else:
        for value in first:
            log.put(value, key=value["k"])
    live = now().live()
    log.put_many([{"k": "d", "n": 4}, {"k": "d", "n": 5}], key="k")
    live.refresh()
    log.trim(before=3)
    for n in (None, "text", 6):  # at once; with a type that makes each value be what it is; later
        if n is not None:
            log.put({"k": "e", "n": n}, key="e")
        pd.testing.assert_frame_equal(live.refresh(), now().to_pandas())
        assert live.refresh() is live.frame
    log.trim(before=log.last + 1, force=True)
    assert live.refresh().empty
    log.put({"k": "f", "n": 7}, key="f")
    assert live.refresh()["n"].tolist() == [7]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("of", ["all", "latest"])
def test_a_refresh_that_is_interrupted_anywhere_changes_nothing(log, of):
    def now():
        return log if of == "all" else log.history().latest()

    log.put_many([{"k": "a", "n": 2**53 + 1, "m": 1}, {"k": "b", "m": 2}], key="k")  # n is optional: Int64 in pandas
    live, other = now().live(), now().live()
    log.put_many([{"k": "c", "n": 1, "m": 3}, {"k": "a", "n": 2, "m": 4}], key="k")
    before, places = live.frame, moments(other.refresh)
    for where in everywhere(live.refresh, KeyboardInterrupt, step=max(1, places // 200)):
        assert live.frame is before or live.frame.equals(other.frame), where
    pd.testing.assert_frame_equal(live.refresh(), now().to_pandas())
    log.put({"k": "b", "m": 5}, key="b")
    pd.testing.assert_frame_equal(live.refresh(), now().to_pandas())


def test_live_of_a_range_grows_to_its_end(log):
    live = log.history(stop=4).live()
    assert live.frame.empty
    log.put_many({"n": n} for n in range(9))
    assert live.refresh()["n"].tolist() == [0, 1, 2]


def test_dask_reads_ranges_of_offsets(sales, path):
    """The recipe of docs/frames.md."""
    ranges = [(first, first + 5) for first in range(sales.first, sales.last + 1, 5)]

    def read(span):
        return pqlog.read_log(path, columns=["city", "n"], start=span[0], stop=span[1])

    frame = dask.dataframe.from_map(read, ranges)
    assert frame.npartitions == 3
    assert frame.groupby("city")["n"].sum().compute().to_dict() == {"Brno": 30, "Plzeň": 21, "Praha": 15}


def test_read_log_takes_one_call(path, sales):
    frame = pqlog.read_log(path, columns=["n"], since="1h", key="Brno", metadata=False)
    assert frame["n"].tolist() == [0, 2, 4, 6, 8, 10]
    with pytest.raises(pqlog.UnknownTopicError, match="no topic 'sales'"):
        pqlog.read_log(path, "sales")
    with pytest.raises(pqlog.StoreError, match=r"none\.db does not exist: pqlog\.open\(path\) creates a log there"):
        pqlog.read_log(path.parent / "none.db")


@pytest.mark.parametrize(
    "since",
    [
        "1h",
        "2026-01-01",
        datetime.date(2026, 1, 1),
        datetime.datetime(2026, 1, 1),
        pd.Timestamp("2026-01-01", tz="Europe/Prague"),
        pd.Timedelta("1h"),
        datetime.timedelta(hours=1),
    ],
    ids=str,
)
def test_times_of_all_kinds(sales, since):
    assert len(sales.history(since=since)) == 12
    assert len(sales.history(until=since)) == 0


def test_progress_bars_count_messages(sales, tmp_path, capsys):
    sales.to_pandas(progress=True)
    sales.to_parquet(tmp_path / "out", progress=True)
    shown = capsys.readouterr().err
    assert "reading: 100%" in shown
    assert "exporting: 100%" in shown
    assert "12.0/12.0" in shown
    assert "messages/s" in shown
