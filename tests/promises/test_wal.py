"""The write-ahead log: its commits are told from lost ones, and reading it does not block opening a log."""

import struct

import apsw
import pytest

import pqlog
from tests import seams
from tests.processes import crashed, start
from tests.simulation.disk import Disk, Fault, errors_are_quiet, write

FRAME = 24 + 4096

WORKER = """
import os, signal, sys, apsw, pqlog
path, rows, deadly = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "dies"
armed = False
class Vfs(apsw.VFS):
    def xOpen(self, name, flags):
        return File(name, flags)
class File(apsw.VFSFile):
    def __init__(self, name, flags):
        self.is_wal = str(name.filename() if isinstance(name, apsw.URIFilename) else name).endswith("-wal")
        super().__init__("", name, flags)
    def xSync(self, flags):
        if self.is_wal and armed:
            os.kill(os.getpid(), signal.SIGKILL)
        super().xSync(flags)
vfs = Vfs("deadly", "")
log = pqlog.open(path, vfs="deadly")
for line in sys.stdin:
    armed = deadly
    log.put_many([{"n": n, "pad": "x" * 3000} for n in range(rows)])
    print("put", flush=True)
"""


@pytest.mark.parametrize("lives", [True, False])
def test_writers_killed_in_their_commits_leave_a_healthy_log(path, lives):
    """The frames that they leave beyond its end belong to no commit."""
    pqlog.open(path).close()

    def put(worker):
        worker.tell()
        return worker.line()

    small, *others = (start(WORKER, path, *how) for how in [(1, "lives"), (40, "dies"), (20, "dies"), (9, "dies")])
    with small:
        assert put(small) == "put"
        for worker in others:
            with worker:
                assert put(worker) == ""
            assert worker.was_killed
        assert put(small) == "put"
        if not lives:
            small.kill_and_read()
        for readonly in (True, False):
            with pqlog.open(path, readonly=readonly) as log:
                assert len(log) == 2
                assert log.verify() == []
        small.kill()


def commits(wal):
    """The frames that end a commit, as SQLite numbers them, from 1."""
    data = wal.read_bytes()
    numbers = range(1, (len(data) - 32) // FRAME + 1)
    return [n for n in numbers if struct.unpack_from(">I", data, 32 + (n - 1) * FRAME + 4)[0]]


@pytest.mark.parametrize("at", [0, 9, 17, 23, 500, FRAME - 1], ids=["page", "salt", "sum", "sum's end", "data", "end"])
@pytest.mark.parametrize("back", [2, 3, 10])
def test_a_rotten_frame_with_durable_commits_behind_it_is_damage(path, at, back):
    """Wherever the damage is, except in the last commit, which a power cut might have torn."""
    wal = crashed(path, "for n in range(40): log.put({'n': n, 'pad': 'x' * 5000})")
    data = bytearray(wal.read_bytes())
    data[32 + (commits(wal)[-back] - 1) * FRAME + at] ^= 8
    wal.write_bytes(data)
    with pytest.raises(pqlog.CorruptLogError, match="-wal is damaged"):
        pqlog.open(path)
    assert wal.read_bytes() == data


def test_a_log_that_is_about_to_begin_again_at_its_front_is_whole(tmp_path):
    """All of it is in the file, and the process that restarted it failed to write the new header."""
    write(tmp_path / "disk", {})
    disk = Disk(tmp_path / "disk")
    with disk.listening(), errors_are_quiet(), pqlog.open(disk.folder / "a.db", vfs=disk.vfs_name) as log:
        for n in range(5):
            log.put(n)
        seams.checkpoint(log)
        disk.fault = Fault(("write",), 0, lasting=True)
        with pytest.raises(pqlog.DiskError):
            log.put("not this")
        disk.fault = None
        for readonly in (True, False):
            with pqlog.open(disk.folder / "a.db", readonly=readonly, vfs=disk.vfs_name) as other:
                assert [message.value for message in other] == list(range(5))
        assert log.put(5) == 6


READER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("BEGIN")
print(db.execute("SELECT count(*) FROM messages_1").fetchone()[0], flush=True)
sys.stdin.read()
print(db.execute("SELECT count(*) FROM messages_1").fetchone()[0], flush=True)
"""


@pytest.mark.parametrize("crash", [True, False], ids=["after a crash", "beside another process"])
def test_an_open_read_transaction_keeps_nobody_from_opening_and_putting(path, crash):
    """As left open by a sqlite3 shell, or by a slow query of DuckDB."""
    if crash:
        crashed(path, "log.put_many(range(50))")
    with pqlog.open(path) as log:
        if not crash:
            log.put_many(range(50))
        reader = start(READER, path)
        assert reader.line() == "50"
        log.put("beside it")
        with pqlog.open(path, timeout=0) as other:
            assert other.put("more") == 52
        assert reader.finish() == "50\n"


def test_an_open_read_transaction_keeps_no_log_from_working_again_after_an_error(tmp_path):
    write(tmp_path / "disk", {})
    disk = Disk(tmp_path / "disk")
    with (
        disk.listening(),
        errors_are_quiet(),
        pqlog.open(disk.folder / "a.db", vfs=disk.vfs_name, timeout=0) as log,
    ):
        log.put("a")
        reader = apsw.Connection(str(disk.folder / "a.db"), vfs=disk.vfs_name)
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM messages_1").get == 1
        disk.fault = Fault(("sync",), 0)
        with pytest.raises(pqlog.DiskError):
            log.put("b")
        assert log.put("c") == 2
        reader.close()
