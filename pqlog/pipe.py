"""Pipe: a stage as one call. Frames of one topic through a function into another, exactly once."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pqlog import arguments, batches, clients, delivery, extras
from pqlog.errors import ArgumentError
from pqlog.log import Topic, open
from pqlog.source import Source

POLL_S = 0.2
"""How often the bar of several workers is drawn."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a pipe did.

    Attributes
    ----------
    batches : int
        Batches that were acknowledged, those that were given up included.
    messages_in, messages_out : int
        Messages of these batches, and messages that were put.
    rejected : int
        Messages that went to the dead letters.
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
            f"{self.batches:,} batches, {self.messages_in:,} messages in, {self.messages_out:,} out, "
            f"{self.rejected:,} rejected, {self.seconds:.1f} s, {rate:,.0f} messages/s"
        )


@dataclass(frozen=True, slots=True)
class Job:
    """What each worker of a pipe does; can be pickled if its function can."""

    client: str | None
    function: Callable[[Any], Any]
    into: str | None
    key: str | None
    wish: delivery.Wish

    def run(self, source: Source, sibling: batches.Sibling, progress: Callable[[int], object]) -> Summary:
        """Work until there is nothing more."""
        began = time.perf_counter()
        count = messages_in = messages_out = rejected = 0

        def buried(batch: batches.Batch) -> None:
            nonlocal count, messages_in, rejected
            count, messages_in, rejected = count + 1, messages_in + len(batch), rejected + len(batch)
            progress(len(batch))

        staged: batches.Staged | None = None
        for batch in delivery.Batches(source, self.client, self.wish, sibling, buried):
            messages_out += 0 if staged is None else len(staged.offsets)
            try:
                staged = self._work(batch)
            except Exception as error:
                batch.release(error)
                if self.wish.attempts is None:
                    raise
                staged = None
                continue
            count, messages_in = count + 1, messages_in + len(batch)
            progress(len(batch))
        messages_out += 0 if staged is None else len(staged.offsets)
        return Summary(count, messages_in, messages_out, rejected, time.perf_counter() - began)

    def _work(self, batch: batches.Batch) -> batches.Staged | None:
        found = self.function(batch.to_pandas(meta=False))
        if found is None:
            return None
        if self.into is None:
            raise ArgumentError(f"the function returned a {type(found).__name__}: say into which topic with into=")
        return batch.put_many(found, topic=self.into, key=self.key)


def run(topic: Topic, job: Job, workers: int, progress: bool) -> Summary:
    """Run a pipe in this process, or in several."""
    arguments.count("workers", workers, "processes")
    if not callable(job.function):
        raise ArgumentError(f"function is called with a DataFrame, but {job.function!r} cannot be called")
    if job.into == topic.name:
        raise ArgumentError("a pipe from a topic into itself would never end")
    client = clients.join(topic._source, job.client)
    with extras.progress_bar(client.lag, job.client or "pipe", progress) as done:
        if workers == 1:
            return job.run(topic._source, topic._sibling, done)
        return _run_processes(topic, job, workers, done if progress else None)


def _run_processes(topic: Topic, job: Job, workers: int, progress: Callable[[int], object] | None) -> Summary:
    path = topic._engine.path
    if path == ":memory:":
        raise ArgumentError("a log in memory is this process's alone: workers=1, or open a file")
    try:
        pickle.dumps(job)
        codec = topic._codec if topic._codec is not None and topic.codec not in _PLAIN else None
        pickle.dumps(codec)
    except Exception as error:
        raise ArgumentError(
            f"workers are processes, and the function cannot be sent to them ({error}): define it at the top of a "
            f"module, or pass workers=1"
        ) from error
    began = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
        running = [pool.submit(_work_in_process, path, topic.name, codec, job) for _ in range(workers)]
        left = topic.lag(job.client)
        while True:
            done, _ = concurrent.futures.wait(running, None if progress is None else POLL_S)
            if progress is not None:
                progress(left - (left := topic.lag(job.client)))
            if len(done) == workers:
                break
        found = [future.result() for future in running]
    return Summary(
        sum(one.batches for one in found),
        sum(one.messages_in for one in found),
        sum(one.messages_out for one in found),
        sum(one.rejected for one in found),
        time.perf_counter() - began,
    )


_PLAIN = ("json", "msgpack", "bytes")


def _work_in_process(path: str, topic: str, codec: Any, job: Job) -> Summary:
    with open(path, topic, codec) as log:
        return job.run(log._source, log._sibling, lambda _: None)
