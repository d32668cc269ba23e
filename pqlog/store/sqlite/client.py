"""A client of a partition in a SQLite file: how far it has come, and which batches are handed out to it."""

from __future__ import annotations

import operator
import secrets
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import apsw

from pqlog import errors
from pqlog.store import owners
from pqlog.store.owners import Fate
from pqlog.store.sqlite import claims, pieces, statements
from pqlog.store.sqlite.append import append_all
from pqlog.store.sqlite.claims import ClaimKey
from pqlog.store.sqlite.connections import fetch_all, fetch_one
from pqlog.store.sqlite.reader import span
from pqlog.store.sqlite.table import Table, messages_in, put_of
from pqlog.store.sqlite.writer import Job, Task, Transaction
from pqlog.store.values import Claim, ClientState, Done, Moved, Output, Put, Size, Span

if TYPE_CHECKING:
    from pqlog.store.sqlite.topic import SqliteTopic

_NEVER = (1 << 63) - 1
"""Every lease ends before that."""


class SqliteClient:
    """A client; the protocol is `pqlog.store.api.ClientStore`. What ends in `_in` runs inside a transaction."""

    def __init__(self, topic: SqliteTopic, name: str) -> None:
        self.name = name
        self._topic, self._log, self._table = topic, topic.log, topic.table
        self._id = topic.info.id, name
        """How the statements name it."""

    def state(self) -> ClientState | None:
        return self._log.read(self.state_in)

    def state_in(self, db: apsw.Connection) -> ClientState | None:
        """Where it stands."""
        kept = span(db, self._table)
        found = fetch_one(db.execute(statements.CLIENT, self._id))
        return _state(found, kept) if found else None

    def join(self, start: int | None = None) -> ClientState:
        return self.state() or self._log.write(Task(lambda transaction: self.join_in(transaction.db, start)))

    def join_in(self, db: apsw.Connection, start: int | None = None) -> ClientState:
        """Make it known if it is new."""
        found = self.state_in(db)
        if found is None:
            states(db, self._table)  # its name may be damaged: then it is not a new one
            kept = span(db, self._table)
            first = kept.first if start is None else min(max(start, kept.first), kept.stop)
            db.execute(statements.JOIN, (*self._id, first, _next_epoch(db), claims.now_micros()))
            found = self.state_in(db)
            assert found is not None
        return found

    def acknowledge(self, offset: int, epoch: int) -> bool:
        return self._log.write(_Acknowledge(self, offset, epoch))

    def acknowledge_in(self, db: apsw.Connection, offset: int, epoch: int) -> bool:
        """Move it on if nobody moved it since `epoch`; raises if a batch of it is handed out."""
        if self.acknowledge_unclaimed(db, offset, epoch):
            return True
        for claim in self.claims_in(db):
            raise errors.ClaimedError.of(claim, self._topic.info)
        return False

    def acknowledge_unclaimed(self, db: apsw.Connection, offset: int, epoch: int) -> bool:
        """The same in one statement; False also if a batch is handed out."""
        db.execute(statements.ACKNOWLEDGE, (offset + 1, claims.now_micros(), *self._id, epoch))
        return bool(db.changes())

    def seek_in(self, db: apsw.Connection, to: int) -> Moved:
        """Move it anywhere within what is kept."""
        kept = span(db, self._table)
        target = min(max(to, kept.first), kept.stop)
        was = self.join_in(db).position
        db.execute(statements.DROP_CLAIMS, self._id)
        db.execute(statements.SEEK, (target, _next_epoch(db), claims.now_micros(), *self._id))
        return Moved(
            target, again=messages_in(Span(target, was)), skipped=messages_in(Span(max(was, kept.first), target))
        )

    def delete_in(self, db: apsw.Connection) -> bool:
        """Forget it; False if it was not known."""
        self._table.read_first(db)
        db.execute(statements.DROP_CLAIMS, self._id)
        db.execute(statements.DELETE_CLIENT, self._id)
        return bool(db.changes())

    # batches

    def claims(self) -> list[Claim]:
        return self._log.read(self.claims_in)

    def claims_in(self, db: apsw.Connection) -> list[Claim]:
        """The batches that are handed out."""
        state = self.state_in(db)
        return [] if state is None else claims_of(db, self._table, state)

    def has_work(self, worker: str, ordered: bool = False) -> bool:
        if self._log.held_claims.has_news():
            self._log.check_open()
            return True
        return self._log.read(lambda db: self._has_work_in(db, worker, ordered))

    def has_work_in(self, db: apsw.Connection, worker: str, ordered: bool) -> bool:
        """The same for one of many, most of which have nothing: these are found out first, in two statements."""
        found = fetch_one(db.execute(statements.IDLE, self._id))
        if found is not None and not found[1] and found[0] >= self._table.read_tail(db).stop:
            return False
        return self._has_work_in(db, worker, ordered)

    def _has_work_in(self, db: apsw.Connection, worker: str, ordered: bool) -> bool:
        found = fetch_one(db.execute(statements.NEXT_BATCH, self._id))
        kept = span(db, self._table)
        if not ordered or not self._is_held(db, worker):
            if found is None or max(found[0], kept.first) < kept.stop:
                return True
            if self._first_free(db, worker):
                return True
        now = claims.now_micros()
        for process, fate in self._not_living(db):
            if fate is Fate.GONE:
                return True
            if fetch_one(db.execute(statements.EXPIRED, (*self._id, process, now, now + claims.lease_micros())))[0]:
                return True
        return False

    def advance(
        self, size: Size, worker: str, done: Done | None = None, ordered: bool = False
    ) -> tuple[Claim | None, list[Put]]:
        held_claims = self._log.held_claims
        made: list[Claim] = []

        def work(transaction: Transaction) -> tuple[Claim | None, list[Put], list[ClaimKey]]:
            went = [] if done is None else done.client._finish_in(transaction, done.claim, done.outputs)  # type: ignore[attr-defined]
            left = held_claims.release_left(transaction.db)
            claim = self._take_in(transaction.db, size, worker, ordered)
            if claim is not None:
                held_claims.add(self._key(claim), claim)  # before the commit: from then on it must be known as held
                made.append(claim)
            return claim, went, left

        try:
            claim, went, left = self._log.write(Task(work))
        except BaseException:  # which may keep the claim, and may have come after the commit
            for one in made:
                self.leave(one)
            raise
        held_claims.told(left)
        if done is not None:
            held_claims.drop(done.client._key(done.claim))  # type: ignore[attr-defined]
        if claim is not None:
            self._log.renewal.start()
        return claim, went

    def finish(self, done: Claim, outputs: Sequence[Output] = ()) -> list[Put]:
        went = self._log.write(Task(lambda transaction: self._finish_in(transaction, done, outputs)))
        self._log.held_claims.drop(self._key(done))
        return went

    def _finish_in(self, transaction: Transaction, done: Claim, outputs: Sequence[Output]) -> list[Put]:
        owners.check_mine(done)
        db = transaction.db
        self._table.read_first(db)
        db.execute(statements.DROP_CLAIM, (*self._id, done.number, done.token))
        if not db.changes():
            raise errors.ClaimLostError(self.name, done.number, partition=self._table.partition)
        db.execute(statements.MOVE_ON, (*self._id, claims.now_micros()))
        return [put_of(where) for where in append_all(transaction, outputs)]

    def release(self, claim: Claim, error: str | None) -> bool:
        owners.check_mine(claim)
        released = self._log.write(Task(lambda transaction: self._release_in(transaction.db, claim, error)))
        self._log.held_claims.drop(self._key(claim))
        return released

    def _release_in(self, db: apsw.Connection, claim: Claim, error: str | None) -> bool:
        db.execute(statements.RELEASE, (error, *self._id, claim.number, claim.token))
        return bool(db.changes())

    def leave(self, claim: Claim) -> None:
        self._log.held_claims.leave(self._key(claim))

    def _key(self, claim: Claim) -> ClaimKey:
        return ClaimKey(*self._id, claim.number, claim.token)

    # cutting and taking

    def _take_in(self, db: apsw.Connection, size: Size, worker: str, ordered: bool) -> Claim | None:
        """Claim the first batch that is free, or cut a new one; None if there is nothing."""
        process = owners.this_process()
        owner = owners.owner(worker)
        self._let_go(db)
        token, expires = secrets.randbits(62), claims.now_micros() + claims.lease_micros()
        claimed, epoch, batches = fetch_one(db.execute(statements.NEXT_BATCH, self._id)) or self._begin_again(db)
        kept = span(db, self._table)
        if ordered and self._is_held(db, worker):
            return None
        while free := self._first_free(db, worker):
            number, first, stop, attempt, error = free
            if stop > kept.first:
                db.execute(statements.TAKE_OVER, (token, worker, process, expires, *self._id, number))
                return claim_of(self.name, epoch, number, Span(first, stop), token, attempt + 1, owner, expires, error)
            db.execute(statements.DROP_TRIMMED_CLAIM, (*self._id, number))  # nothing of it is left to be handed out
            db.execute(statements.MOVE_ON, (*self._id, claims.now_micros()))
        batch = _cut(db, self._table, Span(max(claimed, kept.first), kept.stop), size)
        if not batch:
            return None
        number = batches + 1
        db.execute(statements.CUT, (number, batch.stop, claims.now_micros(), *self._id))
        db.execute(statements.CLAIM, (*self._id, number, *batch, token, worker, process, expires))
        return claim_of(self.name, epoch, number, batch, token, 1, owner, expires, None)

    def _is_held(self, db: apsw.Connection, worker: str) -> bool:
        """Whether a batch of it is in the hands of somebody else than a worker of that name."""
        return bool(fetch_one(db.execute(statements.HELD, (*self._id, worker)))[0])

    def _first_free(self, db: apsw.Connection, worker: str) -> Any:
        """The first claim that was released, or is the worker's own: its holder of that name is gone."""
        free = fetch_one(db.execute(statements.FREE, self._id))
        own = fetch_one(db.execute(statements.OWN, (*self._id, worker))) if worker else None
        return min(free, own, key=operator.itemgetter(0)) if free and own else free or own

    def _begin_again(self, db: apsw.Connection) -> tuple[int, int, int]:
        """A client that was deleted under its readers begins again, as any new one: in every partition."""
        for partition in self._topic.partitions():
            partition.client(self.name).join_in(db)
        made = self.join_in(db)
        return made.unclaimed.first, made.epoch, made.batches

    def _not_living(self, db: apsw.Connection) -> Iterator[tuple[str, Fate]]:
        """The processes that hold batches of it and are not known to live."""
        for (process,) in fetch_all(db.execute(statements.PROCESSES, self._id)):
            fate = owners.fate(process, is_same_host=True)
            if fate is not Fate.LIVES:
                yield process, fate

    def _let_go(self, db: apsw.Connection) -> None:
        """Release the claims of workers that are gone, and of those that were not heard of for a lease.

        What is known of a process counts first: of one that lives no clock can take its batch.
        """
        now = claims.now_micros()
        for process, fate in self._not_living(db):
            if fate is Fate.GONE:
                db.execute(statements.RELEASE_EXPIRED, (*self._id, process, _NEVER))
            else:
                db.execute(statements.RELEASE_EXPIRED, (*self._id, process, now))
                db.execute(statements.SHORTEN, (*self._id, process, now + claims.lease_micros()))


class _Acknowledge(Job[bool]):
    """An acknowledgement of one message after the other: in one statement, where nobody else waits."""

    def __init__(self, client: SqliteClient, offset: int, epoch: int) -> None:
        self.group_key = object()  # of no other job: each has a client of its own
        self._client, self._offset, self._epoch = client, offset, epoch

    def run(self, transaction: Transaction) -> bool:
        return self._client.acknowledge_in(transaction.db, self._offset, self._epoch)

    def run_alone(self, db: apsw.Connection) -> bool | None:
        return self._client.acknowledge_unclaimed(db, self._offset, self._epoch) or None


def states(db: apsw.Connection, table: Table) -> list[ClientState]:
    """Where the clients of a topic stand, by name."""
    kept = span(db, table)
    return [_state(found, kept) for found in fetch_all(db.execute(statements.CLIENTS, (table.id,)))]


def positions(db: apsw.Connection, table: Table) -> list[tuple[str, int]]:
    """The same without how far they have to go: the end of the topic, which may be damaged, is not read."""
    first = table.read_first(db)
    found = fetch_all(db.execute(statements.CLIENTS, (table.id,)))
    return [(name, max(position, first)) for name, position, *_ in found]


def _state(found: Any, kept: Span) -> ClientState:
    name, position, claimed, epoch, batches, seen, is_open = found
    unread = Span(max(position, kept.first), kept.stop)
    unclaimed = Span(max(claimed, kept.first), kept.stop)
    return ClientState(name, unread.first, messages_in(unread), batches, epoch, seen, bool(is_open), unread, unclaimed)


def claim_of(client: str, epoch: int, number: int, span: Span, *rest: Any) -> Claim:
    """A batch that is handed out, with the number of its messages."""
    return Claim(client, epoch, number, span, messages_in(span), *rest)


def claims_of(db: apsw.Connection, table: Table, state: ClientState) -> list[Claim]:
    """The batches that are handed out to a client."""
    return [
        claim_of(state.client, state.epoch, number, Span(first, stop), token, attempt, owner, expires, error)
        for number, first, stop, token, attempt, owner, expires, error in fetch_all(
            db.execute(statements.CLAIMS, (table.id, state.client))
        )
    ]


def check(db: apsw.Connection, tables: Sequence[Table]) -> list[str]:
    """Where clients and claims stand outside of their topic, or against each other."""
    found: list[str] = []
    for table in tables:
        stop = span(db, table).stop
        for name, position, claimed, _, batches, *_ in fetch_all(db.execute(statements.CLIENTS, (table.id,))):
            where = f"{table.title}, client {name!r}"
            if not 1 <= position <= claimed <= stop:
                found.append(f"{where}: it stands at {position}, claims end at {claimed} of {stop}")
            for number, first, end, *_ in fetch_all(db.execute(statements.CLAIMS, (table.id, name))):
                if not position <= first < end <= claimed:
                    found.append(f"{where}: batch {number} has the offsets {(first, end)}")
                if number > batches:
                    found.append(f"{where}: batch {number} of only {batches}")
    return found


def _next_epoch(db: apsw.Connection) -> int:
    db.execute(statements.NEXT_EPOCH)
    epoch: int = fetch_one(db.execute(statements.EPOCH))[0]
    return epoch


def _cut(db: apsw.Connection, table: Table, unclaimed: Span, size: Size) -> Span:
    """The next batch, within the limits of `size`, but at least one message."""
    first = unclaimed.first
    stop = min(unclaimed.stop, first + size.messages)
    if size.max_bytes is None or first >= stop:
        return Span(first, stop)
    begin = fetch_one(db.execute(table.row_of, (first,)))
    left = float(size.max_bytes)
    cursor = db.execute(table.sizes, (begin[0] if begin else first, stop))
    for offset, bytes_, count, is_sealed in cursor:
        if is_sealed:  # what its messages take when they are read, and took before
            with pieces.look(db, table, offset) as (_, piece):
                bytes_ = piece.head.text
        each = bytes_ / count  # of a segment, each message counts as much
        here = max(offset, first)
        fitting = int(left / each) if each else count
        if here + fitting < min(offset + count, stop):
            stop = max(first + 1, here + fitting)
            break
        left -= each * (min(offset + count, stop) - here)
    cursor.close()
    return Span(first, stop)
