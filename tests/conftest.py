"""What all tests share: a log in a fresh file, and hypothesis with a fixed seed."""

import hypothesis
import pytest

import pqlog

hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, max_examples=100)
hypothesis.settings.load_profile("ci")


@pytest.fixture
def path(tmp_path):
    """A path where nothing is."""
    return tmp_path / "events.db"


@pytest.fixture
def log(path):
    """An open log in a fresh file."""
    with pqlog.open(path) as log:
        yield log
