"""History: a lazy range of a topic. Nothing is read before it is asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from pqlog import extras
from pqlog.codecs import Codec, Json
from pqlog.errors import ArgumentError, DecodeError, Error, OffsetError, PickleRefusedError, TrimmedError
from pqlog.message import Message, from_micros, to_micros
from pqlog.store.api import Engine, Row, Span, TopicInfo

if TYPE_CHECKING:
    import pandas
    import pyarrow

CHUNK_ROWS = 4_096
CHUNK_BYTES = 16 << 20
"""How much is read at a time; one row may be larger."""

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
        The text is no time.
    """
    if isinstance(when, str):
        ago = _AGO.fullmatch(when)
        if ago:
            when = float(ago[1]) * _UNIT[ago[2]]
        else:
            try:
                when = datetime.fromisoformat(when)
            except ValueError:
                raise ArgumentError(f'{when!r} is no time: write ISO 8601, or how long ago, as in "1h"') from None
    if isinstance(when, timedelta):
        when = (now or datetime.now(UTC)) - when
    if isinstance(when, date) and not isinstance(when, datetime):
        when = datetime.combine(when, time())
    if not isinstance(when, datetime):
        raise ArgumentError(f"a time is a datetime, a date, a timedelta or text, not {when!r}")
    return to_micros(when)


@dataclass(frozen=True, slots=True)
class Source:
    """A topic to read from: the engine, and what its bytes mean."""

    engine: Engine
    topic: TopicInfo
    codec: Codec | None
    """None for a pickle topic that was opened without asking for pickle, and for an unknown codec."""

    def rows(self, span: Span, key: str | None = None) -> Iterator[Row]:
        """The rows of a span, read in chunks; no statement is open while the caller works."""
        while len(span):
            chunk = self.engine.read(self.topic, span, CHUNK_ROWS, CHUNK_BYTES, key)
            if not chunk:
                return
            yield from chunk
            span = Span(stop_of(chunk[-1]), span.stop)

    def messages(self, rows: Iterable[Row], key: str | None = None) -> Iterator[Message]:
        """The messages of rows, decoded; of segments only those with `key`."""
        for row in rows:
            when = from_micros(row.time)
            headers = {} if row.headers is None else {"headers": msgspec.json.decode(row.headers, type=dict[str, str])}
            if row.rows is None:
                yield Message(row.offset, when, self._decode(row), row.key, **headers)
            else:
                keys, values = extras.load("frames").unpack(row, self.topic.name)
                for index, value in enumerate(values):
                    of = keys[index] if keys is not None else None
                    if key is None or of == key:
                        yield Message(row.offset + index, when, value, of, **headers)

    def values(self, span: Span) -> Iterator[Any]:
        """The values of a span, decoded many at a time where the codec can."""
        while len(span):
            stop, values = self._next_values(span)
            if stop is None:
                return
            yield from values
            span = Span(stop, span.stop)

    def _next_values(self, span: Span) -> tuple[int | None, Iterable[Any]]:
        lines = None
        if isinstance(self.codec, Json):
            lines = self.engine.read_lines(self.topic, span, CHUNK_ROWS, CHUNK_BYTES)
        if lines is not None and isinstance(self.codec, Json):
            try:
                values = self.codec.decode_lines(lines.values)
            except (msgspec.MsgspecError, ValueError):
                values = []  # one by one, to say which it was
            if len(values) == lines.rows:
                return lines.offset + lines.rows, values
        rows = self.engine.read(self.topic, span, CHUNK_ROWS, CHUNK_BYTES)
        if not rows:
            return None, []
        return stop_of(rows[-1]), (message.value for message in self.messages(rows))

    def _decode(self, row: Row) -> Any:
        name = self.topic.codec
        if self.codec is None:
            if name == "pickle":
                raise PickleRefusedError(
                    self.topic.name,
                    row.offset,
                    'it is a pickle, and reading one can run any code; if you trust the file, ask for codec="pickle"',
                )
            raise DecodeError(self.topic.name, row.offset, f"its codec {name!r} is unknown here: pass it as codec=")
        try:
            return self.codec.decode(row.value)
        except Error:
            raise
        except Exception as error:  # a codec of the user's may raise anything
            raise DecodeError(self.topic.name, row.offset, f"{type(error).__name__}: {error}") from error


def stop_of(row: Row) -> int:
    """The offset behind a row."""
    return row.offset + (row.rows or 1)


class Readable:
    """What histories, batches and logs have in common: a stretch of a topic, as a table."""

    def _extent(self) -> tuple[Source, Span, str | None]:
        """The source, the offsets as they are now, and the only key, if there is one."""
        raise NotImplementedError

    def to_arrow(self) -> pyarrow.Table:
        """The messages as an Arrow table.

        Returns
        -------
        pyarrow.Table
            ``offset`` (int64), ``_time`` (timestamp[us, UTC]), ``_key`` (string, if any message has one), then the
            fields of the values; values that are not objects are in ``value``.

        Raises
        ------
        MissingExtraError
            pyarrow is not installed.
        DecodeError
            A message cannot be decoded.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many([{"n": 1}, {"n": 2}])
        range(1, 3)
        >>> log.to_arrow().column("n").to_pylist()
        [1, 2]
        """
        return extras.load("frames").to_arrow(*self._extent())

    def to_pandas(self) -> pandas.DataFrame:
        """The messages as a pandas frame.

        Returns
        -------
        pandas.DataFrame
            Index ``offset``; columns ``_time`` (datetime64[us, UTC]), ``_key`` (if any message has one), then the
            fields of the values; values that are not objects are in ``value``. Integers with missing values are
            ``Int64``, never floats.

        Raises
        ------
        MissingExtraError
            pandas or pyarrow is not installed.
        DecodeError
            A message cannot be decoded.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many([{"city": "Brno", "n": 1}, {"city": "Praha", "n": 2}])
        range(1, 3)
        >>> log.to_pandas()[["city", "n"]]
                 city  n
        offset
        1        Brno  1
        2       Praha  2
        """
        return extras.load("frames").to_pandas(*self._extent())


class History(Readable):
    """A lazy range of a topic: iterate over its messages, or take it as a frame.

    Made by ``log.history(...)`` and ``log[a:b]``. Its bounds are looked up at each reading, so a history with an open
    end grows with the topic.

    Examples
    --------
    >>> import pqlog
    >>> log = pqlog.open(":memory:")
    >>> log.put_many("abcde")
    range(1, 6)
    >>> [message.value for message in log[-2:]]
    ['d', 'e']
    >>> len(log[2:4])
    2
    """

    def __init__(
        self,
        source: Source,
        *,
        start: int | None = None,
        stop: int | None = None,
        since: Time | None = None,
        until: Time | None = None,
        key: str | None = None,
        client: str | None = None,
    ) -> None:
        for name, offset in (("start", start), ("stop", stop)):
            if offset is not None and (not isinstance(offset, int) or isinstance(offset, bool)):
                raise ArgumentError(
                    f"{name} is an offset, an int, not {offset!r}; for times there are since= and until="
                )
        if key is not None and not isinstance(key, str):
            raise ArgumentError(f"key is a str, not {key!r}")
        self._source, self._start, self._stop, self._key, self._client = source, start, stop, key, client
        now = datetime.now(UTC)
        self._since = None if since is None else micros_of(since, now)
        self._until = None if until is None else micros_of(until, now)

    def _extent(self) -> tuple[Source, Span, str | None]:
        engine, topic = self._source.engine, self._source.topic
        if self._client is not None:
            found = engine.client(topic, self._client)
            return self._source, found.unread if found else engine.span(topic), None
        first, stop = engine.span(topic)
        starts = [first] + [self._offset(offset) for offset in (self._start,) if offset is not None]
        stops = [stop] + [self._offset(offset) for offset in (self._stop,) if offset is not None]
        if self._since is not None:
            starts.append(engine.offset_at(topic, self._since))
        if self._until is not None:
            stops.append(engine.offset_at(topic, self._until))
        first = max(starts)
        return self._source, Span(first, max(first, min(stops))), self._key

    def _offset(self, offset: int) -> int:
        return offset if offset >= 0 else self._source.engine.from_end(self._source.topic, -offset)

    def __iter__(self) -> Iterator[Message]:
        source, span, key = self._extent()
        return source.messages(source.rows(span, key), key)

    def __len__(self) -> int:
        source, span, key = self._extent()
        if key is None:
            return source.engine.count(source.topic, span)
        return sum(1 for _ in self)

    def values(self) -> Iterator[Any]:
        """The values alone: faster than iterating over messages."""
        source, span, key = self._extent()
        return source.values(span) if key is None else (message.value for message in self)

    def __repr__(self) -> str:
        _, span, key = self._extent()
        only = "" if key is None else f", key={key!r}"
        return f"<pqlog.History of {self._source.topic.name!r}: offsets {span.first:,} up to {span.stop:,}{only}>"


def message_at(source: Source, offset: int) -> Message:
    """The message at an offset; a negative one counts from the end."""
    kept = source.engine.span(source.topic)
    at = offset
    if offset < 0:
        at = source.engine.from_end(source.topic, -offset)
        if source.engine.count(source.topic, Span(at, kept.stop)) != -offset:
            raise OffsetError(f"topic {source.topic.name!r} has only {len(kept):,} messages")
    if 0 < at < kept.first:
        raise TrimmedError(at, kept.first)
    for message in source.messages(source.engine.read(source.topic, Span(at, at + 1), 1, CHUNK_BYTES)):
        return message
    have = f"{kept.first} to {kept.stop - 1}" if len(kept) else "none"
    raise OffsetError(f"topic {source.topic.name!r} has no message at offset {offset}: it keeps {have}")
