"""History: a lazy range of a topic. Nothing is read before it is asked for."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from pqlog import extras
from pqlog.codecs import Codec, Json
from pqlog.errors import ArgumentError, DecodeError, Error, OffsetError, PickleRefusedError, TrimmedError
from pqlog.message import Message, from_micros, to_micros
from pqlog.store.api import Engine, Row, Span, TopicInfo

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

    from pqlog.frames import Live, View

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


class Stretch(NamedTuple):
    """Messages of a topic, as they lie there now: what is read."""

    source: Source
    span: Span
    key: str | None = None
    """Only messages with this key."""
    latest: str | None = None
    """Only the last message of each key ("key"), or of each value of that field."""

    @property
    def identity(self) -> tuple[object, ...]:
        """The same for the same messages: those of a span never change."""
        return self.source.engine.uuid, self.source.topic.id, self.span, self.key, self.latest


class Readable:
    """What histories, batches and logs have in common: a stretch of a topic, as a table.

    Notes
    -----
    The types of the columns follow from the values, all of them, and from nothing else:

    ===========================================  ===============================  ============================
    values of a field                            Arrow                            pandas
    ===========================================  ===============================  ============================
    integers, 64 bits                            int64                            int64; Int64 if some are missing
    true and false                               bool                             bool; boolean if some are missing
    numbers, some with a fraction                double                           float64
    text                                         string                           str
    objects, lists, mixed, larger integers       string: JSON text                object: the values themselves
    nothing but null                             null                             object
    columns of frames that were put              as they were put                 as they were put
    ===========================================  ===============================  ============================

    Integers beyond 2**53 beside fractions are such mixed values, since no double holds them. A field that is missing
    is null. A field named ``offset``, ``_time`` or ``_key`` is called ``offset_`` and so on beside the log's own.
    """

    def _stretch(self) -> Stretch:
        """The messages as they are now."""
        raise NotImplementedError

    def to_pandas(
        self,
        columns: Sequence[str] | None = None,
        *,
        flatten: bool = False,
        meta: bool = True,
        times: Sequence[str] = (),
        dtype_backend: str | None = None,
        progress: bool = False,
    ) -> pandas.DataFrame:
        """The messages as a pandas frame.

        Parameters
        ----------
        columns : sequence of str, optional
            Only these fields of the messages, in this order; faster than all. One that no message has is null.
        flatten : bool
            Make columns ``outer.inner`` of the fields of nested objects.
        meta : bool
            Give the index ``offset`` and the columns ``_time`` and ``_key`` (if a message has one). Without it, what
            one `put_many` of a frame put is that frame again, index and dtypes included.
        times : sequence of str
            Fields of ISO 8601 text that become ``datetime64[us, UTC]``; a time without a zone is UTC.
        dtype_backend : {"pyarrow", "numpy_nullable"}, optional
            As in pandas.
        progress : bool
            Show a progress bar.

        Returns
        -------
        pandas.DataFrame
            A row for each message; see the notes of the class for the columns' types.

        Raises
        ------
        MissingExtraError
            pandas or pyarrow is not installed.
        DecodeError
            A message cannot be decoded; it carries the offset.
        ArgumentError
            A field of `times` holds something else; or there are more than 5,000 different fields.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many([{"city": "Brno", "n": 1}, {"city": "Praha", "n": 2}])
        range(1, 3)
        >>> log.to_pandas(["city", "n"]).drop(columns="_time")
                 city  n
        offset
        1        Brno  1
        2       Praha  2
        >>> log.to_pandas(meta=False)
            city  n
        0   Brno  1
        1  Praha  2
        """
        view = _view(columns, flatten, times)
        return extras.load("frames").to_pandas(self._stretch(), view, meta, dtype_backend, progress)

    def to_polars(
        self,
        columns: Sequence[str] | None = None,
        *,
        flatten: bool = False,
        meta: bool = True,
        times: Sequence[str] = (),
        progress: bool = False,
    ) -> polars.DataFrame:
        """The messages as a polars frame, with the columns of `to_arrow`; the parameters are those of `to_pandas`.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many([{"n": 1}, {"n": 2}])
        range(1, 3)
        >>> log.to_polars(meta=False)["n"].sum()
        3
        """
        found: polars.DataFrame = extras.load("frames").to_polars(
            self._stretch(), _view(columns, flatten, times), meta, progress
        )
        return found

    def to_arrow(
        self,
        columns: Sequence[str] | None = None,
        *,
        flatten: bool = False,
        meta: bool = True,
        times: Sequence[str] = (),
        progress: bool = False,
    ) -> pyarrow.Table:
        """The messages as an Arrow table.

        Parameters
        ----------
        columns, flatten, meta, times, progress
            As for `to_pandas`.

        Returns
        -------
        pyarrow.Table
            ``offset`` (int64), ``_time`` (timestamp[us, UTC]), ``_key`` (string, if a message has one), then the
            fields. Columns of JSON text have the metadata ``pqlog: json``.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many([{"n": 1}, {"n": 2, "tags": ["a"]}])
        range(1, 3)
        >>> log.to_arrow().select(["n", "tags"]).to_pylist()
        [{'n': 1, 'tags': None}, {'n': 2, 'tags': '["a"]'}]
        """
        return extras.load("frames").to_arrow(self._stretch(), _view(columns, flatten, times), meta, progress)

    def to_batches(
        self,
        rows: int = 65_536,
        columns: Sequence[str] | None = None,
        *,
        flatten: bool = False,
        meta: bool = True,
        times: Sequence[str] = (),
        progress: bool = False,
    ) -> pyarrow.RecordBatchReader:
        """The messages as a stream of Arrow record batches, in bounded memory.

        The schema must be true before the first batch, so a long stretch is read twice: once to find it out.

        Parameters
        ----------
        rows : int
            Messages in a batch; the last may have fewer.
        columns, flatten, meta, times, progress
            As for `to_pandas`.

        Returns
        -------
        pyarrow.RecordBatchReader

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many({"n": n} for n in range(5))
        range(1, 6)
        >>> [batch.num_rows for batch in log.to_batches(rows=2)]
        [2, 2, 1]
        """
        view = _view(columns, flatten, times)
        return extras.load("frames").to_batches(self._stretch(), view, meta, rows, progress)

    def chunks(
        self,
        rows: int = 100_000,
        columns: Sequence[str] | None = None,
        *,
        flatten: bool = False,
        meta: bool = True,
        times: Sequence[str] = (),
        dtype_backend: str | None = None,
        progress: bool = False,
    ) -> Iterator[pandas.DataFrame]:
        """The messages as pandas frames of so many rows, in bounded memory, like ``read_sql(chunksize=)``.

        All frames have the same columns and dtypes, for which a long stretch is read twice.

        Parameters
        ----------
        rows : int
            Messages in a frame; the last may have fewer.
        columns, flatten, meta, times, dtype_backend, progress
            As for `to_pandas`.

        Yields
        ------
        pandas.DataFrame

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many({"n": n} for n in range(5))
        range(1, 6)
        >>> [int(frame["n"].sum()) for frame in log.chunks(rows=2)]
        [1, 5, 4]
        """
        view = _view(columns, flatten, times)
        found: Iterator[pandas.DataFrame] = extras.load("frames").chunks(
            self._stretch(), view, meta, rows, dtype_backend, progress
        )
        return found

    def head(self, n: int = 5) -> pandas.DataFrame:
        """The first `n` messages as a frame; no more are read.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many({"n": n} for n in range(9))
        range(1, 10)
        >>> log.head(2)["n"].tolist(), log.tail(2)["n"].tolist()
        ([0, 1], [7, 8])
        """
        return extras.load("frames").head(self._stretch(), n)

    def tail(self, n: int = 5) -> pandas.DataFrame:
        """The last `n` messages as a frame.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many({"n": n} for n in range(9))
        range(1, 10)
        >>> log.history(stop=5).tail(2)["n"].tolist()
        [2, 3]
        """
        return extras.load("frames").tail(self._stretch(), n)

    def to_parquet(
        self,
        path: str | os.PathLike[str],
        *,
        rows_per_file: int = 1_000_000,
        partition_by: str | Sequence[str] = (),
        columns: Sequence[str] | None = None,
        flatten: bool = False,
        times: Sequence[str] = (),
        progress: bool = False,
    ) -> list[str]:
        """Write the messages as a dataset of Parquet files, in bounded memory.

        A file holds the messages of a fixed range of offsets, `rows_per_file` of them, and is named by it. It appears
        whole or not at all. So the same call again, after a crash or when the log has grown, completes the dataset:
        what is complete is left alone, and nothing is there twice.

        Parameters
        ----------
        path : str or os.PathLike
            A folder, made if it is missing.
        rows_per_file : int
            The range of offsets of a file.
        partition_by : str or sequence of str
            Fields whose values become folders, ``city=Brno/``, as Hive, DuckDB, Polars and pandas read them. Where
            some messages have none (``city=__HIVE_DEFAULT_PARTITION__/``), pandas needs ``partitioning=None``.
        columns, flatten, times, progress
            As for `to_pandas`.

        Returns
        -------
        list of str
            The paths of the files that were written now.

        Raises
        ------
        ArgumentError
            The folder holds the export of another log, topic or history, or one that was written with other options.

        Examples
        --------
        >>> import pandas, pqlog, tempfile
        >>> log = pqlog.open(":memory:")
        >>> log.put_many({"n": n} for n in range(5))
        range(1, 6)
        >>> folder = tempfile.mkdtemp()
        >>> len(log.to_parquet(folder, rows_per_file=2))
        3
        >>> len(log.to_parquet(folder, rows_per_file=2))       # all is there
        0
        >>> int(pandas.read_parquet(folder)["n"].sum())
        10
        """
        partitions = (partition_by,) if isinstance(partition_by, str) else tuple(partition_by)
        view = _view(columns, flatten, times)
        written: list[str] = extras.load("export").to_parquet(
            self._stretch(), view, os.fspath(path), rows_per_file, partitions, progress
        )
        return written

    def live(self, columns: Sequence[str] | None = None, *, flatten: bool = False, times: Sequence[str] = ()) -> Live:
        """A frame that grows with the log: each ``refresh()`` reads only what is new.

        Parameters
        ----------
        columns, flatten, times
            As for `to_pandas`.

        Returns
        -------
        Live
            Its ``frame`` is the frame as of the last ``refresh()``.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> live = log.live()
        >>> log.put({"n": 1})
        1
        >>> live.refresh()["n"].tolist()
        [1]
        """
        found: Live = extras.load("frames").Live(self, _view(columns, flatten, times))
        return found

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The messages as an Arrow stream, for ``pyarrow.table``, ``polars.DataFrame``, DuckDB and others."""
        return self.to_batches().__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        """The schema of that stream."""
        return extras.load("frames").schema(self._stretch(), _view(None, False, ()), True).__arrow_c_schema__()


def _view(columns: Sequence[str] | None, flatten: bool, times: Sequence[str]) -> View:
    for name, given in (("columns", columns), ("times", times)):
        if isinstance(given, str) or (given is not None and not all(isinstance(field, str) for field in given)):
            raise ArgumentError(f"{name} is a list of the names of fields, not {given!r}")
    if columns is not None and len(set(columns)) < len(columns):
        raise ArgumentError(f"columns names a field twice: {columns!r}")
    view: View = extras.load("frames").View(None if columns is None else tuple(columns), flatten, tuple(times))
    return view


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
        self._latest: str | None = None
        now = datetime.now(UTC)
        self._since = None if since is None else micros_of(since, now)
        self._until = None if until is None else micros_of(until, now)

    def _stretch(self) -> Stretch:
        return Stretch(self._source, self._span(), self._key, self._latest)

    def _span(self) -> Span:
        engine, topic = self._source.engine, self._source.topic
        if self._client is not None:
            found = engine.client(topic, self._client)
            return found.unread if found else engine.span(topic)
        first, stop = engine.span(topic)
        starts = [first] + [self._offset(offset) for offset in (self._start,) if offset is not None]
        stops = [stop] + [self._offset(offset) for offset in (self._stop,) if offset is not None]
        if self._since is not None:
            starts.append(engine.offset_at(topic, self._since))
        if self._until is not None:
            stops.append(engine.offset_at(topic, self._until))
        first = max(starts)
        return Span(first, max(first, min(stops)))

    def _offset(self, offset: int) -> int:
        return offset if offset >= 0 else self._source.engine.from_end(self._source.topic, -offset)

    def latest(self, by: str = "key") -> History:
        """The last message of each key: the table that a changelog describes, as it was at the history's end.

        Parameters
        ----------
        by : str
            ``"key"`` for the messages' key, or the name of a field of their values. Messages without one are left out.

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
            raise ArgumentError(f'by is "key" or the name of a field, not {by!r}')
        history = copy.copy(self)
        history._latest = by
        return history

    def __iter__(self) -> Iterator[Message]:
        stretch = self._stretch()
        source = stretch.source
        if stretch.latest is None:
            return source.messages(source.rows(stretch.span, stretch.key), stretch.key)
        return self._chosen(stretch)

    def _chosen(self, stretch: Stretch) -> Iterator[Message]:
        for offsets in extras.load("frames").latest_runs(stretch):
            chosen = set(offsets)
            for message in stretch.source.messages(stretch.source.rows(Span(offsets[0], offsets[-1] + 1))):
                if message.offset in chosen:
                    yield message

    def __len__(self) -> int:
        source, span, key, latest = self._stretch()
        if key is None and latest is None:
            return source.engine.count(source.topic, span)
        return sum(1 for _ in self)

    def values(self) -> Iterator[Any]:
        """The values alone: faster than iterating over messages."""
        source, span, key, latest = self._stretch()
        return source.values(span) if key is None and latest is None else (message.value for message in self)

    def __repr__(self) -> str:
        _, span, key, latest = self._stretch()
        only = "" if key is None else f", key={key!r}"
        only += "" if latest is None else f", the latest by {latest}"
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
