"""A client for asyncio, and its batches."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from functools import partial
from types import TracebackType
from typing import Any, Self

from pqlog import batch, client, delivery
from pqlog.aio.bridge import Bridge
from pqlog.aio.history import AsFrames, iterated, some
from pqlog.aio.notifier import Notifier
from pqlog.clients import Position
from pqlog.errors import ClosedError, Error
from pqlog.history import Time
from pqlog.lease import Staged
from pqlog.message import Message
from pqlog.reading import Reading, Run, Steps, has_unread
from pqlog.store.values import Moved


class Client:
    """A named reader of a topic; created by ``log.client(name)``.

    Attributes
    ----------
    sync : pqlog.Client
        The same without asyncio.

    Examples
    --------
    >>> import asyncio, pqlog.aio
    >>> async def main():
    ...     async with pqlog.aio.open(":memory:") as log:
    ...         await log.put_many(list("abc"))
    ...         billing = log.client("billing")
    ...         values = [value async for value in billing.get()]
    ...         return values, await billing.position(), await billing.lag()
    >>> asyncio.run(main())
    (['a', 'b', 'c'], 4, 0)
    """

    def __init__(self, sync: client.Client, bridge: Bridge, notifier: Notifier) -> None:
        self.sync, self._bridge, self._notifier = sync, bridge, notifier

    @property
    def name(self) -> str:
        """Its name."""
        return self.sync.name

    def __repr__(self) -> str:
        return f"<pqlog.aio.Client {self.name!r} of topic {self.sync.stream.name!r}>"

    # message by message

    def get(self, *, messages: bool = False, ack_every: int = 1, ack_seconds: float = 1.0) -> AsyncGenerator[Any, None]:
        """What it has not acknowledged, one by one, until there is nothing more; see `pqlog.Client.get`.

        A loop that is left by ``break`` or an exception gives back its message, and acknowledges what was done before,
        as soon as the event loop ends its generator: a moment later, or at once with `contextlib.aclosing`.

        Parameters
        ----------
        messages, ack_every, ack_seconds
            As for `pqlog.Client.get`.

        Examples
        --------
        >>> import asyncio, pqlog.aio
        >>> async def main():
        ...     async with pqlog.aio.open(":memory:") as log:
        ...         await log.put_many(list("ab"))
        ...         return [value async for value in log.client("billing").get(ack_every=100)]
        >>> asyncio.run(main())
        ['a', 'b']
        """
        return self._got(Steps.of(ack_every, ack_seconds), messages, follow=False)

    def get_blocking(
        self, *, messages: bool = False, ack_every: int = 1, ack_seconds: float = 1.0
    ) -> AsyncGenerator[Any, None]:
        """Like `get`, but never ends: waits for more, with thousands of others in one thread.

        Parameters
        ----------
        messages, ack_every, ack_seconds
            As for `get`.

        Raises
        ------
        ClosedError
            The log was closed, also while waiting.

        Examples
        --------
        >>> import asyncio, pqlog.aio
        >>> async def main():
        ...     async with pqlog.aio.open(":memory:") as log:
        ...         reader = asyncio.create_task(anext(log.client("billing").get_blocking()))
        ...         await log.put("a")
        ...         return await reader
        >>> asyncio.run(main())
        'a'
        """
        return self._got(Steps.of(ack_every, ack_seconds), messages, follow=True)

    async def _got(self, steps: Steps, messages: bool, follow: bool) -> AsyncGenerator[Any, None]:
        reading = self.sync.reading(steps, messages)
        try:
            while True:
                run, found, error = await self._bridge.run(partial(_next, reading))
                if run is None:
                    if not follow:
                        return
                    await self._wait("get", partial(has_unread, self.sync.partitions))
                is_in_place = True
                while run is not None and found and is_in_place:
                    for offset, item in found:
                        yield item
                        if reading.note(run, offset) and not await self._bridge.run(reading.acknowledge):
                            is_in_place = False  # moved by seek meanwhile: continue at the new position
                            break
                    if is_in_place and error is None:
                        found, error = await self._bridge.run(partial(some, run.items))
                    elif is_in_place:
                        break
                if error is not None and is_in_place:
                    raise error
        except BaseException:
            with contextlib.suppress(Error):
                await self._bridge.run(reading.leave)
            raise

    async def _wait(self, what: str, is_ready: Any) -> None:
        who = what, self.sync.stream.partitions[0].info.id, self.name
        await self._notifier.wait(self.sync.stream.partitions, who, is_ready)

    # batch by batch

    async def batches(
        self,
        size: int = 1000,
        *,
        max_bytes: int | None = None,
        follow: bool = False,
        messages: bool = False,
        attempts: int | None = None,
        dead_letter: str | None = None,
        owner: str | None = None,
        ordered: bool = False,
    ) -> AsyncGenerator[Batch, None]:
        """What it has not acknowledged, in checkpointed batches; see `pqlog.Client.batches`.

        A loop that is left by ``break`` or an exception gives back its batch as soon as the event loop ends its
        generator: a moment later, or at once with `contextlib.aclosing`.

        Parameters
        ----------
        size, max_bytes, follow, messages, attempts, dead_letter, owner, ordered
            As for `pqlog.Client.batches`.

        Examples
        --------
        >>> import asyncio, pqlog.aio
        >>> async def main():
        ...     async with pqlog.aio.open(":memory:") as log:
        ...         await log.put_many(range(5))
        ...         return [[n async for n in batch] async for batch in log.client("etl").batches(size=2)]
        >>> asyncio.run(main())
        [[0, 1], [2, 3], [4]]
        """
        options = delivery.options(size, max_bytes, 0, follow, messages, attempts, dead_letter, owner, ordered)
        batches = await self._bridge.run(lambda: delivery.Batches(self.sync.partitions, options))
        try:
            while True:
                try:
                    taken = await self._bridge.run(partial(batches.take, 0))
                    if taken is None and follow:
                        await self._wait(f"batches of {owner}, {ordered}", batches.has_work)
                except ClosedError:
                    if follow and batches.open_batch() is None:
                        return
                    raise
                if taken is not None:
                    yield Batch(taken, self._bridge)
                elif not follow:
                    return
        finally:
            with contextlib.suppress(Error):
                await self._bridge.run(batches.close)

    async def next_batch(
        self,
        size: int = 1000,
        *,
        timeout: float | None = 0,
        max_bytes: int | None = None,
        messages: bool = False,
        attempts: int | None = None,
        dead_letter: str | None = None,
        owner: str | None = None,
        ordered: bool = False,
    ) -> Batch | None:
        """One batch, to be acknowledged by ``async with batch:`` or ``await batch.ack()``; None if there is none.

        Parameters
        ----------
        timeout : float, optional
            How long to wait for one, in seconds; None waits until there is one.
        size, max_bytes, messages, attempts, dead_letter, owner, ordered
            As for `batches`.

        Examples
        --------
        >>> import asyncio, pqlog.aio
        >>> async def main():
        ...     async with pqlog.aio.open(":memory:") as log:
        ...         await log.put_many(range(3))
        ...         async with await log.client("etl").next_batch() as batch:
        ...             return len(batch)
        >>> asyncio.run(main())
        3
        """
        options = delivery.options(size, max_bytes, 0, False, messages, attempts, dead_letter, owner, ordered)
        wait_s = delivery.timeout_s(timeout)
        batches = await self._bridge.run(lambda: delivery.Batches(self.sync.partitions, options))
        until = None if wait_s is None else time.monotonic() + wait_s
        try:
            while (taken := await self._bridge.run(partial(batches.take, 0))) is None:
                left_s = None if until is None else until - time.monotonic()
                if left_s is not None and left_s <= 0:
                    return None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left_s):
                        await self._wait(f"batches of {owner}, {ordered}", batches.has_work)
        except BaseException:  # cancelled, when it may have been taken already
            with contextlib.suppress(Error):
                await self._bridge.run(batches.close)
            raise
        return Batch(taken, self._bridge)

    # where it stands

    async def position(self) -> Position:
        """The offset of the next message that it gets; see `pqlog.Client.position`.

        Examples
        --------
        >>> import asyncio, pqlog.aio
        >>> async def main():
        ...     async with pqlog.aio.open(":memory:") as log:
        ...         await log.client("billing").seek("end")
        ...         return await log.client("billing").position()
        >>> asyncio.run(main())
        1
        """
        return await self._bridge.run(lambda: self.sync.position)

    async def lag(self) -> int:
        """How many messages it has not acknowledged; see `pqlog.Client.lag`.

        Examples
        --------
        >>> import asyncio, pqlog.aio
        >>> async def main():
        ...     async with pqlog.aio.open(":memory:") as log:
        ...         await log.client("billing").seek("end")
        ...         await log.put("a")
        ...         return await log.client("billing").lag()
        >>> asyncio.run(main())
        1
        """
        return await self._bridge.run(lambda: self.sync.lag)

    async def seek(self, to: int | Time, *, partition: int | None = None) -> Moved:
        """Move it; see `pqlog.Client.seek`.

        Examples
        --------
        >>> import asyncio, pqlog.aio
        >>> async def main():
        ...     async with pqlog.aio.open(":memory:") as log:
        ...         await log.put_many(list("abc"))
        ...         return await log.client("billing").seek(-1)
        >>> asyncio.run(main())
        Moved(position=3, again=0, skipped=2)
        """
        return await self._bridge.run(partial(self.sync.seek, to, partition=partition))


def _next(reading: Reading) -> tuple[Run | None, list[tuple[int, Any]], Exception | None]:
    """The next messages; if there are none, what is done is acknowledged."""
    run = reading.next_run()
    if run is None:
        reading.acknowledge()
        return None, [], None
    return run, *some(run.items)


class Batch(AsFrames[batch.Batch]):
    """A run of messages, handed to a client as one; see `pqlog.Batch`, whose attributes it has.

    In a loop, asking for the next batch acknowledges this one. ``async with batch:`` acknowledges it at a clean end and
    releases it at an exception.

    Examples
    --------
    >>> import asyncio, pqlog.aio
    >>> async def main():
    ...     async with pqlog.aio.open(":memory:") as log:
    ...         await log.put_many(range(5))
    ...         async for batch in log.batches("double", size=3):
    ...             await batch.put_many([2 * n async for n in batch], topic="doubled")
    ...         doubled = await log.topic("doubled")
    ...         return [value async for value in doubled.history().values()]
    >>> asyncio.run(main())
    [0, 2, 4, 6, 8]
    """

    def __init__(self, sync: batch.Batch, bridge: Bridge) -> None:
        super().__init__(sync, bridge)
        self.number, self.first, self.last = sync.number, sync.first, sync.last
        self.attempt, self.error, self.token = sync.attempt, sync.error, sync.token
        self.client, self.topic, self.partition = sync.client, sync.topic, sync.partition

    def __len__(self) -> int:
        return len(self.sync)

    def __repr__(self) -> str:
        return f"<pqlog.aio.Batch {self.number} of client {self.client!r}>"

    def __aiter__(self) -> AsyncIterator[Any]:
        """The values, in order; with ``batches(messages=True)`` the messages."""
        return iterated(self._bridge, lambda: iter(self.sync))

    def messages(self) -> AsyncIterator[Message]:
        """The messages, in order.

        Examples
        --------
        >>> import asyncio, pqlog.aio
        >>> async def main():
        ...     async with pqlog.aio.open(":memory:") as log:
        ...         await log.put_many(list("ab"))
        ...         async for batch in log.batches("etl"):
        ...             return [message.offset async for message in batch.messages()]
        >>> asyncio.run(main())
        [1, 2]
        """
        begin: partial[Iterator[Message]] = partial(self.sync.messages)
        return iterated(self._bridge, begin)

    async def put(self, value: Any, topic: str, **options: Any) -> Staged:
        """Put a message into a topic with the acknowledgement of this batch; see `pqlog.Batch.put`.

        Examples
        --------
        >>> import asyncio, pqlog.aio
        >>> async def main():
        ...     async with pqlog.aio.open(":memory:") as log:
        ...         await log.put_many([3, 4])
        ...         async for batch in log.batches("sum"):
        ...             staged = await batch.put(sum([n async for n in batch]), topic="sums")
        ...         return staged.put
        >>> asyncio.run(main())
        Put(first=1, last=1, messages=1)
        """
        return await self._bridge.run(partial(self.sync.put, value, topic, **options))

    async def put_many(self, values: Any, topic: str, **options: Any) -> Staged:
        """Put messages or a frame into a topic with the acknowledgement; see `pqlog.Batch.put_many`.

        Examples
        --------
        >>> import asyncio, pqlog.aio
        >>> async def main():
        ...     async with pqlog.aio.open(":memory:") as log:
        ...         await log.put_many([{"n": 1}, {"n": None}])
        ...         async for batch in log.batches("clean"):
        ...             frame = await batch.to_pandas(["n"], metadata=False)
        ...             staged = await batch.put_many(frame.dropna(), topic="clean")
        ...         return staged.put
        >>> asyncio.run(main())
        Put(first=1, last=1, messages=1)
        """
        return await self._bridge.run(partial(self.sync.put_many, values, topic, **options))

    async def reject(self, message: Message, reason: str, topic: str | None = None) -> Staged:
        """Put a message aside with the acknowledgement; see `pqlog.Batch.reject`.

        Examples
        --------
        >>> import asyncio, pqlog.aio
        >>> async def main():
        ...     async with pqlog.aio.open(":memory:") as log:
        ...         await log.put_many(["good", "bad"])
        ...         async for batch in log.batches("etl"):
        ...             async for message in batch.messages():
        ...                 if message.value == "bad":
        ...                     await batch.reject(message, "it is bad")
        ...         rejected = await log.topic("main.rejected")
        ...         return [value async for value in rejected.history().values()]
        >>> asyncio.run(main())
        ['bad']
        """
        return await self._bridge.run(partial(self.sync.reject, message, reason, topic))

    async def ack(self) -> None:
        """Acknowledge it, with what was put through it, in one commit.

        Examples
        --------
        >>> import asyncio, pqlog.aio
        >>> async def main():
        ...     async with pqlog.aio.open(":memory:") as log:
        ...         await log.put("a")
        ...         batch = await log.client("etl").next_batch()
        ...         await batch.ack()
        ...         return await log.client("etl").lag()
        >>> asyncio.run(main())
        0
        """
        await self._bridge.run(self.sync.ack)

    async def release(self, error: BaseException | None = None) -> None:
        """Give it back: it comes again; see `pqlog.Batch.release`.

        Examples
        --------
        >>> import asyncio, pqlog.aio
        >>> async def main():
        ...     async with pqlog.aio.open(":memory:") as log:
        ...         await log.put("a")
        ...         await (await log.client("etl").next_batch()).release()
        ...         return (await log.client("etl").next_batch()).attempt
        >>> asyncio.run(main())
        2
        """
        await self._bridge.run(partial(self.sync.release, error))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._bridge.run(partial(self.sync.__exit__, kind, error, trace))
