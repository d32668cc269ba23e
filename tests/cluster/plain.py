"""Kafka without pqlog: what other programs do with topics."""

import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic


def put(bootstrap, topic, value):
    failed = []
    # A node that is paused never answers: it is given up after this time, which is a minute by default.
    patience = {"socket.timeout.ms": 10_000, "acks": "all"}
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0, **patience})
    producer.produce(topic, value, on_delivery=lambda error, message: failed.append(error))
    assert producer.flush(120) == 0
    assert failed == [None]


def when_led(call):
    """Repeat a call until there is a leader that has caught up."""
    until = time.monotonic() + 60
    while True:
        try:
            return call()
        except KafkaException:  # also those that are only told for a while say that they are final
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def values(bootstrap, topic):
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "none", "log_level": 0})
    try:
        partition = TopicPartition(topic, 0, 0)
        end = when_led(lambda: consumer.get_watermark_offsets(partition, timeout=30)[1])
        consumer.assign([partition])
        return [consumer.poll(30).value() for _ in range(end)]
    finally:
        consumer.close()


def make(bootstrap, topic, settings=None):
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    admin.create_topics([NewTopic(topic, 1, 3, config=settings or {})])[topic].result(30)
