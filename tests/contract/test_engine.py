"""What any engine must do, run over each that there is. Nothing here assumes how far apart two offsets are."""

import gc
import itertools
import os
import threading

import pytest

import pqlog
from pqlog.store.api import CachesSchema, Seals
from pqlog.store.values import CachedSchema, Cursor, Done, Ids, Moved, Output, Put, Segment, Singles, Size, Span
from tests.contract.engines import (
    append,
    around,
    fill,
    in_memory,
    never,
    offsets,
    one_partition,
    put,
    rows,
    seek,
    singles,
    sparse,
    trim,
)


@pytest.fixture
def client(topic):
    return topic.client("c")


def take(client, owner="", done=None, messages=5, outputs=()):
    return client.advance(Size(messages), owner, done and Done(client, done, outputs))[0]


# topics


def test_topics_are_made_once(engine):
    first = one_partition(engine, "a")
    assert one_partition(engine, "a", "bytes") == first
    assert [list(engine.find_topic(name)) for name in "ab"] == [[first], []]
    assert [(info.name, info.codec) for info in engine.topics()] == [("a", "json")]


def test_a_topic_keeps_everything_under_another_name(engine, topic, client):
    at = fill(topic)
    client.join()
    other = one_partition(engine, "other")
    with pytest.raises(pqlog.ArgumentError, match="already"):
        topic.rename("other")
    topic.rename("new")
    assert (topic.info.name, list(engine.find_topic("main"))) == ("new", [])
    assert topic in engine.find_topic("new")
    assert offsets(topic) == at
    assert client.state().lag == 8
    assert {info.name for info in engine.topics()} == {"new", other.info.name}


def test_a_deleted_topic_is_gone_and_one_of_the_same_name_is_another(engine, topic, client):
    fill(topic)
    client.join()
    with pytest.raises(pqlog.TrimRefusedError) as caught:
        topic.delete(force=False)
    assert caught.value.clients == (("c", 8),)
    topic.delete(force=True)
    assert (list(engine.find_topic("main")), list(engine.topics())) == ([], [])
    for call in (
        topic.span,
        client.state,
        client.join,
        topic.open_batches,
        lambda: append(topic, [singles(b"1")]),
        lambda: rows(topic),
    ):
        with pytest.raises(pqlog.UnknownTopicError):
            call()
    again = one_partition(engine, "main")
    assert again.info.id != topic.info.id
    assert (offsets(again), again.clients()) == ([], [])


# putting


def test_offsets_ascend_over_all_ways_of_putting(topic):
    at = [
        *put(topic, singles(b"1")),
        *put(topic, singles(b"2", b"3"), singles(b"4", key="k")),
        topic.append_one(b"5", "k", '{"a":"b"}'),
        *put(topic, Segment(b"segment", 10), Segment(b"segment", 5)),
        *put(topic, singles(b"20")),
    ]
    assert len(at) == 21
    assert at == sorted(set(at)) == offsets(topic)
    kept = topic.span()
    assert kept.first == at[0] >= 0
    assert kept.stop > at[-1]


def test_a_put_of_nothing_says_where_the_next_would_go(topic):
    fill(topic)
    stop = topic.span().stop
    assert append(topic, []) == Put(stop, stop - 1, 0)
    assert topic.append_one(b"1", None, None) >= stop


def test_what_is_read_is_what_was_put(topic):
    put(topic, Singles([b"1", b"2"], ["k", None], '{"a":"b"}'), Segment(b"\0segment", 3, "field", '{"c":"d"}'))
    topic.append_one(b"3", "k", None)
    found = [(row.value, row.key, row.headers, row.rows, row.skip, row.whole) for row in rows(topic)]
    assert found == [
        (b"1", "k", '{"a":"b"}', None, 0, None),
        (b"2", None, '{"a":"b"}', None, 0, None),
        (b"\0segment", "field", '{"c":"d"}', 3, 0, 3),
        (b"3", "k", None, None, 0, None),
    ]


def test_messages_of_one_put_can_have_headers_of_their_own(topic):
    values, keys = [b"%d" % n for n in range(700)], [f"k{n}" if n % 3 else None for n in range(700)]
    headers = [f'{{"n":"{n}"}}' if n % 2 else None for n in range(700)]
    put(topic, singles(b"0"), Singles(values, keys, headers), Singles(values, None, headers), singles(b"0", key="k"))
    found = [(row.value, row.key, row.headers) for row in rows(topic)]
    assert found[1:701] == list(zip(values, keys, headers, strict=True))
    assert found[701:-1] == [(value, None, text) for value, text in zip(values, headers, strict=True)]
    assert (found[0], found[-1]) == ((b"0", None, None), (b"0", "k", None))


def test_headers_of_their_own_stay_with_messages_whose_id_is_new(topic):
    def put_ids(chunk, *ids):
        return append(topic, [chunk], ids=Ids([ids], never)).messages

    assert put_ids(Singles([b"1", b"2"], None, ['{"n":"1"}', None]), "a", "b") == 2
    assert put_ids(Singles([b"2", b"3", b"4"], ["k", None, "k"], [None, '{"n":"3"}', None]), "b", "c", "d") == 2
    found = [(row.value, row.key, row.headers) for row in rows(topic)]
    assert found == [(b"1", None, '{"n":"1"}'), (b"2", None, None), (b"3", None, '{"n":"3"}'), (b"4", "k", None)]


def test_append_is_all_or_nothing(topic):
    def chunks():
        yield singles(b"1")
        raise RuntimeError("the source broke")

    before = topic.span()
    with pytest.raises(pqlog.Error, match="the source broke"):
        append(topic, chunks())
    assert topic.span() == before
    assert not before
    assert offsets(topic) == []
    assert put(topic, singles(b"1")) == offsets(topic)


def test_an_id_puts_once(engine, topic):
    assert topic.find_id("x") is None
    went = append(topic, [singles(b"1", b"2")], "x")
    assert went.messages == 2
    assert append(topic, [singles(b"3")], "x") == went
    assert topic.find_id("x") == {topic.info.partition: went}
    assert one_partition(engine, "other").find_id("x") is None
    assert offsets(topic) == [went.first, went.last]


def test_of_messages_with_ids_only_those_are_put_whose_id_is_new(topic):
    def thin(segment, mask, start):
        thinned.append((mask, start))
        yield Segment(b"thinned", segment.rows if mask is None else sum(mask), segment.key, segment.headers)

    def put_ids(chunks, *ids):
        return append(topic, chunks, ids=Ids(ids, thin)).messages

    thinned = []
    assert put_ids([singles(b"1", b"2", b"3", key="k")], ["a", "b", "a"]) == 2
    assert put_ids([Segment(b"segment", 2, "k"), singles(b"4")], ["c", "d"], ["e"]) == 3
    assert put_ids([singles(b"5"), Segment(b"x", 2)], ["c"], ["a", "b"]) == 0
    assert thinned == []
    chunks = [singles(b"6", b"7"), Segment(b"x", 3, "k", "{}"), Segment(b"y", 1), Segment(b"z", 1)]
    assert put_ids(chunks, ["e", "f"], ["f", "g", "h"], ["a"], ["i"]) == 4
    assert thinned == [(b"\0\1\1", 1), (None, 3)]
    assert [(row.value, row.rows, row.key) for row in rows(topic)] == [
        *((b"1", None, "k"), (b"2", None, "k"), (b"segment", 2, "k"), (b"4", None, None)),
        *((b"7", None, None), (b"thinned", 2, "k"), (b"thinned", 1, None)),
    ]
    at = offsets(topic)
    assert [topic.find_id(id) for id in "aci"] == [{topic.info.partition: Put(at[n], at[n], 1)} for n in (0, 2, 8)]


def test_a_cursor_commits_with_its_messages(engine, topic):
    def broken():
        yield singles(b"1")
        raise RuntimeError("the source broke")

    assert engine.cursor("source") is None
    with pytest.raises(pqlog.Error):
        append(topic, broken(), cursor=Cursor("source", "1", "null"))
    assert engine.cursor("source") is None
    append(topic, [singles(b"1")], cursor=Cursor("source", "1", "null"), id="x")
    append(topic, [singles(b"1")], cursor=Cursor("source", "0", "null"), id="x")
    assert engine.cursor("source") == "1"
    append(topic, [], cursor=Cursor("source", "2", "1.0"))
    assert engine.cursor("source") == "2"
    assert len(offsets(topic)) == 1


@pytest.mark.parametrize(
    ("found", "expected"), [("2", "1"), ("1", "true"), ("null", "0"), ("[1, [2]]", "[1, [3]]"), ('{"a": 1}', "{}")]
)
def test_a_cursor_that_is_not_as_expected_puts_nothing(engine, topic, found, expected):
    append(topic, [], cursor=Cursor("source", found, "null"))
    with pytest.raises(pqlog.CursorError, match="another process moved it"):
        append(topic, [singles(b"1")], cursor=Cursor("source", "3", expected), id="x")
    assert (engine.cursor("source"), offsets(topic), topic.find_id("x")) == (found, [], None)


@pytest.mark.parametrize(("found", "expected"), [('{"a":1,"b":[2.0]}', '{"b": [2], "a": 1.0}'), ('"x"', '"\\u0078"')])
def test_a_cursor_is_compared_as_a_value(engine, topic, found, expected):
    append(topic, [], cursor=Cursor("source", found, "null"))
    append(topic, [singles(b"1")], cursor=Cursor("source", "3", expected))
    assert engine.cursor("source") == "3"


# reading


@pytest.mark.parametrize("first", range(10))
@pytest.mark.parametrize("stop", range(10))
def test_rows_are_clipped_to_what_was_asked_for(topic, first, stop):
    at = fill(topic)
    edges = [0, *at, topic.span().stop]
    span = Span(edges[first], edges[stop])
    assert offsets(topic, span) == [offset for offset in at if span.first <= offset < span.stop]
    assert topic.count(span) == len(offsets(topic, span))
    for row in rows(topic, span):
        if row.rows is not None:
            assert (row.value, row.skip, row.whole) == (b"segment", row.offset - at[3], 4)


def test_the_messages_of_a_segment_have_offsets_one_after_the_other(topic):
    at = put(topic, singles(b"1"), Segment(b"segment", 1_000))[1:]
    assert at == list(range(at[0], at[0] + 1_000))


def test_a_read_is_bounded_but_never_empty(topic):
    at = put(topic, singles(*[b"x" * 100] * 50))
    assert 1 <= len(topic.read(topic.span(), 7, 1 << 20)) <= 7
    assert 1 <= len(topic.read(topic.span(), 100, 950)) <= 10
    assert [row.offset for row in topic.read(topic.span(), 100, 1)] == at[:1]
    assert topic.read(Span(topic.span().stop, topic.span().stop + 100), 100, 1 << 20) == []


def test_sealed_messages_are_what_they_were(engine, topic, client):
    assert isinstance(topic, Seals) is engine.capabilities.seals
    if not isinstance(topic, Seals):
        return
    append(topic, [Singles([b'{"n":%d}' % n for n in range(300)], [f"k{n % 7}" for n in range(300)], '{"a":"b"}')])
    topic.append_one(b'"last"', None, None)
    span = topic.span()
    rows, claim = topic.read(span, 1000, 1 << 20), take(client, messages=150)
    assert topic.seal(span.stop, lambda messages: None) >= 300
    assert topic.read(span, 1000, 1 << 20) == rows
    assert [topic.time_at(row.offset) for row in rows] == [row.time for row in rows]
    assert topic.offset_at(rows[-1].time) == next(row.offset for row in rows if row.time == rows[-1].time)
    assert topic.read(span, 1000, 1 << 20, "k3")[-1] == [row for row in rows if row.key == "k3"][-1]
    assert client.claims() == [claim]
    assert topic.seal(span.stop, lambda messages: None) == 0


def test_a_key_is_of_single_messages_and_perhaps_of_segments(topic):
    put(topic, Singles([b"1", b"2", b"3"], ["a", "b", "a"]), Segment(b"keyed", 3, "field"), Segment(b"plain", 2))
    put(topic, singles(b"4", key="a"), singles(b"5"))
    assert [row.value for row in rows(topic, key="a")] == [b"1", b"3", b"keyed", b"4"]
    assert [row.value for row in rows(topic, key="c")] == [b"keyed"]


def test_counting_from_the_end(topic):
    at = fill(topic)
    stop = topic.span().stop
    assert [topic.from_end(n) for n in range(10)] == [stop, *reversed(at), at[0]]
    part = Span.through(at[1], at[5])
    assert [topic.from_end(n, part) for n in range(7)] == [part.stop, *reversed(at[1:6]), at[1]]
    assert topic.count() == topic.count(Span(0, stop + 100)) == 8
    assert topic.count(Span(at[5], at[2])) == 0


def test_times_without_reading(topic):
    at = fill(topic)
    times = {offset: row.time for row in rows(topic) for offset in range(row.offset, row.stop)}
    assert [topic.time_at(offset) for offset in at] == [times[offset] for offset in at]
    assert topic.time_at(at[0] - 1) is None
    assert topic.time_at(topic.span().stop) is None
    assert sorted(times.values()) == list(times.values())
    for time in {*times.values(), 0, max(times.values()) + 1}:
        later = [offset for offset in at if times[offset] >= time]
        assert topic.offset_at(time) == (later[0] if later else topic.span().stop)


def test_any_offset_may_be_asked_for_also_one_of_no_message(topic, client):
    """Where an engine leaves gaps, those between two messages are asked for, and those before the first."""
    at = fill(topic)
    times = {offset: row.time for row in rows(topic) for offset in range(row.offset, row.stop)}
    stop = topic.span().stop
    for edge in sorted({max(0, edge) for one in (*at, stop) for edge in (one - 1, one, one + 1)} - {stop + 1}):
        behind = [offset for offset in at if offset >= edge]
        span = Span(edge, stop)
        assert offsets(topic, span) == behind
        assert topic.count(span) == len(behind)
        assert topic.count(Span(0, edge)) == 8 - len(behind)
        assert topic.from_end(len(behind), span) == (behind[0] if behind else stop)
        assert topic.time_at(edge) == (times[behind[0]] if behind and edge >= at[0] else None)
        moved = seek(topic, client, edge)
        assert (client.state().lag, moved.position >= at[0]) == (len(behind), True)
        assert offsets(topic, client.state().unread) == behind


@pytest.mark.parametrize("index", range(1, 8))
def test_a_topic_may_be_trimmed_at_any_offset(topic, index):
    at = fill(topic)
    before = at[index - 1] + 1
    assert trim(topic, before, force=False) == index
    assert (offsets(topic), topic.span().first) == (at[index:], at[index])
    assert topic.from_end(100) == at[index]


# clients


def test_a_client_moves_on_unless_it_was_moved_meanwhile(topic, client):
    at = fill(topic)
    joined = client.join()
    assert (joined.position, joined.lag, joined.unread) == (at[0], 8, topic.span())
    assert client.join() == joined
    assert client.acknowledge(at[4], joined.epoch)
    assert client.acknowledge(at[2], joined.epoch)  # never backwards
    assert at[4] < client.state().position <= at[5]
    assert client.state().lag == 3
    assert seek(topic, client, at[1]) == Moved(position=at[1], again=4, skipped=0)
    assert not client.acknowledge(at[7], joined.epoch)
    assert client.state().position == at[1]
    assert seek(topic, client, 10**12) == Moved(position=topic.span().stop, again=0, skipped=7)
    assert client.state().lag == 0


def test_a_client_may_join_anywhere(topic):
    at = fill(topic)
    assert topic.client("a").join(at[3]).position == at[3]
    assert topic.client("b").join(10**12).position == topic.span().stop
    assert topic.client("c").join(0).position == at[0]
    assert [(state.client, state.lag) for state in topic.clients()] == [("a", 5), ("b", 0), ("c", 8)]
    assert "a" in topic.clients_near("ab")


def test_a_client_that_is_made_again_has_another_epoch(topic, client):
    epoch = client.join().epoch
    assert topic.log.delete_clients([client])
    assert not topic.log.delete_clients([client])
    assert client.state() is None
    again = client.join().epoch
    assert again != epoch
    seek(topic, client, 1)
    assert client.state().epoch not in (epoch, again)


# batches


def test_a_claim_is_stable_and_only_its_holder_acknowledges(topic, client):
    at = fill(topic)
    client.join()
    first = take(client)
    assert (first.number, first.span, first.messages, first.attempt) == (1, around(at[:5]), 5, 1)
    client.leave(first)
    again = take(client, messages=2)
    assert (again.number, again.span, again.messages, again.attempt) == (1, around(at[:5]), 5, 2)
    with pytest.raises(pqlog.ClaimLostError):
        take(client, done=first)
    with pytest.raises(pqlog.ClaimLostError):
        client.finish(first)
    with pytest.raises(pqlog.ClaimedError):
        client.acknowledge(at[4], again.epoch)
    assert client.state().position == at[0]
    second = take(client, done=again)
    assert (second.number, second.span, second.messages) == (2, around(at[5:]), 3)
    assert client.state().lag == 3
    assert take(client, done=second) is None
    assert client.state().lag == 0


def test_workers_have_batches_of_their_own_and_the_position_is_the_end_of_those_done(topic, client):
    at = put(topic, singles(*[b"1"] * 9))
    client.join()
    first = take(client, "one", messages=3)
    second = take(client, "two", messages=3)
    assert (first.span, second.span) == (around(at[:3]), around(at[3:6]))
    third = take(client, "two", second, messages=3)
    assert third.span == around(at[6:])
    assert client.state().position == at[0]  # the first batch is open still
    assert (topic.open_batches(), client.state().open) == ({"c": (2, 1)}, True)
    assert take(client, "two", third) is None
    assert client.state().position == at[0]
    client.finish(first)
    assert client.state().lag == 0
    assert client.claims() == []


def test_a_claim_is_with_one_reader_whatever_its_thread(topic, client):
    """Two readers of one thread, and one whose thread has ended though the claim is worked on elsewhere."""
    at = put(topic, singles(*[b"1"] * 9))
    client.join()
    taken = []
    reading = threading.Thread(target=lambda: taken.append(take(client, messages=3)))
    reading.start()
    reading.join()
    for _ in range(2):
        taken.append(take(client, messages=3))
    assert [claim.span for claim in taken] == [around(at[:3]), around(at[3:6]), around(at[6:])]
    assert not client.has_work("")
    for claim in taken:
        client.finish(claim)
    assert client.state().lag == 0


def test_a_claim_that_nobody_has_any_more_is_free(topic, client):
    put(topic, singles(*[b"1"] * 4))
    client.join()
    held = take(client, messages=2)
    assert take(client, messages=2).number == 2
    del held
    gc.collect()
    assert client.has_work("")
    again = take(client, messages=2)
    assert (again.number, again.attempt) == (1, 2)


def test_a_worker_that_begins_again_has_its_own(topic, client):
    put(topic, singles(*[b"1"] * 6))
    client.join()
    held = [take(client, name, messages=2) for name in ("a", "b", "")]
    assert not client.has_work("c")
    assert client.has_work("b")
    again = take(client, "b", messages=2)
    assert (again.number, again.attempt) == (2, 2)
    with pytest.raises(pqlog.ClaimLostError):
        client.finish(held[1])


def test_a_released_claim_is_free_and_says_why(topic, client):
    at = put(topic, singles(*[b"1"] * 4))
    client.join()
    held = take(client, "one", messages=2)
    (open_claim,) = client.claims()
    assert open_claim.owner.startswith("one|")
    assert client.release(held, "TypeError: no")
    (free,) = client.claims()
    assert (free.owner, free.error, free.attempt) == ("", "TypeError: no", 1)
    taken = take(client, "two")
    assert (taken.number, taken.span, taken.attempt, taken.error) == (1, around(at[:2]), 2, "TypeError: no")
    assert not client.release(held, None)
    with pytest.raises(pqlog.ClaimLostError):
        client.finish(held)


def test_outputs_commit_with_the_acknowledgement_or_not_at_all(engine, topic, client):
    other = one_partition(engine, "other")
    put(topic, singles(b"1", b"2"))
    client.join()
    lost = take(client)
    client.leave(lost)
    held = take(client)
    outputs = [Output(other, [singles(b"3")]), Output(other, [Segment(b"segment", 4)])]
    with pytest.raises(pqlog.ClaimLostError):
        client.finish(lost, outputs)
    assert offsets(other) == []
    went = client.finish(held, outputs)
    assert [one.messages for one in went] == [1, 4]
    assert offsets(other) == [went[0].first, *range(went[1].first, went[1].last + 1)]
    assert client.state().lag == 0


def test_outputs_into_one_topic_know_of_each_other(engine, topic, client):
    put(topic, singles(b"1"))
    client.join()
    other = one_partition(engine, "other")
    ids = Ids([["a", "b"]], lambda segment, mask, start: [segment])
    went = client.finish(take(client), [Output(other, [singles(b"1", b"2")], ids)] * 2)
    assert [one.messages for one in went] == [2, 0]
    assert offsets(other) == [went[0].first, went[0].last]


def test_an_output_into_a_topic_that_is_gone_acknowledges_nothing(engine, topic, client):
    put(topic, singles(b"1"))
    client.join()
    one, gone = one_partition(engine, "one"), one_partition(engine, "gone")
    gone.delete(force=True)
    held = take(client)
    outputs = [Output(one, [singles(b"2")]), Output(gone, [singles(b"3")])]
    with pytest.raises(pqlog.UnknownTopicError):
        client.finish(held, outputs)
    with pytest.raises(pqlog.UnknownTopicError):
        take(client, done=held, outputs=outputs)
    assert (offsets(one), client.state().lag) == ([], 1)


def test_a_batch_of_a_topic_that_is_gone_can_be_given_back(topic, client):
    put(topic, singles(b"1"))
    client.join()
    held = take(client)
    topic.delete(force=True)
    assert not client.release(held, None)


def test_acknowledging_and_claiming_the_next_is_one_step(engine, topic, client):
    at = put(topic, singles(b"1", b"2"))
    client.join()
    other = one_partition(engine, "other")
    following, went = client.advance(
        Size(1), "", Done(client, take(client, messages=1), [Output(other, [singles(b"3")])])
    )
    assert (following.span, [one.messages for one in went]) == (around(at[1:]), 1 * [1])
    assert (client.state().lag, offsets(other)) == (1, [went[0].first])


def test_an_output_that_fails_acknowledges_nothing_and_puts_nothing(engine, topic, client):
    def broken():
        yield singles(b"1")
        raise RuntimeError("the output broke")

    one, two = one_partition(engine, "one"), one_partition(engine, "two")
    put(topic, singles(b"1", b"2"))
    client.join()
    held = take(client)
    with pytest.raises(pqlog.Error, match="the output broke"):
        client.finish(held, [Output(one, [singles(b"3")]), Output(two, broken())])
    assert (offsets(one), offsets(two), client.state().lag) == ([], [], 2)
    client.finish(held, [Output(one, [singles(b"3")])])
    assert (len(offsets(one)), client.state().lag) == (1, 0)


def test_a_batch_may_be_bounded_by_bytes(topic, client):
    put(topic, singles(*[b"1" * 100] * 10), Segment(b"s" * 1000, 10))
    client.join()
    held, sizes = None, []
    while True:
        held, _ = client.advance(Size(100, 450), "", held and Done(client, held))
        if held is None:
            break
        sizes.append(held.messages)
        assert topic.count(held.span) == held.messages
    assert sum(sizes) == 20
    assert max(sizes) == 4
    put(topic, singles(b"1" * 1000, b"2"))
    held, _ = client.advance(Size(100, 450), "", None)
    assert held.messages == 1  # larger than the bound, but never nothing


def test_seek_gives_up_claims(topic, client):
    at = fill(topic)
    client.join()
    held = take(client)
    seek(topic, client, at[2])
    with pytest.raises(pqlog.ClaimLostError):
        take(client, done=held)
    following = take(client)
    assert (following.number, following.span) == (2, around(at[2:7]))
    assert following.epoch != held.epoch


# keeping


def test_trim_keeps_what_is_asked_for_also_inside_a_segment(topic, client):
    at = [*fill(topic), *put(topic, singles(b"9"), id="x")]
    client.join()
    with pytest.raises(pqlog.TrimRefusedError) as caught:
        trim(topic, at[5], force=False)
    assert caught.value.clients == (("c", 5),)
    assert trim(topic, at[5], force=True) == 5
    assert trim(topic, at[5], force=False) == 0  # nobody loses anything by it
    assert offsets(topic) == at[5:]
    assert topic.span().first == at[5]
    assert (client.state().unread, client.state().lag) == (topic.span(), 4)
    assert [(row.offset, row.rows, row.skip) for row in rows(topic, Span(0, at[7]))] == [(at[5], 2, 2)]
    assert topic.time_at(at[4]) is None
    assert topic.find_id("x") == {topic.info.partition: Put(at[8], at[8], 1)}
    assert trim(topic, 10**12, force=True) == 4
    assert topic.find_id("x") is None
    assert not topic.span()
    assert (offsets(topic), topic.count(Span(0, 10**12))) == ([], 0)
    assert append(topic, [singles(b"10")]).first > at[-1]


@pytest.mark.parametrize("limit", [1, 2, 1000])
def test_messages_of_a_key_are_found_behind_what_was_trimmed_since_the_span_was_asked_for(topic, limit):
    put(topic, Singles([b"1", b"2", b"3"], ["a", "b", "a"]), Singles([b"4"] * 600, ["b"] * 600))
    put(topic, singles(b"5", key="a"), Segment(b"keyed", 3, "field"), singles(b"6", key="b"))
    span, at = topic.span(), offsets(topic)
    for trimmed, kept in ((1, [b"3", b"5", b"keyed"]), (3, [b"5", b"keyed"]), (400, [b"5", b"keyed"]), (607, [])):
        trim(topic, at[trimmed], force=True)
        found, rest = [], span
        while page := topic.read(rest, limit, 1 << 20, "a"):
            found += page
            rest = Span(page[-1].stop, rest.stop)
        assert [row.value for row in found] == kept


def test_a_batch_of_which_nothing_is_kept_is_not_handed_out_again(topic, client):
    at = fill(topic)
    client.join()
    for claim in [take(client, messages=3), take(client, messages=3)]:
        client.leave(claim)
    trim(topic, at[4], force=True)
    claim = take(client)
    assert (claim.number, claim.span, claim.messages) == (2, around(at[3:6]), 3)


def test_a_cached_schema_is_kept_with_its_topic_and_is_of_the_messages_that_are_kept(engine, topic):
    at = fill(topic)
    assert isinstance(topic, CachesSchema)
    whole = topic.span()
    assert topic.cached_schema() is None
    topic.cache_schema(CachedSchema(around(at[:3]), "three"))
    topic.cache_schema(CachedSchema(whole, "all"))
    assert topic.cached_schema() == CachedSchema(whole, "all")
    trim(topic, at[2], force=True)
    topic.cache_schema(CachedSchema(whole, "by somebody who began before"))
    assert topic.cached_schema() in (None, CachedSchema(whole, "all"))
    topic.cache_schema(CachedSchema(topic.span(), "the rest"))
    assert topic.cached_schema() == CachedSchema(topic.span(), "the rest")
    other = one_partition(engine, "other")
    assert other.cached_schema() is None
    other.cache_schema(CachedSchema(other.span(), "nothing"))
    other.delete(force=True)
    other.cache_schema(CachedSchema(Span(1, 1), "of what is gone"))
    assert other.cached_schema() is None


# the log


def test_what_an_engine_promises_is_said(engine):
    found = engine.capabilities
    topic = one_partition(engine, "main")
    at = [topic.append_one(b"1", None, None) for _ in range(50)]
    assert found.dense_offsets == (at == list(range(at[0], at[0] + 50)))


def test_waiting_is_ended_by_a_put_the_time_or_closing(engine, topic):
    assert not engine.wait(lambda: False, 0.01, 1)
    assert engine.wait(lambda: True, 0, 1)
    woken = threading.Event()
    looked = threading.Event()

    def ready():
        looked.set()
        return topic.count(topic.span()) > 0

    def wait():
        while not ready():
            engine.wait(ready, None, 60)
        woken.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert looked.wait(30)
    append(topic, [singles(b"1")])
    assert woken.wait(30)
    waiting.join(30)
    engine.close()
    with pytest.raises(pqlog.ClosedError):
        engine.wait(lambda: False, None, 1)
    engine.close()


def test_waking_lets_those_that_wait_look_again(engine, topic):
    looked, may_end = threading.Event(), threading.Event()

    def ready():
        looked.set()
        return may_end.is_set()

    waiting = threading.Thread(target=lambda: engine.wait(ready, None, 3600))
    waiting.start()
    assert looked.wait(30)
    may_end.set()
    engine.wake()
    waiting.join(30)
    assert not waiting.is_alive()


def test_closing_ends_what_waits(engine, topic):
    ended, looked = [], threading.Event()

    def wait():
        try:
            while True:
                engine.wait(lambda: looked.set() or False, None, 60)
        except pqlog.ClosedError as error:
            ended.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert looked.wait(30)
    engine.close()
    waiting.join(30)
    assert ended
    for call in (topic.span, engine.topics, lambda: append(topic, [singles(b"1")]), topic.client("c").state):
        with pytest.raises(pqlog.ClosedError):
            call()


def test_threads_that_put_and_read_at_once_see_whole_puts_in_one_order(engine, topic):
    def work(name):
        for n in range(30):
            append(topic, [Singles([b"%d %d" % (name, n)] * (n % 3 + 1))])

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        at = offsets(topic)
        assert at == sorted(set(at))
    for thread in threads:
        thread.join()
    runs = [(value, len(list(run))) for value, run in itertools.groupby(row.value for row in rows(topic))]
    assert sorted(runs) == sorted((b"%d %d" % (name, n), n % 3 + 1) for name in range(4) for n in range(30))
    for name in range(4):  # each thread's in the order of its calls
        assert [value for value, _ in runs if value.startswith(b"%d " % name)] == [
            b"%d %d" % (name, n) for n in range(30)
        ]


@pytest.mark.parametrize("make", [in_memory, sparse])
def test_a_log_in_memory_is_of_the_process_that_opened_it(make, tmp_path):
    engine = make(tmp_path)
    assert not engine.capabilities.shared_by_processes
    topic = one_partition(engine, "main")
    child = os.fork()
    if not child:
        try:
            append(topic, [singles(b"1")])
        except pqlog.ForkError:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert put(topic, singles(b"1")) == offsets(topic)


# clients of several partitions at once


def test_clients_of_several_partitions_are_created_at_once(engine):
    topic = engine.topic("several", "json", 3)
    fill(topic[1])
    seek(topic[1], topic[1].client("c"), topic[1].span().stop)
    engine.join([one.client("c") for one in topic])
    assert [one.client("c").state().lag for one in topic] == [0, 0, 0]
    fill(topic[0])
    engine.join([one.client("c") for one in topic])
    assert [one.client("c").state().lag for one in topic] == [8, 0, 0]


def test_work_is_found_in_the_first_of_several_partitions_that_has_any(engine):
    topic = engine.topic("several", "json", 3)
    clients = [one.client("c") for one in topic]
    engine.join(clients)
    assert engine.find_work([], "") is None
    engine.find_work(clients, "")
    clients[0].advance(Size(1), "")  # a file is told something by the first call
    assert engine.find_work(clients, "") is None
    fill(topic[1])
    fill(topic[2])
    assert engine.find_work(clients, "") == 1
    assert engine.find_work(clients[::-1], "") == 0
    claim, _ = clients[1].advance(Size(2), "", None, True)
    assert engine.find_work(clients, "", True) == 2
    assert engine.find_work(clients, "") == 1
    clients[1].finish(claim)
    assert engine.find_work(clients, "", True) == 1
