"""What would break the promises without a word, looked for when a file is opened."""

from __future__ import annotations

import contextlib
import os
import re
import struct
import sys
import time
import warnings
from collections.abc import Iterable

import apsw

from pqlog.errors import CorruptLogError, NotALogError, UnsafeStorageError
from pqlog.store.sqlite.connections import patiently, row

# Their locks and syncs cannot be relied on, and the shared memory of a write-ahead log needs one machine. Folders that
# virtual machines share with their host are among them: the other side has a cache and locks of its own.
_NETWORK = {
    # file servers
    "9p", "afs", "cifs", "coda", "ncp", "ncpfs", "nfs", "nfs4", "smb2", "smb3", "smbfs",
    # clusters
    "acfs", "beegfs", "ceph", "cvfs", "fhgfs", "gfs", "gfs2", "gpfs", "lustre", "ocfs2", "orangefs", "panfs", "pvfs2",
    "wekafs",
    # folders of a host
    "drvfs", "fakeowner", "hgfs", "lxfs", "prl_fs", "vboxsf", "virtiofs", "vmhgfs",
}  # fmt: skip

# New ones appear all the time (s3fs, gcsfuse, rclone, juicefs, blobfuse2, mountpoint-s3 ...), most before a network or
# an object store: so all are refused but those known to keep their files on a disk of this machine.
_LOCAL_FUSE = {
    "apfs", "bindfs", "cryfs", "encfs", "exfat", "ext2", "fuse-overlayfs", "gocryptfs", "lklfuse", "mergerfs",
    "ntfs", "ntfs-3g", "securefs", "unionfs", "unionfs-fuse", "veracrypt", "zfs",
}  # fmt: skip


def check_disk(path: str) -> None:
    """Refuse a network file system."""
    kind = _file_system(os.path.dirname(path))
    if is_network(kind):
        raise UnsafeStorageError(
            f"{path} lies on a network file system ({kind}), where neither locks nor syncs can be relied on: "
            f"choose a local disk, or pass network=True if you know better"
        )


def is_network(kind: str) -> bool:
    """Whether a kind of file system is one of the network, or is not known to be none."""
    name, _, program = kind.partition(".")
    return kind in _NETWORK or (name == "fuse" and program not in _LOCAL_FUSE)  # fuseblk has a disk below it


def _file_system(folder: str) -> str:
    """The kind of the file system on which a folder lies; empty if that cannot be known."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            return _kind_of(folder, mounts)
    except OSError:
        return ""


def _kind_of(folder: str, mounts: Iterable[str]) -> str:
    found, kind = "", ""
    for fields in map(str.split, mounts):
        point = re.sub(r"\\([0-7]{3})", lambda escaped: chr(int(escaped[1], 8)), fields[4])
        if len(point) >= len(found) and (folder + "/").startswith(point.rstrip("/") + "/"):
            found, kind = point, fields[fields.index("-") + 1]
    return kind


def check_size(path: str) -> None:
    """Refuse a stump: SQLite takes one without a whole header for an empty database."""
    if os.path.exists(path) and 0 < os.stat(path).st_size < 512:
        raise NotALogError(f"{path} is not a pqlog file, or what is left of one: choose another path, or delete it")


def check_names(path: str) -> None:
    """Refuse a file with two names: opened by each, it would have two write-ahead logs."""
    try:
        names = os.stat(path).st_nlink
    except FileNotFoundError:
        return
    if names > 1:
        raise UnsafeStorageError(
            f"{path} has {names} names (hard links): opened by two of them, it would be ruined. Copy it, and open the "
            f'copy; or read it with mode="r"'
        )


def check_process(path: str) -> None:
    """Warn if the module sqlite3 has the file open in this process: two SQLites here drop each other's locks."""
    if "_sqlite3" not in sys.modules or any(db.filename == path for db in apsw.connections()):
        return
    if path in _open_files():
        warnings.warn(
            f"{path} is open in this process by something else, perhaps the module sqlite3: close that before it is "
            f"used here, since whichever is closed first drops the other's locks",
            stacklevel=4,
        )


def _open_files() -> set[str]:
    """The paths of the files that this process has open; empty where that cannot be known."""
    folder = "/proc/self/fd"
    paths = set()
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        with contextlib.suppress(OSError):  # closed meanwhile
            paths.add(os.readlink(f"{folder}/{name}"))
    return paths


def check_wal(db: apsw.Connection, path: str, timeout_s: float) -> None:
    """Raise if commits in the write-ahead log cannot be read any more.

    SQLite takes the first frame whose checksum does not fit for the end: after a power cut it is. But each commit is
    synced before the next one is written, so behind that end there can lie one that was torn; if there are two, then
    the first was durable, and what broke is the disk, not the current.
    """
    for _ in range(5):  # others may be cutting the log off just now: what is damaged stays so
        lost, read = patiently(lambda: _lost_commits(db, path), timeout_s)
        if lost < 2:
            return
        time.sleep(0.02)
    raise CorruptLogError(
        f"{path}-wal is damaged behind its frame {max(0, read)}: {lost} commits there cannot be read, and all but the "
        f"last of them were durable. Nothing was changed. Restore a backup of both files, or copy what can be read "
        f"with pqlog.salvage(path, to)"
    )


def _lost_commits(db: apsw.Connection, path: str) -> tuple[int, int]:
    """How many commits lie in the write-ahead log behind the last frame that SQLite reads, and which frame that is.

    Raises BusyError at once, whatever the connection's patience, while another process recovers or merges the log.
    """
    page = int(row(db.execute("PRAGMA page_size"))[0])
    header, frames = _frames(path, page)
    read, _ = db.wal_checkpoint(None, apsw.SQLITE_CHECKPOINT_NOOP)
    if not frames:
        return 0, read
    salts = header[16:24] if _is_whole(header) else frames[0][1]
    lost = [number for number, (pages, salt) in enumerate(frames, 1) if number > read and pages and salt == salts]
    if len(lost) > 1 and _frames(path, page)[0] != header:  # others are at work
        return 0, read
    return len(lost), read


def _frames(path: str, page: int) -> tuple[bytes, list[tuple[int, bytes]]]:
    """The header of the -wal and, of each frame, the size that a commit says (0 if it ends none) and the salts.

    A plain open and close: SQLite has no POSIX locks on this file that it could drop.
    """
    try:
        with open(path + "-wal", "rb") as wal:
            header, fd = wal.read(32), wal.fileno()
            return header, [_frame(os.pread(fd, 16, at)) for at in range(32, os.fstat(fd).st_size - 23, page + 24)]
    except (OSError, struct.error):  # it is not there, or is being cut off by another process
        return b"", []


def _frame(header: bytes) -> tuple[int, bytes]:
    return struct.unpack(">I", header[4:8])[0], header[8:16]


def _is_whole(header: bytes) -> bool:
    """Whether a header has the checksum that it should: https://sqlite.org/fileformat2.html#walformat."""
    magic = struct.unpack(">I", header[:4])[0]
    if magic not in (0x377F0682, 0x377F0683):
        return False
    words = struct.unpack(f"{'>' if magic & 1 else '<'}6I", header[:24])
    one = other = 0
    for first, second in zip(words[::2], words[1::2], strict=True):
        one = (one + first + other) & 0xFFFF_FFFF
        other = (other + second + one) & 0xFFFF_FFFF
    return struct.unpack(">2I", header[24:32]) == (one, other)
