"""A log with topics and clients compared with plain Python lists, for operations in any order."""

import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import pqlog
from tests.messages import offsets
from tests.rings import by_ring

TOPICS = st.sampled_from(["main", "other"])
CLIENTS = st.sampled_from(["a", "b", ""])
SMALL = st.integers(0, 6)


class Model:
    """What a topic should hold."""

    def __init__(self):
        self.values = []
        self.first = 1
        self.clients = {}
        self.claims = {}
        self.numbers = {}
        self.ids = {}

    @property
    def stop(self):
        return len(self.values) + 1

    def kept(self, first, stop):
        first, stop = max(first, self.first), min(stop, self.stop)
        return list(range(first, stop))

    def join(self, client):
        self.clients.setdefault(client, self.first)
        return max(self.clients[client], self.first)


class LogModel(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name, "a.db")
        self.log = pqlog.open(self.path)
        self.models = {"main": Model(), "other": Model()}
        self.count = 0

    def teardown(self):
        self.log.close()
        self.folder.cleanup()

    def topic(self, name):
        return self.log if name == "main" else self.log.topic(name)

    def fresh(self, count):
        self.count += count
        return [{"n": n} for n in range(self.count - count, self.count)]

    @rule(name=TOPICS)
    def put(self, name):
        model = self.models[name]
        (value,) = self.fresh(1)
        assert self.topic(name).put(value) == model.stop
        model.values.append(value)

    @rule(name=TOPICS, count=SMALL, frame=st.booleans(), key=st.sampled_from([None, "n"]))
    def put_many(self, name, count, frame, key):
        model = self.models[name]
        values = self.fresh(count)
        source = pd.DataFrame(values, columns=["n"]) if frame else iter(values)
        assert offsets(self.topic(name).put_many(source, key=key)) == range(model.stop, model.stop + count)
        model.values += values

    @rule(name=TOPICS, id=st.sampled_from("xyz"), count=st.integers(1, 4))
    def put_with_id(self, name, id, count):
        model = self.models[name]
        values = self.fresh(count)
        put = self.topic(name).put_many(values, id=id)
        if id not in model.ids:
            model.ids[id] = range(model.stop, model.stop + count)
            model.values += values
        assert offsets(put) == model.ids[id]

    @rule(name=TOPICS, client=CLIENTS, asked=st.integers(1, 6))
    def get(self, name, client, asked):
        model = self.models[name]
        topic = self.topic(name)
        if client in model.claims:
            with pytest.raises(pqlog.ClaimedError):
                next(topic.get(client))
            return
        expected = model.kept(model.join(client), model.stop)
        got = []
        reading = topic.get(client, messages=True)
        for _ in range(asked):
            message = next(reading, None)
            if got:  # asking for the next acknowledged it
                model.clients[client] = got[-1].offset + 1
            if message is None:
                break
            got.append(message)
        reading.close()
        assert [message.offset for message in got] == expected[: len(got)]
        assert [message.value for message in got] == [model.values[o - 1] for o in expected[: len(got)]]
        assert len(got) == min(asked, len(expected))

    @rule(name=TOPICS, client=CLIENTS, size=st.integers(1, 5), asked=st.integers(1, 4))
    def batches(self, name, client, size, asked):
        model = self.models[name]
        model.join(client)
        if client in model.claims and model.claims[client][2] <= model.first:  # nothing of it is kept
            model.clients[client] = model.claims.pop(client)[2]
        reading = self.topic(name).batches(client, size=size)
        for turn in range(asked):
            if turn:
                _, _, stop = model.claims.pop(client)
                model.clients[client] = stop
            batch = next(reading, None)
            if client in model.claims:
                number, first, stop = model.claims[client]
            else:
                first = model.join(client)
                stop = min(first + size, model.stop)
                if first >= stop:
                    assert batch is None
                    break
                number = model.numbers.get(client, 0) + 1
                model.numbers[client] = number
            assert (batch.number, batch.first, batch.last) == (number, first, stop - 1)
            assert list(batch) == [model.values[o - 1] for o in model.kept(first, stop)]
            assert list(batch.to_pandas().index) == model.kept(first, stop)
            model.claims[client] = (number, first, stop)
        reading.close()

    @rule(name=TOPICS, client=CLIENTS, to=st.integers(-8, 30))
    def seek(self, name, client, to):
        model = self.models[name]
        was = model.join(client)
        target = model.stop + to if to < 0 else to
        target = min(max(target, model.first), model.stop)
        moved = self.topic(name).client(client).seek(to=to)
        assert moved.position == target
        assert (moved.again, moved.skipped) == (max(0, was - target), max(0, target - was))
        model.clients[client] = target
        model.claims.pop(client, None)

    @rule(name=TOPICS, client=CLIENTS)
    def delete_client(self, name, client):
        model = self.models[name]
        if client in model.clients:
            self.topic(name).client(client).delete()
            for of in (model.clients, model.claims, model.numbers):
                of.pop(client, None)
        else:
            with pytest.raises(pqlog.UnknownClientError):
                self.topic(name).client(client).delete()

    @rule(name=TOPICS, before=st.integers(0, 30), force=st.booleans())
    def trim(self, name, before, force):
        model = self.models[name]
        target = max(model.first, min(before, model.stop))
        behind = [client for client, next_offset in model.clients.items() if max(next_offset, model.first) < target]
        if behind and not force:
            with pytest.raises(pqlog.TrimRefusedError):
                self.topic(name).trim(before)
            return
        assert self.topic(name).trim(before, force=force) == target - model.first
        model.first = target
        model.ids = {id: put for id, put in model.ids.items() if put.stop > target}

    @rule(name=TOPICS, a=st.none() | st.integers(-10, 30), b=st.none() | st.integers(-10, 30))
    def slice(self, name, a, b):
        model = self.models[name]

        def bound(offset, default):
            if offset is None:
                return default
            return offset if offset >= 0 else max(model.first, model.stop + offset)

        expected = model.kept(bound(a, model.first), bound(b, model.stop))
        history = self.topic(name)[a:b]
        assert [message.offset for message in history] == expected
        assert len(history) == len(expected)
        assert list(history.values()) == [model.values[o - 1] for o in expected]
        frame = history.to_pandas()
        assert list(frame.index) == expected
        if expected:
            assert list(frame["n"]) == [model.values[o - 1]["n"] for o in expected]

    @precondition(lambda self: self.count)
    @rule(name=TOPICS, which=st.integers(0, 40))
    def by_key(self, name, which):
        key = str(which % self.count)
        values = self.models[name].values
        for message in self.topic(name).history(key=key):
            assert message.key == key
            assert message.value == values[message.offset - 1] == {"n": int(key)}

    @rule()
    def reopen(self):
        self.log.close()
        self.log = pqlog.open(self.path)

    @invariant()
    def positions(self):
        for name, model in self.models.items():
            topic = self.topic(name)
            assert (len(topic), topic.first, topic.last) == (
                model.stop - model.first,
                model.first if model.stop > model.first else None,
                model.stop - 1 if model.stop > model.first else None,
            )
            found = {c.client: (c.position, c.lag, c.open) for c in topic.clients()}
            assert found == {
                client: (
                    max(next_offset, model.first),
                    model.stop - max(next_offset, model.first),
                    int(client in model.claims),
                )
                for client, next_offset in model.clients.items()
            }


TestLogModel = LogModel.TestCase
TestLogModel.settings = settings(stateful_step_count=40, max_examples=by_ring(15, 100))
