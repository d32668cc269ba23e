"""The engine: one SQLite file. Joins connections, writer, reader, claims and watch."""

from __future__ import annotations

import contextlib
import os
import uuid
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import apsw

from pqlog import errors
from pqlog.store.api import (
    CachedSchema,
    Chunk,
    Claim,
    ClientInfo,
    Cursor,
    Ids,
    Lines,
    Moved,
    Output,
    Row,
    Size,
    Span,
    TopicInfo,
)
from pqlog.store.sqlite import (
    claims,
    connections,
    copies,
    forks,
    hazards,
    held,
    owners,
    reader,
    rescue,
    schema,
    smallrows,
    statements,
    wal,
)
from pqlog.store.sqlite import ids as message_ids
from pqlog.store.sqlite.append import Put, append, append_at, begin_at
from pqlog.store.sqlite.claims import Held
from pqlog.store.sqlite.connections import row, rows
from pqlog.store.sqlite.file import SqliteFile
from pqlog.store.sqlite.renewal import Renewal
from pqlog.store.sqlite.table import Table
from pqlog.store.sqlite.watch import Watch
from pqlog.store.sqlite.writer import Job, Task, Transaction, Writer

T = TypeVar("T")

COMPACT_PATIENCE_S = 1.0
"""How long `compact`, for which puts wait, waits for readers to cut the write-ahead log off."""

NEAR = 50
"""How many names before and behind one that may be misspelt are compared with it."""

SCHEMA_CACHE_BYTES = 4 << 20
"""A longer entry of the schema cache is not stored."""
SCHEMA_CACHE_PATIENCE_S = 0.05
"""How long a reader waits for writers to store an entry of the schema cache."""

TRIM_STEP = 2_000
"""Rows that are dropped, and pages that are given back, in one transaction: other puts wait no longer than that."""


class SqliteEngine:
    """Keeps messages in one SQLite file; the protocol is `pqlog.store.api.Engine`.

    Parameters
    ----------
    path, vfs, timeout_s, network, damaged
        As for `SqliteFile`.
    mode : {"w", "r"}
        "r" opens an existing file and never writes, also on a read-only disk.
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
        self._closed = False
        self._timeout_s = timeout_s
        self._tables: dict[int, Table] = {}
        if not forks.is_open(os.path.realpath(path)):
            hazards.check_process(os.path.realpath(path))
        try:
            self._file = SqliteFile(
                path, readonly=mode == "r", vfs=vfs, timeout_s=timeout_s, network=network, damaged=damaged
            )
        except Exception as error:
            ours = connections.translate(error, path)
            raise ours from (None if ours is error else error)
        self.path, self.mode = self._file.path, mode
        self.uuid, self._seed = self._file.uuid, self._file.seed
        guard = self._file.guard if self._file.in_memory else None  # a database in memory has one connection for all
        self._watch = Watch(self.path, None if self._file.in_memory else self.path + "-wal")
        self._writer = Writer(self._file.leading, guard, path, self._file.ready, self._after, self._failed)
        self.write = self._writer.submit if mode == "w" else self._refuse
        self._renewal = Renewal(weakref.WeakMethod(self._renew))
        self._held = held.Holdings(self.uuid, self._renewal.wake)
        self._knows_its_own = False
        self._file.on_fork = [self._writer.forked, self._watch.forked, self._renewal.forked, self._forked]

    # closing

    @property
    def lost(self) -> list[str]:
        """Rows of the small tables that were found damaged, where that was no reason to stop."""
        return list(self._file.lost)

    def close(self) -> None:
        if self._file.is_lost:
            return
        self._closed = True
        self.write = self._refuse
        self._renewal.stop()
        try:
            self._give_back_claims()
        finally:
            self._close()

    def _close(self) -> None:
        self._watch.close()
        self._writer.close()
        with connections.translated(self.path):
            self._file.close()

    def _check_open(self) -> None:
        self._file.check()
        if self._closed:
            raise errors.ClosedError(f"{self.path} was closed")

    # the file below

    def _after(self, db: apsw.Connection) -> None:
        """After each commit, before its callers wake."""
        self._watch.notify()
        self._file.merger.committed(db)

    def _failed(self, error: Exception) -> None:
        """After a failed transaction."""
        self._forget()
        self._file.failed(error)

    def _forked(self) -> None:
        """In a forked child."""
        self._held.forget()
        self._forget()
        if self._file.is_lost:
            self.write = self._refuse

    def _forget(self) -> None:
        """Forget where the topics end."""
        for table in list(self._tables.values()):
            table.tail = None

    def _refuse(self, job: Job[T] | None = None) -> T:
        """In place of the writer's `submit`, where nothing can be written."""
        self._check_open()
        raise errors.ReadOnlyError(f'{self.path} was opened with mode="r": open it without to write')

    # topics

    def topics(self) -> list[TopicInfo]:
        return self._file.read(self._topics)

    def _topics(self, db: apsw.Connection) -> list[TopicInfo]:
        return [TopicInfo(*found[:3]) for found in db.execute(statements.TOPICS)]

    def find_topic(self, name: str) -> TopicInfo | None:
        found = self._file.read(lambda db: row(db.execute(statements.TOPIC, (name,))))
        return TopicInfo(*found) if found else None

    def topic(self, name: str, codec: str) -> TopicInfo:
        def make(transaction: Transaction) -> TopicInfo:
            db = transaction.db
            found = row(db.execute(statements.TOPIC, (name,)))
            if found:
                return TopicInfo(*found)
            self._topics(db)  # its name may be damaged: then it is not a new one
            info = TopicInfo(row(db.execute(statements.NEW_TOPIC_ID))[0], name, codec)
            db.execute(statements.MAKE_TOPIC, (info.id, name, codec, claims.now_micros()))
            for statement in schema.NEW_TOPIC:
                db.execute(statement.format(id=info.id))
            return info

        return self.write(Task(make))

    def rename_topic(self, topic: TopicInfo, name: str) -> TopicInfo:
        table = self.table(topic)

        def rename(transaction: Transaction) -> TopicInfo:
            db = transaction.db
            table.read_first(db)
            if row(db.execute(statements.TOPIC, (name,))):
                raise errors.ArgumentError(f"there is a topic {name!r} already: give another name")
            for client, number, first, stop in rows(db.execute(statements.OPEN_CLAIM, (topic.id,))):
                raise errors.ClaimedError(client, number, first, stop - 1, topic.name)
            db.execute(statements.RENAME_TOPIC, (name, topic.id))
            return TopicInfo(topic.id, name, topic.codec)

        renamed = self.write(Task(rename))
        table.topic = name
        return renamed

    def delete_topic(self, topic: TopicInfo, force: bool) -> None:
        table = self.table(topic)

        def delete(transaction: Transaction) -> None:
            db = transaction.db
            kept = reader.span(db, table)
            losing = [(one.client, one.lag) for one in claims.clients(db, table) if one.lag]
            if losing and len(kept) and not force:
                raise errors.TrimRefusedError(losing, topic.name, "deleted")
            for statement in statements.DELETE_TOPIC:
                db.execute(statement, (topic.id,))
            db.execute(statements.NOTE_DELETED, (topic.id,))
            db.execute(table.drop_messages)
            transaction.forget(table)

        self.write(Task(delete))
        self._tables.pop(topic.id, None)
        self._watch.notify()
        self._give_back()

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
        ids: Ids | None = None,
    ) -> Span:
        table = self.table(topic)

        def put(transaction: Transaction) -> Span:
            db = transaction.db
            if id is not None:
                found = message_ids.find(db, table, id)
                if found:
                    return found
            if cursor is not None:
                cursor.check((row(db.execute(statements.CURSOR, (cursor.name,))) or (None,))[0])
            where = _put(transaction, table, chunks, ids)
            if id is not None:
                message_ids.add(db, table, [id], where)
            if cursor is not None:
                db.execute(statements.SET_CURSOR, (cursor.name, cursor.value))
            return where

        return self.write(Task(put))

    def cursor(self, name: str) -> str | None:
        found = self._file.read(lambda db: row(db.execute(statements.CURSOR, (name,))))
        return found[0] if found else None

    def append_one(self, topic: TopicInfo, value: bytes, key: str | None, headers: str | None) -> int:
        table = self._tables.get(topic.id) or self.table(topic)
        return self.write(Put(table, value, key, headers))

    def cursors(self) -> list[tuple[str, str]]:
        """All cursors."""
        return self._file.read(lambda db: rows(db.execute(statements.CURSORS)))

    def id_runs(self, topic: TopicInfo) -> list[message_ids.Run]:
        """All ids of a topic, and where what was put with them went."""
        return self._file.read(lambda db: list(message_ids.all_runs(db, self.table(topic))))

    def find_id(self, topic: TopicInfo, id: str) -> Span | None:
        return self._file.read(lambda db: message_ids.find(db, self.table(topic), id))

    # reading

    def span(self, topic: TopicInfo) -> Span:
        return self._file.read(lambda db: reader.span(db, self.table(topic)))

    def from_end(self, topic: TopicInfo, messages: int, span: Span | None = None) -> int:
        kept = self.span(topic) if span is None else span
        return max(kept.first, kept.stop - messages)

    def count(self, topic: TopicInfo, span: Span) -> int:
        return self._file.read(lambda db: reader.count(db, self.table(topic), span))

    def offset_at(self, topic: TopicInfo, time: int) -> int:
        return self._file.read(lambda db: reader.offset_at(db, self.table(topic), time), snapshot=True)

    def time_at(self, topic: TopicInfo, offset: int) -> int | None:
        return self._file.read(lambda db: reader.time_at(db, self.table(topic), offset), snapshot=True)

    def read(
        self,
        topic: TopicInfo,
        span: Span,
        rows: int,
        max_bytes: int,
        key: str | None = None,
        damaged: bool = False,
    ) -> list[Row]:
        def query(db: apsw.Connection) -> list[Row]:
            if key is None:
                return reader.read(db, self.table(topic), span, rows, max_bytes, damaged)
            return reader.read_key(db, self.table(topic), span, rows, max_bytes, key)

        return self._file.read(query, snapshot=True)

    def read_lines(self, topic: TopicInfo, span: Span, rows: int, max_bytes: int) -> Lines | None:
        if topic.codec != "json":
            return None
        return self._file.read(
            lambda db: reader.read_lines(db, self.table(topic), span, rows, max_bytes), snapshot=True
        )

    def cached_schema(self, topic: TopicInfo) -> CachedSchema | None:
        try:
            cached = self._file.read(
                lambda db: row(db.execute(statements.CACHED_SCHEMA, (topic.id, SCHEMA_CACHE_BYTES)))
            )
        except errors.CorruptLogError:  # verify tells it
            return None
        return CachedSchema(Span(*cached[:2]), cached[2]) if cached else None

    def cache_schema(self, topic: TopicInfo, schema: CachedSchema) -> None:
        if self.mode == "r" or self._closed or len(schema.text.encode()) > SCHEMA_CACHE_BYTES:
            return

        def keep(db: apsw.Connection) -> None:
            try:
                db.set_busy_handler(connections.Patience(SCHEMA_CACHE_PATIENCE_S))
                db.execute(statements.CACHE_SCHEMA, (topic.id, *schema.span, schema.text))
            finally:
                db.set_busy_handler(connections.Patience(self._timeout_s))
            self._after(db)

        with contextlib.suppress(errors.Error):
            self._writer.exclusively(keep, SCHEMA_CACHE_PATIENCE_S)

    def wait(self, ready: Callable[[], bool], timeout: float | None, tick: float) -> bool:
        self._check_open()
        return self._watch.wait(ready, timeout, tick)

    def trigger(self) -> None:
        self._watch.notify()

    # clients

    def clients(self, topic: TopicInfo) -> list[ClientInfo]:
        return self._file.read(lambda db: claims.clients(db, self.table(topic)))

    def open_batches(self, topic: TopicInfo) -> dict[str, tuple[int, int]]:
        return self._file.read(lambda db: claims.open_batches(db, self.table(topic)))

    def client(self, topic: TopicInfo, client: str) -> ClientInfo | None:
        return self._file.read(lambda db: claims.client(db, self.table(topic), client))

    def clients_near(self, topic: TopicInfo, client: str) -> list[str]:
        return self._file.read(lambda db: claims.names_near(db, self.table(topic), client, NEAR))

    def join(self, topic: TopicInfo, client: str, start: int | None = None) -> ClientInfo:
        found = self.client(topic, client)
        if found is not None:
            return found
        table = self.table(topic)
        return self.write(Task(lambda transaction: claims.join(transaction.db, table, client, start)))

    def acknowledge(self, topic: TopicInfo, client: str, offset: int, epoch: int) -> bool:
        return self.write(Acknowledge(self.table(topic), client, offset, epoch))

    def claims(self, topic: TopicInfo, client: str) -> list[Claim]:
        return self._file.read(lambda db: claims.claims(db, self.table(topic), client))

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
        return self._file.read(lambda db: claims.has_work(db, self.table(topic), client, owner))

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
        return [_put(transaction, self.table(output.topic), output.chunks, output.ids) for output in outputs]

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

    def _give_back_claims(self) -> None:
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
        """One small transaction moves the mark of what is kept; the rows and ids below it are then dropped in steps.

        A crash in between leaves some of them there, which nobody sees and the next trim drops.
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
                raise errors.TrimRefusedError(losing, topic.name)
            db.execute(statements.TRIM, (first, table.id))
            return len(Span(kept.first, first))

        def drop(transaction: Transaction) -> int:
            db = transaction.db
            first = table.read_first(db)
            db.execute(table.drop_trimmed, (first, TRIM_STEP))
            return db.changes() + message_ids.drop(db, table, first)

        trimmed = self.write(Task(mark))
        while self.write(Task(drop)):
            pass
        self._give_back()
        return trimmed

    def _give_back(self) -> None:
        """Let the file shrink by what is free in it, in steps."""

        def step(transaction: Transaction) -> int:
            db = transaction.db
            free: int = db.pragma("freelist_count")
            if free:
                db.execute(f"PRAGMA incremental_vacuum({TRIM_STEP})").fetchall()
            return free

        while self.write(Task(step)) > TRIM_STEP:
            pass
        self._checkpoint()

    def _checkpoint(self) -> None:
        """Let the file itself shrink now, if nobody is in the way; else a later commit does it."""
        if not self._file.in_memory:
            self._writer.exclusively(lambda db: connections.merge(db, apsw.SQLITE_CHECKPOINT_PASSIVE))

    def compact(self) -> int:
        """SQLite's VACUUM: one transaction, through the write-ahead log, which is cut off behind it.

        Where somebody reads, it is cut off when it begins anew, that is by a commit after the reader has gone.
        """
        if self.mode == "r":
            self._refuse()

        def vacuum(db: apsw.Connection) -> int:
            pages: int = db.pragma("page_count")
            db.pragma("journal_size_limit", wal.SIZE)
            db.execute("VACUUM")
            pages -= db.pragma("page_count")
            try:
                db.set_busy_handler(connections.Patience(COMPACT_PATIENCE_S))
                connections.merge(db, apsw.SQLITE_CHECKPOINT_TRUNCATE)
            finally:
                db.set_busy_handler(connections.Patience(self._timeout_s))
            return pages * int(db.pragma("page_size"))

        return self._writer.exclusively(vacuum)

    def backup(self, path: str) -> None:
        """The copy is made in one read transaction: puts go on meanwhile."""
        self._check_open()
        with copies.appearing(path, None if self._file.in_memory else self.path) as made, connections.translated(path):
            self._file.read(lambda db: self._copy(db, made))

    def _copy(self, db: apsw.Connection, path: str) -> None:
        copy = apsw.Connection(path, vfs=self._file.vfs)
        try:
            with copy.backup("main", db, "main") as work:
                work.step(-1)
            copy.pragma("journal_mode", "delete")
            copy.pragma("synchronous", "extra")
            smallrows.register(copy, self._seed)
            copy.execute(statements.SET_UUID, (str(uuid.uuid4()),))
        finally:
            copy.close()

    def verify(self, report: Callable[[int], object]) -> list[str]:
        found: list[str] = []
        try:
            unfit = self._file.read(smallrows.unfit, snapshot=True)
            found += [f"{which} is damaged: its checksum does not fit" for which in unfit]
        except errors.CorruptLogError as error:
            found.append(str(error))
        for look in (connections.integrity, claims.check, message_ids.check):

            def query(db: apsw.Connection, look: Any = look) -> list[str]:
                return look(db, [self.table(topic) for topic in self._topics(db)])  # type: ignore[no-any-return]

            try:
                found += self._file.read(query, snapshot=True)
            except errors.CorruptLogError as error:
                found.append(str(error))
        topics = [TopicInfo(*one) for one in self._file.read(lambda db: rows(db.execute(statements.ALL_TOPICS)))]
        for topic in topics:
            for run, damage in rescue.runs(self, topic):
                report(sum(row.rows or 1 for row in run))
                found += [] if damage is None else [str(damage)]
        return found

    def size_bytes(self) -> int:
        if self._file.in_memory:
            return self._file.read(lambda db: int(db.pragma("page_count")) * int(db.pragma("page_size")))
        return connections.size(self.path) + connections.size(self.path + "-wal")


def _put(transaction: Transaction, table: Table, chunks: Iterable[Chunk], ids: Ids | None) -> Span:
    if ids is not None:
        masks = message_ids.note(transaction.db, table, ids.lists, transaction.tail(table).stop)
        if any(mask is not None for mask in masks):
            chunks = message_ids.thinned(chunks, masks, ids)
    return append(transaction, table, chunks)


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
