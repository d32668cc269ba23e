"""The one writer of a file, and group commit: whoever waits for a commit shares it with all who wait.

Each caller queues its job. If nobody leads, it leads: it runs all jobs that are queued in one transaction, commits,
and wakes their callers; whoever queued meanwhile leads next. So one sync pays for all who came during the last one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar, cast

import apsw

from pqlog.errors import ClosedError, Error
from pqlog.store.sqlite.connections import row, translate

T = TypeVar("T")


class Transaction:
    """What a job is given: the connection inside a transaction, and what was already looked up in it."""

    __slots__ = ("_tails", "db")

    def __init__(self, db: apsw.Connection) -> None:
        self.db = db
        self._tails: dict[str, tuple[int, int]] = {}

    def tail(self, table: str, query: str) -> tuple[int, int]:
        """The next offset of a topic and the time that must not be run behind."""
        tail = self._tails.get(table)
        if tail is None:
            tail = self._tails[table] = row(self.db.execute(query)) or (1, 0)
        return tail

    def set_tail(self, table: str, stop: int, time: int) -> None:
        """Note that messages were appended."""
        self._tails[table] = (stop, time)


class Job(Generic[T]):
    """Something to do in a transaction; run again, from the start, if the transaction was rolled back."""

    __slots__ = ("_result", "_turn", "alone", "done", "error", "leads", "run")

    def __init__(
        self, run: Callable[[Transaction], T], alone: Callable[[apsw.Connection], T | None] | None = None
    ) -> None:
        self.run = run
        self.alone = alone
        """A shorter way that is a transaction by itself, for when nobody else waits; None says that it did nothing."""
        self.done = False
        self.leads = False
        """Whether its caller was woken to lead."""
        self.error: BaseException | None = None
        self._result: T | None = None
        self._turn: threading.Lock | None = None

    def succeed(self, result: T) -> None:
        self._result, self.done = result, True

    def fail(self, error: BaseException) -> None:
        self.error, self.done = error, True

    def result(self) -> T:
        if self.error is not None:
            raise self.error
        return cast(T, self._result)

    def queue(self) -> None:
        """Make the caller able to sleep."""
        self._turn = threading.Lock()
        self._turn.acquire()

    def sleep(self) -> None:
        """Until it is done, or its caller leads."""
        assert self._turn is not None
        self._turn.acquire()

    def wake(self) -> None:
        if self._turn is not None:
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
    lend : callable
        Gives the writing connection, for the time of one transaction.
    path : str
        For error messages.
    before : callable
        Called with the connection before each transaction; raises if no promise can be kept.
    after : callable
        Called after each commit, before its callers wake.
    """

    # A group's jobs are small rows (streams of any size go alone); this bounds how long its first caller waits.
    GROUP = 1000

    def __init__(
        self,
        lend: Callable[[], AbstractContextManager[apsw.Connection]],
        path: str,
        before: Callable[[apsw.Connection], None],
        after: Callable[[], None],
    ) -> None:
        self._lend, self._path, self._before, self._after = lend, path, before, after
        self._mutex = threading.Lock()
        self._waiting: deque[Job[Any]] = deque()
        self._led = False
        self._closed = False

    def submit(self, job: Job[T]) -> T:
        """Do `job`; returns its result once it is durable."""
        with self._mutex:
            if self._closed:
                raise ClosedError(f"{self._path} was closed")
            leads = not self._led
            if leads:
                self._led = True
            else:
                job.queue()
            self._waiting.append(job)
        if not leads:
            self._await(job)
        if not job.done:
            self._lead()
        return job.result()

    def close(self) -> None:
        """Fail whoever waits, let the leader finish, and take no more."""
        with self._mutex:
            self._closed = True
            waiting, self._waiting = self._waiting, deque()
        for job in waiting:
            job.fail(ClosedError(f"{self._path} was closed; this was not put"))
            job.wake()

    def _await(self, job: Job[Any]) -> None:
        try:
            job.sleep()
        except BaseException:  # KeyboardInterrupt: nobody who waits may be left without a leader
            with self._mutex:
                queued = job in self._waiting
                if queued:
                    self._waiting.remove(job)
            if queued and job.leads:
                self._hand_over()
            raise

    def _lead(self) -> None:
        """One thread leads; the others wait for its commit."""
        with self._mutex:
            group = [self._waiting.popleft() for _ in range(min(len(self._waiting), self.GROUP))]
        try:
            self._commit(group)
        except BaseException as error:
            for job in group:
                if not job.done:
                    job.fail(ClosedError(f"interrupted: it is not known whether this was put ({error!r})"))
            raise
        finally:
            self._hand_over()
            for job in group:
                job.wake()

    def _hand_over(self) -> None:
        """Whoever waits next leads next."""
        with self._mutex:
            following = self._waiting[0] if self._waiting else None
            self._led = following is not None
            if following is not None:
                following.leads = True
                following.wake()

    def _commit(self, group: list[Job[Any]]) -> None:
        """All of a group in one transaction: one job's fault is its own, a failed commit is everybody's."""
        while group:
            try:
                with self._lend() as db:
                    self._before(db)
                    results = self._run(db, group)
            except _JobError as failed:
                failed.job.fail(self._ours(failed.error))
                group = [job for job in group if job is not failed.job]
            except Exception as error:
                for job in group:
                    job.fail(self._ours(error))
                return
            else:
                self._after()
                for job, result in zip(group, results, strict=True):
                    job.succeed(result)
                return

    def _run(self, db: apsw.Connection, group: list[Job[Any]]) -> list[Any]:
        if len(group) == 1 and group[0].alone is not None:
            result = group[0].alone(db)
            if result is not None:
                return [result]
        db.execute("BEGIN IMMEDIATE")
        try:
            transaction = Transaction(db)
            results = [self._do(job, transaction) for job in group]
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        return results

    def _do(self, job: Job[T], transaction: Transaction) -> T:
        try:
            return job.run(transaction)
        except (Error, apsw.TooBigError) as error:
            raise _JobError(job, error) from error

    def _ours(self, error: Exception) -> Error:
        ours = translate(error, self._path)
        if ours is not error:
            ours.__cause__ = error
        return ours
