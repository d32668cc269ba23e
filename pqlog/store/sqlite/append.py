"""Appending: one message, several as one insertion, chunks of any kind, each with its checksums."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import apsw

from pqlog.store.sqlite import checksums, claims, ids, statements
from pqlog.store.sqlite.checksums import extend
from pqlog.store.sqlite.table import Table, Tail
from pqlog.store.sqlite.writer import Job, Transaction
from pqlog.store.values import LATEST, Chunk, Kept, Output, Segment, Singles, Span

ROWS_A_STATEMENT = 50

# Another process was there before, or deleted the topic; or a value is at fault: a transaction will say which.
_NOT_THERE = (apsw.ConstraintError, apsw.MismatchError, apsw.TooBigError, apsw.SQLError)


class PutOne(Job[int]):
    """A put of one message: several are one insertion.

    In a topic of several partitions each is a transaction's part, since its time depends on the other partitions.
    """

    def __init__(
        self, tables: Sequence[Table], table: Table, value: bytes, key: str | None, headers: str | None
    ) -> None:
        self.tables, self.table = tables, table
        self.group_key = table if len(tables) == 1 else None
        self.value, self.key, self.headers = value, key, headers

    def _row(self, offset: int, now: int, crc: int) -> tuple[object, ...]:
        kept = checksums.of_one(crc, now, self.headers, self.key, self.table.seed)
        return offset, now, self.key, self.headers, self.value, kept

    def run(self, transaction: Transaction) -> int:
        tail = transaction.tail(self.table)
        now, crc = max(tail.time, next_time(transaction, self.tables)), extend(tail.crc, self.value)
        transaction.db.execute(self.table.put, self._row(tail.stop, now, crc))
        transaction.set_tail(self.table, Tail(tail.stop + 1, now, crc))
        return tail.stop

    def run_alone(self, db: apsw.Connection) -> int | None:
        table = self.table
        tail: Tail = table.tail or table.read_tail(db)
        now, crc = max(tail.time, claims.now_micros()), extend(tail.crc, self.value)
        try:
            db.execute(table.put_next, self._row(tail.stop, now, crc))
        except _NOT_THERE:
            table.tail = None
            return None
        table.tail = Tail(tail.stop + 1, now, crc)
        return tail.stop

    def run_together(self, db: apsw.Connection, jobs: Sequence[PutOne]) -> list[int] | None:
        table = self.table
        tail: Tail = table.tail or table.read_tail(db)
        now, crc = max(tail.time, claims.now_micros()), tail.crc
        bindings: list[object] = []
        for offset, job in enumerate(jobs, tail.stop):
            crc = extend(crc, job.value)
            bindings += job._row(offset, now, crc)
        stop = tail.stop + len(jobs)
        try:
            db.execute(table.put_remembered(len(jobs)), bindings)
        except _NOT_THERE:
            table.tail = None
            return None
        table.tail = Tail(stop, now, crc)
        return list(range(tail.stop, stop))


def next_time(transaction: Transaction, tables: Sequence[Table]) -> int:
    """The time of what is put now into any partition of a topic, of which these are all tables.

    That of one partition never runs backwards. Of several, it is later than all that any of them has, so that merged by
    their times they grow only at the end.
    """
    now = claims.now_micros()
    return now if len(tables) == 1 else max(now, min(LATEST, 1 + max(map(transaction.newest_time, tables))))


def append_all(transaction: Transaction, outputs: Sequence[Output]) -> list[Span]:
    """Put into partitions of any topics, inside a transaction: all that goes into one topic at one time."""
    times: dict[int, int] = {}
    runs: dict[int, int] = {}
    calls: dict[int, Kept] = {}
    went: list[Span] = []
    for output in outputs:
        table: Table = output.topic.table  # type: ignore[attr-defined]
        chunks = output.chunks
        if table.topic_id not in times:
            times[table.topic_id] = next_time(transaction, output.topic.tables)  # type: ignore[attr-defined]
        if output.ids is not None:
            number = runs.get(table.topic_id) or ids.next_number(transaction.db, table)
            stop = transaction.tail(table).stop
            masks, runs[table.topic_id] = ids.note(transaction.db, table, output.ids.lists, stop, number)
            kept = calls.setdefault(id(output.ids.call), Kept())
            chunks = output.ids.thinned(chunks, masks, kept)
        went.append(append(transaction, table, chunks, times[table.topic_id]))
        if not output.is_placed:
            transaction.db.execute(statements.NOTE_UNPLACED, (table.topic_id,))
        if output.ids is not None:
            kept.messages += went[-1].stop - went[-1].first
    return went


def append(transaction: Transaction, table: Table, chunks: Iterable[Chunk], now: int) -> Span:
    """Put chunks at a partition's end, at one time, inside a transaction."""
    return append_at(transaction, table, ((now, chunk) for chunk in chunks))


def append_at(transaction: Transaction, table: Table, chunks: Iterable[tuple[int, Chunk]]) -> Span:
    """The same of chunks that bring their times."""
    tail = transaction.tail(table)
    first = tail.stop
    for time, chunk in chunks:
        now = max(tail.time, time)
        tail = insert(transaction.db, table, Tail(tail.stop, now, tail.crc), now, chunk)
    transaction.set_tail(table, tail)
    return Span(first, tail.stop)


def begin_at(transaction: Transaction, table: Table, first: int) -> None:
    """Let a topic in which nothing was ever put begin at an offset, as if what lies before had been trimmed."""
    if first > 1:
        transaction.set_tail(table, Tail(first - 1, 0, 0))
        append_at(transaction, table, [(1, Singles([b"null"]))])  # trim, too, leaves a row before the first
        transaction.db.execute(statements.TRIM, (first, table.id))


def insert(db: apsw.Connection, table: Table, tail: Tail, now: int, chunk: Chunk) -> Tail:
    """Insert a chunk at the end; the new end. Takes the fastest way that fits the chunk."""
    stop, crc = tail.stop, tail.crc
    if isinstance(chunk, Segment):
        crc = extend(crc, chunk.value)
        kept = checksums.mask(crc, checksums.of_metadata(now, chunk.headers, (chunk.key,), chunk.rows), table.seed)
        db.execute(table.put_segment, (stop, now, chunk.key, chunk.headers, chunk.value, kept, chunk.rows))
        return Tail(stop + chunk.rows, now, crc)
    if not (chunk.headers is None or isinstance(chunk.headers, str)):
        return _insert_each(db, table, tail, now, chunk)
    kepts: list[int | None] = [] if chunk.keys is None else [None] * len(chunk.keys)
    for start, behind, end in checksums.along(chunk.values, crc):
        crc = end
        keys = () if chunk.keys is None else chunk.keys[start:behind]
        kept = checksums.mask(crc, checksums.of_metadata(now, chunk.headers, keys), table.seed)
        if chunk.keys is None:
            run = apsw.carray(tuple(chunk.values[start:behind]))
            db.execute(table.put_array, (stop + start, now, chunk.headers, run, behind - start, kept))
        else:
            kepts[behind - 1] = kept
    if chunk.keys is not None:
        at = range(stop, stop + len(kepts))
        _put_rows(db, table, at, now, chunk.keys, itertools.repeat(chunk.headers), chunk.values, kepts)
    return Tail(stop + len(chunk.values), now, crc)


def _insert_each(db: apsw.Connection, table: Table, tail: Tail, now: int, chunk: Singles) -> Tail:
    """The same of messages that have headers of their own: each has its checksum, which covers one set of headers."""
    crc, kepts = tail.crc, list[int | None]()
    keys = chunk.keys or [None] * len(chunk.values)
    for value, key, headers in zip(chunk.values, keys, chunk.each_headers(), strict=True):
        crc = extend(crc, value)
        kepts.append(checksums.of_one(crc, now, headers, key, table.seed))
    at = range(tail.stop, tail.stop + len(kepts))
    _put_rows(db, table, at, now, keys, chunk.each_headers(), chunk.values, kepts)
    return Tail(at.stop, now, crc)


def _put_rows(db: apsw.Connection, table: Table, offsets: Sequence[int], now: int, *columns: Iterable[object]) -> None:
    """Insert rows, many in a statement: each column has a value for each offset."""
    rows = zip(offsets, itertools.repeat(now), *columns, strict=False)
    many = len(offsets) // ROWS_A_STATEMENT * ROWS_A_STATEMENT
    for count, together in ((many, ROWS_A_STATEMENT), (len(offsets) - many, 1)):
        some = itertools.islice(rows, count)
        db.executemany(table.put_rows(together), _bindings(some, together))


def _bindings(rows: Iterator[tuple[object, ...]], together: int) -> Iterator[list[object]]:
    while some := list(itertools.islice(rows, together)):
        yield list(itertools.chain.from_iterable(some))
