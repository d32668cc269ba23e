"""Reading partitions of a cluster: exact whatever others do meanwhile, and never a wait for what is not committed."""

import itertools
import random
import threading
import time

import numpy as np
import pandas as pd
import pytest

import pqlog
from pqlog.store.kafka.index import Index
from pqlog.store.kafka.reader import MOST_IDLE, PROMOTED
from pqlog.store.kafka.records import ROWS, records_of
from pqlog.store.values import Segment, Singles, Span
from tests.cluster.foreign import Foreign


@pytest.fixture
def foreign(cluster_url):
    return Foreign(cluster_url)


def numbers(count, start=0):
    return [b'{"n":%d}' % n for n in range(start, start + count)]


def segment(first, rows, key=None):
    """A segment as `put_many` of a frame makes it."""
    with pqlog.open(":memory:") as log:
        log.put_many(pd.DataFrame({"n": np.arange(first, first + rows), "k": ["a", "b"] * (rows // 2)}), key=key)
        (row,) = log.store.read(log.store.span(), 1, 1 << 30)
        return Segment(row.value, row.rows, row.key, row.headers)


def put_segment(foreign, topic, chunk, partition=0):
    (record,) = records_of(chunk)
    foreign.put(topic, [record.value], partition, keys=[record.key], headers=record.headers)


def of(log):
    """The partition of a topic that has one."""
    return log.stream.partitions[0]


def test_what_is_not_committed_is_neither_read_nor_waited_for(foreign):
    foreign.make("t")
    foreign.put("t", numbers(3))
    open_transaction = foreign.begun()
    foreign.put("t", numbers(2, 3), producer=open_transaction)
    foreign.put("t", numbers(2, 5))
    with foreign.open("t") as log:
        started = time.monotonic()
        assert [message.value["n"] for message in log] == [0, 1, 2]
        assert (len(log), log.last, len(log.history().to_pandas())) == (3, 2 * ROWS, 3)
        assert [message.value["n"] for message in log.history(since="1h")] == [0, 1, 2]
        assert time.monotonic() - started < 3
        open_transaction.abort_transaction(30)
        foreign.settle("t")
        assert [message.value["n"] for message in log] == [0, 1, 2, 5, 6]
        assert (len(log), log.last) == (5, 6 * ROWS)


@pytest.mark.parametrize("commit", [True, False])
def test_a_topic_of_transactions_has_gaps(foreign, commit):
    foreign.make("t")
    with foreign.open("t") as log:
        assert (len(log), log.first, log.last, list(log), bool(of(log).span())) == (0, None, None, [], False)
        foreign.put_in_transaction("t", numbers(3), commit=False)
        assert (len(log), log.first, log.last, list(log), bool(of(log).span())) == (0, None, None, [], False)
        assert len(log.history().to_pandas()) == 0
        foreign.put_in_transaction("t", numbers(3))
        foreign.put_in_transaction("t", numbers(3, 3), commit=commit)
        foreign.put_in_transaction("t", numbers(1, 6), commit=False)
        expected = range(6 if commit else 3)
        assert [message.value["n"] for message in log] == list(expected)
        assert [message.value["n"] for message in reversed(log)] == list(reversed(expected))
        assert len(log) == len(log.history().to_pandas()) == len(expected)
        assert (log.first, log.last) == (4 * ROWS, 4 * ROWS + 2 * ROWS + (4 * ROWS if commit else 0))
        assert of(log).span().first == log.first
        assert of(log).read(Span(log.last + 1, 1 << 62), 10, 1 << 20) == []


def test_offsets_are_those_of_records_and_rows(foreign):
    foreign.make("t")
    foreign.put("t", numbers(2))
    put_segment(foreign, "t", segment(2, 10, key="k"))
    put_segment(foreign, "t", segment(12, 4))
    foreign.put("t", numbers(1, 16), keys=["b"])
    offsets = [0, ROWS, *range(2 * ROWS, 2 * ROWS + 10), *range(3 * ROWS, 3 * ROWS + 4), 4 * ROWS]
    with foreign.open("t") as log:
        assert [(message.offset, message.value["n"]) for message in log] == list(zip(offsets, range(17), strict=True))
        assert log.history().to_pandas().index.tolist() == offsets
        for offset, n in zip(offsets, range(17), strict=True):
            assert log[offset].value["n"] == n
        for missing in (1, 2 * ROWS + 10, 5 * ROWS):
            with pytest.raises(pqlog.OffsetError):
                log[missing]
        for first, stop in itertools.combinations([0, 1, 2, 3, 7, 12, 13, 16], 2):
            history = log[offsets[first] : offsets[stop]]
            assert len(history) == stop - first
            assert [message.value["n"] for message in history] == list(range(first, stop))
            assert history.to_pandas()["n"].tolist() == list(range(first, stop))
        for messages in range(1, 20):
            assert [message.value["n"] for message in log.history(start=-messages)] == list(range(17))[-messages:]
        assert [message.value["n"] for message in log.history(key="b")] == [3, 5, 7, 9, 11, 16]
        pieces = itertools.pairwise([offsets[0], offsets[3], offsets[6], offsets[6] + 1, offsets[12], 9 * ROWS])
        read = [row for piece in pieces for row in of(log).read(Span(*piece), 100, 1 << 20)]
        assert [(row.offset, row.rows, row.skip) for row in read if row.rows] == [
            (2 * ROWS, 1, 0), (2 * ROWS + 1, 3, 1), (2 * ROWS + 4, 1, 4), (2 * ROWS + 5, 5, 5), (3 * ROWS, 4, 0)
        ]  # fmt: skip


def test_bounds_of_a_read_are_kept(foreign):
    foreign.make("t")
    foreign.put("t", numbers(100))
    with foreign.open("t") as log:
        partition = of(log)
        everything = partition.span()
        assert len(partition.read(everything, 7, 1 << 20)) == 7
        assert len(partition.read(everything, 7, 1)) == 1
        assert 1 <= len(partition.read(everything, 100, 30)) <= 5
        lines = partition.read_lines(Span(10 * ROWS, 20 * ROWS), 100, 1 << 20)
        assert (lines.offset, lines.rows, lines.stop) == (10 * ROWS, 10, 19 * ROWS + 1)
        assert list(lines.all_offsets) == [n * ROWS for n in range(10, 20)]
        assert lines.values == b"\n".join(numbers(10, 10))
        assert partition.read_lines(everything, 3, 1 << 20).rows == 3


def test_times_find_offsets(foreign):
    foreign.make("t", message_timestamp_type="CreateTime")
    base = 1_700_000_000_000
    foreign.put("t", numbers(5), times=[base + 10 * n for n in range(5)])
    foreign.put("t", numbers(1, 5), times=[base + 100])
    with foreign.open("t") as log:
        partition = of(log)
        for ms, offset in [(0, 0), (10, 1), (11, 2), (40, 4), (41, 5), (100, 5)]:
            assert partition.offset_at((base + ms) * 1000) == offset * ROWS
        assert partition.offset_at(base * 1000 + 1) == ROWS
        assert partition.offset_at((base + 101) * 1000) == partition.span().stop
        assert partition.time_at(4 * ROWS) == (base + 40) * 1000
        assert partition.time_at(4 * ROWS + 1) == (base + 100) * 1000
        assert partition.time_at(6 * ROWS) is None
        foreign.put_in_transaction("t", numbers(1), commit=False)
        foreign.put_in_transaction("t", numbers(1, 6))
        assert partition.offset_at((base + 101) * 1000) == 8 * ROWS  # an aborted one has a time, but it is no message
        assert partition.time_at(6 * ROWS) == partition.time_at(8 * ROWS)


def test_records_that_are_dropped_while_they_are_read(foreign):
    foreign.make("t")
    foreign.put("t", numbers(30_000))
    with foreign.open("t") as log:
        messages = iter(log)
        read = [next(messages).value["n"] for _ in range(10)]
        foreign.trim("t", 25_000)
        read += [message.value["n"] for message in messages]
        assert read[:10] == list(range(10))
        assert read == sorted(set(read))
        assert read[-5_000:] == list(range(25_000, 30_000))
        assert (log.first, len(log)) == (25_000 * ROWS, 5_000)
        assert [message.value["n"] for message in log] == list(range(25_000, 30_000))
        with pytest.raises(pqlog.OffsetError):
            log[0]
        foreign.trim("t", 30_000)
        assert (log.first, len(log), list(log), len(log.history().to_pandas())) == (None, 0, [], 0)


def test_counts_are_exact_of_what_was_read_and_else_about_right(foreign):
    foreign.make("t")
    foreign.put("t", numbers(60_000))
    with foreign.open("t") as log:
        assert not log.capabilities.exact_counts
        assert 59_000 < len(log) < 61_000
        assert len(log.history(start=-40_000)) == 40_000
        assert sum(1 for _ in log) == len(log) == 60_000


def test_eight_partitions_are_read_in_the_order_of_their_times(foreign):
    foreign.make("t", 8, message_timestamp_type="CreateTime")
    chance, base = random.Random(1), 1_700_000_000_000
    expected, producer = [], foreign.producer(linger_ms=20)
    for number in range(8):
        times = sorted(base + chance.randrange(2_000) for _ in range(chance.choice([0, 1, 300, 5_000])))
        foreign.put("t", [b'{"p":%d,"i":%d}' % (number, index) for index in range(len(times))], number,
                    times=times, producer=producer)  # fmt: skip
        expected += [(at, number, index) for index, at in enumerate(times)]
    expected = [(number, index) for _, number, index in sorted(expected)]
    with foreign.open("t") as log:
        assert [(message.value["p"], message.value["i"]) for message in log] == expected
        frame = log.history().to_pandas()
        assert list(zip(frame["p"], frame["i"], strict=True)) == expected
        assert frame["_partition"].tolist() == frame["p"].tolist()
        assert frame.index.tolist() == [index * ROWS for _, index in expected]
        assert len(log) == len(expected)
        for messages in (1, 10, 3_000):
            tail = log.tail(messages)
            assert list(zip(tail["p"], tail["i"], strict=True)) == expected[-messages:]
        backwards = [(message.value["p"], message.value["i"]) for message in reversed(log)]
        assert backwards == expected[::-1]
        since = pd.Timestamp(base + 1_000, unit="ms", tz="UTC")
        later = log.history(since=since).to_pandas()
        assert later["_time"].min() >= since
        assert len(later) == len(frame[frame["_time"] >= since])


def test_merged_segments_and_singles(foreign):
    foreign.make("t", 3)
    for turn in range(4):
        put_segment(foreign, "t", segment(100 * turn, 50, key="k"), turn % 2)
        foreign.put("t", numbers(10, 1_000 + 10 * turn), 2)
        time.sleep(0.01)
    expected = [
        n
        for turn in range(4)
        for n in (*range(100 * turn, 100 * turn + 50), *range(1_000 + 10 * turn, 1_010 + 10 * turn))
    ]
    with foreign.open("t") as log:
        assert [message.value["n"] for message in log] == expected
        assert log.history().to_pandas()["n"].tolist() == expected
        for messages in range(1, 241, 7):
            assert log.tail(messages)["n"].tolist() == expected[-messages:]
        assert [message.value["n"] for message in reversed(log)] == expected[::-1]
        source = log.stream.store
        rows, span = [], source.span()
        while page := source.read(span, 3, 1 << 20):
            rows += page
            span = Span(page[-1].stop, span.stop)
        places = [row.offset + index for row in rows for index in range(row.rows or 1)]
        assert places == sorted(set(places))
        fresh = log.stream.for_one_reading().store
        for place, n in zip(places, expected, strict=True):  # any place is found again, by who was never there
            (row,) = fresh.read(Span.at(place), 1, 1 << 20)
            values = [message.value["n"] for message in log.stream.messages([row])]
            assert values == [n]


def test_a_reader_that_goes_on_does_not_seek(foreign, monkeypatch):
    foreign.make("t")
    foreign.put("t", numbers(20_000))
    with foreign.open("t") as log:
        from pqlog.store.kafka import reader

        begun = []
        begin = reader.Reader.begin
        monkeypatch.setattr(reader.Reader, "begin", lambda *all: begun.append(all[2]) or begin(*all))
        assert sum(1 for _ in log) == 20_000
        assert len(begun) <= 2  # a small one first, and one that reads far ahead
        assert PROMOTED < 20_000
        for offset in range(0, 20_000, 1_000):
            assert log[offset * ROWS].value["n"] == offset
        assert len(log.store.log.readers._idle) <= MOST_IDLE


def test_threads_read_one_log(foreign):
    foreign.make("t", 2)
    for number in range(2):
        foreign.put("t", numbers(3_000, 3_000 * number), number)
    with foreign.open("t") as log:
        found = []

        def read(number):
            part = log if number % 2 else log.partition(number // 2 % 2)
            found.append((number, sorted(message.value["n"] for message in part)))

        threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 8
        for number, values in found:
            first = 0 if number % 2 else 3_000 * (number // 2 % 2)
            assert values == list(range(first, first + (6_000 if number % 2 else 3_000)))


def test_closing_ends_who_reads(foreign):
    foreign.make("t")
    foreign.put("t", numbers(100))
    log = foreign.open("t")
    ended = threading.Event()

    def read():
        try:
            while True:
                list(log)
        except pqlog.ClosedError:
            ended.set()

    thread = threading.Thread(target=read)
    thread.start()
    time.sleep(0.3)
    log.close()
    log.close()
    thread.join(10)
    assert ended.is_set()
    with pytest.raises(pqlog.ClosedError):
        len(log)


def test_a_chunk_of_any_kind_is_read_as_it_was(foreign):
    foreign.make("t")
    chunks = [
        Singles([b"1", b"2"], ["k", None], '{"a":"\\u0000 \\u00e9"}'),
        Singles([b"3"], None, None),
        Segment(b"\x00bytes", 7, "field", '{"h":"1"}'),
        Segment(b"", 65_536),
    ]
    for chunk in chunks:
        for record in records_of(chunk):
            foreign.put("t", [record.value], keys=[record.key], headers=record.headers)
    with foreign.open("t") as log:
        rows = of(log).read(of(log).span(), 10, 1 << 20)
        assert [(row.value, row.key, row.headers, row.rows, row.whole) for row in rows] == [
            (b"1", "k", '{"a":"\\u0000 é"}', None, None),
            (b"2", None, '{"a":"\\u0000 é"}', None, None),
            (b"3", None, None, None, None),
            (b"\x00bytes", "field", '{"h":"1"}', 7, 7),
            (b"", None, None, 65_536, 65_536),
        ]
    with pytest.raises(pqlog.ArgumentError, match="header"):
        list(records_of(Singles([b"1"], None, '{"a\\u0000b":"1"}')))


@pytest.mark.parametrize("seed", range(20))
def test_the_index_counts_what_was_read(seed):
    """Against a model, whatever is read in which order."""
    chance, index, records = random.Random(seed), Index(), {}
    for record in range(200):
        if chance.random() < 0.7:
            records[record] = chance.choice([1, 1, 1, 5])
    seen = set()
    for _ in range(chance.randint(1, 15)):
        first = chance.randint(0, 200)
        stop = chance.randint(first, min(200, first + 60))
        read = [record for record in range(first, stop) if record in records]
        rows = [records[record] for record in read]
        index.add(first, stop, read, None if set(rows) <= {1} else rows)
        seen |= set(range(first, stop))
    for _ in range(60):
        first = chance.randint(0, 200) * ROWS + chance.choice([0, 1, 3, 6])
        stop = max(first, chance.randint(0, 200) * ROWS + chance.choice([0, 1, 3, 6]))
        known = [record * ROWS + row for record in records if record in seen for row in range(records[record])]
        within = [offset for offset in known if first <= offset < stop]
        assert index.count(Span(first, stop)) == len(within)
        missing = [record for part in index.missing(first // ROWS, -(-stop // ROWS)) for record in range(*part)]
        assert missing == [record for record in range(first // ROWS, -(-stop // ROWS)) if record not in seen]
        if not missing and within:
            messages = chance.randint(1, len(within))
            assert index.from_end(messages, Span(first, stop)) == within[-messages]
        found, _ = index.first(first)
        assert found is None or found == min(offset for offset in known if offset >= first)
