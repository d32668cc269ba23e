"""A DuckDB table, and beside it the batches that are in it: both in one transaction of DuckDB's.

The same works with any database that has transactions.

    python duckdb_table.py events.db warehouse.duckdb
"""

import sys

import duckdb

import pqlog


def load(log: pqlog.Log, database: str, size: int = 50_000) -> None:
    """Append what the client has not acknowledged to the table `events`."""
    with duckdb.connect(database) as db:
        db.execute("CREATE TABLE IF NOT EXISTS batches (token TEXT PRIMARY KEY)")
        for batch in log.batches("to-duckdb", size=size):
            frame = batch.to_arrow(meta=False)
            db.register("frame", frame)
            db.begin()
            if not db.execute("SELECT 1 FROM batches WHERE token = ?", [batch.token]).fetchone():
                db.execute("CREATE TABLE IF NOT EXISTS events AS FROM frame LIMIT 0")
                db.execute("INSERT INTO events BY NAME FROM frame")
                db.execute("INSERT INTO batches VALUES (?)", [batch.token])
            db.commit()


if __name__ == "__main__":
    with pqlog.open(sys.argv[1]) as log:
        load(log, sys.argv[2], *map(int, sys.argv[3:]))
