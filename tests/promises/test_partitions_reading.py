"""The partitions of a topic are read as one, by time, partition, offset: compared with sorting all of them."""

import contextlib
import itertools
import threading

import apsw
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pqlog
from pqlog import merged as merged_module
from pqlog import stream
from pqlog.errors import DamagedError
from pqlog.merged import MergedPartitions
from pqlog.partitioning import partition_of
from pqlog.store.memory.store import MemoryStore
from pqlog.store.sqlite.store import SqliteStore
from pqlog.store.values import LATEST, Output, Segment, Singles, Span

ENGINES = [lambda: SqliteStore(":memory:"), MemoryStore]
BYTES = 1 << 24

CHUNK = st.integers(1, 9).map(lambda n: [n] * n) | st.integers(1, 30)
"""So many single messages, or a segment of so many."""
PUT = st.dictionaries(st.integers(0, 2), st.lists(CHUNK, min_size=1, max_size=2), min_size=1)
PUTS = st.lists(PUT, max_size=25)
SHARES = st.lists(st.floats(0, 1), min_size=2, max_size=2)


def put(partitions, chunks):
    """Put into several partitions at once; chunks by partition."""
    outputs = [
        Output(
            partitions[number],
            [Segment(b"segment", some) if isinstance(some, int) else Singles([b"%d" % n for n in some]) for some in of],
        )
        for number, of in chunks.items()
    ]
    partitions[0].log.append(outputs)


def sorted_messages(partitions):
    """The time, partition and offset of each message."""
    found = []
    for number, topic in enumerate(partitions):
        left = topic.span()
        while rows := topic.read(left, 1000, BYTES):
            found += [(row.time, number, row.offset + index) for row in rows for index in range(row.rows or 1)]
            left = Span(rows[-1].stop, left.stop)
    return sorted(found)


def read(merged, span=None, rows=1000, max_bytes=BYTES):
    """The same as the merged order has them, and the place of each."""
    found, places = [], []
    left = merged.span() if span is None else span
    while some := merged.read(left, rows, max_bytes):
        assert len(some) <= rows
        for row in some:
            assert left.first <= row.offset < row.stop <= left.stop
            for index in range(row.rows or 1):
                found.append((row.time, row.partition, row.partition_offset + index))
                places.append(row.offset + index)
        left = Span(some[-1].stop, left.stop)
    assert places == sorted(set(places))
    return found, places


def opened(engine, partitions=3):
    return engine().topic("t", "json", partitions)


@pytest.mark.parametrize("engine", ENGINES)
@given(puts=PUTS, rows=st.integers(1, 50), max_bytes=st.sampled_from([1, 50, BYTES]))
def test_all_is_read_in_order_in_chunks_of_any_size(engine, puts, rows, max_bytes):
    partitions = opened(engine)
    for chunks in puts:
        put(partitions, chunks)
    merged, expected = MergedPartitions(partitions), sorted_messages(partitions)
    found, places = read(merged, None, rows, max_bytes)
    assert found == expected
    span = merged.span()
    assert merged.count() == merged.count(span) == len(expected)
    assert bool(span) is bool(expected)
    if expected:
        assert span.first == places[0]
        assert span.last >= places[-1]


@pytest.mark.parametrize("engine", ENGINES)
@given(puts=PUTS, shares=SHARES, trim=st.floats(0, 1), rows=st.integers(1, 50), walked=st.sampled_from([0, 16]))
def test_any_part_is_found_from_its_places_alone(engine, puts, shares, trim, rows, walked):
    """By who has read nothing before, after a trim by time; from any message on, and counted from its end."""
    partitions = opened(engine)
    for chunks in puts:
        put(partitions, chunks)
    messages = sorted_messages(partitions)
    if messages:
        time = messages[int(trim * (len(messages) - 1))][0]
        partitions[0].log.trim([(topic, topic.offset_at(time)) for topic in partitions], False)
    expected = sorted_messages(partitions)
    _, places = read(MergedPartitions(partitions))
    places.append(MergedPartitions(partitions).span().stop)
    first, stop = sorted(int(share * len(expected)) for share in shares)
    span = Span(places[first], places[stop])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pqlog.merged.WALKED", walked)
        assert read(MergedPartitions(partitions), span, rows)[0] == expected[first:stop]
        assert MergedPartitions(partitions).count(span) == stop - first
        for counted in {1, stop - first, stop - first + 5, (stop - first) // 2} - {0} if first < stop else ():
            assert MergedPartitions(partitions).from_end(counted, span) == places[max(first, stop - counted)]


@pytest.mark.parametrize("engine", ENGINES)
@given(puts=PUTS.filter(bool), share=st.floats(0, 1), later=st.sampled_from([-1, 0, 1]))
def test_times_and_messages_have_places(engine, puts, share, later):
    partitions = opened(engine)
    for chunks in puts:
        put(partitions, chunks)
    merged, expected = MergedPartitions(partitions), sorted_messages(partitions)
    _, places = read(merged)
    index = int(share * (len(expected) - 1))
    time = expected[index][0]
    assert merged.time_at(places[index]) == time
    at = merged.offset_at(time + later)
    assert read(merged, Span(at, merged.span().stop))[0] == [one for one in expected if one[0] >= time + later]
    assert merged.time_at(merged.span().stop) is None
    assert merged.offset_at(expected[-1][0] + 1) == merged.span().stop


@pytest.mark.parametrize("engine", ENGINES)
@given(puts=PUTS, trims=st.lists(st.tuples(st.integers(0, 2), st.floats(0, 1))), rows=st.integers(1, 50))
def test_a_reader_goes_on_where_it_was(engine, puts, trims, rows):
    """While others put, and trim each partition where they like: each message once, and none that is kept is left."""
    partitions = opened(engine)
    merged, read_before, next_place = MergedPartitions(partitions), [], None
    for chunks, trim in itertools.zip_longest(puts, trims):
        if chunks is not None:
            put(partitions, chunks)
        span = merged.span()
        if some := merged.read(Span(span.first if next_place is None else next_place, span.stop), rows, BYTES):
            read_before += [(r.time, r.partition, r.partition_offset + n) for r in some for n in range(r.rows or 1)]
            next_place = some[-1].stop
        if trim is not None:
            topic = partitions[trim[0]]
            first, stop = topic.span()
            topic.log.trim([(topic, int(first + trim[1] * (stop - first)))], True)
    stop = merged.span().stop
    rest, _ = read(merged, Span(merged.span().first if next_place is None else next_place, stop), rows)
    assert read_before + rest == sorted(set(read_before + rest))
    assert set(sorted_messages(partitions)) <= set(read_before + rest)


@pytest.mark.parametrize("engine", ENGINES)
@given(puts=PUTS, shares=st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_each_partition_may_begin_where_one_likes(engine, puts, shares):
    partitions = opened(engine)
    for chunks in puts:
        put(partitions, chunks)
    spans = [topic.span() for topic in partitions]
    begin = [int(span.first + share * (span.stop - span.first)) for span, share in zip(spans, shares, strict=True)]
    expected = [one for one in sorted_messages(partitions) if one[2] >= begin[one[1]]]
    merged = MergedPartitions(partitions, begin)
    found, places = read(merged)
    assert found == expected
    assert merged.count() == len(expected)
    for index in {0, len(expected) // 2, len(expected)} if expected else ():
        again = MergedPartitions(partitions, begin)
        at = places[index] if index < len(places) else again.span().stop
        assert read(again, Span(at, again.span().stop))[0] == expected[index:]
        assert again.from_end(max(1, len(expected) - index)) == places[min(index, len(expected) - 1)]


@given(
    puts=st.lists(st.dictionaries(st.integers(0, 2), st.integers(1, 9), min_size=1), max_size=30),
    rows=st.integers(1, 60),
    max_bytes=st.sampled_from([30, BYTES]),
    keyed=st.sets(st.integers(0, 29)),
    segments=st.sets(st.integers(0, 29), max_size=2),
)
def test_lines_are_those_of_the_rows(puts, rows, max_bytes, keyed, segments):
    partitions = opened(ENGINES[0])
    for turn, counts in enumerate(puts):
        outputs = []
        for number, count in counts.items():
            values = [b'{"n":%d}' % (100 * turn + n) for n in range(count)]
            keys = [f"k{n}" if n % 2 else None for n in range(count)] if turn in keyed else None
            chunk = Segment(b"segment", count) if turn in segments else Singles(values, keys)
            outputs.append(Output(partitions[number], [chunk]))
        partitions[0].log.append(outputs)
    merged = MergedPartitions(partitions)
    left = merged.span()
    while left:
        lines = merged.read_lines(left, rows, max_bytes)
        expected = merged.read(left, 1000, BYTES)
        if lines is None:
            assert expected[0].rows is not None, "it begins with a segment"
            left = Span(expected[0].stop, left.stop)
            continue
        assert 0 < lines.rows <= rows
        some = expected[: lines.rows]
        assert [row.offset for row in some] == list(range(lines.offset, lines.stop))
        assert lines.values.split(b"\n") == [row.value for row in some]
        times = list(map(int, lines.times.split(b"\n")))
        assert [row.time for row in some] == (times * lines.rows if len(times) == 1 else times)
        keys = lines.keys.split(b"\n") if lines.keys is not None else [b"null"] * lines.rows
        assert keys == [b"null" if row.key is None else b'"%s"' % row.key.encode() for row in some]
        runs = [(run.partition, run.offset + n) for run in lines.runs for n in range(run.messages)]
        assert runs == [(row.partition, row.partition_offset) for row in some]
        assert all(one.partition != other.partition for one, other in itertools.pairwise(lines.runs))
        left = Span(lines.stop, left.stop)


def test_reading_goes_on_while_others_put_and_trim(tmp_path):
    log = SqliteStore(str(tmp_path / "a.db"))
    partitions = log.topic("t", "json", 4)
    stopped = threading.Event()

    def write():
        for turn in itertools.count():
            put(partitions, {turn % 4: [range(3)], (turn + 1) % 4: [2, range(5)]})
            if stopped.is_set():
                return

    def trim():
        while not stopped.wait(0.01):
            log.trim([(topic, topic.from_end(200)) for topic in partitions], True)

    threads = [threading.Thread(target=some) for some in (write, write, trim)]
    for thread in threads:
        thread.start()
    merged, found = MergedPartitions(partitions), []
    next_place = merged.span().first
    try:
        while len(found) < 3000:
            left = Span(next_place, merged.span().stop)
            while some := merged.read(left, 100, BYTES):
                found += [(r.time, r.partition, r.partition_offset + n) for r in some for n in range(r.rows or 1)]
                next_place = some[-1].stop
                left = Span(next_place, left.stop)
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
    assert found == sorted(set(found))
    log.close()


def test_a_place_is_found_by_few_looks(monkeypatch):
    """However long the topic is, and however unevenly its partitions were filled."""
    partitions = opened(ENGINES[0], 4)
    for turn in range(300):
        put(partitions, {turn % 4: [range(turn % 7 + 1)], 0 if turn < 100 else 1 + turn // 100: [range(50)]})
    looks = []
    for name in ("time_at", "offset_at"):
        asked = getattr(type(partitions[0]), name)
        monkeypatch.setattr(
            type(partitions[0]), name, lambda topic, at, asked=asked: looks.append(at) or asked(topic, at)
        )
    first, stop = MergedPartitions(partitions).span()
    for place in range(first, stop, 97):
        looks.clear()
        positions = MergedPartitions(partitions).positions(place)
        assert sum(positions) - 3 == place
        assert len(looks) < 100
    merged = MergedPartitions(partitions)
    left = merged.span()
    looks.clear()
    while some := merged.read(left, 1000, BYTES):
        left = Span(some[-1].stop, left.stop)
    assert len(looks) < 80 * (stop - first) / 1000


def test_what_is_whole_comes_before_the_damage(tmp_path):
    path = str(tmp_path / "a.db")
    log = SqliteStore(path)
    partitions = log.topic("t", "json", 3)
    for turn in range(30):
        put(partitions, {turn % 3: [[turn]]})
    id = partitions[1].info.id
    log.close()
    db = apsw.Connection(path)
    db.execute(f"UPDATE messages_{id} SET value = '99' WHERE offset = 6")
    db.close()
    log = SqliteStore(path)
    merged = MergedPartitions(log.find_topic("t"))
    left, found = merged.span(), []
    with pytest.raises(DamagedError, match="message 6 of partition 1 of topic") as raised:
        while some := merged.read(left, 100, BYTES):
            found += [(row.partition, row.partition_offset) for row in some]
            left = Span(some[-1].stop, left.stop)
    assert (raised.value.partition, raised.value.offset) == (1, 6)
    assert found == [(turn % 3, turn // 3 + 1) for turn in range(16)]
    log.close()


@pytest.mark.parametrize("offset", [1, 2, 6, 10])
def test_backwards_what_is_newer_comes_before_the_damage(tmp_path, offset):
    path = str(tmp_path / "a.db")
    with pqlog.open(path) as log:
        orders = log.topic("orders", partitions=3)
        for turn in range(30):
            put(orders.stream.partitions, {turn % 3: [[turn]]})
        id = orders.stream.partitions[1].info.id
    db = apsw.Connection(path)
    db.execute(f"UPDATE messages_{id} SET value = '99' WHERE offset = {offset}")
    db.close()
    with pqlog.open(path) as log:
        found = []
        with pytest.raises(DamagedError, match=rf"seek\({offset + 1}, partition=1\)"):
            for message in reversed(log.topic("orders")):
                found.append(message.value)
    assert found == list(range(29, 3 * (offset - 1) + 1, -1))


def test_two_readers_and_a_trim_between_their_steps(monkeypatch):
    """A trim by time, or of one partition, between two steps of a reader loses and doubles nothing for another."""
    monkeypatch.setattr(stream, "CHUNK_ROWS", 10)
    monkeypatch.setattr(merged_module, "REMEMBERED", 2)
    keys = {partition_of(str(n), 2): str(n) for n in range(10)}
    for by_time, ahead, count in itertools.product((True, False), (3, 8, 25), (17, 20, 24, 28)):
        topic = pqlog.open(":memory:").topic("t", partitions=2)
        for key in [keys[1]] * count + [keys[0]] * 100 + [keys[1]]:
            topic.put(1, key=key)
        one = iter(topic.history())
        got = [next(one) for _ in range(5)]
        if by_time:
            topic.trim(topic.partition(0)[50].time)
        else:
            topic.partition(0).trim(50)
        two = iter(topic.history())
        got += itertools.islice(one, ahead)
        kept = [(message.partition, message.offset) for message in topic]
        assert [(message.partition, message.offset) for message in two] == kept
        got += one
        places = [(message.partition, message.offset) for message in got]
        assert len(set(places)) == len(places)
        assert set(kept) <= set(places)


def test_a_live_frame_of_what_a_client_has_not_read(log):
    topic = log.topic("t", partitions=2)
    topic.put_many([{"n": n} for n in range(40)], key="n")
    client = topic.client("etl")
    client.seek(5, partition=0), client.seek(10, partition=1)
    live = client.unread().live()
    client.seek(10, partition=0), client.seek(5, partition=1)
    pd.testing.assert_frame_equal(live.refresh(), client.unread().to_pandas())


@pytest.mark.parametrize("at", [1, 100, 1_667, 2_500, 2_501, 3_750, 5_000])
@pytest.mark.parametrize("time", [1, 2**53])
def test_a_damaged_time_hides_no_message(path, at, time):
    """Whatever the bisection meets, what is read is all that comes before an error, which names the damage."""
    keys = {partition_of(str(n), 2): str(n) for n in range(20)}
    with pqlog.open(path) as log:
        topic = log.topic("orders", partitions=2)
        for partition in (1, 0):
            for start in range(0, 5_000, 100):
                topic.put_many([{"k": keys[partition], "n": start + n} for n in range(100)], key="k")
        id = topic.stream.partitions[0].info.id
    apsw.Connection(str(path)).execute(f"UPDATE messages_{id} SET time = {time} WHERE offset = {at}")
    with pqlog.open(path, readonly=True) as log:
        topic, seen = log.topic("orders"), {0: [], 1: []}
        with pytest.raises(DamagedError) as raised:
            for message in topic:
                seen[message.partition].append(message.offset)
        assert raised.value.partition == 0
        assert raised.value.offset <= at <= raised.value.last
        for offsets in seen.values():
            assert offsets == list(range(1, len(offsets) + 1))
        assert len(seen[0]) == raised.value.offset - 1
        # Reading columns verifies values and no times: then nothing is missing.
        for read in (topic.to_pandas, topic.to_arrow, lambda: list(topic.history().values())):
            with contextlib.suppress(DamagedError):
                assert len(read()) == 10_000


def test_the_last_time_there_is_does_not_end_a_topic(path):
    with pqlog.open(path) as log:
        topic = log.topic("orders", partitions=2)
        topic.stream.partitions[0].adopt(1, [(LATEST, Singles([b"1"]))])
        for n in range(3):
            topic.put(n)
        assert len(list(topic)) == len(topic) == 4
        assert log.verify() == []
