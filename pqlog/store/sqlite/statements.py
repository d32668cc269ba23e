"""The statements of the engine, whole, each with what it is for. `{m}` is the table of a topic's messages."""

from pqlog.store.sqlite.smallrows import fits, sum_of

PUT_PROPERTY = f"INSERT INTO file VALUES (?1, ?2, {sum_of('file', name='?1', value='?2')})"
PROPERTIES = f"SELECT name, value, {fits('file')} FROM file"
SET_UUID = f"UPDATE file SET value = ?1, crc = {sum_of('file', value='?1')} WHERE name = 'uuid' AND {fits('file')}"

# The newest row: the next offset, the time that must not be run behind, and the checksum to continue.
TAIL = "SELECT offset + max(1, ifnull(rows, 1)), ifnull(last, time), crc FROM {m} ORDER BY offset DESC LIMIT 1"

# Many values without keys, headers or segments among them: one call hands SQLite a whole array. The last has the sum.
PUT_ARRAY = """
INSERT INTO {m} (offset, time, headers, value, crc)
SELECT ?1 + rowid - 1, ?2, ?3, {array_value}, iif(rowid = ?5, ?6, NULL) FROM carray(?4)
"""

PUT = "INSERT INTO {m} (offset, time, key, headers, value, crc) VALUES (?, ?, ?, ?, {value}, ?)"
# The offset of a put that rests on the remembered end of the topic. Another process may have put since: then the offset
# is taken, and the insertion fails. Or it has put and trimmed what it put: then `first` is beyond the offset, and ''
# is no offset either. Or it has put and sealed what it put, into a row that begins before the offset: then `sealed` is
# beyond it. Looking up that one row costs nothing that could be measured.
REMEMBERED_OFFSET = "(SELECT iif(max(first, sealed) > ?1, '', ?1) FROM topics WHERE id = {id})"
PUT_SEGMENT = "INSERT INTO {m} (offset, time, key, headers, value, crc, rows) VALUES (?, ?, ?, ?, ?, ?, ?)"

ID = "SELECT run FROM ids WHERE topic = ? AND id = ?"
RUNS_OF_NUMBER = f"""
SELECT partition, number, first, stop, ids FROM carray(?1) CROSS JOIN id_runs
    ON partition = value AND number = ?2 AND {fits("id_runs")}
"""
# In the order of their offsets, too.
RUNS = f"SELECT number, first, stop, ids FROM id_runs WHERE partition = ? AND {fits('id_runs')} ORDER BY number"
NEXT_RUN = """
SELECT ifnull(max((SELECT max(number) FROM id_runs WHERE partition = value)), 0) + 1 FROM carray(?)
"""
PUT_RUN = f"""
INSERT INTO id_runs VALUES (?1, ?2, ?3, ?4, ?5, {
    sum_of("id_runs", partition="?1", number="?2", first="?3", stop="?4", ids="?5")
})
"""
SET_ID = "INSERT OR REPLACE INTO ids VALUES (?, ?, ?)"
MOVE_ID = "UPDATE ids SET run = ?1 WHERE topic = ?2 AND id = ?3"
# Many ids at once, as bytes: an array of SQLite's ends a text at its first NUL. Each has its run behind it, in so many
# digits. Those that are known are passed over.
NEW_IDS = """
INSERT OR IGNORE INTO ids
SELECT ?1, CAST(substr(value, 1, length(value) - ?3) AS TEXT), ?2 + CAST(substr(value, -?3) AS INTEGER) FROM carray(?4)
"""
# To which runs those of many ids point that are there, but for some of the newest runs.
OLD_IDS = """
SELECT id, run FROM carray(?2) CROSS JOIN ids ON topic = ?1 AND id = CAST(value AS TEXT)
WHERE run NOT BETWEEN ?3 AND ?4
"""
COUNT_IDS = "SELECT count(*) FROM ids WHERE topic = ?"
DROP_IDS = """
DELETE FROM ids WHERE topic = ?1 AND id IN (SELECT CAST(value AS TEXT) FROM carray(?2))
    AND run IN (SELECT value FROM carray(?3))
"""
DROP_RUNS = "DELETE FROM id_runs WHERE partition = ? AND number <= ?"

# Of a damaged file all that can be read is wanted: a topic without a place where it begins, too.
TOPICS = f"""
SELECT id, CAST(name AS BLOB), CAST(codec AS BLOB), partition, partitions, {fits("topics")} FROM topics ORDER BY id
"""
# The same, also where some are damaged, which verify tells.
ALL_TOPICS = f"""
SELECT id, CAST(name AS BLOB), CAST(codec AS BLOB), partition, partitions, {sum_of("topics")} IS crc FROM topics
ORDER BY id
"""
TOPIC = f"SELECT id, name, codec, partition, partitions FROM topics WHERE name = ? AND {fits('topics')}"

# The bounds of what is kept. The newest row may be kept on disk though trimmed, hence `first`.
FIRST = f"SELECT iif({fits('topics')}, first, 1) FROM topics WHERE id = ?"

# Rows from an offset on. A text value is read as its bytes, which costs nothing.
READ = """
SELECT offset, time, key, headers, CAST(value AS BLOB), rows, last, crc FROM {m} WHERE offset >= ? ORDER BY offset
"""
# The first that has a key, or may have it: of a frame only the name of the key's field is known here, if it has one.
NEXT_WITH_KEY = """
SELECT offset, last IS NOT NULL FROM {m}
WHERE offset >= ? AND offset < ? AND (key = ? OR (rows IS NOT NULL AND key IS NOT NULL)) ORDER BY offset LIMIT 1
"""
# The row in which an offset lies: itself, or the segment that began before it.
ROW_OF = "SELECT offset, last IS NOT NULL FROM {m} WHERE offset <= ? ORDER BY offset DESC LIMIT 1"
# All of a row of sealed messages but their values.
SEALED_ROW = "SELECT time, key, headers, rows, last, crc FROM {m} WHERE offset = ? AND last IS NOT NULL"

NEXT_SEGMENT = "SELECT offset FROM {m} WHERE rows IS NOT NULL AND offset >= ? ORDER BY offset LIMIT 1"

# The segments that have messages from an offset on, up to another.
SEGMENTS = """
SELECT offset, offset + max(1, rows), time, last IS NOT NULL FROM {m}
WHERE rows IS NOT NULL AND offset < ?2 AND offset >= ifnull(
    (SELECT offset FROM {m} WHERE rows IS NOT NULL AND offset <= ?1 ORDER BY offset DESC LIMIT 1), ?1
) AND offset + max(1, rows) > ?1 ORDER BY offset
"""

# Where a checksum that covers what lies behind it begins: behind the last row before an offset that has one.
ANCHOR = """
SELECT offset + ifnull(rows, 1), crc FROM {m}
WHERE offset < ?1 AND offset + ifnull(rows, 1) <= ?1 AND crc IS NOT NULL ORDER BY offset DESC LIMIT 1
"""
# Where the next one ends, behind the first row from an offset on that has one; not behind the next row, whatever damage
# made of the number of rows, and an integer, since steps of offsets end only with integers.
NEXT_SUM = """
SELECT CAST(min(offset + max(1, ifnull(rows, 1)), ifnull(
    (SELECT offset FROM {m} WHERE offset > found.offset ORDER BY offset LIMIT 1), 1 << 62
)) AS INTEGER), crc FROM {m} AS found WHERE offset >= ? AND crc IS NOT NULL ORDER BY offset LIMIT 1
"""
TEXT = """
SELECT CAST(group_concat(value, char(10)) AS BLOB)
FROM (SELECT value FROM {m} WHERE offset >= ? AND offset < ? ORDER BY offset)
"""

# A run of single messages in one piece, how many they are and how many have a key, their first and last time.
LINES = """
SELECT CAST(group_concat(value, char(10)) AS BLOB), count(*), count(key),
    (SELECT time FROM {m} WHERE offset >= ?1 ORDER BY offset LIMIT 1),
    (SELECT time FROM {m} WHERE offset < ?2 ORDER BY offset DESC LIMIT 1)
FROM (SELECT value, key FROM {m} WHERE offset >= ?1 AND offset < ?2 ORDER BY offset)
"""
LINES_SIZE = "SELECT sum(octet_length(value)) FROM {m} WHERE offset >= ? AND offset < ?"
# Its times and its keys, a line each, and how many are of the type that they were put with: damage may change it.
LINES_TIME = """
SELECT CAST(group_concat(time, char(10)) AS BLOB), sum(typeof(time) = 'integer') FROM
    (SELECT time FROM {m} WHERE offset >= ? AND offset < ? ORDER BY offset)
"""
LINES_KEY = """
SELECT CAST(group_concat(json_quote(CAST(key AS TEXT)), char(10)) AS BLOB), sum(typeof(key) = 'text') FROM
    (SELECT key FROM {m} WHERE offset >= ? AND offset < ? ORDER BY offset)
"""

# A step of the search for a time: the first row kept at or after an offset. Time never runs backwards: no index.
PROBE = "SELECT offset, time, max(1, ifnull(rows, 1)), last FROM {m} WHERE offset >= ? ORDER BY offset LIMIT 1"

_CLIENT = f"""
SELECT name, next, claimed, epoch, batches, seen,
    EXISTS (SELECT 1 FROM claims WHERE claims.partition = clients.partition AND client = name)
FROM clients WHERE partition = ? AND {fits("clients")}
"""
CLIENT = f"{_CLIENT} AND name = ?"
CLIENTS = f"{_CLIENT} ORDER BY name"
OPEN = "SELECT client, count(*), max(attempt) FROM claims WHERE partition = ? GROUP BY client"
# The names around one that may be misspelt.
NAMES_BEFORE = "SELECT name FROM clients WHERE partition = ? AND name < ? ORDER BY name DESC LIMIT ?"
NAMES_BEHIND = "SELECT name FROM clients WHERE partition = ? AND name > ? ORDER BY name LIMIT ?"
# What the next batch of a client is cut from, without counting its claims.
NEXT_BATCH = f"SELECT claimed, epoch, batches FROM clients WHERE partition = ? AND name = ? AND {fits('clients')}"
# Whether there is none, if no message is behind what is claimed: what it claims, and whether anything is handed out.
IDLE = f"""
SELECT claimed, EXISTS (SELECT 1 FROM claims WHERE claims.partition = ?1 AND client = ?2)
FROM clients WHERE partition = ?1 AND name = ?2 AND {fits("clients")}
"""
JOIN = f"""
INSERT INTO clients VALUES (?1, ?2, ?3, ?3, ?4, 0, ?5, {
    sum_of("clients", partition="?1", name="?2", next="?3", claimed="?3", epoch="?4", batches="0", seen="?5")
})
"""
# Compare and set: a client that was moved with seek is not moved back by a reader that began before. Only for a client
# that has no claims.
ACKNOWLEDGE = f"""
UPDATE clients SET next = max(next, ?1), claimed = max(claimed, ?1), seen = ?2,
    crc = {sum_of("clients", next="max(next, ?1)", claimed="max(claimed, ?1)", seen="?2")}
WHERE partition = ?3 AND name = ?4 AND epoch = ?5 AND {fits("clients")}
    AND NOT EXISTS (SELECT 1 FROM claims WHERE partition = ?3 AND client = ?4)
"""
# Epochs are the file's, not the client's: one that is deleted and created again repeats none, so no token of a batch.
NEXT_EPOCH = f"""
UPDATE file SET value = value + 1, crc = {sum_of("file", value="value + 1")} WHERE name = 'epoch' AND {fits("file")}
"""
EPOCH = f"SELECT value FROM file WHERE name = 'epoch' AND {fits('file')}"
SEEK = f"""
UPDATE clients SET next = ?1, claimed = ?1, epoch = ?2, seen = ?3,
    crc = {sum_of("clients", next="?1", claimed="?1", epoch="?2", seen="?3")}
WHERE partition = ?4 AND name = ?5 AND {fits("clients")}
"""
DELETE_CLIENT = "DELETE FROM clients WHERE partition = ? AND name = ?"

# A new batch behind all that were handed out.
CUT = f"""
UPDATE clients SET batches = ?1, claimed = ?2, seen = ?3,
    crc = {sum_of("clients", batches="?1", claimed="?2", seen="?3")}
WHERE partition = ?4 AND name = ?5 AND {fits("clients")}
"""
_NEW = {"partition": "?1", "client": "?2", "number": "?3", "first": "?4", "stop": "?5", "token": "?6", "attempt": "1"}
_NEW |= {"worker": "?7", "process": "?8", "expires": "?9", "error": "NULL"}
CLAIM = f"INSERT INTO claims VALUES ({', '.join(_NEW.values())}, {sum_of('claims', **_NEW)})"
CLAIMS = f"""
SELECT number, first, stop, token, attempt, iif(process = '', '', worker || '|' || process), expires, error FROM claims
WHERE partition = ? AND client = ? AND {fits("claims")} ORDER BY number
"""
# Who holds batches of a client: each process once, by a step of the index for each, however many batches it holds.
PROCESSES = """
WITH RECURSIVE found (process) AS (
    SELECT min(process) FROM claims WHERE partition = ?1 AND client = ?2 AND process > ''
    UNION ALL
    SELECT (SELECT min(process) FROM claims WHERE partition = ?1 AND client = ?2 AND process > found.process) FROM found
    WHERE process IS NOT NULL
)
SELECT process FROM found WHERE process IS NOT NULL
"""
# What a process holds that is not known to live, if its lease is over: by the clock, or beyond any lease, after the
# clock was set back.
EXPIRED = """
SELECT EXISTS (SELECT 1 FROM claims WHERE partition = ?1 AND client = ?2 AND process = ?3 AND expires < ?4)
    OR EXISTS (SELECT 1 FROM claims WHERE partition = ?1 AND client = ?2 AND process = ?3 AND expires > ?5)
"""
_FREE = {"worker": "''", "process": "''", "expires": "0"}
_LET_GO = "UPDATE claims SET worker = '', process = '', expires = 0"
RELEASE = f"""
{_LET_GO}, error = ?1, crc = {sum_of("claims", **_FREE, error="?1")}
WHERE partition = ?2 AND client = ?3 AND number = ?4 AND token = ?5 AND {fits("claims")}
"""
_LET_GO += f", crc = {sum_of('claims', **_FREE)}"
RELEASE_LEFT = f"{_LET_GO} WHERE partition = ? AND client = ? AND number = ? AND token = ? AND {fits('claims')}"
RELEASE_ALL = f"{_LET_GO} WHERE process <> '' AND {fits('claims')}"
RELEASE_EXPIRED = f"{_LET_GO} WHERE partition = ? AND client = ? AND process = ? AND expires < ? AND {fits('claims')}"
# A lease that ends later than one that begins now was made by a clock that has been set back: it begins now.
SHORTEN = f"""
UPDATE claims SET expires = ?4, crc = {sum_of("claims", expires="?4")}
WHERE partition = ?1 AND client = ?2 AND process = ?3 AND expires > ?4 AND {fits("claims")}
"""
# All that a process holds, of any client.
HELD_BY = f"SELECT partition, client, number, token FROM claims WHERE process = ? AND {fits('claims')}"
# Whether somebody else holds a batch: nobody gets another one then, if they are to be handed out in order.
HELD = """
SELECT EXISTS (
    SELECT 1 FROM claims WHERE partition = ?1 AND client = ?2 AND process > '' AND NOT (worker = ?3 AND worker <> '')
)
"""
# The first batch that was released, and the first of a worker's own: an older holder of the same name is gone.
FREE = f"""
SELECT number, first, stop, attempt, error FROM claims
WHERE partition = ? AND client = ? AND process = '' AND {fits("claims")} ORDER BY expires, number LIMIT 1
"""
OWN = f"""
SELECT number, first, stop, attempt, error FROM claims
WHERE partition = ? AND client = ? AND worker = ? AND worker <> '' AND {fits("claims")} ORDER BY number LIMIT 1
"""
_TAKEN = {"token": "?1", "attempt": "attempt + 1", "worker": "?2", "process": "?3", "expires": "?4"}
TAKE_OVER = f"""
UPDATE claims SET token = ?1, attempt = attempt + 1, worker = ?2, process = ?3, expires = ?4,
    crc = {sum_of("claims", **_TAKEN)}
WHERE partition = ?5 AND client = ?6 AND number = ?7 AND {fits("claims")}
"""
RENEW = f"""
UPDATE claims SET expires = ?1, crc = {sum_of("claims", expires="?1")}
WHERE partition = ?2 AND client = ?3 AND number = ?4 AND token = ?5 AND {fits("claims")}
"""
DROP_CLAIM = "DELETE FROM claims WHERE partition = ? AND client = ? AND number = ? AND token = ?"
DROP_TRIMMED_CLAIM = "DELETE FROM claims WHERE partition = ? AND client = ? AND number = ?"
DROP_CLAIMS = "DELETE FROM claims WHERE partition = ? AND client = ?"
# Several workers acknowledge in any order; the position is the end of the batches that all are. The batch of the lowest
# number has the lowest offsets: it alone is looked at.
_REACHED = f"""max(
    next,
    ifnull(
        (SELECT first FROM claims WHERE partition = ?1 AND client = ?2 AND {fits("claims")} ORDER BY number LIMIT 1),
        claimed
    )
)"""
MOVE_ON = f"""
UPDATE clients SET seen = ?3, next = {_REACHED}, crc = {sum_of("clients", seen="?3", next=_REACHED)}
WHERE partition = ?1 AND name = ?2 AND {fits("clients")}
"""
# The messages behind an offset with the size of their rows: where a batch ends that is bounded by bytes.
SIZES = """
SELECT offset, octet_length(value), max(1, ifnull(rows, 1)), last IS NOT NULL
FROM {m} WHERE offset >= ? AND offset < ? ORDER BY offset
"""

CURSOR = f"SELECT value FROM cursors WHERE name = ? AND {fits('cursors')}"
CURSORS = f"SELECT name, value FROM cursors WHERE {fits('cursors')}"
SET_CURSOR = f"""
INSERT INTO cursors VALUES (?1, ?2, {sum_of("cursors", name="?1", value="?2")})
ON CONFLICT DO UPDATE SET value = excluded.value, crc = excluded.crc
"""

# A row that does not fit is as good as none, and no reader is told; a huge one is not even looked at.
CACHED_SCHEMA = f"""
SELECT first, stop, inference FROM schema_cache
WHERE partition = ?1 AND iif(octet_length(inference) <= ?2, crc = {sum_of("schema_cache")}, 0)
"""
CACHE_SCHEMA = f"""
INSERT OR REPLACE INTO schema_cache
SELECT ?1, ?2, ?3, ?4, {sum_of("schema_cache", partition="?1", first="?2", stop="?3", inference="?4")}
FROM topics WHERE id = ?1 AND first = ?2
"""

# No id of a topic is used twice: what is left of one that was deleted, an open `Topic` of another process say, never
# finds another in its place. The file notes the largest that was deleted.
NEW_TOPIC_ID = f"""
SELECT 1 + max(ifnull((SELECT max(id) FROM topics), 0),
    ifnull((SELECT value FROM file WHERE name = 'deleted topic' AND {fits("file")}), 0))
"""
NOTE_DELETED = f"""
INSERT INTO file VALUES ('deleted topic', ?1, {sum_of("file", name="'deleted topic'", value="?1")})
ON CONFLICT DO UPDATE SET value = excluded.value, crc = excluded.crc WHERE excluded.value > file.value
"""
# Topics of which a message may lie in another partition than its key names: from then on, each has a row of the file.
# By the id of the first partition, as all that is asked of a topic as such.
NOTE_UNPLACED = f"""
INSERT INTO file VALUES ('unplaced topic ' || ?1, ?1, {sum_of("file", name="'unplaced topic ' || ?1", value="?1")})
ON CONFLICT DO NOTHING
"""
IS_UNPLACED = f"SELECT 1 FROM file WHERE name = 'unplaced topic ' || ?1 AND {fits('file')}"
FORGET_UNPLACED = "DELETE FROM file WHERE name = 'unplaced topic ' || ?1"
MAKE_TOPIC = f"""
INSERT INTO topics VALUES (?1, ?2, ?3, ?4, ?5, 1, 1, ?6, {
    sum_of(
        "topics", id="?1", name="?2", codec="?3", partition="?4", partitions="?5", first="1", sealed="1", created="?6"
    )
})
"""
RENAME_TOPIC = f"UPDATE topics SET name = ?1, crc = {sum_of('topics', name='?1')} WHERE id = ?2 AND {fits('topics')}"
DELETE_TOPIC = (
    "DELETE FROM topics WHERE id = ?",
    "DELETE FROM clients WHERE partition = ?",
    "DELETE FROM claims WHERE partition = ?",
    "DELETE FROM ids WHERE topic = ?",
    "DELETE FROM schema_cache WHERE partition = ?",
    "DELETE FROM id_runs WHERE partition = ?",
)
DROP_MESSAGES = "DROP TABLE {m}"

# Every client is verified: one whose position was changed may be behind.
BEHIND = f"SELECT name, next FROM clients WHERE partition = ?1 AND iif({fits('clients')}, next < ?2, 0)"
TRIM = f"""
UPDATE topics SET first = ?1, crc = {sum_of("topics", first="?1")} WHERE id = ?2 AND first < ?1 AND {fits("topics")}
"""
NEXT_ROW = "SELECT offset, rows FROM {m} WHERE offset >= ? ORDER BY offset LIMIT 1"
VALUE_OF = "SELECT CAST(value AS BLOB) FROM {m} WHERE offset = ?"

# Sealing: a run of rows becomes one, if nobody else has sealed since it was read.
SEALED = f"SELECT sealed FROM topics WHERE id = ? AND {fits('topics')}"
# The rows with checksums among some, and whether the others are of the times of these, and have nothing else.
SUMS = "SELECT offset, time, crc FROM {m} WHERE offset >= ? AND offset < ? AND crc IS NOT NULL ORDER BY offset"
SUM_OF_TIMES = """
SELECT sum(time - ?3), count(headers) + count(rows) + count(last) FROM {m} WHERE offset >= ?1 AND offset < ?2
"""
SET_SEALED = f"""
UPDATE topics SET sealed = ?1, crc = {sum_of("topics", sealed="?1")} WHERE id = ?2 AND sealed = ?3 AND {fits("topics")}
"""
DROP_RUN = "DELETE FROM {m} WHERE offset >= ? AND offset < ?"
PUT_SEALED = "INSERT INTO {m} (offset, time, key, rows, last, crc, value) VALUES (?, ?, ?, ?, ?, ?, ?)"

# Rows that are trimmed, oldest first, a step at a time. The last of them that has a checksum stays, and what lies
# behind it: the sums of what is kept continue it. So the newest row always stays. It is sought from the first offset
# that is kept downwards: without `offset < ?1` each step would walk over all that is kept.
DROP_TRIMMED = """
DELETE FROM {m} WHERE offset IN (
    SELECT offset FROM {m} WHERE offset < (
        SELECT max(offset) FROM {m} WHERE offset < ?1 AND offset + ifnull(rows, 1) <= ?1 AND crc IS NOT NULL
    ) ORDER BY offset LIMIT ?2)
"""
