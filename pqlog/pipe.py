"""Pipe: a stage as one call. It passes the frames of one topic through a function into another topic, exactly once."""

from __future__ import annotations

import dataclasses
import multiprocessing
import multiprocessing.connection
import pickle
import secrets
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from pqlog import check, delivery, extras
from pqlog.batch import Batch
from pqlog.client import Client
from pqlog.codecs import is_safe
from pqlog.errors import ArgumentError, WorkerDiedError
from pqlog.files import open
from pqlog.lease import Staged
from pqlog.store.api import IsAFile

POLL_S = 0.2
"""How often the progress bar is updated when there are several workers."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a pipe did.

    Attributes
    ----------
    batches : int
        Batches that were acknowledged, including those that were moved to the dead letters.
    messages_in, messages_out : int
        Messages in these batches, and messages that were put.
    rejected : int
        Messages that were moved to the dead letters.
    seconds : float
        How long it took.
    """

    batches: int
    messages_in: int
    messages_out: int
    rejected: int
    seconds: float

    def __str__(self) -> str:
        rate = self.messages_in / self.seconds if self.seconds else 0
        return (
            f"{self.batches:,} batch{'es' * (self.batches != 1)}, "
            f"{self.messages_in:,} message{'s' * (self.messages_in != 1)} in, {self.messages_out:,} out, "
            f"{self.rejected:,} rejected, {self.seconds:.1f} s, {rate:,.0f} messages/s"
        )


@dataclass(frozen=True, slots=True)
class Job:
    """What each worker of a pipe does; can be pickled if its function can."""

    function: Callable[[Any], Any]
    into: str | None
    key: str | None
    index: bool
    options: delivery.BatchOptions

    def of_crew(self, crew: str, number: int) -> Job:
        """The job of one worker of several.

        A worker of a crew that finds no batch waits for the others: should one die, its batch and what lies behind it
        are left to the rest.
        """
        if not crew:
            return self
        options = dataclasses.replace(self.options, owner=f"{crew}{number}", crew=crew)
        return dataclasses.replace(self, options=options)

    def run(
        self,
        client: Client,
        progress: Callable[[int], object],
        report: Callable[[Summary], object] = lambda summary: None,
    ) -> Summary:
        """Work until there are no more messages; `report` is called with a summary at each acknowledgement."""
        began = time.perf_counter()
        count = messages_in = messages_out = rejected = 0

        def dead_lettered(batch: Batch) -> None:
            nonlocal count, messages_in, rejected
            count, messages_in, rejected = count + 1, messages_in + len(batch), rejected + len(batch)
            progress(len(batch))

        staged: Staged | None = None
        for batch in delivery.Batches(client.partitions, self.options, dead_lettered):
            messages_out += 0 if staged is None else staged.put.messages
            report(Summary(count, messages_in, messages_out, rejected, time.perf_counter() - began))
            try:
                staged = self._work(batch)
            except Exception as error:
                batch.release(error)
                if self.options.attempts is None:
                    raise
                staged = None
                continue
            count, messages_in = count + 1, messages_in + len(batch)
            progress(len(batch))
        messages_out += 0 if staged is None else staged.put.messages
        return Summary(count, messages_in, messages_out, rejected, time.perf_counter() - began)

    def _work(self, batch: Batch) -> Staged | None:
        found = self.function(batch.to_pandas(metadata=False))
        if found is None:
            return None
        if self.into is None:
            raise ArgumentError(f"the function returned a {type(found).__name__}: name a topic for it with into=")
        return batch.put_many(found, topic=self.into, key=self.key, index=self.index)


def run(client: Client, job: Job, workers: int, progress: bool) -> Summary:
    """Run a pipe in this process, or in several."""
    check.count("workers", workers, "processes")
    if not callable(job.function):
        raise ArgumentError(f"function must be callable with a DataFrame, but {job.function!r} is not callable")
    if job.into is not None and client.stream.is_named(job.into):
        raise ArgumentError("a pipe from a topic into itself would never end")
    delivery.join(client.partitions)
    with extras.progress_bar(client.lag, client.name or "pipe", progress) as done:
        if workers == 1:
            return job.run(client, done)
        return _run_processes(client, job, workers, done if progress else None)


def _run_processes(client: Client, job: Job, workers: int, progress: Callable[[int], object] | None) -> Summary:
    stream = client.stream
    log = stream.log
    if not isinstance(log, IsAFile) or not log.capabilities.shared_by_processes:
        raise ArgumentError("a log in memory cannot be shared with other processes: pass workers=1, or use a file")
    try:
        pickle.dumps(job)
        codec = None if is_safe(stream.codec_name) else stream.codec
        pickle.dumps(codec)
    except Exception as error:
        raise ArgumentError(
            f"workers are processes, and the function cannot be sent to them ({error}): define it at the top of a "
            f"module, or pass workers=1"
        ) from error
    began = time.perf_counter()
    is_ordered = job.options.ordered or len(stream.partitions) > 1
    name = f"pipe-{secrets.token_hex(4)}-" if is_ordered else ""
    crew = _Crew((log.path, log.opening, stream.name, codec, client.name), job, workers, name)
    left = client.lag
    for _ in crew.work(None if progress is None else POLL_S):
        if progress is not None:
            progress(left - (left := client.lag))
    done = Summary(
        sum(one.batches for one in crew.done),
        sum(one.messages_in for one in crew.done),
        sum(one.messages_out for one in crew.done),
        sum(one.rejected for one in crew.done),
        time.perf_counter() - began,
    )
    for failure, trace in crew.failures:
        raise failure from _InTheWorker(trace)
    if crew.died:
        raise WorkerDiedError(crew.died, workers, done, client.lag)
    return done


class _Crew:
    """Processes that do a job together; if one of them dies, the others continue.

    Parameters
    ----------
    where : tuple
        What each opens.
    job : Job
    workers : int
        The number of processes.
    name : str
        What their names begin with; empty if none has to wait for the others.
    """

    def __init__(self, where: tuple[Any, ...], job: Job, workers: int, name: str) -> None:
        self._where, self._job, self._workers, self._name = where, job, workers, name
        self._summaries: dict[Connection, Summary] = {}
        self.failures: list[tuple[Exception, str]] = []
        """Exceptions that workers ended with, and their tracebacks."""
        self.died: list[str] = []
        """How workers ended that did not report an exception."""

    @property
    def done(self) -> list[Summary]:
        """The latest summary of each."""
        return list(self._summaries.values())

    def work(self, poll_s: float | None) -> Iterator[None]:
        """Work until all have ended; yields at least every `poll_s` seconds."""
        context = multiprocessing.get_context("spawn")
        crew: dict[Connection, Any] = {}
        try:
            for number in range(self._workers):
                ours, theirs = context.Pipe(duplex=False)
                with theirs:
                    job = self._job.of_crew(self._name, number)
                    process = context.Process(target=_work_in_process, args=(theirs, *self._where, job))
                    process.start()
                crew[ours] = process
            listening = list(crew)
            while listening:
                for one in multiprocessing.connection.wait(listening, poll_s):
                    assert isinstance(one, Connection)
                    if not self._listen(one):
                        listening.remove(one)
                yield
        except BaseException:
            for process in crew.values():
                process.terminate()
            raise
        finally:
            for one, process in crew.items():
                process.join()
                one.close()
                self._look_at(process.exitcode)

    def _listen(self, one: Connection) -> bool:
        """Take a message from a worker; False when it has ended."""
        try:
            said = one.recv()
        except (EOFError, OSError):  # it has ended, perhaps in the middle of a message
            return False
        if isinstance(said, Summary):
            self._summaries[one] = said
        else:
            self.failures.append(said)
        return True

    def _look_at(self, exit_code: int) -> None:
        if exit_code < 0:
            self.died.append(f"killed by signal {-exit_code}")
        elif exit_code > 0:
            self.died.append(f'exit code {exit_code}: a script that starts workers needs if __name__ == "__main__":')


class _InTheWorker(Exception):
    """The traceback of an exception that was raised in another process."""

    def __init__(self, trace: str) -> None:
        super().__init__(f"in the worker:\n{trace}")


def _work_in_process(
    out: Connection, path: str, opening: Mapping[str, Any], topic: str, codec: Any, client: str, job: Job
) -> None:
    try:
        with open(path, topic, codec, **opening) as log:
            out.send(job.run(log.client(client), lambda _: None, out.send))
    except Exception as error:
        trace = traceback.format_exc()
        try:
            pickle.loads(pickle.dumps(error))  # noqa: S301 - it is our own
        except Exception:
            error = RuntimeError(f"{type(error).__name__}: {error}")
        out.send((error, trace))
    finally:
        out.close()
