"""Sending on a cluster: many messages under way at once, each with its own outcome."""

from confluent_kafka import KafkaError, KafkaException

import pqlog
from pqlog.store.kafka import store
from pqlog.store.values import PartitionOffset, Single
from tests.cluster.logs import opened
from tests.contract.engines import rows


def one_topic(store, name="main"):
    (topic,) = store.topic(name, "json", 1)
    return topic


def single(topic, value, id=None):
    return Single(topic, value, None, None, id)


def test_what_is_not_acknowledged_is_uncertain_and_the_next_is_another_producers(stores, monkeypatch):
    here = stores()
    topic = one_topic(here)
    here.append_each([single(topic, b"1")])
    served = here.singles._current()

    def lose(done, check):
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "no answer"))

    monkeypatch.setattr(served, "wait", lose)
    outcomes = here.append_each([single(topic, b"2"), single(topic, b"3")])
    assert [type(one) for one in outcomes] == [pqlog.UncertainError] * 2
    assert here.singles._current() is not served
    (last,) = here.append_each([single(topic, b"4")])
    found = {row.offset: row.value for row in rows(topic)}
    assert found[last.offset] == b"4"
    assert set(found.values()) - {b"2", b"3"} == {b"1", b"4"}


def test_one_whose_answer_is_an_error_fails_alone(stores, monkeypatch):
    here = stores()
    topic = one_topic(here)
    wait = here.singles._current().wait

    def fail_second(under_way, check):
        wait(under_way, check)
        outcome = under_way.outcomes[1]
        ((_, message),) = outcome.items()
        outcome.clear()
        outcome[KafkaError(KafkaError.MSG_SIZE_TOO_LARGE, "too large")] = message

    monkeypatch.setattr(here.singles._current(), "wait", fail_second)
    outcomes = here.append_each([single(topic, b"%d" % n) for n in range(3)])
    assert [type(one) is PartitionOffset for one in outcomes] == [True, False, True]
    assert isinstance(outcomes[1], pqlog.Error)


def test_a_topic_that_another_process_deleted_fails_its_own_messages(stores):
    here, there = stores(), stores()
    topic, gone = one_topic(here), one_topic(here, "gone")
    there.find_topic("gone")[0].delete(force=True)
    asked = [single(topic, b"1"), single(gone, b"2"), single(gone, b"3", "a"), single(topic, b"4", "a")]
    outcomes = here.append_each(asked)
    assert [type(one) for one in outcomes] == [
        PartitionOffset,
        pqlog.UnknownTopicError,
        pqlog.UnknownTopicError,
        PartitionOffset,
    ]
    assert [row.value for row in rows(topic)] == [b"1", b"4"]


def test_an_id_that_another_process_used_is_put_once(stores):
    here, there = stores(), stores()
    topic = one_topic(here)
    (other,) = there.find_topic("main")
    (first,) = there.append_each([single(other, b"1", "a")])
    again = here.append_each([single(topic, b"2", "a"), single(topic, b"3", "b"), single(topic, b"4", "b")])
    assert again == [first, again[1], again[1]]
    assert [row.value for row in rows(topic)] == [b"1", b"3"]


def test_a_message_that_is_too_large_fails_alone(cluster_url, monkeypatch):
    monkeypatch.setattr(store, "MAX_BYTES", 100_000)
    with opened(cluster_url) as log:
        topic = log.topic("small")
        sent = [topic.send("a"), topic.send("x" * 100_000), topic.send("x" * 100_000, id="x"), topic.send("b", id="b")]
        assert [type(future.exception(60)) for future in sent] == [
            type(None),
            pqlog.TooLargeError,
            pqlog.TooLargeError,
            type(None),
        ]
        assert [message.value for message in topic] == ["a", "b"]


def test_what_one_thread_sends_keeps_its_order(cluster_url):
    with opened(cluster_url) as log:
        sent = [log.send(n) for n in range(2_000)]
        offsets = [one.result(60) for one in sent]
        assert offsets == sorted(offsets)
        assert [message.value for message in log.history()] == list(range(2_000))
