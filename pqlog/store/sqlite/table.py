"""The statements of one partition of a topic: made once, when it is first used."""

from __future__ import annotations

import apsw
import msgspec

from pqlog.errors import CorruptLogError, UnknownTopicError
from pqlog.store.sqlite import checksums, statements
from pqlog.store.sqlite.connections import fetch_one
from pqlog.store.sqlite.pieces import Pieces
from pqlog.store.values import LATEST, Put, Span, TopicInfo

LAST_OFFSET = 2**62
"""No topic comes that far; beyond it SQLite's sums would become fractions."""


class Tail(msgspec.Struct, frozen=True):
    """The end of a topic."""

    stop: int
    """The next offset."""
    time: int
    """The time of the newest message: later ones must not have an earlier one."""
    crc: int
    """The checksum to continue."""


class Table:
    """The statements of one partition's table, in which the table's name and the form of a value are filled in.

    Parameters
    ----------
    info : TopicInfo
        Its id is in the table's name, so that no name of a topic is ever quoted.
    seed : int
        The file's, of the checksums.
    pieces : Pieces, optional
        The file's, of sealed messages that were read last.
    """

    def __init__(self, info: TopicInfo, seed: int, pieces: Pieces | None = None) -> None:
        self.pieces = Pieces() if pieces is None else pieces
        self.id, self.name, self.topic, self.seed = info.id, f"messages_{info.id}", info.name, seed
        self.topic_id = info.id - info.partition
        self.parts = range(self.topic_id, self.topic_id + info.partitions)
        """The ids of all partitions of the topic."""
        self.partition = info.number
        """Its number, if the topic has several."""
        self.tail: Tail | None = None
        """Where the last commit of this process left the topic; for the writer alone.

        Another process may have appended since: an insertion by `put_remembered` then fails.
        """
        self.tail_seen: tuple[apsw.Connection, int | None] | None = None
        """The connection that saw it last, and its `data_version` then, which what others commit changes."""
        # JSON is kept as TEXT, so that `sqlite3`, Datasette and ->> can read it;
        # bound as bytes, which saves a decoding.
        self.is_json = text = info.codec == "json"

        def fill(statement: str) -> str:
            return statement.format(
                m=self.name,
                value="CAST(? AS TEXT)" if text else "?",
                array_value="CAST(value AS TEXT)" if text else "value",
            )

        self.ask_tail = fill(statements.TAIL)
        self.put_array = fill(statements.PUT_ARRAY)
        self.put = fill(statements.PUT)
        self.put_segment = fill(statements.PUT_SEGMENT)
        self.first = statements.FIRST
        self.read = fill(statements.READ)
        self.anchor = fill(statements.ANCHOR)
        self.next_sum = fill(statements.NEXT_SUM)
        self.text = fill(statements.TEXT)
        self.next_with_key = fill(statements.NEXT_WITH_KEY)
        self.row_of = fill(statements.ROW_OF)
        self.next_segment = fill(statements.NEXT_SEGMENT)
        self.segments = fill(statements.SEGMENTS)
        self.sealed_row = fill(statements.SEALED_ROW)
        self.sums = fill(statements.SUMS)
        self.sum_of_times = fill(statements.SUM_OF_TIMES)
        self.next_row = fill(statements.NEXT_ROW)
        self.value_of = fill(statements.VALUE_OF)
        self.drop_run = fill(statements.DROP_RUN)
        self.put_sealed = fill(statements.PUT_SEALED)
        self.lines_size = fill(statements.LINES_SIZE)
        self.lines = fill(statements.LINES)
        self.lines_time = fill(statements.LINES_TIME)
        self.lines_key = fill(statements.LINES_KEY)
        self.probe = fill(statements.PROBE)
        self.sizes = fill(statements.SIZES)
        self.drop_trimmed = fill(statements.DROP_TRIMMED)
        self.drop_messages = fill(statements.DROP_MESSAGES)

        self._put_rows: dict[int, str] = {1: self.put}
        self._put_remembered: dict[int, str] = {}
        self.put_next = self.put_remembered(1)

    @property
    def title(self) -> str:
        """What texts for people call it."""
        return title(self.topic, self.partition)

    def put_rows(self, rows: int) -> str:
        """An insertion of several rows in one statement, which is twice as fast as one each."""
        statement = self._put_rows.get(rows)
        if statement is None:
            head, _, one = self.put.partition(" VALUES ")
            statement = self._put_rows[rows] = f"{head} VALUES {', '.join([one.strip()] * rows)}"
        return statement

    def put_remembered(self, rows: int) -> str:
        """The same, at the offset that `tail` remembers; fails if that is not the topic's end any more."""
        statement = self._put_remembered.get(rows)
        if statement is None:
            checked = statements.REMEMBERED_OFFSET.format(id=self.id)
            statement = self.put_rows(rows).replace("(?,", f"({checked},", 1)
            self._put_remembered[rows] = statement
        return statement

    def read_first(self, db: apsw.Connection, part: int | None = None) -> int:
        """The first offset that is kept, here or in another partition; raises if the topic was deleted."""
        found = fetch_one(db.execute(self.first, (self.id if part is None else part,)))
        if found is None:
            raise UnknownTopicError(self.topic, [])
        first: int = found[0]
        return first

    def read_tail(self, db: apsw.Connection) -> Tail:
        """The topic's end, from the file."""
        try:
            found = fetch_one(db.execute(self.ask_tail))
        except apsw.SQLError:
            self.read_first(db)
            raise
        if found is None:
            return Tail(1, 0, 0)
        stop, time, kept = found
        if not (isinstance(stop, int) and 1 <= stop <= LAST_OFFSET and 0 <= time <= LATEST):
            raise CorruptLogError(
                f"the end of {self.title} is at offset {stop} and time {time}, which no pqlog wrote: "
                f"restore a backup, or copy what can be read with pqlog.salvage(path, to)"
            )
        return Tail(stop, time, checksums.unmask(kept, self.seed)[0])


def title(topic: str, partition: int | None) -> str:
    """A topic, or a partition of one that has several."""
    return f"topic {topic!r}" if partition is None else f"partition {partition} of topic {topic!r}"


def messages_in(span: Span) -> int:
    """How many messages a span has, if all of it is kept: in a file, offsets have no gaps."""
    return max(0, span.stop - span.first)


def put_of(span: Span) -> Put:
    """What a put says that wrote the messages of a span."""
    return Put(span.first, span.last, messages_in(span))
