"""Clusters that are not opened: promptly, and without a word of a secret."""

import time

import pytest

from pqlog.errors import Error
from pqlog.store.kafka.address import Address
from pqlog.store.kafka.cluster import Cluster

SCRAM_PASSWORD, PLAIN_PASSWORD, BOBS_PASSWORD, WRONG_PASSWORD = "scr4m-word", "pl41n-word", "b0bs-word", "wr0ng-word"
SECRETS = (SCRAM_PASSWORD, PLAIN_PASSWORD, BOBS_PASSWORD, WRONG_PASSWORD)
PROMPTLY_S = 10.5


def topics(url, config=None):
    cluster = Cluster(Address.parse(url, config), timeout_s=20)
    try:
        return cluster.topics()
    finally:
        cluster.close()


def refused(url, config=None, kind=Error):
    """The error that a cluster is not opened with, which comes promptly."""
    start = time.monotonic()
    with pytest.raises(kind) as caught:
        topics(url, config)
    assert time.monotonic() - start < PROMPTLY_S
    error = caught.value
    while error is not None:
        assert not any(secret in f"{error!r} {error}" for secret in SECRETS)
        error = error.__cause__ or error.__context__
    return str(caught.value)
