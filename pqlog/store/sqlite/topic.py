"""A topic in a SQLite file: putting, reading, trimming."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import apsw

from pqlog import errors
from pqlog.store.sqlite import ids as message_ids
from pqlog.store.sqlite import reader, statements
from pqlog.store.sqlite.append import PutOne, append, append_at, begin_at
from pqlog.store.sqlite.client import SqliteClient, positions, states
from pqlog.store.sqlite.connections import fetch_all, fetch_one
from pqlog.store.sqlite.table import Table, messages_in, put_of
from pqlog.store.sqlite.writer import Task, Transaction
from pqlog.store.values import (
    NEAR,
    CachedSchema,
    Chunk,
    ClientState,
    Cursor,
    Ids,
    Lines,
    Put,
    Row,
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
    """A topic; the protocol is `pqlog.store.api.TopicStore`. There is one of each in a `SqliteStore`."""

    def __init__(self, log: SqliteStore, info: TopicInfo) -> None:
        self.log, self.info = log, info
        self.table = Table(info, log.seed)

    def named(self, info: TopicInfo) -> None:
        """Note what it is called now."""
        self.info, self.table.topic = info, info.name

    def rename(self, name: str) -> None:
        self.named(self.log.write(Task(lambda transaction: self._rename(transaction.db, name))))

    def _rename(self, db: apsw.Connection, name: str) -> TopicInfo:
        self.table.read_first(db)
        if fetch_one(db.execute(statements.TOPIC, (name,))):
            raise errors.ArgumentError(f"there is a topic {name!r} already: give another name")
        db.execute(statements.RENAME_TOPIC, (name, self.info.id))
        return TopicInfo(self.info.id, name, self.info.codec)

    def delete(self, force: bool) -> None:
        self.log.write(Task(lambda transaction: self._delete(transaction, force)))
        self.log.forget(self)
        self.log.give_back()

    def _delete(self, transaction: Transaction, force: bool) -> None:
        db, table = transaction.db, self.table
        kept = reader.span(db, table)
        losing = [(one.client, one.lag) for one in states(db, table) if one.lag]
        if losing and kept and not force:
            raise errors.TrimRefusedError(losing, self.info.name, "deleted")
        for statement in statements.DELETE_TOPIC:
            db.execute(statement, (table.id,))
        db.execute(statements.NOTE_DELETED, (table.id,))
        db.execute(table.drop_messages)
        transaction.forget(table)

    # putting

    def append_one(self, value: bytes, key: str | None, headers: str | None) -> int:
        return self.log.write(PutOne(self.table, value, key, headers))

    def append(
        self,
        chunks: Iterable[Chunk],
        id: str | None = None,
        cursor: Cursor | None = None,
        ids: Ids | None = None,
    ) -> Put:
        def put(transaction: Transaction) -> Span:
            db = transaction.db
            if id is not None:
                found = message_ids.find(db, self.table, id)
                if found:
                    return found
            if cursor is not None:
                cursor.check((fetch_one(db.execute(statements.CURSOR, (cursor.name,))) or (None,))[0])
            where = self.append_in(transaction, chunks, ids)
            if id is not None:
                message_ids.add(db, self.table, [id], where)
            if cursor is not None:
                db.execute(statements.SET_CURSOR, (cursor.name, cursor.value))
            return where

        return put_of(self.log.write(Task(put)))

    def append_in(self, transaction: Transaction, chunks: Iterable[Chunk], ids: Ids | None) -> Span:
        """Put everything inside a transaction."""
        if ids is not None:
            masks = message_ids.note(transaction.db, self.table, ids.lists, transaction.tail(self.table).stop)
            chunks = ids.thinned(chunks, masks)
        return append(transaction, self.table, chunks)

    def adopt(self, first: int, chunks: Sequence[tuple[int, Chunk]], cursor: tuple[str, str] | None = None) -> Span:
        """Put chunks at times of their own (microseconds; 0 is now); in a new topic `first` is the first offset."""

        def put(transaction: Transaction) -> Span:
            if transaction.tail(self.table).stop == 1:
                begin_at(transaction, self.table, first)
            where = append_at(transaction, self.table, chunks)
            if cursor is not None:
                transaction.db.execute(statements.SET_CURSOR, cursor)
            return where

        return self.log.write(Task(put))

    def find_id(self, id: str) -> Put | None:
        found = self.log.read(lambda db: message_ids.find(db, self.table, id))
        return None if found is None else put_of(found)

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

    def trim(self, before: int, force: bool) -> int:
        """One small transaction moves the mark of what is kept; the rows and ids below it are then dropped in steps.

        A crash in between leaves some of them there, which nobody sees and the next trim drops.
        """
        trimmed = self.log.write(Task(lambda transaction: self._mark_trimmed(transaction.db, before, force)))
        while self.log.write(Task(lambda transaction: self._drop_trimmed(transaction.db))):
            pass
        self.log.give_back()
        return trimmed

    def _mark_trimmed(self, db: apsw.Connection, before: int, force: bool) -> int:
        kept = reader.span(db, self.table)
        first = min(before, kept.stop)
        behind = [
            (name, messages_in(Span(max(next_offset, kept.first), first)))
            for name, next_offset in fetch_all(db.execute(statements.BEHIND, (self.table.id, first)))
        ]
        losing = [(name, count) for name, count in behind if count]
        if losing and not force:
            raise errors.TrimRefusedError(losing, self.info.name)
        db.execute(statements.TRIM, (first, self.table.id))
        return messages_in(Span(kept.first, first))

    def _drop_trimmed(self, db: apsw.Connection) -> int:
        first = self.table.read_first(db)
        db.execute(self.table.drop_trimmed, (first, TRIM_STEP))
        return db.changes() + message_ids.drop(db, self.table, first)


def topic_infos(db: apsw.Connection) -> list[TopicInfo]:
    """All topics of a file."""
    return [topic_info(*found[:3]) for found in db.execute(statements.TOPICS)]


def topic_info(id: int, name: bytes, codec: bytes) -> TopicInfo:
    """A topic as its row says, also where damage made no text, or nothing, of its name."""
    name_text, codec_text = (text.decode(errors="backslashreplace") for text in (name, codec))
    return TopicInfo(id, name_text or f"topic {id}", codec_text)
