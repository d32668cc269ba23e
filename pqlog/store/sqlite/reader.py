"""Reading a topic: rows, runs of lines, bounds and times. Each call is one short query on a borrowed connection."""

from __future__ import annotations

import bisect
import functools
import itertools
from array import array
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any

import apsw

from pqlog.errors import DamagedError
from pqlog.store.sealed import DAMAGE, Piece, SealedPart
from pqlog.store.sqlite import checksums, pieces
from pqlog.store.sqlite.connections import fetch_all, fetch_one
from pqlog.store.sqlite.pieces import SealedRow, damage_told
from pqlog.store.sqlite.table import Table, messages_in
from pqlog.store.values import Lines, Row, SegmentStatistics, Span


def span(db: apsw.Connection, table: Table) -> Span:
    """The offsets that are kept."""
    first = table.read_first(db)
    return Span(first, max(first, table.read_tail(db).stop))


def read(
    db: apsw.Connection, table: Table, wanted: Span, rows: int, max_bytes: int, damaged: bool = False
) -> list[Row]:
    """The first rows in `wanted`, clipped to it; at least one, however large, if there is any.

    With `damaged` also those that are not what was put.
    """
    wanted = Span(max(wanted.first, table.read_first(db)), wanted.stop)
    if not wanted:
        return []
    found: list[Row] = []
    found_runs = runs(db, table, wanted, damaged)
    try:
        for run in found_runs:
            for one in _clipped(table, run, wanted, rows - len(found)):
                found.append(one)
                max_bytes -= len(one.value)
                if max_bytes <= 0 or len(found) >= rows:
                    return found
    except (DamagedError, apsw.CorruptError, apsw.IOError):
        if not found:  # else the caller is given what is whole, and the error when it asks for more
            raise
    finally:
        found_runs.close()
    if not found and not damaged:
        _check_missing(db, table, wanted)
    return found


Stored = tuple[int, int, str | None, str | None, bytes, int | None, int | None, int | None]
"""A row as it is stored: offset, time, key, headers, value, rows, last, crc."""


def runs(db: apsw.Connection, table: Table, wanted: Span, damaged: bool = False) -> Generator[list[Stored], None, None]:
    """The rows that lie in `wanted`, and those whose checksum covers one of them: run by run, up to each checksum.

    Each run is verified before it is handed out, unless `damaged` ones are wanted, too.
    """
    begin, crc = anchor(db, table, wanted.first)
    run: list[Stored] = []
    cursor = db.execute(table.read, (begin or 0,))
    try:
        for stored in cursor:
            if stored[0] >= wanted.stop and not run:
                return
            run.append(stored)
            if stored[-1] is None and len(run) < checksums.ROWS:  # so that no missing checksum fills the memory
                continue
            sums = checksums.unmask(stored[-1], table.seed)
            if not damaged and not _is_whole(table, run, begin, crc, sums):
                raise _damage(db, table, begin, wanted.first)
            yield run
            begin, crc, run = stop_of(stored), sums[0], []
    except (TypeError, ValueError):  # a value has not even the type of its column, or a text is not UTF-8
        if damaged:  # nobody can have it; what lies behind it is not to be left out without a word
            raise
        raise _damage(db, table, begin, wanted.first) from None
    finally:
        cursor.close(True)  # not to raise the error of its last step again
    if run:  # of which the checksum is missing
        if not damaged:
            raise _damage(db, table, begin, wanted.first)
        yield run


def _is_whole(table: Table, run: Sequence[Stored], begin: int | None, crc: int, sums: tuple[int, int]) -> bool:
    """Whether rows are what their checksums say; `crc` is the checksum before them, which ends at `begin`."""
    offset, time, key, header, value, count, last, _ = run[0]
    if begin not in (None, offset):
        return False  # some are missing
    if last is not None:
        return len(run) == 1 and _is_piece(table, run[0])
    if len(run) == 1:  # as each that was put by itself: half the time of what follows
        if count is not None and count < 1:
            return False
        return sums == (checksums.extend(crc, value), checksums.of_metadata(time, header, (key,), count))
    offsets, times, keys, headers, values, counts, lasts, _ = zip(*run, strict=True)
    put_at_once = times.count(time) == headers.count(header) == counts.count(None) == lasts.count(None) == len(run)
    return (
        put_at_once
        and offsets == tuple(range(offset, offset + len(run)))
        and sums == (checksums.extend(crc, b"\n".join(values)), checksums.of_metadata(time, header, keys))
    )


def _is_piece(table: Table, stored: Stored) -> bool:
    """Whether a row of sealed messages is what was written."""
    try:
        pieces.opened(table, _sealed_row(stored), stored[4])
    except DAMAGE:
        return False
    return stored[3] is None


def _sealed_row(stored: Stored) -> SealedRow:
    offset, time, key, headers, _, rows, last, crc = stored
    if not isinstance(last, int):
        raise ValueError("no row of sealed messages")
    return SealedRow(offset, time, key, headers, rows or 0, last, crc)


def _damage(db: apsw.Connection, table: Table, begin: int | None, first: int) -> DamagedError:
    """The error for a run: something is damaged of what the next checksum covers."""
    first = max(begin or 1, first)
    end = fetch_one(db.execute(table.next_sum, (begin or 0,)))
    last = max(first, (end[0] if end else span(db, table).stop) - 1)
    return DamagedError(table.topic, first, last, table.partition)


def _clipped(table: Table, run: Iterable[Stored], wanted: Span, most: int) -> Iterator[Row]:
    """The parts of rows that lie in `wanted`; of sealed messages each, and no more than so many of a piece."""
    begin, end = wanted
    for stored in run:
        offset, time, key, headers, value, count, last, _ = stored
        if last is not None:
            row = _sealed_row(stored)
            with damage_told(table, row):
                first = max(begin - offset, 0)
                part = slice(first, min(max(end - offset, 0), first + most))
                yield from single_rows(row, pieces.opened(table, row, value), range(row.rows)[part])
        elif count is None:
            if begin <= offset < end:
                yield Row(offset, time, key, headers, value, None, 0, None)
        else:
            first, stop = max(offset, begin), min(offset + max(1, count), end)
            if first < stop:
                yield Row(first, time, key, headers, value, stop - first, first - offset, count)


def single_rows(row: SealedRow, piece: Piece, indexes: Sequence[int]) -> list[Row]:
    """Some of the messages of a piece, each as it was before it was sealed."""
    parts: list[Sequence[Any]] = [piece.times, piece.keys, piece.headers, piece.values]
    if not isinstance(indexes, range):
        parts = [list(map(part.__getitem__, indexes)) for part in parts]
    elif len(indexes) < row.rows:
        parts = [part[indexes.start : indexes.stop] for part in parts]
    offsets = map(row.offset.__add__, indexes)
    nothing = itertools.repeat(None)
    rows = zip(offsets, *parts, nothing, itertools.repeat(0), nothing, nothing, itertools.repeat(0), strict=False)
    return list(map(functools.partial(tuple.__new__, Row), rows))


def stop_of(stored: Stored) -> int:
    """The offset behind a row."""
    offset, count = stored[0], stored[5]
    return offset + (1 if count is None else max(1, count))


def _check_missing(db: apsw.Connection, table: Table, wanted: Span) -> None:
    """Raise if there should be messages where none was found: offsets have no gaps."""
    stop = min(wanted.stop, span(db, table).stop)
    if wanted.first < stop:
        after = fetch_one(db.execute(table.probe, (wanted.first + 1,)))
        last = min(after[0], stop) - 1 if after else stop - 1
        raise DamagedError(table.topic, wanted.first, last, table.partition)


def read_key(db: apsw.Connection, table: Table, wanted: Span, rows: int, max_bytes: int, key: str) -> list[Row]:
    """The same of one key, and of segments, of which only the name of the key's field is known here."""
    wanted = Span(max(wanted.first, table.read_first(db)), wanted.stop)
    found: list[Row] = []
    try:
        begin = fetch_one(db.execute(table.row_of, (wanted.first,)))
        at = begin[0] if begin else wanted.first
        while len(found) < rows and max_bytes > 0:
            candidate = fetch_one(db.execute(table.next_with_key, (at, wanted.stop, key)))
            if candidate is None:
                break
            if candidate[1]:
                some, at = _sealed_with_key(db, table, candidate[0], wanted, key)
                found += some
                max_bytes -= sum([len(one.value) for one in some])
                continue
            run = read(db, table, Span(max(candidate[0], wanted.first), wanted.stop), checksums.ROWS, max_bytes)
            if not run:
                break
            at = run[-1].stop
            for one in run:
                if one.key == key or (one.rows is not None and one.key is not None):
                    found.append(one)
                    max_bytes -= len(one.value)
    except (DamagedError, apsw.CorruptError, apsw.IOError):
        if not found:  # as in `read`
            raise
    return found[:rows]


def _sealed_with_key(db: apsw.Connection, table: Table, offset: int, wanted: Span, key: str) -> tuple[list[Row], int]:
    """The messages of a piece that have a key, and the offset behind the piece."""
    with pieces.look(db, table, offset) as (row, piece):
        if not piece.may_have_key()(key):
            return [], row.stop
        within = range(row.rows)[max(wanted.first - offset, 0) : max(wanted.stop - offset, 0)]
        indexes = [index for index in within if piece.keys[index] == key]
    if not indexes:
        return [], row.stop
    row, piece = pieces.whole(db, table, offset)
    with damage_told(table, row):
        return single_rows(row, piece, indexes), row.stop


def anchor(db: apsw.Connection, table: Table, offset: int) -> tuple[int | None, int]:
    """Where a checksum begins that covers an offset, and what it continues; None at the topic's first row."""
    found = fetch_one(db.execute(table.anchor, (offset,)))
    return (found[0], checksums.unmask(found[1], table.seed)[0]) if found else (None, 0)


def read_lines(db: apsw.Connection, table: Table, wanted: Span, rows: int, max_bytes: int) -> Lines | None:
    """The first single messages in `wanted`, as text; None where a segment comes first, or nothing."""
    kept = span(db, table)
    first, stop = max(wanted.first, kept.first), min(wanted.stop, kept.stop)
    begin = fetch_one(db.execute(table.row_of, (first,)))
    if first < stop and begin is not None and begin[1]:
        return _sealed_lines(db, table, begin[0], Span(first, min(stop, first + rows)), max_bytes)
    if first >= stop or (begin is not None and begin[0] != first):
        return None
    segment = fetch_one(db.execute(table.next_segment, (first,)))
    if segment is not None:
        stop = min(stop, segment[0])
    stop = min(stop, first + rows)
    if first >= stop:
        return None
    found = lines_of(db, table, Span(first, stop), 2 * max_bytes)
    while found is None:  # too large: rows of another size than those before, say
        size = fetch_one(db.execute(table.lines_size, (first, stop)))[0]
        stop = first + max(1, min((stop - first) // 2, (stop - first) * max_bytes // size))
        found = lines_of(db, table, Span(first, stop), 2 * max_bytes if stop - first > 1 else None)
    values, count, with_key, earliest, latest = found
    if not count:
        return None
    run, times, keys = Span(first, stop), None, None
    is_whole = count == stop - first and _fits(db, table, run, values)
    if is_whole and isinstance(earliest, int):
        times = b"%d" % earliest if earliest == latest else _column(db, table.lines_time, run, count)
    if is_whole and with_key:
        keys = _column(db, table.lines_key, run, with_key)
    if times is None or (with_key and keys is None):
        read(db, table, run, count, max_bytes)  # says which is damaged, unless the first are whole
        return None
    return Lines(first, count, values, times, keys)


def _sealed_lines(db: apsw.Connection, table: Table, offset: int, wanted: Span, max_bytes: int) -> Lines | None:
    """The first sealed messages in `wanted`, as text: those of one piece."""
    row, piece = pieces.whole(db, table, offset)
    with damage_told(table, row):
        lines = piece.lines
        first = wanted.first - offset
        if lines is None or first >= row.rows:
            return None
        count = min(row.rows - first, wanted.stop - wanted.first, max(1, max_bytes * row.rows // (piece.head.text + 1)))
        some = slice(first, first + count)
        if count < row.rows:
            lines = b"\n".join(piece.values[some])
        keys = piece.keys[some] if piece.has_keys else None
        return Lines(wanted.first, count, lines, array("q", piece.times[some]), keys)


def read_sealed(db: apsw.Connection, table: Table, wanted: Span) -> SealedPart | None:
    """The first sealed messages in `wanted`; None where other messages come first, or none."""
    kept = span(db, table)
    first, stop = max(wanted.first, kept.first), min(wanted.stop, kept.stop)
    begin = fetch_one(db.execute(table.row_of, (first,)))
    if first >= stop or begin is None or not begin[1]:
        return None
    row, piece = pieces.whole(db, table, begin[0], keep=False)
    rows = min(stop, row.stop) - first
    return SealedPart(first, rows, piece, first - row.offset) if rows > 0 else None


def _column(db: apsw.Connection, statement: str, run: Span, count: int) -> bytes | None:
    """A column of a run, a line each; None unless `count` of its values are of the column's type, and all UTF-8.

    No checksum of it is verified: that would take longer than all the rest.
    """
    text, of_type = fetch_one(db.execute(statement, tuple(run)))
    try:
        text.decode()
    except UnicodeDecodeError:
        return None
    return text if of_type == count else None


def lines_of(db: apsw.Connection, table: Table, wanted: Span, max_bytes: int | None) -> Any:
    """The values of a span in one piece, unless they are larger than that: SQLite stops there by itself."""
    before = db.limit(apsw.SQLITE_LIMIT_LENGTH)
    if max_bytes is not None:
        db.limit(apsw.SQLITE_LIMIT_LENGTH, max_bytes)
    try:
        return fetch_one(db.execute(table.lines, tuple(wanted)))
    except apsw.TooBigError:
        return None
    finally:
        db.limit(apsw.SQLITE_LIMIT_LENGTH, before)


def _fits(db: apsw.Connection, table: Table, wanted: Span, values: bytes) -> bool:
    """Whether a run of single messages, read as lines, is what was put."""
    begin, crc = anchor(db, table, wanted.first)
    before = fetch_one(db.execute(table.text, (begin or 0, wanted.first)))[0]
    end, kept = fetch_one(db.execute(table.next_sum, (wanted.stop - 1,))) or (0, 0)
    behind = fetch_one(db.execute(table.text, (wanted.stop, end)))[0]
    for lines in (before, values, behind):
        if lines is not None:
            crc = checksums.extend(crc, lines)
    return crc == checksums.unmask(kept, table.seed)[0]


def statistics(db: apsw.Connection, table: Table, wanted: Span) -> list[SegmentStatistics]:
    """What is known of the segments that have messages in `wanted`."""
    wanted = Span(max(wanted.first, table.read_first(db)), wanted.stop)
    found = fetch_all(db.execute(table.segments, tuple(wanted))) if wanted else ()
    return [
        _of_piece(db, table, first) if is_sealed else SegmentStatistics(Span(first, stop), (time, time))
        for first, stop, time, is_sealed in found
    ]


def _of_piece(db: apsw.Connection, table: Table, offset: int) -> SegmentStatistics:
    with pieces.look(db, table, offset) as (row, piece):
        return piece.statistics(offset, (row.time, row.last))


def offset_at(db: apsw.Connection, table: Table, time: int) -> int:
    """The first offset whose message was put at or after `time`, by bisection over the offsets.

    Raises nothing; the next offset if no message is that late.
    """
    low, high = span(db, table)
    while low < high:
        middle = (low + high) // 2
        begin = fetch_one(db.execute(table.row_of, (middle,)))
        offset, found, count, last = fetch_one(db.execute(table.probe, (begin[0] if begin else middle,)))
        if last is not None and found < time <= last:
            with pieces.look(db, table, offset) as (_, piece):
                behind: int = offset + bisect.bisect_left(piece.times, time)
                return max(low, behind)
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
    begin = fetch_one(db.execute(table.row_of, (offset,)))
    if begin is not None and begin[1]:
        with pieces.look(db, table, begin[0]) as (row, piece):
            if offset < row.stop:
                return piece.times[offset - row.offset]
    return fetch_one(db.execute(table.probe, (begin[0],)))[1] if begin else None


def count(db: apsw.Connection, table: Table, wanted: Span | None = None) -> int:
    """How many messages are kept, in `wanted` if that is given. Offsets have no gaps here, so nothing is read."""
    kept = span(db, table)
    wanted = kept if wanted is None else wanted
    return messages_in(Span(max(wanted.first, kept.first), min(wanted.stop, kept.stop)))
