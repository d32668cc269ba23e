"""docs/file-format.md describes the file as it is."""

import re
import zlib
from pathlib import Path

import apsw
import pandas as pd

import pqlog
from tests.processes import run

PAGE = (Path(pqlog.__file__).parent.parent / "docs" / "file-format.md").read_text()


def make(path):
    with pqlog.open(path) as log:
        log.put_many([{"city": "Brno", "amount": n} for n in range(600)], key="city")
        log.put({"city": "Praha", "amount": 1}, headers={"a": "b"}, id="x")
        log.put_many(pd.DataFrame({"n": [1, 2, 3]}), key="n")
        log.put_many([{"amount": 5}] * 3, cursor=("source", 1, None))
        for value in log.get("billing"):
            if value["amount"] == 9:
                break
        next(log.batches("etl"))
        log.trim(before=5, force=True)


def test_every_table_and_column_is_described(path):
    make(path)
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
        columns = [column for (column,) in db.execute("SELECT name FROM pragma_table_info(?)", (name,))]
        if name.startswith("messages_"):
            assert all(f"| `{column}` |" in PAGE for column in columns)
        else:
            line = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
            assert all(f"`{column}`" in line for column in columns), name
    assert db.pragma("application_id") == 0x70716C67
    assert db.pragma("user_version") == 1
    facts = [name for (name,) in db.execute("SELECT name FROM file")]
    assert all(f"`{name}`" in PAGE for name in facts)
    db.close()


def test_its_sql_runs_in_plain_sqlite(path):
    make(path)
    (sql,) = re.findall(r"```sql\n(.*?)```", PAGE, re.S)
    script = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
for sql in sys.argv[2:]:
    print(db.execute(sql).fetchall())
"""
    statements = [part for part in sql.split(";") if part.strip()]
    topics, last, cities, lag = map(eval, run(script, path, *statements).splitlines())
    assert topics == [(1, "main", "json", 5)]
    assert len(last) == 10
    assert {city: count for city, count, _ in cities} == {"Brno": 596, "Praha": 1, None: 3}
    assert dict(lag) == {"billing": 598, "etl": 607}


def test_the_checksums_are_as_described(path):
    make(path)
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    seed = db.execute("SELECT value FROM file WHERE name = 'seed'").get
    values, since, seen = 0, [], 0
    for time, key, headers, value, rows, crc in db.execute(
        "SELECT time, key, headers, CAST(value AS BLOB), rows, crc FROM messages_1 ORDER BY offset"
    ):
        values = zlib.crc32(value + b"\n", values)
        since.append((time, key, headers))
        if crc is None:
            continue
        both = (crc + 2**63) ^ seed
        assert both & 0xFFFFFFFF == values
        keys = "\n".join("-" if key is None else f"+{key}" for _, key, _ in since)
        some = any(key is not None for _, key, _ in since)
        text = f"{time}\n{headers or ''}\n{keys if some else ''}" + ("" if rows is None else f"\n{rows}")
        assert both >> 32 == zlib.crc32(text.encode())
        since, seen = [], seen + 1
    assert seen == 6
    db.close()


def test_the_checksums_of_the_small_tables_are_as_described(path):
    make(path)
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    seed = db.execute("SELECT value FROM file WHERE name = 'seed'").get
    for table in ("file", "topics", "clients", "claims", "id_runs", "cursors"):
        rows = db.execute(f"SELECT * FROM {table}").fetchall()
        assert rows
        assert [column for column, _ in db.execute(f"SELECT * FROM {table}").get_description()][-1] == "crc"
        for *values, crc in rows:
            text = "\n".join(str(value) for value in (table, *values) if value is not None)
            assert crc == zlib.crc32(text.encode()) ^ (0 if table == "file" else seed & 0xFFFFFFFF)
    db.close()
