"""pqlog on a Kafka cluster of three nodes on this machine, in turns with plain confluent-kafka code that does the same.

It starts the cluster, with the jars of ``make build/kafka``. Clusters share processors and disks with the client here,
so only ratios within one run mean something: what is compared alternates, and each turn has a ratio.
"""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

import pqlog
from benchmarks.harness import Result, timed
from benchmarks.producers import send_all
from benchmarks.workloads import event, event_frame, same
from tests.cluster.brokers import KafkaCluster, leader

BATCH, MANY = 5_000, 10_000
TUNED = {
    "queued.min.messages": 1_000_000,
    "queued.max.messages.kbytes": 256 << 10,
    "fetch.message.max.bytes": 8 << 20,
    "fetch.queue.backoff.ms": 5,
    "fetch.wait.max.ms": 10,
}
"""What makes a plain consumer faster; by default it waits for a second when its queue is full."""
Rate = Callable[[], float]

encode, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode


def run(folder: Path, rounds: int, scale: float, only: str = "") -> Iterator[dict[str, object]]:
    """A row for each workload, or for those of the parts whose name contains `only`."""
    with KafkaCluster(folder / "kafka", heap="512m") as cluster:
        bench = Bench(cluster, folder, rounds, scale)
        for part in (puts, reading, batches, shipping, opening, taking_over, failing_over):
            if only in part.__name__:
                yield from part(bench)


class Bench:
    """A cluster and how much to do with it."""

    def __init__(self, cluster: KafkaCluster, folder: Path, rounds: int, scale: float) -> None:
        self.cluster, self.folder, self.rounds, self.scale = cluster, folder, rounds, scale
        self.admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0})

    def count(self, full: int, least: int = 10) -> int:
        """How much of something to do."""
        return max(least, int(full * self.scale))

    def url(self) -> str:
        """The address of a new log."""
        return self.cluster.url(f"bench-{secrets.token_hex(4)}")

    def topic(self) -> str:
        """A new Kafka topic of one partition, as durable as those of pqlog."""
        name = f"plain-{secrets.token_hex(4)}"
        config = {"min.insync.replicas": "2", "flush.messages": "1", "message.timestamp.type": "LogAppendTime"}
        self.admin.create_topics([NewTopic(name, 1, 3, config=config)])[name].result(30)
        leader(self.cluster.bootstrap, name)
        return name

    def producer(self, **more: Any) -> Producer:
        """A plain producer, which waits for all replicas."""
        usual = {"bootstrap.servers": self.cluster.bootstrap, "acks": "all", "enable.idempotence": True}
        return Producer({**usual, "log_level": 0, **{name.replace("_", "."): value for name, value in more.items()}})

    def transactional(self, **more: Any) -> Producer:
        """A plain producer with transactions."""
        producer = self.producer(transactional_id=secrets.token_hex(8), **more)
        producer.init_transactions(60)
        return producer

    def consumer(self, topic: str, more: dict[str, Any]) -> Consumer:
        """A plain consumer of all that was committed in a topic."""
        usual = {"bootstrap.servers": self.cluster.bootstrap, "group.id": secrets.token_hex(8), "log_level": 0}
        consumer = Consumer({**usual, "enable.auto.commit": False, **more})
        consumer.assign([TopicPartition(topic, 0, 0)])
        return consumer

    def in_turns(
        self,
        name: str,
        need: str,
        needed: float,
        ours: Rate,
        others: dict[str, Rate],
        unit: str = "messages/s",
        times: int = 1,
    ) -> Iterator[dict[str, object]]:
        """A row for each of `others`, which are measured in turns with `ours`; each has a goal of its own if named."""
        found: dict[str | None, list[float]] = {None: [], **{other: [] for other in others}}
        turns: list[tuple[str | None, Rate]] = [(None, ours), *others.items()]
        for number in range(times * self.rounds):
            for other, rate in turns if number % 2 else reversed(turns):
                found[other].append(rate())
        for other in others:
            yield _row(Result(name, unit, f"{need}{other}", found[None], found[other], needed))


def _absolute(name: str, needed: float, rates: Any, unit: str) -> Result:
    """What is compared with a number."""
    return Result(name, unit, f"{needed:,.0f} {unit}", rates, [needed] * len(rates), 1)


def _row(result: Result) -> dict[str, object]:
    return {**result.as_dict(), "ratio_best": max(result.rates) / max(result.limits)}


def _times(name: str, seconds: Sequence[float], **more: object) -> dict[str, object]:
    """A row of what takes some time and has no goal."""
    ordered = sorted(seconds)
    return {
        "name": name,
        "unit": "s",
        "p50": ordered[len(ordered) // 2],
        "worst": ordered[-1],
        "times": list(seconds),
        **more,
    }


# putting


def puts(bench: Bench) -> Iterator[dict[str, object]]:
    """Single messages, many at once, and frames."""
    few, turns = bench.count(100), bench.count(2, 1)
    values = [event(n) for n in range(MANY)]
    frame = event_frame(bench.count(1_000_000))
    plain, single, many = bench.topic(), bench.producer(linger_ms=0), bench.transactional()
    tuned = bench.transactional(compression_type="lz4", batch_size=1 << 20)
    with pqlog.open(bench.url()) as log:
        log.put(event(0))
        log.put_many(values)
        put_each(single, plain, [event(0)])
        for producer in (many, tuned):
            put_together(producer, plain, values)
        yield from bench.in_turns(
            "put",
            "a plain idempotent producer, waiting for each",
            0.83,
            lambda: timed(lambda: [log.put(value) for value in values[:few]], min(few, MANY)),
            {"": lambda: timed(lambda: put_each(single, plain, values[:few]), min(few, MANY))},
            times=5,
        )

        yield from bench.in_turns(
            "send, 256 under way",
            "one thread that puts",
            10,
            lambda: timed(lambda: send_all(log, 20 * few), 20 * few),
            {"": lambda: timed(lambda: [log.put(value) for value in values[:few]], min(few, MANY))},
        )

        def rate(put: Callable[[], object]) -> float:
            return timed(lambda: [put() for _ in range(turns)], turns * MANY)

        yield from bench.in_turns(
            "put_many of 10,000",
            "a plain transactional producer",
            0.8,
            lambda: rate(lambda: log.put_many(values)),
            {
                "": lambda: rate(lambda: put_together(many, plain, values)),
                ", with lz4 and large batches": lambda: rate(lambda: put_together(tuned, plain, values)),
            },
            times=5,
        )
        frames = log.topic("frames")
        rates = [timed(lambda: frames.put_many(frame), len(frame)) for _ in range(bench.rounds)]
        yield _row(_absolute("put_many, pandas frame", 800_000, rates, "rows/s"))


def put_each(producer: Producer, topic: str, values: Sequence[object]) -> None:
    """Wait for each message."""
    for value in values:
        done: list[Any] = []
        producer.produce(topic, encode(value), on_delivery=lambda error, _, done=done: done.append(error))
        while not done:
            producer.poll(1)
        if done[0] is not None:
            raise KafkaException(done[0])


def put_together(producer: Producer, topic: str, values: Sequence[object]) -> None:
    """All or nothing."""
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, encode(value))
    producer.commit_transaction()


# reading


def reading(bench: Bench) -> Iterator[dict[str, object]]:
    """A history of single messages, and one of segments, as frames."""
    count, rows = bench.count(300_000, 100), bench.count(1_000_000, 100)
    url = bench.url()
    with pqlog.open(url) as log:
        for first in range(0, count, MANY):
            log.put_many([event(n) for n in range(first, min(first + MANY, count))])
        log.topic("segments").put_many(event_frame(rows))
    kafka = f"{url.rpartition('/')[2]}.main"
    others = {
        " with its default settings": lambda: plain_frame(bench, kafka, count, {}),
        ", tuned": lambda: plain_frame(bench, kafka, count, TUNED),
    }
    need = "consumer + msgspec + DataFrame"
    yield from bench.in_turns("messages to pandas", need, 1, lambda: to_pandas(url, "main", count), others, "rows/s")
    segments = {" with its default settings": others[" with its default settings"]}
    yield from bench.in_turns(
        "segments to pandas", need, 20, lambda: to_pandas(url, "segments", rows), segments, "rows/s"
    )


def to_pandas(url: str, topic: str, count: int) -> float:
    """Rows per second, of a log that was just opened."""
    with pqlog.open(url, topic) as log:
        return timed(lambda: _checked(log.history().to_pandas(), count), count)


def plain_frame(bench: Bench, topic: str, count: int, settings: dict[str, Any]) -> float:
    """The same with a plain consumer."""
    consumer = bench.consumer(topic, settings)

    def read() -> pd.DataFrame:
        values: list[Any] = []
        while len(values) < count:
            values += [decode(message.value()) for message in consumer.consume(10_000, 0.2)]
        return pd.DataFrame(values)

    with contextlib.closing(consumer):
        return timed(lambda: _checked(read(), count), count)


def _checked(frame: pd.DataFrame, count: int) -> None:
    assert len(frame) == count, len(frame)


# stages


def batches(bench: Bench) -> Iterator[dict[str, object]]:
    """Batches of 5,000 whose outputs commit with their acknowledgement."""
    count = bench.count(20, 2) * BATCH
    url = bench.url()
    with pqlog.open(url) as log:
        for first in range(0, count, MANY):
            log.put_many([event(n) for n in range(first, min(first + MANY, count))])
        log.topic("out")

        def loop() -> None:
            for batch in log.client(secrets.token_hex(4)).batches(size=BATCH):
                batch.put_many(list(batch), topic="out")

        def pipe() -> None:
            done = log.client(secrets.token_hex(4)).pipe(same, into="out", size=BATCH)
            assert done.messages_in == count

        source, into = f"{url.rpartition('/')[2]}.main", bench.topic()
        producer = bench.transactional()
        others = {"": lambda: timed(lambda: plain_stage(bench, source, into, producer, count), count)}
        for name, work in (("batches of 5,000, values", loop), ("pipe, batches of 5,000", pipe)):
            found = list(bench.in_turns(name, PLAIN_STAGE, 0, lambda work=work: timed(work, count), others))
            yield _row(_absolute(name, 40_000, found[0]["rates"], "messages/s"))
            yield from found


PLAIN_STAGE = "a plain consumer and a transactional producer, whose offsets commit with it"


def plain_stage(bench: Bench, source: str, into: str, producer: Producer, count: int) -> None:
    """The same with a consumer and a transactional producer."""
    with contextlib.closing(bench.consumer(source, {})) as consumer:
        done = 0
        while done < count:
            values: list[object] = []
            while len(values) < min(BATCH, count - done):
                some = consumer.consume(min(BATCH, count - done) - len(values), 0.2)
                values += [decode(message.value()) for message in some]
            producer.begin_transaction()
            for value in values:
                producer.produce(into, encode(value))
            done += len(values)
            position = consumer.position([TopicPartition(source, 0)])
            producer.send_offsets_to_transaction(position, consumer.consumer_group_metadata())
            producer.commit_transaction()


# copying


def shipping(bench: Bench) -> Iterator[dict[str, object]]:
    """From a file to the cluster, and back."""
    count = bench.count(200_000, 100)
    sources = {"messages": [event(n) for n in range(count)], "frame": event_frame(count)}
    for kind, values in sources.items():
        ship, mirror = list[float](), list[float]()
        for number in range(bench.rounds):
            url = bench.url()
            with pqlog.open(bench.folder / f"{kind}-{number}.db") as log:
                log.put_many(values)
                ship.append(timed(lambda log=log, url=url: log.ship(url), count))
            target = bench.folder / f"{kind}-{number}-back.db"
            mirror.append(timed(lambda url=url, target=target: pqlog.mirror(url, target), count))
            with pqlog.open(target, readonly=True) as back:
                assert len(back) == count
        for name, rates in (("ship", ship), ("mirror", mirror)):
            yield {"name": f"{name}, {kind}", "unit": "messages/s", "rate_best": max(rates), "rates": rates}


# opening


def opening(bench: Bench) -> Iterator[dict[str, object]]:
    """A log with a million records in its state: what its clients wrote that was not compacted yet."""
    records = bench.count(1_000_000, 100)
    url = bench.url()
    with pqlog.open(url) as log:
        offset = log.put(event(0))
        log.client("one").seek(to=offset)
    yield from _opened(bench, url, "a new log")
    state = f"{url.rpartition('/')[2]}.__state"
    producer = bench.producer()
    key, value, partition = _last(bench, state, '"client/')
    for number in range(records):
        text = key.decode().replace("one", f"client {number % 10_000}")
        while True:
            try:
                producer.produce(state, value, text, partition)
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()
    yield from _opened(bench, url, f"{records:,} records in the state")


def _last(bench: Bench, topic: str, begins: str) -> tuple[bytes, bytes, int]:
    """A record of the state whose key has some text: the key, the value and the partition."""
    consumer = bench.consumer(topic, {"enable.partition.eof": True})
    with contextlib.closing(consumer):
        consumer.assign([TopicPartition(topic, number, 0) for number in range(8)])
        while True:
            message = consumer.poll(10)
            assert message is not None
            found: Any = message.key()
            if message.error() is None and begins.encode() in found and b"mark/" not in found:
                return found, message.value() or b"", message.partition() or 0


def _opened(bench: Bench, url: str, what: str) -> Iterator[dict[str, object]]:
    opened, looked = list[float](), list[float]()
    for _ in range(bench.rounds):
        start = time.perf_counter()
        with pqlog.open(url) as log:
            opened.append(time.perf_counter() - start)
            log.client("one").position  # noqa: B018
            looked.append(time.perf_counter() - start)
    yield _times(f"opening, {what}", opened)
    yield _times(f"opening and a client's position, {what}", looked)


# failures

WORKER = """
import sys, pqlog
with pqlog.open(sys.argv[1]) as log:
    for batch in log.client("etl").batches(size=100):
        print("has it", flush=True)
        sys.stdin.read()
"""


def taking_over(bench: Bench) -> Iterator[dict[str, object]]:
    """How long a worker that waits is without the batch of one on the same host that was killed."""
    url, took = bench.url(), list[float]()
    with pqlog.open(url) as log:
        log.put_many([event(n) for n in range(100)])
        for _ in range(bench.count(7, 1)):
            worker = subprocess.Popen(
                [sys.executable, "-c", WORKER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            with worker:
                assert worker.stdout is not None
                assert worker.stdout.readline() == "has it\n"
                got: list[float] = []

                def take(got: list[float] = got) -> None:
                    with contextlib.closing(log.client("etl").batches(size=100, follow=True)) as waiting:
                        next(waiting)
                        got.append(time.perf_counter())

                taker = threading.Thread(target=take)
                taker.start()
                time.sleep(1)
                assert not got
                start = time.perf_counter()
                worker.kill()
                taker.join()
            took.append(got[0] - start)
    yield _times("take-over of a killed worker's batch", took)


def failing_over(bench: Bench) -> Iterator[dict[str, object]]:
    """The longest that a put takes when the leader of its partition is killed."""
    plain, url = bench.topic(), bench.url()
    producer = bench.producer(linger_ms=0)
    with pqlog.open(url) as log:
        log.put(event(0))
        ours = f"{url.rpartition('/')[2]}.main"
        found: dict[str, list[float]] = {ours: [], plain: []}
        for number in range(bench.count(5, 1)):
            turns: list[tuple[str, Callable[[], object]]] = [
                (ours, lambda: log.put(event(1))),
                (plain, lambda: put_each(producer, plain, [event(1)])),
            ]
            for topic, put in turns if number % 2 else reversed(turns):
                found[topic].append(stall(bench, topic, put))
    yield _times("stall of a put when its leader is killed", found[ours])
    yield _times("stall of a plain producer's, for comparison", found[plain])


def stall(bench: Bench, topic: str, put: Callable[[], object]) -> float:
    """Put all the time while the leader is killed; the longest that a put took."""
    worst = 0.0
    node = leader(bench.cluster.bootstrap, topic)
    killing = threading.Timer(0.5, lambda: bench.cluster.kill(node))
    killing.start()
    until = time.perf_counter() + 4
    while time.perf_counter() < until or killing.is_alive():
        start = time.perf_counter()
        put()
        worst = max(worst, time.perf_counter() - start)
    bench.cluster.start(node)
    while len(bench.admin.list_topics(topic, 30).topics[topic].partitions[0].isrs) < 3:
        time.sleep(0.1)
    return worst
