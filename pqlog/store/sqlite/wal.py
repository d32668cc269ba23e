"""The write-ahead log as a file: whether it is whole, whether what can be read of it is durable, and its size.

What is read and written here goes through the VFS, beside SQLite's own descriptors: it has no POSIX locks on a -wal,
and keeps those on a database when another descriptor of its own is closed. What is in a -wal is told by
https://sqlite.org/fileformat2.html#walformat.
"""

from __future__ import annotations

import contextlib
import itertools
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

import apsw

from pqlog import atomic
from pqlog.errors import CorruptLogError
from pqlog.store.sqlite.connections import fetch_one, retry_busy, size

HEADER, FRAME_HEADER = 32, 24
PIECE = 4_096

SIZE = HEADER + 1_000 * (FRAME_HEADER + PIECE)
"""1,000 pages, after which SQLite begins again at the front."""


def settle(db: apsw.Connection, path: str, vfs: str | None, timeout_s: float) -> None:
    """Make durable whatever can be read, before the first promise is made on top of it.

    After a failed sync a commit that raised may still lie in the page cache, and the system takes its pages for clean:
    no later sync writes them (https://danluu.com/fsyncgate/). A re-opened log would take it for committed and append
    behind it; a power cut then loses puts that had returned (60 of 384 replayed states; with this, none).

    So the frames that can be read are written once more, as they are and where they are, and synced. Readers see the
    same bytes all the while and need not leave; the write lock keeps those out who append, and those who begin the
    log again at its front. A frame that is committed meanwhile was synced by whoever did so.
    """
    frames, _ = retry_busy(lambda: db.wal_checkpoint(None, apsw.SQLITE_CHECKPOINT_NOOP), timeout_s)
    if frames > 0:
        end = HEADER + frames * (FRAME_HEADER + _page_size(db))

        def write_again(file: apsw.VFSFile) -> None:
            for at in range(0, end, PIECE):
                file.xWrite(file.xRead(min(PIECE, end - at), at), at)
            file.xSync(apsw.SQLITE_SYNC_FULL)

        _while_nobody_appends(db, path, vfs, timeout_s, write_again)
    atomic.sync_folder(path)


def extend(db: apsw.Connection, path: str, vfs: str | None, timeout_s: float) -> None:
    """Give the -wal its usual size at once, as zeros.

    While it still grows, each sync has the file's new size to write too: the first thousand puts took 230 µs each in
    place of 145. SQLite takes zeros for the remains of an older log, as it does whatever lies behind a log's end. The
    write lock is held meanwhile, so that nobody appends.
    """
    if size(path + "-wal") >= SIZE:
        return

    def write_zeros(file: apsw.VFSFile) -> None:
        # It may just have been cut off. Unless that is durable, a power cut can leave some of the zeros amid frames
        # that were cut off, and so an old beginning of the log over a newer database (60 of 300 states).
        file.xSync(apsw.SQLITE_SYNC_FULL)
        # A page a write: after one large write each later sync took 8 µs more (measured; the cause may be the large
        # folios that Linux makes of it).
        for at in range(file.xFileSize(), SIZE, PIECE):
            file.xWrite(bytes(min(PIECE, SIZE - at)), at)
        file.xSync(apsw.SQLITE_SYNC_FULL)

    with contextlib.suppress(apsw.FullError, apsw.IOError, apsw.CantOpenError):  # it grows as it is written, or says so
        _while_nobody_appends(db, path, vfs, timeout_s, write_zeros)


def check(db: apsw.Connection, path: str, vfs: str | None, timeout_s: float) -> None:
    """Raise if commits that were durable cannot be read any more.

    SQLite takes the first frame whose checksum does not fit for the end: after a power cut it is. Behind that end lie
    frames of commits that were torn, or whose writers were killed. But each commit is synced before the next is
    written, and the checksum of each frame goes on from that of the frame before: so a commit from which another frame
    goes on was durable, and what broke is the disk, not the current.
    """
    read, lost = retry_busy(lambda: _lost(db, path, vfs), timeout_s)
    if lost:
        raise CorruptLogError(
            f"{path}-wal is damaged behind its frame {read}: commits there that were durable cannot be read. Nothing "
            f"was changed. Restore a backup of both files, or copy what can be read with pqlog.salvage(path, to)"
        )


def _lost(db: apsw.Connection, path: str, vfs: str | None) -> tuple[int, bool]:
    """The last frame that SQLite reads, and whether a commit behind it was durable.

    Raises BusyError at once, whatever the busy handler, while another process recovers the log or runs a checkpoint.
    """
    if size(path + "-wal") <= HEADER:
        return 0, False
    with _opened(path + "-wal", vfs, apsw.SQLITE_OPEN_READONLY) as file:
        log = _Log(file, _page_size(db))
        read = _frames_read(db, log)
        commits = [number for number in range(read + 1, log.last) if log.ends(number) and log.is_current(number + 1)]
        if not any(map(log.was_durable, commits)):
            return read, False
        if read == 0 and log.is_whole:  # it may be about to begin again at its front: all of it is in the database then
            whole = log.followed()
            with _opened(path, vfs, apsw.SQLITE_OPEN_READONLY) as database:
                if log.is_checkpointed(database, whole) and not any(log.was_durable(n) for n in commits if n > whole):
                    return read, False
        changed = file.xRead(HEADER, 0) != log.header or _frames_read(db, _Log(file, _page_size(db))) != read
        return read, not changed  # if it did, others are at work, who read it


def _frames_read(db: apsw.Connection, log: _Log) -> int:
    """The last frame that SQLite reads."""
    try:
        return db.wal_checkpoint(None, apsw.SQLITE_CHECKPOINT_NOOP)[0]
    except apsw.ReadOnlyError:  # it does not say where it cannot write: up to the last commit, as a recovery does
        return log.committed()


class _Frame(NamedTuple):
    """A frame's header."""

    page: int
    commits: int
    """How many pages the database has with the commit that it ends; 0 if it ends none."""
    salts: bytes
    checksum: bytes


class _Log:
    """The frames that lie in a file, whether SQLite reads them or not; they are numbered from 1."""

    def __init__(self, file: apsw.VFSFile, page: int) -> None:
        self._file, self._length = file, FRAME_HEADER + page
        self.header = file.xRead(HEADER, 0).ljust(HEADER, b"\0")
        self._order = ">" if self.header[3] & 1 else "<"
        self.last = max(0, file.xFileSize() - HEADER) // self._length
        self._frames = [self._frame(number) for number in range(1, self.last + 1)]
        whole = self._sum(self.header[:24], bytes(8)) == self.header[24:]
        self.is_whole = whole and self.header[:4] in (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
        self._salts = self.header[16:24] if self.is_whole or not self._frames else self._frames[0].salts

    def _at(self, number: int) -> int:
        return HEADER + (number - 1) * self._length

    def _frame(self, number: int) -> _Frame:
        return _Frame(*struct.unpack(">2I8s8s", self._file.xRead(24, self._at(number)).ljust(24, b"\0")))

    def ends(self, number: int) -> bool:
        """Whether a frame ends a commit."""
        return self._frames[number - 1].commits > 0

    def is_current(self, number: int) -> bool:
        """Whether a frame was written since the log last began at its front."""
        return self._frames[number - 1].salts == self._salts

    def follows(self, number: int) -> bool:
        """Whether a frame goes on from the one before it."""
        return self.is_current(number) and self._expected(number, self._checksum(number - 1)) == self._checksum(number)

    def was_durable(self, commit: int) -> bool:
        """Whether the next frame goes on from a commit: as it says of itself, or as it is."""
        after = commit + 1
        said, computed = self._checksum(commit), self._expected(commit, self._checksum(commit - 1))
        return any(self._expected(after, before) == self._checksum(after) for before in (said, computed))

    def followed(self) -> int:
        """How many frames go on from each other, from the first."""
        return sum(1 for _ in itertools.takewhile(self.follows, range(1, self.last + 1)))

    def committed(self) -> int:
        """The last commit that goes on from all before it; 0 if there is none."""
        return max(filter(self.ends, range(1, self.followed() + 1)), default=0)

    def is_checkpointed(self, database: apsw.VFSFile, frames: int) -> bool:
        """Whether all that so many frames say of pages is in the database file."""
        newest: dict[int, int] = {}
        under_way: dict[int, int] = {}
        for number in range(1, frames + 1):
            under_way[self._frames[number - 1].page] = number
            if self.ends(number):
                newest |= under_way
                newest = {page: one for page, one in newest.items() if page <= self._frames[number - 1].commits}
                under_way = {}
        size = self._length - FRAME_HEADER
        return all(
            database.xRead(size, (page - 1) * size) == self._file.xRead(size, self._at(number) + FRAME_HEADER)
            for page, number in newest.items()
        )

    def _checksum(self, number: int) -> bytes:
        return self._frames[number - 1].checksum if number else self.header[24:]

    def _expected(self, number: int, before: bytes) -> bytes:
        frame = self._file.xRead(self._length, self._at(number))
        return self._sum(frame[:8] + frame[FRAME_HEADER:], before) if len(frame) == self._length else b""

    def _sum(self, data: bytes, before: bytes) -> bytes:
        one, other = struct.unpack(">2I", before)
        words = struct.unpack(f"{self._order}{len(data) // 4}I", data)
        for first, second in zip(words[::2], words[1::2], strict=True):
            one = (one + first + other) & 0xFFFF_FFFF
            other = (other + second + one) & 0xFFFF_FFFF
        return struct.pack(">2I", one, other)


def _page_size(db: apsw.Connection) -> int:
    return int(fetch_one(db.execute("PRAGMA page_size"))[0])


@contextlib.contextmanager
def _opened(path: str, vfs: str | None, flags: int) -> Iterator[apsw.VFSFile]:
    kind = apsw.SQLITE_OPEN_WAL if path.endswith("-wal") else apsw.SQLITE_OPEN_MAIN_DB
    file = apsw.VFSFile(vfs or "", path, [kind | flags, 0])
    try:
        yield file
    finally:
        file.xClose()


def _while_nobody_appends(
    db: apsw.Connection, path: str, vfs: str | None, timeout_s: float, work: Callable[[apsw.VFSFile], object]
) -> None:
    """With the write lock, which also whoever would cut the log off or begin it again needs.

    Not a context manager made of a generator: that Ctrl-C can leave where it stands, to be ended by the collector when
    the connection is closed.
    """
    try:  # first, for Ctrl-C may strike behind the statement
        retry_busy(lambda: db.execute("BEGIN IMMEDIATE"), timeout_s)
        with _opened(path + "-wal", vfs, apsw.SQLITE_OPEN_READWRITE) as file:
            work(file)
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")
