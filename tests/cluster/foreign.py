"""Topics as other programs write them: plain confluent-kafka, without pqlog."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

import pqlog


class Foreign:
    """Topics on a cluster, all with a prefix, which could be the name of a log (`url`); `whole` is the cluster."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.whole, _, self.log = url.rpartition("/")
        self.bootstrap = self.whole.removeprefix("kafka://")
        self.admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        self._plain = self.producer()

    def name(self, topic: str) -> str:
        """What a topic is called on the cluster."""
        return f"{self.log}.{topic}"

    def make(self, topic: str, partitions: int = 1, **config: str) -> None:
        """Create a topic."""
        settings = {name.replace("_", "."): value for name, value in config.items()}
        name = self.name(topic)
        self.admin.create_topics([NewTopic(name, partitions, 3, config=settings)])[name].result()
        for _ in range(5):  # brokers hear of it one after the other
            while name not in AdminClient({"bootstrap.servers": self.bootstrap}).list_topics(timeout=10).topics:
                time.sleep(0.02)

    def delete(self, topic: str) -> None:
        self.admin.delete_topics([self.name(topic)])[self.name(topic)].result()

    def trim(self, topic: str, before: int, partition: int = 0) -> None:
        """Drop the records before one, as retention does."""
        (future,) = self.admin.delete_records([TopicPartition(self.name(topic), partition, before)]).values()
        future.result()

    def producer(self, **config: Any) -> Producer:
        settings = {name.replace("_", "."): value for name, value in config.items()}
        return Producer({"bootstrap.servers": self.bootstrap, "log_level": 0, "linger.ms": 5, **settings})

    def put(
        self,
        topic: str,
        values: Iterable[bytes | None],
        partition: int = 0,
        keys: Sequence[Any] | None = None,
        headers: Any = None,
        times: Sequence[int] | None = None,
        producer: Producer | None = None,
    ) -> None:
        """Put records; the times are in milliseconds."""
        producer, failed = producer or self._plain, []
        for index, value in enumerate(values):
            when = {} if times is None else {"timestamp": times[index]}
            key = None if keys is None else keys[index]
            while True:
                try:
                    producer.produce(
                        self.name(topic),
                        value,
                        key,
                        partition,
                        lambda error, _: failed.append(error),
                        headers=headers,
                        **when,
                    )
                    break
                except BufferError:
                    producer.poll(0.1)
        assert producer.flush(30) == 0
        assert not any(failed), failed

    def begun(self) -> Producer:
        """A producer in a transaction."""
        producer = self.producer(transactional_id=f"{self.log}/{uuid.uuid4().hex}")
        producer.init_transactions(30)
        producer.begin_transaction()
        return producer

    def put_in_transaction(self, topic: str, values: Iterable[bytes], partition: int = 0, commit: bool = True) -> None:
        """Put records in a transaction of their own."""
        producer = self.begun()
        self.put(topic, values, partition, producer=producer)
        if commit:
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)
        self.settle(topic, partition)

    def settle(self, topic: str, partition: int = 0) -> None:
        """Wait until a transaction that was ended is ended: its markers are written in the background."""
        where = TopicPartition(self.name(topic), partition)
        ends = [
            Consumer({"bootstrap.servers": self.bootstrap, "group.id": "none", "isolation.level": f"read_{level}"})
            for level in ("committed", "uncommitted")
        ]
        while len({consumer.get_watermark_offsets(where, 10)[1] for consumer in ends}) > 1:
            time.sleep(0.01)
        for consumer in ends:
            consumer.close()

    def open(self, topic: str, **options: Any) -> pqlog.Log:
        return pqlog.open(self.whole, self.name(topic), readonly=True, **options)

    def topics(self, log: pqlog.Log) -> list[str]:
        """Which of them a log has that shows all topics of the cluster."""
        prefix = f"{self.log}."
        return [name.removeprefix(prefix) for name in log.topics() if name.startswith(prefix)]

    def plain(self, topic: str, partitions: int = 1) -> list[tuple[int, int, bytes | None]]:
        """What a plain consumer reads, committed only: partition, record offset and value, by partition."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": "none",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
            }
        )
        found, ends = list[tuple[int, int, bytes | None]](), set[int]()
        consumer.assign([TopicPartition(self.name(topic), number, 0) for number in range(partitions)])
        until = time.monotonic() + 30
        while len(ends) < partitions and time.monotonic() < until:
            for message in consumer.consume(1000, 0.2):
                if message.error():
                    ends.add(message.partition())
                else:
                    found.append((message.partition(), message.offset(), message.value()))
        consumer.close()
        return sorted(found, key=lambda one: one[:2])

    def state(self) -> Mapping[str, Any]:
        """All topics of the prefix with the end of each partition."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "none"})
        topics = consumer.list_topics(timeout=10).topics
        found = {
            name: [consumer.get_watermark_offsets(TopicPartition(name, number), 10) for number in topic.partitions]
            for name, topic in topics.items()
            if name.startswith(self.log)
        }
        consumer.close()
        groups = [group.group_id for group in self.admin.list_consumer_groups().result().valid]
        return {**found, "groups": [name for name in groups if "pqlog" in name]}

    def mirror(self, topic, path, **options):
        """Copy a topic into a file, where it has the same name."""
        return pqlog.mirror(self.whole, path, self.name(topic), **options)
