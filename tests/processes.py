"""Other processes: scripts that are started, sent lines, waited for and killed.

A test that waits forever is ended by pytest-timeout; waiting for an end here has a deadline of its own, whose error
names the process. If an event signals something (a line, a thread's event), tests wait for that, not with `wait_until`.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

DEADLINE_S = 120


def python(script: str, *arguments: object) -> list[str]:
    """The command that runs a script."""
    return [sys.executable, "-c", script, *map(str, arguments)]


def run(script: str, *arguments: object, **options: Any) -> str:
    """The output of a script; fails if the script does, with its error."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "timeout": DEADLINE_S, **options}
    done = subprocess.run(python(script, *arguments), check=False, **options)
    assert done.returncode == 0, f"ended with {done.returncode}\n{done.stdout}{done.stderr or ''}"
    return str(done.stdout)


def run_until_killed(script: str, *arguments: object) -> None:
    """Run a script that kills itself; fails if it ends in another way."""
    done = subprocess.run(python(script, *arguments), check=False, timeout=DEADLINE_S)
    assert done.returncode == -signal.SIGKILL, f"ended with {done.returncode}"


def crashed(path: Path, puts: str) -> Path:
    """The write-ahead log of a log whose process died after these puts: they are in no other file."""
    run("import os, sys, pqlog\nlog = pqlog.open(sys.argv[1])\n" + puts + "\nos._exit(0)", path)
    return path.with_name(path.name + "-wal")


class Process(subprocess.Popen[str]):
    """A process that reads and prints lines. It is reaped even if the block is left with an exception."""

    def __init__(self, command: Sequence[str], **options: Any) -> None:
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, **options}
        super().__init__(command, **options)

    def line(self) -> str:
        """The next line that it prints, without the line end; empty if it has ended."""
        assert self.stdout is not None
        return self.stdout.readline().removesuffix("\n")

    def tell(self, line: str = "") -> None:
        """Send it a line."""
        assert self.stdin is not None
        self.stdin.write(line + "\n")
        self.stdin.flush()

    def finish(self, told: str | None = None) -> str:
        """Close its input and wait for its end; returns the output that was not read yet. Fails if the process does."""
        printed, said = self.communicate(told, timeout=DEADLINE_S)
        assert self.returncode == 0, f"ended with {self.returncode}\n{printed}{said or ''}"
        return str(printed)

    def kill_and_read(self) -> list[str]:
        """Kill it; returns the lines that were not read yet. The last may be incomplete, without a line end."""
        with self:
            self.kill()
            return [] if self.stdout is None else self.stdout.readlines()

    @property
    def was_killed(self) -> bool:
        """Whether it is still running."""
        return self.returncode == -signal.SIGKILL

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, error, trace)


def start(script: str, *arguments: object, **options: Any) -> Process:
    """A script in a process of its own."""
    return Process(python(script, *arguments), **options)


def wait_until(condition: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
    """Poll for what no event signals: what another process did, how far a client is."""
    until = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < until, f"{condition} did not come true within {deadline_s} s"
        time.sleep(0.001)
