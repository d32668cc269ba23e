"""Files that are not logs are refused untouched; files that are damaged, moved or read-only say so."""

import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import apsw
import pytest

import pqlog
from tests.processes import crashed, run, run_until_killed, start


def untouched(path, says, error=pqlog.NotALogError, **how):
    before = path.read_bytes()
    with pytest.raises(error, match=says):
        pqlog.open(path, **how)
    assert path.read_bytes() == before
    assert sorted(os.listdir(path.parent)) == [path.name]


def test_a_directory(tmp_path):
    with pytest.raises(pqlog.NotALogError, match="is a directory"):
        pqlog.open(tmp_path)


def test_a_missing_folder(tmp_path):
    with pytest.raises(pqlog.StoreError, match="does not exist: make it first"):
        pqlog.open(tmp_path / "no" / "a.db")


def test_a_text_file(path):
    path.write_text("id,name\n1,x\n" * 1000)
    untouched(path, "nor any SQLite database")


def test_somebody_elses_database(path):
    db = apsw.Connection(str(path))
    db.execute("CREATE TABLE users (id)")
    db.close()
    untouched(path, "another program's")


def test_a_file_of_persistent_queue_log(path):
    db = apsw.Connection(str(path))
    db.execute("CREATE TABLE log (id INTEGER PRIMARY KEY, data BLOB); CREATE TABLE clients (client_id, acknowledged)")
    db.close()
    untouched(path, "pqlog migrate", pqlog.OldQueueError)


def test_a_newer_format(path):
    pqlog.open(path).close()
    db = apsw.Connection(str(path))
    db.pragma("user_version", 99)
    db.close()
    untouched(path, "format version 99", pqlog.NewerFormatError)


def test_an_empty_file_becomes_a_log(path):
    path.touch()
    with pqlog.open(path) as log:
        assert log.put(1) == 1


def test_a_damaged_file(path):
    with pqlog.open(path) as log:
        log.put_many(["x" * 1000] * 1000)
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(os.urandom(300_000))
    with pytest.raises(pqlog.CorruptLogError, match="restore a backup"), pqlog.open(path) as log:
        list(log)


@pytest.mark.parametrize("what", ["events.db", "events.db-wal"])
@pytest.mark.parametrize("how", ["move", "delete", "replace"])
def test_a_file_that_was_moved_takes_no_more(path, what, how):
    log = pqlog.open(path)
    log.put("a")
    lost = path.parent / what
    if how == "move":
        lost.rename(path.parent / "elsewhere")
    else:
        lost.unlink()
        if how == "replace":
            lost.write_bytes(b"")
    for _ in range(2):
        with pytest.raises(pqlog.MovedError, match="moved, replaced or deleted"):
            log.put("b")
    log.close()


def test_touching_the_file_is_harmless(path, log):
    log.put(1)
    os.utime(path)
    path.chmod(0o600)
    assert [log.put(2), log.put(3)] == [2, 3]


def test_mode_r_reads_and_writes_nothing(path):
    with pqlog.open(path) as log:
        log.put_many(list("abc"))
        list(log.get("c"))
    with pqlog.open(path, readonly=True) as log:
        assert [message.value for message in log] == ["a", "b", "c"]
        assert log.client("c").position == 4
        for write in (
            lambda: log.put(1),
            lambda: log.client("c").seek(to=1),
            lambda: log.trim(2),
            log.compact,
            lambda: list(log.get("d")),
        ):
            with pytest.raises(pqlog.ReadOnlyError, match="readonly=True"):
                write()
        with pytest.raises(pqlog.UnknownTopicError, match="no topic 'other'"):
            log.topic("other")
    with pytest.raises(pqlog.StoreError, match="does not exist"):
        pqlog.open(path.parent / "other.db", readonly=True)


@pytest.mark.parametrize("left", ["closed", "killed"])
def test_mode_r_leaves_the_folder_as_it_was(path, left):
    with pqlog.open(path) as log:
        log.put_many(range(1000))
    if left == "killed":
        script = "import os, pqlog, sys; pqlog.open(sys.argv[1]).put(1); os.kill(os.getpid(), 9)"
        run_until_killed(script, path)
    before = {each.name: each.read_bytes() for each in path.parent.iterdir() if not each.name.endswith("-shm")}
    assert len(before) == (1 if left == "closed" else 2)
    with pqlog.open(path, readonly=True) as log:
        assert len(log) == 1000 + (left == "killed")
        assert log.to_pandas()["value"].sum() == 499_500 + (left == "killed")
        assert log.verify() == []
    after = {each.name: each.read_bytes() for each in path.parent.iterdir() if not each.name.endswith("-shm")}
    assert after == before


def test_mode_r_sees_what_a_writer_puts(path, log):
    log.put(1)
    with pqlog.open(path, readonly=True) as reading:
        assert len(reading) == 1
        log.put(2)
        assert len(reading) == 2


@pytest.fixture
def shared():
    """A log of three messages in a folder where other users may read, but not write."""
    if os.geteuid() != 0:
        pytest.skip("only root can start a process of another user")
    with tempfile.TemporaryDirectory() as folder:  # tmp_path is hidden from other users
        path = Path(folder, "events.db")
        with pqlog.open(path) as log:
            log.put_many(range(3))
        os.chmod(folder, 0o755)
        path.chmod(0o644)
        yield path


# It imports before it is another user, who may not read where that lies.
AS_NOBODY = """
import encodings.ascii, os, sys, pqlog, pqlog.history, pqlog.store.sqlite.store
os.setgid(65534), os.setuid(65534)
"""
READS = """
with pqlog.open(sys.argv[1], readonly=True) as log:
    for line in sys.stdin:
        print([message.value for message in log], flush=True)
"""


def is_seen_by(reader, *values):
    reader.tell()
    return reader.line() == str(list(values))


def test_who_may_only_read_sees_what_another_user_puts(shared):
    with start(AS_NOBODY + READS, shared) as reader:
        assert is_seen_by(reader, 0, 1, 2)
        with pqlog.open(shared) as log:
            assert is_seen_by(reader, 0, 1, 2)
            log.put(3)
            assert is_seen_by(reader, 0, 1, 2, 3)
            log.compact()
            log.put(4)
            assert is_seen_by(reader, 0, 1, 2, 3, 4)
        assert is_seen_by(reader, 0, 1, 2, 3, 4)
        with pqlog.open(shared) as log:
            log.trim(3)
            log.put(5)
        assert is_seen_by(reader, 2, 3, 4, 5)
        reader.finish()
    with pqlog.open(shared) as log:
        log.put(6)
    assert os.listdir(shared.parent) == [shared.name]


def test_who_may_only_read_sees_what_was_put_between_two_looks(shared):
    with start(AS_NOBODY + READS, shared) as reader:
        for n in range(3, 13):
            assert is_seen_by(reader, *range(n))
            with pqlog.open(shared) as log:
                log.put(n)
            assert os.listdir(shared.parent) == [shared.name]
        reader.finish()


def test_a_query_that_another_user_disturbed_is_asked_again(shared):
    script = """
def query(db):
    found = db.execute("SELECT count(*) FROM messages_1").get
    print(found, flush=True)
    sys.stdin.readline()
    return found
print(pqlog.store.sqlite.store.SqliteStore(sys.argv[1], readonly=True).read(query))
"""
    with start(AS_NOBODY + script, shared) as reader:
        assert reader.line() == "3"
        with pqlog.open(shared) as log:
            log.put(3)
        reader.tell()
        assert reader.line() == "4"
        assert reader.finish("\n") == "4\n"


def test_who_may_only_read_reads_what_a_crash_left(shared):
    crashed(shared, "log.put(3)")
    with start(AS_NOBODY + READS, shared) as reader:
        assert is_seen_by(reader, 0, 1, 2, 3)
        with pqlog.open(shared) as log:
            log.put(4)
            assert is_seen_by(reader, 0, 1, 2, 3, 4)
        reader.finish()
    crashed(shared, "log.put(5)")
    shared.with_name(shared.name + "-shm").unlink()
    script = "try: pqlog.open(sys.argv[1], readonly=True)\nexcept pqlog.ReadOnlyError as error: print(error)"
    assert "a write-ahead log that is not checkpointed" in run(AS_NOBODY + script, shared)


def test_who_may_only_read_locks_nobody_out(shared):
    """In a folder where all may make files: a -shm of the reader would be one that the owner cannot write."""
    shared.parent.chmod(0o777)
    with start(AS_NOBODY + READS, shared) as reader:
        assert is_seen_by(reader, 0, 1, 2)
        assert os.listdir(shared.parent) == [shared.name]
        reader.finish()


@pytest.mark.mounts
def test_a_disk_that_is_read_only_here_and_written_elsewhere(tmp_path):
    disk, view = tmp_path / "disk", tmp_path / "view"
    disk.mkdir(), view.mkdir()
    with pqlog.open(disk / "a.db") as log:
        log.put_many(range(3))
    subprocess.run(["mount", "--bind", str(disk), str(view)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(view)], check=True)
        with start("import pqlog, sys\n" + READS, view / "a.db") as reader:
            assert is_seen_by(reader, 0, 1, 2)
            with pqlog.open(disk / "a.db") as log:
                log.put(3)
                assert is_seen_by(reader, 0, 1, 2, 3)
                log.compact()
            assert is_seen_by(reader, 0, 1, 2, 3)
            reader.finish()
    finally:
        subprocess.run(["umount", str(view)], check=True)


@pytest.mark.mounts
def test_a_read_only_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    with pqlog.open(disk / "a.db") as log:
        log.put_many(list("abc"))
    subprocess.run(["mount", "--bind", str(disk), str(disk)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(disk)], check=True)
        with pqlog.open(disk / "a.db", readonly=True) as log:
            assert [message.value for message in log] == ["a", "b", "c"]
        with pytest.raises(pqlog.ReadOnlyError, match="readonly=True"):
            pqlog.open(disk / "a.db")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_backup_is_a_log_of_its_own(path, log):
    log.put_many(list("abc"))
    list(log.get("c"))
    copy = path.parent / "copy.db"
    log.backup(copy)
    log.put("d")
    with pqlog.open(copy) as other:
        assert [message.value for message in other] == ["a", "b", "c"]
        assert other.client("c").position == 4
        assert other.uuid != log.uuid
    with pytest.raises(pqlog.ArgumentError, match="exists"):
        log.backup(copy)
    with pytest.raises(pqlog.Error):
        log.backup(path.parent / "no" / "copy.db")


def test_a_copied_file_opens(path, log):
    log.put_many(list("abc"))
    log.close()
    shutil.copy(path, path.parent / "b.db")
    with pqlog.open(path.parent / "b.db") as other:
        assert len(other) == 3


def test_a_closed_log_is_one_file(path):
    with pqlog.open(path) as log:
        log.put(1)
    assert os.listdir(path.parent) == [path.name]
    assert stat.S_ISREG(path.stat().st_mode)


def test_trim_gives_the_space_back(path, log):
    log.put_many({"n": n, "text": "x" * 200} for n in range(50_000))
    log.put("last")
    before = log.size_bytes()
    assert log.trim(before=log.last) == 50_000
    log.close()
    assert path.stat().st_size < before / 20
    with pqlog.open(path) as again:
        assert (again.first, again.last, again.put("next")) == (50_001, 50_001, 50_002)


def test_trim_shrinks_the_file_while_the_log_is_in_use(path, log):
    log.put_many({"n": n, "text": "x" * 200} for n in range(50_000))
    before = path.stat().st_size + path.with_name("events.db-wal").stat().st_size
    log.trim(before=log.last)
    assert path.stat().st_size < before / 20
    assert log.put("next") == 50_001


def test_compact_shrinks_the_file_while_the_log_is_in_use(path, log):
    other = log.topic("other")
    for _ in range(300):  # alternating pages of both, of which trim frees only whole ones
        log.put_many("x" * 100 for _ in range(40))
        other.put_many("y" * 1_000 for _ in range(9))
    log.trim(before=log.last)
    before = path.stat().st_size
    reading = iter(other)
    next(reading)
    freed = log.compact()
    assert freed >= 0
    assert path.stat().st_size <= before - freed  # less if what trim freed was still in the write-ahead log
    assert path.with_name("events.db-wal").stat().st_size < 6 << 20
    assert sum(1 for _ in reading) == 2_699
    assert (log.put("next"), log.verify()) == (12_001, [])


def test_trim_keeps_what_a_client_has_not_acknowledged(log):
    log.put_many(range(10))
    for value in log.get("slow"):
        if value == 3:
            break
    with pytest.raises(pqlog.TrimRefusedError, match=r"'slow' \(4 messages\)") as caught:
        log.trim(before=8)
    assert caught.value.clients == (("slow", 4),)
    assert log.first == 1
    assert log.trim(before=4) == 3
    assert log.trim(before=8, force=True) == 4
    assert list(log.get("slow")) == [7, 8, 9]
    with pytest.raises(pqlog.TrimmedError, match="the first offset kept is 8"):
        log[3]
    assert log.trim(before=10**9) == 3
    assert (len(log), log.first, log.last, log.put("x")) == (0, None, None, 11)


READER = """
import apsw, sys
db = apsw.Connection(sys.argv[1])
db.execute("BEGIN").execute("SELECT count(*) FROM topics").fetchall()
print("reading", flush=True)
sys.stdin.readline()
"""


def test_compact_leaves_less_on_the_disk_than_before(path):
    with pqlog.open(path) as log:
        log.put_many({"n": n, "text": "x" * 100} for n in range(30_000))
        before = log.size_bytes()
        log.compact()
        assert log.size_bytes() <= before
        log.trim(before=20_000)
        before = log.size_bytes()
        log.compact()
        assert log.size_bytes() <= before
        assert log.put(1) == 30_001
        assert log.verify() == []


def test_compact_beside_a_reader_ends_and_gives_the_room_back_later(path):
    with pqlog.open(path, timeout=3600) as log:  # but it must not wait that long for readers: all puts would wait too
        for _ in range(10):
            log.put_many({"n": n, "text": "x" * 100} for n in range(5000))
        with start(READER, path) as reader:
            assert reader.line() == "reading"
            log.compact()
            assert log.put(1) == 50_001
            reader.finish("go\n")
        log.put_many(range(1000))
        log.compact()
        assert log.size_bytes() == path.stat().st_size
        assert log.verify() == []


@pytest.mark.parametrize("how", ["in memory", "a copy of one in memory"])
def test_trim_of_a_log_that_was_made_in_memory_comes_to_its_end(tmp_path, how):
    path = ":memory:"
    if how != "in memory":
        path = tmp_path / "copy.db"
        with pqlog.open(":memory:") as log:
            log.backup(path)
    with pqlog.open(path) as log:
        log.put_many("x" * 10_000 for _ in range(2_000))
        before = log.size_bytes()
        assert log.trim(before=-1) == 1_999
        assert log.size_bytes() < before
