"""Whether an open file still lies where its path says: puts into a file that was moved or deleted would be lost."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Sequence

from pqlog.store.sqlite import inotify

_LINUX = sys.platform == "linux" and os.path.isdir("/proc/self/fd")


class Place:
    """The database and its -wal as they were when they were opened.

    A plain ``os.stat`` before each put would do, but whoever asks a file for its times makes the next write renew them
    (multigrain timestamps, Linux 6.13), and the next fdatasync then has an inode to write too: measured, 117 µs a put
    became 160 µs. So on Linux inotify tells whether anything happened to the files (0.4 µs a question), and only then
    an O_PATH descriptor of each is asked for its name (2.5 µs each). Such a descriptor takes no part in POSIX locks,
    so closing it drops none of SQLite's.

    Parameters
    ----------
    paths : Sequence of str
        The files; they exist.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = [os.path.realpath(path) for path in paths]
        self._held = [os.open(path, os.O_PATH) for path in self._paths] if _LINUX else []
        self._events = inotify.watch(self._paths, inotify.GONE)
        self._poll = None
        if self._events is not None:
            self._poll = select.poll()
            self._poll.register(self._events, select.POLLIN)
        self._was = self._look()

    def unchanged(self) -> bool:
        """Whether each file is still the one at its path."""
        if self._poll is not None:
            if not self._poll.poll(0):
                return True
            os.read(self._events or 0, 65536)
            if self._look() != self._was:
                self._poll = None  # and stay so: ask the files each time from now on
        return self._look() == self._was

    def close(self) -> None:
        """Let go."""
        for fd in self._held:
            os.close(fd)
        if self._events is not None:
            os.close(self._events)
        self._held, self._events, self._poll = [], None, None

    def _look(self) -> list[object]:
        if _LINUX:
            return [os.readlink(f"/proc/self/fd/{fd}") for fd in self._held]
        try:
            return [(stat.st_dev, stat.st_ino) for stat in map(os.stat, self._paths)]
        except FileNotFoundError:
            return []
