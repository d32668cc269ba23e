"""Stages: `pipe` with 1, 2 and 4 workers, compared with a get and a put for each message."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pqlog
from benchmarks.harness import timed
from benchmarks.workloads import compute, event, event_frame, same


def run(folder: Path, rounds: int, scale: float) -> Iterator[dict[str, object]]:
    """A row for each way of working."""
    few, many = max(50, int(3_000 * scale)), max(2_000, int(400_000 * scale))
    found: dict[str, list[float]] = {}
    for number in range(rounds):
        with pqlog.open(folder / f"stages-{number}.db") as log:
            log.put_many(event(n) for n in range(few))
            out = log.topic("single")
            single = timed(lambda log=log, out=out: [out.put(value) for value in log.get("single")], few)
            found.setdefault("get + put each", []).append(single)
            frames = log.topic("frames")
            frames.put_many(event_frame(many))
            size = max(100, many // 20)
            for name, work in (("unchanged", same), ("computing", compute)):
                for workers in (1, 2, 4):
                    client = uuid.uuid4().hex  # a name that resembles no other
                    rate = timed(
                        lambda client=client, work=work, workers=workers, frames=frames, size=size: frames.client(
                            client
                        ).pipe(work, into="out", size=size, workers=workers),
                        many,
                    )
                    found.setdefault(f"pipe, {name}, workers={workers}", []).append(rate)
        (folder / f"stages-{number}.db").unlink()
    for name, rates in found.items():
        yield {"stage": name, "rates": rates}
