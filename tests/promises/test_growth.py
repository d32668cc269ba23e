"""No operation does more work on a larger log: counted in steps of SQLite's virtual machine."""

import itertools

import apsw
import pandas as pd
import pytest

import pqlog
from benchmarks import growth
from benchmarks.growth import batches, clients, cursors, filled, ids, messages, topics
from benchmarks.workloads import event
from pqlog.store import owners
from pqlog.store.sqlite import schema, statements
from tests import rows, seams


def batches_of_dead_processes(log, count):
    """Half of them from another host, half from a process that is gone."""
    batches(log, count)
    for half, process in ((0, "elsewhere@1:1:x"), (1, owners.this_process() + "x")):
        rows.change(seams.connection(log), "claims", f"number % 2 = {half}", process=f"'{process}'")


GROWTH = {
    messages: (25_000, 100_000),  # fewer than 20,000 are not read ahead
    topics: (2, 60),
    clients: (120, 600),  # a new name is compared with a hundred neighbours at most
    ids: (5, 200),
    cursors: (2, 100),
    batches: (3, 200),
    batches_of_dead_processes: (6, 200),
}

INHERENT = {
    ("a new client", clients): "that none of them has this name, but damaged, is looked up in all",
    ("delete_client", clients): "the same: it is made first",
    ("a new topic", topics): "the same of topics",
    ("trim, 20", clients): "all clients are asked whether they have read what is dropped",
}
"""The operations that must grow, and why."""


class Steps:
    """Counts the steps of SQLite's virtual machine, in all connections that are opened meanwhile."""

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
    """The steps that each operation takes; the second time, since the first may create something."""
    found = {}
    with Steps() as steps, filled(path, grow, count) as log:
        for name, work in growth.OPERATIONS.items():
            work(log)
            before = steps.count
            work(log)
            found[name] = steps.count - before
    return found


@pytest.mark.filterwarnings("ignore:client", "ignore:topic")
@pytest.mark.parametrize("grow", GROWTH, ids=lambda grow: grow.__name__)
def test_no_operation_works_more_where_there_is_more(tmp_path, grow):
    few, many = GROWTH[grow]
    small, large = steps_of_all(tmp_path / "few.db", grow, few), steps_of_all(tmp_path / "many.db", grow, many)
    grown = {name: (small[name], large[name]) for name in small if large[name] > 1.5 * small[name] + 100}
    assert set(grown) <= {name for name, of in INHERENT if of is grow}, grown


def _middle(topic):
    """When about half of it had been put."""
    return topic.partition(0)[len(topic.partition(0)) // 2].time


PARTITIONED = {
    "put": lambda topic: topic.put(event(1), key="k"),
    "put, no key": lambda topic: topic.put(event(1)),
    "put, a new id": lambda topic: topic.put(1, id=f"new {next(_fresh)}"),
    "put, an old id": lambda topic: topic.put(1, id="old"),
    "put_many, 10": lambda topic: topic.put_many([{"id": n} for n in range(10)], key="id"),
    "put_many, new ids": lambda topic: topic.put_many([{"id": next(_fresh)} for n in range(10)], key="id", ids="id"),
    "put_many, old ids": lambda topic: topic.put_many([{"id": n} for n in range(10)], key="id", ids="id"),
    "put_many, a frame": lambda topic: topic.put_many(pd.DataFrame({"id": range(10)}), key="id"),
    "get, 3": lambda topic: list(itertools.islice(topic.get("reader"), 3)),
    "get_one": lambda topic: topic.get_one("one"),
    "batches, 3": lambda topic: [len(batch) for batch in itertools.islice(topic.batches("etl", size=5), 3)],
    "next_batch, ack": lambda topic: topic.client("busy").next_batch(size=1).ack(),
    "next_batch, none": lambda topic: topic.client("done").next_batch(),
    "position, lag": lambda topic: (topic.client("busy").position, topic.client("busy").lag),
    "clients": lambda topic: topic.clients(),
    "unread, the first": lambda topic: next(iter(topic.client("reader").unread())),
    "seek, the start": lambda topic: topic.client("other").seek("start"),
    "seek, a time": lambda topic: topic.client("other").seek(_middle(topic)),
    "seek, the end": lambda topic: topic.client("done").seek("end"),
    "seek, one": lambda topic: topic.client("other").seek(30, partition=1),
    "delete_client": lambda topic: (topic.client("gone").seek("end"), topic.client("gone").delete()),
    "len": len,
    "head": lambda topic: topic.head(),
    "tail": lambda topic: topic.tail(),
    "the newest": lambda topic: next(reversed(topic)),
    "a page in the middle": lambda topic: topic.history(since=_middle(topic)).head(),
    "the rest, counted": lambda topic: len(topic.history(since=_middle(topic))),
    "to_batches, the first": lambda topic: next(iter(topic.to_batches())),
    "trim, a time": lambda topic: topic.trim(topic.partition(0)[topic.partition(0).first + 5].time, force=True),
    "trim, one": lambda topic: topic.partition(1).trim(topic.partition(1).first + 5, force=True),
    "has_work": lambda topic: topic.client("done").next_batch(),
}
_fresh = itertools.count(10_000_000)


def steps_over_partitions(path, partitions, count):
    """The steps that each operation takes in a topic with so many messages, of calls of 500."""
    found = {}
    with Steps() as steps, pqlog.open(path, partitions=partitions) as topic:
        for call, start in enumerate(range(0, count, 500)):
            values = [event(n) for n in range(start, start + 500)]
            topic.put_many(pd.DataFrame(values) if call % 3 == 2 else values, key="id")
        topic.put(0, id="old")
        for client in ("reader", "busy", "etl", "one"):
            topic.client(client).seek("start")
        topic.client("done").seek("end")
        for name, work in PARTITIONED.items():
            if name in ("has_work", "next_batch, none"):
                topic.client("done").seek("end")
            work(topic)
            before = steps.count
            work(topic)
            found[name] = steps.count - before
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:client", "ignore:topic")
def test_no_operation_on_partitions_works_more_where_there_are_more_messages(tmp_path):
    small, large = (steps_over_partitions(tmp_path / f"{count}.db", 3, count) for count in (25_000, 100_000))
    # a place in the merged order is found by bisection: some steps more in four times as many messages
    assert {name: (small[name], large[name]) for name in small if large[name] > 2 * small[name] + 500} == {}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:client", "ignore:topic")
def test_what_grows_with_the_number_of_partitions_is_small(tmp_path):
    small, large = (steps_over_partitions(tmp_path / f"{count}.db", count, 20_000) for count in (4, 64))
    assert max(found[name] for found in (small, large) for name in ("put", "put, no key")) < 500
    assert {name: (small[name], large[name]) for name in small if large[name] > 1.5 * 16 * small[name]} == {}
    assert {name: large[name] for name in large if large[name] > 64 * 6_000} == {}


WALKING_BACK = """
DELETE FROM {m} WHERE offset IN (
    SELECT offset FROM {m} WHERE offset < (
        SELECT max(offset) FROM {m} WHERE offset + ifnull(rows, 1) <= ?1 AND crc IS NOT NULL
    ) ORDER BY offset LIMIT ?2)
"""
WITHOUT_INDICES = tuple(statement for statement in schema.NEW_FILE if not statement.startswith("CREATE INDEX"))


@pytest.mark.filterwarnings("ignore:client", "ignore:topic")
@pytest.mark.parametrize(
    ("grow", "where", "name", "worse", "operation"),
    [
        (messages, statements, "DROP_TRIMMED", WALKING_BACK, "trim"),
        (ids, statements, "RUNS", statements.RUNS.replace("BY number", "BY +number"), "trim"),
        (batches, schema, "NEW_FILE", WITHOUT_INDICES, "next_batch"),
    ],
    ids=["trim that walks back", "trim over all ids", "a batch among others"],
)
def test_it_is_noticed(tmp_path, monkeypatch, grow, where, name, worse, operation):
    monkeypatch.setattr(where, name, worse)
    with pytest.raises(AssertionError, match=operation):
        test_no_operation_works_more_where_there_is_more(tmp_path, grow)
