"""Clients and their claims: how far each has come, and which batches are handed out. All run inside a transaction."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

import apsw

from pqlog import errors
from pqlog.store.api import Claim, ClientInfo, Moved, Size, Span
from pqlog.store.sqlite import owners, statements
from pqlog.store.sqlite.connections import row, rows
from pqlog.store.sqlite.reader import span
from pqlog.store.sqlite.table import Table

LEASE_S = 60
"""How long a claim of an owner of which nothing is known is respected; a living one puts it off in time."""


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
    name, next_offset, claimed, epoch, batches, seen, open_claims, attempt = found
    unread = Span(max(next_offset, kept.first), kept.stop)
    unclaimed = Span(max(claimed, kept.first), kept.stop)
    return ClientInfo(
        name, next_offset - 1, len(unread), batches, epoch, seen, open_claims, attempt or 0, unread, unclaimed
    )


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


def is_free(claim: Claim, owner: str) -> bool:
    """Whether `owner` may take a claim over: it is its own, was released, has expired, or its owner is gone."""
    return (
        not claim.owner
        or owners.is_same(claim.owner, owner)
        or claim.expires < now_micros()
        or owners.is_gone(claim.owner)
    )


def known(db: apsw.Connection, table: Table, name: str) -> ClientInfo:
    """A client; raises if there is none any more."""
    found = client(db, table, name)
    if found is None:
        raise errors.ClaimLostError(name, 0)
    return found


def join(db: apsw.Connection, table: Table, name: str, start: int | None) -> ClientInfo:
    """Make a client known, if it is new."""
    found = client(db, table, name)
    if found is None:
        kept = span(db, table)
        first = kept.first if start is None else min(max(start, kept.first), kept.stop)
        db.execute(statements.JOIN, (table.id, name, first, _next_epoch(db), now_micros()))
        found = client(db, table, name)
        assert found is not None
    return found


def _next_epoch(db: apsw.Connection) -> int:
    epoch: int = row(db.execute(statements.NEXT_EPOCH))[0]
    return epoch


def acknowledge(db: apsw.Connection, table: Table, name: str, offset: int, epoch: int) -> bool:
    """Move a client on, if nobody moved it since `epoch`; raises if a batch of it is handed out."""
    if acknowledge_unclaimed(db, table, name, offset, epoch):
        return True
    for claim in claims(db, table, name):
        raise errors.ClaimedError(name, claim.number, claim.span.first, claim.span.stop - 1)
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


def take(db: apsw.Connection, table: Table, name: str, size: Size, owner: str) -> Claim | None:
    """Claim the first batch that is free, or cut a new one; None if there is nothing."""
    token, expires = secrets.randbits(62), now_micros() + LEASE_S * 1_000_000
    table.read_first(db)
    found = known(db, table, name)
    for claim in _claims(db, table, found):
        if is_free(claim, owner):
            db.execute(statements.TAKE_OVER, (token, owner, expires, table.id, name, claim.number))
            return Claim(
                name, claim.epoch, claim.number, claim.span, token, claim.attempt + 1, owner, expires, claim.error
            )
    batch = _cut(db, table, found.unclaimed, size)
    if not len(batch):
        return None
    number = found.batches + 1
    db.execute(statements.CUT, (number, batch.stop, now_micros(), table.id, name))
    db.execute(statements.CLAIM, (table.id, name, number, batch.first, batch.stop, token, owner, expires))
    return Claim(name, found.epoch, number, batch, token, 1, owner, expires, None)


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


def renew(db: apsw.Connection, process: str) -> int:
    """Put off the expiry of all claims of a process; how many it has."""
    db.execute(statements.RENEW, (now_micros() + LEASE_S * 1_000_000, process))
    return int(db.changes())


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
