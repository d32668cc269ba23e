"""A log and its topics for asyncio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self

from pqlog import log, producer, topic
from pqlog.aio.bridge import Bridge
from pqlog.aio.client import Batch, Client
from pqlog.aio.history import History
from pqlog.aio.notifier import Notifier
from pqlog.partitioning import Partitioner
from pqlog.store.values import Put


class Topic:
    """A topic; created by ``await log.topic(name)``. A log is one itself.

    Attributes
    ----------
    sync : pqlog.Topic
        The same without asyncio.

    Examples
    --------
    >>> import asyncio, pqlog.aio
    >>> async def main():
    ...     async with pqlog.aio.open(":memory:") as log:
    ...         clean = await log.topic("clean")
    ...         await clean.put({"n": 1})
    ...         return [value async for value in clean.get("billing")]
    >>> asyncio.run(main())
    [{'n': 1}]
    """

    def __init__(self, sync: topic.Topic, bridge: Bridge, notifier: Notifier) -> None:
        self.sync, self._bridge, self._notifier = sync, bridge, notifier
        self._partitioner = Partitioner(sync.partitions)

    @property
    def name(self) -> str:
        """The topic's name."""
        return self.sync.name

    async def put(
        self, value: Any, *, key: str | None = None, headers: Mapping[str, str] | None = None, id: str | None = None
    ) -> Any:
        """Append a message; returns when it survives a power failure. Puts of many tasks share their syncs.

        Parameters
        ----------
        value, key, headers, id
            As for `pqlog.Topic.put`.

        Returns
        -------
        int or PartitionOffset
            As for `pqlog.Topic.put`.

        Raises
        ------
        asyncio.CancelledError
            If the task was cancelled: the message is not put. If it was being committed already, the call waits for the
            end of that, and the error says so: a note gives the offset, and its attribute ``outcome`` is a finished
            future of it.

        Examples
        --------
        >>> import asyncio, pqlog.aio
        >>> async def main():
        ...     async with pqlog.aio.open(":memory:") as log:
        ...         return await asyncio.gather(*(log.put(n) for n in range(3)))
        >>> asyncio.run(main())
        [1, 2, 3]
        """
        single = producer.single(self.sync.stream, self._partitioner, value, key, headers, id)
        return await self._bridge.put(self.sync.sender, single)

    async def put_many(self, values: Iterable[Any], **options: Any) -> Put:
        """Append many messages in one transaction; the iterable is read in a thread.

        Parameters
        ----------
        values, **options
            As for `pqlog.Topic.put_many`.

        Returns
        -------
        Put

        Raises
        ------
        asyncio.CancelledError
            As for `put`.

        Examples
        --------
        >>> import asyncio, pqlog.aio
        >>> async def main():
        ...     async with pqlog.aio.open(":memory:") as log:
        ...         return await log.put_many(range(1000))
        >>> asyncio.run(main())
        Put(first=1, last=1000, messages=1000)
        """
        return await self._bridge.run(partial(self.sync.put_many, values, **options))

    def client(self, name: str | int | None = None) -> Client:
        """A named reader of the topic.

        Examples
        --------
        >>> import asyncio, pqlog.aio
        >>> async def main():
        ...     async with pqlog.aio.open(":memory:") as log:
        ...         await log.put("a")
        ...         billing = log.client("billing")
        ...         return [value async for value in billing.get()], await billing.lag()
        >>> asyncio.run(main())
        (['a'], 0)
        """
        return Client(self.sync.client(name), self._bridge, self._notifier)

    def get(self, client: str | int | None = None, **options: Any) -> AsyncGenerator[Any, None]:
        """``client(name).get()``; see `Client.get`.

        Examples
        --------
        >>> import asyncio, pqlog.aio
        >>> async def main():
        ...     async with pqlog.aio.open(":memory:") as log:
        ...         await log.put("a")
        ...         return [value async for value in log.get("billing")]
        >>> asyncio.run(main())
        ['a']
        """
        return self.client(client).get(**options)

    def get_blocking(self, client: str | int | None = None, **options: Any) -> AsyncGenerator[Any, None]:
        """``client(name).get_blocking()``; see `Client.get_blocking`.

        Examples
        --------
        >>> import asyncio, pqlog.aio
        >>> async def main():
        ...     async with pqlog.aio.open(":memory:") as log:
        ...         await log.put("a")
        ...         return await anext(log.get_blocking("billing"))
        >>> asyncio.run(main())
        'a'
        """
        return self.client(client).get_blocking(**options)

    def batches(self, client: str | int | None = None, size: int = 1000, **options: Any) -> AsyncGenerator[Batch, None]:
        """``client(name).batches()``; see `Client.batches`.

        Examples
        --------
        >>> import asyncio, pqlog.aio
        >>> async def main():
        ...     async with pqlog.aio.open(":memory:") as log:
        ...         await log.put_many(range(5))
        ...         return [len(batch) async for batch in log.batches("etl", size=2)]
        >>> asyncio.run(main())
        [2, 2, 1]
        """
        return self.client(client).batches(size, **options)

    def history(self, *args: Any, **options: Any) -> History:
        """A range of the topic; nothing is read yet.

        Parameters
        ----------
        *args, **options
            As for `pqlog.Topic.history`.

        Examples
        --------
        >>> import asyncio, pqlog.aio
        >>> async def main():
        ...     async with pqlog.aio.open(":memory:") as log:
        ...         await log.put_many([{"n": 1}, {"n": 2}])
        ...         return len(await log.history(since="1h").to_pandas())
        >>> asyncio.run(main())
        2
        """
        return History(self.sync.history(*args, **options), self._bridge)

    def __repr__(self) -> str:
        return f"<pqlog.aio.{type(self).__name__} {self.name!r}>"


class Log(Topic):
    """An open log, and its main topic; created by `pqlog.aio.open`, for the event loop that runs then.

    Attributes
    ----------
    sync : pqlog.Log
        The same without asyncio.

    Examples
    --------
    >>> import asyncio, pqlog.aio
    >>> async def main():
    ...     log = await pqlog.aio.open(":memory:")
    ...     offset = await log.put("a")
    ...     await log.close()
    ...     return offset
    >>> asyncio.run(main())
    1
    """

    sync: log.Log

    def __init__(self, sync: log.Log, bridge: Bridge) -> None:
        super().__init__(sync, bridge, Notifier(bridge, sync.stream.log))

    async def topic(self, name: str, *args: Any, **options: Any) -> Topic:
        """Another topic of the same log, created if it does not exist; see `pqlog.Log.topic`.

        Examples
        --------
        >>> import asyncio, pqlog.aio
        >>> async def main():
        ...     async with pqlog.aio.open(":memory:") as log:
        ...         orders = await log.topic("orders", partitions=8)
        ...         return await orders.put("paid", key="order-17")
        >>> asyncio.run(main())
        PartitionOffset(partition=1, offset=1)
        """
        found = await self._bridge.run(partial(self.sync.topic, name, *args, **options))
        return Topic(found, self._bridge, self._notifier)

    async def close(self) -> None:
        """Release all resources; tasks that wait raise `ClosedError`. See `pqlog.Log.close`.

        Examples
        --------
        >>> import asyncio, pqlog.aio
        >>> async def main():
        ...     log = await pqlog.aio.open(":memory:")
        ...     await log.close()
        >>> asyncio.run(main())
        """
        await self._close(self.sync.close)

    async def _close(self, close: partial[None] | Any) -> None:
        self._notifier.close()
        try:
            if not self._bridge.is_closed:
                await self._bridge.run(close)
        finally:
            await self._bridge.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close(partial(self.sync.__exit__, kind, error, trace))
