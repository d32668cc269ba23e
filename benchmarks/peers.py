"""The peers, each used as its README says, at its default and at its most durable setting.

Each is labelled with what survives a power cut: "all", every put that returned; "most", perhaps not the latest; "some",
those of the last second may be lost.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import apsw

import pqlog
from benchmarks.harness import sync_rate
from benchmarks.workloads import event


class Peer:
    """A queue or log in a folder, with the operations to compare; missing ones raise NotImplementedError."""

    name: ClassVar[str]
    survives: ClassVar[str]
    threads_need_one_each: ClassVar[bool] = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, value: Any) -> None:
        """Append one message."""
        raise NotImplementedError

    def put_many(self, values: Sequence[Any]) -> None:
        """Append many messages, in as few commits as possible."""
        raise NotImplementedError

    def consume(self, count: int) -> None:
        """Get `count` messages one by one, each acknowledged before the next."""
        raise NotImplementedError

    def batches(self, count: int) -> None:
        """Get `count` messages, 1,000 at a time, each batch acknowledged."""
        raise NotImplementedError

    def wait(self) -> Any:
        """Wait for the next message; called in another process than the one that puts."""
        raise NotImplementedError

    def close(self) -> None:
        """Release all resources."""

    def size_bytes(self) -> int:
        """The size on the disk, in bytes."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


class Pqlog(Peer):
    name, survives = "pqlog", "all"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.log = pqlog.open(folder / "a.db")
        self.put = self.log.put  # type: ignore[method-assign, assignment]
        self.put_many = self.log.put_many  # type: ignore[method-assign, assignment]
        self.reader: Iterator[Any] | None = None

    def consume(self, count: int) -> None:
        if self.reader is None:
            self.reader = self.log.get("c")
        for _ in itertools.islice(self.reader, count):
            pass

    def batches(self, count: int) -> None:
        for batch in itertools.islice(self.log.batches("b", size=1000), count // 1000):
            with batch:
                for _ in batch:
                    pass

    def wait(self) -> Any:
        if self.reader is None:
            self.reader = self.log.get_blocking("w")
        return next(self.reader)

    def close(self) -> None:
        self.log.close()


class Seed(Peer):
    """ppetr/persistent-queue-log, from its description: one APSW connection, a rollback journal, pickled values."""

    name, survives = "persistent-queue-log", "most"
    synchronous = "full"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.db = apsw.Connection(str(folder / "a.db"))
        self.db.set_busy_timeout(60_000)
        self.db.pragma("synchronous", self.synchronous)
        self.db.execute("CREATE TABLE IF NOT EXISTS log (id INTEGER PRIMARY KEY AUTOINCREMENT, data BLOB)")
        self.db.execute("CREATE TABLE IF NOT EXISTS clients (client_id TEXT PRIMARY KEY, acknowledged INTEGER)")
        self.db.execute("INSERT OR IGNORE INTO clients VALUES ('c', 0)")
        self.lock = threading.Lock()

    def put(self, value: Any) -> None:
        with self.lock, self.db:
            self.db.execute("INSERT INTO log (data) VALUES (?)", (pickle.dumps(value),))

    def put_many(self, values: Sequence[Any]) -> None:
        with self.lock, self.db:
            self.db.executemany("INSERT INTO log (data) VALUES (?)", ((pickle.dumps(value),) for value in values))

    def consume(self, count: int) -> None:
        for _ in range(count):
            id, data = self.db.execute(
                "SELECT id, data FROM log WHERE id > (SELECT acknowledged FROM clients WHERE client_id = 'c') "
                "ORDER BY id LIMIT 1"
            ).fetchall()[0]
            pickle.loads(data)
            with self.db:
                self.db.execute("UPDATE clients SET acknowledged = ? WHERE client_id = 'c'", (id,))

    def close(self) -> None:
        self.db.close()


class SeedExtra(Seed):
    name, survives, synchronous = "persistent-queue-log, EXTRA", "all", "extra"


class PersistQueue(Peer):
    """`SQLiteAckQueue`: WAL, and SQLite's own FULL."""

    name, survives = "persist-queue", "all"

    def __init__(self, folder: Path) -> None:
        import persistqueue

        super().__init__(folder)
        self.queue = persistqueue.SQLiteAckQueue(str(folder), multithreading=True, auto_commit=True)

    def put(self, value: Any) -> None:
        self.queue.put(value)

    def consume(self, count: int) -> None:
        for _ in range(count):
            self.queue.ack(self.queue.get())

    def close(self) -> None:
        self.queue.close()


class LiteQueue(Peer):
    name, survives, synchronous = "litequeue", "most", None
    threads_need_one_each = True

    def __init__(self, folder: Path) -> None:
        import litequeue

        super().__init__(folder)
        self.queue = litequeue.LiteQueue(str(folder / "a.db"))
        if self.synchronous:
            self.queue.conn.execute(f"PRAGMA synchronous = {self.synchronous}")

    def put(self, value: Any) -> None:
        self.queue.put(json.dumps(value))

    def put_many(self, values: Sequence[Any]) -> None:
        with self.queue.transaction():
            for value in values:
                self.queue.put(json.dumps(value))

    def consume(self, count: int) -> None:
        for _ in range(count):
            message = self.queue.pop()
            json.loads(message.data)
            self.queue.done(message.message_id)

    def wait(self) -> Any:
        while True:
            message = self.queue.pop()
            if message is not None:
                self.queue.done(message.message_id)
                return json.loads(message.data)
            time.sleep(0.001)

    def close(self) -> None:
        self.queue.close()


class LiteQueueFull(LiteQueue):
    name, survives, synchronous = "litequeue, FULL", "all", "FULL"


class DiskCache(Peer):
    """`Deque`; a message is read first, and removed once it is processed."""

    name, survives, synchronous = "diskcache", "most", 1

    def __init__(self, folder: Path) -> None:
        import diskcache

        super().__init__(folder)
        cache = diskcache.Cache(str(folder), eviction_policy="none", sqlite_synchronous=self.synchronous)
        self.deque = diskcache.Deque.fromcache(cache)

    def put(self, value: Any) -> None:
        self.deque.append(value)

    def put_many(self, values: Sequence[Any]) -> None:
        with self.deque.transact():
            self.deque.extend(values)

    def consume(self, count: int) -> None:
        for _ in range(count):
            self.deque.peekleft()
            self.deque.popleft()

    def batches(self, count: int) -> None:
        for _ in range(count // 1000):
            with self.deque.transact():
                for _ in range(1000):
                    self.deque.popleft()

    def wait(self) -> Any:
        while True:
            with contextlib.suppress(IndexError):
                return self.deque.popleft()
            time.sleep(0.001)

    def close(self) -> None:
        self.deque.cache.close()


class DiskCacheFull(DiskCache):
    name, survives, synchronous = "diskcache, FULL", "all", 2


class EventSourcing(Peer):
    """Its SQLite process recorder: stored events and tracking, in one transaction if both are given."""

    name, survives = "eventsourcing", "all"

    def __init__(self, folder: Path) -> None:
        from eventsourcing import persistence, sqlite

        super().__init__(folder)
        self.persistence = persistence
        store = sqlite.SQLiteDatastore(str(folder / "a.db"), lock_timeout=60)
        self.recorder = sqlite.SQLiteProcessRecorder(store)
        self.recorder.create_table()
        self.store, self.version, self.lock = store, itertools.count(1), threading.Lock()
        self.read = 0

    def _event(self, value: Any) -> Any:
        from uuid import UUID

        state = json.dumps(value).encode()
        return self.persistence.StoredEvent(UUID(int=1), next(self.version), "event", state)

    def put(self, value: Any) -> None:
        self.recorder.insert_events([self._event(value)])

    def put_many(self, values: Sequence[Any]) -> None:
        self.recorder.insert_events([self._event(value) for value in values])

    def _track(self, id: int) -> None:
        self.recorder.insert_tracking(self.persistence.Tracking("upstream", id))

    def consume(self, count: int) -> None:
        done = 0
        while done < count:
            for one in self.recorder.select_notifications(self.read + 1, min(100, count - done)):
                json.loads(one.state)
                self._track(one.id)
                self.read, done = one.id, done + 1

    def batches(self, count: int) -> None:
        for _ in range(count // 1000):
            for one in self.recorder.select_notifications(self.read + 1, 1000):
                json.loads(one.state)
                self.read = one.id
            self._track(self.read)

    def wait(self) -> Any:
        while True:
            for one in self.recorder.select_notifications(self.read + 1, 1):
                self.read = one.id
                self._track(one.id)
                return json.loads(one.state)
            time.sleep(0.001)

    def close(self) -> None:
        self.store.close()


class RedisStreams(Peer):
    """A server on loopback, started and stopped here."""

    name, survives, fsync = "Redis Streams, everysec", "some", "everysec"

    def __init__(self, folder: Path, port: int | None = None) -> None:
        import redis

        super().__init__(folder)
        self.server = None
        if port is None:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
            command += ["--appendonly", "yes", "--appendfsync", self.fsync, "--loglevel", "warning"]
            self.server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.port = port
        self.redis = redis.Redis(port=port)
        until = time.monotonic() + 30
        while True:
            try:
                self.redis.ping()
                break
            except redis.ConnectionError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)
        with contextlib.suppress(redis.ResponseError):  # it is there
            self.redis.xgroup_create("log", "group", id="0", mkstream=True)

    def put(self, value: Any) -> None:
        self.redis.xadd("log", {"value": json.dumps(value)})

    def put_many(self, values: Sequence[Any]) -> None:
        with self.redis.pipeline(transaction=True) as pipe:
            for value in values:
                pipe.xadd("log", {"value": json.dumps(value)})
            pipe.execute()

    def _next(self, count: int, block: int | None = None) -> list[tuple[bytes, dict[bytes, bytes]]]:
        found = self.redis.xreadgroup("group", "me", {"log": ">"}, count=count, block=block)
        return found[0][1] if found else []

    def consume(self, count: int) -> None:
        done = 0
        while done < count:
            for id, fields in self._next(min(100, count - done)):
                json.loads(fields[b"value"])
                self.redis.xack("log", "group", id)
                done += 1

    def batches(self, count: int) -> None:
        for _ in range(count // 1000):
            found = self._next(1000)
            for _, fields in found:
                json.loads(fields[b"value"])
            self.redis.xack("log", "group", *[id for id, _ in found])

    def wait(self) -> Any:
        while True:
            for id, fields in self._next(1, block=1000):
                self.redis.xack("log", "group", id)
                return json.loads(fields[b"value"])

    def close(self) -> None:
        self.redis.close()
        if self.server is not None:
            self.server.terminate()
            self.server.wait(60)


class RedisStreamsAlways(RedisStreams):
    name, survives, fsync = "Redis Streams, always", "all", "always"


PEERS: tuple[type[Peer], ...] = (
    Pqlog, Seed, SeedExtra, PersistQueue, LiteQueue, LiteQueueFull, DiskCache, DiskCacheFull, EventSourcing,
    RedisStreams, RedisStreamsAlways,
)  # fmt: skip


def available() -> list[type[Peer]]:
    """The peers whose server is installed here."""
    found = list(PEERS)
    if shutil.which("redis-server") is None:
        print("redis-server is not installed: skipping Redis Streams", file=sys.stderr)
        found = [peer for peer in found if not issubclass(peer, RedisStreams)]
    return found


@contextlib.contextmanager
def _fresh(kind: type[Peer], folder: Path) -> Iterator[Peer]:
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as inner:
        peer = kind(Path(inner))
        try:
            yield peer
        finally:
            peer.close()


def _rate(count: int, work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def put(peer: Peer, count: int) -> float:
    """One after the other."""
    return _rate(count, lambda: [peer.put(event(n)) for n in range(count)])


def put_threads(peer: Peer, count: int) -> float:
    """From 16 threads."""
    each = max(1, count // 16)

    def work() -> None:
        mine = type(peer)(peer.folder) if peer.threads_need_one_each else peer
        for n in range(each):
            mine.put(event(n))
        if mine is not peer:
            mine.close()

    threads = [threading.Thread(target=work) for _ in range(16)]

    def together() -> None:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return _rate(each * 16, together)


def put_many(peer: Peer, count: int) -> float:
    """10,000 at a time."""
    values = [event(n) for n in range(min(count, 10_000))]
    times = max(1, count // len(values))
    return _rate(times * len(values), lambda: [peer.put_many(values) for _ in range(times)])


def _fill(peer: Peer, count: int) -> None:
    try:
        peer.put_many([event(n) for n in range(count)])
    except NotImplementedError:
        for n in range(count):
            peer.put(event(n))


def consume(peer: Peer, count: int) -> float:
    """One by one."""
    _fill(peer, count + 100)
    return _rate(count, lambda: peer.consume(count))


def batches(peer: Peer, count: int) -> float:
    """1,000 at a time."""
    count = max(1000, count // 1000 * 1000)
    _fill(peer, count)
    return _rate(count, lambda: peer.batches(count))


def size(peer: Peer, count: int) -> float:
    """Bytes per message on the disk after closing."""
    _fill(peer, count)
    peer.close()
    peer.close = lambda: None  # type: ignore[method-assign]
    return peer.size_bytes() / count


def behind(peer: Peer, count: int) -> float:
    """One after the other, into a queue that is already large; skipped for peers without put_many."""
    values = [event(n) for n in range(min(count, 10_000))]
    for _ in range(max(1, count // len(values))):
        peer.put_many(values)
    return put(peer, min(count, 2_000))


def latency(peer: Peer, count: int) -> tuple[float, float]:
    """From before a put in this process until another process has the message: p50 and p99 in ms."""
    if type(peer).wait is Peer.wait:
        raise NotImplementedError
    port = str(peer.port) if isinstance(peer, RedisStreams) else ""
    command = [sys.executable, "-m", "benchmarks.peers", type(peer).__name__, str(peer.folder), str(count), port]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        for _ in range(count):
            peer.put(time.monotonic())
            time.sleep(0.004)
        took = sorted(map(float, other.stdout.read().split()))
    return took[len(took) // 2], took[int(len(took) * 0.99)]


def _receive(name: str, folder: str, count: str, port: str) -> None:
    kind = next(peer for peer in PEERS if peer.__name__ == name)
    peer = kind(Path(folder), int(port)) if port else kind(Path(folder))  # type: ignore[call-arg]
    print("ready", flush=True)
    took = []
    for _ in range(int(count)):
        value = peer.wait()
        took.append((time.monotonic() - value) * 1000)
    print(*took)
    sys.stdout.flush()
    os._exit(0)


# name, the work, messages at scale 1 for a peer that syncs each message
WORKLOADS: tuple[tuple[str, Callable[[Peer, int], Any], int], ...] = (
    ("put", put, 2_000),
    ("put, 16 threads", put_threads, 4_000),
    ("put_many", put_many, 50_000),
    ("consume", consume, 2_000),
    ("batches", batches, 20_000),
    ("bytes a message", size, 20_000),
    ("latency between processes", latency, 400),
    ("put behind {:,}", behind, 1_000_000),
)
ONCE = (size, behind)


def run(folder: Path, rounds: int, scale: float, only: str = "") -> Iterator[dict[str, object]]:
    """A row for each workload and peer; all peers in each round."""
    kinds = available()
    for name, work, count in WORKLOADS:
        if only not in name:
            continue
        found: dict[type[Peer], list[Any]] = {kind: [] for kind in kinds}
        limits = []
        for _ in range(1 if work in ONCE else rounds):
            limits.append(sync_rate(folder, max(20, int(1000 * scale))))
            for kind in kinds:
                with _fresh(kind, folder) as peer, contextlib.suppress(NotImplementedError):
                    found[kind].append(work(peer, max(16, int(count * scale))))
        for kind in kinds:
            if found[kind]:
                yield {
                    "workload": name.format(int(count * scale)),
                    "peer": kind.name,
                    "survives": kind.survives,
                    "values": found[kind],
                    "limits": limits,
                }


if __name__ == "__main__":
    _receive(*sys.argv[1:])
