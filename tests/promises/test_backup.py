"""A backup is a complete copy with the same permissions, or nothing, whatever happens meanwhile."""

import contextlib
import os
import stat
import threading

import pytest

import pqlog
from pqlog import atomic
from pqlog.store.sqlite import repair
from tests.processes import run, run_until_killed, start


def names(folder):
    return sorted(name for name in os.listdir(folder) if not name.startswith("events.db"))


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_nobody_can_read_it_who_cannot_read_the_log(path, log, mode):
    log.put("secret")
    path.chmod(mode)
    before = os.umask(0)
    try:
        log.backup(path.with_name("copy.db"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.with_name("copy.db").stat().st_mode) == mode
    assert names(path.parent) == ["copy.db"]


def test_nobody_can_read_it_while_it_is_made(path, log):
    """Not even its name exists before."""
    log.put_many(["x" * 100_000] * 300)
    path.chmod(0o600)
    done = threading.Event()
    thread = threading.Thread(target=lambda: (log.backup(path.with_name("copy.db")), done.set()))
    thread.start()
    modes = set()
    while not done.is_set():
        for name in names(path.parent):
            with contextlib.suppress(FileNotFoundError):
                modes.add((name.startswith(".copy.db.partial-"), stat.S_IMODE((path.parent / name).stat().st_mode)))
    thread.join()
    assert modes <= {(True, 0o700), (False, 0o600)}
    assert (True, 0o700) in modes


@pytest.mark.parametrize("name", ["copy.db.partial", "copy.db", ".copy.db.partial-link"])
def test_a_symbolic_link_in_its_way_is_not_followed(path, log, name):
    log.put("a")
    elsewhere = path.with_name("elsewhere")
    elsewhere.mkdir()
    (elsewhere / "precious").write_bytes(b"precious")
    path.with_name(name).symlink_to(elsewhere if "link" in name else elsewhere / "new")
    if name == "copy.db":
        with pytest.raises(pqlog.ArgumentError, match="exists"):
            log.backup(path.with_name("copy.db"))
    else:
        log.backup(path.with_name("copy.db"))
    assert os.listdir(elsewhere) == ["precious"]
    assert path.with_name(name).is_symlink()


def test_it_does_not_replace_what_appears_meanwhile(path, log, monkeypatch):
    log.put("a")
    copy = path.with_name("copy.db")
    real = atomic.sync_file

    def slow(made):
        real(made)
        copy.write_bytes(b"somebody else's")

    monkeypatch.setattr(atomic, "sync_file", slow)
    with pytest.raises(pqlog.ArgumentError, match="exists"):
        log.backup(copy)
    assert copy.read_bytes() == b"somebody else's"
    assert names(path.parent) == ["copy.db"]


def test_of_several_at_once_to_one_path_one_is_made(path, log):
    log.put_many(["x" * 1000] * 3000)
    said = []

    def work():
        try:
            log.backup(path.with_name("copy.db"))
            said.append("made")
        except pqlog.ArgumentError:
            said.append("exists")

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said) == ["exists"] * 5 + ["made"]
    assert names(path.parent) == ["copy.db"]
    with pqlog.open(path.with_name("copy.db")) as copy:
        assert (len(copy), copy.verify()) == (3000, [])


@pytest.mark.parametrize("make", ["pqlog.open(old).backup(new)", "pqlog.salvage(old, new)"])
def test_a_killed_one_leaves_nothing_to_the_next(path, log, make):
    log.put_many(["x" * 10_000] * 300)
    script = f"""
import os, signal, sys, pqlog
from pqlog import atomic
atomic.sync_file = lambda made: os.kill(os.getpid(), signal.SIGKILL)
old, new = sys.argv[1:]
{make}
"""
    run_until_killed(script, path, path.with_name("copy.db"))
    (left,) = names(path.parent)
    assert left.startswith(".copy.db.partial-")
    log.backup(path.with_name("copy.db"))
    assert names(path.parent) == ["copy.db"]


def test_what_is_salvaged_is_for_the_same_eyes_and_whole_or_not_there(path, monkeypatch):
    with pqlog.open(path) as log:
        log.put_many(range(100))
    path.chmod(0o600)
    new = path.with_name("new.db")
    with monkeypatch.context() as patch:
        patch.setattr(repair, "_rest", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pqlog.salvage(path, new)
    assert names(path.parent) == []
    pqlog.salvage(path, new)
    assert stat.S_IMODE(new.stat().st_mode) == 0o600
    assert names(path.parent) == ["new.db"]
    with pqlog.open(new) as log:
        assert len(log) == 100


def test_it_ends_though_others_put_all_the_time(path, log):
    """One read transaction: SQLite does not start over when the log changes."""
    log.put_many(["x" * 10_000] * 2000)
    script = "import sys, pqlog\nlog = pqlog.open(sys.argv[1])\nwhile True: print(log.put('x' * 5000), flush=True)"
    with start(script, path) as other:
        other.line()
        before = len(log)
        log.backup(path.with_name("copy.db"))
        after = len(log)
        other.kill()
    with pqlog.open(path.with_name("copy.db")) as copy:
        assert before <= len(copy) <= after
        assert copy.verify() == []


@pytest.mark.parametrize("where", ["no/such/folder/copy.db", "events.db/copy.db"])
def test_where_it_cannot_be_written_an_error_says_so(path, log, where):
    with pytest.raises(pqlog.StoreError, match="Check that the folder exists"):
        log.backup(path.parent / where)


def test_a_batch_that_is_handed_out_is_not_handed_out_in_the_copy(path, log):
    """Its holder lives, and holds it of the log itself."""
    log.put_many(range(4))
    batch = log.client("c").next_batch(size=2)
    log.backup(path.parent / "copy.db")
    script = "import sys, pqlog; print(list(pqlog.open(sys.argv[1]).client('c').next_batch()))"
    assert run(script, path.parent / "copy.db") == "[0, 1]\n"
    batch.ack()
    assert log.client("c").position == 3
