"""``python -m tests.smoke``: the sdist and the wheel, and the wheel in fresh environments: bare, and with each extra.

Each extra must work by itself, and the error must name what is missing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent

CORE = """
import importlib.util, pqlog
with pqlog.open("smoke.db") as log:
    assert log.put({"n": 1}) == 1
    assert log.put_many({"n": n} for n in range(2, 1000)) == pqlog.Put(2, 999, 998)
    assert sum(value["n"] for value in log.get("client")) == 999 * 1000 // 2
    for batch in log.batches("stage"):
        batch.put_many([value["n"] for value in batch], topic="out")
    assert log.verify() == []

def missing(call, extra):
    try:
        call()
    except pqlog.MissingExtraError as error:
        assert f'pip install "pqlog[{extra}]"' in str(error), error
    else:
        raise AssertionError(f"{extra} is not missing")
log = pqlog.open("smoke.db")
"""

# By extra: what must work with only that extra installed.
WORKS = {
    "": """
for package in ("pandas", "numpy", "pyarrow", "typer", "ipywidgets"):
    assert importlib.util.find_spec(package) is None, package
missing(log.to_pandas, "pandas")
missing(log.to_polars, "pandas")
missing(log.explore, "notebook")
missing(lambda: pqlog.open("kafka://127.0.0.1:9/etl"), "kafka")
missing(lambda: log.client("c").pipe(len), "pandas")
import subprocess, sys, pathlib
command = [pathlib.Path(sys.executable).with_name("pqlog"), "topics", "smoke.db"]
done = subprocess.run(command, capture_output=True, text=True)
assert done.returncode == 1 and 'pip install "pqlog[cli]"' in done.stderr, done
""",
    "cli": """
import subprocess, sys, pathlib
def pqlog_(*arguments):
    command = [str(pathlib.Path(sys.executable).with_name("pqlog")), *arguments]
    return subprocess.run(command, capture_output=True, text=True)
assert pqlog_("get", "smoke.db", "--limit", "1").stdout == '{"n":1}\\n'
assert "is intact" in pqlog_("verify", "smoke.db").stdout
assert 'pip install "pqlog[pandas]"' in pqlog_("export", "smoke.db", "a.csv").stderr
assert 'pip install "pqlog[lab]"' in pqlog_("explore", "smoke.db").stderr
assert 'pip install "pqlog[demo]"' in pqlog_("demo").stderr
""",
    "pandas": """
import pandas
frame = log.to_pandas(metadata=False)
assert frame["n"].tolist() == list(range(1, 1000))
topic = log.topic("frames")
topic.put_many(frame)
assert topic.to_pandas(metadata=False).equals(frame)
assert len(log.to_parquet("dataset")) == 1
assert log.client("c").pipe(lambda frame: frame, into="copy", progress=True).messages_out == 999
missing(log.to_polars, "polars")
missing(log.to_dask, "dask")
missing(log.explore, "notebook")
""",
    "polars": """
frame = log.to_polars(metadata=False)
assert frame["n"].to_list() == list(range(1, 1000))
topic = log.topic("frames")
topic.put_many(frame)
assert topic.to_polars(metadata=False).equals(frame)
missing(log.to_pandas, "pandas")
""",
    "sql": """
assert log.history(where="n > 990").count() == 9
assert log.sql("select sum(n) from log").fetchall() == [(999 * 1000 // 2,)]
""",
    "dask": """
assert log.to_dask()["n"].sum().compute() == 999 * 1000 // 2
missing(lambda: log.history(where="n > 990"), "sql")
missing(lambda: log.sql("select 1"), "sql")
""",
    "notebook": """
explorer = log.explore()
explorer.search("n = 7")
assert explorer.frame["n"].tolist() == [7]
assert "smoke.db" in log._repr_html_()
""",
    "lab": """
assert importlib.util.find_spec("jupyterlab")
log.explore()
""",
    "kafka": """
try:
    pqlog.open("kafka://127.0.0.1:9/etl", timeout=2)
except pqlog.ClusterError as error:  # nobody listens there
    assert "127.0.0.1:9" in str(error), error
missing(log.to_pandas, "pandas")
""",
    "demo": """
log.close()
from pqlog import demo
assert demo.main(["--folder", "demo"]) == 0
""",
    "all": """
log.to_pandas(); log.to_polars(); log.explore()
log.close()
import subprocess, sys, pathlib
command = [pathlib.Path(sys.executable).with_name("pqlog"), "demo", "--folder", "demo"]
subprocess.run(command, check=True)
""",
}


def build(folder: Path) -> Path:
    """Build the sdist, and the wheel from it."""
    subprocess.run([sys.executable, "-m", "build", "--quiet", "--outdir", str(folder), str(ROOT)], check=True)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "pqlog/py.typed", "pqlog/cli/app.py"} <= names, names
    assert not any(name.startswith(("tests", "notebooks", ".ci")) for name in names), names
    return wheel


def extras() -> set[str]:
    """The extras that pyproject.toml offers."""
    text = (ROOT / "pyproject.toml").read_text()
    section = text.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    return set(re.findall(r"^(\w+) =", section, re.M))


def try_extra(wheel: Path, extra: str, folder: Path) -> str:
    """Install the wheel with an extra into an environment of its own, and use it."""
    start = time.monotonic()
    venv.create(folder / "venv", with_pip=False)  # that of this environment installs into it, which saves seconds
    python = str(folder / "venv" / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python]
    what = f"{wheel}[{extra}]" if extra else str(wheel)
    for command, cwd in (
        ([*pip, "install", "--quiet", "--no-compile", what], ROOT),  # where the constraints are
        ([*pip, "check"], ROOT),
        ([python, "-W", "error", "-c", CORE + WORKS[extra]], folder),
    ):
        done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise RuntimeError(f"pqlog[{extra}]: {command[:5]} failed:\n{done.stdout}")
    return f"pqlog{f'[{extra}]' if extra else ''} works ({time.monotonic() - start:.0f} s)"


def main() -> int:
    """Build, install and try each."""
    assert extras() == set(WORKS) - {""}, "an extra has no smoke test"
    with tempfile.TemporaryDirectory() as name:
        wheel = build(Path(name))
        print(f"built {wheel.name}", flush=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # pip installs with one processor
            for done in pool.map(lambda extra: try_extra(wheel, extra, Path(name, extra or "bare")), reversed(WORKS)):
                print(done, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
