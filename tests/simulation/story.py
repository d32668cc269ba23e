"""A log on the simulated disk, what it should hold after each step, and power cuts at any moment of it.

Hypothesis tells the story: puts, clients, stages, trims, reopenings, power cuts. After each step, which is one commit,
the state that a user may rely on is recorded with the number of disk events so far. A power cut at an event in
between must leave the state of the last step that had returned, or that of the step that was running: nothing else.
"""

from __future__ import annotations

import contextlib
import copy
import os
import random
import shutil
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pandas as pd
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

import pqlog
from pqlog.store.sqlite import checkpointer
from tests import seams
from tests.messages import offsets
from tests.simulation.disk import Disk, write

CUTS = int(os.environ.get("PQLOG_CUTS", "2"))
"""How many of the states that one power cut can leave are examined."""

counts = {"power cuts": 0}


@dataclass
class State:
    """What a user may rely on."""

    values: dict[str, list] = field(default_factory=lambda: {"main": [], "out": []})
    first: int = 1
    ids: dict[str, int] = field(default_factory=dict)
    cursor: object = None
    reader: int = 1
    """The position of a client that gets messages one by one."""
    stage: int = 1
    """The position of a client that gets batches."""
    numbers: int = 0
    claims: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    """Its open batches: first offset, the offset after the last, attempts."""
    claimed: int = 1


def seen(log: pqlog.Log) -> State:
    """The state that a log shows."""
    state = State()
    for name in state.values:
        if name in log.topics():
            state.values[name] = [message.value for message in log.topic(name)]
    state.first = seams.first(log)
    found = {id: seams.find_id(log, id) for id in "abc"}
    state.ids = {id: span.first for id, span in found.items() if span is not None}
    state.cursor = log.cursor("source")
    clients = {client.client: client for client in log.clients()}
    if "reader" in clients:
        state.reader = clients["reader"].position
    if "stage" in clients:
        state.stage, state.numbers = clients["stage"].position, clients["stage"].batches
        state.claims = {c.number: (c.first, c.last + 1, c.attempt) for c in log.client("stage").claims()}
        state.claimed = seams.first_unclaimed(log, "stage")
    return state


class AtOnce:
    """A thread that the system runs to its end as soon as it starts."""

    ident = None

    def __init__(self, target, **_):
        self.start = target

    def is_alive(self):
        """It has ended when `start` returns."""
        return False


class Story(RuleBasedStateMachine):
    """The story, told by hypothesis; see the module."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="pqlog-story-"))
        at_once = SimpleNamespace(Thread=AtOnce, RLock=threading.RLock)
        self.checkpoints = mock.patch.multiple(checkpointer, PAGES=30, threading=at_once)
        self.checkpoints.start()  # in short stories too, and at the same events when a story is repeated
        self.listening = contextlib.ExitStack()
        self.opened = 0
        self.count = 0
        self.state = State()
        self.start({})

    def start(self, files: dict[str, bytes]) -> None:
        """Continue with a disk that has these files."""
        self.opened += 1
        folder = self.folder / str(self.opened)
        write(folder, files)
        self.listening.close()
        self.disk = Disk(folder)
        self.listening.enter_context(self.disk.listening())
        self.steps = [(0, copy.deepcopy(self.state))]
        self.held = None
        self.lost: list = []  # must not be closed before the log is
        self.open()

    def open(self) -> None:
        self.log = pqlog.open(self.disk.folder / "a.db", vfs=self.disk.vfs_name)
        self.log.topic("out")
        self.step()

    def close(self) -> None:
        self.log.close()  # before the iterators, which would release their batches
        self.held, self.lost = None, []

    def teardown(self) -> None:
        try:
            self.close()
        finally:
            self.listening.close()
            self.checkpoints.stop()
            shutil.rmtree(self.folder, ignore_errors=True)

    def step(self) -> None:
        """Something has returned: from here on it must survive."""
        self.steps.append((self.disk.now, copy.deepcopy(self.state)))

    def new(self, count: int) -> list:
        self.count += count
        return [{"n": n} for n in range(self.count - count, self.count)]

    # putting

    @rule()
    def put(self):
        (value,) = self.new(1)
        assert self.log.put(value, key=f"k{value['n']}") == len(self.state.values["main"]) + 1
        self.state.values["main"].append(value)
        self.step()

    @rule(count=st.sampled_from([0, 2, 5, 300]), frame=st.booleans(), cursor=st.booleans())
    def put_many(self, count, frame, cursor):
        values = self.new(count)
        rows = pd.DataFrame(values, columns=["n"]) if frame else values
        stop = len(self.state.values["main"]) + 1
        went = self.log.put_many(rows, cursor=("source", self.count, self.state.cursor) if cursor else None)
        assert offsets(went) == range(stop, stop + count)
        self.state.values["main"] += values
        if cursor:
            self.state.cursor = self.count
        self.step()

    @rule(id=st.sampled_from("abc"))
    def put_with_id(self, id):
        (value,) = self.new(1)
        offset = self.log.put(value, id=id)
        if id in self.state.ids:
            assert offset == self.state.ids[id]
        else:
            self.state.values["main"].append(value)
            assert offset == len(self.state.values["main"])
            self.state.ids[id] = offset
        self.step()

    # reading

    def join(self, client):
        """A new client begins at the first message that is kept: a commit of its own."""
        seams.join(self.log, client)
        if client == "reader":
            self.state.reader = max(self.state.reader, self.state.first)
        else:
            self.state.stage = max(self.state.stage, self.state.first)
            self.state.claimed = max(self.state.claimed, self.state.first)
        self.step()

    @rule(count=st.integers(1, 4))
    def get(self, count):
        """Ask for this many messages, and stop while processing the last one."""
        self.join("reader")
        reader = self.log.get("reader")
        for number in range(count):
            value = next(reader, None)
            if number:  # asked past the one before
                self.state.reader += 1
                self.step()
            at = max(self.state.reader, self.state.first)
            main = self.state.values["main"]
            assert value == (main[at - 1] if at <= len(main) else None)
            if value is None:
                break
            self.state.reader = at
        self.lost.append(reader)

    # stages

    @rule(size=st.integers(1, 4))
    def take(self, size):
        self.join("stage")
        reading = self.log.batches("stage", size=size, owner="worker")  # who takes over its batches
        self.lost.append(self.held)
        self.took(next(reading, None), size, reading)

    def took(self, batch, size, reading):
        state = self.state
        if state.claims:
            number = min(state.claims)
            first, stop, attempt = state.claims[number]
        else:
            number, attempt = state.numbers + 1, 0
            first = max(state.claimed, state.first)
            stop = min(first + size, len(state.values["main"]) + 1)
            if first >= stop:
                assert batch is None
                self.held = None
                self.step()
                return
            state.numbers, state.claimed = number, stop
        state.claims[number] = (first, stop, attempt + 1)
        assert (batch.number, batch.first, batch.last + 1, batch.attempt) == (number, first, stop, attempt + 1)
        assert list(batch) == state.values["main"][first - 1 : stop - 1]
        self.held = batch, reading, []
        self.step()

    @precondition(lambda self: self.held)
    @rule(frame=st.booleans())
    def put_through(self, frame):
        batch, _, outputs = self.held
        values = [{"of": value["n"]} for value in batch]
        batch.put_many(pd.DataFrame(values) if frame else values, topic="out")
        outputs += values

    def finished(self):
        batch, _, outputs = self.held
        del self.state.claims[batch.number]
        reached = min([claim[0] for claim in self.state.claims.values()] + [self.state.claimed])
        self.state.stage = max(self.state.stage, reached)
        self.state.values["out"] += outputs

    @precondition(lambda self: self.held)
    @rule(size=st.just(3))
    def acknowledge(self, size):
        self.held[0].ack()
        self.finished()
        self.step()
        self.lost.append(self.held)
        self.held = None

    @precondition(lambda self: self.held)
    @rule()
    def release(self):
        self.held[0].release()
        self.step()
        self.lost.append(self.held)
        self.held = None

    @rule(batches=st.integers(1, 3), size=st.integers(1, 3))
    def loop(self, batches, size):
        """A stage's loop: asking for the next batch acknowledges the one before, in the same commit."""
        self.take(size)
        for _ in range(batches):
            if self.held is None:
                return
            self.put_through(frame=False)
            _, reading, _ = self.held
            batch = next(reading, None)
            self.finished()
            self.took(batch, size, reading)

    # keeping

    @rule(client=st.sampled_from(["reader", "stage"]), to=st.integers(1, 30))
    def seek(self, client, to):
        self.log.client(client).seek(to=to)
        at = min(max(to, self.state.first), len(self.state.values["main"]) + 1)
        if client == "reader":
            self.state.reader = at
        else:
            self.state.stage, self.state.claimed, self.state.claims = at, at, {}
            self.lost.append(self.held)
            self.held = None
        self.step()

    @rule(before=st.integers(1, 400))
    def trim(self, before):
        known = {client.client for client in self.log.clients()}
        positions = {"reader": self.state.reader, "stage": self.state.stage}
        least = min([positions[name] for name in known] or [before])
        self.log.trim(before=min(before, max(1, least)))
        first = max(self.state.first, min(before, least, len(self.state.values["main"]) + 1))
        self.state.first = first
        self.state.ids = {id: offset for id, offset in self.state.ids.items() if offset >= first}
        self.step()

    @rule()
    def checkpoint(self):
        seams.checkpoint(self.log)

    @rule()
    def compact(self):
        self.log.compact()
        self.step()

    @rule()
    def reopen(self):
        self.close()
        self.step()
        self.open()

    @rule(back=st.integers(0, 6) | st.integers(0, 60), seed=st.integers(0, 2**32))
    def power_cut(self, back, seed):
        """At one of the latest events; examine some of the states that it may leave, and continue with the last."""
        at = max(0, self.disk.now - back)
        returned = max(index for index, (event, _) in enumerate(self.steps) if event <= at)
        possible = [state for _, state in self.steps[returned : returned + 2]]
        self.close()
        chance = random.Random(seed)
        for number in range(CUTS):
            files = self.disk.cut(at, chance)
            folder = self.folder / f"{self.opened}-{at}-{number}"
            write(folder, files)
            with pqlog.open(folder / "a.db") as log:
                state = seen(log)
                state.values["main"] = (possible[-1].values["main"])[: state.first - 1] + state.values["main"]
                assert state in possible, f"after a power cut at event {at}: {state} is none of {possible}"
                assert log.verify() == []
                assert log.put("new") == len(state.values["main"]) + 1
                assert log[-1].value == "new"
            shutil.rmtree(folder)
            counts["power cuts"] += 1
        self.state = state
        self.start(files)


__all__ = ["Story", "counts"]
