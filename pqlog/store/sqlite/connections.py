"""Connections to one file: opened with every safety on, checked, pooled; and SQLite's errors turned into ours."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import apsw

from pqlog import errors
from pqlog.store.sqlite import schema

T = TypeVar("T")

# Earlier versions can lose a WAL commit when a checkpoint races with a reset: https://sqlite.org/wal.html
OLDEST_SQLITE = (3, 51, 3)

# 1,000 pages, after which SQLite begins anew at the front.
WAL_BYTES = 32 + 1_000 * (24 + 4_096)

# Each is read back after it was set. Measured by replaying recorded writes at random power cuts: rollback journals with
# FULL lost puts that had returned (the journal's unlink is not synced), WAL with NORMAL lost many, WAL with FULL none.
_PRAGMAS: tuple[tuple[str, int], ...] = (
    ("synchronous", 2),  # FULL
    ("fullfsync", 1),  # a plain fsync on macOS leaves the drive's cache unwritten
    ("checkpoint_fullfsync", 1),
    ("mmap_size", 0),  # an I/O error on a mapped page kills the process
    ("trusted_schema", 0),
    ("cell_size_check", 1),
    ("foreign_keys", 0),
    ("temp_store", 0),
)


def translate(error: Exception, path: str) -> errors.Error:
    """Our error for one of SQLite's: what happened and what to do. The only place that knows apsw's classes."""
    said = f"{path}: {error}"
    match error:
        case errors.Error():
            return error
        case apsw.FullError():
            return errors.DiskFullError(f"{said}. Nothing that had been put is lost: free some space and put again")
        case apsw.NotADBError():
            return errors.NotALogError(f"{path} is not a pqlog file, nor any SQLite database: choose another path")
        case apsw.CorruptError():
            return errors.CorruptLogError(
                f"{said}. The file is damaged: stop writing to it and restore a backup, "
                f"or copy what can be read with pqlog.salvage(path, to)"
            )
        case apsw.ReadOnlyError() | apsw.PermissionsError() | apsw.AuthError():
            return errors.ReadOnlyError(f'{said}. Open it with mode="r", or make the file and its folder writable')
        case apsw.BusyError() | apsw.LockedError():
            return errors.LockTimeoutError(f"{said}. Another process held the file for longer than the time-out")
        case apsw.CantOpenError():
            return errors.StoreError(f"{said}. Check that the folder exists and may be written")
        case apsw.IOError():
            return errors.DiskError(f"{said}. What had been put before is safe; put again when the disk answers")
        case apsw.NoMemError() | MemoryError():
            return errors.StoreError(f"{said}. There was not enough memory; nothing was changed")
        case apsw.TooBigError():
            return errors.ArgumentError(f"{said}. SQLite keeps values up to 1,000,000,000 bytes: split it")
        case apsw.ConnectionClosedError():
            return errors.ClosedError(f"{path} was closed")
        case TypeError() | ValueError() | LookupError() | OverflowError():  # a value of another type than its column
            return errors.CorruptLogError(
                f"{path} holds what no pqlog wrote ({type(error).__name__}: {error}): restore a backup, "
                f"or copy what can be read with pqlog.salvage(path, to)"
            )
        case _:
            return errors.StoreError(f"{said} ({type(error).__name__})")


class Patience:
    """Asks for a lock again, soon, until the time is up.

    SQLite's own time-out sleeps for up to 100 ms between two tries: beside a process that puts all the time, for which
    the file is free for a moment every 200 µs, opening a log took up to 1.5 s.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._until = 0.0

    def __call__(self, tries: int) -> bool:
        """Whether to try again."""
        if not tries:
            self._until = time.monotonic() + self._timeout_s
        if time.monotonic() > self._until:
            return False
        time.sleep(random.uniform(0.0001, 0.001))  # noqa: S311 - spreads the contenders
        return True


def connect(path: str, *, flags: int, vfs: str | None, timeout_s: float) -> apsw.Connection:
    """A connection with nothing set but its patience."""
    db = apsw.Connection(path, flags=flags, vfs=vfs)
    db.set_busy_handler(Patience(timeout_s))
    db.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    db.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
    db.config(apsw.SQLITE_DBCONFIG_ENABLE_VIEW, 0)
    return db


def configure(db: apsw.Connection, path: str) -> None:
    """Set what the promises rest on, and read it back."""
    for name, value in _PRAGMAS:
        db.pragma(name, value)
        got = db.pragma(name)
        if got is not None and got != value:
            raise errors.UnsafeStorageError(f"{path}: PRAGMA {name} is {got}, not {value}: no promise can be kept here")


def check_sqlite() -> None:
    """Refuse a SQLite that can lose a commit."""
    version = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
    if version < OLDEST_SQLITE:
        raise errors.UnsafeStorageError(
            f"SQLite {apsw.sqlite_lib_version()} can lose commits: pip install --upgrade apsw (3.51.3 or later)"
        )


def check_kind(db: apsw.Connection, path: str) -> bool:
    """Whether the database is a pqlog file (or, False, still empty); raises if it is anything else. Writes nothing."""
    if db.in_transaction:
        return _check_kind(db, path)
    db.execute("BEGIN")  # one snapshot: another process may be making tables right now
    try:
        return _check_kind(db, path)
    finally:
        db.execute("ROLLBACK")


def _check_kind(db: apsw.Connection, path: str) -> bool:
    found = schema.things(db)
    application, version = db.pragma("application_id"), db.pragma("user_version")
    tables = {thing.name for thing in found if thing.type == "table"}
    if application == schema.APPLICATION_ID:
        if version > schema.VERSION:
            raise errors.NewerFormatError(
                f"{path} has format version {version}; this pqlog reads up to {schema.VERSION}: "
                f"pip install --upgrade pqlog"
            )
        for look in (schema.differences, schema.missing_topics):  # the second reads what the first has compared
            for said in look(db, found):
                raise errors.CorruptLogError(
                    f"{path} is marked as a pqlog file, but {said}. If somebody put it there, remove it with another "
                    f"SQLite tool; else do not trust the file, and restore a backup"
                )
        if version < 1 or db.pragma("encoding") != "UTF-8":
            raise errors.CorruptLogError(f"{path} is marked as a pqlog file, but not as one that any pqlog made")
        return True
    if {"log", "clients"} <= tables and not application:
        raise errors.OldQueueError(
            f"{path} was written by persistent-queue-log: make a pqlog file of it with `pqlog migrate {path} NEW`"
        )
    if tables or application or version:
        raise errors.NotALogError(f"{path} is another program's SQLite database: choose another path")
    return False


def set_wal(db: apsw.Connection, path: str, timeout_s: float) -> None:
    """Turn the file to WAL. Of two processes that do so at once one is told "locked" at once, whatever its patience."""

    def turn() -> None:
        mode = db.pragma("journal_mode", "wal")
        if mode != "wal":
            raise errors.UnsafeStorageError(
                f"{path}: no write-ahead log can be had here (journal mode {mode}), so no promise could be kept: "
                f"choose a local disk"
            )

    patiently(turn, timeout_s)


def integrity(db: apsw.Connection, _tables: object) -> list[str]:
    """What SQLite finds wrong with its structures."""
    return [f"SQLite: {said}" for (said,) in db.execute("PRAGMA integrity_check(100)") if said != "ok"]


def patiently(action: Callable[[], T], timeout_s: float) -> T:
    """Do `action`, again while it is told "locked" and there is time."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return action()
        except (apsw.BusyError, apsw.LockedError):
            if time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.001, 0.02))  # noqa: S311 - spreads the contenders


def settle(db: apsw.Connection, path: str, timeout_s: float) -> None:
    """Make durable whatever can be read, before the first promise is made on top of it.

    After a failed sync a commit that raised may still lie in the page cache. A re-opened log would take it for
    committed and append behind it; a power cut then loses puts that had returned (28 of 448 replayed states; with
    this, none of 352). TRUNCATE and not PASSIVE: all of it must be in the database file, and synced.
    """

    def checkpoint() -> None:
        busy = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()[0][0]
        if busy:
            raise apsw.BusyError("another process is using the file")

    patiently(checkpoint, timeout_s)
    sync_folder(path)


def merge(db: apsw.Connection, how: int) -> None:
    """Move what the write-ahead log holds into the file now, if nobody is in the way; else a later commit does it."""
    with contextlib.suppress(apsw.BusyError):
        db.wal_checkpoint(None, how)


def extend_wal(db: apsw.Connection, path: str) -> None:
    """Give the -wal its usual size at once, as zeros.

    While it still grows, each sync has the file's new size to write too: the first thousand puts took 230 µs each in
    place of 145. SQLite takes zeros for the remains of an older log, as it does whatever lies behind a log's end. The
    write lock is held meanwhile, so that nobody appends; POSIX locks, which a close would drop, it has none on this
    file.
    """
    db.execute("BEGIN IMMEDIATE")
    try:
        file = os.open(path + "-wal", os.O_WRONLY | os.O_APPEND)
        try:
            missing = WAL_BYTES - os.fstat(file).st_size
            # A page a write: after one large write each later sync took 8 µs more (measured; the cause may be the large
            # folios that Linux makes of it).
            for size in [4_096] * (missing // 4_096) + [missing % 4_096] * (missing > 0):
                os.write(file, bytes(size))
            os.fsync(file)
        finally:
            os.close(file)
    except OSError:
        pass  # a full disk, say: then it grows as it is written, or says so
    finally:
        db.execute("ROLLBACK")


def size(path: str) -> int:
    """How many bytes a file has; 0 if there is none."""
    return os.stat(path).st_size if os.path.exists(path) else 0


def sync_folder(path: str) -> None:
    """Make the names in the file's folder durable."""
    if os.name != "posix":
        return
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def leak(db: apsw.Connection) -> None:
    """Keep a connection from ever being closed in this process: it belongs to the parent, whose locks it would drop."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(db))


class Pool:
    """Connections for readers: each borrowed for one query, never while the caller's code runs.

    A database in memory has one connection for all, so its `size` is one and the writer borrows it too.
    """

    def __init__(self, make: Callable[[], apsw.Connection], size: int, path: str) -> None:
        self._make, self._path = make, path
        self._free: list[apsw.Connection] = []
        self._all: list[apsw.Connection] = []
        self.places = threading.BoundedSemaphore(size)
        self._closed = False

    @contextlib.contextmanager
    def borrow(self) -> Iterator[apsw.Connection]:
        """A connection for one query."""
        with self.places:
            db = self._take()
            try:
                with translated(self._path):
                    yield db
            finally:
                self._free.append(db)

    def _take(self) -> apsw.Connection:
        if self._closed:
            raise errors.ClosedError(f"{self._path} was closed")
        try:
            return self._free.pop()
        except IndexError:
            with translated(self._path):
                db = self._make()
            self._all.append(db)
            return db

    def close(self, size: int) -> None:
        """Wait for the borrowed ones and close all."""
        self._closed = True
        for _ in range(size):
            self.places.acquire()
        for db in self._all:
            db.close()
        self._free.clear()
        self._all.clear()
        for _ in range(size):
            self.places.release()

    def leak(self) -> None:
        """In a forked child: leave the parent's connections alone."""
        for db in self._all:
            leak(db)


@contextlib.contextmanager
def translated(path: str) -> Iterator[None]:
    """Turn what SQLite raises into ours."""
    try:
        yield
    except (apsw.Error, MemoryError, TypeError, ValueError, LookupError, OverflowError) as error:
        if isinstance(error, errors.Error):
            raise
        raise translate(error, path) from error


def rows(cursor: apsw.Cursor) -> list[Any]:
    """All rows of a query; the statement is finished."""
    return cursor.fetchall()


def row(cursor: apsw.Cursor) -> Any:
    """The first row of a query, or None; the statement is finished."""
    found = cursor.fetchall()
    return found[0] if found else None
