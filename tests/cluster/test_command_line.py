"""The command line on addresses of clusters, each command as a process of its own."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from msgspec.structs import replace

import pqlog
from pqlog.cli.commands import EXAMPLES
from pqlog.store.kafka.topic import KafkaTopic
from tests.cli.conftest import ENVIRONMENT
from tests.cluster.foreign import Foreign
from tests.processes import wait_until

DEVELOPMENT = "--durability=development"


@pytest.fixture
def run(tmp_path):
    """Run the command in a folder; what it says, on standard error if it fails."""

    def run(*arguments, code=0):
        done = subprocess.run(
            [sys.executable, "-m", "pqlog", *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=120,
            env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1"},
        )
        assert done.returncode == code, f"{done.returncode}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stderr if code else done.stdout

    return run


@pytest.fixture
def foreign(cluster_url):
    return Foreign(cluster_url)


def test_a_log_is_made_read_and_kept_in_order(run, cluster_url):
    said = run("put", cluster_url, '{"n": 1}', '{"n": 2}', '{"n": 3}', DEVELOPMENT)
    assert said.startswith("3 messages, offsets 0 to ")
    assert run("get", cluster_url, "--client", "billing", "-n", 2, DEVELOPMENT) == '{"n":1}\n{"n":2}\n'
    (client,) = json.loads(run("clients", cluster_url, "--json"))
    assert (client["topic"], client["client"], client["lag"], client["open"]) == ("main", "billing", 1, 0)
    assert "billing" in run("clients", cluster_url, "--partitions")
    assert "did you mean 'billing'" in run("claims", cluster_url, "biling", code=1)
    assert "2 messages will be redelivered" in run("seek", cluster_url, "billing", "start", DEVELOPMENT)
    found = json.loads(run("stats", cluster_url, "--json"))
    assert found["cluster"] == cluster_url
    assert found["topics"][0]["clients"] == 1
    assert found["topics"][0]["largest_lag"] == 3
    assert "have not acknowledged" in run("trim", cluster_url, 200_000, DEVELOPMENT, code=1)
    assert run("trim", cluster_url, 200_000, "--force", DEVELOPMENT) == "2 messages dropped, 1 kept\n"
    assert "deleted" in run("delete-client", cluster_url, "billing", DEVELOPMENT)
    assert run("clients", cluster_url) == "no clients\n"


def test_topics_are_made_renamed_and_deleted(run, cluster_url):
    assert "has 3 partitions" in run("create-topic", cluster_url, "jobs", "--partitions", 3, DEVELOPMENT)
    assert "is the only topic: create another" in run("delete-topic", cluster_url, "jobs", DEVELOPMENT, code=1)
    run("put", cluster_url, "1", DEVELOPMENT)
    run("rename-topic", cluster_url, "jobs", "work", DEVELOPMENT)
    found = json.loads(run("topics", cluster_url, "--json"))
    assert [(one["topic"], one["partitions"]) for one in found] == [("work", 3), ("main", 1)]
    assert [one["messages"] for one in json.loads(run("topics", cluster_url, "--count", "--json"))] == [0, 1]
    assert "int64" in run("schema", cluster_url)
    run("delete-topic", cluster_url, "work", DEVELOPMENT)
    assert "work" not in run("topics", cluster_url)


def test_what_is_not_there_is_said_and_nothing_is_made(run, cluster_url, foreign, tmp_path):
    before = foreign.state()
    for command in (["topics"], ["clients"], ["stats"]):
        assert "there is no log" in run(command[0], cluster_url, code=1)
    assert "there is no log" in run("seek", cluster_url, "billing", "start", code=1)
    assert "there is no log" in run("get", cluster_url, "--client", "billing", code=1)
    assert "there is no log" in run("rename-topic", cluster_url, "a", "b", code=1)
    assert "name a log on it" in run("put", foreign.whole, "1", code=1)
    for command in (["compact", cluster_url], ["verify", cluster_url], ["salvage", cluster_url, "new.db"]):
        assert "needs a log in a file" in run(*command, code=1)
    assert foreign.state() == before
    run("put", cluster_url, "1", DEVELOPMENT)
    before = foreign.state()
    for command in (["seek", cluster_url, "billing", "start"], ["trim", cluster_url, "1"]):
        assert "no topic 'mian'" in run(*command, "--topic", "mian", code=1)
    assert foreign.state() == before


def test_an_address_that_is_wrong_is_explained(run, tmp_path):
    assert "unknown host" in run("topics", "kafka://no.such.host.invalid:9092", code=1)
    assert "no answer from the cluster" in run("topics", "kafka://127.0.0.1:1", code=1)
    assert "port" in run("topics", "kafka://127.0.0.1:99999", code=1)


def test_options_for_a_cluster(run, cluster_url, tmp_path):
    assert "cannot be read" in run("topics", cluster_url, "--config", "missing.properties", code=1)
    (tmp_path / "client.properties").write_text("client.id=till-3\n")
    run("put", cluster_url, "1", "--config", "client.properties", DEVELOPMENT)
    assert "records" in run("topics", cluster_url, "--config", "client.properties")
    (tmp_path / "wrong.properties").write_text(
        "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.username=till\nsasl.password=secret\n"
    )
    said = run("clients", cluster_url, "--config", "wrong.properties", code=1)
    assert "SASL" in said
    assert "secret" not in said
    assert "durability is one of" in run("put", cluster_url, "1", "--durability", "much", code=1)
    run("put", "events.db", "1")
    assert "--config is for a cluster" in run("topics", "events.db", "--config", "client.properties", code=1)
    assert "--durability is for a cluster" in run("put", "events.db", "1", DEVELOPMENT, code=1)


@pytest.mark.parametrize("example", [one for some in EXAMPLES.values() for one in some if "kafka://" in one])
def test_the_examples_of_the_help_run(example, foreign, tmp_path):
    with pqlog.open(tmp_path / "events.db") as log:
        log.put({"n": 1})
    foreign.make("web")
    foreign.put("web", [b'{"n": 1}'])
    command = example.replace("kafka://localhost:9092", foreign.whole).replace("/etl", f"/{foreign.log}")
    command = command.replace("web.*", f"{foreign.log}.w*")
    with subprocess.Popen(
        ["bash", "-c", f"exec {command}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        env=ENVIRONMENT,
    ) as process:
        if "--follow" in example:
            wait_until(lambda: foreign.plain("main"))
            process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=120)
    assert process.returncode in ((130, 0) if "--follow" in example else (0,)), said
    assert "1 message" in said or "--follow" in example


def test_topics_of_others(run, foreign):
    for number in range(20):
        foreign.make(f"t{number}", 2)
        foreign.put(f"t{number}", [b'{"n":1}'] * number)
    began = time.monotonic()
    found = json.loads(run("topics", foreign.whole, "--json"))
    assert time.monotonic() - began < 20  # mostly the start of the process; counting them one by one took longer
    records = {one["topic"]: one["records"] for one in found}
    assert {f"t{number}": records.get(foreign.name(f"t{number}")) for number in range(20)} == {
        f"t{number}": number for number in range(20)
    }
    assert json.loads(run("stats", foreign.whole, "--json"))["records"] >= sum(range(20))
    assert run("clients", foreign.whole) == "no clients\n"
    said = run("claims", foreign.whole, "me", "--topic", foreign.name("t3"), code=1)
    assert "`pqlog tail`" in said
    assert "log.client" not in said
    assert "there is no log" in run("seek", foreign.whole, "me", "start", "--topic", foreign.name("t3"), code=1)


def test_views_of_topics_count_nothing_by_reading(foreign, monkeypatch):
    foreign.make("orders", 2)
    for number in range(2):
        foreign.put("orders", [b'{"n":1}'] * 30_000, number)
    with foreign.open("orders") as log:
        read = []
        monkeypatch.setattr("pqlog.store.kafka.partition.COUNTED", 1_000)
        learn = KafkaTopic._learn
        monkeypatch.setattr(
            "pqlog.store.kafka.partition.KafkaPartition._learn",
            lambda self, first, stop, size: read.append(min(stop - first, size)) or learn(self, first, stop, size),
        )
        assert "60,000 messages" in log.topic(foreign.name("orders"))._repr_html_()
        assert "about 60,000 records" in log._repr_html_()
        explorer = log.explore()
        assert "60,000 messages" in explorer._where.value
        assert sum(read) < 30_000


# what reads only sees the same


def test_a_reader_sees_clients_claims_and_trims_and_writes_nothing(foreign):
    with pqlog.open(foreign.url, durability="development") as log:
        log.put_many(pd.DataFrame({"n": range(1000)}))
        batch = log.client("etl").next_batch(size=10)
        log.client("billing").seek("end")
        expected = list(log.clients())
        with pqlog.open(foreign.url, readonly=True) as reader:
            before = foreign.state()
            assert list(reader.clients()) == expected
            assert reader.client("etl").lag == 1000
            (claim,) = reader.client("etl").claims()
            assert (claim.number, claim.attempt) == (1, 1)
            assert claim.owner
            with pytest.raises(pqlog.ReadOnlyError):
                reader.client("etl").seek("end")
            with pytest.raises(pqlog.UnknownClientError):
                reader.client("elt").lag
            assert foreign.state() == before
            batch.ack()
            assert reader.client("etl").claims() == []
            log.trim(before=-400, force=True)
            assert len(reader) == len(list(reader)) == 400
            assert reader.first == log.first
            log.topic("other")
            log.rename_topic("main", "renamed")
            assert reader.topics() == ["renamed", "other"]


def test_a_mirror_has_nothing_that_was_trimmed(cluster_url, tmp_path):
    with pqlog.open(cluster_url, durability="development") as log:
        log.put_many(pd.DataFrame({"n": range(1000)}))
        log.trim(before=-400)
    assert pqlog.mirror(cluster_url, tmp_path / "copy.db").messages == 400
    with pqlog.open(tmp_path / "copy.db") as copy:
        assert next(iter(copy)).value == {"n": 600}


# topics that are made again


def test_a_topic_that_was_made_again_is_another_one(foreign):
    foreign.make("orders")
    with foreign.open("orders") as log:
        before = log.store.info.id
        assert log.topic(foreign.name("orders")).store.info.id == before
    foreign.delete("orders")
    time.sleep(1)
    foreign.make("orders")
    with foreign.open("orders") as log:
        assert log.store.info.id != before


def test_a_put_finds_the_partitions_of_a_topic_that_was_made_again(foreign):
    with pqlog.open(foreign.url, durability="development") as log:
        log.put(1)
        foreign.delete("main")
        time.sleep(1)
        foreign.make("main", 4)
        store = log.store.log
        known = replace(store.catalogue.look().named("main"), partitions=4)
        assert [KafkaTopic(store, known, number).append_one(b"1", None, None) for number in range(4)] == [0] * 4


class RunsCode:
    """What anybody can put into a topic: a pickle that writes a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_of_others_is_read_only_if_it_is_trusted(run, foreign, tmp_path):
    foreign.make("pickled")
    foreign.put("pickled", [pickle.dumps(RunsCode(tmp_path / "ran"))])
    for command in (
        ["get", foreign.whole],
        ["tail", foreign.whole],
        ["export", foreign.whole, "x.ndjson"],
        ["schema", foreign.whole],
        ["explore", foreign.whole],
        ["mirror", foreign.whole, "local.db"],
    ):
        for topic in (
            ([], ["--topic", foreign.name("pickled")])
            if command[0] == "explore"
            else (["--topic", foreign.name("pickled")],)
        ):
            assert "--trust-pickle" in run(*command, *topic, "--codec", "pickle", code=1)
    assert "no codec 'nothing'" in run(
        "get", foreign.whole, "--topic", foreign.name("pickled"), "--codec", "nothing", code=1
    )
    assert not list(tmp_path.iterdir())
    run("get", foreign.whole, "--topic", foreign.name("pickled"), "--trust-pickle")
    assert (tmp_path / "ran").exists()


def test_trust_pickle_reads_topics_with_other_codecs_too(run, cluster_url):
    run("put", cluster_url, "1", DEVELOPMENT)
    assert run("get", cluster_url, "--trust-pickle") == "1\n"
