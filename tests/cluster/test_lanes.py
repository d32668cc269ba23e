"""Lanes: who holds one knows it exactly, whoever held it before changes nothing, and a lost answer is found out."""

import contextlib
import threading
import time

import pytest
from confluent_kafka import KafkaError, KafkaException

import pqlog
from pqlog.store.kafka import attempt, holding
from pqlog.store.kafka import lanes as lanes_module
from pqlog.store.kafka.fencing import Fenced
from pqlog.store.kafka.lane import MARK

ONE, TWO, THREE = "client/1/0/c", "client/1/1/c", "cursor/c"


def add(store, names, take=True):
    """Count up in lanes; the number in the first."""

    def work(tx):
        for name in names:
            tx.set(name, "n", (tx.value(name, "n") or 0) + 1)
        return tx.values(names[0])["n"]

    return store.lanes.change(names, work, take)


def seen(store, *names):
    return [one.get("n", 0) for one in store.lanes.look_at(names)]


@pytest.fixture
def commit_of(monkeypatch):
    """Replaces the commit of transactions: `how` is given the real one, and may do it or not, and fail or not."""

    def replace(how):
        real = attempt.commit
        calls = []

        def commit(producer, timeout_s, check):
            calls.append(producer)
            return how(lambda: real(producer, timeout_s, check), len(calls))

        monkeypatch.setattr(attempt, "commit", commit)
        return calls

    return replace


def timed_out():
    return KafkaException(KafkaError(KafkaError._TIMED_OUT, "the answer was lost"))


def test_a_change_is_seen_by_all_and_held_by_one(stores):
    one, two = stores(), stores()
    assert one.lanes.look(ONE) == {}
    assert [add(one, [ONE]) for _ in range(3)] == [1, 2, 3]
    assert one.lanes.look(ONE) == two.lanes.look(ONE) == {"n": 3}
    assert (one.lanes.is_held(ONE), two.lanes.is_held(ONE)) == (True, False)
    assert [add(two, [ONE]), add(one, [ONE]), add(two, [ONE])] == [4, 5, 6]
    assert seen(one, ONE) == seen(two, ONE) == [6]


def test_a_value_is_removed(stores):
    one, two = stores(), stores()
    add(one, [ONE])
    one.lanes.change([ONE], lambda tx: tx.set(ONE, "n", None))
    assert one.lanes.look(ONE) == two.lanes.look(ONE) == {}
    assert two.lanes.names("client/1/") == []
    assert two.lanes.change([ONE], lambda tx: tx.values(ONE)) == {}


def test_what_raises_changes_nothing(stores):
    one = stores()
    add(one, [ONE, TWO])

    def work(tx):
        tx.set(ONE, "n", 7)
        tx.set(TWO, "n", 8)
        assert tx.values(ONE) == {"n": 7}
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            one.lanes.change([ONE, TWO], work)
        assert seen(one, ONE, TWO) == [1, 1]
    assert add(one, [ONE, TWO]) == 2


@pytest.mark.parametrize("names", [[ONE], [ONE, TWO], [TWO, ONE, THREE]])
def test_a_zombie_before_its_transaction_is_refused_or_knows(stores, names):
    one, two = stores(), stores()
    add(one, names)
    add(two, names)
    with pytest.raises(Fenced):
        add(one, names, take=False)
    assert seen(one, *names) == [2] * len(names)
    assert add(one, names) == 3
    with pytest.raises(Fenced):
        add(two, names, take=False)


@pytest.mark.parametrize("taken", [[ONE], [TWO], [ONE, TWO]])
def test_a_zombie_in_its_transaction_is_refused(stores, taken):
    """Another process takes some of its lanes while it works: nothing of it remains, and it begins again."""
    one, two = stores(), stores()
    add(one, [ONE, TWO])
    tries = []

    def work(tx):
        tries.append(tx.values(ONE)["n"])
        tx.set(ONE, "n", tx.value(ONE, "n") + 10)
        tx.set(TWO, "n", tx.value(TWO, "n") + 10)
        if len(tries) == 1:
            add(two, taken)

    one.lanes.change([ONE, TWO], work)
    assert len(tries) >= 2
    assert seen(two, ONE, TWO) == [11 + (ONE in taken), 11 + (TWO in taken)]


def test_a_zombie_between_its_confirmation_and_its_commit_is_waited_for(stores, commit_of):
    """Whoever takes the second lane then waits for the outcome, and builds on it."""
    one, two = stores(), stores()
    add(one, [ONE, TWO])
    found = []

    def late(real, call):
        if call == 2:  # the first is the confirmation
            thread = threading.Thread(target=lambda: found.append(add(two, [TWO])))
            thread.start()
            thread.join(1)
            assert not found
        return real()

    commit_of(late)
    assert add(one, [ONE, TWO]) == 2
    until = time.monotonic() + 30
    while not found and time.monotonic() < until:
        time.sleep(0.05)
    assert found == [3]
    assert seen(one, ONE, TWO) == [2, 3]


def test_what_a_zombie_raises_or_returns_without_a_change_is_true(stores):
    one, two = stores(), stores()
    add(one, [ONE])
    add(two, [ONE])
    assert one.lanes.change([ONE], lambda tx: tx.values(ONE)) == {"n": 2}
    add(two, [ONE])

    def work(tx):
        raise ValueError(tx.values(ONE)["n"])

    with pytest.raises(ValueError, match="3"):
        one.lanes.change([ONE], work)


# lost answers


@pytest.mark.parametrize("names", [[ONE], [ONE, TWO]])
def test_a_commit_whose_answer_was_lost_is_found(stores, commit_of, names):
    one, two = stores(), stores()
    add(one, names)
    lost = len(names)

    def lose(real, call):
        took = real()
        if call == lost:
            raise timed_out()
        return took

    calls = commit_of(lose)
    assert add(one, names) == 2
    assert len(calls) == lost
    assert seen(two, *names) == [2] * len(names)
    assert add(one, names) == 3


@pytest.mark.parametrize("names", [[ONE], [ONE, TWO]])
def test_a_commit_that_was_not_made_is_made_again(stores, commit_of, names):
    one, two = stores(), stores()
    add(one, names)

    def fail(real, call):
        if call == len(names):
            raise timed_out()
        return real()

    commit_of(fail)
    assert add(one, names) == 2
    assert seen(two, *names) == [2] * len(names)


def test_a_commit_whose_answer_was_lost_is_found_though_another_took_the_lane(stores, commit_of):
    one, two = stores(), stores()
    add(one, [ONE])

    def lose(real, call):
        took = real()
        if call == 1:
            assert add(two, [ONE]) == 3
            raise KafkaException(KafkaError(KafkaError._FENCED, "another took it"))
        return took

    commit_of(lose)
    assert add(one, [ONE]) == 2
    assert seen(one, ONE) == [3]


def test_nobody_knows_whether_a_commit_was_made(stores, commit_of, monkeypatch):
    one = stores()
    add(one, [ONE])

    def lose(real, call):
        took = real()
        if call == 1:
            raise timed_out()
        return took

    commit_of(lose)
    monkeypatch.setattr(attempt, "ASKED_WITHIN_S", -1)
    with pytest.raises(pqlog.UncertainError, match="the answer to a commit was lost"):
        add(one, [ONE])
    assert seen(one, ONE) == [2]
    assert add(one, [ONE]) == 3


def test_a_producer_is_not_used_again_after_a_slow_commit(stores, commit_of):
    one = stores()
    add(one, [ONE])
    calls = commit_of(lambda real, call: real() + (2.0 if call == 1 else 0.0))
    assert [add(one, [ONE]) for _ in range(3)] == [2, 3, 4]
    first, second, third = calls
    assert first is not second
    assert second is third
    assert one.lanes.is_held(ONE)


@pytest.mark.parametrize("is_made", [True, False])
def test_ctrl_c_in_a_commit_leaves_no_lane_with_what_is_not_so(stores, commit_of, is_made):
    one, two = stores(), stores()
    add(one, [ONE, TWO])

    def strike(real, call):
        if call == 2:
            if is_made:
                real()
            raise KeyboardInterrupt
        return real()

    commit_of(strike)
    with pytest.raises(KeyboardInterrupt):
        add(one, [ONE, TWO])
    now = 2 if is_made else 1
    assert seen(two, ONE, TWO) == [now] * 2
    assert [add(one, [TWO]), add(one, [ONE]), add(one, [TWO, ONE])] == [now + 1, now + 1, now + 2]


def test_a_lane_of_which_much_was_committed_is_read_from_the_cluster(stores, monkeypatch):
    monkeypatch.setattr(holding, "MANY", 10)
    one = stores()
    for turn in range(3):
        one.lanes.change([ONE], lambda tx, turn=turn: [tx.set(ONE, f"{n}", turn) for n in range(20)])
        assert one.lanes.change([ONE], lambda tx: tx.values(ONE)) == {f"{n}": turn for n in range(20)}
    assert len(one.lanes._lanes[ONE].own) == 0


# many


@pytest.mark.parametrize("names", [[ONE], [ONE, TWO]])
def test_threads_and_stores_that_fight_for_lanes_lose_nothing(stores, names):
    two = [stores(100), stores(100)]
    found = []

    def work(store):
        for _ in range(2):
            found.append(add(store, names))

    threads = [threading.Thread(target=work, args=(two[number % 2],)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(1, 9))
    assert seen(two[0], *names) == [8] * len(names)


def test_lanes_that_are_idle_give_their_producers_up(stores, monkeypatch):
    monkeypatch.setattr(lanes_module, "MOST_HELD", 3)
    one = stores()
    names = [f"cursor/{number}" for number in range(8)]
    for name in names:
        add(one, [name])
    held = [lane for lane in one.lanes._lanes.values() if lane.producer is not None]
    assert len(held) <= 4
    assert [add(one, [name]) for name in names] == [2] * 8


def test_the_marks_of_holders_that_are_gone_are_dropped(stores, monkeypatch):
    monkeypatch.setattr(holding, "MARKS_KEPT_MS", 0)
    for _ in range(4):
        store = stores()
        add(store, [ONE])
        time.sleep(0.05)
    entries = store._state.tail(ONE).lane(ONE)
    store._state.tail(ONE).refresh()
    assert sum(key.startswith(MARK) for key in entries) <= 2


def test_the_state_is_read_on_though_much_was_written(stores):
    one, two = stores(), stores()
    for start in range(0, 3_000, 1_000):
        one.lanes.change([THREE], lambda tx, start=start: [tx.set(THREE, f"{start + n}", n) for n in range(1_000)])
        assert len(two.lanes.look(THREE)) == start + 1_000
    assert len(stores().lanes.look(THREE)) == 3_000


def test_a_log_that_was_closed_ends_calls_that_wait_for_a_lane(stores):
    one = stores()
    began, ended = threading.Event(), []

    def hold(tx):
        began.set()
        time.sleep(1)

    def wait():
        try:
            add(one, [ONE])
        except pqlog.Error as error:
            ended.append(error)

    holder = threading.Thread(target=lambda: contextlib.suppress(pqlog.Error) and one.lanes.change([ONE], hold))
    holder.start()
    began.wait()
    waiting = threading.Thread(target=wait)
    waiting.start()
    one.close()
    waiting.join(10)
    holder.join(10)
    assert not waiting.is_alive()
    assert isinstance(ended[0], pqlog.ClosedError)
