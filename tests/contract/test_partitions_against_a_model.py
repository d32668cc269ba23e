"""Any calls on the partitions of a topic, in any order, against a model of lists."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pqlog
from pqlog.store.values import Done, Ids, Output, Segment, Singles, Size
from tests.contract.engines import COUNT, clients_of, never, offsets, put_in, rows
from tests.rings import by_ring

NAMES = st.sampled_from(["a", "a", "a", "b"])
NUMBER = st.sampled_from([0, 0, 1, 1, 2])
EACH = st.dictionaries(NUMBER, st.integers(0, 12), min_size=1)
"""By partition: how many messages to put, or which of those that were put."""
IDS = st.sampled_from("uvwxyz")
PUT = st.tuples(st.just("put"), EACH, st.booleans(), st.none() | IDS)
PUT_IDS = st.tuples(st.just("put_ids"), st.dictionaries(NUMBER, st.lists(IDS, max_size=4), min_size=1))
TRIM = st.tuples(st.just("trim"), EACH, st.booleans())
SEEK = st.tuples(st.just("seek"), NAMES, EACH, st.booleans())
DELETE = st.tuples(st.just("delete"), NAMES)
ACKNOWLEDGE = st.tuples(st.just("acknowledge"), NAMES, NUMBER, st.integers(0, 12))
ADVANCE = st.tuples(
    st.just("advance"), NAMES, NUMBER, st.integers(1, 4), st.booleans(), st.none() | st.none() | st.integers(0, 9)
)
GIVE = st.tuples(st.sampled_from(["finish", "release", "leave"]), st.integers(0, 9))
CALLS = st.lists(
    PUT | PUT_IDS | TRIM | SEEK | DELETE | ACKNOWLEDGE | ADVANCE | ADVANCE | ADVANCE | ADVANCE | GIVE,
    min_size=8,
    max_size=25,
)
BEGINNING = [("put", {0: 6, 1: 5, 2: 2}, False, "u"), ("seek", "a", dict.fromkeys(range(COUNT), 0), False)]


@dataclass
class Client:
    """Ranks of messages in its partition: which it gets next, and up to where batches were cut."""

    position: int
    claimed: int
    batches: int = 0
    claims: dict = field(default_factory=dict)
    """By number: the ranks of a batch, who had it last, and whether it is free."""

    def drop(self, number):
        del self.claims[number]
        self.position = min([start for start, *_ in self.claims.values()], default=self.claimed)


class Model:
    """What a topic must be, on one engine: messages are known by their ranks, from 0, and offsets by what was put."""

    def __init__(self, engine):
        self.engine, self.topic = engine, engine.topic("main", "json", COUNT)
        self.out = engine.topic("out", "json", COUNT)
        self.at = [[] for _ in range(COUNT)]
        self.values = [[] for _ in range(COUNT)]
        self.begin = [0] * COUNT
        self.clients = [{} for _ in range(COUNT)]
        self.ids = {}
        self.held = []
        """Claims that were handed out, with their client's name and partition; also those that were lost since."""
        self.count = self.puts = self.acknowledged = 0

    # what it knows

    def gap(self, number, rank):
        """An offset behind the message before one: where there is a gap, it is of no message."""
        rank = min(rank, len(self.at[number]))
        return self.at[number][rank - 1] + 1 if rank else 0

    def find(self, id):
        went = self.ids.get(id, {})
        return {number: span for number, span in went.items() if span[1] > self.begin[number]} or None

    def client(self, name, number):
        return self.clients[number].setdefault(name, Client(self.begin[number], self.begin[number]))

    def added(self, number, values):
        start = len(self.values[number])
        self.values[number] += values
        new = offsets(self.topic[number])[-len(values) :] if values else []
        assert not self.at[number] or not new or new[0] > self.at[number][-1]
        self.at[number] += new
        return start, start + len(values)

    def some(self, count):
        self.count += count
        return [b"%d" % n for n in range(self.count - count, self.count)]

    # the calls

    def put(self, counts, is_segment, id):
        counts = {number: count for number, count in counts.items() if count} or {0: 1}
        values = {number: self.some(count) for number, count in counts.items()}
        as_chunk = lambda some: Segment(some[0], len(some)) if is_segment else Singles(some)  # noqa: E731
        went = put_in(self.topic, {number: [as_chunk(some)] for number, some in values.items()}, id)
        if id is not None and self.find(id):
            assert {number: put.messages for number, put in went.items()} == {
                number: stop - start for number, (start, stop) in self.find(id).items()
            }
            return
        spans = {}
        for number, some in values.items():
            spans[number] = self.added(number, some[:1] * len(some) if is_segment else some)
        if id is not None:
            self.ids[id] = spans

    def put_ids(self, ids):
        values = {number: self.some(len(some)) for number, some in ids.items()}
        chunks = {number: [Singles(some)] for number, some in values.items()}
        went = put_in(self.topic, chunks, ids={number: Ids([some], never) for number, some in ids.items()})
        new = {number: [] for number in ids}
        seen = set()
        for number, some in ids.items():
            for id, value in zip(some, values[number], strict=True):
                if id not in seen and not self.find(id):
                    new[number].append((id, value))
                seen.add(id)
        for number, some in new.items():
            assert went[number].messages == len(some)
            start, _ = self.added(number, [value for _, value in some])
            self.ids |= {id: {number: (rank, rank + 1)} for rank, (id, _) in enumerate(some, start)}

    def trim(self, ranks, force):
        marks = [(self.topic[number], self.gap(number, self.begin[number] + rank)) for number, rank in ranks.items()]
        cuts = {number: min(self.begin[number] + rank, len(self.at[number])) for number, rank in ranks.items()}
        losing = {}
        for number, cut in cuts.items():
            for name, client in self.clients[number].items():
                losing[name] = losing.get(name, 0) + max(0, cut - max(client.position, self.begin[number]))
        losing = sorted((name, count) for name, count in losing.items() if count)
        if losing and not force:
            with pytest.raises(pqlog.TrimRefusedError) as caught:
                self.engine.trim(marks, force)
            assert sorted(caught.value.clients) == losing
            return
        dropped = [cut - self.begin[number] for number, cut in cuts.items()]
        assert list(self.engine.trim(marks, force)) == dropped
        for number, cut in cuts.items():
            self.begin[number] = cut

    def seek(self, name, ranks, in_gap):
        moves, expected = [], []
        for number, rank in ranks.items():
            to = min(rank, len(self.at[number]))
            offset = self.at[number][to] if to < len(self.at[number]) and not in_gap else self.gap(number, to)
            moves.append((self.topic[number].client(name), offset))
            was = max(self.client(name, number).position, self.begin[number])
            to = max(to, self.begin[number])
            expected.append((max(0, was - to), max(0, to - was)))
            client = self.clients[number][name]
            client.position = client.claimed = to
            client.claims = {}
        assert [(moved.again, moved.skipped) for moved in self.engine.seek(moves)] == expected

    def delete(self, name):
        known = [some.pop(name, None) is not None for some in self.clients]
        assert self.engine.delete_clients(clients_of(self.topic, name)) == any(known)

    def acknowledge(self, name, number, rank):
        store = self.topic[number].client(name)
        client = self.client(name, number)
        epoch = store.join().epoch
        rank = min(rank, len(self.at[number]) - 1)
        if rank < 0:
            return
        if client.claims:
            with pytest.raises(pqlog.ClaimedError):
                store.acknowledge(self.at[number][rank], epoch)
            return
        assert store.acknowledge(self.at[number][rank], epoch)
        client.position = client.claimed = max(client.position, rank + 1)

    def is_lost(self, claim, name, number):
        """Whether somebody else has it, or nobody."""
        client = self.clients[number].get(name)
        return client is None or client.claims.get(claim.number, (0, 0, None, True))[2] is not claim

    def advance(self, name, number, size, ordered, index):
        store = self.topic[number].client(name)
        done, expected = None, 0
        if index is not None and self.held:
            claim, *where = self.held[index % len(self.held)]
            outputs = [Output(self.out[n], [Singles([b"1"])]) for n in range(index % (COUNT + 1))]
            done, expected = Done(self.topic[where[1]].client(where[0]), claim, outputs), len(outputs)
            if self.is_lost(claim, *where):
                with pytest.raises(pqlog.ClaimLostError):
                    store.advance(Size(size), "", done, ordered)
                return
            self.held.remove((claim, *where))
            self.clients[where[1]][where[0]].drop(claim.number)
            self.puts += expected
        found, went = store.advance(Size(size), "", done, ordered)
        assert [put.messages for put in went] == [1] * expected
        if name not in self.clients[number]:  # it begins in all partitions
            for other in range(COUNT):
                self.client(name, other)
        client, begin = self.client(name, number), self.begin[number]
        if ordered and not all(is_free for *_, is_free in client.claims.values()):
            assert found is None
            assert not store.has_work("", ordered)
            return
        for batch, (start, stop, _, is_free) in sorted(client.claims.items()):
            if is_free and stop <= begin:
                client.drop(batch)
            elif is_free:
                self.hand_out(found, name, number, batch, start, stop)
                return
        start = max(client.claimed, begin)
        stop = min(start + size, len(self.at[number]))
        if start == stop:
            assert found is None
            assert not store.has_work("", ordered)
            return
        client.batches, client.claimed = client.batches + 1, stop
        self.hand_out(found, name, number, client.batches, start, stop)

    def hand_out(self, found, name, number, batch, start, stop):
        self.client(name, number).claims[batch] = start, stop, found, False
        self.held.append((found, name, number))
        assert (found.number, found.span.first, found.span.last) == (
            batch,
            self.at[number][start],
            self.at[number][stop - 1],
        )

    def give(self, how, index):
        if not self.held:
            return
        claim, name, number = self.held[index % len(self.held)]
        store, is_lost = self.topic[number].client(name), self.is_lost(claim, name, number)
        if how == "finish" and is_lost:
            with pytest.raises(pqlog.ClaimLostError):
                store.finish(claim)
        elif how == "finish":
            store.finish(claim)
            self.clients[number][name].drop(claim.number)
        elif how == "release":
            assert store.release(claim, "why") != is_lost
        else:
            store.leave(claim)
        if how != "finish" and not is_lost:
            client = self.clients[number][name]
            client.claims[claim.number] = *client.claims[claim.number][:3], True
        if is_lost or how != "release":  # until somebody else has it, it can be acknowledged
            self.held.remove((claim, name, number))

    def call(self, what, *arguments):
        if what in ("finish", "release", "leave"):
            self.give(what, *arguments)
        else:
            getattr(self, what)(*arguments)

    # what anybody sees

    def check(self):
        newest, times = 0, set()
        for number, one in enumerate(self.topic):
            begin, at = self.begin[number], self.at[number]
            assert offsets(one) == at[begin:]
            assert [row.value for row in rows(one) for _ in range(row.rows or 1)] == self.values[number][begin:]
            assert [(state.client, state.lag, state.batches, state.open) for state in one.clients()] == [
                (name, len(at) - max(client.position, begin), client.batches, bool(client.claims))
                for name, client in sorted(self.clients[number].items())
            ]
            for name, client in self.clients[number].items():
                claims = [(claim.number, claim.span.first, claim.span.last) for claim in one.client(name).claims()]
                assert claims == [
                    (n, at[start], at[stop - 1]) for n, (start, stop, *_) in sorted(client.claims.items())
                ]
            moments = [row.time for row in rows(one)]
            assert moments == sorted(moments)
            newest, times = max([newest, *moments]), times | set(moments)
        for id in self.ids:
            found = self.topic[0].find_id(id)
            expected = self.find(id)
            assert (found and {number: (put.first, put.last) for number, put in found.items()}) == (
                expected and {n: (self.at[n][start], self.at[n][stop - 1]) for n, (start, stop) in expected.items()}
            )
        assert sum(len(offsets(one)) for one in self.out) == self.puts


@settings(max_examples=by_ring(15, 150))
@given(calls=CALLS)
def test_any_calls(make, calls):
    with tempfile.TemporaryDirectory() as folder:
        engine = make(Path(folder))
        try:
            model = Model(engine)
            for call in [*BEGINNING, *calls]:
                model.call(*call)
                model.check()
        finally:
            engine.close()
