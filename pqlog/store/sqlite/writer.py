"""The one writer of a file, and group commit: whoever waits for a commit shares it with all who wait.

Whoever finds nobody leading leads: it runs its own job, commits, then runs all jobs that were queued meanwhile in one
more transaction, and wakes their callers. So one sync pays for all who came during the last one.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

import apsw

from pqlog.errors import ClosedError, Error
from pqlog.store.sqlite.connections import translate
from pqlog.store.sqlite.table import Table

T = TypeVar("T")


class Transaction:
    """What a job is given: the connection inside a transaction, and the ends of the topics that it appends to."""

    __slots__ = ("_tails", "db")

    def __init__(self, db: apsw.Connection) -> None:
        self.db = db
        self._tails: dict[Table, tuple[int, int]] = {}

    def tail(self, table: Table) -> tuple[int, int]:
        """The next offset of a topic and the time that must not be run behind."""
        if table not in self._tails:
            self._tails[table] = table.read_tail(self.db)
        return self._tails[table]

    def set_tail(self, table: Table, stop: int, time: int) -> None:
        """Note that messages were appended."""
        self._tails[table] = (stop, time)

    def committed(self) -> None:
        """Tell the tables where they end now."""
        for table, tail in self._tails.items():
            table.tail = tail


class Job(Generic[T]):
    """Something to do in a transaction; run again, from the start, if the transaction was rolled back."""

    __slots__ = ("_result", "_turn", "done", "error", "kin", "leads", "run", "woken")

    def __init__(self, run: Callable[[Transaction], T]) -> None:
        self.run = run
        self.kin: Any = None
        """Jobs of one kin may be done by one statement, `together`; None if there is no such way."""
        self.done = False
        self.leads = False
        """Whether its caller was woken to lead."""
        self.woken = False
        self.error: BaseException | None = None
        self._turn: threading.Lock | None = None

    def together(self, db: apsw.Connection, jobs: Sequence[Any]) -> list[Any] | None:
        """Do `jobs`, all of one kin, in one statement, its own transaction; None if that was not possible."""
        return None

    def succeed(self, result: T) -> None:
        self._result, self.done = result, True

    def fail(self, error: BaseException) -> None:
        self.error, self.done = error, True

    def result(self) -> T:
        if self.error is not None:
            raise self.error
        return self._result

    def queue(self) -> None:
        """Make the caller able to sleep."""
        self._turn = threading.Lock()
        self._turn.acquire()

    def sleep(self) -> None:
        """Until it is done, or its caller leads."""
        assert self._turn is not None
        self._turn.acquire()

    def wake(self) -> None:
        """End the sleep of the caller, if it sleeps; a second call does nothing."""
        if self._turn is not None and not self.woken:
            self.woken = True
            self._turn.release()


class _JobError(Exception):
    """A job failed by a fault of its own."""

    def __init__(self, job: Job[Any], error: Exception) -> None:
        super().__init__(error)
        self.job, self.error = job, error


class Writer:
    """Runs jobs in transactions, durably.

    Parameters
    ----------
    db : apsw.Connection
        The writing connection.
    guard : context manager
        Held while the connection is used.
    path : str
        For error messages.
    before : callable
        Called with the connection before each transaction; raises if no promise can be kept.
    after : callable
        Called after each commit, before its callers wake.
    failed : callable
        Called after each failed transaction, with its error.
    """

    # A group's jobs are small rows (streams of any size go alone); this bounds how long its first caller waits.
    GROUP = 500
    # How many groups a caller commits for others beyond its own: a change of leader lets the disk idle meanwhile.
    TURNS = 8

    def __init__(
        self,
        db: apsw.Connection,
        guard: AbstractContextManager[Any],
        path: str,
        before: Callable[[apsw.Connection], None],
        after: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._db, self._guard, self._path = db, guard, path
        self._before, self._after, self._failed = before, after, failed
        self._leading = threading.Lock()
        """Held by whoever leads; passed on, held, to the caller that is woken to lead."""
        self._waiting: deque[Job[Any]] = deque()
        self._closed = False

    def submit(self, job: Job[T]) -> T:
        """Do `job`; returns its result once it is durable."""
        if self._closed:
            raise ClosedError(f"{self._path} was closed")
        if self._leading.acquire(False):
            self._lead([job])
        else:
            job.queue()
            self._waiting.append(job)
            if self._leading.acquire(False):  # whoever led may have looked before the job was queued
                self._lead([])
            elif self._closed and self._withdraw(job):
                raise ClosedError(f"{self._path} was closed; this was not put")
            self._await(job)
        return job.result()

    def close(self) -> None:
        """Fail whoever waits, let the leader finish, and take no more."""
        self._closed = True
        self._leading.acquire()  # never given back: nobody leads any more
        for job in self._next_group(None):
            job.fail(ClosedError(f"{self._path} was closed; this was not put"))
            job.wake()

    def _withdraw(self, job: Job[Any]) -> bool:
        try:
            self._waiting.remove(job)
        except ValueError:
            return False  # a leader has it, or it was chosen to lead
        return True

    def _await(self, job: Job[Any]) -> None:
        try:
            job.sleep()
        except BaseException:  # KeyboardInterrupt: nobody who waits may be left without a leader
            if not self._withdraw(job):
                while not job.woken:
                    time.sleep(0.001)
                if job.leads:
                    self._hand_over()
            raise
        if job.leads:
            self._lead([job])

    def _lead(self, group: list[Job[Any]]) -> None:
        """Commit `group` with all who wait, then those who queued meanwhile, and hand over."""
        try:
            group += self._next_group(self.GROUP)
            turns = self.TURNS
            while group:
                self._commit(group)
                for job in group:
                    job.wake()
                turns -= 1
                group = self._next_group(self.GROUP) if turns else []
        except BaseException as error:  # KeyboardInterrupt
            for job in group:
                if not job.done:
                    job.fail(ClosedError(f"interrupted: it is not known whether this was put ({error!r})"))
                job.wake()
            raise
        finally:
            self._hand_over()

    def _next_group(self, size: int | None) -> list[Job[Any]]:
        group: list[Job[Any]] = []
        if not self._waiting:
            return group
        try:
            while size is None or len(group) < size:
                group.append(self._waiting.popleft())
        except IndexError:
            pass
        return group

    def _hand_over(self) -> None:
        """Whoever waits next leads next."""
        while True:
            for following in self._next_group(1):
                following.leads = True
                following.wake()
                return
            self._leading.release()
            # who queued just before the release could not lead
            if not self._waiting or not self._leading.acquire(False):
                return

    def _commit(self, group: Sequence[Job[Any]]) -> None:
        """All of a group in one transaction: one job's fault is its own, a failed commit is everybody's."""
        while group:
            try:
                with self._guard:
                    self._before(self._db)
                    results = self._run(self._db, group)
            except _JobError as fault:
                fault.job.fail(self._ours(fault.error))
                group = [job for job in group if job is not fault.job]
            except Exception as error:
                self._failed(error)
                for job in group:
                    job.fail(self._ours(error))
                return
            else:
                self._after()
                for job, result in zip(group, results, strict=True):
                    job.succeed(result)
                return

    def _run(self, db: apsw.Connection, group: Sequence[Job[Any]]) -> list[Any]:
        head = group[0]
        kin = head.kin
        if kin is not None and (len(group) == 1 or all(job.kin is kin for job in group)):
            results = head.together(db, group)
            if results is not None:
                return results
        db.execute("BEGIN IMMEDIATE")
        try:
            transaction = Transaction(db)
            results = [self._do(job, transaction) for job in group]
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        transaction.committed()
        return results

    def _do(self, job: Job[T], transaction: Transaction) -> T:
        try:
            return job.run(transaction)
        except apsw.TooBigError as error:
            raise _JobError(job, error) from error
        except apsw.Error:
            raise  # the file's or the disk's fault
        except Exception as error:  # also what the caller's own iterator raised
            raise _JobError(job, error) from error

    def _ours(self, error: Exception) -> Error:
        ours = translate(error, self._path)
        if ours is not error:
            ours.__cause__ = error
        return ours
