"""Connections to one file: opened with every safety on, checked, pooled; and SQLite's errors turned into ours."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import apsw

from pqlog import errors
from pqlog.store.sqlite import schema

T = TypeVar("T")

# Earlier versions can lose a WAL commit when a checkpoint races with a reset: https://sqlite.org/wal.html
OLDEST_SQLITE = (3, 51, 3)

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
            return errors.ReadOnlyError(f"{said}. Open it with readonly=True, or make the file and its folder writable")
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
        case UnicodeEncodeError():
            return errors.ArgumentError(
                f"{error.object!r:.100} is not Unicode text: it has surrogates without a partner"
            )
        case TypeError() | ValueError() | LookupError() | OverflowError():  # a value of another type than its column
            return errors.CorruptLogError(
                f"{path} holds what no pqlog wrote ({type(error).__name__}: {error}): restore a backup, "
                f"or copy what can be read with pqlog.salvage(path, to)"
            )
        case _:
            return errors.StoreError(f"{said} ({type(error).__name__})")


class BusyHandler:
    """Asks for a lock again, soon, until the time is up.

    SQLite's own time-out sleeps for up to 100 ms between two tries: next to a process that puts all the time, for which
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
    """A connection with nothing set but its busy handler."""
    db = apsw.Connection(path, flags=flags, vfs=vfs)
    db.set_busy_handler(BusyHandler(timeout_s))
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
    found = schema.entries(db)
    application, version = db.pragma("application_id"), db.pragma("user_version")
    tables = {entry.name for entry in found if entry.type == "table"}
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
    """Switch the file to WAL. Of two processes that do so at once, one is told "locked", whatever its busy handler."""

    def set_mode() -> None:
        mode = db.pragma("journal_mode", "wal")
        if mode != "wal":
            raise errors.UnsafeStorageError(
                f"{path}: SQLite cannot use a write-ahead log here (journal mode {mode}), so no promise could be kept: "
                f"choose a local disk"
            )

    retry_busy(set_mode, timeout_s)


def integrity(db: apsw.Connection, _tables: object) -> list[str]:
    """What SQLite finds wrong with its structures."""
    return [f"SQLite: {said}" for (said,) in db.execute("PRAGMA integrity_check(100)") if said != "ok"]


def retry_busy(action: Callable[[], T], timeout_s: float) -> T:
    """Do `action`, again while it is told "locked" and there is time."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return action()
        except (apsw.BusyError, apsw.LockedError):
            if time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.001, 0.02))  # noqa: S311 - spreads the contenders


def checkpoint(db: apsw.Connection, how: int) -> None:
    """Move what the write-ahead log holds into the file now, if nobody is in the way; else a later commit does it."""
    with contextlib.suppress(apsw.BusyError):
        db.wal_checkpoint(None, how)


def size(path: str) -> int:
    """How many bytes a file has; 0 if it does not exist."""
    return os.stat(path).st_size if os.path.exists(path) else 0


def leak(db: apsw.Connection) -> None:
    """Keep a connection from ever being closed in this process: it belongs to the parent, whose locks it would drop."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(db))


UNTRANSLATED = (apsw.Error, MemoryError, TypeError, ValueError, LookupError, OverflowError)
"""What SQLite raises, and what a value raises that is not what its column should hold."""


@contextlib.contextmanager
def translated(path: str) -> Iterator[None]:
    """Turn what SQLite raises into ours."""
    try:
        yield
    except UNTRANSLATED as error:
        if isinstance(error, errors.Error):
            raise
        raise translate(error, path) from error


def fetch_all(cursor: apsw.Cursor) -> list[Any]:
    """All rows of a query; the statement is finished."""
    return cursor.fetchall()


def fetch_one(cursor: apsw.Cursor) -> Any:
    """The first row of a query, or None; the statement is finished."""
    found = cursor.fetchall()
    return found[0] if found else None
