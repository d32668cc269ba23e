"""A partition of a topic in a SQLite file: putting, reading, trimming."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import apsw

from pqlog import errors
from pqlog.store.sealed import SealedPart
from pqlog.store.sqlite import ids as message_ids
from pqlog.store.sqlite import reader, sealing, statements
from pqlog.store.sqlite.append import PutOne, append_at, begin_at, next_time
from pqlog.store.sqlite.client import SqliteClient, positions, states
from pqlog.store.sqlite.connections import fetch_all, fetch_one
from pqlog.store.sqlite.sealer import LOOK_EVERY
from pqlog.store.sqlite.table import Table, messages_in, put_of
from pqlog.store.sqlite.writer import Task, Transaction
from pqlog.store.values import (
    MAX_PARTITIONS,
    NEAR,
    CachedSchema,
    Chunk,
    ClientState,
    Lines,
    Put,
    Row,
    SegmentStatistics,
    Span,
    TopicInfo,
)

if TYPE_CHECKING:
    from pqlog.store.sqlite.store import SqliteStore

SCHEMA_CACHE_BYTES = 4 << 20
"""A longer entry of the schema cache is not stored."""
SCHEMA_CACHE_TIMEOUT_S = 0.05
"""How long a reader waits for writers to store an entry of the schema cache."""
TRIM_STEP = 2_000
"""Rows that are dropped in one transaction: other puts wait no longer than that."""


class SqliteTopic:
    """A partition; the protocol is `pqlog.store.api.TopicStore`. There is one of each in a `SqliteStore`."""

    def __init__(self, log: SqliteStore, info: TopicInfo) -> None:
        self.log, self.info = log, info
        self.table = Table(info, log.seed, log.pieces)
        self._tables: list[Table] = []
        self.looked_to = 0
        """Up to which offset the sealer has looked for messages to seal."""

    def named(self, info: TopicInfo) -> None:
        """Note what it is called now."""
        self.info, self.table.topic = info, info.name

    def partitions(self) -> list[SqliteTopic]:
        """All of the topic, in their order."""
        name, codec, count = self.info.name, self.info.codec, self.info.partitions
        infos = [TopicInfo(id, name, codec, number, count) for number, id in enumerate(self.table.parts)]
        return [self.log.handle(info) for info in infos]

    @property
    def tables(self) -> list[Table]:
        """Those of all partitions."""
        if not self._tables:
            self._tables = [partition.table for partition in self.partitions()]
        return self._tables

    def rename(self, name: str) -> None:
        self.log.write(Task(lambda transaction: self._rename(transaction.db, name)))
        for partition in self.partitions():
            partition.named(replace(partition.info, name=name))

    def _rename(self, db: apsw.Connection, name: str) -> None:
        self.table.read_first(db)
        if fetch_one(db.execute(statements.TOPIC, (name,))):
            raise errors.ArgumentError(f"there is a topic {name!r} already: give another name")
        db.executemany(statements.RENAME_TOPIC, [(name, id) for id in self.table.parts])

    def delete(self, force: bool) -> None:
        self.log.write(Task(lambda transaction: self._delete(transaction, force)))
        for partition in self.partitions():
            self.log.forget(partition)
        self.log.give_back()

    def _delete(self, transaction: Transaction, force: bool) -> None:
        db = transaction.db
        losing: dict[str, int] = {}
        for table in self.tables:
            kept = reader.span(db, table)
            for one in states(db, table) if kept else []:
                losing[one.client] = losing.get(one.client, 0) + one.lag
        losing = {client: lag for client, lag in losing.items() if lag}
        if losing and not force:
            raise errors.TrimRefusedError(list(losing.items()), self.info.name, "deleted")
        for table in self.tables:
            for statement in statements.DELETE_TOPIC:
                db.execute(statement, (table.id,))
            db.execute(statements.NOTE_DELETED, (table.id,))
            db.execute(table.drop_messages)
            transaction.forget(table)
        db.execute(statements.FORGET_UNPLACED, (self.table.topic_id,))

    # putting

    def append_one(self, value: bytes, key: str | None, headers: str | None) -> int:
        offset = self.log.write(PutOne(self.tables, self.table, value, key, headers))
        if not offset % LOOK_EVERY:
            self.log.sealer.look(self, offset)
        return offset

    def adopt(self, first: int, chunks: Sequence[tuple[int, Chunk]], cursor: tuple[str, str] | None = None) -> Span:
        """Put chunks at times of their own (microseconds; 0 is now); in a new topic `first` is the first offset."""

        def put(transaction: Transaction) -> Span:
            if transaction.tail(self.table).stop == 1:
                begin_at(transaction, self.table, first)
            now = next_time(transaction, self.tables)
            where = append_at(transaction, self.table, ((time or now, chunk) for time, chunk in chunks))
            if cursor is not None:
                transaction.db.execute(statements.SET_CURSOR, cursor)
            return where

        return self.log.write(Task(put))

    def find_id(self, id: str) -> dict[int, Put] | None:
        return self.log.read(lambda db: find_put(db, self.table, id))

    def id_runs(self) -> list[message_ids.Run]:
        """All ids, and where what was put with them went."""
        return self.log.read(lambda db: list(message_ids.all_runs(db, self.table)))

    # reading

    def span(self) -> Span:
        return self.log.read(lambda db: reader.span(db, self.table))

    def count(self, span: Span | None = None) -> int:
        return self.log.read(lambda db: reader.count(db, self.table, span))

    def from_end(self, messages: int, span: Span | None = None) -> int:
        kept = self.span() if span is None else span
        return max(kept.first, kept.stop - messages)

    def offset_at(self, time: int) -> int:
        return self.log.read(lambda db: reader.offset_at(db, self.table, time), snapshot=True)

    def time_at(self, offset: int) -> int | None:
        return self.log.read(lambda db: reader.time_at(db, self.table, offset), snapshot=True)

    def read(self, span: Span, rows: int, max_bytes: int, key: str | None = None, damaged: bool = False) -> list[Row]:
        def query(db: apsw.Connection) -> list[Row]:
            if key is None:
                return reader.read(db, self.table, span, rows, max_bytes, damaged)
            return reader.read_key(db, self.table, span, rows, max_bytes, key)

        return self.log.read(query, snapshot=True)

    def read_lines(self, span: Span, rows: int, max_bytes: int) -> Lines | None:
        if not self.table.is_json:
            return None
        return self.log.read(lambda db: reader.read_lines(db, self.table, span, rows, max_bytes), snapshot=True)

    def read_sealed(self, span: Span) -> SealedPart | None:
        return self.log.read(lambda db: reader.read_sealed(db, self.table, span), snapshot=True)

    def statistics(self, span: Span) -> list[SegmentStatistics]:
        return self.log.read(lambda db: reader.statistics(db, self.table, span), snapshot=True)

    # the schema cache

    def cached_schema(self) -> CachedSchema | None:
        try:
            found = self.log.read(
                lambda db: fetch_one(db.execute(statements.CACHED_SCHEMA, (self.info.id, SCHEMA_CACHE_BYTES)))
            )
        except errors.CorruptLogError:  # verify tells it
            return None
        return CachedSchema(Span(*found[:2]), found[2]) if found else None

    def cache_schema(self, schema: CachedSchema) -> None:
        if len(schema.text.encode()) <= SCHEMA_CACHE_BYTES:
            row = (self.info.id, *schema.span, schema.text)
            self.log.try_write(lambda db: db.execute(statements.CACHE_SCHEMA, row), SCHEMA_CACHE_TIMEOUT_S)

    # clients

    def clients(self) -> list[ClientState]:
        return self.log.read(lambda db: states(db, self.table))

    def positions(self) -> list[tuple[str, int]]:
        """The name and the position of each client, also where the end of the topic cannot be read."""
        return self.log.read(lambda db: positions(db, self.table))

    def open_batches(self) -> dict[str, tuple[int, int]]:
        found = self.log.read(self._open_batches)
        return {client: (count, attempt) for client, count, attempt in found}

    def _open_batches(self, db: apsw.Connection) -> list[tuple[str, int, int]]:
        self.table.read_first(db)
        return fetch_all(db.execute(statements.OPEN, (self.info.id,)))

    def clients_near(self, name: str) -> list[str]:
        return self.log.read(lambda db: self._clients_near(db, name))

    def _clients_near(self, db: apsw.Connection, name: str) -> list[str]:
        before = fetch_all(db.execute(statements.NAMES_BEFORE, (self.info.id, name, NEAR)))
        behind = fetch_all(db.execute(statements.NAMES_BEHIND, (self.info.id, name, NEAR)))
        return [found for (found,) in (*before, *behind)]

    def client(self, name: str) -> SqliteClient:
        return SqliteClient(self, name)

    # keeping

    def seal(self, before: int, report: Callable[[int], object]) -> int:
        self.log.check_writable()
        count = sealing.seal(self, min(before, self.span().stop), report)
        self.log.give_back()
        return count

    def losing(self, db: apsw.Connection, before: int) -> dict[str, int]:
        """How many messages before an offset each client has not acknowledged."""
        kept = reader.span(db, self.table)
        first = min(before, kept.stop)
        behind = fetch_all(db.execute(statements.BEHIND, (self.table.id, first)))
        return {name: messages_in(Span(max(position, kept.first), first)) for name, position in behind}

    def mark_trimmed(self, db: apsw.Connection, before: int) -> int:
        """Move the mark of what is kept; how many messages are trimmed by that."""
        kept = reader.span(db, self.table)
        first = min(before, kept.stop)
        db.execute(statements.TRIM, (first, self.table.id))
        return messages_in(Span(kept.first, first))

    def drop_trimmed(self, db: apsw.Connection) -> int:
        """Drop some of what lies before the mark; how much that was."""
        first = self.table.read_first(db)
        db.execute(self.table.drop_trimmed, (first, TRIM_STEP))
        return db.changes() + message_ids.drop(db, self.table, first)


def find_put(db: apsw.Connection, table: Table, id: str) -> dict[int, Put] | None:
    """Where a put with an id went, by the number of the partition; None if it is not known."""
    found = message_ids.find(db, table, id)
    return None if found is None else {table.parts.index(part): put_of(where) for part, where in found.items()}


def topic_infos(db: apsw.Connection) -> list[TopicInfo]:
    """All partitions of all topics of a file; raises if one cannot be what its row says."""
    infos = [topic_info(*found[:5]) for found in db.execute(statements.TOPICS)]
    for info in infos:
        if not is_possible(info):
            raise errors.CorruptLogError(
                f"topic {info.name!r} has partition {info.partition} of {info.partitions}, which no pqlog wrote: "
                f"restore a backup, or copy what is whole with pqlog.salvage(path, to)"
            )
    return infos


def is_possible(info: TopicInfo) -> bool:
    """Whether a topic can have that many partitions, and this one."""
    return 0 <= info.partition < info.partitions <= MAX_PARTITIONS


def topic_info(id: int, name: bytes, codec: bytes, partition: int, partitions: int) -> TopicInfo:
    """A partition as its row says, also where damage made no text, or nothing, of its topic's name."""
    name_text, codec_text = (text.decode(errors="backslashreplace") for text in (name, codec))
    return TopicInfo(id, name_text or f"topic {id}", codec_text, partition, partitions)
