"""No operation does more work on a larger log: counted in steps of SQLite's virtual machine."""

import apsw
import pytest

from benchmarks import growth
from benchmarks.growth import batches, clients, cursors, filled, ids, messages, topics
from pqlog.store.sqlite import owners, schema, statements
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
