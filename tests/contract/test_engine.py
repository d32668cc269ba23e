"""What any engine must do, run over each that there is: in a file, and in memory."""

import gc
import threading

import pytest

import pqlog
from pqlog.store.api import CachedSchema, Cursor, Ids, Moved, Output, Segment, Singles, Size, Span
from pqlog.store.sqlite.engine import SqliteEngine


def in_a_file(folder):
    return SqliteEngine(str(folder / "a.db"), mode="w", vfs=None, timeout_s=30)


def in_memory(folder):
    return SqliteEngine(":memory:", mode="w", vfs=None, timeout_s=30)


@pytest.fixture(params=[in_a_file, in_memory], ids=lambda make: make.__name__)
def engine(request, tmp_path):
    engine = request.param(tmp_path)
    yield engine
    engine.close()


@pytest.fixture
def topic(engine):
    return engine.topic("main", "json")


def singles(*values, key=None):
    return Singles(values, None if key is None else [key] * len(values))


def fill(engine, topic):
    """Three single messages, a segment of four, one more: offsets 1 to 8."""
    engine.append(topic, [singles(b"1", b"2", b"3")])
    engine.append(topic, [Segment(b"segment", 4)])
    engine.append_one(topic, b"8", "k", None)


def test_times_without_reading(engine, topic):
    fill(engine, topic)
    times = [row.time for row in engine.read(topic, Span(1, 9), 100, 1 << 20)]
    assert [engine.time_at(topic, offset) for offset in (1, 3, 4, 7, 8)] == [times[i] for i in (0, 2, 3, 3, 4)]
    assert engine.time_at(topic, 0) is None
    assert engine.time_at(topic, 9) is None


def test_verify_reads_everything_and_tells(engine, topic):
    fill(engine, topic)
    told = []
    assert engine.verify(told.append) == []
    assert sum(told) == 8


def test_what_is_damaged_is_read_only_on_request(engine, topic):
    fill(engine, topic)
    if isinstance(engine, SqliteEngine):
        engine._file._db.execute("UPDATE messages_1 SET value = '9' WHERE offset = 8")
    assert [row.value for row in engine.read(topic, Span(4, 8), 100, 1 << 20)] == [b"segment"]
    with pytest.raises(pqlog.DamagedError) as caught:
        engine.read(topic, Span(8, 9), 100, 1 << 20)
    assert (caught.value.offset, caught.value.last) == (8, 8)
    assert [row.value for row in engine.read(topic, Span(8, 9), 100, 1 << 20, damaged=True)] == [b"9"]
    assert len(engine.verify(lambda messages: None)) == 1


def test_topics_are_made_once(engine):
    first = engine.topic("a", "json")
    assert engine.topic("a", "bytes") == first
    assert (engine.find_topic("a"), engine.find_topic("b")) == (first, None)
    assert [(info.name, info.codec) for info in engine.topics()] == [("a", "json")]


def test_offsets_ascend_over_all_ways_of_putting(engine, topic):
    assert engine.append_one(topic, b"1", None, None) == 1
    assert engine.append(topic, [singles(b"2", b"3"), singles(b"4", key="k")]) == Span(2, 5)
    assert engine.append(topic, [Segment(b"segment", 10), Segment(b"segment", 5)]) == Span(5, 20)
    assert engine.append_one(topic, b"20", None, None) == 20
    assert engine.span(topic) == Span(1, 21)


def test_append_is_all_or_nothing(engine, topic):
    def chunks():
        yield singles(b"1")
        raise RuntimeError("the source broke")

    with pytest.raises(pqlog.Error, match="the source broke"):
        engine.append(topic, chunks())
    assert engine.span(topic) == Span(1, 1)
    assert engine.append_one(topic, b"1", None, None) == 1


def test_an_id_puts_once(engine, topic):
    assert engine.find_id(topic, "x") is None
    assert engine.append(topic, [singles(b"1", b"2")], "x") == Span(1, 3)
    assert engine.append(topic, [singles(b"3")], "x") == Span(1, 3)
    assert engine.find_id(topic, "x") == Span(1, 3)
    assert engine.find_id(engine.topic("other", "json"), "x") is None
    assert engine.span(topic) == Span(1, 3)


@pytest.mark.parametrize("first", range(10))
@pytest.mark.parametrize("stop", range(10))
def test_rows_are_clipped_to_what_was_asked_for(engine, topic, first, stop):
    fill(engine, topic)
    rows = engine.read(topic, Span(first, stop), 100, 1 << 20)
    offsets = [offset for row in rows for offset in range(row.offset, row.offset + (row.rows or 1))]
    assert offsets == [offset for offset in range(1, 9) if first <= offset < stop]
    for row in rows:
        if row.rows is not None:
            assert (row.id, row.value, row.skip) == (4, b"segment", row.offset - 4)


def test_a_read_is_bounded_but_never_empty(engine, topic):
    engine.append(topic, [singles(*[b"x" * 100] * 50)])
    assert len(engine.read(topic, Span(1, 51), 7, 1 << 20)) == 7
    assert len(engine.read(topic, Span(1, 51), 100, 950)) == 10
    assert len(engine.read(topic, Span(1, 51), 100, 1)) == 1


def test_lines_end_where_a_segment_begins(engine, topic):
    fill(engine, topic)
    lines = engine.read_lines(topic, Span(2, 9), 100, 1 << 20)
    assert (lines.offset, lines.rows, lines.values) == (2, 2, b"2\n3")
    assert engine.read_lines(topic, Span(4, 9), 100, 1 << 20) is None
    assert engine.read_lines(topic, Span(5, 9), 100, 1 << 20) is None
    lines = engine.read_lines(topic, Span(8, 9), 100, 1 << 20)
    assert (lines.offset, lines.values, lines.keys) == (8, b"8", b'"k"')


def test_from_the_end_and_counts(engine, topic):
    fill(engine, topic)
    assert [engine.from_end(topic, n) for n in (0, 1, 8, 100)] == [9, 8, 1, 1]
    assert engine.count(topic, Span(0, 100)) == 8
    assert engine.count(topic, Span(6, 3)) == 0


def test_a_client_moves_on_unless_it_was_moved_meanwhile(engine, topic):
    fill(engine, topic)
    joined = engine.join(topic, "c")
    assert (joined.position, joined.lag, joined.unread) == (0, 8, Span(1, 9))
    assert engine.join(topic, "c") == joined
    assert engine.acknowledge(topic, "c", 5, joined.epoch)
    assert engine.acknowledge(topic, "c", 3, joined.epoch)  # never backwards
    assert engine.client(topic, "c").position == 5
    assert engine.seek(topic, "c", 2) == Moved(position=1, again=4, skipped=0)
    assert not engine.acknowledge(topic, "c", 8, joined.epoch)
    assert engine.client(topic, "c").position == 1


def test_a_client_that_is_made_again_has_another_epoch(engine, topic):
    epoch = engine.join(topic, "c").epoch
    assert engine.delete_client(topic, "c")
    assert not engine.delete_client(topic, "c")
    assert engine.client(topic, "c") is None
    again = engine.join(topic, "c").epoch
    assert again != epoch
    engine.seek(topic, "c", 1)
    assert engine.client(topic, "c").epoch not in (epoch, again)


def take(engine, topic, owner, done=None, messages=5, outputs=()):
    return engine.advance(topic, "c", Size(messages), owner, done, outputs)[0]


def test_a_claim_is_stable_and_only_its_holder_acknowledges(engine, topic):
    fill(engine, topic)
    engine.join(topic, "c")
    me = engine.owner("")
    first = take(engine, topic, me)
    assert (first.number, first.span, first.attempt) == (1, Span(1, 6), 1)
    engine.leave(topic, first)
    again = take(engine, topic, me, messages=2)
    assert (again.number, again.span, again.attempt) == (1, Span(1, 6), 2)
    with pytest.raises(pqlog.ClaimLostError):
        take(engine, topic, me, first)
    with pytest.raises(pqlog.ClaimLostError):
        engine.finish(topic, first)
    with pytest.raises(pqlog.ClaimedError):
        engine.acknowledge(topic, "c", 5, again.epoch)
    assert engine.client(topic, "c").position == 0
    second = take(engine, topic, me, again)
    assert (second.number, second.span) == (2, Span(6, 9))
    assert engine.client(topic, "c").position == 5
    assert take(engine, topic, me, second) is None
    assert engine.client(topic, "c").position == 8


def test_workers_have_batches_of_their_own_and_the_position_is_the_end_of_those_done(engine, topic):
    engine.append(topic, [singles(*[b"1"] * 9)])
    engine.join(topic, "c")
    one, two = engine.owner("one"), engine.owner("two")
    first = take(engine, topic, one, messages=3)
    second = take(engine, topic, two, messages=3)
    assert (first.span, second.span) == (Span(1, 4), Span(4, 7))
    third = take(engine, topic, two, second, messages=3)
    assert third.span == Span(7, 10)
    assert engine.client(topic, "c").position == 0  # the first batch is open still
    assert take(engine, topic, two, third) is None
    assert engine.client(topic, "c").position == 0
    engine.finish(topic, first)
    assert engine.client(topic, "c").position == 9
    assert engine.claims(topic, "c") == []


def test_a_claim_is_with_one_reader_whatever_its_thread(engine, topic):
    """Two readers of one thread, and one whose thread has ended though the claim is worked on elsewhere."""
    engine.append(topic, [singles(*[b"1"] * 9)])
    engine.join(topic, "c")
    taken = []
    reading = threading.Thread(target=lambda: taken.append(take(engine, topic, engine.owner(""), messages=3)))
    reading.start()
    reading.join()
    for _ in range(2):
        taken.append(take(engine, topic, engine.owner(""), messages=3))
    assert [claim.span for claim in taken] == [Span(1, 4), Span(4, 7), Span(7, 10)]
    assert not engine.has_work(topic, "c", engine.owner(""))
    for claim in taken:
        engine.finish(topic, claim)
    assert engine.client(topic, "c").position == 9


def test_a_claim_that_nobody_has_any_more_is_free(engine, topic):
    engine.append(topic, [singles(*[b"1"] * 4)])
    engine.join(topic, "c")
    held = take(engine, topic, engine.owner(""), messages=2)
    assert take(engine, topic, engine.owner(""), messages=2).number == 2
    del held
    gc.collect()
    assert engine.has_work(topic, "c", engine.owner(""))
    again = take(engine, topic, engine.owner(""), messages=2)
    assert (again.number, again.attempt) == (1, 2)


def test_a_worker_that_begins_again_has_its_own(engine, topic):
    engine.append(topic, [singles(*[b"1"] * 6)])
    engine.join(topic, "c")
    held = [take(engine, topic, engine.owner(name), messages=2) for name in ("a", "b", "")]
    assert not engine.has_work(topic, "c", engine.owner("c"))
    assert engine.has_work(topic, "c", engine.owner("b"))
    again = take(engine, topic, engine.owner("b"), messages=2)
    assert (again.number, again.attempt) == (2, 2)
    with pytest.raises(pqlog.ClaimLostError):
        engine.finish(topic, held[1])


def test_a_released_claim_is_free_and_says_why(engine, topic):
    engine.append(topic, [singles(*[b"1"] * 4)])
    engine.join(topic, "c")
    one, two = engine.owner("one"), engine.owner("two")
    held = take(engine, topic, one, messages=2)
    assert engine.release(topic, held, "TypeError: no")
    (free,) = engine.claims(topic, "c")
    assert (free.owner, free.error, free.attempt) == ("", "TypeError: no", 1)
    taken = take(engine, topic, two)
    assert (taken.number, taken.span, taken.attempt, taken.error) == (1, Span(1, 3), 2, "TypeError: no")
    assert not engine.release(topic, held, None)
    with pytest.raises(pqlog.ClaimLostError):
        engine.finish(topic, held)


def test_outputs_commit_with_the_acknowledgement_or_not_at_all(engine, topic):
    other = engine.topic("other", "json")
    engine.append(topic, [singles(b"1", b"2")])
    engine.join(topic, "c")
    me = engine.owner("")
    lost = take(engine, topic, me)
    engine.leave(topic, lost)
    held = take(engine, topic, me)
    outputs = [Output(other, [singles(b"3")]), Output(other, [Segment(b"segment", 4)])]
    with pytest.raises(pqlog.ClaimLostError):
        engine.finish(topic, lost, outputs)
    assert len(engine.span(other)) == 0
    assert engine.finish(topic, held, outputs) == [Span(1, 2), Span(2, 6)]
    assert engine.span(other) == Span(1, 6)


def test_a_batch_may_be_bounded_by_bytes(engine, topic):
    engine.append(topic, [singles(*[b"1" * 100] * 10)])
    engine.append(topic, [Segment(b"s" * 1000, 10)])
    engine.join(topic, "c")
    me, held, spans = engine.owner(""), None, []
    while True:
        held, _ = engine.advance(topic, "c", Size(100, 450), me, held)
        if held is None:
            break
        spans.append(len(held.span))
    assert sum(spans) == 20
    assert max(spans) == 4
    engine.append(topic, [singles(b"1" * 1000, b"2")])
    held, _ = engine.advance(topic, "c", Size(100, 450), me, None)
    assert len(held.span) == 1  # larger than the bound, but never nothing


def test_a_cursor_commits_with_its_messages(engine, topic):
    def broken():
        yield singles(b"1")
        raise RuntimeError("the source broke")

    assert engine.cursor("source") is None
    with pytest.raises(pqlog.Error):
        engine.append(topic, broken(), cursor=Cursor("source", "1", "null"))
    assert engine.cursor("source") is None
    engine.append(topic, [singles(b"1")], cursor=Cursor("source", "1", "null"), id="x")
    engine.append(topic, [singles(b"1")], cursor=Cursor("source", "0", "null"), id="x")
    assert engine.cursor("source") == "1"
    engine.append(topic, [], cursor=Cursor("source", "2", "1.0"))
    assert engine.cursor("source") == "2"


def test_of_messages_with_ids_only_those_are_put_whose_id_is_new(engine, topic):
    def thin(segment, mask, start):
        thinned.append((mask, start))
        yield Segment(b"thinned", segment.rows if mask is None else sum(mask), segment.key, segment.headers)

    def put(chunks, *ids):
        return engine.append(topic, chunks, ids=Ids(ids, thin))

    thinned = []
    assert put([singles(b"1", b"2", b"3", key="k")], ["a", "b", "a"]) == Span(1, 3)
    assert put([Segment(b"segment", 2, "k"), singles(b"4")], ["c", "d"], ["e"]) == Span(3, 6)
    assert put([singles(b"5"), Segment(b"x", 2)], ["c"], ["a", "b"]) == Span(6, 6)
    assert thinned == []
    chunks = [singles(b"6", b"7"), Segment(b"x", 3, "k", "{}"), Segment(b"y", 1), Segment(b"z", 1)]
    assert put(chunks, ["e", "f"], ["f", "g", "h"], ["a"], ["i"]) == Span(6, 10)
    assert thinned == [(b"\0\1\1", 1), (None, 3)]
    found = [(row.offset, row.value, row.rows, row.key) for row in engine.read(topic, Span(1, 99), 99, 1000)]
    assert found == [
        *((1, b"1", None, "k"), (2, b"2", None, "k"), (3, b"segment", 2, "k"), (5, b"4", None, None)),
        *((6, b"7", None, None), (7, b"thinned", 2, "k"), (9, b"thinned", 1, None)),
    ]
    assert [engine.find_id(topic, id) for id in "aci"] == [Span(1, 2), Span(3, 4), Span(9, 10)]


@pytest.mark.parametrize(
    ("found", "expected"), [("2", "1"), ("1", "true"), ("null", "0"), ("[1, [2]]", "[1, [3]]"), ('{"a": 1}', "{}")]
)
def test_a_cursor_that_is_not_as_expected_puts_nothing(engine, topic, found, expected):
    engine.append(topic, [], cursor=Cursor("source", found, "null"))
    with pytest.raises(pqlog.CursorError, match="somebody else moved it"):
        engine.append(topic, [singles(b"1")], cursor=Cursor("source", "3", expected), id="x")
    assert (engine.cursor("source"), engine.span(topic), engine.find_id(topic, "x")) == (found, Span(1, 1), None)


@pytest.mark.parametrize(("found", "expected"), [('{"a":1,"b":[2.0]}', '{"b": [2], "a": 1.0}'), ('"x"', '"\\u0078"')])
def test_a_cursor_is_compared_as_a_value(engine, topic, found, expected):
    engine.append(topic, [], cursor=Cursor("source", found, "null"))
    engine.append(topic, [singles(b"1")], cursor=Cursor("source", "3", expected))
    assert engine.cursor("source") == "3"


def test_seek_gives_up_claims(engine, topic):
    fill(engine, topic)
    engine.join(topic, "c")
    me = engine.owner("")
    held = take(engine, topic, me)
    engine.seek(topic, "c", 3)
    with pytest.raises(pqlog.ClaimLostError):
        take(engine, topic, me, held)
    following = take(engine, topic, me)
    assert (following.number, following.span) == (2, Span(3, 8))
    assert following.epoch != held.epoch


def test_a_cached_schema_is_kept_with_its_topic_and_is_of_the_messages_that_are_kept(engine, topic):
    fill(engine, topic)
    assert engine.cached_schema(topic) is None
    engine.cache_schema(topic, CachedSchema(Span(1, 4), "three"))
    engine.cache_schema(topic, CachedSchema(Span(1, 9), "all"))
    assert engine.cached_schema(topic) == CachedSchema(Span(1, 9), "all")
    engine.trim(topic, 3, force=True)
    engine.cache_schema(topic, CachedSchema(Span(1, 9), "by somebody who began before"))
    assert engine.cached_schema(topic) in (None, CachedSchema(Span(1, 9), "all"))
    engine.cache_schema(topic, CachedSchema(Span(3, 9), "the rest"))
    assert engine.cached_schema(topic) == CachedSchema(Span(3, 9), "the rest")
    other = engine.topic("other", "json")
    assert engine.cached_schema(other) is None
    engine.cache_schema(other, CachedSchema(Span(1, 1), "nothing"))
    engine.delete_topic(other, force=True)
    engine.cache_schema(other, CachedSchema(Span(1, 1), "of what is gone"))
    assert engine.cached_schema(other) is None


def test_compact_gives_space_back_and_keeps_everything(engine, topic):
    for _ in range(3):
        engine.append(topic, [singles(*[b"x" * 1_000] * 1_000)])
    engine.join(topic, "c")
    kept = engine.read(topic, Span(1, 3_001), 3_000, 1 << 24)
    assert engine.compact() >= 0
    assert engine.read(topic, Span(1, 3_001), 3_000, 1 << 24) == kept
    assert engine.span(topic) == Span(1, 3_001)
    assert engine.client(topic, "c").unread == Span(1, 3_001)
    assert engine.append_one(topic, b"1", None, None) == 3_001


def test_trim_keeps_what_is_asked_for_also_inside_a_segment(engine, topic):
    fill(engine, topic)
    engine.append(topic, [singles(b"9")], "x")
    engine.join(topic, "c")
    with pytest.raises(pqlog.TrimRefusedError) as caught:
        engine.trim(topic, 6, force=False)
    assert caught.value.clients == (("c", 5),)
    assert engine.trim(topic, 6, force=True) == 5
    assert engine.trim(topic, 6, force=False) == 0  # nobody loses anything by it
    assert engine.span(topic) == Span(6, 10)
    assert engine.client(topic, "c").unread == Span(6, 10)
    assert [(row.offset, row.rows, row.skip) for row in engine.read(topic, Span(0, 8), 9, 1 << 20)] == [(6, 2, 2)]
    assert engine.find_id(topic, "x") == Span(9, 10)
    assert engine.trim(topic, 10**9, force=True) == 4
    assert engine.find_id(topic, "x") is None
    assert engine.span(topic) == Span(10, 10)
    assert engine.append_one(topic, b"10", None, None) == 10


def test_waiting_is_ended_by_a_put_the_time_or_closing(engine, topic):
    assert not engine.wait(lambda: False, 0.01, 1)
    assert engine.wait(lambda: True, 0, 1)
    woken = threading.Event()
    looked = threading.Event()

    def ready():
        looked.set()
        return engine.span(topic).stop > 1

    def wait():
        while not ready():
            engine.wait(ready, None, 60)
        woken.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert looked.wait(30)
    engine.append_one(topic, b"1", None, None)
    assert woken.wait(30)
    waiting.join(30)
    engine.close()
    with pytest.raises(pqlog.ClosedError):
        engine.wait(lambda: False, None, 1)
    engine.close()


def test_a_backup_is_a_file_of_its_own(engine, topic, tmp_path):
    fill(engine, topic)
    engine.backup(str(tmp_path / "copy.db"))
    copy = SqliteEngine(str(tmp_path / "copy.db"), mode="r", vfs=None, timeout_s=30)
    assert copy.span(topic) == Span(1, 9)
    assert copy.uuid != engine.uuid
    copy.close()
