"""The options of a reading do what they say, however chunks fall: columns, metadata, parse_dates, flatten, latest."""

import contextlib
import datetime
import decimal
import math
import warnings
from unittest import mock

import duckdb
import msgspec
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import pqlog
from pqlog.frames import parse, prefetch

ROUTES = {
    "to_pandas": lambda source, folder, **how: source.to_pandas(**how),
    "to_arrow": lambda source, folder, **how: source.to_arrow(**how),
    "to_polars": lambda source, folder, **how: source.to_polars(**how),
    "to_batches": lambda source, folder, **how: source.to_batches(**how),
    "chunks": lambda source, folder, **how: next(source.chunks(**how)),
    "to_parquet": lambda source, folder, **how: source.to_parquet(folder / "dataset", **how),
}


@contextlib.contextmanager
def chunks_of(rows):
    """Ranges are read, and types inferred, in chunks of this few messages."""
    with (
        mock.patch.object(prefetch, "READ_ROWS", rows),
        mock.patch.object(parse, "SAMPLE_ROWS", max(1, rows // 2)),
        mock.patch.object(parse, "DECODED_ROWS", rows),
    ):
        yield


# columns


@pytest.fixture(params=["messages", "frame", "msgpack"])
def cities(log, request):
    """Messages with a field that only some have, and one that is always null."""
    rows = [{"city": "Brno", "amount": 1, "note": None}, {"city": "Praha", "amount": 2, "note": None}]
    if request.param == "frame":
        log.put_many(pa.table({"city": ["Brno", "Praha"], "amount": [1, 2], "note": pa.nulls(2)}))
        log.put_many(pa.table({"late": [1]}))
        return log
    topic = log.topic("packed", codec="msgpack") if request.param == "msgpack" else log
    topic.put_many([*rows, {"late": 1}])
    return topic


@pytest.mark.parametrize("route", ROUTES)
def test_a_name_that_no_message_has_is_an_error_that_says_which_was_meant(cities, tmp_path, route):
    read = ROUTES[route]
    for how in ({"columns": ["amount", "citty"]}, {"parse_dates": ["citty"]}, {"columns": ["citty"], "flatten": True}):
        with pytest.raises(pqlog.ArgumentError, match=r"no message here has a field 'citty': did you mean 'city'\?"):
            read(cities, tmp_path, **how)
    with pytest.raises(pqlog.ArgumentError, match="'x': there are 'city', 'amount', 'note', 'late'"):
        read(cities.history(), tmp_path, columns=["x"])
    assert not (tmp_path / "dataset").exists()


def test_names_of_fields_may_be_any_iterable_and_nothing_else(cities, tmp_path):
    for how in ({"columns": 5}, {"parse_dates": True}, {"parse_dates": None}, {"columns": "city"}, {"columns": [1]}):
        with pytest.raises(pqlog.ArgumentError, match="must be a list of the names of fields, not"):
            cities.to_pandas(**how)
    with pytest.raises(pqlog.ArgumentError, match="partition_by must be a list of the names of fields, not None"):
        cities.to_parquet(tmp_path / "out", partition_by=None)
    cities.put({"at": "2026-01-01"})
    found = cities.to_pandas((name for name in ("city", "at")), parse_dates=(name for name in ("at",)))
    assert list(found) == ["_time", "city", "at"]
    assert found["at"].iloc[-1] == pd.Timestamp("2026-01-01", tz="UTC")


@pytest.mark.parametrize("route", ROUTES)
def test_a_field_that_some_message_has_is_no_error(cities, tmp_path, route):
    ROUTES[route](cities, tmp_path, columns=["late", "note", "city"])
    with pytest.raises(pqlog.ArgumentError, match="has a field 'late'"):
        ROUTES[route](cities[:3], tmp_path, columns=["late"])
    with pytest.raises(pqlog.ArgumentError, match="parse_dates names the field 'city', which columns leaves out"):
        ROUTES[route](cities, tmp_path, columns=["note"], parse_dates=["city"])


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
def test_what_is_unknown_does_not_depend_on_pieces(rows):
    with pqlog.open(":memory:") as log, chunks_of(rows):
        log.put_many([{"a": n} for n in range(9)] + [{"a": 1, "always null": None}])
        assert log.to_arrow(["always null"], metadata=False).column(0).null_count == 10
        for _ in range(2):  # the second time, the stream's schema is known
            with pytest.raises(pqlog.ArgumentError, match="no message here has a field 'b'"):
                log.to_batches(columns=["b"])
            assert log.to_batches(columns=["always null"]).read_all().num_rows == 10
        with pytest.raises(pqlog.ArgumentError, match="no message here has a field 'always null'"):
            log[:10].to_arrow(["always null"])


def test_without_any_message_no_name_is_unknown(log):
    assert log.to_pandas(["n", "m"]).shape == (0, 3)
    assert log.to_arrow(["n"], metadata=False).schema.names == ["n"]
    assert log.history(key="nobody").to_pandas(["n"], metadata=False).columns.tolist() == ["n"]
    assert log.to_arrow(["at"], parse_dates=["at"], metadata=False).schema.field("at").type == pa.timestamp("us", "UTC")
    log.put({"n": 1}, key="a")
    assert len(log[5:].to_polars(["m"])) == 0
    assert len(log.history(key="nobody").to_polars(["m"])) == 0


def test_unknown_among_more_fields_than_make_a_table(log):
    log.put_many([{f"n{n}": 0} for n in range(6000)])
    assert log.to_arrow(["n5999"], metadata=False).column(0).null_count == 5999
    with pytest.raises(pqlog.ArgumentError, match=r"no message here has a field 'm': there are 'n0', .*4,992 more"):
        log.to_arrow(["m"])


class Sale(msgspec.Struct):
    city: str
    note: str | None = None


def test_fields_of_a_topic_with_a_type_are_those_of_its_json(log):
    topic = log.topic("sales", type=Sale)
    topic.put(Sale("Brno"))
    assert topic.to_arrow(["note"], metadata=False).to_pylist() == [{"note": None}]
    with pytest.raises(pqlog.ArgumentError, match="did you mean 'note'"):
        topic.to_arrow(["notes"])


def test_a_batch_without_an_optional_field_has_nulls(log):
    log.put_many([{"a": 1}, {"a": 2, "maybe": "x"}, {"a": 3}])
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for batch in log.batches("etl", size=1):
            found += batch.to_pandas(["a", "maybe"], parse_dates=[], metadata=False)["maybe"].tolist()
            assert batch.to_batches(columns=["maybe"], metadata=False).read_all().num_rows == 1
    assert found == [None, "x", None]


def test_a_batch_warns_of_a_name_that_looks_wrong(log):
    log.put({"amount": 1})
    batch = log.client("etl").next_batch()
    with pytest.warns(UserWarning, match="no message here has a field 'amuont': did you mean 'amount'"):
        assert batch.to_arrow(["amuont"], metadata=False).to_pylist() == [{"amuont": None}]


def test_a_live_frame_waits_for_a_field(log):
    live = log.live(["maybe"])
    assert live.frame.columns.tolist() == ["_time", "maybe"]
    log.put({"a": 1})
    assert live.refresh()["maybe"].tolist() == [None]
    log.put({"maybe": 2})
    assert live.refresh()["maybe"].tolist() == [pd.NA, 2]
    with pytest.warns(UserWarning, match="did you mean 'maybe'"):
        log.live(["mabye"])


def test_head_of_a_key_reads_no_further(log):
    log.put_many({"n": n} for n in range(30_000))
    log.put({"n": -1}, key="a")
    log.put_many({"n": n} for n in range(30_000))
    with mock.patch.object(log.store.__class__, "read_lines", side_effect=AssertionError):
        assert log.history(key="a").head(1)["n"].tolist() == [-1]


# metadata


def test_metadata_names_what_comes_beside_the_fields(log):
    log.put({"n": 1}, key="a", headers={"source": "till-3", "ř": ""})
    log.put_many(pd.DataFrame({"n": [2, 3]}), headers={"source": "file"})
    log.put({"n": 4})
    headers = [{"source": "till-3", "ř": ""}, {"source": "file"}, {"source": "file"}, None]
    frame = log.to_pandas(metadata=["offset", "time", "key", "headers"])
    assert frame.index.name == "offset"
    assert frame.columns.tolist() == ["_time", "_key", "_headers", "n"]
    assert frame["_headers"].tolist() == headers
    assert [dict(message.headers) or None for message in log] == headers
    assert log.to_pandas().columns.tolist() == log.to_pandas(metadata=True).columns.tolist() == ["_time", "_key", "n"]
    assert log.to_pandas(metadata=["headers"], columns=["n"]).to_dict("list") == {
        "_headers": headers,
        "n": [1, 2, 3, 4],
    }
    assert log.to_pandas(metadata=["key", "offset"]).columns.tolist() == ["_key", "n"]
    assert log.to_pandas(metadata=[]).equals(log.to_pandas(metadata=False))
    assert log[2:].to_pandas(metadata=["key"])["_key"].isna().all()  # asked for by name, so there
    for backend in ("pyarrow", "numpy_nullable"):
        assert log.to_pandas(metadata=["headers"], dtype_backend=backend)["_headers"].tolist() == headers
    parts = log.chunks(chunksize=3, metadata=["headers"])
    assert [part["_headers"].tolist() for part in parts] == [headers[:3], headers[3:]]


def test_headers_in_arrow_polars_duckdb_and_of_a_key(log):
    for n in range(5):
        log.put({"n": n}, key="even" if n % 2 == 0 else "odd", headers={"n": str(n)} if n else None)
    log.put_many(pd.DataFrame({"n": [5, 6], "k": ["odd", "even"]}), key="k", headers={"n": "frame"})
    table = log.to_arrow(metadata=["headers", "offset"])
    assert table.schema.names == ["_headers", "offset", "n", "k"]
    assert table.schema.field("_headers").type == pa.map_(pa.string(), pa.string())
    assert table.column("_headers").to_pylist()[:2] == [None, [("n", "1")]]
    assert log.to_batches(batch_size=2, metadata=["headers", "offset"]).read_all().equals(table)
    assert log.to_polars(metadata=["headers"])["_headers"].is_null().to_list() == [True] + [False] * 6
    found = table  # noqa: F841 - DuckDB finds it by its name
    assert duckdb.sql("SELECT _headers['n'] FROM found").fetchall()[1] == ("1",)
    odd = log.history(key="odd").to_pandas(metadata=["headers"])
    assert odd["_headers"].tolist() == [{"n": "1"}, {"n": "3"}, {"n": "frame"}]
    newest = log.history().latest().to_pandas(metadata=["headers", "key"])
    assert newest["_headers"].tolist() == [{"n": "frame"}] * 2


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_headers_stay_with_their_messages_in_small_pieces(rows):
    with pqlog.open(":memory:") as log, chunks_of(rows):
        for n in range(9):
            log.put({"n": n if n % 3 else "text"}, headers={"n": str(n)})
        assert [row["_headers"]["n"] for row in log.to_pandas(metadata=["headers"]).to_dict("records")] == list(
            "012345678"
        )


def test_the_key_is_a_column_if_a_message_has_one(log):
    log.put_many(pd.DataFrame({"n": [1, 2], "k": [None, "a"]}), key="k")
    log.put_many([{"n": 3}, {"n": 4}])
    assert [log[stop - 1 : stop].to_arrow().schema.names[2] for stop in (2, 3, 4)] == ["n", "_key", "n"]
    assert log.to_arrow().column("_key").to_pylist() == [None, "a", None, None]


def test_a_field_has_its_own_name_where_the_other_is_not_asked_for(log):
    log.put({"offset": 5, "_headers": 6})
    assert log.to_arrow(metadata=["time"]).schema.names == ["_time", "offset", "_headers"]
    assert log.to_arrow(metadata=["headers"]).schema.names == ["_headers", "offset", "_headers_"]
    assert log.to_arrow().schema.names == ["offset", "_time", "offset_", "_headers"]


def test_metadata_has_no_other_names(log):
    with pytest.raises(pqlog.ArgumentError, match="metadata has no 'header': did you mean 'headers'"):
        log.to_pandas(metadata=["header"])
    with pytest.raises(pqlog.ArgumentError, match="did you mean 'key'"):
        log.to_arrow(metadata=["_key"])
    with pytest.raises(pqlog.ArgumentError, match="there are"):
        log.to_polars(metadata=["whatever"])
    with pytest.raises(pqlog.ArgumentError, match="twice"):
        log.to_polars(metadata=["key", "key"])
    with pytest.raises(pqlog.ArgumentError, match="a list of names"):
        log.to_batches(metadata="key")


# parse_dates

FINE = ["2026-01-01T00:00:00.123456789+00:00", "2026-01-01T00:00:00.1234567Z", "2026-01-01 01:00:00.000000001"]


def test_times_keep_their_nanoseconds(log):
    log.put_many({"t": t} for t in FINE)
    assert log.to_arrow(parse_dates=["t"]).schema.field("t").type == pa.timestamp("ns", "UTC")
    found = log.to_pandas(parse_dates=["t"], metadata=False)["t"]
    assert found.tolist() == [pd.Timestamp(t) for t in (*FINE[:2], FINE[2] + "Z")]
    assert log.to_polars(parse_dates=["t"])["t"].dtype == pl.Datetime("ns", "UTC")


@pytest.mark.parametrize("rows", [1, 2, 100])
@pytest.mark.parametrize("as_frame", [False, True])
def test_the_unit_of_times_does_not_depend_on_pieces(rows, as_frame):
    texts = ["2026-01-01T00:00:00Z", None, "2026-01-01", FINE[0], "2026-01-01T00:00:00.5Z"]
    for values, unit in ((texts, "ns"), ([*texts[:3], texts[4]], "us"), ([*texts[:3], "3026-01-01"], "us")):
        with pqlog.open(":memory:") as log, chunks_of(rows):
            if as_frame:
                for start in range(0, len(values), rows):
                    log.put_many(pd.DataFrame({"t": pd.Series(values[start : start + rows], dtype="str")}))
            else:
                log.put_many({"t": value} for value in values)
            for found in (
                log.to_pandas(parse_dates=["t"]),
                *log.chunks(2, parse_dates=["t"]),
                log.live(parse_dates=["t"]).frame,
            ):
                assert str(found["t"].dtype) == f"datetime64[{unit}, UTC]"
            assert log.to_pandas(parse_dates=["t"])["t"].isna().tolist() == [value is None for value in values]


@pytest.mark.parametrize("rows", [1, 2, 100])
def test_times_that_no_column_holds_are_refused(rows):
    with pqlog.open(":memory:") as log, chunks_of(rows):
        log.put_many({"t": t} for t in ("2026-01-01T00:00:00Z", "3026-01-01T00:00:00Z", FINE[0]))
        for how in ({}, {"metadata": False}):
            with pytest.raises(
                pqlog.ArgumentError, match="'t' of message 3 has nanoseconds, and that of message 2 lies"
            ):
                log.to_pandas(parse_dates=["t"], **how)
        log.put({"at": "2026-01-01T00:00:00.1234567891Z"})
        with pytest.raises(pqlog.ArgumentError, match="more precise than the nanoseconds"):
            log.to_pandas(["at"], parse_dates=["at"])


def test_times_of_a_frame_that_was_put(log):
    texts = ["2013-01-01T10:00:00Z", "2013-01-02T10:00:00Z"]
    log.put_many(pd.DataFrame({"at": texts, "n": pd.array([1, None], "Int64")}))
    frames = [log.to_pandas(parse_dates=["at"], metadata=wanted) for wanted in (True, False, ["time"])]
    frames += [
        log.live(parse_dates=["at"]).frame,
        *log.chunks(2, parse_dates=["at"]),
        *log.chunks(2, parse_dates=["at"], metadata=False),
    ]
    frames.append(pd.concat(log.chunks(1, parse_dates=["at"])))
    for found in frames:
        assert str(found["at"].dtype) == "datetime64[us, UTC]"
        assert found["at"].tolist() == [pd.Timestamp(text) for text in texts]
        assert str(found["n"].dtype) == "Int64"
    assert log.to_pandas(metadata=False)["at"].tolist() == texts


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_of_columns_of_times(log, unit):
    log.put_many(pa.table({"a": pa.array([None, 1_234_000], pa.timestamp(unit))}))
    of = log.to_arrow(parse_dates=["a"]).schema.field("a").type
    assert of == pa.timestamp("us", "UTC")
    assert log.to_pandas(parse_dates=["a"])["a"].tolist() == [pd.NaT, pd.Timestamp(1_234_000, unit=unit, tz="UTC")]
    if unit == "ns":
        log.put_many(pa.table({"a": pa.array([123_456_789], pa.timestamp("ns", "Europe/Prague"))}))
        assert log.to_arrow(parse_dates=["a"])["a"].cast(pa.int64()).to_pylist() == [None, 1_234_000, 123_456_789]


def test_times_with_nothing_but_null(log):
    log.put_many([{"at": None}, {"at": None}])
    assert str(log.to_pandas(parse_dates=["at"])["at"].dtype) == "datetime64[us, UTC]"
    assert log.to_arrow(["at"], parse_dates=["at"]).schema.field("at").type == pa.timestamp("us", "UTC")


def test_times_of_objects(log):
    """Naive times, and times in a zone, which pickle topics keep as they are."""
    zone = datetime.timezone(datetime.timedelta(hours=1))
    topic = log.topic("objects", codec="pickle")
    naive = datetime.datetime(2026, 1, 1, 12, 0, 0, 5)
    values = [naive, naive.replace(tzinfo=zone), datetime.date(2026, 1, 1), "2026-01-01T00:00:00Z", pd.NaT, None]
    topic.put_many({"at": value} for value in values)
    found = topic.to_pandas(parse_dates=["at"])["at"]
    day = pd.Timestamp("2026-01-01", tz="UTC")
    assert found.tolist() == [
        *(pd.Timestamp(naive, tz="UTC"), pd.Timestamp(naive, tz="UTC") - datetime.timedelta(hours=1)),
        *(day, day, pd.NaT, pd.NaT),
    ]
    topic.put({"at": pd.Timestamp(FINE[0])})
    assert topic.to_pandas(parse_dates=["at"])["at"].iloc[-1] == pd.Timestamp(FINE[0])


def test_times_of_nested_fields(log):
    log.put_many([{"a": {"at": FINE[0]}}, {"a": {"at": "2026-01-01"}}])
    found = log.to_pandas(["a.at"], flatten=True, parse_dates=["a.at"], metadata=False)
    assert found["a.at"].tolist() == [pd.Timestamp(FINE[0]), pd.Timestamp("2026-01-01", tz="UTC")]


# the latest

VALUES = [1, 1.0, True, "1", "true", 2**53, 2.0**53, 2**53 + 1, 2**70, 0.0, -0.0, 2.5, False, None, "", [1], [1.0]]
VALUES += [[True], {"a": 1}, {"a": 1.0}, {"a": 1, "b": [None]}, {"b": [None], "a": 1}, [], {}, "null"]


def same(one, other):
    """Whether two values have the same type and are equal."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    return one == other


def model(values):
    """The offset of the latest message of each key."""
    return [
        offset
        for offset, value in enumerate(values, 1)
        if value is not None and not any(same(value, later) for later in values[offset:])
    ]


def put(log, values, groups):
    """Messages with these values of `id`, in runs of messages or frames as `groups` says."""
    start = 0
    for size, how in groups:
        part = values[start : start + size]
        start += size
        if not part:
            return
        kinds = {type(value) for value in part} - {type(None)}
        if how == "frame" and len(kinds) == 1 and not kinds & {list, dict} and all(v != 2**70 for v in part):
            log.put_many(pa.table({"id": part}))
        elif how == "keyed":
            log.put_many([{"id": value, "k": "x"} for value in part], key="k")
        else:
            log.put_many([{"other": [1], "id": value} for value in part])
    log.put_many([{"id": value} for value in values[start:]])


GROUPS = st.lists(st.tuples(st.integers(1, 6), st.sampled_from(["frame", "keyed", "plain"])), max_size=5)
MIXED = st.lists(st.sampled_from(VALUES), min_size=1, max_size=24)
UNIFORM = st.sampled_from([[1, 2, 3], [1.0, 2.5], ["a", "b"], [True, False]]).flatmap(
    lambda some: st.lists(st.sampled_from([*some, None]), min_size=1, max_size=24)
)


@settings(max_examples=100)
@given(MIXED | UNIFORM, GROUPS, st.integers(1, 8))
@example(["a", "b", "a", 5], [(2, "frame")], 100)
@example([1, 2.5, 1, 1.0], [], 2)
def test_the_latest_by_a_field_goes_by_type_and_value_alone(values, groups, rows):
    with pqlog.open(":memory:") as log, chunks_of(rows):
        put(log, values, groups)
        expected = model(values)
        history = log.history().latest(by="id")
        assert [message.offset for message in history] == expected
        assert [message.offset for message in reversed(history)] == expected[::-1]
        assert history.to_arrow().column("offset").to_pylist() == expected


@settings(max_examples=50)
@given(MIXED | UNIFORM, GROUPS, st.lists(st.integers(0, 24), max_size=4), st.booleans())
def test_a_live_frame_of_the_latest_is_that_of_the_latest_now(values, groups, cuts, by_key):
    with pqlog.open(":memory:") as log:

        def of(log):
            return log.history().latest() if by_key else log.history().latest(by="id")

        live, at = of(log).live(), 0
        for cut in [*sorted(cuts), len(values)]:
            if by_key:
                for value in values[at:cut]:
                    log.put({"id": value}, key=None if value is None else str(value))
            else:
                put(log, values[at:cut], groups)
            at = max(at, cut)
            live.refresh()
            if by_key or len(live):
                pd.testing.assert_frame_equal(live.frame, of(log).to_pandas())
        assert len(live) == (len({str(v) for v in values if v is not None}) if by_key else len(model(values)))


def test_what_is_not_the_latest_has_no_part_in_the_columns(log):
    log.put({"v": "text", "gone": 1}, key="a")
    live = log.history().latest().live()
    log.put({"v": 0.5}, key="b")
    live.refresh()
    log.put({"v": 1}, key="a")
    log.put({"v": 2}, key="b")
    for found in (log.history().latest().to_pandas(), live.refresh()):
        assert found.columns.tolist() == ["_time", "_key", "v"]
        assert found["v"].dtype == "int64"


def test_the_latest_by_what_only_frames_have(log):
    at = datetime.datetime(2026, 1, 1)
    for column in (
        pa.array([at, None], pa.timestamp("us")),
        pa.array([at], pa.timestamp("ns")),
        pa.array([at], pa.timestamp("ms", "UTC")),
        pa.array([at, at], pa.timestamp("s", "Europe/Prague")),
        pa.array([math.nan, 1.5]),
        pa.array([1.5, math.nan, -math.nan], pa.float32()),
        pa.array(["x", "y"]).dictionary_encode(),
        pa.array(["y", "z"], pa.large_string()),
        pa.array([decimal.Decimal("1.0")]),
        pa.array([decimal.Decimal("1.00")]),
        pa.array([b"x"]),
        pa.array([{"a": 1}]),
        pa.array([5], pa.uint8()),
    ):
        log.put_many(pa.table({"id": column}))
    log.put_many([{"id": 5}, {"id": {"a": 1}}, {"id": "x"}])
    found = [message.value["id"] for message in log.history().latest(by="id")]
    assert [type(value).__name__ for value in found] == [
        "Timestamp" if hasattr(found[0], "nanosecond") else "datetime",
        "datetime",
        "float",
        "float",
        "str",
        "str",
        "Decimal",
        "bytes",
        "int",
        "dict",
        "str",
    ]
    assert found[4:6] == ["y", "z"]


def test_values_that_are_nested_as_deep_as_python_goes_are_told_or_read(log):
    value = 1
    for _ in range(900):
        value = {"a": value}
    log.put(value)
    with pytest.raises(pqlog.ArgumentError, match=r"latest\(by='a'\): the field of message 1 is a dict that cannot be"):
        list(log.history().latest(by="a"))
    with pytest.raises(pqlog.ArgumentError, match=r"no message here has a field 'b': there are 'a[.a]{59}\.\.\.'$"):
        log.to_arrow(["b"], flatten=True)
    assert log.to_arrow(flatten=True, metadata=False).to_pylist() == [{".".join("a" * 900): 1}]


def test_the_latest_of_a_topic_of_objects(log):
    topic = log.topic("packed", codec="msgpack")
    at = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    values = [b"a", "a", at, at, {"x": b"a"}, {"x": b"a"}, {"x": "a"}]
    topic.put_many([{"id": value} for value in values])
    assert [message.offset for message in topic.history().latest(by="id")] == [1, 2, 4, 6, 7]


def test_the_latest_of_a_key_and_by_an_unknown_field(log):
    log.put_many([{"id": 1}, {"id": 2}, {"id": 1}])
    log.put({"id": 1}, key="a")
    log.put_many(pd.DataFrame({"id": [1, 1, 2], "k": ["a", "b", "b"]}), key="k")
    assert [message.offset for message in log.history(key="a").latest(by="id")] == [5]
    assert [message.offset for message in log.history(key="b").latest(by="id")] == [6, 7]
    with pytest.raises(pqlog.ArgumentError, match=r"latest\(by='di'\): no message here has a field 'di'"):
        list(log.history().latest(by="di"))
    assert list(log[:1].latest(by="di")) == []


# flatten

PLAIN = st.sampled_from([None, 1, 2.5, 2**53 + 1, 2**70, "x", True, [1], {}])
NAMES = st.sampled_from(["a", "b", "a.b", "b.a", "a.b_", "", "\x1f", "offset"])
NESTED = st.recursive(PLAIN, lambda inner: st.dictionaries(NAMES, inner, max_size=3), max_leaves=6)
OBJECTS = st.lists(st.dictionaries(NAMES, NESTED, max_size=3), min_size=1, max_size=10)


def flat(log, **how):
    """As rows, and the columns' types."""
    table = log.to_arrow(flatten=True, **how)
    return table.to_pylist(), table.schema


@settings(max_examples=150)
@given(OBJECTS, st.integers(1, 6), st.data())
@example([{"a": {"b": 1}}, {"a": {"b": 2}, "a.b": 9}], 1, None)
@example([{"a": {"b": 1}}, {"a": None}], 1, None)
@example([{"a": {"b": 1}}, {"c": 1}, {"a": {"d": 1}}], 1, None)
def test_flat_columns_do_not_depend_on_pieces(values, rows, data):
    with pqlog.open(":memory:") as log:
        log.put_many(values)
        whole, schema = flat(log, metadata=False)
        with chunks_of(rows):
            again, again_schema = flat(log, metadata=False)
            assert again == whole
            assert again_schema.equals(schema, check_metadata=True)
            if data is not None and schema.names:
                columns = data.draw(st.lists(st.sampled_from(schema.names), unique=True))
                some, some_schema = flat(log, columns=columns, metadata=False)
                assert some == [{name: row[name] for name in columns} for row in whole]
                assert some_schema.equals(pa.schema([schema.field(name) for name in columns]), check_metadata=True)


def test_flat_columns_of_messages_and_frames(log):
    log.put_many([{"a": {"b": 1}, "c": 0}])
    log.put_many(pa.table({"a": [{"b": 2, "d": {"e": "x"}}, None]}))
    log.put_many(pd.DataFrame({"a": [{"b": 3}, [1]], "z": pd.Categorical(["u", "u"])}))
    found = log.to_pandas(flatten=True, metadata=False)
    assert found.columns.tolist() == ["a", "a.b", "a.d.e", "c", "z"]
    assert found["a.b"].tolist() == [1, 2, pd.NA, 3, pd.NA]
    assert found["a"].tolist() == [None, None, None, None, [1]]
    assert log[4:].to_pandas(flatten=True, metadata=False)["z"].dtype == "category"


def test_flat_columns_of_objects_that_json_does_not_hold(log):
    topic = log.topic("packed", codec="msgpack")
    topic.put_many([{"a": {"b": 1}}, {"a": {"b": b"x", "c": {1: 2}}}])
    for rows in (1, 2):
        with chunks_of(rows):
            found = topic.to_pandas(flatten=True, metadata=False)
            assert found.columns.tolist() == ["a.b", "a.c"]
            assert found["a.b"].tolist() == [1, b"x"]
            assert found["a.c"].tolist() == [None, {1: 2}]


# no columns


@pytest.mark.parametrize("rows", [1, 2, 100])
def test_messages_without_columns_are_rows(rows, tmp_path):
    with pqlog.open(":memory:") as log, chunks_of(rows):
        log.put_many([{}, {}, {}])
        for how in ({}, {"columns": []}, {"flatten": True}):
            assert log.to_arrow(metadata=False, **how).num_rows == 3
            assert log.to_batches(metadata=False, **how).read_all().num_rows == 3
            assert [batch.num_rows for batch in log.to_batches(2, metadata=False, **how)] == [2, 1]
            assert log.to_pandas(metadata=False, **how).shape == (3, 0)
            assert [len(frame) for frame in log.chunks(2, metadata=False, **how)] == [2, 1]
            assert log.to_polars(metadata=False, **how).shape == (3, 0)
        assert pa.table(log.to_batches(metadata=False)).num_rows == 3
        log.put_many(pd.DataFrame({"a": [1]}))
        assert log.to_arrow(columns=[], metadata=False).num_rows == 4
        assert log.to_pandas(columns=[], metadata=False).shape == (4, 0)
        log.to_parquet(tmp_path / "none", columns=[])
        assert pq.read_table(tmp_path / "none").num_rows == 4
