"""What others write into the state of a log: it is told to those whom it concerns, and disturbs nobody else."""

import msgspec
import pytest

import pqlog
from tests.cluster.logs import opened
from tests.messages import values


@pytest.fixture
def log(cluster_url):
    with opened(cluster_url) as log:
        log.put_many(range(3), id="one")
        assert next(iter(log.get("c"))) == 0
        log.put_many([3], cursor=("source", 1, None))
        yield log


def write(log, lane, key, value, at=None):
    """Write into the state, as no program of pqlog's does."""
    state = log.stream.log._state
    place = state.place(lane)
    producer = state.cluster.producer()
    name = msgspec.json.encode((lane, key)) if at is None else at
    producer.produce(place.topic, value, name, place.partition)
    assert producer.flush(30) == 0
    return f"{place.topic}, partition {place.partition}"


def topic_id(log):
    return log.stream.partitions[0].topic_id


BAD = [b"\xff{", b'{"a":1}']

CASES = {
    "client": (lambda log: (f"client/{topic_id(log)}/0/c", "client"), lambda log: next(iter(log.get("c")))),
    "clients": (lambda log: (f"client/{topic_id(log)}/0/c", "client"), lambda log: log.clients()),
    "id": (lambda log: (f"id/{topic_id(log)}", "#one"), lambda log: log.put_many([1], id="one")),
    "cursor": (lambda log: ("cursor/source", "text"), lambda log: log.put_many([1], cursor=("source", 2, 1))),
    "topic": (lambda log: ("topics", "topic/9"), lambda log: log.topics()),
    "new topic": (lambda log: ("topics", "topic/9"), lambda log: log.topic("new")),
    "trim": (lambda log: ("topics", f"trim/{topic_id(log)}/0"), len),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("case", CASES)
def test_a_value_that_pqlog_did_not_write_is_told_to_those_who_need_it(log, cluster_url, case, bad):
    find, use = CASES[case]
    lane, key = find(log)
    where = write(log, lane, key, bad)
    with opened(cluster_url) as other:
        for _ in range(2):
            with pytest.raises(pqlog.CorruptLogError) as told:
                use(other)
            assert f'["{lane}","{key}"] in {where}' in str(told.value)
            assert "To remove it" in str(told.value)
    if case != "trim":
        log.put(4)
        log.put_many([5], id="two")
        assert next(iter(log.get("d"))) == 0
        assert values(log) == [0, 1, 2, 3, 4, 5]
        assert len(log) == 6
        with pqlog.open(cluster_url, readonly=True) as reader:
            assert values(reader) == [0, 1, 2, 3, 4, 5]
    write(log, lane, key, None)
    log.close()
    if case not in ("id", "cursor"):  # which are new by now
        with opened(cluster_url) as other:
            use(other)


def test_the_record_of_the_log_itself(log, cluster_url):
    where = write(log, "topics", "log", b"[1]")
    for readonly in (False, True):
        with pytest.raises(pqlog.CorruptLogError) as told:
            pqlog.open(cluster_url, readonly=readonly)
        assert f'["topics","log"] in {where}' in str(told.value)
        assert "To remove it" not in str(told.value)


@pytest.mark.parametrize("key", [b"hello", b"\xff", b"", b'["a"]', b'["topics",1]'])
def test_a_record_whose_key_is_none_of_ours_is_ignored_with_a_warning(log, cluster_url, key):
    state = log.stream.log._state
    producer = state.cluster.producer()
    producer.produce(state.topic, b"1", key, 0)
    assert producer.flush(30) == 0
    with pytest.warns(UserWarning, match=r"record \d+ of .*__state, partition 0, was not written by pqlog"):
        log.put(4)
    log.topic("new")
    producer.produce(state.topic, None, key, 0)
    assert producer.flush(30) == 0
    assert values(log) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("key", ["trim/abc", "trim/1", "gone/x", "topics", "used/x", "topic/"])
def test_a_key_of_the_catalogue_that_stands_for_nothing(log, cluster_url, key):
    write(log, "topics", key, b"1")
    log.put(4)
    assert values(log) == [0, 1, 2, 3, 4]
    with opened(cluster_url) as other:
        assert values(other) == [0, 1, 2, 3, 4]
