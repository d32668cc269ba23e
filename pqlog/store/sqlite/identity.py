"""Whether an open file still lies where its path says: puts into a file that was moved or deleted would be lost."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Sequence
from pathlib import Path

from pqlog.store.sqlite import inotify

_LINUX = sys.platform == "linux" and os.path.isdir("/proc/self/fd")


class FileIdentity:
    """The database and its -wal as they were when they were opened.

    A plain ``os.stat`` before each put would do, but asking a file for its times makes the next write renew them
    (multigrain timestamps, Linux 6.13), and the next fdatasync then has an inode to write too: measured, 117 µs a put
    became 160 µs. So on Linux inotify tells whether anything happened to the files or to a folder above them, and the
    table of mounts whether something was mounted (together 0.6 µs a question); only then the files are looked at. Each
    is held by an O_PATH descriptor, so that no other file gets its inode number meanwhile; such a descriptor takes no
    part in POSIX locks, so closing it drops none of SQLite's.

    Parameters
    ----------
    paths : Sequence of str
        The files; they exist.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._descriptors: list[int] = []
        self._paths = [os.path.realpath(path) for path in paths]
        self._poll: select.poll | None = None
        self._events, self._moved = -1, False
        if _LINUX:
            for path in self._paths:
                self._descriptors.append(os.open(path, os.O_PATH | os.O_CLOEXEC))
        self.identity = [identity(path) for path in self._paths]
        """Device and inode of each file."""
        if _LINUX:
            self._watch()

    def _watch(self) -> None:
        folders = {str(folder): inotify.MOVED for path in self._paths for folder in Path(path).parents}
        events = inotify.watch({**folders, **dict.fromkeys(self._paths, inotify.GONE)})
        if events is None:
            return
        self._descriptors.append(events)
        with contextlib.suppress(OSError):
            mounts = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
            self._descriptors.append(mounts)
            self._events, self._poll = events, select.poll()
            self._poll.register(events, select.POLLIN)
            self._poll.register(mounts, select.POLLPRI)

    def unchanged(self) -> bool:
        """Whether each file is still the one at its path."""
        if self._poll is None:
            return self._look()
        if not self._poll.poll(0) and not self._moved:
            return True
        with contextlib.suppress(BlockingIOError):
            os.read(self._events, 65536)
        self._moved = not self._look()  # a change of the mounts is told once only
        return not self._moved

    def _look(self) -> bool:
        return [identity(path) for path in self._paths] == self.identity

    def close(self) -> None:
        """Let go."""
        self._poll = None
        while self._descriptors:
            os.close(self._descriptors.pop())

    def __del__(self) -> None:
        if hasattr(self, "_descriptors"):  # Ctrl-C may strike before it is
            self.close()


def identity(path: str) -> tuple[int, int] | None:
    """Device and inode of the file at a path; None if there is no file."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_dev, stat.st_ino
