"""A forked child has locks of its own: nothing that returned is lost, nobody hangs, in the parent or in the child.

Each test is a script in a process of its own, since pytest's process would bring its threads and fixtures along.
"""

import multiprocessing
import os
import subprocess
import sys

import pytest

import pqlog
from tests import processes

HEAD = """
import os, signal, sys, threading, time, warnings
import pqlog
warnings.simplefilter("ignore", DeprecationWarning)     # Python 3.12 warns of a fork beside threads
path = sys.argv[1]

def child(work):
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", flush=True)
    finally:
        os._exit(code)

def ended(pid):
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


def run(script, *arguments):
    return processes.run(HEAD + script, *arguments, timeout=240)


def test_parent_and_child_put_through_the_same_log(path):
    run(
        """
log = pqlog.open(path)
log.put("before")
def work():
    assert log.put("child") == 2
    with pqlog.open(path) as other:
        assert [message.value for message in other] == ["before", "child"]
    log.close()
ended(child(work))
assert log.put("parent") == 3
log.close()
""",
        path,
    )
    with pqlog.open(path) as log:
        assert [message.value for message in log] == ["before", "child", "parent"]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/locks is Linux's")
def test_a_child_has_the_locks_of_a_process_that_uses_the_file(path):
    """SQLite's lock on a file in use is beyond its first gigabyte; that of the -shm is at byte 128."""
    run(
        """
log = pqlog.open(path)
log.put(1)
def locks():
    files = {os.stat(name).st_ino for name in (path, path + "-shm")}
    with open("/proc/locks") as table:
        found = [line.split() for line in table]
    return {int(f[5].split(":")[2]) for f in found if f[1] == "POSIX" and int(f[4]) == os.getpid()} & files == files
def work():
    log.put(2)
    assert locks(), "the log of the parent, used by the child"
    log.close()
    with pqlog.open(path) as other:
        assert locks(), "a log of the child's own"
assert locks()
ended(child(work))
log.put(3)
assert locks()
""",
        path,
    )


@pytest.mark.parametrize("whose", ["the parent's log", "a log of its own"])
def test_nothing_that_returned_in_a_child_is_lost_when_the_parent_closes(path, whose):
    out = run(
        """
log = pqlog.open(path)
log.put(-1)
begun, go_on = os.pipe(), os.pipe()
def work():
    mine = pqlog.open(path) if sys.argv[2] == "a log of its own" else log
    n = 0
    mine.put(n)
    os.write(begun[1], b"!")
    os.set_blocking(go_on[0], False)
    after = 0
    while after < 200:                    # so many puts after the parent has closed
        n += 1
        mine.put(n)
        try:
            after += bool(after or os.read(go_on[0], 1))
        except BlockingIOError:
            pass
    print(n, flush=True)
pid = child(work)
os.read(begun[0], 1)
log.close()
with pqlog.open(path) as again:           # also who opens the file and closes it as the last of its process
    again.put(-2)
os.write(go_on[1], b"!")
ended(pid)
""",
        path,
        whose,
    )
    with pqlog.open(path) as log:
        values = [message.value for message in log]
        assert [n for n in values if n >= 0] == list(range(int(out) + 1))
        assert log.verify() == []


FORK_BESIDE_THREADS = """
forks, stop = int(sys.argv[2]), threading.Event()
log, other = pqlog.open(path), pqlog.open(path + ".other")
returned = [0] * 8
def put(name):
    while not stop.is_set():
        (log if name % 2 else other).put([name, returned[name]])
        returned[name] += 1
        if name == 7:
            list(log[-3:])
threads = [threading.Thread(target=put, args=(name,)) for name in range(8)]
for thread in threads:
    thread.start()
for number in range(forks):
    def work():
        if number % 3 == 0:
            log.put(["child", number])
        elif number % 3 == 1:
            with pqlog.open(path) as mine:
                mine.put(["child", number])
                len(mine)
        else:
            with pqlog.open(path + ".third") as mine:
                mine.put(["child", number])
    ended(child(work))
stop.set()
for thread in threads:
    thread.join(60)
    assert not thread.is_alive()
for one, names in ((log, (1, 3, 5, 7)), (other, (0, 2, 4, 6))):
    values = [message.value for message in one]
    for name in names:
        assert [n for who, n in values if who == name] == list(range(returned[name]))
    assert one.verify() == []
assert [n for who, n in (m.value for m in log) if who == "child"] == [n for n in range(forks) if n % 3 != 2]
log.close()
other.close()
"""


def test_a_fork_beside_eight_threads_that_put(path):
    run(FORK_BESIDE_THREADS, path, 30)


@pytest.mark.slow
def test_two_hundred_forks_beside_eight_threads_that_put(path):
    run(FORK_BESIDE_THREADS, path, 200)


def test_a_fork_in_a_thread_while_others_wait_for_messages(path):
    run(
        """
log = pqlog.open(path)
got = []
def wait():
    for value in log.get_blocking("waiter", tick=30):
        got.append(value)
        if value == "last":
            return
waiter = threading.Thread(target=wait)
waiter.start()
def fork():
    ended(child(lambda: log.put("child")))
forker = threading.Thread(target=fork)
forker.start()
forker.join(60)
log.put("last")
waiter.join(60)
assert got == ["child", "last"], got
log.close()
""",
        path,
    )


def test_what_was_handed_out_before_the_fork_is_acknowledged_by_the_parent_only(path):
    run(
        """
log = pqlog.open(path)
log.put_many(range(10))
values = log.get("one")
assert next(values) == 0
assert log.get_one("two") == 0
batches = log.batches("etl", size=2)
batch = next(batches)
def work():
    for step in (lambda: next(values), lambda: next(batches), batch.ack, batch.release):
        try:
            step()
        except pqlog.ForkError as error:
            assert "process" in str(error)
        else:
            raise AssertionError("not refused")
    values.close()
    batches.close()
    del batch_of_child[:]
batch_of_child = [batch]
ended(child(work))
assert (log.client("one").position, log.client("etl").position) == (1, 1)
assert [(claim.number, claim.attempt, bool(claim.owner)) for claim in log.client("etl").claims()] == [(1, 1, True)]
batch.ack()
assert next(values) == 1
assert log.client("etl").position == 3
log.close()
""",
        path,
    )


def test_a_log_in_memory_belongs_to_its_process():
    run(
        """
log = pqlog.open(":memory:")
log.put(1)
def work():
    for step in (lambda: log.put(2), lambda: len(log), lambda: next(log.get("c"))):
        try:
            step()
        except pqlog.ForkError:
            pass
        else:
            raise AssertionError("not refused")
    log.close()
    with pqlog.open(":memory:") as mine:
        assert mine.put(1) == 1
ended(child(work))
assert log.put(2) == 2
""",
        "-",
    )


def test_a_file_that_was_replaced_while_the_process_forked_is_noticed(path):
    run(
        """
log = pqlog.open(path)
log.put("mine")
ended(child(lambda: None))
for end in ("", "-wal"):
    os.rename(path + end, path + ".away" + end)
pqlog.open(path).close()                  # another log under the same name
for step in (lambda: log.put("lost"), lambda: list(log)):
    try:
        step()
    except pqlog.MovedError:
        pass
    else:
        raise AssertionError("not noticed")
os.unlink(path)
for end in ("", "-wal"):
    os.rename(path + ".away" + end, path + end)
assert log.put("found") == 2
log.close()
""",
        path,
    )


def test_a_log_that_was_deleted_before_the_fork_stays_so(path):
    run(
        """
log = pqlog.open(path)
log.put("a")
log.put("b")
os.rename(path + "-wal", path + "-wal.away")
def refused():
    try:
        log.put("c")
    except pqlog.MovedError:
        return True
assert refused()
ended(child(lambda: None))
assert refused()
assert refused()
os.rename(path + "-wal.away", path + "-wal")
assert log.put("c") == 3
log.close()
""",
        path,
    )
    with pqlog.open(path) as log:
        assert [message.value for message in log] == ["a", "b", "c"]


def test_a_fork_amid_a_put_leaves_a_child_that_says_so(path):
    """In a signal handler: its own thread is inside SQLite, so nothing can wait for it."""
    run(
        """
log = pqlog.open(path)
children, says = [], []
def handler(*_):
    def work():
        try:
            pqlog.open(path + ".other")
        except pqlog.ForkError:
            with __import__("contextlib").suppress(pqlog.ForkError):
                log.put(1)
                raise AssertionError("put")
            os._exit(7)
    children.append(child(work))
signal.signal(signal.SIGALRM, handler)
while 7 not in says:                      # some fall between two puts, and work
    signal.setitimer(signal.ITIMER_REAL, 0.0005)
    while not children:
        log.put("x")
    says.append(os.waitstatus_to_exitcode(os.waitpid(children.pop(), 0)[1]))
assert set(says) <= {0, 7}, says
assert log.verify() == []
log.close()
""",
        path,
    )


def work_in_pool(arguments):
    path, name = arguments
    with pqlog.open(path) as log:
        for n in range(20):
            log.put([name, n])
    return name


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_pools_of_multiprocessing_with_logs_in_parent_and_children(path, method):
    script = f"""
import multiprocessing
from tests.promises.test_forks import work_in_pool
if __name__ == "__main__":
    log = pqlog.open(path)
    log.put(["parent", 0])
    with multiprocessing.get_context({method!r}).Pool(3) as pool:
        found = pool.map_async(work_in_pool, [(path, str(n)) for n in range(9)])
        for n in range(1, 50):
            log.put(["parent", n])
            if n == 25:
                import subprocess
                assert subprocess.run(["true"], preexec_fn=lambda: None).returncode == 0
        assert sorted(found.get(120)) == [str(n) for n in range(9)]
    log.close()
"""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    module = path.with_name("pooled.py")
    module.write_text(HEAD + script)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, module, path], capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    with pqlog.open(path) as log:
        values = [message.value for message in log]
        assert [n for who, n in values if who == "parent"] == list(range(50))
        for name in range(9):
            assert [n for who, n in values if who == str(name)] == list(range(20))
        assert log.verify() == []


@pytest.mark.slow
def test_a_child_reads_a_merged_topic_that_other_threads_read_at_the_fork(path):
    run(
        """
topic = pqlog.open(path).topic("orders", partitions=16)
topic.put_many(range(100))
done = threading.Event()
def read():
    while not done.is_set():
        len(topic), topic.store.span(), topic.store.positions(50)
threads = [threading.Thread(target=read) for _ in range(3)]
for thread in threads:
    thread.start()
sys.setswitchinterval(1e-5)
def work():
    signal.alarm(60)                                    # kills one that hangs
    assert len(topic) == 100 and topic.store.positions(50)
for _ in range(200):
    ended(child(work))
done.set()
""",
        path,
    )
