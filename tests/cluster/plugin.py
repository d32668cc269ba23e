"""``pytest --cluster``: tests on a real Kafka cluster, and the fixtures that give them one.

Without the option nothing that needs confluent-kafka is collected. With it, what is missing is a failure.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import keeper
from tests.cluster.brokers import KafkaCluster

ROOT = Path(__file__).parents[2]
NEED_KAFKA = tuple(ROOT / path for path in ("tests/cluster", "tests/contract/cluster_logs.py", "pqlog/store/kafka"))
"""What is collected with ``--cluster`` only, for tests or for doctests: it imports confluent-kafka."""

RUNNING = "PQLOG_CLUSTER"
"""The environment variable with the bootstrap servers of a cluster that runs already."""
OWN = ("test_benchmarks", "test_faults", "test_rig", "test_security", "test_ship", "test_syncs")
"""The modules with clusters of their own. One worker runs all of them, since they would only wait for each other."""

_KEEPER = pytest.StashKey[keeper.Keeper]()


@dataclass(frozen=True)
class Cluster:
    """A cluster that tests share: nobody stops its nodes, and each test has logs of its own."""

    bootstrap: str

    def url(self, log: str) -> str:
        """The address of a log on it."""
        return f"kafka://{self.bootstrap}/{log}"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cluster", action="store_true", help="also the tests on a Kafka cluster, which are started here")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if collection_path in NEED_KAFKA and not config.option.cluster else None


# The cluster that all workers share is kept by the process that starts them, and started by the first that asks for it.


def pytest_sessionstart(session: pytest.Session) -> None:
    config = session.config
    if config.option.cluster and RUNNING not in os.environ and not hasattr(config, "workerinput"):
        config.stash[_KEEPER] = keeper.Keeper()


class _Workers:
    """The hooks of pytest-xdist."""

    @staticmethod
    def pytest_configure_node(node: Any) -> None:
        if _KEEPER in node.config.stash:
            node.workerinput["cluster"] = node.config.stash[_KEEPER].socket

    @staticmethod
    def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
        """In place of the groups of pytest-xdist 3.8, which do nothing with pytest 9.2."""
        from xdist.scheduler import LoadScopeScheduling

        class OwnClustersTogether(LoadScopeScheduling):  # type: ignore[misc]
            def _split_scope(self, nodeid: str) -> str:
                return "own" if Path(nodeid.partition("::")[0]).stem in OWN else nodeid

        return OwnClustersTogether(config, log) if config.option.cluster else None


def pytest_configure(config: pytest.Config) -> None:
    if config.pluginmanager.has_plugin("xdist"):
        config.pluginmanager.register(_Workers())


def pytest_unconfigure(config: pytest.Config) -> None:
    if kept := config.stash.get(_KEEPER, None):
        kept.close()


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> Cluster:
    """A cluster of three nodes, the same for all tests."""
    if bootstrap := os.environ.get(RUNNING):
        return Cluster(bootstrap)
    if not pytestconfig.option.cluster:
        pytest.fail("a test on a cluster needs pytest --cluster")
    workerinput = getattr(pytestconfig, "workerinput", None)
    return Cluster(keeper.ask(workerinput["cluster"] if workerinput else pytestconfig.stash[_KEEPER].socket))


@pytest.fixture
def cluster_url(cluster: Cluster) -> Iterator[str]:
    """The address of a log that does not exist yet, on the shared cluster; its topics are deleted after the test."""
    log = f"t{uuid.uuid4().hex[:12]}"
    yield cluster.url(log)
    delete_topics(cluster.bootstrap, f"{log}.")


def delete_topics(bootstrap: str, prefix: str) -> None:
    """Delete all topics whose name begins like this; a cluster gets slow with thousands of partitions."""
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    names = [name for name in admin.list_topics(timeout=30).topics if name.startswith(prefix)]
    for deleted in admin.delete_topics(names).values() if names else ():
        deleted.result(30)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One at a time, of all processes of this machine's user: a cluster more is all that it can carry."""
    with open(Path(tempfile.gettempdir(), f"pqlog-own-cluster-{os.getuid()}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="module")
def _own_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    with alone(), KafkaCluster(tmp_path_factory.mktemp("kafka")) as own:
        yield own


@pytest.fixture
def own_cluster(_own_cluster: KafkaCluster) -> KafkaCluster:
    """A cluster for the tests of one module, whose nodes they may kill; all nodes run when a test begins."""
    _own_cluster.heal()
    return _own_cluster
