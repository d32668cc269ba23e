"""What any engine must do with a topic of several partitions. Nothing here assumes how far apart two offsets are."""

import itertools
import random
import threading
import time

import pytest

import pqlog
from pqlog.store.values import MAX_PARTITIONS, Cursor, Done, Ids, Output, Put, Segment, Singles, Size, Span
from tests.contract.engines import (
    COUNT,
    around,
    broken,
    clients_of,
    few,
    fill_all,
    kept,
    never,
    offsets,
    one_partition,
    put,
    put_in,
    rows,
    singles,
    skip_unless_in_order,
    take,
)

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
    at = fill_all(partitions)
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
    fill_all(partitions)
    other = one_partition(engine, "other")
    put(other, singles(b"1"))
    for number, name in ((0, "b"), (2, "b"), (2, "a")):
        partitions[number].client(name).join()
    before = kept(partitions)
    with pytest.raises(pqlog.TrimRefusedError) as caught:
        partitions[asked].delete(force=False)
    assert sorted(caught.value.clients) == [("a", 5), ("b", 8)]
    assert kept(partitions) == before
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
    fill_all(partitions)
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
        before = kept(partitions)
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
    fill_all(partitions)
    before = kept(partitions)
    stops = [one.span().stop for one in partitions]
    went = put_in(partitions, {0: [], 1: [singles(b"7")], 2: []})
    assert [went[number] for number in (0, 2)] == [Put(stops[n], stops[n] - 1, 0) for n in (0, 2)]
    assert went[1].messages == 1
    after = kept(partitions)
    assert (after[0], after[2]) == (before[0], before[2])


@pytest.mark.parametrize("failing", range(COUNT))
@pytest.mark.parametrize("good", range(3))
def test_a_call_over_partitions_is_all_or_nothing(engine, partitions, failing, good):
    at = fill_all(partitions)
    before, stops = kept(partitions), engine.spans(partitions)
    chunks = {number: [singles(b"new"), Segment(b"new", 2)] for number in range(COUNT)}
    ids = {number: Ids([[f"{number}"], [f"{number} a", f"{number} b"]], never) for number in range(COUNT)}
    bad = {**chunks, failing: broken(*chunks[failing][:good])}
    for options in ({"id": "call"}, {"cursor": Cursor("source", "1", "null")}, {"ids": ids}):
        bad = {**chunks, failing: broken(*chunks[failing][:good])}
        with pytest.raises(pqlog.Error, match="the source broke"):
            put_in(partitions, bad, **options)
        assert kept(partitions) == before
        spans = engine.spans(partitions)
        assert [one.first for one in spans] == [one.first for one in stops]
        assert spans == stops or not engine.capabilities.dense_offsets  # it may leave a gap
    assert engine.cursor("source") is None
    assert [one.find_id(id) for one in partitions for id in ("call", "0", "1 a", "2 b")] == [None] * 12
    went = put_in(partitions, chunks, id="call", cursor=Cursor("source", "1", "null"), ids=ids)
    assert [put.messages for put in went.values()] == [3] * COUNT
    assert [len(offsets(one)) for one in partitions] == [len(some) + 3 for some in at]


def test_a_cursor_is_set_with_all_partitions_or_with_none(engine, partitions):
    chunks = {number: [singles(b"1")] for number in range(COUNT)}
    put_in(partitions, chunks, cursor=Cursor("source", "1", "null"))
    before = kept(partitions)
    with pytest.raises(pqlog.CursorError):
        put_in(partitions, chunks, id="x", cursor=Cursor("source", "2", "null"))
    assert (kept(partitions), engine.cursor("source")) == (before, "1")
    assert partitions[0].find_id("x") is None
    put_in(partitions, {2: []}, cursor=Cursor("source", "2", "1"))
    assert (kept(partitions), engine.cursor("source")) == (before, "2")


# ids


def test_an_id_is_of_the_whole_topic(engine, partitions):
    fill_all(partitions)
    assert [one.find_id("x") for one in partitions] == [None] * COUNT
    went = put_in(partitions, {2: [singles(b"1", b"2")], 0: [Segment(b"segment", 3)]}, id="x")
    before = kept(partitions)
    for again in ({2: [singles(b"1")]}, {1: [singles(b"1")]}, {number: broken() for number in (1, 0)}):
        assert put_in(partitions, again, id="x") == went
    assert [one.find_id("x") for one in partitions] == [went] * COUNT
    assert kept(partitions) == before
    other = engine.topic("other", "json", 2)
    assert put_in(other, {1: [singles(b"1")]}, id="x") == other[0].find_id("x")
    assert partitions[1].find_id("x") == went


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
@pytest.mark.parametrize("part", [False, True])
def test_an_id_is_known_while_some_partition_keeps_some_of_it(engine, partitions, order, part):
    fill_all(partitions)
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
            of_messages = {number: Ids([["x"]], never)}
            assert put_in(partitions, {number: [singles(b"4")]}, ids=of_messages)[number].messages == 0
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
    skip_unless_in_order(engine)
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
    at = fill_all(partitions)
    whole = [{offset: row.time for row in rows(one) for offset in range(row.offset, row.stop)} for one in partitions]
    for moment in {0, *itertools.chain(*(some.values() for some in whole))}:
        for number, one in enumerate(partitions):
            for asked in (moment, moment + 1):
                later = [offset for offset in at[number] if whole[number][offset] >= asked]
                assert one.offset_at(asked) == (later[0] if later else one.span().stop)


def test_spans_are_of_one_moment(engine, partitions):
    other = one_partition(engine, "other")
    assert list(engine.spans([])) == []
    spans = [partitions[2].span(), other.span(), partitions[2].span()]
    assert list(engine.spans([partitions[2], other, partitions[2]])) == spans
    everywhere = {number: [singles(b"1")] for number in range(COUNT)}
    turns = len(few(engine, range(30)))
    for _ in range(turns):
        put_in(partitions, everywhere)
    at = [offsets(one) for one in partitions]

    def work():
        for n in range(turns):
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
        assert len(put_since) == 1 or not engine.capabilities.ordered_partitions, "half of a put"
        seen |= first
    thread.join()
    assert max(seen) == turns - 1


# keeping


def test_partitions_are_trimmed_at_any_offsets(engine):
    enough = [cuts for cuts in itertools.product(range(4), range(7), (0, 3, 5)) if not sum(cuts) % 3]
    for cuts in few(engine, enough):
        partitions = engine.topic("-".join(map(str, cuts)), "json", COUNT)
        at = fill_all(partitions)
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
    at = fill_all(partitions)
    engine.seek([(partitions[1].client("b"), at[1][2]), (partitions[2].client("b"), at[2][4])])
    partitions[2].client("a").join()
    partitions[0].client("a").join(10**12)
    marks = [(one, some[3] if len(some) > 3 else 10**12) for one, some in zip(partitions, at, strict=True)]
    before = kept(partitions)
    with pytest.raises(pqlog.TrimRefusedError) as caught:
        engine.trim(marks, force=False)
    assert sorted(caught.value.clients) == [("a", 3), ("b", 1)]
    assert kept(partitions) == before
    with pytest.raises(pqlog.TrimRefusedError) as caught:
        engine.trim([(one, 10**12) for one in partitions], force=False)
    assert sorted(caught.value.clients) == [("a", 5), ("b", 4 + 1)]
    assert kept(partitions) == before
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
