"""Copier: one partition of a log into one of another, batch by batch, each exactly once.

How far it is lies where the messages go: a cursor, which is compared and set in the transaction that puts them. So a
batch is there with its cursor or not at all, and of two copiers at the same place one is told that it was late.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from pqlog import check, extras
from pqlog.codecs import UNDECODABLE, codec_for, is_safe
from pqlog.errors import (
    ArgumentError,
    CorruptLogError,
    CursorError,
    DecodeError,
    Error,
    MissingExtraError,
    StoreError,
    TooLargeError,
    UncertainError,
)
from pqlog.message import from_micros
from pqlog.partitioning import partition_of
from pqlog.store.api import IsAFile, PlacesKeys, ReadsForeignTopics, Store, TopicStore
from pqlog.store.values import Chunk, Cursor, Output, Row, Segment, Singles, Span, TopicInfo
from pqlog.stream import headers_of

ROWS, BYTES = 10_000, 8 << 20
"""How much goes in one transaction; one row may be larger."""
REST_S, LONGEST_REST_S = 0.1, 10.0
"""How long a copier lets another one work before it looks whether that gets on: in proportion to how long it takes."""
ELECTION_S, TICK_S = 3.0, 0.1
"""How long the end of a topic may lie before what was copied, and how often it is asked for."""
TIME, OFFSET, PARTITION = "pqlog-time", "pqlog-offset", "pqlog-partition"
"""The headers that say where a message was first. Dead letters have them too."""


_BEFORE_IT = "All before it was copied; the next copy begins with it"


@dataclass(frozen=True, slots=True)
class Choice:
    """Which messages of a partition are copied."""

    since: int | None = None
    """The first copy begins at this time (microseconds since 1970)."""
    start: int | None = None
    """The first copy begins at this offset; counted from the end if it is negative."""
    key: str | None = None


class Position(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a partition was copied: the value of its cursor."""

    next: int
    """The offset at which to read on."""
    into: int
    """The id of the first partition of the topic that it is copied into."""
    last: int | None = None
    """The offset of the last row that was copied, and its time."""
    time: int | None = None
    key: str | None = None
    """What was chosen: see `Choice`."""


def cursor_name(source: TopicStore) -> str:
    """The name of the cursor of a partition in any log that it is copied to."""
    return f"pqlog.copy/{source.log.uuid}/{source.info.id}/{source.info.partition}"


def position_of(target: Store, source: TopicStore) -> tuple[Position | None, str | None]:
    """How far a partition was copied to a log, and the text of that."""
    name = cursor_name(source)
    text = target.cursor(name)
    if text is None:
        return None, None
    try:
        return msgspec.json.decode(text, type=Position), text
    except UNDECODABLE as error:
        raise CorruptLogError(f"the cursor {name!r} of {target.name} is not a position: {error}") from error


class Copier:
    """Copies one partition.

    Parameters
    ----------
    source, into : TopicStore
    topic : int
        The id of the first partition of the topic that `into` is of.
    """

    def __init__(self, source: TopicStore, into: TopicStore, topic: int, choice: Choice) -> None:
        self.source, self.into = source, into
        self.trimmed = 0
        """How many messages were trimmed before they could be copied, as far as that is known."""
        self._topic, self._choice = topic, choice
        self._rows, self._bytes = ROWS, BYTES
        self._most = None if into.info.max_bytes is None else into.info.max_bytes * 9 // 10
        """Segments are cut into smaller ones than this: the target takes no larger ones, headers included."""
        self._told = 0
        self._rest_s, self._looks_at = REST_S, 0.0
        """How long it rests if another copier is at work here, and when it looks again; 0 if it is alone."""
        self._load()
        self._check_source()

    def _load(self) -> None:
        """Read how far it is."""
        position, self._text = position_of(self.into.log, self.source)
        if position is not None and position.into != self._topic:
            position = None  # that topic was deleted, with all that was copied
        if position is not None and position.key != self._choice.key:
            was, now = (_messages_with(key) for key in (position.key, self._choice.key))
            raise StoreError(
                f"{self._title}: {was} were copied to {self.into.log.name} before, and {now} are to be copied now: the "
                f"copy would have some messages twice, or not at all. Copy to another file, or choose the same again"
            )
        self._position = position
        self.at = self._begin() if position is None else position.next

    def _begin(self) -> int:
        kept = self.source.span()
        if self._choice.start is not None:
            start = self._choice.start
            return start if start >= 0 else self.source.from_end(-start, kept)
        return kept.first if self._choice.since is None else self.source.offset_at(self._choice.since)

    @property
    def _title(self) -> str:
        info = self.source.info
        return f"topic {info.name!r}" if info.number is None else f"partition {info.number} of topic {info.name!r}"

    def _check_source(self) -> None:
        """Raise if the source is an older state of itself, or another topic of the same name on a foreign cluster.

        Its offsets are then used again for other messages.
        """
        position = self._position
        if position is None:
            return
        # After an election the end of a topic may seem to lie further back for a moment.
        patience_s = 0.0 if isinstance(self.source.log, IsAFile) else ELECTION_S
        is_there = self.source.log.wait(lambda: self.source.span().stop >= position.next, patience_s, TICK_S)
        if is_there and position.last is not None and self.source.span().first <= position.last:
            is_there = self.source.time_at(position.last) == position.time
        if not is_there:
            raise StoreError(
                f"{self._title} in {self.source.log.name} does not have the messages that were copied from it before, "
                f"up to offset {position.next}: is it an older state, restored from a backup, or was the topic made "
                f"again? What is new in it cannot be told from what was copied. To copy all of a file again, make a "
                f"copy of it with log.backup(path), which is a log of its own; copy a new topic into another log"
            )

    def step(self) -> int | None:
        """Copy a batch; how many messages it had, or None if there was nothing to copy.

        It is 0 where another copier is at work, or a smaller batch has to be tried.
        """
        if self._is_another_at_work():
            return 0
        kept = self.source.span()
        first = max(self.at, kept.first)
        is_trimmed = self._position is not None and self._tell_trimmed(kept)
        rows, behind = self._read(Span(first, kept.stop))
        if not rows and not is_trimmed:
            self.at = max(self.at, behind)
            return None
        if not rows:
            self._put([], Position(max(first, behind), self._topic, key=self._choice.key))
            return 0
        position = Position(behind, self._topic, rows[-1].offset, rows[-1].time, self._choice.key)
        return self._put(rows, position)

    def _is_another_at_work(self) -> bool:
        """Whether this is left to another copier, which was faster: as long as it gets on.

        Two that take turns would be slower than one, most of all on a cluster.
        """
        if not self._looks_at:
            return False
        if time.monotonic() >= self._looks_at:
            before = self._text
            self._load()
            self._looks_at = 0.0 if self._text == before else time.monotonic() + self._rest_s
        return self._looks_at > 0

    def note(self) -> None:
        """Store how far it is, though no message was found that was chosen: the next copy begins there."""
        if self._choice == Choice() or self._looks_at:
            return
        position = self._position or Position(0, self._topic, key=self._choice.key)
        if position.next < self.at:
            self._put([], msgspec.structs.replace(position, next=self.at))

    def _read(self, span: Span) -> tuple[list[Row], int]:
        """Rows for a batch, and the offset behind what was looked at."""
        rows, size = list[Row](), 0
        while span and len(rows) < self._rows and size < self._bytes:
            try:
                page = self.source.read(span, self._rows - len(rows), self._bytes - size, self._choice.key)
            except Error:
                if rows:  # which are whole; the error comes again with the next batch
                    break
                raise
            rows += page
            size += sum(len(row.value) + len(row.headers or "") for row in page)
            span = Span(page[-1].stop if page else span.stop, span.stop)
        valid = self._valid(rows)
        return valid, span.first if len(valid) == len(rows) else valid[-1].stop

    def _put(self, rows: Sequence[Row], position: Position) -> int:
        try:
            chunks = list(self._chunks(rows))
        except DecodeError:
            if len(rows) == 1:
                raise
            self._rows = len(rows) // 2  # first what lies before
            return 0
        value = msgspec.json.encode(position).decode()
        cursor = Cursor(cursor_name(self.source), value, self._text or "null")
        began = time.monotonic()
        try:
            output = Output(self.into, chunks, is_placed=self._is_placed(rows))
            self.into.log.append([output], cursor=cursor)
        except CursorError:
            self._load()
            self._looks_at = time.monotonic() + self._rest_s
            return 0
        except UncertainError:
            self._load()
            if self._text != value:
                raise
        except TooLargeError as error:
            self._make_smaller(rows, error)
            return 0
        except ArgumentError as error:
            if len(rows) == 1:
                where, there = f"message {rows[0].offset} of {self._title}", self.into.log.name
                raise ArgumentError(f"{where} cannot be put into {there}: {error}. {_BEFORE_IT}") from error
            self._rows = len(rows) // 2
            return 0
        self._rest_s = min(max(self._rest_s, 3 * (time.monotonic() - began)), LONGEST_REST_S)
        self._position, self._text, self.at = position, value, position.next
        self._rows = min(ROWS, 2 * self._rows)
        return sum(chunk.rows if isinstance(chunk, Segment) else len(chunk.values) for chunk in chunks)

    def _is_placed(self, rows: Iterable[Row]) -> bool:
        """Whether the partition into which rows are copied is known to be that which their keys name.

        Other programs choose partitions by other rules; and a topic may have more partitions than that it is copied
        from.
        """
        source, into = self.source, self.into.info
        if into.partitions == 1:
            return True
        if source.info.partitions == into.partitions and isinstance(source.log, PlacesKeys):
            return source.log.places_keys(source) or all(_is_of(row, into) for row in rows)
        return all(_is_of(row, into) for row in rows)

    def _make_smaller(self, rows: Sequence[Row], error: TooLargeError) -> None:
        """Try less at a time; raise if it is one message that is too large."""
        if len(rows) > 1:
            self._rows = len(rows) // 2
            return
        (row,) = rows
        pieces = [(piece, len(value)) for piece, value in self._pieces(row)]
        if all(piece.rows in (None, 1) for piece, _ in pieces):
            where = f"message {row.offset} of {self._title}"
            raise TooLargeError(
                f"{where} has {max(size for _, size in pieces):,} bytes, more than {self.into.log.name} takes: "
                f"{error}. {_BEFORE_IT}"
            ) from error
        self._most = max(1, max(size for _, size in pieces) // 2)

    def _tell_trimmed(self, kept: Span) -> bool:
        """Warn if messages were trimmed that were not copied yet."""
        position = self._position
        if position is None or kept.first <= self.at:
            return False
        if self.source.log.capabilities.dense_offsets:
            number: int | None = len(range(self.at, kept.first))
        elif position.last is not None and kept.first > position.last:
            number = None  # or there is only a gap between what was copied and what is kept
        else:
            return False
        if kept.first > self._told:
            self._told = kept.first
            self.trimmed += number or 0
            what = "messages" if number is None else f"{number:,} message{'s' * (number != 1)}"
            may = "may have been" if number is None else "was" if number == 1 else "were"
            check.warn(
                f"{what} of {self._title} {may} trimmed before {'it' if number == 1 else 'they'} could be copied to "
                f"{self.into.log.name}: it goes on from offset {kept.first} instead of {self.at}"
            )
        return True

    # rows as chunks

    def _valid(self, rows: list[Row]) -> list[Row]:
        """The first rows that are what the codec says; raises if there is none.

        Topics of other programs may hold anything, and nobody could read a copy of that. Pickles are never read.
        """
        codec = self.source.info.codec
        if not isinstance(self.source.log, ReadsForeignTopics) or not is_safe(codec):
            return rows
        decode = codec_for(codec).decode
        for index, row in enumerate(rows):
            try:
                if row.rows is None:
                    decode(row.value)
                else:
                    extras.frames.check(row, self.source.info.name)
            except (DecodeError, MissingExtraError):
                if index:
                    return rows[:index]
                raise
            except Exception as error:
                if index:
                    return rows[:index]
                raise ArgumentError(
                    f"message {row.offset} of {self._title} is not {codec}: {error}. All before it was copied. Copy "
                    f'the topic into another file, and say what its values are, as in codec="bytes"'
                ) from error
        return rows

    def _chunks(self, rows: Iterable[Row]) -> Iterator[Chunk]:
        origins = _Origins(self._title, self.source)
        for is_segment, some in itertools.groupby(rows, key=lambda row: row.rows is not None):
            if is_segment:
                for row in some:
                    yield from self._segments(row, origins)
            else:
                run = list(some)
                keys = [row.key for row in run]
                has_keys = keys.count(None) < len(keys)
                yield Singles([row.value for row in run], keys if has_keys else None, list(map(origins.headers, run)))

    def _segments(self, row: Row, origins: _Origins) -> Iterator[Segment]:
        for piece, value in self._pieces(row):
            yield Segment(value, piece.rows or 1, piece.key, origins.headers(piece))

    def _pieces(self, row: Row) -> Iterator[tuple[Row, bytes]]:
        """A row as it is put: as it is, or of a segment the part that is kept, or has the key, or is small enough."""
        if row.rows is None:
            yield row, row.value
            return
        if self._choice.key is not None:
            found = extras.frames.with_key(row, self.source.info.name, self._choice.key)
            if found is None:
                return
            row = found
        if self._most is not None and len(row.value) > self._most:
            yield from self._halves(row)
            return
        yield row, row.value if row.is_whole else extras.frames.cut(row, self.source.info.name, in_frame=True)

    def _halves(self, row: Row) -> Iterator[tuple[Row, bytes]]:
        assert row.rows is not None
        assert self._most is not None
        value = row.value if row.is_whole else extras.frames.cut(row, self.source.info.name, in_frame=True)
        if len(value) <= self._most or row.rows == 1:
            yield row, value
            return
        half = row.rows // 2
        yield from self._halves(row._replace(rows=half))
        yield from self._halves(row._replace(offset=row.offset + half, rows=row.rows - half, skip=row.skip + half))


def _is_of(row: Row, partition: TopicInfo) -> bool:
    """Whether the key of a row names a partition, as far as that can be told without reading a segment."""
    if row.key is None:
        return True
    return row.rows is None and partition_of(row.key, partition.partitions) == partition.partition


def _messages_with(key: str | None) -> str:
    return "all its messages" if key is None else f"the messages with the key {key!r}"


class _Head(NamedTuple):
    """The text of headers up to the offset, and behind it; all of it and None where the offset is not written."""

    before: str
    behind: str | None


class _Origins:
    """Writes into headers where their messages were first; those that say so already stay as they are."""

    def __init__(self, title: str, source: TopicStore) -> None:
        self._title, self._info = title, source.info
        self._last: tuple[str | None, int] | None = None
        self._head = _Head("", None)

    def headers(self, row: Row) -> str:
        """The headers of the copy of a row."""
        if self._last != (row.headers, row.time):
            self._last, self._head = (row.headers, row.time), self._head_of(row)
        before, behind = self._head
        return before if behind is None else f"{before}{row.offset}{behind}"

    def _head_of(self, row: Row) -> _Head:
        try:
            headers = headers_of(row)
            when = from_micros(row.time).isoformat()
        except (CorruptLogError, *UNDECODABLE) as error:
            reason = f"its time or headers are not valid: {error}"
            raise DecodeError(self._info.name, row.offset, reason, self._info.number) from error
        if TIME in headers or OFFSET in headers:
            return _Head(row.headers or "{}", None)
        headers[TIME] = when
        if self._info.number is not None:
            headers[PARTITION] = str(self._info.number)
        return _Head(msgspec.json.encode(headers).decode()[:-1] + f',"{OFFSET}":"', '"}')
