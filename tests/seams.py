"""The private parts that tests stand on, in one place: each says why no public name does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pqlog.store.api import Row, Singles, Span
from pqlog.store.sqlite.held import Holdings

if TYPE_CHECKING:
    import apsw

    from pqlog import Topic


def put_encoded(topic: Topic, *encoded: bytes) -> None:
    """Put values as their bytes, whatever the topic's codec: what cannot be decoded, no call puts."""
    topic._engine.append(topic._info, [Singles(list(encoded))])


def rows(topic: Topic) -> list[Row]:
    """The rows of a topic as they are stored: no call shows where a segment begins."""
    return list(topic._engine.read(topic._info, topic._engine.span(topic._info), 1 << 20, 1 << 30))


def checkpoint(topic: Topic) -> None:
    """Move the write-ahead log into the file now: the log does so when it thinks fit."""
    engine: Any = topic._engine
    engine._checkpoint()


def connection(topic: Topic) -> apsw.Connection:
    """The connection that writes: for hooks of SQLite, and looks at tables within the process."""
    engine: Any = topic._engine
    db: apsw.Connection = engine._file._db
    return db


def first(topic: Topic) -> int:
    """Where a topic begins, also one that is empty: `first` is None there."""
    return topic._engine.span(topic._info).first


def find_id(topic: Topic, id: str) -> Span | None:
    """Where the messages of a call with an id went: to ask by putting again would change what is told."""
    return topic._engine.find_id(topic._info, id)


def join(topic: Topic, client: str) -> None:
    """Make a client known, as its first call does; and no more, so that a power cut can come behind it."""
    topic._engine.join(topic._info, client)


def first_unclaimed(topic: Topic, client: str) -> int:
    """Where the next batch of a client begins: no call says so without taking it."""
    info = topic._engine.client(topic._info, client)
    assert info is not None
    return info.unclaimed.first


def waiting(topic: Topic) -> int:
    """How many threads wait for messages: that nothing else tells."""
    engine: Any = topic._engine
    return len(engine._watch._bells)


def holdings(topic: Topic) -> Holdings:
    """What this process knows that it holds: to forget it is to be another process."""
    engine: Any = topic._engine
    held: Holdings = engine._held
    return held


class Reads:
    """Counts the rows that are read from now on: the promise is how few."""

    def __init__(self, topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows = 0
        engine: Any = topic._engine
        read = engine.read

        def counted(*arguments: Any, **keywords: Any) -> Any:
            found = read(*arguments, **keywords)
            self.rows += len(found)
            return found

        monkeypatch.setattr(engine, "read", counted)
        monkeypatch.setattr(engine, "read_lines", lambda *_: None)  # the other way to read, which counts none
