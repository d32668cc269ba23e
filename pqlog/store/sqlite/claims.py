"""Clients and their claims: how far each has come, and which batches are handed out. All run inside a transaction."""

from __future__ import annotations

import operator
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import apsw

from pqlog import errors
from pqlog.store.api import Claim, ClientInfo, Moved, Size, Span
from pqlog.store.sqlite import owners, statements
from pqlog.store.sqlite.connections import row, rows
from pqlog.store.sqlite.owners import Fate
from pqlog.store.sqlite.reader import span
from pqlog.store.sqlite.table import Table

LEASE_S = 60
"""How long a claim is respected of whose holder nothing is known; a living one puts it off in time."""

_NEVER = (1 << 63) - 1
"""Every lease ends before that."""


class Held(NamedTuple):
    """A claim in somebody's hands, as the file knows it."""

    topic: int
    client: str
    number: int
    token: int


def _lease() -> int:
    return int(LEASE_S * 1_000_000)


def now_micros() -> int:
    """Microseconds since 1970, UTC."""
    return time.time_ns() // 1000


def client(db: apsw.Connection, table: Table, name: str) -> ClientInfo | None:
    """One client."""
    kept = span(db, table)
    found = row(db.execute(statements.CLIENT, (table.id, name)))
    return _info(found, kept) if found else None


def clients(db: apsw.Connection, table: Table) -> list[ClientInfo]:
    """All clients, by name."""
    kept = span(db, table)
    return [_info(found, kept) for found in rows(db.execute(statements.CLIENTS, (table.id,)))]


def _info(found: Any, kept: Span) -> ClientInfo:
    name, next_offset, claimed, epoch, batches, seen, is_open = found
    unread = Span(max(next_offset, kept.first), kept.stop)
    unclaimed = Span(max(claimed, kept.first), kept.stop)
    return ClientInfo(name, next_offset - 1, len(unread), batches, epoch, seen, bool(is_open), unread, unclaimed)


def open_batches(db: apsw.Connection, table: Table) -> dict[str, tuple[int, int]]:
    """Of clients that have open batches, how many, and how often the most often handed out of them was."""
    found = rows(db.execute(statements.OPEN, (table.id,)))
    return {client: (count, attempt) for client, count, attempt in found}


def names_near(db: apsw.Connection, table: Table, name: str, count: int) -> list[str]:
    """The names of clients around a name in their order, so many before and behind it."""
    before = rows(db.execute(statements.NAMES_BEFORE, (table.id, name, count)))
    behind = rows(db.execute(statements.NAMES_BEHIND, (table.id, name, count)))
    return [found for (found,) in (*before, *behind)]


def claims(db: apsw.Connection, table: Table, name: str) -> list[Claim]:
    """The batches of a client that are handed out."""
    found = client(db, table, name)
    return _claims(db, table, found) if found else []


def _claims(db: apsw.Connection, table: Table, of: ClientInfo) -> list[Claim]:
    return [
        Claim(of.client, of.epoch, number, Span(first, stop), token, attempt, owner, expires, error)
        for number, first, stop, token, attempt, owner, expires, error in rows(
            db.execute(statements.CLAIMS, (table.id, of.client))
        )
    ]


def join(db: apsw.Connection, table: Table, name: str, start: int | None) -> ClientInfo:
    """Make a client known, if it is new."""
    found = client(db, table, name)
    if found is None:
        clients(db, table)  # its name may be damaged: then it is not a new one
        kept = span(db, table)
        first = kept.first if start is None else min(max(start, kept.first), kept.stop)
        db.execute(statements.JOIN, (table.id, name, first, _next_epoch(db), now_micros()))
        found = client(db, table, name)
        assert found is not None
    return found


def _next_epoch(db: apsw.Connection) -> int:
    db.execute(statements.NEXT_EPOCH)
    epoch: int = row(db.execute(statements.EPOCH))[0]
    return epoch


def acknowledge(db: apsw.Connection, table: Table, name: str, offset: int, epoch: int) -> bool:
    """Move a client on, if nobody moved it since `epoch`; raises if a batch of it is handed out."""
    if acknowledge_unclaimed(db, table, name, offset, epoch):
        return True
    for claim in claims(db, table, name):
        raise errors.ClaimedError(name, claim.number, claim.span.first, claim.span.stop - 1, table.topic)
    return False


def acknowledge_unclaimed(db: apsw.Connection, table: Table, name: str, offset: int, epoch: int) -> bool:
    """The same in one statement; False also if a batch is handed out."""
    db.execute(statements.ACKNOWLEDGE, (offset + 1, now_micros(), table.id, name, epoch))
    return bool(db.changes())


def seek(db: apsw.Connection, table: Table, name: str, to: int) -> Moved:
    """Move a client anywhere within what is kept."""
    kept = span(db, table)
    target = min(max(to, kept.first), kept.stop)
    was = join(db, table, name, None).position + 1
    db.execute(statements.DROP_CLAIMS, (table.id, name))
    db.execute(statements.SEEK, (target, _next_epoch(db), now_micros(), table.id, name))
    return Moved(target - 1, again=len(Span(target, was)), skipped=len(Span(max(was, kept.first), target)))


def delete(db: apsw.Connection, table: Table, name: str) -> bool:
    """Forget a client; False if there was none."""
    db.execute(statements.DROP_CLAIMS, (table.id, name))
    db.execute(statements.DELETE_CLIENT, (table.id, name))
    return bool(db.changes())


def finish(db: apsw.Connection, table: Table, done: Claim) -> None:
    """Acknowledge a claim; raises if it is not its holder's any more."""
    table.read_first(db)
    db.execute(statements.DROP_CLAIM, (table.id, done.client, done.number, done.token))
    if not db.changes():
        raise errors.ClaimLostError(done.client, done.number)
    db.execute(statements.MOVE_ON, (table.id, done.client, now_micros()))


def release(db: apsw.Connection, table: Table, claim: Claim, error: str | None) -> bool:
    """Let whoever asks next have a claim at once; False if it is not its holder's any more."""
    db.execute(statements.RELEASE, (error, table.id, claim.client, claim.number, claim.token))
    return bool(db.changes())


def release_left(db: apsw.Connection, left: Iterable[Held]) -> None:
    """Release claims that nobody holds any more."""
    for one in left:
        db.execute(statements.RELEASE_LEFT, one)


def has_work(db: apsw.Connection, table: Table, name: str, owner: str) -> bool:
    """Whether `take` would find something, or something to do."""
    found = row(db.execute(statements.NEXT_BATCH, (table.id, name)))
    if found is None or found[0] < span(db, table).stop:
        return True
    worker, _ = owners.parts(owner)
    if _first_free(db, table, name, worker):
        return True
    now = now_micros()
    for process, fate in _others(db, table, name):
        if fate is Fate.GONE:
            return True
        if row(db.execute(statements.EXPIRED, (table.id, name, process, now, now + _lease())))[0]:
            return True
    return False


def take(db: apsw.Connection, table: Table, name: str, size: Size, owner: str) -> Claim | None:
    """Claim the first batch that is free, or cut a new one; None if there is nothing."""
    worker, process = owners.parts(owner)
    _let_go(db, table, name)
    token, expires = secrets.randbits(62), now_micros() + _lease()
    claimed, epoch, batches = row(db.execute(statements.NEXT_BATCH, (table.id, name))) or _begin(db, table, name)
    free = _first_free(db, table, name, worker)
    if free:
        number, first, stop, attempt, error = free
        db.execute(statements.TAKE_OVER, (token, worker, process, expires, table.id, name, number))
        return Claim(name, epoch, number, Span(first, stop), token, attempt + 1, owner, expires, error)
    kept = span(db, table)
    batch = _cut(db, table, Span(max(claimed, kept.first), kept.stop), size)
    if not len(batch):
        return None
    number = batches + 1
    db.execute(statements.CUT, (number, batch.stop, now_micros(), table.id, name))
    db.execute(statements.CLAIM, (table.id, name, number, *batch, token, worker, process, expires))
    return Claim(name, epoch, number, batch, token, 1, owner, expires, None)


def _first_free(db: apsw.Connection, table: Table, name: str, worker: str) -> Any:
    """The first claim that was released, or is the worker's own: whoever had it under that name is gone."""
    free = row(db.execute(statements.FREE, (table.id, name)))
    own = row(db.execute(statements.OWN, (table.id, name, worker))) if worker else None
    return min(free, own, key=operator.itemgetter(0)) if free and own else free or own


def _begin(db: apsw.Connection, table: Table, name: str) -> tuple[int, int, int]:
    """A client that was deleted under its readers begins again, as any new one."""
    made = join(db, table, name, None)
    return made.unclaimed.first, made.epoch, made.batches


def _others(db: apsw.Connection, table: Table, name: str) -> Iterator[tuple[str, Fate]]:
    """The processes that hold batches of a client and are not known to live."""
    for (process,) in rows(db.execute(statements.PROCESSES, (table.id, name))):
        fate = owners.fate(process)
        if fate is not Fate.LIVES:
            yield process, fate


def _let_go(db: apsw.Connection, table: Table, name: str) -> None:
    """Release what a client's workers held who are gone, and what those held of whom nothing was heard for a lease.

    What is known of a process counts first: of one that lives no clock can take its batch.
    """
    now = now_micros()
    for process, fate in _others(db, table, name):
        if fate is Fate.GONE:
            db.execute(statements.RELEASE_EXPIRED, (table.id, name, process, _NEVER))
        else:
            db.execute(statements.RELEASE_EXPIRED, (table.id, name, process, now))
            db.execute(statements.SHORTEN, (table.id, name, process, now + _lease()))


def _cut(db: apsw.Connection, table: Table, unclaimed: Span, size: Size) -> Span:
    """The next batch: at most so many messages, and no more than so many bytes, but at least one message."""
    first = unclaimed.first
    stop = min(unclaimed.stop, first + size.messages)
    if size.max_bytes is None or first >= stop:
        return Span(first, stop)
    begin = row(db.execute(table.row_of, (first,)))
    left = float(size.max_bytes)
    cursor = db.execute(table.sizes, (begin[0] if begin else first, stop))
    for offset, bytes_, count in cursor:
        each = bytes_ / count  # of a segment, each message counts as much
        here = max(offset, first)
        fitting = int(left / each) if each else count
        if here + fitting < min(offset + count, stop):
            stop = max(first + 1, here + fitting)
            break
        left -= each * (min(offset + count, stop) - here)
    cursor.close()
    return Span(first, stop)


def renew(db: apsw.Connection, held: Held) -> bool:
    """Put off the expiry of a claim; False if it is not its holder's any more."""
    db.execute(statements.RENEW, (now_micros() + _lease(), *held))
    return bool(db.changes())


def held_by(db: apsw.Connection, process: str) -> list[Held]:
    """All claims of a process."""
    return [Held(*found) for found in rows(db.execute(statements.HELD_BY, (process,)))]


def check(db: apsw.Connection, tables: Sequence[Table]) -> list[str]:
    """Where clients and claims stand outside of their topic, or against each other."""
    found: list[str] = []
    for table in tables:
        stop = span(db, table).stop
        for one in clients(db, table):
            where = f"topic {table.topic!r}, client {one.client!r}"
            if not 1 <= one.unread.first <= one.unclaimed.first <= stop:
                found.append(f"{where}: it stands at {one.unread.first}, claims end at {one.unclaimed.first} of {stop}")
            for claim in _claims(db, table, one):
                if not one.position < claim.span.first < claim.span.stop <= one.unclaimed.first:
                    found.append(f"{where}: batch {claim.number} has the offsets {tuple(claim.span)}")
                if claim.number > one.batches:
                    found.append(f"{where}: batch {claim.number} of only {one.batches}")
    return found
