"""What would break the promises without a word, looked for when a file is opened."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings

import apsw

from pqlog.errors import NotALogError, UnsafeStorageError

# Their locks and syncs cannot be relied on, and the shared memory of a write-ahead log needs one machine.
_NETWORK = {
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs", "gfs2", "gpfs",
    "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "smb3", "smbfs", "vboxsf",
}  # fmt: skip


def check_disk(path: str) -> None:
    """Refuse a network file system."""
    kind = _file_system(os.path.dirname(path))
    if kind in _NETWORK:
        raise UnsafeStorageError(
            f"{path} lies on a network file system ({kind}), where neither locks nor syncs can be relied on: "
            f"choose a local disk, or pass network=True if you know better"
        )


def _file_system(folder: str) -> str:
    """The kind of the file system on which a folder lies; empty if that cannot be known."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            lines = [line.split() for line in mounts]
    except OSError:
        return ""
    found, kind = "", ""
    for fields in lines:
        point = fields[4].replace("\\040", " ")
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
