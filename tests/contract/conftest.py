"""The engine that a test is run over, and a topic on it."""

import pytest

from pqlog.store.values import Output, Segment
from tests.contract.engines import COUNT, ENGINES, singles


@pytest.fixture(params=ENGINES, ids=lambda make: make.__name__)
def engine(request, tmp_path):
    engine = request.param(tmp_path)
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
