"""``python -m tests.simulation --seconds 600``: a long random search for a power cut that breaks a promise."""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("PQLOG_CUTS", "4")

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.simulation import calls, group, lives, processes, story, syncs


def main() -> int:
    """Search until the time is up; returns 1 as soon as something is found."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    seconds = parser.parse_args().seconds
    until = time.monotonic() + seconds
    searches = {
        "cuts among threads": _threads,
        "cuts among processes": _processes,
        "failed syncs, then cuts": _syncs,
        "cuts in a row": _lives,
        "cuts within calls": _calls,
    }
    counts = {"stories": 0, "power cuts in stories": 0} | dict.fromkeys(searches, 0)
    while time.monotonic() < until:
        seed = random.SystemRandom().randrange(2**32)
        stories = settings(
            max_examples=50,
            stateful_step_count=60,
            deadline=None,
            derandomize=False,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        run_state_machine_as_test(story.Story, settings=stories)  # prints the shortest story that fails, and raises
        counts["stories"] += 50
        counts["power cuts in stories"] = story.counts["power cuts"]
        try:
            for name, search in searches.items():
                with tempfile.TemporaryDirectory() as folder:
                    counts[name] += search(Path(folder), random.Random(seed))
        except Exception:
            print(f"with seed {seed}:", file=sys.stderr)
            raise
        left = max(0, until - time.monotonic())
        print("; ".join(f"{count:,} {name}" for name, count in counts.items()), f"; {left:.0f} s left", flush=True)
    print("no promise was broken")
    return 0


def _threads(folder: Path, chance: random.Random) -> int:
    disk, puts = group.put_from_threads(folder, threads=8, each=20)
    group.check_cuts(disk, puts, chance, cuts=100)
    return 100


def _processes(folder: Path, chance: random.Random) -> int:
    disk = processes.put_from_processes(folder, chance.randrange(2**32))
    processes.check_cuts(disk, chance, cuts=100)
    return 100


def _syncs(folder: Path, chance: random.Random) -> int:
    killed, reader = chance.random() < 0.5, chance.random() < 0.5
    syncs.fail_a_sync(folder / "x", chance.randrange(12), killed, reader, chance, cuts=50)
    return 50


def _lives(folder: Path, chance: random.Random) -> int:
    for number in range(10):
        lives.cut_again_and_again(folder / str(number), chance, lives=20)
    return 200


def _calls(folder: Path, chance: random.Random) -> int:
    return calls.cut_a_call(folder, chance.choice(list(calls.CALLS)), chance, cuts=1)


if __name__ == "__main__":
    sys.exit(main())
