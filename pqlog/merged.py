"""Merged: the partitions of a topic in one order, by time, then partition, then offset.

A *place* is a message's number in that order: 1 + the number of offsets, over all partitions, that come before it. So
places ascend, message ``i`` of a row has the place ``row.offset + i``, and they stay as they are while the topic
grows, which it does at the end of the order. A reader is at a *position* in each partition, an offset, and its place
is their sum. The way back, from a place to the positions, is a search by time; a reader that goes on does not need it,
since the positions where it stopped are remembered.

A trim by time moves no place of what is kept. A trim of one partition may drop what is newer than the first messages of
another, which then have other places. So places are compared only within one reading, and each reading has an object of
its own (`TopicStream.for_one_reading`); what lives longer, as a live frame does, keeps positions.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import operator
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence

from pqlog.errors import DamagedError
from pqlog.interleave import interleave
from pqlog.store.api import MergesPartitions, MessageSource, ReadsLines, Store, TopicStore
from pqlog.store.values import Lines, Row, Span, TopicInfo

REMEMBERED = 500
"""How many places are remembered with their positions."""
INTERPOLATED = 6
"""From this step on, every second step of a search bisects."""
SAMPLED = 3
"""How many partitions a step asks for the time that it tries next."""
WALKED = 16
"""For at most this many messages, stepping one by one is faster than another step of the search."""
ROUNDS = 3
"""How often a read is adjusted to be about as long as it was asked for."""
FOREVER = (1 << 63, 0)
"""The time and partition behind every message."""

Positions = tuple[int, ...]
"""An offset in each partition: where a reader continues."""


class MergedPartitions:
    """The partitions of a topic as one source of messages, with places in the part of offsets.

    The protocols are `pqlog.store.api.MessageSource` and `pqlog.store.api.ReadsLines`. The messages of a key are all in
    one partition, and are read there.

    Parameters
    ----------
    partitions : sequence of TopicStore
        All that the topic has, in their order.
    begin : sequence of int, optional
        The offset in each of them where this source begins; by default with its first message.
    """

    def __init__(self, partitions: Sequence[TopicStore], begin: Sequence[int] | None = None) -> None:
        self.partitions = tuple(partitions)
        self._begin = tuple(begin or (0 for _ in partitions))
        self._is_dense = self.log.capabilities.dense_offsets
        # Threads share these without a lock, which a child that is forked meanwhile would find locked for ever.
        self._remembered: OrderedDict[int, Positions] = OrderedDict()
        self._noted: tuple[list[Span], list[int]] | None = None
        """What was kept when it was asked last, and where places begin in each partition; only if offsets have gaps."""

    @property
    def info(self) -> TopicInfo:
        return self.partitions[0].info

    @property
    def log(self) -> Store:
        return self.partitions[0].log

    def span(self) -> Span:
        begin, stop = self._kept()
        if not self._is_dense and (heads := self._heads(begin, stop)):  # a gap may lie before the first message
            number = min(heads)[1]
            begin = (*begin[:number], self.partitions[number].span().first, *begin[number + 1 :])
        return Span(self._remember(begin), self._remember(stop))

    def count(self, span: Span | None = None) -> int:
        return self._count(*(self._kept() if span is None else self._bounds(span)))

    def from_end(self, messages: int, span: Span | None = None) -> int:
        begin, stop = self._bounds(span)
        total = self._count(begin, stop)
        messages = min(messages, total)
        if messages <= 0:
            return self._remember(stop)
        places = range(_place(begin), _place(stop))
        if self._is_dense:  # each of them is that of a message
            return self._remember(self._search(places[-messages], begin, stop))
        low, high = 0, len(places)
        while high - low > 1:  # the last place with that many messages behind it
            middle = (low + high) // 2
            is_enough = self._count(self._search(places[middle], begin, stop), stop) >= messages
            low, high = (middle, high) if is_enough else (low, middle)
        return self._remember(self._search(places[low], begin, stop), places[low])

    def offset_at(self, time: int) -> int:
        return self._remember(self._at(time, *self._kept()))

    def time_at(self, offset: int) -> int | None:
        begin, stop = self._kept()
        if offset < _place(begin):
            return None
        heads = self._heads(self.positions(offset), stop)
        return min(heads)[0] if heads else None

    def positions(self, place: int) -> Positions:
        """Where a reader that is at a place reads on in each partition."""
        remembered = self._remembered.get(place)
        if remembered is not None:
            self._remember(remembered, place)
            return remembered
        begin, stop = self._kept()
        if place <= _place(begin):
            return begin
        if place >= _place(stop):
            return stop
        found = self._search(place, begin, stop)
        self._remember(found, place)
        return found

    def place(self, positions: Positions) -> int:
        """The place of a reader who reads on at some positions."""
        return self._remember(positions)

    # reading

    def read(
        self, span: Span, rows: int, max_bytes: int, key: str | None = None, damaged: bool = False
    ) -> Sequence[Row]:
        assert key is None, "the messages of a key are read in its partition"
        begin, stop = self._bounds(span)
        while begin != stop:
            end, is_one_time = self._part(begin, stop, rows)
            found, times, numbers = list[Row](), list[int](), list[int]()
            left, unread, error = max_bytes, FOREVER, None
            for number, wanted, share in _shares(begin, end, max_bytes):
                limit = left if is_one_time else share
                # At least one of each, also where a damaged time made the part too long: one of them is the next.
                some, rest, problem = self._rows(number, wanted, max(1, rows - len(found)), limit, damaged)
                found += some
                times += itertools.accumulate([row[1] for row in some], max)  # what is damaged may have any time
                numbers += itertools.repeat(number, len(some))
                if is_one_time:
                    left -= sum([len(row[4]) for row in some])
                    error = problem
                    if rest or len(found) >= rows:
                        break
                elif rest:
                    time = max(self._time_at(number, rest.first) or 0, times[-1] if some else 0)
                    unread, error = min((unread, error), ((time, number), problem), key=operator.itemgetter(0))
            order = sorted(range(len(found)), key=times.__getitem__)  # stable: each partition stays in order
            if unread != FOREVER:
                order = [index for index in order if (times[index], numbers[index]) <= unread]
            chosen = [(numbers[index], found[index]) for index in order[:rows]]
            if chosen:
                return self._placed(begin, chosen)
            if error is not None:  # it is the next: what comes before it in the order was read
                number = error.partition or 0
                error.behind = self._remember((*begin[:number], error.last + 1, *begin[number + 1 :]))
                raise error
            begin = end  # nothing of it is kept
        return []

    def _rows(
        self, number: int, wanted: Span, rows: int, max_bytes: int, damaged: bool
    ) -> tuple[list[Row], Span, DamagedError | None]:
        """Rows of a partition, the part of the span that was not read, and why not if it is damaged."""
        found: list[Row] = []
        try:
            while wanted and len(found) < rows and max_bytes > 0:
                some = self.partitions[number].read(wanted, rows - len(found), max_bytes, None, damaged)
                if not some:
                    return found, Span(0, 0), None
                found += some
                wanted = Span(some[-1].stop, wanted.stop)
                max_bytes -= sum([len(row[4]) for row in some]) if wanted else 0
        except DamagedError as error:
            return found, wanted, error
        return found, wanted, None

    def _placed(self, start: Positions, rows: Iterable[tuple[int, Row]]) -> list[Row]:
        """Rows in their order with their places, of which `start` is the first.

        It is where what is kept begins, and not where the reader was: so a trim by time leaves all places as they are.
        """
        positions, place, placed = list(start), _place(start), list[Row]()
        new = tuple.__new__  # half the time of calling a named tuple
        for number, row in rows:
            offset, time, key, headers, value, count, skip, whole, _, _ = row
            place += offset - positions[number]
            placed.append(new(Row, (place, time, key, headers, value, count, skip, whole, number, place - offset)))
            place += count or 1
            positions[number] = offset + (count or 1)
        self._remember(tuple(positions))
        return placed

    def read_lines(self, span: Span, rows: int, max_bytes: int) -> Lines | None:
        readers = [topic for topic in self.partitions if isinstance(topic, ReadsLines)]
        if len(readers) < len(self.partitions):
            return None
        begin, stop = self._bounds(span)
        if begin == stop:
            return None
        end, is_one_time = self._part(begin, stop, rows)
        read, unread = dict[int, Lines](), FOREVER
        for number, wanted, share in _shares(begin, end, max_bytes):
            try:
                lines = readers[number].read_lines(wanted, rows, max_bytes if is_one_time else share)
            except DamagedError:  # `read` tells, when it is its turn
                lines = None
            if lines is not None:
                read[number] = lines
            if is_one_time:  # that partition comes first
                break
            rest = Span(wanted.first if lines is None else lines.stop, wanted.stop)
            if rest and self.partitions[number].count(rest):
                unread = min(unread, (self._time_at(number, rest.first) or 0, number))
        joined = interleave(read, begin, None if unread == FOREVER else unread) if read else None
        if joined is None or joined.runs is None:
            return None
        number, offset, _ = joined.runs[0]
        place = _place(begin) + offset - begin[number]  # what is missing there was trimmed
        stops = {run.partition: run.offset + run.messages for run in joined.runs}
        self._remember(tuple(stops.get(number, at) for number, at in enumerate(begin)))
        return joined._replace(offset=place)

    def _part(self, begin: Positions, stop: Positions, messages: int) -> tuple[Positions, bool]:
        """Where a read of at most `messages` messages ends; and True if all have one time, of which there are more.

        Each partition has a share of them, and the earliest of the times where these end is where the part ends.
        """
        if _place(stop) - _place(begin) <= messages:
            return stop, False
        shape, spare = tuple(map(operator.sub, stop, begin)), messages - len(begin)
        for turn in range(ROUNDS if spare > 0 else 0):
            length = sum(shape)
            goals = (first + 1 + part * spare // length for first, part in zip(begin, shape, strict=True))
            heads = self._heads(tuple(map(min, goals, stop)), stop)
            end = self._at(min(heads)[0], begin, stop) if heads else stop
            shape = tuple(map(operator.sub, end, begin))
            if not any(shape):
                break
            if 4 * sum(shape) >= messages or turn == ROUNDS - 1:
                return end, False
        heads = self._heads(begin, stop)
        if not heads:  # trimmed meanwhile
            return stop, False
        time = min(heads)[0]
        end = self._at(time + 1, begin, stop, [number for at, number in heads if at == time])
        return (stop, False) if end == begin else (end, True)  # damaged times

    # from places to positions and back

    def _kept(self) -> tuple[Positions, Positions]:
        """What is kept of each partition, at one moment."""
        kept = self._spans()
        if self._is_dense:
            return tuple(span.first for span in kept), tuple(span.stop for span in kept)
        begin = self._begins(kept)
        return begin, tuple(self._behind(number, span.stop) for number, span in enumerate(kept))

    def _spans(self) -> list[Span]:
        spans = self.log.spans(self.partitions)
        return [Span(max(first, at), max(stop, at)) for (first, stop), at in zip(spans, self._begin, strict=True)]

    def _begins(self, kept: Sequence[Span]) -> Positions:
        """Where the places begin: not where the first message came meanwhile, but behind what was trimmed."""
        before, floors = self._noted or (kept, [span.first for span in kept])
        seen, floors = list(before), list(floors)
        for number, (new, old) in enumerate(zip(kept, before, strict=True)):
            if new.first >= old.first and new.stop >= old.stop:
                if old and new.first > old.first:
                    floors[number] = new.first
                seen[number] = new
        self._noted = seen, floors
        return tuple(floors)

    def _behind(self, number: int, offset: int) -> int:
        """The offset behind the last message before one: where offsets have gaps, the same whatever is put there."""
        if self._is_dense:
            return offset
        first = max(self.partitions[number].span().first, self._begin[number])
        last = self.partitions[number].from_end(1, Span(first, offset))
        return Span.at(last).stop if first <= last < offset else self._begins(self._spans())[number]

    def _bounds(self, span: Span | None) -> tuple[Positions, Positions]:
        """Where what is kept of a span begins and ends in each partition."""
        span = self.span() if span is None else span
        begin, stop = self.positions(span.first), self.positions(span.stop)
        first, end = self._kept()
        stop = tuple(map(min, stop, end))
        return tuple(map(min, map(max, begin, first), stop)), stop

    def _remember(self, positions: Positions, place: int | None = None) -> int:
        """The place of positions, or one before it that has no message; reading from there starts at the positions."""
        place = _place(positions) if place is None else place
        self._remembered[place] = positions
        with contextlib.suppress(KeyError):  # another thread forgot it
            self._remembered.move_to_end(place)
        while len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)
        return place

    def _search(self, place: int, low: Positions, high: Positions) -> Positions:
        """The positions between two others that have a place between theirs."""
        for step in itertools.count():
            length, left = _place(high) - _place(low), place - _place(low)
            if left <= WALKED or left >= length:
                break
            share = length // 2 if step > INTERPOLATED and step % 2 else left
            goals = tuple(begin + (stop - begin) * share // length for begin, stop in zip(low, high, strict=True))
            largest = heapq.nlargest(SAMPLED, range(len(low)), key=lambda number: high[number] - low[number])
            times = [time for time, _ in self._heads(goals, high, largest)]
            if not times:
                return high
            time = sorted(times)[(len(times) - 1) // 2]
            found = self._at(time, low, high)
            if found == low:  # nothing is earlier: it continues behind what is of that time, or ends there
                found = self._at(time + 1, low, high)
                if _place(found) > place or found == low:
                    return _filled(low, high if found == low else found, left)
            if found == high:
                return _filled(low, high, left)
            low, high = (found, high) if _place(found) <= place else (low, found)
        return self._walked(low, high, left) if left < length else high

    def _walked(self, low: Positions, high: Positions, messages: int) -> Positions:
        """The positions that many places further on."""
        positions, heads = list(low), self._heads(low, high)
        heapq.heapify(heads)
        for _ in range(messages):
            if not heads:  # trimmed meanwhile
                return high
            number = heapq.heappop(heads)[1]
            positions[number] += 1
            for head in self._heads(positions, high, [number]):
                heapq.heappush(heads, head)
        return tuple(positions)

    def _heads(
        self, begin: Sequence[int], stop: Positions, numbers: Iterable[int] | None = None
    ) -> list[tuple[int, int]]:
        """The time of the first message in each partition, with its number: of those that have any."""
        found = list[tuple[int, int]]()
        for number in range(len(begin)) if numbers is None else numbers:
            time = self._time_at(number, begin[number]) if begin[number] < stop[number] else None
            if time is not None:
                found.append((time, number))
        return found

    def _time_at(self, number: int, offset: int) -> int | None:
        """The time of the first kept message at or after an offset of a partition; None if there is none."""
        topic = self.partitions[number]
        while (time := topic.time_at(offset)) is None:
            kept = topic.span()
            if kept.first <= offset or not kept:
                return None
            offset = kept.first
        return time

    def _at(self, time: int, low: Positions, high: Positions, numbers: Iterable[int] | None = None) -> Positions:
        """The positions between others before all messages from a time on; in some partitions, or in all."""
        found = list(low)
        for number in range(len(low)) if numbers is None else numbers:
            if low[number] < high[number]:
                found[number] = min(max(self._offset_at(number, time), low[number]), high[number])
        return tuple(found)

    def _offset_at(self, number: int, time: int) -> int:
        return self._behind(number, max(self.partitions[number].offset_at(time), self._begin[number]))

    def _count(self, begin: Positions, stop: Positions) -> int:
        spans = zip(self.partitions, map(Span, begin, stop), strict=True)
        return sum(topic.count(span) for topic, span in spans if span)


def merge(partitions: Sequence[TopicStore], begin: Sequence[int] | None = None) -> MessageSource:
    """The partitions of a topic as one source of messages, by the engine's own way if it has one."""
    log = partitions[0].log
    return log.merged(partitions, begin) if isinstance(log, MergesPartitions) else MergedPartitions(partitions, begin)


def _place(positions: Sequence[int]) -> int:
    return sum(positions) - len(positions) + 1


def _filled(low: Positions, high: Positions, messages: int) -> Positions:
    """The positions that many places further on, where the partitions follow each other."""
    found = list[int]()
    for begin, stop in zip(low, high, strict=True):
        found.append(min(begin + messages, stop))
        messages -= found[-1] - begin
    return tuple(found)


def _shares(begin: Positions, end: Positions, max_bytes: int) -> Iterator[tuple[int, Span, int]]:
    """For each partition with a part of what is read: its number, that part, and how many bytes it may have."""
    total = _place(end) - _place(begin)
    for number, (first, stop) in enumerate(zip(begin, end, strict=True)):
        if first < stop:
            yield number, Span(first, stop), max(1, max_bytes * (stop - first) // total)
