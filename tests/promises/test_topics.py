"""Topics are created, renamed and deleted, and nobody ever writes into the wrong one."""

import threading

import pandas as pd
import pytest

import pqlog
from tests import seams
from tests.processes import start


@pytest.fixture
def old(log):
    """A topic with everything that can belong to one."""
    topic = log.topic("old")
    topic.put_many([{"n": n} for n in range(10)], id="ten")
    topic.put_many(pd.DataFrame({"n": range(10)}))
    list(topic.get("reader"))
    return topic


def test_a_deleted_topic_is_gone_with_all_that_belonged_to_it(path, log, old):
    old.put_many("x" * 1000 for _ in range(2000))
    list(old.get("reader"))
    log.put("stays")
    log.delete_topic("old")
    assert log.topics() == ["main"]
    assert log.verify() == []
    again = log.topic("old")
    assert len(again) == len(again.clients()) == 0
    assert again.put("new", id="ten") == 1  # the id is new in that topic
    assert [message.value for message in log] == ["stays"]
    log.close()
    with pqlog.open(path) as log:
        assert log.topics() == ["main", "old"]
    assert path.stat().st_size < 1_000_000


def test_who_has_a_deleted_topic_open_is_told_and_writes_nowhere(log, old):
    batches = old.batches("worker", size=5)
    batch = next(batches)
    staged = log.topic("other")
    list(staged.get("c"))
    log.delete_topic("old", force=True)
    log.topic("old").put("of the new one")
    history = old.history(key="k")
    for call in (
        lambda: old.put(1),
        lambda: old.put(1, key="k", id="x"),
        lambda: old.put_many([1, 2]),
        lambda: old.put_many([], id="x"),
        lambda: len(old),
        lambda: old[1],
        lambda: list(old),
        lambda: list(old.history().values()),
        lambda: list(history),
        lambda: old.history(since="1h").to_pandas(),
        lambda: list(old.get("reader")),
        lambda: list(old.get("new reader")),
        lambda: old.get_one("reader"),
        lambda: next(old.get_blocking("reader")),
        lambda: list(old.batches("worker")),
        lambda: next(old.batches("another")),
        lambda: batch.ack(),
        lambda: next(batches),
        lambda: old.clients(),
        lambda: old.client("reader").position,
        lambda: old.client("reader").seek(to="start"),
        lambda: old.trim(before=1),
    ):
        with pytest.raises(pqlog.UnknownTopicError, match="no topic 'old' in this log"):
            call()
    assert repr(old) == "<pqlog.Topic 'old', codec json: no topic 'old' in this log>"
    assert [message.value for message in log.topic("old")] == ["of the new one"]
    assert len(log.topic("old").clients()) == 0
    assert log.verify() == []


PROCESS = """
import sys, pqlog
with pqlog.open(sys.argv[1]) as log:
    old = log.topic("old")
    old.put("before")
    print("ready", flush=True)
    sys.stdin.readline()
    for call in (lambda: old.put("after"), lambda: old.put_many(["after"]), lambda: list(old.get("c"))):
        try:
            print(call())
        except pqlog.UnknownTopicError as error:
            print(error)
    print(log.put("main goes on"))
"""


def test_another_process_is_told_too(path, log):
    with start(PROCESS, path) as process:
        assert process.line() == "ready"
        log.delete_topic("old")
        log.topic("old").put("of the new one")
        said = process.finish("go\n")
    assert said.splitlines() == ["no topic 'old' in this log"] * 3 + ["1"]
    assert [message.value for message in log.topic("old")] == ["of the new one"]


def test_neighbours_in_a_group_do_not_notice(log):
    """Threads that put into a topic while it is deleted get an error; those that put into another do not."""
    victim, other = log.topic("victim"), log.topic("other")
    told, failed, started = [], [], threading.Barrier(6)

    def put(topic, errors):
        started.wait(60)
        try:
            for n in range(200):
                topic.put(n)
        except pqlog.UnknownTopicError as error:
            told.append(error)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=put, args=(topic, failed)) for topic in (victim, victim, victim, other, other)]
    for thread in threads:
        thread.start()
    started.wait(60)
    log.delete_topic("victim")
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(other) == 400
    assert len(told) <= 3
    assert log.topics() == ["main", "other"]


def test_no_id_of_a_topic_is_used_twice(path, log):
    seen = set()
    for n in range(20):
        topic = log.topic(f"t{n}")
        list(topic.get("c"))
        (number,) = seams.connection(log).execute("SELECT id FROM topics WHERE name = ?", (topic.name,)).fetchone()
        assert number not in seen
        seen.add(number)
        if n % 3:
            log.delete_topic(f"t{n}")


def test_deleting_refuses_what_somebody_still_wants(log, old):
    next(old.get("slow"))
    with pytest.raises(pqlog.TrimRefusedError, match=r"^not deleted: these clients .* 'slow' \(20 messages\)"):
        log.delete_topic("old")
    assert len(old) == 20
    with pytest.raises(pqlog.ArgumentError, match="stands for 'main' itself"):
        log.delete_topic("main")
    with pytest.raises(pqlog.UnknownTopicError, match="did you mean 'old'"):
        log.delete_topic("olld")
    log.delete_topic("old", force=True)
    assert log.topics() == ["main"]


def test_a_renamed_topic_is_the_same_under_another_name(path, log, old):
    log.rename_topic("old", "new")
    assert log.topics() == ["main", "new"]
    new = log.topic("new")
    assert old.put({"n": 20}) == 21  # an open object continues
    assert (len(new), new.client("reader").position, new.put(0, id="ten")) == (21, 21, 1)
    log.topic("old").put("another one")
    old.put({"n": 21})
    assert (len(new), len(log.topic("old"))) == (22, 1)
    log.rename_topic("main", "first")
    assert (log.name, log.put(1)) == ("first", 1)
    log.close()
    with pqlog.open(path, "first") as log:
        assert (len(log), log.topics(), log.verify()) == (1, ["first", "new", "old"], [])


def test_renaming_refuses_what_would_be_lost(log, old):
    log.topic("taken")
    for name, error, says in (
        ("taken", pqlog.ArgumentError, "there is a topic 'taken' already"),
        ("", pqlog.ArgumentError, "non-empty"),
        ("\ud800", pqlog.ArgumentError, "not Unicode"),
    ):
        with pytest.raises(error, match=says):
            log.rename_topic("old", name)
    with pytest.raises(pqlog.UnknownTopicError, match="no topic 'nobody'"):
        log.rename_topic("nobody", "x")
    assert log.topics() == ["main", "old", "taken"]


def test_advice_reaches_the_topic_whichever_the_log_was_opened_at(path):
    with pqlog.open(path, "orders") as log:
        main = log.topic("main")
        main.put(1)
        assert next(main.get("slow")) == 1
        with pytest.raises(pqlog.TrimRefusedError, match=r"log\.topic\('main'\)\.client\(name\)\.delete\(\)"):
            main.trim(before=2)


def test_topics_tells_open_objects_what_another_process_calls_them_now(path, log, old):
    with pqlog.open(path) as elsewhere:
        elsewhere.rename_topic("old", "new")
    assert (log.topics(), old.name) == (["main", "new"], "new")


def test_a_batch_outlives_the_renaming_of_its_topic(path, log, old):
    batch = old.client("worker").next_batch(size=5)
    token, contents = batch.token, list(batch)
    log.rename_topic("old", "new")
    assert (batch.token, list(batch)) == (token, contents)
    with batch:
        batch.put("done", topic="out")
        batch.reject(next(batch.messages()), "for example")
    worker = log.topic("new").client("worker")
    assert (worker.position, log.topic("out")[1].value) == (6, "done")
    again = worker.next_batch(size=5)
    again.release()
    log.rename_topic("new", "newer")
    log.close()
    with pqlog.open(path, "newer") as log:
        assert (log.client("worker").next_batch().token, log.verify()) == (again.token, [])


def test_reading_only_changes_no_topic(path, log, old):
    with pqlog.open(path, readonly=True) as reading:
        for call in (lambda: reading.delete_topic("old"), lambda: reading.rename_topic("old", "new")):
            with pytest.raises(pqlog.ReadOnlyError):
                call()
    assert log.topics() == ["main", "old"]
