"""A history of a key has all of its messages, also where somebody else chose their partitions."""

import itertools

import pandas as pd
import pytest

import pqlog
from pqlog.stream import TopicStream
from tests.messages import values
from tests.promises.test_ship import in_a_file, sparse

KEYS = [f"order-{number}" for number in range(7)]


def fill(topic, count=210):
    """Put single messages and frames with keys."""
    topic.put_many(({"key": KEYS[n % 7], "n": n} for n in range(count)), key="key")
    frame = pd.DataFrame({"key": [KEYS[n % 7] for n in range(count)], "n": range(count, 2 * count)})
    topic.put_many(frame, key="key")


def check(topic, key, count=60):
    """All ways to read a key have all of its messages."""
    everything = topic.to_pandas()
    wanted = sorted(everything[everything["key"] == key]["n"])
    assert len(wanted) == count
    history = topic.history(key=key)
    assert sorted(message.value["n"] for message in history) == wanted
    assert [message.value["n"] for message in reversed(history)] == [message.value["n"] for message in history][::-1]
    assert sorted(value["n"] for value in history.values()) == wanted
    assert sorted(history.to_pandas()["n"]) == sorted(history.to_arrow()["n"].to_pylist()) == wanted
    assert sorted(history.to_polars()["n"]) == wanted
    assert len(history.head(3)) == len(history.tail(3)) == 3
    assert [message.value["n"] for message in history.latest()] == [message.value["n"] for message in history][-1:]
    assert sorted(history.live().frame["n"]) == wanted
    explorer = topic.explore()
    explorer.search(f"key = {key}")
    assert sorted(explorer.frame["n"]) == wanted
    assert repr(history)


@pytest.mark.parametrize("source", [in_a_file, sparse])
@pytest.mark.parametrize("target", [in_a_file, sparse])
def test_a_copy_into_more_partitions_is_read_by_its_keys(source, target, tmp_path):
    with source(tmp_path, "a.db") as log, target(tmp_path, "b.db") as copy:
        fill(log.topic("orders", partitions=3))
        orders = copy.topic("orders", partitions=8)
        orders.put({"key": KEYS[0], "n": -1}, key=KEYS[0])
        log.ship(copy)
        for key, count in zip(KEYS, [61, *[60] * 6], strict=True):
            check(orders, key, count)
        log.topic("orders").put({"key": KEYS[1], "n": 10_000}, key=KEYS[1])
        live = orders.history(key=KEYS[1]).live()
        log.ship(copy)
        assert live.refresh()["n"].max() == 10_000


def test_a_history_knows_of_a_copy_that_comes_later(tmp_path):
    with pqlog.open(tmp_path / "a.db") as log, pqlog.open(tmp_path / "b.db") as copy:
        orders = copy.topic("orders", partitions=8)
        fill(orders, 21)
        histories = [orders.history(key=key) for key in KEYS]
        before = [values(history) for history in histories]
        fill(log.topic("orders", partitions=3))
        with pqlog.open(tmp_path / "b.db") as other:
            log.ship(other)
        for found, history in zip(before, histories, strict=True):
            assert len(values(history)) == len(found) + 60


@pytest.mark.parametrize("source", [in_a_file, sparse])
def test_only_one_partition_is_read_where_pqlog_chose_it(source, tmp_path):
    """What is put, put through a batch, and copied from such a topic into as many partitions."""
    with source(tmp_path, "a.db") as log, pqlog.open(tmp_path / "b.db") as copy:
        orders, into = log.topic("orders", partitions=3), log.topic("into", partitions=5)
        fill(orders)
        orders.put({"key": KEYS[0], "n": -1}, key=KEYS[0], id="x")
        for batch in orders.batches("etl"):
            batch.put_many(batch.to_pandas(metadata=False), topic="into", key="key")
            batch.put(1, topic="into", key="k")
            for message in itertools.islice(batch.messages(), 3):
                batch.reject(message, "no")
        log.ship(copy, topics=["orders"])
        copied = copy.topic("orders")
        rejected = log.topic("orders.rejected")
        for topic in (orders, into, rejected, copied):
            assert topic.stream.places_keys()
            assert {message.key: len({one.partition for one in topic if one.key == message.key}) for message in topic}
            frame = topic.to_pandas()
            assert frame.groupby("_key")["_partition"].nunique().max() == 1
        selection = orders.history(key=KEYS[0])._selection()
        assert not selection.topic.is_merged


def test_dead_letters_are_read_by_their_keys(tmp_path):
    with pqlog.open(tmp_path / "a.db") as log, pqlog.open(tmp_path / "b.db") as copy:
        fill(log.topic("orders", partitions=3))
        orders = copy.topic("orders", partitions=8)
        log.ship(copy)
        for batch in orders.batches("etl"):
            for message in batch.messages():
                batch.reject(message, "all")
        for batch in orders.client("twice").batches(attempts=1):
            with pytest.raises(ZeroDivisionError), batch:
                raise ZeroDivisionError
        list(orders.client("twice").batches(attempts=1))
        for name in ("orders.rejected", "orders.dead"):
            check(copy.topic(name), KEYS[2])


def test_what_is_salvaged_or_backed_up_is_read_by_its_keys(tmp_path):
    with pqlog.open(tmp_path / "a.db") as log, pqlog.open(tmp_path / "b.db") as copy:
        fill(log.topic("orders", partitions=3))
        copy.topic("orders", partitions=8)
        fill(copy.topic("ours", partitions=4))
        log.ship(copy)
        copy.backup(tmp_path / "backup.db")
    pqlog.salvage(tmp_path / "b.db", tmp_path / "salvaged.db")
    for name in ("backup.db", "salvaged.db"):
        with pqlog.open(tmp_path / name) as log:
            check(log.topic("orders"), KEYS[3])
            check(log.topic("ours"), KEYS[3])
            assert log.topic("ours").stream.places_keys()
            assert not log.topic("orders").stream.places_keys()
            log.rename_topic("orders", "other")
            check(log.topic("other"), KEYS[3])
            log.delete_topic("other", force=True)
            assert log.verify() == []


def test_keys_of_a_log_that_says_nothing_are_sought_everywhere(tmp_path, monkeypatch):
    monkeypatch.setattr(TopicStream, "places_keys", lambda self: False)
    with sparse(tmp_path) as log:
        fill(log.topic("orders", partitions=3))
        check(log.topic("orders"), KEYS[4])
