"""Opening logs in files: the only module of the core that names an engine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pqlog import check, extras
from pqlog.codecs import Codec
from pqlog.errors import ArgumentError
from pqlog.history import Time
from pqlog.log import Log
from pqlog.store.api import Store
from pqlog.store.values import MEMORY, Row, Salvage
from pqlog.stream import TopicStream

if TYPE_CHECKING:
    import pandas

    from pqlog.notebook.explorer import Explorer

TIMEOUT_S = 30.0


def open(
    path: str | os.PathLike[str],
    topic: str = "main",
    codec: str | Codec | None = None,
    *,
    type: Any = None,
    partitions: int | None = None,
    readonly: bool = False,
    vfs: str | None = None,
    timeout: float = TIMEOUT_S,
    network: bool = False,
) -> Log:
    """Open a log; create the file if it does not exist.

    Parameters
    ----------
    path : str or os.PathLike
        The file. ``":memory:"`` keeps everything in memory, for tests.
    topic : str
        The topic that the log itself stands for.
    codec : {"json", "msgpack", "pickle", "bytes"} or Codec, optional
        How a new topic keeps its values: JSON unless said otherwise. A topic keeps the codec that it was created with.
        Reading pickles can run any code, so a pickle topic must be asked for at each opening.
    type : type, optional
        Values are of this msgspec Struct, dataclass, pydantic model or other type (codecs json and msgpack): what
        cannot be read as that is refused at the put.
    partitions : int, optional
        How many partitions a new topic gets; as for `Log.topic`.
    readonly : bool
        Read a file that exists and change nothing, also on a read-only disk.
    vfs : str, optional
        The name of a SQLite VFS.
    timeout : float
        How long to wait, in seconds, while another process holds the file.
    network : bool
        Open it although it lies on a network file system, whose locks and syncs may not be what they promise: then
        pqlog cannot keep its promises either.

    Returns
    -------
    Log

    Raises
    ------
    NotALogError
        The path holds something else. Nothing was changed.
    NewerFormatError
        The file was written by a newer pqlog.
    CodecMismatchError
        The topic was created with another codec.
    PartitionsError
        The topic was created with another number of partitions.
    CorruptLogError
        The file is damaged, or commits in its -wal are.
    UnsafeStorageError
        Durability cannot be guaranteed there: a network disk, say, or a file with two names.
    StoreError
        The file cannot be opened.

    Examples
    --------
    >>> import pqlog
    >>> with pqlog.open(":memory:") as log:
    ...     log.put({"n": 1})
    1
    """
    file = check.path("path", path)
    store = opened(file, readonly=readonly, vfs=vfs, timeout=timeout, network=network)
    try:
        stream = TopicStream.open(store, topic, codec, type, partitions=partitions)
    except BaseException:
        store.close()
        raise
    return Log(file if file == MEMORY else str(Path(file)), stream)


def opened(
    path: str | os.PathLike[str],
    *,
    readonly: bool = False,
    vfs: str | None = None,
    timeout: float = TIMEOUT_S,
    network: bool = False,
) -> Store:
    """The store of a log, without a topic; the parameters are those of `open`."""
    from pqlog.store.sqlite.store import SqliteStore

    for name, given in (("readonly", readonly), ("network", network)):
        if not isinstance(given, bool):
            raise ArgumentError(f"{name} must be True or False, not {given!r}")
    if vfs is not None:
        check.name("vfs", vfs)
    timeout_s = check.seconds("timeout", timeout, most=1e6)
    return SqliteStore(check.path("path", path), readonly=readonly, vfs=vfs, timeout_s=timeout_s, network=network)


def explore(path: str | os.PathLike[str], topic: str = "main") -> Explorer:
    """An explorer of a file opened read-only, so looking cannot change it.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    topic : str
        The topic that it shows first.

    Examples
    --------
    >>> import pathlib, pqlog, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "events.db")
    >>> with pqlog.open(path) as log:
    ...     log.put_many([{"n": n} for n in range(100)])
    Put(first=1, last=100, messages=100)
    >>> len(pqlog.explore(path).frame)
    100
    """
    return open(path, topic, readonly=True).explore()


def salvage(path: str | os.PathLike[str], to: str | os.PathLike[str], *, progress: bool = False) -> Salvage:
    """Copy what can still be read of a damaged log into a new one; the old file is not changed.

    Messages keep their times, keys and headers, and get new offsets. Clients continue with the first message that they
    had not acknowledged; batches that were handed out are cut again. Nobody may write to the old file meanwhile.

    Parameters
    ----------
    path : str or os.PathLike
        The damaged file, with its -wal next to it, if it has one.
    to : str or os.PathLike
        A path that does not exist yet; the new file appears there, with the permissions of the old one, when it is
        complete.
    progress : bool
        Show a bar.

    Returns
    -------
    Salvage
        How many messages were copied, and which were lost.

    Raises
    ------
    ArgumentError
        There is something at `to`.
    CorruptLogError
        Not even its list of topics can be read.

    Examples
    --------
    >>> import pathlib, pqlog, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> with pqlog.open(folder / "old.db") as log:
    ...     log.put_many(range(1000))
    Put(first=1, last=1000, messages=1000)
    >>> pqlog.salvage(folder / "old.db", folder / "new.db")
    Salvage(messages=1000, lost={}, problems=[])
    """
    from pqlog.store.sqlite import copies, repair
    from pqlog.store.sqlite.store import SqliteStore

    file = check.path("path", path)

    def cut(row: Row, topic: str) -> bytes:
        return row.value if row.is_whole else extras.frames.cut(row, topic)

    old = SqliteStore(file, readonly=True, damaged=True)
    try:
        with copies.appearing(check.path("to", to), file) as made:
            copy = SqliteStore(made)
            try:
                with extras.progress_bar(0, "salvage", progress) as report:
                    found = repair.salvage(old, copy, cut, report)
            finally:
                copy.close()
        return found
    finally:
        old.close()


def read_log(
    path: str | os.PathLike[str],
    topic: str = "main",
    columns: Sequence[str] | None = None,
    *,
    start: int | None = None,
    stop: int | None = None,
    since: Time | None = None,
    until: Time | None = None,
    key: str | None = None,
    partition: int | None = None,
    codec: str | Codec | None = None,
    flatten: bool = False,
    metadata: bool | Sequence[str] = True,
    parse_dates: Sequence[str] = (),
    dtype_backend: str | None = None,
    progress: bool = False,
) -> pandas.DataFrame:
    """Read a topic of a file into a pandas frame, in the manner of ``pandas.read_sql``; the file is not changed.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    topic : str
        The topic.
    start, stop, since, until, key
        As for `Topic.history`.
    partition : int, optional
        Read this partition only; needed for offsets if the topic has several.
    codec
        As for `pqlog.open`: a pickle topic must be asked for.
    columns, flatten, metadata, parse_dates, dtype_backend, progress
        As for `Topic.to_pandas`.

    Returns
    -------
    pandas.DataFrame

    Raises
    ------
    StoreError
        The file does not exist, or is not a log.
    UnknownTopicError
        The file has no such topic.

    Examples
    --------
    >>> import pathlib, pqlog, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "events.db")
    >>> with pqlog.open(path) as log:
    ...     log.put_many({"n": n} for n in range(5))
    Put(first=1, last=5, messages=5)
    >>> pqlog.read_log(path, columns=["n"], start=-2)["n"].tolist()
    [3, 4]
    """
    with open(path, topic, codec, readonly=True) as log:
        messages = log if partition is None else log.partition(partition)
        return messages.history(start, stop, since=since, until=until, key=key).to_pandas(
            columns,
            flatten=flatten,
            metadata=metadata,
            parse_dates=parse_dates,
            dtype_backend=dtype_backend,
            progress=progress,
        )
