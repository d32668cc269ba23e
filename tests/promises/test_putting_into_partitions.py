"""Puts into a topic of several partitions: a key is in one of them, in order; all or nothing over all of them."""

import collections
import datetime as dt
import random
import tempfile

import pandas as pd
import pyarrow as pa
import pytest

import pqlog
from pqlog import partitioning, producer
from pqlog.frames import writer
from pqlog.partitioning import partition_of
from pqlog.testing import sparse_log
from tests.promises.test_keys import TEXTS

PARTITIONS = 4


@pytest.fixture(params=["file", "sparse"])
def log(request, tmp_path):
    with pqlog.open(tmp_path / "events.db") if request.param == "file" else sparse_log() as log:
        yield log


@pytest.fixture
def orders(log):
    return log.topic("orders", codec="msgpack", partitions=PARTITIONS)


def parts(topic):
    """The messages of each partition."""
    return [list(topic.partition(number)) for number in range(topic.partitions)]


def values(topic):
    """The values of each partition."""
    return [[message.value for message in part] for part in parts(topic)]


def is_empty(topic):
    return parts(topic) == [[]] * topic.partitions


def by_key(pairs):
    """The values of keys and values by the partition of the key."""
    expected = [[] for _ in range(PARTITIONS)]
    for key, value in pairs:
        expected[partition_of(key, PARTITIONS)].append(value)
    return expected


# single messages


def test_a_message_goes_into_the_partition_of_its_key(orders):
    keys = [f"order-{n % 17}" for n in range(60)]
    puts = [orders.put(n, key=key) for n, key in enumerate(keys)]
    assert [put.partition for put in puts] == [partition_of(key, PARTITIONS) for key in keys]
    assert values(orders) == by_key(zip(keys, range(60), strict=True))
    assert all(orders.partition(put.partition)[put.offset].value == n for n, put in enumerate(puts))
    assert type(puts[0]) is pqlog.PartitionOffset


def test_an_empty_key_is_a_key(orders):
    assert {orders.put(n, key="").partition for n in range(300)} == {partition_of("", PARTITIONS)}


def test_without_a_key_runs_of_messages_go_round(orders, monkeypatch):
    monkeypatch.setattr(partitioning, "RUN", 5)
    found = [orders.put(n).partition for n in range(5 * PARTITIONS * 2)]
    begin = found[0]
    assert found == [(begin + n // 5) % PARTITIONS for n in range(len(found))]


def test_open_topics_do_not_all_begin_with_the_same_partition(log):
    assert len({log.topic("orders", partitions=PARTITIONS).put(n).partition for n in range(60)}) == PARTITIONS


def test_an_id_is_one_of_the_topic_whatever_the_key(orders):
    first = orders.put("first", key="a", id="one")
    assert [orders.put("again", key=key, id="one") for key in ("a", "b", "c", "d", None)] == [first] * 5
    put = orders.put_many([{"k": key} for key in "abcdef"], key="k", id="many")
    assert orders.put("again", key="f", id="many") == min(put.first.items())
    assert sum(map(len, parts(orders))) == 7


# many


def test_put_many_says_where_its_messages_went_in_each_partition(orders):
    pairs = [(f"k{n % 9}", n) for n in range(300)]
    put = orders.put_many([{"k": key, "n": n} for key, n in pairs], key="k")
    found = parts(orders)
    assert [[message.value["n"] for message in part] for part in found] == by_key(pairs)
    assert put.messages == 300
    assert put.first == {number: part[0].offset for number, part in enumerate(found) if part}
    assert put.last == {number: part[-1].offset for number, part in enumerate(found) if part}
    assert list(put.first) == sorted(put.first)
    (time,) = {message.time for part in found for message in part}
    assert orders.put(1, key="a").offset
    assert max(message.time for part in parts(orders) for message in part) > time


def test_put_many_of_one_key_names_one_partition_only(orders):
    number = partition_of("a", PARTITIONS)
    put = orders.put_many([{"k": "a"}] * 3, key="k")
    assert (list(put.first), list(put.last), put.messages) == ([number], [number], 3)


def test_put_many_of_nothing(orders):
    nothing = pqlog.Put({}, {}, 0)
    assert orders.put_many([]) == orders.put_many([], id="empty") == orders.put_many(iter(()), ids="n") == nothing
    assert orders.put_many(pd.DataFrame({"k": []}), key="k") == nothing
    assert orders.put_many(["ignored"], id="empty") == nothing
    assert is_empty(orders)


@pytest.mark.parametrize(("value", "key"), TEXTS, ids=repr)
def test_a_key_of_every_kind_leads_to_the_partition_of_its_text(log, value, key):
    topic = log.topic("anything", codec="pickle", partitions=PARTITIONS)
    put = topic.put_many([{"k": value}], key="k")
    (number,) = put.first
    assert key is None or number == partition_of(key, PARTITIONS)
    assert topic.partition(number)[put.first[number]].key == key


def test_messages_without_a_key_among_others_stay_together(orders):
    orders.put_many([{"k": None if n % 2 else "a", "n": n} for n in range(10)], key="k")
    orders.put_many([{"n": n} for n in range(10, 20)], key="k")
    without = [[m.value["n"] for m in part if m.key is None] for part in parts(orders)]
    assert sorted(n for part in without for n in part) == [1, 3, 5, 7, 9, *range(10, 20)]
    assert all(part == sorted(part) for part in without)
    assert sum(map(bool, without)) == 1


def test_values_without_a_key_go_round_by_chunks(orders, monkeypatch):
    monkeypatch.setattr(producer, "CHUNK", 200)
    orders.put_many(range(200 * PARTITIONS))
    assert sorted(values(orders)) == [list(range(at, at + 200)) for at in range(0, 200 * PARTITIONS, 200)]


def rows(numbers):
    return [{"order": n, "k": f"k{n % 5}"} for n in numbers]


@pytest.mark.parametrize("make", [list, pd.DataFrame, pa.Table.from_pylist], ids=["values", "pandas", "arrow"])
def test_ids_are_unique_in_the_topic(orders, make):
    """Also where the same id comes again with another key."""
    assert orders.put_many(make(rows(range(50))), key="k", ids="order").messages == 50
    before = parts(orders)
    assert orders.put_many(make(rows(range(50))), key="k", ids="order") == pqlog.Put({}, {}, 0)
    others = [row | {"k": "another"} for row in rows(range(45, 55))]
    put = orders.put_many(make(others + others), key="k", ids="order")
    number = partition_of("another", PARTITIONS)
    assert (put.messages, list(put.first)) == (5, [number])
    after = parts(orders)
    assert [m.value["order"] for m in after[number][len(before[number]) :]] == list(range(50, 55))
    counts = collections.Counter(message.value["order"] for part in after for message in part)
    assert counts == dict.fromkeys(range(55), 1)
    assert orders.put("again", id="7").offset == next(m.offset for part in after for m in part if m.value["order"] == 7)


def test_a_known_id_of_a_call_gives_the_same_answer(orders):
    put = orders.put_many(rows(range(50)), key="k", id="backfill")
    assert orders.put_many((1 / 0 for _ in "x"), key="k", id="backfill") == put
    assert sum(map(len, parts(orders))) == 50


def test_a_cursor_goes_with_the_messages_of_all_partitions(log, orders):
    orders.put_many(rows(range(50)), key="k", cursor=("source", 1, None))
    with pytest.raises(pqlog.CursorError):
        orders.put_many(rows(range(50, 90)), key="k", cursor=("source", 2, None))
    assert (sum(map(len, parts(orders))), log.cursor("source")) == (50, 1)
    assert orders.put_many([], cursor=("source", 2, 1)) == pqlog.Put({}, {}, 0)
    assert log.cursor("source") == 2


def failing():
    yield from rows(range(40))
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (lambda: [*rows(range(40)), {"k": "a", "order": object()}], pqlog.EncodeError),
        (lambda: [*rows(range(40)), {"k": 1.5}], pqlog.EncodeError),
        (lambda: pd.DataFrame({"k": ["a", "b", 1.5] * 9}), pqlog.EncodeError),
        (lambda: pa.table({"k": ["a", "b"], "c": pa.array([1, 1], pa.int64()).view(pa.date64())}), pqlog.EncodeError),
        (failing, ZeroDivisionError),
    ],
    ids=["a value", "a key", "a key of a frame", "a column", "an exception of the caller"],
)
def test_what_cannot_be_encoded_puts_nothing_anywhere(orders, monkeypatch, given, error):
    monkeypatch.setattr(producer, "CHUNK", 7)
    monkeypatch.setattr(writer, "SEGMENT_ROWS", 2)
    with pytest.raises(error):
        orders.put_many(given(), key="k", id="once")
    assert is_empty(orders)


def test_an_error_says_which_value_it_was_and_no_offset(orders):
    with pytest.raises(pqlog.EncodeError) as raised:
        orders.put_many([*rows(range(5)), {"k": object()}], key="k")
    assert (raised.value.index, raised.value.offset) == (5, None)
    with pytest.raises(pqlog.EncodeError) as raised:
        orders.put(object(), key="a")
    assert raised.value.offset is None


@pytest.mark.parametrize("make", [iter, pd.DataFrame], ids=["values", "a frame"])
def test_more_than_memory_shall_hold_waits_in_one_file(orders, monkeypatch, make):
    """The bound is one for all partitions."""
    made, kept = [], []
    real_file, real_keep = tempfile.TemporaryFile, producer.Spool.keep
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **how: made.append(real_file(**how)) or made[-1])
    monkeypatch.setattr(
        producer.Spool, "keep", lambda self, item: kept.append((item, real_keep(self, item))) or kept[-1][1]
    )
    monkeypatch.setattr(producer, "MEMORY_BYTES", 4_000)
    monkeypatch.setattr(producer, "CHUNK", 300)
    monkeypatch.setattr(writer, "SEGMENT_ROWS", 300)
    numbers = random.Random(1).sample(range(5000), 5000)
    put = orders.put_many(make(rows(numbers)), key="k", ids="order")
    assert put.messages == 5000
    assert [[value["order"] for value in part] for part in values(orders)] == by_key((f"k{n % 5}", n) for n in numbers)
    assert orders.put_many(make(rows(numbers)), key="k", ids="order").messages == 0
    assert len(made) == 2
    assert all(file.closed for file in made)
    assert 0 < sum(item is found for item, found in kept) < len(kept) / 2


# with the acknowledgement of a batch


@pytest.fixture
def stage(log, orders):
    """A stage of five messages, whose outputs go into `orders`."""
    log.put_many(range(5))
    return log.client("stage")


def test_outputs_go_into_the_partitions_of_their_keys_with_the_acknowledgement(stage, orders):
    for batch in stage.batches(size=3):
        one = batch.put("one", topic="orders", key="b")
        many = batch.put_many(rows(range(20)), topic="orders", key="k")
        frame = batch.put_many(pd.DataFrame(rows(range(20, 40))), topic="orders", key="k", ids="order")
        nothing = batch.put_many([], topic="orders")
        if batch.number == 1:
            assert is_empty(orders)
    assert list(one.put.first) == [partition_of("b", PARTITIONS)]
    assert many.put.messages == 20
    assert set(many.put.first) == {partition_of(f"k{n}", PARTITIONS) for n in range(5)}
    assert frame.put == nothing.put == pqlog.Put({}, {}, 0)  # the ids are known from the first batch
    found = parts(orders)
    for number in many.put.first:
        span = range(many.put.first[number], many.put.last[number] + 1)
        some = [message.value for message in found[number] if message.offset in span]
        assert some == [row for row in rows(range(20)) if partition_of(row["k"], PARTITIONS) == number]
    assert sum(map(len, found)) == 2 + 40 + 20


def test_outputs_of_a_batch_that_is_released_are_nowhere(stage, orders):
    with pytest.raises(ZeroDivisionError):
        for batch in stage.batches():
            staged = batch.put_many(rows(range(20)), topic="orders", key="k")
            with batch:
                1 / 0
    assert is_empty(orders)
    with pytest.raises(pqlog.ArgumentError, match="dropped"):
        _ = staged.put


def test_outputs_without_a_key_stay_together_within_a_batch(stage, orders):
    for batch in stage.batches():
        for value in batch:
            batch.put(value, topic="orders")
    assert sorted(values(orders)) == [[], [], [], [0, 1, 2, 3, 4]]


def test_a_stage_from_partitions_to_partitions_keeps_the_order_of_each_key(log, orders):
    pairs = [(f"k{n % 11}", n) for n in range(200)]
    orders.put_many([{"k": key, "n": n} for key, n in pairs], key="k")
    log.topic("clean", codec="msgpack", partitions=PARTITIONS)
    seen = set()
    for batch in orders.client("stage").batches(size=7):
        assert (batch.token.split("/")[2], batch.partition) == (str(batch.partition), next(batch.messages()).partition)
        assert batch.token not in seen
        seen.add(batch.token)
        batch.put_many(list(batch), topic="clean", key="k")
    assert [[value["n"] for value in part] for part in values(log.topic("clean"))] == by_key(pairs)


def test_a_stage_can_put_into_any_partition_of_the_topic_that_it_reads(orders):
    orders.put_many([{"k": f"k{n}", "n": n} for n in range(20)], key="k")
    for batch in orders.client("stage").batches():
        for value in batch:
            if value["n"] < 20:
                batch.put({"k": "x", "n": 100 + value["n"]}, topic="orders", key="x")
    counts = [len(part) for part in parts(orders)]
    assert sum(counts) == 40
    assert {message.partition for message in orders if message.value["n"] >= 100} == {partition_of("x", PARTITIONS)}


# dead letters


def test_a_rejected_message_goes_into_the_partition_that_it_came_from(log, orders):
    orders.put_many(pd.DataFrame({"k": [f"k{n}" for n in range(12)], "at": [dt.date(2026, 1, 1)] * 12}), key="k")
    orders.put_many([{"k": f"k{n}"} for n in range(12)], key="k", headers={"source": "till"})
    orders.put("no key")
    where = {}
    for batch in orders.client("stage").batches(size=5):
        for message in batch.messages():
            batch.reject(message, "no good")
            where[message.partition, message.offset] = message
    letters = log.topic("orders.rejected")
    assert (letters.partitions, letters.codec, len(letters)) == (PARTITIONS, "msgpack", 25)
    for letter in letters:
        original = where.pop((int(letter.headers["pqlog-partition"]), int(letter.headers["pqlog-offset"])))
        assert (letter.value, letter.key, letter.partition) == (original.value, original.key, original.partition)
        assert {
            name: text for name, text in letter.headers.items() if not name.startswith("pqlog-")
        } == original.headers
        assert (letter.headers["pqlog-topic"], letter.headers["pqlog-reason"]) == ("orders", "no good")
    assert not where


def test_a_batch_that_fails_goes_to_the_dead_letters_of_its_partition(log, orders):
    orders.put_many(rows(range(20)), key="k")
    client = orders.client("stage")
    while (batch := client.next_batch(attempts=2, dead_letter="orders.dead")) is not None:
        batch.release(ValueError("no"))
    letters = log.topic("orders.dead")
    assert values(letters) == values(orders)
    assert {message.headers["pqlog-reason"] for message in letters} == {"ValueError: no"}


def test_dead_letters_of_one_partition_have_no_number_of_it(log):
    log.put("a")
    for batch in log.batches("stage"):
        for message in batch.messages():
            batch.reject(message, "no")
    assert "pqlog-partition" not in log.topic("main.rejected")[log.topic("main.rejected").first].headers


@pytest.mark.parametrize("made", [1, 3])
def test_a_topic_with_other_partitions_takes_no_dead_letters(log, orders, made):
    log.topic("letters", codec="msgpack", partitions=made)
    orders.put("a", key="k")
    batch = orders.client("stage").next_batch()
    (message,) = batch.messages()
    with pytest.raises(
        pqlog.PartitionsError, match=f"'letters' has {made} partition.* 'orders'.* has {PARTITIONS}: a dead"
    ):
        batch.reject(message, "no", topic="letters")
    batch.reject(message, "no", topic="others")
    batch.ack()
    assert len(log.topic("others")) == 1


def test_a_message_of_another_partition_is_not_of_the_batch(orders):
    orders.put_many([{"k": key} for key in "abcdefgh"], key="k")
    client = orders.client("stage")
    one, other = client.next_batch(), client.next_batch()
    assert one.partition != other.partition
    (message, *_) = other.messages()
    with pytest.raises(pqlog.ArgumentError, match="a message of this batch"):
        one.reject(message, "no")


def test_a_batch_shows_its_partition(orders, log):
    orders.put("a", key="a")
    assert f"topic 'orders', partition {partition_of('a', PARTITIONS)}: " in repr(orders.client("c").next_batch())
    log.put("a")
    batch = log.client("c").next_batch()
    assert ", partition " not in repr(batch)
    assert (batch.partition, batch.token.split("/")[2]) == (0, "0")
