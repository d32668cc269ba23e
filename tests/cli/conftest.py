"""A shell in a folder with a log, and the command `pqlog` on its path."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pqlog

ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "COLUMNS": "100",
    "NO_COLOR": "1",
}


@pytest.fixture
def folder(tmp_path):
    """A folder with events.db: six messages, and a client that has read two of them."""
    with pqlog.open(tmp_path / "events.db") as log:
        log.put({"city": "Brno", "amount": 12.5}, key="cz", headers={"source": "till-3"})
        log.put_many({"city": city, "amount": n} for n, city in enumerate(["Praha", "Wien", "Brno", "Praha", "Graz"]))
        for value in log.get("billing"):
            if value["city"] == "Wien":
                break
    return tmp_path


@pytest.fixture
def sh(folder):
    """Run a line in bash, in that folder."""

    def run(line, stdin="", code=0, **environment):
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {line}"],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=folder,
            env={**ENVIRONMENT, **environment},
            timeout=120,
        )
        assert done.returncode == code, f"{done.returncode}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout if code in (0, 141) else done.stderr

    return run
