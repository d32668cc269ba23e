"""Who holds a batch: one reader at a time, in any thread, whatever the clock says, until it releases it."""

import contextlib
import gc
import os
import subprocess
import sys
import tempfile
import threading
import weakref
from pathlib import Path

import apsw
import pytest

import pqlog
from pqlog.store import owners
from pqlog.store.owners import Fate
from pqlog.store.sqlite import claims
from tests import rows, seams
from tests.interrupts import within
from tests.processes import run, start, wait_until


def elsewhere(path, script):
    """The output of another process, which has the log open, and `take`, which takes a batch of client "c"."""
    head = """
import os, sys, pqlog, pqlog.delivery, pqlog.store.sqlite.store, encodings.ascii
from pqlog.store.sqlite import claims
def take(timeout=0):
    batch = log.client("c").next_batch(size=2, timeout=timeout)
    return None if batch is None else (batch.number, batch.attempt)
"""
    return run(head + script, path)


OPEN = "log = pqlog.open(sys.argv[1])\n"


# inside one process


def test_a_batch_is_with_whoever_has_it(log):
    log.put_many(range(4))
    batch = next(log.batches("c", size=2))
    gc.collect()
    single = log.client("c").next_batch(size=1)
    assert (batch.number, single.number) == (1, 2)
    with single:
        assert list(single) == [2]
    batch.ack()
    assert log.client("c").position == 4


def test_a_batch_of_a_thread_that_has_ended_is_still_with_whoever_has_it(log):
    log.put_many(range(10))
    taken = []
    fetching = threading.Thread(target=lambda: taken.append(log.client("c").next_batch(size=5)))
    fetching.start()
    fetching.join()
    assert log.client("c").next_batch(size=5).number == 2
    taken[0].ack()
    assert log.client("c").position == 6


def test_two_readers_of_one_thread_take_nothing_from_each_other(log):
    log.put_many(range(10))
    one, two = log.batches("c", size=2), log.batches("c", size=2)
    assert [next(one).number, next(two).number, next(one).number, next(two).number] == [1, 2, 3, 4]
    assert log.client("c").position == 5


@pytest.mark.parametrize("leave", ["break", "raise", "close"])
def test_a_loop_that_is_left_gives_its_batch_back_though_somebody_has_it(log, leave):
    log.put_many(range(4))

    def work():
        reading = log.batches("c", size=2)
        for batch in reading:
            kept.append(batch)
            if leave == "raise":
                raise KeyError
            if leave == "close":
                reading.close()
            break

    kept = []
    with contextlib.suppress(KeyError):
        work()
    with pytest.raises(pqlog.ClaimLostError, match="its loop was left" if leave != "close" else "it was released"):
        kept[0].ack()
    again = log.client("c").next_batch()
    assert (again.number, again.attempt) == (1, 2)


def test_what_has_ended_says_how(log):
    log.put_many(range(4))
    first, second = log.client("c").next_batch(size=2), log.client("c").next_batch(size=2)
    first.ack()
    second.release()
    for batch, how in ((first, "it was acknowledged"), (second, "it was released")):
        with pytest.raises(pqlog.ClaimLostError, match=f"batch {batch.number} of client 'c' .* this reader: {how}$"):
            batch.ack()


def test_a_batch_that_is_collected_in_the_midst_of_a_commit_comes_again(log):
    log.put_many(range(2))
    cycle = [log.client("c").next_batch()]
    cycle.append(cycle)
    collected = []

    def commit():
        collected.append(gc.collect())
        return False

    del cycle
    gc.disable()
    seams.connection(log).set_commit_hook(commit)
    try:
        log.put(2)
    finally:
        seams.connection(log).set_commit_hook(None)
        gc.enable()
    assert collected[0]
    assert log.client("c").next_batch().attempt == 2


@pytest.mark.parametrize("after", range(0, 60, 3))
def test_batches_that_are_collected_at_any_moment_of_a_call_come_again(log, after):
    log.put_many(range(100))
    held = [log.client("c").next_batch(size=1) for _ in range(50)]
    before = gc.get_threshold()
    gc.disable()
    cycle = [log.client("c").next_batch(size=1) for _ in range(50)]
    cycle.append(cycle)
    del cycle
    pairs = [(i, i) for i in range(5000)]  # CPython has none to reuse now: each one that a call creates counts
    gc.set_threshold(gc.get_count()[0] + after)  # this many containers later, a collection starts
    gc.enable()
    try:
        assert len(seams.held_claims(log).all()) >= len(held)
    finally:
        gc.set_threshold(*before)
    assert len(pairs) == 5000
    gc.collect()
    again = [log.client("c").next_batch(size=1) for _ in range(2)]
    assert [batch.number for batch in again] == [51, 52]


def test_a_thread_that_dies_in_a_loop_gives_its_batch_back(log):
    log.put_many(range(2))
    errors = []

    def work():
        for _ in log.batches("c"):
            raise KeyError

    worker = threading.Thread(target=work)
    hook, threading.excepthook = threading.excepthook, errors.append  # keeps the exception, and so the thread's frames
    try:
        worker.start()
        worker.join()
    finally:
        threading.excepthook = hook
    assert errors[0].exc_type is KeyError
    assert log.client("c").next_batch().attempt == 2


def test_a_loop_that_fails_between_two_batches_gives_its_batch_back_though_the_error_is_kept(path):
    with pqlog.open(path, timeout=0.1) as log:
        log.put_many(range(4))
        other = apsw.Connection(str(path))
        with pytest.raises(pqlog.LockTimeoutError) as kept:
            for _ in log.batches("c", size=2):
                other.execute("BEGIN IMMEDIATE")  # so that acknowledging fails
        other.execute("ROLLBACK")
        other.close()
        again = log.client("c").next_batch()
        assert (again.number, again.attempt, kept.tb is None) == (1, 2, False)


def test_what_a_closed_log_held_is_free_though_the_process_lives(path):
    with pqlog.open(path) as log:
        log.put_many(range(4))
        held = log.client("c").next_batch(size=2)
    assert elsewhere(path, OPEN + "print(take())") == "(1, 2)\n"
    with pytest.raises(pqlog.ClosedError):
        held.ack()


def test_what_this_process_is_said_to_hold_and_does_not_is_free(path):
    """For example a log that was closed while the disk was full."""
    log = pqlog.open(path)
    log.put_many(range(4))
    held = log.client("c").next_batch(size=2)
    held_claims = seams.held_claims(log)
    held_claims.drop(held_claims.all()[0])
    log.close()
    with pqlog.open(path) as log:
        assert log.client("c").claims()[0].owner
        assert log.client("c").next_batch().attempt == 2
        assert held.number == 1


def test_a_batch_from_before_a_fork_is_the_parents(log):
    log.put_many(range(4))
    held = log.client("c").next_batch(size=2)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            with contextlib.suppress(pqlog.ForkError):
                held.ack()
                code = 2
            if code == 1 and next(log.batches("c", follow=True)).first == 3:  # the parent lives, and keeps its batch
                code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    held.ack()
    assert log.client("c").position == 3


@pytest.mark.parametrize("follow", [False, True])
def test_a_loop_over_a_closed_log_says_so(log, follow):
    log.put(1)
    log.close()
    with pytest.raises(pqlog.ClosedError):
        list(log.batches("c", follow=follow))


def test_a_loop_whose_log_is_closed_while_it_works_says_that_nothing_was_acknowledged(log):
    log.put(1)
    reading = log.batches("c", follow=True)
    next(reading)
    log.close()
    with pytest.raises(pqlog.ClosedError):
        next(reading)


# several processes


def test_a_batch_that_was_left_is_soon_free_for_others(path, log):
    log.put_many(range(4))
    for _ in log.batches("c", size=2):
        break
    assert elsewhere(path, OPEN + "print(take(60))") == "(1, 2)\n"
    del _
    taken = log.client("c").next_batch(size=2)
    assert (taken.number, taken.attempt) == (1, 3)  # that process is gone
    del taken
    assert elsewhere(path, OPEN + "print(take(60))") == "(1, 4)\n"


def test_no_clock_takes_a_batch_from_whoever_is_known_to_live(path, log):
    log.put_many(range(4))
    held = log.client("c").next_batch(size=2)
    for shift in ("+ 3600_000_000", "- 3600_000_000", "+ 10**15"):
        later = f"real = claims.now_micros\nclaims.now_micros = lambda: real() {shift}\n"
        assert elsewhere(path, OPEN + later + "assert take() != (1, 2)\nlog.close()") == ""
    held.ack()


def test_where_other_users_processes_are_hidden_they_are_not_taken_for_gone():
    if os.geteuid() != 0:
        pytest.skip("only root can mount another /proc: run it as root")
    folder = tempfile.TemporaryDirectory()  # tmp_path is hidden from other users
    path = Path(folder.name, "events.db")
    with pqlog.open(path) as log:
        log.put_many(range(4))
    path.chmod(0o666)
    path.parent.chmod(0o777)
    worker = """
import os, sys
os.setgid(65534), os.setuid(int(sys.argv[2]))
log = pqlog.open(sys.argv[1])
batch = log.client("c").next_batch(size=2)
print(sys.argv[2], batch.number, flush=True)
sys.stdin.readline()
"""
    script = f"""
import subprocess, sys, encodings.ascii, pqlog, pqlog.delivery, pqlog.store.sqlite.store
subprocess.run(["mount", "-t", "proc", "-o", "hidepid=2", "proc", "/proc"], check=True)
def worker(user):  # it imports before it is another user, who may not read where that lies
    head = "import encodings.ascii, pqlog, pqlog.delivery, pqlog.store.sqlite.store\\n"
    command = [sys.executable, "-c", head + {worker!r}, sys.argv[1], user]
    process = subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, umask=0)
    print(process.stdout.readline(), end="", flush=True)
    return process
first, second = worker("65534"), worker("65533")
first.communicate("\\n")
third = worker("65533")
second.communicate("\\n"), third.communicate("\\n")
"""
    command = ["unshare", "-m", sys.executable, "-c", script, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if "permission denied" in done.stderr.lower() or "not permitted" in done.stderr.lower():
        pytest.skip(f"no other /proc can be mounted here: {done.stderr}")
    folder.cleanup()
    assert done.stdout.split("\n")[:3] == ["65534 1", "65533 2", "65533 1"], done.stderr


def test_what_is_known_of_a_process():
    with start("input()") as other:
        process = owners._process(other.pid)
        host, _, rest = process.rpartition("@")
        assert owners.fate(process) is Fate.LIVES
        assert owners.fate(f"another {host}@{rest}") is Fate.UNKNOWN
        assert owners.fate(f"{process}x", is_same_host=True) is Fate.GONE  # the host was started again
        assert owners.fate(f"{process}x") is Fate.UNKNOWN  # or it is another host of the same name
        assert owners.fate(f"{host}@{other.pid}:1:") is Fate.UNKNOWN
        assert owners.fate(f"{host}@{other.pid}:1:{owners._boot()}") is Fate.GONE  # another process, same number
        assert owners.fate("") is Fate.UNKNOWN
        os.kill(other.pid, 9)
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert owners.fate(process) is Fate.GONE  # a zombie: nobody has asked for its exit status yet
    assert owners.fate(process) is Fate.GONE
    assert owners.fate(owners.this_process()) is Fate.LIVES


def test_a_lease_from_a_clock_that_was_a_year_ahead_ends_after_a_lease(path, log, monkeypatch):
    log.put_many(range(4))
    held = log.client("c").next_batch(size=2)
    db = apsw.Connection(str(path))
    rows.change(db, "claims", process="'elsewhere@1:1:x'", expires="expires + 365 * 86400 * 1000000")
    db.close()
    monkeypatch.setattr(claims, "LEASE_S", 1)
    other = log.client("c").next_batch(size=2)  # asking for a batch shortens it
    assert other.number == 2
    again = next(log.batches("c", size=2, follow=True))
    assert (again.number, again.attempt) == (1, 2)
    with pytest.raises(pqlog.ClaimLostError):
        held.ack()


# get_one


def test_get_one_hands_each_message_to_one_thread_and_waits(log):
    """None of them is told that there are no messages, and none acknowledges what another works on."""
    got, count = [], 400

    def work():
        while True:
            value = log.get_one("c", timeout=None)
            if value == "end":
                with contextlib.suppress(pqlog.Empty):
                    log.get_one("c")  # says that it is done
                return
            got.append(value)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for n in range(count):
        log.put(n)
    wait_until(lambda: log.client("c").lag <= len(workers))
    for _ in workers:
        log.put("end")
    for worker in workers:
        worker.join(60)
    assert sorted(got) == list(range(count))


def test_what_a_thread_had_that_has_ended_comes_again(log):
    log.put_many(list("abc"))
    got = []
    for _ in range(2):
        worker = threading.Thread(target=lambda: got.append(log.get_one("c")))
        worker.start()
        worker.join()
    assert got == ["a", "a"]
    assert [log.get_one("c") for _ in range(3)] == ["a", "b", "c"]
    assert log.client("c").position == 3


def test_get_one_of_a_message_that_cannot_be_decoded_loses_nothing(path):
    with pqlog.open(path, codec="bytes") as log:
        log.put_many([b"1", b"{", b"3"])
    db = apsw.Connection(str(path))
    rows.change(db, "topics", codec="'json'")
    db.close()
    with pqlog.open(path) as log:
        assert log.get_one("c") == 1
        for _ in range(2):
            with pytest.raises(pqlog.DecodeError):
                log.get_one("c")
        assert log.client("c").position == 2
        log.client("c").seek(to=3)
        assert log.get_one("c") == 3


# arguments

SECONDS = [float("nan"), -1, True, "1", 1j, -float("inf"), [1]]


@pytest.mark.parametrize("value", [*SECONDS, 10**400])
@pytest.mark.parametrize(
    "call",
    [
        lambda log, value: log.get_one("c", timeout=value),
        lambda log, value: log.client("c").next_batch(timeout=value),
        lambda log, value: log.batches("c", linger=value),
        lambda log, value: log.get_blocking("c", tick=value),
        lambda log, value: pqlog.open(":memory:", timeout=value),
    ],
)
def test_what_is_no_time_is_refused(log, call, value):
    with pytest.raises(pqlog.ArgumentError, match="must be a number of seconds"):
        call(log, value)


@pytest.mark.parametrize("value", [0, -1, True, "1", 1.0, float("nan"), pytest.param(-(10**5000), id="huge")])
@pytest.mark.parametrize("name", ["size", "max_bytes", "attempts"])
def test_what_is_no_number_of_things_is_refused(log, name, value):
    with pytest.raises(pqlog.ArgumentError, match=f"{name} must be a number of"):
        log.batches("c", **{name: value})


def test_a_batch_whose_collection_was_interrupted_comes_again(log):
    """Ctrl-C may strike before the first line of what a weak reference calls."""
    log.put_many(range(2))
    batch = log.client("c").next_batch(size=1)
    held_claims = seams.held_claims(log)
    (held,) = held_claims.all()
    held_claims._refs[held] = weakref.ref(batch.lease.claim)  # one that reports to nobody
    del batch
    gc.collect()
    assert (log.client("c").next_batch(size=1).attempt, log.client("c").next_batch(size=1).number) == (2, 1)


def test_a_token_stays_the_same_when_its_topic_is_renamed(path):
    with pqlog.open(path) as log:
        topic = log.topic("a")
        topic.put_many(range(2))
        log.rename_topic("a", "b")
        batch = topic.client("c").next_batch()
        token = batch.token
        batch.release()
        assert log.topic("b").client("c").next_batch().token == token


# trimming by force


def test_nobody_spins_after_a_forced_trim(log):
    log.put_many(range(10))
    client = log.client("c")
    next(client.get())
    log.trim(before=11, force=True)
    assert (client.position, client.lag) == (11, 0)
    assert client.next_batch() is None  # a process's first look, which also records in the file what it holds
    assert not log.store.client("c").has_work("")  # so it sleeps
    assert client.next_batch(timeout=0.01) is None
    log.put("new")
    assert list(client.next_batch()) == ["new"]


def test_a_released_message_that_is_trimmed_is_passed_over(log):
    log.put_many(["a", "b", "c"])
    client = log.client("c")
    assert client.get_one() == "a"
    client.nack()
    log.trim(before=2, force=True)
    assert client.get_one() == "b"
    client.nack(ValueError("no"))
    log.trim(before=-1, force=True)
    assert client.get_one() == "c"
    client.ack()
    assert (client.position, client.claims(), log.verify()) == (4, [], [])
    with pytest.raises(pqlog.Empty):
        client.get_one()


def test_what_is_left_of_a_released_batch_is_handed_out(log):
    log.put_many(range(6))
    client = log.client("c")
    client.next_batch(size=4).release()
    log.trim(before=3, force=True)
    batch = client.next_batch()
    assert (batch.number, list(batch)) == (1, [2, 3])
    batch.ack()
    assert (client.position, log.verify()) == (5, [])


def test_a_batch_whose_release_fails_is_given_back_later(log, monkeypatch):
    log.put_many(range(2))
    client = log.client("c")
    batch = client.next_batch(size=1)
    with monkeypatch.context() as patch:
        patch.setattr(log.store.log, "write", lambda job: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            batch.release()
    assert client.next_batch(size=1).number == 1


def test_get_one_does_not_take_a_batch_of_several_that_was_given_back(log):
    log.put_many(range(5))
    client = log.client("c")
    client.next_batch(size=3).release(ValueError("not today"))
    for _ in range(2):
        with pytest.raises(pqlog.ClaimedError, match="has batch 1 open"):
            client.get_one()
    batch = client.next_batch()
    assert (list(batch), batch.error) == ([0, 1, 2], "ValueError: not today")
    assert batch.attempt == 3  # of which one was the first get_one: the second looked
    batch.ack()
    assert client.get_one() == 3


def test_a_batch_that_was_given_back_does_not_linger(log):
    log.put_many(range(3))
    client = log.client("c")
    client.next_batch(size=2).release()
    taken = within(60, lambda: next(client.batches(size=1000, linger=3600)))
    assert len(taken) == 2


def test_a_batch_is_free_though_ctrl_c_struck_in_the_finalizer_that_gives_it_back(path, log):
    """It struck before the thread was woken that tells the file, and the process then calls nothing."""
    log.put_many(range(10))
    script = """
import sys, pqlog
from pqlog.store.sqlite import claims
claims.LEASE_S = 3600
log = pqlog.open(sys.argv[1])
held_claims = log.store.log.held_claims
def wake():
    raise KeyboardInterrupt
held_claims._wake = wake
batch = log.client("c").next_batch(size=2)
sys.unraisablehook = lambda error: None
del batch
print("left", flush=True)
sys.stdin.read()
"""
    with start(script, path) as other:
        assert other.line() == "left"
        assert list(log.client("c").next_batch(size=2, ordered=True, timeout=60)) == [0, 1]
        other.finish()
