"""Batches: checkpointed iteration, and stages whose outputs commit with the acknowledgement.

A batch's boundaries are durable before it is handed out. It is open until it is acknowledged or released:

::

    handed out ──► open ──► acknowledged      asked for the next, ack(), or a clean end of ``with batch``
       ▲            │
       └────────────┴─────► released          break, an exception, release(), or its holder is gone
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from pqlog import extras, producer
from pqlog.errors import ArgumentError, Error, TrimmedError
from pqlog.lease import Lease, Staged
from pqlog.message import Message
from pqlog.readable import Readable
from pqlog.store.values import Singles, Span
from pqlog.stream import Selection


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
    partition : int
        The number of the topic's partition that its messages are of; 0 if the topic has one.
    token : str
        Partition, client and number in one string that no other batch of any file has, but for a plain copy of this
        one: key the output of a sink by it.

    Examples
    --------
    >>> import pqlog
    >>> log = pqlog.open(":memory:")
    >>> log.put_many(range(5))
    Put(first=1, last=5, messages=5)
    >>> for batch in log.batches("double", size=3):
    ...     staged = batch.put_many([2 * value for value in batch], topic="doubled")
    ...     print(batch.number, batch.first, batch.last, list(batch))
    1 1 3 [0, 1, 2]
    2 4 5 [3, 4]
    >>> [message.value for message in log.topic("doubled")], staged.put
    ([0, 2, 4, 6, 8], Put(first=4, last=5, messages=2))
    """

    _is_cut = True

    def __init__(self, lease: Lease, messages: bool = False) -> None:
        self.lease, self._topic, self._as_messages = lease, lease.topic, messages
        claim = lease.claim
        self.client, self.topic, self.partition = claim.client, lease.topic.name, lease.partition
        self.number, self.attempt, self.error = claim.number, claim.attempt, claim.error
        self.first, self.last = claim.span.first, claim.span.last

    @property
    def token(self) -> str:
        parts = (
            self._topic.store.log.uuid,
            str(self._topic.store.info.id),
            str(self.partition),
            self.client,
            str(self.lease.claim.epoch),
            str(self.number),
        )
        return "/".join(part.replace("%", "%25").replace("/", "%2F") for part in parts)

    def _selection(self) -> Selection:
        return Selection(self._topic, self.lease.claim.span)

    def __len__(self) -> int:
        return self.lease.claim.messages

    def __iter__(self) -> Iterator[Any]:
        """The values, in order; with ``batches(messages=True)`` the messages."""
        return self.messages() if self._as_messages else self._topic.values(self.lease.claim.span)

    def messages(self) -> Iterator[Message]:
        """The messages, in order.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many(list("ab"))
        Put(first=1, last=2, messages=2)
        >>> for batch in log.batches("etl"):
        ...     print([(message.offset, message.value) for message in batch.messages()])
        [(1, 'a'), (2, 'b')]
        """
        return self._topic.messages(self._topic.rows(self.lease.claim.span))

    # putting

    def put(
        self, value: Any, topic: str, *, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Staged:
        """Put a message into a topic of the same file, with the acknowledgement of this batch.

        Parameters
        ----------
        value, key, headers
            As for `Topic.put`.
        topic : str
            Created, for JSON and with one partition, if it does not exist.

        Returns
        -------
        Staged
            Its ``put`` is known after the acknowledgement.

        Raises
        ------
        EncodeError
            The topic's codec cannot encode the value.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many([3, 4])
        Put(first=1, last=2, messages=2)
        >>> for batch in log.batches("sum"):
        ...     staged = batch.put(sum(batch), topic="sums", key="total")
        ...     len(log.topic("sums"))              # not there yet
        0
        >>> log.topic("sums")[staged.put.first].value
        7
        """
        producer.check_key(key)
        into, text = self.lease.output(topic), producer.header_text(headers)
        chunk = Singles([producer.encode(into.writable(), value)], [key], text)
        return self.lease.stage_one(into, self.lease.partitioner(into).choose(key), chunk)

    def put_many(
        self,
        values: Iterable[Any],
        topic: str,
        *,
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
            Created, for JSON and with one partition, if it does not exist.
        index : bool
            Whether all of a pandas frame's index goes along, as with `Topic.put_many`. Unless asked for, only levels
            with a name do, as fields. What has none numbers the rows of this batch, and so does ``offset``, the index
            of the batch's own frames: both are left out. ``frame.rename_axis("row")`` makes a field of it.

        Returns
        -------
        Staged
            Its ``put`` is known after the acknowledgement.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many([{"n": 1}, {"n": None}])
        Put(first=1, last=2, messages=2)
        >>> for batch in log.batches("clean"):
        ...     _ = batch.put_many(batch.to_pandas(["n"], metadata=False).dropna(), topic="clean")
        >>> [message.value for message in log.topic("clean")]
        [{'n': 1}]
        """
        into = self.lease.output(topic)
        codec, partitioner = into.writable(), self.lease.partitioner(into)
        return self.lease.stage(into, producer.chunks(codec, partitioner, values, key, headers, ids, index=index))

    def reject(self, message: Message, reason: str, topic: str | None = None) -> Staged:
        """Put a message of this batch aside: into a dead-letter topic, with the acknowledgement of this batch.

        It goes there as it lies in this topic, nothing is encoded again: its bytes, or its row of a frame with all
        types. Its headers there say where it came from and why: ``pqlog-topic``, ``pqlog-offset``, ``pqlog-time``,
        ``pqlog-client``, ``pqlog-batch``, ``pqlog-reason``, in addition to its own; and ``pqlog-partition`` where the
        topic has several.

        Parameters
        ----------
        message : Message
            One of ``batch.messages()``.
        reason : str
        topic : str, optional
            The topic's name with ``.rejected`` behind it unless said otherwise. Created with this topic's codec, and
            with as many partitions: a message goes into that of the same number.

        Raises
        ------
        CodecMismatchError
            That topic was created with another codec.
        PartitionsError
            That topic was created with another number of partitions.
        TrimmedError
            The message was trimmed away meanwhile.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many([{"amount": 1}, {}])
        Put(first=1, last=2, messages=2)
        >>> for batch in log.batches("etl"):
        ...     for message in batch.messages():
        ...         if "amount" not in message.value:
        ...             _ = batch.reject(message, "no amount")
        >>> rejected = log.topic("main.rejected")[1]
        >>> rejected.value, rejected.headers["pqlog-offset"], rejected.headers["pqlog-reason"]
        ({}, '2', 'no amount')
        """
        self.lease.check_open()
        if not isinstance(message, Message) or not self._has(message):
            raise ArgumentError(f"reject takes a message of this batch, from batch.messages(), not {message!r}")
        for row in self._topic.rows(Span.at(message.offset)):
            return self.lease.put_aside(row, topic or f"{self.topic}.rejected", reason)
        store = self._topic.store
        raise TrimmedError(message.offset, store.span().first, store.info.number)

    def _has(self, message: Message) -> bool:
        return message.partition == self.partition and self.first <= message.offset <= self.last

    # ending

    def ack(self) -> None:
        """Acknowledge it now, with what was put through it, in one commit.

        Raises
        ------
        ClaimLostError
            It was handed to another worker meanwhile; nothing was acknowledged, and nothing put.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many(list("ab"))
        Put(first=1, last=2, messages=2)
        >>> batch = log.client("etl").next_batch(size=1)
        >>> batch.ack()
        >>> log.client("etl").position
        2
        """
        self.lease.ack()

    def release(self, error: BaseException | None = None) -> None:
        """Give it back, so that the next caller gets it at once; what was put through it is dropped.

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
        >>> log.client("etl").next_batch().release(ValueError("not today"))
        >>> again = log.client("etl").next_batch()
        >>> again.number, again.attempt, again.error
        (1, 2, 'ValueError: not today')
        """
        self.lease.release(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            with contextlib.suppress(Error):  # the exception of the stage matters more
                self.release(error)
        elif self.lease.is_open:
            self.ack()

    def _repr_html_(self) -> str:
        return extras.views.or_reason(extras.views.batch_view, self)

    def __repr__(self) -> str:
        partition = f", partition {self.partition}" if self.lease.partitions > 1 else ""
        return (
            f"<pqlog.Batch {self.number} of {self.client!r}, topic {self.topic!r}{partition}: "
            f"offsets {self.first:,} to {self.last:,}, attempt {self.attempt}>"
        )
