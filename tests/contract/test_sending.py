"""Puts whose callers do not wait, on every engine: `Store.append_each`, and `send` above it."""

import concurrent.futures
import threading

import pytest

import pqlog
from pqlog import sender
from pqlog.log import Log
from pqlog.store.values import PartitionOffset, Single
from pqlog.stream import TopicStream
from tests.contract.engines import COUNT, one_partition, put, rows, singles


@pytest.fixture
def log(engine):
    return Log(engine.name, TopicStream.open(engine, "main"))


def single(topic, value, key=None, headers=None, id=None):
    return Single(topic, value, key, headers, id)


# below


def test_each_message_is_where_its_outcome_says_with_all_that_belongs_to_it(engine, topic):
    put(topic, singles(b"0"))
    other = one_partition(engine, "other")
    asked = [
        single(topic, b"1"),
        single(other, b"2", "k"),
        single(topic, b"3", "k", '{"a":"b"}'),
        single(topic, b"4", None, '{"c":"d"}'),
        single(other, b"5"),
    ]
    went = engine.append_each(asked)
    assert all(type(one) is PartitionOffset for one in went)
    for of in (topic, other):
        found = {row.offset: (row.value, row.key, row.headers) for row in rows(of) if row.value != b"0"}
        mine = [(one, where) for one, where in zip(asked, went, strict=True) if one.topic is of]
        assert [where.partition for _, where in mine] == [of.info.partition] * len(mine)
        assert list(found) == [where.offset for _, where in mine]
        assert list(found.values()) == [(one.value, one.key, one.headers) for one, _ in mine]
    assert put(topic, singles(b"6"))[0] > went[3].offset


def test_an_id_is_used_once_within_and_between_calls(engine, partitions):
    first, last = partitions[0], partitions[-1]
    went = engine.append_each(
        [single(first, b"1"), single(first, b"2", id="a"), single(first, b"3"), single(last, b"4", id="a")]
    )
    assert went[3] == went[1]
    assert [row.value for row in rows(first)] == [b"1", b"2", b"3"]
    assert [row.offset for row in rows(first)] == [one.offset for one in went[:3]]
    assert first.find_id("a")[0].first == went[1].offset
    again = engine.append_each([single(last, b"5", id="a"), single(last, b"6", id="b")])
    assert again[0] == went[1]
    assert [row.value for row in rows(last)] == [b"6"]
    assert again[1] == PartitionOffset(COUNT - 1, rows(last)[0].offset)
    assert last.find_id("b") == {COUNT - 1: pqlog.Put(again[1].offset, again[1].offset, 1)}


def test_a_message_that_cannot_be_put_fails_no_other(engine, topic):
    gone = one_partition(engine, "gone")
    gone.delete(force=True)
    asked = [single(topic, b"1"), single(gone, b"2"), single(topic, b"3"), single(gone, b"4", id="a")]
    went = engine.append_each(asked)
    assert [type(one) for one in went] == [PartitionOffset, pqlog.UnknownTopicError] * 2
    assert [row.offset for row in rows(topic) if row.value in (b"1", b"3")] == [went[0].offset, went[2].offset]


def test_a_closed_log_puts_none(engine, topic):
    engine.close()
    with pytest.raises(pqlog.ClosedError):
        engine.append_each([single(topic, b"1")])


# above


def test_what_one_thread_sends_and_puts_is_in_the_order_of_its_calls(log):
    futures, expected = [], []
    for n in range(40):
        if n % 10 == 7:
            futures.append((n, log.put(n)))
        elif n % 10 == 9:
            futures.append((n, log.put_many([n]).first))
        else:
            futures.append((n, log.send(n, key="k" if n % 2 else None, headers={"n": f"{n}"} if n % 3 else None)))
        expected.append(n)
    at = {n: one.result(60) if isinstance(one, concurrent.futures.Future) else one for n, one in futures}
    assert [message.value for message in log] == expected
    assert [message.offset for message in log] == [at[n] for n in expected]
    assert all(log[at[n]].headers == ({"n": f"{n}"} if n % 3 else {}) for n in (1, 2, 3, 4))
    assert log[at[1]].key == "k"


def test_threads_that_send_keep_their_order_each(log):
    def work(name):
        for n in range(60):
            log.send([name, n])

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    log.put("last")
    found = [message.value for message in log]
    assert found.pop() == "last"
    assert all([n for name, n in found if name == mine] == list(range(60)) for mine in range(4))


def test_messages_of_a_key_are_in_one_partition_and_in_order(engine):
    orders = Log(engine.name, TopicStream.open(engine, "orders", partitions=COUNT))
    sent = [(n, orders.send({"n": n}, key=f"{n % 5}")) for n in range(50)]
    for n, future in sent:
        at = future.result(60)
        assert orders.partition(at.partition)[at.offset].value == {"n": n}
    for number in range(COUNT):
        values = [message.value["n"] for message in orders.partition(number)]
        assert values == sorted(values)
    if engine.capabilities.ordered_partitions:
        assert [message.value["n"] for message in orders] == list(range(50))


def test_an_error_reaches_its_own_future_alone(log):
    sent = [
        log.send("a"),
        log.send(object()),
        log.send("b", id="once"),
        log.send("c", key=3),
        log.send("d", id="once"),
        log.send("e", headers={"a": 1}),
        log.send("f"),
    ]
    outcomes = [future.exception(60) or future.result() for future in sent]
    assert [type(one) for one in outcomes] == [
        int,
        pqlog.EncodeError,
        int,
        pqlog.ArgumentError,
        int,
        pqlog.ArgumentError,
        int,
    ]
    assert outcomes[4] == outcomes[2]
    assert [message.value for message in log] == ["a", "b", "f"]

    log.topic("gone")
    gone = log.topic("gone")
    gone.store.delete(force=True)
    seen, unseen, good = gone.send(1), gone.send(2), [log.send(n) for n in range(20)]
    assert isinstance(seen.exception(60), pqlog.UnknownTopicError)
    with pytest.raises(pqlog.UnknownTopicError) as caught:
        log.close()
    assert "a message was not put" in caught.value.__notes__[0]
    assert all(future.done() for future in (unseen, *good))
    assert len({future.result() for future in good}) == 20
    log.close()
    with pytest.raises(pqlog.ClosedError):
        log.send(3)


@pytest.fixture
def gate(engine, monkeypatch):
    """Commits wait until it is opened."""
    gate, put_each = threading.Event(), engine.append_each
    gate.began = threading.Event()

    def append_each(some):
        gate.began.set()
        assert gate.wait(60)
        return put_each(some)

    monkeypatch.setattr(engine, "append_each", append_each)
    yield gate
    gate.set()


def test_what_is_cancelled_before_its_turn_is_not_put(log, gate):
    first = log.send("first")
    assert gate.began.wait(60)
    second, third = log.send("second"), log.send("third")
    assert second.cancel()
    assert not first.cancel()
    gate.set()
    third.result(60)
    assert not third.cancel()
    assert [message.value for message in log] == ["first", "third"]


def test_a_callback_may_put_and_send(log, gate):
    inner, threads = [], []

    def callback(future):
        threads.append(threading.current_thread().name)
        inner.append(log.put(["put", future.result()]))
        inner.append(log.send(["sent", future.result()]))

    first = log.send("a")
    first.add_done_callback(callback)
    second = log.send("b")
    gate.set()
    assert second.result(60) > first.result(60)
    log.put("c")
    assert inner[1].result(60) > inner[0]
    assert threads == ["pqlog-send"]
    assert {str(message.value)[:7] for message in log} == {"a", "b", "c", "['put',", "['sent'"}


def test_a_bounded_number_is_under_way(log, gate, monkeypatch):
    monkeypatch.setattr(sender, "MOST", 10)
    sent = []
    thread = threading.Thread(target=lambda: [sent.append(log.send(n)) for n in range(25)])
    thread.start()
    assert gate.began.wait(60)
    thread.join(0.3)
    assert thread.is_alive()
    assert len(sent) == 10
    gate.set()
    thread.join(60)
    assert [future.result(60) for future in sent] == [message.offset for message in log]
    assert [message.value for message in log] == list(range(25))


def test_large_values_are_bounded_by_their_size(log, gate, monkeypatch):
    monkeypatch.setattr(sender, "MOST_BYTES", 100_000)
    sent = []
    thread = threading.Thread(target=lambda: [sent.append(log.send(f"{n}" * 30_000)) for n in range(9)])
    thread.start()
    assert gate.began.wait(60)
    thread.join(0.3)
    assert thread.is_alive()
    assert len(sent) == 3
    gate.set()
    thread.join(60)
    assert [future.result(60) for future in sent] == [message.offset for message in log]
    assert log.send("x" * 200_000).result(60) > sent[-1].result()
