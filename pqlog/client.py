"""Client: a named reader of a topic. Everything about one is a method of it."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pqlog import check, delivery, extras
from pqlog.batch import Batch
from pqlog.clients import ClaimInfo, Position, claim_info, lags_of, position_of
from pqlog.delivery import ClientPartition
from pqlog.errors import ArgumentError, ClaimedError, Empty, PartitionsError, UnknownClientError
from pqlog.history import History, Time, offset_of, time_of
from pqlog.message import Message
from pqlog.reading import HandedOut, Reading, Steps, has_unread
from pqlog.store.api import ClientStore, TopicStore
from pqlog.store.values import ClientState, Moved, Size
from pqlog.stream import TopicStream

if TYPE_CHECKING:
    import pandas

    from pqlog.pipe import Summary


class Client:
    """A named reader of a topic, as Kafka's consumer group: it gets every message until it has acknowledged it.

    Created by ``log.client(name)``. It is registered when it first reads, and starts at the beginning; until then it
    has no position and no lag.

    Attributes
    ----------
    name : str

    Examples
    --------
    >>> import pqlog
    >>> log = pqlog.open(":memory:")
    >>> log.put_many(list("abc"))
    Put(first=1, last=3, messages=3)
    >>> billing = log.client("billing")
    >>> list(billing.get())
    ['a', 'b', 'c']
    >>> billing.position, billing.lag
    (4, 0)
    """

    def __init__(self, stream: TopicStream, name: str, handed_out: HandedOut) -> None:
        self.name, self.stream = name, stream
        self._handed_out = handed_out

    def __repr__(self) -> str:
        return f"<pqlog.Client {self.name!r} of topic {self.stream.name!r}>"

    @functools.cached_property
    def partitions(self) -> Sequence[ClientPartition]:
        """The client of each partition of the topic, in their order."""
        return [
            ClientPartition(self.stream.partition(index), partition.client(self.name))
            for index, partition in enumerate(self.stream.partitions)
        ]

    @property
    def _clients(self) -> Sequence[ClientStore]:
        return [one.client for one in self.partitions]

    # where it stands

    def _states(self) -> Sequence[ClientState | None]:
        """Where it stands in each partition; None where it has not been yet."""
        states = self.stream.log.states(self._clients)
        if not any(states):
            raise self._unknown()
        return states

    def _unknown(self) -> UnknownClientError:
        near = check.near(self.name, self.stream.partitions[0].clients_near(self.name))
        return UnknownClientError(self.name, self.stream.name, near)

    @property
    def position(self) -> Position:
        """The offset of the next message that it gets; in a topic with several partitions, for each of them.

        Raises
        ------
        UnknownClientError
            No client of that name has read the topic; `near` holds similar names.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many(list("abc"))
        Put(first=1, last=3, messages=3)
        >>> billing = log.client("billing")
        >>> next(billing.get())
        'a'
        >>> billing.position          # "a" was handed out; asking for "b" would acknowledge it
        1
        """
        return position_of(self.stream.partitions, self._states())

    @property
    def lag(self) -> int:
        """How many messages it has not acknowledged.

        Raises
        ------
        UnknownClientError
            No client of that name has read the topic; `near` holds similar names.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many(list("abc"))
        Put(first=1, last=3, messages=3)
        >>> etl = log.client("etl")
        >>> next(etl.get())
        'a'
        >>> etl.lag
        3
        """
        return sum(self.lag_by_partition.values())

    @property
    def lag_by_partition(self) -> dict[int, int]:
        """The same for each partition: a key that has many messages makes one of them lag behind the others.

        Raises
        ------
        UnknownClientError
            No client of that name has read the topic; `near` holds similar names.

        Examples
        --------
        >>> import pqlog
        >>> orders = pqlog.open(":memory:").topic("orders", partitions=2)
        >>> orders.put_many([{"city": "Brno"}, {"city": "Praha"}, {"city": "Brno"}], key="city").messages
        3
        >>> etl = orders.client("etl")
        >>> etl.seek("start").again
        0
        >>> etl.lag, etl.lag_by_partition
        (3, {0: 2, 1: 1})
        """
        return lags_of(self.stream.partitions, self._states())

    def unread(self) -> History:
        """What it has not acknowledged, as a history: looking never acknowledges.

        Raises
        ------
        UnknownClientError
            No client of that name has read the topic; `near` holds similar names.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many(list("abc"))
        Put(first=1, last=3, messages=3)
        >>> etl = log.client("etl")
        >>> next(etl.get())
        'a'
        >>> len(etl.unread())
        3
        """
        self._states()
        return History(self.stream, clients=self._clients)

    def claims(self) -> list[ClaimInfo]:
        """Its batches that are handed out and not acknowledged, partition by partition.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many(range(5))
        Put(first=1, last=5, messages=5)
        >>> etl = log.client("etl")
        >>> batch = etl.next_batch(size=2)
        >>> [(claim.number, claim.first, claim.last, claim.attempt) for claim in etl.claims()]
        [(1, 1, 2, 1)]
        """
        self._states()
        return [claim_info(claim, one.number) for one in self.partitions for claim in one.client.claims()]

    # moving it

    def seek(self, to: int | Time, *, partition: int | None = None) -> Moved:
        """Move it; it begins a new epoch, and its open batches are given up.

        Parameters
        ----------
        to : int, datetime, date, timedelta or str
            The offset of the next message that it gets (negative: counted from the end), a time (see `Topic.history`),
            ``"start"`` or ``"end"``. Anything outside of what is kept means the nearest end.
        partition : int, optional
            Move it in that partition only; needed for an offset if the topic has several. Without it, the client is
            moved in all of them, in one transaction.

        Returns
        -------
        Moved
            Its new position, how many messages will come `again`, and how many are `skipped`.

        Raises
        ------
        PartitionsError
            An offset was given and no partition, and the topic has several.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many(list("abcd"))
        Put(first=1, last=4, messages=4)
        >>> billing = log.client("billing")
        >>> list(billing.get())
        ['a', 'b', 'c', 'd']
        >>> billing.seek(3)
        Moved(position=3, again=2, skipped=0)
        >>> list(billing.get())
        ['c', 'd']
        """
        chosen = self.partitions if partition is None else [self._partition(partition)]
        if len(chosen) < len(self.partitions):
            delivery.join(self.partitions)  # it begins at the start in the others
        targets = self._targets(chosen, to)
        moved = self.stream.log.seek([(one.client, target) for one, target in zip(chosen, targets, strict=True)])
        if len(self.partitions) == 1:
            return moved[0]
        position: dict[int, Any] = {one.number: each.position for one, each in zip(chosen, moved, strict=True)}
        return Moved(position, sum(each.again for each in moved), sum(each.skipped for each in moved))

    def _targets(self, chosen: Sequence[ClientPartition], to: int | Time) -> Sequence[int]:
        """The offset that `to` stands for in each of some partitions."""
        topics = [one.store for one in chosen]
        if len(topics) == 1:
            return [target_of(topics[0], to)]
        if to in ("start", "end"):  # all at one moment: what is put meanwhile is of neither, or comes in all of them
            return [span.first if to == "start" else span.stop for span in self.stream.log.spans(topics)]
        if isinstance(to, int) and not isinstance(to, bool):
            raise PartitionsError.of_seek(self.stream.name, len(topics), to)
        time = time_of(to, _TARGET)
        return [topic.offset_at(time) for topic in topics]

    def _partition(self, number: int) -> ClientPartition:
        return self.partitions[check.partition(self.stream.name, number, len(self.partitions))]

    def delete(self) -> None:
        """Forget it and its position: should it read again, it begins at the start.

        Raises
        ------
        UnknownClientError
            No client of that name has read the topic; `near` holds similar names.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> list(log.get("old"))
        []
        >>> log.client("old").delete()
        >>> len(log.clients())
        0
        """
        if not self.stream.log.delete_clients(self._clients):
            raise self._unknown()

    # message by message

    def get(self, *, messages: bool = False, ack_every: int = 1, ack_seconds: float = 1.0) -> Iterator[Any]:
        """What it has not acknowledged, one by one, until there is nothing more.

        A message counts as consumed only when the next one is asked for, or the loop ends by itself. After a crash,
        an exception or a ``break`` it comes again. Messages that are put meanwhile are delivered too.

        In a topic with several partitions, some messages of each come in turn, in their order, beginning with the
        partition of the oldest one.

        Parameters
        ----------
        messages : bool
            Yield `Message` objects instead of values.
        ack_every : int
            Acknowledge after this many messages, in one commit, which is what each message costs otherwise. However the
            loop ends, by itself, by ``break``, an exception, Ctrl-C or `Log.close`, what it was done with is
            acknowledged. After a crash, at most this many messages come again that were consumed before. A `seek` by
            somebody else is noticed at the next acknowledgement.
        ack_seconds : float
            With `ack_every`: acknowledge also after this many seconds, when the next message is asked for.

        Yields
        ------
        object
            The value, or the `Message`.

        Raises
        ------
        ClaimedError
            It has an open batch.
        DecodeError
            A message cannot be decoded; it carries the offset.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many(list("ab"))
        Put(first=1, last=2, messages=2)
        >>> billing = log.client("billing")
        >>> for value in billing.get():
        ...     print(value)
        ...     break
        a
        >>> list(billing.get(ack_every=100))
        ['a', 'b']
        """
        return self._got(Steps.of(ack_every, ack_seconds), messages)

    def reading(self, steps: Steps, messages: bool) -> Reading:
        """What `get` reads by; for pqlog itself.

        Examples
        --------
        >>> import pqlog
        >>> from pqlog.reading import Steps
        >>> log = pqlog.open(":memory:")
        >>> log.put("a")
        1
        >>> list(log.client("billing").reading(Steps(), messages=False).items())
        ['a']
        """
        return Reading(self.partitions, steps, self._handed_out, messages)

    def _got(self, steps: Steps, messages: bool) -> Iterator[Any]:
        return self.reading(steps, messages).items()

    def get_blocking(
        self,
        *,
        tick: float | None = None,
        messages: bool = False,
        ack_every: int = 1,
        ack_seconds: float = 1.0,
    ) -> Iterator[Any]:
        """Like `get`, but never ends: waits for more.

        Parameters
        ----------
        tick : float, optional
            How often to look for messages of other processes while there are none, in seconds; 0.005 unless given.
            Messages of this process wake it at once.
        messages, ack_every, ack_seconds
            As for `get`; before it waits, it acknowledges what is done.

        Yields
        ------
        object
            As for `get`.

        Raises
        ------
        ClosedError
            The log was closed, also while waiting.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put("a")
        1
        >>> next(log.client("billing").get_blocking(tick=0.5))
        'a'
        """
        return self._get_blocking(delivery.check_tick(tick), Steps.of(ack_every, ack_seconds), messages)

    def _get_blocking(self, tick_s: float, steps: Steps, messages: bool) -> Iterator[Any]:
        while True:
            yield from self._got(steps, messages)
            delivery.wait(self.partitions, lambda: has_unread(self.partitions), None, tick_s)

    def get_one(self, *, timeout: float | None = 0, messages: bool = False) -> Any:
        """The next message; the next call of the same thread acknowledges it, and so does `ack`.

        This way several threads and processes may share a client: each message is with one of them at a time. The
        message of a thread that ends is handed out again. A message is a batch of one, so while one is handed out,
        `get` raises `ClaimedError`. Of each of several partitions, one message is handed out at a time.

        Parameters
        ----------
        timeout : float, optional
            How long to wait for one, in seconds; None waits until there is one.
        messages : bool
            As for `get`.

        Returns
        -------
        object
            The value, or the `Message`.

        Raises
        ------
        Empty
            None came in time.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many(list("ab"))
        Put(first=1, last=2, messages=2)
        >>> billing = log.client("billing")
        >>> billing.get_one(), billing.get_one()
        ('a', 'b')
        >>> billing.get_one(timeout=0.1)
        Traceback (most recent call last):
        pqlog.errors.Empty: no message for client 'billing' of topic 'main' within 0.1 s
        """
        wait_s = delivery.timeout_s(timeout)
        mine = self._mine()
        if mine.pop("has_seen_batch", False):  # look first: to take it again would count as an attempt
            for one in self.partitions:
                for claim in one.client.claims():
                    if claim.messages > 1 and not claim.owner:
                        mine["has_seen_batch"] = True
                        raise ClaimedError.of(claim, one.store.info)
        batches = self._batches_of_one()
        before = batches.open_batch()
        try:
            batch = batches.take(wait_s)
            if batch is None:
                within = "" if timeout is None else f" within {timeout} s"
                raise Empty(f"no message for client {self.name!r} of topic {self.stream.name!r}{within}")
            if len(batch) > 1:  # that was given back: its boundaries stay
                mine["has_seen_batch"] = True
                raise ClaimedError.of(batch.lease.claim, batch.lease.topic.store.info)
            (message,) = batch.messages()
        except BaseException as error:
            taken = batches.open_batch()
            if taken is not None and taken is not before:  # else the next call would acknowledge it
                taken.lease.release(taken.error if isinstance(error, ClaimedError) else error)
            raise
        return message if messages else message.value

    def _batches_of_one(self) -> delivery.Batches:
        """Those of this thread and process: messages handed out before a fork belong to the parent."""
        mine = self._mine()
        pid = os.getpid()
        if mine.get("pid") != pid:
            mine["batches"] = delivery.Batches(self.partitions, delivery.BatchOptions(Size(1)))
            mine["pid"] = pid
        batches: delivery.Batches = mine["batches"]
        batches.partitions = self.partitions  # the codec may be another than at the last call
        return batches

    def _mine(self) -> dict[str, Any]:
        """What `get_one` knows of this client in this thread, by whatever object of the log it was called."""
        of = self.stream.partitions[0].info.id, self.name
        return self._handed_out.single.setdefault(of, threading.local()).__dict__

    def _current(self) -> Batch | None:
        """The message that `get_one` handed to this thread, as the batch of one that it is."""
        mine = self._mine()
        return mine["batches"].open_batch() if mine.get("pid") == os.getpid() else None

    def ack(self, message: Message | None = None) -> None:
        """Acknowledge what `get_one` handed to this thread; or everything up to and including a message.

        Parameters
        ----------
        message : Message, optional
            From any reading of the topic. The position moves behind it, in its partition, and never back.

        Raises
        ------
        ArgumentError
            There is nothing to be acknowledged: `get_one` has handed out nothing.
        ClaimedError
            The client has an open batch, and the message is not the one that `get_one` handed out.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many(list("abc"))
        Put(first=1, last=3, messages=3)
        >>> billing = log.client("billing")
        >>> billing.get_one()
        'a'
        >>> billing.ack()
        >>> billing.ack(log[2])
        >>> billing.position
        3
        """
        batch = self._current()
        if message is not None and not isinstance(message, Message):
            raise ArgumentError(f"ack takes a message of the topic, from get(messages=True) say, not {message!r}")
        if batch is not None and (
            message is None or (message.partition, message.offset) == (batch.partition, batch.first)
        ):
            batch.ack()
        elif message is None:
            raise self._nothing_handed_out()
        else:
            one = self._partition(message.partition)
            while True:
                state = one.client.state()
                if state is None:
                    delivery.join(self.partitions)
                    continue
                if message.offset >= state.unread.stop:
                    raise ArgumentError(f"topic {self.stream.name!r} has no message at offset {message.offset:,} yet")
                if one.client.acknowledge(message.offset, state.epoch):
                    return  # otherwise it was moved by seek meanwhile

    def nack(self, error: BaseException | None = None) -> None:
        """Give back what `get_one` handed to this thread: the next caller gets it at once.

        Parameters
        ----------
        error : BaseException, optional
            Why.

        Raises
        ------
        ArgumentError
            `get_one` has handed out nothing.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put("a")
        1
        >>> billing = log.client("billing")
        >>> billing.get_one()
        'a'
        >>> billing.nack()
        >>> billing.get_one()
        'a'
        """
        batch = self._current()
        if batch is None:
            raise self._nothing_handed_out()
        batch.release(error)

    def _nothing_handed_out(self) -> ArgumentError:
        return ArgumentError("get_one has handed nothing to this thread that is not acknowledged yet")

    # batch by batch

    def batches(
        self,
        size: int = 1000,
        *,
        max_bytes: int | None = None,
        linger: float = 0,
        follow: bool = False,
        messages: bool = False,
        attempts: int | None = None,
        dead_letter: str | None = None,
        owner: str | None = None,
        ordered: bool = False,
    ) -> Iterator[Batch]:
        """What it has not acknowledged, in checkpointed batches, until there is nothing more.

        A batch's boundaries are durable before it is handed out; asking for the next acknowledges it, in one commit
        with what was put through it (`Batch.put_many`). After ``break``, an exception or a crash the same batch comes
        again, with ``attempt`` one higher. Several workers, threads or processes, may share a client: each batch is
        with one of them at a time, and the batches of a worker that dies on this host are handed to others at once.

        A batch is of one partition. The partitions of a topic come in turn, and if it has several, nobody gets a batch
        of one while somebody has another: the messages of a key are handled in their order. A loop ends as soon as
        there is nothing that it may have, though messages are left behind a batch that another worker has; with
        ``follow=True``, or in a `pipe` of several workers, it stays, and continues should the other die.

        Parameters
        ----------
        size : int
            How many messages a new batch holds at most.
        max_bytes : int, optional
            How many bytes these take in the file at most; one message may be larger.
        linger : float
            How long to wait for a batch to fill, in seconds.
        follow : bool
            Wait for more messages for ever; ends when the log is closed while it waits.
        messages : bool
            Iterating over a batch yields `Message` objects instead of values.
        attempts : int, optional
            After this many failures the whole batch is moved to `dead_letter`, and the client moves on. Without it, the
            batch is handed out until it succeeds; ``clients()`` of its topic shows the attempts.
        dead_letter : str, optional
            A topic with the same codec; by default the topic's name followed by ``.dead``. Headers say where the
            messages came from and why (see `Batch.reject`); for a frame, the offset of its first message.
        owner : str, optional
            A name for this worker: a worker restarted under the same name gets its batches back immediately, on any
            host. Two workers that run at the same time need two names.
        ordered : bool
            The same strict order for a topic of one partition, whose batches are shared freely otherwise: one worker
            works at a time.

        Yields
        ------
        Batch
            Open for the body of the loop, which gives it back when it is left; `next_batch` takes a single one.

        Raises
        ------
        ClaimLostError
            The batch was handed to another reader of the same client meanwhile; it was not acknowledged here.
        ClosedError
            The log was closed before, or while a batch was being worked on; it was not acknowledged.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many(range(5))
        Put(first=1, last=5, messages=5)
        >>> [list(batch) for batch in log.client("etl").batches(size=2)]
        [[0, 1], [2, 3], [4]]
        """
        options = delivery.options(size, max_bytes, linger, follow, messages, attempts, dead_letter, owner, ordered)
        return delivery.Batches(self.partitions, options)

    def next_batch(
        self,
        size: int = 1000,
        *,
        timeout: float | None = 0,
        max_bytes: int | None = None,
        linger: float = 0,
        messages: bool = False,
        attempts: int | None = None,
        dead_letter: str | None = None,
        owner: str | None = None,
        ordered: bool = False,
    ) -> Batch | None:
        """One batch, to be acknowledged by ``with batch:`` or ``batch.ack()``; None if there is nothing to read.

        The batch belongs to the holder of this object, in any thread. When the object is garbage-collected without
        having been acknowledged, the batch is handed out again.

        Parameters
        ----------
        timeout : float, optional
            How long to wait for one, in seconds; None waits until there is one.
        linger : float
            How long to wait for it to fill, in seconds, within `timeout`.
        size, max_bytes, messages, attempts, dead_letter, owner, ordered
            As for `batches`.

        Returns
        -------
        Batch or None

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many(range(3))
        Put(first=1, last=3, messages=3)
        >>> etl = log.client("etl")
        >>> with etl.next_batch(size=2) as batch:
        ...     list(batch)
        [0, 1]
        >>> etl.position, list(etl.next_batch())
        (3, [2])
        """
        options = delivery.options(size, max_bytes, linger, False, messages, attempts, dead_letter, owner, ordered)
        wait_s = delivery.timeout_s(timeout)
        return delivery.Batches(self.partitions, options).take(wait_s)

    def pipe(
        self,
        function: Callable[[pandas.DataFrame], Any],
        into: str | None = None,
        *,
        size: int = 50_000,
        key: str | None = None,
        index: bool = False,
        workers: int = 1,
        max_bytes: int | None = None,
        linger: float = 0,
        follow: bool = False,
        attempts: int | None = None,
        dead_letter: str | None = None,
        ordered: bool = False,
        progress: bool = False,
    ) -> Summary:
        """Run a function over its batches, as frames; what it returns goes into another topic, exactly once.

        Parameters
        ----------
        function : callable
            Is given a DataFrame, the messages' fields as by ``batch.to_pandas(metadata=False)``; returns a frame, or an
            iterable of values, or None for nothing.
        into : str, optional
            A topic of the same log; needed unless the function returns None.
        key : str, optional
            The name of the field that is the key of each message that is put.
        index : bool
            Whether also an index without a name goes along, as for `Batch.put_many`.
        workers : int
            How many processes share the work; the function must be defined at the top of a module then. Of a topic of
            several partitions, at most one for each is busy; where batches are ordered, a worker that finds none waits
            until the others have done theirs, to continue should one die.
        size, max_bytes, linger, follow, attempts, dead_letter, ordered
            As for `batches`. With `attempts`, a batch that fails is tried again at once.
        progress : bool
            Show a progress bar: messages to come, messages per second, the time left.

        Returns
        -------
        Summary
            Batches, messages in and out, rejected messages, and seconds.

        Raises
        ------
        Exception
            What the function raised, unless `attempts` is given; its batch comes again at the next call.
        WorkerDiedError
            A process of several was killed; its ``summary`` says what was done. Call it again to continue.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many([{"n": 1}, {"n": None}, {"n": 3}])
        Put(first=1, last=3, messages=3)
        >>> done = log.client("cleaner").pipe(lambda frame: frame.dropna(), into="clean")
        >>> done.messages_in, done.messages_out, [message.value for message in log.topic("clean")]
        (3, 2, [{'n': 1}, {'n': 3}])
        """
        options = delivery.options(size, max_bytes, linger, follow, False, attempts, dead_letter, None, ordered)
        job = extras.pipe.Job(function, into, key, index, options)
        return extras.pipe.run(self, job, workers, progress)


_TARGET = 'to must be an offset, a time, "start" or "end"'


def target_of(topic: TopicStore, to: int | Time) -> int:
    """The offset that an offset, a time, or an end of a topic stands for; it need not be kept."""
    if to == "start":
        return topic.span().first
    if to == "end":
        return topic.span().stop
    return offset_of(topic, to, _TARGET)
