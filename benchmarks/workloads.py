"""The workloads: the work, its data, and what it is compared to."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import pandas as pd

import pqlog
from benchmarks.harness import Result, beside_the_disk, sync_rate, timed

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
    """A folder, a scale, and a fresh path for each log."""

    folder: Path
    scale: float
    fresh: Iterator[int]

    def count(self, full: int) -> int:
        """`full`, scaled."""
        return max(20, int(full * self.scale))

    def path(self) -> Path:
        """A new file."""
        return self.folder / f"{next(self.fresh)}.db"


BURSTS = 5


def bare_apsw(bench: Bench) -> tuple[float, float]:
    """One INSERT per commit into a plain table, in WAL mode with synchronous=FULL: what SQLite itself takes."""
    count = bench.count(1000)
    db = apsw.Connection(str(bench.path()))
    db.pragma("journal_mode", "wal")
    db.pragma("synchronous", 2)
    db.execute("CREATE TABLE plain (id INTEGER PRIMARY KEY, value TEXT)")

    def work() -> int:
        for n in range(count):
            db.execute("INSERT INTO plain (value) VALUES (?)", (json.dumps(event(n)),))
        return count

    for _ in range(2):
        work()  # so that the write-ahead log has its full size
    try:
        return beside_the_disk(bench.folder, BURSTS, bench.count(1000), work)
    finally:
        db.close()


def put(bench: Bench) -> tuple[float, float]:
    count = bench.count(1000)
    with pqlog.open(bench.path()) as log:

        def work() -> int:
            for n in range(count):
                log.put(event(n))
            return count

        return beside_the_disk(bench.folder, BURSTS, bench.count(1000), work)


def put_threads(bench: Bench, threads: int = 16) -> tuple[float, float]:
    each = max(5, bench.count(4_800) // threads)
    with pqlog.open(bench.path()) as log:

        def work() -> int:
            workers = [
                threading.Thread(target=lambda: [log.put(event(n)) for n in range(each)]) for _ in range(threads)
            ]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            return each * threads

        return beside_the_disk(bench.folder, BURSTS, bench.count(1000), work)


def put_many(bench: Bench) -> float:
    count = bench.count(50_000)
    values = [event(n) for n in range(count)]
    with pqlog.open(bench.path()) as log:
        log.put(event(0))
        return timed(lambda: [log.put_many(values) for _ in range(4)], count * 4)


def put_many_with_ids(bench: Bench) -> float:
    """Ids of random text, like UUIDs: the worst case for a table that is sorted by id."""
    values = [event(n) | {"order": uuid.uuid4().hex} for n in range(bench.count(1_000_000))]
    return _with_ids(bench, values)


def frame_in_with_ids(bench: Bench) -> float:
    frame = pd.DataFrame([event(n) for n in range(bench.count(1_000_000))])
    return _with_ids(bench, frame.assign(order=[uuid.uuid4().hex for _ in range(len(frame))]))


def _with_ids(bench: Bench, values: Any) -> float:
    with pqlog.open(bench.path()) as log:
        log.put_many([{"order": "first"}], ids="order")
        return timed(lambda: log.put_many(values, ids="order"), len(values))


def get(bench: Bench) -> tuple[float, float]:
    count = bench.count(1000)
    with pqlog.open(bench.path()) as log:
        log.put_many(event(n) for n in range(count * BURSTS))
        values = log.get("client")
        work = lambda: sum(1 for _ in itertools.islice(values, count))  # noqa: E731
        return beside_the_disk(bench.folder, BURSTS, bench.count(1000), work)


def batches(bench: Bench) -> float:
    count = bench.count(300_000)
    with pqlog.open(bench.path()) as log:
        log.put_many(event(n) for n in range(count))

        def work() -> None:
            for batch in log.batches("client", size=1000):
                for _ in batch:
                    pass

        return timed(work, count)


def usual_way(bench: Bench, count: int, name: str = "events", make: Callable[[int], object] = event) -> float:
    """``read_sql``, ``json.loads`` and ``DataFrame`` on the same JSON in a plain table, with the sqlite3 module."""
    script = """
import json, sqlite3, sys, time
import pandas as pd
con = sqlite3.connect(sys.argv[1])
start = time.perf_counter()
frame = pd.DataFrame(pd.read_sql("SELECT value FROM plain ORDER BY id", con)["value"].map(json.loads).tolist())
print(len(frame) / (time.perf_counter() - start))
"""
    path = bench.folder / f"plain-{name}-{count}.db"
    if not path.exists():
        db = apsw.Connection(str(path))
        db.execute("CREATE TABLE plain (id INTEGER PRIMARY KEY, value TEXT)")
        with db:
            db.executemany("INSERT INTO plain (value) VALUES (?)", ((json.dumps(make(n)),) for n in range(count)))
        db.close()
    # in its own process: the standard sqlite3 module and apsw must not use a file in the same process
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def messages_file(bench: Bench, count: int) -> Path:
    """A log of single messages, none of them sealed."""
    path = bench.folder / f"messages-{count}.db"
    if not path.exists():
        with pqlog.open(path, seal=None) as log:
            log.put_many(event(n) for n in range(count))
    return path


def messages_to_pandas(bench: Bench) -> tuple[float, float]:
    count = bench.count(1_000_000)
    usual = usual_way(bench, count)
    with pqlog.open(messages_file(bench, count), seal=None) as log:
        return timed(lambda: log.to_pandas(), count), usual


def sealed_file(bench: Bench, count: int) -> Path:
    """The same log, with all of its messages sealed."""
    path = bench.folder / f"sealed-{count}.db"
    if not path.exists():
        with pqlog.open(messages_file(bench, count), seal=None) as log:
            log.backup(path)
        with pqlog.open(path) as log:
            log.seal()
    return path


def seal(bench: Bench) -> tuple[float, float]:
    count = bench.count(1_000_000)
    path = bench.path()
    with pqlog.open(messages_file(bench, count), seal=None) as log:
        log.backup(path)
    with pqlog.open(path) as log:
        return timed(lambda: log.seal(), count), 500_000.0


def sealed_size(bench: Bench) -> tuple[float, float]:
    count = bench.count(1_000_000)
    return sealed_file(bench, count).stat().st_size / 1e6, messages_file(bench, count).stat().st_size / 10 / 1e6


def sealed_to_pandas(bench: Bench) -> tuple[float, float]:
    count = bench.count(1_000_000)
    usual = usual_way(bench, count)
    with pqlog.open(sealed_file(bench, count)) as log:
        log.head(5)  # pyarrow's parts are loaded at their first use
        return timed(lambda: log.to_pandas(), count), usual


def sealed_column(bench: Bench) -> tuple[float, float]:
    count = bench.count(1_000_000)
    with pqlog.open(sealed_file(bench, count)) as log:
        log.head(5)
        one = timed(lambda: log.to_pandas(["amount"], metadata=False), count)
        return one, timed(lambda: log.to_pandas(metadata=False), count)


def sealed_batches(bench: Bench) -> tuple[float, float]:
    count = bench.count(1_000_000)
    return tuple(_batches(make(bench, count), count) for make in (sealed_file, messages_file))  # type: ignore[return-value]


def _batches(path: Path, count: int) -> float:
    with pqlog.open(path, seal=None) as log:
        log.client("client").seek("start")
        return timed(lambda: [None for batch in log.batches("client", size=1000) for _ in batch], count)


def sealed_get(bench: Bench) -> tuple[float, float]:
    count, rates = bench.count(5_000), []
    for make in (sealed_file, messages_file):
        with pqlog.open(make(bench, bench.count(1_000_000)), seal=None) as log:
            log.client("client").seek("start")
            values = log.get("client")
            rates.append(timed(lambda values=values: sum(1 for _ in itertools.islice(values, count)), count))
    return rates[0], rates[1]


def rare_key(bench: Bench) -> tuple[float, float]:
    """Milliseconds to find the one message of a key, where each message has a key of its own; in a new process."""
    count = bench.count(10_000_000)
    path = bench.folder / f"keys-{count}.db"
    if not path.exists():
        with pqlog.open(path, seal=None) as log:
            for first in range(0, count, 100_000):
                some = range(first, min(first + 100_000, count))
                log.put_many([event(n) | {"key": f"key-{n * 7919 % count}"} for n in some], key="key")
                log.seal()
    script = """
import sys, time
import pqlog

with pqlog.open(sys.argv[1], readonly=True) as log:
    start = time.perf_counter()
    assert len(list(log.history(key="key-7"))) == 1
    print((time.perf_counter() - start) * 1000)
"""
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    return float(done.stdout), 200.0


def event_frame(count: int) -> pd.DataFrame:
    """Events as a frame."""
    return pd.DataFrame([event(n) for n in range(count)])


def two_columns(bench: Bench) -> tuple[float, float]:
    count = bench.count(1_000_000)
    messages_file(bench, count)
    with pqlog.open(bench.folder / f"messages-{count}.db", seal=None) as log:
        log.to_pandas(["id"])
        return timed(lambda: log.to_pandas(["id", "amount"]), count), timed(lambda: log.to_pandas(), count)


def frame_in(bench: Bench) -> float:
    count = bench.count(1_000_000)
    frame = event_frame(count)
    with pqlog.open(bench.path()) as log:
        log.put(event(0))
        return timed(lambda: log.put_many(frame), count)


def frame_by_key(bench: Bench, key: str = "city") -> tuple[float, float]:
    """A frame cut by key into eight partitions, compared with one partition; the key names one of a few cities."""
    frame = event_frame(bench.count(1_000_000))
    with pqlog.open(bench.path()) as log:
        one, eight = log.topic("one"), log.topic("eight", partitions=8)
        for topic in (one, eight):
            topic.put_many(frame[:1000], key=key)
        of_eight = timed(lambda: eight.put_many(frame, key=key), len(frame))
        return of_eight, timed(lambda: one.put_many(frame, key=key), len(frame))


def frame_by_distinct_key(bench: Bench) -> tuple[float, float]:
    """The same where each message has a key of its own."""
    return frame_by_key(bench, "id")


def frame_file(bench: Bench, count: int) -> Path:
    """A log that holds one frame."""
    path = bench.folder / f"frame-{count}.db"
    if not path.exists():
        with pqlog.open(path) as log:
            log.put_many(event_frame(count))
    return path


def frame_back(bench: Bench) -> tuple[float, float]:
    count = bench.count(1_000_000)
    usual = usual_way(bench, count)
    with pqlog.open(frame_file(bench, count)) as log:
        return timed(lambda: log.to_pandas(), count), usual


def frame_size(bench: Bench) -> tuple[float, float]:
    count = bench.count(1_000_000)
    sample = [json.dumps(event(n), separators=(",", ":"), ensure_ascii=False) for n in range(0, count, 97)]
    as_json = sum(len(text.encode()) for text in sample) / len(sample) * count
    return frame_file(bench, count).stat().st_size / 1e6, as_json / 4 / 1e6


def segment_values(bench: Bench) -> tuple[float, float]:
    count = bench.count(1_000_000)
    with pqlog.open(frame_file(bench, count)) as log:
        return timed(lambda: sum(1 for _ in log), count), 300_000


SHAPES: dict[str, Callable[[int], object]] = {
    "types that change": lambda n: {"a": n if n % 3 else str(n), "b": n % 7 if n % 2 else None, "c": [n]},
    "nested": lambda n: {"a": {"x": n, "y": [n, n]}, "t": ["q"]},
    "doubles beyond 2**53": lambda n: {"a": 1e20 + n, "b": n},
    "new fields all the time": lambda n: {f"f{n // 3000}": n, "k": 1},
    "text": lambda n: f"text {n}",
}


def worst_shapes(bench: Bench) -> tuple[float, float]:
    """The shape for which pqlog does worst, compared with the usual way."""
    count = bench.count(200_000)
    found = []
    for name, make in SHAPES.items():
        path = bench.folder / f"shape-{name}-{count}.db"
        new = not path.exists()
        with pqlog.open(path) as log:
            if new:
                log.put_many(make(n) for n in range(count))
            ours = timed(lambda log=log: log.to_pandas(), count)
        found.append((ours, usual_way(bench, count, name, make)))
    return min(found, key=lambda pair: pair[0] / pair[1])


MEMORY = """
import sys
import pandas, pyarrow, pyarrow.compute, pyarrow.csv, pyarrow.json, pqlog, pqlog.frames

def peak():  # in MB; not ru_maxrss, which a process inherits from its parent
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024 / 1e6

with pqlog.open(sys.argv[1]) as log:
    before = peak()
    if sys.argv[2] == "stream":
        assert sum(batch.num_rows for batch in log.to_batches()) == len(log)
        print(peak() - before, 300)
    else:
        frame = log.to_pandas()
        print(peak() - before, 3 * frame.memory_usage(deep=True).sum() / 1e6)
"""


def memory(path: Path, what: str) -> tuple[float, float]:
    """The memory in MB that reading takes, in its own process, and the limit."""
    command = [sys.executable, "-c", MEMORY, str(path), what]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak, limit = map(float, done.stdout.split())
    return peak, limit


def stream_memory(bench: Bench) -> tuple[float, float]:
    return memory(large_file(bench), "stream")


def frame_memory(bench: Bench) -> tuple[float, float]:
    return memory(messages_file(bench, bench.count(1_000_000)), "frame")


FIRST = """
import sys, time
import pqlog, pqlog.frames.dataframes

with pqlog.open(sys.argv[1]) as log:
    start = time.perf_counter()
    if sys.argv[2] == "head":
        assert len(log.head(5)) == 5
    else:
        assert next(iter(log.to_batches())).num_rows
    print((time.perf_counter() - start) * 1000)
"""


def first_rows(bench: Bench, what: str, make: Callable[[Bench, int], Path]) -> tuple[float, float]:
    """Milliseconds until the first rows, in a new process, which has only what the file caches."""
    path = make(bench, bench.count(1_000_000))
    if what == "batch":
        with pqlog.open(path) as log:
            assert log.schema.names
    done = subprocess.run([sys.executable, "-c", FIRST, str(path), what], capture_output=True, text=True, check=True)
    return float(done.stdout), 50.0


def schema_of_new(bench: Bench) -> tuple[float, float]:
    """The rate at which a schema is inferred, compared with that of reading a frame."""
    count = bench.count(1_000_000)
    with pqlog.open(bench.path()) as log:
        log.put_many(event(n) for n in range(count))
        return timed(lambda: log.schema, count), timed(lambda: log.to_pandas(), count)


def large_file(bench: Bench) -> Path:
    """A log with ten million messages."""
    count = bench.count(10_000_000)
    return messages_file(bench, count)


def pipe_messages(bench: Bench) -> float:
    count = bench.count(1_000_000)
    with pqlog.open(bench.path()) as log:
        log.put_many(event(n) for n in range(count))
        return timed(lambda: log.client("stage").pipe(same, into="out", size=50_000), count)


def pipe_against_single_messages(bench: Bench) -> tuple[float, float]:
    """Compared with a get and a put for each message, at the rate of the disk: two syncs per message."""
    rate = pipe_messages(bench)
    return rate, sync_rate(bench.folder, bench.count(3000)) / 2


def pipe_segments(bench: Bench) -> float:
    count = bench.count(1_000_000)
    with pqlog.open(bench.path()) as log:
        log.put_many(event_frame(count))
        return timed(lambda: log.client("stage").pipe(same, into="out", size=50_000), count)


def pipe_processes(bench: Bench) -> tuple[float, float]:
    """Two processes compared with one, for a function that only computes."""
    count = bench.count(400_000)
    with pqlog.open(bench.path()) as log:
        log.put_many(event_frame(count))
        size = max(1, count // 20)
        two = timed(lambda: log.client("two").pipe(compute, size=size, workers=2), count)
        return two, timed(lambda: log.client("one").pipe(compute, size=size), count)


def pipe_partitions(bench: Bench) -> tuple[float, float]:
    """Eight workers on eight partitions compared with one, where each message takes 10 ms of waiting."""
    with pqlog.open(bench.path()) as log:
        orders = log.topic("orders", partitions=8)
        few, many = bench.count(500), bench.count(16_000)
        rates = []
        for count, workers in ((many, 8), (few, 1)):
            client = orders.client(f"{workers} workers")
            client.seek("end")
            orders.put_many(({"order": n} for n in range(count)), key="order")
            rates.append(
                timed(lambda client=client, workers=workers: client.pipe(wait, size=50, workers=workers), count)
            )
        return rates[0], rates[1]


def wait(frame: pd.DataFrame) -> None:
    """A stage that waits 10 ms for each message, as for a service elsewhere."""
    time.sleep(0.01 * len(frame))


def same(frame: pd.DataFrame) -> pd.DataFrame:
    """A stage that changes nothing."""
    return frame


def compute(frame: pd.DataFrame) -> None:
    """A stage that takes half a second of processor time per 20,000 rows."""
    until = time.process_time() + 0.5 * len(frame) / 20_000
    while time.process_time() < until:
        sum(range(1000))


def put_into_large(bench: Bench) -> tuple[float, float]:
    with pqlog.open(large_file(bench)) as log:
        puts = bench.count(5000)
        large = timed(lambda: [log.put(event(n)) for n in range(puts)], puts)
    return large, put(bench)[0]


def import_time(bench: Bench) -> tuple[float, float]:
    """Imports per second; 10 is the limit, which is 100 ms each."""
    script = "import time; t = time.perf_counter(); import pqlog; print(time.perf_counter() - t)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return 1 / float(done.stdout), 10.0


def run(folder: Path, rounds: int, scale: float, only: str) -> list[Result]:
    """All workloads, round by round."""
    from benchmarks import producers

    bench = Bench(folder, scale, itertools.count())
    rows: list[tuple[Result, Callable[[Bench], float | tuple[float, float]]]] = [
        (Result("bare APSW, an INSERT each", "/s", DISK, needed=0.0), bare_apsw),
        (Result("put, one thread", "/s", DISK, needed=0.85), put),
        (Result("put, 16 threads", "/s", DISK, needed=3.5), put_threads),
        (Result("put, 64 threads", "/s", DISK, needed=5.0), lambda bench: put_threads(bench, 64)),
        (Result("send, 256 under way", "/s", "one thread that puts", needed=10.0), producers.send),
        (Result("put, 16 tasks", "/s", DISK, needed=5.0), lambda bench: producers.put_tasks(bench, 16)),
        (Result("put, 64 tasks", "/s", DISK, needed=10.0), lambda bench: producers.put_tasks(bench, 64)),
        (Result("put, 256 tasks", "/s", DISK, needed=15.0), lambda bench: producers.put_tasks(bench, 256)),
        (Result("put_many, 50,000 dicts", "/s", AT_8000, needed=1.0, absolute=1_000_000), put_many),
        (Result("put_many with ids, values", "/s", AT_8000, needed=1.0, absolute=300_000), put_many_with_ids),
        (Result("put_many with ids, a frame", "/s", AT_8000, needed=1.0, absolute=300_000), frame_in_with_ids),
        (Result("get, acknowledging each", "/s", DISK, needed=0.85), get),
        (Result("get, ack_every=4", "/s", DISK, needed=3.0), lambda bench: producers.get_in_steps(bench, 4)),
        (Result("get, ack_every=100", "/s", DISK, needed=30.0), lambda bench: producers.get_in_steps(bench, 100)),
        (Result("batches(size=1000), values", "/s", AT_8000, needed=1.0, absolute=800_000), batches),
        (Result("messages to pandas", "rows/s", "read_sql + json.loads", needed=14.0), messages_to_pandas),
        (
            Result("head(5) of messages", "ms", "50 ms", needed=1.0, less=True),
            lambda bench: first_rows(bench, "head", messages_file),
        ),
        (
            Result("head(5) of a frame", "ms", "50 ms", needed=1.0, less=True),
            lambda bench: first_rows(bench, "head", frame_file),
        ),
        (
            Result("first batch, schema known", "ms", "50 ms", needed=1.0, less=True),
            lambda bench: first_rows(bench, "batch", messages_file),
        ),
        (Result("schema of new messages", "rows/s", "to pandas", needed=0.7), schema_of_new),
        (Result("two of the six columns", "rows/s", "all six", needed=1.0), two_columns),
        (Result("memory of messages to pandas", "MB", "three times the frame", needed=1.0, less=True), frame_memory),
        (Result("memory of a stream of 10,000,000", "MB", "300 MB", needed=1.0, less=True), stream_memory),
        (Result("seal", "/s", "500,000/s", needed=1.0), seal),
        (Result("file of sealed messages", "MB", "a tenth of the rows", needed=1.0, less=True), sealed_size),
        (Result("sealed messages to pandas", "rows/s", "read_sql + json.loads", needed=50.0), sealed_to_pandas),
        (Result("one of the six columns, sealed", "rows/s", "all six", needed=3.0), sealed_column),
        (Result("get of sealed messages", "/s", "of rows", needed=1.0), sealed_get),
        (Result("batches of sealed messages", "/s", "of rows", needed=1.0), sealed_batches),
        (
            Result("a key of one of 10,000,000 sealed", "ms", "200 ms", needed=1.0, less=True),
            rare_key,
        ),
        (Result("worst shapes to pandas", "rows/s", "read_sql + json.loads", needed=1 / 1.2), worst_shapes),
        (Result("put_many, pandas frame", "rows/s", AT_8000, needed=1.0, absolute=4_000_000), frame_in),
        (Result("that frame by city, 8 partitions", "rows/s", "one partition", needed=0.5), frame_by_key),
        (Result("the same, all keys distinct", "rows/s", "one partition", needed=0.0), frame_by_distinct_key),
        (Result("file of that frame", "MB", "a quarter of its JSON", needed=1.0, less=True), frame_size),
        (Result("that frame back to pandas", "rows/s", "read_sql + json.loads", needed=80.0), frame_back),
        (Result("messages out of that frame", "/s", "300,000/s", needed=1.0), segment_values),
        (Result("pipe, messages", "/s", AT_8000, needed=1.0, absolute=150_000), pipe_messages),
        (Result("pipe, messages", "/s", "a get and a put each", needed=5.0), pipe_against_single_messages),
        (Result("pipe, frames", "/s", AT_8000, needed=1.0, absolute=1_500_000), pipe_segments),
        (Result("pipe, two processes", "/s", "one process", needed=1.6), pipe_processes),
        (Result("pipe, 8 workers, 8 partitions", "/s", "one worker", needed=6.0), pipe_partitions),
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
