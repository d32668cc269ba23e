"""`get(ack_every=)` on every engine: what is done is acknowledged in steps, and however the loop ends."""

import gc
import threading

import pytest

import pqlog
from pqlog.log import Log
from pqlog.store.values import Size
from pqlog.stream import TopicStream
from tests.contract.engines import COUNT


@pytest.fixture
def log(engine):
    log = Log(engine.name, TopicStream.open(engine, "main"))
    log.put_many(range(20))
    return log


def done(log, client="c"):
    """How many messages a client has acknowledged."""
    return len(log) - log.client(client).lag


def test_what_is_done_is_acknowledged_in_steps(log):
    seen = []
    for value in log.get("c", ack_every=6, ack_seconds=60):
        seen.append(done(log))
        assert value == len(seen) - 1
    assert seen == [0] * 6 + [6] * 6 + [12] * 6 + [18] * 2
    assert done(log) == 20


def test_it_is_acknowledged_also_after_some_time(log):
    assert [done(log) for _ in log.get("c", ack_every=1000, ack_seconds=0)] == list(range(20))


def stop(log, how):
    """Leave a loop that is working on its fifth message."""
    reading = log.get("c", ack_every=1000, ack_seconds=60)
    if how == "break":
        for value in reading:
            if value == 4:
                break
    elif how in ("exception", "ctrl-c"):
        error = ValueError if how == "exception" else KeyboardInterrupt
        with pytest.raises(error):
            for value in log.get("c", ack_every=1000, ack_seconds=60):
                if value == 4:
                    raise error
    else:
        values = [next(reading) for _ in range(5)]
        assert values == [0, 1, 2, 3, 4]
        assert done(log) == 0
        if how == "close":
            reading.close()
    del reading
    gc.collect()


@pytest.mark.parametrize("how", ["break", "exception", "ctrl-c", "close", "collected"])
def test_however_a_loop_ends_what_it_was_done_with_is_acknowledged(log, how):
    stop(log, how)
    assert done(log) == 4
    assert list(log.get("c")) == list(range(4, 20))


def test_the_close_of_a_log_acknowledges_what_its_loops_are_done_with(shared, tmp_path):
    first = shared(tmp_path)
    log = Log(first.name, TopicStream.open(first, "main"))
    log.put_many(range(20))
    reading = log.get("c", ack_every=1000, ack_seconds=60)
    assert [next(reading) for _ in range(5)] == [0, 1, 2, 3, 4]
    log.close()
    second = shared(tmp_path)
    with Log(second.name, TopicStream.open(second, "main")) as log:
        assert done(log) == 4
    with pytest.raises(pqlog.ClosedError):
        list(reading)


def test_a_loop_that_waits_has_acknowledged_what_it_was_done_with(log):
    seen = threading.Event()

    def read():
        with pytest.raises(pqlog.ClosedError):
            for value in log.get_blocking("c", ack_every=1000, ack_seconds=60):
                if value == "last":
                    seen.set()

    thread = threading.Thread(target=read)
    thread.start()
    while not log.clients() or done(log) < 20:
        assert thread.is_alive()
    log.put("last")
    assert seen.wait(60)
    while done(log) < 21:
        assert thread.is_alive()
    log.close()
    thread.join(60)
    assert not thread.is_alive()


def test_a_client_that_is_moved_goes_on_there_after_the_next_acknowledgement(log):
    seen = []
    for value in log.get("c", ack_every=5, ack_seconds=60):
        seen.append(value)
        if len(seen) == 3:
            log.client("c").seek(log[-4].offset)
    assert seen == [0, 1, 2, 3, 4, 16, 17, 18, 19]
    assert done(log) == 20


def test_a_client_that_is_deleted_begins_again(log):
    seen = []
    for value in log.get("c", ack_every=5, ack_seconds=60):
        seen.append(value)
        if len(seen) == 3:
            log.client("c").delete()
    assert seen == [0, 1, 2, 3, 4, *range(20)]


def test_a_batch_of_the_client_stops_a_loop_at_its_next_acknowledgement(log):
    reading = log.get("c", ack_every=5, ack_seconds=60)
    seen = [next(reading) for _ in range(3)]
    claim, _ = log.store.client("c").advance(Size(2), "")
    with pytest.raises(pqlog.ClaimedError):
        seen += reading
    assert claim.messages == 2
    assert done(log) == 0


def test_partitions_are_acknowledged_each_as_far_as_it_is_done(engine):
    orders = Log(engine.name, TopicStream.open(engine, "orders", partitions=COUNT))
    orders.put_many([{"n": n, "k": f"{n % 7}"} for n in range(40)], key="k")
    values = []
    for message in orders.get("c", messages=True, ack_every=25, ack_seconds=60):
        values.append((message.partition, message.offset))
        if len(values) == 30:
            break
    assert orders.client("c").lag == 40 - 29
    rest = [(message.partition, message.offset) for message in orders.get("c", messages=True)]
    assert len(rest) == 11
    assert set(values) & set(rest) == {values[-1]}
    for number in range(COUNT):
        mine = [offset for partition, offset in values[:-1] + rest if partition == number]
        assert mine == [message.offset for message in orders.partition(number)]


@pytest.mark.parametrize("wrong", [{"ack_every": 0}, {"ack_every": 1.5}, {"ack_seconds": -1}, {"ack_seconds": "1"}])
def test_steps_are_checked_when_they_are_asked_for(log, wrong):
    with pytest.raises(pqlog.ArgumentError):
        log.get("c", **wrong)
    with pytest.raises(pqlog.ArgumentError):
        log.get_blocking("c", **wrong)
