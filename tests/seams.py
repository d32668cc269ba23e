"""The private parts that tests stand on, in one place: each says why no public name does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pqlog.store.sqlite.held import Holdings
from pqlog.store.values import Put, Row, Singles

if TYPE_CHECKING:
    import apsw

    from pqlog import Topic


def put_encoded(topic: Topic, *encoded: bytes) -> None:
    """Put values as their bytes, whatever the topic's codec: what cannot be decoded, no call puts."""
    topic.store.append([Singles(list(encoded))])


def rows(topic: Topic) -> list[Row]:
    """The rows of a topic as they are stored: no call shows where a segment begins."""
    return list(topic.store.read(topic.store.span(), 1 << 20, 1 << 30))


def checkpoint(topic: Topic) -> None:
    """Move the write-ahead log into the file now: the log does so when it thinks fit."""
    log: Any = topic.store.log
    log.checkpoint()


def connection(topic: Topic) -> apsw.Connection:
    """The connection that writes: for hooks of SQLite, and looks at tables within the process."""
    log: Any = topic.store.log
    db: apsw.Connection = log._file._db
    return db


def first(topic: Topic) -> int:
    """Where a topic begins, also one that is empty: `first` is None there."""
    return topic.store.span().first


def find_id(topic: Topic, id: str) -> Put | None:
    """Where the messages of a call with an id went: to ask by putting again would change what is told."""
    return topic.store.find_id(id)


def join(topic: Topic, client: str) -> None:
    """Make a client known, as its first call does; and no more, so that a power cut can come behind it."""
    topic.store.client(client).join()


def first_unclaimed(topic: Topic, client: str) -> int:
    """Where the next batch of a client begins: no call says so without taking it."""
    state = topic.store.client(client).state()
    assert state is not None
    return state.unclaimed.first


def waiting(topic: Topic) -> int:
    """How many threads wait for messages: that nothing else tells."""
    log: Any = topic.store.log
    return len(log._watch._waiters)


def holdings(topic: Topic) -> Holdings:
    """What this process knows that it holds: to forget it is to be another process."""
    log: Any = topic.store.log
    held: Holdings = log.held
    return held


class Reads:
    """Counts the rows that are read from now on: the promise is how few."""

    def __init__(self, topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows = 0
        store: Any = topic.store
        read = store.read

        def counted(*arguments: Any, **keywords: Any) -> Any:
            found = read(*arguments, **keywords)
            self.rows += len(found)
            return found

        monkeypatch.setattr(store, "read", counted)
        monkeypatch.setattr(store, "read_lines", lambda *_: None)  # the other way to read, which counts none
