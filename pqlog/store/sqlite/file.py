"""An open SQLite file: the connection that writes, those that read, and their closing around a fork."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

import apsw

from pqlog import errors
from pqlog.store.sqlite import (
    checksums,
    connections,
    forks,
    hazards,
    identity,
    schema,
    smallrows,
    statements,
    wal,
)
from pqlog.store.sqlite.checkpointer import Checkpointer
from pqlog.store.sqlite.identity import FileIdentity
from pqlog.store.sqlite.readers import Readers, State, undisturbed
from pqlog.store.values import MEMORY

T = TypeVar("T")

READERS = 8
"""How many queries may run at once; more wait for a slot."""
UNLOCKED_TRIES, UNLOCKED_PAUSE_S = 20, 0.005
"""How often, and how long in between, a reader looks whether a -wal without locks is just being deleted."""


class SqliteFile:
    """Opens a file with every safety on, and lends its connections.

    The locks of a file are taken in this order: `leading`, those of the readers, the checkpointer's, `_opening`.

    Parameters
    ----------
    path : str
        The file, made if missing; ``":memory:"`` keeps everything in memory.
    readonly : bool
        Open a file that exists, and never write, also on a read-only disk.
    vfs : str, optional
        A registered SQLite VFS.
    timeout_s : float
        How long to wait while another process holds the file.
    network : bool
        Whether a network disk will do.
    damaged : bool
        Whether to open a file of whose commits some are known to be lost.
    """

    def __init__(
        self, path: str, *, readonly: bool, vfs: str | None, timeout_s: float, network: bool, damaged: bool
    ) -> None:
        self.in_memory = path == MEMORY
        # As SQLite does: the -wal of a symbolic link lies next to the file itself.
        self.path = MEMORY if self.in_memory else os.path.realpath(path)
        self.readonly, self.vfs = readonly, vfs
        self._timeout_s, self._network, self._damaged = timeout_s, network, damaged
        self._pid = os.getpid()
        self.leading: Any = threading.RLock()
        """Held while the writing connection is used."""
        self._opening: Any = threading.RLock()
        self._db: apsw.Connection | None = None
        self._files_seen: FileIdentity | None = None
        self._identity: tuple[int, int] | None = None
        self._missed: list[tuple[int, int] | None] | None = None
        """The files that a log had which was moved or deleted before its process forked: it stays so."""
        self._unsettled = False
        self._crashed = False
        self._closed = self._is_quiet = False
        self.is_lost = False
        """In a forked child: whether the file cannot be used there."""
        self._held: list[Any] = []
        self._flags = apsw.SQLITE_OPEN_READWRITE
        # A -shm that another user's process made would lock out those who may write to the file.
        may_write = _writable(os.path.dirname(self.path)) and _writable(self.path)
        self._makes_locks = may_write or self.in_memory or not readonly
        """Whether SQLite may make the -shm, which has the locks; else there is one only where somebody else made it."""
        self._readers = Readers(
            self._connect_reader, 1 if self.in_memory else READERS, path, self.in_memory, self._unlocked_state
        )
        self.checkpointer = Checkpointer(self._connect_reader)
        self.lost: dict[str, None] = {}
        """Rows of the small tables that were found damaged, where that is no reason to stop."""
        self.uuid, self.seed = "", 0
        self.on_fork: list[Callable[[], object]] = []
        """Called in a forked child: forgets what other threads of the parent were about."""
        connections.check_sqlite()
        forks.register(self)
        try:
            with self._opening:
                undisturbed(self._unlocked_state, self._open_first)
        except BaseException:
            self.close()
            raise

    @property
    def locks(self) -> list[Any]:
        """Who holds all of these knows that nobody uses a connection."""
        return [self.leading, *self._readers.locks, self.checkpointer.lock, self._opening]

    @property
    def guard(self) -> Any:
        """Held while the only connection of a database in memory is used."""
        return self._readers.locks[0]

    def check(self) -> None:
        """Raise if the file cannot be used any more."""
        if self.is_lost:
            forks.check()
            raise errors.ForkError(
                f"this log in memory belongs to process {self._pid}, of which this is a fork: open another one, or a "
                f"log in a file, which both can use"
            )
        if self._closed:
            raise errors.ClosedError(f"{self.path} was closed")

    # using it

    def read(self, query: Callable[[apsw.Connection], T], snapshot: bool = False) -> T:
        """What a query answers; with `snapshot`, several questions of it are answered as of one moment."""
        self.check()
        return self._readers.run(query, snapshot)

    def ready(self) -> apsw.Connection:
        """The writing connection before a transaction; the caller holds `leading`.

        Makes no promise on a file that is not there any more, nor on what a failed sync left.
        """
        db, where = self._db, self._files_seen
        if where is not None and not where.unchanged():
            raise self._moved()
        if db is None:
            db = self._open_again()
        elif db.txn_state("main") != apsw.SQLITE_TXN_NONE:
            db = self._without_leftovers(db)
        if self._unsettled:
            wal.settle(db, self.path, self.vfs, self._timeout_s)
            self._unsettled = False
        return db

    def _without_leftovers(self, db: apsw.Connection) -> apsw.Connection:
        """What an interrupt, or an exhausted memory, left of a transaction is ended.

        That can be a statement that was not read to its end, to which the traceback of the error still refers. It would
        keep an old state of the file in use. And beside one that writes SQLite commits no other by itself: puts
        returned that were never written. Only closing the connection ends it for certain.
        """
        if db.in_transaction:
            db.execute("ROLLBACK")
        if not self.in_memory and db.txn_state("main") != apsw.SQLITE_TXN_NONE:
            self._disconnect()
            db = self._open_again()
        return db

    def failed(self, error: Exception) -> None:
        """A transaction failed: what a failed sync left is made durable before the next."""
        if self._db is not None:
            self._db.release_memory()  # what was wrong on its way from the disk only is not read from the cache again
        if isinstance(error, (apsw.IOError, apsw.FullError)):
            self._unsettled = True

    def extend_wal(self, db: apsw.Connection) -> None:
        """Give the write-ahead log its usual size, after it was cut off."""
        if not self.in_memory:
            wal.extend(db, self.path, self.vfs, self._timeout_s)

    def _moved(self) -> errors.MovedError:
        return errors.MovedError(
            f"{self.path}, its -wal or a folder above them was moved, replaced or deleted while it was open: nothing "
            f"more is put; close the log, put the files back together, and open it again"
        )

    # opening

    def _open_first(self, state: State) -> None:
        self._disconnect()
        db = self._db = self._open(state)
        self.uuid, self.seed = self._properties(db)
        self._with_sums(db)

    def _open(self, state: State) -> apsw.Connection:
        if self.in_memory:
            db = self._connect(MEMORY, apsw.SQLITE_OPEN_READWRITE)
            db.pragma("auto_vacuum", "incremental")
            connections.configure(db, self.path)
            with db:
                schema.create(db)
            return db
        if os.path.isdir(self.path):
            raise errors.NotALogError(f"{self.path} is a directory: give the path of a file in it")
        if not self._network:
            hazards.check_disk(self.path)
        hazards.check_size(self.path)
        if self.readonly:
            return self._open_readonly(state)
        return self._use(self._open_writable(apsw.SQLITE_OPEN_CREATE))

    def _open_again(self) -> apsw.Connection:
        """After a fork, or where only closing could end what was left on the connection."""
        with self._opening:
            self.check()
            if not os.path.exists(self.path) or (self._missed is not None and self._missed != self._files()):
                raise self._moved()
            self._missed = None
            db = self._open_writable(0)
            self._check_identity()
            self._db = self._use(self._with_sums(db))
            return db

    def _use(self, db: apsw.Connection) -> apsw.Connection:
        self._files_seen = FileIdentity([self.path, self.path + "-wal"])
        self._identity = self._files_seen.identity[0]
        self.checkpointer.attach(db)
        return db

    def _files(self) -> list[tuple[int, int] | None]:
        return [identity.identity(path) for path in (self.path, self.path + "-wal")]

    def _check_identity(self) -> None:
        """Whether the file is still the one that was opened first, where it was closed in between."""
        if self._identity is not None and identity.identity(self.path) != self._identity:
            raise self._moved()

    def _open_writable(self, flags: int) -> apsw.Connection:
        folder = os.path.dirname(os.path.abspath(self.path))
        if not os.path.isdir(folder):
            raise errors.StoreError(f"{self.path}: the folder {folder} does not exist: make it first")
        if not _writable(folder):
            raise errors.ReadOnlyError(
                f"{folder} cannot be written, and a log needs its -wal next to it: open it with readonly=True to read "
                f"it"
            )
        hazards.check_names(self.path)
        self._crashed = connections.size(self.path + "-wal") > 0
        db = self._connect(self.path, self._flags | flags)
        try:
            db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, int(self._crashed))  # leave what may be refused as it is
            ours = connections.retry_busy(lambda: connections.check_kind(db, self.path), self._timeout_s)
            wal.check(db, self.path, self.vfs, self._timeout_s)
            db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
            if db.readonly("main"):
                raise errors.ReadOnlyError(f"{self.path} cannot be written: open it with readonly=True to read it")
            if not ours:
                db.pragma("auto_vacuum", "incremental")
            connections.set_wal(db, self.path, self._timeout_s)
            connections.configure(db, self.path)
            if not ours:
                self._create(db)
                # So that the file is a log without its -wal, too.
                connections.checkpoint(db, apsw.SQLITE_CHECKPOINT_PASSIVE)
            wal.settle(db, self.path, self.vfs, self._timeout_s)
            self.extend_wal(db)
        except BaseException:
            db.close(True)
            raise
        return db

    def _create(self, db: apsw.Connection) -> None:
        """Make the tables, unless another process does so at the same time."""

        def create() -> None:
            db.execute("BEGIN IMMEDIATE")
            try:
                if not connections.check_kind(db, self.path):
                    schema.create(db)
                db.execute("COMMIT")
            except BaseException:
                db.execute("ROLLBACK")
                raise

        connections.retry_busy(create, self._timeout_s)

    def _open_readonly(self, state: State) -> apsw.Connection:
        if not os.path.exists(self.path):
            raise errors.StoreError(f"{self.path} does not exist: pqlog.open(path) creates a log there")
        if not self._makes_locks:
            self._flags = apsw.SQLITE_OPEN_READONLY
        self._crashed = connections.size(self.path + "-wal") > 0
        db = self._look(state)
        try:
            if not connections.check_kind(db, self.path):
                raise errors.NotALogError(f"{self.path} is an empty file, not a log")
            if not self._damaged:
                wal.check(db, self.path, self.vfs, self._timeout_s)
            connections.configure(db, self.path)
        except BaseException:
            db.close(True)
            raise
        return db

    def _properties(self, db: apsw.Connection) -> tuple[str, int]:
        """The log's UUID, and the seed of its checksums; of a damaged file, what is whole of them."""
        smallrows.register(db, 0, self._note_lost)
        kinds = {"uuid": str, "created": int, "epoch": int, "seed": int, "copy": int}
        properties = connections.fetch_all(db.execute(statements.PROPERTIES))
        found: dict[str, Any] = {
            name: value for name, value, whole in properties if whole and isinstance(value, kinds.get(name, ()))
        }
        missing = set(kinds) - set(found)
        if missing and not self._damaged:
            raise errors.CorruptLogError(
                f"{self.path}: the row {min(missing)!r} of the table file is damaged: restore a backup, or copy what "
                f"is whole with pqlog.salvage(path, to)"
            )
        seed: int = found.get("seed", found.get("copy", 0))
        return str(found.get("uuid", "")), seed & (1 << checksums.SEED_BITS) - 1

    def _with_sums(self, db: apsw.Connection) -> apsw.Connection:
        smallrows.register(db, self.seed, self._note_lost if self._damaged else None)
        return db

    def _note_lost(self, row: str) -> None:
        self.lost[row] = None

    def _look(self, state: State) -> apsw.Connection:
        """A connection that changes nothing; without locks where the file has a state.

        For writing all the same where that is possible: one for reading only would leave the -wal and -shm that it
        makes.
        """
        db = self._connect(self.path, self._flags) if state is None else self._connect_unlocked()
        if self.readonly:
            db.pragma("query_only", True)
            db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, int(self._crashed))
        return db

    def _unlocked_state(self) -> State:
        """What changes when somebody writes to a file on which no lock can be taken; None where that is possible.

        Who writes makes a -wal and a -shm before that. From then on readers take locks, and these keep both files.
        """
        if self._makes_locks or all(os.path.exists(self.path + suffix) for suffix in ("-wal", "-shm")):
            return None
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def _connect_unlocked(self) -> apsw.Connection:
        """A connection that takes no locks: the only way to read a WAL database where its -shm cannot be made.

        So nobody may write meanwhile. `Readers` asks for the state before and after each query.
        """
        for _ in range(UNLOCKED_TRIES):  # whoever closes it last deletes the -shm first, then the -wal
            if not connections.size(self.path + "-wal"):
                uri = "file:" + quote(self.path) + "?immutable=1"
                return self._connect(uri, self._flags | apsw.SQLITE_OPEN_URI)
            time.sleep(UNLOCKED_PAUSE_S)
        raise errors.ReadOnlyError(
            f"{self.path} has a write-ahead log that is not checkpointed, and this process cannot write next to it: "
            f"open and close it once where it can be written, or copy it with its -wal to a folder where it can"
        )

    def _connect(self, path: str, flags: int) -> apsw.Connection:
        return connections.connect(path, flags=flags, vfs=self.vfs, timeout_s=self._timeout_s)

    def _connect_reader(self, state: State = None) -> apsw.Connection:
        if self.in_memory:
            self.check()
            assert self._db is not None
            return self._db
        with self._opening:
            self.check()
            db = self._look(state)
            try:
                connections.configure(db, self.path)
                self._check_identity()
                return self._with_sums(db)
            except BaseException:
                db.close(True)
                raise

    # closing

    def close(self) -> None:
        """Wait for who uses it, and close it for good; interrupted, it can be called again."""
        self._closed = True
        with self.leading:
            self.checkpointer.close()
            self._readers.close()
            self._disconnect()
        forks.unregister(self)

    def _disconnect(self) -> None:
        with self._opening:
            if self._db is not None:
                self._db.close(True)
                self._db = None
            if self._files_seen is not None:
                self._files_seen.close()
                self._files_seen = None

    # forks

    def pause(self) -> None:
        """Before a fork; see `pqlog.store.sqlite.forks`."""
        self._held = self.locks
        if not forks.acquire(self._held):
            self._held = []
            return
        if not self.in_memory:
            if self._files_seen is not None and not self._files_seen.unchanged():
                self._missed = self._files_seen.identity
            self._readers.close()
            self.checkpointer.disconnect()
            if self._db is not None:
                # The next process to open the file runs the checkpoint; a fork should not wait for that.
                self._db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            self._disconnect()
        self._is_quiet = True

    def resume(self) -> None:
        """After a fork."""
        self._is_quiet = False
        forks.release(self._held)
        self._held = []

    def resume_in_child(self) -> bool:
        """After a fork, in the child; False if the file was in use when the process forked."""
        quiet = self._is_quiet
        if self.in_memory or not quiet:
            self.is_lost = True
            self._readers.leak()
            self.checkpointer.leak()
            if self._db is not None:
                connections.leak(self._db)
        for forget in self.on_fork:
            forget()
        if quiet:
            self.resume()
        return quiet


def _writable(path: str) -> bool:
    """Whether this user may write there; of a disk that is mounted read-only access(2) says so even to root."""
    return os.access(path, os.W_OK)
