"""Ship and mirror over a real cluster: there and back, killed, two at once, and while it is away."""

import itertools
import json
import subprocess
import sys
import threading
import time

import confluent_kafka.admin
import pandas as pd
import pytest

import pqlog
from pqlog import copier
from tests.docs import pages
from tests.processes import start, wait_until
from tests.promises.killed_copies import prove
from tests.promises.test_ship import Following, compare, fill


@pytest.fixture
def log(tmp_path):
    with pqlog.open(tmp_path / "events.db") as log:
        yield log


def test_what_was_shipped_and_mirrored_is_what_was_put(log, cluster_url, tmp_path):
    fill(log)
    assert log.ship(cluster_url).topics == {"main": 1710, "objects": 3, "orders": 300, "raw": 3}
    assert log.ship(cluster_url) == pqlog.Copied()
    with pqlog.open(cluster_url) as hub:
        compare(log, hub)
    assert pqlog.mirror(cluster_url, tmp_path / "back.db").messages == 2016
    with pqlog.open(tmp_path / "back.db") as back:
        compare(log, back)
    log.put("more", headers={"a": "b"})
    assert log.ship(cluster_url).messages == 1
    assert pqlog.mirror(cluster_url, tmp_path / "back.db").messages == 1
    with pqlog.open(tmp_path / "back.db") as back:
        compare(log, back)
        assert back[-1].headers["a"] == "b"


def test_two_at_once_ship_each_message_once(log, cluster_url, tmp_path, monkeypatch):
    monkeypatch.setattr(copier, "ROWS", 200)
    log.put_many(range(3_000))
    with pqlog.open(cluster_url):  # it is made before anybody ships
        pass
    counts = []
    threads = [threading.Thread(target=lambda: counts.append(log.ship(cluster_url).messages)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 3_000
    pqlog.mirror(cluster_url, tmp_path / "back.db")
    with pqlog.open(tmp_path / "back.db") as back:
        compare(log, back)


def test_copies_that_are_killed_are_exact(cluster_url, tmp_path):
    outcome = prove(tmp_path, messages=10_000, kills=4, to=cluster_url, rows=250)
    assert outcome.is_exact, outcome
    assert outcome.kills > 0


def test_topics_of_other_programs_are_mirrored_by_pattern_time_and_key(cluster, cluster_url, tmp_path):
    prefix = cluster_url.rpartition("/")[2]
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": cluster.bootstrap})
    new = [confluent_kafka.admin.NewTopic(f"{prefix}.{name}", 2) for name in ("web.a", "till")]
    for made in admin.create_topics(new).values():
        made.result(30)
    producer = confluent_kafka.Producer({"bootstrap.servers": cluster.bootstrap})
    for n in range(300):
        value = json.dumps({"n": n}, indent=1).encode()
        producer.produce(f"{prefix}.web.a", value, f"k{n % 3}".encode(), n % 2, headers=[("h", b"\xff")])
        producer.produce(f"{prefix}.till", b"\xff", None)
    assert producer.flush(30) == 0
    at, path = f"kafka://{cluster.bootstrap}", tmp_path / "web.db"
    assert pqlog.mirror(at, path, f"{prefix}.web.*").messages == 300
    assert pqlog.mirror(at, path, f"{prefix}.web.*").messages == 0
    with pqlog.open(path, f"{prefix}.web.a") as local:
        assert sorted(message.value["n"] for message in local) == list(range(300))
        first = next(iter(local.partition(1)))
        assert (first.headers["h"], first.headers["pqlog-offset"]) == ("\\xff", "0")
        assert {message.headers["pqlog-partition"] for message in local} == {"0", "1"}
        assert f"{prefix}.till" not in local.topics()
    assert pqlog.mirror(at, tmp_path / "key.db", f"{prefix}.web.a", key="k1").messages == 100
    assert pqlog.mirror(at, tmp_path / "new.db", f"{prefix}.web.a", since="1h").messages == 300
    time.sleep(0.01)
    assert pqlog.mirror(at, tmp_path / "none.db", f"{prefix}.web.a", since="0s").messages == 0
    producer.produce(f"{prefix}.web.a", b'{"n": 300}', b"k1")
    assert producer.flush(30) == 0
    assert [pqlog.mirror(at, tmp_path / name, f"{prefix}.web.a").messages for name in ("web.db", "none.db")] == [1, 1]
    assert pqlog.mirror(at, tmp_path / "key.db", f"{prefix}.web.a", key="k1").messages == 1


def test_values_that_are_not_what_they_were_said_to_be_are_refused(cluster, cluster_url, tmp_path):
    name = f"{cluster_url.rpartition('/')[2]}.raw"
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": cluster.bootstrap})
    admin.create_topics([confluent_kafka.admin.NewTopic(name, 1)])[name].result(30)
    producer = confluent_kafka.Producer({"bootstrap.servers": cluster.bootstrap})
    for value in (b"1", b"2", b"\xff", b"4"):
        producer.produce(name, value)
    assert producer.flush(30) == 0
    at = f"kafka://{cluster.bootstrap}"
    for _ in range(2):
        with pytest.raises(pqlog.ArgumentError, match=r"message 200000 of topic .* is not json"):
            pqlog.mirror(at, tmp_path / "json.db", name)
    with pqlog.open(tmp_path / "json.db", name) as local:
        assert [message.value for message in local] == [1, 2]
    with pytest.raises(pqlog.CodecMismatchError, match="copy into another log"):
        pqlog.mirror(at, tmp_path / "json.db", name, codec="bytes")
    assert pqlog.mirror(at, tmp_path / "bytes.db", name, codec="bytes").messages == 4
    with pqlog.open(tmp_path / "bytes.db", name) as local:
        assert [message.value for message in local] == [b"1", b"2", b"\xff", b"4"]
    with pytest.raises(pqlog.ArgumentError, match="codec must be"):
        pqlog.mirror(at, tmp_path / "bytes.db", name, codec="pickle")


def test_a_follower_ships_what_comes(log, cluster_url):
    log.put_many([1, 2])
    following = Following(lambda report: log.ship(cluster_url, follow=True, progress=report))
    wait_until(lambda: following.has(2))
    log.put(3)
    log.topic("new", partitions=1).put(4)
    wait_until(lambda: following.has(4))
    following.stop()
    with pqlog.open(cluster_url) as hub:
        assert [message.value for message in hub] == [1, 2, 3]
        assert [message.value for message in hub.topic("new")] == [4]


def test_a_follower_outlives_the_whole_cluster(own_cluster, log):
    url = own_cluster.url("outlives")
    log.put(1)
    following = Following(lambda report: log.ship(url, follow=True, timeout=5, progress=report))
    wait_until(lambda: following.has(1))
    own_cluster.kill()
    log.put_many([2, 3])
    wait_until(lambda: following.reports[-1].error is not None)
    assert following.reports[-1].lag == 2
    own_cluster.heal()
    wait_until(lambda: following.has(3))
    following.stop()
    with pqlog.open(url) as hub:
        assert [message.value for message in hub] == [1, 2, 3]


FOLLOW = """
import sys
from pqlog.cli import app, commands
sys.argv[1:] = ["ship", sys.argv[1], sys.argv[2], "--follow"]
app.app(prog_name="pqlog")
"""


def test_a_cluster_that_is_away_is_waited_for(log, tmp_path):
    """Nobody listens at this port."""
    log.put(1)
    with start(FOLLOW, tmp_path / "events.db", "kafka://127.0.0.1:9/x", stderr=-1) as process:
        line = process.stderr.readline()
        assert "trying again every 1 to 60 s" in line, line
        assert process.poll() is None
        process.terminate()
        rest = process.communicate(timeout=30)
        assert "0 messages shipped" in rest[1]
        assert process.returncode == 0


def test_a_message_that_the_cluster_does_not_take_is_named(log, cluster_url):
    log.put("a")
    log.topic("raw", codec="bytes").put_many([b"1", bytes(70 << 20), b"2"])
    with pytest.raises(pqlog.TooLargeError, match="message 2 of topic 'raw' has 73,400,320 bytes"):
        log.ship(cluster_url)
    with pqlog.open(cluster_url) as hub:
        assert [message.value for message in hub] == ["a"]
        assert [message.value for message in hub.topic("raw", codec="bytes")] == [b"1"]


OURS = {
    "pqlog-rows": "5",
    "pqlog-key": "n",
    "pqlog-own-rows": "6",
    "pqlog-own-own-key": "7",
    "pqlog-bytes": "3",
    "pqlog-time": "x",
    "": "8",
}


def test_headers_with_names_that_pqlog_uses_itself_are_kept(log, cluster_url, tmp_path):
    log.put({"n": 1}, headers=OURS)
    log.put_many(pd.DataFrame({"n": [2, 3]}), headers=OURS)
    log.topic("raw", codec="bytes").put(b"x", headers=OURS)
    assert log.ship(cluster_url).messages == 4
    with pqlog.open(cluster_url) as hub:
        hub.put({"n": 4}, headers=OURS)
    pqlog.mirror(cluster_url, tmp_path / "back.db")
    with pqlog.open(cluster_url) as hub, pqlog.open(tmp_path / "back.db") as back:
        for one in (hub, back):
            assert [message.value for message in one] == [{"n": n} for n in (1, 2, 3, 4)]
            for message in [*one, *one.topic("raw", codec="bytes")]:
                assert {name: message.headers.get(name) for name in OURS} == OURS


def test_a_log_is_moved_with_its_clients_as_the_page_shows(tmp_path, cluster_url):
    """A stage continues with what it had not read, and puts nothing twice."""
    (tmp_path / "move.py").write_text(pages.file("beyond-one-machine.md", "move.py"))
    with pqlog.open(tmp_path / "events.db") as log:
        orders, clean = log.topic("orders", partitions=3), log.topic("clean", partitions=2)
        for n in range(0, 3000, 300):
            orders.put_many([{"key": f"k{i % 7}", "n": i} for i in range(n, n + 100)], key="key")
            rows = range(n + 100, n + 300)
            orders.put_many(pd.DataFrame({"key": [f"k{i % 7}" for i in rows], "n": rows}), key="key")
            log.put_many([{"n": i} for i in range(n, n + 300)], cursor=("orders-api", n + 300, n or None))
        for batch in itertools.islice(orders.batches("clean", size=130), 9):
            batch.put_many(batch.to_pandas(metadata=False), topic="clean", key="key")
            for message in itertools.islice(batch.messages(), 2):
                batch.reject(message, "no")
        for topic, client, messages in ((clean, "few", 77), (log, "some", 1234), (log, "all", 3000)):
            list(itertools.islice(topic.client(client).get(), messages + (messages < 3000)))
        list(itertools.islice(log.topic("orders.rejected").client("look").get(), 6))
        log.client("none").seek("start")
        log.trim(before=100, force=True)
        for _ in range(2):
            done = subprocess.run([sys.executable, "move.py", log.path, cluster_url], cwd=tmp_path, capture_output=True)
            assert done.returncode == 0, done.stderr.decode()
        with pqlog.open(cluster_url) as there:
            assert there.cursor("orders-api") == 3000
            for name in log.topics():
                for client in log.topic(name).clients():
                    before, after = (one.topic(name).client(client.client).unread() for one in (log, there))
                    wanted, found = ([(m.partition, m.value) for m in one] for one in (before, after))
                    assert sorted(found, key=str) == sorted(wanted, key=str), (name, client)
            for batch in there.topic("orders").batches("clean"):
                batch.put_many(batch.to_pandas(metadata=False), topic="clean", key="key")
            assert sorted(there.topic("clean").to_pandas()["n"]) == list(range(3000))
