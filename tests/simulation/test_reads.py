"""Reads that fail, end early or return other bytes: what was put is read, or an error raised; then all works again."""

import contextlib
import random

import pandas as pd
import pytest

import pqlog
from tests import seams
from tests.simulation.disk import Disk, Fault, errors_are_quiet, write

VALUES = [{"n": n, "text": "x" * (n % 50)} for n in range(400)]

READS = {
    "values": lambda log: list(log.history().values()) == VALUES,
    "messages": lambda log: [message.value for message in log] == VALUES,
    "one": lambda log: log[150].value == VALUES[149],
    "the last": lambda log: [message.value for message in log[-5:]] == VALUES[-5:],
    "a key": lambda log: [message.value for message in log.history(key="7")] == [VALUES[7]],
    "frame": lambda log: log.to_pandas(metadata=False)["n"].tolist() == list(range(400)),
    "chunks": lambda log: [n for chunk in log.chunks(90) for n in chunk["n"]] == list(range(400)),
    "columns": lambda log: log[310:390].to_pandas(metadata=False)["n"].tolist() == list(range(309, 389)),
}
CLIENTS = {
    "topics": lambda log: log.topics() == ["main"],
    "lag": lambda log: log.client("c").lag == 397,
    "cursor": lambda log: log.cursor("source") == 7,
    "verify": lambda log: log.verify() == [],
}


@pytest.fixture
def disk(tmp_path):
    """A log with everything in it, as left by a process that was killed in the middle of its work."""
    write(tmp_path / "first", {})
    first = Disk(tmp_path / "first")
    with first.listening(), pqlog.open(first.folder / "a.db") as log:
        log.put_many(({**value} for value in VALUES[:300]), id="again", cursor=("source", 7, None), key="n")
        seams.checkpoint(log)
        log.put_many(pd.DataFrame(VALUES[300:350]))
        for value in VALUES[350:]:
            log.put(value, key=str(value["n"]))
        reader = log.get("c")
        for _ in range(4):
            next(reader)
        return first.process_killed(tmp_path / "disk")


def ends_early(chance):
    return lambda data: data[: chance.randrange(len(data) + 1)]


def flips(chance):
    def flip(data):
        bit = chance.randrange(8 * len(data)) if data else 0
        return bytes(byte ^ (1 << bit % 8) * (at == bit // 8) for at, byte in enumerate(data))

    return flip


@pytest.mark.parametrize("step", [pytest.param(7, marks=pytest.mark.fast), pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("spoils", "lasting"),
    [(None, False), (None, True), (ends_early, False), (flips, False)],
    ids=["fails", "fails from then on", "ends early", "flips"],
)
def test_what_is_read_is_what_was_put_or_an_error_and_all_is_well_afterwards(disk, spoils, lasting, step):
    """For any read of the files while a log is opened and everything is read from it."""
    # a name that is misread in the middle of a table is not found, and a topic's end has no checksum of its own
    reads = READS if spoils else {**READS, **CLIENTS}
    said, number = 0, 0
    with disk.listening(), errors_are_quiet():
        while True:
            fault = Fault(("read",), number, lasting, spoils=spoils and spoils(random.Random(number)))
            with contextlib.ExitStack() as stack:
                disk.fault = fault
                try:
                    log = stack.enter_context(pqlog.open(disk.folder / "a.db", readonly=True))
                except pqlog.Error:
                    said += 1
                    disk.fault = None
                    log = stack.enter_context(pqlog.open(disk.folder / "a.db", readonly=True))
                for name, read in reads.items():
                    try:
                        assert read(log), f"{name}, where read {number} is wrong"
                    except pqlog.Error:
                        said += 1
                disk.fault = None
                for name, read in reads.items():
                    assert read(log), f"{name}, after read {number} was wrong"
            if not fault.struck:
                break
            number += step
    assert number > 100
    assert said > 5


@pytest.mark.parametrize("step", [pytest.param(11, marks=pytest.mark.fast), pytest.param(1, marks=pytest.mark.slow)])
def test_writing_where_reads_fail_loses_nothing(disk, tmp_path, step):
    number, failed = 0, 0
    while True:
        other = disk.process_killed(tmp_path / f"other-{number}")
        other.fault = fault = Fault(("read",), number)
        with other.listening(), errors_are_quiet(), contextlib.ExitStack() as stack:
            put = []
            try:
                log = stack.enter_context(pqlog.open(other.folder / "a.db"))
            except pqlog.Error:
                failed += 1
                log = stack.enter_context(pqlog.open(other.folder / "a.db"))
            for value in range(6):
                try:
                    log.put(value)
                    put.append(value)
                    if value == 3:
                        seams.checkpoint(log)
                except pqlog.Error:
                    failed += 1
            other.fault = None
            log.put("last")
            values = [message.value for message in log]
            assert values[:400] == VALUES
            assert [value for value in values[400:] if value in put] == put
            assert values[-1] == "last"
            assert (log.verify(), log.cursor("source"), log.client("c").position) == ([], 7, 4)
        if not fault.struck:
            break
        number += step
    assert number > 50
    assert failed > 3
