"""The log for asyncio: the same names, awaited. No task blocks the loop, and none needs a thread of its own.

Puts of many tasks share their syncs. What is not here is called in a thread, through ``log.sync``, the `pqlog.Log`
beneath: ``await asyncio.to_thread(log.sync.trim, "30d")``.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from types import TracebackType
from typing import Any

from pqlog import files
from pqlog.aio.bridge import Bridge
from pqlog.aio.client import Batch, Client
from pqlog.aio.history import History
from pqlog.aio.log import Log, Topic
from pqlog.codecs import Codec

__all__ = ["Batch", "Client", "History", "Log", "Topic", "open"]


class _Opening:
    """What `open` returns: for ``async with``, or to be awaited."""

    def __init__(self, path: str | os.PathLike[str], options: dict[str, Any]) -> None:
        self._path, self._options = path, options
        self._log: Log | None = None

    def __await__(self) -> Generator[Any, None, Log]:
        return self._open().__await__()

    async def _open(self) -> Log:
        bridge = Bridge(str(self._path))
        try:
            return Log(await bridge.run(lambda: files.open(self._path, **self._options)), bridge)
        except BaseException:
            await bridge.close()
            raise

    async def __aenter__(self) -> Log:
        self._log = await self._open()
        return self._log

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._log is not None:
            await self._log.__aexit__(kind, error, trace)


def open(
    path: str | os.PathLike[str], topic: str = "main", codec: str | Codec | None = None, **options: Any
) -> _Opening:
    """Open a log in the running event loop; for ``async with``, which closes it, or to be awaited.

    Parameters
    ----------
    path, topic, codec, **options
        As for `pqlog.open`.

    Returns
    -------
    Log

    Examples
    --------
    >>> import asyncio, pqlog.aio
    >>> async def main():
    ...     async with pqlog.aio.open(":memory:") as log:
    ...         offsets = await asyncio.gather(*(log.put({"n": n}) for n in range(100)))
    ...         values = [value async for value in log.get("billing", ack_every=10)]
    ...     return offsets[-1], values[-1]
    >>> asyncio.run(main())
    (100, {'n': 99})
    """
    return _Opening(path, {"topic": topic, "codec": codec, **options})
