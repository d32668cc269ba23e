"""A range of a topic for asyncio: its messages, or a frame."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pqlog import history
from pqlog.aio.bridge import Bridge
from pqlog.message import Message
from pqlog.readable import Readable

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

T = TypeVar("T")
R = TypeVar("R", bound=Readable)

CHUNK = 256
"""How many messages are decoded in a thread at a time."""


def some(items: Iterator[T]) -> tuple[list[T], Exception | None]:
    """The next items, and why there are no more of them: what came before an error is delivered first."""
    found: list[T] = []
    try:
        found.extend(itertools.islice(items, CHUNK))  # extend keeps what came before an error
    except Exception as error:
        return found, error
    return found, None


async def iterated(bridge: Bridge, begin: Callable[[], Iterator[T]]) -> AsyncGenerator[T, None]:
    """What an iterator has, read in threads."""
    items = await bridge.run(begin)
    while True:
        found, error = await bridge.run(partial(some, items))
        for item in found:
            yield item
        if error is not None:
            raise error
        if not found:
            return


class AsFrames(Generic[R]):
    """What histories and batches have in common: they can become frames.

    Attributes
    ----------
    sync : pqlog.History or pqlog.Batch
        The same without asyncio.
    """

    def __init__(self, sync: R, bridge: Bridge) -> None:
        self.sync, self._bridge = sync, bridge

    async def to_pandas(self, *args: Any, **options: Any) -> pandas.DataFrame:
        """The messages as a DataFrame; see `pqlog.History.to_pandas`.

        Examples
        --------
        >>> import asyncio, pqlog.aio
        >>> async def main():
        ...     async with pqlog.aio.open(":memory:") as log:
        ...         await log.put_many([{"n": 1}, {"n": 2}])
        ...         return (await log.history().to_pandas())["n"].tolist()
        >>> asyncio.run(main())
        [1, 2]
        """
        return await self._bridge.run(partial(self.sync.to_pandas, *args, **options))

    async def to_polars(self, *args: Any, **options: Any) -> polars.DataFrame:
        """The messages as a frame of polars; see `pqlog.History.to_polars`.

        Examples
        --------
        >>> import asyncio, pqlog.aio
        >>> async def main():
        ...     async with pqlog.aio.open(":memory:") as log:
        ...         await log.put_many([{"n": 1}, {"n": 2}])
        ...         return (await log.history().to_polars())["n"].to_list()
        >>> asyncio.run(main())
        [1, 2]
        """
        return await self._bridge.run(partial(self.sync.to_polars, *args, **options))

    async def to_arrow(self, *args: Any, **options: Any) -> pyarrow.Table:
        """The messages as a table of Arrow; see `pqlog.History.to_arrow`.

        Examples
        --------
        >>> import asyncio, pqlog.aio
        >>> async def main():
        ...     async with pqlog.aio.open(":memory:") as log:
        ...         await log.put_many([{"n": 1}, {"n": 2}])
        ...         return (await log.history().to_arrow()).num_rows
        >>> asyncio.run(main())
        2
        """
        return await self._bridge.run(partial(self.sync.to_arrow, *args, **options))

    async def to_parquet(self, *args: Any, **options: Any) -> Any:
        """Write the messages to Parquet files; see `pqlog.History.to_parquet`.

        Examples
        --------
        >>> import asyncio, pqlog.aio, tempfile
        >>> async def main():
        ...     async with pqlog.aio.open(":memory:") as log:
        ...         await log.put_many([{"n": 1}, {"n": 2}])
        ...         return len(await log.history().to_parquet(tempfile.mkdtemp()))
        >>> asyncio.run(main())
        1
        """
        return await self._bridge.run(partial(self.sync.to_parquet, *args, **options))


class History(AsFrames[history.History]):
    """A lazy range of a topic, created by ``log.history(...)``: ``async for message in history``.

    Examples
    --------
    >>> import asyncio, pqlog.aio
    >>> async def main():
    ...     async with pqlog.aio.open(":memory:") as log:
    ...         await log.put_many(list("abc"))
    ...         return [message.value async for message in log.history(since="1h")]
    >>> asyncio.run(main())
    ['a', 'b', 'c']
    """

    def __aiter__(self) -> AsyncIterator[Message]:
        return iterated(self._bridge, lambda: iter(self.sync))

    def values(self) -> AsyncIterator[Any]:
        """The values of the messages.

        Examples
        --------
        >>> import asyncio, pqlog.aio
        >>> async def main():
        ...     async with pqlog.aio.open(":memory:") as log:
        ...         await log.put_many(list("abc"))
        ...         return [value async for value in log.history().values()]
        >>> asyncio.run(main())
        ['a', 'b', 'c']
        """
        return iterated(self._bridge, self.sync.values)

    def latest(self, by: str = "key") -> History:
        """The latest message of each key; see `pqlog.History.latest`.

        Examples
        --------
        >>> import asyncio, pqlog.aio
        >>> async def main():
        ...     async with pqlog.aio.open(":memory:") as log:
        ...         await log.put_many([{"city": "Brno", "n": 1}, {"city": "Brno", "n": 2}], key="city")
        ...         return [message.value["n"] async for message in log.history().latest()]
        >>> asyncio.run(main())
        [2]
        """
        return History(self.sync.latest(by), self._bridge)

    async def count(self) -> int:
        """How many messages it has, as ``len`` of a `pqlog.History`.

        Examples
        --------
        >>> import asyncio, pqlog.aio
        >>> async def main():
        ...     async with pqlog.aio.open(":memory:") as log:
        ...         await log.put_many(list("abc"))
        ...         return await log.history().count()
        >>> asyncio.run(main())
        3
        """
        return await self._bridge.run(self.sync.__len__)
