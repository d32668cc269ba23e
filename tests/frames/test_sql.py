"""`log.sql()`: DuckDB over the topics of a log, as over their frames."""

from unittest import mock

import duckdb
import pandas as pd
import pytest

import pqlog
from pqlog.errors import ArgumentError, MissingExtraError, UnknownTopicError
from pqlog.frames import segments
from pqlog.store.sqlite import sealing

QUERIES = [
    'select * from log order by "offset"',
    "select level, sum(ms), count(*) from log group by 1 order by 1",
    "select sum(ms) from log where \"offset\" > 90 and level = 'error'",
    "select count(*) from log",
    'select * from log where ms > 500 order by "offset" limit 3',
    "select ms from log where level like 'e%' order by 1 limit 3",
    "select count(*) from log where level in ('error', 'x')",
    'select ms from log order by "offset" desc limit 2',
    "select count(*) from log where ms * 2 > 300",
    "select count(*) from log where ms between 30 and 90 or level = 'info'",
    "select count(*) from log where level is null",
    "select count(*) from log a join log b using (ms)",
    "select o->>'x' from log order by ms limit 2",
    "select count(*) from log where _time > '2020-01-01'",
    "select max(_time) from log",
    "select _key, max(ms) from log group by all order by all",
    "from log select ms where f > 0.5 order by ms",
    "with late as (from log where ms > 900) select count(*) from late",
    "select count(*) from log where f is not null and not (f < 0.5)",
]


@pytest.fixture(params=["values", "sealed", "partitions", "frames"])
def log(request):
    log = pqlog.open(":memory:")
    topic = log if request.param != "partitions" else log.topic("log", partitions=3)
    levels = ["error", "info", None]
    values = [{"ms": n * 10, "level": levels[n % 3], "o": {"x": n}, "f": [None, 0.5, 1.5][n % 3]} for n in range(100)]
    for at in range(0, 100, 25):
        part = values[at : at + 25]
        frame = pd.DataFrame(part).assign(o='{"x": 7}') if request.param == "frames" else part
        topic.put_many(frame, key="level")
        if request.param == "sealed" and at < 75:
            with mock.patch.object(sealing, "LEAST", 1):
                topic.seal(before=at + 20)
    log.put_late = lambda: topic.put({"ms": 990, "level": "late"})
    return log


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_has_the_result_that_it_has_on_the_whole_frame(log, query):
    topic = log.topic("log") if "log" in log.topics() else log
    with duckdb.connect() as database:
        database.execute("set TimeZone = 'UTC'")
        database.register("log", topic.to_arrow())
        assert log.sql(query).fetchall() == database.sql(query).fetchall()


def test_what_was_put_just_now_is_there(log):
    before = log.sql("select count(*) from log")
    log.put_late()
    assert log.sql("select count(*) from log where level = 'late'").fetchall() == [(1,)]
    assert before.fetchall() == [(100,)]


def test_the_result_is_a_frame_of_any_kind(log):
    relation = log.sql("select ms from log where ms < 30 order by ms")
    assert relation.df()["ms"].tolist() == [0, 10, 20]
    assert relation.pl()["ms"].to_list() == [0, 10, 20]
    assert relation.to_arrow_table()["ms"].to_pylist() == [0, 10, 20]


def test_topics_are_tables():
    log = pqlog.open(":memory:", "events")
    log.put({"n": 1})
    log.topic("my topic").put({"n": 2})
    log.topic("Orders").put_many([{"n": 3}, {"n": 4}])
    for name, wanted in [("log", [1]), ("events", [1]), ('"my topic"', [2]), ("orders", [3, 4]), ("ORDERS", [3, 4])]:
        assert log.sql(f"select n from {name} order by n").fetchall() == [(n,) for n in wanted]
    query = 'select count(*) from log a, "my topic" b, Orders c'
    assert log.sql(query).fetchall() == [(2,)]
    assert len(log.sql("pivot Orders on n using count(*)").columns) == 4
    log.topic("log").put({"n": 9})
    assert log.sql("select n from log").fetchall() == [(9,)]
    with pytest.raises(UnknownTopicError, match="did you mean 'Orders'"):
        log.sql("select * from Order_")


def test_names_that_differ_in_case_only():
    log = pqlog.open(":memory:")
    log.put_many([{"a": 1, "A": 2}, {"a": 5, "A": 7}])
    assert log.sql('select "A_1" from log where "A_1" > 2 and a < 6').fetchall() == [(7,)]


def test_parameters_are_values():
    log = pqlog.open(":memory:")
    log.put_many([{"city": "Brno"}, {"city": "' or 1 = 1 --"}])
    assert log.sql("select count(*) from log where city = ?", ["' or 1 = 1 --"]).fetchall() == [(1,)]
    assert log.sql("select count(*) from log where city = $city", {"city": "Brno"}).fetchall() == [(1,)]


@pytest.mark.parametrize(
    "query",
    [
        "select * from '{}/secret.csv'",
        "select * from read_text('{}/secret.csv')",
        "copy (select 1) to '{}/written.csv'",
        "attach '{}/other.db'",
        "attach '{}/events.db' as e (type sqlite)",
        "install httpfs",
        "load '{}/x.duckdb_extension'",
        "set enable_external_access = true",
        "set lock_configuration = false",
        "export database '{}/out'",
        "select * from secret",
    ],
)
def test_a_query_reaches_nothing_but_the_log(query, tmp_path):
    (tmp_path / "secret.csv").write_text("a\n1\n")
    secret = pd.DataFrame({"a": [1]})
    with pqlog.open(tmp_path / "events.db") as log:
        log.put({"n": 1})
        before = sorted(path.name for path in tmp_path.iterdir())
        with pytest.raises(ArgumentError if "from secret" not in query else UnknownTopicError):
            log.sql(query.format(tmp_path)).fetchall()
        assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert len(secret) == 1


def test_external_access_is_possible_on_request(tmp_path):
    (tmp_path / "cities.csv").write_text("city,country\nBrno,CZ\n")
    log = pqlog.open(":memory:")
    log.put({"city": "Brno"})
    query = f"select country from log join '{tmp_path}/cities.csv' using (city)"
    assert log.sql(query, external_access=True).fetchall() == [("CZ",)]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("select nope from log", "nope"),
        ("selct 1", "syntax error"),
        ("select * from log where offset > 3", "double quotes"),
        ("", "has a result"),
        ("delete from log", "Can only delete"),
        ("insert into log values (1)", "not an table|not a table"),
        (3, "must be text"),
    ],
)
def test_what_is_wrong_with_a_query(query, said):
    log = pqlog.open(":memory:")
    log.put({"n": 1})
    with pytest.raises(ArgumentError, match=said):
        log.sql(query)
    assert len(log) == 1


def test_only_what_a_query_needs_is_read(monkeypatch, tmp_path):
    log = pqlog.open(tmp_path / "events.db")
    for _ in range(5):
        log.put_many(pd.DataFrame({"a": range(10), "b": range(10), "d": range(10)}))
    log.schema  # known from now on
    found = []
    original = segments.read
    monkeypatch.setattr(
        segments, "read", lambda row, name, columns: found.append((row.offset, columns)) or original(row, name, columns)
    )
    assert log.sql("select sum(b) from log").fetchall() == [(225,)]
    assert {columns for _, columns in found} == {frozenset("b")}
    found.clear()
    assert log.sql('select sum(b) from log where "offset" > 40 and a > 3').fetchall() == [(39,)]
    assert found == [(41, frozenset("a")), (41, frozenset("ab"))]


def test_a_closed_log_is_an_error_and_not_a_wrong_sum():
    log = pqlog.open(":memory:")
    log.put_many([{"n": 1}, {"n": 2}])
    relation = log.sql("select sum(n) from log")
    log.close()
    with pytest.raises((duckdb.Error, pqlog.Error)):
        relation.fetchall()


def test_it_needs_duckdb(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(MissingExtraError, match=r"pqlog\[sql\]"):
        pqlog.open(":memory:").sql("select 1")
