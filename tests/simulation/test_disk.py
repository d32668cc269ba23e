"""The simulated disk itself: it keeps what it must, and can lose everything that it may."""

import random

import apsw
import pytest

from pqlog import atomic
from tests.simulation.disk import Disk, Event, Fault, errors_are_quiet


def all_cuts(disk, at, name, tries=300):
    return {disk.cut(at, random.Random(seed)).get(name) for seed in range(tries)}


@pytest.fixture
def disk(tmp_path):
    return Disk(tmp_path)


@pytest.fixture
def file(disk, tmp_path):
    flags = [apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_MAIN_DB, 0]
    return disk._vfs.xOpen(str(tmp_path / "a.db"), flags)


def folder(disk):
    """Make names durable."""
    disk.events.append(Event("sync folder", ""))


def test_a_file_may_be_gone_until_its_folder_is_synced(disk, file):
    file.xWrite(b"x", 0)
    file.xSync(0)
    assert all_cuts(disk, disk.now, "a.db") == {None, b"x"}
    folder(disk)
    assert all_cuts(disk, disk.now, "a.db") == {b"x"}
    assert all_cuts(disk, 0, "a.db") == {None}


def test_what_was_synced_stays_and_the_rest_may(disk, file):
    folder(disk)
    file.xWrite(b"a" * 4, 0)
    file.xSync(0)
    file.xWrite(b"bb", 1)
    file.xWrite(b"c", 2)
    assert all_cuts(disk, disk.now, "a.db") == {b"aaaa", b"abba", b"aaca", b"abca"}
    file.xSync(0)
    assert all_cuts(disk, disk.now, "a.db") == {b"abca"}


def test_a_write_may_be_torn_at_its_sectors(disk, file):
    folder(disk)
    file.xWrite(b"a" * 1024, 0)
    assert all_cuts(disk, disk.now, "a.db") == {b"", b"a" * 512, b"a" * 1024, bytes(512) + b"a" * 512}


def test_truncation_and_deletion_wait_for_their_syncs_too(disk, file, tmp_path):
    folder(disk)
    file.xWrite(b"abc", 0)
    file.xSync(0)
    file.xTruncate(1)
    assert all_cuts(disk, disk.now, "a.db") == {b"abc", b"a"}
    file.xSync(0)
    file.xClose()
    disk._vfs.xDelete(str(tmp_path / "a.db"), False)
    assert all_cuts(disk, disk.now, "a.db") == {b"a", None}
    disk._vfs.xOpen(str(tmp_path / "a.db"), [apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE, 0]).xWrite(b"n", 0)
    assert all_cuts(disk, disk.now, "a.db") == {b"a", None, b"n", b""}


def test_no_later_sync_saves_what_a_failed_one_lost(disk, file):
    """Except for sectors that were written to since: a disk writes whole sectors."""
    folder(disk)
    file.xWrite(b"a" * 513, 0)
    disk.fault = Fault(("sync",), 0)
    with errors_are_quiet(), pytest.raises(apsw.IOError):
        file.xSync(0)
    file.xWrite(b"b", 600)
    file.xSync(0)
    rest = b"a" + bytes(87) + b"b"
    assert all_cuts(disk, disk.now, "a.db") == {b"a" * 512 + rest, bytes(512) + rest}
    file.xWrite(b"c", 0)
    file.xSync(0)
    assert all_cuts(disk, disk.now, "a.db") == {b"c" + b"a" * 511 + rest}


def test_a_file_that_is_renamed_has_one_of_its_names(disk, file, tmp_path):
    folder(disk)
    file.xWrite(b"x", 0)
    file.xSync(0)
    with disk.listening():
        atomic.appear(str(tmp_path / "a.db"), str(tmp_path / "b.db"))
        at = disk.now
        assert all_cuts(disk, at, "b.db") == {b"x"}
        assert all_cuts(disk, at, "a.db") == {None}
        assert {tuple(disk.cut(at - 1, random.Random(seed))) for seed in range(99)} == {("a.db",), ("b.db",)}


@pytest.mark.parametrize(
    ("lasting", "fails"), [(False, [False, True, False, False]), (True, [False, True, True, True])]
)
def test_faults_strike_when_they_should(disk, file, lasting, fails):
    disk.fault = Fault(("write",), 1, lasting, full=True)
    found = []
    with errors_are_quiet():
        for at in range(4):
            try:
                file.xWrite(b"x", at)
            except apsw.FullError:
                found.append(True)
            else:
                found.append(False)
    assert found == fails
    assert disk.fault.struck == sum(fails)


def test_a_database_on_it_is_a_database(disk, tmp_path):
    db = apsw.Connection(str(tmp_path / "b.db"), vfs=disk.vfs_name)
    other = apsw.Connection(str(tmp_path / "b.db"), vfs=disk.vfs_name)
    db.pragma("journal_mode", "wal")
    db.execute("CREATE TABLE t (a)")
    for n in range(50):
        db.execute("INSERT INTO t VALUES (?)", (n,))
    assert other.execute("SELECT count(*) FROM t").get == 50
    kinds = {event.kind for event in disk.events}
    assert kinds >= {"create", "write", "sync", "sync folder"}
