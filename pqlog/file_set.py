"""The files of a folder, changed by whole sets of files; also after a crash."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from pqlog import atomic
from pqlog.errors import ArgumentError, DiskError, DiskFullError, ReadOnlyError, StoreError

if sys.platform != "win32":
    import fcntl

Result = TypeVar("Result")

_STAGING = ".staging"


class FileSet:
    """The files of a folder, of which several change at once: all of them or, after a crash at any moment, none.

    New files are made in the folder of `stage`. `publish` makes them durable and writes a journal, which decides that
    the change takes place; only then does it move them to their places. If a crash interrupts that, whoever opens the
    folder next completes it.

    Attributes
    ----------
    folder : str
    completed : list of str
        The paths of files that an interrupted change had not moved yet.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._staging = os.path.join(folder, _STAGING)
        self._journal = os.path.join(self._staging, "journal.json")
        self.completed = self._complete()

    def stage(self) -> str:
        """An empty folder for new files, which is hidden from readers."""
        if os.path.exists(self._staging):
            shutil.rmtree(self._staging)
        os.mkdir(self._staging)
        return self._staging

    def publish(self, moves: Mapping[str, str], replaced: Sequence[str]) -> list[str]:
        """Move new files to their places, over what is there, and remove those that they replace.

        Parameters
        ----------
        moves : mapping of str to str
            The place of each file, by its path in the folder of `stage`; both are relative.
        replaced : sequence of str
            Other places, also relative.

        Returns
        -------
        list of str
            The paths of the new files.
        """
        self._make_durable(moves)
        with open(f"{self._journal}.new", "w", encoding="ascii") as file:
            json.dump({"moves": dict(moves), "replaced": list(replaced)}, file)
        atomic.appear(f"{self._journal}.new", self._journal, replace=True)
        return self._complete()

    def close(self) -> None:
        """Remove new files that were not published."""
        if not os.path.exists(self._journal):
            shutil.rmtree(self._staging, ignore_errors=True)

    def _make_durable(self, staged: Iterable[str]) -> None:
        for name in staged:
            atomic.sync_file(os.path.join(self._staging, name))
        self._sync_names(os.path.join(_STAGING, name) for name in staged)

    def _complete(self) -> list[str]:
        """Do what the journal says. Any of it may have been done before a crash."""
        try:
            with open(self._journal, encoding="ascii") as file:
                journal = json.load(file)
        except FileNotFoundError:
            return []
        moved = []
        for name, place in journal["moves"].items():
            new, path = os.path.join(self._staging, name), os.path.join(self.folder, place)
            if os.path.exists(new):
                os.makedirs(os.path.dirname(path), exist_ok=True)
                atomic.rename(new, path, replace=True)
                moved.append(path)
        present = [place for place in journal["moves"].values() if os.path.exists(os.path.join(self.folder, place))]
        self._sync_names(present)
        self._remove(journal["replaced"], present)
        atomic.remove(self._journal)
        atomic.sync_folder(self._journal)  # else it could appear again, among the files of the next change
        return moved

    def _sync_names(self, places: Iterable[str]) -> None:
        """Make the names of files durable, with those of the folders in which they are."""
        inside: dict[str, str] = {}
        for place in places:
            while place:
                name, place = place, os.path.dirname(place)
                inside[place] = name
        for name in inside.values():
            atomic.sync_folder(os.path.join(self.folder, name))

    def _remove(self, places: Iterable[str], new: Iterable[str]) -> None:
        """Remove files unless they are new: a file system that ignores the case of names may call one by two names."""
        numbers = {os.stat(os.path.join(self.folder, place)).st_ino for place in new}
        for place in places:
            path = os.path.join(self.folder, place)
            if os.path.exists(path) and os.stat(path).st_ino not in numbers:
                atomic.remove(path)
                atomic.sync_folder(path)


def change_files(folder: str, work: Callable[[FileSet], Result]) -> Result:
    """Call `work` with the files of a folder, in one process at a time; the folder is created if it does not exist.

    Raises
    ------
    ArgumentError
        There is a file where the folder should be.
    ReadOnlyError, DiskFullError, DiskError
        The system refuses to read or write in it.
    """
    try:
        make_folder(folder)
        descriptor = -1 if sys.platform == "win32" else os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _wait_for_lock(descriptor)
            files = FileSet(folder)
            try:
                return work(files)
            finally:
                files.close()
        finally:
            # Neither a context manager nor a function: if Ctrl-C strikes as it begins, the lock is held as long as the
            # traceback is. So `atomic` has the same lines.
            if descriptor >= 0:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child that was forked meanwhile has the descriptor too
                except OSError:
                    pass
                finally:
                    os.close(descriptor)
    except OSError as error:
        raise _translate(error, folder) from error


def make_folder(path: str) -> None:
    """Create a folder, and those that contain it, unless they exist; new names are durable then."""
    path = os.path.abspath(path)
    if os.path.isdir(path):
        return
    make_folder(os.path.dirname(path))
    try:
        os.mkdir(path)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
    atomic.sync_folder(path)


def _wait_for_lock(descriptor: int) -> None:
    """Take the lock of an open folder; without effect where folders have no locks."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)


def _translate(error: OSError, folder: str) -> ArgumentError | StoreError:
    """Our error for one of the system's about the files of a folder."""
    said = f"{folder}: {error.strerror or error}"
    match error.errno:
        case errno.EEXIST | errno.ENOTDIR | errno.EISDIR:
            return ArgumentError(f"{said} ({error.filename}). Give the path of a folder")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return ReadOnlyError(f"{said}. Make the folder and its contents writable, or choose another folder")
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return DiskFullError(f"{said}. What was finished is complete: free some space and call again to continue")
    return DiskError(f"{said}. What was finished is complete: call again to continue when the disk works again")
