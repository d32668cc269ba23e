"""History: a lazy range of a topic. Nothing is read before it is asked for."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

from pqlog import check, extras
from pqlog.errors import ArgumentError, Error, OffsetError, PartitionsError, TrimmedError, UncountedError
from pqlog.message import Message, to_micros
from pqlog.readable import Readable
from pqlog.store.api import ClientStore, MessageSource, Surveys
from pqlog.store.values import Span
from pqlog.stream import CHUNK_BYTES, Selection, TopicStream

if TYPE_CHECKING:
    import polars as polars
    import pyarrow.compute

Where: TypeAlias = "str | polars.Expr | pyarrow.compute.Expression"
"""A predicate: text in SQL's grammar, or an expression."""
Time = datetime | date | str | timedelta
"""A time, or how long ago: a datetime or date (naive: UTC), ISO text, a timedelta, or text such as ``"1h"``."""

_AGO = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(us|ms|s|min|m|h|d|w)\s*")
_UNIT = {
    "us": timedelta(microseconds=1),
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "min": timedelta(minutes=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}


def micros_of(when: Time, now: datetime | None = None) -> int:
    """A point in time in microseconds since 1970.

    Parameters
    ----------
    when : datetime, date, str or timedelta
        A naive time is UTC; a timedelta, or text such as ``"90s"``, ``"1h"``, ``"2d"``, is that long ago.
    now : datetime, optional
        What "ago" counts from; the present if not given.

    Raises
    ------
    ArgumentError
        The text is not a valid time.
    """
    if isinstance(when, str):
        ago = _AGO.fullmatch(when)
        try:
            when = float(ago[1]) * _UNIT[ago[2]] if ago else datetime.fromisoformat(when)
        except (ValueError, OverflowError):
            raise ArgumentError(
                f"{when!r} is not a valid time: write ISO 8601, or how long ago, as in "
                f'"30s", "5min", "1.5h", "2d" or "1w"'
            ) from None
    if isinstance(when, timedelta):
        try:
            when = (now or datetime.now(UTC)) - when
        except OverflowError:
            raise ArgumentError(f"{when!r} ago is before the year 1") from None
    if isinstance(when, date) and not isinstance(when, datetime):
        when = datetime.combine(when, time())
    if not isinstance(when, datetime):
        raise ArgumentError(f"a time must be a datetime, a date, a timedelta or text, not {when!r}")
    return to_micros(when)


def offset_of(topic: MessageSource, at: int | Time, expected: str) -> int:
    """The offset that an offset (negative: counted from the end) or a time stands for; it need not be kept.

    If it is neither, the error says what was `expected`.
    """
    if isinstance(at, int) and not isinstance(at, bool):
        return check.bounded(at) if at >= 0 else topic.from_end(-at)
    return topic.offset_at(time_of(at, expected))


def time_of(at: Any, expected: str) -> int:
    """A time in microseconds since 1970; if it is none, the error says what was `expected`."""
    try:
        return micros_of(at)
    except ArgumentError as error:
        raise ArgumentError(f"{expected}: {error}") from None


class History(Readable):
    """A lazy range of a topic: iterate over its messages, or take it as a frame.

    Created by ``log.history(...)`` and ``log[a:b]``. Its bounds are looked up at each reading, so a history with an
    open end grows with the topic.

    Examples
    --------
    >>> import pqlog
    >>> log = pqlog.open(":memory:")
    >>> log.put_many(list("abcde"))
    Put(first=1, last=5, messages=5)
    >>> [message.value for message in log[-2:]]
    ['d', 'e']
    >>> len(log[2:4])
    2
    """

    def __init__(
        self,
        stream: TopicStream,
        *,
        start: int | None = None,
        stop: int | None = None,
        since: Time | None = None,
        until: Time | None = None,
        key: str | None = None,
        where: Where | None = None,
        clients: Sequence[ClientStore] = (),
    ) -> None:
        for name, offset in (("start", start), ("stop", stop)):
            if offset is not None and (not isinstance(offset, int) or isinstance(offset, bool)):
                raise ArgumentError(
                    f"{name} must be an offset, an int, not {offset!r}; for times there are since= and until="
                )
            if offset is not None and stream.is_merged:
                instead = (
                    f"The newest of all: tail({-offset})" if (name, stop) == ("start", None) and offset < 0 else ""
                )
                raise PartitionsError.by_offset(stream.name, len(stream.partitions), f"{name}={offset}", instead)
        if key is not None and not isinstance(key, str):
            raise ArgumentError(f"key must be a str, not {key!r}")
        self._key = None if key is None else check.text("key", key)
        self._stream = stream
        self._clients = clients
        """If given, one for each partition: the history is what they have not acknowledged."""
        self._start = None if start is None else check.bounded(start)
        self._stop = None if stop is None else check.bounded(stop)
        self._latest: str | None = None
        self._where = None if where is None else extras.predicates.where_of(where)
        now = datetime.now(UTC)
        self._since = None if since is None else micros_of(since, now)
        self._until = None if until is None else micros_of(until, now)

    def _selection(self) -> Selection:
        stream = self._stream
        if self._key is not None and stream.is_merged and stream.places_keys():
            selection = self._selected(stream.of_key(self._key))
            if stream.places_keys():  # still, of all that was put by now
                return selection
        return self._selected(stream)

    def _selected(self, stream: TopicStream) -> Selection:
        """What is read of a topic, or of a partition of it."""
        if not self._clients:
            stream = stream.for_one_reading().within(self._since, self._until)
            return self._of(stream, self._span(stream.store))
        states = self._stream.log.states(self._clients)
        if len(states) > 1:
            stream = self._stream.beginning([0 if state is None else state.position for state in states])
            return self._of(stream, stream.store.span())
        span = self._stream.store.span() if states[0] is None else states[0].unread
        return self._of(self._stream, span)

    def _of(self, stream: TopicStream, span: Span) -> Selection:
        return Selection(stream, span, self._key, self._latest, self._where)

    def _span(self, topic: MessageSource) -> Span:
        first, stop = kept = topic.span()  # all is counted from one end, though somebody may put meanwhile
        starts = [first] + [_offset(topic, offset, kept) for offset in (self._start,) if offset is not None]
        stops = [stop] + [_offset(topic, offset, kept) for offset in (self._stop,) if offset is not None]
        if self._since is not None:
            starts.append(topic.offset_at(self._since))
        if self._until is not None:
            stops.append(topic.offset_at(self._until))
        first = max(starts)
        return Span(first, max(first, min(stops)))

    def latest(self, by: str = "key") -> History:
        """The last message of each key: the table that a changelog describes, as it was at the history's end.

        Parameters
        ----------
        by : str
            ``"key"`` for the messages' key, or the name of a field of their values, which are the same if they are of
            one type and equal: 1, 1.0, True and "1" are four. Messages without one are left out; if none has such a
            field, reading raises `ArgumentError`.

        Returns
        -------
        History
            Which messages these are is found out at each reading.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> for name, price in [("tea", 3), ("rum", 9), ("tea", 4)]:
        ...     _ = log.put({"price": price}, key=name)
        >>> [(message.key, message.value["price"]) for message in log.history().latest()]
        [('rum', 9), ('tea', 4)]
        >>> [message.value["price"] for message in log[:3].latest()]      # as it was
        [3, 9]
        """
        if not isinstance(by, str):
            raise ArgumentError(f'by must be "key" or the name of a field, not {by!r}')
        history = copy.copy(self)
        history._latest = by
        return history

    def __iter__(self) -> Iterator[Message]:
        selection = self._selection()
        topic = selection.topic
        if selection.latest is not None:
            return self._chosen(selection)
        if selection.where is not None:
            return self._matching(selection)
        return topic.messages(topic.rows(selection.span, selection.key), selection.key)

    def _matching(self, selection: Selection) -> Iterator[Message]:
        for rows, offsets in extras.matching.matching_rows(selection):
            yield from selection.topic.messages(rows, selection.key, at=offsets)

    def _chosen(self, selection: Selection) -> Iterator[Message]:
        for offsets in extras.frames.latest_groups(selection):
            rows = selection.topic.rows(Span.through(offsets[0], offsets[-1]))
            yield from selection.topic.messages(rows, at=set(offsets))

    def __reversed__(self) -> Iterator[Message]:
        """The messages, the newest first."""
        selection = self._selection()
        if selection.latest is not None:
            return self._chosen_backwards(selection)
        if selection.where is not None:
            return extras.matching.messages_backwards(selection)
        return selection.topic.backwards(selection.span, selection.key)

    def _chosen_backwards(self, selection: Selection) -> Iterator[Message]:
        for offsets in reversed(list(extras.frames.latest_groups(selection))):
            yield from selection.topic.backwards(Span.through(offsets[0], offsets[-1]), at=set(offsets))

    def __len__(self) -> int:
        """How many messages it has, where that is known without reading them: not of a key, a predicate or the latest.

        `count` counts any.
        """
        selection = self._selection()
        if selection.is_whole:
            return selection.total()
        raise UncountedError(
            "how many messages a history of a key, of a predicate, or of the latest, has is known only when they were "
            "read: history.count() reads and counts them, and a list or a frame of it has a length"
        )

    def count(self) -> int:
        """How many messages it has; of a key, a predicate or the latest, what decides about them is read.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many({"n": n} for n in range(100))
        Put(first=1, last=100, messages=100)
        >>> log.history(where="n >= 97").count()
        3
        """
        selection = self._selection()
        return selection.total() if selection.is_whole else extras.frames.count(selection)

    def __bool__(self) -> bool:
        """Whether it has any message; no more than the first is read."""
        selection = self._selection()
        if selection.is_whole:
            return selection.total() > 0
        return any(True for _ in self)

    def values(self) -> Iterator[Any]:
        """The values alone: faster than iterating over messages.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many(list("abc"))
        Put(first=1, last=3, messages=3)
        >>> list(log[2:].values())
        ['b', 'c']
        """
        selection = self._selection()
        if selection.is_whole:
            return selection.topic.values(selection.span)
        return (message.value for message in self)

    def _repr_html_(self) -> str:
        return extras.views.or_reason(extras.views.history_view, self)

    def __repr__(self) -> str:
        only = "" if self._key is None else f", key={self._key!r}"
        only += "" if self._latest is None else f", the latest by {self._latest}"
        only += "" if self._where is None else f", where {self._where.text}"
        try:
            topic, span, *_ = self._selection()
            if topic.is_merged:
                count = topic.store.count(span)
                return (
                    f"<pqlog.History of {topic.name!r}: {count:,} messages in {len(topic.partitions)} partitions{only}>"
                )
        except Error as error:
            return f"<pqlog.History of {self._stream.name!r}{only}: {error}>"
        where = "" if topic.number is None else f", partition {topic.number}"
        return f"<pqlog.History of {topic.name!r}{where}: offsets {span.first:,} up to {span.stop:,}{only}>"


def _offset(topic: MessageSource, offset: int, kept: Span) -> int:
    return offset if offset >= 0 else topic.from_end(-offset, kept)


def timeline(topic: MessageSource, span: Span, bins: int) -> tuple[list[int], list[int]]:
    """How many messages of a span were put when: `bins` + 1 times in microseconds, and the counts in between.

    Bounded work however long the span is: a search by bisection for each of the times.
    """
    earliest, latest = topic.time_at(span.first), topic.time_at(topic.from_end(1, span))
    if earliest is None or latest is None:
        return [], []
    width = max(1, -(-(latest - earliest + 1) // bins))
    times = [earliest + width * index for index in range(bins + 1)]
    if isinstance(topic, Surveys):
        return [*times[:-1], latest], topic.survey(span, times[1:-1])
    offsets = [span.first, *(topic.offset_at(time) for time in times[1:-1]), span.stop]
    offsets = [min(max(offset, span.first), span.stop) for offset in offsets]
    times[-1] = latest
    return times, [topic.count(Span(*bounds)) for bounds in itertools.pairwise(offsets)]


def message_at(topic: TopicStream, offset: int) -> Message:
    """The message at an offset; a negative one counts from the end."""
    kept = topic.store.span()
    at = check.bounded(offset)
    if offset < 0:
        at = topic.store.from_end(-offset, kept)
        if topic.store.count(Span(at, kept.stop)) != -offset:
            raise OffsetError(f"topic {topic.name!r} has only {topic.store.count(kept):,} messages")
    if 0 < at < kept.first and topic.store.log.capabilities.dense_offsets:
        raise TrimmedError(at, kept.first, topic.store.info.number)
    for message in topic.messages(topic.store.read(Span.at(at), 1, CHUNK_BYTES)):
        return message
    have = f"{kept.first} to {topic.store.from_end(1, kept)}" if kept else "none"
    hint = "" if offset else ". Offsets count from 1: what counts from 0, random.choice for one, takes list(log)"
    raise OffsetError(f"topic {topic.name!r} has no message at offset {_shown(offset)}: it keeps {have}{hint}")


def _shown(offset: int) -> str:
    """A number that Python may refuse to print."""
    return str(offset) if abs(offset) <= check.LARGEST else "beyond 2**62"
