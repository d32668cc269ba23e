"""Faults that are planted into the engine are noticed by the tests of what they break."""

import signal

import pytest

from tests.cluster.stories import story
from tests.cluster.test_zombies import zombie_and_successor

pytestmark = pytest.mark.timeout(300)


def test_a_position_that_is_committed_outside_the_transaction(cluster_url, tmp_path):
    with (
        pytest.raises(AssertionError, match="not handled once"),
        story(tmp_path, cluster_url, "put put read") as telling,
    ):
        stage = telling.start("stage", "position_apart")
        assert stage.process.wait(60) == -signal.SIGKILL


def test_a_lane_that_is_not_fenced(cluster_url, tmp_path):
    with pytest.raises(AssertionError, match="committed"), story(tmp_path, cluster_url, "put put read") as telling:
        zombie = zombie_and_successor(telling, "before", "lanes_not_fenced")
        assert [kind for kind, *_ in zombie.lines()[1:]] == ["refused"]
