"""Each command, typed into a real shell."""

import json
import os
import pickle
import re
import subprocess
import sys

import apsw
import pandas as pd
import pytest

import pqlog
from pqlog import errors
from pqlog.cli.app import in_the_shell
from pqlog.cli.commands import EXAMPLES, app
from pqlog.store.sqlite import connections
from tests.processes import Process, wait_until

COMMANDS = sorted(command.name for command in app.registered_commands)


def ndjson(text):
    return [json.loads(line) for line in text.splitlines()]


def an_old_queue(path):
    db = apsw.Connection(str(path))
    db.execute("CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, data BLOB)")
    db.execute("CREATE TABLE clients (client_id TEXT PRIMARY KEY, acknowledged INTEGER)")
    db.execute("INSERT INTO log (data) VALUES (?)", (pickle.dumps({"n": 1}),))
    db.execute("INSERT INTO clients VALUES ('billing', 1)")
    db.close()


@pytest.mark.slow
# explore opens a browser, demo takes a while, a cluster is not always there: they have tests of their own
@pytest.mark.parametrize(
    "example",
    [
        example
        for name in COMMANDS
        if name not in ("explore", "demo")
        for example in EXAMPLES[name]
        if "kafka://" not in example
    ],
)
def test_the_examples_of_the_help_run(folder, sh, example):
    (folder / "flights.csv").write_text("carrier,delay\nUA,2\nB6,-1\n")
    (folder / "orders.csv").write_text("order,amount\n17,2\n18,3\n")
    (folder / "events.ndjson").write_text('{"n": 1}\n{"n": 2}\n')
    (folder / "app.log").write_text("started\nstopped\n")
    an_old_queue(folder / "old.db")
    with pqlog.open(folder / "events.db") as log:
        next(log.batches("etl", size=2))
        log.topic("raw")
    if example.startswith("pqlog tail -f"):
        example = f"timeout -s INT 3 {example}; test $? = 124"
    if "trim" in example and "--force" not in example:
        sh("pqlog seek events.db billing end; pqlog seek events.db etl end")
    assert sh(example) or ">" in example


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name not in ("put", "tail", "export"))) for name in COMMANDS],
)
def test_every_command_explains_itself(sh, name):
    text = sh(f"pqlog {name} --help", COLUMNS="80")
    assert "Examples" in text
    assert f"$ pqlog {name} " in text
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80
    for option in re.findall(r"│ (?:\*\s+)?--(\S+)", text):
        line = next(line for line in text.splitlines() if f"--{option}" in line)
        assert re.search(r"[a-z]{2,}", line.split(">")[-1]), f"--{option} is not explained"


@pytest.mark.slow
def test_help_version_and_wrong_usage(sh):
    assert all(name in sh("pqlog --help") for name in COMMANDS)
    assert sh("pqlog --version") == f"pqlog {pqlog.__version__}\n"
    assert sh("python -m pqlog --version") == f"pqlog {pqlog.__version__}\n"
    assert "No such command" in sh("pqlog frobnicate", code=2)
    assert "Missing argument" in sh("pqlog topics", code=2)
    assert "complete" in sh("pqlog", code=0, _PQLOG_COMPLETE="source_bash")


# put and get


def test_what_is_put_is_got(sh, folder):
    assert sh("""pqlog put new.db '{"n": 1}' '"text"' 3 null""") == "4 messages, offsets 1 to 4 of topic 'main'\n"
    assert ndjson(sh("pqlog get new.db")) == [{"n": 1}, "text", 3, None]
    assert sh("pqlog put new.db 5 --json") == '{"topic":"main","first":5,"last":5,"messages":1}\n'
    assert sh("pqlog put new.db --text 'till 3' 4") == "2 messages, offsets 6 to 7 of topic 'main'\n"
    assert ndjson(sh("pqlog get new.db --start 6")) == ["till 3", "4"]


@pytest.mark.slow
def test_put_says_what_is_no_json_and_puts_nothing(sh, folder):
    assert "--text takes plain text" in sh("pqlog put new.db 1 hello", code=1)
    assert not (folder / "new.db").exists()
    said = sh("pqlog put new.db", stdin='{"n": 1}\n{"n": \n', code=1)
    assert "line 2 is not JSON" in said
    assert ndjson(sh("pqlog get new.db")) == []
    said = sh("printf '1\\n\\xff\\n' | pqlog put new.db --text", code=1)
    assert "line 2 is not UTF-8" in said
    assert "cannot be read: No such file" in sh("pqlog put new.db --from missing.ndjson", code=1)
    assert "both" in sh("pqlog put new.db 1 --from missing.ndjson", code=1)
    assert "NAME=VALUE" in sh("pqlog put new.db 1 --header x", code=1)
    assert "ndjson, csv, parquet or json" in sh("pqlog put new.db --format xml", code=1)


def test_lines_keys_headers_and_ids(sh):
    lines = "".join(json.dumps({"n": n, "of": str(n % 2)}) + "\n" for n in range(1000))
    put = "pqlog put new.db --key of --header source=till-3 --header a=b=c --id first"
    assert sh(put, stdin=lines) == "1,000 messages, offsets 1 to 1000 of topic 'main'\n"
    assert sh(put, stdin=lines) == "1,000 messages, offsets 1 to 1000 of topic 'main'\n"
    found = ndjson(sh("pqlog get new.db --metadata --key 1 -n 2"))
    assert [(message["offset"], message["key"], message["value"]["n"]) for message in found] == [
        (2, "1", 1),
        (4, "1", 3),
    ]
    assert found[0]["headers"] == {"source": "till-3", "a": "b=c"}


@pytest.mark.slow
def test_lines_with_ids_are_put_once(sh, folder):
    (folder / "orders.csv").write_text("order,amount\n17,2\n18,3\n")
    assert sh("pqlog put new.db --from orders.csv --ids order") == "2 messages, offsets 1 to 2 of topic 'main'\n"
    lines = "".join(json.dumps({"order": n}) + "\n" for n in (18, 19, 19, 20))
    assert sh("pqlog put new.db --ids order --json", stdin=lines) == (
        '{"topic":"main","first":3,"last":4,"messages":2}\n'
    )
    assert sh("pqlog put new.db --ids order --each", stdin=lines + '{"order":21}\n') == "offset 5 of topic 'main'\n"
    assert sh("pqlog put new.db --ids order", stdin=lines) == "no messages with new ids\n"
    assert "which is used as the id, is missing" in sh("pqlog put new.db --ids order", stdin='{"n":1}', code=1)


@pytest.mark.slow
def test_csv_and_parquet_keep_their_types(sh, folder):
    frame = pd.DataFrame(
        {"carrier": ["UA", "B6", None], "delay": [2, -1, 0], "at": pd.to_datetime(["2013-01-01"] * 3, utc=True)}
    )
    frame.to_csv(folder / "a.csv", index=False)
    frame.to_parquet(folder / "a.parquet")
    sh("pqlog put new.db --from a.csv --topic csv; pqlog put new.db --from a.parquet --topic parquet")
    sh("cat a.parquet | pqlog put new.db --format parquet -t piped; cat a.csv | pqlog put new.db --format csv -t both")
    with pqlog.open(folder / "new.db", readonly=True, topic="csv") as log:
        assert log.topic("parquet").to_pandas(metadata=False).equals(frame)
        assert log.topic("piped").to_pandas(metadata=False).equals(frame)
        assert log.to_pandas(metadata=False)["delay"].tolist() == [2, -1, 0]
        assert str(log.to_pandas(metadata=False)["at"].dtype).startswith("datetime64")
    assert "cannot be read as parquet" in sh("pqlog put new.db --from a.csv --format parquet", code=1)


@pytest.mark.slow
def test_each_line_is_put_when_it_comes(folder, sh):
    command = [sys.executable, "-m", "pqlog", "put", "new.db", "--each", "--text"]
    with Process(command, stdout=None, cwd=folder) as process:
        process.tell("one")
        wait_until((folder / "new.db").exists)
        with pqlog.open(folder / "new.db") as log:
            assert log.get_one("reader", timeout=60) == "one"
            process.kill()
    assert sh("printf 'two\\nthree\\n' | pqlog put new.db --each --text") == (
        "2 messages, offsets 2 to 3 of topic 'main'\n"
    )
    assert sh("printf '4' | pqlog put new.db --each --json") == '{"topic":"main","first":4,"last":4,"messages":1}\n'
    assert sh("pqlog put new.db --each") == "no messages\n"
    assert "--id" in sh("pqlog put new.db --each --id x", code=1)


def test_get_a_stretch(sh):
    assert ndjson(sh("pqlog get events.db --start 2 --stop 4")) == [
        {"city": "Praha", "amount": 0},
        {"city": "Wien", "amount": 1},
    ]
    assert ndjson(sh("pqlog get events.db --start -1 --field amount")) == [{"amount": 4}]
    assert len(ndjson(sh("pqlog get events.db --since 1h --limit 3"))) == 3
    assert ndjson(sh("pqlog get events.db --until 1h")) == []
    assert "is not a valid time" in sh("pqlog get events.db --since yesterday", code=1)
    assert "--client" in sh("pqlog get events.db --batch 5", code=1)
    assert "cannot be combined with --field" in sh("pqlog get events.db --metadata --field a", code=1)


def test_a_field_of_a_nested_object(sh):
    sh("""pqlog put new.db '{"a": {"b": {"c": 1}}, "d.e": 2}' '[]'""")
    assert ndjson(sh("pqlog get new.db --field a.b.c --field d.e")) == [
        {"a.b.c": 1, "d.e": 2},
        {"a.b.c": None, "d.e": None},
    ]


@pytest.mark.parametrize(
    "command",
    [
        "get new.db --field note --field citty",
        pytest.param("get new.db --field citty --client etl", marks=pytest.mark.slow),
        "get new.db --field citty --client etl --batch 2",
        pytest.param("tail new.db --field citty", marks=pytest.mark.slow),
        pytest.param("export new.db - --field citty", marks=pytest.mark.slow),
        "export new.db - --field citty --format csv",
        pytest.param("export new.db new.parquet --field citty", marks=pytest.mark.slow),
    ],
)
def test_a_field_that_no_message_has_is_told_before_anything_is_printed(sh, folder, command):
    with pqlog.open(folder / "new.db") as log:
        log.put({"city": "Brno"})
        log.put({"note": None})
    assert sh(f"pqlog {command}", code=1) == "pqlog: no message here has a field 'citty': did you mean 'city'?\n"


@pytest.mark.slow
def test_a_field_that_some_messages_have_is_found_and_one_that_none_has_is_looked_for_among_them(sh):
    sh("""pqlog put new.db '{"city": "Brno", "at": {"hour": 1}}' '{"note": null}'""")
    assert "did you mean 'at.hour'?" in sh("pqlog get new.db --field at.hours", code=1)
    assert "there are 'city', 'at', 'at.hour', 'note'" in sh("pqlog get new.db --field nothing", code=1)
    assert ndjson(sh("pqlog get new.db --field note")) == [{"note": None}] * 2
    assert ndjson(sh("pqlog tail new.db -n 1 --field note")) == [{"note": None}]
    assert sh("pqlog get new.db --since 2100-01-01 --field whatever") == ""
    assert ndjson(sh("pqlog get new.db --client etl --field city")) == [{"city": "Brno"}, {"city": None}]


@pytest.mark.parametrize(
    "how", ["", *(pytest.param(how, marks=pytest.mark.slow) for how in ("--batch 2", "--batch 100"))]
)
def test_a_client_gets_what_it_has_not_acknowledged(sh, how):
    assert [value["amount"] for value in ndjson(sh(f"pqlog get events.db --client billing {how} --limit 3"))] == [
        1,
        2,
        3,
    ]
    assert [value["amount"] for value in ndjson(sh(f"pqlog get events.db --client billing {how}"))] == [4]
    assert sh(f"pqlog get events.db --client billing {how}") == ""
    assert len(ndjson(sh(f"pqlog get events.db --client new {how}"))) == 6
    assert sh(f"pqlog get events.db --client third {how} -n 0") == ""
    assert "seek" in sh(f"pqlog get events.db --client billing --since 1h {how}", code=1)


def test_tail(sh):
    assert [value["amount"] for value in ndjson(sh("pqlog tail events.db -n 2"))] == [3, 4]
    assert sh("pqlog tail events.db -n 0") == ""
    assert [message["offset"] for message in ndjson(sh("pqlog tail events.db --metadata"))] == [1, 2, 3, 4, 5, 6]


def test_a_pickle_topic_must_be_trusted(sh, folder):
    with pqlog.open(folder / "new.db", codec="pickle") as log:
        log.put_many([{"n": 1}, (1, {2}, {"x": 1j})])
    assert "can run any code" in sh("pqlog tail new.db", code=1)
    assert ndjson(sh("pqlog tail new.db --trust-pickle")) == [{"n": 1}, [1, [2], {"x": "1j"}]]
    assert ndjson(sh("pqlog tail events.db --trust-pickle -n 1")) == [{"city": "Graz", "amount": 4}]


# what the log holds


def test_topics_clients_claims_stats(sh, folder):
    with pqlog.open(folder / "events.db") as log:
        log.topic("raw", codec="bytes").put(b"x")
        batches = log.batches("etl", size=2)
        with pytest.raises(ValueError, match="no"), next(batches):
            raise ValueError("no amount")
    assert json.loads(sh("pqlog topics events.db --json")) == [
        {"topic": "main", "codec": "json", "messages": 6, "first": 1, "last": 6, "clients": 2},
        {"topic": "raw", "codec": "bytes", "messages": 1, "first": 1, "last": 1, "clients": 0},
    ]
    billing, etl = json.loads(sh("pqlog clients events.db --json"))
    assert (billing["client"], billing["position"], billing["lag"]) == ("billing", 3, 4)
    assert (etl["open"], etl["attempt"]) == (1, 1)
    (claim,) = json.loads(sh("pqlog claims events.db etl --json"))
    assert (claim["first"], claim["last"], claim["error"]) == (1, 2, "ValueError: no amount")
    assert (claim["owner"], claim["expires"]) == ("", None)
    stats = json.loads(sh("pqlog stats events.db --json"))
    assert stats["messages"] == 7
    assert stats["bytes"] > 4096
    assert stats["topics"][0]["largest_lag"] == 6
    assert "no open batches" in sh("pqlog claims events.db billing")
    assert "no clients" in sh("pqlog clients events.db --topic raw")
    assert sh("pqlog topics events.db").splitlines()[1].split() == ["main", "json", "6", "1", "6", "2"]
    assert "largest lag" in sh("pqlog stats events.db")


@pytest.mark.slow
def test_schema_lists_the_fields(sh, folder):
    with pqlog.open(folder / "events.db") as log:
        log.put({"city": "Brno", "tags": ["\u001b[31m"]})
    assert json.loads(sh("pqlog schema events.db --json")) == [
        {"field": "city", "type": "string", "text_of": None},
        {"field": "amount", "type": "double", "text_of": None},
        {"field": "tags", "type": "string", "text_of": "JSON"},
    ]
    header, *_, tags = sh("pqlog schema events.db").splitlines()
    assert header.split() == ["field", "type", "text", "of"]
    assert tags.split() == ["tags", "string", "JSON"]
    with pqlog.open(folder / "events.db") as log:
        log.topic("empty")
    assert "no messages with fields" in sh("pqlog schema events.db -t empty")


def test_seek_and_delete_client(sh):
    assert sh("pqlog seek events.db billing start") == (
        "client 'billing' is at position 1: 2 messages will be redelivered, 0 skipped\n"
    )
    assert json.loads(sh("pqlog seek events.db billing -2 --json")) == {"position": 5, "again": 0, "skipped": 4}
    assert "did you mean 'billing'" in sh("pqlog seek events.db biling 1", code=1)
    assert sh("pqlog seek events.db other end").startswith("new client 'other' is at position 7")
    assert "is not a valid time" in sh("pqlog seek events.db billing soon", code=1)
    sh("pqlog delete-client events.db other")
    assert "no client 'other'" in sh("pqlog delete-client events.db other", code=1)


def test_seal(sh):
    assert sh("pqlog seal events.db") == "0 messages sealed\n"  # fewer than are worth it
    before = sh("pqlog get events.db")
    sh("seq 1000 | pqlog put events.db --topic numbers")
    assert json.loads(sh("pqlog seal events.db 501 --topic numbers --json"))["sealed"] in range(200, 501)
    assert sh("pqlog seal events.db --topic numbers").endswith(" messages sealed\n")
    assert sh("pqlog get events.db --topic numbers").split() == [str(n) for n in range(1, 1001)]
    assert sh("pqlog get events.db") == before
    assert "did you mean 'numbers'" in sh("pqlog seal events.db --topic number", code=1)


def test_trim_and_compact(sh):
    assert "'billing' (1 message)" in sh("pqlog trim events.db 4", code=1)
    assert json.loads(sh("pqlog trim events.db 3 --json")) == {"dropped": 2, "kept": 4}
    assert sh("pqlog trim events.db -1 --force") == "3 messages dropped, 1 kept\n"
    assert "bytes freed" in sh("pqlog compact events.db")


@pytest.mark.slow
def test_verify_and_salvage(sh, folder):
    assert sh("pqlog verify events.db") == "events.db is intact: 6 messages\n"
    db = apsw.Connection(str(folder / "events.db"))
    db.execute("UPDATE messages_1 SET value = '{}' WHERE offset = 1")
    db.close()
    done = subprocess.run(
        [sys.executable, "-m", "pqlog", "verify", "events.db", "--json"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "its checksum does not match" in json.loads(done.stdout)["problems"][0]
    assert sh("pqlog salvage events.db new.db").splitlines() == [
        "5 messages copied to new.db",
        "topic 'main': lost offset 1 of the old file",
    ]
    assert "exists" in sh("pqlog salvage events.db new.db", code=1)


@pytest.mark.slow
def test_migrate(sh, folder):
    an_old_queue(folder / "old.db")
    assert "--trust-pickle" in sh("pqlog migrate old.db new.db", code=1)
    assert "pqlog migrate" in sh("pqlog topics old.db", code=1)
    assert sh("pqlog migrate old.db new.db --trust-pickle").splitlines() == [
        "1 message copied from persistent-queue-log to new.db, read back and compared",
        "topic 'main' has the codec json",
        "1 client copied, with its position",
    ]
    assert json.loads(sh("pqlog migrate old.db new.db --trust-pickle --json"))["messages"] == 0
    assert sh("pqlog get new.db --client billing") == ""


@pytest.mark.slow
def test_looking_leaves_nothing_behind(sh, folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for line in ("topics", "clients", "stats", "verify", "get", "tail"):
        sh(f"pqlog {line} events.db")
    sh("pqlog claims events.db billing; pqlog clients events.db -t main; pqlog export events.db -")
    assert list(before) == ["events.db"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.slow
def test_a_file_whose_topic_is_not_main(sh, folder):
    with pqlog.open(folder / "new.db", "jobs") as log:
        log.put(1)
    for line in ("topics", "clients", "stats", "verify", "compact"):
        sh(f"pqlog {line} new.db")
    assert "did you mean 'jobs'" in sh("pqlog get new.db", code=1)
    assert "did you mean 'jobs'" in sh("pqlog trim new.db 1", code=1)
    assert sh("pqlog get new.db -t jobs") == "1\n"


@pytest.mark.slow
def test_what_is_no_log_is_said_to_be_none_and_nothing_is_made(sh, folder):
    (folder / "text.db").write_text("not a database, but a text of some length " * 30)
    for line in ("topics", "get", "get --client c", "tail -f", "stats", "verify", "compact", "trim", "seek", "export"):
        name, _, options = line.partition(" ")
        more = {"trim": "1", "seek": "c 1", "export": "out.csv"}.get(name, "")
        assert "does not exist" in sh(f"pqlog {name} missing.db {more} {options}", code=1)
        assert "text.db" in sh(f"pqlog {name} text.db {more} {options}", code=1)
    assert sorted(os.listdir(folder)) == ["events.db", "text.db"]


# export


@pytest.mark.slow
def test_export(sh, folder):
    assert sh("pqlog export events.db a.csv --field city --field amount") == "6 messages written to a.csv\n"
    assert pd.read_csv(folder / "a.csv")["amount"].tolist() == [12.5, 0, 1, 2, 3, 4]
    sh("pqlog export events.db a.parquet; pqlog export events.db a.ndjson --start 5")
    assert pd.read_parquet(folder / "a.parquet")["city"].tolist()[-1] == "Graz"
    assert len(ndjson((folder / "a.ndjson").read_text())) == 2
    assert sh("pqlog export events.db dataset") == "1 file written to dataset\n"
    assert sh("pqlog export events.db dataset") == "0 files written to dataset\n"
    assert len(pd.read_parquet(folder / "dataset")) == 6
    assert sh("pqlog export events.db - --format csv --field city").splitlines()[1].endswith('"Brno"')
    assert ndjson(sh("pqlog export events.db -"))[0]["city"] == "Brno"
    sh("pqlog export events.db - --format parquet > b.parquet")
    assert len(pd.read_parquet(folder / "b.parquet")) == 6
    assert "parquet, csv, tsv or ndjson" in sh("pqlog export events.db a.txt --format txt", code=1)
    assert "does not exist: create it first" in sh("pqlog export events.db missing/a.csv", code=1)
    assert oct((folder / "a.csv").stat().st_mode & 0o777) == oct(0o666 & ~os.umask(os.umask(0o22)))


@pytest.mark.slow
def test_an_export_that_fails_leaves_nothing(sh, folder):
    db = apsw.Connection(str(folder / "events.db"))
    db.execute("UPDATE messages_1 SET value = '{}' WHERE offset = 5")
    db.close()
    (folder / "a.ndjson").write_text("what was there")
    for name in ("a.ndjson", "a.csv", "a.parquet"):
        assert "does not match" in sh(f"pqlog export events.db {name}", code=1)
    assert not list(folder.glob(".partial-*"))
    assert not (folder / "a.csv").exists()
    assert (folder / "a.ndjson").read_text() == "what was there"


@pytest.mark.slow
def test_the_demo(sh):
    out = sh("pqlog demo --folder demo")
    assert "336,776 in, 336,776 out: none lost, none duplicated" in out


# topics


@pytest.mark.slow
def test_topics_are_renamed_and_deleted(sh, folder):
    sh("pqlog put events.db --topic raw 1 2")
    assert sh("pqlog rename-topic events.db raw kept") == "topic 'raw' renamed to 'kept'\n"
    assert "no topic 'raw'" in sh("pqlog rename-topic events.db raw x", code=1)
    sh("pqlog get events.db --topic kept --client c --limit 1")
    assert "pass --force" in sh("pqlog delete-topic events.db kept", code=1)
    assert sh("pqlog delete-topic events.db kept --force") == "topic 'kept' deleted\n"
    assert "'main' is the only topic: delete the file" in sh("pqlog delete-topic events.db main", code=1)
    sh("pqlog put events.db --topic raw 1")
    sh("pqlog delete-topic events.db main --force")
    assert [found["topic"] for found in json.loads(sh("pqlog topics events.db --json"))] == ["raw"]


# formats


@pytest.mark.slow
def test_an_ending_says_the_format(sh, folder):
    table = pd.DataFrame({"city": ["Brno", "Praha"], "amount": [12.5, 0.0]})
    for name, read in (
        ("o.csv", pd.read_csv),
        ("o.csv.gz", pd.read_csv),
        ("o.tsv", lambda file: pd.read_csv(file, sep="\t")),
        ("o.TSV.GZ", lambda file: pd.read_csv(file, sep="\t", compression="gzip")),
        ("o.parquet", pd.read_parquet),
        ("o.jsonl", lambda file: pd.read_json(file, lines=True)),
        ("o.ndjson.gz", lambda file: pd.read_json(file, lines=True)),
        ("o.json", lambda file: pd.read_json(file, lines=True)),
    ):
        sh(f"pqlog export events.db {name} --stop 3 --field city --field amount")
        found = read(folder / name)[["city", "amount"]]
        pd.testing.assert_frame_equal(found, table, check_dtype=False)


@pytest.mark.parametrize("name", ["o.xlsx", "o.txt", "o.parquet.gz", "o.csv.zip", "o.gz"])
def test_an_ending_that_names_no_format_is_refused(sh, folder, name):
    said = sh(f"pqlog export events.db {name}", code=1)
    assert f"'{name}' does not have an extension of a known format: use .parquet, .csv, .tsv," in said
    assert not (folder / name).exists()


@pytest.mark.slow
def test_a_json_array_is_one_message_and_said_to_be(sh, folder):
    (folder / "a.json").write_text('[{"n": 1}, {"n": 2}]')
    (folder / "long.json").write_text('[\n{"n": 1},\n{"n": 2}\n]\n')
    done = subprocess.run(
        [sys.executable, "-m", "pqlog", "put", folder / "new.db", "--from", folder / "a.json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "a JSON array, put as one message; --format json puts its items" in done.stderr
    assert "--format json reads one array that spans many lines" in sh("pqlog put new.db --from long.json", code=1)
    sh("pqlog put new.db --from long.json --format json")
    sh("cat a.json | pqlog put new.db --format json")
    assert ndjson(sh("pqlog get new.db")) == [[{"n": 1}, {"n": 2}], *[{"n": 1}, {"n": 2}] * 2]
    assert "this is a dict" in sh("echo '{}' | pqlog put new.db --format json", code=1)


# errors

PYTHON = re.compile(r"\w+=\S|log\.\w+|pqlog\.\w+\(|\w+\(\w*\)")


@pytest.mark.parametrize(
    "error",
    [
        errors.DecodeError("main", 3, "why"),
        errors.DecodeError("jobs", 3, "why").without_clients(),
        errors.DecodeError("it's", 3, "why", 2).without_clients(),
        errors.PartitionsError.of_start("jobs", 3),
        errors.PartitionsError.of("jobs", 3, 2, readonly=True),
        errors.UnknownTopicError.of_cluster("main", "kafka://h:1", ["a", "b"]),
        errors.DamagedError("main", 3, 5),
        errors.UntrustedPicklesError("a.db", "persist-queue", 3, 4),
        errors.CodecMismatchError("main", None, "pickle"),
        errors.CodecMismatchError("main", None, "points"),
        errors.CodecMismatchError("main", "json", "pickle"),
        errors.TrimRefusedError([("billing", 3)], "main"),
        errors.TrimRefusedError([("billing", 3)], "jobs", "deleted"),
        errors.ClaimedError("etl", 1, 2, 3, "jobs"),
        errors.ClaimedError("it's", 1, 2, 3),
        errors.ClaimedError("etl", 1, 2, 3, "jobs", 2),
        errors.ClaimLostError("etl", 1),
        errors.UnknownTopicError("a", ["b"]),
        errors.UnknownClientError("a", "main", []),
        errors.UnknownClientError("a", "jobs", []),
        connections.translate(apsw.ReadOnlyError("x"), "a.db"),
        connections.translate(apsw.CorruptError("x"), "a.db"),
        connections.translate(TypeError("x"), "a.db"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_advises_what_can_be_typed(error):
    assert PYTHON.findall(in_the_shell(str(error))) == []


@pytest.mark.slow
def test_errors_of_the_commands_speak_of_commands(sh, folder):
    with pqlog.open(folder / "p.db", codec="pickle") as log:
        log.put({1})
    (folder / "dir").mkdir()
    for line in (
        "pqlog trim events.db 6",
        "pqlog get p.db",
        "pqlog put p.db 1",
        "pqlog topics nothing.db",
        "pqlog get events.db --topic nothing",
        "pqlog get events.db --start x --client c",
        "pqlog seek events.db bilin start",
        "pqlog delete-client events.db nobody",
        "pqlog delete-topic events.db nobody",
        "pqlog topics dir",
        "pqlog salvage events.db p.db",
        "pqlog migrate events.db new.db",
    ):
        said = sh(f"({line}) || exit 1", code=1)
        assert PYTHON.findall(said) == [], said


# where and sql


def test_where_selects_messages_in_get_tail_and_export(sh, folder):
    cities = '{"n": 1}\n{"n": 2, "city": "Brno"}\n{"n": 3, "city": "Praha"}\n{"n": 4, "city": "Brno"}\n'
    sh("pqlog put new.db", stdin=cities)
    assert [value["n"] for value in ndjson(sh("""pqlog get new.db --where "n > 1 and city = 'Brno'" """))] == [2, 4]
    assert [value["n"] for value in ndjson(sh("pqlog tail new.db -n 2 --where 'n < 4'"))] == [2, 3]
    assert ndjson(sh("pqlog tail new.db -n 0 --where 'n < 4'")) == []
    assert sh("pqlog export new.db out.csv --where 'city is not null' --field n") == "3 messages written to out.csv\n"
    assert "IN, BETWEEN" in sh("pqlog get new.db --where 'sum(n) > 3'", code=1)
    assert "position" in sh("pqlog get new.db --client a --where 'n > 3'", code=1)
    followed = sh("timeout -s INT 8 pqlog tail -f new.db -n 1 --where 'n = 3'; test $? = 124")
    assert [value["n"] for value in ndjson(followed)] == [3]


def test_sql_prints_the_result_of_a_query(sh):
    sh("""pqlog put new.db '{"n": 1}' '{"n": 2}'; pqlog put new.db -t raw '{"n": 5}'""")
    assert json.loads(sh("pqlog sql new.db 'select sum(n) as total from log' --json")) == [{"total": 3}]
    assert sh("pqlog sql new.db 'select n from raw'") == "n\n5\n"
    assert sh("pqlog sql new.db 'select n from log where n > 7'") == "no rows\n"
    assert "did you mean 'main' or 'raw'" in sh("pqlog sql new.db 'select n from row'", code=1)
    assert "double quotes" in sh("pqlog sql new.db 'select n from log where offset > 1'", code=1)
    assert "disabled" in sh("""pqlog sql new.db "select * from read_text('/etc/hostname')" """, code=1)
