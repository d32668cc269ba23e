"""The engine that a test is run over, and a topic on it."""

import pytest

from tests.contract.engines import ENGINES, one_partition


@pytest.fixture(params=ENGINES, ids=lambda make: make.__name__)
def engine(request, tmp_path):
    engine = request.param(tmp_path)
    yield engine
    engine.close()


@pytest.fixture
def topic(engine):
    return one_partition(engine, "main")
