"""Dead letters are what was put, by type and value, for a single message or a whole batch."""

import datetime as dt
import math
from decimal import Decimal

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import pqlog
from tests import seams
from tests.messages import is_same

WHEN = dt.datetime(2026, 11, 25, 12, 0, 0, 1, tzinfo=dt.UTC)

FRAMES = {
    "ns": pd.DataFrame({"a": pd.Series([1577836800000000001, 5]).astype("datetime64[ns]")}),
    "ns of a zone": pd.DataFrame({"a": pd.Series([1577836800000000001, 5]).astype("datetime64[ns, Europe/Prague]")}),
    "timedelta": pd.DataFrame({"a": np.array([5, 7], "timedelta64[ns]")}),
    "floats": pd.DataFrame({"a": [np.inf, -0.0]}),
    "float32": pd.DataFrame({"a": np.array([0.1, np.nan], "float32")}),
    "decimals": pd.DataFrame({"a": [Decimal("1.10"), Decimal("2.00")]}),
    "dates": pd.DataFrame({"a": [dt.date(2020, 1, 1), dt.date(9999, 12, 31)]}),
    "bytes": pd.DataFrame({"a": [b"\xff", b""]}),
    "categories": pd.DataFrame({"a": pd.Categorical(["x", "y"], categories=["y", "z", "x"], ordered=True)}),
    "nullable": pd.DataFrame({"a": pd.array([2**53 + 1, None], "Int64"), "b": pd.array([True, None], "boolean")}),
    "nested": pd.DataFrame({"a": [{"b": [1, "x", None]}, [1.5]], "c": [2**70, "mixed"]}),
    "named index": pd.DataFrame({"a": [1, 2]}, index=pd.Index(["x", "y"], name="id")),
    "arrow": pd.DataFrame({"a": pd.Series(["x", None], dtype=pd.ArrowDtype(pa.string()))}),
}


def put_aside(log, which=lambda message: True):
    """Reject messages of all batches; returns what they were."""
    rejected = []
    for batch in log.batches("c", size=3):
        for message in batch.messages():
            if which(message):
                batch.reject(message, "why")
                rejected.append(message)
    return rejected


def check(topic, rejected):
    found = list(topic)
    assert [message.key for message in found] == [message.key for message in rejected]
    assert all(is_same(one.value, other.value) for one, other in zip(found, rejected, strict=True))
    assert [int(message.headers["pqlog-offset"]) for message in found] == [message.offset for message in rejected]
    assert all(one.headers.items() >= other.headers.items() for one, other in zip(found, rejected, strict=True))
    return found


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES.keys())
def test_messages_of_a_frame_are_put_aside_as_they_are(log, frame):
    log.put_many(frame, headers={"own": "h"})
    rejected = put_aside(log)
    assert len(rejected) == 2
    assert all(message.headers["pqlog-reason"] == "why" for message in check(log.topic("main.rejected"), rejected))
    was, now = log.to_pandas(), log.topic("main.rejected").to_pandas()
    pd.testing.assert_frame_equal(now.drop(columns="_time"), was.drop(columns="_time"))


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES.keys())
def test_a_part_of_a_frame_goes_to_the_dead_letters_as_it_is(log, frame):
    log.put_many(frame)
    put = [message.value for message in log]
    next(log.batches("c", size=1)).release()
    assert [batch.first for batch in log.batches("c", size=1, attempts=1)] == [2]
    dead = log.topic("main.dead")
    assert is_same([message.value for message in dead], put[:1])
    was, now = log[:2].to_pandas(), dead.to_pandas()
    pd.testing.assert_frame_equal(now.drop(columns="_time"), was.drop(columns="_time"))


@pytest.mark.parametrize("key", [None, "k"])
def test_what_is_chosen_of_many_is_put_aside_with_its_key_and_headers(log, key):
    log.put({"a": 1, "k": "single"}, key="single", headers={"h": "1"})
    log.put_many(pd.DataFrame({"a": [0.5, np.inf, np.nan, 2.0], "k": list("wxyz")}), key=key, headers={"h": "2"})
    log.put_many([{"a": None, "k": "m"}, {"a": 2**70, "k": "n"}], key=key)
    rejected = put_aside(log, lambda message: message.offset in (1, 3, 4, 7))
    assert [message.offset for message in rejected] == [1, 3, 4, 7]
    found = check(log.topic("main.rejected"), rejected)
    assert found[1].key == (None if key is None else "x")
    assert found[1].value["a"] == math.inf


def stored(topic):
    """The bytes of a topic's messages."""
    return [row.value for row in seams.rows(topic)]


class Points:
    """A user's codec that encodes the same value differently each time."""

    name = "points"
    calls = 0

    def encode(self, value):
        Points.calls += 1
        return b"%d;%d,%d" % (Points.calls, *value)

    def decode(self, data):
        return tuple(map(int, data.partition(b";")[2].split(b",")))


class Order(msgspec.Struct):
    n: int
    at: dt.datetime


@pytest.mark.parametrize(
    ("codec", "values"),
    [
        ("json", [{"n": 2**70}, [1, None, "x"], 0.1, -0.0]),
        ("msgpack", [b"\xff", math.inf, math.nan, {1: b""}, WHEN]),
        ("pickle", [{1, 2}, Decimal("1.10"), (1, [2]), WHEN]),
        ("bytes", [b"", b"\xff\n"]),
        (Points(), [(1, 2), (3, 4)]),
    ],
    ids=["json", "msgpack", "pickle", "bytes", "own"],
)
def test_single_messages_are_put_aside_as_their_bytes(path, codec, values):
    with pqlog.open(path, codec=codec) as log:
        log.put_many(values, headers={"own": "h"})
        rejected = put_aside(log)
        aside = log.topic("main.rejected", codec=codec)
        check(aside, rejected)
        assert stored(aside) == stored(log)


def test_values_of_a_typed_topic_are_put_aside_as_their_bytes(path):
    with pqlog.open(path, type=Order) as log:
        log.put(Order(1, WHEN))
        for batch in log.batches("c"):
            (message,) = batch.messages()
            assert message.value == Order(1, WHEN)
            batch.reject(message, "why")
        assert stored(log.topic("main.rejected")) == stored(log)


def test_a_topic_of_another_codec_does_not_take_what_it_would_change(log):
    log.topic("bytes", codec="bytes")
    log.put({"n": 1})
    for batch in log.batches("c"):
        for message in batch.messages():
            with pytest.raises(pqlog.CodecMismatchError, match="bytes"):
                batch.reject(message, "why", topic="bytes")
            batch.reject(message, "why")
    assert [message.value for message in log.topic("main.rejected")] == [{"n": 1}]


def test_a_message_that_was_trimmed_meanwhile_cannot_be_put_aside(log):
    log.put_many(range(4))
    batch = log.client("c").next_batch()
    message = next(batch.messages())
    log.trim(before=3, force=True)
    with pytest.raises(pqlog.TrimmedError, match="1"):
        batch.reject(message, "why")
