"""A disk that keeps what was synced, and a random part of the rest.

`Disk` is a SQLite VFS over real files in a real folder: shared memory, locks and several connections work as usual. It
records each write, truncation, sync, creation and deletion as an *event*. From the events up to some moment, `Disk.cut`
makes the files that a power cut at that moment could leave:

- everything that a sync of a file covered is there;
- each later write is there or not, in any order, in full or only some of its sectors of 512 bytes;
- a file that was created, renamed or deleted since the last sync of its folder is there or not;
- what a *failed* sync should have covered is there or not, and no later sync changes that: the system marked those
  pages as clean (https://danluu.com/fsyncgate/), though reading them still gives what was written.

A disk can also fail on request: a `Fault` says which operations raise what.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
from unittest import mock

import apsw

from pqlog import atomic
from pqlog.store.sqlite import wal

SECTOR = 512
BASE = apsw.vfs_names()[0]
_numbers = itertools.count(1)


class Event(NamedTuple):
    """Something that was done to a file."""

    kind: str
    """create, delete, rename, write, truncate, sync, failed sync, sync folder; returned"""
    name: str
    """The name of the file or folder; for a renamed file, the new name."""
    file: int = 0
    """Distinguishes files of the same name: a deleted one and a new one are different."""
    at: int = 0
    """The offset of a write, or the length of a truncation."""
    data: bytes = b""


@dataclass
class Fault:
    """Lets operations fail.

    Parameters
    ----------
    kinds : tuple of str
        Which: read, write, sync, truncate.
    number : int
        The first that fails, counted from 0.
    lasting : bool
        Whether all later ones fail too.
    full : bool
        Fail like a full disk (ENOSPC) instead of a broken one (EIO).
    spoils : callable, optional
        Makes what a failing read returns, instead of an error.
    """

    kinds: tuple[str, ...]
    number: int
    lasting: bool = False
    full: bool = False
    spoils: Callable[[bytes], bytes] | None = None
    seen: int = 0
    struck: int = 0

    def strikes(self, kind: str) -> bool:
        """Whether this operation fails."""
        if kind not in self.kinds:
            return False
        self.seen += 1
        hit = self.seen > self.number if self.lasting else self.seen == self.number + 1
        self.struck += hit
        return hit

    def error(self, kind: str) -> Exception:
        """The error that it fails with."""
        if self.full and kind != "sync":
            return apsw.exception_for(apsw.SQLITE_FULL)
        code = {
            "read": apsw.SQLITE_IOERR_READ,
            "write": apsw.SQLITE_IOERR_WRITE,
            "sync": apsw.SQLITE_IOERR_FSYNC,
            "truncate": apsw.SQLITE_IOERR_TRUNCATE,
        }[kind]
        return apsw.exception_for(code)


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: object, flags: list[int]) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        self.disk, self.name = disk, disk.name(path)
        with disk.in_order():
            created = not os.path.exists(path)
            super().__init__(BASE, name, flags)
            self.file = disk.opened(self.name, created)
        # unixOpen in os_unix.c: a journal that it creates has its folder synced with its own first sync
        journal = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL
        self.syncs_folder = created and bool(flags[1] & journal or flags[0] & journal)

    def _do(self, kind: str, at: int, data: bytes, work: Callable[[], object]) -> None:
        with self.disk.in_order():
            fault = self.disk.fault
            if fault is not None and fault.strikes(kind):
                if kind == "write":  # some of it may have got there
                    half = data[: len(data) // SECTOR // 2 * SECTOR]
                    if half:
                        super().xWrite(half, at)
                        self.disk.events.append(Event(kind, self.name, self.file, at, half))
                elif kind == "sync":
                    self.disk.events.append(Event("failed sync", self.name, self.file))
                raise fault.error(kind)
            work()
            self.disk.events.append(Event(kind, self.name, self.file, at, data))

    def xRead(self, amount, offset):
        data, fault = super().xRead(amount, offset), self.disk.fault
        if fault is None or not fault.strikes("read"):
            return data
        if fault.spoils is None:
            raise fault.error("read")
        return fault.spoils(data)

    def xWrite(self, data, offset):
        self._do("write", offset, bytes(data), lambda: super(_File, self).xWrite(data, offset))

    def xTruncate(self, size):
        self._do("truncate", size, b"", lambda: super(_File, self).xTruncate(size))

    def xSync(self, flags):
        # Syncing the real file would only cost time: what a cut leaves is computed from the events.
        self._do("sync", 0, b"", lambda: None)
        time.sleep(self.disk.sync_s)  # it does not cover writes that happen meanwhile
        if self.syncs_folder:
            self.syncs_folder = False
            self.disk.events.append(Event("sync folder", os.path.dirname(self.name)))


class _Vfs(apsw.VFS):
    """Registered under the disk's name, or as the default for callers that give no name."""

    def __init__(self, disk: Disk, default: str = "") -> None:
        self.disk = disk
        super().__init__(disk.vfs_name + default, BASE, makedefault=bool(default))

    def xOpen(self, name, flags):
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        if path is None or not self.disk.has(path):
            return super().xOpen(name, flags)  # temporary files do not survive a crash
        return _File(self.disk, name, flags)

    def xDelete(self, name, sync_folder):
        with self.disk.in_order():
            super().xDelete(name, sync_folder)
            if self.disk.has(name):
                self.disk.events.append(Event("delete", self.disk.name(name)))
                if sync_folder:
                    self.disk.events.append(Event("sync folder", os.path.dirname(self.disk.name(name))))


@dataclass
class Disk:
    """A folder whose files are recorded from the creation of this object on.

    Parameters
    ----------
    folder : Path
        What it already contains is durable.
    sync_s : float
        How long a sync takes, in seconds: in the meantime other threads queue.
    """

    folder: Path
    sync_s: float = 0.0
    fault: Fault | None = None
    events: list[Event] = field(default_factory=list)
    _files: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.vfs_name = f"simulated-{next(_numbers)}"
        self._begin = self._found()
        self._files = {name: next(_numbers) for name in self._begin}
        self._first = dict(self._files)
        self._vfs = _Vfs(self)
        self._order = threading.RLock()

    def _found(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir() if not path.name.endswith("-shm")}

    def in_order(self) -> contextlib.AbstractContextManager[object]:
        """Held while an operation is executed and recorded, so that the events are in the order of execution."""
        return self._order

    def opened(self, name: str, created: bool) -> int:
        """The number of an opened file."""
        if created or name not in self._files:
            self._files[name] = next(_numbers)
            self.events.append(Event("create", name, self._files[name]))
        return self._files[name]

    def process_killed(self, folder: Path) -> Disk:
        """The disk that the next process finds, in a new folder, if this one is killed: all writes, synced or not."""
        folder.mkdir()
        for path in self.folder.iterdir():
            if not path.name.endswith("-shm"):
                (folder / path.name).write_bytes(path.read_bytes())
        other = Disk(folder)
        other.events, other._begin = list(self.events), self._begin
        other._first, other._files = self._first, dict(self._files)
        return other

    @property
    def now(self) -> int:
        """The number of events so far."""
        return len(self.events)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Record everything that pqlog does in the folder, also without SQLite, and where no VFS can be passed.

        A -wal is extended to 40 pages only, since each page is an event.
        """

        def seen(path: str) -> int:
            name = self.name(path)
            if name not in self._files:  # it was not written through SQLite, so what it holds is seen only here
                self.events.append(Event("write", name, self.opened(name, True), 0, Path(path).read_bytes()))
            return self._files[name]

        def sync_file(path: str) -> None:
            real.sync_file(path)
            if self.has(path):
                self.events.append(Event("sync", self.name(path), seen(path)))

        def sync_folder(path: str) -> None:
            real.sync_folder(path)
            if self.has(path):
                self.events.append(Event("sync folder", os.path.dirname(self.name(path))))

        def rename(made: str, path: str, replace: bool) -> None:
            file = seen(made) if self.has(made) else 0
            real.rename(made, path, replace)
            if file:
                self._files[self.name(path)] = self._files.pop(self.name(made))
                self.events.append(Event("rename", self.name(path), file))

        def remove(path: str) -> None:
            real.remove(path)
            if self.has(path):
                self._files.pop(self.name(path), None)
                self.events.append(Event("delete", self.name(path)))

        recorded = {one.__name__: one for one in (sync_file, sync_folder, rename, remove)}
        real = SimpleNamespace(**{name: getattr(atomic, name) for name in recorded})
        before, default = apsw.vfs_names()[0], _Vfs(self, "default")
        with short_logs(), mock.patch.multiple(atomic, **recorded):
            try:
                yield
            finally:
                default.unregister()
                apsw.set_default_vfs(before)  # otherwise it would be the one registered last, perhaps that of a disk

    def has(self, path: str) -> bool:
        """Whether a file is in this folder."""
        return os.path.abspath(path).startswith(f"{self.folder}{os.sep}")

    def name(self, path: str) -> str:
        """The name of a file in this folder."""
        return os.path.relpath(path, self.folder)

    def cut(self, at: int, chance: random.Random) -> dict[str, bytes]:
        """The files that a power cut after `at` events leaves, one of many possibilities."""
        files = {self._first[name]: _Content(bytearray(data)) for name, data in self._begin.items()}
        names, waiting = dict(self._first), []
        for event in self.events[:at]:
            match event.kind:
                case "create" | "delete" | "rename":
                    waiting.append(event)
                    if event.kind == "create":
                        files[event.file] = _Content(bytearray())
                case "sync folder":
                    _rename(names, [one for one in waiting if os.path.dirname(one.name) == event.name])
                    waiting = [one for one in waiting if os.path.dirname(one.name) != event.name]
                case "returned":
                    pass
                case _:
                    files[event.file].take(event)
        likely = chance.choice([0, 1, 0.5, 0.5, 0.1, 0.9])
        _rename(names, [event for event in waiting if chance.random() < likely])
        return {name: files[file].cut(likely, chance) for name, file in names.items()}


def _rename(names: dict[str, int], events: list[Event]) -> None:
    for event in events:
        if event.kind == "delete":
            names.pop(event.name, None)
        else:
            if event.kind == "rename":
                for name in [name for name, file in names.items() if file == event.file]:
                    del names[name]
            names[event.name] = event.file


@dataclass
class _Content:
    """A file's durable bytes, and the events since."""

    durable: bytearray
    waiting: list[Event] = field(default_factory=list)
    doubtful: list[Event] = field(default_factory=list)
    """What a failed sync should have covered."""

    def take(self, event: Event) -> None:
        if event.kind == "sync":
            # A failed sync loses data, not sizes; a sector that was written to since is rewritten in full.
            if self.doubtful:
                over = [(_start(one), one.at + len(one.data)) for one in self.waiting if one.kind == "write"]
                doubtful, self.doubtful = self.doubtful, []
                for one in doubtful:
                    if one.kind == "truncate" or any(first <= one.at < stop for first, stop in over):
                        self._apply(self.durable, one)
                    else:
                        self.doubtful.append(one)
            for one in self.waiting:
                self._apply(self.durable, one)
                if one.kind == "truncate":
                    self.doubtful = [other for other in self.doubtful if other.at < one.at]
            self.waiting.clear()
        elif event.kind == "failed sync":
            self.doubtful += itertools.chain.from_iterable(map(_sectors, self.waiting))
            self.waiting.clear()
        else:
            self.waiting.append(event)

    def cut(self, likely: float, chance: random.Random) -> bytes:
        left = bytearray(self.durable)
        for group in (self.doubtful, self.waiting):
            survivors = [event for event in group if chance.random() < likely]
            if 0 < likely < 1 and chance.random() < 0.5:
                chance.shuffle(survivors)
            for event in survivors:
                torn = chance if 0 < likely < 1 and chance.random() < 0.2 else None
                self._apply(left, event, torn)
        return bytes(left)

    @staticmethod
    def _apply(content: bytearray, event: Event, torn: random.Random | None = None) -> None:
        if event.kind == "truncate":
            del content[event.at :]
            content.extend(bytes(event.at - len(content)))
            return
        for start in range(0, len(event.data), SECTOR):
            if torn is not None and torn.random() < 0.5:
                continue
            part, at = event.data[start : start + SECTOR], event.at + start
            if len(content) < at + len(part):
                content.extend(bytes(at + len(part) - len(content)))
            content[at : at + len(part)] = part


def _start(event: Event) -> int:
    """The start of the sector in which a write begins: a disk writes whole sectors."""
    return event.at // SECTOR * SECTOR


def _sectors(event: Event) -> Iterator[Event]:
    """A write, split into writes of one sector each."""
    if event.kind != "write":
        yield event
        return
    at, stop = event.at, event.at + len(event.data)
    while at < stop:
        end = min(stop, (at // SECTOR + 1) * SECTOR)
        yield event._replace(at=at, data=event.data[at - event.at : end - event.at])
        at = end


def errors_are_quiet() -> contextlib.AbstractContextManager[object]:
    """APSW also reports an exception in a VFS as unraisable; here they are intended."""
    return mock.patch("sys.unraisablehook")


def short_logs() -> contextlib.AbstractContextManager[object]:
    """A -wal is extended to 40 pages only."""
    return mock.patch.object(wal, "SIZE", wal.HEADER + 40 * (wal.FRAME_HEADER + 4_096))


def write(folder: Path, files: dict[str, bytes]) -> None:
    """Put the files that a cut left into a new folder."""
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
