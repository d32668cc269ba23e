"""`history(where=)`: only messages that a predicate is true of, equal to filtering all of them."""

import datetime as dt
import operator
import re
from unittest import mock

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pqlog
from pqlog.errors import ArgumentError, MissingExtraError, UncountedError
from pqlog.frames import segments
from pqlog.history import History
from pqlog.store import sealed as sealed_pieces
from pqlog.store.sqlite import sealing

NAMES = ["a", "b", "c.x", "value", '"odd ""name"']
TEXTS = st.sampled_from(["", "a", "b", "error", "Brno", "%", "x\ny", "é"])
NUMBERS = st.sampled_from([0, 1, -1, 2, 3, 2**53, 2**53 + 1, 2**63 - 1, 2**70, 0.5, 1.0, -2.5, 1e300, 2.0**53])
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=2), st.fixed_dictionaries({}, optional={"x": SCALARS}))
OBJECTS = st.fixed_dictionaries(
    {}, optional={"a": VALUES, "b": SCALARS, "c": VALUES, "value": SCALARS, 'odd "name': SCALARS}
)
MESSAGES = st.lists(st.one_of(OBJECTS, OBJECTS, OBJECTS, SCALARS.filter(lambda v: v is not None)), max_size=30)

COMPARISONS = {
    "=": operator.eq, "<>": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge
}  # fmt: skip


# A second implementation, of one message at a time: conditions are pairs of a text and a function of a message.


def sql(value):
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return repr(value)


def field(name):
    def of(message):
        value = message if isinstance(message, dict) else {"value": message}
        names = ['odd "name'] if name.startswith('"') else name.split(".")
        for part in names:
            value = value.get(part) if isinstance(value, dict) else None
        return value

    return of


def kind(value):
    for of in (bool, (int, float), str):
        if isinstance(value, of):
            return of
    return None


def compared(sign, one, other):
    if one is None or other is None:
        return None
    if kind(one) is None:
        return sign == "<>" if sign in ("=", "<>") else None
    if kind(one) != kind(other):
        return {"=": False, "<>": True}.get(sign)
    return COMPARISONS[sign](one, other)


@st.composite
def comparisons(draw):
    name, sign, value = draw(st.sampled_from(NAMES)), draw(st.sampled_from(list(COMPARISONS))), draw(SCALARS)
    if draw(st.booleans()):
        return f"{name} {sign} {sql(value)}", lambda m: compared(sign, field(name)(m), value)
    return f"{sql(value)} {sign} {name}", lambda m: compared(sign, value, field(name)(m))


@st.composite
def nulls(draw):
    name = draw(st.sampled_from(NAMES))
    return f"{name} is null", lambda m: field(name)(m) is None


@st.composite
def among(draw):
    name, values = draw(st.sampled_from(NAMES)), draw(st.lists(SCALARS, min_size=1, max_size=4))

    def test(message):
        found = [compared("=", field(name)(message), value) for value in values]
        return True if True in found else None if None in found else False

    return f"{name} in ({', '.join(map(sql, values))})", test


@st.composite
def likes(draw):
    name, pattern = draw(st.sampled_from(NAMES)), draw(st.sampled_from(["%", "a%", "_", "%r%", "Brno", "x_y", ".*"]))
    regex = "".join({"%": ".*", "_": "."}.get(c, re.escape(c)) for c in pattern)

    def test(message):
        value = field(name)(message)
        return bool(re.fullmatch(regex, value, re.S)) if isinstance(value, str) else None

    return f"{name} like {sql(pattern)}", test


@st.composite
def betweens(draw):
    name, low, high = draw(st.sampled_from(NAMES)), draw(NUMBERS), draw(NUMBERS)

    def test(message):
        return all3(compared(">=", field(name)(message), low), compared("<=", field(name)(message), high))

    return f"{name} between {low!r} and {high!r}", test


def all3(one, other):
    return False if False in (one, other) else None if None in (one, other) else True


def not3(one):
    return None if one is None else not one


def combined(inner):
    return st.one_of(
        inner.map(lambda c: (f"not ({c[0]})", lambda m: not3(c[1](m)))),
        st.tuples(inner, inner).map(lambda p: (f"({p[0][0]}) and ({p[1][0]})", lambda m: all3(p[0][1](m), p[1][1](m)))),
        st.tuples(inner, inner).map(
            lambda p: (f"({p[0][0]}) or ({p[1][0]})", lambda m: not3(all3(not3(p[0][1](m)), not3(p[1][1](m)))))
        ),
        inner.map(lambda c: (f"({c[0]}) is true", lambda m: c[1](m) is True)),
    )


CONDITIONS = st.recursive(st.one_of(comparisons(), nulls(), among(), likes(), betweens()), combined, max_leaves=5)


def seal(log, messages):
    """Seal the first messages of each partition."""
    for partition in map(log.partition, range(log.partitions)):
        partition.seal(before=min(messages, len(partition)) + 1)


@given(MESSAGES, CONDITIONS, st.integers(1, 3), st.integers(0, 30))
def test_it_has_the_messages_that_the_condition_is_true_of_however_it_is_read(messages, condition, partitions, sealed):
    text, test = condition
    log = pqlog.open(":memory:").topic("t", partitions=partitions)
    for at in range(0, len(messages), 7):  # with several times
        log.put_many(messages[at : at + 7])
    with mock.patch.object(sealing, "LEAST", 1), mock.patch.object(sealed_pieces, "MAX_ROWS", 6):
        seal(log, sealed)
    whole = list(log)
    wanted = [m for m in whole if test(m.value) is True]
    history = log.history(where=text)
    assert list(history) == wanted
    assert list(reversed(history)) == wanted[::-1]
    assert list(history.values()) == [m.value for m in wanted]
    assert history.count() == len(wanted)
    assert bool(history) == bool(wanted)
    table = history.to_arrow(columns=[])
    assert table["offset"].to_pylist() == [m.offset for m in wanted]
    for n in (0, 1, 3):
        assert history.head(n).index.tolist() == [m.offset for m in wanted[:n]]
        assert history.tail(n).index.tolist() == [m.offset for m in wanted[-n:] if n]
    # its columns are those of a topic that has only these messages
    alone = pqlog.open(":memory:")
    alone.put_many([m.value for m in wanted])
    pd.testing.assert_frame_equal(history.to_pandas(metadata=False), alone.to_pandas(metadata=False))
    assert history.to_arrow(metadata=False) == alone.to_arrow(metadata=False)
    chunks = list(history.chunks(4, metadata=False))
    if wanted:
        pd.testing.assert_frame_equal(pd.concat(chunks, ignore_index=True), alone.to_pandas(metadata=False))


TYPED = st.lists(
    st.fixed_dictionaries(
        {"a": st.integers(-3, 3), "b": st.sampled_from([None, 0.5, -1.5, 2.0, 1e300]), "c": TEXTS},
        optional={"d": st.booleans()},
    ),
    min_size=1,
    max_size=30,
)
CLAUSES = st.sampled_from([
    "a > 1", "a >= 1.5", "a < -0.5", "a = 1.0", "a <> 2", "b > 0", "b >= 2", "not b < 2", "b is null", "c = 'a'",
    "c < 'b'", "c like '%r%'", "c ilike 'E%'", "c not like '_'", "d", "not d", "d is true", "d is not true",
    "d is null", "a in (1, 2)", "a not in (1, null)", "c in ('a', 'Brno')", "a between -1 and 2", "b between a and 5",
    "a = b", "a < b", "lower(c) = 'brno'", "a is distinct from 1", "b is not distinct from null", "upper(c) > 'B'",
    '"offset" > 5', '"offset" between 3 and 9 and a > 0', "_time > timestamp '2020-01-01'", "_time < '2020-01-01'",
    "true", "null",
])  # fmt: skip
TREES = st.recursive(
    CLAUSES,
    lambda inner: st.one_of(
        inner.map("not ({})".format), st.tuples(inner, inner, st.sampled_from(["and", "or"])).map(
            lambda t: f"({t[0]}) {t[2]} ({t[1]})"
        )
    ),
    max_leaves=4,
)  # fmt: skip


@given(TYPED, TREES, st.booleans())
def test_it_is_what_duckdb_finds_in_the_whole_frame(messages, text, is_frame):
    log = pqlog.open(":memory:")
    everything = {"a": 0, "b": None, "c": "", "d": True}
    log.put_many(pd.DataFrame([everything, *messages]) if is_frame else [everything, *messages])
    table = log.to_arrow()
    if pa.types.is_null(table.schema.field("b").type):
        table = table.set_column(table.schema.get_field_index("b"), "b", table["b"].cast(pa.float64()))
    with duckdb.connect() as database:
        database.execute("set timezone = 'UTC'")
        database.register("messages", table)
        found = database.sql(f'select "offset" from messages where {text}').fetchall()
    assert [m.offset for m in log.history(where=text)] == sorted(offset for (offset,) in found)


EXPRESSIONS = [
    ((pl.col("ms") > 300) & (pl.col("level") == "error"), (pc.field("ms") > 300) & (pc.field("level") == "error")),
    (pl.col("offset").is_between(10, 19), (pc.field("offset") >= 10) & (pc.field("offset") < 20)),
    (
        pl.col("ms").is_in([10, 20]) | pl.col("level").is_null(),
        pc.field("ms").isin([10, 20]) | pc.field("level").is_null(),
    ),
    (~(pl.col("ms") < 500), ~(pc.field("ms") < 500)),
    (pl.col("ms") % 20 == 0, pc.equal(pc.bit_wise_and(pc.field("n"), 1), 0)),
    (pl.col("level").str.starts_with("e"), pc.starts_with(pc.field("level"), "e")),
    (pl.col("_key") == "error", pc.field("_key") == "error"),
    (pl.lit(True), pc.scalar(True)),
    (pl.lit(False), pc.scalar(False)),
]


@pytest.mark.parametrize("number", range(len(EXPRESSIONS)))
@pytest.mark.parametrize("partitions", [1, 3])
def test_an_expression_is_what_it_is_for_the_frame(number, partitions):
    log = pqlog.open(":memory:").topic("t", partitions=partitions)
    levels = ["error", "info", None]
    log.put_many([{"ms": n * 10, "n": n, "level": levels[n % 3]} for n in range(100)], key="level")
    of_polars, of_arrow = EXPRESSIONS[number]
    frame = log.to_polars()
    found, wanted = log.history(where=of_polars).to_polars(), frame.filter(of_polars)
    assert found.equals(wanted.select(found.columns))  # where nothing is found, there are no fields
    assert found.columns == wanted.columns or not len(wanted)
    found, wanted = log.history(where=of_arrow).to_arrow(), log.to_arrow().filter(of_arrow)
    assert found.equals(wanted.select(found.column_names))
    assert found.column_names == wanted.column_names or not len(wanted)
    assert [m.value["n"] for m in log.history(where=of_polars)] == frame.filter(of_polars)["n"].to_list()


def test_headers_partitions_and_times():
    log = pqlog.open(":memory:").topic("t", partitions=3)
    for n in range(12):
        log.put({"n": n}, key=str(n), headers={"source": f"till-{n % 3}"} if n % 2 else None)
    found = log.history(where="_headers['source'] = 'till-1' and n > 1").to_pandas()
    assert found["n"].tolist() == [7]
    assert [m.value["n"] for m in log.history(where="_headers.source is null")] == [0, 2, 4, 6, 8, 10]
    of_one = [m.value["n"] for m in log.partition(1)]
    assert [m.value["n"] for m in log.history(where="_partition = 1")] == of_one
    assert [m.value["n"] for m in log.partition(1).history(where="_partition = 1")] == of_one
    time = list(log)[4].time
    text = f"_time >= '{time.isoformat()}'"
    assert [m.time >= time for m in log.history(where=text)] == [True] * 8


def test_a_metadata_column_takes_the_name_of_a_field_as_in_a_frame():
    log = pqlog.open(":memory:")
    log.put_many([{"offset": 7}, {"offset": 1}])
    assert [m.offset for m in log.history(where="offset = 1")] == [1]
    assert [m.offset for m in log.history(where="offset_ = 1")] == [2]
    assert log.to_pandas().query("offset_ == 1").index.tolist() == [2]


def test_frames_that_were_put_are_filtered_by_their_own_types():
    log = pqlog.open(":memory:")
    when = pd.date_range("2026-01-01", periods=6, freq="D", tz="Europe/Prague")
    frame = pd.DataFrame({
        "at": when, "day": when.date, "city": pd.Categorical(["Brno", "Praha", "Brno", None, "Brno", "Praha"]),
        "small": pd.array([1, 2, None, 4, 5, 6], "Int8"), "f": [0.5, float("nan"), 2, 3, 4, 5],
    })  # fmt: skip
    log.put_many(frame, key="city")
    assert log.history(where="at >= '2026-01-03T00:00:00+01:00'").count() == 4
    assert log.history(where="day < date '2026-01-03'").count() == 2
    assert log.history(where="city = 'Brno' and small > 1.5").to_pandas()["small"].tolist() == [5]
    assert log.history(where="f > 3").count() == int((log.to_polars().filter(pl.col("f") > 3)).height)
    filtered = log.history(where="city = 'Brno'", key="Brno").to_pandas(metadata=False)
    assert filtered["city"].dtype == frame["city"].dtype
    assert filtered["at"].tolist() == [when[0], when[2], when[4]]


@pytest.mark.parametrize("codec", ["msgpack", "pickle"])
def test_values_of_other_codecs(codec):
    log = pqlog.open(":memory:", codec=codec)
    at = [dt.datetime(2026, 1, n, tzinfo=dt.UTC) for n in (1, 2, 3)]
    for n in range(3):
        log.put({"at": at[n], "data": b"x" * n, "o": {"n": n}, "mixed": n if n else "text"})
    assert [m.offset for m in log.history(where="at > '2026-01-01' and o.n < 2")] == [2]
    assert [m.offset for m in log.history(where="mixed > 1 or mixed = 'text'")] == [1, 3]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ms >", "not a condition of SQL"),
        ("ms > 3 and sum(n) > 1", "'SUM(n)' is not supported"),
        ("ms > (select 1)", "not supported"),
        ("1 = 1; drop table main", "several statements"),
        ("", "empty"),
        ("select 1", "not supported"),
        ("ms > 3 union select 1", "not supported"),
        ("_time > 'yesterday'", "not a time"),
        ("a in (b)", "IN takes values"),
        ("a like b", "LIKE takes a pattern"),
        ("_headers = 'x'", "name a header"),
        ("ms > ?", "not supported"),
        ("ms + 1 > 3", "not supported"),
        ("(" * 3000 + "a" + ")" * 3000, "nested too deeply"),
        ("a = '" + "x" * 200_000 + "'", "characters"),
    ],
)
def test_what_is_not_supported_is_refused_before_anything_is_read(text, said):
    with pytest.raises(ArgumentError, match=re.escape(said)):
        pqlog.open(":memory:").history(where=text)


def test_an_error_shows_the_place_in_the_text():
    with pytest.raises(ArgumentError) as error:
        pqlog.open(":memory:").history(where="level = 'error'\n  and median(ms) > 3")
    lines = str(error.value).split("\n")
    assert lines[1] == "    and median(ms) > 3"
    assert lines[2].index("^") == lines[1].index("median")


def test_long_chains_of_conditions_are_evaluated():
    log = pqlog.open(":memory:")
    log.put_many([{"n": n} for n in range(1000)])
    assert log.history(where=" or ".join(f"n = {n}" for n in range(500))).count() == 500
    assert log.history(where=f"n in ({', '.join(map(str, range(900)))})").count() == 900


def test_an_expression_must_be_of_each_message_by_itself():
    log = pqlog.open(":memory:")
    log.put_many([{"n": n} for n in range(5)])
    for expression in (pl.col("n") > pl.col("n").mean(), pl.col("n").cum_sum() > 3):
        with pytest.raises(ArgumentError, match="decides by itself"):
            log.history(where=expression)
    with pytest.raises(ArgumentError, match="no message here has a field 'nn'"):
        log.history(where=pl.col("nn") > 3).to_pandas()
    with pytest.raises(ArgumentError, match="pyarrow cannot evaluate"):
        log.history(where=pc.field("x") > 3).to_pandas()
    with pytest.raises(ArgumentError, match="true or false"):
        log.history(where=pl.col("n") + 1).to_pandas()
    with pytest.raises(ArgumentError, match="where must be text"):
        log.history(where=3)


@pytest.mark.parametrize("where", ["n > 3", pl.col("n") > 3, pc.field("n") > 3])
def test_a_log_without_messages_has_none(where):
    log = pqlog.open(":memory:")
    history = log.history(where=where)
    assert list(history) == []
    assert history.count() == len(history.to_pandas()) == 0
    live = history.live()
    log.put_many([{"n": 1}, {"n": 5}])
    assert live.refresh()["n"].tolist() == [5]
    assert [message.value for message in history] == [{"n": 5}]


def test_an_expression_may_be_about_headers():
    log = pqlog.open(":memory:")
    for n in range(4):
        log.put({"n": n}, headers={"source": f"till-{n % 2}"})
    source = pc.map_lookup(pc.field("_headers"), pa.scalar("source"), "first")
    assert log.history(where=source == "till-1").to_pandas()["n"].tolist() == [1, 3]


def test_it_combines_with_the_other_bounds_latest_and_live(tmp_path):
    log = pqlog.open(tmp_path / "events.db")
    log.put_many([{"n": n, "city": "ab"[n % 2]} for n in range(50)], key="city")
    history = log.history(5, 45, key="a", where="n > 10 and n < 40")
    assert [m.value["n"] for m in history] == list(range(12, 40, 2))
    assert [m.value["n"] for m in log.history(where="n < 40").latest()] == [38, 39]
    assert [m.value["n"] for m in log.history(where="n < 40").latest(by="city")] == [38, 39]
    live = log.history(where="n > 47").live()
    assert live.frame["n"].tolist() == [48, 49]
    log.put_many([{"n": 1, "city": "a"}, {"n": 90, "city": "b"}])
    assert live.refresh()["n"].tolist() == [48, 49, 90]
    with pytest.raises(UncountedError, match=r"history\.count"):
        len(history)
    assert repr(history).endswith("key='a', where n > 10 and n < 40>")


def test_a_field_that_no_message_has_is_told_if_it_looks_misspelt():
    log = pqlog.open(":memory:")
    log.put_many([{"carrier": "UA", "n": 1}, {"carrier": "B6", "n": 2}])
    history = log.history(where="carier = 'UA' and n > 0")
    for read in (list, History.to_pandas, History.count):
        with pytest.warns(UserWarning, match="no message here has a field 'carier': did you mean 'carrier'"):
            read(history)
    assert log.history(where="error is null").count() == 2


def test_an_export_is_of_one_predicate(tmp_path):
    log = pqlog.open(tmp_path / "events.db")
    log.put_many([{"n": n} for n in range(50)])
    folder = tmp_path / "out"
    assert len(log.history(where="n > 30").to_parquet(folder)) == 1
    assert pd.read_parquet(folder)["n"].tolist() == list(range(31, 50))
    assert log.history(where="n > 30").to_parquet(folder) == []
    with pytest.raises(ArgumentError):
        log.history(where="n > 31").to_parquet(folder)


def test_offsets_and_times_are_found_without_reading_the_rest(tmp_path, monkeypatch):
    log = pqlog.open(tmp_path / "events.db")
    log.put_many([{"n": n} for n in range(100_000)])
    read = []
    store = log.stream.store
    original = type(store).read_lines
    monkeypatch.setattr(type(store), "read_lines", lambda self, span, *a: read.append(span) or original(self, span, *a))
    for where in ("offset > 99990", pl.col("offset") > 99990, pc.field("offset") > 99990):
        log.to_arrow()  # its schema is known from now on
        read.clear()
        assert log.history(where=where).to_arrow().num_rows == 10
        assert [span.first for span in read if span.first < 99_991] == []


def test_text_needs_sqlglot(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sqlglot", None)
    with pytest.raises(MissingExtraError, match=r"pqlog\[sql\]"):
        pqlog.open(":memory:").history(where="a = 1")


@pytest.mark.parametrize(
    ("where", "wanted"),
    [("_time < '{}'", range(1, 31)), ("offset <= 30", range(1, 31)), ("_time >= '{}' and offset > 40", range(41, 61))],
)
def test_segments_that_cannot_match_are_not_read(where, wanted, tmp_path, monkeypatch):
    log = pqlog.open(tmp_path / "events.db")
    for _ in range(6):
        log.put_many(pd.DataFrame({"n": range(10)}))
    where = where.format(log[31].time.isoformat())
    decoded = []
    original = segments.read
    monkeypatch.setattr(segments, "read", lambda row, *a: decoded.append(row.offset) or original(row, *a))
    assert log.history(where=where).to_arrow()["offset"].to_pylist() == list(wanted)
    assert set(decoded) == {offset - (offset - 1) % 10 for offset in wanted}


def test_sealed_messages_that_cannot_match_are_not_read(tmp_path, monkeypatch):
    log = pqlog.open(tmp_path / "events.db", seal=None)
    for piece in range(5):
        log.put_many([{"n": piece * 100 + n, "city": f"city-{piece}"} for n in range(100)], key="city")
        log.seal()
    read = []
    original = type(log.stream.store).read_sealed
    monkeypatch.setattr(
        type(log.stream.store), "read_sealed", lambda self, span: read.append(span.first) or original(self, span)
    )
    for where, wanted in [
        ("n = 250", [251]),
        ("n in (7, 8) or n > 498", [8, 9, 500]),
        ("city = 'city-3' and n < 302", [301, 302]),
        ("_key = 'city-4' and n < 401", [401]),
        ("nothing is not null", []),
        ("nothing is null and offset = 3", [3]),
    ]:
        read.clear()
        assert log.history(where=where).to_arrow(columns=[])["offset"].to_pylist() == wanted
        assert {(first - 1) // 100 for first in read} == {(offset - 1) // 100 for offset in wanted}
        assert [m.offset for m in log.history(where=where)] == wanted
    c = pl.col
    scan = log.scan()
    scan.collect_schema()
    read.clear()
    assert scan.filter(c("n").is_between(220, 229)).select(c("n").sum()).collect().item() == 2245
    assert read == [201]
    read.clear()
    assert log.sql("select sum(n) from log where n between 220 and 229").fetchall() == [(2245,)]
    assert read == [201]
