"""New files made of a log: each appears whole, with the log's permissions, or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

from pqlog import atomic
from pqlog.errors import ArgumentError, StoreError
from pqlog.store.sqlite import connections


@contextlib.contextmanager
def appearing(path: str, like: str | None) -> Iterator[str]:
    """Where to make the database that will be at `path`, which nobody else can look into before.

    Parameters
    ----------
    like : str, optional
        The file whose permissions it gets.
    """
    exists = ArgumentError(f"{path} exists: give a path that does not exist yet")
    if os.path.lexists(path):
        raise exists
    try:
        with atomic.workplace(path) as folder:
            made = os.path.join(folder, "new.db")
            yield made
            if connections.size(made + "-wal"):
                raise StoreError(f"{path}: it could not be completed; nothing was left")
            if like is not None:
                os.chmod(made, stat.S_IMODE(os.stat(like).st_mode))
            atomic.appear(made, path)
    except FileExistsError:
        raise exists from None
    except OSError as error:
        raise StoreError(f"{path}: {error}. Check that the folder exists and may be written") from error
