"""Interleave: the lines of several partitions in the order of their times."""

from __future__ import annotations

import bisect
import functools
import itertools
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from pqlog.store.values import Lines, PartitionRun

T = TypeVar("T")


def interleave(read: Mapping[int, Lines], start: Sequence[int], unread: tuple[int, int] | None) -> Lines | None:
    """Lines of partitions as one, whose runs say of which they are; it has the offset of the first of them.

    They end before the time and the partition of what was not read, and before a partition whose lines do not begin at
    its `start`, unless it comes first. None if that leaves nothing, or if a column is damaged: if it has not
    as many lines as there are messages, or times that do not ascend.
    """
    if any(lines.offsets is not None for lines in read.values()):
        return None
    if unread is None and len(read) == 1:
        ((number, lines),) = read.items()
        return lines._replace(runs=[PartitionRun(number, lines.offset, lines.rows)])
    rows = [lines.rows for lines in read.values()]
    columns = [lines.values.split(b"\n") for lines in read.values()]
    times = [_column(lines.times, lines.rows) for lines in read.values()]
    keys = [_column(lines.keys or b"null", lines.rows) for lines in read.values()]
    if any(list(map(len, some)) != rows for some in (columns, times, keys)):
        return None
    all_times = _flat(times)
    at = list(map(int, all_times)) if len(set(map(len, all_times))) > 1 else all_times  # texts of one length sort alike
    begins = [0, *itertools.accumulate(rows)]
    for begin, end in itertools.pairwise(begins):
        if not all(itertools.starmap(operator.le, itertools.pairwise(at[begin:end]))):
            return None
    numbers = _flat([number] * lines.rows for number, lines in read.items())
    order = sorted(range(len(at)), key=at.__getitem__)  # stable: each partition in its order, after those before it
    if unread is not None:
        del order[bisect.bisect(order, unread, key=lambda index: (int(all_times[index]), numbers[index])) :]
    for begin, (number, lines) in zip(begins, read.items(), strict=False):
        if order and lines.offset != start[number] and order[0] != begin and begin in order:
            del order[order.index(begin) :]
    if not order:
        return None
    offsets = _flat(range(lines.offset, lines.stop) for lines in read.values())
    together = _picked(numbers, order)
    changes = [0, *itertools.compress(itertools.count(1), map(operator.ne, together, together[1:]))]
    lengths = map(operator.sub, [*changes[1:], len(order)], changes)
    firsts = _picked(order, changes)
    made = functools.partial(tuple.__new__, PartitionRun)  # half the time of calling it: single puts have many runs
    runs = list(map(made, zip(_picked(numbers, firsts), _picked(offsets, firsts), lengths, strict=True)))
    texts = _picked(all_times, order)
    return Lines(
        runs[0].offset,
        len(order),
        b"\n".join(_picked(_flat(columns), order)),
        texts[0] if texts[0] == texts[-1] else b"\n".join(texts),
        b"\n".join(_picked(_flat(keys), order)) if any(lines.keys for lines in read.values()) else None,
        runs,
    )


def _column(text: object, rows: int) -> list[bytes]:
    """The lines of a column, of which there may be one for all rows."""
    assert isinstance(text, bytes), "there are no offsets"
    lines = text.split(b"\n")
    return lines * rows if len(lines) == 1 else lines


def _flat(parts: Iterable[Iterable[T]]) -> list[T]:
    return list(itertools.chain.from_iterable(parts))


def _picked(items: Sequence[T], indexes: Iterable[int]) -> list[T]:
    return list(map(items.__getitem__, indexes))
