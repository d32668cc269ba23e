"""What any engine must do with a topic of several partitions. Nothing here assumes how far apart two offsets are."""

import contextlib
import gc
import itertools
import random
import threading
import time

import pytest

import pqlog
from pqlog.store.values import MAX_PARTITIONS, Cursor, Done, Ids, Moved, Output, Put, Segment, Singles, Size, Span
from tests.contract.engines import around, in_a_file, offsets, one_partition, put, rows, singles
from tests.interrupts import last, moments, struck
from tests.processes import Process, python
from tests.rings import by_ring

COUNT = 3


@pytest.fixture
def partitions(engine):
    return engine.topic("main", "json", COUNT)


def put_in(partitions, chunks, id=None, cursor=None, ids=None):
    """Put chunks by the number of their partition, in one call; where they went."""
    outputs = [Output(partitions[number], some, (ids or {}).get(number)) for number, some in chunks.items()]
    return partitions[0].log.append(outputs, id, cursor)


def fill(partitions):
    """Singles and segments in each, by calls that put into one, two or all of them; the offsets of each partition."""
    put_in(partitions, {0: [singles(b"1", b"2")], 2: [singles(b"3", key="k")]})
    put_in(partitions, {number: [Segment(b"segment", 3, "k")] for number in (2, 1)})
    put_in(partitions, {1: [singles(b"4", b"5")]})
    put_in(partitions, {number: [singles(b"6")] for number in (0, 1, 2)})
    return [offsets(one) for one in partitions]


def kept(engine, partitions):
    """All that is kept, as it is read."""
    assert list(engine.spans(partitions)) == [one.span() for one in partitions]
    return [rows(one) for one in partitions]


def clients_of(partitions, name="c"):
    return [one.client(name) for one in partitions]


def take(client, worker="", done=None, messages=2, ordered=True):
    return client.advance(Size(messages), worker, done, ordered)[0]


def broken(*chunks):
    """Chunks from a source that breaks behind them."""
    yield from chunks
    raise RuntimeError("the source broke")


def never(segment, mask, start):
    raise AssertionError("there is no segment to thin")


# topics


@pytest.mark.parametrize("count", [1, 2, COUNT, MAX_PARTITIONS])
def test_a_topic_has_the_partitions_that_it_was_made_with(engine, count):
    assert list(engine.find_topic("a")) == []
    made = engine.topic("a", "json", count)
    one_partition(engine, "b")
    infos = [one.info for one in made]
    assert [(info.name, info.codec, info.partition, info.partitions) for info in infos] == [
        ("a", "json", number, count) for number in range(count)
    ]
    assert list(engine.topic("a", "bytes", count + 1)) == list(engine.find_topic("a")) == list(made)
    assert [one.info for one in made] == infos
    assert [(info.name, info.partition, info.partitions) for info in engine.topics()] == [("a", 0, count), ("b", 0, 1)]
    assert engine.topics()[0] == infos[0]
    for one in made:
        assert (offsets(one), one.clients(), one.log) == ([], [], engine)


def test_the_id_of_a_partition_is_never_used_again(engine):
    seen = set()
    for count in (1, 3, 2, 4):
        made = engine.topic("main", "json", count)
        other = one_partition(engine, f"other {count}")
        ids = {one.info.id for one in (*made, other)}
        assert len(ids) == count + 1
        assert not ids & seen
        seen |= ids
        made[-1].delete(force=False)


@pytest.mark.parametrize("asked", range(COUNT))
def test_a_topic_is_renamed_by_any_of_its_partitions(engine, partitions, asked):
    at = fill(partitions)
    ids = [one.info.id for one in partitions]
    for client in clients_of(partitions):
        client.join()
    held = take(partitions[1].client("c"))
    one_partition(engine, "other")
    with pytest.raises(pqlog.ArgumentError, match="already"):
        partitions[asked].rename("other")
    assert [one.info.name for one in partitions] == ["main"] * COUNT
    partitions[asked].rename("new")
    assert list(engine.find_topic("main")) == []
    assert list(engine.find_topic("new")) == list(partitions)
    assert [(one.info.name, one.info.id, one.info.partition) for one in partitions] == [
        ("new", id, number) for number, id in enumerate(ids)
    ]
    assert [offsets(one) for one in partitions] == at
    partitions[1].client("c").finish(held)
    assert [one.client("c").state().lag for one in partitions] == [3, 4, 5]
    assert put_in(partitions, {1: [singles(b"7")]})[1].messages == 1
    assert not one_partition(engine, "main").span()


@pytest.mark.parametrize("asked", range(COUNT))
def test_a_topic_is_deleted_by_any_of_its_partitions(engine, partitions, asked):
    fill(partitions)
    other = one_partition(engine, "other")
    put(other, singles(b"1"))
    for number, name in ((0, "b"), (2, "b"), (2, "a")):
        partitions[number].client(name).join()
    before = kept(engine, partitions)
    with pytest.raises(pqlog.TrimRefusedError) as caught:
        partitions[asked].delete(force=False)
    assert sorted(caught.value.clients) == [("a", 5), ("b", 8)]
    assert kept(engine, partitions) == before
    clients = clients_of(partitions, "b")
    held = take(clients[0])
    partitions[asked].delete(force=True)
    assert [info.name for info in engine.topics()] == ["other"]
    for one, client in zip(partitions, clients, strict=True):
        for call in (
            one.span,
            one.clients,
            one.open_batches,
            client.state,
            client.join,
            lambda one=one: rows(one),
            lambda one=one: one.append_one(b"1", None, None),
            lambda one=one: engine.append([Output(one, [singles(b"1")])], "x"),
            lambda one=one: engine.spans([other, one]),
            lambda one=one: engine.trim([(one, 1)], force=True),
            lambda client=client: engine.seek([(other.client("c"), 1), (client, 1)]),
            lambda client=client: engine.delete_clients([client]),
            lambda client=client: take(client),
            lambda client=client: take(other.client("c"), done=Done(clients[0], held)),
        ):
            with pytest.raises(pqlog.UnknownTopicError):
                call()
    assert not clients[0].release(held, None)
    assert (offsets(other), other.client("c").state()) == (offsets(other)[:1], None)
    again = engine.topic("main", "json", 2)
    assert [(offsets(one), one.clients(), one.find_id("x")) for one in again] == [([], [], None)] * 2


def test_a_deleted_topic_of_which_all_is_acknowledged(engine, partitions):
    fill(partitions)
    engine.seek([(client, 10**12) for client in clients_of(partitions)])
    partitions[1].delete(force=False)
    assert list(engine.find_topic("main")) == []


# putting


def test_a_call_says_where_it_went_in_each_partition(engine, partitions):
    at = [[], [], []]
    for chunks in (
        {2: [singles(b"1")], 0: [singles(b"2", b"3"), Segment(b"segment", 4)]},
        {0: [singles(b"4")]},
        {1: [Segment(b"segment", 2)], 0: [singles(b"5")], 2: [singles(b"6", key="k")]},
    ):
        before = kept(engine, partitions)
        stops = [one.span().stop for one in partitions]
        went = put_in(partitions, chunks)
        assert went.keys() == chunks.keys()
        for number, one in enumerate(partitions):
            if number not in went:  # nobody else is moved by it
                assert (rows(one), one.span().stop) == (before[number], stops[number])
                continue
            found = offsets(one, Span.through(went[number].first, went[number].last))
            assert len(found) == went[number].messages
            assert (found[0], found[-1]) == (went[number].first, went[number].last)
            at[number] += found
    assert [offsets(one) for one in partitions] == at == [sorted(some) for some in at]
    assert list(map(len, at)) == [8, 2, 2]


def test_what_is_put_is_read_in_its_partition(engine, partitions):
    put_in(
        partitions,
        {
            1: [Singles([b"1", b"2"], ["k", None], '{"a":"b"}'), Segment(b"\0segment", 3, "field", '{"c":"d"}')],
            0: [singles(b"3")],
        },
    )
    partitions[2].append_one(b"4", "k", '{"e":"f"}')
    found = [[(row.value, row.key, row.headers, row.rows, row.whole) for row in rows(one)] for one in partitions]
    assert found == [
        [(b"3", None, None, None, None)],
        [
            (b"1", "k", '{"a":"b"}', None, None),
            (b"2", None, '{"a":"b"}', None, None),
            (b"\0segment", "field", '{"c":"d"}', 3, 3),
        ],
        [(b"4", "k", '{"e":"f"}', None, None)],
    ]
    assert {(row.partition, row.shift) for one in partitions for row in rows(one)} == {(None, 0)}


def test_a_put_of_nothing_into_a_partition_says_where_its_next_would_go(engine, partitions):
    fill(partitions)
    before = kept(engine, partitions)
    stops = [one.span().stop for one in partitions]
    went = put_in(partitions, {0: [], 1: [singles(b"7")], 2: []})
    assert [went[number] for number in (0, 2)] == [Put(stops[n], stops[n] - 1, 0) for n in (0, 2)]
    assert went[1].messages == 1
    after = kept(engine, partitions)
    assert (after[0], after[2]) == (before[0], before[2])


@pytest.mark.parametrize("failing", range(COUNT))
@pytest.mark.parametrize("good", range(3))
def test_a_call_over_partitions_is_all_or_nothing(engine, partitions, failing, good):
    at = fill(partitions)
    before, stops = kept(engine, partitions), engine.spans(partitions)
    chunks = {number: [singles(b"new"), Segment(b"new", 2)] for number in range(COUNT)}
    ids = {number: Ids([[f"{number}"], [f"{number} a", f"{number} b"]], never) for number in range(COUNT)}
    bad = {**chunks, failing: broken(*chunks[failing][:good])}
    for options in ({"id": "call"}, {"cursor": Cursor("source", "1", "null")}, {"ids": ids}):
        bad = {**chunks, failing: broken(*chunks[failing][:good])}
        with pytest.raises(pqlog.Error, match="the source broke"):
            put_in(partitions, bad, **options)
        assert kept(engine, partitions) == before
        assert engine.spans(partitions) == stops
    assert engine.cursor("source") is None
    assert [one.find_id(id) for one in partitions for id in ("call", "0", "1 a", "2 b")] == [None] * 12
    went = put_in(partitions, chunks, id="call", cursor=Cursor("source", "1", "null"), ids=ids)
    assert [put.messages for put in went.values()] == [3] * COUNT
    assert [len(offsets(one)) for one in partitions] == [len(some) + 3 for some in at]


def test_a_cursor_is_set_with_all_partitions_or_with_none(engine, partitions):
    chunks = {number: [singles(b"1")] for number in range(COUNT)}
    put_in(partitions, chunks, cursor=Cursor("source", "1", "null"))
    before = kept(engine, partitions)
    with pytest.raises(pqlog.CursorError):
        put_in(partitions, chunks, id="x", cursor=Cursor("source", "2", "null"))
    assert (kept(engine, partitions), engine.cursor("source")) == (before, "1")
    assert partitions[0].find_id("x") is None
    put_in(partitions, {2: []}, cursor=Cursor("source", "2", "1"))
    assert (kept(engine, partitions), engine.cursor("source")) == (before, "2")


# ids


def test_an_id_is_of_the_whole_topic(engine, partitions):
    fill(partitions)
    assert [one.find_id("x") for one in partitions] == [None] * COUNT
    went = put_in(partitions, {2: [singles(b"1", b"2")], 0: [Segment(b"segment", 3)]}, id="x")
    before = kept(engine, partitions)
    for again in ({2: [singles(b"1")]}, {1: [singles(b"1")]}, {number: broken() for number in (1, 0)}):
        assert put_in(partitions, again, id="x") == went
    assert [one.find_id("x") for one in partitions] == [went] * COUNT
    assert kept(engine, partitions) == before
    other = engine.topic("other", "json", 2)
    assert put_in(other, {1: [singles(b"1")]}, id="x") == other[0].find_id("x")
    assert partitions[1].find_id("x") == went


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
@pytest.mark.parametrize("part", [False, True])
def test_an_id_is_known_while_some_partition_keeps_some_of_it(engine, partitions, order, part):
    fill(partitions)
    went = put_in(partitions, {number: [singles(b"1", b"2")] for number in range(COUNT)}, id="x")
    put_in(partitions, {number: [singles(b"3")] for number in range(COUNT)}, id="y")
    left = dict(went)
    for number in order:
        if part:  # of one of two
            engine.trim([(partitions[number], went[number].last)], force=True)
            assert [one.find_id("x") for one in partitions] == [left] * COUNT
        engine.trim([(partitions[number], went[number].last + 1)], force=True)
        del left[number]
        assert [one.find_id("x") for one in partitions] == [left or None] * COUNT
        if left:
            assert put_in(partitions, {number: [singles(b"4")]}, id="x") == left
    assert partitions[0].find_id("y").keys() == set(range(COUNT))
    again = put_in(partitions, {order[0]: [singles(b"4")]}, id="x")
    assert partitions[order[1]].find_id("x") == again
    assert again[order[0]].messages == 1


def test_the_id_of_a_message_is_known_in_all_partitions(engine, partitions):
    def put_ids(number, *ids):
        return put_in(partitions, {number: [singles(*map(str.encode, ids))]}, ids={number: Ids([list(ids)], never)})[
            number
        ]

    first = put_ids(1, "a", "b", "c")
    assert (first.messages, put_ids(0, "d", "b", "e", "a").messages, put_ids(2, "e", "c").messages) == (3, 2, 0)
    assert [[row.value for row in rows(one)] for one in partitions] == [[b"d", b"e"], [b"a", b"b", b"c"], []]
    at = [offsets(one) for one in partitions]
    for one in partitions:
        assert [one.find_id(id) for id in "bex"] == [
            {1: Put(at[1][1], at[1][1], 1)},
            {0: Put(at[0][1], at[0][1], 1)},
            None,
        ]
    assert put_in(partitions, {2: [singles(b"whole")]}, id="b") == {1: Put(at[1][1], at[1][1], 1)}
    engine.trim([(partitions[1], at[1][2])], force=True)
    assert [partitions[2].find_id(id) is None for id in "abc"] == [True, True, False]
    assert put_ids(2, "c", "b", "a", "d").messages == 2
    assert [row.value for row in rows(partitions[2])] == [b"b", b"a"]
    assert partitions[0].find_id("b").keys() == {2}


def test_the_ids_of_one_call_are_each_used_once(engine, partitions):
    ids = {1: Ids([["a", "b", "a"]], never), 0: Ids([["b", "c"], ["d"]], never), 2: Ids([["c", "a"]], never)}
    chunks = {1: [singles(b"a", b"b", b"a")], 0: [singles(b"b", b"c"), singles(b"d")], 2: [singles(b"c", b"a")]}
    went = put_in(partitions, chunks, ids=ids)
    assert {number: put.messages for number, put in went.items()} == {1: 2, 0: 2, 2: 0}
    assert [[row.value for row in rows(one)] for one in partitions] == [[b"c", b"d"], [b"a", b"b"], []]
    assert [put.messages for put in put_in(partitions, chunks, ids=ids).values()] == [0] * COUNT


def test_many_ids_over_partitions(engine, partitions):
    """More than an engine may keep in one piece."""
    names = [f"{n}" for n in range(3_000)]
    random.Random(1).shuffle(names)
    shares = {number: names[number::COUNT] for number in range(COUNT)}

    def put_ids(shares):
        chunks = {number: [Singles([name.encode() for name in some])] for number, some in shares.items()}
        went = put_in(partitions, chunks, ids={number: Ids([some], never) for number, some in shares.items()})
        return [put.messages for put in went.values()]

    assert put_ids(shares) == [1_000] * COUNT
    assert put_ids({(number + 1) % COUNT: some for number, some in shares.items()}) == [0] * COUNT
    cut = offsets(partitions[0])[600]
    engine.trim([(partitions[0], cut)], force=True)
    assert put_ids({1: shares[0], 2: shares[1]}) == [600, 0]
    assert partitions[2].find_id(shares[0][599]).keys() == {1}
    assert partitions[2].find_id(shares[0][600]).keys() == {0}
    engine.trim([(one, 10**12) for one in partitions], force=True)
    assert [partitions[0].find_id(name) for name in names] == [None] * 3_000
    assert put_ids({2: names}) == [3_000]


# times


def times(partitions):
    return [[row.time for row in rows(one)] for one in partitions]


def set_clock(monkeypatch, step):
    """Let the clock go on by so many microseconds whenever it is read."""
    readings = itertools.count(10**15, step)
    monkeypatch.setattr(time, "time_ns", lambda: next(readings) * 1_000)


@pytest.mark.parametrize("step", [0, 1, -(10**9)], ids=["stands", "goes", "goes_back"])
def test_each_call_has_one_time_that_is_later_than_all_before(engine, partitions, step, monkeypatch):
    set_clock(monkeypatch, step)
    clients = clients_of(partitions)
    other = one_partition(engine, "other")
    put(other, *[singles(b"1")] * 9)
    source = other.client("source")
    newest = 0

    def check(numbers, call):
        nonlocal newest
        before = [len(some) for some in times(partitions)]
        result = call()
        added = [some[start:] for some, start in zip(times(partitions), before, strict=True)]
        assert {number for number, some in enumerate(added) if some} == set(numbers)
        assert min(itertools.chain(*added)) > newest
        newest = max(itertools.chain(*added))
        return {*itertools.chain(*added)}, result

    for numbers in ((0,), (2, 1), (0, 1, 2), (1,), (2, 0)):
        chunks = {number: [singles(b"1", b"2"), Segment(b"segment", 2), singles(b"3")] for number in numbers}
        assert len(check(numbers, lambda chunks=chunks: put_in(partitions, chunks))[0]) == 1
        number = numbers[-1]
        assert len(check([number], lambda number=number: partitions[number].append_one(b"1", None, None))[0]) == 1
    for numbers in ((1, 0), (2,), (0, 1, 2)):
        outputs = [Output(partitions[number], [singles(b"1")]) for number in numbers]
        done = Done(source, take(source), outputs)
        check(numbers, lambda done=done: source.finish(done.claim, done.outputs))
        done = Done(source, take(source, messages=1), outputs)
        check(numbers, lambda done=done: clients[0].advance(Size(1), "w", done))
    for one in partitions:
        assert times([one])[0] == sorted(times([one])[0])
        for offset, moment in zip((row.offset for row in rows(one)), times([one])[0], strict=True):
            assert one.time_at(offset) == moment
            assert one.offset_at(moment) <= offset
    for one in partitions:  # also if what was put last is not kept
        engine.trim([(one, 10**12)], force=True)
    check([1], lambda: partitions[1].append_one(b"1", None, None))


def test_a_time_is_found_in_each_partition(engine, partitions):
    at = fill(partitions)
    whole = [{offset: row.time for row in rows(one) for offset in range(row.offset, row.stop)} for one in partitions]
    for moment in {0, *itertools.chain(*(some.values() for some in whole))}:
        for number, one in enumerate(partitions):
            for asked in (moment, moment + 1):
                later = [offset for offset in at[number] if whole[number][offset] >= asked]
                assert one.offset_at(asked) == (later[0] if later else one.span().stop)


def merged(partitions, spans):
    """The messages of some spans, in the merged order: by time, partition and offset."""
    found = [
        (row.time, number, offset, row.value)
        for number, (one, span) in enumerate(zip(partitions, spans, strict=True))
        for row in rows(one, span)
        for offset in range(row.offset, row.stop)
    ]
    return sorted(found)


def watch_threads_that_put(stores):
    """What was seen at one moment is the beginning of what is seen at a later one; of each call all, or nothing."""
    topics = [store.find_topic("main") for store in stores]
    sizes = {}

    def work(name):
        chance = random.Random(name)
        partitions = topics[name % len(topics)]
        for n in range(25):
            value = b"%d %d" % (name, n)
            numbers = chance.sample(range(COUNT), chance.randint(1, COUNT))
            sizes[value] = len(numbers)
            if sizes[value] == 1:
                partitions[numbers[0]].append_one(value, None, None)
            else:
                put_in(partitions, {number: [singles(value)] for number in numbers})

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    seen, is_over = [], False
    while not is_over:
        is_over = not any(thread.is_alive() for thread in threads)
        for partitions in topics:
            now = merged(partitions, partitions[0].log.spans(partitions))
            assert now[: len(seen)] == seen
            for _, call in itertools.groupby(now, key=lambda one: one[0]):
                values = [value for *_, value in call]
                assert values == values[:1] * sizes[values[0]]
            seen = now
    values = [value for value, _ in itertools.groupby(value for *_, value in seen)]
    assert len(values) == len(set(values)) == 100
    for name in range(4):  # each thread's in the order of its calls
        own = [value for value in values if value.startswith(b"%d " % name)]
        assert own == [b"%d %d" % (name, n) for n in range(25)]


def test_the_merged_order_grows_only_at_its_end_while_threads_put(engine, partitions):
    watch_threads_that_put([engine])


def test_spans_are_of_one_moment(engine, partitions):
    other = one_partition(engine, "other")
    assert list(engine.spans([])) == []
    spans = [partitions[2].span(), other.span(), partitions[2].span()]
    assert list(engine.spans([partitions[2], other, partitions[2]])) == spans
    everywhere = {number: [singles(b"1")] for number in range(COUNT)}
    for _ in range(30):
        put_in(partitions, everywhere)
    at = [offsets(one) for one in partitions]

    def work():
        for n in range(30):
            put_in(partitions, everywhere)
            engine.trim([(one, some[n]) for one, some in zip(partitions, at, strict=True)], force=True)

    thread = threading.Thread(target=work)
    thread.start()
    seen, is_over = set(), False
    while not is_over:
        is_over = not thread.is_alive()
        spans = engine.spans(partitions)
        first = {some.index(span.first) for some, span in zip(at, spans, strict=True)}
        assert len(first) == 1, "half of a trim"
        put_since = {
            one.count(Span(some[-1] + 1, span.stop)) for one, some, span in zip(partitions, at, spans, strict=True)
        }
        assert len(put_since) == 1, "half of a put"
        seen |= first
    thread.join()
    assert max(seen) == 29


# keeping


def test_partitions_are_trimmed_at_any_offsets(engine):
    for cuts in itertools.product(range(4), range(7), (0, 3, 5)):
        if sum(cuts) % 3:
            continue  # enough of them
        partitions = engine.topic("-".join(map(str, cuts)), "json", COUNT)
        at = fill(partitions)
        gap = [some[cut - 1] + 1 if cut else 0 for some, cut in zip(at, cuts, strict=True)]  # if there is one
        assert list(engine.trim(list(zip(partitions, gap, strict=True)), force=False)) == list(cuts)
        assert [offsets(one) for one in partitions] == [some[cut:] for some, cut in zip(at, cuts, strict=True)]
        for one in partitions:
            left = offsets(one)
            assert (one.count(), one.span().first if left else bool(one.span())) == (
                len(left),
                left[0] if left else False,
            )
        again = put_in(partitions, {number: [singles(b"new")] for number in range(COUNT)})
        assert all(again[number].first > at[number][-1] for number in range(COUNT))


def test_what_a_client_of_one_partition_has_not_acknowledged_is_trimmed_in_none(engine, partitions):
    at = fill(partitions)
    engine.seek([(partitions[1].client("b"), at[1][2]), (partitions[2].client("b"), at[2][4])])
    partitions[2].client("a").join()
    partitions[0].client("a").join(10**12)
    marks = [(one, some[3] if len(some) > 3 else 10**12) for one, some in zip(partitions, at, strict=True)]
    before = kept(engine, partitions)
    with pytest.raises(pqlog.TrimRefusedError) as caught:
        engine.trim(marks, force=False)
    assert sorted(caught.value.clients) == [("a", 3), ("b", 1)]
    assert kept(engine, partitions) == before
    with pytest.raises(pqlog.TrimRefusedError) as caught:
        engine.trim([(one, 10**12) for one in partitions], force=False)
    assert sorted(caught.value.clients) == [("a", 5), ("b", 4 + 1)]
    assert kept(engine, partitions) == before
    assert list(engine.trim(marks[:1], force=False)) == [3]  # nobody has anything left there
    assert list(engine.trim(marks, force=True)) == [0, 3, 3]
    assert [offsets(one) for one in partitions] == [[], at[1][3:], at[2][3:]]
    assert [state.lag for one in partitions for state in one.clients()] == [0, 3, 2, 1]
    assert list(engine.trim([(partitions[2], at[2][4]), (partitions[0], 0)], force=True)) == [1, 0]


def test_a_batch_of_which_nothing_is_kept_is_not_handed_out_in_order_either(engine, partitions):
    at = put(partitions[1], *[singles(b"1")] * 6)
    client = partitions[1].client("c")
    client.join()
    held = take(client)
    engine.trim([(partitions[1], at[2])], force=True)
    assert take(client) is None
    assert not client.has_work("", ordered=True)
    client.leave(held)
    following = take(client)
    assert (following.number, following.span) == (2, around(at[2:4]))
    engine.trim([(partitions[1], at[3])], force=True)
    client.release(following, None)
    again = take(client, messages=9)
    assert (again.number, again.span, again.attempt) == (2, around(at[2:4]), 2)


# clients


def test_a_client_of_a_partition_is_nothing_to_the_others(engine, partitions):
    at = fill(partitions)
    first, second, third = clients_of(partitions)
    assert second.join(at[1][4]).lag == 2
    assert (first.state(), third.state()) == (None, None)
    assert [[state.client for state in one.clients()] for one in partitions] == [[], ["c"], []]
    third.join()
    partitions[2].client("d").join()
    assert [[state.client for state in one.clients()] for one in partitions] == [[], ["c"], ["c", "d"]]
    assert (list(partitions[0].clients_near("c")), list(partitions[1].clients_near("cc"))) == ([], ["c"])
    assert set(partitions[2].clients_near("cc")) == {"c", "d"}
    assert third.acknowledge(at[2][1], third.state().epoch)
    assert [client.state() and client.state().lag for client in (first, second, third)] == [None, 2, 3]
    epochs = [state.epoch for one in partitions for state in one.clients()]
    assert len(set(epochs)) == 3
    assert not third.acknowledge(at[2][2], second.state().epoch)
    assert {client.name for client in (first, second, third)} == {"c"}


def test_clients_are_moved_anywhere_in_all_partitions(engine, partitions):
    at = fill(partitions)
    stops = [span.stop for span in engine.spans(partitions)]
    clients = clients_of(partitions)
    edges = [
        sorted({0, *some, *(offset + 1 for offset in some), stop, 10**12}) for some, stop in zip(at, stops, strict=True)
    ]
    seen = set()
    was = [len(some) for some in at]
    for case in itertools.zip_longest(*edges, fillvalue=0):
        moved = list(engine.seek(list(zip(clients, case, strict=True))))
        lags = [sum(offset >= to for offset in some) for some, to in zip(at, case, strict=True)]
        states = [client.state() for client in clients]
        assert [state.lag for state in states] == lags
        assert [one.position for one in moved] == [state.position for state in states]
        assert [(one.again, one.skipped) for one in moved] == [
            (max(0, now - before), max(0, before - now)) for now, before in zip(lags, was, strict=True)
        ]
        for state, stop in zip(states, stops, strict=True):
            assert state.position <= stop
            assert state.epoch not in seen
            seen.add(state.epoch)
        was = lags
    assert list(engine.seek([])) == []
    assert list(engine.seek([(clients[2], at[2][0])])) == [Moved(at[2][0], 5 - was[2], 0)]


def test_clients_are_moved_all_or_not_at_all(engine, partitions):
    at = fill(partitions)
    topic = one_partition(engine, "gone")
    gone = topic.client("c")
    clients = clients_of(partitions)
    held = take(clients[0])
    before = clients[0].state()
    topic.delete(force=True)
    moves = [(clients[0], at[0][1]), (clients[1], at[1][1]), (gone, 1)]
    with pytest.raises(pqlog.UnknownTopicError):
        engine.seek(moves)
    assert [client.state() for client in clients] == [before, None, None]
    clients[0].finish(held)
    before = clients[0].state()
    with pytest.raises(pqlog.UnknownTopicError):
        engine.delete_clients([clients[0], gone])
    assert clients[0].state() == before


def test_moving_clients_gives_up_the_batches_of_each(engine, partitions):
    at = fill(partitions)
    clients = clients_of(partitions)
    held = [take(client) for client in clients]
    engine.seek([(clients[0], at[0][0]), (clients[2], at[2][1])])
    for number in (0, 2):
        with pytest.raises(pqlog.ClaimLostError):
            take(clients[1], done=Done(clients[number], held[number]))
        with pytest.raises(pqlog.ClaimLostError):
            clients[number].finish(held[number])
        assert clients[number].claims() == []
        assert not clients[number].release(held[number], None)
    assert len(clients[1].claims()) == 1
    clients[1].finish(held[1])
    following = take(clients[2])
    assert (following.number, following.span) == (2, around(at[2][1:3]))


def test_clients_are_deleted_in_all_partitions(engine, partitions):
    fill(partitions)
    clients = clients_of(partitions)
    assert not engine.delete_clients(clients)
    assert not engine.delete_clients([])
    clients[1].join()
    epoch = clients[1].state().epoch
    partitions[1].client("d").join()
    held = take(clients[1])
    assert engine.delete_clients(clients)
    assert not engine.delete_clients(clients)
    assert [[state.client for state in one.clients()] for one in partitions] == [[], ["d"], []]
    with pytest.raises(pqlog.ClaimLostError):
        clients[1].finish(held)
    assert clients[1].join().epoch != epoch
    assert clients[1].state().lag == 6


# batches


def test_each_partition_has_batches_of_its_own(engine, partitions):
    at = fill(partitions)
    clients = clients_of(partitions)
    held = [take(client, "one", messages=2) for client in clients]
    assert [(claim.number, claim.span, claim.messages) for claim in held] == [(1, around(some[:2]), 2) for some in at]
    assert len({claim.token for claim in held}) == COUNT
    for number, client in enumerate(clients):
        assert [claim.span for claim in client.claims()] == [held[number].span]
        assert partitions[number].open_batches() == {"c": (1, 1)}
        with pytest.raises(pqlog.ClaimedError):
            client.acknowledge(at[number][0], client.state().epoch)
    with pytest.raises(pqlog.ClaimLostError):
        clients[1].finish(held[0])
    clients[2].finish(held[2])
    assert [client.state().lag for client in clients] == [3, 6, 3]


def test_a_batch_of_another_partition_or_topic_is_acknowledged_with_a_claim(engine, partitions):
    at = fill(partitions)
    other = one_partition(engine, "other")
    there = put(other, singles(b"1", b"2", b"3"))
    first, second, third = clients_of(partitions)
    source = other.client("s")
    held = take(source, "w")
    claim, went = second.advance(Size(2), "w", Done(source, held, [Output(partitions[0], [singles(b"7")])]), True)
    assert (claim.span, claim.client, [put.messages for put in went]) == (around(at[1][:2]), "c", [1])
    assert (source.state().lag, source.claims(), len(offsets(partitions[0]))) == (1, [], 4)
    claim, went = third.advance(Size(2), "w", Done(second, claim), True)
    assert (claim.span, went, second.state().lag, second.claims()) == (around(at[2][:2]), [], 4, [])
    claim, _ = source.advance(Size(2), "w", Done(third, claim), True)
    assert (claim.number, claim.span, third.state().lag) == (2, around(there[2:]), 3)
    claim, _ = first.advance(Size(9), "w", Done(source, claim), True)
    assert (claim.messages, source.state().lag) == (4, 0)
    nothing, _ = source.advance(Size(9), "w", Done(first, claim), True)  # acknowledged, though nothing is claimed
    assert (nothing, first.state().lag, first.claims()) == (None, 0, [])


def test_a_batch_of_another_partition_that_is_lost_changes_nothing(engine, partitions):
    fill(partitions)
    first, second, _ = clients_of(partitions)
    second.join()
    lost = take(first)
    first.leave(lost)
    held = take(first)
    before, state = kept(engine, partitions), second.state()
    for done in (
        Done(first, lost, [Output(partitions[2], [singles(b"7")])]),
        Done(first, held, [Output(partitions[1], [singles(b"7")]), Output(partitions[2], broken(singles(b"7")))]),
    ):
        with pytest.raises(pqlog.Error):
            second.advance(Size(2), "", done, True)
        assert (kept(engine, partitions), second.state(), second.claims()) == (before, state, [])
        assert [claim.token for claim in first.claims()] == [held.token]
    gone = one_partition(engine, "gone")
    gone.delete(force=True)
    for client, done in (
        (gone.client("c"), Done(first, held, [Output(partitions[2], [singles(b"7")])])),
        (second, Done(first, held, [Output(partitions[2], [singles(b"7")]), Output(gone, [])])),
    ):
        with pytest.raises(pqlog.UnknownTopicError):
            client.advance(Size(2), "", done, True)
        assert (kept(engine, partitions), second.state(), second.claims()) == (before, state, [])
    first.finish(held)
    assert take(second).number == 1


def test_outputs_go_to_partitions_of_topics_and_are_said_in_their_order(engine, partitions):
    other = engine.topic("other", "json", 2)
    put(partitions[0], singles(b"1", b"2"))
    client = partitions[0].client("c")
    put_in(other, {1: [singles(b"old")]}, ids={1: Ids([["old"]], never)})
    outputs = [
        Output(other[1], [singles(b"a", b"b")], Ids([["a", "b"]], never)),
        Output(partitions[2], [Segment(b"segment", 4)]),
        Output(other[0], [singles(b"b", b"old", b"c")], Ids([["b", "old", "c"]], never)),
        Output(other[1], [singles(b"d")]),
        Output(partitions[0], [singles(b"3")]),
        Output(partitions[1], []),
    ]
    went = client.finish(take(client), outputs)
    assert [one.messages for one in went] == [2, 4, 1, 1, 1, 0]
    assert [[row.value for row in rows(one)] for one in other] == [[b"c"], [b"old", b"a", b"b", b"d"]]
    assert [[row.value for row in rows(one)] for one in partitions] == [[b"1", b"2", b"3"], [], [b"segment"]]
    assert other[0].find_id("b") == {1: Put(went[0].last, went[0].last, 1)}
    assert client.state().lag == 1


# in order


def test_while_a_batch_is_in_hands_nobody_gets_another_of_its_partition(engine, partitions):
    fill(partitions)
    clients = clients_of(partitions)
    assert all(client.has_work("w", ordered=True) for client in clients)  # it may be
    held = take(clients[1], "one", messages=2)
    for worker in ("two", ""):
        assert not clients[1].has_work(worker, ordered=True)
        assert take(clients[1], worker) is None
    assert clients[1].has_work("two")
    assert len(clients[1].claims()) == 1
    assert clients[0].has_work("two", ordered=True)
    assert take(clients[0], "two").number == 1
    assert partitions[1].client("d").has_work("two", ordered=True)
    assert take(partitions[1].client("d"), "two").number == 1
    clients[1].finish(held)
    assert clients[1].has_work("two", ordered=True)
    assert take(clients[1], "two").number == 2


GIVING_BACK = {
    "released": lambda client, held: client.release(held.pop(), "TypeError: no"),
    "left": lambda client, held: client.leave(held.pop()),
    "collected": lambda client, held: held.clear() or gc.collect(),
    "own": lambda client, held: None,
}


@pytest.mark.parametrize("how", GIVING_BACK)
def test_a_batch_that_is_free_is_handed_out_first(engine, partitions, how):
    at = fill(partitions)
    client = partitions[1].client("c")
    held = [take(client, "one", messages=2)]
    token = held[0].token
    GIVING_BACK[how](client, held)
    worker = "one" if how == "own" else "two"
    assert client.has_work(worker, ordered=True)
    again = take(client, worker, messages=9)
    assert (again.number, again.span, again.messages, again.attempt) == (1, around(at[1][:2]), 2, 2)
    assert again.token != token
    assert again.error == ("TypeError: no" if how == "released" else None)
    assert take(client, "three") is None
    following = take(client, worker, Done(client, again), messages=9)
    assert (following.number, following.span) == (2, around(at[1][2:]))
    assert take(client, worker, Done(client, following)) is None
    assert client.state().lag == 0
    assert not client.has_work(worker, ordered=True)


def test_a_worker_without_a_name_has_nothing_of_its_own(engine, partitions):
    fill(partitions)
    client = partitions[1].client("c")
    held = take(client, "")
    assert not client.has_work("", ordered=True)
    assert take(client, "") is None
    client.finish(held)


def test_of_several_batches_in_hands_all_must_come_back(engine, partitions):
    """They were handed out without asking for the order."""
    at = put(partitions[1], *[singles(b"1")] * 8)
    client = partitions[1].client("c")
    first, second, third = (take(client, name, ordered=False) for name in ("one", "two", "three"))
    for worker in ("one", "four"):
        assert not client.has_work(worker, ordered=True)
        assert take(client, worker) is None
    client.release(second, None)
    assert not client.has_work("four", ordered=True)
    assert take(client, "four") is None
    assert take(client, "one", Done(client, first)) is None  # acknowledged all the same
    assert client.state().lag == 6
    client.finish(third)
    assert client.state().lag == 6
    assert client.has_work("four", ordered=True)
    again = take(client, "four")
    assert (again.number, again.span) == (2, around(at[2:4]))
    following = take(client, "four", Done(client, again))
    assert (following.number, following.span, client.state().lag) == (4, around(at[6:]), 2)


def test_several_free_batches_are_handed_out_one_by_one(engine, partitions):
    at = put(partitions[1], *[singles(b"1")] * 8)
    client = partitions[1].client("c")
    for claim in [take(client, ordered=False) for _ in range(3)]:
        client.leave(claim)
    for index in range(4):
        held = take(client)
        assert (held.number, held.span) == (index + 1, around(at[2 * index : 2 * index + 2]))
        assert take(client) is None
        assert not client.has_work("", ordered=True)
        client.finish(held)
    assert client.state().lag == 0


def test_a_partition_of_one_may_be_in_order_too(engine):
    topic = one_partition(engine, "main")
    put(topic, *[singles(b"1")] * 4)
    client = topic.client("c")
    held = take(client)
    assert take(client) is None
    assert take(client, ordered=False).number == 2
    client.finish(held)


def test_workers_that_take_partitions_in_turn_keep_the_order_of_each(engine, partitions):
    """Each acknowledges its batch and claims one of the next partition in the same step."""
    count = 60
    for number, one in enumerate(partitions):
        put(one, singles(*[b"%d" % n for n in range(count - number)]))
    out = engine.topic("out", "json", COUNT)
    clients = clients_of(partitions)
    for client in clients:
        client.join()
    working, failed = [0] * COUNT, []

    def work(name):
        chance = random.Random(name)
        done = None
        try:
            while done or any(client.state().lag for client in clients):
                number = chance.randrange(COUNT)
                claim, _ = clients[number].advance(Size(chance.randint(1, 4)), str(name), done, True)
                done = None
                if claim is None:
                    continue
                working[number] += 1
                assert working[number] == 1, "two have a batch of one partition"
                values = [row.value for row in rows(partitions[number], claim.span)]
                if chance.random() < 0.2:
                    working[number] -= 1
                    assert clients[number].release(claim, None)
                else:
                    working[number] -= 1
                    done = Done(clients[number], claim, [Output(out[number], [Singles(values)])])
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    for number, one in enumerate(out):
        assert [row.value for row in rows(one)] == [b"%d" % n for n in range(count - number)]


# interrupted


def _append(engine, partitions):
    before = [one.span() for one in partitions]
    chunks = {number: [singles(b"7"), Segment(b"segment", 2)] for number in range(COUNT)}
    source = partitions[0].info.name
    return (
        lambda: put_in(partitions, chunks, id="x", cursor=Cursor(source, "1", "null")),
        lambda: [
            *(one.span() != span for one, span in zip(partitions, before, strict=True)),
            *(one.find_id("x") is not None for one in partitions),
            engine.cursor(source) is not None,
        ],
    )


def _trim(engine, partitions):
    cuts = [offsets(one)[2] for one in partitions]
    return (
        lambda: engine.trim(list(zip(partitions, cuts, strict=True)), force=True),
        lambda: [one.span().first == cut for one, cut in zip(partitions, cuts, strict=True)],
    )


def _seek(engine, partitions):
    clients = clients_of(partitions)
    epochs = [client.state().epoch for client in clients]
    return (
        lambda: engine.seek([(client, 10**12) for client in clients]),
        lambda: [
            *(client.state().epoch != epoch for client, epoch in zip(clients, epochs, strict=True)),
            *(client.state().lag == 0 for client in clients),
        ],
    )


def _delete_clients(engine, partitions):
    clients = clients_of(partitions)
    return lambda: engine.delete_clients(clients), lambda: [client.state() is None for client in clients]


def _rename(engine, partitions):
    old = partitions[0].info.name

    def parts():
        found = engine.find_topic(old) or engine.find_topic(f"new {old}")
        assert list(found) == list(partitions)
        return [one.info.name != old for one in partitions]

    return lambda: partitions[1].rename(f"new {old}"), parts


def _delete(engine, partitions):
    def is_gone(one):
        try:
            return one.span() is None
        except pqlog.UnknownTopicError:
            return True

    name = partitions[0].info.name
    return (
        lambda: partitions[1].delete(force=True),
        lambda: [not engine.find_topic(name), *map(is_gone, partitions)],
    )


def _advance(engine, partitions):
    first, second, _ = clients_of(partitions)
    before = [one.span() for one in partitions]
    done = Done(first, take(first), [Output(one, [singles(b"7")]) for one in partitions])
    return (
        lambda: second.advance(Size(2), "", done, True),
        lambda: [
            *(one.span() != span for one, span in zip(partitions, before, strict=True)),
            first.state().lag == 2,
            second.state().batches == 1,
        ],
    )


# An exception in the callback of a weak reference is only printed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("make", [_append, _trim, _seek, _delete_clients, _rename, _delete, _advance])
def test_ctrl_c_anywhere_leaves_all_or_nothing(engine, make):
    def made(name):
        partitions = engine.topic(name, "json", COUNT)
        fill(partitions)
        for client in clients_of(partitions):
            client.join()
        return partitions, *make(engine, partitions)

    _, call, parts = made("whole")
    assert set(parts()) == {False}
    count = moments(call)
    assert set(parts()) == {True}
    for at in range(1, count + 1, count // by_ring(30, 300) + 1):
        partitions, call, parts = made(f"{at}")
        reached, where = struck(call, at, KeyboardInterrupt())
        last.clear()
        assert len(set(parts())) == 1, f"moment {at} of {count}: half of it is done ({reached}, {where})"
        if engine.find_topic(partitions[0].info.name):
            put_in(partitions, {number: [singles(b"8")] for number in range(COUNT)})
            assert [rows(one)[-1].value for one in partitions] == [b"8"] * COUNT


# two processes, or what is like them: two stores of one file


@pytest.fixture
def two(tmp_path):
    with contextlib.ExitStack() as stack:
        stores = [in_a_file(tmp_path) for _ in range(2)]
        for store in stores:
            stack.callback(store.close)
        yield stores


def test_two_stores_agree_about_the_partitions_of_a_topic(two):
    here, there = two
    made = here.topic("main", "json", COUNT)
    found = there.find_topic("main")
    assert [one.info for one in there.topic("main", "bytes", 1)] == [one.info for one in found]
    assert [one.info for one in found] == [one.info for one in made]
    made[1].rename("new")
    assert list(there.find_topic("main")) == []
    assert list(there.find_topic("new")) == list(found)
    assert [one.info.name for one in found] == ["new"] * COUNT
    fill(found)
    assert kept(here, made) == kept(there, found)
    found[2].delete(force=True)
    assert here.topics() == []
    for one in made:
        with pytest.raises(pqlog.UnknownTopicError):
            one.append_one(b"1", None, None)


def test_a_topic_that_two_stores_make_at_once_is_one(two):
    made = [[], []]
    barrier = threading.Barrier(2)

    def work(index):
        for n in range(20):
            barrier.wait()
            topic = two[index].topic(f"{n}", "json", index + 2)
            made[index].append([one.info for one in topic])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made[0] == made[1]
    assert len(two[0].topics()) == 20


@pytest.mark.parametrize("step", [0, -(10**9)], ids=["stands", "goes_back"])
def test_the_times_of_two_stores_never_meet(two, step, monkeypatch):
    set_clock(monkeypatch, step)
    two[0].topic("main", "json", COUNT)
    topics = [store.find_topic("main") for store in two]
    chance, newest = random.Random(1), 0
    for n in range(60):
        partitions = topics[chance.randrange(2)]
        numbers = chance.sample(range(COUNT), chance.randint(1, COUNT))
        if n % 3:
            went = put_in(partitions, {number: [singles(b"1", b"2")] for number in numbers})
        else:
            at = partitions[numbers[0]].append_one(b"1", None, None)
            went = {numbers[0]: Put(at, at, 1)}
        for other in topics:
            found = {other[number].time_at(put.last) for number, put in went.items()}
            assert len(found) == 1
            assert min(found) > newest
        newest = max(found)


def test_the_merged_order_of_two_stores_grows_only_at_its_end(two):
    two[0].topic("main", "json", COUNT)
    watch_threads_that_put(two)


def test_the_ids_of_two_stores_are_of_one_topic(two):
    here = two[0].topic("main", "json", COUNT)
    there = two[1].find_topic("main")
    went = put_in(here, {0: [singles(b"1")], 2: [singles(b"2")]}, id="x")
    assert put_in(there, {1: [singles(b"3")]}, id="x") == went
    ids = {number: Ids([[f"{number}", "shared"]], never) for number in (1, 2)}
    chunks = {number: [singles(b"a", b"b")] for number in (1, 2)}
    assert [put.messages for put in put_in(there, chunks, ids=ids).values()] == [2, 1]
    assert [put.messages for put in put_in(here, chunks, ids=ids).values()] == [0, 0]
    two[1].trim([(one, 10**12) for one in there], force=True)
    assert here[0].find_id("x") is here[1].find_id("shared") is None
    assert [put.messages for put in put_in(here, chunks, ids=ids).values()] == [2, 1]


def test_a_batch_that_one_store_has_keeps_the_other_from_the_partition(two):
    here = two[0].topic("main", "json", COUNT)
    fill(here)
    there = two[1].find_topic("main")
    mine, theirs = clients_of(here), clients_of(there)
    held = take(mine[1], "one")
    assert take(theirs[1], "two") is None
    assert not theirs[1].has_work("two", ordered=True)
    other = take(theirs[2], "two")
    following, _ = theirs[0].advance(Size(2), "two", Done(theirs[2], other), True)
    assert following.number == 1
    assert mine[2].state().lag == 3
    with pytest.raises(pqlog.ClaimLostError):
        two[1].seek([(theirs[1], 1)])
        mine[1].finish(held)
    held = take(mine[1], "one")
    two[0].close()
    assert take(theirs[1], "two").number == held.number


def test_a_batch_of_a_process_that_is_gone_is_handed_out_first(tmp_path):
    engine = in_a_file(tmp_path)
    at = fill(engine.topic("main", "json", COUNT))
    client = engine.find_topic("main")[1].client("c")
    script = """
import sys
from pathlib import Path
from pqlog.store.values import Size
from tests.contract.engines import in_a_file
client = in_a_file(Path(sys.argv[1])).find_topic("main")[1].client("c")
held = client.advance(Size(2), "one", None, True)
print("has it", flush=True)
sys.stdin.read()
"""
    with Process(python(script, tmp_path)) as other:
        assert other.line() == "has it"
        assert take(client, "two") is None
        assert not client.has_work("two", ordered=True)
        other.kill()
        other.wait()
    assert client.has_work("two", ordered=True)
    again = take(client, "two")
    assert (again.number, again.span, again.attempt) == (1, around(at[1][:2]), 2)
    assert take(client, "three") is None
    assert take(client, "two", Done(client, again)).number == 2
    engine.close()
