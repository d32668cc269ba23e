"""Locks of the engine on a cluster: Ctrl-C leaves none held, wherever it strikes and whoever collects the rest."""

import gc
import threading
import time

import pytest

from pqlog.store.kafka.locking import Busy, is_held_elsewhere, while_holding
from tests.interrupts import everywhere, last, within


def test_work_is_done_while_the_locks_are_held():
    locks = [threading.RLock() for _ in range(3)]
    held = while_holding(locks, 0.0, lambda: within(60, lambda: [is_held_elsewhere(lock) for lock in locks]))
    assert held == [True] * 3
    assert not any(within(60, lambda: [is_held_elsewhere(lock) for lock in locks]))


def test_an_error_of_the_work_is_raised_and_the_locks_are_free():
    lock = threading.RLock()
    with pytest.raises(ZeroDivisionError):
        while_holding([lock], 0.0, lambda: 1 // 0)
    assert not within(60, lambda: is_held_elsewhere(lock))


def test_a_lock_that_another_thread_holds_is_waited_for_and_the_others_are_given_back():
    mine, other = threading.RLock(), threading.RLock()
    held, done = threading.Event(), threading.Event()

    def hold():
        held.set()
        done.wait(60)

    thread = threading.Thread(target=lambda: while_holding([other], 0.0, hold))
    thread.start()
    held.wait(60)
    with pytest.raises(Busy):
        while_holding([mine, other], time.monotonic() + 0.05, pytest.fail)
    assert not within(60, lambda: is_held_elsewhere(mine))
    assert is_held_elsewhere(other)
    threading.Timer(0.05, done.set).start()
    assert while_holding([mine, other], time.monotonic() + 60, lambda: "had them") == "had them"
    thread.join()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("is_one", [False, True])
def test_ctrl_c_anywhere_leaves_no_lock_held(is_one):
    locks, places = [threading.RLock() for _ in range(3)], []
    call = (lambda: is_held_elsewhere(locks[0])) if is_one else (lambda: while_holding(locks, 0.0, list))

    def collect_and_look():
        last.clear()
        gc.collect()
        return [is_held_elsewhere(lock) for lock in locks]

    for where in everywhere(call, KeyboardInterrupt):
        places.append(where)
        assert within(60, collect_and_look) == [False] * 3, where
    assert len(places) > 3
