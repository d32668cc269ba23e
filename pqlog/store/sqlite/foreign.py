"""Queues of other programs in SQLite files: read, never written to.

Of persistent-queue-log: a table ``log`` (id, data) and a table ``clients`` (client_id, acknowledged), the id that each
has acknowledged, -1 if none. Of persist-queue: for each queue a table such as ``queue_default`` (_id, data, timestamp)
or ``ack_queue_default``, which has a status as well.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import apsw

from pqlog.errors import NotALogError, StoreError
from pqlog.store.sqlite import connections
from pqlog.store.sqlite.connections import fetch_all, fetch_one

_QUEUE = "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql LIKE '%_id INTEGER PRIMARY KEY%timestamp FLOAT%'"
_KINDS = ("ack_unique_queue", "ack_filo_queue", "ack_queue", "unique_queue", "filo_queue", "priority_queue", "queue")

TIMEOUT_MS = 30_000
"""How long to wait while the other program writes."""

ACKED, FAILED = 5, 9
"""What persist-queue's ``status`` says of items that are done with: acknowledged, or given up."""


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue of another program: what is to become a topic."""

    topic: str
    """The name that its topic is to have."""
    query: str
    """Its rows behind an id: id, data, microseconds since 1970 or 0. (Python 2 bound its pickles as text.)"""
    messages: int
    first: int
    """The offset of its first message."""
    clients: dict[str, int]
    """How many of the messages each client has acknowledged."""
    notes: tuple[str, ...] = ()
    """What one should know of it, a sentence each."""


class Foreign:
    """An open file of another program; what it held when it was opened.

    Parameters
    ----------
    db : apsw.Connection
        In a transaction, so that all is of one moment.
    """

    def __init__(self, db: apsw.Connection, path: str) -> None:
        self._db, self.path = db, path
        names = {name for (name,) in fetch_all(db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'"))}
        tables = [name for (name,) in fetch_all(db.execute(_QUEUE))]
        if {"log", "clients"} <= names:
            self.program = "persistent-queue-log"
            self.queues = [self._log()]
        elif tables:
            self.program = "persist-queue"
            topics = _topics_of(sorted(tables))
            self.queues = [queue for table, topic in topics.items() for queue in self._queues(table, topic)]
        else:
            raise NotALogError(f"{path} is neither a file of persistent-queue-log nor one of persist-queue")

    def read(self, queue: Queue, after: int, limit: int, max_bytes: int) -> list[tuple[int, bytes, int]]:
        """The first rows behind an id: id, data, time; at least one if there is any."""
        found: list[tuple[int, bytes, int]] = []
        cursor = self._db.execute(queue.query, (after, limit))
        for id, data, time in cursor:
            found.append((id, data or b"", time))
            max_bytes -= len(data or b"")
            if max_bytes <= 0:
                break
        cursor.close(True)
        return found

    @property
    def fingerprint(self) -> str:
        """The same for the same file, also when more was put into it."""
        heads = [(queue.topic, self.read(queue, -1, 1, 1)) for queue in self.queues]
        first = [f"{topic} {id} {zlib.crc32(data):08x}" for topic, head in heads for id, data, _ in head]
        return "; ".join([self.program, *first])

    def _log(self) -> Queue:
        first, last, count = fetch_one(self._db.execute("SELECT min(id), max(id), count(*) FROM log"))
        whole = count == 0 or (last - first + 1 == count and first > 0)
        gaps = "There are gaps between the ids, so they do not become the offsets: those count from 1."
        acknowledged = "SELECT client_id, (SELECT count(*) FROM log WHERE id <= acknowledged) FROM clients"
        return Queue(
            "main",
            "SELECT id, CAST(data AS BLOB), 0 FROM log WHERE id > ? ORDER BY id LIMIT ?",
            count,
            first if whole and count else 1,
            dict(fetch_all(self._db.execute(acknowledged))),
            () if whole else (gaps,),
        )

    def _queues(self, table: str, topic: str) -> Iterator[Queue]:
        quoted = '"' + table.replace('"', '""') + '"'
        found = fetch_all(self._db.execute("SELECT name FROM pragma_table_info(?)", (table,)))
        columns = [column for (column,) in found]
        if "status" not in columns:
            yield self._part(topic, quoted, "true", self._priorities(table, quoted) if "priority" in columns else ())
            return
        done = self._part("", quoted, f"status = {ACKED}").messages
        notes = (f"{done:,} items of {table} were acknowledged before, and are not copied.",) if done else ()
        yield self._part(topic, quoted, f"ifnull(status, 0) NOT IN ({ACKED}, {FAILED})", notes)
        failed = self._part(topic + ".dead", quoted, f"status = {FAILED}")
        if failed.messages:
            yield failed

    def _priorities(self, table: str, quoted: str) -> tuple[str, ...]:
        different = fetch_one(self._db.execute(f"SELECT count(DISTINCT priority) FROM {quoted}"))[0]
        dropped = f"The items of {table} have {different:,} priorities, which a log does not have"
        return (f"{dropped}: they come as they were put.",) if different > 1 else ()

    def _part(self, topic: str, table: str, condition: str, notes: tuple[str, ...] = ()) -> Queue:
        count = fetch_one(self._db.execute(f"SELECT count(*) FROM {table} WHERE {condition}"))[0]
        query = (
            f"SELECT _id, CAST(data AS BLOB), CAST(ifnull(timestamp, 0) * 1e6 AS INTEGER) FROM {table} "
            f"WHERE _id > ? AND {condition} ORDER BY _id LIMIT ?"
        )
        return Queue(topic, query, count, 1, {}, notes)


def _topics_of(tables: list[str]) -> dict[str, str]:
    """The topic of each table of persist-queue: main for a queue without a name; the table's name where two collide."""
    kinds = {table: next((kind for kind in _KINDS if table.startswith(kind + "_")), "") for table in tables}
    names = {table: table.removeprefix(kind + "_") if kind else table for table, kind in kinds.items()}
    topics = {table: "main" if name == "default" else name for table, name in names.items()}
    taken = list(topics.values())
    return {table: topic if taken.count(topic) == 1 else table for table, topic in topics.items()}


@contextlib.contextmanager
def open_foreign(path: str) -> Iterator[Foreign]:
    """Open a file of another program, or the folder of a persist-queue; all that is read is of one moment."""
    file = os.path.join(path, "data.db") if os.path.isdir(path) else path
    if not os.path.exists(file):
        raise StoreError(f"{file} does not exist")
    with contextlib.ExitStack() as stack:
        stack.enter_context(connections.translated(file))
        db = _open(file, stack)
        stack.callback(db.close)
        db.set_busy_timeout(TIMEOUT_MS)
        db.execute("BEGIN")
        yield Foreign(db, file)


def _open(file: str, stack: contextlib.ExitStack) -> apsw.Connection:
    """A connection that neither writes nor leaves anything behind.

    For writing, though nothing is written: a connection for reading only would leave the -wal and -shm that it makes.
    """
    if connections.size(file + "-journal"):
        db = apsw.Connection(file, apsw.SQLITE_OPEN_READONLY)
        try:
            db.execute("SELECT count(*) FROM sqlite_schema").fetchall()
            return db
        except (apsw.ReadOnlyError, apsw.CantOpenError):  # left by a crash: to read the file it must be rolled back
            db.close()
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pqlog-"))
        copy = os.path.join(folder, "old.db")
        _copy([(file, copy), (file + "-journal", copy + "-journal")])
        return apsw.Connection(copy)
    crashed = connections.size(file + "-wal")
    db = apsw.Connection(file, apsw.SQLITE_OPEN_READWRITE)
    db.pragma("query_only", True)
    db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, int(crashed > 0))
    return db


def _copy(pairs: list[tuple[str, str]]) -> None:
    """In another process: closing a file in this one would drop the locks of others that have it open here."""
    script = "import shutil, sys; [shutil.copyfile(*pair) for pair in zip(sys.argv[1::2], sys.argv[2::2])]"
    subprocess.run([sys.executable, "-c", script, *itertools.chain(*pairs)], check=True)  # noqa: S603
