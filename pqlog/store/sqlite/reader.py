"""Reading a topic: rows, runs of lines, bounds and times. Each call is one short query on a borrowed connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import apsw

from pqlog.errors import DamagedError
from pqlog.store.sqlite import checksums
from pqlog.store.sqlite.connections import row
from pqlog.store.sqlite.connections import rows as rows_of
from pqlog.store.sqlite.table import Table, messages_in
from pqlog.store.values import Lines, Row, Span


def span(db: apsw.Connection, table: Table) -> Span:
    """The offsets that are kept."""
    first = table.read_first(db)
    return Span(first, max(first, table.read_tail(db).stop))


def read(
    db: apsw.Connection, table: Table, wanted: Span, rows: int, max_bytes: int, damaged: bool = False
) -> list[Row]:
    """The first rows in `wanted`, clipped to it; at least one, however large, if there is any.

    They are read from behind a checksum up to the next one, and verified before they are returned.
    """
    wanted = Span(max(wanted.first, table.read_first(db)), wanted.stop)
    if not wanted:
        return []
    begin, crc = anchor(db, table, wanted.first)
    expected = begin
    found: list[Row] = []
    since: list[_Metadata] = []  # what the next sum covers, too
    verified, left = 0, max_bytes
    cursor = db.execute(table.read, (begin or 0,))
    try:
        for offset, time, key, headers, value, count, kept in cursor:
            if offset >= wanted.stop and not since:
                break
            if expected not in (None, offset):
                crc ^= 1  # rows are missing: let no sum fit
            since.append(_Metadata(time, headers, key, count))
            crc, expected = checksums.extend(crc, value), offset + (1 if count is None else max(1, count))
            first, stop = max(offset, wanted.first), min(expected, wanted.stop)
            if first < stop and left > 0 and len(found) < rows:
                left -= len(value)
                part = None if count is None else stop - first
                found.append(Row(first, time, key, headers, value, part, first - offset, count))
            if kept is None:
                continue
            kept_crc, metadata_crc = checksums.unmask(kept, table.seed)
            if not damaged and (crc != kept_crc or metadata_crc != _sum(since)):
                break
            crc, verified, begin = kept_crc, len(found), expected
            since.clear()
            if found and (left <= 0 or len(found) >= rows):
                break
    except (TypeError, ValueError):  # a value has not even the type of its column, or a text is none
        if damaged:  # nobody can have it; what lies behind it is not to be left out without a word
            raise
        since.append(_Metadata(0, None, None, None))
    except (apsw.CorruptError, apsw.IOError):
        if not verified:
            raise
    finally:
        cursor.close(True)  # not to raise the error of its last step again
    if damaged:
        return found
    if since and not verified:  # else the caller is given what is whole, and the error when it asks for more
        raise DamagedError(table.topic, max(begin or 1, wanted.first), (expected or wanted.stop) - 1)
    if not verified:
        _check_missing(db, table, wanted)
    return found[:verified]


def _check_missing(db: apsw.Connection, table: Table, wanted: Span) -> None:
    """Raise if there should be messages where none was found: offsets have no gaps."""
    stop = min(wanted.stop, span(db, table).stop)
    if wanted.first < stop:
        after = row(db.execute(table.probe, (wanted.first + 1,)))
        raise DamagedError(table.topic, wanted.first, min(after[0], stop) - 1 if after else stop - 1)


class _Metadata(NamedTuple):
    """What stands beside a value."""

    time: int
    headers: str | None
    key: str | None
    rows: int | None


def _sum(rows: Sequence[_Metadata]) -> int:
    """The sum of it; -1, which is none, if it cannot have been put at once."""
    time, headers, _, count = rows[0]
    same = len(rows) == 1 or all((row.time, row.headers, row.rows) == (time, headers, None) for row in rows)
    if not same or (count is not None and count < 1):
        return -1
    return checksums.of_metadata(time, headers, [row.key for row in rows], count)


def read_key(db: apsw.Connection, table: Table, wanted: Span, rows: int, max_bytes: int, key: str) -> list[Row]:
    """The same of one key, and of segments, of which only the name of the key's field is known here."""
    table.read_first(db)
    begin = row(db.execute(table.row_of, (wanted.first,)))
    start = begin[0] if begin else wanted.first
    found: list[Row] = []
    at, left = wanted.first, max_bytes
    for (offset,) in rows_of(db.execute(table.with_key, (start, wanted.stop, key, rows))):
        if offset < at and at > wanted.first:
            continue
        at = max(offset, at)
        run = read(db, table, Span(at, wanted.stop), checksums.ROWS, left)
        chosen = [one for one in run if one.rows is not None or one.key == key]
        found += chosen
        left -= sum(len(one.value) for one in chosen)
        if run:
            at = run[-1].stop
        if left <= 0 or len(found) >= rows:
            break
    return found[:rows]


def anchor(db: apsw.Connection, table: Table, offset: int) -> tuple[int | None, int]:
    """Where a checksum begins that covers an offset, and what it continues; None at the topic's first row."""
    found = row(db.execute(table.anchor, (offset,)))
    return (found[0], checksums.unmask(found[1], table.seed)[0]) if found else (None, 0)


def read_lines(db: apsw.Connection, table: Table, wanted: Span, rows: int, max_bytes: int) -> Lines | None:
    """The first single messages in `wanted`, as text; None where a segment comes first, or nothing."""
    kept = span(db, table)
    first, stop = max(wanted.first, kept.first), min(wanted.stop, kept.stop)
    begin = row(db.execute(table.row_of, (first,)))
    if first >= stop or (begin is not None and begin[0] != first):
        return None
    segment = row(db.execute(table.next_segment, (first,)))
    if segment is not None:
        stop = min(stop, segment[0])
    stop = min(stop, first + rows)
    if first >= stop:
        return None
    found = _lines(db, table, Span(first, stop), 2 * max_bytes)
    while found is None:  # too large: rows of another size than those before, say
        size = row(db.execute(table.lines_size, (first, stop)))[0]
        stop = first + max(1, min((stop - first) // 2, (stop - first) * max_bytes // size))
        found = _lines(db, table, Span(first, stop), 2 * max_bytes if stop - first > 1 else None)
    values, count, keys, earliest, latest = found
    if not count:
        return None
    bounds = (first, stop)
    if count != stop - first or not _fits(db, table, Span(first, stop), values):
        read(db, table, Span(first, stop), stop - first, max_bytes)  # says which, unless the first are whole
        return None
    times = b"%d" % earliest if earliest == latest else row(db.execute(table.lines_time, bounds))[0]
    return Lines(first, count, values, times, row(db.execute(table.lines_key, bounds))[0] if keys else None)


def _lines(db: apsw.Connection, table: Table, wanted: Span, max_bytes: int | None) -> Any:
    """The values of a span in one piece, unless they are larger than that: SQLite stops there by itself."""
    before = db.limit(apsw.SQLITE_LIMIT_LENGTH)
    if max_bytes is not None:
        db.limit(apsw.SQLITE_LIMIT_LENGTH, max_bytes)
    try:
        return row(db.execute(table.lines, tuple(wanted)))
    except apsw.TooBigError:
        return None
    finally:
        db.limit(apsw.SQLITE_LIMIT_LENGTH, before)


def _fits(db: apsw.Connection, table: Table, wanted: Span, values: bytes) -> bool:
    """Whether a run of single messages, read as lines, is what was put."""
    begin, crc = anchor(db, table, wanted.first)
    before = row(db.execute(table.text, (begin or 0, wanted.first)))[0]
    end, kept = row(db.execute(table.next_sum, (wanted.stop - 1,))) or (0, 0)
    behind = row(db.execute(table.text, (wanted.stop, end + 1)))[0]
    for lines in (before, values, behind):
        if lines is not None:
            crc = checksums.extend(crc, lines)
    return crc == checksums.unmask(kept, table.seed)[0]


def offset_at(db: apsw.Connection, table: Table, time: int) -> int:
    """The first offset whose message was put at or after `time`, by bisection over the offsets.

    Raises nothing; the next offset if no message is that late.
    """
    low, high = span(db, table)
    while low < high:
        middle = (low + high) // 2
        begin = row(db.execute(table.row_of, (middle,)))
        offset, found, count = row(db.execute(table.probe, (begin[0] if begin else middle,)))
        if found >= time:
            high = max(low, offset)
            if offset <= low:
                break
        else:
            low = offset + count
    return low


def time_at(db: apsw.Connection, table: Table, offset: int) -> int | None:
    """When the message at an offset was put; None if it is not kept."""
    kept = span(db, table)
    if not kept.first <= offset < kept.stop:
        return None
    begin = row(db.execute(table.row_of, (offset,)))
    return row(db.execute(table.probe, (begin[0],)))[1] if begin else None


def count(db: apsw.Connection, table: Table, wanted: Span) -> int:
    """How many messages are kept in `wanted`. Offsets have no gaps here, so nothing is read."""
    kept = span(db, table)
    return messages_in(Span(max(wanted.first, kept.first), min(wanted.stop, kept.stop)))
