"""What any engine must do, run on each engine: in a file, and in memory."""

import gc
import threading

import pytest

import pqlog
from pqlog.store.sqlite.store import SqliteStore
from pqlog.store.values import CachedSchema, Cursor, Ids, Moved, Output, Segment, Singles, Size, Span


def in_a_file(folder):
    return SqliteStore(str(folder / "a.db"))


def in_memory(folder):
    return SqliteStore(":memory:")


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
    topic.append([singles(b"1", b"2", b"3")])
    topic.append([Segment(b"segment", 4)])
    topic.append([singles(b"8", key="k")])


def test_times_without_reading(engine, topic):
    fill(engine, topic)
    times = [row.time for row in topic.read(Span(1, 9), 100, 1 << 20)]
    assert [topic.time_at(offset) for offset in (1, 3, 4, 7, 8)] == [times[i] for i in (0, 2, 3, 3, 4)]
    assert topic.time_at(0) is None
    assert topic.time_at(9) is None


def test_verify_reads_everything_and_tells(engine, topic):
    fill(engine, topic)
    told = []
    assert engine.verify(told.append) == []
    assert sum(told) == 8


def test_what_is_damaged_is_read_only_on_request(engine, topic):
    fill(engine, topic)
    if isinstance(engine, SqliteStore):
        engine._file._db.execute("UPDATE messages_1 SET value = '9' WHERE offset = 8")
    assert [row.value for row in topic.read(Span(4, 8), 100, 1 << 20)] == [b"segment"]
    with pytest.raises(pqlog.DamagedError) as caught:
        topic.read(Span(8, 9), 100, 1 << 20)
    assert (caught.value.offset, caught.value.last) == (8, 8)
    assert [row.value for row in topic.read(Span(8, 9), 100, 1 << 20, damaged=True)] == [b"9"]
    assert len(engine.verify(lambda messages: None)) == 1


def test_topics_are_made_once(engine):
    first = engine.topic("a", "json")
    assert engine.topic("a", "bytes") == first
    assert (engine.find_topic("a"), engine.find_topic("b")) == (first, None)
    assert [(info.name, info.codec) for info in engine.topics()] == [("a", "json")]


def test_offsets_ascend_over_all_ways_of_putting(engine, topic):
    assert topic.append([singles(b"1")]).first == 1
    assert topic.append([singles(b"2", b"3"), singles(b"4", key="k")]) == Span(2, 5)
    assert topic.append([Segment(b"segment", 10), Segment(b"segment", 5)]) == Span(5, 20)
    assert topic.append([singles(b"20")]).first == 20
    assert topic.span() == Span(1, 21)


def test_append_is_all_or_nothing(engine, topic):
    def chunks():
        yield singles(b"1")
        raise RuntimeError("the source broke")

    with pytest.raises(pqlog.Error, match="the source broke"):
        topic.append(chunks())
    assert topic.span() == Span(1, 1)
    assert topic.append([singles(b"1")]).first == 1


def test_an_id_puts_once(engine, topic):
    assert topic.find_id("x") is None
    assert topic.append([singles(b"1", b"2")], "x") == Span(1, 3)
    assert topic.append([singles(b"3")], "x") == Span(1, 3)
    assert topic.find_id("x") == Span(1, 3)
    assert engine.topic("other", "json").find_id("x") is None
    assert topic.span() == Span(1, 3)


@pytest.mark.parametrize("first", range(10))
@pytest.mark.parametrize("stop", range(10))
def test_rows_are_clipped_to_what_was_asked_for(engine, topic, first, stop):
    fill(engine, topic)
    rows = topic.read(Span(first, stop), 100, 1 << 20)
    offsets = [offset for row in rows for offset in range(row.offset, row.offset + (row.rows or 1))]
    assert offsets == [offset for offset in range(1, 9) if first <= offset < stop]
    for row in rows:
        if row.rows is not None:
            assert (row.value, row.skip, row.whole) == (b"segment", row.offset - 4, 4)


def test_a_read_is_bounded_but_never_empty(engine, topic):
    topic.append([singles(*[b"x" * 100] * 50)])
    assert len(topic.read(Span(1, 51), 7, 1 << 20)) == 7
    assert len(topic.read(Span(1, 51), 100, 950)) == 10
    assert len(topic.read(Span(1, 51), 100, 1)) == 1


def test_lines_end_where_a_segment_begins(engine, topic):
    fill(engine, topic)
    lines = topic.read_lines(Span(2, 9), 100, 1 << 20)
    assert (lines.offset, lines.rows, lines.values) == (2, 2, b"2\n3")
    assert topic.read_lines(Span(4, 9), 100, 1 << 20) is None
    assert topic.read_lines(Span(5, 9), 100, 1 << 20) is None
    lines = topic.read_lines(Span(8, 9), 100, 1 << 20)
    assert (lines.offset, lines.values, lines.keys) == (8, b"8", b'"k"')


def test_from_the_end_and_counts(engine, topic):
    fill(engine, topic)
    assert [topic.from_end(n) for n in (0, 1, 8, 100)] == [9, 8, 1, 1]
    assert topic.count(Span(0, 100)) == 8
    assert topic.count(Span(6, 3)) == 0


def test_a_client_moves_on_unless_it_was_moved_meanwhile(engine, topic):
    fill(engine, topic)
    joined = topic.client("c").join()
    assert (joined.position, joined.lag, joined.unread) == (1, 8, Span(1, 9))
    assert topic.client("c").join() == joined
    assert topic.client("c").acknowledge(5, joined.epoch)
    assert topic.client("c").acknowledge(3, joined.epoch)  # never backwards
    assert topic.client("c").state().position == 6
    assert topic.client("c").seek(2) == Moved(position=2, again=4, skipped=0)
    assert not topic.client("c").acknowledge(8, joined.epoch)
    assert topic.client("c").state().position == 2


def test_a_client_that_is_made_again_has_another_epoch(engine, topic):
    epoch = topic.client("c").join().epoch
    assert topic.client("c").delete()
    assert not topic.client("c").delete()
    assert topic.client("c").state() is None
    again = topic.client("c").join().epoch
    assert again != epoch
    topic.client("c").seek(1)
    assert topic.client("c").state().epoch not in (epoch, again)


def take(engine, topic, owner, done=None, messages=5, outputs=()):
    return topic.client("c").advance(Size(messages), owner, done, outputs)[0]


def test_a_claim_is_stable_and_only_its_holder_acknowledges(engine, topic):
    fill(engine, topic)
    topic.client("c").join()
    me = ""
    first = take(engine, topic, me)
    assert (first.number, first.span, first.attempt) == (1, Span(1, 6), 1)
    topic.client("c").leave(first)
    again = take(engine, topic, me, messages=2)
    assert (again.number, again.span, again.attempt) == (1, Span(1, 6), 2)
    with pytest.raises(pqlog.ClaimLostError):
        take(engine, topic, me, first)
    with pytest.raises(pqlog.ClaimLostError):
        topic.client("c").finish(first)
    with pytest.raises(pqlog.ClaimedError):
        topic.client("c").acknowledge(5, again.epoch)
    assert topic.client("c").state().position == 1
    second = take(engine, topic, me, again)
    assert (second.number, second.span) == (2, Span(6, 9))
    assert topic.client("c").state().position == 6
    assert take(engine, topic, me, second) is None
    assert topic.client("c").state().position == 9


def test_workers_have_batches_of_their_own_and_the_position_is_the_end_of_those_done(engine, topic):
    topic.append([singles(*[b"1"] * 9)])
    topic.client("c").join()
    one, two = "one", "two"
    first = take(engine, topic, one, messages=3)
    second = take(engine, topic, two, messages=3)
    assert (first.span, second.span) == (Span(1, 4), Span(4, 7))
    third = take(engine, topic, two, second, messages=3)
    assert third.span == Span(7, 10)
    assert topic.client("c").state().position == 1  # the first batch is still open
    assert take(engine, topic, two, third) is None
    assert topic.client("c").state().position == 1
    topic.client("c").finish(first)
    assert topic.client("c").state().position == 10
    assert topic.client("c").claims() == []


def test_a_claim_is_with_one_reader_whatever_its_thread(engine, topic):
    """Two readers in one thread, and one whose thread has ended while the claim is in use elsewhere."""
    topic.append([singles(*[b"1"] * 9)])
    topic.client("c").join()
    taken = []
    reading = threading.Thread(target=lambda: taken.append(take(engine, topic, "", messages=3)))
    reading.start()
    reading.join()
    for _ in range(2):
        taken.append(take(engine, topic, "", messages=3))
    assert [claim.span for claim in taken] == [Span(1, 4), Span(4, 7), Span(7, 10)]
    assert not topic.client("c").has_work("")
    for claim in taken:
        topic.client("c").finish(claim)
    assert topic.client("c").state().position == 10


def test_a_claim_that_nobody_has_any_more_is_free(engine, topic):
    topic.append([singles(*[b"1"] * 4)])
    topic.client("c").join()
    held = take(engine, topic, "", messages=2)
    assert take(engine, topic, "", messages=2).number == 2
    del held
    gc.collect()
    assert topic.client("c").has_work("")
    again = take(engine, topic, "", messages=2)
    assert (again.number, again.attempt) == (1, 2)


def test_a_worker_that_begins_again_has_its_own(engine, topic):
    topic.append([singles(*[b"1"] * 6)])
    topic.client("c").join()
    held = [take(engine, topic, name, messages=2) for name in ("a", "b", "")]
    assert not topic.client("c").has_work("c")
    assert topic.client("c").has_work("b")
    again = take(engine, topic, "b", messages=2)
    assert (again.number, again.attempt) == (2, 2)
    with pytest.raises(pqlog.ClaimLostError):
        topic.client("c").finish(held[1])


def test_a_released_claim_is_free_and_says_why(engine, topic):
    topic.append([singles(*[b"1"] * 4)])
    topic.client("c").join()
    one, two = "one", "two"
    held = take(engine, topic, one, messages=2)
    assert topic.client("c").release(held, "TypeError: no")
    (free,) = topic.client("c").claims()
    assert (free.owner, free.error, free.attempt) == ("", "TypeError: no", 1)
    taken = take(engine, topic, two)
    assert (taken.number, taken.span, taken.attempt, taken.error) == (1, Span(1, 3), 2, "TypeError: no")
    assert not topic.client("c").release(held, None)
    with pytest.raises(pqlog.ClaimLostError):
        topic.client("c").finish(held)


def test_outputs_commit_with_the_acknowledgement_or_not_at_all(engine, topic):
    other = engine.topic("other", "json")
    topic.append([singles(b"1", b"2")])
    topic.client("c").join()
    me = ""
    lost = take(engine, topic, me)
    topic.client("c").leave(lost)
    held = take(engine, topic, me)
    outputs = [Output(other, [singles(b"3")]), Output(other, [Segment(b"segment", 4)])]
    with pytest.raises(pqlog.ClaimLostError):
        topic.client("c").finish(lost, outputs)
    assert len(other.span()) == 0
    assert topic.client("c").finish(held, outputs) == [Span(1, 2), Span(2, 6)]
    assert other.span() == Span(1, 6)


def test_a_batch_may_be_bounded_by_bytes(engine, topic):
    topic.append([singles(*[b"1" * 100] * 10)])
    topic.append([Segment(b"s" * 1000, 10)])
    topic.client("c").join()
    me, held, spans = "", None, []
    while True:
        held, _ = topic.client("c").advance(Size(100, 450), me, held)
        if held is None:
            break
        spans.append(len(held.span))
    assert sum(spans) == 20
    assert max(spans) == 4
    topic.append([singles(b"1" * 1000, b"2")])
    held, _ = topic.client("c").advance(Size(100, 450), me, None)
    assert len(held.span) == 1  # larger than the limit, but a batch is never empty


def test_a_cursor_commits_with_its_messages(engine, topic):
    def broken():
        yield singles(b"1")
        raise RuntimeError("the source broke")

    assert engine.cursor("source") is None
    with pytest.raises(pqlog.Error):
        topic.append(broken(), cursor=Cursor("source", "1", "null"))
    assert engine.cursor("source") is None
    topic.append([singles(b"1")], cursor=Cursor("source", "1", "null"), id="x")
    topic.append([singles(b"1")], cursor=Cursor("source", "0", "null"), id="x")
    assert engine.cursor("source") == "1"
    topic.append([], cursor=Cursor("source", "2", "1.0"))
    assert engine.cursor("source") == "2"


def test_of_messages_with_ids_only_those_are_put_whose_id_is_new(engine, topic):
    def thin(segment, mask, start):
        thinned.append((mask, start))
        yield Segment(b"thinned", segment.rows if mask is None else sum(mask), segment.key, segment.headers)

    def put(chunks, *ids):
        return topic.append(chunks, ids=Ids(ids, thin))

    thinned = []
    assert put([singles(b"1", b"2", b"3", key="k")], ["a", "b", "a"]) == Span(1, 3)
    assert put([Segment(b"segment", 2, "k"), singles(b"4")], ["c", "d"], ["e"]) == Span(3, 6)
    assert put([singles(b"5"), Segment(b"x", 2)], ["c"], ["a", "b"]) == Span(6, 6)
    assert thinned == []
    chunks = [singles(b"6", b"7"), Segment(b"x", 3, "k", "{}"), Segment(b"y", 1), Segment(b"z", 1)]
    assert put(chunks, ["e", "f"], ["f", "g", "h"], ["a"], ["i"]) == Span(6, 10)
    assert thinned == [(b"\0\1\1", 1), (None, 3)]
    found = [(row.offset, row.value, row.rows, row.key) for row in topic.read(Span(1, 99), 99, 1000)]
    assert found == [
        *((1, b"1", None, "k"), (2, b"2", None, "k"), (3, b"segment", 2, "k"), (5, b"4", None, None)),
        *((6, b"7", None, None), (7, b"thinned", 2, "k"), (9, b"thinned", 1, None)),
    ]
    assert [topic.find_id(id) for id in "aci"] == [Span(1, 2), Span(3, 4), Span(9, 10)]


@pytest.mark.parametrize(
    ("found", "expected"), [("2", "1"), ("1", "true"), ("null", "0"), ("[1, [2]]", "[1, [3]]"), ('{"a": 1}', "{}")]
)
def test_a_cursor_that_is_not_as_expected_puts_nothing(engine, topic, found, expected):
    topic.append([], cursor=Cursor("source", found, "null"))
    with pytest.raises(pqlog.CursorError, match="another process moved it"):
        topic.append([singles(b"1")], cursor=Cursor("source", "3", expected), id="x")
    assert (engine.cursor("source"), topic.span(), topic.find_id("x")) == (found, Span(1, 1), None)


@pytest.mark.parametrize(("found", "expected"), [('{"a":1,"b":[2.0]}', '{"b": [2], "a": 1.0}'), ('"x"', '"\\u0078"')])
def test_a_cursor_is_compared_as_a_value(engine, topic, found, expected):
    topic.append([], cursor=Cursor("source", found, "null"))
    topic.append([singles(b"1")], cursor=Cursor("source", "3", expected))
    assert engine.cursor("source") == "3"


def test_seek_gives_up_claims(engine, topic):
    fill(engine, topic)
    topic.client("c").join()
    me = ""
    held = take(engine, topic, me)
    topic.client("c").seek(3)
    with pytest.raises(pqlog.ClaimLostError):
        take(engine, topic, me, held)
    following = take(engine, topic, me)
    assert (following.number, following.span) == (2, Span(3, 8))
    assert following.epoch != held.epoch


def test_a_cached_schema_is_kept_with_its_topic_and_is_of_the_messages_that_are_kept(engine, topic):
    fill(engine, topic)
    assert topic.cached_schema() is None
    topic.cache_schema(CachedSchema(Span(1, 4), "three"))
    topic.cache_schema(CachedSchema(Span(1, 9), "all"))
    assert topic.cached_schema() == CachedSchema(Span(1, 9), "all")
    topic.trim(3, force=True)
    topic.cache_schema(CachedSchema(Span(1, 9), "by somebody who began before"))
    assert topic.cached_schema() in (None, CachedSchema(Span(1, 9), "all"))
    topic.cache_schema(CachedSchema(Span(3, 9), "the rest"))
    assert topic.cached_schema() == CachedSchema(Span(3, 9), "the rest")
    other = engine.topic("other", "json")
    assert other.cached_schema() is None
    other.cache_schema(CachedSchema(Span(1, 1), "nothing"))
    other.delete(force=True)
    other.cache_schema(CachedSchema(Span(1, 1), "of what is gone"))
    assert other.cached_schema() is None


def test_compact_gives_space_back_and_keeps_everything(engine, topic):
    for _ in range(3):
        topic.append([singles(*[b"x" * 1_000] * 1_000)])
    topic.client("c").join()
    kept = topic.read(Span(1, 3_001), 3_000, 1 << 24)
    assert engine.compact() >= 0
    assert topic.read(Span(1, 3_001), 3_000, 1 << 24) == kept
    assert topic.span() == Span(1, 3_001)
    assert topic.client("c").state().unread == Span(1, 3_001)
    assert topic.append([singles(b"1")]).first == 3_001


def test_trim_keeps_what_is_asked_for_also_inside_a_segment(engine, topic):
    fill(engine, topic)
    topic.append([singles(b"9")], "x")
    topic.client("c").join()
    with pytest.raises(pqlog.TrimRefusedError) as caught:
        topic.trim(6, force=False)
    assert caught.value.clients == (("c", 5),)
    assert topic.trim(6, force=True) == 5
    assert topic.trim(6, force=False) == 0  # no client loses anything
    assert topic.span() == Span(6, 10)
    assert topic.client("c").state().unread == Span(6, 10)
    assert [(row.offset, row.rows, row.skip) for row in topic.read(Span(0, 8), 9, 1 << 20)] == [(6, 2, 2)]
    assert topic.find_id("x") == Span(9, 10)
    assert topic.trim(10**9, force=True) == 4
    assert topic.find_id("x") is None
    assert topic.span() == Span(10, 10)
    assert topic.append([singles(b"10")]).first == 10


def test_waiting_is_ended_by_a_put_the_time_or_closing(engine, topic):
    assert not engine.wait(lambda: False, 0.01, 1)
    assert engine.wait(lambda: True, 0, 1)
    woken = threading.Event()
    looked = threading.Event()

    def ready():
        looked.set()
        return topic.span().stop > 1

    def wait():
        while not ready():
            engine.wait(ready, None, 60)
        woken.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert looked.wait(30)
    topic.append([singles(b"1")])
    assert woken.wait(30)
    waiting.join(30)
    engine.close()
    with pytest.raises(pqlog.ClosedError):
        engine.wait(lambda: False, None, 1)
    engine.close()


def test_a_backup_is_a_file_of_its_own(engine, topic, tmp_path):
    fill(engine, topic)
    engine.backup(str(tmp_path / "copy.db"))
    copy = SqliteStore(str(tmp_path / "copy.db"), readonly=True)
    assert copy.find_topic("main").span() == Span(1, 9)
    assert copy.uuid != engine.uuid
    copy.close()
