"""Partition: one part of a topic, which is read by its offsets; and what a topic has in common with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import overload

from pqlog import extras, history
from pqlog.errors import ArgumentError, Error, PartitionsError, UnsupportedError
from pqlog.history import History, Time, Where
from pqlog.message import Message
from pqlog.readable import Readable, selection_of
from pqlog.store.api import Seals
from pqlog.stream import Selection, TopicStream


class Messages(Readable):
    """The messages of a topic, or of one partition of it, in their order."""

    def __init__(self, stream: TopicStream) -> None:
        self.stream, self.store = stream, stream.store

    def _one(self, what: str, instead: str = "") -> None:
        """Raise unless offsets are of one partition; the error may name what there is instead."""
        if self.stream.is_merged:
            raise PartitionsError.by_offset(self.stream.name, len(self.stream.partitions), what, instead)

    def __len__(self) -> int:
        """How many messages are kept."""
        return self.store.count()

    def __bool__(self) -> bool:
        """It is true also while it is empty."""
        return True

    @property
    def first(self) -> int | None:
        """The offset of the first message that is kept; None if there is none."""
        self._one("`first`")
        kept = self.store.span()
        return kept.first if kept else None

    @property
    def last(self) -> int | None:
        """The offset of the last message; None if none is kept."""
        self._one("`last`")
        kept = self.store.span()
        return self.store.from_end(1, kept) if kept else None

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> History: ...
    def __getitem__(self, index: int | slice) -> Message | History:
        """The message at an offset, or the history of a slice of offsets; negative ones count from the end."""
        if isinstance(index, slice):
            if index.step not in (None, 1):
                start, stop = ("" if end is None else end for end in (index.start, index.stop))
                raise ArgumentError(f"a history has no step: take list(log[{start}:{stop}])[::{index.step}] instead")
            return History(self.stream, start=index.start, stop=index.stop)
        if isinstance(index, bool) or not isinstance(index, int):
            raise ArgumentError(f"an offset must be an int, not {index!r}")
        self._one(f"[{index}]")
        return history.message_at(self.stream, index)

    def __iter__(self) -> Iterator[Message]:
        """All messages that are kept."""
        return iter(self.history())

    def __reversed__(self) -> Iterator[Message]:
        """All messages that are kept, the newest first."""
        return reversed(self.history())

    def history(
        self,
        start: int | None = None,
        stop: int | None = None,
        *,
        since: Time | None = None,
        until: Time | None = None,
        key: str | None = None,
        where: Where | None = None,
    ) -> History:
        """A range of it; nothing is read yet.

        Parameters
        ----------
        start, stop : int, optional
            Offsets: from `start` up to, not including, `stop`; negative ones count from the end. A topic of several
            partitions has none of its own: `Topic.partition` has.
        since, until : datetime, date, timedelta or str, optional
            Times: from `since` up to, not including, `until`. Naive ones are UTC; ``"1h"`` is an hour ago.
        key : str, optional
            Only messages with this key.
        where : str, polars.Expr or pyarrow.compute.Expression, optional
            Only messages that this is true of: text in SQL's grammar, such as ``"ms > 300 and level = 'error'"``, or
            an expression. Fields of nested objects are named ``outer.inner``; ``offset``, ``_time``, ``_key``,
            ``_partition`` and ``_headers['name']`` are those of the message. The guide "Select, filter, query" has all
            of it.

        Returns
        -------
        History

        Raises
        ------
        ArgumentError
            An argument is not valid; of a `where`, it shows what is not supported, and where in the text.
        MissingExtraError
            `where` needs the extra ``sql`` if it is text, ``pandas`` otherwise.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many([{"city": "Brno"}, {"city": "Praha"}], key="city")
        Put(first=1, last=2, messages=2)
        >>> [message.offset for message in log.history(since="1h", key="Praha")]
        [2]
        >>> log.history(where="city like 'B%' and offset < 10").to_polars(metadata=False)["city"].to_list()
        ['Brno']
        """
        return History(self.stream, start=start, stop=stop, since=since, until=until, key=key, where=where)

    def _selection(self) -> Selection:
        return selection_of(self.history())

    # keeping

    def trim(self, before: int | Time, *, force: bool = False) -> int:
        """Drop the messages before an offset or a time, and give their disk space back.

        Parameters
        ----------
        before : int, datetime, date, timedelta or str
            The first offset that is kept (negative: counted from the end), or a time as for `history`. A topic of
            several partitions takes a time, or each of its partitions an offset.
        force : bool
            Drop also what a client has not acknowledged.

        Returns
        -------
        int
            How many messages were dropped.

        Raises
        ------
        TrimRefusedError
            A client has not acknowledged some of them; nothing was dropped.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many(list("abcd"))
        Put(first=1, last=4, messages=4)
        >>> log.trim(before=3)
        2
        >>> log.first, log.put("e")
        (3, 5)
        """
        marks = self._marks("trim", before)
        return sum(self.store.log.trim(list(zip(self.stream.partitions, marks, strict=True)), force))

    def seal(self, before: int | Time | None = None, *, progress: bool = False) -> int:
        """Turn old single messages into compressed columns, and give the disk space back.

        Nothing else changes: each keeps its offset, time, key, headers and value, exactly. A log in a file does so by
        itself with all but the newest 100,000 messages of a topic, unless it was opened with ``seal=None``. Puts
        continue meanwhile. If it is interrupted, what was sealed stays sealed.

        Parameters
        ----------
        before : int, datetime, date, timedelta or str, optional
            The first offset that stays as it is (negative: counted from the end), or a time as for `history`; by
            default, all messages are sealed. Up to 256 that were put at once have one checksum and are sealed together,
            so a few before it may stay, too. A topic of several partitions takes a time, or each of its partitions an
            offset.
        progress : bool
            Show a bar.

        Returns
        -------
        int
            How many messages were sealed.

        Raises
        ------
        UnsupportedError
            The log is not in a file.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many({"n": n} for n in range(5000))
        Put(first=1, last=5000, messages=5000)
        >>> log.seal(before=4001)                # 15 groups of 256
        3840
        >>> log[3840].value
        {'n': 3839}
        """
        partitions = self.stream.partitions
        if before is None:
            marks = [span.stop for span in self.store.log.spans(partitions)]
        else:
            marks = self._marks("seal", before)
        sealed = 0
        with extras.progress_bar(None, "seal", progress) as report:
            for partition, mark in zip(partitions, marks, strict=True):
                if not isinstance(partition, Seals):
                    raise UnsupportedError(f"seal() needs a log in a file, which {self.store.log.name} is not")
                sealed += partition.seal(mark, report)
        return sealed

    def _marks(self, what: str, before: int | Time) -> list[int]:
        """An offset in each partition, from an offset in the one, or a time."""
        said = "before must be an offset or a time"
        if isinstance(before, int) and not isinstance(before, bool):
            self._one(f"{what}(before={before})", f"A time is of all of them: {what}(before='30d')")
            return [history.offset_of(self.stream.partitions[0], before, said)]
        time = history.time_of(before, said)
        return [partition.offset_at(time) for partition in self.stream.partitions]


class Partition(Messages):
    """One totally ordered part of a topic, with offsets of its own; it is for reading.

    Created by ``topic.partition(number)``. A topic of one partition has all of its methods itself.

    Examples
    --------
    >>> import pqlog
    >>> orders = pqlog.open(":memory:").topic("orders", partitions=4)
    >>> orders.put_many([{"city": city} for city in ("Brno", "Praha", "Brno")], key="city").messages
    3
    >>> [(number, len(orders.partition(number))) for number in range(orders.partitions)]
    [(0, 2), (1, 1), (2, 0), (3, 0)]
    >>> [message.value["city"] for message in orders.partition(0)[1:]]
    ['Brno', 'Brno']
    """

    @property
    def topic(self) -> str:
        """The name of its topic."""
        return self.stream.name

    @property
    def number(self) -> int:
        """Its number, from 0."""
        return self.stream.partitions[0].info.partition

    def __repr__(self) -> str:
        try:
            return f"<pqlog.Partition {self.number} of topic {self.topic!r}: {len(self):,} messages>"
        except Error as error:
            return f"<pqlog.Partition {self.number} of topic {self.topic!r}: {error}>"
