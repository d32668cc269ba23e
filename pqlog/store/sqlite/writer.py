"""The one writer of a file, and group commit: all callers that wait for a commit share one.

The first waiter becomes the leader: it runs its own job and all that wait in one transaction, wakes their callers, and
hands over to one of those who queued meanwhile. So one sync pays for all who came during the last one. (Leading on for
up to 8 groups, so that the disk does not idle while the lead changes, brought less: 38 µs of processor a put in place
of 35, with 16 threads.)

Between two syncs a thread runs with cold caches, where each call costs about four times what a loop without syncs
shows; so the way of a single put is kept short.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

import apsw

from pqlog.errors import ClosedError, Error, StoreError, UncertainError
from pqlog.store.sqlite.connections import translate
from pqlog.store.sqlite.table import Table, Tail

T = TypeVar("T")

_DISK = (
    apsw.IOError,
    apsw.FullError,
    apsw.BusyError,
    apsw.LockedError,
    apsw.ProtocolError,
    apsw.ReadOnlyError,
    apsw.CantOpenError,
    apsw.PermissionsError,
    apsw.InterruptError,
)
"""What fails all jobs of a transaction alike; any other error is that of the job which met it."""


class Transaction:
    """What a job is given: the connection inside a transaction, and the ends of the topics that it appends to."""

    __slots__ = ("_tails", "_version", "db")

    def __init__(self, db: apsw.Connection) -> None:
        self.db = db
        self._tails: dict[Table, Tail] = {}
        self._version: int | None = None

    def tail(self, table: Table) -> Tail:
        """Where a topic ends, with what this transaction put."""
        if table not in self._tails:
            self._tails[table] = table.read_tail(self.db)
        return self._tails[table]

    def newest_time(self, table: Table) -> int:
        """The time of a topic's newest message: as it is remembered, where nobody else has written since."""
        if self._version is None:
            self._version = self.db.pragma("data_version")
        if table not in self._tails and table.tail is not None and table.tail_seen == (self.db, self._version):
            return table.tail.time
        return self.tail(table).time

    def set_tail(self, table: Table, tail: Tail) -> None:
        """Note that messages were appended."""
        self._tails[table] = tail

    def forget(self, table: Table) -> None:
        """Note that a topic was deleted: its end is not known any more."""
        self._tails.pop(table, None)

    def commits(self) -> None:
        """Let the tables doubt where they end: an interrupt may come between the commit and `committed`."""
        for table in self._tails:
            table.tail_seen = None

    def committed(self) -> None:
        """Tell the tables where they end now."""
        for table, tail in self._tails.items():
            table.tail, table.tail_seen = tail, (self.db, self._version)


class Job(Generic[T]):
    """Something to do in a transaction; run again, from the start, if the transaction was rolled back."""

    group_key: Any = None
    """Jobs with the same key may be done by one statement, by `run_alone` or `run_together`; None if they may not."""
    outcome: T
    error: BaseException | None = None
    taken = False
    """Whether a leader has it in its group: nobody else may do it any more."""
    done = False
    sleep_lock: threading.Lock | None = None
    """What its caller sleeps on, if it sleeps."""
    next_to_wake: Job[Any] | None = None
    """The job whose caller this one's caller wakes when it wakes."""

    def run(self, transaction: Transaction) -> T:
        """Do it."""
        raise NotImplementedError

    def run_alone(self, db: apsw.Connection) -> T | None:
        """Do it in one statement, its own transaction; None if that was not possible."""
        return None

    def run_together(self, db: apsw.Connection, jobs: Sequence[Any]) -> list[T] | None:
        """Do `jobs`, with the same key, in one statement, its own transaction; None if that was not possible."""
        outcome = self.run_alone(db) if len(jobs) == 1 else None
        return None if outcome is None else [outcome]

    def wake(self) -> None:
        """End the sleep of the caller, if it sleeps."""
        if self.sleep_lock is not None:
            with contextlib.suppress(RuntimeError):  # it was woken before
                self.sleep_lock.release()


class Task(Job[T]):
    """A job that is a function."""

    def __init__(self, run: Callable[[Transaction], T]) -> None:
        self.run = run  # type: ignore[method-assign, assignment]


class _JobError(Exception):
    """A job failed by a fault of its own."""

    def __init__(self, job: Job[Any], error: Exception) -> None:
        super().__init__(error)
        self.job, self.error = job, error


class Writer:
    """Runs jobs in transactions, durably.

    Parameters
    ----------
    leading : RLock
        Held by the leader. An RLock, because releasing one that was not acquired fails, which tells an interrupted
        call whether it held it.
    guard : context manager, optional
        Held while the connection is used, if others use it too.
    path : str
        For error messages.
    ready : callable
        Called before each transaction: the connection; raises if no promise can be kept.
    after : callable
        Called after each commit, before its callers wake, with the connection.
    failed : callable
        Called after each failed transaction, with its error.
    """

    # A group's jobs are small rows (streams of any size go alone); this bounds how long its first caller waits.
    GROUP = 500
    # A waiting caller looks for itself this often: it recovers when Ctrl-C hits a leader just before it wakes the next.
    RECHECK_S = 0.2

    def __init__(
        self,
        leading: Any,
        guard: AbstractContextManager[Any] | None,
        path: str,
        ready: Callable[[], apsw.Connection],
        after: Callable[[apsw.Connection], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._leading, self._path = leading, path
        self._is_mine = guard is None
        self._guard = guard or contextlib.nullcontext()
        self._ready, self._after, self._failed = ready, after, failed
        self._waiting: deque[Job[Any]] = deque()
        self._closed = False

    def submit(self, job: Job[T]) -> T:
        """Do `job`; returns its outcome once it is durable."""
        if not self._lead(job):
            job.sleep_lock = threading.Lock()
            job.sleep_lock.acquire()
            try:
                self._waiting.append(job)
                while not job.done and not self._lead(job):
                    job.sleep_lock.acquire(timeout=self.RECHECK_S)
            finally:
                if not job.taken:  # KeyboardInterrupt, or closed
                    self._withdraw(job)
                if job.next_to_wake is not None:
                    job.next_to_wake.wake()
        if job.error is not None:
            raise job.error
        return job.outcome

    def exclusively(self, work: Callable[[apsw.Connection], T], timeout_s: float = -1) -> T:
        """Do something other than jobs with the connection, while nobody commits.

        Raises `StoreError` where somebody does for longer than `timeout_s`, if that is given.
        """
        self._check_nested()
        leading, mine = self._leading, True
        try:
            mine = leading.acquire(timeout=timeout_s)
            if not mine:
                raise StoreError(f"{self._path}: others are putting")
            with self._guard:
                if self._closed:
                    raise self._closed_error()
                db = self._ready()
                try:
                    return work(db)
                except Exception as error:
                    self._failed(error)
                    raise self._ours(error) from error
        finally:
            if mine:
                try:  # noqa: SIM105 - the release must be the first call in here, as in `_lead`
                    leading.release()
                except RuntimeError:
                    pass  # interrupted before it was acquired
            self._wake_next()

    def close(self) -> None:
        """Let the leader finish, and take no more jobs: waiting callers get `ClosedError`."""
        self._check_nested()
        self._closed = True
        with self._leading:
            waiting = self._take(len(self._waiting))
        for job in waiting:
            job.error, job.done = self._closed_error(), True
            job.wake()

    def forked(self) -> None:
        """In a forked child: the waiting threads are in the parent."""
        self._waiting.clear()

    def _closed_error(self) -> ClosedError:
        return ClosedError(f"{self._path} was closed; nothing was written")

    def _check_nested(self) -> None:
        if self._leading._is_owned():
            raise StoreError(f"{self._path}: a signal handler or __del__ cannot put or close during another put")

    def _withdraw(self, job: Job[Any]) -> None:
        with contextlib.suppress(ValueError):
            self._waiting.remove(job)

    def _lead(self, job: Job[Any]) -> bool:
        """Commit `job` with all that wait, unless another thread leads; whether it is done.

        Ctrl-C may strike at any call in here. Whatever it leaves, the lead is given back, a transaction is rolled
        back, and no job is done twice.
        """
        leading = self._leading
        if leading._is_owned():
            self._check_nested()
        mine = True
        try:
            mine = leading.acquire(False)
            if not mine:
                return False
            if self._closed:
                raise self._closed_error()
            if self._waiting and self._gives_way(job):
                return False
            # The way of a single put is as short as it can be.
            short = job.sleep_lock is None and job.group_key is not None and not self._waiting and self._is_mine
            if not short or not self._commit_alone(job):
                self._commit_with_others(job)
            return True
        finally:
            if mine:
                try:  # noqa: SIM105 - the release must be the first call in here: Ctrl-C strikes after calls
                    leading.release()
                except RuntimeError:
                    pass  # interrupted before it was acquired
                if self._waiting:
                    self._wake_next()

    def _gives_way(self, job: Job[Any]) -> bool:
        """Whether the first waiter is to lead, and take this job along.

        Only the main thread can be interrupted. So it commits for nobody but itself, and Ctrl-C leaves no other caller
        without an answer; nor must it, in a loop of puts, keep the lead from those that wait.
        """
        try:
            return self._waiting[0] is not job and not job.taken and _is_main_thread()
        except IndexError:  # withdrawn
            return False

    def _commit_alone(self, job: Job[Any]) -> bool:
        try:
            db = self._ready()
            outcome = job.run_alone(db)
        except Exception as error:
            self._failed(error)
            raise self._ours(error) from error
        if outcome is None:
            return False
        job.outcome = outcome
        self._committed(db)
        return True

    def _committed(self, db: apsw.Connection) -> None:
        try:  # noqa: SIM105 - shorter than a call of suppress()
            self._after(db)
        except Exception:  # noqa: S110
            pass  # no memory, say: what was put is durable, and must not be taken for not put

    def _commit_with_others(self, job: Job[Any]) -> None:
        if job.taken:
            if not job.done:  # by a leader that is not there any more
                job.error, job.done = self._interrupted(), True
            return
        group = [] if _is_main_thread() else self._take(self.GROUP)
        if not job.taken:
            self._withdraw(job)
            job.taken = True
            group.append(job)
        try:
            self._commit(group)
        except BaseException:  # KeyboardInterrupt
            for one in group:
                if not hasattr(one, "outcome") and one.error is None:
                    one.error = self._interrupted()
            raise
        finally:
            self._wake(group)

    def _interrupted(self) -> UncertainError:
        return UncertainError(
            f"{self._path}: another thread was interrupted while it committed this too. Look whether it was put, or "
            f"put it again with an id"
        )

    def _take(self, most: int) -> list[Job[Any]]:
        """The next jobs that wait."""
        taken: list[Job[Any]] = []
        while self._waiting and len(taken) < most:
            try:
                job = self._waiting.popleft()
            except IndexError:  # withdrawn
                break
            job.taken = True
            taken.append(job)
        return taken

    def _wake_next(self) -> None:
        """Let the next waiter try to lead."""
        try:
            job = self._waiting[0]
        except IndexError:
            return
        job.wake()

    def _wake(self, group: Sequence[Job[Any]]) -> None:
        """Wake the callers of a group: each wakes the next.

        Woken all at once, they would queue for the interpreter's lock, each asleep a second time: measured with 16
        threads, 38 µs of processor per put instead of 32.
        """
        first: Job[Any] | None = None
        for job in reversed(group):
            if job.sleep_lock is not None:
                job.next_to_wake, first = first, job
        for job in group:
            job.done = True
        if first is not None:
            first.wake()

    def _commit(self, group: list[Job[Any]]) -> None:
        """All of a group in one transaction: one job's fault is its own, a failed commit is everybody's."""
        while group:
            try:
                with self._guard:
                    db = self._ready()
                    outcomes = self._run(db, group)
            except _JobError as fault:
                fault.job.error = self._ours(fault.error)
                group = [job for job in group if job is not fault.job]
            except Exception as error:
                self._failed(error)
                for job in group:
                    job.error = self._ours(error)
                return
            else:
                for job, outcome in zip(group, outcomes, strict=True):
                    job.outcome = outcome
                self._committed(db)
                return

    def _run(self, db: apsw.Connection, group: list[Job[Any]]) -> list[Any]:
        outcomes = self._run_together(db, group)
        if outcomes is not None:
            return outcomes
        try:
            db.execute("BEGIN IMMEDIATE")
            transaction = Transaction(db)
            outcomes = [self._do(job, transaction) for job in group]
            transaction.commits()
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        transaction.committed()
        return outcomes

    def _run_together(self, db: apsw.Connection, group: list[Job[Any]]) -> list[Any] | None:
        first = group[0]
        if first.group_key is None or not all(job.group_key is first.group_key for job in group):
            return None
        try:
            return first.run_together(db, group)
        except _DISK:
            raise
        except Exception:
            return None  # one job's fault: done one by one they tell whose

    def _do(self, job: Job[T], transaction: Transaction) -> T:
        try:
            return job.run(transaction)
        except _DISK:
            raise
        except Exception as error:  # a value, a damaged topic, the caller's own iterator: no matter of the others
            raise _JobError(job, error) from error

    def _ours(self, error: Exception) -> Error:
        ours = translate(error, self._path)
        if ours is not error:
            ours.__cause__ = error
        return ours


def _is_main_thread() -> bool:
    return threading.get_ident() == threading.main_thread().ident
