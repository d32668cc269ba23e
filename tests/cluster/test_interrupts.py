"""What is known of lanes after Ctrl-C, errors and lost answers, wherever they strike: never less than was committed."""

import contextlib
import os
import signal
import threading
import time

import pandas as pd
import pytest
from confluent_kafka import KafkaError, KafkaException

import pqlog
from pqlog.store.kafka import attempt, lanes, state, store
from pqlog.store.kafka.fencing import Fenced
from pqlog.store.kafka.taking import Stale, Taking
from pqlog.store.kafka.together import all_at_once
from pqlog.store.values import Ids, Output, Singles, Size
from tests.contract.engines import never, rows

ONE, TWO, THREE = "client/1/0/c", "client/1/1/c", "cursor/c"
NAMES = [ONE, TWO, THREE]


def add(store, names, take=True):
    """Count up in lanes; the numbers in them."""

    def work(tx):
        for name in names:
            tx.set(name, "n", (tx.value(name, "n") or 0) + 1)
        return [tx.value(name, "n") for name in names]

    return store.lanes.change(names, work, take)


def numbers(store, names=NAMES):
    return [one.get("n", 0) for one in store.lanes.look_at(names)]


def hold(store, names):
    """Count up in lanes until this process holds all of them, for a slow commit gives them up."""
    add(store, names)
    until = time.monotonic() + 60
    while not all(store.lanes._lane(name).producer for name in names):
        assert time.monotonic() < until
        add(store, names)


def commits(monkeypatch, how):
    """Replaces the commit of whole transactions, not of confirmations: `how` is given the real one."""
    real = attempt.commit

    def commit(producer, timeout_s, check):
        def whole():
            return real(producer, timeout_s, check)

        return whole() if threading.current_thread() is not threading.main_thread() else how(whole)

    monkeypatch.setattr(attempt, "commit", commit)


def interrupted(*_, **__):
    raise KeyboardInterrupt


def down(*_, **__):
    raise pqlog.ClusterError("no answer")


# Ctrl-C


def test_what_ctrl_c_behind_a_commit_leaves_is_read_again(stores, monkeypatch):
    one = stores()
    hold(one, NAMES)
    before = numbers(one)
    with monkeypatch.context() as patch:
        commits(patch, lambda whole: whole() and interrupted())
        with pytest.raises(KeyboardInterrupt):
            add(one, NAMES)
    for name, n in zip(NAMES, before, strict=True):
        assert add(one, [name]) == [n + 2]


def test_what_ctrl_c_leaves_while_a_commit_is_noted_is_read_again(stores, monkeypatch):
    one = stores()
    hold(one, NAMES)
    before = numbers(one)
    with monkeypatch.context() as patch:
        patch.setattr(attempt, "Entry", interrupted)
        with pytest.raises(KeyboardInterrupt):
            add(one, NAMES)
    assert add(one, NAMES) == [n + 2 for n in before]


def test_what_ctrl_c_leaves_before_a_commit_changes_nothing(stores, monkeypatch):
    one = stores()
    hold(one, NAMES)
    before = numbers(one)
    with monkeypatch.context() as patch:
        commits(patch, interrupted)
        with pytest.raises(KeyboardInterrupt):
            add(one, NAMES)
    assert add(one, NAMES[::-1]) == [n + 1 for n in before[::-1]]


@pytest.mark.parametrize("names", [[ONE, TWO], [TWO, THREE, ONE]])
def test_ctrl_c_at_any_moment_leaves_what_is_true(stores, names):
    """Real signals, some of them in the midst of a commit."""
    one, two = stores(), stores()
    hold(one, names)
    for n in range(12):
        signals = threading.Timer(0.001 + n * 0.004, os.kill, (os.getpid(), signal.SIGINT))
        with contextlib.suppress(KeyboardInterrupt):
            signals.start()
            add(one, names)
            time.sleep(30)
        others = numbers(two, names)
        assert len(set(others)) == 1
        last = names[n % len(names)]
        assert add(one, [last, *(name for name in names if name != last)]) == [m + 1 for m in others]


def test_what_is_not_known_to_be_committed_is_read_again(stores, monkeypatch):
    one = stores()
    hold(one, NAMES)
    before = numbers(one)

    def lose(whole):
        whole()
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "the answer was lost"))

    with monkeypatch.context() as patch:
        commits(patch, lose)
        patch.setattr(attempt, "ASKED_WITHIN_S", -1)
        with pytest.raises(pqlog.UncertainError):
            add(one, NAMES)
    for name, n in zip(NAMES[::-1], before[::-1], strict=True):
        assert add(one, [name]) == [n + 2]


# looks that fail


@pytest.mark.parametrize("error", [KeyboardInterrupt, pqlog.ClusterError])
@pytest.mark.parametrize("is_stale", [False, True])
def test_a_look_that_fails_forgets_nothing(stores, monkeypatch, error, is_stale):
    one, two = stores(), stores()
    add(two, [ONE])
    one.lanes.change([ONE], lambda tx: tx.set(ONE, "m", 7))  # the other value is known from reading only
    add(two, [TWO])
    tail = one._state.tail(ONE)
    real = tail._set

    def fail(*arguments):
        real(*arguments)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(tail, "_set", fail)
        if is_stale:
            patch.setattr(state, "STALE_S", -1)
        with pytest.raises(error):
            one.lanes.look(TWO)
    assert one.lanes.recall(ONE) == {"n": 1, "m": 7}
    assert one.lanes.change([ONE], lambda tx: tx.values(ONE)) == {"n": 1, "m": 7}
    assert numbers(one, [ONE, TWO]) == [1, 1]


def test_a_tail_that_was_not_read_for_long_is_read_anew(stores, monkeypatch):
    one, two = stores(), stores()
    add(two, [ONE])
    assert numbers(one, [ONE]) == [1]
    one._state.tail(ONE)._known.lanes["client/1/1/gone"] = {}
    monkeypatch.setattr(state, "STALE_S", -1)
    assert numbers(one, [ONE]) == [1]
    assert "client/1/1/gone" not in one._state.tail(ONE)._known.lanes


# lanes that another took


@pytest.mark.parametrize("names", [[ONE, THREE], [THREE, ONE]])
def test_a_lane_that_was_lost_is_not_believed_together_with_one_that_is_taken_just_now(stores, names):
    one, two = stores(), stores()
    hold(one, [ONE])
    (n,) = add(two, [ONE])
    assert one.lanes.change(names, lambda tx: tx.value(ONE, "n")) == n
    hold(one, [ONE])
    (n,) = add(two, [ONE])
    one.lanes._lane(THREE).lose()

    def refuse(tx):
        raise ValueError(tx.value(ONE, "n"))

    with pytest.raises(ValueError, match=str(n)):
        one.lanes.change(names, refuse)


def test_producers_are_given_up_if_another_could_not_be_had():
    undone, began = [], threading.Event()

    def late():
        began.wait(10)
        return 2

    def fail():
        began.set()
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "no"))

    with pytest.raises(KafkaException):
        all_at_once([lambda: 1, late, fail], undone.append)
    assert sorted(undone) == [1, 2]


def test_producers_are_given_up_that_come_after_ctrl_c():
    undone, began, ended = [], threading.Barrier(3), threading.Event()

    def slowly():
        began.wait(10)
        ended.wait(10)
        return 1

    def strike():
        began.wait(10)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threading.Thread(target=strike).start()
    with pytest.raises(KeyboardInterrupt):
        all_at_once([slowly, slowly], undone.append)
    ended.set()
    until = time.monotonic() + 10
    while len(undone) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    assert undone == [1, 1]


# after a commit


def test_what_was_committed_is_said_though_the_cluster_does_not_answer_afterwards(stores, monkeypatch):
    here = stores()
    (topic,) = here.topic("main", "json", 1)
    with monkeypatch.context() as patch:
        patch.setattr(here.cluster, "stable", down)
        put = here.append([Output(topic, [Singles([b"1", b"2"])])])[0]
    assert [row.offset for row in rows(topic)] == [put.first, put.last]
    with monkeypatch.context() as patch:
        patch.setattr(here.catalogue, "look", down)
        topic.rename("other")
        patch.setattr(topic, "check", lambda: None)
        topic.delete(force=True)
    assert here.topics() == []


def test_a_put_whose_topic_cannot_be_looked_up_meanwhile_is_uncertain(stores, monkeypatch):
    here = stores()
    (topic,) = here.topic("main", "json", 1)
    monkeypatch.setattr(topic, "check", down)
    with pytest.raises(pqlog.UncertainError, match="may or may not be there"):
        topic.append_one(b"1", None, None)


def test_a_put_of_nothing_waits_for_nothing_in_its_transaction(stores, monkeypatch):
    here = stores()
    (topic,) = here.topic("main", "json", 1)
    output = Output(topic, [Singles([b"1"])], Ids([["x"]], never))
    stop = here.append([output])[0].last + 1
    monkeypatch.setattr(topic, "kept", down)
    assert here.append([output])[0].first >= stop
    monkeypatch.setattr(here.cluster, "stable", down)
    assert here.append([output])[0].first >= stop


# loops


def test_a_worker_that_looks_in_vain_gives_up(stores, monkeypatch):
    here = stores()
    (topic,) = here.topic("main", "json", 1)
    topic.append_one(b"1", None, None)
    topic.client("c").join()
    tries = []

    def stale(*_):
        tries.append(1)
        raise Stale

    monkeypatch.setattr(Taking, "take_in", stale)
    monkeypatch.setattr(here.cluster, "_timeout_s", 1.0)
    assert topic.client("c").advance(Size(10, None), "worker") == (None, [])
    assert len(tries) > 1


def test_joining_in_vain_ends(stores, monkeypatch):
    here = stores()
    (topic,) = here.topic("main", "json", 1)

    def fenced(*_, **__):
        raise Fenced("another process took over")

    monkeypatch.setattr(here.lanes, "change", fenced)
    monkeypatch.setattr(here.cluster, "_timeout_s", 1.0)
    with pytest.raises(Fenced):
        here.join([topic.client("c")])


# what is left


def test_few_lanes_keep_their_producers(stores):
    here = stores()
    for number in range(14):
        add(here, [f"cursor/{number}"])
    assert sum(lane.producer is not None for lane in here.lanes._lanes.values()) <= 9


def test_a_log_that_is_closed_leaves_no_marks_of_its_puts(stores):
    here, there = stores(), stores()
    (topic,) = here.topic("main", "json", 1)
    lane = here.lanes._lane(here._put_lane())
    until = time.monotonic() + 60
    while lane.producer is None:
        here.append([Output(topic, [Singles([b"1"])])])
        assert time.monotonic() < until
    tail = there._state.tail(store.PUT_LANE)
    tail.refresh()
    assert tail.names(store.PUT_LANE) == [lane.name]
    here.close()
    tail.refresh()
    assert tail.names(store.PUT_LANE) == []


def test_marks_of_processes_that_were_killed_get_old(stores, monkeypatch):
    monkeypatch.setattr(lanes, "FORGOTTEN_MS", 1)
    first, second, third = stores(), stores(), stores()
    first.topic("main", "json", 1)
    for one in (first, second, third):
        one.append([Output(one.find_topic("main")[0], [Singles([b"1"])])])
        time.sleep(0.05)
    tail = third._state.tail(store.PUT_LANE)
    tail.refresh()
    assert first._put_lane() not in tail.names(store.PUT_LANE)
    assert third._put_lane() in tail.names(store.PUT_LANE)


@pytest.mark.parametrize(
    "values", [[{"n": 1}], [{"n": 1}] * 5, pd.DataFrame({"n": range(9)})], ids=["put", "many", "frame"]
)
def test_ctrl_c_is_a_keyboard_interrupt(cluster_url, values):
    with pqlog.open(cluster_url) as log:
        put = (lambda: log.put(values[0])) if len(values) == 1 else (lambda: log.put_many(values))
        put()
        for number in range(12):
            timer = threading.Timer(0.1 + number / 500, lambda: os.kill(os.getpid(), signal.SIGINT))
            with pytest.raises(KeyboardInterrupt):
                timer.start()
                while timer.is_alive():
                    put()
                time.sleep(60)
        put()
