"""Faults that are planted into the engine."""

import pytest

from pqlog.store.kafka.client import KafkaClient
from pqlog.store.kafka.cluster import Cluster


@pytest.fixture
def planted(monkeypatch):
    """Plants a fault, until the end of the test."""
    for owner, name in ((Cluster, "consumer"), (Cluster, "producer"), (KafkaClient, "_advance")):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    return lambda plant: plant()
