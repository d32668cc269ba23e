"""Matching: which messages of what was read a predicate is true of, and where in a topic there can be any."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pqlog import check, fields
from pqlog.frames.block_parser import BlockParser
from pqlog.frames.chunks import Chunk
from pqlog.frames.conditions import Bounds, Field
from pqlog.frames.places import nearby
from pqlog.frames.prefetch import FIRST_READ_ROWS, Part, numbered, split_segments
from pqlog.frames.projection import Projection
from pqlog.message import Message, from_micros
from pqlog.store.api import HasAnyTimes, HasStatistics
from pqlog.store.sealed import SealedPart
from pqlog.store.values import Lines, Row, SegmentStatistics, Span
from pqlog.stream import CHUNK_BYTES, CHUNK_ROWS, Selection, TopicStream

LOOK = 1_000
"""Of how many messages the fields are suggested in place of one that no message has."""
OFFSET, TIME = Field(("offset",), is_metadata=True), Field(("_time",), is_metadata=True)


class Where(Protocol):
    """A predicate of a history."""

    @property
    def text(self) -> str:
        """What people are shown."""
        ...

    @property
    def identity(self) -> str:
        """The same only for predicates that are true of the same messages, in every process."""
        ...

    def matcher(self, selection: Selection) -> Matcher:
        """What finds its messages in a range."""
        ...


@dataclass(frozen=True, slots=True)
class Matcher:
    """Finds the messages of a topic that a predicate is true of.

    Attributes
    ----------
    stream : TopicStream
    projection : Projection
        The columns that the predicate needs.
    mixed : frozenset of str
        Those of their fields whose values must each stay as they are.
    evaluate : callable
        For each message of a chunk whether the predicate is true: a boolean array, null for unknown.
    may_match : callable
        Whether the predicate may be true of a message, given what is known of columns.
    fields : frozenset of Field
        The columns that the predicate is about.
    unseen : set of str
        Those of its fields that no message had so far of which something was read.
    """

    stream: TopicStream
    projection: Projection
    mixed: frozenset[str]
    evaluate: Callable[[Chunk], pa.Array]
    may_match: Callable[[Mapping[Field, Bounds]], bool]
    fields: frozenset[Field]
    unseen: set[str] = field(default_factory=set)

    def mask(self, part: Part) -> Any:
        """For each message of a part whether it matches."""
        parser = BlockParser(
            self.stream,
            self.projection.source_fields,
            self.projection.top_level(self.mixed),
            headers=self.projection.has_headers,
            metadata={of.path[0] for of in self.fields},
        )
        masks = []
        for chunk in parser.parse([part] if isinstance(part, Row) else part):
            self._see(chunk.fields)
            with chunk.as_decode_errors():
                masks.append(pc.fill_null(self.evaluate(chunk), False).to_numpy(zero_copy_only=False))
        return np.concatenate(masks) if masks else np.zeros(0, bool)

    def _see(self, table: pa.Table) -> None:
        for name in self.unseen.intersection(table.schema.names):
            column = table.column(name)
            if column.null_count < len(column):
                self.unseen.discard(name)

    def warn(self, span: Span) -> None:
        """At the end of a reading: warn of a field that looks misspelt, since no message had it."""
        if self.unseen:
            rows = self.stream.rows(span)
            values = (message.value for message in itertools.islice(self.stream.messages(rows), LOOK))
            unknown = fields.unknown(self.unseen, values, fields.columns)
            if unknown is not None and unknown.near:
                check.warn(f"where: {unknown.said}")

    def of_columns(self, part: Part) -> Any:
        """The same for messages that are kept in columns; others may all match."""
        if isinstance(part, Row | SealedPart):
            return self.mask(part)
        return np.ones(part.rows if isinstance(part, Lines) else len(part), bool)

    def offsets(self, rows: Sequence[Row]) -> set[int]:
        """The offsets, or places, of those messages of rows that match."""
        found = set[int]()
        for part in split_segments(numbered(self.stream, rows)):
            if isinstance(part, Row):
                found.update(np.arange(part.offset, part.stop)[self.mask(part)].tolist())
            else:
                found.update(part[index].offset for index in np.flatnonzero(self.mask(part)).tolist())
        return found

    def spans(self, span: Span) -> list[Span]:
        """The parts of a span outside of which no message can match, ascending."""
        span = self._narrowed(span)
        store = self.stream.store
        if not span or not isinstance(store, HasStatistics) or not self.fields:
            return [span] if span else []
        parts, first = [], span.first
        for segment in store.statistics(span):
            if not self.may_match(self._known(segment)):
                parts.append(Span(first, segment.span.first))
                first = segment.span.stop
        parts.append(Span(first, span.stop))
        return [part for part in parts if part]

    def _known(self, segment: SegmentStatistics) -> dict[Field, Bounds]:
        """What is known of the messages of a segment in the columns that matter."""
        known = dict[Field, Bounds]()
        for of in self.fields:
            name = of.path[0]
            if of.is_metadata:
                if of == OFFSET and not self.stream.is_merged:
                    known[of] = Bounds(segment.span.first, segment.span.last, has_nulls=False)
                elif of == TIME:
                    least, most = map(from_micros, segment.times)
                    known[of] = Bounds(least, most, has_nulls=False)
                elif name == "_key":
                    known[of] = Bounds(None, None, contains=segment.may_have_key)
            elif segment.columns is not None and len(of.path) == 1:
                column = segment.columns.get(name)
                if column is None:
                    known[of] = Bounds(None, None, has_values=False)
                else:
                    self.unseen.discard(name)
                    known[of] = Bounds(column.least, column.most, has_nulls=column.nulls + column.absent > 0)
        return known

    def _narrowed(self, span: Span) -> Span:
        """The part of a span outside of which no message can match, by offset, and by time if that only ascends."""
        if not span or not self.may_match({}):
            return Span(span.first, span.first)
        store = self.stream.store
        if OFFSET in self.fields and not self.stream.is_merged:
            span = Span(*self._between(OFFSET, range(span.first, span.stop), int))
        has_any_times = any(isinstance(partition, HasAnyTimes) for partition in self.stream.partitions)
        if TIME in self.fields and span and not has_any_times:
            low, high = store.time_at(span.first), store.time_at(store.from_end(1, span))
            if low is not None and high is not None and low <= high:
                begin, end = self._between(TIME, range(low, high + 1), from_micros)
                first = span.first if begin <= low else max(span.first, store.offset_at(begin))
                span = Span(first, span.stop if end > high else max(first, min(span.stop, store.offset_at(end))))
        return span

    def _between(self, column: Field, numbers: range, value: Callable[[int], Any]) -> tuple[int, int]:
        """The part of the numbers that a column may have outside of which the predicate cannot be true."""
        low, high = numbers[0], numbers[-1]

        def may(least: int, most: int) -> bool:
            return self.may_match({column: Bounds(value(least), value(most), has_nulls=False)})

        if not may(low, high):
            return low, low
        begin = bisect.bisect_left(numbers, True, key=lambda number: may(low, number))
        end = bisect.bisect_left(numbers, True, key=lambda number: not may(number, high))
        return numbers[begin], numbers[0] + end


def matcher_of(selection: Selection) -> Matcher | None:
    """What finds the messages of a selection that its predicate is true of; None if it has none."""
    where: Any = selection.where
    return None if where is None else where.matcher(selection)


def matching_rows(selection: Selection) -> Iterator[tuple[Sequence[Row], set[int]]]:
    """The rows of a selection with a predicate, and the offsets of those of their messages that match."""
    matcher = matcher_of(selection)
    assert matcher is not None
    for span in matcher.spans(selection.span):
        yield from _rows_within(selection, matcher, span)
    matcher.warn(selection.span)


def _rows_within(selection: Selection, matcher: Matcher, span: Span) -> Iterator[tuple[Sequence[Row], set[int]]]:
    stream, limit = selection.topic, FIRST_READ_ROWS
    is_plain = selection.key is None and not matcher.projection.has_headers and stream.number is None
    while span:
        sealed = stream.sealed(span) if is_plain else None
        if sealed is not None:  # only those that match are made of the columns
            offsets = np.arange(sealed.offset, sealed.stop)[matcher.mask(sealed)]
            for group in nearby(stream, offsets):
                for rows in stream.reads(Span.through(group[0], group[-1])):
                    yield rows, set(group)
            span = Span(sealed.stop, span.stop)
            continue
        found = stream.read(span, limit, CHUNK_BYTES, selection.key)
        if not found:
            return
        yield found, matcher.offsets(found)
        span, limit = Span(found[-1].stop, span.stop), min(2 * limit, CHUNK_ROWS)


def messages_backwards(selection: Selection) -> Iterator[Message]:
    """The messages of a selection with a predicate, the newest first."""
    matcher = matcher_of(selection)
    assert matcher is not None
    for span in reversed(matcher.spans(selection.span)):
        yield from selection.topic.backwards(span, selection.key, choose=matcher.offsets)
