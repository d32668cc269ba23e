"""What an open log keeps is bounded, and is given back: readers, producers, and what is remembered of a topic."""

import gc
import os
import signal
import threading
import time

import pytest
from confluent_kafka import KafkaError, KafkaException

import pqlog
from pqlog.store.kafka import index as indexes
from pqlog.store.kafka import merged
from pqlog.store.kafka.fencing import Fenced
from pqlog.store.kafka.index import Index
from pqlog.store.kafka.reader import Reader
from pqlog.store.kafka.records import ROWS
from pqlog.store.values import Span
from tests.cluster.logs import opened
from tests.messages import values
from tests.processes import wait_until


def failure():
    return KafkaException(KafkaError(KafkaError._STATE, "broken"))


# readers


@pytest.fixture
def read(cluster_url):
    """A log that was read from, read-only, and its store."""
    with opened(cluster_url) as log:
        log.put_many([1, 2, 3])
    with pqlog.open(cluster_url, readonly=True) as log:
        yield log, log.stream.log


def test_a_forked_child_closes_a_log_that_is_read(read):
    log, _ = read
    assert values(log) == [1, 2, 3]
    child = os.fork()
    if child == 0:
        try:
            log.close()
        finally:
            os._exit(0)
    until = time.monotonic() + 10
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the child waits for threads that it does not have")
        time.sleep(0.05)
    assert values(log) == [1, 2, 3]


def closings(monkeypatch):
    """The readers that are closed from now on."""
    closed, close = [], Reader.close
    monkeypatch.setattr(Reader, "close", lambda reader: (closed.append(reader), close(reader)))
    return closed


def test_a_reader_that_cannot_begin_is_closed(read, monkeypatch):
    log, _ = read
    closed = closings(monkeypatch)
    monkeypatch.setattr(Reader, "_assign", lambda reader: (_ for _ in ()).throw(failure()))
    with pytest.raises(KafkaException):
        values(log)
    assert len(closed) == 1


def test_a_reader_that_cannot_be_paused_is_closed_and_what_it_read_is_there(read, monkeypatch):
    log, store = read
    closed = closings(monkeypatch)
    monkeypatch.setattr(Reader, "_pause", lambda reader, number, pause: (_ for _ in ()).throw(failure()))
    assert values(log) == [1, 2, 3]
    assert closed
    assert not set(store.readers._idle) & set(closed)


def test_one_reader_that_cannot_be_closed_leaves_none_open(read):
    _, store = read
    pool, closed = store.readers, []

    class Consumer:
        def close(self):
            closed.append(self)
            raise failure()

    for _ in range(3):
        reader = Reader(store.cluster, False)
        reader._consumer.close()
        reader._consumer = Consumer()
        pool._idle.append(reader)
    pool._tick()
    assert len(closed) == 3


# producers


def threads():
    return len(os.listdir("/proc/self/task"))


def test_a_closed_log_gives_its_connections_back(cluster_url):
    before, stores = threads(), []
    for _ in range(2):
        with opened(cluster_url) as log:
            log.put(1)
            log.put_many([2])
            for batch in log.batches("c", size=10):
                batch.ack()
            stores.append(log.stream.log)
            assert stores[-1].clock.now() > 0
    wait_until(lambda: gc.collect() is not None and threads() <= before + 3, 20)  # of ours, which every log uses


def test_who_cannot_create_a_client_for_others_is_told_so(stores, monkeypatch):
    here = stores()
    (topic,) = here.topic("t", "json", 1)
    monkeypatch.setattr(here.cluster, "_timeout_s", 0.5)

    def fenced(*_, **__):
        raise Fenced("another process took over")

    monkeypatch.setattr(here, "_change_clients", fenced)
    began = time.monotonic()
    with pytest.raises(Fenced):
        here.join([topic.client("c")])
    assert time.monotonic() - began < 10


# what is remembered


def test_one_long_stretch_of_an_index_is_bounded(monkeypatch):
    monkeypatch.setattr(indexes, "MOST_RUNS", 100)
    index = Index()
    for record in range(0, 2000, 2):
        index.add(record, record + 2, [record], [5])
        assert sum(len(known.starts) for known in index._stretches) <= 100
        assert index.count(Span(record * ROWS, (record + 2) * ROWS)) == 5
    (begin, stop), *others = index.missing(0, 2000)
    assert (begin, others) == (0, [])
    assert index.count(Span(stop * ROWS, 2000 * ROWS)) == 5 * (2000 - stop) // 2
    assert index.from_end(5, Span(stop * ROWS, 2000 * ROWS)) == 1998 * ROWS
    assert index.first(stop * ROWS) == (stop * ROWS, stop * ROWS)


@pytest.mark.parametrize("order", [range(0, 600, 3), range(597, -1, -3), [*range(300, 600, 3), *range(0, 300, 3)]])
@pytest.mark.parametrize("gap", [0, 1])
def test_what_was_read_last_is_known_whatever_is_forgotten(monkeypatch, order, gap):
    monkeypatch.setattr(indexes, "MOST_RUNS", 20)
    index = Index()
    for record in order:
        index.add(record, record + 3 - gap, [record, record + 1], [2, 3])
        assert index.count(Span(record * ROWS, (record + 3) * ROWS)) == 5
        assert sum(len(known.starts) for known in index._stretches) <= 20
        known = [one for one in range(600) if not index.missing(one, one + 1)]
        counts = {one: (2, 3, 0)[one % 3] for one in known}
        assert sum(index.count(Span(one * ROWS, (one + 1) * ROWS)) for one in known) == sum(counts.values())


def test_places_that_are_remembered_are_bounded(monkeypatch):
    monkeypatch.setattr(merged, "MOST_PLACES", 50)
    places = merged._Places()
    for place in range(1000):
        places.note(place, (place, 0))
        assert places.find(0) == (0, 0)
    assert len(places._positions) == len(places._ascending) == 50
    assert places.before(2000) == (999, 0)
    assert places.before(960) == (960, 0)
    assert places.before(500) == (0, 0)
    assert places.find(500) is None
    assert merged._Places().before(7) is None


def test_places_are_noted_by_threads(monkeypatch):
    monkeypatch.setattr(merged, "MOST_PLACES", 20)
    places, failed = merged._Places(), []

    def work(start):
        try:
            for place in range(start, 20_000, 7):
                places.note(place, (place,))
                found = places.before(place)
                assert found is None or found[0] <= place
        except BaseException as error:
            failed.append(error)

    running = [threading.Thread(target=work, args=(start,)) for start in range(7)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert failed == []
    assert len(places._positions) <= 20


def test_a_place_that_was_forgotten_is_found_again(cluster_url, monkeypatch):
    monkeypatch.setattr(merged, "MOST_PLACES", 3)
    with opened(cluster_url) as log:
        topic = log.topic("t", partitions=2)
        for n in range(60):
            topic.put(n, key=str(n))
        source = topic.stream.for_one_reading().store
        span = source.span()
        whole = [(row.offset, row.stop, row.value) for row in source.read(span, 100, 1 << 20)]
        assert len(whole) == 60
        for offset, _, value in whole[::7]:
            (row,) = source.read(Span(offset, span.stop), 1, 1 << 20)
            assert row.value == value
