"""Stages of several clients and workers compared with plain Python: crashes between any two steps, releases, takeovers,
rejections, seeks, time that passes and clocks that are set back; once where it is known which process lives, and once
where nothing is known of others."""

import itertools
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import pqlog
from pqlog.store import owners
from pqlog.store.sqlite import claims
from tests import seams
from tests.rings import by_ring

CLIENTS = st.sampled_from(["a", "b"])
WORKERS = st.sampled_from(["w1", "w2", "w3"])
LEASE = claims.LEASE_S * 1_000_000


@dataclass
class Claim:
    """The expected state of a batch that is handed out."""

    first: int
    stop: int
    attempt: int
    worker: str
    expires: int
    process: str = ""
    holder: object = None
    error: str | None = None


@dataclass
class Client:
    """The expected state of a client."""

    next: int = 1
    claimed: int = 1
    numbers: int = 0
    claims: dict[int, Claim] = field(default_factory=dict)

    def move_on(self):
        self.next = max(self.next, min((c.first for c in self.claims.values()), default=self.claimed))


@dataclass
class Held:
    """A batch that a worker holds, or has lost without knowing."""

    client: str
    batch: pqlog.Batch
    outputs: list = field(default_factory=list)


class Stages(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name, "a.db")
        self.shift = 0
        self.clock = mock.patch.object(claims, "now_micros", self.now)
        self.clock.start()
        self.processes = itertools.count()
        self.process = self.begin_process()
        self.log = pqlog.open(self.path)
        self.values = {"main": [], "out": [], "bad": []}
        for name in self.values:
            self.log.topic(name)
        self.clients = {"a": Client(), "b": Client()}
        self.held = []
        self.count = itertools.count()

    def begin_process(self):
        """The state of this process, from one crash to the next."""
        return owners.this_process()

    def is_gone(self, claim, now):
        """Whether a process is alive when this one holds none of its claims; shortens leases that are too long."""
        return claim.process != self.process

    def now(self):
        return time.time_ns() // 1000 + self.shift

    def teardown(self):
        self.log.close()
        self.clock.stop()
        self.folder.cleanup()

    @rule(count=st.integers(1, 6), frame=st.booleans())
    def put(self, count, frame):
        values = [{"n": next(self.count)} for _ in range(count)]
        self.log.put_many(pd.DataFrame(values) if frame else values)
        self.values["main"] += values

    @rule(client=CLIENTS, worker=WORKERS, size=st.integers(1, 4))
    def take(self, client, worker, size):
        model = self.clients[client]
        batch = self.log.client(client).next_batch(size=size, owner=worker)
        now = self.now()
        for claim in model.claims.values():
            if claim.worker and self.is_gone(claim, now):
                claim.worker = ""
        free = [n for n, c in sorted(model.claims.items()) if c.worker in ("", worker)]
        if free:
            number = free[0]
            claim = model.claims[number]
            claim.attempt, claim.worker = claim.attempt + 1, worker
        else:
            stop = min(model.claimed + size, len(self.values["main"]) + 1)
            if stop <= model.claimed:
                assert batch is None
                return
            number = model.numbers = model.numbers + 1
            claim = model.claims[number] = Claim(model.claimed, stop, 1, worker, 0)
            model.claimed = stop
        assert (batch.number, batch.first, batch.last + 1) == (number, claim.first, claim.stop)
        assert (batch.attempt, batch.error) == (claim.attempt, claim.error)
        assert list(batch) == self.values["main"][claim.first - 1 : claim.stop - 1]
        claim.expires, claim.process = now + LEASE, self.process
        claim.holder = batch
        self.held.append(Held(client, batch))

    def current(self, held):
        claim = self.clients[held.client].claims.get(held.batch.number)
        return claim if claim is not None and claim.holder is held.batch else None

    def some(self, data):
        return self.held[data.draw(st.integers(0, len(self.held) - 1))]

    @precondition(lambda self: self.held)
    @rule(data=st.data(), frame=st.booleans())
    def stage(self, data, frame):
        held = self.some(data)
        values = [{"of": value["n"]} for value in held.batch]
        held.batch.put_many(pd.DataFrame(values) if frame else values, topic="out")
        held.outputs += [("out", value) for value in values]

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def reject(self, data):
        held = self.some(data)
        message = next(iter(held.batch.messages()))
        held.batch.reject(message, "no", topic="bad")
        held.outputs.append(("bad", message.value))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def acknowledge(self, data):
        held = self.some(data)
        self.held.remove(held)
        if self.current(held) is None:
            with pytest.raises(pqlog.ClaimLostError):
                held.batch.ack()
            return
        held.batch.ack()
        model = self.clients[held.client]
        del model.claims[held.batch.number]
        model.move_on()
        for topic, value in held.outputs:
            self.values[topic].append(value)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), failed=st.booleans())
    def release(self, data, failed):
        held = self.some(data)
        self.held.remove(held)
        claim = self.current(held)
        held.batch.release(ValueError("no") if failed else None)
        if claim is not None:
            claim.worker, claim.holder = "", None
            claim.error = "ValueError: no" if failed else None

    @rule(client=CLIENTS, to=st.integers(1, 20))
    def seek(self, client, to):
        model = self.clients[client]
        self.log.client(client).seek(to=to)
        model.claims.clear()
        model.next = model.claimed = min(to, len(self.values["main"]) + 1)

    @rule(seconds=st.sampled_from([61, 3600, -3600]))
    def time_passes(self, seconds):
        self.shift += seconds * 1_000_000

    @rule()
    def crash(self):
        """All workers die in the middle of their work; the file is opened again."""
        seams.held_claims(self.log).forget()
        self.log.close()
        self.held = []
        self.process = self.begin_process()
        self.log = pqlog.open(self.path)
        for client in self.clients.values():
            for claim in client.claims.values():
                claim.holder = None

    @invariant()
    def all_is_as_it_should_be(self):
        for name, values in self.values.items():
            assert [message.value for message in self.log.topic(name)] == values
            times = [message.time for message in self.log.topic(name)]
            assert times == sorted(times)
        known = {client.client for client in self.log.clients()}
        for name, model in self.clients.items():
            if name not in known:
                assert not model.claims
                continue
            assert self.log.client(name).position == model.next
            found = {c.number: (c.first, c.last + 1, c.attempt, c.error) for c in self.log.client(name).claims()}
            assert found == {n: (c.first, c.stop, c.attempt, c.error) for n, c in model.claims.items()}


class StagesElsewhere(Stages):
    """Nothing is known about the processes from before a crash: they may be on other hosts, and alive."""

    def begin_process(self):
        process = f"elsewhere@{next(self.processes)}:1:boot"
        if hasattr(self, "elsewhere"):
            self.elsewhere.stop()
        self.elsewhere = mock.patch.object(owners, "this_process", return_value=process)
        self.elsewhere.start()
        return process

    def is_gone(self, claim, now):
        if claim.process == self.process:
            return False
        claim.expires = min(claim.expires, now + LEASE)  # from a clock that has been set back since
        return claim.expires < now

    def teardown(self):
        super().teardown()
        self.elsewhere.stop()


SETTINGS = settings(stateful_step_count=40, max_examples=by_ring(10, 100))
TestStages, TestStagesElsewhere = Stages.TestCase, pytest.mark.slow(StagesElsewhere.TestCase)
TestStages.settings = TestStagesElsewhere.settings = SETTINGS
