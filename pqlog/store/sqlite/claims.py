"""Claims as the file knows them, of any client: leases, and what a process holds. All run inside a transaction."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

import apsw

from pqlog.store.sqlite import statements
from pqlog.store.sqlite.connections import fetch_all

LEASE_S = 60
"""How long a claim is respected of whose holder nothing is known; a living one puts it off in time."""


class ClaimKey(NamedTuple):
    """What identifies a claim in the file, as long as one holder has it."""

    topic: int
    client: str
    number: int
    token: int


def lease_micros() -> int:
    """How long a lease is, in microseconds."""
    return int(LEASE_S * 1_000_000)


def now_micros() -> int:
    """Microseconds since 1970, UTC."""
    return time.time_ns() // 1000


def release(db: apsw.Connection, left: Iterable[ClaimKey]) -> None:
    """Release claims that nobody holds any more."""
    for one in left:
        db.execute(statements.RELEASE_LEFT, one)


def renew(db: apsw.Connection, key: ClaimKey) -> bool:
    """Put off the expiry of a claim; False if it is not its holder's any more."""
    db.execute(statements.RENEW, (now_micros() + lease_micros(), *key))
    return bool(db.changes())


def held_by(db: apsw.Connection, process: str) -> list[ClaimKey]:
    """All claims of a process."""
    return [ClaimKey(*found) for found in fetch_all(db.execute(statements.HELD_BY, (process,)))]
