"""Measuring: each round measures the disk first, then each workload; the result is their ratio in that round."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import apsw

BLOCK = 4096
BLOCKS = 1024


def sync_rate(folder: Path, count: int) -> float:
    """How many times per second this disk makes 4 KiB durable: ``pwrite`` and ``fdatasync`` on a preallocated file."""
    path = folder / "disk.bin"
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if os.fstat(file).st_size < BLOCK * BLOCKS:
            for block in range(BLOCKS):
                os.pwrite(file, b"\0" * BLOCK, block * BLOCK)
            os.fsync(file)
        data = os.urandom(BLOCK)
        start = time.perf_counter()
        for i in range(count):
            os.pwrite(file, data, i % BLOCKS * BLOCK)
            os.fdatasync(file)
        return count / (time.perf_counter() - start)
    finally:
        os.close(file)


def beside_the_disk(folder: Path, bursts: int, syncs: int, work: Callable[[], int]) -> tuple[float, float]:
    """The rates of `work`, which returns how much it did, and of the disk, in turns: the disk drifts within seconds."""
    done = took = synced = 0.0
    for _ in range(bursts):
        synced += syncs / sync_rate(folder, syncs)
        start = time.perf_counter()
        done += work()
        took += time.perf_counter() - start
    return done / took, bursts * syncs / synced


@dataclass
class Result:
    """A workload's rounds.

    `rates` are in units per second; `limits` are what each is compared to, measured in the same round.
    """

    name: str
    unit: str
    need: str
    rates: list[float] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)
    needed: float = 0.0
    absolute: float | None = None
    """The rate that is needed if the disk makes 8,000 syncs/s; None if the ratio itself is the goal."""
    less: bool = False
    """Whether the measured value must stay below the limit instead of above; the ratio is then limit / value."""

    @property
    def ratios(self) -> list[float]:
        """Each round's rate divided by its limit, or by the rate needed at that round's disk speed, if one is given."""
        if self.less:
            return [limit / rate for rate, limit in zip(self.rates, self.limits, strict=True)]
        if self.absolute is None:
            return [rate / limit for rate, limit in zip(self.rates, self.limits, strict=True)]
        return [
            rate / (self.absolute * min(1.0, limit / 8000)) for rate, limit in zip(self.rates, self.limits, strict=True)
        ]

    @property
    def ok(self) -> bool:
        """Whether the median reaches the goal."""
        return statistics.median(self.ratios) >= self.needed

    def as_dict(self) -> dict[str, object]:
        """The result for the JSON file."""
        ratios = self.ratios
        return {
            "name": self.name,
            "unit": self.unit,
            "need": self.need,
            "rate_median": statistics.median(self.rates),
            "ratio_median": statistics.median(ratios),
            "ratio_min": min(ratios),
            "ratio_max": max(ratios),
            "needed": self.needed,
            "ok": self.ok,
            "rates": self.rates,
            "limits": self.limits,
        }


def timed(work: Callable[[], object], count: float) -> float:
    """`count` divided by the seconds that `work` takes."""
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def machine(folder: Path) -> dict[str, object]:
    """The machine that the figures were measured on."""
    model = ""
    if os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    disk = subprocess.run(["df", "-T", str(folder)], capture_output=True, text=True, check=False).stdout.splitlines()
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "filesystem": disk[-1].split()[1] if disk else "",
        "python": sys.version.split()[0],
        "sqlite": apsw.sqlite_lib_version(),
        "apsw": apsw.apsw_version(),
    }


def table(results: Iterable[Result]) -> str:
    """The results for a terminal."""
    rows = [("workload", "median", "spread of ratio", "ratio", "needed", "")]
    for result in results:
        ratios = result.ratios
        rows.append(
            (
                result.name,
                f"{statistics.median(result.rates):,.0f} {result.unit}",
                f"{min(ratios):.2f} .. {max(ratios):.2f}",
                f"{statistics.median(ratios):.2f}",
                f"{result.needed:g} x {result.need}",
                "ok" if result.ok else "BELOW",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
