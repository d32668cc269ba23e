"""The engine: one SQLite file. Joins connections, writer, reader, claims and watch."""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import apsw

from pqlog import errors
from pqlog.store.api import (
    Chunk,
    Claim,
    ClientInfo,
    Cursor,
    Lines,
    Moved,
    Output,
    Row,
    Size,
    Span,
    TopicInfo,
)
from pqlog.store.sqlite import (
    checksums,
    claims,
    connections,
    hazards,
    held,
    owners,
    reader,
    rescue,
    schema,
    smallrows,
    statements,
)
from pqlog.store.sqlite.append import Put, append, append_at, begin_at
from pqlog.store.sqlite.claims import Held
from pqlog.store.sqlite.connections import row, rows
from pqlog.store.sqlite.merger import Merger
from pqlog.store.sqlite.place import Place
from pqlog.store.sqlite.renewal import Renewal
from pqlog.store.sqlite.table import Table
from pqlog.store.sqlite.watch import Watch
from pqlog.store.sqlite.writer import Job, Task, Transaction, Writer

T = TypeVar("T")

MEMORY = ":memory:"
NEAR = 50
"""How many names before and behind one that may be misspelt are compared with it."""

READERS = 8
"""How many queries may run at once; more wait for a place."""

TRIM_STEP = 2_000
"""Rows that are dropped, and pages that are given back, in one transaction: other puts wait no longer than that."""

_BROKEN = (errors.DiskError, errors.DiskFullError)


class SqliteEngine:
    """Keeps messages in one SQLite file; the protocol is `pqlog.store.api.Engine`.

    Parameters
    ----------
    path : str
        The file, made if missing; ``":memory:"`` keeps everything in memory.
    mode : {"w", "r"}
        "r" opens an existing file and never writes, also on a read-only disk.
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
        self,
        path: str,
        *,
        mode: str,
        vfs: str | None = None,
        timeout_s: float = 30.0,
        network: bool = False,
        damaged: bool = False,
    ) -> None:
        self._in_memory = path == MEMORY
        # As SQLite does: the -wal of a symbolic link lies beside the file itself.
        self.path, self.mode = path if self._in_memory else os.path.realpath(path), mode
        self._vfs, self._timeout_s, self._network, self._damaged = vfs, timeout_s, network, damaged
        self._pid = os.getpid()
        self._forked = False
        self._closed = False
        self._closing = threading.Lock()
        self._unsettled = False
        self._place: Place | None = None
        self._tables: dict[int, Table] = {}
        self._watch = Watch(self.path, None if self._in_memory else self.path + "-wal")
        self._flags = apsw.SQLITE_OPEN_READWRITE
        self._crashed = False
        self._uri = self.path
        self.lost: dict[str, None] = {}
        """Rows of the small tables that were found damaged, where that is no reason to stop."""
        connections.check_sqlite()
        hazards.check_process(self.path)
        try:
            self._db = self._open()
            self.uuid, self._seed = self._facts()
            self._with_sums(self._db)
        except Exception as error:
            ours = connections.translate(error, path)
            raise ours from (None if ours is error else error)
        self._readers = 1 if self._in_memory else READERS
        self._pool = connections.Pool(self._reader, self._readers, path)
        guard = self._pool.places if self._in_memory else None  # a database in memory has one connection for all
        merges = mode == "w" and not self._in_memory
        self._merger = Merger(self._db, self._reader) if merges else None
        self._writer = Writer(self._db, guard, path, self._before, self._after, self._failed)
        self.write = self._writer.submit if mode == "w" else self._refuse
        self._renewal = Renewal(self._renew)
        self._held = held.Holdings(self.uuid, self._renewal.wake)
        self._knows_its_own = False
        _open_engines.add(self)

    # opening and closing

    def _open(self) -> apsw.Connection:
        if self._in_memory:
            db = connections.connect(MEMORY, flags=apsw.SQLITE_OPEN_READWRITE, vfs=self._vfs, timeout_s=self._timeout_s)
            connections.configure(db, self.path)
            with db:
                schema.create(db)
            return db
        if os.path.isdir(self.path):
            raise errors.NotALogError(f"{self.path} is a directory: give the path of a file in it")
        if not self._network:
            hazards.check_disk(self.path)
        hazards.check_size(self.path)
        if self.mode == "r":
            return self._open_readonly()
        db = self._open_writable()
        self._place = Place([self.path, self.path + "-wal"])
        return db

    def _open_writable(self) -> apsw.Connection:
        folder = os.path.dirname(os.path.abspath(self.path))
        if not os.path.isdir(folder):
            raise errors.StoreError(f"{self.path}: the folder {folder} does not exist: make it first")
        if not _writable(folder):
            raise errors.ReadOnlyError(
                f'{folder} cannot be written, and a log needs its -wal beside it: open it with mode="r" to read it'
            )
        hazards.check_names(self.path)
        flags = self._flags | apsw.SQLITE_OPEN_CREATE
        self._crashed = connections.size(self.path + "-wal") > 0
        db = connections.connect(self.path, flags=flags, vfs=self._vfs, timeout_s=self._timeout_s)
        try:
            db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, int(self._crashed))  # leave what may be refused as it is
            ours = connections.patiently(lambda: connections.check_kind(db, self.path), self._timeout_s)
            hazards.check_wal(db, self.path, self._timeout_s)
            db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
            if db.readonly("main"):
                raise errors.ReadOnlyError(f'{self.path} cannot be written: open it with mode="r" to read it')
            if not ours:
                db.pragma("auto_vacuum", "incremental")
            connections.set_wal(db, self.path, self._timeout_s)
            connections.configure(db, self.path)
            if not ours:
                self._create(db)
            connections.settle(db, self.path, self._timeout_s)
            if self._vfs is None:
                connections.extend_wal(db, self.path)
        except BaseException:
            db.close()
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

        connections.patiently(create, self._timeout_s)

    def _open_readonly(self) -> apsw.Connection:
        if not os.path.exists(self.path):
            raise errors.StoreError(f"{self.path} does not exist; without mode='r' it would be made")
        folder = os.path.dirname(os.path.abspath(self.path))
        if not _writable(folder):
            if connections.size(self.path + "-wal"):
                raise errors.ReadOnlyError(
                    f"{self.path} has a write-ahead log that was not merged, and its folder is read-only: "
                    f"open and close it once where it can be written, or copy it with its -wal to such a folder"
                )
            # No other way to read a WAL database where its -shm cannot be made; nobody can write to it here.
            self._uri = apsw_uri(self.path) + "?immutable=1"
            self._flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        elif not os.access(self.path, os.W_OK):
            self._flags = apsw.SQLITE_OPEN_READONLY
        self._crashed = connections.size(self.path + "-wal") > 0
        db = self._look()
        try:
            if not connections.check_kind(db, self.path):
                raise errors.NotALogError(f"{self.path} is an empty file, not a log")
            if not self._damaged:
                hazards.check_wal(db, self.path, self._timeout_s)
            connections.configure(db, self.path)
        except BaseException:
            db.close()
            raise
        return db

    def _look(self) -> apsw.Connection:
        """A connection that changes nothing.

        For writing all the same where that is possible: one for reading only would leave the -wal and -shm that it
        makes.
        """
        db = connections.connect(self._uri, flags=self._flags, vfs=self._vfs, timeout_s=self._timeout_s)
        if self.mode == "r":
            db.pragma("query_only", True)
            db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, int(self._crashed))
        return db

    def _reader(self) -> apsw.Connection:
        if self._in_memory:
            return self._db
        db = self._look()
        connections.configure(db, self.path)
        return self._with_sums(db)

    def _facts(self) -> tuple[str, int]:
        """The log's uuid, and the seed of its checksums; of a damaged file, what is whole of them."""
        smallrows.register(self._db, 0, self._lost)
        kinds = {"uuid": str, "created": int, "epoch": int, "seed": int, "copy": int}
        facts = rows(self._db.execute(statements.FACTS))
        found: dict[str, Any] = {
            name: value for name, value, whole in facts if whole and isinstance(value, kinds.get(name, ()))
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
        smallrows.register(db, self._seed, self._lost if self._damaged else None)
        return db

    def _lost(self, row: str) -> None:
        self.lost[row] = None

    def close(self) -> None:
        self._check_fork()
        with self._closing:
            if self._closed:
                return
            self._closed = True
            self.write = self._refuse
            self._renewal.stop()
            try:
                self._give_back()
            finally:
                self._close()

    def _close(self) -> None:
        self._watch.close()
        self._writer.close()
        with connections.translated(self.path):
            if self._merger is not None:
                self._merger.close()
            self._pool.close(self._readers)
            self._db.close()
        if self._place is not None:
            self._place.close()
        _open_engines.discard(self)

    def forked(self) -> None:
        """In a forked child: never touch the parent's connections again, nor close them."""
        self._forked = True
        self.write = self._refuse
        self._held.forget()
        connections.leak(self._db)
        self._pool.leak()
        if self._merger is not None:
            self._merger.leak()

    def _check_fork(self) -> None:
        if self._forked:
            raise errors.ForkError(
                f"{self.path} was opened by process {self._pid}, of which this is a fork: open it again in this process"
            )

    def _check_open(self) -> None:
        self._check_fork()
        if self._closed:
            raise errors.ClosedError(f"{self.path} was closed")

    # the file below

    def _before(self) -> None:
        """Before each transaction: no promise on a file that is not there any more, nor on what a failed sync left."""
        if self._place is not None and not self._place.unchanged():
            raise errors.MovedError(
                f"{self.path} or its -wal was moved, replaced or deleted while it was open: "
                f"nothing more is put; close the log, put the files back together, and open it again"
            )
        if self._db.in_transaction:  # Ctrl-C struck between a commit's failure and its end
            self._db.execute("ROLLBACK")
        if self._unsettled:
            connections.settle(self._db, self.path, self._timeout_s)
            self._unsettled = False

    def _after(self) -> None:
        """After each commit, before its callers wake."""
        self._watch.notify()
        if self._merger is not None:
            self._merger.committed()

    def _failed(self, error: Exception) -> None:
        """After a failed transaction."""
        for table in self._tables.values():
            table.tail = None
        if isinstance(error, (apsw.IOError, apsw.FullError)):
            self._unsettled = True

    def _refuse(self, job: Job[T] | None = None) -> T:
        """In place of the writer's `submit`, where nothing can be written."""
        self._check_open()
        raise errors.ReadOnlyError(f'{self.path} was opened with mode="r": open it without to write')

    @contextlib.contextmanager
    def _read(self) -> Iterator[apsw.Connection]:
        self._check_open()
        with self._pool.borrow() as db:
            yield db

    @contextlib.contextmanager
    def _snapshot(self) -> Iterator[apsw.Connection]:
        """For several questions that must agree with each other."""
        with self._read() as db:
            db.execute("BEGIN")
            try:
                yield db
            finally:
                db.execute("ROLLBACK")  # nothing was written; of a damaged file, COMMIT would fail

    # topics

    def topics(self) -> list[TopicInfo]:
        with self._read() as db:
            return self._topics(db)

    def _topics(self, db: apsw.Connection) -> list[TopicInfo]:
        return [TopicInfo(*found[:3]) for found in db.execute(statements.TOPICS)]

    def find_topic(self, name: str) -> TopicInfo | None:
        with self._read() as db:
            found = row(db.execute(statements.TOPIC, (name,)))
        return TopicInfo(*found) if found else None

    def topic(self, name: str, codec: str) -> TopicInfo:
        def make(transaction: Transaction) -> TopicInfo:
            db = transaction.db
            found = row(db.execute(statements.TOPIC, (name,)))
            if found:
                return TopicInfo(*found)
            self._topics(db)  # its name may be damaged: then it is not a new one
            db.execute(statements.PUT_TOPIC, (name, codec, claims.now_micros()))
            info = TopicInfo(db.last_insert_rowid(), name, codec)
            for statement in schema.NEW_TOPIC:
                db.execute(statement.format(id=info.id))
            return info

        return self.write(Task(make))

    def table(self, topic: TopicInfo) -> Table:
        table = self._tables.get(topic.id)
        if table is None:
            table = self._tables[topic.id] = Table(topic, self._seed)
        return table

    # putting

    def append(
        self,
        topic: TopicInfo,
        chunks: Iterable[Chunk],
        id: str | None = None,
        cursor: Cursor | None = None,
    ) -> Span:
        table = self.table(topic)

        def put(transaction: Transaction) -> Span:
            db = transaction.db
            if id is not None:
                found = row(db.execute(statements.ID, (table.id, id)))
                if found:
                    return Span(*found)
            if cursor is not None:
                cursor.check((row(db.execute(statements.CURSOR, (cursor.name,))) or (None,))[0])
            where = append(transaction, table, chunks)
            if id is not None:
                db.execute(statements.PUT_ID, (table.id, id, *where))
            if cursor is not None:
                db.execute(statements.SET_CURSOR, (cursor.name, cursor.value))
            return where

        return self.write(Task(put))

    def cursor(self, name: str) -> str | None:
        with self._read() as db:
            found = row(db.execute(statements.CURSOR, (name,)))
        return found[0] if found else None

    def append_one(self, topic: TopicInfo, value: bytes, key: str | None, headers: str | None) -> int:
        table = self._tables.get(topic.id) or self.table(topic)
        return self.write(Put(table, value, key, headers))

    def cursors(self) -> list[tuple[str, str]]:
        """All cursors."""
        with self._read() as db:
            return rows(db.execute(statements.CURSORS))

    def ids(self, topic: TopicInfo) -> list[tuple[str, int, int]]:
        """All ids of a topic, and where their puts went."""
        with self._read() as db:
            return rows(db.execute(statements.IDS, (topic.id,)))

    def find_id(self, topic: TopicInfo, id: str) -> Span | None:
        with self._read() as db:
            found = row(db.execute(statements.ID, (topic.id, id)))
        return Span(*found) if found else None

    # reading

    def span(self, topic: TopicInfo) -> Span:
        with self._read() as db:
            return reader.span(db, self.table(topic))

    def from_end(self, topic: TopicInfo, messages: int, span: Span | None = None) -> int:
        kept = span or self.span(topic)
        return max(kept.first, kept.stop - messages)

    def count(self, topic: TopicInfo, span: Span) -> int:
        with self._read() as db:
            return reader.count(db, self.table(topic), span)

    def offset_at(self, topic: TopicInfo, time: int) -> int:
        with self._snapshot() as db:
            return reader.offset_at(db, self.table(topic), time)

    def time_at(self, topic: TopicInfo, offset: int) -> int | None:
        with self._snapshot() as db:
            return reader.time_at(db, self.table(topic), offset)

    def read(
        self,
        topic: TopicInfo,
        span: Span,
        rows: int,
        max_bytes: int,
        key: str | None = None,
        damaged: bool = False,
    ) -> list[Row]:
        with self._snapshot() as db:
            if key is None:
                return reader.read(db, self.table(topic), span, rows, max_bytes, damaged)
            return reader.read_key(db, self.table(topic), span, rows, max_bytes, key)

    def read_lines(self, topic: TopicInfo, span: Span, rows: int, max_bytes: int) -> Lines | None:
        if topic.codec != "json":
            return None
        with self._snapshot() as db:
            return reader.read_lines(db, self.table(topic), span, rows, max_bytes)

    def wait(self, ready: Callable[[], bool], timeout: float | None, tick: float) -> bool:
        self._check_open()
        return self._watch.wait(ready, timeout, tick)

    def trigger(self) -> None:
        self._watch.notify()

    # clients

    def clients(self, topic: TopicInfo) -> list[ClientInfo]:
        with self._read() as db:
            return claims.clients(db, self.table(topic))

    def open_batches(self, topic: TopicInfo) -> dict[str, tuple[int, int]]:
        with self._read() as db:
            return claims.open_batches(db, self.table(topic))

    def client(self, topic: TopicInfo, client: str) -> ClientInfo | None:
        with self._read() as db:
            return claims.client(db, self.table(topic), client)

    def clients_near(self, topic: TopicInfo, client: str) -> list[str]:
        with self._read() as db:
            return claims.names_near(db, self.table(topic), client, NEAR)

    def join(self, topic: TopicInfo, client: str, start: int | None = None) -> ClientInfo:
        found = self.client(topic, client)
        if found is not None:
            return found
        table = self.table(topic)
        return self.write(Task(lambda transaction: claims.join(transaction.db, table, client, start)))

    def acknowledge(self, topic: TopicInfo, client: str, offset: int, epoch: int) -> bool:
        return self.write(Acknowledge(self.table(topic), client, offset, epoch))

    def claims(self, topic: TopicInfo, client: str) -> list[Claim]:
        with self._read() as db:
            return claims.claims(db, self.table(topic), client)

    def seek(self, topic: TopicInfo, client: str, to: int) -> Moved:
        table = self.table(topic)
        return self.write(Task(lambda transaction: claims.seek(transaction.db, table, client, to)))

    def delete_client(self, topic: TopicInfo, client: str) -> bool:
        table = self.table(topic)
        return self.write(Task(lambda transaction: claims.delete(transaction.db, table, client)))

    def owner(self, name: str) -> str:
        return owners.owner(name)

    def has_work(self, topic: TopicInfo, client: str, owner: str) -> bool:
        if self._held.left() or not self._knows_its_own:
            self._check_open()
            return True
        with self._read() as db:
            return claims.has_work(db, self.table(topic), client, owner)

    def advance(
        self, topic: TopicInfo, client: str, size: Size, owner: str, done: Claim | None, outputs: Sequence[Output] = ()
    ) -> tuple[Claim | None, list[Span]]:
        table = self.table(topic)

        made: list[Claim] = []

        def work(transaction: Transaction) -> tuple[Claim | None, list[Span], list[Held]]:
            went = [] if done is None else self._finish(transaction, table, done, outputs)
            left = self._release_left(transaction)
            claim = claims.take(transaction.db, table, client, size, owner)
            if claim is not None:
                self._held.add(table.id, claim)  # before the commit: from then on it must be known as held
                made.append(claim)
            return claim, went, left

        try:
            claim, went, left = self.write(Task(work))
        except BaseException:  # which may keep the claim, and may have come after the commit
            for one in made:
                self.leave(topic, one)
            raise
        self._knows_its_own = True
        self._held.told(left)
        if done is not None:
            self._held.drop(held.of(topic, done))
        if claim is not None:
            self._renewal.start()
        return claim, went

    def finish(self, topic: TopicInfo, done: Claim, outputs: Sequence[Output] = ()) -> list[Span]:
        table = self.table(topic)
        went = self.write(Task(lambda transaction: self._finish(transaction, table, done, outputs)))
        self._held.drop(held.of(topic, done))
        return went

    def _finish(self, transaction: Transaction, table: Table, done: Claim, outputs: Sequence[Output]) -> list[Span]:
        self._check_mine(done)
        claims.finish(transaction.db, table, done)
        return [append(transaction, self.table(output.topic), output.chunks) for output in outputs]

    def _check_mine(self, claim: Claim) -> None:
        _, process = owners.parts(claim.owner)
        if process != owners.this_process():
            raise errors.ForkError(
                f"batch {claim.number} of client {claim.client!r} was handed to another process, of which this is a "
                f"fork: it is for that one to acknowledge"
            )

    def release(self, topic: TopicInfo, claim: Claim, error: str | None) -> bool:
        self._check_mine(claim)
        table = self.table(topic)
        released = self.write(Task(lambda transaction: claims.release(transaction.db, table, claim, error)))
        self._held.drop(held.of(topic, claim))
        return released

    def leave(self, topic: TopicInfo, claim: Claim) -> None:
        self._held.leave(held.of(topic, claim))

    def _release_left(self, transaction: Transaction) -> list[Held]:
        """Release what nobody holds any more; the first time also what this process is said to hold and does not.

        That is what an earlier log of the process could not release when it was closed, or an earlier program that this
        one has replaced (`os.exec`).
        """
        left = self._held.left()
        if not self._knows_its_own:
            found = claims.held_by(transaction.db, owners.this_process())
            left += [one for one in found if not self._held.is_held(one)]
        claims.release_left(transaction.db, left)
        return left

    def _renew(self, is_due: bool) -> bool:
        """Release what was left, renew what is held if that is due; whether anything is held."""

        def work(transaction: Transaction) -> tuple[list[Held], list[Held]]:
            left = self._release_left(transaction)
            kept = self._held.all() if is_due else []
            return left, [one for one in kept if not claims.renew(transaction.db, one)]

        left, lost = self.write(Task(work))
        self._held.told(left)
        for one in lost:
            self._held.drop(one)
        return bool(self._held.all())

    def _give_back(self) -> None:
        """Release all that is held: this process lives on, and no clock would."""
        if self.mode == "w" and (both := self._held.all() + self._held.left()):
            with contextlib.suppress(errors.Error):
                self._writer.submit(Task(lambda transaction: claims.release_left(transaction.db, both)))
            for one in both:
                self._held.drop(one)

    # taking over what another program kept

    def adopt(self, topic: TopicInfo, first: int, chunks: Sequence[tuple[int, Chunk]], cursor: tuple[str, str]) -> None:
        """Put chunks at times of their own (microseconds; 0 is now); in a new topic `first` is the first offset."""
        table = self.table(topic)

        def put(transaction: Transaction) -> None:
            if transaction.tail(table).stop == 1:
                begin_at(transaction, table, first)
            append_at(transaction, table, chunks)
            transaction.db.execute(statements.SET_CURSOR, cursor)

        self.write(Task(put))

    def adopt_clients(self, clients: Sequence[tuple[TopicInfo, str, int]], cursor: tuple[str, str]) -> None:
        """Make clients known, each with the next offset that it gets, all at once."""

        def seek(transaction: Transaction) -> None:
            for topic, client, to in clients:
                claims.seek(transaction.db, self.table(topic), client, to)
            transaction.db.execute(statements.SET_CURSOR, cursor)

        self.write(Task(seek))

    # keeping

    def trim(self, topic: TopicInfo, before: int, force: bool) -> int:
        """One small transaction moves the mark of what is kept; the rows behind it are then dropped in steps.

        A crash in between leaves rows below the mark, which nobody sees and the next trim drops.
        """
        table = self.table(topic)

        def mark(transaction: Transaction) -> int:
            db = transaction.db
            kept = reader.span(db, table)
            first = min(before, kept.stop)
            behind = [
                (name, len(Span(max(next_offset, kept.first), first)))
                for name, next_offset in rows(db.execute(statements.BEHIND, (table.id, first)))
            ]
            losing = [(name, count) for name, count in behind if count]
            if losing and not force:
                raise errors.TrimRefusedError(losing)
            db.execute(statements.TRIM, (first, table.id))
            db.execute(statements.DROP_IDS, (table.id, first))
            return len(Span(kept.first, first))

        def drop(transaction: Transaction) -> int:
            db = transaction.db
            first = row(db.execute(table.first, (table.id,)))[0]
            db.execute(table.drop_trimmed, (first, TRIM_STEP))
            return db.changes()

        def give_back(transaction: Transaction) -> int:
            db = transaction.db
            free: int = db.pragma("freelist_count")
            if free:
                db.execute(f"PRAGMA incremental_vacuum({TRIM_STEP})").fetchall()
            return free

        trimmed = self.write(Task(mark))
        while self.write(Task(drop)):
            pass
        while self.write(Task(give_back)) > TRIM_STEP:
            pass
        self._checkpoint()
        return trimmed

    def _checkpoint(self) -> None:
        """Let the file itself shrink now, if nobody is in the way; else a later commit does it."""
        if not self._in_memory:
            with self._writer.pause() as db, connections.translated(self.path):
                connections.merge(db, apsw.SQLITE_CHECKPOINT_PASSIVE)

    def compact(self) -> int:
        """SQLite's VACUUM: one transaction, through the write-ahead log, which is cut off behind it if nobody reads."""
        if self.mode == "r":
            self._refuse()
        with self._writer.pause() as db, connections.translated(self.path):
            self._before()
            pages: int = db.pragma("page_count")
            try:
                db.execute("VACUUM")
                pages -= db.pragma("page_count")
                connections.merge(db, apsw.SQLITE_CHECKPOINT_TRUNCATE)
            except Exception as error:
                self._failed(error)
                raise
            if not self._in_memory and self._vfs is None:
                connections.extend_wal(db, self.path)
            return pages * int(db.pragma("page_size"))

    def backup(self, path: str) -> None:
        self._check_open()
        if os.path.exists(path):
            raise errors.ArgumentError(f"{path} exists: a backup is written to a new path only")
        partial = path + ".partial"
        if os.path.exists(partial):
            os.unlink(partial)
        with self._read() as db, connections.translated(path):
            copy = apsw.Connection(partial)
            try:
                with copy.backup("main", db, "main") as work:
                    work.step(-1)
                copy.pragma("journal_mode", "delete")
                copy.pragma("synchronous", "extra")
                self._with_sums(copy).execute(statements.SET_UUID, (str(uuid.uuid4()),))
            finally:
                copy.close()
        os.rename(partial, path)
        connections.sync_folder(path)

    def verify(self, report: Callable[[int], object]) -> list[str]:
        found: list[str] = []
        try:
            with self._snapshot() as db:
                found += [f"{which} is damaged: its checksum does not fit" for which in smallrows.unfit(db)]
        except errors.CorruptLogError as error:
            found.append(str(error))
        for look in (connections.integrity, claims.check):
            try:
                with self._snapshot() as db:
                    found += look(db, [self.table(topic) for topic in self._topics(db)])
            except errors.CorruptLogError as error:
                found.append(str(error))
        with self._read() as db:
            topics = [TopicInfo(*one) for one in rows(db.execute(statements.ALL_TOPICS))]
        for topic in topics:
            for run, damage in rescue.runs(self, topic):
                report(sum(row.rows or 1 for row in run))
                found += [] if damage is None else [str(damage)]
        return found

    def size_bytes(self) -> int:
        if self._in_memory:
            with self._read() as db:
                return int(db.pragma("page_count")) * int(db.pragma("page_size"))
        return connections.size(self.path) + connections.size(self.path + "-wal")


class Acknowledge(Job[bool]):
    """An acknowledgement of one client."""

    def __init__(self, table: Table, client: str, offset: int, epoch: int) -> None:
        self.table = table
        self.kin = (table,)  # of no other job: each has a client of its own
        self.client, self.offset, self.epoch = client, offset, epoch

    def run(self, transaction: Transaction) -> bool:
        return claims.acknowledge(transaction.db, self.table, self.client, self.offset, self.epoch)

    def alone(self, db: apsw.Connection) -> bool | None:
        return claims.acknowledge_unclaimed(db, self.table, self.client, self.offset, self.epoch) or None


def apsw_uri(path: str) -> str:
    """A path as a SQLite URI."""
    from urllib.parse import quote

    return "file:" + quote(os.path.abspath(path))


def _writable(folder: str) -> bool:
    """Whether files can be made there; of a disk that is mounted read-only access(2) says so even to root."""
    return os.access(folder, os.W_OK)


_open_engines: weakref.WeakSet[SqliteEngine] = weakref.WeakSet()


def _after_fork() -> None:
    for engine in list(_open_engines):
        engine.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
