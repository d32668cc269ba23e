"""What is wrong with a file; what can still be read of a damaged one, and a new file made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from pqlog.errors import CorruptLogError, DamagedError, DiskError, StoreError
from pqlog.store.sqlite import client, connections, ids, smallrows, statements
from pqlog.store.sqlite.table import LAST_OFFSET, Table, messages_in
from pqlog.store.sqlite.topic import topic_infos
from pqlog.store.sqlite.writer import Task, Transaction
from pqlog.store.values import MAX_PARTITIONS, Chunk, Row, Salvage, Segment, Singles, Span

if TYPE_CHECKING:
    import apsw

    from pqlog.store.sqlite.store import SqliteStore
    from pqlog.store.sqlite.topic import SqliteTopic

RUN_ROWS, RUN_BYTES = 10_000, 16 << 20

_UNREADABLE = (CorruptLogError, DiskError)

_UNSURE = "so the name and the codec of that topic, and where it was trimmed, may be wrong"


def verify(log: SqliteStore, report: Callable[[int], object]) -> list[str]:
    """Read everything, and say what is wrong: a sentence each."""
    found: list[str] = []
    try:
        unfit = log.read(smallrows.unfit, snapshot=True)
        found += [f"{which} is damaged: its checksum does not fit" for which in unfit]
    except CorruptLogError as error:
        found.append(str(error))
    for look in (connections.integrity, _check_partitions, client.check, ids.check):

        def query(db: apsw.Connection, look: Any = look) -> list[str]:
            topics = [log.handle(info) for info in topic_infos(db)]
            return look(db, [topic.table for topic in topics])  # type: ignore[no-any-return]

        try:
            found += log.read(query, snapshot=True)
        except CorruptLogError as error:
            found.append(str(error))
    for topic in log.all_topics():
        span, unknown_end = _kept(topic)
        found += [] if unknown_end is None else [str(unknown_end)]
        for run, damage in runs(topic, span):
            report(sum(row.rows or 1 for row in run))
            found += [] if damage is None else [str(damage)]
    return found


def _check_partitions(db: apsw.Connection, tables: Sequence[Table]) -> list[str]:
    """Which topics lack partitions."""
    parts = {table.id for table in tables}
    lacking = {table.topic: sorted(set(table.parts) - parts) for table in tables if not parts.issuperset(table.parts)}
    return [f"topic {name!r}: {len(missing)} of its partitions are missing" for name, missing in lacking.items()]


def _kept(topic: SqliteTopic) -> tuple[Span, StoreError | None]:
    """The offsets that are kept; if the end cannot be read, all from the first one on, and the error."""
    try:
        first = topic.log.read(topic.table.read_first)
    except _UNREADABLE as error:  # it is asked for at each reading
        return Span(1, 1), error
    try:
        return topic.span(), None
    except _UNREADABLE as error:
        return Span(first, LAST_OFFSET), error


def runs(topic: SqliteTopic, span: Span) -> Iterator[tuple[Sequence[Row], StoreError | None]]:
    """The rows of a topic, run by run; where some cannot be read, the error, and on behind them."""
    while span:
        rows: Sequence[Row] = []
        try:
            rows = topic.read(span, RUN_ROWS, RUN_BYTES)
            behind = rows[-1].stop if rows else span.stop
            yield rows, None
        except DamagedError as error:
            yield rows, error
            behind = error.last + 1
        except _UNREADABLE as error:
            yield rows, error
            behind = _next_readable(topic, span)
        span = Span(max(behind, span.first + 1), span.stop)


def _next_readable(topic: SqliteTopic, span: Span) -> int:
    """The first offset behind an unreadable one that can be read: by longer and longer steps, then by halves.

    No step is longer than a sixteenth of the way so far: a longer one would miss what can be read between two damaged
    pages. Even so, 800 steps reach the end where it is not known.
    """

    def readable(offset: int) -> bool:
        try:
            topic.read(Span.at(offset), 1, RUN_BYTES)
        except DamagedError:
            return True  # this error says itself how far it goes
        except _UNREADABLE:
            return False
        return True

    low, step = span.first, 1
    while low + step < span.stop and not readable(low + step):
        low += step
        step = max(1, (low - span.first) // 16)
    high = min(low + step, span.stop)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if readable(middle) else (middle, high)
    return high


def salvage(
    old: SqliteStore, new: SqliteStore, cut: Callable[[Row, str], bytes], report: Callable[[int], object]
) -> Salvage:
    """Copy what can be read of one log into another, new one.

    Messages keep their times, keys and headers, and get new offsets; clients continue with the first message that they
    had not acknowledged; ids and cursors stay. Batches that were handed out are cut and handed out again.

    Parameters
    ----------
    cut : callable
        Makes a segment of the part of one that is kept.
    """
    done = Salvage()
    names: set[str] = set()
    for partitions in _by_topic(old):
        name, codec, count = partitions[0].info.name, partitions[0].info.codec, partitions[0].info.partitions
        if name in names:  # which damage has made of another
            name = f"{name} ({partitions[0].info.id})"
        names.add(name)
        whole = new.topic(name, codec, count)
        copies: list[_Copy] = []
        for topic in partitions:
            into = whole[topic.info.partition]
            what = name if count == 1 else f"{name}, partition {topic.info.partition}"
            span, unknown_end = _kept(topic)
            kept = _copy(topic, span, into, cut, report)
            done.messages += sum(messages_in(run) for run, _ in kept)
            end = kept[-1][0].stop if kept else span.first
            if unknown_end is not None:
                done.problems.append(
                    f"the messages of topic {what!r} from offset {end} on are lost, and how many they were is not "
                    f"known: {unknown_end}"
                )
                span = Span(span.first, end)
            if lost := _lost(span, kept):
                done.lost[what] = lost
            # Nothing of one file is read inside a transaction of another: a fork waits for both, and might do so for
            # ever.
            positions = _readable(topic.positions, f"the clients of topic {what!r}", done)
            noted = _readable(topic.id_runs, f"the ids of topic {what!r}", done)
            copies.append(_Copy(into, kept, positions, noted))
        new.write(Task(_rest(copies)))
    cursors = _readable(old.cursors, "the cursors", done)
    new.write(Task(lambda transaction: transaction.db.executemany(statements.SET_CURSOR, cursors)))
    for row in old.lost:
        done.problems.append(f"{row} is damaged, {_UNSURE if row.endswith(' topics') else 'and was left out'}")
    return done


def _by_topic(old: SqliteStore) -> list[list[SqliteTopic]]:
    """The partitions of each topic, as far as damage has left them."""
    found: dict[int, list[SqliteTopic]] = {}
    for info in old.read(topic_infos):
        if not 0 <= info.partition < info.partitions <= MAX_PARTITIONS:
            info = replace(info, partition=0, partitions=1)
        topic = old.handle(info)
        same = found.setdefault(topic.table.topic_id, [topic])
        if same[0].info.partitions != info.partitions:
            topic = old.handle(replace(info, partition=0, partitions=1))
            found[-info.id] = [topic]
        elif topic not in same:
            same.append(topic)
    return list(found.values())


def _copy(
    topic: SqliteTopic, span: Span, into: SqliteTopic, cut: Callable[[Row, str], bytes], report: Callable[[int], object]
) -> list[tuple[Span, int]]:
    """Copy the messages that can be read: in which spans they are, each with the new offset of its first message."""
    kept: list[tuple[Span, int]] = []
    for rows, _ in runs(topic, span):
        if rows:
            run = Span(rows[0].offset, rows[-1].stop)
            first = into.adopt(1, _chunks(rows, topic.info.name, cut)).first
            report(messages_in(run))
            if kept and run.first == kept[-1][0].stop:
                before, first = kept.pop()
                run = Span(before.first, run.stop)
            kept.append((run, first))
    return kept


def _lost(whole: Span, kept: Sequence[tuple[Span, int]]) -> list[range]:
    """What is missing before, between and behind the spans that were copied."""
    bounds = [whole.first, *(bound for span, _ in kept for bound in span), whole.stop]
    return [range(first, stop) for first, stop in zip(bounds[::2], bounds[1::2], strict=True) if first < stop]


def _chunks(rows: Sequence[Row], topic: str, cut: Callable[[Row, str], bytes]) -> list[tuple[int, Chunk]]:
    """Rows as chunks with their times: single messages of one time and the same headers together."""
    chunks: list[tuple[int, Chunk]] = []
    run: list[Row] = []
    for row in [*rows, None]:
        if run and (row is None or row.rows is not None or (row.time, row.headers) != (run[0].time, run[0].headers)):
            keys = [one.key for one in run]
            some = keys if any(key is not None for key in keys) else None
            chunks.append((run[0].time, Singles([one.value for one in run], some, run[0].headers)))
            run = []
        if row is None:
            break
        if row.rows is None:
            run.append(row)
        else:
            chunks.append((row.time, Segment(cut(row, topic), row.rows, row.key, row.headers)))
    return chunks


class _Copy(NamedTuple):
    """A partition that was copied, and what else belongs to it."""

    into: SqliteTopic
    kept: Sequence[tuple[Span, int]]
    """Which spans were copied, each with the new offset of its first message."""
    positions: Sequence[tuple[str, int]]
    noted: Sequence[ids.Run]

    def moved(self, offset: int) -> int:
        """Where a client that stood at an offset goes on."""
        for span, first in self.kept:
            if offset < span.stop:
                return first + max(0, offset - span.first)
        return self.kept[-1][1] + messages_in(self.kept[-1][0]) if self.kept else 1

    def moved_ids(self, run: ids.Run) -> Iterator[tuple[list[str], Span]]:
        """The ids of a run whose messages were copied, and where these are now."""
        for span, into in self.kept:
            first, stop = max(run.first, span.first), min(run.stop, span.stop)
            whole = (first, stop) == (run.first, run.stop)
            if whole or (len(run.ids) > 1 and first < stop):
                some = run.ids if whole else run.ids[first - run.first : stop - run.first]
                at = into + first - span.first
                yield some, Span(at, at + stop - first)


def _rest(copies: Sequence[_Copy]) -> Callable[[Transaction], None]:
    """The clients and ids of a topic, at the new offsets."""

    def work(transaction: Transaction) -> None:
        db = transaction.db
        calls: dict[tuple[int, str], dict[int, Span]] = {}
        parts = Counter((run.number, run.ids[0]) for copy in copies for run in copy.noted if len(run.ids) == 1)
        for copy in copies:
            for name, position in copy.positions:
                copy.into.client(name).seek_in(db, copy.moved(position))
            for run in copy.noted:
                for some, span in copy.moved_ids(run):
                    if len(some) == 1:  # perhaps of a call, of which other partitions have a part
                        calls.setdefault((run.number, some[0]), {})[copy.into.info.id] = span
                    else:
                        ids.add(db, copy.into.table, some, {copy.into.info.id: span})
        for call, where in sorted(calls.items()):
            if len(where) == parts[call]:  # else what is lost of it could not be put again
                ids.add(db, copies[0].into.table, [call[1]], where)

    return work


def _readable(read: Callable[[], Sequence[Any]], what: str, done: Salvage) -> Sequence[Any]:
    try:
        return read()
    except _UNREADABLE as error:
        done.problems.append(f"{what} cannot be read: {error}")
        return []
