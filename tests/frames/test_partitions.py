"""Frames of a topic with several partitions are those of one that was given the same messages in their order."""

import os
import tempfile

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pqlog
from pqlog import producer
from pqlog.frames import dataframes, inference_pass, places, reading, schema_cache
from pqlog.frames import live as live_module
from pqlog.frames.projection import Projection
from pqlog.partitioning import Partitioner
from pqlog.store.values import Output, Segment, Singles, Span
from pqlog.testing import sparse_log
from tests.frames.test_options import chunks_of
from tests.rings import by_ring

PARTITIONS = 3
RUNS = [  # the partition, what is put there in one call, and by which key
    (1, [{"city": "Brno", "n": 1, "at": "2026-01-01T10:00Z"}], "city"),
    (0, [{"city": "Praha", "n": 2, "more": {"a": 1}}, {"city": None, "n": 3}], None),
    (2, pd.DataFrame({"city": ["Plzeň", "Zlín", "Plzeň"], "n": [4, 5, 6]}), "city"),
    (1, [{"city": "Brno", "n": 7.5, "more": {"a": 2, "b": "x"}}], "city"),
    (1, pa.table({"n": [8, 9], "city": ["Brno", None]}), None),
    (0, [{"city": "Praha", "n": 10}, {"city": "Ostrava", "n": 11, "at": None}], "city"),
    (2, [{"n": 12, "at": "2026-01-02T10:00:00.5Z"}], None),
    (2, ["no object"], None),
]


class Twins:
    """A topic with three partitions, and one with a single one, which are given the same in the same order."""

    def __init__(self, log, codec="json"):
        self.log = log
        self.several = log.topic("several", codec=codec, partitions=PARTITIONS)
        self.one = log.topic("one", codec=codec)
        self.at = []
        """For each message: the number of its partition, and its offset there."""
        self.offsets = []
        """Those of the one partition."""

    def put(self, number, values, key=None, headers=None):
        for stream in (self.one.stream, self.several.stream.partition(number)):
            encoded = producer.chunks(stream.codec, Partitioner(1), values, key, headers)
            (put,) = self.log.store.log.append(encoded.outputs(stream)).values()
            rows = list(stream.rows(Span.through(put.first, put.last)))
            offsets = [offset for row in rows for offset in range(row.offset, row.stop)]
            if stream is self.one.stream:
                self.offsets += offsets
            else:
                self.at += [(number, offset) for offset in offsets]
        return self

    def at_of(self, offsets):
        """Where the messages are that have these offsets in the one partition."""
        at = dict(zip(self.offsets, self.at, strict=True))
        return [at[offset] for offset in offsets]

    def check(self, found, expected, at=None):
        """A frame in Arrow of the one is that of the other, with the partitions' offsets beside it."""
        found, expected = pa.table(found), pa.table(expected)
        at = self.at if at is None else at
        if "offset" in found.schema.names:
            assert list(zip(found["_partition"].to_pylist(), found["offset"].to_pylist(), strict=True)) == at
            assert found.schema.field("_partition").type == pa.int32()
            assert found["_time"].to_pylist() == sorted(found["_time"].to_pylist())
        left_out = {"offset", "_time", "_partition"}
        rest = [name for name in found.schema.names if name not in left_out]
        assert rest == [name for name in expected.schema.names if name not in left_out]
        assert found.select(rest).schema.equals(expected.select(rest).schema, check_metadata=True)
        assert found.select(rest).to_pylist() == expected.select(rest).to_pylist()


@pytest.fixture
def twins(log):
    twins = Twins(log)
    for run in RUNS:
        twins.put(*run)
    return twins


def without_places(frame):
    return frame.reset_index(drop=True).drop(columns=["_time", "_partition"], errors="ignore")


def same_pandas(found, expected, at):
    assert list(zip(found["_partition"], found.index, strict=True)) == at
    assert found["_partition"].dtype == "int32"
    assert found.index.name == "offset"
    pd.testing.assert_frame_equal(without_places(found), without_places(expected))


def test_all_forms_of_a_whole_topic(twins):
    one, several = twins.one, twins.several
    twins.check(several.to_arrow(), one.to_arrow())
    twins.check(several.to_polars().to_arrow(), one.to_polars().to_arrow())
    twins.check(pa.table(several), pa.table(one))
    twins.check(several.to_batches(4).read_all(), one.to_batches(4).read_all())
    assert several.to_arrow().schema.names[:4] == ["offset", "_partition", "_time", "_key"]
    assert several.to_batches().schema.equals(several.to_arrow().schema)
    assert several.schema.equals(one.schema)
    same_pandas(several.to_pandas(), one.to_pandas(), twins.at)
    assert pl.DataFrame(several)["_partition"].dtype == pl.Int32
    for backend in ("pyarrow", "numpy_nullable"):
        found, expected = (topic.to_pandas(dtype_backend=backend) for topic in (several, one))
        pd.testing.assert_frame_equal(without_places(found), without_places(expected))
        assert found["_partition"].dtype == ("int32[pyarrow]" if backend == "pyarrow" else "Int32")


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_pieces(twins, size):
    one, several = twins.one, twins.several
    with chunks_of(size):
        twins.check(several.to_arrow(), one.to_arrow())
        parts, expected = list(several.chunks(size)), list(one.chunks(size))
        assert [len(part) for part in parts] == [len(part) for part in expected]
        same_pandas(pd.concat(parts), pd.concat(expected), twins.at)
        for batch, like in zip(several.to_batches(size), one.to_batches(size), strict=True):
            assert batch.schema.names == ["offset", "_partition", *like.schema.names[1:]]
            assert batch["n"].equals(like["n"])
    same_pandas(several.head(size), one.head(size), twins.at[:size])
    same_pandas(several.tail(size), one.tail(size), twins.at[-size:])


@pytest.mark.parametrize(
    "how",
    [
        {"columns": ["n", "city"]},
        {"columns": []},
        {"flatten": True},
        {"flatten": True, "columns": ["more.a", "n"]},
        {"parse_dates": ["at"]},
        {"columns": ["at"], "parse_dates": ["at"]},
    ],
    ids=str,
)
def test_options(twins, how):
    for rows in (2, 100):
        with chunks_of(rows):
            twins.check(twins.several.to_arrow(**how), twins.one.to_arrow(**how))
            twins.check(twins.several.to_batches(**how).read_all(), twins.one.to_batches(**how).read_all())
            same_pandas(twins.several.to_pandas(**how), twins.one.to_pandas(**how), twins.at)


def test_metadata(twins):
    twins.put(0, [{"n": 13}], headers={"from": "till"})
    several, numbers = twins.several, [number for number, _ in twins.at]
    assert several.to_arrow(metadata=["partition"])["_partition"].to_pylist() == numbers
    found = several.to_arrow(["n"], metadata=["headers", "partition", "offset"])
    assert found.schema.names == ["_headers", "_partition", "offset", "n"]
    assert list(zip(found["_partition"].to_pylist(), found["offset"].to_pylist(), strict=True)) == twins.at
    assert found["_headers"].to_pylist()[-1] == [("from", "till")]
    pd.testing.assert_frame_equal(several.to_pandas(metadata=False), twins.one.to_pandas(metadata=False))
    with pytest.raises(pqlog.ArgumentError, match="did you mean 'partition'"):
        several.to_pandas(metadata=["_partition"])


def test_one_partition_alone_says_which_it_is(twins):
    for number in range(PARTITIONS):
        partition = twins.several.partition(number)
        at = [place for place in twins.at if place[0] == number]
        for table in (partition.to_arrow(), partition.to_batches(2).read_all(), pa.table(partition)):
            assert list(zip(table["_partition"].to_pylist(), table["offset"].to_pylist(), strict=True)) == at
        assert partition.to_pandas()["_partition"].eq(number).all()
        assert partition.tail(1)["_partition"].tolist() == [number]


def test_a_topic_of_one_partition_has_the_column_only_if_asked_for(twins):
    assert "_partition" not in twins.one.to_arrow().schema.names
    assert twins.one.to_arrow(metadata=["partition"])["_partition"].to_pylist() == [0] * len(twins.at)
    twins.one.put({"_partition": "mine"})
    assert twins.one.to_arrow()["_partition"].to_pylist()[-1] == "mine"
    twins.put(0, [{"_partition": "mine"}])
    assert twins.several.to_arrow()["_partition_"].to_pylist()[-1] == "mine"


def test_without_messages_the_columns_are_there(log):
    topic = log.topic("several", partitions=PARTITIONS)
    assert topic.to_arrow().schema.names == ["offset", "_partition", "_time"]
    assert topic.to_batches().schema.names == ["offset", "_partition", "_time"]
    assert topic.to_pandas().columns.tolist() == ["_partition", "_time"]
    assert topic.partition(1).to_arrow().schema.names == ["offset", "_partition", "_time"]


def test_duckdb_reads_it(twins):
    h = twins.several.history()  # noqa: F841 - DuckDB finds it by its name
    found = duckdb.sql('SELECT _partition, "offset" FROM h ORDER BY _partition, "offset"').fetchall()
    assert found == sorted(twins.at)


@pytest.mark.parametrize("codec", ["msgpack", "pickle"])
def test_other_codecs(log, codec):
    twins = Twins(log, codec)
    for number in (2, 0, 0, 1, 2):
        twins.put(number, [{"n": number}, {"n": 0.5, "of": "text"}])
    twins.check(twins.several.to_arrow(), twins.one.to_arrow())
    same_pandas(twins.several.to_pandas(), twins.one.to_pandas(), twins.at)


def test_ranges_of_time(twins):
    middle = twins.several.to_arrow()["_time"][3].as_py()
    since, until = twins.several.history(since=middle), twins.several.history(until=middle)
    for part, expected, at in (
        (until, twins.one[:4], twins.at[:3]),
        (since, twins.one[4:], twins.at[3:]),
    ):
        twins.check(part.to_arrow(), expected.to_arrow(), at)
        same_pandas(part.to_pandas(), expected.to_pandas(), at)
    twins.check(since.to_batches().read_all(), twins.one[4:].to_batches().read_all(), twins.at[3:])


@pytest.mark.parametrize("gap", [1, 2, 100])
def test_latest(twins, gap, monkeypatch):
    monkeypatch.setattr(places, "MAX_MERGED_GAP", gap)
    for by in ("key", "city", "n"):
        expected = twins.one.history().latest(by).to_pandas()
        at = twins.at_of(expected.index)
        found = twins.several.history().latest(by)
        same_pandas(found.to_pandas(), expected, at)
        same_pandas(found.tail(2), twins.one.history().latest(by).tail(2), at[-2:])
        assert [(message.partition, message.offset) for message in found] == at
        assert [(message.partition, message.offset) for message in reversed(found)] == at[::-1]


@pytest.mark.parametrize("of", ["all", "latest"])
def test_live(log, of):
    twins = Twins(log)

    def now(topic):
        return topic if of == "all" else topic.history().latest()

    live = now(twins.several).live()
    assert live.frame.columns.tolist() == ["_partition", "_time"]
    for number, (partition, values, key) in enumerate(RUNS):
        twins.put(partition, values, key)
        if number == 5:
            log.store.log.trim([(twins.several.stream.partitions[0], 3)], True)
            assert live.refresh()["_partition"].tolist().count(0) == 2
        pd.testing.assert_frame_equal(live.refresh(), now(twins.several).to_pandas())
        assert live.refresh() is live.frame
    for partition in twins.several.stream.partitions:
        log.store.log.trim([(partition, partition.span().stop)], True)
        pd.testing.assert_frame_equal(live.refresh(), now(twins.several).to_pandas())
    assert live.frame.empty
    twins.put(2, [{"n": 1}], None)
    pd.testing.assert_frame_equal(live.refresh(), now(twins.several).to_pandas())


def test_live_reads_only_what_is_new(twins, monkeypatch):
    live, read, asked = twins.several.live(), live_module.read_chunks, []
    monkeypatch.setattr(live_module, "read_chunks", lambda part, how: asked.append(part.total()) or read(part, how))
    twins.put(1, [{"n": 1}, {"n": 2}])
    assert len(live.refresh()) == len(twins.at)
    assert asked == [2]


def test_a_frame_put_into_one_partition_comes_back_as_it_was(log):
    twins = Twins(log)
    frame = pd.DataFrame({"n": [1, 2, 3]}, index=pd.Index(["a", "b", "c"], name="letter")).astype({"n": "int8"})
    twins.put(1, frame)
    pd.testing.assert_frame_equal(twins.several.to_pandas(metadata=False), frame)
    pd.testing.assert_frame_equal(next(twins.several.chunks(2, metadata=False)), frame[:2])
    twins.put(0, [{"n": 4}])
    pd.testing.assert_frame_equal(twins.several.partition(1).to_pandas(metadata=False), frame)


def test_a_frame_put_into_several_partitions_comes_back_as_if_sorted_by_them(log):
    topic = log.topic("several", partitions=PARTITIONS)
    frame = pd.DataFrame({"k": [f"k{n % 5}" for n in range(20)], "n": range(20)}).astype({"n": "uint8"})
    topic.put_many(frame, key="k")
    parts = [topic.partition(number).to_pandas(metadata=False) for number in range(PARTITIONS)]
    back = topic.to_pandas(metadata=False)
    pd.testing.assert_frame_equal(back, pd.concat(parts))
    pd.testing.assert_frame_equal(back.sort_index(), frame, check_index_type=False)


@pytest.mark.parametrize(
    "index", [pd.RangeIndex(20, 40), pd.Index([f"r{n}" for n in range(20)], name="row"), pd.RangeIndex(20, name="row")]
)
def test_rows_of_a_frame_keep_their_labels_whichever_of_them_are_left(log, index, tmp_path):
    topic, one = log.topic("several", partitions=PARTITIONS), log.topic("one")
    frame = pd.DataFrame({"k": [f"k{n % 5}" for n in range(20)], "n": range(20)}, index)
    for into in (topic, one):
        into.put_many(frame, key="k")
    log.store.log.trim([(topic.stream.partitions[1], topic.partition(1).last + 1)], True)
    back = topic.to_pandas(metadata=False)
    assert 0 < len(back) < 20
    pd.testing.assert_frame_equal(back, frame.loc[back.index], check_index_type=False)
    with pqlog.open(tmp_path / "key.db") as other:
        pqlog.mirror(log, other, "one", key="k3")
        back = other.topic("one").to_pandas(metadata=False)
    pd.testing.assert_frame_equal(back, frame[frame["k"] == "k3"], check_index_type=False)


def test_rows_that_are_joined_in_another_order_keep_their_labels(log):
    frame = pd.DataFrame({"n": range(5)}, pd.RangeIndex(0, 50, 10))
    log.put_many(frame)
    (chunk,) = dataframes.read_chunks(log.history()._selection(), Projection(metadata=()))
    parts = [chunk.slice(3, 2), chunk.slice(0, 2)]
    pd.testing.assert_frame_equal(dataframes._frame_as_put(parts), frame.iloc[[3, 4, 0, 1]], check_index_type=False)


def test_a_schema_is_known_while_the_log_is_open_and_forgotten_by_a_trim(log):
    twins = Twins(log)
    twins.put(0, [{"a": n} for n in range(5)])
    twins.put(1, [{"b": n} for n in range(5)])
    assert twins.several.to_batches(metadata=False).schema.names == ["a", "b"]
    assert schema_cache.lookup_topic(twins.several.stream) is not None
    assert schema_cache.lookup_topic(log.topic("several").stream) is not None
    assert schema_cache.lookup_topic(twins.several.stream.partition(0)) is None
    twins.put(2, [{"c": 1}])
    assert twins.several.schema.names == ["a", "b", "c"]
    log.store.log.trim([(twins.several.stream.partitions[0], 6)], True)
    assert schema_cache.lookup_topic(twins.several.stream) is None
    assert twins.several.schema.names == ["b", "c"]


def test_places_of_before_a_trim_are_forgotten(log, monkeypatch):
    """A reading of before noted many places, each of which is that of another message now."""
    monkeypatch.setattr(places, "MAX_MERGED_GAP", 1)
    twins = Twins(log)
    for n in range(60):
        twins.put(n % 3, [{"k": "x" if n % 4 else f"k{n}", "n": n}], "k")
    with chunks_of(1):
        twins.several.to_arrow()
    log.store.log.trim([(twins.several.stream.partitions[1], 15)], True)
    left = [n for n in range(60) if n % 3 != 1 or n >= 43]
    expected = [n for n in left if n % 4 == 0] + [59]
    found = twins.several.history().latest()
    assert found.to_arrow()["n"].to_pylist() == [message.value["n"] for message in found] == expected
    assert [message.value["n"] for message in reversed(found)] == expected[::-1]
    for size in range(1, 30):
        assert twins.several.head(size)["n"].tolist() == left[:size]
        assert twins.several.tail(size)["n"].tolist() == left[-size:]


def test_what_is_remembered_of_a_range_is_forgotten_by_a_trim(log):
    """A place is that of another message then."""
    twins = Twins(log)
    for number, name in enumerate("abcabc"):
        twins.put(number % 3, [{name: number}, {name: number}])
    times = twins.several.to_arrow()["_time"].to_pylist()
    ranges = [twins.several.history(since=one, until=other) for one in times for other in times if one < other]
    for history in ranges:
        history.to_batches()
    log.store.log.trim([(twins.several.stream.partitions[1], 3)], True)
    for history in ranges:
        assert history.to_batches().read_all().equals(history.to_arrow())


@pytest.mark.parametrize("open_log", [lambda: pqlog.open(":memory:"), sparse_log], ids=["SQLite", "sparse"])
@settings(max_examples=by_ring(8, 100))
@given(
    runs=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4), st.booleans()), max_size=8), size=st.integers(1, 5)
)
def test_any_runs(open_log, runs, size):
    with open_log() as log, chunks_of(size):
        twins, n = Twins(log), 0
        for number, count, as_frame in runs:
            values = [{"n": n + i, "k": f"{number}{i % 2}"} for i in range(count)]
            twins.put(number, pd.DataFrame(values) if as_frame else values, "k")
            n += count
        twins.check(twins.several.to_arrow(), twins.one.to_arrow())
        twins.check(twins.several.to_batches(size).read_all(), twins.one.to_batches(size).read_all())
        expected = twins.one.history().latest().to_arrow()
        at = twins.at_of(expected["offset"].to_pylist())
        twins.check(twins.several.history().latest().to_arrow(), expected, at)
        same_pandas(twins.several.tail(size), twins.one.tail(size), twins.at[-size:])
        with tempfile.TemporaryDirectory() as folder:
            if n:
                twins.several.to_parquet(folder, rows_per_file=2)
                assert exported(folder) == sorted(twins.at)


# exports


def exported(folder):
    table = pq.read_table(folder) if os.path.exists(folder) else None
    return sorted(zip(table["_partition"].to_pylist(), table["offset"].to_pylist(), strict=True))


def test_an_export_goes_partition_by_partition(twins, tmp_path):
    folder = tmp_path / "out"
    written = twins.several.to_parquet(folder, rows_per_file=2)
    assert [os.path.basename(path) for path in written] == [
        f"p{number:03}_{first:015}.parquet"
        for number in range(PARTITIONS)
        for first in range(1, 1 + sum(at[0] == number for at in twins.at), 2)
    ]
    assert exported(folder) == sorted(twins.at)
    names = twins.several.to_arrow().schema.names
    assert {tuple(pq.read_schema(path).names) for path in written} == {tuple(names)}
    assert twins.several.to_parquet(folder, rows_per_file=2) == []
    twins.put(1, [{"n": 13}])
    assert len(twins.several.to_parquet(folder, rows_per_file=2)) == 1
    assert exported(folder) == sorted(twins.at)
    assert pd.read_parquet(folder)["_partition"].dtype == "int32"


def test_an_export_of_ranges_and_of_what_was_trimmed(log, tmp_path):
    folder, twins = tmp_path / "out", Twins(log)
    for n in range(12):
        twins.put(n % 3, [{"n": n}])
    topic = twins.several
    times = topic.to_arrow()["_time"].to_pylist()
    topic.history(since=times[3], until=times[8]).to_parquet(folder)
    assert exported(folder) == sorted(
        place for place, time in zip(twins.at, times, strict=True) if times[3] <= time < times[8]
    )
    topic.to_parquet(folder)
    assert exported(folder) == sorted(twins.at)
    twins.log.store.log.trim([(topic.stream.partitions[1], 2), (topic.stream.partitions[2], 3)], True)
    assert topic.to_parquet(folder) == []
    twins.put(0, [{"n": 14}])
    topic.to_parquet(folder)
    assert exported(folder) == sorted(twins.at)


def test_an_export_of_one_partition_is_completed_by_that_of_all(twins, tmp_path):
    folder = tmp_path / "out"
    twins.several.partition(1).to_parquet(folder, rows_per_file=2)
    assert exported(folder) == [place for place in sorted(twins.at) if place[0] == 1]
    twins.several.to_parquet(folder, rows_per_file=2)
    assert exported(folder) == sorted(twins.at)
    with pytest.raises(pqlog.ArgumentError, match="belongs to another log, topic or history"):
        twins.one.to_parquet(folder, rows_per_file=2)


def test_a_partitioned_export_by_a_field(twins, tmp_path):
    folder = tmp_path / "out"
    twins.put(1, [{"city": "Brno", "n": 13}] * 3)
    twins.several.to_parquet(folder, partition_by="city", rows_per_file=3)
    found = pl.scan_parquet(f"{folder}/**/*.parquet", hive_partitioning=True).collect()
    assert sorted(zip(found["_partition"], found["offset"], strict=True)) == sorted(twins.at)


# errors, and trims meanwhile


@pytest.mark.parametrize("alone", [False, True], ids=["merged", "alone"])
def test_errors_name_the_partition_and_the_offset_there(log, alone):
    twins = Twins(log)
    for number in (0, 2, 1):
        twins.put(number, [{"at": "2026-01-01", "k": {"a": 1}}] * 2)
    twins.put(2, [{"at": "soon", "k": 1}])
    topic = twins.several.partition(2) if alone else twins.several
    with pytest.raises(pqlog.ArgumentError, match="'at' of message 3 of partition 2 is 'soon', which is not"):
        topic.to_pandas(parse_dates=["at"])
    with pytest.raises(
        pqlog.ArgumentError, match="message 3 of partition 1 has nanoseconds, and that of message 4 of partition 2"
    ):
        twins.put(2, [{"nano": "0001-01-01"}]).put(1, [{"nano": "2026-01-01T00:00:00.123456789Z"}])
        twins.several.to_pandas(parse_dates=["nano"], columns=["nano"])
    for store in twins.several.stream.partitions[2:]:
        log.store.log.append([Output(store, [Singles([b"{", b"{}"])])])
    with pytest.raises(pqlog.DecodeError, match=r"message 5 of partition 2 of topic .*seek\(6, partition=2\)") as found:
        topic.to_pandas()
    assert (found.value.partition, found.value.offset) == (2, 5)
    with pytest.raises(pqlog.DecodeError, match="message 5 of partition 2"):
        topic.history().latest("k").to_pandas()
    with pytest.raises(pqlog.DecodeError, match=r"message 7 of partition 2 of topic .* segment is damaged"):
        log.store.log.append([Output(store, [Segment(b"?", 2)])])
        twins.several.partition(2)[7:].to_pandas()


def test_a_key_that_cannot_be_compared_is_named_by_its_partition(log):
    twins = Twins(log, "pickle")
    twins.put(2, [{"k": 1}]).put(1, [{"k": {1}}])
    with pytest.raises(pqlog.ArgumentError, match="the field of message 1 of partition 1 is a set that cannot be"):
        twins.several.history().latest("k").to_pandas()


@pytest.mark.parametrize("how", [{}, {"flatten": True}], ids=str)
def test_values_of_mixed_types_stay_as_they_are(log, how):
    twins = Twins(log)
    for n in range(30):
        twins.put(n % 3 if n % 5 else 0, [{"n": 2**53 + n if n % 2 else 0.5, "o": {"n": n}}])
    twins.put(1, [{"n": "text"}])
    for rows in (1, 3, 100):
        with chunks_of(rows):
            same_pandas(twins.several.to_pandas(**how), twins.one.to_pandas(**how), twins.at)
            twins.check(twins.several.to_batches(4, **how).read_all(), twins.one.to_batches(4, **how).read_all())
    live = twins.several.live(**how)
    twins.put(2, [{"n": 0.5}])
    assert live.refresh()["n"].tolist() == twins.one.to_pandas(**how)["n"].tolist()


def trimming(monkeypatch, module, name, twins, marks, times=1):
    """Trim between the steps of a reading."""
    real, left = getattr(module, name), [times]

    def changed(*args, **how):
        found = real(*args, **how)
        if left[0]:
            left[0] -= 1
            twins.log.store.log.trim(
                [(twins.several.stream.partitions[n], before) for n, before in marks.items()], True
            )
        return found

    monkeypatch.setattr(module, name, changed)


def test_a_trim_while_the_latest_are_read_is_told(log, monkeypatch):
    twins = Twins(log)
    for n in range(40):
        twins.put(n % 3, [{"n": n}] if n else [{"n": 0}] * 5)
    trimming(monkeypatch, reading, "latest_of", twins, {1: 9})
    with pytest.raises(pqlog.TrimmedError, match="offset 1 of partition 1 was trimmed; the first offset kept is 9"):
        twins.several.history().latest("n").to_arrow()
    assert sorted(twins.several.history().latest("n").to_arrow()["n"].to_pylist()) == sorted(
        set(twins.several.to_arrow()["n"].to_pylist())
    )


@pytest.mark.parametrize("of", ["all", "latest"])
def test_a_live_frame_reads_again_if_a_trim_comes_between(log, monkeypatch, of):
    twins = Twins(log)
    now = twins.several if of == "all" else twins.several.history().latest("n")
    for n in range(12):
        twins.put(n % 3, [{"n": n}])
    live = now.live()
    twins.put(0, [{"n": 12}]).put(1, [{"n": 13}])
    trimming(monkeypatch, live_module, "frame_of", twins, {1: 4, 0: 2})
    live.refresh()
    pd.testing.assert_frame_equal(live.frame, now.to_pandas())
    twins.put(0, [{"n": 14}])
    pd.testing.assert_frame_equal(live.refresh(), now.to_pandas())


def test_exact_values_are_found_though_a_trim_moved_the_places(log, monkeypatch):
    twins = Twins(log)
    for number, values in ((0, [0.5, 2, 0.5, 4]), (2, ["a", "b", "c", "d"]), (1, [1, 0.5, 3, 0.5])):
        twins.put(number, [{"n": value} for value in values])
    with chunks_of(4):
        expected = twins.several.to_pandas()
        trimming(monkeypatch, inference_pass, "check_names", twins, {2: 5})
        pd.testing.assert_frame_equal(twins.several.to_pandas(), expected)
        assert twins.several.to_pandas()["n"].tolist() == [0.5, 2, 0.5, 4, 1, 0.5, 3, 0.5]
        twins.put(2, [{"n": "e"}])
        trimming(monkeypatch, inference_pass, "check_names", twins, {1: 2})
        with pytest.raises(pqlog.TrimmedError, match="offset 1 of partition 1 was trimmed; the first offset kept is 2"):
            twins.several.to_pandas()


def test_what_a_client_has_not_acknowledged(log):
    twins = Twins(log)
    for n in range(9):
        twins.put(n % 3, [{"n": n}] * 2)
    client = twins.several.client("etl")
    batches = client.batches(size=1)
    for _ in range(4):
        next(batches)
    batches.close()
    unread = client.unread()
    left = [(message.partition, message.offset) for message in unread]
    assert 14 <= len(left) < 18
    for table in (unread.to_arrow(), unread.to_batches().read_all()):
        assert list(zip(table["_partition"].to_pylist(), table["offset"].to_pylist(), strict=True)) == left
    assert list(zip(unread.live().frame["_partition"], unread.live().frame.index, strict=True)) == left
