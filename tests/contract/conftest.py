"""The engine that a test is run over, and a topic on it.

``make`` creates an engine, ``other_engine`` one whose logs are compared with those of SQLite, ``shared`` one whose log
two stores can have open. With ``--cluster``, all of them are on Kafka.
"""

import os

import pytest

from pqlog.store.values import Output, Segment
from tests.contract import engines
from tests.contract.engines import COUNT, singles

MAKERS = {"make": engines.ENGINES, "other_engine": engines.OTHER_ENGINES, "shared": engines.SHARED}


def pytest_generate_tests(metafunc):
    own = {mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")}
    for name, makers in MAKERS.items():
        if name in metafunc.fixturenames and name not in own:
            chosen = engines.CLUSTER if metafunc.config.option.cluster else makers
            metafunc.parametrize(name, chosen, ids=lambda make: make.__name__)


@pytest.fixture(autouse=True, scope="session")
def _running_cluster(request):
    """The cluster, for stores in this process and in others; nothing is left on it."""
    if not request.config.option.cluster:
        yield
        return
    os.environ["PQLOG_CLUSTER"] = request.getfixturevalue("cluster").bootstrap
    yield
    from tests.contract import cluster_logs

    cluster_logs.clean_all()


@pytest.fixture(autouse=True)
def _few_logs(request):
    yield
    if request.config.option.cluster:
        from tests.contract import cluster_logs

        cluster_logs.clean()


@pytest.fixture
def engine(make, tmp_path):
    engine = make(tmp_path)
    yield engine
    engine.close()


@pytest.fixture(params=[pytest.param(1, id="alone"), pytest.param(3, id="among_three", marks=pytest.mark.slow)])
def topic(engine, request):
    """A partition: the only one of its topic, or one between two others, which have messages too."""
    partitions = engine.topic("main", "json", request.param)
    middle = request.param // 2
    for one in partitions:
        if one.info.partition != middle:
            engine.append([Output(one, [singles(b"other", key="a"), Segment(b"other", 3, "a")])])
    return partitions[middle]


@pytest.fixture
def partitions(engine):
    """A topic of several partitions."""
    return engine.topic("main", "json", COUNT)
