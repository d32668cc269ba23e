"""The workloads: what is done, on what, and what it is compared to."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import apsw
import pandas as pd

import pqlog
from benchmarks.harness import Result, sync_rate, timed

DISK = "the disk's syncs"
AT_8000 = "the rate where the disk gives 8,000 syncs/s"


def event(n: int) -> dict[str, object]:
    """A message of six fields."""
    return {
        "id": n,
        "city": ("Brno", "Praha", "Ostrava", "Plzeň")[n % 4],
        "amount": n * 0.25,
        "paid": n % 3 == 0,
        "items": n % 11,
        "at": f"2026-11-{n % 28 + 1:02}T10:{n % 60:02}:00",
    }


@dataclass
class Bench:
    """One folder, one size of work, and a fresh path for each log."""

    folder: Path
    scale: float
    fresh: Iterator[int]

    def count(self, full: int) -> int:
        """As much of `full` as the scale says."""
        return max(20, int(full * self.scale))

    def path(self) -> Path:
        """A new file."""
        return self.folder / f"{next(self.fresh)}.db"


def put(bench: Bench) -> float:
    count = bench.count(5000)
    with pqlog.open(bench.path()) as log:
        log.put(event(0))
        return timed(lambda: [log.put(event(n)) for n in range(count)], count)


def put_threads(bench: Bench, threads: int = 16) -> float:
    each = bench.count(1500)
    with pqlog.open(bench.path()) as log:
        log.put(event(0))
        workers = [threading.Thread(target=lambda: [log.put(event(n)) for n in range(each)]) for _ in range(threads)]

        def work() -> None:
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()

        return timed(work, each * threads)


def put_many(bench: Bench) -> float:
    count = bench.count(50_000)
    values = [event(n) for n in range(count)]
    with pqlog.open(bench.path()) as log:
        log.put(event(0))
        return timed(lambda: [log.put_many(values) for _ in range(4)], count * 4)


def get(bench: Bench) -> float:
    count = bench.count(5000)
    with pqlog.open(bench.path()) as log:
        log.put_many(event(n) for n in range(count))
        return timed(lambda: sum(1 for _ in log.get("client")), count)


def batches(bench: Bench) -> float:
    count = bench.count(300_000)
    with pqlog.open(bench.path()) as log:
        log.put_many(event(n) for n in range(count))

        def work() -> None:
            for batch in log.batches("client", size=1000):
                for _ in batch:
                    pass

        return timed(work, count)


def usual_way(bench: Bench, count: int) -> float:
    """``read_sql`` and ``json.loads`` and ``DataFrame``, over the same JSON in a plain table; by the sqlite3 module."""
    script = """
import json, sqlite3, sys, time
import pandas as pd
con = sqlite3.connect(sys.argv[1])
start = time.perf_counter()
frame = pd.DataFrame(pd.read_sql("SELECT value FROM plain ORDER BY id", con)["value"].map(json.loads).tolist())
print(len(frame) / (time.perf_counter() - start))
"""
    path = bench.folder / f"plain-{count}.db"
    if not path.exists():
        db = apsw.Connection(str(path))
        db.execute("CREATE TABLE plain (id INTEGER PRIMARY KEY, value TEXT)")
        with db:
            db.executemany("INSERT INTO plain (value) VALUES (?)", ((json.dumps(event(n)),) for n in range(count)))
        db.close()
    # a process of its own: the standard sqlite3 module must not meet ours in one process
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def messages_to_pandas(bench: Bench) -> tuple[float, float]:
    count = bench.count(1_000_000)
    usual = usual_way(bench, count)
    path = bench.folder / f"messages-{count}.db"
    new = not path.exists()
    with pqlog.open(path) as log:
        if new:
            log.put_many(event(n) for n in range(count))
        return timed(lambda: log.to_pandas(), count), usual


def frame_in(bench: Bench) -> float:
    count = bench.count(1_000_000)
    frame = pd.DataFrame([event(n) for n in range(count)])
    with pqlog.open(bench.path()) as log:
        log.put(event(0))
        return timed(lambda: log.put_many(frame), count)


def frame_back(bench: Bench) -> tuple[float, float]:
    count = bench.count(1_000_000)
    usual = usual_way(bench, count)
    path = bench.folder / f"frame-{count}.db"
    new = not path.exists()
    with pqlog.open(path) as log:
        if new:
            log.put_many(pd.DataFrame([event(n) for n in range(count)]))
        return timed(lambda: log.to_pandas(), count), usual


def put_into_large(bench: Bench) -> tuple[float, float]:
    count = bench.count(10_000_000)
    path = bench.folder / f"large-{count}.db"
    with pqlog.open(path) as log:
        if not len(log):
            log.put_many(event(n) for n in range(count))
        puts = bench.count(5000)
        large = timed(lambda: [log.put(event(n)) for n in range(puts)], puts)
    return large, put(bench)


def import_time(bench: Bench) -> tuple[float, float]:
    """Imports a second, by ten: 100 ms are 1."""
    script = "import time; t = time.perf_counter(); import pqlog; print(time.perf_counter() - t)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return 1 / float(done.stdout), 10.0


def run(folder: Path, rounds: int, scale: float, only: str) -> list[Result]:
    """All workloads, round by round."""
    bench = Bench(folder, scale, itertools.count())
    rows: list[tuple[Result, Callable[[Bench], float | tuple[float, float]]]] = [
        (Result("put, one thread", "/s", DISK, needed=0.8), put),
        (Result("put, 16 threads", "/s", DISK, needed=3.0), put_threads),
        (Result("put_many, 50,000 dicts", "/s", AT_8000, needed=1.0, absolute=800_000), put_many),
        (Result("get, acknowledging each", "/s", DISK, needed=0.75), get),
        (Result("batches(size=1000), values", "/s", AT_8000, needed=1.0, absolute=500_000), batches),
        (Result("messages to pandas", "rows/s", "read_sql + json.loads", needed=12.0), messages_to_pandas),
        (Result("put_many, pandas frame", "rows/s", AT_8000, needed=1.0, absolute=2_500_000), frame_in),
        (Result("that frame back to pandas", "rows/s", "read_sql + json.loads", needed=50.0), frame_back),
        (Result("put behind 10,000,000", "/s", "put into an empty log", needed=0.95), put_into_large),
        (Result("import pqlog", "/s", "one in 100 ms", needed=1.0), import_time),
    ]
    rows = [row for row in rows if only in row[0].name]
    for number in range(rounds):
        for result, work in rows:
            print(f"\rround {number + 1} of {rounds}: {result.name:<40}", end="", file=sys.stderr, flush=True)
            limit = sync_rate(folder, bench.count(3000))
            measured = work(bench)
            rate, limit = measured if isinstance(measured, tuple) else (measured, limit)
            result.rates.append(rate)
            result.limits.append(limit)
    print(file=sys.stderr)
    return [result for result, _ in rows]
