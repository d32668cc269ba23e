"""Between an event loop and the log: calls run in a few threads, puts are sent, and one thread waits for all readers.

A coroutine that is cancelled never leaves a call of it half known: what has not begun is not done, and what has is
awaited, so that its `asyncio.CancelledError` can say how it ended.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from pqlog.errors import ClosedError
from pqlog.sender import MOST, Sender, Sent
from pqlog.store.values import Single

T = TypeVar("T")

THREADS = 8
"""How many calls run at once, as many as queries of a file; puts need none of them."""
SENT = MOST // 2
"""How many puts are under way at most: the others wait in the loop, which `Sender.send` would block."""
FULL_S = 0.001
"""How soon a put looks again for room that threads have taken."""


class Bridge:
    """What an open log needs in an event loop: the running one."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._name = name
        self._threads = ThreadPoolExecutor(THREADS, "pqlog-aio")
        self._room = asyncio.Semaphore(SENT)
        self._done: deque[asyncio.Future[None]] = deque()
        """Those that are to be told: all that come until the loop looks share one wake-up of it."""
        self._is_called = self.is_closed = False

    async def run(self, call: Callable[[], T]) -> T:
        """Call something in a thread.

        Raises
        ------
        asyncio.CancelledError
            Nothing was done; or it was too late, and its attribute ``outcome`` is a finished future of what was.
        """
        try:
            future = self._threads.submit(call)
        except RuntimeError as error:
            raise ClosedError(f"{self._name} was closed") from error
        return await self.outcome(future)

    async def put(self, sender: Sender, single: Single) -> Any:
        """Send a message, and wait until it is durable; cancelled as in `run`."""
        async with self._room:
            while (sent := sender.try_send(single)) is None:
                await asyncio.sleep(FULL_S)
            return await self.outcome(sent)

    async def outcome(self, future: Future[T] | Sent) -> T:
        """The result of a call that another thread does."""
        try:
            if not future.done():
                await self._until_done(future)
        except asyncio.CancelledError as error:
            if not future.cancel():
                await self._too_late(future, error)
            raise
        return future.result()

    async def _too_late(self, future: Future[Any], cancelled: asyncio.CancelledError) -> None:
        """Wait for what has begun, and note how it ended."""
        try:
            await self._until_done(future)
        except asyncio.CancelledError:
            cancelled.add_note("It was too late to cancel the call, and it is not known how it ended: cancelled twice")
            return
        failed = future.exception()
        cancelled.add_note(
            f"It was too late to cancel the call, which returned {future.result()!r}"
            if failed is None
            else f"It was too late to cancel the call, which raised {type(failed).__name__}: {failed}"
        )
        cancelled.outcome = future  # type: ignore[attr-defined]

    async def _until_done(self, future: Future[Any]) -> None:
        waiter = self._loop.create_future()
        future.add_done_callback(lambda _: self.wake(waiter))
        await waiter

    def wake(self, *waiters: asyncio.Future[None]) -> None:
        """From any thread: let coroutines go on."""
        self._done.extend(waiters)
        if not self._is_called:
            self._is_called = True
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits
                self._loop.call_soon_threadsafe(self._wake_all)

    def _wake_all(self) -> None:
        self._is_called = False  # first: what comes now calls again
        while self._done:
            waiter = self._done.popleft()
            if not waiter.done():
                waiter.set_result(None)

    async def close(self) -> None:
        """Wait for the calls that run, and take no more."""
        self.is_closed = True
        await asyncio.to_thread(self._threads.shutdown)
