"""Ctrl-C anywhere, out of memory, out of descriptors: the log then reads, puts and closes, and nothing is lost."""

import contextlib
import errno
import itertools

import pandas as pd
import pytest

import pqlog
from pqlog.store.sqlite import writer
from pqlog.store.values import CachedSchema, Span
from tests import seams
from tests.interrupts import everywhere, moments, returned, struck, within
from tests.messages import offsets
from tests.rings import by_ring

ERRORS = {
    "ctrl-c": KeyboardInterrupt,
    "memory": MemoryError,
    "descriptors": lambda: OSError(errno.EMFILE, "Too many open files"),
}
numbers = itertools.count()

# An exception in a generator that is being garbage-collected is only printed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def get(log, folder):
    log.client("reader").seek(to=-2)
    for number, _ in enumerate(log.get("reader")):
        if number:
            break


def get_in_steps(log, folder):
    log.client("reader").seek(to=-5)
    for number, _ in enumerate(log.get("reader", ack_every=2)):
        if number == 3:
            break


def batches(log, folder):
    for number, batch in enumerate(log.batches("stage", size=2)):
        batch.put_many([1, 2], topic="out")
        if number:
            break


def get_one(log, folder):
    log.client("one").seek(to=-2)
    with contextlib.suppress(pqlog.ClaimLostError):  # what an interrupted call before had been handed
        log.get_one("one")
    log.get_one("one")


def next_batch(log, folder):
    batch = log.client("single").next_batch(size=2)
    batch.put(list(batch), topic="out")
    batch.ack()


def topics(log, folder):
    with contextlib.suppress(pqlog.UnknownTopicError):  # what an interrupted call before has left
        log.delete_topic("renamed", force=True)
    log.topic("made").put(1)
    log.rename_topic("made", "renamed")
    log.delete_topic("renamed", force=True)


def backup(log, folder):
    place = folder / f"{next(numbers)}"
    place.mkdir()
    log.backup(place / "copy")


def with_batch(log, folder):
    reading = log.batches("held", size=2)
    with next(reading) as batch:
        list(batch)


def open_and_close(log, folder):
    with pqlog.open(folder / f"other {next(numbers)}.db") as other:
        other.topic("new").put(1)


def wait(log, folder):
    with pytest.raises(pqlog.Empty):
        log.topic("empty").get_one("waiter", timeout=0.003)


def partitions(log, folder):
    orders = log.topic("orders")
    for number, batch in enumerate(orders.batches("stage", size=2)):
        batch.put_many([1, 2], topic="out")
        if number == 3:
            break
    orders.client("stage").seek("start")
    next(orders.client("reader").get(), None)


CALLS = {
    "put": lambda log, folder: log.put({"n": 1}),
    "put with id": lambda log, folder: log.put({"n": 1}, key="k", headers={"a": "b"}, id=f"{next(numbers)}"),
    "put_many with ids": lambda log, folder: log.put_many([{"id": next(numbers) // 2}] * 3, ids="id"),
    "put_many": lambda log, folder: log.put_many([{"n": 1}] * 3, cursor=(f"source {next(numbers)}", 1, None)),
    "put frame": lambda log, folder: log.put_many(pd.DataFrame({"n": [1, 2, 3]})),
    "open": open_and_close,
    "get": get,
    "get in steps": get_in_steps,
    "get_one": get_one,
    "get_one again": lambda log, folder: log.get_one("steady"),
    "next_batch": next_batch,
    "topics": topics,
    "wait": wait,
    "batches": batches,
    "with batch": with_batch,
    "partitions": partitions,
    "pipe": lambda log, folder: log.client("piper").pipe(lambda frame: frame, into="piped", size=100),
    "clients": lambda log, folder: (
        log.clients(),
        log.client("reader").lag,
        log.client("reader").position,
        log.client("stage").claims(),
    ),
    "seek": lambda log, folder: log.client("reader").seek(to=-5),
    "delete client": lambda log, folder: (log.client("gone").seek(to="end"), log.client("gone").delete()),
    "history": lambda log, folder: (list(log[-5:]), list(log[-5:].values()), len(log.history(since="1h")), log[-1]),
    "frame": lambda log, folder: log[-9:].to_pandas(),
    "schema": lambda log, folder: (log.schema, log.store.cache_schema(CachedSchema(Span(1, log.last), "all"))),
    "trim": lambda log, folder: log.trim(before=-40, force=True),
    "compact": lambda log, folder: log.compact(),
    "backup": backup,
    "verify": lambda log, folder: log.verify(),
}


def filled(path):
    log = pqlog.open(path)
    log.put_many([{"n": n} for n in range(50)])
    log.topic("empty")
    log.topic("orders", partitions=3).put_many([{"n": n} for n in range(20)], key="n")
    for client in ("reader", "stage", "held", "one", "single", "piper"):
        log.client(client).seek(to="start")
    return log


def check(log, other):
    """From another thread, which a lock left held would block; and all threads must see what is put."""

    def look():
        before = log.last
        assert log[-1].offset == before
        assert log.put({"n": 0}) == before + 1
        assert log[-1].offset == before + 1
        assert other[-1].offset == before + 1

    within(60, look)


def sweep(folder, name, error, places):
    """Raise at this many places of a call, evenly spread; returns how many there were."""
    logs, others = [], []

    def begin():
        path = folder / f"{next(numbers)}.db"
        logs.append(filled(path))
        others.append(pqlog.open(path))

    def end():
        assert logs[-1].verify() == []
        logs[-1].close()
        others[-1].close()

    def call():
        CALLS[name](logs[-1], folder)

    begin()
    struck = 0
    for where in everywhere(call, ERRORS[error], step=max(1, moments(call) // places)):
        struck += 1
        try:
            check(logs[-1], others[-1])
            if struck % 20 == 0:
                within(60, end)
                within(60, begin)
        except BaseException as broken:
            raise AssertionError(f"broken by an exception at {where}") from broken
    within(60, end)
    return struck


@pytest.mark.fast
@pytest.mark.parametrize("name", list(CALLS))
def test_the_log_goes_on_after_ctrl_c_anywhere(tmp_path, name):
    assert sweep(tmp_path, name, "ctrl-c", places=50) > 10


@pytest.mark.slow
@pytest.mark.parametrize("error", list(ERRORS))
@pytest.mark.parametrize("name", list(CALLS))
def test_the_log_goes_on_after_any_error_anywhere(tmp_path, name, error):
    assert sweep(tmp_path, name, error, places=300) > 10


def test_no_put_returns_uncommitted_beside_a_statement_that_something_keeps_open(path):
    """SQLite autocommits only if no other statement of the connection is writing."""
    kept = []

    def interrupted(transaction):
        kept.append(transaction.db.execute("UPDATE file SET value = value WHERE name = 'epoch' RETURNING value"))
        raise KeyboardInterrupt

    with pqlog.open(path) as log, pqlog.open(path) as other:
        log.put("before")
        with pytest.raises(KeyboardInterrupt):
            log.store.log.write(writer.Task(interrupted))
        assert log.put("after") == 2
        assert offsets(log.put_many(["many"])) == range(3, 4)
        assert [message.value for message in other] == ["before", "after", "many"]
        assert len(kept) == 1


@pytest.mark.parametrize("take", ["loop", "one by one"])
def test_what_an_interrupted_call_claimed_is_free_though_the_exception_is_kept(path, take):
    """Else a partition would wait for a batch that nobody has; and the next call would acknowledge what nobody got."""
    with pqlog.open(path) as log:
        log.topic("out")
        for at in itertools.count(1, by_ring(29, 7)):
            orders = log.topic(f"orders {at}", partitions=2)
            orders.put_many([{"n": n} for n in range(12)], key="n")
            client = orders.client("stage")
            client.seek("start")
            loop, seen = client.batches(size=3), []

            def following(loop=loop, client=client):
                if take == "loop":
                    return next(loop, None)
                return client.get_one(timeout=30) if client.lag > 1 else None

            def work(batch, seen=seen):
                if take == "loop":
                    seen += [value["n"] for value in batch]
                    batch.put(list(batch), topic="out", headers={"of": batch.token})
                else:
                    seen.append(batch["n"])

            work(following())
            reached, where = struck(following, at, KeyboardInterrupt())
            if not reached:
                break
            try:
                for batch in filter(None, returned[:]):
                    work(batch)
                while client.lag > (take == "one by one"):  # a loop may end while the file is told what nobody has
                    for batch in iter(following, None):
                        work(batch)
                assert set(seen) == set(range(12))
            except BaseException as broken:
                raise AssertionError(f"broken by an exception at {where}") from broken
        tokens = [message.headers["of"] for message in log.topic("out")]
        assert len(set(tokens)) == len(tokens)


def over_partitions(path):
    log = pqlog.open(path, partitions=3)
    log.put_many([{"n": n, "k": f"{n % 8}"} for n in range(24)], key="k")
    log.topic("out", partitions=2)
    log.client("c").seek("start")
    return log


def over_all(log):
    """What each partition keeps, and where the clients stand there."""
    clients = {client.client: client.position for client in log.clients()}
    return [
        (span.first, span.stop, {name: at[number] for name, at in clients.items()})
        for number, span in enumerate(seams.spans(log))
    ]


ALL_OR_NONE = {
    "put_many": lambda log: log.put_many([{"n": n} for n in range(9)], key="n"),
    "put_many, a frame": lambda log: log.put_many(pd.DataFrame({"n": range(9)}), key="n"),
    "put_many, ids": lambda log: log.put_many([{"n": n, "id": n} for n in range(9)], key="n", ids="id"),
    "put_many, an id": lambda log: log.put_many([{"n": n} for n in range(9)], key="n", id="call"),
    "seek": lambda log: log.client("c").seek("end"),
    "seek, a new client": lambda log: log.client("new").seek("end"),
    "delete a client": lambda log: log.client("c").delete(),
    "trim": lambda log: log.trim("0s", force=True),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in ("put_many, ids", "seek", "trim")))
        for name in ALL_OR_NONE
    ],
)
def test_after_ctrl_c_a_call_has_been_done_in_all_partitions_or_in_none(tmp_path, name):
    call = ALL_OR_NONE[name]
    with over_partitions(tmp_path / "0.db") as log:
        before = over_all(log)
        count = moments(lambda: call(log))
        after = over_all(log)
        assert all(one != other for one, other in zip(before, after, strict=True))
    for at in range(1, count, max(1, count // by_ring(8, 150))):
        with over_partitions(tmp_path / f"{at}.db") as log:
            _, where = struck(lambda log=log: call(log), at, KeyboardInterrupt())
            assert over_all(log) in (before, after), where
            if over_all(log) == before or "id" in name:
                with contextlib.suppress(pqlog.UnknownClientError):
                    within(60, lambda log=log: call(log))
                assert over_all(log) == after, where


def test_ctrl_c_between_two_partitions_leaves_no_half_of_a_batch(tmp_path):
    """The acknowledgement of one, with what was put through it, and the claim of another are one commit."""

    def work(log):
        for batch in log.batches("c", size=3, owner="worker"):
            batch.put_many([{"of": value["n"], "k": value["k"]} for value in batch], topic="out", key="k")

    with over_partitions(tmp_path / "0.db") as log:
        count = moments(lambda: work(log))
    for at in range(1, count, count // by_ring(15, 300)):
        with over_partitions(tmp_path / f"{at}.db") as log:
            _, where = struck(lambda log=log: work(log), at, KeyboardInterrupt())
            position = log.client("c").position
            acknowledged = [m.value["n"] for m in log if m.offset < position[m.partition]]
            put = [message.value["of"] for message in log.topic("out")]
            assert sorted(put) == sorted(acknowledged), where
            within(60, lambda log=log: work(log))
            out = [message.value for message in log.topic("out")]
            assert sorted(value["of"] for value in out) == list(range(24)), where
            for key in range(8):
                assert [value["of"] for value in out if value["k"] == f"{key}"] == [key, key + 8, key + 16], where
