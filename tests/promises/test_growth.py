"""No operation works more where there is more: counted in steps of SQLite's virtual machine, as on any machine."""

import contextlib
import itertools

import apsw
import pandas as pd
import pytest

import pqlog
from pqlog.store.sqlite import schema, statements

fresh = itertools.count()


def messages(log, count):
    log.put_many({"n": n} for n in range(count))
    log.put_many(pd.DataFrame({"n": range(count)}))
    log.put_many({"n": n} for n in range(count))


def topics(log, count):
    for number in range(count):
        log.topic(f"topic {number}")


def clients(log, count):
    for number in range(count):
        log.seek(f"{number:x} client", to="start")  # by the engine's own way: a new one is compared with others


def ids(log, count):
    for number in range(count):
        log.put(number, id=f"before {number}")


def cursors(log, count):
    for number in range(count):
        log.put_many([], cursor=(f"source {number}", number, None))


def open_batches(log, count):
    log.held = [log.next_batch("c", size=1) for _ in range(count)]


def batches_of_a_dead_process(log, count):
    """Of two, that is: one of another host, one that is gone."""
    open_batches(log, count)
    for half, process in ((0, "elsewhere@1:1:x"), (1, log._engine.owner("").strip("|") + "x")):
        log._engine._db.execute("UPDATE claims SET process = ? WHERE number % 2 = ?", (process, half))


GROWTH = {
    messages: (5_000, 20_000),
    topics: (2, 60),
    clients: (120, 600),  # of so many neighbours of a name, the new one is compared with a hundred
    ids: (5, 200),
    cursors: (2, 100),
    open_batches: (3, 200),
    batches_of_a_dead_process: (6, 200),
}

OPERATIONS = {
    "put": lambda log: log.put({"n": 1}, key="k", headers={"a": "b"}),
    "put with an id": lambda log: log.put({"n": 1}, id=f"new {next(fresh)}"),
    "put with an id that was used": lambda log: log.put({"n": 1}, id="used"),
    "put_many": lambda log: log.put_many([{"n": 1}] * 10),
    "put_many of a frame": lambda log: log.put_many(pd.DataFrame({"n": [1, 2]})),
    "put_many with a cursor": lambda log: log.put_many([{"n": 1}], cursor=(f"new {next(fresh)}", 1, None)),
    "cursor": lambda log: log.cursor("no such"),
    "get": lambda log: list(itertools.islice(log.get("reader"), 3)),
    "get_one": lambda log: [log.get_one("one") for _ in range(3)],
    "batches": lambda log: [list(batch) for batch in itertools.islice(log.batches("etl", size=5), 3)],
    "next_batch": lambda log: log.next_batch("c", size=1).ack(),
    "next_batch, released": lambda log: log.next_batch("c", size=1).release(),
    "batch.put": lambda log: put_through(log),
    "position": lambda log: log.position("reader"),
    "lag": lambda log: log.lag("c"),
    "unread": lambda log: next(iter(log.unread("reader"))),
    "a new client": lambda log: next(log.get(f"new {next(fresh)}")),
    "an unknown client": lambda log: unknown(log),
    "seek to an offset": lambda log: log.seek("reader", to=3),
    "seek to a time": lambda log: log.seek("reader", to="1h"),
    "seek to the end": lambda log: log.seek("other", to="end"),
    "delete_client": lambda log: (log.seek("gone", to="end"), log.delete_client("gone")),
    "len, first, last": lambda log: (len(log), log.first, log.last),
    "a message": lambda log: (log[5], log[-1], log[log.last // 2]),
    "a slice": lambda log: [list(log[10:20]), list(log[-10:])],
    "since a time": lambda log: len(log.history(since="1h")),
    "a topic": lambda log: len(log.topic("main")),
    "a new topic": lambda log: log.topic(f"new {next(fresh)}"),
    "trim": lambda log: log.trim(before=log.first + 50, force=True),
}

INHERENT = {
    ("trim", clients): "all clients are asked whether they have read what is dropped",
}
"""What grows by its nature, and why."""


def put_through(log):
    with log.next_batch("stage", size=2) as batch:
        batch.put(1, topic="out")


def unknown(log):
    with contextlib.suppress(pqlog.UnknownClientError):
        log.position("nobody")


class Steps:
    """How many steps SQLite's virtual machine takes, in all connections that are opened meanwhile."""

    def __init__(self):
        self.count = 0

    def __enter__(self):
        apsw.connection_hooks.append(self._watch)
        return self

    def __exit__(self, *_):
        apsw.connection_hooks.remove(self._watch)

    def _watch(self, db):
        db.trace_v2(apsw.SQLITE_TRACE_PROFILE, self._ran)

    def _ran(self, event):
        self.count += event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"]


def steps_of_all(path, grow, count):
    """For each operation, how many steps it takes; the second time, since the first may make something."""
    found = {}
    with Steps() as steps, pqlog.open(path) as log:
        log.put_many([{"n": n} for n in range(700)])
        log.put({"n": 0}, id="used")
        log.seek("reader", to="start")
        log.seek("c", to="start")
        grow(log, count)
        for name, work in OPERATIONS.items():
            work(log)
            before = steps.count
            work(log)
            found[name] = steps.count - before
        log.held = None
    return found


@pytest.mark.filterwarnings("ignore:client")
@pytest.mark.parametrize("grow", GROWTH, ids=lambda grow: grow.__name__)
def test_no_operation_works_more_where_there_is_more(tmp_path, grow):
    few, many = GROWTH[grow]
    small, large = steps_of_all(tmp_path / "few.db", grow, few), steps_of_all(tmp_path / "many.db", grow, many)
    grown = {name: (small[name], large[name]) for name in small if large[name] > 1.5 * small[name] + 100}
    assert set(grown) <= {name for name, of in INHERENT if of is grow}, grown


WALKING_BACK = """
DELETE FROM {m} WHERE offset IN (
    SELECT offset FROM {m} WHERE offset < (
        SELECT max(offset) FROM {m} WHERE offset + ifnull(rows, 1) <= ?1 AND crc IS NOT NULL
    ) ORDER BY offset LIMIT ?2)
"""
WITHOUT_INDICES = tuple(statement for statement in schema.NEW_FILE if not statement.startswith("CREATE INDEX"))


@pytest.mark.filterwarnings("ignore:client")
@pytest.mark.parametrize(
    ("grow", "where", "name", "worse", "operation"),
    [
        (messages, statements, "DROP_TRIMMED", WALKING_BACK, "trim"),
        (ids, schema, "NEW_FILE", WITHOUT_INDICES, "trim"),
        (open_batches, schema, "NEW_FILE", WITHOUT_INDICES, "next_batch"),
    ],
    ids=["trim that walks back", "trim over all ids", "a batch among others"],
)
def test_it_is_noticed(tmp_path, monkeypatch, grow, where, name, worse, operation):
    monkeypatch.setattr(where, name, worse)
    with pytest.raises(AssertionError, match=operation):
        test_no_operation_works_more_where_there_is_more(tmp_path, grow)
