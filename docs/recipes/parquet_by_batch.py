"""Parquet files named after the batch: a batch that is processed again writes the same file again.

Each file has the types of its own messages: a field may be missing in one file, or have integers in one and fractions
in the next. Readers can find common types: DuckDB with ``union_by_name=true``, Polars with
``pl.concat(map(pl.scan_parquet, files), how="diagonal_relaxed")``, pandas with ``pd.concat`` of the files' frames.
``log.to_parquet(folder)`` uses one schema in all of its files instead.

python parquet_by_batch.py events.db folder
"""

import sys
from pathlib import Path

import pyarrow.parquet

import pqlog


def export(log: pqlog.Log, folder: Path, size: int = 50_000) -> None:
    """Write what the client has not acknowledged, one file per batch."""
    for batch in log.batches("to-parquet", size=size):
        path = folder / f"{batch.number:09}.parquet"
        partial = path.with_suffix(".partial")
        pyarrow.parquet.write_table(batch.to_arrow(), partial)
        partial.rename(path)  # complete or not at all


if __name__ == "__main__":
    with pqlog.open(sys.argv[1]) as log:
        export(log, Path(sys.argv[2]), *map(int, sys.argv[3:]))
