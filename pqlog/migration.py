"""Migration: a queue of persistent-queue-log or persist-queue becomes a log."""

from __future__ import annotations

import itertools
import marshal
import os
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from pqlog import check, extras
from pqlog.codecs import UNDECODABLE, Json, is_text
from pqlog.errors import ArgumentError, CorruptLogError, UntrustedPicklesError
from pqlog.producer import cursor_value
from pqlog.store.values import Singles
from pqlog.stream import TopicStream

if TYPE_CHECKING:
    from pqlog.store.sqlite.foreign import Foreign, Queue
    from pqlog.store.sqlite.store import SqliteStore
    from pqlog.store.sqlite.topic import SqliteTopic

CURSOR = "pqlog.migrate"
"""The name of the cursor in which the new file keeps the progress of the migration."""

STEP_ROWS, STEP_BYTES = 10_000, 16 << 20
"""How much is copied in one transaction."""

_JSON = Json()


@dataclass(slots=True)
class Migration:
    """The result of a migration.

    Attributes
    ----------
    program : str
        The program that wrote the old file: ``"persistent-queue-log"`` or ``"persist-queue"``.
    messages : int
        How many messages were copied by this call.
    topics : dict of str to str
        The new topics and their codecs.
    clients : int
        How many clients kept their positions.
    notes : list of str
        What you should know about the result, one sentence each.
    """

    program: str
    messages: int = 0
    topics: dict[str, str] = field(default_factory=dict)
    clients: int = 0
    notes: list[str] = field(default_factory=list)


def migrate(
    old: str | os.PathLike[str], new: str | os.PathLike[str], *, trust_pickle: bool = False, progress: bool = False
) -> Migration:
    """Convert a queue of persistent-queue-log, or SQLite queues of persist-queue, to a log.

    The old file is not changed. From persistent-queue-log, ids become offsets and clients keep their positions; from
    persist-queue, items that are not consumed yet are copied, with their times. Values become JSON if that loses
    nothing; otherwise the topic has the codec pickle. If interrupted, call it again to continue. At the end all
    messages are read back and compared.

    Parameters
    ----------
    old : str or os.PathLike
        The old file; for persist-queue, its folder works too.
    new : str or os.PathLike
        A path that does not exist yet, or the file of a migration that was interrupted.
    trust_pickle : bool
        Both programs store pickles, and unpickling can run any code: pass True only for a file whose origin you trust.
    progress : bool
        Show a bar.

    Returns
    -------
    Migration

    Raises
    ------
    UntrustedPicklesError
        There are pickles, and `trust_pickle` is not given; the error says how many. Nothing was created.
    NotALogError
        The old file is not from either program.
    ArgumentError
        The path `new` holds something else.
    CorruptLogError
        A message was not what it should be when it was read back.

    Notes
    -----
    If the ids have gaps, offsets are counted from 1. persistent-queue-log does not store times: its messages get
    the time of the migration. Byte strings of Python 2 are decoded as UTF-8, or as Latin-1 if that fails.

    Examples
    --------
    >>> import apsw, pathlib, pickle, pqlog, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> old = apsw.Connection(str(folder / "old.db"))
    >>> _ = old.execute("CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, data BLOB)")
    >>> _ = old.execute("CREATE TABLE clients (client_id TEXT PRIMARY KEY, acknowledged INTEGER)")
    >>> _ = old.execute("INSERT INTO log (data) VALUES (?), (?)", [pickle.dumps({"n": n}) for n in (1, 2)])
    >>> _ = old.execute("INSERT INTO clients VALUES ('billing', 1)")
    >>> done = pqlog.migrate(folder / "old.db", folder / "new.db", trust_pickle=True)
    >>> done.messages, done.topics, done.clients
    (2, {'main': 'json'}, 1)
    >>> with pqlog.open(folder / "new.db") as log:
    ...     list(log.get("billing"))
    [{'n': 2}]
    """
    from pqlog.store.sqlite.foreign import open_foreign
    from pqlog.store.sqlite.store import SqliteStore

    source, target = check.path("old", old), check.path("new", new)
    with open_foreign(source) as file:
        if os.path.exists(target) and os.path.samefile(file.path, target):
            raise ArgumentError(f"{target} is the old file, which is not changed: give another path for the new one")
        if not trust_pickle:
            _refuse_pickles(file)
        total = 3 * sum(queue.messages for queue in file.queues)  # examined, copied, read back
        with closing(SqliteStore(target)) as log:
            migrating = _Migrating(file, log)
            with extras.progress_bar(total, "migrate", progress) as report:
                return migrating.run(report)


def _refuse_pickles(file: Foreign) -> None:
    pickles = sum(_is_pickle(file, data) for queue in file.queues for _, data, _ in _rows(file, queue, -1))
    if pickles:
        clients = sum(len(queue.clients) for queue in file.queues)
        raise UntrustedPicklesError(file.path, file.program, pickles, clients)


class _Migrating:
    """A migration in progress: its state commits with the messages that it describes.

    The new file is empty, or that of an interrupted migration of the same old file.
    """

    def __init__(self, file: Foreign, log: SqliteStore) -> None:
        self._file, self._log = file, log
        source = file.fingerprint
        state: dict[str, Any] | None = cursor_value(log.cursor(CURSOR))
        if state is None and log.topics():
            raise ArgumentError(f"{log.path} is a log with messages of its own: give a path that does not exist yet")
        if state is not None and state["source"] != source:
            raise ArgumentError(f"{log.path} was not migrated from {file.path}: give a path that does not exist yet")
        self._state = state or {"source": source, "last": {}, "done": False}
        self._done = Migration(file.program)

    def run(self, report: Callable[[int], object]) -> Migration:
        """Do the rest of the work; `report` is called with each number of messages done."""
        self._report = report
        if self._state["done"]:
            self._was_done()
            return self._done
        self._log.adopt_clients([], self._cursor())  # marks the file as that of a migration
        queues = [(queue, self._topic(queue)) for queue in self._file.queues]
        for queue, topic in queues:
            self._copy(queue, topic)
        for queue, topic in queues:
            self._compare(queue, topic)
        clients = [(topic, name, queue.first + n) for queue, topic in queues for name, n in queue.clients.items()]
        self._state["done"] = True
        self._log.adopt_clients(clients, self._cursor())
        for topic, name, next_offset in clients:
            state = topic.client(name).state()
            if state is None or state.position != next_offset:
                raise CorruptLogError(f"client {name!r} is not where it should be in {self._log.path}")
        self._done.clients = len(clients)
        self._done.topics = {topic.info.name: topic.info.codec for _, topic in queues}
        self._done.notes += [note for queue, _ in queues for note in queue.notes]
        return self._done

    def _cursor(self) -> tuple[str, str]:
        return CURSOR, msgspec.json.encode(self._state).decode()

    def _was_done(self) -> None:
        later = sum(
            1 for queue in self._file.queues for _ in _rows(self._file, queue, self._state["last"].get(queue.topic, -1))
        )
        if later:
            raise ArgumentError(
                f"{self._file.path} was migrated to {self._log.path} before, and has {later:,} new "
                f"message{'s' * (later != 1)} since: migrate it again, to a path that does not exist yet"
            )
        self._done.topics = {topic.name: topic.codec for topic in self._log.topics()}
        self._done.notes.append("It was migrated before: nothing was done.")

    def _topic(self, queue: Queue) -> SqliteTopic:
        """The topic of a queue, created with a codec that loses nothing."""
        found = self._log.find_topic(queue.topic)
        if found:
            return found[0]
        codec = "json"
        doubtful: int | None = None
        is_certain = False
        for id, data, _ in _rows(self._file, queue, -1):
            if not _is_pickle(self._file, data):
                is_doubtful = _MANY_MEANINGS.fullmatch(data) is not None
                doubtful, is_certain = (id if is_doubtful else doubtful), is_certain or not is_doubtful
            if not _is_pickle(self._file, data) and _json_value(data) is _NONE:
                raise ArgumentError(
                    f"item {id} of {queue.topic!r} in {self._file.path} is neither a pickle nor JSON: "
                    f"persist-queue's other serializers cannot be read"
                )
            if codec == "json" and self._as_json(data) is None:
                codec = "pickle"
            self._report(1)
        if doubtful is not None and not is_certain:
            raise ArgumentError(
                f"items such as {doubtful} of {queue.topic!r} in {self._file.path} are one number as JSON and another "
                f"as msgpack or cbor2, and no other item shows which it is: get them with persist-queue, and put them"
            )
        return self._log.topic(queue.topic, codec, 1)[0]

    def _as_json(self, data: bytes) -> bytes | None:
        """A value as JSON; None if that would lose something, or if the value cannot be read."""
        try:
            value = _unpickle(data)[0] if _is_pickle(self._file, data) else _json_value(data)
            encoded = _JSON.encode(value)
            return encoded if _same(value, _JSON.decode(encoded)) else None
        except Exception:  # what is unpickled may raise anything
            return None

    def _form(self, topic: SqliteTopic, id: int, data: bytes) -> bytes:
        """The bytes that the new file stores for a row."""
        if is_text(topic.info.codec):
            encoded = self._as_json(data)
            if encoded is None:
                raise ArgumentError(
                    f"item {id}, which was added to {self._file.path} after the migration began, loses something as "
                    f"JSON: migrate it again, to a path that does not exist yet"
                )
            return encoded
        if not _is_pickle(self._file, data):
            return pickle.dumps(_json_value(data))
        try:
            value, as_is = _unpickle(data)
            return data if as_is else pickle.dumps(value, protocol=5)
        except Exception:  # its class may be missing here: keep it unchanged
            return data

    def _copy(self, queue: Queue, topic: SqliteTopic) -> None:
        last, name = self._state["last"], topic.info.name
        while rows := self._file.read(queue, last.get(name, -1), STEP_ROWS, STEP_BYTES):
            last[name] = rows[-1][0]
            chunks = [
                (time, Singles([self._form(topic, id, data) for id, data, _ in group]))
                for time, group in itertools.groupby(rows, key=lambda row: row[2])
            ]
            topic.adopt(queue.first, chunks, self._cursor())
            self._done.messages += len(rows)
            self._report(len(rows))

    def _compare(self, queue: Queue, topic: SqliteTopic) -> None:
        """Read all messages of a topic back and compare them with the old file."""
        kept = TopicStream.of([topic], None).rows(topic.span())
        old = _rows(self._file, queue, -1)
        for offset, (was, message) in enumerate(itertools.zip_longest(old, kept), queue.first):
            if (
                was is None
                or message is None
                or message.offset != offset
                or message.value != self._form(topic, was[0], was[1])
            ):
                raise CorruptLogError(
                    f"the message at offset {offset} of topic {topic.info.name!r} in {self._log.path} is not what was "
                    f"copied: delete that file and migrate again"
                )
            self._report(1)


_NONE = object()


def _rows(file: Foreign, queue: Queue, after: int) -> Iterator[tuple[int, bytes, int]]:
    while rows := file.read(queue, after, STEP_ROWS, STEP_BYTES):
        yield from rows
        after = rows[-1][0]


_MANY_MEANINGS = re.compile(rb"[0-9]|8[0-9]|9[0-9.][0-9]|9[eE][0-9]")
"""Digits that are one number in JSON, and another as an item of msgpack (one byte) or cbor2 (up to three)."""


def _is_pickle(file: Foreign, data: bytes) -> bool:
    """persistent-queue-log has only pickles; those of persist-queue begin with their protocol and end with a full stop.

    The first byte alone is not enough: it is an empty dict in msgpack, and an empty list in cbor2.
    """
    marks = data[:1] == pickle.PROTO and data[1:2] in _PROTOCOLS and data[-1:] == pickle.STOP
    return file.program == "persistent-queue-log" or marks


_PROTOCOLS = tuple(bytes([protocol]) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1))


def _json_value(data: bytes) -> Any:
    try:
        return _JSON.decode(data)
    except UNDECODABLE:
        return _NONE


def _unpickle(data: bytes) -> tuple[Any, bool]:
    """A value, and whether Python reads its pickle without being told an encoding."""
    try:
        return pickle.loads(data), True  # noqa: S301 - the caller trusts the file
    except UnicodeDecodeError:  # byte strings of Python 2
        pass
    try:
        return pickle.loads(data, encoding="utf-8"), False  # noqa: S301
    except UnicodeDecodeError:
        return pickle.loads(data, encoding="latin-1"), False  # noqa: S301 - as Python's documentation has it


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal, including the types of everything in them: True is not 1, a tuple is not a list.

    marshal's first format writes exact built-in types and nothing else, without references; it raises otherwise.
    """
    return marshal.dumps(one, 0) == marshal.dumps(other, 0)
