"""What would break the promises without a word, looked for when a file is opened."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import warnings
from collections.abc import Iterable

import apsw

from pqlog.errors import NotALogError, UnsafeStorageError

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
            f"copy; or read it with readonly=True"
        )


def check_process(path: str) -> None:
    """Warn if the module sqlite3 has the file open in this process: two SQLites here drop each other's locks."""
    if "_sqlite3" not in sys.modules or path in _files_of_apsw():
        return
    if path in _open_files():
        warnings.warn(
            f"{path} is open in this process by something else, perhaps the module sqlite3: close that before it is "
            f"used here, since whichever is closed first drops the other's locks",
            stacklevel=4,
        )


def _files_of_apsw() -> set[str]:
    """The paths that connections of this process's APSW have open."""
    paths = set()
    for db in apsw.connections():
        # a connection that another thread is using cannot be asked, nor one that has just been closed
        with contextlib.suppress(apsw.ThreadingViolationError, apsw.ConnectionClosedError):
            paths.add(db.filename)
    return paths


def _open_files() -> set[str]:
    """The paths of the files that this process has open; empty where that cannot be known."""
    folder = "/proc/self/fd"
    paths = set()
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        with contextlib.suppress(OSError):  # closed meanwhile
            paths.add(os.readlink(f"{folder}/{name}"))
    return paths
