"""A durable inbox for webhooks: one is answered when it survives a power failure, and kept once however often it comes.

INBOX=inbox.db uvicorn webhook_inbox:app
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import fastapi

import pqlog.aio


@contextlib.asynccontextmanager
async def lifespan(app: fastapi.FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Open the log for as long as the server runs, with a stage that handles what comes in."""
    async with pqlog.aio.open(os.environ.get("INBOX", "inbox.db")) as log:
        stage = asyncio.create_task(handle(log))
        yield {"log": log}
    await stage  # ends with the log


app = fastapi.FastAPI(lifespan=lifespan)


@app.post("/webhooks/{source}", status_code=202)
async def receive(source: str, webhook: dict[str, Any], request: fastapi.Request) -> dict[str, int]:
    """Answer when it is durable. All requests that wait share a sync; one that is sent again has the same offset."""
    id = request.headers.get("webhook-id")  # as in standardwebhooks.com; who sends it again repeats it
    return {"offset": await request.state.log.put(webhook, key=source, id=id and f"{source}/{id}")}


async def handle(log: pqlog.aio.Log) -> None:
    """The work itself, after the answer: what it puts commits with its acknowledgement, so nothing is done twice."""
    async for batch in log.batches("orders", follow=True):
        orders = [webhook["order"] async for webhook in batch if webhook.get("type") == "order.paid"]
        await batch.put_many(orders, topic="paid")
