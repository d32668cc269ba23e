"""The recipes of docs/recipes do what they say, also when they are killed."""

import http.server
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import threading
import urllib.parse
from pathlib import Path

import duckdb
import pandas as pd
import pytest

import pqlog

deltalake = pytest.importorskip("deltalake")
pytest.importorskip("dagster")
pytestmark = pytest.mark.slow

RECIPES = Path(pqlog.__file__).parent.parent / "docs" / "recipes"
COUNT = 3_000


def until_done(name, path, *arguments, is_done, seed=1):
    """Run a recipe again and again, and kill it in the midst, until there is nothing left to do."""
    chance, kills = random.Random(seed), 0
    command = [sys.executable, str(RECIPES / name), str(path), *map(str, arguments)]
    with pqlog.open(path, mode="r") as log:
        while not is_done(log):
            before = progress(log)
            enough = before + chance.randrange(1, COUNT // 4)
            with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
                while process.poll() is None and progress(log) < enough:
                    pass
                process.kill()
            assert process.returncode in (0, -signal.SIGKILL)
            kills += process.returncode == -signal.SIGKILL
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
                with subprocess.Popen(command) as process:
                    while process.poll() is None and len(log) < enough:
                        pass
                    process.kill()
                kills += process.returncode == -signal.SIGKILL
            assert kills
            assert [message.key for message in log] == [f"o{n}" for n in range(400)]
    finally:
        server.shutdown()
        server.server_close()


def test_a_cron_job_runs_to_the_end_and_two_at_once_share_the_work(filled):
    command = [sys.executable, str(RECIPES / "drain.py"), str(filled)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=100)[0] for process in both]
    assert all("0 rejected" in line for line in said)
    with pqlog.open(filled) as log:
        assert log.topic("clean").to_pandas()["n"].tolist() == [n for n in range(COUNT) if n % 3]
        log.put({"n": -1, "amount": 1.5})
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
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
    done = subprocess.run(
        [sys.executable, "-c", script, str(RECIPES)], env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 2 * COUNT // 3
    with pqlog.open(filled) as log:
        assert len(log.topic("clean")) == 2 * COUNT // 3


def test_every_recipe_is_in_a_page_and_says_what_it_does():
    page = "".join((RECIPES.parent / name).read_text() for name in ("stages.md", "schedulers.md"))
    for recipe in RECIPES.glob("*.py"):
        assert f"recipes/{recipe.name}" in page
        spec = importlib.util.spec_from_file_location(recipe.stem, recipe)
        assert spec is not None
        assert recipe.read_text().startswith('"""')
