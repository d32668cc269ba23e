"""The tables of a file, version 1, and how a file gets there. docs/file-format.md describes them for other tools."""

from __future__ import annotations

import re
import secrets
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import apsw

from pqlog.store.sqlite import checksums, smallrows, statements

APPLICATION_ID = 0x70716C67
"""``pqlg`` in ASCII: marks the file for `file(1)` and for us."""

VERSION = 1
"""PRAGMA user_version of the newest format that this code writes."""

FILE = """
CREATE TABLE file (            -- facts about the file
    name  TEXT PRIMARY KEY,    -- 'uuid', 'created', 'epoch'; 'seed' of the checksums, and 'copy' of it
    value ANY NOT NULL,
    crc   INTEGER NOT NULL     -- checksum of the row: see smallrows.py
) STRICT, WITHOUT ROWID
"""

TOPICS = """
CREATE TABLE topics (                 -- a row for each partition; those of one topic have ids that follow each other
    id         INTEGER PRIMARY KEY,   -- messages of number 7 lie in messages_7
    name       TEXT NOT NULL,
    codec      TEXT NOT NULL,         -- how single messages are encoded: json, msgpack, pickle, bytes, or your own
    partition  INTEGER NOT NULL,      -- its number, from 0
    partitions INTEGER NOT NULL,      -- how many the topic has
    first      INTEGER NOT NULL,      -- the first offset that is kept: what lies before is trimmed
    sealed     INTEGER NOT NULL,      -- behind the last message that was sealed: nothing may be put before it
    created    INTEGER NOT NULL,      -- microseconds since 1970, UTC
    crc        INTEGER NOT NULL,
    UNIQUE (name, partition)
) STRICT
"""

CLIENTS = """
CREATE TABLE clients (
    partition INTEGER NOT NULL REFERENCES topics(id),
    name      TEXT NOT NULL,
    next      INTEGER NOT NULL,    -- the offset after the acknowledged ones: all before it are
    claimed   INTEGER NOT NULL,    -- the offset after the last batch that was handed out
    epoch     INTEGER NOT NULL,    -- a new one at its first sight and at each seek: counted by the file
    batches   INTEGER NOT NULL,    -- the number of its latest batch
    seen      INTEGER NOT NULL,    -- microseconds since 1970, UTC
    crc       INTEGER NOT NULL,
    PRIMARY KEY (partition, name)
) STRICT, WITHOUT ROWID
"""

CLAIMS = """
CREATE TABLE claims (              -- batches that are handed out and not acknowledged
    partition INTEGER NOT NULL,    -- the id of the one that its messages are of
    client    TEXT NOT NULL,
    number    INTEGER NOT NULL,    -- counts the client's batches of it from 1
    first     INTEGER NOT NULL,
    stop      INTEGER NOT NULL,    -- the offset after the last of the batch
    token     INTEGER NOT NULL,    -- changes whenever it is handed out: an older holder cannot acknowledge
    attempt   INTEGER NOT NULL,    -- how often it was handed out
    worker    TEXT NOT NULL,       -- the name that its holder gave itself; '' if none
    process   TEXT NOT NULL,       -- its holder's process: host, number, start, boot; '' if it was released
    expires   INTEGER NOT NULL,    -- microseconds since 1970, UTC; a living holder puts it off; 0 if it was released
    error     TEXT,                -- why it was released, if by an exception
    crc       INTEGER NOT NULL,
    PRIMARY KEY (partition, client, number)
) STRICT, WITHOUT ROWID
"""

# What is free is found without looking at what is not: to take a batch, those of others are not read.
CLAIMS_BY_PROCESS = "CREATE INDEX claims_by_process ON claims (partition, client, process, expires)"
CLAIMS_BY_WORKER = "CREATE INDEX claims_by_worker ON claims (partition, client, worker) WHERE worker <> ''"

IDS = """
CREATE TABLE ids (                 -- ids of puts and messages, so that the same put again does nothing
    topic INTEGER NOT NULL,        -- its first partition: they are unique over all of them
    id    TEXT NOT NULL,
    run   INTEGER NOT NULL,        -- where it stands in id_runs, of one of the partitions
    PRIMARY KEY (topic, id)
) STRICT, WITHOUT ROWID
"""

# In the order of the offsets of each partition: those that trim drops are the first.
ID_RUNS = """
CREATE TABLE id_runs (
    partition INTEGER NOT NULL,    -- the id of that where what was put with these ids went
    number    INTEGER NOT NULL,    -- counts the runs of the topic; those of one call have the same in all partitions
    first     INTEGER NOT NULL,    -- the offsets
    stop      INTEGER NOT NULL,
    ids       TEXT NOT NULL,       -- a JSON array of text: one for each message, or one for all of them
    crc       INTEGER NOT NULL,
    PRIMARY KEY (partition, number)
) STRICT, WITHOUT ROWID
"""

CURSORS = """
CREATE TABLE cursors (             -- how far sources outside have been read, committed with what they brought
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL,           -- JSON
    crc   INTEGER NOT NULL
) STRICT, WITHOUT ROWID
"""

SCHEMA_CACHE = """
CREATE TABLE schema_cache (        -- what readers inferred about the columns; without it they are slower, no more
    partition INTEGER PRIMARY KEY,
    first     INTEGER NOT NULL,    -- inferred from the messages from this offset
    stop      INTEGER NOT NULL,    -- up to, not including, this one
    inference TEXT NOT NULL,       -- JSON
    crc       INTEGER NOT NULL
) STRICT
"""

# The value comes last: whatever else a row has is read without all pages of a large value.
# No AUTOINCREMENT: its bookkeeping would write a second page at every commit. Offsets are never used twice because
# trim keeps the newest row.
MESSAGES = """
CREATE TABLE messages_{id} (
    offset  INTEGER PRIMARY KEY,   -- of a segment: its first message's
    time    INTEGER NOT NULL,      -- microseconds since 1970, UTC
    key     TEXT,                  -- of a segment: the name of the field that is its key
    headers TEXT,                  -- a JSON object of strings
    rows    INTEGER,               -- NULL for a single message; of a segment: how many messages it holds
    last    INTEGER,               -- of sealed messages: the time of the last of them; NULL otherwise
    crc     INTEGER,               -- checksums of the rows since the last that has them: see checksums.py
    value   ANY NOT NULL           -- TEXT for JSON, BLOB for other codecs; of a segment: an Arrow IPC stream, or sealed
) STRICT
"""

# Finds the next segment without reading the messages before it; single messages do not enter it.
SEGMENTS = "CREATE INDEX segments_{id} ON messages_{id} (offset) WHERE rows IS NOT NULL"

NEW_FILE = (FILE, TOPICS, CLIENTS, CLAIMS, CLAIMS_BY_PROCESS, CLAIMS_BY_WORKER, IDS, ID_RUNS, CURSORS, SCHEMA_CACHE)
NEW_TOPIC = (MESSAGES, SEGMENTS)

_OF_TOPIC = re.compile(r"(?:messages|segments)_(\d+)")
# What SQLite may compute of a table that is not ours when it checks or rewrites the file.
_COMPUTES = re.compile(r"\b(as|check|where)\b", re.IGNORECASE)


class SchemaEntry(NamedTuple):
    """A row of SQLite's own table of tables, indexes, views and triggers."""

    type: str
    name: str
    table: str
    """The table that it is, or belongs to."""
    page: int
    """Where it lies; 0 for what is no table or index of the file: a view, a trigger, a virtual table."""
    sql: str
    """Its statement; empty for the index of a PRIMARY KEY or UNIQUE."""


def entries(db: apsw.Connection) -> list[SchemaEntry]:
    """All that a file has. (sqlite_schema would be another name for it, which a table of the file may have taken.)"""
    columns = "type, name, tbl_name, ifnull(rootpage, 0), ifnull(sql, '')"
    return [SchemaEntry(*found) for found in db.execute(f"SELECT {columns} FROM sqlite_master")]


def differences(db: apsw.Connection, found: Sequence[SchemaEntry]) -> Iterator[str]:
    """What a file has other than what pqlog makes; reads nothing from it that was not compared before.

    A table can be a view, a column can be computed, a trigger can follow a put: all of them would run what somebody
    wrote into the file. Plain tables of others, and their plain indexes, are left alone.
    """
    by_name = {entry.name: entry for entry in found}
    for name in _FILE:
        if name not in by_name:
            yield f"the table {name} is missing"
    for entry in found:
        ours = _ours(entry.name)
        if ours is None:
            if not _is_plain(db, entry, by_name):
                yield f"there is the {entry.type} {entry.name!r}, which is not of pqlog"
        elif (entry.type, entry.table, entry.sql.strip()) != ours or not entry.page:
            yield f"the {entry.type} {entry.name} is not as pqlog makes it"
    if len({entry.page for entry in found if entry.page}) < sum(entry.page != 0 for entry in found):
        yield "two tables have the same pages"


def missing_topics(db: apsw.Connection, found: Sequence[SchemaEntry]) -> Iterator[str]:
    """Where topics and tables of messages do not belong to each other."""
    topics = {f"{kind}_{id}" for (id,) in db.execute("SELECT id FROM topics") for kind in ("messages", "segments")}
    for name in sorted(topics ^ {entry.name for entry in found if _OF_TOPIC.fullmatch(entry.name)}):
        yield f"{name} is missing" if name in topics else f"there is no topic of {name}"


def _ours(name: str) -> tuple[str, str, str] | None:
    """Type, table and statement of what pqlog makes of that name; None if it makes none."""
    topic = _OF_TOPIC.fullmatch(name)
    if topic is None:
        return _FILE.get(name)
    table = f"messages_{topic[1]}"
    if name == table:
        return "table", table, MESSAGES.strip().replace("{id}", topic[1])
    return "index", table, SEGMENTS.replace("{id}", topic[1])


_FILE: dict[str, tuple[str, str, str]] = {"sqlite_autoindex_topics_1": ("index", "topics", "")}
for _sql in NEW_FILE:
    _words = _sql.split()  # CREATE TABLE name, or CREATE INDEX name ON table
    _FILE[_words[2]] = (_words[1].lower(), _words[4 if _words[1] == "INDEX" else 2], _sql.strip())


def _is_plain(db: apsw.Connection, entry: SchemaEntry, by_name: Mapping[str, SchemaEntry]) -> bool:
    """Whether something that is not ours is a table without computed columns, or an index on the columns of one."""
    if not entry.page or entry.type not in ("table", "index") or entry.name.lower().startswith(("pragma_", "carray")):
        return False
    if _ours(entry.table) is not None or _COMPUTES.search(entry.sql):
        return False
    if entry.type == "table":
        return entry.table == entry.name
    quoted = '"' + entry.name.replace('"', '""') + '"'
    return entry.table in by_name and all(column[1] > -2 for column in db.execute(f"PRAGMA index_xinfo({quoted})"))


def create(db: apsw.Connection) -> None:
    """Make the tables of a new file, inside the caller's transaction."""
    for statement in NEW_FILE:
        db.execute(statement)
    seed = secrets.randbits(checksums.SEED_BITS)
    properties = {"uuid": str(uuid.uuid4()), "created": time.time_ns() // 1000, "epoch": 0, "seed": seed, "copy": seed}
    smallrows.register(db, 0)
    db.executemany(statements.PUT_PROPERTY, properties.items())
    db.pragma("application_id", APPLICATION_ID)
    db.pragma("user_version", VERSION)
