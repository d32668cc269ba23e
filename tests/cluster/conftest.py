"""Logs as several processes have them, and faults that are planted into the engine."""

import contextlib

import pytest

from pqlog.store.kafka.address import Address
from pqlog.store.kafka.client import KafkaClient
from pqlog.store.kafka.cluster import Cluster
from pqlog.store.kafka.promise import Durability
from pqlog.store.kafka.store import KafkaStore


@pytest.fixture
def planted(monkeypatch):
    """Plants a fault, until the end of the test."""
    for owner, name in ((Cluster, "consumer"), (Cluster, "producer"), (KafkaClient, "_advance")):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    return lambda plant: plant()


@pytest.fixture
def stores(cluster_url):
    """Opens stores of one log, each like a process of its own."""
    with contextlib.ExitStack() as stack:

        def one(timeout_s=60.0):
            store = KafkaStore(Address.parse(cluster_url), timeout_s, Durability.REPLICATED)
            stack.callback(store.close)
            return store

        yield one
