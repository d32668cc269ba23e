"""What is wrong with a file; what can still be read of a damaged one, and a new file made of it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from pqlog.errors import CorruptLogError, DamagedError, DiskError, StoreError
from pqlog.store.sqlite import client, connections, ids, smallrows, statements
from pqlog.store.sqlite.connections import fetch_all
from pqlog.store.sqlite.table import LAST_OFFSET, Table, messages_in, title
from pqlog.store.sqlite.topic import is_possible, topic_info, topic_infos
from pqlog.store.sqlite.writer import Task, Transaction
from pqlog.store.values import Chunk, Row, Salvage, Segment, Singles, Span, TopicInfo

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
        found += log.read(_unfit, snapshot=True)
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
    for info in log.read(lambda db: _infos(db, statements.ALL_TOPICS)):
        topic = log.handle(info)
        span, unknown_end = _kept(topic)
        if unknown_end is not None:
            found.append(f"the end of {topic.table.title} cannot be read: {unknown_end}")
        at = span.first
        for run, damage in runs(topic, span):
            report(sum(row.rows or 1 for row in run))
            at = run[-1].stop if run else at
            if damage is not None:
                says_where = isinstance(damage, DamagedError)
                found.append(str(damage) if says_where else f"{topic.table.title}, behind offset {at - 1}: {damage}")
    return found


def _unfit(db: apsw.Connection) -> list[str]:
    """The rows of the small tables that are damaged; where a topic has several partitions, of which they are."""
    titles: dict[str | None, str] = {
        str(info.id): f", of {title(info.name, info.partition)},"
        for info in _infos(db, statements.ALL_TOPICS)
        if info.partitions > 1
    }
    return [
        f"{row}{titles.get(row.partition, '')} is damaged: its checksum does not fit" for row in smallrows.unfit(db)
    ]


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
            what = title(name, into.table.partition)
            span, unknown_end = _kept(topic)
            kept = _copy(topic, span, into, cut, report)
            done.messages += sum(messages_in(run) for run, _ in kept)
            end = kept[-1][0].stop if kept else span.first
            if unknown_end is not None:
                done.problems.append(
                    f"the messages of {what} from offset {end} on are lost, and how many they were is not known: "
                    f"{unknown_end}"
                )
                span = Span(span.first, end)
            if lost := _lost(span, kept):
                done.lost[name if count == 1 else f"{name}, partition {topic.info.partition}"] = lost
            # Nothing of one file is read inside a transaction of another: a fork waits for both, and might do so for
            # ever.
            positions = _readable(topic.positions, f"the clients of {what}", done)
            noted = _readable(topic.id_runs, f"the ids of {what}", done)
            copies.append(_Copy(into, span.first, kept, positions, noted))
        is_placed = len(partitions) == count and old.places_keys(partitions[0])
        new.write(Task(_rest(copies, is_placed)))
    cursors = _readable(old.cursors, "the cursors", done)
    new.write(Task(lambda transaction: transaction.db.executemany(statements.SET_CURSOR, cursors)))
    for row in old.lost:
        done.problems.append(f"{row} is damaged, {_UNSURE if row.endswith(' topics') else 'and was left out'}")
    return done


def _by_topic(old: SqliteStore) -> list[list[SqliteTopic]]:
    """The partitions of each topic, as far as damage has left them."""
    found: dict[tuple[int, int], list[SqliteTopic]] = {}
    for info in old.read(lambda db: _infos(db, statements.TOPICS)):
        found.setdefault((info.id - info.partition, info.partitions), []).append(old.handle(info))
    return list(found.values())


def _infos(db: apsw.Connection, statement: str) -> list[TopicInfo]:
    """All partitions of all topics: where a row is damaged, those of the topic's other partitions say what it was."""
    rows = [(_possible(topic_info(*row)), is_whole) for *row, is_whole in fetch_all(db.execute(statement))]
    known = {
        info.id - info.partition + number: replace(info, id=info.id - info.partition + number, partition=number)
        for info, is_whole in rows
        if is_whole  # the ids of a topic's partitions follow each other
        for number in range(info.partitions)
    }
    return [known.get(info.id, info) for info, _ in rows]


def _possible(info: TopicInfo) -> TopicInfo:
    """The same, as a topic of its own if it cannot be a partition of one."""
    return info if is_possible(info) else replace(info, partition=0, partitions=1)


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
    first: int
    """The first offset that was kept of it: what lay before was trimmed."""
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
        left = Span(max(run.first, self.first), run.stop)
        for span, into in self.kept:
            first, stop = max(left.first, span.first), min(left.stop, span.stop)
            is_whole = (first, stop) == (left.first, left.stop)
            if is_whole or (len(run.ids) > 1 and first < stop):
                some = run.ids if len(run.ids) == 1 else run.ids[first - run.first : stop - run.first]
                at = into + first - span.first
                yield some, Span(at, at + stop - first)


def _rest(copies: Sequence[_Copy], is_placed: bool) -> Callable[[Transaction], None]:
    """The clients and ids of a topic, at the new offsets; and whether its messages are where their keys say."""

    def work(transaction: Transaction) -> None:
        db = transaction.db
        for copy in copies:
            for name, position in copy.positions:
                copy.into.client(name).seek_in(db, copy.moved(position))
        for some, where in _moved_ids(copies):
            ids.add(db, copies[0].into.table, some, where)
        if not is_placed:
            db.execute(statements.NOTE_UNPLACED, (copies[0].into.table.topic_id,))

    return work


def _moved_ids(copies: Sequence[_Copy]) -> Iterator[tuple[Sequence[str], Mapping[int, Span]]]:
    """Ids of messages that were copied, in the order in which they were used, and where these are, by partition.

    That of a call is left out if some of what it put was lost, in whatever partition: it can be put again.
    """
    found: dict[tuple[int, int], tuple[Sequence[str], dict[int, Span]]] = {}
    lost: set[int] = set()
    for copy in copies:
        for run in copy.noted:
            pieces = list(copy.moved_ids(run))
            if len(run.ids) == 1 and not pieces and run.stop > copy.first:
                lost.add(run.number)
            for piece, (some, span) in enumerate(pieces):
                found.setdefault((run.number, piece), (some, {}))[1][copy.into.info.id] = span
    for (number, _), moved in sorted(found.items(), key=operator.itemgetter(0)):
        if number not in lost:
            yield moved


def _readable(read: Callable[[], Sequence[Any]], what: str, done: Salvage) -> Sequence[Any]:
    try:
        return read()
    except _UNREADABLE as error:
        done.problems.append(f"{what} cannot be read: {error}")
        return []
