"""A DuckDB table, and a table of the batches that are in it, written in one DuckDB transaction.

A new field becomes a new column. If numbers do not fit the type of their column, such as fractions after integers, the
column gets a type that holds all of them. Any other change of type is an error before the batch is stored. The same
works with any database that has transactions.

    python duckdb_table.py events.db warehouse.duckdb
"""

import sys

import duckdb
import pyarrow as pa

import pqlog

INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"}
NUMBERS = INTEGERS | {"FLOAT", "DOUBLE"}


def load(log: pqlog.Log, database: str, size: int = 50_000) -> None:
    """Append what the client has not acknowledged to the table `events`."""
    with duckdb.connect(database) as db:
        db.execute("CREATE TABLE IF NOT EXISTS batches (token TEXT PRIMARY KEY)")
        for batch in log.batches("to-duckdb", size=size):
            db.register("frame", typed(batch.to_arrow()))
            db.begin()
            if not db.execute("SELECT 1 FROM batches WHERE token = ?", [batch.token]).fetchone():
                db.execute("CREATE TABLE IF NOT EXISTS events AS FROM frame LIMIT 0")
                db.execute(f"INSERT INTO events BY NAME SELECT {', '.join(fit(db))} FROM frame")
                db.execute("INSERT INTO batches VALUES (?)", [batch.token])
            db.commit()


def typed(frame: pa.Table) -> pa.Table:
    """Drop columns that are all null, whose type is not known yet; JSON text becomes DuckDB's JSON type."""
    types = {field.name: field.type for field in frame.schema if field.type != pa.null()}
    types |= {field.name: pa.json_() for field in frame.schema if (field.metadata or {}).get(b"pqlog") == b"json"}
    return pa.table({name: frame[name].cast(of) for name, of in types.items()})


def fit(db: duckdb.DuckDBPyConnection) -> list[str]:
    """Change the table so that it can hold the frame exactly; return the expressions to select from the frame."""
    expressions = []
    types = "SELECT column_name, column_type FROM (DESCRIBE {})"
    table = dict(db.execute(types.format("events")).fetchall())
    for name, had in db.execute(types.format("frame")).fetchall():
        column, wanted = '"' + name.replace('"', '""') + '"', table.get(name, had)
        expressions.append(column)
        if name not in table:
            db.execute(f"ALTER TABLE events ADD COLUMN {column} {had}")
        elif wanted == "JSON" != had:
            expressions[-1] = f"to_json({column}) AS {column}"
        elif wanted == had or ({wanted, had} <= NUMBERS and holds(db, "frame", column, had, wanted)):
            pass
        elif {wanted, had} <= NUMBERS and holds(db, "events", column, wanted, had):
            db.execute(f"ALTER TABLE events ALTER {column} TYPE {had}")
        else:
            raise TypeError(
                f"the column {column} is {wanted} and cannot hold the new values exactly, which are {had}: give it "
                f"a type that holds both, such as ALTER TABLE events ALTER {column} TYPE JSON USING to_json({column}), "
                f"and run this again"
            )
    return expressions


def holds(db: duckdb.DuckDBPyConnection, table: str, column: str, had: str, wanted: str) -> bool:
    """Whether all numbers of a column survive a conversion to a type and back."""
    back = f"TRY_CAST(TRY_CAST({column} AS {wanted}) AS {had})"
    return db.execute(f"SELECT count(*) FROM {table} WHERE {back} IS DISTINCT FROM {column}").fetchone() == (0,)


if __name__ == "__main__":
    with pqlog.open(sys.argv[1]) as log:
        load(log, sys.argv[2], *map(int, sys.argv[3:]))
