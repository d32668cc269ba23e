"""Reading a topic: rows, runs of lines, bounds and times. Each call is one short query on a borrowed connection."""

from __future__ import annotations

from typing import Any

import apsw

from pqlog.store.api import Lines, Row, Span
from pqlog.store.sqlite.connections import row
from pqlog.store.sqlite.table import Table


def span(db: apsw.Connection, table: Table) -> Span:
    """The offsets that are kept."""
    first: int = row(db.execute(table.first, (table.id,)))[0]
    stop = row(db.execute(table.ask_tail))
    return Span(first, stop[0] if stop else first)


def read(
    db: apsw.Connection, table: Table, wanted: Span, rows: int, max_bytes: int, key: str | None = None
) -> list[Row]:
    """The first rows in `wanted`, clipped to it; at least one, however large, if there is any."""
    wanted = Span(max(wanted.first, row(db.execute(table.first, (table.id,)))[0]), wanted.stop)
    begin = row(db.execute(table.row_of, (wanted.first,)))
    start = begin[0] if begin else wanted.first
    if key is None:
        cursor = db.execute(table.read, (start, wanted.stop, rows + 1))
    else:
        cursor = db.execute(table.read_key, (start, wanted.stop, key, rows + 1))
    found: list[Row] = []
    left = max_bytes
    for offset, time, row_key, headers, value, count in cursor:
        if count is None:
            if offset < wanted.first:
                continue
            found.append(Row(offset, time, row_key, headers, value, None, 0, offset))
        else:
            first, stop = max(offset, wanted.first), min(offset + count, wanted.stop)
            if first >= stop:
                continue
            found.append(Row(first, time, row_key, headers, value, stop - first, first - offset, offset))
        left -= len(value)
        if left <= 0 or len(found) >= rows:
            break
    cursor.close()
    return found


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


def count(db: apsw.Connection, table: Table, wanted: Span) -> int:
    """How many messages are kept in `wanted`. Offsets have no gaps here, so nothing is read."""
    kept = span(db, table)
    return len(Span(max(wanted.first, kept.first), min(wanted.stop, kept.stop)))
