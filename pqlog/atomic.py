"""Files that appear whole and durably, or not at all: the only place that renames files and syncs names."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator

if sys.platform != "win32":
    import fcntl


@contextlib.contextmanager
def workplace(path: str) -> Iterator[str]:
    """A private folder next to `path` in which to prepare it; the folder is removed afterwards.

    Folders that killed processes left are removed too. A process that works in one holds a lock on it.
    """
    folder, name = os.path.split(os.path.abspath(path))
    prefix = f".{name}.partial-"
    for left in os.listdir(folder):
        if left.startswith(prefix):
            with _locked(os.path.join(folder, left)) as is_left:
                if is_left:
                    shutil.rmtree(os.path.join(folder, left), ignore_errors=True)
    with contextlib.ExitStack() as stack:
        while True:
            made = tempfile.mkdtemp(prefix=prefix, dir=folder)
            if stack.enter_context(_locked(made)):
                break  # otherwise another process took it for an abandoned one before it was locked
        stack.callback(shutil.rmtree, made, ignore_errors=True)
        yield made


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[bool]:
    """Hold the lock of a folder; False if another process holds it, or if it is not a folder of this user."""
    if sys.platform == "win32":
        yield True  # files that are in use there cannot be deleted
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        yield False
        return
    try:
        yield os.fstat(descriptor).st_uid == os.geteuid() and _lock(descriptor) and os.path.exists(folder)
    finally:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child that was forked meanwhile has the descriptor too
        except OSError:
            pass
        finally:
            os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def appear(made: str, path: str, *, replace: bool = False) -> None:
    """Give a finished file its place; file and name are durable then.

    Raises
    ------
    FileExistsError
        There is something at the path, and it is not to be replaced.
    """
    sync_file(made)
    rename(made, path, replace)
    sync_folder(path)


def sync_file(path: str) -> None:
    """Make a file's bytes and its mode durable."""
    # Windows syncs only files that are open for writing; elsewhere a read-only file can be synced too.
    file = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def sync_folder(path: str) -> None:
    """Make the names in the file's folder durable."""
    if os.name != "posix":
        return
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def remove(path: str) -> None:
    """Remove a file; that is durable after a sync of its folder."""
    os.remove(path)


def rename(made: str, path: str, replace: bool) -> None:
    """Rename a file; unless `replace` is set, never over another file, even one that appears at the same moment."""
    if replace:
        os.replace(made, path)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        at_fdcwd, noreplace = -100, 1
        if not libc.renameat2(at_fdcwd, os.fsencode(made), at_fdcwd, os.fsencode(path), noreplace):
            return
        error = ctypes.get_errno()
        if error not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):  # a file system without it
            raise OSError(error, os.strerror(error), path)
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
    os.rename(made, path)
