"""Sealing by itself: a thread that turns old messages into pieces while puts go on.

It waits until nobody in this process puts: a put meanwhile would wait for the interpreter's lock. Only when a million
messages are due does it go on beside puts, a tenth of the time at most, which is enough for 30,000 messages a second.
Sealing 16,384 messages takes it about 40 ms, in small steps after each of which it lets others go on: a put waits for
the longest step, about 2 ms, or for one transaction of a few milliseconds.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

import apsw

from pqlog.errors import Error
from pqlog.store import sealed
from pqlog.store.sqlite import sealing

if TYPE_CHECKING:
    from pqlog.store.sqlite.topic import SqliteTopic

KEPT = 100_000
"""The newest messages of a partition stay as they are."""
DUE = KEPT + sealed.MAX_ROWS
"""From so many on there is a piece to seal."""
QUIET_S, PAUSE_S = 0.5, 0.05
"""It begins when nobody in this process has put for so long, and pauses for so long between two pieces."""
MOST = KEPT + 1_000_000
"""From so many on it does not wait for that any longer."""
BUSY = 10
"""While others put, it pauses for so many times as long as a piece took."""
REST_S = 0.0001
LOOK_EVERY = 1024
"""Single puts between two looks at whether there is a piece to seal."""


class _Closed(Exception):
    """The log is being closed."""


class Sealer:
    """Seals what is due of the partitions that are put into."""

    def __init__(self, is_on: bool) -> None:
        self.is_on = is_on
        self.commits = 0
        """Counts the commits of this process."""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._due: dict[SqliteTopic, None] = {}
        self._closed = threading.Event()

    def look(self, topic: SqliteTopic, stop: int) -> None:
        """A partition has messages up to an offset: start the thread if it has a piece to seal."""
        if not self.is_on or stop - topic.looked_to <= DUE:
            return
        with self._lock:
            self._due[topic] = None
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._run, name="pqlog-seal", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:  # the interpreter is shutting down, or has no threads left
                    self._thread = None

    def close(self) -> None:
        """Let the thread end."""
        self._closed.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def forked(self) -> None:
        """In a forked child: the thread is the parent's."""
        self._lock, self._thread, self._due = threading.Lock(), None, {}

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._due or self._closed.is_set():
                    self._thread = None
                    return
                topic = next(iter(self._due))
                del self._due[topic]
            # What fails, on a full disk say, leaves the messages as they were; the next look tries again.
            with contextlib.suppress(apsw.Error, Error, _Closed):
                self._seal(topic)

    def _seal(self, topic: SqliteTopic) -> None:
        pause = QUIET_S
        while True:
            seen = self.commits
            self._closed.wait(pause)
            self._rest()
            stop = topic.span().stop
            if stop - topic.looked_to <= DUE:
                return
            is_quiet = self.commits == seen
            if not is_quiet and stop - topic.looked_to <= MOST:
                pause = QUIET_S
                continue
            began = time.monotonic()
            least = min(sealed.MAX_ROWS // 2, DUE - KEPT)
            _, topic.looked_to = sealing.step(topic, topic.looked_to, stop - KEPT, least, self._rest)
            pause = PAUSE_S if is_quiet else BUSY * (time.monotonic() - began)

    def _rest(self) -> None:
        if self._closed.is_set():
            raise _Closed
        time.sleep(REST_S)  # whoever waits for the interpreter's lock gets it, as after a pause of 0 they might not
