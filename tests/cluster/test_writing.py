"""Putting on a cluster: what is there afterwards when answers are lost, topics vanish, or messages are too large."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from confluent_kafka import KafkaError
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

import pqlog
from pqlog.store.kafka import catalogue, state, store
from pqlog.store.kafka.address import Address
from pqlog.store.values import Cursor, Ids, Output, Segment, Singles
from tests.cluster.logs import opened
from tests.cluster.plugin import delete_topics
from tests.contract.engines import never, offsets, rows
from tests.processes import Process, python

PUTTER = """
import sys
from tests.cluster.logs import opened
url, name, first, count = sys.argv[1:]
with opened(url) as log:
    print("open", flush=True)
    sys.stdin.readline()
    for n in range(int(first), int(first) + int(count)):
        log.put_many([[name, n, 0], [name, n, 1]], id=f"put-{n}")
    print("done", flush=True)
"""


@pytest.fixture
def log(cluster_url):
    with opened(cluster_url) as log:
        yield log


def one_topic(store, name="main"):
    (topic,) = store.topic(name, "json", 1)
    return topic


# topics


@pytest.mark.parametrize(
    "name", ["orders", "a.b", "a_b", "übung", "a/b c", "x" * 300, "__state", "__ids", "topic-1", "..", "."]
)
def test_any_name_is_one_of_a_topic(stores, name):
    here, there = stores(), stores()
    one_topic(here, name).append_one(b"1", None, None)
    one_topic(here, f"{name}-2").append_one(b"2", None, None)
    (found,) = there.find_topic(name)
    assert [row.value for row in rows(found)] == [b"1"]
    assert [info.name for info in there.topics()] == [name, f"{name}-2"]


def test_names_that_are_one_for_kafka_are_two_topics(stores):
    here = stores()
    names = ["a.b", "a_b", "a-b"]
    topics = [one_topic(here, name) for name in names]
    for topic, name in zip(topics, names, strict=True):
        topic.append_one(name.encode(), None, None)
    assert len({topic.kafka_topic.replace(".", "_") for topic in topics}) == 3
    assert [[row.value for row in rows(topic)] for topic in topics] == [[name.encode()] for name in names]


def test_a_name_that_another_program_uses_on_the_cluster_is_left_to_it(stores, cluster_url):
    here = stores()
    log = Address.parse(cluster_url).log
    producer = here.cluster.producer()
    here.cluster.make([NewTopic(f"{log}.taken", 1, 3)])
    producer.produce(f"{log}.taken", b"theirs")
    producer.flush()
    topic = one_topic(here, "taken")
    assert topic.kafka_topic != f"{log}.taken"
    assert rows(topic) == []


def test_topics_keep_their_name_on_the_cluster_when_they_are_renamed(stores):
    here, there = stores(), stores()
    topic = one_topic(here, "a")
    topic.append_one(b"1", None, None)
    kafka = topic.kafka_topic
    topic.rename("b")
    (found,) = there.find_topic("b")
    assert (found.kafka_topic, [row.value for row in rows(found)]) == (kafka, [b"1"])
    assert one_topic(there, "a").kafka_topic != kafka
    assert there.find_topic("b")[0].info.name == "b"


def test_a_deleted_topic_is_gone_from_the_cluster_and_from_the_state(stores):
    here, there = stores(), stores()
    topic = one_topic(here)
    here.append([Output(topic, [Singles([b"1"])], Ids([["x"]], never))])
    topic.client("c").join()
    (known,) = there.find_topic("main")
    known.span()
    topic.delete(force=True)
    for call in (known.span, known.count, lambda: known.append_one(b"1", None, None), known.client("c").state):
        with pytest.raises(pqlog.UnknownTopicError):
            call()
    assert here.cluster.partitions(topic.kafka_topic) is None
    assert here.lanes.names(f"client/{topic.topic_id}/") == here.lanes.names(f"id/{topic.topic_id}") == []
    assert here.catalogue.look().gone == {}
    again = one_topic(there)
    assert (rows(again), again.find_id("x"), again.clients()) == ([], None, [])


def test_a_topic_of_a_process_that_was_killed_while_it_deleted_it_is_deleted_by_the_next(stores, monkeypatch):
    here = stores()
    topic = one_topic(here)
    monkeypatch.setattr(here.cluster, "delete", lambda topics: (_ for _ in ()).throw(pqlog.ClusterError("killed")))
    topic.delete(force=True)
    assert here.cluster.partitions(topic.kafka_topic) == 1
    assert here.topics() == []
    there = stores()
    assert there.cluster.partitions(topic.kafka_topic) is None
    assert there.catalogue.look().gone == {}


def test_a_process_killed_while_it_created_a_topic_leaves_nothing_in_the_way(stores, monkeypatch):
    here = stores()

    def killed(tx):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(catalogue.msgspec, "to_builtins", killed)
        here.topic("main", "json", 1)
    assert here.topics() == []
    topic = one_topic(stores())
    topic.append_one(b"1", None, None)
    assert offsets(one_topic(here)) == [0]


def test_a_broker_that_does_not_know_a_new_topic_yet_is_asked_again(stores, monkeypatch):
    here = stores()
    topic = one_topic(here)
    topic.append_one(b"1", None, None)
    asker, answers = here.cluster._asker(), []

    class Asker:
        list_topics = asker.list_topics

        def offsets_for_times(self, wanted, timeout):
            answers.append(asker.offsets_for_times(wanted, timeout))
            unknown = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
            new = [SimpleNamespace(partition=one.partition, offset=-1, error=unknown) for one in wanted]
            return new if len(answers) < 3 else answers[-1]

    monkeypatch.setattr(here.cluster, "_asker", lambda *_: Asker())
    assert here.cluster.stable(topic.kafka_topic, [0]) == {0: 1}
    assert len(answers) == 3


def test_the_uuid_is_the_logs(stores):
    assert stores().uuid == stores().uuid


# putting


@pytest.mark.parametrize("threads", [1, 8])
def test_single_messages_are_at_the_offsets_that_were_returned(stores, threads):
    here = stores()
    topic = one_topic(here)
    found = {}

    def work(name):
        for n in range(20):
            value = b"%d %d" % (name, n)
            found[topic.append_one(value, None, None)] = value

    running = [threading.Thread(target=work, args=(name,)) for name in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert len(found) == 20 * threads
    assert {row.offset: row.value for row in rows(topic)} == found


def test_a_put_that_is_not_acknowledged_is_uncertain_and_the_next_is_another_producers(stores, monkeypatch):
    here = stores()
    topic = one_topic(here)
    topic.append_one(b"1", None, None)
    served = here.singles._current()

    def lose(done, check):
        done[KafkaError(KafkaError._MSG_TIMED_OUT, "no answer")] = None

    monkeypatch.setattr(served, "wait", lose)
    with pytest.raises(pqlog.UncertainError, match="may or may not be there"):
        topic.append_one(b"2", None, None)
    assert here.singles._current() is not served
    topic.append_one(b"3", None, None)
    assert {row.value for row in rows(topic)} - {b"2"} == {b"1", b"3"}


def test_one_puts_error_is_not_anothers(stores):
    """What one thread puts into a topic that is gone fails; what others put meanwhile does not."""
    here = stores()
    topic, gone = one_topic(here), one_topic(here, "gone")
    there = stores()
    there.find_topic("gone")[0].delete(force=True)
    failed, done = [], []

    def bad():
        for _ in range(5):
            try:
                gone.append_one(b"1", None, None)
            except pqlog.UnknownTopicError as error:
                failed.append(error)

    def good():
        done.extend(topic.append_one(b"1", None, None) for _ in range(10))

    running = [threading.Thread(target=work) for work in (bad, good, good)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert (len(failed), len(done)) == (5, 20)
    assert offsets(topic) == sorted(done)


def test_threads_put_many_at_the_same_time(stores):
    here = stores()
    topic = one_topic(here)
    went = []

    def work(name):
        for n in range(5):
            went.append((here.append([Output(topic, [Singles([b"%d %d" % (name, n)] * 3)])])[0], name, n))

    running = [threading.Thread(target=work, args=(name,)) for name in range(6)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert len(rows(topic)) == 90
    by_offset = {row.offset: row.value for row in rows(topic)}
    for put, name, n in went:
        assert by_offset[put.first] == by_offset[put.last] == b"%d %d" % (name, n)


@pytest.mark.timeout(200)
def test_two_processes_put_with_the_same_ids(cluster_url):
    with opened(cluster_url) as log:
        log.put("first")
        with (
            Process(python(PUTTER, cluster_url, "a", 0, 12)) as one,
            Process(python(PUTTER, cluster_url, "b", 0, 12)) as two,
        ):
            for process in (one, two):
                assert process.line() == "open"
            for process in (one, two):
                process.tell()
            for process in (one, two):
                assert process.line() == "done"
        values = [message.value for message in log][1:]
    assert sorted(n for _, n, _ in values) == [n for n in range(12) for _ in range(2)]
    for first, second in zip(values[::2], values[1::2], strict=True):
        assert (first[:2], first[2], second[2]) == (second[:2], 0, 1)


def test_what_was_put_is_seen_at_once_by_other_processes(stores):
    here, there = stores(), stores()
    topic = one_topic(here)
    (known,) = there.find_topic("main")
    for n in range(1, 10):
        here.append([Output(topic, [Singles([b"1"] * 3)])])
        assert len(rows(known)) == 3 * n


def test_a_cursor_of_two_processes_moves_once(stores):
    here, there = stores(), stores()
    topic = one_topic(here)
    (same,) = there.find_topic("main")
    here.append([Output(topic, [Singles([b"1"])])], cursor=Cursor("c", "1", "null"))
    with pytest.raises(pqlog.CursorError):
        there.append([Output(same, [Singles([b"1"])])], cursor=Cursor("c", "1", "null"))
    there.append([Output(same, [Singles([b"2"])])], cursor=Cursor("c", "2", "1"))
    with pytest.raises(pqlog.CursorError):  # it held the lane before
        here.append([Output(topic, [Singles([b"1"])])], cursor=Cursor("c", "2", "1"))
    assert (here.cursor("c"), there.cursor("c")) == ("2", "2")
    assert [row.value for row in rows(topic)] == [b"1", b"2"]


def test_a_put_that_takes_longer_than_a_transaction_may_gets_more_time(stores, monkeypatch):
    here = stores()
    topic = one_topic(here)
    tries = []

    def slowly():
        tries.append(1)
        yield Singles([b"1"])
        time.sleep(8 if len(tries) == 1 else 0)
        yield from (Singles([b"%d" % n]) for n in range(1_500))

    class Chunks:
        def __iter__(self):
            return slowly()

    assert here.append([Output(topic, Chunks())])[0].messages == 1_501
    assert len(tries) == 2
    assert len(rows(topic)) == 1_501


# ids


def test_ids_are_forgotten_after_the_time_that_is_documented(stores, monkeypatch):
    monkeypatch.setattr(state, "IDS_KEPT_MS", 1_000)
    here = stores()
    topic = one_topic(here)
    for id, pause in (("x", 1.5), ("y", 0)):
        here.append([Output(topic, [Singles([b"1"])])], id=id)
        assert topic.find_id(id) is not None
        time.sleep(pause)
    assert topic.find_id("x") is None
    (same,) = stores().find_topic("main")
    assert [same.find_id(id) is None for id in "xy"] == [True, False]


@pytest.mark.parametrize("days", [31, -20_000])
def test_ids_are_known_whatever_the_clock_of_the_host_says(stores, monkeypatch, days):
    topic = one_topic(stores())
    topic.log.append([Output(topic, [Singles([b"1"])])], id="x")
    times = {"time": (time.time, days * 86400), "time_ns": (time.time_ns, days * 86400 * 10**9)}
    for name, (real, ahead) in times.items():
        monkeypatch.setattr(time, name, lambda real=real, ahead=ahead: real() + ahead)
    later = stores()
    (same,) = later.find_topic("main")
    for id in "xyxy":
        later.append([Output(same, [Singles([b"1"])])], id=id)
    assert [row.value for row in rows(same)] == [b"1", b"1"]
    later.join([same.client("c")])
    assert later.find_work([same.client("c")], "me") is not None


def test_ids_are_found_by_a_process_that_did_not_put_them(stores):
    here, there = stores(), stores()
    topic = one_topic(here)
    (same,) = there.find_topic("main")
    names = [f"{n}" for n in range(2_000)]
    put = here.append([Output(topic, [Singles([name.encode() for name in names])], Ids([names], never))])[0]
    assert put.messages == 2_000
    again = there.append([Output(same, [Singles([b"1"] * 2_001)], Ids([[*names, "new"]], never))])[0]
    assert again.messages == 1
    values = {row.offset: row.value.decode() for row in rows(topic)}
    for name in names[::500]:
        (found,) = same.find_id(name).values()
        assert values[found.first] == name


# large


@pytest.fixture
def small(monkeypatch):
    """New topics take 100,000 bytes in a record at most."""
    monkeypatch.setattr(store, "MAX_BYTES", 100_000)


def test_a_message_that_is_too_large_is_refused_before_anything_is_sent(log, small):
    topic = log.topic("small")
    noise = np.random.default_rng(1).bytes(100_000).hex()  # else it would be compressed to nothing
    for put in (
        lambda: topic.put("x" * 100_000),
        lambda: topic.put_many(["a", "x" * 100_000, "b"]),
        lambda: topic.put("x", headers={"a": "x" * 100_000}),
        lambda: topic.put_many(pd.DataFrame({"n": [1, 2], "text": ["x", noise]})),
        lambda: topic.put_many([{"n": 1}], id="x", headers={"a": "x" * 100_000}),
    ):
        with pytest.raises(pqlog.TooLargeError, match="Nothing was put"):
            put()
    assert len(topic) == 0
    topic.put("x" * 90_000)
    assert len(topic) == 1


def test_a_frame_is_cut_into_segments_that_the_topic_takes(log, small):
    topic = log.topic("small", partitions=2)
    random = np.random.default_rng(1)
    frame = pd.DataFrame({"n": np.arange(40_000), "x": random.random(40_000), "key": list("abcd") * 10_000})
    put = topic.put_many(frame, key="key")
    assert put.messages == 40_000
    sizes = [len(row.value) for part in topic.store.partitions for row in rows(part)]
    assert len(sizes) > 3
    assert max(sizes) < 100_000
    found = topic.to_pandas(metadata=False).sort_values("n", ignore_index=True)
    pd.testing.assert_frame_equal(found, frame)


def test_what_the_cluster_refuses_as_too_large_is_told(log, cluster):
    """The limit was lowered after the topic was made."""
    topic = log.topic("main")
    topic.put("x")
    kafka = topic.stream.partitions[0].kafka_topic
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    lower = ConfigEntry("max.message.bytes", "10000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, kafka, incremental_configs=[lower])
    admin.incremental_alter_configs([resource])[resource].result(30)
    noise = np.random.default_rng(1).bytes(100_000).hex()
    until = time.monotonic() + 20
    while True:
        try:
            topic.put(noise)
        except pqlog.TooLargeError:
            break
        assert time.monotonic() < until
    with pytest.raises(pqlog.TooLargeError):
        topic.put_many([noise] * 3)
    before = len(topic)
    topic.put("y")
    assert len(topic) == before + 1


# trimming, waiting, closing


def test_a_trim_inside_a_segment_is_the_same_for_all(stores):
    here, there = stores(), stores()
    topic = one_topic(here)
    put = here.append([Output(topic, [Singles([b"1"]), Segment(b"segment", 10), Singles([b"2"])])])[0]
    at = offsets(topic)
    assert (put.messages, len(at)) == (12, 12)
    assert list(here.trim([(topic, at[5])], force=False)) == [5]
    for one in (here, there, stores()):
        (found,) = one.find_topic("main")
        assert (offsets(found), found.span().first, found.count()) == (at[5:], at[5], 7)
    assert list(there.trim([(there.find_topic("main")[0], at[11])], force=False)) == [6]
    assert offsets(topic) == at[11:]


def test_a_put_of_this_process_wakes_waiting_calls_at_once(stores):
    here = stores()
    topic = one_topic(here)
    stop = topic.span().stop
    threading.Timer(0.3, lambda: topic.append_one(b"1", None, None)).start()
    began = time.monotonic()
    assert here.wait(lambda: topic.span().stop > stop, 20, tick=15)
    assert time.monotonic() - began < 10


def test_closing_ends_waiting_calls(stores):
    here = stores()
    ended = []

    def wait():
        try:
            here.wait(lambda: False, None, 60)
        except pqlog.ClosedError as error:
            ended.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.2)
    here.close()
    here.close()
    thread.join(5)
    assert len(ended) == 1
    with pytest.raises(pqlog.ClosedError):
        here.topics()


def test_a_log_without_its_state_is_a_new_one(cluster_url, cluster):
    with opened(cluster_url) as log:
        log.put("x")
    delete_topics(cluster.bootstrap, f"{Address.parse(cluster_url).log}.")
    time.sleep(1)
    with opened(cluster_url) as log:
        assert len(log) == 0


def test_put_lanes_are_few(stores):
    here = stores()
    topic = one_topic(here)
    for _ in range(3):
        here.append([Output(topic, [Singles([b"1"])])])
    assert sum(name.startswith("put/") for name in here.lanes._lanes) == 1


def test_a_frame_in_several_partitions_keeps_its_index(cluster_url):
    """Each partition has a clock of its own, so its parts are read in any order."""
    frame = pd.DataFrame({"k": list("abcdefgh"), "n": range(8)}, index=list("stuvwxyz"))
    with pqlog.open(cluster_url, durability="replicated") as log:
        for number in range(6):
            topic = log.topic(f"parts{number}", partitions=4)
            topic.put_many(frame, key="k")
            back = topic.to_pandas(metadata=False)
            pd.testing.assert_frame_equal(back.sort_index(), frame)
