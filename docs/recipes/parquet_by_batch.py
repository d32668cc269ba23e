"""Parquet files named by the batch: a batch that comes again writes the same file again.

Each file has the types of its own messages: a field may be missing in some, or be integers in one and fractions in the
next. Readers find types for all of them where they are told to: DuckDB with ``union_by_name=true``, Polars with
``pl.concat(map(pl.scan_parquet, files), how="diagonal_relaxed")``, pandas with ``pd.concat`` of the files' frames.
``log.to_parquet(folder)`` keeps one schema in all its files instead.

python parquet_by_batch.py events.db folder
"""

import sys
from pathlib import Path

import pyarrow.parquet

import pqlog


def export(log: pqlog.Log, folder: Path, size: int = 50_000) -> None:
    """Write what the client has not acknowledged, a file a batch."""
    for batch in log.batches("to-parquet", size=size):
        path = folder / f"{batch.number:09}.parquet"
        partial = path.with_suffix(".partial")
        pyarrow.parquet.write_table(batch.to_arrow(), partial)
        partial.rename(path)  # whole or not at all


if __name__ == "__main__":
    with pqlog.open(sys.argv[1]) as log:
        export(log, Path(sys.argv[2]), *map(int, sys.argv[3:]))
