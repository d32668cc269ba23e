"""What readers see of transactions of others: nothing before they are committed, and never what was aborted."""

import contextlib
import uuid

import pytest
from confluent_kafka import Producer

import pqlog
from tests.cluster.plants import high_watermark
from tests.messages import values
from tests.processes import wait_until


@contextlib.contextmanager
def open_transaction(url, topic, value):
    """A transaction that has put a message into a Kafka topic; it is aborted behind the block."""
    bootstrap = url.removeprefix("kafka://").partition("/")[0]
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": uuid.uuid4().hex, "log_level": 0})
    producer.init_transactions(60)
    producer.begin_transaction()
    failed = []
    producer.produce(topic, value, partition=0, on_delivery=lambda error, message: failed.append(error))
    producer.flush(60)
    assert failed == [None]
    try:
        yield
    finally:
        producer.abort_transaction(60)


def read_beside_a_transaction(url):
    """Read, and handle, what lies before, in and behind a transaction that is open, and then aborted."""
    with pqlog.open(url) as producer, pqlog.open(url) as log:
        producer.put("before")
        with open_transaction(url, f"{url.rpartition('/')[2]}.main", b'"in"'):
            producer.put("behind")  # which it would wait for, if it read itself
            assert values(log) == ["before"]
            assert len(log) == 1
            assert [list(batch) for batch in log.client("stage").batches(size=10)] == [["before"]]
        # An abort is answered before it is carried out.
        wait_until(lambda: values(log) == ["before", "behind"])
        assert list(log.client("other").get()) == ["before", "behind"]
        assert [list(batch) for batch in log.client("stage").batches(size=10)] == [["behind"]]


def test_what_is_not_committed_is_not_read(cluster_url):
    read_beside_a_transaction(cluster_url)


def test_a_reader_that_goes_by_the_high_watermark_is_noticed(cluster_url, planted):
    planted(high_watermark)
    with pytest.raises(AssertionError, match="'before', 'in'"):
        read_beside_a_transaction(cluster_url)
