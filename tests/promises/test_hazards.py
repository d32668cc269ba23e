"""What silently breaks SQLite files elsewhere is refused, warned of or harmless here."""

import os
import subprocess
import threading
from unittest import mock

import pytest

import pqlog
from pqlog.store.sqlite import claims, hazards, wal
from tests.processes import crashed, run, start, wait_until


def test_a_symbolic_link_is_the_file_that_it_names(path):
    (path.parent / "sub").mkdir()
    link = path.parent / "sub" / "link.db"
    link.symlink_to(path)
    with pqlog.open(link) as log, pqlog.open(path) as same:
        assert [log.put("a"), same.put("b"), log.put("c")] == [1, 2, 3]
        assert log.uuid == same.uuid
        assert log.size_bytes() == same.size_bytes() > 4_000_000  # with the -wal
        os.unlink(path.with_name(path.name + "-wal"))
        for one in (log, same):
            with pytest.raises(pqlog.MovedError):
                one.put("d")
    assert os.listdir(link.parent) == ["link.db"]


def test_a_relative_path_stays_where_it_was(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    with pqlog.open("events.db") as log:
        monkeypatch.chdir("/")
        assert log.put(1) == 1
        assert log.store.log._file.read(lambda _: len(log)) == 1  # the second needs a new connection
        assert len(list(log)) == 1
        assert log.size_bytes() > 4_000_000


def test_a_file_with_two_names_is_only_read(path):
    pqlog.open(path).close()
    os.link(path, path.parent / "second.db")
    with pytest.raises(pqlog.UnsafeStorageError, match="2 names"):
        pqlog.open(path)
    with pqlog.open(path, readonly=True) as log:
        assert len(log) == 0


@pytest.mark.mounts
def test_a_network_disk_is_refused_unless_one_knows_better(tmp_path):
    """Those kinds are a list; the test puts a disk in memory on it."""
    disk = tmp_path / "a disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disk)], check=True)
    try:
        pqlog.open(disk / "a.db").close()
        with mock.patch.object(hazards, "_NETWORK", {"tmpfs"}):
            for readonly in (False, True):
                with pytest.raises(pqlog.UnsafeStorageError, match=r"network file system \(tmpfs\).*network=True"):
                    pqlog.open(disk / "a.db", readonly=readonly)
            with pqlog.open(disk / "a.db", network=True) as log:
                assert log.put(1) == 1
            pqlog.open(tmp_path / "b.db").close()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


MOUNTS = """
22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
31 22 0:27 / /mnt rw - {kind} remote rw
32 31 0:28 / /mnt/a\\040local\\134disk\\011 rw master:7 - xfs /dev/sdb1 rw
"""


@pytest.mark.parametrize(
    "kind",
    [
        *("nfs4", "cifs", "virtiofs", "9p", "drvfs", "prl_fs", "vmhgfs", "acfs", "pvfs2", "fuse", "fuse.gcsfuse"),
        *("fuse.rclone", "fuse.juicefs", "fuse.vmhgfs-fuse", "fuse.blobfuse2", "fuse.mountpoint-s3", "fuse.sshfs"),
        *("fuse.glusterfs", "fuse.tomorrow"),
    ],
)
def test_which_kinds_of_file_systems_are_refused(kind):
    mounts = MOUNTS.format(kind=kind).strip().splitlines()
    assert hazards._kind_of("/mnt/data", mounts) == kind
    assert hazards.is_network(kind)
    assert hazards._kind_of("/mnt/a local\\disk\t/x", mounts) == "xfs"


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "overlay", "tmpfs", "fuseblk", "fuse.mergerfs", ""])
def test_which_kinds_of_file_systems_are_taken(kind):
    assert not hazards.is_network(kind)


def test_sqlite3_in_this_process_is_warned_of(path):
    script = """
import sqlite3, sys, warnings, pqlog
pqlog.open(sys.argv[1]).close()
warnings.simplefilter("error")
with pqlog.open(sys.argv[1]) as log, pqlog.open(sys.argv[1]):
    log.put(1)                                            # the module alone does no harm
db = sqlite3.connect(sys.argv[1])
db.execute("SELECT count(*) FROM topics").fetchall()
try:
    pqlog.open(sys.argv[1])
except UserWarning as warning:
    assert "sqlite3" in str(warning)
    print("warned")
"""
    assert run(script, path) == "warned\n"


def test_another_program_may_read_and_run_a_checkpoint(path):
    """Plain SQLite in another process, also as the last to close the file: nothing of ours breaks."""
    script = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
print(db.execute("SELECT count(*), sum(value ->> 'n') FROM messages_1").fetchall()[0])
db.close()
"""
    with pqlog.open(path) as log:
        for n in range(10):
            log.put({"n": n})
        assert run(script, path) == "(10, 45)\n"
        log.put({"n": 10})
    crashed(path, "log.put({'n': 11})")
    assert run(script, path) == "(12, 66)\n"
    assert os.listdir(path.parent) == [path.name]  # it ran a checkpoint
    with pqlog.open(path) as log:
        assert [message.value["n"] for message in log] == list(range(12))
        assert log.verify() == []


def test_a_reader_that_sleeps_does_not_let_the_write_ahead_log_grow(path):
    """No read is open while the caller's code runs, however it reads."""
    with pqlog.open(path) as log, pqlog.open(path) as other:
        log.put_many({"n": n} for n in range(20_000))
        log.put_many([1])
        readers = [
            iter(other),
            iter(other.history()),
            other.history().values(),
            other.get("c"),
            other.batches("b", size=100),
            other.chunks(100),
            iter(other.to_batches(100)),
        ]
        for reader in readers:
            next(reader)
        there = path.with_name(path.name + "-wal")
        for _ in range(10):
            for _ in range(1000):
                log.put("x")
            assert there.stat().st_size < 4 * wal.SIZE  # when a commit runs a checkpoint itself
        assert there.stat().st_size < 3 * wal.SIZE
        del readers


def test_a_clock_that_jumps_back(path):
    hour = 3_600_000_000
    with pqlog.open(path) as log:
        now = claims.now_micros()
        for jump in (0, -hour, -2 * hour, hour, 0):
            with mock.patch.object(claims, "now_micros", return_value=now + jump):
                log.put(jump)
                log.put_many([jump, jump])
        times = [message.time for message in log]
        assert times == sorted(times)
        assert len(log.history(until=times[0])) == 0
        assert len(log.history(since=times[-1])) == 6  # from the latest time that the clock ever showed


def test_64_threads_and_8_processes_at_once(path):
    """Puts, reads, clients and batches; whichever finds the file locked waits."""
    script = """
import sys, threading, pqlog
name = sys.argv[2]
failed = []
with pqlog.open(sys.argv[1], timeout=120) as log:
    def work(thread):
        try:
            for n in range(10):
                log.put([name, thread, n])
            log.put_many([[name, thread, n] for n in range(10, 20)])
            if thread == 0:
                for batch in log.batches("shared", size=50):
                    batch.put_many(list(batch), topic="out")
            elif thread == 1:
                sum(1 for _ in log)
        except BaseException as error:
            failed.append(error)
            raise
    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
sys.exit(len(failed))
"""
    for worker in [start(script, path, n) for n in range(8)]:
        worker.finish()
    with pqlog.open(path) as log:
        for batch in log.batches("shared", size=1000):
            batch.put_many(list(batch), topic="out")
        values = [message.value for message in log]
        assert sorted(values) == sorted([str(p), t, n] for p in range(8) for t in range(8) for n in range(20))
        assert sorted(log.topic("out").history().values()) == sorted(values)
        for process in range(8):
            for thread in range(8):
                assert [n for p, t, n in values if (p, t) == (str(process), thread)] == list(range(20))
        assert log.verify() == []


def test_a_file_that_only_its_owner_may_read_stays_so(path):
    path.touch(mode=0o600)
    with pqlog.open(path) as log:
        log.put(1)
        modes = {os.stat(path.parent / name).st_mode & 0o777 for name in os.listdir(path.parent)}
    assert modes == {0o600}


def test_threads_that_wait_are_not_left_behind_by_a_close(path):
    log = pqlog.open(path)
    ended = []

    def wait():
        try:
            for _ in log.get_blocking("c"):
                pass
        except pqlog.ClosedError:
            ended.append(True)

    threads = [threading.Thread(target=wait) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_until(log.clients)
    log.close()
    for thread in threads:
        thread.join(60)
    assert ended == [True] * 4


def test_a_folder_that_is_renamed_under_an_open_log_is_noticed(path):
    """Any folder above the file: another log could get its name, and both would call their puts durable."""
    above = path.parent / "above"
    (above / "data").mkdir(parents=True)
    with pqlog.open(above / "data" / "a.db") as log:
        log.put("before")
        for folder in (above / "data", above):
            os.rename(folder, path.parent / "away")
            for _ in range(2):
                with pytest.raises(pqlog.MovedError):
                    log.put("lost")
            os.rename(path.parent / "away", folder)
            log.put("found")
        assert [message.value for message in log] == ["before", "found", "found"]


@pytest.mark.mounts
def test_a_file_system_that_is_mounted_over_an_open_log_is_noticed(path):
    (path.parent / "data").mkdir()
    with pqlog.open(path.parent / "data" / "a.db") as log:
        log.put("before")
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", path.parent / "data"], check=True)
        try:
            for _ in range(2):
                with pytest.raises(pqlog.MovedError):
                    log.put("lost")
        finally:
            subprocess.run(["umount", path.parent / "data"], check=True)
        assert log.put("found") == 2


def test_a_log_that_is_dropped_gives_its_descriptors_back(path):
    """Also one whose client holds a batch, which its thread renews, and one whose schema came from the cache."""
    script = """
import gc, os, sys, threading, pqlog
for number in range(21):
    log = pqlog.open(sys.argv[1])
    log.put(number)
    len(log), log.schema
    log.put(number)
    log.schema
    batch = log.client("c").next_batch()
    del log, batch
    gc.collect()
    if number == 1:  # pyarrow keeps a pipe
        before = len(os.listdir("/proc/self/fd"))
assert len(os.listdir("/proc/self/fd")) <= before + 1, (before, os.listdir("/proc/self/fd"))
"""
    run(script, path)


@pytest.mark.slow
def test_a_log_opens_while_another_thread_works_with_sqlite3_imported(path):
    """Every Jupyter kernel has it imported; a connection in use by another thread cannot be asked for its file."""
    script = """
import sqlite3, sys, threading, pqlog
busy, stop = pqlog.open(sys.argv[1] + ".busy"), threading.Event()
def work():
    while not stop.is_set():
        busy.put_many(range(200))
        list(busy[-500:])
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
for number in range(150):
    with pqlog.open(sys.argv[1]) as log:
        log.put(number)
stop.set()
for thread in threads:
    thread.join(60)
"""
    run(script, path)


def test_an_interpreter_ends_while_threads_put_and_wait(path):
    script = """
import sys, threading, pqlog
log = pqlog.open(sys.argv[1])
log.put_many(range(50))
batch = log.client("held").next_batch(size=5)
begun = threading.Barrier(5)
def put():
    begun.wait()
    while True:
        log.put_many(["x" * 3000] * 20)
def wait():
    begun.wait()
    for _ in log.topic("empty").get_blocking("c"):
        pass
for target in (put, put, put, wait):
    threading.Thread(target=target, daemon=True).start()
begun.wait()
log.put("returned")
print(log.last)
"""
    for _ in range(5):
        last = run(script, path, stderr=subprocess.STDOUT)  # no warning
        with pqlog.open(path) as log:
            assert "returned" in [message.value for message in log[: int(last) + 1]]
            assert log.verify() == []
