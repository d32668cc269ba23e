"""Each command on a topic of several partitions."""

import json
import subprocess
import sys

import pandas as pd
import pytest

import pqlog
from pqlog.cli.app import in_the_shell
from pqlog.errors import DamagedError, DecodeError, PartitionsError
from pqlog.partitioning import partition_of
from tests.cli.test_commands import PYTHON, ndjson
from tests.processes import Process, wait_until

CITIES = ["Brno", "Praha", "Wien", "Graz", "Linz", "Brno", "Praha"]
BRNO = partition_of("Brno", 4)
"""The partition that has at least two of these."""


@pytest.fixture
def orders(folder):
    """In events.db, a topic orders of four partitions with seven messages, put one by one; a client has read three."""
    with pqlog.open(folder / "events.db") as log:
        topic = log.topic("orders", partitions=4)
        for n, city in enumerate(CITIES):
            topic.put({"city": city, "n": n}, key=city)
        for count, _ in enumerate(topic.get("billing"), 1):
            if count == 4:
                break
    with pqlog.open(folder / "events.db", "orders", readonly=True) as log:
        yield log


def where(messages):
    return [(message.partition, message.offset, message.value["n"]) for message in messages]


def in_json(lines):
    return [(message["partition"], message["offset"], message["value"]["n"]) for message in lines]


@pytest.mark.slow
def test_a_topic_is_created_with_partitions(sh, folder):
    assert sh("pqlog create-topic new.db orders --partitions 8") == "topic 'orders' has 8 partitions\n"
    assert sh("pqlog create-topic new.db orders --partitions 8") == "topic 'orders' has 8 partitions\n"
    said = sh("pqlog create-topic new.db orders --partitions 4", code=1)
    assert "was created with 8 partitions, not 4, and that cannot be changed" in said
    assert PYTHON.findall(said) == []
    assert sh("pqlog create-topic new.db plain") == "topic 'plain' has 1 partition\n"
    assert "256" in sh("pqlog create-topic new.db many --partitions 257", code=2)
    with pqlog.open(folder / "new.db", "orders", readonly=True) as log:
        assert (log.topics(), log.partitions) == (["orders", "plain"], 8)


@pytest.mark.slow
def test_put_says_in_which_partitions(sh, folder):
    sh("pqlog create-topic new.db orders --partitions 8")
    put = "pqlog put new.db -t orders --key city"
    number = str(partition_of("Brno", 8))
    assert sh(f"""{put} '{{"city": "Brno"}}'""") == f"offset 1 of partition {number} of topic 'orders'\n"
    lines = "".join(json.dumps({"city": city, "order": n}) + "\n" for n, city in enumerate(CITIES))
    said = sh(f"{put} --id first", stdin=lines)
    assert said.startswith("7 messages in ")
    assert said.endswith(" partitions of topic 'orders'\n")
    assert sh(f"{put} --id first", stdin=lines) == said
    found = json.loads(sh(f"{put} --id first --json", stdin=lines))
    assert (found["messages"], found["first"][number]) == (7, 2)
    each = json.loads(sh(f"{put} --each --json --ids order", stdin=lines))
    assert each["messages"] == 7
    assert each["first"][number] == found["last"][number] + 1
    assert each["last"][number] == 2 * found["last"][number] - 1
    assert sh(f"{put} --ids order", stdin=lines) == "no messages with new ids\n"
    assert json.loads(sh(f"{put} --json"))["messages"] == 0


@pytest.mark.slow
def test_get(sh, orders):
    assert ndjson(sh("pqlog get events.db -t orders")) == [message.value for message in orders]
    assert in_json(ndjson(sh("pqlog get events.db -t orders --metadata"))) == where(orders)
    one = orders.partition(BRNO)
    assert in_json(ndjson(sh(f"pqlog get events.db -t orders -m --partition {BRNO} --start 2"))) == where(one[2:])
    assert in_json(ndjson(sh("pqlog get events.db -t orders -m --key Praha"))) == where(orders.history(key="Praha"))
    assert ndjson(sh("pqlog get events.db -t orders --since 1h -n 2 --field n")) == [{"n": 0}, {"n": 1}]
    for asked in ("get events.db -t orders --start 2", "export events.db - -t orders --stop -1"):
        said = sh(f"pqlog {asked}", code=1)
        assert "topic 'orders' has 4 partitions, each with offsets of its own, so an offset needs --partition" in said
        assert PYTHON.findall(said) == []
    said = sh("pqlog get events.db -t orders --partition 4", code=1)
    assert "numbered from 0: there is no partition 4" in said
    assert [one["offset"] for one in ndjson(sh("pqlog get events.db -m --partition 0 --start -2"))] == [5, 6]
    assert "partition" not in sh("pqlog get events.db --metadata")


@pytest.mark.parametrize("how", ["", pytest.param("--batch 2", marks=pytest.mark.slow)])
def test_a_client_gets_what_it_has_not_acknowledged_of_all_partitions(sh, orders, how):
    lag = orders.client("billing").lag
    first = ndjson(sh(f"pqlog get events.db -t orders -m --client billing -n 1 {how}"))
    rest = ndjson(sh(f"pqlog get events.db -t orders -m --client billing {how}"))
    assert (len(first), len(rest)) == (1, lag - 1)
    assert orders.client("billing").lag == 0
    assert len({(message["partition"], message["offset"]) for message in first + rest}) == lag
    assert "no partition" in sh(f"pqlog get events.db -t orders --client billing --partition 1 {how}", code=1)


def test_tail_is_of_the_merged_topic(sh, orders):
    assert in_json(ndjson(sh("pqlog tail events.db -t orders -m -n 3"))) == where(orders)[-3:]
    assert in_json(ndjson(sh("pqlog tail events.db -t orders -m"))) == where(orders)
    assert sh("pqlog tail events.db -t orders -n 0") == ""
    of_one = where(orders.partition(BRNO))[-1:]
    assert in_json(ndjson(sh(f"pqlog tail events.db -t orders -m -n 1 --partition {BRNO}"))) == of_one


@pytest.mark.slow
@pytest.mark.parametrize("only", ["", f"--partition {BRNO}"])
@pytest.mark.parametrize("limit", [0, 2, 10])
def test_tail_follows_the_merged_topic(folder, orders, limit, only):
    command = [sys.executable, "-m", "pqlog", "tail", "-f", "-m", "events.db", "-t", "orders", "-n", str(limit)]
    before = len(orders.partition(BRNO)) if only else len(orders)
    with (folder / "out").open("w") as out, Process([*command, *only.split()], cwd=folder, stdout=out) as process:

        def printed():
            return in_json(ndjson((folder / "out").read_text()))

        if limit:
            wait_until(lambda: len(printed()) == min(limit, before))
        with pqlog.open(folder / "events.db") as log:
            topic = log.topic("orders")
            n = len(CITIES)
            while not printed() if not limit else n == len(CITIES):  # it has no sign of life before the first
                topic.put({"n": n}, key="Brno")
                n += 1
            for m in range(n, n + 50):
                topic.put({"n": m}, key=CITIES[m % 7])
            topic.put_many([{"n": m, "city": CITIES[m % 7]} for m in range(n + 50, n + 100)], key="city")
            expected = where(topic.partition(BRNO) if only else topic)
        wait_until(lambda: printed()[-1:] == expected[-1:])
        process.kill()
    assert printed() == expected[-len(printed()) :]
    assert len(printed()) >= min(limit, before) + (100 if not only else 1)


@pytest.mark.slow
def test_export(sh, folder, orders):
    sh("pqlog export events.db all.ndjson -t orders")
    sh(f"pqlog export events.db one.ndjson -t orders --partition {BRNO} --start 2")
    assert ndjson((folder / "all.ndjson").read_text()) == [message.value for message in orders]
    assert ndjson((folder / "one.ndjson").read_text()) == [message.value for message in orders.partition(BRNO)[2:]]
    sh("pqlog export events.db all.csv -t orders; pqlog export events.db all.parquet -t orders")
    for table in (pd.read_csv(folder / "all.csv"), pd.read_parquet(folder / "all.parquet").reset_index()):
        assert list(zip(table["_partition"], table["offset"], table["n"], strict=True)) == where(orders)


@pytest.mark.slow
def test_a_dataset_grows_with_the_topic(sh, folder, orders):
    sh("pqlog export events.db dataset -t orders")
    sh("""pqlog put events.db -t orders --key city '{"city": "Brno", "n": 7}' '{"city": "Wien", "n": 8}'""")
    sh("pqlog export events.db dataset -t orders")
    table = pd.read_parquet(folder / "dataset").reset_index()
    assert sorted(table["n"]) == list(range(9))
    assert set(zip(table["_partition"], table["offset"], table["n"], strict=True)) == set(where(orders))


@pytest.mark.slow
def test_topics_clients_and_stats_tell_of_partitions(sh, orders):
    parts = [orders.partition(number) for number in range(4)]
    main, topic = json.loads(sh("pqlog topics events.db --json"))
    assert (main["partitions"], main["first"], main["last"]) == (1, 1, 6)
    assert (topic["partitions"], topic["messages"]) == (4, 7)
    assert topic["last"] == {str(number): part.last for number, part in enumerate(parts) if len(part)}
    (client,) = json.loads(sh("pqlog clients events.db -t orders --json"))
    lags = json.loads(sh("pqlog clients events.db -t orders --partitions --json"))
    assert {line["partition"]: (line["position"], line["lag"]) for line in lags} == {
        number: (position, (orders.partition(number).last or 0) + 1 - position)
        for number, position in ((int(number), position) for number, position in client["position"].items())
    }
    assert client["position"] == {str(number): at for number, at in orders.client("billing").position.items()}
    assert client["lag"] == orders.client("billing").lag == 4
    shown = ", ".join(f"{number}: {at}" for number, at in orders.client("billing").position.items())
    assert shown in sh("pqlog clients events.db")
    stats = json.loads(sh("pqlog stats events.db --json"))["topics"]
    assert stats[0]["partitions"] == {"0": 6}
    assert stats[1]["partitions"] == {str(number): len(part) for number, part in enumerate(parts)}
    assert stats[1]["messages"] == stats[1]["last_hour"] == 7
    assert [stats[1]["from"], stats[1]["to"]] == [
        time.isoformat().replace("+00:00", "Z") for time in (min(m.time for m in orders), max(m.time for m in orders))
    ]
    assert "partitions" in sh("pqlog stats events.db").split("\n\n")[1].splitlines()[0]
    assert "7 messages" in sh("pqlog verify events.db").replace("13", "7")
    assert [field["field"] for field in json.loads(sh("pqlog schema events.db -t orders --json"))] == ["city", "n"]


@pytest.mark.slow
def test_claims_say_of_which_partition(sh, folder, orders):
    with pqlog.open(folder / "events.db") as log:
        batch = log.topic("orders").client("etl").next_batch(size=2)
        batch.release(ValueError("no amount"))
    (claim,) = json.loads(sh("pqlog claims events.db etl -t orders --json"))
    assert (claim["number"], claim["first"], claim["error"]) == (1, 1, "ValueError: no amount")
    assert len(orders.partition(claim["partition"]))
    assert "partition" in sh("pqlog claims events.db etl -t orders").splitlines()[0]


@pytest.mark.slow
def test_seek_in_one_partition_and_in_all(sh, orders):
    seek = "pqlog seek events.db billing -t orders"
    moved = json.loads(sh(f"{seek} end --json"))
    assert (moved["position"], moved["skipped"]) == (
        {str(number): (orders.partition(number).last or 0) + 1 for number in range(4)},
        4,
    )
    assert json.loads(sh(f"{seek} 1h --json"))["again"] == 7
    moved = json.loads(sh(f"{seek} -1 --partition {BRNO} --json"))
    assert moved["position"] == {str(BRNO): orders.partition(BRNO).last}
    assert sh(f"{seek} 1 --partition {BRNO}").startswith(f"client 'billing' is at position 1 of partition {BRNO}: ")
    for command in (f"{seek} 2", "pqlog trim events.db 2 -t orders"):
        said = sh(command, code=1)
        assert "--partition" in said
        assert PYTHON.findall(said) == []
    assert "there is no partition 9" in sh(f"{seek} 1 --partition 9", code=1)
    sh("pqlog delete-client events.db billing -t orders")
    assert "no clients" in sh("pqlog clients events.db -t orders")


@pytest.mark.slow
def test_trim_one_partition_and_all(sh, orders):
    kept = len(orders.partition(BRNO))
    assert sh(f"pqlog trim events.db -1 -t orders --partition {BRNO} --force") == (
        f"{kept - 1} message{'s' * (kept != 2)} dropped, 1 kept\n"
    )
    assert json.loads(sh("pqlog trim events.db 2100-01-01 -t orders --force --json")) == {
        "dropped": 8 - kept,
        "kept": 0,
    }
    assert sh("pqlog tail events.db -t orders") == ""
    assert json.loads(sh("pqlog topics events.db --json"))[1]["first"] == {}
    assert "clients" in sh("pqlog topics events.db")
    assert json.loads(sh("pqlog stats events.db --json"))["topics"][1]["from"] is None


@pytest.mark.slow
def test_a_topic_of_partitions_is_renamed_and_deleted(sh, orders):
    sh("pqlog rename-topic events.db orders sales")
    assert len(ndjson(sh("pqlog get events.db -t sales"))) == 7
    sh("pqlog delete-topic events.db sales --force")
    assert "sales" not in sh("pqlog topics events.db")
    assert "partitions" not in sh("pqlog topics events.db")


@pytest.mark.slow
def test_verify_and_salvage_name_the_partition(sh, folder, orders):
    damage = orders.partition(BRNO).store.info.id
    done = subprocess.run(
        [sys.executable, "-c", f"""
import apsw
db = apsw.Connection("events.db")
db.execute("UPDATE messages_{damage} SET value = '{{}}' WHERE offset = 1")
"""],
        cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0
    done = subprocess.run(
        [sys.executable, "-m", "pqlog", "verify", "events.db"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert f"partition {BRNO}" in done.stdout
    said = sh("pqlog salvage events.db new.db")
    assert "12 messages copied" in said
    assert f"partition {BRNO}" in said


@pytest.mark.parametrize(
    "error",
    [
        PartitionsError.of("jobs", 8, 4),
        PartitionsError.by_offset("jobs", 4, "history(start=3, stop=None)"),
        PartitionsError.by_offset("it's", 4, "[3]"),
        DamagedError("jobs", 3, 5, 2),
        DecodeError("jobs", 3, "why", 2),
    ],
)
def test_an_error_of_partitions_advises_what_can_be_typed(error):
    assert PYTHON.findall(in_the_shell(str(error))) == []
