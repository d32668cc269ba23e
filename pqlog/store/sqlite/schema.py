"""The tables of a file, version 1, and how a file gets there. docs/file-format.md describes them for other tools."""

from __future__ import annotations

import secrets
import time
import uuid

import apsw

from pqlog.store.sqlite import checksums

APPLICATION_ID = 0x70716C67
"""``pqlg`` in ASCII: marks the file for `file(1)` and for us."""

VERSION = 1
"""PRAGMA user_version of the newest format that this code writes."""

FILE = """
CREATE TABLE file (            -- facts about the file
    name  TEXT PRIMARY KEY,    -- 'uuid', 'created', 'epoch', 'seed' of the checksums
    value ANY NOT NULL
) STRICT, WITHOUT ROWID
"""

TOPICS = """
CREATE TABLE topics (
    id      INTEGER PRIMARY KEY,   -- messages of topic 7 lie in messages_7
    name    TEXT NOT NULL UNIQUE,
    codec   TEXT NOT NULL,         -- how single messages are encoded: json, msgpack, pickle, bytes, or your own
    first   INTEGER NOT NULL,      -- the first offset that is kept: what lies before is trimmed
    created INTEGER NOT NULL       -- microseconds since 1970, UTC
) STRICT
"""

CLIENTS = """
CREATE TABLE clients (
    topic   INTEGER NOT NULL REFERENCES topics(id),
    name    TEXT NOT NULL,
    next    INTEGER NOT NULL,      -- the offset after the acknowledged ones: all before it are
    claimed INTEGER NOT NULL,      -- the offset after the last batch that was handed out
    epoch   INTEGER NOT NULL,      -- a new one at its first sight and at each seek: counted by the file
    batches INTEGER NOT NULL,      -- the number of its latest batch
    seen    INTEGER NOT NULL,      -- microseconds since 1970, UTC
    PRIMARY KEY (topic, name)
) STRICT, WITHOUT ROWID
"""

CLAIMS = """
CREATE TABLE claims (              -- batches that are handed out and not acknowledged
    topic   INTEGER NOT NULL,
    client  TEXT NOT NULL,
    number  INTEGER NOT NULL,      -- counts the client's batches from 1
    first   INTEGER NOT NULL,
    stop    INTEGER NOT NULL,      -- the offset after the last of the batch
    token   INTEGER NOT NULL,      -- changes whenever it is handed out: an older holder cannot acknowledge
    attempt INTEGER NOT NULL,      -- how often it was handed out
    worker  TEXT NOT NULL,         -- the name that its holder gave itself; '' if none
    process TEXT NOT NULL,         -- its holder's process: host, number, start, boot; '' if it was released
    expires INTEGER NOT NULL,      -- microseconds since 1970, UTC; a living holder puts it off; 0 if it was released
    error   TEXT,                  -- why it was released, if by an exception
    PRIMARY KEY (topic, client, number)
) STRICT, WITHOUT ROWID
"""

# What is free is found without looking at what is not: whoever asks for a batch need not read those of all others.
CLAIMS_BY_PROCESS = "CREATE INDEX claims_by_process ON claims (topic, client, process, expires)"
CLAIMS_BY_WORKER = "CREATE INDEX claims_by_worker ON claims (topic, client, worker) WHERE worker <> ''"

IDS = """
CREATE TABLE ids (                 -- puts that were given an id, so that the same put again does nothing
    topic INTEGER NOT NULL,
    id    TEXT NOT NULL,
    first INTEGER NOT NULL,
    stop  INTEGER NOT NULL,
    PRIMARY KEY (topic, id)
) STRICT, WITHOUT ROWID
"""

# Those that trim drops, found without looking at the others.
IDS_BY_STOP = "CREATE INDEX ids_by_stop ON ids (topic, stop)"

CURSORS = """
CREATE TABLE cursors (             -- how far sources outside have been read, committed with what they brought
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL            -- JSON
) STRICT, WITHOUT ROWID
"""

# No AUTOINCREMENT: its bookkeeping would write a second page at every commit. Offsets are never used twice because
# trim keeps the newest row.
MESSAGES = """
CREATE TABLE messages_{id} (
    offset  INTEGER PRIMARY KEY,   -- of a segment: its first message's
    time    INTEGER NOT NULL,      -- microseconds since 1970, UTC
    key     TEXT,                  -- of a segment: the name of the field that is its key
    headers TEXT,                  -- a JSON object of strings
    value   ANY NOT NULL,          -- TEXT for JSON, BLOB for other codecs; of a segment: an Arrow IPC stream
    rows    INTEGER,               -- NULL for a single message; of a segment: how many messages it holds
    crc     INTEGER                -- checksums of the rows since the last that has them: see checksums.py
) STRICT
"""

# Finds the next segment without reading the messages before it; single messages do not enter it.
SEGMENTS = "CREATE INDEX segments_{id} ON messages_{id} (offset) WHERE rows IS NOT NULL"

NEW_FILE = (FILE, TOPICS, CLIENTS, CLAIMS, CLAIMS_BY_PROCESS, CLAIMS_BY_WORKER, IDS, IDS_BY_STOP, CURSORS)
NEW_TOPIC = (MESSAGES, SEGMENTS)


def create(db: apsw.Connection) -> None:
    """Make the tables of a new file, inside the caller's transaction."""
    for statement in NEW_FILE:
        db.execute(statement)
    facts = (str(uuid.uuid4()), time.time_ns() // 1000, secrets.randbits(checksums.SEED_BITS))
    db.execute("INSERT INTO file VALUES ('uuid', ?), ('created', ?), ('epoch', 0), ('seed', ?)", facts)
    db.pragma("application_id", APPLICATION_ID)
    db.pragma("user_version", VERSION)
