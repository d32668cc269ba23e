"""The routes from a log to pandas: seconds, processor seconds and peak memory, each in its own process.

All but pqlog read the same JSON from a plain table of a SQLite file.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import apsw
import pandas as pd

import pqlog
from benchmarks.workloads import event

FIELDS = 40


def wide(n: int) -> dict[str, object]:
    """A message of 40 fields."""
    return event(n) | {f"f{i}": n * i if i % 2 else f"text {n % 97}" for i in range(FIELDS - 6)}


SHAPES = {"narrow": event, "wide": wide}

PREPARE = {
    "read_sql + json.loads": "import sqlite3",
    "json_normalize": "import sqlite3",
    "->> a column": "import sqlite3",
    "orjson": "import sqlite3, orjson",
    "msgspec": "import sqlite3, msgspec",
    "polars": "import sqlite3, polars, pyarrow",
    "DuckDB over exported NDJSON": "import sqlite3, duckdb, os",
    "pqlog, messages": "import pqlog, pqlog.frames, pyarrow.compute, pyarrow.csv, pyarrow.json",
    "pqlog, sealed": "import pqlog, pqlog.frames, pyarrow.compute, pyarrow.csv, pyarrow.json",
    "pqlog, segments": "import pqlog, pqlog.frames, pyarrow.compute, pyarrow.csv, pyarrow.json",
}
_VALUES = "(value for value, in sqlite3.connect(path).execute('SELECT value FROM plain ORDER BY id'))"
WORK = {
    "read_sql + json.loads": """
table = pd.read_sql("SELECT value FROM plain ORDER BY id", sqlite3.connect(path))
frame = pd.DataFrame(table["value"].map(json.loads).tolist())
""",
    "json_normalize": f"frame = pd.json_normalize([json.loads(value) for value in {_VALUES}])",
    "->> a column": """
columns = ", ".join(f"value ->> '{name}' AS {name}" for name in fields)
frame = pd.read_sql(f"SELECT {columns} FROM plain ORDER BY id", sqlite3.connect(path))
""",
    "orjson": f"frame = pd.DataFrame([orjson.loads(value) for value in {_VALUES}])",
    "msgspec": f"frame = pd.DataFrame([msgspec.json.decode(value) for value in {_VALUES}])",
    "polars": f"frame = polars.read_ndjson('\\n'.join({_VALUES}).encode()).to_pandas()",
    "DuckDB over exported NDJSON": f"""
with open(path + ".ndjson", "w") as out:
    for value in {_VALUES}:
        out.write(value + "\\n")
frame = duckdb.sql(f"FROM read_json_auto('{{path}}.ndjson', format='newline_delimited')").df()
os.unlink(path + ".ndjson")
""",
    "pqlog, messages": """
with pqlog.open(path, readonly=True) as log:
    frame = log.to_pandas()
""",
    "pqlog, sealed": """
with pqlog.open(path, readonly=True) as log:
    frame = log.to_pandas()
""",
    "pqlog, segments": """
with pqlog.open(path, readonly=True) as log:
    frame = log.to_pandas()
""",
}
PROGRAM = """
import json, sys, time
import pandas as pd
{prepare}
path, rows, fields = sys.argv[1], int(sys.argv[2]), sys.argv[3].split(",")

def peak():  # in MB; not ru_maxrss, which a process inherits from its parent
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024 / 1e6

before, start, cpu = peak(), time.perf_counter(), time.process_time()
{work}
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
assert len(frame) == rows, len(frame)
print(seconds, cpu, peak() - before)
"""


def _file(folder: Path, route: str, shape: str, rows: int) -> Path:
    kind = route.removeprefix("pqlog, ") if route.startswith("pqlog") else "plain"
    path = folder / f"routes-{kind}-{shape}-{rows}.db"
    if path.exists():
        return path
    make = SHAPES[shape]
    if kind == "plain":
        db = apsw.Connection(str(path))
        db.execute("CREATE TABLE plain (id INTEGER PRIMARY KEY, value TEXT)")
        with db:
            texts = ((json.dumps(make(n), ensure_ascii=False, separators=(",", ":")),) for n in range(rows))
            db.executemany("INSERT INTO plain (value) VALUES (?)", texts)
        db.close()
        return path
    with pqlog.open(path, seal=None) as log:
        if kind != "segments":
            log.put_many(make(n) for n in range(rows))
            if kind == "sealed":
                log.seal()
        else:
            for first in range(0, rows, 1_000_000):
                log.put_many(pd.DataFrame([make(n) for n in range(first, min(rows, first + 1_000_000))]))
    return path


def run(folder: Path, rounds: int, scale: float, largest: int = 1_000_000) -> Iterator[dict[str, object]]:
    """A row for each shape, number of rows and route; all routes in each round."""
    seen: set[tuple[str, int]] = set()
    for full in (100_000, 1_000_000, 10_000_000):
        for shape, make in SHAPES.items():
            rows = max(200, int(full * scale))
            if full > largest or (full > 1_000_000 and shape == "wide") or (shape, rows) in seen:
                continue
            seen.add((shape, rows))
            found: dict[str, list[list[float]]] = {route: [] for route in WORK}
            for _ in range(rounds if full <= 1_000_000 else 1):
                for route in WORK:
                    program = PROGRAM.format(prepare=PREPARE[route], work=WORK[route])
                    path = _file(folder, route, shape, rows)
                    done = subprocess.run(
                        [sys.executable, "-c", program, str(path), str(rows), ",".join(make(0))],
                        capture_output=True,
                        text=True,
                        check=False,
                    )
                    if done.returncode == 0:
                        found[route].append([float(word) for word in done.stdout.split()])
                    elif done.returncode != -9:  # killed because memory ran out
                        raise RuntimeError(f"{route}: {done.stderr}")
            for route, measured in found.items():
                seconds, cpu, memory = [list(one) for one in zip(*measured, strict=True)] or [[], [], []]
                yield {
                    "shape": shape,
                    "rows": rows,
                    "route": route,
                    "seconds": seconds,
                    "cpu_seconds": cpu,
                    "memory_mb": memory,
                }
            for path in folder.glob(f"routes-*-{rows}.db"):
                path.unlink()
