"""Other processes: scripts that are started, told something, waited for and killed.

A test that waits forever is ended by pytest-timeout; what waits here for an end has a deadline of its own, and says of
what. Where something tells that it happened (a line, a thread's event), tests wait for that, and not with `wait_until`.
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
    """What a script prints; fails where the script does, with what it said."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "timeout": DEADLINE_S, **options}
    done = subprocess.run(python(script, *arguments), check=False, **options)
    assert done.returncode == 0, f"ended with {done.returncode}\n{done.stdout}{done.stderr or ''}"
    return str(done.stdout)


def run_until_killed(script: str, *arguments: object) -> None:
    """Run a script that kills itself; fails where it ends otherwise."""
    done = subprocess.run(python(script, *arguments), check=False, timeout=DEADLINE_S)
    assert done.returncode == -signal.SIGKILL, f"ended with {done.returncode}"


def crashed(path: Path, puts: str) -> Path:
    """The write-ahead log of a log whose process died behind these puts: they are in no other file."""
    run("import os, sys, pqlog\nlog = pqlog.open(sys.argv[1])\n" + puts + "\nos._exit(0)", path)
    return path.with_name(path.name + "-wal")


class Process(subprocess.Popen[str]):
    """A process that is told lines and prints lines. Left with an exception, or killed, it is reaped as well."""

    def __init__(self, command: Sequence[str], **options: Any) -> None:
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, **options}
        super().__init__(command, **options)

    def line(self) -> str:
        """The next line that it prints, without its end; empty if it has ended."""
        assert self.stdout is not None
        return self.stdout.readline().removesuffix("\n")

    def tell(self, line: str = "") -> None:
        """Send it a line."""
        assert self.stdin is not None
        self.stdin.write(line + "\n")
        self.stdin.flush()

    def finish(self, told: str | None = None) -> str:
        """Tell it the last, and wait until it has ended; what it printed that nobody read. Fails where it fails."""
        printed, said = self.communicate(told, timeout=DEADLINE_S)
        assert self.returncode == 0, f"ended with {self.returncode}\n{printed}{said or ''}"
        return str(printed)

    def kill_and_read(self) -> list[str]:
        """Kill it; the lines that it had printed, and nobody read. The last may be incomplete: it has no end then."""
        with self:
            self.kill()
            return [] if self.stdout is None else self.stdout.readlines()

    @property
    def was_killed(self) -> bool:
        """Whether it has not ended by itself."""
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
    """Ask again and again, for what nothing tells: what another process did, how far a client is."""
    until = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < until, f"{condition} did not come true within {deadline_s} s"
        time.sleep(0.001)
