"""A path that is almost the address of a cluster is refused wherever a file is meant."""

import os
from pathlib import Path

import pytest

import pqlog

ALMOST = [
    "127.0.0.1:28132",
    "localhost:9092/etl",
    "h1:9092,h2:9092/etl",
    "[::1]:9092/etl",
    "KAFKA://host:9092/etl",
    "kafka:/host:9092/etl",
    Path("kafka://host:9092/etl"),
    "kafka+ssl://host:9092/etl",
    "redis://host",
    "http://host/events.db",
    "s3://bucket/events.db",
]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder in which nothing may appear."""
    monkeypatch.chdir(tmp_path)
    yield
    assert set(os.listdir()) <= {"events.db", "host:9092"}


@pytest.fixture
def log():
    with pqlog.open("events.db") as log:
        log.put({"n": 1})
        yield log


@pytest.mark.parametrize("path", ALMOST, ids=str)
def test_what_is_almost_an_address_is_no_file(path, log):
    calls = [
        lambda: pqlog.open(path),
        lambda: pqlog.open(path, readonly=True),
        lambda: pqlog.mirror(log, path),
        lambda: pqlog.mirror(path, "new.db"),
        lambda: log.ship(path),
        lambda: log.backup(path),
        lambda: log.to_parquet(path),
        lambda: pqlog.salvage(path, "new.db"),
        lambda: pqlog.salvage("events.db", path),
        lambda: pqlog.migrate(path, "new.db"),
        lambda: pqlog.read_log(path),
    ]
    for call in calls:
        with pytest.raises(pqlog.ArgumentError, match="begins with kafka://"):
            call()


def test_what_only_a_file_has_is_not_asked_of_a_cluster(log):
    at = "kafka://host:9092/etl"
    calls = [
        lambda: log.backup(at),
        lambda: log.to_parquet(at),
        lambda: pqlog.salvage(at, "new.db"),
        lambda: pqlog.salvage("events.db", at),
        lambda: pqlog.migrate(at, "new.db"),
        lambda: pqlog.migrate("events.db", at),
    ]
    for call in calls:
        with pytest.raises(pqlog.UnsupportedError, match="a log on a cluster is not"):
            call()


def test_a_file_may_have_such_a_name():
    pqlog.open("./host:9092").close()
    pqlog.open("host:9092").close()


def test_who_puts_read_only_is_told_that_and_not_of_codecs():
    with pqlog.open("events.db", codec="pickle") as log:
        log.put(1)
    with pqlog.open("events.db", readonly=True) as log:
        for put in (log.put, lambda value: log.put_many([value])):
            with pytest.raises(pqlog.ReadOnlyError, match="without readonly=True"):
                put(1)
