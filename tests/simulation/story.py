"""A log on the simulated disk, what it should hold after each step, and power cuts at any moment of it.

Hypothesis tells the story: puts, clients, stages, trims, reopenings, power cuts, over topics of one partition or of
three. After each step, which is one commit, the state that a user may rely on is recorded with the number of disk
events so far. A power cut at an event in between must leave the state of the last step that had returned, or that of
the step that was running: nothing else.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import os
import random
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import pandas as pd
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

import pqlog
from pqlog import delivery
from pqlog.message import from_micros, to_micros
from pqlog.partitioning import partition_of
from pqlog.store import sealed
from pqlog.store.sqlite import checkpointer, claims, sealing
from tests import seams
from tests.simulation.disk import Disk, write

CUTS = int(os.environ.get("PQLOG_CUTS", "2"))
"""How many of the states that one power cut can leave are examined."""
IDS = "abcd"

OFFSETS = st.tuples(st.just("offset"), st.integers(1, 30))
ENDS = st.tuples(st.just("end"), st.sampled_from(["start", "end"]))
TIMES = st.tuples(st.just("time"), st.integers(0, 30))

counts = {"power cuts": 0}


class Kept(NamedTuple):
    """A message that is kept."""

    time: int
    partition: int
    offset: int
    value: Any


@dataclass
class Client:
    """Where a client stands in a partition."""

    position: int
    numbers: int = 0
    claimed: int = 0
    claims: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    """Its open batches: first offset, the offset after the last, attempts."""


@dataclass
class State:
    """What a user may rely on."""

    messages: dict[str, list[Kept]] = field(default_factory=lambda: {"main": [], "out": []})
    """By topic, in the order in which they are read: merged by time, partition and offset."""
    bounds: dict[str, list[list[int]]] = field(default_factory=dict)
    """By topic and partition: the first offset that is kept, and the next one."""
    ids: dict[str, dict[int, int]] = field(default_factory=dict)
    """The first offset, by partition, of what is kept of what was put with an id."""
    cursor: object = None
    clients: dict[str, list[Client]] = field(default_factory=dict)
    """By name and partition: "reader" gets messages one by one, "stage" gets batches."""
    newest: dict[str, int] = field(default_factory=lambda: {"main": 0, "out": 0}, compare=False)
    """The time of the newest message that was ever put into each topic; no look at a log shows it."""
    ends: dict[str, dict[int, int]] = field(default_factory=dict, compare=False)
    """Behind the last message that an id was used for, by partition."""

    def of(self, partition: int) -> list[Kept]:
        """What the topic "main" keeps in a partition."""
        return [message for message in self.messages["main"] if message.partition == partition]


def seen(log: pqlog.Log) -> State:
    """The state that a log shows."""
    state = State()
    for name in state.messages:
        if name in log.topics():
            topic = log.topic(name)
            state.messages[name] = [Kept(to_micros(m.time), m.partition, m.offset, m.value) for m in topic]
            state.bounds[name] = [list(span) for span in seams.spans(topic)]
    found = {id: seams.find_id(log, id) for id in IDS}
    state.ids = {id: {number: put.first for number, put in went.items()} for id, went in found.items() if went}
    state.cursor = log.cursor("source")
    for client in log.clients():
        positions = client.position if log.partitions > 1 else {0: client.position}
        state.clients[client.client] = [Client(position) for _, position in sorted(positions.items())]
        if client.client == "stage":
            for one, stands in zip(state.clients["stage"], seams.states(log, "stage"), strict=True):
                one.numbers, one.claimed = (stands.batches, stands.unclaimed.first) if stands else (0, one.position)
            for c in log.client("stage").claims():
                state.clients["stage"][c.partition].claims[c.number] = c.first, c.last + 1, c.attempt
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
        self.clock = 1_700_000_000_000_000
        self.turn = 0
        self.patches = contextlib.ExitStack()
        at_once = SimpleNamespace(Thread=AtOnce, RLock=threading.RLock)
        for patch in (
            mock.patch.multiple(checkpointer, PAGES=30, threading=at_once),  # in short stories too...
            mock.patch.object(claims, "now_micros", side_effect=lambda: self.clock),
            mock.patch.object(sealing, "LEAST", 2),
            mock.patch.object(sealed, "MAX_ROWS", 5),
            mock.patch.object(delivery, "any_of", lambda count: self.turn % count),
        ):
            self.patches.enter_context(patch)  # ... and at the same events when a story is repeated
        self.listening = contextlib.ExitStack()
        self.opened = 0
        self.count = 0
        self.state = State()

    @initialize(partitions=st.sampled_from([1, 3]))
    def begin(self, partitions):
        self.partitions = partitions
        self.state.bounds["main"] = self.new_bounds()
        self.start({})

    def new_bounds(self):
        return [[1, 1] for _ in range(self.partitions)]

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
        for client in self.state.clients:
            seams.join(self.log, client)  # the cut may have come when it was known in some partitions

    def open(self) -> None:
        self.log = pqlog.open(self.disk.folder / "a.db", vfs=self.disk.vfs_name, partitions=self.partitions)
        self.make_out()

    def make_out(self):
        self.log.topic("out", partitions=self.partitions)
        self.state.bounds.setdefault("out", self.new_bounds())
        self.step()

    def close(self) -> None:
        self.log.close()  # before the iterators, which would release their batches
        self.held, self.lost = None, []

    def teardown(self) -> None:
        try:
            if self.opened:
                self.close()
        finally:
            self.listening.close()
            self.patches.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def step(self) -> None:
        """Something has returned: from here on it must survive."""
        self.steps.append((self.disk.now, copy.deepcopy(self.state)))

    @rule(micros=st.sampled_from([-1_000_000, 1, 1_000_000]))
    def pass_time(self, micros):
        """The clock stands otherwise."""
        self.clock += micros

    # putting

    def new(self, count: int) -> list:
        self.count += count
        return [{"n": n, "k": f"k{n % 7}"} for n in range(self.count - count, self.count)]

    def by_key(self, values: Iterable[dict], key: str = "k") -> Iterator[tuple[int, dict]]:
        """The values, each with the partition of its key."""
        return ((partition_of(str(value[key]), self.partitions), value) for value in values)

    def put_into(self, topic: str, values: Iterable[tuple[int, Any]]) -> dict[int, list[int]]:
        """Note that values were put in one call, each into a partition; their offsets."""
        state, went = self.state, dict[int, list[int]]()
        time = max(self.clock, state.newest[topic] + (self.partitions > 1))
        for partition, value in values:
            bounds = state.bounds[topic][partition]
            state.messages[topic].append(Kept(time, partition, bounds[1], value))
            state.newest[topic] = time
            went.setdefault(partition, []).append(bounds[1])
            bounds[1] += 1
        state.messages[topic].sort(key=lambda kept: kept[:3])
        return went

    def went(self, put: pqlog.Put) -> dict[int, list[int]]:
        """The offsets in each partition, of a call that says where it put something."""
        if self.partitions == 1:
            put = pqlog.Put({0: put.first}, {0: put.last}, put.messages)
        went = {number: list(range(first, put.last[number] + 1)) for number, first in put.first.items()}
        assert sum(map(len, went.values())) == put.messages
        return {number: offsets for number, offsets in went.items() if offsets}

    def use_id(self, id: str, went: Mapping[int, Sequence[int]]) -> None:
        self.state.ids[id] = {number: offsets[0] for number, offsets in went.items()}
        self.state.ends[id] = {number: offsets[-1] + 1 for number, offsets in went.items()}

    @rule(keyed=st.booleans())
    def put(self, keyed):
        (value,) = self.new(1)
        at = self.log.put(value, key=value["k"] if keyed else None)
        partition, offset = at if self.partitions > 1 else (0, at)
        assert not keyed or partition == partition_of(value["k"], self.partitions)
        assert self.put_into("main", [(partition, value)]) == {partition: [offset]}
        self.step()

    @rule(keyed=st.booleans(), id=st.none() | st.sampled_from(IDS))
    def send(self, keyed, id):
        (value,) = self.new(1)
        at = self.log.send(value, key=value["k"] if keyed else None, id=id).result()
        partition, offset = at if self.partitions > 1 else (0, at)
        if id in self.state.ids:
            assert (partition, offset) == min(self.state.ids[id].items())
        else:
            assert not keyed or partition == partition_of(value["k"], self.partitions)
            assert self.put_into("main", [(partition, value)]) == {partition: [offset]}
            if id is not None:
                self.use_id(id, {partition: [offset]})
        self.step()

    @rule(
        count=st.sampled_from([0, 2, 5, 300]),
        frame=st.booleans(),
        cursor=st.booleans(),
        key=st.sampled_from([None, "k"]),
    )
    def put_many(self, count, frame, cursor, key):
        values = self.new(count)
        rows = pd.DataFrame(values, columns=["n", "k"]) if frame else values
        mark = ("source", self.count, self.state.cursor) if cursor else None
        went = self.went(self.log.put_many(rows, cursor=mark, key=key))
        placed = self.by_key(values) if key else ((number, value) for number in went for value in values)
        assert self.put_into("main", placed) == went
        if cursor:
            self.state.cursor = self.count
        self.step()

    @rule(id=st.sampled_from(IDS), count=st.sampled_from([1, 4]))
    def put_with_id(self, id, count):
        values = self.new(count)
        went = self.went(self.log.put_many(values, id=id, key="k"))
        if id in self.state.ids:
            assert {number: offsets[0] for number, offsets in went.items()} == self.state.ids[id]
        else:
            assert self.put_into("main", self.by_key(values)) == went
            self.use_id(id, went)
        self.step()

    @rule(ids=st.lists(st.sampled_from(IDS), min_size=1, unique=True), frame=st.booleans())
    def put_with_ids(self, ids, frame):
        values = [{**value, "id": id} for value, id in zip(self.new(len(ids)), ids, strict=True)]
        went = self.went(self.log.put_many(pd.DataFrame(values) if frame else values, ids="id", key="k"))
        new = [value for value in values if value["id"] not in self.state.ids]
        assert self.put_into("main", self.by_key(new)) == went
        for partition, value in self.by_key(new):
            self.use_id(value["id"], {partition: [went[partition].pop(0)]})
        self.step()

    # reading

    def join(self, client):
        """A new client begins at the first message that is kept: as soon as it is known in one of the partitions."""
        seams.join(self.log, client)
        self.known(client)
        self.step()

    def known(self, client) -> list[Client]:
        firsts = [first for first, _ in self.state.bounds["main"]]
        new = [Client(first, claimed=first if client == "stage" else 0) for first in firsts]
        return self.state.clients.setdefault(client, new)

    def unread(self, client) -> Iterator[Kept]:
        """What `get` delivers: the partition with the oldest message first."""
        left = [
            [message for message in self.state.of(number) if message.offset >= one.position]
            for number, one in enumerate(self.state.clients[client])
        ]
        first = min((some[0][:2] for some in left if some), default=(0, 0))[1]
        return itertools.chain(*left[first:], *left[:first])

    @rule(count=st.integers(1, 4))
    def get(self, count):
        """Ask for this many messages, and stop while processing the last one."""
        self.join("reader")
        reader, unread, before = self.log.get("reader"), self.unread("reader"), None
        for _ in range(count):
            value, expected = next(reader, None), next(unread, None)
            if before is not None:  # asked past that one
                self.state.clients["reader"][before.partition].position = before.offset + 1
                self.step()
            assert value == (expected and expected.value)
            before = expected
            if value is None:
                break
        self.lost.append(reader)

    @precondition(lambda self: self.partitions == 1)  # of several, each would be acknowledged in a commit of its own
    @rule(count=st.integers(1, 9), every=st.integers(2, 4))
    def get_in_steps(self, count, every):
        """The same, acknowledged in steps; a break acknowledges what is done."""
        self.join("reader")
        (client,) = self.state.clients["reader"]
        reader = self.log.get("reader", ack_every=every, ack_seconds=1e6)
        unread, done = self.unread("reader"), list[Kept]()
        before = None
        for _ in range(count):
            value, expected = next(reader, None), next(unread, None)
            done += [] if before is None else [before]
            if done and (len(done) == every or value is None):
                client.position = done[-1].offset + 1
                done.clear()
                self.step()
            assert value == (expected and expected.value)
            before = expected
            if value is None:
                break
        reader.close()
        if done:
            client.position = done[-1].offset + 1
            self.step()

    # stages

    @rule(size=st.integers(1, 4), turn=st.integers(0, 2))
    def take(self, size, turn):
        self.join("stage")
        self.turn = turn
        reading = self.log.batches("stage", size=size, owner="worker")  # who takes over its batches
        self.lost.append(self.held)
        self.took(next(reading, None), size, reading, turn)

    def took(self, batch, size, reading, turn):
        """Check a batch, of the first partition that has one, counted from `turn` on."""
        for number in range(turn, turn + self.partitions):
            partition = number % self.partitions
            one, stop = self.state.clients["stage"][partition], self.state.bounds["main"][partition][1]
            if one.claims or one.claimed < stop:
                break
        else:
            assert batch is None
            self.held = None
            self.step()
            return
        if one.claims:
            number = min(one.claims)
            first, stop, attempt = one.claims[number]
        else:
            one.numbers = number = one.numbers + 1
            first, attempt = one.claimed, 0
            one.claimed = stop = min(first + size, stop)
        one.claims[number] = (first, stop, attempt + 1)
        assert (batch.partition, batch.number, batch.attempt) == (partition, number, attempt + 1)
        assert (batch.first, batch.last) == (first, stop - 1)
        assert list(batch) == [kept.value for kept in self.state.of(partition) if first <= kept.offset < stop]
        self.held = batch, reading, []
        self.step()

    @precondition(lambda self: self.held)
    @rule(frame=st.booleans(), key=st.sampled_from([None, "of"]))
    def put_through(self, frame, key):
        batch, _, outputs = self.held
        values = [{"of": value["n"]} for value in batch]
        staged = batch.put_many(pd.DataFrame(values) if frame else values, topic="out", key=key)
        outputs.append((staged, values, key))

    def finished(self):
        batch, _, outputs = self.held
        one = self.state.clients["stage"][batch.partition]
        del one.claims[batch.number]
        one.position = max(one.position, min([claim[0] for claim in one.claims.values()] + [one.claimed]))
        went = [self.went(staged.put) for staged, *_ in outputs]
        placed = [
            (number, value)
            for where, (_, values, key) in zip(went, outputs, strict=True)
            for number, value in (
                self.by_key(values, key) if key else ((number, value) for number in where for value in values)
            )
        ]
        together: dict[int, list[int]] = {}
        for where in went:
            for number, offsets in where.items():
                together.setdefault(number, []).extend(offsets)
        assert self.put_into("out", placed) == together

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

    @rule(batches=st.integers(1, 3), size=st.integers(1, 3), turn=st.integers(0, 2))
    def loop(self, batches, size, turn):
        """A stage's loop: asking for the next batch acknowledges the one before, in the same commit.

        That may be a batch of another partition.
        """
        self.take(size, turn)
        for _ in range(batches):
            if self.held is None:
                return
            self.put_through(frame=False, key="of")
            last, reading, _ = self.held
            batch = next(reading, None)
            self.finished()
            self.took(batch, size, reading, last.partition + 1)

    # keeping

    def at(self, time: int) -> list[int]:
        """The first offset in each partition of what was put at or after a time."""
        stops = [stop for _, stop in self.state.bounds["main"]]
        for message in reversed(self.state.messages["main"]):
            if message.time >= time:
                stops[message.partition] = message.offset
        return stops

    def time_of(self, index: int) -> int:
        """The time of a message, counted from the newest; the present if there is none."""
        messages = self.state.messages["main"]
        return messages[-index].time if 0 < index <= len(messages) else self.state.newest["main"] + 1

    @rule(client=st.sampled_from(["reader", "stage"]), to=OFFSETS | ENDS | TIMES, number=st.integers(0, 2))
    def seek(self, client, to, number):
        """To an offset in one partition, or in all to a time or an end."""
        kind, value = to
        number %= self.partitions
        bounds = self.state.bounds["main"]
        targets: dict[int, int] = {}
        if kind == "offset":
            self.join(client)
            targets[number] = min(max(value, bounds[number][0]), bounds[number][1])
            moved = self.log.client(client).seek(value, partition=number)
        elif kind == "time":
            time = self.time_of(value)
            targets = dict(enumerate(self.at(time)))
            moved = self.log.client(client).seek(from_micros(time))
        else:
            targets = {number: one[value == "end"] for number, one in enumerate(bounds)}
            moved = self.log.client(client).seek(value)
        assert moved.position == (targets if self.partitions > 1 else targets[0])
        for number, target in targets.items():
            one = self.known(client)[number]
            one.position = target
            if client == "stage":
                one.claimed, one.claims = target, {}
                self.let_go(number)
        self.step()

    def let_go(self, partition):
        """The batch that is held is not valid any more, if it is of that partition."""
        if self.held is not None and self.held[0].partition == partition:
            self.lost.append(self.held)
            self.held = None

    @rule(client=st.sampled_from(["reader", "stage"]))
    def delete_client(self, client):
        if client not in self.state.clients:
            with pytest.raises(pqlog.UnknownClientError):
                self.log.client(client).delete()
            return
        self.log.client(client).delete()
        del self.state.clients[client]
        if client == "stage":
            self.lost.append(self.held)
            self.held = None
        self.step()

    @rule(before=OFFSETS | TIMES, number=st.integers(0, 2))
    def trim(self, before, number):
        """Before an offset of one partition, or before a time in all: if all clients have read that, or in none."""
        state, (kind, value) = self.state, before
        number %= self.partitions
        if kind == "offset":
            targets, trim = {number: value}, lambda: self.log.partition(number).trim(value)
        else:
            time = self.time_of(value)
            targets, trim = dict(enumerate(self.at(time))), lambda: self.log.trim(from_micros(time))
        for number, target in targets.items():
            targets[number] = min(max(target, state.bounds["main"][number][0]), state.bounds["main"][number][1])
        if any(one[number].position < target for one in state.clients.values() for number, target in targets.items()):
            with pytest.raises(pqlog.TrimRefusedError):
                trim()
            return
        assert trim() == sum(target - state.bounds["main"][number][0] for number, target in targets.items())
        for number, target in targets.items():
            state.bounds["main"][number][0] = target
        kept = state.bounds["main"]
        state.messages["main"] = [one for one in state.messages["main"] if one.offset >= kept[one.partition][0]]
        left = {
            id: {number: first for number, first in went.items() if state.ends[id][number] > kept[number][0]}
            for id, went in state.ids.items()
        }
        state.ids = {id: went for id, went in left.items() if went}
        self.step()

    @rule(before=st.none() | TIMES)
    def seal(self, before):
        """Whatever is sealed of it, a log shows the same."""
        time = None if before is None else from_micros(self.time_of(before[1]))
        self.log.seal(time)
        self.step()

    @precondition(lambda self: self.held is None)
    @rule()
    def delete_topic(self):
        """All of its partitions at once; another takes its place."""
        self.log.delete_topic("out", force=True)
        self.state.messages["out"], self.state.newest["out"] = [], 0
        del self.state.bounds["out"]
        self.step()
        self.make_out()

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
            with pqlog.open(folder / "a.db", partitions=self.partitions) as log:
                found = seen(log)
                assert found in possible, f"after a power cut at event {at}: {found} is none of {possible}"
                assert log.verify() == []
                log.put("new", key=f"{seed}")
                assert [message.value for message in log] == [*(kept.value for kept in found.messages["main"]), "new"]
            shutil.rmtree(folder)
            counts["power cuts"] += 1
        self.state = copy.deepcopy(next(state for state in possible if state == found))
        self.start(files)


__all__ = ["Story", "counts"]
