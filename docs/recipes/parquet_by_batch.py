"""Parquet files named by the batch: a batch that comes again writes the same file again.

python parquet_by_batch.py events.db folder
"""

import sys
from pathlib import Path

import pqlog


def export(log: pqlog.Log, folder: Path, size: int = 50_000) -> None:
    """Write what the client has not acknowledged, a file a batch."""
    for batch in log.batches("to-parquet", size=size):
        path = folder / f"{batch.number:09}.parquet"
        partial = path.with_suffix(".partial")
        batch.to_pandas().to_parquet(partial)
        partial.rename(path)  # whole or not at all


if __name__ == "__main__":
    with pqlog.open(sys.argv[1]) as log:
        export(log, Path(sys.argv[2]), *map(int, sys.argv[3:]))
