"""Reading the runs of rows that are to be sealed, each verified by its checksums."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import apsw

from pqlog.errors import DamagedError
from pqlog.store import sealed
from pqlog.store.sqlite import checksums, reader
from pqlog.store.sqlite.connections import fetch_all, fetch_one
from pqlog.store.sqlite.table import Table
from pqlog.store.values import Span

Rest = Callable[[], object]
"""Called between small steps: lets others go on."""


class Run(NamedTuple):
    """Messages to seal, as they were read."""

    span: Span
    sealed_before: int
    """Up to where the topic was sealed then."""
    crc: int
    """The checksum that what lies behind them continues."""
    singles: sealed.Singles


def read(db: apsw.Connection, table: Table, wanted: Span, before: int, rest: Rest) -> tuple[Run | None, int]:
    """The single messages from an offset on, up to a segment, or to where a checksum covers what is to stay.

    And the offset behind what was looked at.
    """
    run = _together(db, table, wanted, before, rest) if table.is_json else None
    return _each(db, table, wanted, before, rest) if run is None else (run, run.span.stop)


def _together(db: apsw.Connection, table: Table, wanted: Span, before: int, rest: Rest) -> Run | None:
    """The same where messages were put many at once, without keys and headers: in a third of the time.

    Their values are read in one piece, and their times from the rows with checksums. None if anything is not so.
    """
    first, stop = wanted.first, min(wanted.stop, wanted.first + sealed.MAX_ROWS)
    segment = fetch_one(db.execute(table.next_segment, (first,)))
    stop = stop if segment is None else min(stop, segment[0])
    sums = fetch_all(db.execute(table.sums, (first, stop)))
    begin, crc = reader.anchor(db, table, first)
    if not sums or 8 * len(sums) > sums[-1][0] - first or (first != 1 if begin is None else begin != first):
        return None
    span = Span(first, sums[-1][0] + 1)
    rest()
    found = reader.lines_of(db, table, span, sealed.MAX_TEXT)
    if found is None or found[1] != span.stop - first or found[2]:
        return None
    rest()
    base = sums[0][1]
    if not isinstance(base, int):
        return None
    elapsed, others = fetch_one(db.execute(table.sum_of_times, (*span, base)))
    values, times = found[0].split(b"\n"), list[int]()
    if others or len(values) != found[1]:
        return None
    for offset, time, kept in sums:
        run = values[len(times) : offset + 1 - first]
        crc = checksums.extend(crc, b"\n".join(run))
        if checksums.unmask(kept, table.seed) != (crc, checksums.of_metadata(time, None, ())):
            return None  # read row by row, it says which is damaged
        times += [time] * len(run)
    if elapsed != sum(times) - base * len(times):
        return None
    nothing = [None] * len(times)
    return Run(span, before, crc, sealed.Singles(values, times, nothing, nothing))


def _each(db: apsw.Connection, table: Table, wanted: Span, before: int, rest: Rest) -> tuple[Run | None, int]:
    """The same, row by row."""
    found: list[reader.Stored] = []
    crc = text = 0
    runs = reader.runs(db, table, wanted)
    try:
        for some in runs:
            behind = reader.stop_of(some[-1])
            size = sum([len(row[4]) for row in some])
            is_single = some[0][5] is None and size <= sealed.MAX_TEXT
            if not found and not is_single:
                return None, behind
            if not is_single or behind > wanted.stop:
                break
            if len(found) + len(some) > sealed.MAX_ROWS or text + size > sealed.MAX_TEXT:
                break
            found += some
            text += size
            crc = checksums.unmask(some[-1][-1], table.seed)[0]
            rest()
    except DamagedError as error:  # what is whole before it is sealed; the damage stays as it is, for `verify` to tell
        if not found:
            return None, error.last + 1
    finally:
        runs.close()
    if not found:
        return None, wanted.stop
    offsets, times, keys, headers, values, *_ = zip(*found, strict=True)
    span = Span(offsets[0], offsets[-1] + 1)
    return Run(span, before, crc, sealed.Singles(values, times, keys, headers)), span.stop
