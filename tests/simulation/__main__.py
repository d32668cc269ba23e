"""``python -m tests.simulation --seconds 600``: a long and random search for a power cut that breaks a promise."""

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

from tests.simulation import group, story, syncs


def main() -> int:
    """Search until the time is up; 1 as soon as something is found."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    seconds = parser.parse_args().seconds
    until = time.monotonic() + seconds
    counts = {"stories": 0, "power cuts in stories": 0, "cuts among threads": 0, "failed syncs, then cuts": 0}
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
            counts["cuts among threads"] += _threads(seed)
            counts["failed syncs, then cuts"] += _syncs(seed)
        except Exception:
            print(f"with seed {seed}:", file=sys.stderr)
            raise
        left = max(0, until - time.monotonic())
        print("; ".join(f"{count:,} {name}" for name, count in counts.items()), f"; {left:.0f} s left", flush=True)
    print("no promise was broken")
    return 0


def _threads(seed: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        disk, puts = group.put_from_threads(Path(folder), threads=8, each=20)
        group.check_cuts(disk, puts, random.Random(seed), cuts=100)
    return 100


def _syncs(seed: int) -> int:
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        killed, reader = chance.random() < 0.5, chance.random() < 0.5
        syncs.fail_a_sync(Path(folder, "x"), chance.randrange(12), killed, reader, chance, cuts=50)
    return 50


if __name__ == "__main__":
    sys.exit(main())
