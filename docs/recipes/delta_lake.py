"""A Delta Lake table: its own log remembers the number of the last batch that was written to it.

Delta calls that an application transaction: the identifier is the log and the client, the version is the batch.

    python delta_lake.py events.db table
"""

import sys
from pathlib import Path

from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

import pqlog

CLIENT = "to-delta"


def load(log: pqlog.Log, table: str, size: int = 50_000) -> None:
    """Append what the client has not acknowledged to the table."""
    application = f"{log.uuid}/{log.name}/{CLIENT}"
    for batch in log.batches(CLIENT, size=size):
        written = None
        if Path(table, "_delta_log").exists():
            written = DeltaTable(table).transaction_version(application)
        if written is None or written < batch.number:
            once = CommitProperties(app_transactions=[Transaction(application, batch.number)])
            write_deltalake(table, batch.to_arrow(meta=False), mode="append", commit_properties=once)


if __name__ == "__main__":
    with pqlog.open(sys.argv[1]) as log:
        load(log, sys.argv[2], *map(int, sys.argv[3:]))
