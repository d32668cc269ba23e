"""A mirror that begins before its log exists: nothing is there twice, whatever the name stood for meanwhile."""

import pytest

import pqlog
from pqlog import copies, copying
from tests.cluster.foreign import Foreign
from tests.cluster.logs import opened
from tests.processes import wait_until
from tests.promises.test_ship import Following


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(copies, "LOOK_S", 0.2)
    monkeypatch.setattr(copying, "FIRST_WAIT_S", 0.2)
    monkeypatch.setattr(copying, "LONGEST_WAIT_S", 0.4)


def test_a_follower_that_was_there_before_the_log_copies_once(cluster_url, tmp_path):
    foreign, path = Foreign(cluster_url), tmp_path / "copy.db"
    foreign.make("orders")
    foreign.put("orders", [b"1"])
    with pytest.raises(pqlog.StoreError, match="there is no log"):
        pqlog.mirror(cluster_url, path)
    following = Following(lambda report: pqlog.mirror(cluster_url, path, follow=True, progress=report))
    wait_until(lambda: following.reports)
    assert "there is no log" in str(following.reports[0].error)
    with opened(cluster_url) as log:
        log.put_many(range(100))
        log.topic("raw", codec="bytes").put(b"\xff")
        wait_until(lambda: following.has(101))
        following.stop()
        log.put(100)
    assert pqlog.mirror(cluster_url, path).topics == {"main": 1}
    with pqlog.open(path, readonly=True) as copy:
        assert [message.value for message in copy] == list(range(101))
        assert sorted(copy.topics()) == ["main", "raw"]
        assert [message.value for message in copy.topic("raw", codec="bytes")] == [b"\xff"]
