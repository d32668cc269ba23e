"""``python -m benchmarks``: pqlog's main workloads beside this disk's own speed, and beside the usual way to pandas."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
from pathlib import Path

from benchmarks import harness, workloads


def main(arguments: list[str] | None = None) -> int:
    """Run, print, save; 1 if a needed ratio is not reached."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds; medians count (default 5)")
    parser.add_argument("--scale", type=float, default=1.0, help="how much work, 1 is what the figures need")
    parser.add_argument("--only", default="", help="workloads whose name contains this")
    parser.add_argument("--folder", type=Path, help="the disk to measure (default: this folder's)")
    parser.add_argument("--json", type=Path, help="write the results there")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder or Path.cwd(), prefix="bench-") as folder:
        results = workloads.run(Path(folder), options.rounds, options.scale, options.only)
        machine = harness.machine(Path(folder))
    print(" ".join(f"{name}: {value};" for name, value in machine.items()))
    print(harness.table(results))
    if options.json:
        found = {
            "machine": machine,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "results": [result.as_dict() for result in results],
        }
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0 if all(result.ok for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
