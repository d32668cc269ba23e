"""A log in one SQLite file: joins the file, its writer, its readers and what watches it."""

from __future__ import annotations

import contextlib
import os
import uuid
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

import apsw

from pqlog import errors
from pqlog.store.api import ClientStore, TopicStore
from pqlog.store.sqlite import (
    claims,
    connections,
    copies,
    forks,
    hazards,
    ids,
    reader,
    repair,
    schema,
    smallrows,
    statements,
    wal,
)
from pqlog.store.sqlite.append import append_all
from pqlog.store.sqlite.client import SqliteClient
from pqlog.store.sqlite.connections import fetch_all, fetch_one
from pqlog.store.sqlite.each import Outcome, put_each
from pqlog.store.sqlite.file import SqliteFile
from pqlog.store.sqlite.held_claims import HeldClaims
from pqlog.store.sqlite.pieces import Pieces
from pqlog.store.sqlite.renewal import Renewal
from pqlog.store.sqlite.sealer import Sealer
from pqlog.store.sqlite.table import Table, put_of
from pqlog.store.sqlite.topic import SqliteTopic, find_put, topic_infos
from pqlog.store.sqlite.watch import Watch
from pqlog.store.sqlite.writer import Job, Task, Transaction, Writer
from pqlog.store.values import Capabilities, ClientState, Cursor, Moved, Output, Put, Single, Span, TopicInfo

T = TypeVar("T")

COMPACT_TIMEOUT_S = 1.0
"""How long `compact`, for which puts wait, waits for readers to cut the write-ahead log off."""
VACUUM_STEP = 2_000
"""Pages that are given back in one transaction: other puts wait no longer than that."""


class SqliteStore:
    """Keeps a log in one SQLite file; the protocol is `pqlog.store.api.Store`.

    Parameters
    ----------
    path, readonly, vfs, timeout_s, network, damaged
        As for `SqliteFile`.
    seals : bool
        Whether old messages are sealed by themselves.
    """

    def __init__(
        self,
        path: str,
        *,
        readonly: bool = False,
        vfs: str | None = None,
        timeout_s: float = 30.0,
        network: bool = False,
        damaged: bool = False,
        seals: bool = False,
    ) -> None:
        self._closed = False
        self._timeout_s = timeout_s
        self._topics: dict[int, SqliteTopic] = {}
        if not forks.is_open(os.path.realpath(path)):
            hazards.check_process(os.path.realpath(path))
        try:
            self._file = SqliteFile(
                path, readonly=readonly, vfs=vfs, timeout_s=timeout_s, network=network, damaged=damaged
            )
        except Exception as error:
            ours = connections.translate(error, path)
            raise ours from (None if ours is error else error)
        self.name = self.path = self._file.path
        self.readonly = readonly
        in_memory = self._file.in_memory
        self.capabilities = Capabilities(
            durable=not in_memory, dense_offsets=True, shared_by_processes=not in_memory, seals=True
        )
        self.opening = {"vfs": vfs, "timeout": timeout_s, "network": network, "seal": "auto" if seals else None}
        self.sealer = Sealer(seals and not readonly and not in_memory)
        self.uuid, self.seed = self._file.uuid, self._file.seed
        self.pieces = Pieces()
        self.read = self._file.read
        guard = self._file.guard if in_memory else None  # a database in memory has one connection for all
        self._watch = Watch(self.path, None if in_memory else self.path + "-wal")
        self._writer = Writer(self._file.leading, guard, path, self._file.ready, self._after, self._failed)
        self.write = self._refuse if readonly else self._writer.submit
        self.renewal = Renewal(weakref.WeakMethod(self._renew))
        self.held_claims = HeldClaims(self.uuid, self.renewal.wake)
        self._file.on_fork = [
            self._writer.forked,
            self._watch.forked,
            self.renewal.forked,
            self.sealer.forked,
            self._forked,
        ]

    @property
    def lost(self) -> list[str]:
        """Rows of the small tables that were found damaged, where that was no reason to stop."""
        return list(self._file.lost)

    # closing

    def close(self) -> None:
        if self._file.is_lost:
            return
        self.sealer.close()
        self._closed = True
        self.write = self._refuse
        self.renewal.stop()
        try:
            self._release_all()
        finally:
            self._close()

    def _close(self) -> None:
        self._watch.close()
        self._writer.close()
        with connections.translated(self.path):
            self._file.close()

    def check_open(self) -> None:
        """Raise if nothing can be asked of it any more."""
        self._file.check()
        if self._closed:
            raise errors.ClosedError(f"{self.path} was closed")

    def check_writable(self) -> None:
        """Raise if nothing can be written."""
        if self.readonly or self._closed:
            self._refuse()

    def _refuse(self, job: Job[T] | None = None) -> T:
        """In place of the writer's `submit`, where nothing can be written."""
        self.check_open()
        raise errors.ReadOnlyError(
            f"{self.path} was opened for reading only: pqlog.open(path), without readonly=True, opens it for writing"
        )

    # the file below

    def _after(self, db: apsw.Connection) -> None:
        """After each commit, before its callers wake."""
        self._watch.notify()
        self.sealer.commits += 1
        self._file.checkpointer.committed(db)

    def _failed(self, error: Exception) -> None:
        """After a failed transaction."""
        self._forget_tails()
        self._file.failed(error)

    def _forked(self) -> None:
        """In a forked child."""
        self.held_claims.forget()
        self._forget_tails()
        if self._file.is_lost:
            self.write = self._refuse

    def _forget_tails(self) -> None:
        for topic in list(self._topics.values()):
            topic.table.tail = None

    def wait(self, ready: Callable[[], bool], timeout: float | None, tick: float) -> bool:
        self.check_open()
        return self._watch.wait(ready, timeout, tick)

    def wake(self) -> None:
        self._watch.notify()

    def try_write(self, work: Callable[[apsw.Connection], object], timeout_s: float) -> None:
        """Write what nothing depends on: it is left out if others write for longer than that, or if it fails."""
        if self.readonly or self._closed:
            return

        def write(db: apsw.Connection) -> None:
            try:
                db.set_busy_handler(connections.BusyHandler(timeout_s))
                work(db)
            finally:
                db.set_busy_handler(connections.BusyHandler(self._timeout_s))
            self._after(db)

        with contextlib.suppress(errors.Error):
            self._writer.exclusively(write, timeout_s)

    # topics

    def topics(self) -> list[TopicInfo]:
        found = self.read(topic_infos)
        for info in found:
            if topic := self._topics.get(info.id):
                topic.named(info)  # another process may have renamed it
        return [info for info in found if not info.partition]

    def find_topic(self, name: str) -> list[SqliteTopic]:
        return [self.handle(info) for info in self.read(lambda db: _partitions(db, name))]

    def topic(self, name: str, codec: str, partitions: int) -> list[SqliteTopic]:
        made = self.write(Task(lambda transaction: _make_topic(transaction.db, name, codec, partitions)))
        return [self.handle(info) for info in made]

    def places_keys(self, topic: TopicStore) -> bool:
        """Whether each message lies in the partition that its key names: `pqlog.store.api.PlacesKeys`."""
        id = topic.info.id - topic.info.partition
        return self.read(lambda db: fetch_one(db.execute(statements.IS_UNPLACED, (id,)))) is None

    def handle(self, info: TopicInfo) -> SqliteTopic:
        """The partition of that description: one object for all who ask, since it knows where the partition ends."""
        topic = self._topics.get(info.id)
        if topic is None:
            topic = self._topics.setdefault(info.id, SqliteTopic(self, info))
        topic.named(info)
        return topic

    def forget(self, topic: SqliteTopic) -> None:
        """A partition was deleted, with its topic."""
        self._topics.pop(topic.info.id, None)
        self._watch.notify()

    # what concerns several partitions at once

    def append(self, outputs: Sequence[Output], id: str | None = None, cursor: Cursor | None = None) -> dict[int, Put]:
        table: Table = outputs[0].topic.table  # type: ignore[attr-defined]

        def put(transaction: Transaction) -> dict[int, Put]:
            db = transaction.db
            if id is not None and (known := find_put(db, table, id)) is not None:
                return known
            if cursor is not None:
                cursor.check((fetch_one(db.execute(statements.CURSOR, (cursor.name,))) or (None,))[0])
            went = append_all(transaction, outputs)
            if id is not None:
                where = {output.topic.info.id: span for output, span in zip(outputs, went, strict=True)}
                ids.add(db, table, [id], where)
            if cursor is not None:
                db.execute(statements.SET_CURSOR, (cursor.name, cursor.value))
            return {output.topic.info.partition: put_of(span) for output, span in zip(outputs, went, strict=True)}

        went = self.write(Task(put))
        for output in outputs:
            if (into := went.get(output.topic.info.partition)) is not None:
                self.sealer.look(output.topic, into.last)  # type: ignore[arg-type]
        return went

    def append_each(self, singles: Sequence[Single]) -> list[Outcome]:
        return put_each(self.write, singles)

    def spans(self, topics: Sequence[TopicStore]) -> list[Span]:
        tables: list[Table] = [topic.table for topic in topics]  # type: ignore[attr-defined]
        return self.read(lambda db: [reader.span(db, table) for table in tables], snapshot=True)

    def trim(self, marks: Sequence[tuple[TopicStore, int]], force: bool) -> list[int]:
        """One small transaction moves the marks of what is kept; the rows and ids below are then dropped in steps.

        A crash in between leaves some of them there, which nobody sees and the next trim drops.
        """
        ours: Sequence[tuple[SqliteTopic, int]] = marks  # type: ignore[assignment]

        def mark(transaction: Transaction) -> list[int]:
            losing: Counter[str] = Counter()
            for topic, before in ours:
                losing.update(topic.losing(transaction.db, before))
            behind = [(name, count) for name, count in losing.items() if count]
            if behind and not force:
                raise errors.TrimRefusedError(behind, ours[0][0].info.name)
            return [topic.mark_trimmed(transaction.db, before) for topic, before in ours]

        trimmed = self.write(Task(mark))
        for topic, _ in ours:
            while self.write(Task(lambda transaction, topic=topic: topic.drop_trimmed(transaction.db))):  # type: ignore[misc]
                pass
        self.give_back()
        return trimmed

    def states(self, clients: Sequence[ClientStore]) -> list[ClientState | None]:
        ours: Sequence[SqliteClient] = clients  # type: ignore[assignment]
        return self.read(lambda db: [client.state_in(db) for client in ours], snapshot=len(ours) > 1)

    def join(self, clients: Sequence[ClientStore]) -> None:
        ours: Sequence[SqliteClient] = clients  # type: ignore[assignment]
        self.write(Task(lambda transaction: [client.join_in(transaction.db) for client in ours]))

    def find_work(self, clients: Sequence[ClientStore], worker: str, ordered: bool = False) -> int | None:
        ours: Sequence[SqliteClient] = clients  # type: ignore[assignment]
        if ours and self.held_claims.has_news():
            self.check_open()
            return 0

        def find(db: apsw.Connection) -> int | None:
            found = (index for index, client in enumerate(ours) if client.has_work_in(db, worker, ordered))
            return next(found, None)

        return self.read(find, snapshot=True)

    def seek(self, moves: Sequence[tuple[ClientStore, int]]) -> list[Moved]:
        ours: Sequence[tuple[SqliteClient, int]] = moves  # type: ignore[assignment]
        return self.write(Task(lambda transaction: [client.seek_in(transaction.db, to) for client, to in ours]))

    def delete_clients(self, clients: Sequence[ClientStore]) -> bool:
        ours: Sequence[SqliteClient] = clients  # type: ignore[assignment]
        return any(self.write(Task(lambda transaction: [client.delete_in(transaction.db) for client in ours])))

    # cursors

    def cursor(self, name: str) -> str | None:
        found = self.read(lambda db: fetch_one(db.execute(statements.CURSOR, (name,))))
        return found[0] if found else None

    def cursors(self) -> list[tuple[str, str]]:
        """All cursors."""
        return self.read(lambda db: fetch_all(db.execute(statements.CURSORS)))

    # claims

    def _renew(self, is_due: bool) -> bool:
        """Release claims that were left, renew those that are held if that is due; whether any is held."""
        if is_due or self.held_claims.has_news():
            left, lost = self.write(Task(lambda transaction: self.held_claims.renew(transaction.db, is_due)))
            self.held_claims.told(left)
            for one in lost:
                self.held_claims.drop(one)
        return bool(self.held_claims.all())

    def _release_all(self) -> None:
        """Release all claims that are held: this process lives on, and no clock would."""

        def both() -> list[claims.ClaimKey]:  # in the job: one before it may have handed out another
            return self.held_claims.all() + self.held_claims.left()

        if not self.readonly and both():
            with contextlib.suppress(errors.Error):
                self._writer.submit(Task(lambda transaction: claims.release(transaction.db, both())))
            for one in both():
                self.held_claims.drop(one)

    # keeping

    def give_back(self) -> None:
        """Let the file shrink by what is free in it, in steps."""

        def step(transaction: Transaction) -> bool:
            db = transaction.db
            before: int = db.pragma("freelist_count")
            if before:
                db.execute(f"PRAGMA incremental_vacuum({VACUUM_STEP})").fetchall()
            left: int = db.pragma("freelist_count")
            return 0 < left < before  # a file that another program made may not be able to shrink

        while self.write(Task(step)):
            pass
        self.checkpoint()

    def checkpoint(self) -> None:
        """Let the file itself shrink now, if nobody is in the way; else a later commit does it."""
        if not self._file.in_memory:
            self._writer.exclusively(lambda db: connections.checkpoint(db, apsw.SQLITE_CHECKPOINT_PASSIVE))

    def compact(self) -> int:
        """SQLite's VACUUM: one transaction, through the write-ahead log, which is cut off behind it.

        While somebody reads, it is cut off only when it starts again, that is by a commit after the reader has gone.
        """
        self.check_writable()

        def vacuum(db: apsw.Connection) -> int:
            pages: int = db.pragma("page_count")
            db.pragma("journal_size_limit", wal.SIZE)
            db.execute("VACUUM")
            pages -= db.pragma("page_count")
            try:
                db.set_busy_handler(connections.BusyHandler(COMPACT_TIMEOUT_S))
                connections.checkpoint(db, apsw.SQLITE_CHECKPOINT_TRUNCATE)
            finally:
                db.set_busy_handler(connections.BusyHandler(self._timeout_s))
            return pages * int(db.pragma("page_size"))

        return self._writer.exclusively(vacuum)

    def backup(self, path: str) -> None:
        """The copy is made in one read transaction: puts continue meanwhile."""
        self.check_open()
        with copies.appearing(path, None if self._file.in_memory else self.path) as made, connections.translated(path):
            self.read(lambda db: self._copy(db, made))

    def _copy(self, db: apsw.Connection, path: str) -> None:
        copy = apsw.Connection(path, vfs=self._file.vfs)
        try:
            with copy.backup("main", db, "main") as work:
                work.step(-1)
            copy.pragma("journal_mode", "delete")
            copy.pragma("synchronous", "extra")
            smallrows.register(copy, self.seed)
            copy.execute(statements.SET_UUID, (str(uuid.uuid4()),))
            copy.execute(statements.RELEASE_ALL)  # whoever holds them holds them of the file itself
        finally:
            copy.close()

    def verify(self, report: Callable[[int], object]) -> list[str]:
        return repair.verify(self, report)

    def size_bytes(self) -> int:
        if self._file.in_memory:
            return self.read(lambda db: int(db.pragma("page_count")) * int(db.pragma("page_size")))
        return connections.size(self.path) + connections.size(self.path + "-wal")

    # taking over what another program kept

    def adopt_clients(self, clients: Sequence[tuple[SqliteTopic, str, int]], cursor: tuple[str, str]) -> None:
        """Make clients known, each with the next offset that it gets, all at once."""

        def seek(transaction: Transaction) -> None:
            for topic, client, to in clients:
                topic.client(client).seek_in(transaction.db, to)
            transaction.db.execute(statements.SET_CURSOR, cursor)

        self.write(Task(seek))


def _partitions(db: apsw.Connection, name: str) -> list[TopicInfo]:
    """The partitions of a topic: all of them or none, since a key would be in another of fewer."""
    found = sorted((TopicInfo(*row) for row in db.execute(statements.TOPIC, (name,))), key=lambda info: info.partition)
    if found and not (len(found) == found[0].partitions and all(n == one.partition for n, one in enumerate(found))):
        topic_infos(db)  # damaged rows are told
        raise errors.CorruptLogError(
            f"topic {name!r} has {found[0].partitions} partitions, and the file has the rows of {len(found)}: restore "
            f"a backup, or copy what is whole with pqlog.salvage(path, to)"
        )
    return found


def _make_topic(db: apsw.Connection, name: str, codec: str, partitions: int) -> list[TopicInfo]:
    found = _partitions(db, name)
    if found:
        return found
    topic_infos(db)  # its name may be damaged: then it is not a new one
    first = fetch_one(db.execute(statements.NEW_TOPIC_ID))[0]
    infos = [TopicInfo(first + number, name, codec, number, partitions) for number in range(partitions)]
    now = claims.now_micros()
    for info in infos:
        db.execute(statements.MAKE_TOPIC, (info.id, name, codec, info.partition, partitions, now))
        for statement in schema.NEW_TOPIC:
            db.execute(statement.format(id=info.id))
    return infos
