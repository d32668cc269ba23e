"""The partitions of a column of keys, and the frames of a topic of several: cut by key, each part as it was."""

import datetime as dt
import uuid
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pqlog
from pqlog import partitioning
from pqlog.frames import partitioning as of_columns
from pqlog.frames import writer
from pqlog.keys import is_missing, text
from pqlog.partitioning import Partitioner, partition_of
from pqlog.testing import sparse_log
from tests.frames.test_put_frames import equal, frames
from tests.messages import is_same
from tests.promises.test_ids import KINDS
from tests.rings import by_ring

PARTITIONS = 3


@given(st.lists(st.text(max_size=20), max_size=200), st.integers(0, 70), st.integers(0, 70))
def test_the_hashes_of_a_column_are_those_of_its_texts(texts, start, length):
    array = pa.array([*texts, "x" * 5000, ""], pa.string()).slice(start, length)
    assert of_columns.murmur2(array).tolist() == [partitioning.murmur2(one.encode()) for one in array.to_pylist()]


@given(st.lists(st.text(max_size=3) | st.none(), max_size=200), st.booleans(), st.integers(1, 256))
def test_the_partitions_of_a_column_are_those_of_its_keys(keys, is_repeated, partitions):
    keys = keys * 3 if is_repeated else keys
    found = of_columns.partitions_of(pa.chunked_array([pa.array(keys, pa.string())]), Partitioner(partitions)).tolist()
    known = [(partition_of(key, partitions), at) for key, at in zip(keys, found, strict=True) if key is not None]
    assert all(expected == at for expected, at in known)
    assert len({at for key, at in zip(keys, found, strict=True) if key is None}) <= 1


@pytest.mark.parametrize("repeats", [1, 100])
def test_more_keys_than_the_sample_has(repeats):
    keys = [str(n // repeats) for n in range(3 * 10_000)]
    found = of_columns.partitions_of(pa.chunked_array([pa.array(keys)]), Partitioner(8))
    assert found.tolist() == [partition_of(key, 8) for key in keys]


# the frames of a topic of several partitions


def split(frame, column="k"):
    """The rows of a pandas frame by the partition of their keys."""
    at = np.array([partition_of(text(value), PARTITIONS) for value in frame[column]])
    return {partition: frame[at == partition] for partition in sorted(set(at.tolist()))}


@settings(max_examples=by_ring(25, 200))
@given(frames(), st.data(), st.integers(1, 4))
def test_a_pandas_frame_comes_back_equal_from_each_partition_and_from_all(frame, data, segment_rows):
    keys = data.draw(st.lists(st.sampled_from("abcdef"), min_size=len(frame), max_size=len(frame)))
    frame["k"] = pd.Series(keys, frame.index, "str")
    with pqlog.open(":memory:") as log, pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "SEGMENT_ROWS", segment_rows)
        topic = log.topic("several", partitions=PARTITIONS)
        put = topic.put_many(frame, key="k")
        parts = split(frame)
        assert put.messages == len(frame)
        assert put.first == dict.fromkeys(parts, 1)
        assert put.last == {partition: len(part) for partition, part in parts.items()}
        for partition, part in parts.items():
            equal(topic.partition(partition).to_pandas(metadata=False), part)
        equal(topic.to_pandas(metadata=False), pd.concat(parts.values()))


MORE_KINDS = KINDS | {
    "bytes in views": pa.array([b"a" * 20, None, b"c"], pa.binary_view()),
    "structs of views": pa.array([{"a": "x" * 20}, None, {"a": "y"}], pa.struct({"a": pa.string_view()})),
    "a dictionary of views": pa.DictionaryArray.from_arrays(
        pa.array([1, None, 0]), pa.array(["a", "b"], pa.string_view())
    ),
    "nulls": pa.nulls(3),
    "booleans": pa.array([True, None, False]),
    "doubles": pa.array([-0.0, float("nan"), None]),
    "decimals": pa.array([Decimal("1.50"), None, Decimal("0.01")]),
    "times": pa.array([dt.datetime(2026, 1, 1), None, dt.datetime(1, 1, 1)], pa.timestamp("us", "Europe/Prague")),
    "lists of structs of dictionaries": pa.array(
        [[{"a": "x"}], None, [{"a": None}]], pa.list_(pa.struct({"a": pa.dictionary(pa.int8(), pa.string())}))
    ),
}


@pytest.mark.parametrize("column", MORE_KINDS.values(), ids=MORE_KINDS)
def test_columns_of_every_kind_are_cut(monkeypatch, column):
    """Also those for which Arrow's own take is missing."""
    monkeypatch.setattr(writer, "SEGMENT_ROWS", 2)
    table = pa.table({"k": ["a", "b", "d"], "c": column})
    table = pa.concat_tables([table, table.slice(1), table])
    with pqlog.open(":memory:") as log:
        one, several = log.topic("one"), log.topic("several", partitions=PARTITIONS)
        one.put_many(table, key="k")
        several.put_many(table, key="k")
        for partition in range(PARTITIONS):
            found = several.partition(partition)
            expected = [message for message in one if partition_of(message.key, PARTITIONS) == partition]
            assert is_same([message.value for message in found], [message.value for message in expected])
            assert [message.key for message in found] == [message.key for message in expected]


KEYS = {
    "text": pd.Series(["a", "", "č", "a"], dtype="str"),
    "objects": pd.Series(["a", 7, None, dt.date(2026, 1, 2)], dtype=object),
    "categories": pd.Series(["b", "a", None, "b"], dtype="category"),
    "categories of numbers": pd.Series([3, 1, 3, 2], dtype="category"),
    "integers": pd.Series([2**63, 0, 5, 5], dtype="uint64"),
    "nullable integers": pd.Series([-1, None, 5, 5], dtype="Int64"),
    "dates": pd.Series([dt.date(2026, 1, day) for day in (1, 2, 3, 4)], dtype=object),
    "UUIDs": pd.Series([uuid.UUID(int=n) for n in (1, 2, 3, 1)], dtype=object),
    "missing": pd.Series([None] * 4, dtype=object),
    "Arrow text": pd.Series(["a", None, "b", "c"], dtype=pd.ArrowDtype(pa.string())),
}


@pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("kind", ["pandas", "arrow", "polars", "values"])
def test_keys_of_every_kind_lead_to_the_partition_of_their_text(log, keys, kind):
    frame = pd.DataFrame({"k": pd.concat([keys] * 5, ignore_index=True), "n": range(20)})
    if kind in ("pandas", "arrow") and len(set(map(type, keys))) > 2:
        frame["k"] = frame["k"].map(text)  # such a mixture is no column
    given = {
        "pandas": lambda: frame,
        "arrow": lambda: pa.Table.from_pandas(frame),
        "polars": lambda: pl.DataFrame({"k": [text(value) for value in frame["k"]], "n": frame["n"].to_list()}),
        "values": lambda: [{"k": None if is_missing(k) else k, "n": n} for n, k in enumerate(frame["k"].tolist())],
    }[kind]()
    topic = log.topic("several", partitions=PARTITIONS)
    assert topic.put_many(given, key="k").messages == 20
    found = sorted((message.value["n"], message.key, message.partition) for message in topic)
    one = log.topic("one")
    one.put_many(given, key="k")
    assert [(n, key) for n, key, _ in found] == [(message.value["n"], message.key) for message in one]
    assert all(at == partition_of(key, PARTITIONS) for _, key, at in found if key is not None)
    for partition in range(PARTITIONS):
        numbers = [message.value["n"] for message in topic.partition(partition)]
        assert numbers == sorted(numbers)


def test_a_frame_without_a_key_goes_round_by_segments(monkeypatch):
    monkeypatch.setattr(writer, "SEGMENT_ROWS", 100)
    frame = pd.DataFrame({"n": range(1000)}, index=pd.date_range("2026-01-01", periods=1000, freq="h", name="hour"))
    with pqlog.open(":memory:") as log:
        for given in (frame, pa.Table.from_pandas(frame), frame.to_dict("records")):
            topic = log.topic(type(given).__module__, partitions=PARTITIONS)
            put = topic.put_many(given)
            sizes = {number: put.last[number] - put.first[number] + 1 for number in put.first}
            assert sorted(sizes.values()) == ([1000] if type(given) is list else [300, 300, 400])
        topic = log.topic("pandas", partitions=PARTITIONS)
        equal(topic.to_pandas(metadata=False).sort_index(), frame)


def test_a_frame_that_goes_into_one_partition_comes_back_with_its_range_and_its_frequency(log):
    topic = log.topic("several", partitions=PARTITIONS)
    for index in (pd.RangeIndex(5, 11, 2), pd.date_range("2026-01-01", periods=3, freq="D")):
        frame = pd.DataFrame({"k": ["a", "a", "a"]}, index=index)
        for key in ("k", None):
            ((partition, first),) = topic.put_many(frame, key=key).first.items()
            back = topic.partition(partition)[first:].to_pandas(metadata=False)
            pd.testing.assert_frame_equal(back, frame, check_index_type="exact", check_freq=True)


def test_an_error_names_the_row_of_the_frame_that_was_given(log, monkeypatch):
    """Not the row of the part that it was cut into."""
    topic = log.topic("several", partitions=PARTITIONS)
    monkeypatch.setattr("pqlog.frames.ipc.MAX_BYTES", 10_000)
    table = pa.table({"k": list("abcdef"), "c": ["x"] * 4 + ["x" * 20_000, "x"]})
    with pytest.raises(pqlog.EncodeError, match="row 4: "):
        topic.put_many(table, key="k")
    with pytest.raises(pqlog.EncodeError) as raised:
        topic.put_many(pa.table({"k": list("abcdef"), "c": [1, 2, 3, 4, None, 6]}), key="k", ids="c")
    assert (raised.value.index, len(topic)) == (4, 0)


def test_a_stream_is_cut_in_blocks_and_keeps_its_order(log, monkeypatch):
    monkeypatch.setattr(writer, "SEGMENT_ROWS", 10)
    topic = log.topic("several", partitions=PARTITIONS)
    batches = [
        pa.record_batch({"k": [str(n % 7) for n in range(at, at + 13)], "n": range(at, at + 13)})
        for at in range(0, 260, 13)
    ]
    topic.put_many(pa.RecordBatchReader.from_batches(batches[0].schema, batches), key="k")
    assert sorted(message.value["n"] for message in topic) == list(range(260))
    for partition in range(PARTITIONS):
        messages = list(topic.partition(partition))
        assert [message.value["n"] for message in messages] == sorted(message.value["n"] for message in messages)
        assert all(partition_of(message.key, PARTITIONS) == partition for message in messages)


@pytest.mark.parametrize("engine", [lambda: pqlog.open(":memory:"), sparse_log])
@pytest.mark.parametrize("name", [None, "row"])
def test_a_frame_of_which_rows_are_known_comes_back_from_its_partitions_as_if_it_had_been_filtered(engine, name):
    frame = pd.DataFrame(
        {"k": [f"k{n}" for n in range(40)], "n": range(40)}, index=pd.Index([f"r{n}" for n in range(40)], name=name)
    )
    with engine() as log:
        topic = log.topic("several", partitions=PARTITIONS)
        put = topic.put_many(frame.iloc[:10], key="k", ids="n")
        put = topic.put_many(frame, key="k", ids="n")
        assert put.messages == 30
        since = next(reversed(topic)).time
        back = topic.history(since=since).to_pandas(metadata=False)
        equal(back, pd.concat(split(frame.iloc[10:]).values()))


@pytest.mark.parametrize("of", [pa.string_view(), pa.binary_view(), pa.list_(pa.string_view())])
def test_a_pandas_frame_with_views_is_cut_by_key(log, of):
    value = {"string_view": "a", "binary_view": b"a"}.get(str(of), ["a"])
    values = pd.Series(pd.array(pa.array([value, None] * 10, of), dtype=pd.ArrowDtype(of)))
    frame = pd.DataFrame({"k": [str(n) for n in range(20)], "v": values})
    topic = log.topic("several", partitions=PARTITIONS)
    assert len(topic.put_many(frame, key="k").first) == PARTITIONS
    for number, part in split(frame[["k"]]).items():
        back = topic.partition(number).to_pandas(metadata=False)
        assert (back["k"].tolist(), back["v"].dtype) == (part["k"].tolist(), values.dtype)
        assert back["v"].isna().tolist() == [int(k) % 2 == 1 for k in part["k"]]
