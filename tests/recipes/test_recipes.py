"""The recipes of docs/recipes do what they say, also when they are killed."""

import http.client
import http.server
import importlib.util
import json
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import pqlog
from tests.processes import Process, run, wait_until

deltalake = pytest.importorskip("deltalake")
pytest.importorskip("dagster")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytestmark = pytest.mark.slow

RECIPES = Path(pqlog.__file__).parent.parent / "docs" / "recipes"
COUNT = 3_000


def until_done(name, path, *arguments, is_done, seed=1):
    """Run a recipe repeatedly and kill it in the middle, until there is nothing left to do."""
    chance, kills = random.Random(seed), 0
    command = [sys.executable, str(RECIPES / name), str(path), *map(str, arguments)]
    with pqlog.open(path, readonly=True) as log:
        while not is_done(log):
            before = progress(log)
            enough = before + chance.randrange(1, COUNT // 4)
            with Process(command, stdout=subprocess.DEVNULL) as process:
                wait_until(lambda p=process, enough=enough: p.poll() is not None or progress(log) >= enough)
                process.kill()
            assert process.was_killed or process.returncode == 0
            kills += process.was_killed
    return kills


def progress(log):
    return sum(client.position for client in log.clients())


def drained(client):
    return lambda log: any(c.client == client and c.lag == 0 and not c.open for c in log.clients())


@pytest.fixture
def filled(path):
    """A file with numbered messages; closed."""
    with pqlog.open(path) as log:
        log.put_many({"n": n, "amount": n if n % 3 else None} for n in range(COUNT))
    return path


def test_parquet_files_named_by_the_batch(filled, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    assert until_done("parquet_by_batch.py", filled, folder, 50, is_done=drained("to-parquet"))
    frames = [pd.read_parquet(file) for file in sorted(folder.glob("*.parquet"))]
    assert [n for frame in frames for n in frame["n"]] == list(range(COUNT))


def test_a_duckdb_table_with_its_batches(filled, tmp_path):
    database = tmp_path / "warehouse.duckdb"
    assert until_done("duckdb_table.py", filled, database, 50, is_done=drained("to-duckdb"))
    with duckdb.connect(str(database)) as db:
        assert db.execute("SELECT count(*), count(DISTINCT n), min(n), max(n) FROM events").fetchall() == [
            (COUNT, COUNT, 0, COUNT - 1)
        ]


def test_a_delta_lake_table_with_its_transaction_identifiers(filled, tmp_path):
    table = tmp_path / "table"
    assert until_done("delta_lake.py", filled, table, 100, is_done=drained("to-delta"))
    assert sorted(deltalake.DeltaTable(str(table)).to_pyarrow_table()["n"].to_pylist()) == list(range(COUNT))


def recipe(name):
    """A recipe, imported as a module."""
    spec = importlib.util.spec_from_file_location(name, RECIPES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class DuckDB:
    """Run the recipe on a log; returns what it has written."""

    def __init__(self, folder):
        self.path = str(folder / "warehouse.duckdb")
        self.load = lambda log: recipe("duckdb_table").load(log, self.path)

    def values(self):
        with duckdb.connect(self.path) as db:
            type_, values = db.execute('SELECT typeof(any_value(a)), list(a ORDER BY "offset") FROM events').fetchone()
        return [json.loads(value) if type_ == "JSON" and value is not None else value for value in values]


class Delta:
    """The same for Delta Lake."""

    def __init__(self, folder):
        self.path = str(folder / "table")
        self.load = lambda log: recipe("delta_lake").load(log, self.path)

    def values(self):
        table = deltalake.DeltaTable(self.path).to_pyarrow_table().sort_by("offset")
        is_json = (table.schema.field("a").metadata or {}).get(b"pqlog") == b"json"
        return [json.loads(value) if is_json and value is not None else value for value in table["a"].to_pylist()]


def frame(values, dtype):
    return pd.DataFrame({"a": pd.Series(values, dtype=dtype)})


NS = frame([1577836800000000001], "datetime64[ns]")
KEPT = {
    "fractions, then integers": [[2.5], [1]],
    "null, then text": [[None], ["x"]],
    "text, then null": [["x"], [None], ["y"]],
    "nested": [[{"b": 1}], [[1, "x"]], [None]],
    "mixed, then plain": [[1, "x"], [5], ["5"], [0.1], [True]],
    "beyond 64 bits": [[2**70], [1]],
    "integers of all widths": [[2**40], frame([1], "int8"), frame([2], "int32")],
    "categories and text": [frame(["x"], "category"), ["y"], frame(["x"], "category")],
}
REFUSED = {
    "integers, then text": [[1], ["x"]],
    "integers, then text of digits": [[1], ["5"]],
    "text, then integers": [["x"], [1]],
    "booleans, then integers": [[True], [1]],
    "integers, then booleans": [[1], [True]],
    "integers without a double, then fractions": [[2**53 + 1], [2.5]],
    "fractions, then integers without a double": [[2.5], [2**53 + 1]],
    "integers, then mixed": [[1], [1, "x"]],
    "text, then mixed": [["x"], [1, "x"]],
}


def put(log, values):
    return log.put_many([{"a": value} for value in values] if isinstance(values, list) else values)


@pytest.mark.parametrize("target", [DuckDB, Delta])
@pytest.mark.parametrize("puts", KEPT.values(), ids=KEPT.keys())
def test_a_typed_table_holds_what_was_put(log, tmp_path, target, puts):
    there = target(tmp_path)
    for values in puts:
        put(log, values)
        there.load(log)
    expected = [message.value["a"] for message in log]
    assert there.values() == expected
    plain = [value for value in expected if not isinstance(value, (dict, list))]
    assert [type(value) for value in there.values() if not isinstance(value, (dict, list))] == list(
        map(type, plain)
    ) or (
        {type(value) for value in plain} <= {int, float, type(None)}  # numbers of one column, such as 1 and 2.5
    )


@pytest.mark.parametrize("target", [DuckDB, Delta])
@pytest.mark.parametrize("puts", REFUSED.values(), ids=REFUSED.keys())
def test_what_a_typed_table_cannot_hold_stops_it_before_the_batch(log, tmp_path, target, puts):
    there = target(tmp_path)
    first, second = puts
    put(log, first)
    there.load(log)
    put(log, second)
    for _ in range(2):
        with pytest.raises(TypeError, match=r"the column .a. is .* and cannot hold the new values exactly"):
            there.load(log)
    assert there.values() == first
    assert len(log.client("to-duckdb" if target is DuckDB else "to-delta").unread()) == len(second)


def test_a_duckdb_table_gets_a_type_that_holds_all_numbers_or_the_one_that_the_error_names(log, tmp_path):
    there = DuckDB(tmp_path)
    for values in ([1], [2.5], [3], frame([2**63], "uint64"), NS.astype("int64").astype("float64")):
        put(log, values)
        there.load(log)
    assert there.values() == [1.0, 2.5, 3.0, float(2**63), float(1577836800000000001)]
    put(log, ["x"])
    with pytest.raises(TypeError, match=r"ALTER TABLE events ALTER \"a\" TYPE JSON USING to_json\(\"a\"\)") as caught:
        there.load(log)
    with duckdb.connect(there.path) as db:
        db.execute(str(caught.value).partition("such as ")[2].partition(", and run")[0])
    there.load(log)
    assert there.values()[::5] == [1.0, "x"]


def test_a_delta_table_takes_up_where_it_stopped_once_it_has_another_type(log, tmp_path):
    there = Delta(tmp_path)
    put(log, [1])
    there.load(log)
    put(log, [2.5])
    with pytest.raises(TypeError, match=r"is int64 \(number\) .* which are double \(number\)"):
        there.load(log)
    table = deltalake.DeltaTable(there.path).to_pyarrow_table()
    table = table.set_column(table.schema.get_field_index("a"), "a", table["a"].cast(pa.float64()))
    deltalake.write_deltalake(there.path, table, mode="overwrite", schema_mode="overwrite")
    there.load(log)
    assert there.values() == [1.0, 2.5]
    there.load(log)
    assert there.values() == [1.0, 2.5]


def test_parts_of_a_second_are_kept_or_refused(log, tmp_path):
    duck, delta = DuckDB(tmp_path), Delta(tmp_path)
    log.put_many(NS)
    duck.load(log)
    with duckdb.connect(duck.path) as db:
        assert db.execute("SELECT epoch_ns(a) FROM events").fetchall() == [(1577836800000000001,)]
    with pytest.raises(TypeError, match=r"is timestamp\[us\] .* which are timestamp\[ns\]"):
        delta.load(log)


@pytest.mark.parametrize("target", [DuckDB, Delta])
def test_a_field_that_comes_later_becomes_a_column(log, tmp_path, target):
    there = target(tmp_path)
    for value in ({"a": 1}, {"a": 2, 'the "b"': "x"}, {"c": 2.5}):
        log.put(value)
        there.load(log)
    assert there.values() == [1, 2, None]
    if target is DuckDB:
        with duckdb.connect(there.path) as db:
            assert db.execute('SELECT "the ""b""", c FROM events ORDER BY "offset"').fetchall() == [
                (None, None),
                ("x", None),
                (None, 2.5),
            ]


def test_files_of_batches_are_read_as_one_table(log, tmp_path):
    for values in ([1], [2.5], [None]):
        put(log, values)
        recipe("parquet_by_batch").export(log, tmp_path)
    log.put({"a": 4, "b": "x"})
    recipe("parquet_by_batch").export(log, tmp_path)
    files = sorted(tmp_path.glob("*.parquet"))
    assert len(files) == 4
    rows = duckdb.sql(f"SELECT a, b FROM read_parquet('{tmp_path}/*.parquet', union_by_name=true) ORDER BY \"offset\"")
    assert rows.fetchall() == [(1.0, None), (2.5, None), (None, None), (4.0, "x")]
    assert pl.concat(map(pl.scan_parquet, files), how="diagonal_relaxed").collect()["a"].to_list() == [
        1.0,
        2.5,
        None,
        4.0,
    ]
    assert pd.concat(map(pd.read_parquet, files))["a"].tolist()[:2] == [1.0, 2.5]


def test_files_of_batches_are_durable_before_the_batch_is_acknowledged(log, tmp_path, monkeypatch):
    events, fsync, replace = [], os.fsync, Path.replace

    def synced(descriptor):
        fsync(descriptor)
        events.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")

    def replaced(path, target):
        events.append("name")
        return replace(path, target)

    put(log, [1, 2])
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    for batch in log.batches("probe"):  # what pqlog itself syncs is not the recipe's
        assert len(batch) == 2
    events.clear()
    recipe("parquet_by_batch").export(log, tmp_path, size=1)
    assert events == ["file", "name", "folder"] * 2
    assert list(tmp_path.glob("*.partial")) == []


def test_files_of_batches_outlive_a_client_that_begins_again(log, tmp_path):
    put(log, [1, 2])
    recipe("parquet_by_batch").export(log, tmp_path, size=1)
    log.trim(before=3)
    log.client("to-parquet").delete()
    put(log, [3])
    recipe("parquet_by_batch").export(log, tmp_path, size=1)
    assert sorted(pd.concat(map(pd.read_parquet, tmp_path.glob("*.parquet")))["a"]) == [1, 2, 3]


def test_a_delta_table_gets_what_is_read_again(log, tmp_path):
    there = Delta(tmp_path)
    put(log, [1])
    there.load(log)
    log.client("to-delta").seek("start")
    there.load(log)
    there.load(log)
    assert there.values() == [1, 1]
    log.client("to-delta").delete()
    put(log, [2])
    there.load(log)
    assert sorted(there.values()) == [1, 1, 1, 2]


class Orders(http.server.BaseHTTPRequestHandler):
    """Pages of ten orders; forty of them."""

    def do_GET(self):
        page = int(urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)["page"][0])
        orders = [{"id": f"o{n}"} for n in range((page - 1) * 10, page * 10)] if page <= 40 else []
        body = json.dumps(orders).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_a_paged_api_is_pulled_without_gap_or_duplicate(path):
    pqlog.open(path).close()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Orders)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/orders"
    command = [sys.executable, str(RECIPES / "paged_api.py"), str(path), url]
    chance, kills = random.Random(7), 0
    try:
        with pqlog.open(path) as log:
            while log.cursor("orders-api") != 40:
                enough = len(log) + 10 * chance.randrange(1, 12)
                with Process(command, stdout=None) as process:
                    wait_until(lambda p=process, enough=enough: p.poll() is not None or len(log) >= enough)
                    process.kill()
                kills += process.was_killed
            assert kills
            assert [message.key for message in log] == [f"o{n}" for n in range(400)]
    finally:
        server.shutdown()
        server.server_close()


class Inbox:
    """A server of the recipe, which is killed and started again."""

    def __init__(self, path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        options = ["--app-dir", str(RECIPES), "--port", str(self.port), "--log-level", "error"]
        self._command = [sys.executable, "-m", "uvicorn", "webhook_inbox:app", *options]
        self._path = path
        self.start()

    def start(self):
        self.process = Process(self._command, env={**os.environ, "INBOX": str(self._path)}, stdout=subprocess.DEVNULL)

    def post(self, source, webhook, id=None):
        """The answer, however often the server is killed before it."""
        headers = {"Content-Type": "application/json", **({} if id is None else {"webhook-id": id})}
        url, body = f"http://127.0.0.1:{self.port}/webhooks/{source}", json.dumps(webhook).encode()
        until = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as answer:
                    assert answer.status == 202
                    return json.load(answer)["offset"]
            except urllib.error.HTTPError:
                raise
            except (OSError, http.client.HTTPException):  # it is not there, or not any more
                assert time.monotonic() < until
                time.sleep(0.05)


def test_a_webhook_that_was_answered_is_kept_once_and_handled_once_though_the_server_is_killed(path):
    inbox, answers, chance = Inbox(path), {}, random.Random(3)

    def send(name):
        for n in range(40):
            webhook = {"type": "order.paid" if n % 2 else "order.made", "order": {"of": name, "n": n}}
            answers[name, n] = inbox.post(f"shop{name}", webhook, f"{n}")

    senders = [threading.Thread(target=send, args=(name,)) for name in range(8)]
    for sender in senders:
        sender.start()
    kills = 0
    while any(sender.is_alive() for sender in senders):
        enough = len(answers) + chance.randrange(20, 80)
        wait_until(lambda enough=enough: len(answers) >= enough or not any(map(threading.Thread.is_alive, senders)))
        with inbox.process as process:
            process.kill()
        kills += 1
        inbox.start()
    assert kills > 2
    assert len(answers) == 8 * 40
    assert inbox.post("shop0", {"type": "order.made"}, "0") == answers[0, 0]
    with pytest.raises(urllib.error.HTTPError, match="422"):
        inbox.post("shop0", [1])
    with pqlog.open(path) as log:
        wait_until(lambda: log.client("orders").lag == 0)
    inbox.process.send_signal(signal.SIGTERM)
    inbox.process.communicate(timeout=60)
    with pqlog.open(path) as log:
        assert len(log) == len(answers)
        for (name, n), offset in answers.items():
            assert (log[offset].key, log[offset].value["order"]) == (f"shop{name}", {"of": name, "n": n})
        paid = [(order["of"], order["n"]) for order in (message.value for message in log.topic("paid"))]
        assert sorted(paid) == [(name, n) for name in range(8) for n in range(1, 40, 2)]
        assert log.verify() == []


def test_a_cron_job_runs_to_the_end_and_two_at_once_share_the_work(filled):
    command = [sys.executable, str(RECIPES / "drain.py"), str(filled)]
    both = [Process(command) for _ in range(2)]
    said = [process.finish() for process in both]
    assert all("0 rejected" in line for line in said)
    with pqlog.open(filled) as log:
        assert log.topic("clean").to_pandas()["n"].tolist() == [n for n in range(COUNT) if n % 3]
        log.put({"n": -1, "amount": 1.5})
    Process(command).finish()
    with pqlog.open(filled) as log:
        assert log.topic("clean").tail(1)["n"].tolist() == [-1]


def test_a_dagster_asset_materializes_the_topic(filled, tmp_path):
    script = """
import sys
from dagster import DagsterInstance, materialize
sys.path.insert(0, sys.argv[1])
import dagster_asset
with DagsterInstance.ephemeral() as instance:
    done = materialize([dagster_asset.clean_orders], instance=instance)
    print(done.asset_materializations_for_node("clean_orders")[0].metadata["out"].value)
"""
    environment = {**os.environ, "PQLOG_FILE": str(filled), "DAGSTER_DISABLE_TELEMETRY": "1"}
    assert int(run(script, RECIPES, env=environment, cwd=tmp_path)) == 2 * COUNT // 3
    with pqlog.open(filled) as log:
        assert len(log.topic("clean")) == 2 * COUNT // 3


def test_every_recipe_is_in_a_page_and_says_what_it_does():
    pages = ("stages.md", "schedulers.md", "producers.md", "querying.md")
    page = "".join((RECIPES.parent / name).read_text() for name in pages)
    for recipe in RECIPES.glob("*.py"):
        assert f"recipes/{recipe.name}" in page
        spec = importlib.util.spec_from_file_location(recipe.stem, recipe)
        assert spec is not None
        assert recipe.read_text().startswith('"""')


def test_spark_reads_ranges_of_offsets(tmp_path):
    pytest.importorskip("pyspark")
    path = tmp_path / "events.db"
    with pqlog.open(path) as log:
        log.put_many([{"city": "ab"[n % 2], "amount": n} | ({"late": 1.5} if n > 2500 else {}) for n in range(COUNT)])
    query = "SELECT city, sum(amount), count(late), max(offset) FROM log GROUP BY city ORDER BY city"
    command = [sys.executable, str(RECIPES / "spark_source.py"), str(path), query]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYSPARK_PYTHON": sys.executable})
    assert done.returncode == 0, done.stderr
    assert [line.split("\t") for line in done.stdout.splitlines()] == [
        ["a", "2248500", "249", "2999"],
        ["b", "2250000", "250", "3000"],
    ]
