"""`send`: done is durable, whatever ends the process; nothing hangs, and no failure is lost."""

import contextlib
import gc
import random
import sys
import threading
import time
import weakref

import pytest

import pqlog
from tests import processes
from tests.interrupts import moments, struck, within
from tests.processes import start, wait_until
from tests.promises.test_kills import kill_again_and_again, report_of
from tests.rings import by_ring


def sending_threads():
    return [thread for thread in threading.enumerate() if thread.name == "pqlog-send"]


def test_a_program_that_ends_has_put_what_it_sent(path):
    """Without closing the log, and without asking a future."""
    processes.run("import sys, pqlog\nlog = pqlog.open(sys.argv[1])\nfor n in range(3000): log.send(n)", path)
    with pqlog.open(path) as log:
        assert [message.value for message in log] == list(range(3000))


def test_a_process_of_multiprocessing_that_ends_has_put_what_it_sent(path):
    script = """
import multiprocessing, sys, pqlog
def work(path):
    global log
    log = pqlog.open(path)
    for n in range(500): log.send(n)
process = multiprocessing.get_context("fork").Process(target=work, args=sys.argv[1:])
process.start()
process.join(100)
assert process.exitcode == 0
"""
    processes.run(script, path)
    with pqlog.open(path) as log:
        assert [message.value for message in log] == list(range(500))


def test_a_program_that_ends_says_what_was_not_put(path):
    script = """
import sys, pqlog
log = pqlog.open(sys.argv[1])
seen, _, good = log.send(object()), log.send({1j}), log.send("good")
seen.exception()
"""
    with start(script, path, stderr=-1) as process:
        _, said = process.communicate(timeout=60)
    assert "cannot put a set" in said
    assert "a message was not put" in said
    assert "cannot put an object" not in said
    with pqlog.open(path) as log:
        assert [message.value for message in log] == ["good"]


def test_sending_while_the_interpreter_ends_is_put(path):
    script = """
import atexit, sys, pqlog
log = pqlog.open(sys.argv[1])
atexit.register(lambda: log.send("late"))
"""
    processes.run(script, path)
    with pqlog.open(path) as log:
        assert [message.value for message in log] == ["late"]


def test_an_error_in_the_with_is_not_hidden_by_a_message_that_was_not_put(path):
    with pytest.raises(RuntimeError, match="mine") as caught, pqlog.open(path) as log:
        log.send(object())
        raise RuntimeError("mine")
    assert "cannot put an object" in caught.value.__notes__[0]


def test_the_thread_ends_when_there_is_nothing_to_put_and_keeps_no_log_alive(path):
    log = pqlog.open(path)
    log.send(1).result(60)
    assert sending_threads()
    wait_until(lambda: not sending_threads(), 20)
    log.send(2).result(60)
    ref = weakref.ref(log)
    del log
    gc.collect()
    assert ref() is None
    wait_until(lambda: not sending_threads(), 20)


def test_a_callback_that_ends_its_thread_stops_no_other(path):
    with pqlog.open(path) as log:
        for n in range(20):
            log.send(n).add_done_callback(lambda _: threading.current_thread().name == "pqlog-send" and sys.exit())
        log.put("last")
        assert len(log) == 21


def test_a_full_disk_is_told_to_all_and_the_log_goes_on(path, monkeypatch):
    with pqlog.open(path) as log:
        log.put(0)
        log.store.log._writer.exclusively(lambda db: db.pragma("max_page_count", db.pragma("page_count") + 20))
        sent = [log.send("x" * 20_000) for _ in range(30)]
        failed = [future for future in sent if future.exception(60)]
        assert failed
        assert all(isinstance(future.exception(), pqlog.DiskFullError) for future in failed)
        log.store.log._writer.exclusively(lambda db: db.pragma("max_page_count", 1 << 30))
        log.send("after").result(60)
        there = {message.offset for message in log}
        assert {future.result() for future in sent if future not in failed} <= there
        assert len(there) == 2 + len(sent) - len(failed)


def test_ctrl_c_ends_a_send_that_waits_for_room_and_a_wait_for_a_future(path):
    script = """
import os, signal, sys, threading, pqlog
from pqlog import sender
sender.MOST = 5
log = pqlog.open(sys.argv[1])
go_on, real = threading.Event(), log.store.log.append_each
log.store.log.append_each = lambda some: (go_on.wait(60), real(some))[1]
def interrupt_soon():
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
sent = []
interrupt_soon()
try:
    for n in range(100):
        sent.append(log.send(n))
    raise AssertionError("all were sent")
except KeyboardInterrupt:
    assert len(sent) == 5, len(sent)
interrupt_soon()
try:
    sent[-1].result()
    raise AssertionError("it was done")
except KeyboardInterrupt:
    pass
go_on.set()
assert [future.result(60) for future in sent] == [1, 2, 3, 4, 5]
assert log.put("after") == 6
log.close()
"""
    processes.run(script, path, timeout=100)


def test_ctrl_c_in_a_loop_that_sends_and_asks_hangs_nothing(path):
    """Real signals, at random moments, also within a call of the future."""
    script = """
import collections, os, random, signal, sys, threading, time, pqlog
chance = random.Random(int(sys.argv[2]))
log, done, begun = pqlog.open(sys.argv[1]), [], threading.Event()
def interrupt():
    begun.wait(60)
    for _ in range(60):
        time.sleep(chance.random() * 0.02)
        os.kill(os.getpid(), signal.SIGINT)
    done.append(True)
threading.Thread(target=interrupt).start()
n, sent = 0, collections.deque()
while not done:
    try:
        begun.set()
        while not done:
            sent.append((n, log.send(n)))
            n += 1
            if len(sent) > 20:
                sent[0][1].result(60)
                sent.popleft()
    except KeyboardInterrupt:
        n += 1
    except RuntimeError as error:      # the lock of threading.Condition, struck while it was released
        assert isinstance(error.__context__, KeyboardInterrupt), error
        n += 1
for value, future in sent:
    assert log[future.result(60)].value == value
log.close()
with pqlog.open(sys.argv[1]) as log:
    values = [message.value for message in log]
    assert values == sorted(values)
    assert log.verify() == []
"""
    for seed in range(by_ring(2, 8)):
        processes.run(script, f"{path}{seed}", seed, timeout=100)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # one in a finalizer is only printed
@pytest.mark.parametrize("wait", [False, True], ids=["send", "send and wait"])
def test_what_an_interrupted_send_leaves(tmp_path, wait):
    """After Ctrl-C at any moment, all that was sent before and after is put, in its order, once."""

    def call(log):
        future = log.send({"n": 1}, id="mine")
        return future.result(60) if wait else log.sender.flush()

    with pqlog.open(tmp_path / "0.db") as log:
        count = moments(lambda: call(log))
    for at in range(1, count, max(1, count // by_ring(60, 300))):
        with pqlog.open(tmp_path / f"{at}.db") as log:
            before = log.send({"n": 0})
            _, where = struck(lambda log=log: call(log), at, KeyboardInterrupt())
            after = within(60, lambda log=log: log.send({"n": 2}).result(60))
            assert before.result(60) == 1, where
            values = [message.value["n"] for message in log]
            assert values in ([0, 1, 2], [0, 2]), where
            assert after == len(values)
            log.sender.flush()
            assert not log.sender.is_busy, where
            within(60, log.close)


def test_a_fork_leaves_to_the_parent_what_was_sent_there(path):
    script = """
import os, sys, threading, warnings, pqlog
warnings.simplefilter("ignore", DeprecationWarning)
log = pqlog.open(sys.argv[1])
for number in range(30):
    sent = [log.send([number, n]) for n in range(50)]
    pid = os.fork()
    if not pid:
        code = 1
        try:
            for future in sent:
                error = future.exception(60)
                assert error is None or isinstance(error, pqlog.ForkError), error
            assert log.send(["child", number]).result(60)
            assert log.put(["child too", number])
            log.close()
            code = 0
        finally:
            os._exit(code)
    assert [future.result(60) for future in sent]
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
log.close()
"""
    processes.run(script, path, timeout=200)
    with pqlog.open(path) as log:
        values = [message.value for message in log]
        mine = [value for value in values if type(value[0]) is int]
        assert mine == [[number, n] for number in range(30) for n in range(50)]
        assert len(values) == len(mine) + 60


def test_what_was_done_before_a_kill_is_there(path):
    with pqlog.open(path):
        pass
    rounds = by_ring(6, 40)
    kill_again_and_again(path, ("send1", "send2"), rounds)
    with pqlog.open(path) as log:
        assert log.verify() == []
        found = {message.offset: message.value for message in log}
        told = 0
        for number in range(rounds):
            for name in ("send1", "send2"):
                for line in report_of(path, name, number)[1:]:
                    n, offset = map(int, line.split())
                    assert found[offset] == [f"{number}{name[4:]}", n]
                    told += 1
        assert told > 20 * rounds
        for name in {value[0] for value in found.values()}:  # none is missing before one that is there
            mine = [value[1] for value in found.values() if value[0] == name]
            assert mine == list(range(len(mine)))


def test_a_failing_thread_of_ours_leaves_no_future_without_an_end(path, monkeypatch):
    with pqlog.open(path) as log:
        log.put(0)
        monkeypatch.setattr(log.store.log, "append_each", lambda some: 1 / 0)
        assert isinstance(log.send(1).exception(60), pqlog.StoreError)
        monkeypatch.undo()
        assert log.send(2).result(60) == 2


def test_random_sends_puts_cancels_and_closes_end(tmp_path):
    for seed in range(by_ring(5, 60)):
        chance = random.Random(seed)
        log, sent = pqlog.open(tmp_path / f"{seed}.db"), []

        def work(name, log=log, sent=sent, chance=chance):
            with contextlib.suppress(pqlog.ClosedError):
                for n in range(200):
                    future = log.send([name, n])
                    sent.append(([name, n], future))
                    if chance.random() < 0.1:
                        future.cancel()
                    if chance.random() < 0.1:
                        log.put([name, n + 0.5])
                    if chance.random() < 0.05:
                        time.sleep(0.001)

        threads = [threading.Thread(target=work, args=(name,)) for name in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(chance.random() * 0.1)
        within(60, log.close)
        for thread in threads:
            thread.join(60)
        with pqlog.open(tmp_path / f"{seed}.db") as log:
            found = {message.offset: message.value for message in log}
        put = [value for value in found.values() if type(value[1]) is int]
        for value, future in sent:
            assert future.done()
            if future.cancelled():
                assert value not in put
            elif future.exception() is None:
                assert found[future.result()] == value
            else:
                assert isinstance(future.exception(), pqlog.ClosedError)
                assert value not in put
        for name in range(3):
            mine = [value[1] for value in found.values() if value[0] == name]
            assert mine == sorted(mine)
