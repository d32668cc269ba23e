"""Ids of puts and of messages: each is used once in a topic, as long as what was put with it is kept.

A *run* is the truth: the ids of neighbouring messages in their order, or the one id of a whole call, with the offsets
where they went and a checksum. Each partition has runs of its own; their numbers count those of the topic, and the runs
of one call that went into several partitions have the same. The table `ids` is the way from an id to its run. It needs
no sums: what is found there must stand in the run. So a million ids cost one small row each, in the order of the table,
and few runs; trim finds those to be dropped by the runs, which are in the order of the offsets.

A million random ids that are put one by one in their own order would change nearly as many pages as they are: they are
sorted first, in blocks that memory holds.
"""

from __future__ import annotations

import contextlib
import itertools
from array import array
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apsw
import msgspec

from pqlog.errors import CorruptLogError
from pqlog.store.sqlite import statements
from pqlog.store.sqlite.connections import fetch_all, fetch_one
from pqlog.store.sqlite.table import LAST_OFFSET, Table
from pqlog.store.values import Span

RUN = 256
"""Ids in a run at most: what is read to use one of them."""
BLOCK, BLOCK_BYTES = 500_000, 32 << 20
"""Ids that are sorted at a time, and about what they take."""
DROP = 100
"""Runs that are dropped in one transaction."""
MARK = 4
"""Digits for the place of a run in its block."""
ENCODE = 10_000
"""Ids that are made bytes at a time."""

Mask = bytes | None
"""For each message 1 if it is new, else 0; None if all are."""


class Run(NamedTuple):
    """Ids, and where their messages went."""

    part: int
    """The id of the partition."""
    number: int
    first: int
    stop: int
    ids: list[str]
    """One for each message; or one for all of them."""

    def where(self, id: str) -> Span | None:
        """Where the messages with an id went; None if it is not in this run."""
        if id not in self.ids:
            return None
        first = self.first + self.ids.index(id)
        return Span(self.first, self.stop) if len(self.ids) == 1 else Span(first, first + 1)


def _is_kept(where: Span, first: int) -> bool:
    """Whether there still is what was put, if the first offset that is kept is `first`."""
    return max(where.stop, where.first + 1) > first


def find(db: apsw.Connection, table: Table, id: str) -> dict[int, Span] | None:
    """Where the put with an id went, by the id of the partition; None if there was none, or none of it is kept."""
    found = fetch_one(db.execute(statements.ID, (table.topic_id, id)))
    if found is None:
        return None
    where = _where(table, _read(db, table, found[0]), id)
    kept = {part: span for part, span in where.items() if _is_kept(span, table.read_first(db, part))}
    return kept or None


def _read(db: apsw.Connection, table: Table, number: int) -> list[Run]:
    """The runs of a number: of one partition, or of a call that went into several."""
    found = fetch_all(db.execute(statements.RUNS_OF_NUMBER, (_parts(table), number)))
    return [_run(part, row) for part, *row in found]


def _parts(table: Table) -> Any:
    """The ids of all partitions of its topic, as one parameter."""
    return apsw.carray(array("q", table.parts))


def _run(part: int, found: Sequence[Any]) -> Run:
    number, first, stop, text = found
    try:
        return Run(part, number, first, stop, msgspec.json.decode(text, type=list[str]))
    except msgspec.MsgspecError as error:
        raise _damaged(f"the row {f'{part}/{number}'!r} of the table id_runs holds no ids") from error


def _where(table: Table, runs: Iterable[Run], id: str) -> dict[int, Span]:
    where = {run.part: span for run in runs if (span := run.where(id)) is not None}
    if not where:
        raise _damaged(f"the row {f'{table.topic_id}/{id}'!r} of the table ids does not stand in its run in id_runs")
    return where


def _damaged(said: str) -> CorruptLogError:
    return CorruptLogError(f"{said}: restore a backup, or copy what is whole with pqlog.salvage(path, to)")


def add(db: apsw.Connection, table: Table, ids: Sequence[str], where: Mapping[int, Span]) -> None:
    """Note a run of ids, none of which the topic has: of a whole call, which may have gone into several partitions.

    Or of messages of one partition, an id each.
    """
    number = next_number(db, table)
    for part, span in where.items():
        _put_run(db, part, number, ids, span)
    db.executemany(statements.SET_ID, [(table.topic_id, id, number) for id in ids])


def next_number(db: apsw.Connection, table: Table) -> int:
    """That of a topic's next run."""
    number = fetch_one(db.execute(statements.NEXT_RUN, (_parts(table),)))[0]
    if not (isinstance(number, int) and 1 <= number <= LAST_OFFSET):
        raise _damaged(f"the newest run of ids of topic {table.topic!r} has a number that no pqlog wrote")
    return number


def _put_run(db: apsw.Connection, part: int, number: int, ids: Sequence[str], where: Span) -> None:
    db.execute(statements.PUT_RUN, (part, number, *where, msgspec.json.encode(ids).decode()))


# many


def note(
    db: apsw.Connection, table: Table, lists: Iterable[Sequence[str]], first: int, number: int
) -> tuple[list[Mask], int]:
    """Note the ids of messages that are to be put from offset `first` on, without those that are known.

    Parameters
    ----------
    lists : iterable of sequences of str
        One for each chunk.
    number : int
        That of the topic's next run.

    Returns
    -------
    list of Mask
        One for each chunk.
    int
        The number of the next run after these.
    """
    masks: list[Mask] = []
    for block in _blocks(lists):
        ids = list(itertools.chain(*block))
        mask = None if _insert(db, table, ids, number) == len(ids) else _which(db, table, ids, number)
        for start in range(0, len(ids), RUN):
            some = ids[start : start + RUN]
            if mask is not None:
                some = list(itertools.compress(some, mask[start : start + RUN]))
            if some:
                _put_run(db, table.id, number, some, Span(first, first + len(some)))
                first += len(some)
            number += 1
        at = 0
        for one in block:
            part = None if mask is None else mask[at : at + len(one)]
            masks.append(None if part is None or all(part) else part)
            at += len(one)
    return masks, number


def _blocks(lists: Iterable[Sequence[str]]) -> Iterator[list[Sequence[str]]]:
    block: list[Sequence[str]] = []
    count = size = 0
    for one in lists:
        block.append(one)
        count += len(one)
        size += sum(map(len, one))
        if count >= BLOCK or size >= BLOCK_BYTES:
            yield block
            block, count, size = [], 0, 0
    if block:
        yield block


def _insert(db: apsw.Connection, table: Table, ids: Sequence[str], number: int) -> int:
    """Point to the runs from `number` on which some ids will make, unless they are known; how many were not.

    One statement is given all of them, each with its run behind it, in the order of the table.
    """
    marked: list[str] = []
    for at, start in enumerate(range(0, len(ids), RUN)):
        mark = f"{at:0{MARK}}"
        marked += [id + mark for id in ids[start : start + RUN]]
    marked.sort()
    if not marked:
        return 0
    db.execute(statements.NEW_IDS, (table.topic_id, number, MARK, _array(marked)))
    return db.changes()


def _which(db: apsw.Connection, table: Table, ids: Sequence[str], number: int) -> bytes:
    """Which of some ids, of which runs from `number` on will be made, are new: not known, nor the second of their kind.

    Those that are point to their run by now.
    """
    places = dict(zip(reversed(ids), range(len(ids) - 1, -1, -1), strict=True))  # the first of each
    known = _runs_of(db, table, sorted(places), but=range(number, number + _runs(ids)))
    forgotten = _forgotten(db, table, known)
    db.executemany(statements.MOVE_ID, [(number + places[id] // RUN, table.topic_id, id) for id in forgotten])
    mask = bytearray(len(ids))
    for id in places.keys() - (known.keys() - forgotten):
        mask[places[id]] = 1
    return bytes(mask)


def _runs(ids: Sequence[str]) -> int:
    return -(-len(ids) // RUN)


def _runs_of(db: apsw.Connection, table: Table, ids: Sequence[str], but: range = range(0)) -> dict[str, int]:
    """To which runs those of some ids point that are there, without those that point to some new runs."""
    wanted = _array(list(ids))
    return dict(fetch_all(db.execute(statements.OLD_IDS, (table.topic_id, wanted, but.start, but.stop - 1))))


def _array(ids: list[str]) -> Any:
    """Many ids as one parameter; the list is used up, so that they are not in memory twice."""
    data: list[Any] = ids
    for start in range(0, len(ids), ENCODE):
        data[start : start + ENCODE] = map(str.encode, ids[start : start + ENCODE])
    return apsw.carray(tuple(data))


def _forgotten(db: apsw.Connection, table: Table, known: Mapping[str, int]) -> set[str]:
    """Those of some ids whose messages are trimmed, and which are still there."""
    firsts = {part: table.read_first(db, part) for part in table.parts}
    runs = {number: _read(db, table, number) for number in set(known.values())}
    kept = (run.ids for run in itertools.chain(*runs.values()) if run.first >= firsts[run.part])
    others = known.keys() - set(itertools.chain(*kept))

    def is_kept(id: str) -> bool:
        where = _where(table, runs[known[id]], id)
        return any(_is_kept(span, firsts[part]) for part, span in where.items())

    return {id for id in others if not is_kept(id)}


# keeping


def drop(db: apsw.Connection, table: Table, first: int) -> int:
    """Drop some ids of what lies before the first offset that is kept; how many runs that were.

    The id of a call stays as long as another partition has a part of it.
    """
    with contextlib.closing(all_runs(db, table)) as oldest:
        trimmed = itertools.takewhile(lambda run: not _is_kept(Span(run.first, run.stop), first), oldest)
        runs = list(itertools.islice(trimmed, DROP))
    if runs:
        alone = [run for run in runs if len(run.ids) > 1 or len(_read(db, table, run.number)) == 1]
        if ids := sorted(itertools.chain(*(run.ids for run in alone))):
            numbers = apsw.carray(array("q", [run.number for run in alone]))
            db.execute(statements.DROP_IDS, (table.topic_id, _array(ids), numbers))
        db.execute(statements.DROP_RUNS, (table.id, runs[-1].number))
    return len(runs)


def all_runs(db: apsw.Connection, table: Table) -> Generator[Run, None, None]:
    """All runs of a partition, the oldest first, which is the order of their offsets."""
    found = db.execute(statements.RUNS, (table.id,))
    try:
        for row in found:
            yield _run(table.id, row)
    finally:
        found.close(True)  # not to raise the error of its last step again


def check(db: apsw.Connection, tables: Sequence[Table]) -> list[str]:
    """Where ids and runs do not belong to each other, a sentence each."""
    found: list[str] = []
    pointed: Counter[int] = Counter()
    for table in tables:
        first = table.read_first(db)
        for run in all_runs(db, table):
            numbers = _runs_of(db, table, run.ids)
            if len(run.ids) > 1 or _read(db, table, run.number)[0].part == table.id:  # a call counts once
                pointed[table.topic_id] += sum(number == run.number for number in numbers.values())
            found += [
                f"{table.title}: the id {id!r} is not found in the table ids"
                for id in run.ids  # one that is trimmed here may be another's since, in whichever partition
                if numbers.get(id) != run.number and _is_kept(_where(table, [run], id)[table.id], first)
            ]
    for topic_id, name in {table.topic_id: table.topic for table in tables}.items():
        if fetch_one(db.execute(statements.COUNT_IDS, (topic_id,)))[0] != pointed[topic_id]:
            found.append(f"topic {name!r}: the table ids has rows that belong to no put")
    return found
