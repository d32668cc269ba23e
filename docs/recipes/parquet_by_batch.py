"""Parquet files named after the batch: a batch that is processed again writes the same file again.

The name is the client's epoch and the number of the batch. If the client is deleted and created again, its batches are
numbered from 1 again, but in another epoch: older files stay as they are.

Each file has the types of its own messages: a field may be missing in one file, or have integers in one and fractions
in the next. Readers can find common types: DuckDB with ``union_by_name=true``, Polars with
``pl.concat(map(pl.scan_parquet, files), how="diagonal_relaxed")``, pandas with ``pd.concat`` of the files' frames.
``log.to_parquet(folder)`` uses one schema in all of its files instead.

python parquet_by_batch.py events.db folder
"""

import os
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

import pqlog


def export(log: pqlog.Log, folder: Path, size: int = 50_000) -> None:
    """Write what the client has not acknowledged, one file per batch."""
    for batch in log.batches("to-parquet", size=size):
        epoch, number = map(int, batch.token.split("/")[-2:])
        write(batch.to_arrow(), folder / f"{epoch:06}-{number:09}.parquet")


def write(table: pa.Table, path: Path) -> None:
    """Write a file that appears complete or not at all, and that survives a power cut once this returns."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        pyarrow.parquet.write_table(table, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    if os.name == "posix":  # the name too
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


if __name__ == "__main__":
    with pqlog.open(sys.argv[1]) as log:
        export(log, Path(sys.argv[2]), *map(int, sys.argv[3:]))
