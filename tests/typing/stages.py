"""Clients: single messages, batches, and stages."""

import datetime
from collections.abc import Iterator
from typing import Any, assert_type

import pandas as pd

import pqlog
from pqlog.pipe import Summary


def one_by_one(log: pqlog.Log) -> None:
    assert_type(log.get("billing"), Iterator[Any])
    assert_type(log.get_blocking("billing", messages=True), Iterator[Any])
    assert_type(log.get_one("billing", timeout=None), Any)
    log.get(1.5)  # type: ignore[arg-type]


def batches(log: pqlog.Log) -> None:
    for batch in log.batches("etl", size=50_000, attempts=3, dead_letter="bad"):
        assert_type(batch, pqlog.Batch)
        assert_type((batch.number, batch.first, batch.last, batch.attempt), tuple[int, int, int, int])
        assert_type(batch.token, str)
        assert_type(batch.error, str | None)
        assert_type(list(batch), list[Any])
        assert_type(batch.messages(), Iterator[pqlog.Message])
        assert_type(batch.put_many(batch.to_pandas(metadata=False), topic="clean"), pqlog.Staged)
        assert_type(batch.put({"n": 1}, topic="clean"), pqlog.Staged)
        assert_type(batch.reject(next(batch.messages()), "not a number"), pqlog.Staged)
        batch.put({"n": 1})  # type: ignore[call-arg] # into which topic?
        with batch as held:
            assert_type(held, pqlog.Batch)
        batch.ack()
    assert_type(log.client("etl").next_batch(), pqlog.Batch | None)
    log.batches("etl", 10, 1_000)  # type: ignore[call-arg]


def pipes(log: pqlog.Log) -> None:
    def clean(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.dropna()

    done = log.client("etl").pipe(clean, into="clean", workers=4)
    assert_type(done, Summary)
    assert_type(done.messages_in, int)
    log.client("etl").pipe(into="clean")  # type: ignore[call-arg]
    log.client("etl").pipe(lambda: None)  # type: ignore[misc, arg-type]


def positions(log: pqlog.Log) -> None:
    assert_type(log.client("etl").position, int | Any)
    assert_type(log.client("etl").lag, int)
    assert_type(log.client("etl").seek(to="1h"), pqlog.Moved)
    assert_type(log.client("etl").unread(), pqlog.History)
    assert_type(log.client("etl").claims(), list[pqlog.ClaimInfo])
    assert_type(log.client("etl").claims()[0].expires, datetime.datetime | None)
    assert_type(log.clients()[0], pqlog.ClientInfo)
    for client in log.clients():
        assert_type((client.client, client.lag), tuple[str, int])
    log.client("etl").seek()  # type: ignore[call-arg] # whereto?
