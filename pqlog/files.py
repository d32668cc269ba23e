"""Opening logs in files: the only module of the core that names an engine."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pqlog import check, extras
from pqlog.codecs import Codec, codec_for, is_safe
from pqlog.errors import ArgumentError
from pqlog.history import Time
from pqlog.log import Log
from pqlog.store.api import ReadsForeignTopics, Store
from pqlog.store.values import MEMORY, Row, Salvage
from pqlog.store.values import SCHEME as SCHEME
from pqlog.stream import TopicStream

if TYPE_CHECKING:
    import pandas

    from pqlog.notebook.explorer import Explorer

TIMEOUT_S, CLUSTER_TIMEOUT_S = 30.0, 60.0
DEFAULT_TOPIC = "main"

Config = Mapping[str, Any] | str | os.PathLike[str]
"""Properties for the clients of a cluster, or the path of a file with them."""


def open(
    path: str | os.PathLike[str],
    topic: str = "main",
    codec: str | Codec | None = None,
    *,
    type: Any = None,
    partitions: int | None = None,
    readonly: bool = False,
    vfs: str | None = None,
    timeout: float | None = None,
    network: bool = False,
    config: Config | None = None,
    durability: str | None = None,
    seal: Literal["auto"] | None = "auto",
) -> Log:
    """Open a log; create the file if it does not exist.

    Parameters
    ----------
    path : str or os.PathLike
        The file. ``":memory:"`` keeps everything in memory, for tests. ``"kafka://host:9092,host:9092/etl"`` is the
        log ``etl`` on a Kafka cluster. Without the name of a log it is the cluster as such, whose topics are read with
        ``readonly=True``. Both need the extra ``kafka``.
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
        Read a log that exists and change nothing, also on a read-only disk.
    vfs : str, optional
        The name of a SQLite VFS.
    timeout : float, optional
        How long to wait, in seconds, while another process holds the file: 30 unless said otherwise. For an answer of
        a cluster: 60.
    network : bool
        Open it although it lies on a network file system, whose locks and syncs may not be what they promise: then
        pqlog cannot keep its promises either.
    config : Mapping, str or os.PathLike, optional
        Properties for the clients of a cluster, those of librdkafka or of a Java client, secrets included; or the path
        of a properties file.
    durability : {"synced", "replicated", "development"}, optional
        What a cluster must promise: by default that two machines have synced a message before it is acknowledged.
    seal : {"auto", None}
        Whether a thread turns old messages into compressed columns while the log is put into: all but the newest
        100,000 of each partition. To readers nothing changes; see `Topic.seal`. Elsewhere than in a file it means
        nothing.

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
    asked = None if codec is None else codec_for(codec, type)
    known = asked.name if asked is not None and is_safe(asked.name) else None
    store = opened(
        path,
        readonly=readonly,
        vfs=vfs,
        timeout=timeout,
        network=network,
        config=config,
        durability=durability,
        codec=known,
        seal=seal,
    )
    try:
        if isinstance(store, ReadsForeignTopics) and topic == DEFAULT_TOPIC and not store.find_topic(topic):
            missing = store.missing(topic)
            stream = TopicStream.of([missing], asked or codec_for(missing.info.codec, type))
        else:
            stream = TopicStream.open(store, topic, codec, type, partitions=partitions)
    except BaseException:
        store.close()
        raise
    if is_cluster(path):
        return Log(store.name, stream)
    file = os.fspath(path)
    return Log(file if file == MEMORY else str(Path(file)), stream)


def opened(
    path: str | os.PathLike[str],
    *,
    readonly: bool = False,
    vfs: str | None = None,
    timeout: float | None = None,
    network: bool = False,
    config: Config | None = None,
    durability: str | None = None,
    codec: str | None = None,
    seal: str | None = None,
) -> Store:
    """The store of a log, without a topic; the parameters are those of `open`.

    `codec` is that of topics on a cluster that do not say what their values are.
    """
    for name, given in (("readonly", readonly), ("network", network)):
        if not isinstance(given, bool):
            raise ArgumentError(f"{name} must be True or False, not {given!r}")
    if seal not in ("auto", None):
        raise ArgumentError(f'seal must be "auto" or None, not {seal!r}')
    if is_cluster(path):
        if vfs is not None or network:
            raise ArgumentError("vfs and network are for a file, not for a cluster: leave them out")
        timeout_s = check.seconds("timeout", CLUSTER_TIMEOUT_S if timeout is None else timeout, most=1e6)
        return _on_a_cluster(str(path), readonly, timeout_s, config, durability, codec)
    from pqlog.store.sqlite.store import SqliteStore

    if config is not None or durability is not None:
        raise ArgumentError("config and durability are for a cluster: a path that begins with kafka://")
    if vfs is not None:
        check.name("vfs", vfs)
    timeout_s = check.seconds("timeout", TIMEOUT_S if timeout is None else timeout, most=1e6)
    return SqliteStore(
        check.path("path", path),
        readonly=readonly,
        vfs=vfs,
        timeout_s=timeout_s,
        network=network,
        seals=seal == "auto",
    )


def is_cluster(path: object) -> bool:
    """Whether a path is the address of a cluster."""
    return isinstance(path, str) and path.startswith(SCHEME)


def _on_a_cluster(
    url: str, readonly: bool, timeout_s: float, config: Config | None, durability: str | None, codec: str | None
) -> Store:
    with extras.needed("kafka"):
        from pqlog.store.kafka.address import Address
        from pqlog.store.kafka.promise import Durability
        from pqlog.store.kafka.readonly import ReadOnlyStore
        from pqlog.store.kafka.store import KafkaStore
    address = Address.parse(url, config)
    address.check()
    if readonly:
        if durability is not None:
            raise ArgumentError("durability is about what is put: leave it out with readonly=True")
        return ReadOnlyStore(address, timeout_s, codec or "json")
    if address.log is None:
        raise ArgumentError(
            f"{url} is a cluster: name a log on it, as in {url.rstrip('/')}/etl, or open it with readonly=True"
        )
    return KafkaStore(address, timeout_s, Durability.of(durability or Durability.SYNCED))


def explore(path: str | os.PathLike[str], topic: str = DEFAULT_TOPIC, *, config: Config | None = None) -> Explorer:
    """An explorer of a file opened read-only, so looking cannot change it.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    topic : str
        The topic that it shows first.
    config
        As for `pqlog.open`, for a cluster.

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
    return open(path, topic, readonly=True, config=config).explore()


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
    config: Config | None = None,
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
    config
        As for `pqlog.open`, for a cluster.

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
    with open(path, topic, codec, readonly=True, config=config) as log:
        messages = log if partition is None else log.partition(partition)
        return messages.history(start, stop, since=since, until=until, key=key).to_pandas(
            columns,
            flatten=flatten,
            metadata=metadata,
            parse_dates=parse_dates,
            dtype_backend=dtype_backend,
            progress=progress,
        )
