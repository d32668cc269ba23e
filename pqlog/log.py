"""Log: a set of topics, and its main topic."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pqlog import check, extras, producer
from pqlog.codecs import Codec
from pqlog.errors import ArgumentError, ClosedError, CorruptLogError, Error, UnsupportedError
from pqlog.store.api import IsAFile
from pqlog.store.values import Capabilities
from pqlog.stream import TopicStream, existing_topic
from pqlog.topic import Topic

if TYPE_CHECKING:
    from duckdb import DuckDBPyRelation

    from pqlog.copying import Copied, CopyProgress
    from pqlog.files import Config


class Log(Topic):
    """An open file, and its main topic. Created by `pqlog.open`; close it, or use it in a ``with``.

    Attributes
    ----------
    path : str
        The file, as it was given.

    Examples
    --------
    >>> import pqlog
    >>> with pqlog.open(":memory:") as log:
    ...     offset = log.put({"n": 1})
    ...     log[offset].value, log.topics(), len(log)
    ({'n': 1}, ['main'], 1)
    """

    def __init__(self, path: str, stream: TopicStream) -> None:
        super().__init__(stream)
        self.path = path
        self._log = stream.partitions[0].log

    def topic(
        self, name: str, codec: str | Codec | None = None, type: Any = None, *, partitions: int | None = None
    ) -> Topic:
        """Another topic of the same log, created if it does not exist.

        It is created by this call, with a warning if its name is like that of another topic: a topic that a typo
        created is renamed with `rename_topic`, or deleted with `delete_topic`.

        Parameters
        ----------
        name : str
        codec : str or Codec, optional
            As for `pqlog.open`.
        type : type, optional
            As for `pqlog.open`.
        partitions : int, optional
            How many it is created with, which never changes: 1 by default, at most 256. All messages of a key are in
            one of them, so several workers can share a client and keep the order of each key.

        Raises
        ------
        CodecMismatchError
            The topic was created with another codec.
        PartitionsError
            The topic was created with another number of partitions.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.topic("raw", codec="bytes").put(b"abc")
        1
        >>> log.topics()
        ['main', 'raw']
        >>> orders = log.topic("orders", partitions=8)
        >>> at = [orders.put({"order": n}, key="Brno") for n in range(3)]
        >>> len({one.partition for one in at}), [one.offset for one in at]
        (1, [1, 2, 3])
        """
        stream = TopicStream.open(self._log, name, codec, type, partitions=partitions)
        return Topic(stream, self._handed_out, self.sender)

    def topics(self) -> list[str]:
        """The names of all topics of the file.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.topic("clean").put(1)
        1
        >>> log.topics()
        ['main', 'clean']
        """
        return [info.name for info in self._log.topics()]

    def sql(self, query: str, params: object = None, *, external_access: bool = False) -> DuckDBPyRelation:
        """Query the topics of the log in SQL, by DuckDB: each is a table, with the columns of `to_arrow`.

        Only the columns that the query needs are read, and segments in which its conditions cannot be true are left
        out. A query sees each topic as it is when `sql` is called. It cannot change the log.

        Parameters
        ----------
        query : str
            Topics are named as tables, ``log`` is the log's main topic. ``"offset"`` needs its quotes, since it is a
            word of SQL.
        params : sequence or dict, optional
            The values of ``?``, or of ``$name``, in the query. Never put a text of somebody else into the query.
        external_access : bool
            Let the query read and write other files, and load extensions. Only for queries that you wrote.

        Returns
        -------
        duckdb.DuckDBPyRelation
            Not computed yet: ``.df()``, ``.pl()``, ``.to_arrow_table()`` and ``.fetchall()`` compute it. The log has
            to be open until then. It is in a DuckDB of its own, in memory, whose time zone is UTC.

        Raises
        ------
        ArgumentError
            DuckDB does not accept the query.
        UnknownTopicError
            It names a topic that does not exist.
        MissingExtraError
            The extra ``sql`` is not installed.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many([{"city": "Brno", "amount": 2}, {"city": "Praha", "amount": 5}, {"city": "Brno", "amount": 1}])
        Put(first=1, last=3, messages=3)
        >>> log.sql("select city, sum(amount) from log group by city order by city").fetchall()
        [('Brno', 3), ('Praha', 5)]
        >>> log.sql("select city from log where amount > $least", {"least": 4}).fetchall()
        [('Praha',)]
        """
        relation: DuckDBPyRelation = extras.sql.query(self, query, params, external_access)
        return relation

    def rename_topic(self, old: str, new: str) -> None:
        """Give a topic another name. Its messages, clients and ids stay.

        Open `Topic` objects keep working, and so do open batches, whose tokens stay the same.

        Raises
        ------
        UnknownTopicError
            The topic `old` does not exist.
        ArgumentError
            There is a topic `new`.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.topic("flihgts").put("OK1")
        1
        >>> log.rename_topic("flihgts", "flights")
        >>> log.topics(), log.topic("flights")[1].value
        (['main', 'flights'], 'OK1')
        """
        existing_topic(self._log, old)[0].rename(check.name("the topic's name", new))

    def delete_topic(self, name: str, *, force: bool = False) -> None:
        """Drop a topic with its messages, clients and ids, in one transaction, and give its disk space back.

        From then on, open objects of the topic raise `UnknownTopicError`, in any process. A topic that is created
        under the same name later is another one. Puts wait meanwhile: `trim` first, if it is large.

        Parameters
        ----------
        name : str
            Not the topic that the log itself stands for.
        force : bool
            Also if a client has not acknowledged all of it.

        Raises
        ------
        UnknownTopicError
            The topic does not exist.
        TrimRefusedError
            A client has not acknowledged all of it; nothing was dropped.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.topic("scratch").put(1)
        1
        >>> log.delete_topic("scratch")
        >>> log.topics()
        ['main']
        """
        other = existing_topic(self._log, name)[0]
        if other.info.id == self.store.info.id:
            raise ArgumentError(f"this log stands for {name!r} itself: open the log at another topic to delete it")
        other.delete(force)

    def cursor(self, name: str) -> Any:
        """How far a source outside has been read: what `put_many` was given with its messages; None if nothing yet.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many([{"order": 1}], cursor=("orders-api", {"page": 2}, log.cursor("orders-api")))
        Put(first=1, last=1, messages=1)
        >>> log.cursor("orders-api"), log.cursor("returns-api")
        ({'page': 2}, None)
        """
        return producer.cursor_value(self._log.cursor(check.name("the name of a cursor", name)))

    def ship(
        self,
        target: str | os.PathLike[str] | Log,
        topics: str | Sequence[str] | None = None,
        *,
        follow: bool = False,
        progress: bool | Callable[[CopyProgress], object] = False,
        config: Config | None = None,
        durability: str | None = None,
        timeout: float | None = None,
    ) -> Copied:
        """Copy the messages of some topics, or of all, into another log, exactly once.

        Call it again to copy what has come since. It continues where it was, whatever ended it, also if several run at
        once: the position lies in the target, and commits with the messages there.

        Topics are created in the target with the same name, codec and number of partitions. Values, keys and headers
        stay as they are, and so do frames; messages go into the partition with the same number. They get new offsets
        and times. What they were here is in the headers ``pqlog-time`` (ISO 8601), ``pqlog-offset`` and, if there are
        several, ``pqlog-partition``, unless a message has such headers already. Messages of a frame have those of the
        first message of their segment. Clients, ids and cursors are not copied.

        Parameters
        ----------
        target : str, os.PathLike or Log
            The other log, or what `pqlog.open` would open it by.
        topics : str or sequence of str, optional
            Names or patterns, as in ``"web.*"``; all topics by default.
        follow : bool
            Go on with what is put later, also into new topics, until interrupted. While the target cannot be reached,
            wait and try again: after a second at first, and at most after a minute.
        progress : bool or callable
            Show a bar, or call this with a `CopyProgress` after each batch, and when something changes.
        config, durability, timeout
            For the target, as for `pqlog.open`.

        Returns
        -------
        Copied

        Raises
        ------
        CodecMismatchError, PartitionsError
            The target has a topic of that name with another codec, or with fewer partitions. The others were copied.
        DamagedError
            A message is damaged. All before it was copied, and nothing is left out.
        TooLargeError
            The target does not take a message of that size. All before it was copied.
        StoreError
            The target cannot be reached, or this file was replaced by an older state of it.

        Examples
        --------
        >>> import pqlog
        >>> log, hub = pqlog.open(":memory:"), pqlog.open(":memory:")
        >>> log.put_many(list("abc"))
        Put(first=1, last=3, messages=3)
        >>> log.ship(hub)
        Copied(messages=3, topics={'main': 3}, trimmed=0)
        >>> log.put("d")
        4
        >>> log.ship(hub).messages
        1
        >>> list(hub.get("billing")), hub[4].headers["pqlog-offset"]
        (['a', 'b', 'c', 'd'], '4')
        """
        options = {"config": config, "durability": durability, "timeout": timeout}
        return extras.copying.ship(self, target, topics, follow, progress, options)

    @property
    def capabilities(self) -> Capabilities:
        """What it promises beyond what every log does: see `Capabilities`."""
        return self._log.capabilities

    @property
    def uuid(self) -> str:
        """What distinguishes this file from every other, copies included."""
        return self._log.uuid

    def size_bytes(self) -> int:
        """What the file and its write-ahead log take on the disk, in bytes.

        Examples
        --------
        >>> import pqlog
        >>> pqlog.open(":memory:").size_bytes() > 0
        True
        """
        return self._file("size_bytes").size_bytes()

    def backup(self, path: str | os.PathLike[str]) -> None:
        """Write a consistent copy to a new path while the log is in use.

        The copy has a UUID of its own and the permissions of the log's file. It appears at the path only when it is
        complete and durable.

        Raises
        ------
        ArgumentError
            There is something at the path; it is not replaced.

        Examples
        --------
        >>> import pqlog, tempfile, pathlib
        >>> log = pqlog.open(":memory:")
        >>> log.put("a")
        1
        >>> path = pathlib.Path(tempfile.mkdtemp(), "copy.db")
        >>> log.backup(path)
        >>> with pqlog.open(path) as copy:
        ...     len(copy), copy.uuid == log.uuid
        (1, False)
        """
        self._file("backup").backup(check.path("path", path))

    def compact(self) -> int:
        """Rewrite the file without unused and half-empty pages; puts wait meanwhile.

        `trim` gives back whole pages by itself; this gives back the rest, and the space of the write-ahead log. It
        needs free space for two copies of what is kept. While another process is reading, the write-ahead log keeps its
        copy until a put after the reader has gone. A crash in between leaves the file as it was.

        Returns
        -------
        int
            How many bytes shorter the file is.

        Raises
        ------
        DiskFullError
            Not enough space for the copies; nothing was changed.

        Examples
        --------
        >>> import pqlog, pathlib, tempfile
        >>> with pqlog.open(pathlib.Path(tempfile.mkdtemp(), "events.db")) as log:
        ...     for _ in range(3):
        ...         _ = log.put_many("x" * 1000 for _ in range(1000))
        ...         _ = log.trim(before=-1)
        ...     log.compact() >= 0, len(log)
        (True, 1)
        """
        return self._file("compact").compact()

    def verify(self, *, progress: bool = False) -> list[str]:
        """Read the whole file and say what is wrong with it: SQLite's structures, clients, each message's checksum.

        Parameters
        ----------
        progress : bool
            Show a bar.

        Returns
        -------
        list of str
            A sentence for each problem; empty if the file is whole.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many(range(1000))
        Put(first=1, last=1000, messages=1000)
        >>> log.verify()
        []
        """
        file = self._file("verify")
        total = None
        with contextlib.suppress(CorruptLogError):  # verify will tell
            total = sum(self._counts())
        with extras.progress_bar(total, "verify", progress) as report:
            return file.verify(report)

    def close(self) -> None:
        """Release all resources; calls that wait in other threads raise `ClosedError`. Closing twice is not an error.

        It waits until all is durable that was sent (see `send`), and raises the error of a message that could not be
        put if nobody has asked its future.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.close()
        >>> log.put(1)
        Traceback (most recent call last):
        pqlog.errors.ClosedError: :memory: was closed; nothing was written
        """
        try:
            self._handed_out.acknowledge()
            self.sender.close()
        finally:
            self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except Error as failed:
            if error is None:
                raise
            error.add_note(f"Closing {self.path} failed, too: {type(failed).__name__}: {failed}")

    def _repr_html_(self) -> str:
        return extras.views.or_reason(extras.views.log_view, self)

    def __repr__(self) -> str:
        try:
            if not self.capabilities.exact_counts:  # they would be asked for one by one
                return f"<pqlog.Log {self.path!r}: {_topics(len(self._log.topics()))}>"
            counts = self._counts()
        except ClosedError:
            return f"<pqlog.Log {self.path!r}, closed>"
        except Error as error:
            return f"<pqlog.Log {self.path!r}: {error}>"
        topics = _topics(len(counts))
        size = f", {self._log.size_bytes():,} bytes" if isinstance(self._log, IsAFile) else ""
        return f"<pqlog.Log {self.path!r}: {sum(counts):,} messages in {topics}{size}>"

    def _counts(self) -> list[int]:
        """How many messages each topic has."""
        topics = [self._log.find_topic(info.name) for info in self._log.topics()]
        return [sum(partition.count() for partition in topic) for topic in topics if topic]

    def _file(self, what: str) -> IsAFile:
        """The log as a file, for what only a file can."""
        if not isinstance(self._log, IsAFile):
            raise UnsupportedError(f"{what}() needs a log in a file, which {self._log.name} is not")
        return self._log


def _topics(count: int) -> str:
    return "1 topic" if count == 1 else f"{count} topics"
