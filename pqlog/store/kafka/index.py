"""Index: how many messages lie where in a partition, as far as it was read.

Kafka does not say how many messages lie between two offsets: transactions, aborted ones and compaction leave gaps, and
a segment is one record. So every reading notes what it sees: runs of records that follow each other and have the same
number of messages, in stretches of the partition that were read without a gap.
"""

from __future__ import annotations

import bisect
import itertools
import threading
from array import array
from collections.abc import Iterator, Sequence

from pqlog.store.kafka.records import ROWS
from pqlog.store.values import Span

MOST_RUNS = 1_000_000
"""How many runs are kept, of 32 bytes each; then what lies far from what was read last is forgotten."""


class _Stretch:
    """A part of the partition of which all is known."""

    def __init__(self, first: int, stop: int) -> None:
        self.first, self.stop = first, stop
        """Record offsets."""
        self.starts, self.lengths, self.rows = array("q"), array("q"), array("q")
        """For each run: its first record, how many records it has, and how many messages each of them has."""
        self.before = array("q", [0])
        """How many messages lie before each run; at last, how many there are."""

    def add(self, start: int, length: int, rows: int) -> None:
        """Add a run behind the others."""
        if self.starts and self.rows[-1] == rows and self.starts[-1] + self.lengths[-1] == start:
            self.lengths[-1] += length
            self.before[-1] += length * rows
            return
        self.starts.append(start)
        self.lengths.append(length)
        self.rows.append(rows)
        self.before.append(self.before[-1] + length * rows)

    def extend(self, other: _Stretch) -> None:
        """Add what begins where it stops."""
        for run in zip(other.starts, other.lengths, other.rows, strict=True):
            self.add(*run)
        self.stop = other.stop

    def cut(self, keep: int) -> None:
        """Forget a quarter of the runs: at the end that is farther from a record offset."""
        runs = len(self.starts)
        if bisect.bisect_right(self.starts, keep) > runs // 2:
            kept = slice(runs // 4, runs)
            self.first = self.starts[kept.start]
        else:
            kept = slice(0, runs - runs // 4)
            self.stop = self.starts[kept.stop]
        before = self.before[kept.start]
        self.before = array("q", [count - before for count in self.before[kept.start : kept.stop + 1]])
        self.starts, self.lengths, self.rows = self.starts[kept], self.lengths[kept], self.rows[kept]

    def count(self, offset: int) -> int:
        """How many of its messages lie before an offset."""
        record, row = divmod(offset, ROWS)
        at = bisect.bisect_right(self.starts, record) - 1
        if at < 0:
            return 0
        behind = record - self.starts[at]
        if behind >= self.lengths[at]:
            return self.before[at + 1]
        return self.before[at] + behind * self.rows[at] + min(row, self.rows[at])

    def offset(self, number: int) -> int:
        """The offset of its message with that number, from 0."""
        at = bisect.bisect_right(self.before, number) - 1
        records, row = divmod(number - self.before[at], self.rows[at])
        return (self.starts[at] + records) * ROWS + row


class Index:
    """What is known of a partition; any thread may ask and add."""

    def __init__(self) -> None:
        self._stretches: list[_Stretch] = []
        """Ascending; none touches the next."""
        self._lock = threading.Lock()

    def add(self, first: int, stop: int, records: Sequence[int], rows: Sequence[int | None] | None) -> None:
        """Note that between two record offsets lie these records, with that many messages each; one each if None."""
        new = _Stretch(first, stop)
        if rows is None:
            for start, length in _runs(records):
                new.add(start, length, 1)
        else:
            for record, count in zip(records, rows, strict=True):
                new.add(record, 1, count or 1)
        with self._lock:
            self._insert(new)
            self._forget(first)

    def _insert(self, new: _Stretch) -> None:
        parts = list(self._missing(new.first, new.stop))
        if parts != [(new.first, new.stop)]:  # some of it is known: only what is not is added
            for part in parts:
                self._insert(_part(new, *part))
            return
        at = bisect.bisect_left(self._stretches, new.first, key=lambda known: known.stop)
        if at < len(self._stretches) and self._stretches[at].stop == new.first:
            self._stretches[at].extend(new)
        else:
            self._stretches.insert(at, new)
        if at + 1 < len(self._stretches) and self._stretches[at].stop == self._stretches[at + 1].first:
            self._stretches[at].extend(self._stretches.pop(at + 1))

    def _forget(self, keep: int) -> None:
        """Keep as much as is allowed, and what lies at a record offset in any case: somebody is asking for it."""
        while (runs := sum(len(known.starts) for known in self._stretches)) > MOST_RUNS and runs >= 4:
            if len(self._stretches) == 1:
                self._stretches[0].cut(keep)
            elif self._stretches[0].stop <= keep:
                self._stretches.pop(0)
            else:
                self._stretches.pop()

    def missing(self, first: int, stop: int) -> list[tuple[int, int]]:
        """The parts between two record offsets that were not read."""
        with self._lock:
            return list(self._missing(first, stop))

    def _missing(self, first: int, stop: int) -> Iterator[tuple[int, int]]:
        for known in list(self._within(first, stop)):
            if first < known.first:
                yield first, known.first
            first = known.stop
        if first < stop:
            yield first, stop

    def _within(self, first: int, stop: int) -> Iterator[_Stretch]:
        at = bisect.bisect_right(self._stretches, first, key=lambda known: known.stop)
        return itertools.takewhile(lambda known: known.first < stop, self._stretches[at:])

    def count(self, span: Span) -> int:
        """How many messages of a span are known."""
        first, stop = span.first // ROWS, -(-span.stop // ROWS)
        with self._lock:
            return sum(
                known.count(min(span.stop, known.stop * ROWS)) - known.count(max(span.first, known.first * ROWS))
                for known in self._within(first, stop)
            )

    def from_end(self, messages: int, span: Span) -> int:
        """The offset of a message counted from the end of a span of which all is known, and which has as many."""
        with self._lock:
            for known in reversed(list(self._within(span.first // ROWS, -(-span.stop // ROWS)))):
                behind = known.count(min(span.stop, known.stop * ROWS))
                here = behind - known.count(max(span.first, known.first * ROWS))
                if messages <= here:
                    return known.offset(behind - messages)
                messages -= here
        return span.first

    def first(self, offset: int) -> tuple[int | None, int]:
        """The offset of the first message at or after one, if it is known; else from which offset on it may be."""
        with self._lock:
            for known in self._within(offset // ROWS, offset // ROWS + 1):
                number = known.count(offset)
                if number < known.before[-1]:
                    return known.offset(number), offset
                return None, known.stop * ROWS
        return None, offset

    @property
    def is_known(self) -> bool:
        """Whether anything was read."""
        return any(known.stop > known.first for known in self._stretches)

    def density(self) -> float:
        """How many messages a record offset has, as far as is known."""
        with self._lock:
            records = sum(known.stop - known.first for known in self._stretches)
            messages = sum(known.before[-1] for known in self._stretches)
        return messages / records if records else 1.0


def _part(whole: _Stretch, first: int, stop: int) -> _Stretch:
    """The part of a stretch between two record offsets."""
    part = _Stretch(first, stop)
    for start, length, rows in zip(whole.starts, whole.lengths, whole.rows, strict=True):
        begin, end = max(start, first), min(start + length, stop)
        if begin < end:
            part.add(begin, end - begin, rows)
    return part


def _runs(records: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Records that follow each other: the first, and how many."""
    if not records:
        return
    if records[-1] - records[0] + 1 == len(records):  # offsets ascend: there is no gap
        yield records[0], len(records)
        return
    start = before = records[0]
    for record in itertools.islice(records, 1, None):
        if record != before + 1:
            yield start, before + 1 - start
            start = record
        before = record
    yield start, before + 1 - start
