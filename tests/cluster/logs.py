"""Logs on a cluster, as tests open them."""

from pqlog.log import Log
from pqlog.store.kafka.address import Address
from pqlog.store.kafka.promise import Durability
from pqlog.store.kafka.store import KafkaStore
from pqlog.stream import TopicStream


def opened(url: str, topic: str = "main") -> Log:
    """A log that is written to; three copies are enough for what is not about power cuts."""
    store = KafkaStore(Address.parse(url, None), durability=Durability.REPLICATED)
    return Log(store.name, TopicStream.open(store, topic))
