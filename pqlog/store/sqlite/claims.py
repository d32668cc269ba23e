"""Clients and their claims: how far each has come, and which batches are handed out. All run inside a transaction."""

from __future__ import annotations

import functools
import os
import secrets
import socket
import time

import apsw

from pqlog import errors
from pqlog.store.api import Claim, ClientInfo, Moved, Span
from pqlog.store.sqlite import statements
from pqlog.store.sqlite.connections import row, rows
from pqlog.store.sqlite.reader import span
from pqlog.store.sqlite.table import Table

LEASE_S = 60


def now_micros() -> int:
    """Microseconds since 1970, UTC."""
    return time.time_ns() // 1000


@functools.cache
def _owner(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            start = stat.read().rpartition(")")[2].split()[19]
    except OSError:
        start = ""
    return f"{socket.gethostname()}:{pid}:{start}"


def this_process() -> str:
    """Who this is, so that others can tell whether it still lives: host, process, its start (Linux; else empty)."""
    return _owner(os.getpid())


def client(db: apsw.Connection, table: Table, name: str) -> ClientInfo | None:
    """One client."""
    found = row(db.execute(statements.CLIENT, (table.id, name)))
    return _info(found, span(db, table)) if found else None


def clients(db: apsw.Connection, table: Table) -> list[ClientInfo]:
    """All clients, by name."""
    kept = span(db, table)
    return [_info(found, kept) for found in rows(db.execute(statements.CLIENTS, (table.id,)))]


def _info(found: tuple[str, int, int, int, int, int], kept: Span) -> ClientInfo:
    name, next_offset, epoch, batches, seen, open_claims = found
    unread = Span(max(next_offset, kept.first), kept.stop)
    return ClientInfo(name, next_offset - 1, len(unread), batches, epoch, seen, open_claims, unread)


def claims(db: apsw.Connection, table: Table, name: str) -> list[Claim]:
    """The batches of a client that are handed out."""
    found = client(db, table, name)
    epoch = found.epoch if found else 0
    return [
        Claim(name, epoch, number, Span(first, stop), token, attempt)
        for number, first, stop, token, attempt in rows(db.execute(statements.CLAIMS, (table.id, name)))
    ]


def known(db: apsw.Connection, table: Table, name: str) -> tuple[str, int, int, int, int, int]:
    """A client's row; raises if there is none."""
    found: tuple[str, int, int, int, int, int] | None = row(db.execute(statements.CLIENT, (table.id, name)))
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
    """Move a client on, if nobody moved it since `epoch`."""
    claim = row(db.execute(statements.OPEN_CLAIM, (table.id, name)))
    if claim is not None:
        number, first, stop, _, _ = claim
        raise errors.ClaimedError(name, number, first, stop - 1)
    db.execute(statements.ACKNOWLEDGE, (offset + 1, now_micros(), table.id, name, epoch))
    return bool(db.changes())


def seek(db: apsw.Connection, table: Table, name: str, to: int) -> Moved:
    """Move a client anywhere within what is kept."""
    kept = span(db, table)
    target = min(max(to, kept.first), kept.stop)
    join(db, table, name, None)
    was = known(db, table, name)[1]
    db.execute(statements.DROP_CLAIMS, (table.id, name))
    db.execute(statements.SEEK, (target, _next_epoch(db), now_micros(), table.id, name))
    return Moved(target - 1, again=len(Span(target, was)), skipped=len(Span(max(was, kept.first), target)))


def delete(db: apsw.Connection, table: Table, name: str) -> bool:
    """Forget a client; False if there was none."""
    db.execute(statements.DROP_CLAIMS, (table.id, name))
    db.execute(statements.DELETE_CLIENT, (table.id, name))
    return bool(db.changes())


def advance(db: apsw.Connection, table: Table, name: str, done: Claim | None, size: int) -> Claim | None:
    """Acknowledge `done` and claim the next batch."""
    _, next_offset, epoch, batches, _, _ = known(db, table, name)
    if done is not None:
        db.execute(statements.DROP_CLAIM, (table.id, name, done.number, done.token))
        if not db.changes():
            raise errors.ClaimLostError(name, done.number)
        next_offset = done.span.stop
        db.execute(statements.ACKNOWLEDGE, (next_offset, now_micros(), table.id, name, epoch))
    token = secrets.randbits(62)
    expires = now_micros() + LEASE_S * 1_000_000
    again = row(db.execute(statements.OPEN_CLAIM, (table.id, name)))
    if again is not None:
        number, first, stop, _, attempt = again
        db.execute(statements.TAKE_OVER, (token, attempt + 1, this_process(), expires, table.id, name, number))
        return Claim(name, epoch, number, Span(first, stop), token, attempt + 1)
    kept = span(db, table)
    batch = Span(max(next_offset, kept.first), min(max(next_offset, kept.first) + size, kept.stop))
    if not len(batch):
        return None
    number = batches + 1
    db.execute(statements.NUMBER, (number, now_micros(), table.id, name))
    claim = (table.id, name, number, batch.first, batch.stop, token, 1, this_process(), expires)
    db.execute(statements.CLAIM, claim)
    return Claim(name, epoch, number, batch, token, 1)
