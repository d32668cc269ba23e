"""Rows of the small tables, changed as pqlog itself would: with their checksum."""

import apsw

from pqlog.store.sqlite import smallrows


def change(db: apsw.Connection, table: str, where: str = "1", **new: str) -> None:
    """Set columns of some rows to SQL expressions, in a file whose log is closed or in use."""
    seed = db.execute("SELECT value FROM file WHERE name = 'seed'").get
    assert isinstance(seed, int)
    smallrows.register(db, seed)
    changed = ", ".join(f"{column} = {value}" for column, value in new.items())
    db.execute(f"UPDATE {table} SET {changed}, crc = {smallrows.sum_of(table, **new)} WHERE {where}")
