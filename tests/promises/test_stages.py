"""Stages: what a batch puts is there if and only if the batch is acknowledged, whichever worker dies."""

import collections
import datetime
import queue
import random
import signal
import subprocess
import threading
import time

import apsw
import pandas as pd
import pytest

import pqlog
from tests import rows, seams
from tests.interrupts import moments, struck
from tests.messages import offsets, values
from tests.processes import start, wait_until


def test_outputs_are_there_with_the_acknowledgement_and_not_before(log):
    log.put_many(range(4))
    out = log.topic("out")
    seen = []
    for batch in log.batches("stage", size=2):
        staged = batch.put_many([value * 10 for value in batch], topic="out", key=None)
        more = batch.put("end", topic="out", key="k", headers={"of": str(batch.number)})
        seen.append(values(out))
        with pytest.raises(pqlog.ArgumentError, match="not acknowledged yet"):
            _ = offsets(staged.put)
    assert seen == [[], [0, 10, "end"]]
    assert values(out) == [0, 10, "end", 20, 30, "end"]
    assert (offsets(staged.put), offsets(more.put)) == (range(4, 6), range(6, 7))
    assert (out[6].key, out[6].headers) == ("k", {"of": "2"})


def test_frames_are_staged_as_frames(log):
    log.put_many(pd.DataFrame({"n": range(10)}))
    for batch in log.batches("stage", size=6):
        batch.put_many(batch.to_pandas(metadata=False).assign(twice=lambda f: f["n"] * 2), topic="out")
    assert log.topic("out").to_pandas()["twice"].tolist() == list(range(0, 20, 2))
    assert log.topic("out").to_pandas()["twice"].dtype == "int64"


def test_an_exception_releases_the_batch_and_drops_its_outputs(log):
    log.put_many(range(4))
    for attempt in (1, 2):

        def work(attempt=attempt):
            for batch in log.batches("stage", size=3):
                assert (batch.number, batch.attempt) == (1, attempt)
                with batch:
                    batch.put("lost", topic="out")
                    1 / 0

        with pytest.raises(ZeroDivisionError):
            work()
        (claim,) = log.client("stage").claims()
        assert (claim.owner, claim.error, claim.attempt) == ("", "ZeroDivisionError: division by zero", attempt)
        assert log.clients()[0].attempt == attempt
    assert len(log.topic("out")) == 0
    assert [(b.number, list(b), b.attempt, b.error) for b in log.batches("stage", size=9)] == [
        (1, [0, 1, 2], 3, "ZeroDivisionError: division by zero"),
        (2, [3], 1, None),
    ]


def test_what_was_put_through_a_batch_says_why_it_is_nowhere(log):
    log.put("a")
    batch = log.client("stage").next_batch()
    staged = batch.put(1, topic="out")
    with pytest.raises(pqlog.ArgumentError, match="not acknowledged yet"):
        _ = staged.put
    batch.release()
    with pytest.raises(pqlog.ArgumentError, match="was not acknowledged, so they were dropped"):
        _ = staged.put
    assert "dropped" in repr(staged)


# An exception in a finalizer or in a callback of the collector is only printed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_acknowledgement_that_was_interrupted_behind_its_commit_is_one(path):
    """The second call of ack finds that the first one did it."""
    with pqlog.open(path) as log:
        client = log.client("stage")
        count = moments(acknowledge(log, client).ack)
        interrupted = 0
        for at in range(count // 2, count):
            batch = acknowledge(log, client)
            struck(batch.ack, at, KeyboardInterrupt())
            was = client.position > batch.last
            interrupted += was and batch.lease.is_open
            if batch.lease.is_open:
                batch.ack()
            assert (client.lag, len(log.topic("out"))) == (0, len(log))
        assert interrupted


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_acknowledgement_that_was_interrupted_before_its_commit_is_none(log):
    """And if the client was moved meanwhile, or another worker has the batch, a second call says so."""
    client = log.client("stage")
    for is_moved in (True, False):
        batch = acknowledge(log, client)
        struck(batch.ack, 1, KeyboardInterrupt())
        if is_moved:
            client.seek("start")
        else:
            client.partitions[0].client.leave(batch.lease.claim)
        held = client.next_batch()
        with pytest.raises(pqlog.ClaimLostError):
            batch.ack()
        held.release()
    assert len(log.topic("out")) == 0


def acknowledge(log, client):
    """A batch to be acknowledged, with an output."""
    log.put("a")
    batch = client.next_batch()
    batch.put(1, topic="out")
    return batch


def test_a_name_is_that_of_the_topic_which_has_it_now(path, log):
    """Another process renames the topic that is read, and makes another under its name."""
    old = log.topic("jobs")
    old.put_many([1, 2])
    batch = old.client("stage").next_batch(size=1)
    with pqlog.open(path) as other:
        other.rename_topic("jobs", "work")
        other.topic("jobs")
    batch.put("new", topic="jobs")
    batch.ack()
    assert [message.value for message in log.topic("jobs")] == ["new"]
    assert [message.value for message in log.topic("work")] == [1, 2]


def test_dead_letters_do_not_go_into_the_topic_that_is_read(log):
    log.put("a")
    for call in (log.batches, log.client("c").next_batch):
        with pytest.raises(pqlog.ArgumentError, match="is the topic that is read"):
            call(attempts=1, dead_letter="main")
    with pytest.raises(pqlog.ArgumentError, match="is the topic that is read"):
        log.client("c").pipe(len, attempts=1, dead_letter="main")


def test_a_value_without_a_form_fails_the_batch_and_not_the_log(log):
    log.put_many(range(2))

    def work():
        for batch in log.batches("stage"):
            batch.put("first", topic="out")
            batch.put_many([1, object()], topic="out")

    with pytest.raises(pqlog.EncodeError):
        work()
    assert log.put("more") == 3
    assert len(log.topic("out")) == 0
    assert next(log.batches("stage")).attempt == 2


def test_acknowledged_early_or_by_with(log):
    log.put_many(range(6))
    reading = log.batches("stage", size=2)
    with next(reading) as batch:
        batch.put("one", topic="out")
    assert log.client("stage").position == 3
    second = next(reading)
    second.put("two", topic="out")
    second.ack()
    assert values(log.topic("out")) == ["one", "two"]
    for late in (second.ack, lambda: second.put(1, topic="out"), lambda: second.reject(log[3], "no")):
        with pytest.raises(pqlog.ClaimLostError):
            late()
    next(reading).release()
    assert [(b.number, b.attempt) for b in reading] == [(3, 2)]


def test_a_batch_that_fails_again_and_again_goes_to_the_dead_letters(log):
    log.put_many([{"n": 1}, {"n": 2}], key="n", headers={"own": "h"})
    log.put_many(pd.DataFrame({"n": [3, 4, 5]}))
    log.put({"n": 6})
    done = []
    for _ in range(4):
        try:
            for batch in log.batches("stage", size=4, attempts=2, dead_letter="dead"):
                with batch:
                    if batch.first == 1:
                        raise RuntimeError("bad batch")
                    done += [value["n"] for value in batch]
        except RuntimeError:
            continue
    assert done == [5, 6]
    assert log.client("stage").lag == 0
    dead = list(log.topic("dead"))
    assert [message.value for message in dead] == [{"n": 1}, {"n": 2}, {"n": 3}, {"n": 4}]
    assert dead[0].key == "1"
    assert dead[0].headers["own"] == "h"
    assert dead[1].headers["pqlog-offset"] == "2"
    assert {message.headers["pqlog-reason"] for message in dead} == {"RuntimeError: bad batch"}
    assert {message.headers["pqlog-batch"] for message in dead} == {"1"}


def test_dead_letters_keep_their_codec(log):
    log.topic("bytes", codec="bytes")
    log.put(1)
    next(log.batches("stage"))
    with pytest.raises(pqlog.CodecMismatchError):
        next(log.batches("stage", attempts=1, dead_letter="bytes"))
    assert log.client("stage").lag == 1
    assert list(log.batches("stage", attempts=1)) == []
    assert values(log.topic("main.dead")) == [1]


def test_a_message_that_cannot_be_decoded_goes_to_the_dead_letters_as_it_is(path):
    with pqlog.open(path) as log:
        seams.put_encoded(log, b"1", b"{", b"3")
    with pqlog.open(path) as log:

        def work():
            for batch in log.batches("stage", size=1, attempts=1):
                with batch:
                    batch.put_many(list(batch), topic="out")

        with pytest.raises(pqlog.DecodeError):
            work()
        work()
        assert values(log.topic("out")) == [1, 3]
        with pytest.raises(pqlog.DecodeError):
            values(log.topic("main.dead"))


def test_single_messages_are_rejected_with_the_batch(log):
    log.put_many([1, "x", 3])
    log.put_many(pd.DataFrame({"n": pd.array([1, None], "Int64")}), key="n")

    def work():
        for batch in log.batches("stage"):
            batch.reject(log[2], "not a number")
            raise KeyError

    with pytest.raises(KeyError):
        work()
    for batch in log.batches("stage", messages=True):
        for message in batch:
            if message.offset in (2, 5):
                batch.reject(message, "not a number", topic="bad")
        with pytest.raises(pqlog.ArgumentError, match="a message of this batch"):
            batch.reject("x", "no")
    rejected = list(log.topic("bad"))
    assert [message.value for message in rejected] == ["x", {"n": None}]
    assert [message.headers["pqlog-offset"] for message in rejected] == ["2", "5"]


def test_batches_are_cut_by_bytes_and_by_time(log):
    log.put_many(["x" * 1000] * 10)
    assert {len(batch) for batch in log.batches("bytes", max_bytes=3500)} == {3, 1}
    began = time.monotonic()
    feeding = threading.Timer(0.2, lambda: log.put_many(["late"] * 5))
    feeding.start()
    assert [len(batch) for batch in log.batches("linger", size=15, linger=30)] == [15]  # full before the time is up
    assert time.monotonic() - began < 25
    feeding.join()
    assert [len(batch) for batch in log.batches("other", size=99, linger=0.05)] == [15]


def test_a_call_with_a_timeout_does_not_linger_beyond_it(log):
    log.put_many(range(3))
    taken = queue.Queue()

    def take():
        for name, timeout in (("hasty", 0), ("patient", 0.05)):
            client = log.client(name)
            batches = [client.next_batch(size=2, timeout=timeout, linger=1e6) for _ in range(3)]
            taken.put([None if batch is None else len(batch) for batch in batches])

    threading.Thread(target=take, daemon=True).start()
    assert [taken.get(timeout=30) for _ in range(2)] == [[2, 1, None]] * 2


def test_follow_waits_for_more_until_the_log_is_closed(log):
    got, ended = queue.Queue(), threading.Event()

    def work():
        for batch in log.batches("stage", follow=True):
            for value in batch:
                got.put(value)
        ended.set()

    worker = threading.Thread(target=work)
    worker.start()
    for n in range(5):
        log.put(n)
        assert got.get(timeout=60) == n
    wait_until(lambda: not log.client("stage").lag)
    log.close()
    assert ended.wait(30)
    worker.join()


FOLLOW = """
import sys, pqlog
with pqlog.open(sys.argv[1]) as log:
    print("ready", flush=True)
    for batch in log.batches("stage", follow=True):
        print(list(batch), flush=True)
        if len(sys.argv) > 2:
            sys.stdin.readline()
"""


@pytest.mark.parametrize("where", ["waiting", "working"])
def test_ctrl_c_ends_who_follows_and_loses_nothing(path, log, where):
    process = start(FOLLOW, path, *["hold"] * (where == "working"), stderr=subprocess.PIPE)
    assert process.line() == "ready"
    log.put(1)
    assert process.line() == "[1]"
    if where == "waiting":
        wait_until(lambda: not log.client("stage").lag)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1].endswith("KeyboardInterrupt\n")
    assert all(not claim.owner for claim in log.client("stage").claims())
    assert [list(batch) for batch in log.batches("stage")] == [[1]] * (where == "working")


def test_threads_share_a_client(log):
    log.put_many(range(2000))
    seen = collections.Counter()
    both = threading.Barrier(4)

    def work():
        both.wait(60)
        for batch in log.batches("stage", size=10):
            seen.update(batch)
            batch.put_many(list(batch), topic="out")

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert set(seen.values()) == {1}
    assert len(seen) == 2000
    assert sorted(values(log.topic("out"))) == list(range(2000))
    assert (log.client("stage").position, log.client("stage").claims()) == (2001, [])


def test_a_cursor_is_where_the_messages_are(path):
    with pqlog.open(path) as log:
        assert log.cursor("api") is None
        log.put_many([1, 2], cursor=("api", {"page": 1}, None))
        log.put_many([], cursor=("api", {"page": 2}, {"page": 1}))
        with pytest.raises(RuntimeError):
            log.put_many(broken(), cursor=("api", {"page": 9}, {"page": 2}))
    with pqlog.open(path, readonly=True) as log:
        assert log.cursor("api") == {"page": 2}


LOADER = """
import sys, pqlog
with pqlog.open(sys.argv[1]) as log:
    done = log.cursor("source")
    print("ready", flush=True)
    for line in sys.stdin:
        first = done or 0
        try:
            log.put_many(range(first, first + 10), cursor=("source", first + 10, done))
            done = first + 10
            print("put", flush=True)
        except pqlog.CursorError as error:
            print(error.found, flush=True)
"""


def test_two_runs_of_one_loader_put_nothing_twice(path, log):
    loaders = [start(LOADER, path) for _ in range(2)]
    said = [[loader.line() for loader in loaders]]
    for _ in range(2):
        for loader in loaders:
            loader.tell()
            said.append(loader.line())
    for loader in loaders:
        loader.finish()
    assert said == [["ready"] * 2, "put", "10", "put", "20"]
    assert values(log) == list(range(20))


def broken():
    yield 1
    raise RuntimeError


STAGE = """
import sys, pqlog
with pqlog.open(sys.argv[1]) as log:
    print("ready", flush=True)
    for batch in log.batches("stage", size=int(sys.argv[2])):
        batch.put_many([[batch.number, value] for value in batch], topic="out")
        print(batch.number, flush=True)
"""


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_killed_workers_put_everything_exactly_once_and_numbers_stay(path, workers):
    chance = random.Random(workers)
    count = 10_000
    with pqlog.open(path) as log:
        log.put_many(range(count))
        log.client("stage").seek(to="start")
        kills = 0
        while True:
            running = [start(STAGE, path, chance.randrange(5, 20)) for _ in range(workers)]
            for process in running:
                for _ in range(chance.randrange(1, 25)):
                    process.line()
            for process in running:
                process.kill_and_read()
                kills += process.was_killed
            if not log.client("stage").lag:
                break
        assert kills
        found = values(log.topic("out"))
        assert sorted(value for _, value in found) == list(range(count))
        batches = collections.defaultdict(list)
        for number, value in found:
            batches[number].append(value)
        ends = 0
        for number in sorted(batches):  # each number is one run of messages, and the runs are consecutive
            assert batches[number] == list(range(ends, ends + len(batches[number])))
            ends += len(batches[number])


HOLD = """
import sys, time, pqlog
from pqlog.store import owners
from pqlog.store.sqlite import claims
claims.LEASE_S = float(sys.argv[2])
if sys.argv[3]:
    owners._host = lambda: sys.argv[3]
with pqlog.open(sys.argv[1]) as log:
    for batch in log.batches("stage", size=3):
        print("holds", flush=True)
        sys.stdin.readline()
        try:
            batch.put("late", topic="out")
            batch.ack()
            print("acknowledged", flush=True)
        except pqlog.ClaimLostError:
            print("lost", flush=True)
        break
"""


def holder(path, lease_s, host=""):
    process = start(HOLD, path, lease_s, host)
    assert process.line() == "holds"
    return process


def test_a_released_batch_has_no_holder_and_no_lease(log):
    log.put_many(range(3))
    client = log.client("stage")
    batch = client.next_batch()
    (claim,) = client.claims()
    assert claim.owner
    assert claim.expires > datetime.datetime.now(datetime.UTC)
    batch.release()
    (claim,) = client.claims()
    assert (claim.owner, claim.expires) == ("", None)


def test_a_killed_workers_batch_is_taken_over_at_once(path, log):
    log.put_many(range(6))
    process = holder(path, 60)
    assert [batch.number for batch in log.batches("stage", size=3)] == [2]  # it is alive, so it keeps its batch
    process.kill_and_read()
    (batch,) = log.batches("stage", size=3)
    assert (batch.number, batch.attempt, list(batch)) == (1, 2, [0, 1, 2])


def test_a_paused_worker_of_this_host_keeps_its_batch(path, log):
    """It is known to be alive: whatever the clock says, nobody else is handed its batch."""
    log.put_many(range(3))
    process = holder(path, 1)
    process.send_signal(signal.SIGSTOP)
    wait_until(lambda: log.client("stage").claims()[0].expires <= datetime.datetime.now(datetime.UTC))
    assert log.client("stage").next_batch() is None
    process.send_signal(signal.SIGCONT)
    assert process.finish("\n") == "acknowledged\n"
    assert values(log.topic("out")) == ["late"]


@pytest.mark.slow
def test_a_living_worker_elsewhere_puts_its_expiry_off_and_a_paused_one_loses_its_batch(path, log):
    log.put_many(range(3))
    process = holder(path, 3, "elsewhere")
    time.sleep(4.5)  # longer than its lease, which it renews meanwhile
    assert list(log.batches("stage")) == []
    process.send_signal(signal.SIGSTOP)
    reading = log.batches("stage", follow=True)
    taken = next(reading)
    assert (taken.number, taken.attempt) == (1, 2)
    taken.put("mine", topic="out")
    taken.ack()
    process.send_signal(signal.SIGCONT)
    assert process.finish("\n") == "lost\n"
    assert values(log.topic("out")) == ["mine"]


def test_of_another_host_only_the_expiry_counts(path, log):
    log.put_many(range(3))
    holder(path, 3600, "elsewhere").kill_and_read()
    assert list(log.batches("stage")) == []
    db = apsw.Connection(str(path))
    rows.change(db, "claims", expires=str(time.time_ns() // 1000 + 200_000))
    db.close()
    batch = next(log.batches("stage", follow=True))
    assert (batch.number, batch.attempt) == (1, 2)


def test_a_worker_with_a_name_has_its_batch_back_wherever_it_begins_anew(log):
    log.put_many(range(4))
    reading = log.batches("stage", size=2, owner="worker-1")
    held = next(reading)
    other = log.batches("stage", size=2, owner="worker-2")
    assert next(other).number == 2
    again = next(log.batches("stage", size=2, owner="worker-1"))
    assert (again.number, again.attempt) == (1, 2)
    with pytest.raises(pqlog.ClaimLostError):
        held.ack()


FIGHT = """
import sys, pqlog
with pqlog.open(sys.argv[1]) as log:
    print("ready", flush=True)
    for batch in log.batches("stage", size=20, follow=True):
        values = list(batch)
        batch.put_many([[sys.argv[2], value] for value in values], topic="out")
        if values[-1] == "end":
            batch.ack()
            break
"""


def test_a_batch_takes_one_sync(path):
    """Its acknowledgement, its outputs and the claim of the next batch are one commit."""
    syncs = collections.Counter()

    class File(apsw.VFSFile):
        def __init__(self, name, flags):
            super().__init__("", name, flags)
            self.kind = "wal" if flags[0] & apsw.SQLITE_OPEN_WAL else "other"

        def xSync(self, flags):
            syncs[self.kind] += 1
            return super().xSync(flags)

    class Counting(apsw.VFS):
        def xOpen(self, name, flags):
            return File(name, flags)

    vfs = Counting("counting", "")
    with pqlog.open(path, vfs="counting") as log:
        log.put_many(range(1000))
        log.topic("out")
        before = syncs["wal"]
        for batch in log.batches("stage", size=10):
            batch.put_many(list(batch), topic="out")
        taken = syncs["wal"] - before
        assert len(log.topic("out")) == 1000
    assert 100 < taken <= 103, syncs  # a hundred batches, the creation of the client, and the end
    del vfs


@pytest.mark.slow
def test_two_processes_fight_over_a_client_for_ten_seconds(path, log):
    """While this process puts. There is no order between the workers, but each message is processed once, by one."""
    log.client("stage").seek(to="start")  # created before the first of them asks
    fighters = [start(FIGHT, path, name) for name in "ab"]
    for fighter in fighters:
        assert fighter.line() == "ready"
    count, until = 0, time.monotonic() + 10
    while time.monotonic() < until:
        log.put_many(range(count, count + 50))
        count += 50
        wait_until(lambda: log.client("stage").lag <= 500)
    wait_until(lambda: not log.client("stage").lag)
    for _ in fighters:  # one end marker for each, since the worker that got one has ended
        log.put("end")
        wait_until(lambda: not log.client("stage").lag)
    for fighter in fighters:
        fighter.finish()
    found = values(log.topic("out"))
    assert sorted(value for _, value in found if value != "end") == list(range(count))
    assert {name for name, _ in found} == {"a", "b"}
    assert log.client("stage").claims() == []


@pytest.mark.parametrize("size", [100, 30])
def test_a_damaged_segment_goes_to_the_dead_letters_as_it_is(path, size):
    """As a whole or, if a batch ends within it, with a header that says which part belongs to the batch."""
    with pqlog.open(path) as log:
        log.put_many(pd.DataFrame({"n": range(60)}), headers={"own": "h"})
    db = apsw.Connection(str(path))
    value = db.execute("SELECT value FROM messages_1 WHERE offset = 1").get
    at = len(value) - 80  # in the values, which come after the schema
    db.execute("UPDATE messages_1 SET value = ? WHERE offset = 1", (value[:at] + bytes(40) + value[at + 40 :],))
    db.close()
    done = []

    def work():
        for batch in log.batches("stage", size=size, attempts=2):
            done.extend(batch)

    with pqlog.open(path) as log:
        for _ in range(4 if size == 30 else 2):
            with pytest.raises(pqlog.DecodeError):
                work()
        work()
        log.put("after")
        work()
        assert done == ["after"]
        dead = log.topic("main.dead")
        dead.put("one more")
        parts = [row for row in seams.rows(dead) if row.rows]
        assert {row.rows for row in parts} == {60}
        assert all('"own":"h"' in row.headers for row in parts)
        if size == 30:
            assert ['"pqlog-part":"1-30"' in parts[0].headers, '"pqlog-part":"31-60"' in parts[1].headers] == [True] * 2
        with pytest.raises(pqlog.DecodeError):
            list(dead)
        assert dead[-1].value == "one more"
