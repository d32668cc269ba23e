"""Workers on the partitions of a topic compared with plain Python: loops and single batches of processes that may die
between any two steps, takeovers, seeks, and puts with keys. The order of each key, outputs exactly once, positions."""

import collections
import contextlib
import itertools
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import pqlog
from pqlog import delivery, partitioning
from pqlog.store import owners
from pqlog.store.owners import Fate
from tests import seams
from tests.rings import by_ring

WORKERS = st.integers(0, 2)
KEYS = [f"k{n}" for n in range(6)]


@dataclass
class Claim:
    """The expected state of a batch that is handed out."""

    first: int
    stop: int
    attempt: int
    holder: object = None
    """The batch, as the worker has it; None if it is free."""


@dataclass
class Partition:
    """What a partition is expected to hold, and where its client stands."""

    values: list = field(default_factory=list)
    next: int = 0
    claimed: int = 0
    numbers: int = 0
    claims: dict[int, Claim] = field(default_factory=dict)

    def has_work(self):
        return not self.is_held() and (bool(self.claims) or self.claimed < len(self.values))

    def is_held(self):
        return any(claim.holder is not None for claim in self.claims.values())

    def move_on(self):
        self.next = max(self.next, min((c.first for c in self.claims.values()), default=self.claimed))

    def take(self, size):
        """The number and the state of the batch that is handed out next."""
        if not self.claims:
            self.numbers += 1
            stop = min(self.claimed + size, len(self.values))
            self.claims[self.numbers] = Claim(self.claimed, stop, 0)
            self.claimed = stop
        number, claim = min(self.claims.items())
        claim.attempt += 1
        return number, claim


@dataclass
class Worker:
    """A process: a log of its own, a loop, and what it has been handed."""

    process: str
    log: pqlog.Log
    size: int
    loop: object = None
    batches: list = field(default_factory=list)
    outputs: dict = field(default_factory=dict)
    """By the id of the batch."""


class Partitions(RuleBasedStateMachine):
    partitions, is_ordered = 3, False

    def __init__(self):
        super().__init__()
        self.options = {"ordered": True} if self.is_ordered else {}
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name, "a.db")
        self.names, self.count = itertools.count(), itertools.count()
        self.alive, self.now_in = {"test"}, "test"
        self.patches = [
            # hypothesis repeats its steps: what is by chance, or by the clock, would not be repeated
            mock.patch.object(delivery, "any_of", return_value=0),
            mock.patch.object(partitioning, "any_of", return_value=0),
            mock.patch.object(delivery, "HOT_SHARE", 0),
            mock.patch.object(owners, "this_process", self.this_process),
            mock.patch.object(owners, "fate", lambda process, **_: Fate.LIVES if process in self.alive else Fate.GONE),
        ]
        for patch in self.patches:
            patch.start()
        self.log = pqlog.open(self.path)
        self.topic = self.log.topic("in", partitions=self.partitions)
        self.out = self.log.topic("out", partitions=2)
        self.client = self.topic.client("c")
        self.client.seek("start")
        self.parts = [Partition() for _ in range(self.topic.partitions)]
        self.done = []
        self.workers = [self.start() for _ in range(3)]

    def this_process(self):
        return self.now_in

    @contextlib.contextmanager
    def within(self, worker):
        """Calls that a worker's process makes."""
        self.now_in = worker.process
        try:
            yield worker.log.topic("in").client("c")
        finally:
            self.now_in = "test"

    def start(self):
        process = f"process {next(self.names)}"
        self.alive.add(process)
        self.now_in = process
        log = pqlog.open(self.path)
        self.now_in = "test"
        return Worker(process, log, 2)

    def teardown(self):
        for worker in self.workers:
            with self.within(worker):
                worker.loop = None
                worker.batches.clear()
                worker.log.close()
        self.log.close()
        for patch in self.patches:
            patch.stop()
        self.folder.cleanup()

    # what is put

    @rule(keys=st.lists(st.sampled_from([*KEYS, None]), min_size=1, max_size=8))
    def put(self, keys):
        values = [{"key": key, "n": next(self.count)} for key in keys]
        before = [len(self.topic.partition(number)) for number in range(self.topic.partitions)]
        self.topic.put_many(values, key="key")
        for number, part in enumerate(self.parts):
            part.values += [m.value for m in list(self.topic.partition(number))[before[number] :]]

    # workers

    def current(self, batch):
        """The claim that a batch is, if it is still with its holder."""
        claim = self.parts[batch.partition].claims.get(batch.number)
        return claim if claim is not None and claim.holder is batch else None

    def finish(self, worker, batch):
        """It was acknowledged."""
        part = self.parts[batch.partition]
        del part.claims[batch.number]
        part.move_on()
        self.done += worker.outputs.pop(id(batch), [])

    def handed_out(self, worker, batch, size):
        """Check the batch that a worker got, or None, against what there is."""
        free = [number for number, part in enumerate(self.parts) if part.has_work()]
        if batch is None:
            assert not free
            return
        assert batch.partition in free
        part = self.parts[batch.partition]
        number, claim = part.take(size)
        assert (batch.number, batch.attempt) == (number, claim.attempt)
        assert list(batch) == part.values[claim.first : claim.stop]
        claim.holder = batch
        values = list(batch)
        with self.within(worker):
            batch.put_many(values, topic="out", key="key")
        worker.outputs[id(batch)] = values

    @rule(number=WORKERS, size=st.integers(1, 4))
    def take(self, number, size):
        worker = self.workers[number]
        with self.within(worker) as client:
            batch = client.next_batch(size=size, **self.options)
        self.handed_out(worker, batch, size)
        if batch is not None:
            worker.batches.append(batch)

    @rule(number=WORKERS)
    def go_on(self, number):
        """Ask a loop for the next batch, which acknowledges the one before."""
        worker = self.workers[number]
        with self.within(worker) as client:
            if worker.loop is None:
                worker.loop = client.batches(size=worker.size, **self.options)
            before = worker.loop.open_batch()
            if before is not None and self.current(before) is None:
                with pytest.raises(pqlog.ClaimLostError):
                    next(worker.loop)
                worker.outputs.pop(id(before), None)
                return
            batch = next(worker.loop, None)
        if before is not None:
            self.finish(worker, before)
        self.handed_out(worker, batch, worker.size)

    @precondition(lambda self: any(worker.batches for worker in self.workers))
    @rule(data=st.data(), how=st.sampled_from(["ack", "ack", "release", "drop"]))
    def end(self, data, how):
        worker = data.draw(st.sampled_from([worker for worker in self.workers if worker.batches]))
        batch = worker.batches.pop(data.draw(st.integers(0, len(worker.batches) - 1)))
        claim = self.current(batch)
        with self.within(worker):
            if how == "ack" and claim is not None:
                batch.ack()
                self.finish(worker, batch)
                return
            if how == "ack":
                with pytest.raises(pqlog.ClaimLostError):
                    batch.ack()
            elif how == "release":
                batch.release()
            worker.outputs.pop(id(batch), None)
            if claim is not None:
                claim.holder = None
            del batch
            if how == "drop":
                worker.log.topic("in").client("other").next_batch(**self.options)  # the file is told with the next call

    @rule(number=WORKERS)
    def die(self, number):
        """A process is killed in the midst of its work, and another begins in its place."""
        worker = self.workers[number]
        for part in self.parts:
            for claim in part.claims.values():
                if claim.holder is not None and (claim.holder in worker.batches or self.is_of_loop(worker, claim)):
                    claim.holder = None
        seams.held_claims(worker.log).forget()
        self.alive.discard(worker.process)
        with self.within(worker):
            worker.log.close()
        worker.loop = None
        worker.batches.clear()
        self.workers[number] = self.start()

    def is_of_loop(self, worker, claim):
        return worker.loop is not None and worker.loop.open_batch() is claim.holder

    # the client

    @rule(to=st.sampled_from(["start", "end"]))
    def seek(self, to):
        self.client.seek(to)
        for part in self.parts:
            self.move(part, 0 if to == "start" else len(part.values))

    @rule(data=st.data())
    def seek_one(self, data):
        number = data.draw(st.integers(0, len(self.parts) - 1))
        part = self.parts[number]
        to = data.draw(st.integers(0, len(part.values)))
        self.client.seek(to + 1, partition=number)
        self.move(part, to)

    @staticmethod
    def move(part, to):
        part.claims.clear()
        part.next = part.claimed = to

    @rule()
    def get(self):
        """All that no batch stands in the way of."""
        got = collections.defaultdict(list)
        try:
            for message in self.client.get(messages=True):
                got[message.partition].append(message.value)
        except pqlog.ClaimedError:
            assert any(part.claims for part in self.parts)
        else:
            assert not any(part.claims for part in self.parts)
        for number, part in enumerate(self.parts):
            unread = part.values[part.next :]
            assert got[number] == ([] if part.claims else unread[: len(got[number])])
            if got[number]:
                part.next = part.claimed = part.next + len(got[number])

    # what must hold

    @invariant()
    def each_stands_where_it_should(self):
        position = self.client.position
        assert (position if isinstance(position, dict) else {0: position}) == {
            number: part.next + 1 for number, part in enumerate(self.parts)
        }
        assert self.client.lag == sum(len(part.values) - part.next for part in self.parts)
        found = {(c.partition, c.number): (c.first - 1, c.last, c.attempt) for c in self.client.claims()}
        assert found == {
            (number, of): (claim.first, claim.stop, claim.attempt)
            for number, part in enumerate(self.parts)
            for of, claim in part.claims.items()
        }

    @invariant()
    def outputs_are_there_once_and_in_the_order_of_their_keys(self):
        got = [message.value for number in range(2) for message in self.out.partition(number)]
        for key in KEYS:
            assert [v["n"] for v in got if v["key"] == key] == [v["n"] for v in self.done if v["key"] == key]
        assert len(got) == len(self.done)


class OnePartition(Partitions):
    """One partition in the strict way."""

    partitions, is_ordered = 1, True


SETTINGS = settings(stateful_step_count=40, max_examples=by_ring(8, 40))
TestPartitions, TestOnePartition = Partitions.TestCase, pytest.mark.slow(OnePartition.TestCase)
TestPartitions.settings = TestOnePartition.settings = SETTINGS
