"""asyncio, and futures."""

from collections.abc import AsyncGenerator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, assert_type

import pandas as pd

import pqlog
import pqlog.aio


def sending(log: pqlog.Log) -> None:
    assert_type(log.send({"city": "Brno"}, key="cz", headers={"source": "till-3"}, id="order-1"), Future[Any])
    log.send(1, key=2)  # type: ignore[arg-type]
    for value in log.get("billing", ack_every=100, ack_seconds=0.5):
        assert_type(value, Any)


async def tasks(path: Path) -> None:
    async with pqlog.aio.open(path, "orders", partitions=8) as log:
        assert_type(log, pqlog.aio.Log)
        assert_type(await log.topic("orders"), pqlog.aio.Topic)
        assert_type(await log.put_many([1, 2]), pqlog.Put)
        assert_type(log.get("billing"), AsyncGenerator[Any, None])
        async for batch in log.batches("etl", size=5, follow=True):
            assert_type(batch, pqlog.aio.Batch)
            assert_type(await batch.to_pandas(), pd.DataFrame)
            assert_type(await batch.put(1, topic="out"), pqlog.Staged)
        assert_type(await log.client("etl").lag(), int)
        assert_type(await log.client("etl").next_batch(timeout=1), pqlog.aio.Batch | None)
        assert_type(await log.history(since="1h").count(), int)
    assert_type(await pqlog.aio.open(path), pqlog.aio.Log)
    await log.put(1, key=2)  # type: ignore[arg-type]
