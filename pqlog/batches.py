"""Batches: checkpointed iteration, and stages whose outputs commit with the acknowledgement.

A batch's boundaries are durable before it is handed out. It is open until it is acknowledged or released:

::

    handed out ──► open ──► acknowledged      asked for the next, ack(), or a clean end of ``with batch``
       ▲            │
       └────────────┴─────► released          break, an exception, release(), or whoever held it is gone
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from pqlog import check, extras, producer
from pqlog.codecs import UNDECODABLE
from pqlog.errors import ArgumentError, ClaimLostError, CodecMismatchError, DecodeError, Error, TrimmedError
from pqlog.message import Message, from_micros
from pqlog.readable import Readable
from pqlog.source import Source, Stretch, headers_of
from pqlog.store.api import LATEST, Chunk, Claim, Output, Row, Segment, Singles, Span

Sibling = Callable[[str, str], Source]
"""Finds another topic of the same file, made with a codec if it is new."""


class Staged:
    """What a stage has put through its batch: there for others once the batch is acknowledged.

    Attributes
    ----------
    topic : str
        Where it goes.

    Examples
    --------
    >>> import pqlog
    >>> log = pqlog.open(":memory:")
    >>> log.put("a")
    1
    >>> for batch in log.batches("etl"):
    ...     staged = batch.put("b", topic="out")
    >>> staged.offsets
    range(1, 2)
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self._offsets: range | None = None

    @property
    def offsets(self) -> range:
        """Where the messages went; `ArgumentError` before the acknowledgement."""
        if self._offsets is None:
            raise ArgumentError("the batch is not acknowledged yet, so what it put has no offsets")
        return self._offsets

    def __repr__(self) -> str:
        where = "not acknowledged yet" if self._offsets is None else f"offsets {self._offsets}"
        return f"<pqlog.Staged for topic {self.topic!r}: {where}>"


class Batch(Readable):
    """A run of consecutive messages, handed to a client as one.

    In a ``for`` loop, asking for the next batch acknowledges this one. ``with batch:`` acknowledges it at a clean end
    and releases it at an exception. What was put through the batch commits with its acknowledgement: both or neither.

    Attributes
    ----------
    number : int
        Counts the client's batches from 1. The same number always means the same messages, also after a crash and
        whatever `size` is asked for then.
    first, last : int
        The offsets of its first and last message.
    attempt : int
        How often it was handed out, this time included.
    error : str or None
        Why it was released the last time, if by an exception.
    client, topic : str
        Whose it is.
    token : str
        Client and number in one string that no other batch of any file has, but for a plain copy of this one: key the
        output of a sink by it.

    Examples
    --------
    >>> import pqlog
    >>> log = pqlog.open(":memory:")
    >>> log.put_many(range(5))
    range(1, 6)
    >>> for batch in log.batches("double", size=3):
    ...     staged = batch.put_many([2 * value for value in batch], topic="doubled")
    ...     print(batch.number, batch.first, batch.last, list(batch))
    1 1 3 [0, 1, 2]
    2 4 5 [3, 4]
    >>> [message.value for message in log.topic("doubled")], staged.offsets
    ([0, 2, 4, 6, 8], range(4, 6))
    """

    _is_cut = True

    def __init__(self, source: Source, claim: Claim, sibling: Sibling, messages: bool = False) -> None:
        self._source, self._claim, self._sibling, self._as_messages = source, claim, sibling, messages
        self.client, self.topic = claim.client, source.topic.name
        self.number, self.attempt, self.error = claim.number, claim.attempt, claim.error
        self.first, self.last = claim.span.first, claim.span.stop - 1
        self._ended: str | None = None
        """How it ended; None while it is open."""
        self._staged: list[tuple[Source, Sequence[Chunk] | producer.Put, Staged]] = []

    @property
    def token(self) -> str:
        parts = (
            self._source.engine.uuid,
            str(self._source.topic.id),
            self.client,
            str(self._claim.epoch),
            str(self.number),
        )
        return "/".join(part.replace("%", "%25").replace("/", "%2F") for part in parts)

    def _stretch(self) -> Stretch:
        return Stretch(self._source, self._claim.span)

    def __len__(self) -> int:
        return len(self._claim.span)

    def __iter__(self) -> Iterator[Any]:
        """The values, in order; with ``batches(messages=True)`` the messages."""
        return self.messages() if self._as_messages else self._source.values(self._claim.span)

    def messages(self) -> Iterator[Message]:
        """The messages, in order.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many(list("ab"))
        range(1, 3)
        >>> for batch in log.batches("etl"):
        ...     print([(message.offset, message.value) for message in batch.messages()])
        [(1, 'a'), (2, 'b')]
        """
        return self._source.messages(self._source.rows(self._claim.span))

    # putting

    def put(self, value: Any, topic: str, key: str | None = None, headers: Mapping[str, str] | None = None) -> Staged:
        """Put a message into a topic of the same file, with the acknowledgement of this batch.

        Parameters
        ----------
        value, key, headers
            As for `Topic.put`.
        topic : str
            Made, for JSON, if there is none.

        Returns
        -------
        Staged
            Its ``offsets`` are known after the acknowledgement.

        Raises
        ------
        EncodeError
            The topic's codec has no form for the value.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many([3, 4])
        range(1, 3)
        >>> for batch in log.batches("sum"):
        ...     staged = batch.put(sum(batch), topic="sums", key="total")
        ...     len(log.topic("sums"))              # not there yet
        0
        >>> log.topic("sums")[staged.offsets[0]].value
        7
        """
        producer.check_key(key)
        source, text = self._output(topic), producer.header_text(headers)
        return self._stage(source, [Singles([producer.encode(source.writable(), value)], [key], text)])

    def put_many(
        self,
        values: Iterable[Any],
        topic: str,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        index: bool = False,
        ids: str | None = None,
    ) -> Staged:
        """Put messages or a frame into a topic of the same file, with the acknowledgement of this batch.

        Parameters
        ----------
        values, key, headers, ids
            As for `Topic.put_many`.
        topic : str
            Made, for JSON, if there is none.
        index : bool
            Whether all of a pandas frame's index goes along, as with `Topic.put_many`. Unless asked for, only levels
            with a name do, as fields. What has none numbers the rows of this batch, and so does ``offset``, the index
            of the batch's own frames: both are left out. ``frame.rename_axis("row")`` makes a field of it.

        Returns
        -------
        Staged
            Its ``offsets`` are known after the acknowledgement.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many([{"n": 1}, {"n": None}])
        range(1, 3)
        >>> for batch in log.batches("clean"):
        ...     _ = batch.put_many(batch.to_pandas(["n"], metadata=False).dropna(), topic="clean")
        >>> [message.value for message in log.topic("clean")]
        [{'n': 1}]
        """
        source = self._output(topic)
        return self._stage(source, producer.chunks(source.writable(), values, key, headers, ids, index=index))

    def _output(self, topic: str) -> Source:
        self._check_open()
        if not isinstance(topic, str):
            raise ArgumentError(f"topic is the name of a topic of the same file, not {topic!r}")
        return self._sibling(topic, "json")

    def _stage_single(self, source: Source, value: Any, key: str | None, headers: Mapping[str, str] | None) -> Staged:
        text = producer.header_text(headers)
        return self._stage(source, [Singles([producer.encode(source.writable(), value)], [key], text)])

    def _stage(self, source: Source, chunks: Sequence[Chunk] | producer.Put) -> Staged:
        staged = Staged(source.topic.name)
        self._staged.append((source, chunks, staged))
        return staged

    def reject(self, message: Message, reason: str, topic: str | None = None) -> Staged:
        """Put a message of this batch aside: into a dead-letter topic, with the acknowledgement of this batch.

        It goes there as it lies in this topic, nothing is encoded again: its bytes, or its row of a frame with all
        types. Its headers there say where it came from and why: ``pqlog-topic``, ``pqlog-offset``, ``pqlog-time``,
        ``pqlog-client``, ``pqlog-batch``, ``pqlog-reason``, beside its own.

        Parameters
        ----------
        message : Message
            One of ``batch.messages()``.
        reason : str
        topic : str, optional
            The topic's name with ``.rejected`` behind it unless said otherwise. Made with this topic's codec.

        Raises
        ------
        CodecMismatchError
            That topic was made with another codec.
        TrimmedError
            The message was trimmed away meanwhile.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many([{"amount": 1}, {}])
        range(1, 3)
        >>> for batch in log.batches("etl"):
        ...     for message in batch.messages():
        ...         if "amount" not in message.value:
        ...             _ = batch.reject(message, "no amount")
        >>> rejected = log.topic("main.rejected")[1]
        >>> rejected.value, rejected.headers["pqlog-offset"], rejected.headers["pqlog-reason"]
        ({}, '2', 'no amount')
        """
        self._check_open()
        if not isinstance(message, Message) or not self.first <= message.offset <= self.last:
            raise ArgumentError(f"reject takes a message of this batch, from batch.messages(), not {message!r}")
        source = self._letters(topic or f"{self.topic}.rejected")
        for row in self._source.rows(Span(message.offset, message.offset + 1)):
            return self._stage(source, [self._chunk(row, reason)])
        raise TrimmedError(message.offset, self._source.engine.span(self._source.topic).first)

    def _headers(self, offset: int, put: datetime, reason: str) -> dict[str, str]:
        return {
            "pqlog-topic": self.topic,
            "pqlog-offset": str(offset),
            "pqlog-time": put.isoformat(),
            "pqlog-client": self.client,
            "pqlog-batch": str(self.number),
            "pqlog-reason": str(reason),
        }

    def _bury(self, topic: str | None, reason: str) -> None:
        """Stage all its messages for a dead-letter topic, as they are: they may be what cannot be decoded."""
        source = self._letters(topic or f"{self.topic}.dead")
        for row in self._source.rows(self._claim.span, damaged=True):
            self._stage(source, [self._chunk(row, reason)])

    def _letters(self, topic: str) -> Source:
        """A topic for messages as they are, so of the same codec."""
        codec = self._source.topic.codec
        source = self._sibling(topic, codec)
        if source.topic.codec != codec:
            raise CodecMismatchError(topic, codec, source.topic.codec)
        return source

    def _chunk(self, row: Row, reason: str) -> Chunk:
        """A row for a dead-letter topic: as it is where all of it goes, or where its part cannot be taken out of it."""
        try:
            headers = headers_of(row)
        except UNDECODABLE:
            headers = {"pqlog-headers": str(row.headers)}
        headers |= self._headers(row.offset, from_micros(min(max(0, row.time), LATEST)), reason)
        if row.rows is None:
            return Singles([row.value], [row.key], producer.header_text(headers))
        value, rows = row.value, row.rows
        if not row.is_whole:
            try:
                value = extras.load("frames").cut(row, self.topic)
            except DecodeError:
                headers["pqlog-part"] = f"{row.offset}-{row.offset + row.rows - 1}"
                rows = row.whole or row.rows
        return Segment(value, rows, row.key, producer.header_text(headers))

    # ending

    def ack(self) -> None:
        """Acknowledge it now, with what was put through it, in one commit.

        Raises
        ------
        ClaimLostError
            It was handed to somebody else meanwhile; nothing was acknowledged, and nothing put.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many(list("ab"))
        range(1, 3)
        >>> batch = log.next_batch("etl", size=1)
        >>> batch.ack()
        >>> log.position("etl")
        1
        """
        self._check_open()
        outputs = self._outputs()
        self._acknowledged(self._source.engine.finish(self._source.topic, self._claim, outputs))

    def release(self, error: BaseException | None = None) -> None:
        """Give it back, so that whoever asks next is handed it at once; what was put through it is dropped.

        Parameters
        ----------
        error : BaseException, optional
            Why; the next holder finds it in ``batch.error``.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put("a")
        1
        >>> log.next_batch("etl").release(ValueError("not today"))
        >>> again = log.next_batch("etl")
        >>> again.number, again.attempt, again.error
        (1, 2, 'ValueError: not today')
        """
        if self._ended is None:
            self._end("it was released")
            why = None if error is None else check.printable(f"{type(error).__name__}: {error}")
            self._source.engine.release(self._source.topic, self._claim, why)

    def _leave(self) -> None:
        """Give it back without waiting, since a finalizer does it: the loop that it was handed to is gone."""
        if self._ended is None:
            self._end("its loop was left, which gives it back; next_batch hands out a single one")
            self._source.engine.leave(self._source.topic, self._claim)

    def _outputs(self) -> list[Output]:
        return [
            Output(source.topic, put.chunks, put.ids) if isinstance(put, producer.Put) else Output(source.topic, put)
            for source, put, _ in self._staged
        ]

    def _acknowledged(self, went: Sequence[Span]) -> None:
        for (_, _, staged), span in zip(self._staged, went, strict=True):
            staged._offsets = range(span.first, span.stop)
        self._end("it was acknowledged")

    def _end(self, how: str) -> None:
        self._ended = how
        for _, chunks, _ in self._staged:
            if isinstance(chunks, producer.Put):
                chunks.close()
        self._staged = []

    def _check_open(self) -> None:
        if self._ended is not None:
            raise ClaimLostError(self.client, self.number, self._ended)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            with contextlib.suppress(Error):  # the exception of the stage matters more
                self.release(error)
        elif self._ended is None:
            self.ack()

    def _repr_html_(self) -> str:
        views = extras.load("notebook.views")
        return views.or_reason(views.batch_view, self)  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return (
            f"<pqlog.Batch {self.number} of {self.client!r}, topic {self.topic!r}: offsets {self.first:,} to "
            f"{self.last:,}, attempt {self.attempt}>"
        )
