"""Batches: checkpointed iteration, and stages whose outputs commit with the acknowledgement.

A batch's boundaries are durable before it is handed out. It is open until it is acknowledged or released:

::

    handed out ──► open ──► acknowledged      asked for the next, ack(), or a clean end of ``with batch``
       ▲            │
       └────────────┴─────► released          break, an exception, release(), or the process is gone
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from pqlog import clients, extras, producer
from pqlog.codecs import UNDECODABLE
from pqlog.errors import ArgumentError, ClaimLostError, ClosedError, CodecMismatchError, DecodeError, Error
from pqlog.message import Message, from_micros
from pqlog.readable import Readable
from pqlog.source import Source, Stretch, headers_of
from pqlog.store.api import LATEST, Chunk, Claim, Output, Row, Segment, Singles, Size, Span

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
        Client and number in one string that no other batch of any file has: key the output of a sink by it.

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

    def __init__(self, source: Source, claim: Claim, sibling: Sibling, messages: bool = False) -> None:
        self._source, self._claim, self._sibling, self._as_messages = source, claim, sibling, messages
        self.client, self.topic = claim.client, source.topic.name
        self.number, self.attempt, self.error = claim.number, claim.attempt, claim.error
        self.first, self.last = claim.span.first, claim.span.stop - 1
        self._is_open = True
        self._staged: list[tuple[Source, Iterable[Chunk], Staged]] = []

    @property
    def token(self) -> str:
        parts = (self._source.engine.uuid, self.topic, self.client, str(self._claim.epoch), str(self.number))
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
        >>> log.put_many("ab")
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
        return self._stage_single(self._output(topic), value, key, headers)

    def put_many(
        self, values: Iterable[Any], topic: str, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Staged:
        """Put messages or a frame into a topic of the same file, with the acknowledgement of this batch.

        Parameters
        ----------
        values, key, headers
            As for `Topic.put_many`.
        topic : str
            Made, for JSON, if there is none.

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
        ...     _ = batch.put_many(batch.to_pandas(["n"], meta=False).dropna(), topic="clean")
        >>> [message.value for message in log.topic("clean")]
        [{'n': 1}]
        """
        source = self._output(topic)
        return self._stage(source, producer.chunks(source.writable(), values, key, headers))

    def _output(self, topic: str) -> Source:
        self._check_open()
        if not isinstance(topic, str):
            raise ArgumentError(f"topic is the name of a topic of the same file, not {topic!r}")
        return self._sibling(topic, "json")

    def _stage_single(self, source: Source, value: Any, key: str | None, headers: Mapping[str, str] | None) -> Staged:
        text = producer.header_text(headers)
        return self._stage(source, [Singles([producer.encode(source.writable(), value)], [key], text)])

    def _stage(self, source: Source, chunks: Iterable[Chunk]) -> Staged:
        staged = Staged(source.topic.name)
        self._staged.append((source, chunks, staged))
        return staged

    def reject(self, message: Message, reason: str, topic: str | None = None) -> Staged:
        """Put a message of this batch aside: into a dead-letter topic, with the acknowledgement of this batch.

        Its headers there say where it came from and why: ``pqlog-topic``, ``pqlog-offset``, ``pqlog-time``,
        ``pqlog-client``, ``pqlog-batch``, ``pqlog-reason``, beside its own.

        Parameters
        ----------
        message : Message
            One of ``batch.messages()``.
        reason : str
        topic : str, optional
            The topic's name with ``.rejected`` behind it unless said otherwise.

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
        source = self._sibling(topic or f"{self.topic}.rejected", self._source.topic.codec)
        headers = {**message.headers, **self._headers(message.offset, message.time, reason)}
        return self._stage_single(source, message.value, message.key, headers)

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
        codec = self._source.topic.codec
        source = self._sibling(topic or f"{self.topic}.dead", codec)
        if source.topic.codec != codec:
            raise CodecMismatchError(source.topic.name, codec, source.topic.codec)
        for row in self._source.rows(self._claim.span, damaged=True):
            self._stage(source, [self._chunk(row, reason)])

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
        >>> log.put_many("ab")
        range(1, 3)
        >>> batches = log.batches("etl", size=1)
        >>> batch = next(batches)
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
        >>> batches = log.batches("etl")
        >>> next(batches).release(ValueError("not today"))
        >>> again = next(log.batches("etl"))
        >>> again.number, again.attempt, again.error
        (1, 2, 'ValueError: not today')
        """
        if self._is_open:
            self._is_open = False
            self._drop()
            why = None if error is None else f"{type(error).__name__}: {error}"
            self._source.engine.release(self._source.topic, self._claim, why)

    def _outputs(self) -> list[Output]:
        return [Output(source.topic, chunks) for source, chunks, _ in self._staged]

    def _acknowledged(self, went: Sequence[Span]) -> None:
        self._is_open = False
        for (_, _, staged), span in zip(self._staged, went, strict=True):
            staged._offsets = range(span.first, span.stop)
        self._drop()

    def _drop(self) -> None:
        for _, chunks, _ in self._staged:
            if isinstance(chunks, producer.Spool):
                chunks.close()
        self._staged = []

    def _check_open(self) -> None:
        if not self._is_open:
            raise ClaimLostError(self.client, self.number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            with contextlib.suppress(Error):  # the exception of the stage matters more
                self.release(error)
        elif self._is_open:
            self.ack()

    def _repr_html_(self) -> str:
        views = extras.load("notebook.views")
        return views.or_reason(views.batch_view, self)  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return (
            f"<pqlog.Batch {self.number} of {self.client!r}, topic {self.topic!r}: offsets {self.first:,} to "
            f"{self.last:,}, attempt {self.attempt}>"
        )


@dataclass(frozen=True, slots=True)
class Wish:
    """How batches are wanted: the parameters of `Topic.batches`."""

    size: Size
    linger_s: float
    follow: bool
    messages: bool
    attempts: int | None
    dead_letter: str | None
    owner: str
    """A name, or empty."""


def wish(
    size: int,
    max_bytes: int | None,
    linger: float,
    follow: bool,
    messages: bool,
    attempts: int | None,
    dead_letter: str | None,
    owner: str | None,
) -> Wish:
    """The parameters of `Topic.batches`, checked."""
    for name, what, value in (
        ("size", "messages", size),
        ("max_bytes", "bytes", max_bytes),
        ("attempts", "attempts", attempts),
    ):
        if value is None and name != "size":
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ArgumentError(f"{name} is a number of {what}, 1 or more, not {value!r}")
    if isinstance(linger, bool) or not isinstance(linger, (int, float)) or not linger >= 0:
        raise ArgumentError(f"linger is a number of seconds, not {linger!r}")
    if owner is not None and (not isinstance(owner, str) or not owner):
        raise ArgumentError(f"owner is a str that is not empty, not {owner!r}")
    if dead_letter is not None and (not isinstance(dead_letter, str) or not dead_letter):
        raise ArgumentError(f"dead_letter is the name of a topic, not {dead_letter!r}")
    if dead_letter is not None and attempts is None:
        raise ArgumentError("dead_letter goes with attempts=: after how many failures a batch goes there")
    return Wish(
        Size(size, max_bytes),
        float(linger),
        follow,
        messages,
        attempts,
        dead_letter,
        owner or "",
    )


def batches(
    source: Source,
    client: str | None,
    wish: Wish,
    sibling: Sibling,
    buried: Callable[[Batch], object] = lambda batch: None,
) -> Iterator[Batch]:
    """Hand out batch after batch; asking for the next acknowledges the one before.

    A batch that goes to the dead letters is shown to `buried` in place of being handed out.
    """
    reading = _batches(source, clients.client_name(client), wish, sibling, buried)
    return _until_closed(reading) if wish.follow else reading


def _until_closed(reading: Iterator[Batch]) -> Iterator[Batch]:
    """What follows a log ends with it; a batch that was not acknowledged by then comes again."""
    with contextlib.suppress(ClosedError):
        yield from reading


def _batches(
    source: Source, name: str, wish: Wish, sibling: Sibling, buried: Callable[[Batch], object]
) -> Iterator[Batch]:
    clients.join(source, name)
    owner = source.engine.owner(wish.owner)
    batch: Batch | None = None
    while True:
        _linger(source, name, wish, batch)
        claim = _next_claim(source, name, wish, owner, batch)
        if claim is None:
            if not wish.follow:
                return
            batch = None
            source.engine.wait(lambda: _has_work(source, name, owner), None, clients.TICK_S)
            continue
        batch = Batch(source, claim, sibling, wish.messages)
        if wish.attempts is not None and claim.attempt > wish.attempts:
            batch._bury(wish.dead_letter, batch.error or "its reader stopped, without saying why")
            buried(batch)
            continue
        try:
            yield batch
        except GeneratorExit:  # break, or an exception in the loop's body
            with contextlib.suppress(Error):
                batch.release()
            raise


def _next_claim(source: Source, name: str, wish: Wish, owner: str, before: Batch | None) -> Claim | None:
    """Acknowledge the batch before, if it is still open, and claim the next, in one commit."""
    done = before if before is not None and before._is_open else None
    claim, went = source.engine.advance(
        source.topic,
        name,
        wish.size,
        owner,
        None if done is None else done._claim,
        () if done is None else done._outputs(),
    )
    if done is not None:
        done._acknowledged(went)
    return claim


def _linger(source: Source, name: str, wish: Wish, before: Batch | None) -> None:
    """Wait a while for a batch to fill, unless there is enough already; the batch before need not wait for that."""

    def waiting() -> int:
        found = source.engine.client(source.topic, name)
        return 0 if found is None else len(found.unclaimed)

    if not wish.linger_s or waiting() >= wish.size.messages:
        return
    if before is not None and before._is_open:
        before.ack()
    until = time.monotonic() + wish.linger_s
    while 0 < waiting() < wish.size.messages and (left_s := until - time.monotonic()) > 0:
        source.engine.wait(lambda: waiting() >= wish.size.messages, left_s, clients.TICK_S)


def _has_work(source: Source, name: str, owner: str) -> bool:
    engine = source.engine
    found = engine.client(source.topic, name)
    if found is None or len(found.unclaimed):
        return True
    return found.open > 0 and any(engine.is_free(claim, owner) for claim in engine.claims(source.topic, name))
