"""A DuckDB table, and beside it the batches that are in it: both in one transaction of DuckDB's.

A field that comes later becomes a column. Where numbers outgrow the type of their column, such as fractions that follow
integers, it gets a type that holds all of them; any other change of type is an error before anything of that batch is
stored. The same works with any database that has transactions.

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
    """Without the columns that are only null, whose type is not known yet; JSON text is DuckDB's JSON."""
    types = {field.name: field.type for field in frame.schema if field.type != pa.null()}
    types |= {field.name: pa.json_() for field in frame.schema if (field.metadata or {}).get(b"pqlog") == b"json"}
    return pa.table({name: frame[name].cast(of) for name, of in types.items()})


def fit(db: duckdb.DuckDBPyConnection) -> list[str]:
    """Let the table hold the frame exactly; the expressions for what goes into it."""
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
                f"the column {column} is {wanted}, and does not hold exactly what came now, which is {had}: give it a "
                f"type that holds both, as does ALTER TABLE events ALTER {column} TYPE JSON USING to_json({column}), "
                f"and run this again"
            )
    return expressions


def holds(db: duckdb.DuckDBPyConnection, table: str, column: str, had: str, wanted: str) -> bool:
    """Whether all numbers of a column come back from a type."""
    back = f"TRY_CAST(TRY_CAST({column} AS {wanted}) AS {had})"
    return db.execute(f"SELECT count(*) FROM {table} WHERE {back} IS DISTINCT FROM {column}").fetchone() == (0,)


if __name__ == "__main__":
    with pqlog.open(sys.argv[1]) as log:
        load(log, sys.argv[2], *map(int, sys.argv[3:]))
