"""``python -m benchmarks PART``: what a sync costs on this disk, and where pqlog and its peers stand.

Parts: goals (the workloads that have a goal), fsync, growth (operations on small and large logs), latency, peers,
queries (sealed messages and Parquet), routes (from a log to pandas), stages, all; cluster (on Kafka; needs the extra
and `make build/kafka`, and is not in all); and draw, which draws the pictures of docs/ from stored results.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import fsync, growth, harness, latency, peers, queries, routes, stages, workloads

RESULTS = Path(__file__).parent / "results"


def _cluster(*arguments: Any, **more: Any) -> Iterator[dict[str, object]]:
    from benchmarks import cluster

    return cluster.run(*arguments, **more)


PARTS: dict[str, Callable[..., Iterator[dict[str, object]]]] = {
    "cluster": _cluster,
    "fsync": fsync.run,
    "growth": growth.run,
    "latency": latency.run,
    "peers": peers.run,
    "queries": queries.run,
    "routes": routes.run,
    "stages": stages.run,
}


def main(arguments: list[str] | None = None) -> int:
    """Run, print and save; returns 1 if a goal is not reached."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["goals", *PARTS, "all", "draw"], nargs="?", default="goals")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds; medians count (default 3)")
    parser.add_argument("--scale", type=float, default=1.0, help="amount of work; 1 is what the published figures need")
    parser.add_argument("--only", default="", help="for goals, peers and cluster: only what is named like this")
    parser.add_argument("--large", action="store_true", help="for growth, queries and routes: also 10,000,000 messages")
    parser.add_argument("--folder", type=Path, help="the disk to measure (default: this folder's)")
    parser.add_argument(
        "--results", type=Path, help="where to save (default: nowhere; benchmarks/results is for docs/)"
    )
    options = parser.parse_args(arguments)
    if options.part == "draw":
        from benchmarks import pictures

        pictures.draw(options.results or RESULTS, Path(__file__).parent.parent / "docs" / "pictures")
        return 0
    good = True
    for part in ["goals", *(part for part in PARTS if part != "cluster")] if options.part == "all" else [options.part]:
        with tempfile.TemporaryDirectory(dir=options.folder or Path.cwd(), prefix="bench-") as folder:
            machine = harness.machine(Path(folder))
            if part == "goals":
                results = workloads.run(Path(folder), options.rounds, options.scale, options.only)
                good = all(result.ok for result in results)
                rows = [result.as_dict() for result in results]
                shown = harness.table(results)
            else:
                more: dict[str, object] = {}
                if part in ("growth", "queries", "routes") and options.large:
                    more["largest"] = 10_000_000
                if part in ("peers", "cluster"):
                    more["only"] = options.only
                rows = []
                for row in _told(PARTS[part](Path(folder), options.rounds, options.scale, **more), part):
                    rows.append(row)
                    _save(part, machine, options, rows)  # an interrupted run keeps what it has measured
                shown = _table(rows)
        print(" ".join(f"{name}: {value};" for name, value in machine.items()))
        print(shown)
        _save(part, machine, options, rows)
    return 0 if good else 1


def _save(part: str, machine: dict[str, object], options: argparse.Namespace, rows: list[dict[str, object]]) -> None:
    if options.results:
        options.results.mkdir(parents=True, exist_ok=True)
        date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        found = {"machine": machine, "date": date, "rounds": options.rounds, "scale": options.scale, "rows": rows}
        (options.results / f"{part}.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def _told(rows: Iterable[dict[str, object]], part: str) -> Iterator[dict[str, object]]:
    for number, row in enumerate(rows, 1):
        print(f"\r{part}: {number} measured", end="", file=sys.stderr, flush=True)
        yield row
    print(file=sys.stderr)


def _table(rows: list[dict[str, object]]) -> str:
    """Rows for a terminal; lists of numbers are shown as their median and spread."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names] + [[_cell(row.get(name, "")) for name in names] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def _cell(value: object) -> str:
    if isinstance(value, list) and value and isinstance(value[0], (list, tuple)):
        return " / ".join(_cell(list(column)) for column in zip(*value, strict=True))
    if isinstance(value, list):
        if not value:
            return "-"
        return f"{_number(statistics.median(value))} ({_number(min(value))} to {_number(max(value))})"
    return _number(value) if isinstance(value, float) else str(value)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
