"""Full and broken disks: our error, with advice; nothing that had returned is lost; the same log works afterwards."""

import contextlib
import random
import subprocess
import sys
import threading

import pandas as pd
import pytest

import pqlog
from tests import seams
from tests.simulation.disk import Disk, Fault, errors_are_quiet, write


def work(log, done):
    """A short run of everything that writes; each step is idempotent, so it can be repeated after an error."""

    def stage():
        for batch in log.batches("stage", size=4):
            batch.put_many([2 * value for value in batch], topic="out")

    pieces = [
        lambda: [log.put(n, id=f"one-{n}") for n in range(3)],
        lambda: log.put_many(range(3, 10), id="many", cursor=("source", 10, None)),
        lambda: log.put_many(pd.DataFrame({"value": range(10, 13)})["value"].tolist(), id="frame"),
        lambda: log.topic("once").put_many([{"id": n} for n in (1, 2, 1)], ids="id"),
        lambda: log.topic("once").put_many(pd.DataFrame({"id": [2, 3]}), ids="id"),
        stage,
        lambda: list(log.get("reader")),
        lambda: log.trim(before=5),
        lambda: seams.checkpoint(log),
        log.compact,
    ]
    while len(done) < len(pieces):
        pieces[len(done)]()
        done.append(True)


def holds(log):
    """Whether a log holds the result of `work`, once."""
    assert [message.value for message in log] == list(range(4, 13))
    assert [message.value["id"] for message in log.topic("once")] == [1, 2, 3]
    assert [message.value for message in log.topic("out")] == [2 * n for n in range(13)]
    assert (log.client("reader").position, log.client("stage").position, log.cursor("source")) == (14, 14, 10)
    assert log.client("stage").claims() == []
    assert log.verify() == []


@contextlib.contextmanager
def a_log_on(disk):
    """Open it, repeatedly if necessary: the fault may strike while it is being opened."""
    while True:
        try:
            log = pqlog.open(disk.folder / "a.db", vfs=disk.vfs_name)
            break
        except pqlog.StoreError:
            if disk.fault is None or not disk.fault.struck:
                raise
            disk.fault = None if disk.fault.lasting else disk.fault
    with log:
        yield log


@pytest.mark.parametrize("step", [pytest.param(13, marks=pytest.mark.fast), pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("lasting", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["once", "lasting"])
@pytest.mark.parametrize(
    ("kind", "full"),
    [("write", False), ("write", True), ("sync", False), ("truncate", False)],
    ids=["write", "full", "sync", "truncate"],
)
def test_every_operation_may_fail(tmp_path, kind, full, lasting, step):
    struck, said = 0, set()
    step = step if kind == "write" else 1 if kind == "truncate" else min(step, 3)
    expected = pqlog.DiskFullError if full else pqlog.DiskError
    for number in range(0, 400, step):
        folder = tmp_path / str(number)
        write(folder, {})
        fault = Fault((kind,), number, lasting, full)
        disk = Disk(folder, fault=fault)
        done: list = []
        with disk.listening(), errors_are_quiet():
            with a_log_on(disk) as log:
                while True:
                    try:
                        work(log, done)
                        break
                    except expected as error:
                        said.add(type(error))
                        if lasting and kind != "truncate":  # a put truncates nothing
                            with pytest.raises(pqlog.StoreError):
                                log.put("not while it lasts")
                        disk.fault = None  # the cause is gone
                holds(log)
            at = disk.now
        with pqlog.open(folder / "a.db") as log:
            holds(log)
        left = tmp_path / f"{number}-cut"
        write(left, disk.cut(at, random.Random(number)))
        with pqlog.open(left / "a.db") as log:
            holds(log)
        struck += bool(fault.struck)
        if not fault.struck:  # beyond the last operation of the run
            break
    assert struck > (2 if kind == "truncate" else 5)
    assert said or kind == "truncate"


@pytest.mark.parametrize("kind", ["write", "sync"])
def test_no_thread_is_left_waiting_when_a_commit_fails(tmp_path, kind):
    disk = Disk(tmp_path, sync_s=0.001)
    with disk.listening(), errors_are_quiet(), pqlog.open(tmp_path / "a.db", vfs=disk.vfs_name) as log:
        put, failed, wrong = [], [], []
        broken = threading.Event()

        def run(name):
            for n in range(60):
                try:
                    log.put([name, n])
                    put.append([name, n])
                except pqlog.DiskError:
                    failed.append([name, n])
                    broken.set()
                except BaseException as error:
                    wrong.append(error)

        threads = [threading.Thread(target=run, args=(name,)) for name in range(16)]
        for thread in threads:
            thread.start()
        disk.fault = Fault((kind,), 20, lasting=True)
        assert broken.wait(60)
        disk.fault = None
        for thread in threads:
            thread.join(120)
        assert not any(thread.is_alive() for thread in threads)
        assert wrong == []
        assert failed
        assert len(put) + len(failed) == 16 * 60
        found = [message.value for message in log]
        assert all(value in found for value in put)
        assert len(found) == len(set(map(tuple, found)))
        at = disk.now
    for seed in range(5):
        folder = tmp_path / f"cut-{seed}"
        write(folder, disk.cut(at, random.Random(seed)))
        with pqlog.open(folder / "a.db") as log:
            left = [message.value for message in log]
            assert all(value in left for value in put)


@pytest.mark.mounts
def test_a_disk_that_is_really_full(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], check=True)
    try:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(2 << 20))
        with pqlog.open(disk / "a.db") as log:
            put = 0
            with pytest.raises(pqlog.DiskFullError, match="free some space and put again"):
                for n in range(1_000_000):
                    log.put({"n": n, "text": "x" * 2000})
                    put = n + 1
            with pytest.raises(pqlog.DiskFullError):
                log.put_many({"n": n, "text": "x" * 2000} for n in range(3000))
            with pytest.raises(pqlog.DiskFullError):
                log.compact()
            assert [message.value["n"] for message in log] == list(range(put))
            ballast.unlink()
            for n in range(put, put + 100):
                assert log.put({"n": n, "text": "x" * 2000}) == n + 1
            assert log.verify() == []
        with pqlog.open(disk / "a.db") as log:
            assert [message.value["n"] for message in log] == list(range(put + 100))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_limit_on_file_sizes(tmp_path):
    """A full disk as a user without root can simulate it: the system refuses to let a file grow (EFBIG)."""
    script = """
import resource, signal, sys, pqlog
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with pqlog.open(sys.argv[1]) as log:
    resource.setrlimit(resource.RLIMIT_FSIZE, (6 << 20, resource.RLIM_INFINITY))
    put = 0
    try:
        while True:
            log.put("x" * 5000)
            put += 1
    except (pqlog.DiskFullError, pqlog.DiskError) as error:
        print(type(error).__name__, put > 100, len(log) == put)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(log.put("more") == put + 1, log.verify())
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a.db")], capture_output=True, text=True, timeout=120
    )
    assert done.stdout in ("DiskFullError True True\nTrue []\n", "DiskError True True\nTrue []\n"), done.stderr
