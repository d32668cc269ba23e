"""Reading: messages, ranges, and what they become."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, assert_type

import pandas as pd
import polars as pl
import pyarrow as pa

import pqlog


def messages(log: pqlog.Log) -> None:
    assert_type(log[1], pqlog.Message)
    assert_type(log[-1000:], pqlog.History)
    assert_type(len(log), int)
    assert_type((log.first, log.last), tuple[int | None, int | None])
    for message in log:
        assert_type(message, pqlog.Message)
        assert_type(message.offset, int)
        assert_type(message.time, datetime)
        assert_type(message.key, str | None)
        assert_type(message.headers, Mapping[str, str])
    log["1"]  # type: ignore[call-overload]


def ranges(log: pqlog.Log, path: Path) -> None:
    history = log.history(since="1h", until=datetime(2026, 11, 1), key="cz")
    assert_type(history, pqlog.History)
    assert_type(history.latest("city"), pqlog.History)
    assert_type(list(reversed(history)), list[pqlog.Message])
    assert_type(history.values(), Iterator[Any])
    assert_type(pqlog.read_log(path, columns=["city"], since="1h"), pd.DataFrame)
    log.history("1h")  # type: ignore[arg-type] # a time is named: since=


def tables(log: pqlog.Log, batch: pqlog.Batch) -> None:
    for history in (log, log[5:], batch):
        assert_type(history.to_pandas(["city"], flatten=True), pd.DataFrame)
        assert_type(history.to_polars(), pl.DataFrame)
        assert_type(history.to_arrow(), pa.Table)
        assert_type(history.to_batches(1_000), pa.RecordBatchReader)
        assert_type(history.chunks(1_000, columns=["city"]), Iterator[pd.DataFrame])
        assert_type(history.head(), pd.DataFrame)
        assert_type(history.schema, pa.Schema)
        assert_type(history.to_parquet("out", partition_by="city"), list[str])
        history.to_pandas(flatten=1)  # type: ignore[arg-type]
        history.to_pandas(["city"], True)  # type: ignore[call-arg]
        history.to_polars(columns=[1])  # type: ignore[list-item]
    assert_type(log.live(["city"]).refresh(), pd.DataFrame)
