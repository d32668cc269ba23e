"""Sealing: runs of old single messages become pieces, each in one small transaction.

A run is read, verified by its checksums, and made into a piece that is read back, all without a lock. Then one
transaction puts the piece in the place of the rows. It does so only if `sealed`, up to where the topic was sealed
before, is still what it was: of two processes that seal at once, one finds that the other was first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import apsw

from pqlog.errors import CorruptLogError
from pqlog.store import sealed
from pqlog.store.sqlite import checksums, reader, runs, statements
from pqlog.store.sqlite.connections import fetch_one
from pqlog.store.sqlite.runs import Rest, Run
from pqlog.store.sqlite.table import Table
from pqlog.store.sqlite.writer import Task, Transaction
from pqlog.store.values import Span

if TYPE_CHECKING:
    from pqlog.store.sqlite.topic import SqliteTopic

LEAST = 100
"""Fewer messages stay as they are: a piece of them would hardly be smaller."""


def _no_rest() -> None:
    """Go on at once."""


def seal(topic: SqliteTopic, stop: int, report: Callable[[int], object]) -> int:
    """Seal all runs before an offset; how many messages were sealed."""
    done = start = 0
    while start < stop:
        count, start = step(topic, start, stop)
        done += count
        report(count)
    return done


def step(topic: SqliteTopic, start: int, stop: int, least: int | None = None, rest: Rest = _no_rest) -> tuple[int, int]:
    """Seal one run behind an offset; how many messages that were, and where to go on."""
    enough = LEAST if least is None else least
    run, behind = topic.log.read(lambda db: find(db, topic.table, Span(start, stop), enough, rest), snapshot=True)
    if run is None:
        return 0, behind
    try:
        piece = sealed.seal(run.singles, topic.table.is_json, rest)
    except ValueError:
        return 0, behind
    rest()
    is_sealed = topic.log.write(Task(lambda transaction: _put(transaction, topic.table, run, piece)))
    return (len(run.singles.values), behind) if is_sealed else (0, run.span.first)


def find(db: apsw.Connection, table: Table, wanted: Span, least: int, rest: Rest = _no_rest) -> tuple[Run | None, int]:
    """The first run in a span that is long enough, and the offset behind what was looked at."""
    kept = reader.span(db, table)
    stop = min(wanted.stop, kept.stop)
    sealed_before: int = fetch_one(db.execute(statements.SEALED, (table.id,)))[0]
    start = max(wanted.first, kept.first, sealed_before)
    while start < stop:
        start = _first_single(db, table, start, stop)
        if start >= stop:
            break
        run, behind = runs.read(db, table, Span(start, stop), sealed_before, rest)
        if run is not None and len(run.singles.values) >= least:
            return run, behind
        start = behind
    return None, wanted.stop


def _first_single(db: apsw.Connection, table: Table, offset: int, stop: int) -> int:
    """The offset of the first row from an offset on that is no segment."""
    while offset < stop:
        found = fetch_one(db.execute(table.next_row, (offset,)))
        if found is None:
            return stop
        offset, rows = found
        if rows is None:
            break
        offset += max(1, rows)
    return offset


def _put(transaction: Transaction, table: Table, run: Run, piece: bytes) -> bool:
    """Put a piece in the place of the rows it was made of; False if they are not there any more as they were."""
    db, (first, stop) = transaction.db, run.span
    table.read_first(db)
    if fetch_one(db.execute(table.row_of, (first,))) != (first, 0):  # trimmed: of a run the first row goes first
        return False
    db.execute(statements.SET_SEALED, (stop, table.id, run.sealed_before))
    if not db.changes():
        return False
    singles = run.singles
    key = None if singles.keys.count(None) == len(singles.keys) else ""
    time, last, rows = singles.times[0], singles.times[-1], len(singles.values)
    head_crc = sealed.head_crc(piece)
    kept = checksums.mask(run.crc, checksums.of_sealed(head_crc, run.crc, time, key, rows, last), table.seed)
    db.execute(table.drop_run, (first, stop))
    if db.changes() != rows:  # nothing but a trim drops rows
        raise CorruptLogError(f"rows of {table.title} between the offsets {first} and {stop - 1} are missing")
    db.execute(table.put_sealed, (first, time, key, rows, last, kept, piece))
    return True
