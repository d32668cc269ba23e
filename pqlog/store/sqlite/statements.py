"""The statements of the engine, whole, each with what it is for. `{m}` is the table of a topic's messages."""

# The newest row: the next offset, the time that must not be run behind, and the checksum to continue.
TAIL = "SELECT offset + ifnull(rows, 1), time, crc FROM {m} ORDER BY offset DESC LIMIT 1"

# Many values without keys, headers or segments among them: one call hands SQLite a whole array. The last has the sum.
PUT_ARRAY = """
INSERT INTO {m} (offset, time, headers, value, crc)
SELECT ?1 + rowid - 1, ?2, ?3, {array_value}, iif(rowid = ?5, ?6, NULL) FROM carray(?4)
"""

PUT = "INSERT INTO {m} (offset, time, key, headers, value, crc) VALUES (?, ?, ?, ?, {value}, ?)"
# The offset of a put that rests on the remembered end of the topic. Another process may have put since: then the offset
# is taken, and the insertion fails. Or it has put and trimmed what it put: then `first` is beyond the offset, and ''
# is no offset either. Looking up that one row costs nothing that could be measured.
REMEMBERED_OFFSET = "(SELECT iif(first > ?1, '', ?1) FROM topics WHERE id = {id})"
PUT_SEGMENT = "INSERT INTO {m} (offset, time, key, headers, value, crc, rows) VALUES (?, ?, ?, ?, ?, ?, ?)"

ID = "SELECT first, stop FROM ids WHERE topic = ? AND id = ?"
IDS = "SELECT id, first, stop FROM ids WHERE topic = ?"
PUT_ID = "INSERT INTO ids VALUES (?, ?, ?, ?)"
DROP_IDS = "DELETE FROM ids WHERE topic = ? AND stop <= ?"

TOPICS = "SELECT id, name, codec FROM topics ORDER BY id"
TOPIC = "SELECT id, name, codec FROM topics WHERE name = ?"

# The bounds of what is kept. The newest row may be kept on disk though trimmed, hence `first`.
FIRST = "SELECT first FROM topics WHERE id = ?"

# Rows from an offset on. A text value is read as its bytes, which costs nothing.
READ = "SELECT offset, time, key, headers, CAST(value AS BLOB), rows, crc FROM {m} WHERE offset >= ? ORDER BY offset"
# Which of them have a key; of segments only the name of the key's field is known here.
WITH_KEY = """
SELECT offset FROM {m} WHERE offset >= ? AND offset < ? AND (rows IS NOT NULL OR key = ?) ORDER BY offset LIMIT ?
"""
# The row in which an offset lies: itself, or the segment that began before it.
ROW_OF = "SELECT offset FROM {m} WHERE offset <= ? ORDER BY offset DESC LIMIT 1"

NEXT_SEGMENT = "SELECT offset FROM {m} WHERE rows IS NOT NULL AND offset >= ? ORDER BY offset LIMIT 1"

# Where a checksum that covers what lies behind it begins: behind the last row before an offset that has one.
ANCHOR = """
SELECT offset + ifnull(rows, 1), crc FROM {m}
WHERE offset < ?1 AND offset + ifnull(rows, 1) <= ?1 AND crc IS NOT NULL ORDER BY offset DESC LIMIT 1
"""
# The first row from an offset on that has one.
NEXT_SUM = "SELECT offset, crc FROM {m} WHERE offset >= ? AND crc IS NOT NULL ORDER BY offset LIMIT 1"
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
LINES_TIME = """
SELECT CAST(group_concat(time, char(10)) AS BLOB) FROM
    (SELECT time FROM {m} WHERE offset >= ? AND offset < ? ORDER BY offset)
"""
LINES_KEY = """
SELECT CAST(group_concat(json_quote(key), char(10)) AS BLOB) FROM
    (SELECT key FROM {m} WHERE offset >= ? AND offset < ? ORDER BY offset)
"""

# A step of the search for a time: the first row kept at or after an offset. Time never runs backwards: no index.
PROBE = "SELECT offset, time, ifnull(rows, 1) FROM {m} WHERE offset >= ? ORDER BY offset LIMIT 1"

_CLIENT = """
SELECT name, next, claimed, epoch, batches, seen,
    EXISTS (SELECT 1 FROM claims WHERE claims.topic = clients.topic AND client = name)
FROM clients WHERE topic = ?
"""
CLIENT = f"{_CLIENT} AND name = ?"
CLIENTS = f"{_CLIENT} ORDER BY name"
OPEN = "SELECT client, count(*), max(attempt) FROM claims WHERE topic = ? GROUP BY client"
# The names around one that may be misspelt.
NAMES_BEFORE = "SELECT name FROM clients WHERE topic = ? AND name < ? ORDER BY name DESC LIMIT ?"
NAMES_BEHIND = "SELECT name FROM clients WHERE topic = ? AND name > ? ORDER BY name LIMIT ?"
# What the next batch of a client is cut from, without counting its claims.
NEXT_BATCH = "SELECT claimed, epoch, batches FROM clients WHERE topic = ? AND name = ?"
JOIN = "INSERT INTO clients VALUES (?1, ?2, ?3, ?3, ?4, 0, ?5)"
# Compare and set: a client that was moved with seek is not moved back by a reader that began before. Only for a client
# that has no claims.
ACKNOWLEDGE = """
UPDATE clients SET next = max(next, ?1), claimed = max(claimed, ?1), seen = ?2
WHERE topic = ?3 AND name = ?4 AND epoch = ?5
    AND NOT EXISTS (SELECT 1 FROM claims WHERE topic = ?3 AND client = ?4)
"""
# Epochs are the file's, not the client's: one that is deleted and made again repeats none, so no token of a batch.
NEXT_EPOCH = "UPDATE file SET value = value + 1 WHERE name = 'epoch' RETURNING value"
SEEK = "UPDATE clients SET next = ?1, claimed = ?1, epoch = ?2, seen = ?3 WHERE topic = ?4 AND name = ?5"
DELETE_CLIENT = "DELETE FROM clients WHERE topic = ? AND name = ?"

# A new batch behind all that were handed out.
CUT = "UPDATE clients SET batches = ?, claimed = ?, seen = ? WHERE topic = ? AND name = ?"
CLAIM = "INSERT INTO claims VALUES (?, ?, ?, ?, ?, ?, 1, ?, ?, ?, NULL)"
CLAIMS = """
SELECT number, first, stop, token, attempt, iif(process = '', '', worker || '|' || process), expires, error FROM claims
WHERE topic = ? AND client = ? ORDER BY number
"""
# Who holds batches of a client: each process once, by a step of the index for each, however many batches it holds.
PROCESSES = """
WITH RECURSIVE found (process) AS (
    SELECT min(process) FROM claims WHERE topic = ?1 AND client = ?2 AND process > ''
    UNION ALL
    SELECT (SELECT min(process) FROM claims WHERE topic = ?1 AND client = ?2 AND process > found.process) FROM found
    WHERE process IS NOT NULL
)
SELECT process FROM found WHERE process IS NOT NULL
"""
# What a process holds that is not known to live, if its lease is over: by the clock, or beyond any lease, after the
# clock was set back.
EXPIRED = """
SELECT EXISTS (SELECT 1 FROM claims WHERE topic = ?1 AND client = ?2 AND process = ?3 AND expires < ?4)
    OR EXISTS (SELECT 1 FROM claims WHERE topic = ?1 AND client = ?2 AND process = ?3 AND expires > ?5)
"""
_LET_GO = "UPDATE claims SET worker = '', process = '', expires = 0"
RELEASE = f"{_LET_GO}, error = ? WHERE topic = ? AND client = ? AND number = ? AND token = ?"
RELEASE_LEFT = f"{_LET_GO} WHERE topic = ? AND client = ? AND number = ? AND token = ?"
RELEASE_EXPIRED = f"{_LET_GO} WHERE topic = ? AND client = ? AND process = ? AND expires < ?"
# A lease that ends later than one that begins now was made by a clock that has been set back: it begins now.
SHORTEN = "UPDATE claims SET expires = ?4 WHERE topic = ?1 AND client = ?2 AND process = ?3 AND expires > ?4"
# All that a process holds, of any client.
HELD_BY = "SELECT topic, client, number, token FROM claims WHERE process = ?"
# The first batch that was released, and the first of a worker's own: an older holder of the same name is gone.
FREE = """
SELECT number, first, stop, attempt, error FROM claims
WHERE topic = ? AND client = ? AND process = '' ORDER BY expires, number LIMIT 1
"""
OWN = """
SELECT number, first, stop, attempt, error FROM claims
WHERE topic = ? AND client = ? AND worker = ? AND worker <> '' ORDER BY number LIMIT 1
"""
TAKE_OVER = """
UPDATE claims SET token = ?, attempt = attempt + 1, worker = ?, process = ?, expires = ?
WHERE topic = ? AND client = ? AND number = ?
"""
RENEW = "UPDATE claims SET expires = ? WHERE topic = ? AND client = ? AND number = ? AND token = ?"
DROP_CLAIM = "DELETE FROM claims WHERE topic = ? AND client = ? AND number = ? AND token = ?"
DROP_CLAIMS = "DELETE FROM claims WHERE topic = ? AND client = ?"
# Several workers acknowledge in any order; the position is the end of the batches that all are. The batch of the lowest
# number has the lowest offsets: it alone is looked at.
MOVE_ON = """
UPDATE clients SET seen = ?3,
    next = max(
        next, ifnull((SELECT first FROM claims WHERE topic = ?1 AND client = ?2 ORDER BY number LIMIT 1), claimed)
    )
WHERE topic = ?1 AND name = ?2
"""
# The messages behind an offset with the size of their rows: where a batch ends that is bounded by bytes.
SIZES = """
SELECT offset, octet_length(value), ifnull(rows, 1) FROM {m} WHERE offset >= ? AND offset < ? ORDER BY offset
"""

CURSOR = "SELECT value FROM cursors WHERE name = ?"
CURSORS = "SELECT name, value FROM cursors"
SET_CURSOR = "INSERT INTO cursors VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"

BEHIND = "SELECT name, next FROM clients WHERE topic = ? AND next < ?"
TRIM = "UPDATE topics SET first = ? WHERE id = ? AND first < ?"
# Rows that are trimmed, oldest first, a step at a time. The last of them that has a checksum stays, and what lies
# behind it: the sums of what is kept continue it. So the newest row always stays. It is sought from the first offset
# that is kept downwards: without `offset < ?1` each step would walk over all that is kept.
DROP_TRIMMED = """
DELETE FROM {m} WHERE offset IN (
    SELECT offset FROM {m} WHERE offset < (
        SELECT max(offset) FROM {m} WHERE offset < ?1 AND offset + ifnull(rows, 1) <= ?1 AND crc IS NOT NULL
    ) ORDER BY offset LIMIT ?2)
"""
