"""The partitions of a topic on a cluster in one order, by time: all are read by one consumer, and merged as they come.

A place is the sum of the offsets at which a reader continues in each partition, less their number, plus 1; as those of
`pqlog.merged`, but nothing is searched by time: where a reader was is remembered, and what lies between is read.
"""

from __future__ import annotations

import bisect
import itertools
import operator
import threading
from array import array
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pqlog.store.kafka.partition import COUNTED, KafkaLog, KafkaPartition, record_behind
from pqlog.store.kafka.reader import Part, Reader
from pqlog.store.kafka.records import ROWS, time_of
from pqlog.store.values import Lines, Row, Span, TopicInfo

WAITED = 10_000
"""How many records of each partition are waited for before they are merged, unless fewer are wanted."""
FROM_END = 5_000
"""How many messages are counted from the end by reading all partitions; for more, a time is searched first."""
SEARCH_BYTES = 64 << 20
"""How much is merged at a time to find a place."""

MOST_PLACES = 10_000
"""How many places are remembered with their positions; the others are found again by reading."""

Positions = tuple[int, ...]


class _Merged(NamedTuple):
    """Records in their order: each column has an item for each."""

    numbers: list[int]
    messages: list[Any]
    offsets: list[int]
    """That of the first message of the record that was asked for."""
    stops: list[int]
    """The offset behind the last."""
    headers: list[Any] | None
    rows: list[int | None] | None
    ends: list[int]
    """The place behind each."""


class _Places:
    """The positions of places: those that were used last. Any thread may ask and note."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._positions = OrderedDict[int, Positions]()
        """By place; what was used last comes last."""
        self._ascending: list[int] = []

    def find(self, place: int) -> Positions | None:
        """The positions of a place, if they are remembered."""
        with self._lock:
            found = self._positions.get(place)
            if found is not None:
                self._positions.move_to_end(place)
            return found

    def before(self, place: int) -> Positions | None:
        """Those of the last place at or before one, of which positions are remembered."""
        with self._lock:
            at = bisect.bisect_right(self._ascending, place) - 1
            return self._positions.get(self._ascending[at]) if at >= 0 else None

    def note(self, place: int, positions: Positions) -> None:
        """Remember the positions of a place."""
        with self._lock:
            is_new = place not in self._positions
            self._positions[place] = positions
            self._positions.move_to_end(place)
            if is_new:
                bisect.insort(self._ascending, place)
            while len(self._positions) > MOST_PLACES:
                oldest = next(iter(self._positions))
                at = bisect.bisect_left(self._ascending, oldest)
                if self._ascending[at : at + 1] == [oldest]:  # Ctrl-C may have struck in between
                    del self._ascending[at]
                del self._positions[oldest]


class KafkaMerged:
    """All partitions of a topic as one; the protocols are `MessageSource`, `ReadsLines` and `Merged` of `store.api`.

    Parameters
    ----------
    partitions : sequence of KafkaPartition
    begin : sequence of int, optional
        The offset in each of them where it begins; by default with its first message.
    """

    def __init__(self, partitions: Sequence[KafkaPartition], begin: Sequence[int] | None = None) -> None:
        self.partitions = tuple(partitions)
        self._begin = tuple(begin or (0 for _ in partitions))
        self._places = _Places()

    @property
    def info(self) -> TopicInfo:
        return self.partitions[0].info

    @property
    def log(self) -> KafkaLog:
        return self.partitions[0].log

    # places

    def place(self, positions: Positions) -> int:
        """The place of a reader that continues at some positions."""
        place = sum(positions) - len(positions) + 1
        self._places.note(place, tuple(positions))
        return place

    def positions(self, place: int) -> Positions:
        """Where a reader at a place continues in each partition."""
        found = self._places.find(place)
        if found is not None:
            return found
        begin, stop = self._kept()
        self.place(begin)
        if place >= self.place(stop):
            return stop
        found = self._places.before(place)
        if found is None:
            return begin
        while True:
            merged, behind = self._read(found, stop, WAITED * len(self.partitions), SEARCH_BYTES, place)
            if behind == found:
                break
            found = behind
            if merged.ends[-1] >= place:
                break
        found = self._within(found, stop, place)
        self.place(found)
        self._places.note(place, found)
        return found

    def _within(self, begin: Positions, stop: Positions, place: int) -> Positions:
        """The positions of a place in the next record, where that is a segment; else they are as they were."""
        merged, _ = self._read(begin, stop, 1, SEARCH_BYTES)
        positions = list(begin)
        for number, first, end, behind in zip(merged.numbers, merged.offsets, merged.stops, merged.ends, strict=True):
            row = place - (behind - (end - first))
            if row > 0:
                positions[number] = first + row
        return tuple(positions)

    def _kept(self) -> tuple[Positions, Positions]:
        spans = self.log.spans(self.partitions)  # type: ignore[arg-type]
        begin = tuple(max(span.first, first) for span, first in zip(spans, self._begin, strict=True))
        return begin, tuple(max(span.stop, first) for span, first in zip(spans, begin, strict=True))

    def _bounds(self, span: Span | None) -> tuple[Positions, Positions]:
        begin, stop = self._kept()
        if span is None:
            return begin, stop
        first, end = self.positions(span.first), self.positions(span.stop)
        first = tuple(map(max, first, begin))
        return first, tuple(map(max, first, map(min, end, stop)))

    def span(self) -> Span:
        begin, stop = self._kept()
        return Span(self.place(begin), self.place(stop))

    # counting and times

    def count(self, span: Span | None = None) -> int:
        return self._count(*self._bounds(span))

    def _count(self, begin: Positions, stop: Positions) -> int:
        spans = zip(self.partitions, map(Span, begin, stop), strict=True)
        return sum(partition.counted(span) for partition, span in spans)

    def survey(self, span: Span, times: Sequence[int]) -> list[int]:
        """About how many messages of a span were put before, between and behind times: `pqlog.store.api.Surveys`."""
        spans = map(Span, *self._bounds(span))
        ends = zip(*map(self._records_at, times), strict=True) if times else [()] * len(self.partitions)
        counts = [one.surveyed(part, end) for one, part, end in zip(self.partitions, spans, ends, strict=True)]
        return list(map(sum, zip(*counts, strict=True)))

    def from_end(self, messages: int, span: Span | None = None) -> int:
        begin, stop = self._bounds(span)
        if messages <= 0 or begin == stop:
            return self.place(stop)
        if messages <= FROM_END:
            spans = zip(self.partitions, map(Span, begin, stop), strict=True)
            found = tuple(one.from_end(messages, part) if part else part.first for one, part in spans)
        elif messages >= self._count(begin, stop):
            return self.place(begin)
        else:
            found = self._before(messages, begin, stop)
        more = self._count(found, stop) - messages
        return self.place(self._behind(found, stop, more) if 0 < more <= 2 * COUNTED else found)

    def _behind(self, begin: Positions, stop: Positions, messages: int) -> Positions:
        """The positions that are a number of messages further on."""
        positions = list(begin)
        while messages > 0:
            merged, behind = self._read(tuple(positions), stop, messages, SEARCH_BYTES)
            if behind == tuple(positions):
                break
            for number, message, first, end in zip(
                merged.numbers, merged.messages, merged.offsets, merged.stops, strict=True
            ):
                if not self.partitions[number].is_chosen(message):
                    positions[number] = end
                    continue
                taken = min(messages, end - first)
                positions[number] = first + taken
                messages -= taken
                if not messages:
                    break
        return tuple(positions)

    def _before(self, messages: int, begin: Positions, stop: Positions) -> Positions:
        """Positions by a time with that many messages at or behind it, or a few more."""
        low, high = self._first_time(begin), 1 + max(self._last_times(stop), default=0)
        found = begin
        while high - low > 1:
            middle = (low + high) // 2
            at = self._at(middle * 1000, begin, stop)
            if self._count(at, stop) >= messages:
                low, found = middle, at
            else:
                high = middle
        return found

    def _first_time(self, positions: Positions) -> int:
        times = [one.time_at(at) for one, at in zip(self.partitions, positions, strict=True)]
        return min((time for time in times if time is not None), default=0) // 1000

    def _last_times(self, stop: Positions) -> list[int]:
        """The time of the last message of each partition, in milliseconds."""
        found = []
        for one, at in zip(self.partitions, stop, strict=True):
            time = one.time_at(one.from_end(1, Span(0, at)))
            if time is not None:
                found.append(time // 1000)
        return found

    def offset_at(self, time: int) -> int:
        return self.place(self._at(time, *self._kept()))

    def _at(self, time: int, begin: Positions, stop: Positions) -> Positions:
        """The positions before all messages from a time on."""
        if self.partitions[0].is_behind(time):
            ends = (one.offset_at(time) for one in self.partitions)
            return tuple(min(max(at, first), end) for at, first, end in zip(ends, begin, stop, strict=True))
        found = zip(self._records_at(time), begin, stop, strict=True)
        return tuple(end if record is None else min(max(record * ROWS, first), end) for record, first, end in found)

    def _records_at(self, time: int) -> list[int | None]:
        """The first record of each partition from a time on."""
        numbers = [one.info.partition for one in self.partitions]
        return self.log.cluster.offsets_for_time(self.partitions[0].kafka_topic, numbers, -(-time // 1000))

    def time_at(self, offset: int) -> int | None:
        begin, _ = self._kept()
        positions = self.positions(offset)
        if any(map(operator.lt, positions, begin)) and offset < self.place(begin):
            return None
        times = [one.time_at(max(at, first)) for one, at, first in zip(self.partitions, positions, begin, strict=True)]
        return min((time for time in times if time is not None), default=None)

    # reading

    def read(
        self, span: Span, rows: int, max_bytes: int, key: str | None = None, damaged: bool = False
    ) -> Sequence[Row]:
        assert key is None, "the messages of a key are read in its partition"
        begin, stop = self._bounds(span)
        found = list[Row]()
        while begin != stop and not found:
            found, behind = self._rows(begin, stop, rows, max_bytes)
            if behind == begin:
                break
            begin = behind
        return found

    def _rows(self, begin: Positions, stop: Positions, rows: int, max_bytes: int) -> tuple[list[Row], Positions]:
        """The next records as rows, and the positions behind them."""
        merged, behind = self._read(begin, stop, rows, max_bytes)
        found, new = list[Row](), tuple.__new__
        place = self.place(begin)
        for index, (number, message, offset) in enumerate(
            zip(merged.numbers, merged.messages, merged.offsets, strict=True)
        ):
            part = Span(begin[number], stop[number])
            headers = None if merged.headers is None else merged.headers[index]
            row = self.partitions[number].row(message, offset // ROWS, headers, part)
            if row is None:  # it was asked for behind its last message, or is not within the times
                continue
            length = row.rows or 1
            place = merged.ends[index] - length
            found.append(new(Row, (place, *row[1:8], number, place - row.offset)))
        self.place(behind)
        return found, behind

    def read_lines(self, span: Span, rows: int, max_bytes: int) -> Lines | None:
        if not self.partitions[0].is_text:
            return None
        begin, stop = self._bounds(span)
        while True:
            merged, behind = self._read(begin, stop, rows, max_bytes, singles=True)
            if not merged.messages:
                return None
            self.place(behind)
            chosen = self.partitions[0].chosen(merged.messages)
            if chosen is None or chosen:
                break
            begin = behind
        numbers, messages, offsets, _, _, _, ends = merged if chosen is None else _at_indexes(merged, chosen)
        lines = self.partitions[0].lines_of(messages, [end - 1 for end in ends])
        return lines._replace(origins=(array("i", numbers), array("q", offsets)))

    def _read(
        self,
        begin: Positions,
        stop: Positions,
        rows: int,
        max_bytes: int,
        place: int | None = None,
        singles: bool = False,
    ) -> tuple[_Merged, Positions]:
        """The next records in their order, and the positions behind them; only those up to a place, or a segment."""
        if begin == stop:
            return _NOTHING, begin
        topic = self.partitions[0].kafka_topic
        offsets = {one.info.partition: at for one, at in zip(self.partitions, begin, strict=True)}
        indexes = {one.info.partition: one.index for one in self.partitions}
        reader = self.log.readers.take(topic, offsets, indexes)
        try:
            parts = [reader.parts[one.info.partition] for one in self.partitions]
            return self._merge(reader, parts, begin, stop, rows, max_bytes, place, singles)
        finally:
            self.log.readers.give(reader)

    def _merge(
        self,
        reader: Reader,
        parts: Sequence[Part],
        begin: Positions,
        stop: Positions,
        rows: int,
        max_bytes: int,
        place: int | None,
        singles: bool,
    ) -> tuple[_Merged, Positions]:
        untils = [record_behind(offset) for offset in stop]
        wanted = max(1, min(rows // len(parts), WAITED))
        for one, until in zip(self.partitions, untils, strict=True):
            reader.fill(one.info.partition, until, wanted)
        heads = [_waiting(part, until, rows) for part, until in zip(parts, untils, strict=True)]
        horizon = min(
            ((head.times[-1], number) for number, head in enumerate(heads) if not head.is_all and head.times),
            default=None,
        )
        if horizon is not None:
            heads = [head.before(*horizon, number) for number, head in enumerate(heads)]
        times = _flat(head.times for head in heads)
        order = sorted(range(len(times)), key=times.__getitem__)[:rows]  # stable: each partition stays in its order
        merged = _ordered(heads, order, begin, stop)
        count = _fitting(merged, max_bytes, place, singles)
        merged = merged if count == len(merged.ends) else _first(merged, count)
        positions, consumed = list(begin), Counter(merged.numbers)
        for number, end in zip(merged.numbers, merged.stops, strict=True):
            positions[number] = end
        for number, records in consumed.items():
            _consume(parts[number], records, stop[number])
        return merged, tuple(positions)


class _Waiting(NamedTuple):
    """Records of a partition that were received, and are next."""

    messages: list[Any]
    records: list[int]
    headers: list[Any] | None
    rows: list[int | None] | None
    times: list[int]
    """Never running backwards."""
    is_all: bool
    """Whether there are no more."""

    def before(self, time: int, number: int, mine: int) -> _Waiting:
        """Those before a time, and those of that time if the partition comes first."""
        cut: Callable[..., int] = bisect.bisect_right if mine <= number else bisect.bisect_left
        count = cut(self.times, time)
        if count == len(self.times):
            return self
        headers, rows = (None if column is None else column[:count] for column in (self.headers, self.rows))
        return _Waiting(self.messages[:count], self.records[:count], headers, rows, self.times[:count], False)


def _waiting(part: Part, until: int, most: int) -> _Waiting:
    """What waits of a partition before a record offset: at most `most` records."""
    messages, records = list[Any](), list[int]()
    headers, rows = list[Any](), list[int | None]()
    for batch in part.batches:
        end = batch.end(until, most - len(records))
        count = end - batch.at
        messages += batch.messages[batch.at : end]
        records += batch.records[batch.at : end]
        headers += [None] * count if batch.headers is None else batch.headers[batch.at : end]
        rows += [None] * count if batch.rows is None else batch.rows[batch.at : end]
        if end < len(batch.records):
            break
    is_all = part.seen >= until and len(records) < most
    times = list(itertools.accumulate(map(time_of, messages), max))
    return _Waiting(messages, records, headers if any(headers) else None, rows if any(rows) else None, times, is_all)


def _ordered(heads: Sequence[_Waiting], order: Sequence[int], begin: Positions, stop: Positions) -> _Merged:
    """What waits in the order of its times."""
    firsts, ends, steps = list[int](), list[int](), list[int]()
    for number, head in enumerate(heads):
        offsets = [record * ROWS for record in head.records]
        stops = [offset + 1 for offset in offsets]
        if head.rows is not None:
            counts = zip(offsets, head.rows, strict=True)
            stops = [min(offset + (count or 1), stop[number]) for offset, count in counts]
        if offsets and offsets[0] < begin[number]:
            offsets[0] = begin[number]
        firsts += offsets
        ends += stops
        steps += map(operator.sub, stops, [begin[number], *stops])
    numbers = _flat([number] * len(head.times) for number, head in enumerate(heads))
    place = sum(begin) - len(begin) + 1
    places = list(itertools.accumulate(map(steps.__getitem__, order), initial=place))[1:]
    headers = rows = None
    if any(head.headers is not None for head in heads):
        headers = _picked(_flat(head.headers or [None] * len(head.times) for head in heads), order)
    if any(head.rows is not None for head in heads):
        rows = _picked(_flat(head.rows or [None] * len(head.times) for head in heads), order)
    messages = _picked(_flat(head.messages for head in heads), order)
    return _Merged(
        _picked(numbers, order), messages, _picked(firsts, order), _picked(ends, order), headers, rows, places
    )


def _fitting(merged: _Merged, max_bytes: int, place: int | None, singles: bool) -> int:
    """How many of the first are wanted: at least one, however large."""
    count = len(merged.ends)
    sizes = list(itertools.accumulate(map(len, merged.messages)))
    if sizes and sizes[-1] > max_bytes:
        count = max(1, bisect.bisect_right(sizes, max_bytes))
    if place is not None:
        count = min(count, bisect.bisect_right(merged.ends, place))
    if singles and merged.rows is not None:
        count = min(count, next((index for index, rows in enumerate(merged.rows) if rows is not None), count))
    return count


def _first(merged: _Merged, count: int) -> _Merged:
    columns: Any = (None if column is None else column[:count] for column in merged)
    return _Merged(*columns)


def _at_indexes(merged: _Merged, indexes: Sequence[int]) -> _Merged:
    columns: Any = (None if column is None else _picked(column, indexes) for column in merged)
    return _Merged(*columns)


def _consume(part: Part, records: int, stop: int) -> None:
    """Go on behind some records of a partition; but not behind a segment of which a part is wanted."""
    while records:
        batch = part.batches[0]
        some = min(records, len(batch.records) - batch.at)
        records -= some
        if not records and batch.stop_of(batch.at + some - 1) > stop:
            some -= 1
        if some:
            part.consume(some)


_NOTHING = _Merged([], [], [], [], None, None, [])


def _flat(parts: Any) -> list[Any]:
    return list(itertools.chain.from_iterable(parts))


def _picked(items: Sequence[Any], indexes: Sequence[int]) -> list[Any]:
    return list(map(items.__getitem__, indexes))
