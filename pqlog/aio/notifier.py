"""Waiting for messages in an event loop: one thread looks for all that wait, however many they are.

It looks at the ends of their topics, which is one query, whenever this process commits, and else at every tick. Other
news are a batch that somebody gave back, or a client that was moved: it asks for one client after the other, which
takes a small part of a processor.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from pqlog.aio.bridge import Bridge
from pqlog.errors import ClosedError, Error
from pqlog.store.api import Store, TopicStore
from pqlog.store.values import Span

TICK_S = 0.05
"""How soon the messages of other processes are noticed, where the system does not tell of them."""
IDLE_SHARE, ASKING_SHARE = 200, 400
"""Looking takes this part of a processor at most, and asking for each client that part."""
ASKING_S = 0.001
"""How long it asks at once, since those for whom there are messages wait for that."""
REVIEW_S = 5.0
"""How long one waiting lasts, before the ticks are adapted to what looking takes."""

Topics = tuple[TopicStore, ...]


@dataclass
class _Group:
    """Those that wait for the same: for the next message, or batch, of a client."""

    topics: Topics
    is_ready: Callable[[], bool]
    waiters: set[asyncio.Future[None]] = field(default_factory=set)


class Notifier:
    """Wakes coroutines when there may be something for them.

    Parameters
    ----------
    bridge : Bridge
    log : Store
    """

    def __init__(self, bridge: Bridge, log: Store) -> None:
        self._bridge, self._log = bridge, log
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._groups: dict[Topics, dict[Hashable, _Group]] = {}
        """Who waits, by the partitions that they wait for."""
        self._spans: dict[TopicStore, Span] = {}
        """What was kept of each partition when it was looked at last."""
        self._in_turn: deque[tuple[Topics, Hashable]] = deque()
        """The groups that are to be asked for, the next first."""
        self._ask_at = self._look_s = 0.0
        self._has_news = threading.Event()
        """Set when somebody begins to wait."""
        self._is_running = self._is_closed = False

    async def wait(self, topics: Sequence[TopicStore], who: Hashable, is_ready: Callable[[], bool]) -> None:
        """Wait until there may be something; `is_ready` is asked in other threads, and is the same for equal `who`."""
        waiter, key = self._loop.create_future(), tuple(topics)
        with self._lock:
            if self._is_closed:
                raise ClosedError(f"{self._log.name} was closed")
            group = self._groups.setdefault(key, {}).setdefault(who, _Group(key, is_ready))
            group.waiters.add(waiter)
            must_start, self._is_running = not self._is_running, True
        try:
            if must_start:
                threading.Thread(target=self._run, name="pqlog-notifier", daemon=True).start()
            self._has_news.set()
            if not await self._bridge.run(lambda: self._is_ready(key, is_ready)):
                await waiter
        finally:
            with self._lock:
                self._drop(key, who, waiter)

    def _is_ready(self, topics: Topics, is_ready: Callable[[], bool]) -> bool:
        """Whether it came before it was noted that somebody waits: what comes from now on differs from `_spans`."""
        if any(topic not in self._spans for topic in topics):
            for topic, span in zip(topics, self._log.spans(topics), strict=True):
                self._spans.setdefault(topic, span)
        return is_ready()

    def _drop(self, topics: Topics, who: Hashable, waiter: asyncio.Future[None]) -> None:
        group = self._groups.get(topics, {}).get(who)
        if group is not None:
            group.waiters.discard(waiter)
            if not group.waiters:
                del self._groups[topics][who]
                if not self._groups[topics]:
                    del self._groups[topics]

    def close(self) -> None:
        """Let all go on."""
        with self._lock:
            self._is_closed = True
            waiters = self._take(list(self._groups))
        self._has_news.set()
        self._bridge.wake(*waiters)

    def _take(self, keys: Sequence[Topics]) -> list[asyncio.Future[None]]:
        """Those that wait for some partitions: they are to be woken."""
        groups = [group for key in keys for group in self._groups.pop(key, {}).values()]
        return [waiter for group in groups for waiter in group.waiters]

    # the thread

    def _run(self) -> None:
        while True:
            self._has_news.clear()
            with self._lock:
                if self._is_closed:
                    return
                is_idle = not self._groups
            if is_idle:
                if not self._has_news.wait(REVIEW_S) and self._ends():
                    return
                continue
            try:
                self._log.wait(self._look, REVIEW_S, max(TICK_S, IDLE_SHARE * self._look_s))
            except Error:  # those that wait find it out themselves
                with self._lock:
                    waiters = self._take(list(self._groups))
                self._bridge.wake(*waiters)

    def _ends(self) -> bool:
        with self._lock:
            self._is_running = bool(self._groups)
            return not self._is_running

    def _look(self) -> bool:
        """Wake whoever may have something; True if nobody waits any more."""
        with self._lock:
            keys = list(self._groups)
        began = time.thread_time()
        topics = list(dict.fromkeys(topic for key in keys for topic in key))
        moved = set()
        for topic, span in zip(topics, self._log.spans(topics) if topics else (), strict=True):
            if self._spans.get(topic) != span:
                self._spans[topic] = span
                moved.add(topic)
        looked = time.thread_time()
        with self._lock:  # also those that have begun to wait meanwhile: they may have looked before the message came
            ready = self._take([key for key in self._groups if not moved.isdisjoint(key)]) if moved else []
        now = time.monotonic()
        if now >= self._ask_at:
            ready += self._ask(now + ASKING_S)
            self._ask_at = now + max(TICK_S, ASKING_SHARE * (time.thread_time() - looked))
        if ready:
            self._bridge.wake(*ready)
        self._look_s = time.thread_time() - began
        return self._is_closed or not self._groups

    def _ask(self, until: float) -> list[asyncio.Future[None]]:
        """Ask for some groups, each in its turn; those for whom there is something."""
        ready: list[asyncio.Future[None]] = []
        if not self._in_turn:
            with self._lock:
                self._in_turn.extend((key, who) for key, groups in self._groups.items() for who in groups)
        while self._in_turn and time.monotonic() < until:
            key, who = self._in_turn.popleft()
            group = self._groups.get(key, {}).get(who)
            if group is not None and group.is_ready():
                with self._lock:
                    ready += list(group.waiters)
                    for waiter in list(group.waiters):
                        self._drop(key, who, waiter)
        return ready
