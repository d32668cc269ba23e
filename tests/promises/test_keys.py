"""One rule for keys: a field gives the same key however its messages are put, or is refused at the put."""

import datetime as dt
import enum
import uuid
from dataclasses import dataclass
from decimal import Decimal

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pqlog
from pqlog import keys
from pqlog.frames import keys as of_frames
from pqlog.frames.columns import decoded_values


@pytest.fixture
def log():
    with pqlog.open(":memory:") as log:
        yield log


class Colour(enum.Enum):
    RED = "red"
    TWO = 2
    HALF = 0.5


@dataclass
class Sale:
    k: object


class Struct(msgspec.Struct):
    k: object


TEXTS = [
    ("A1", "A1"),
    ("", ""),
    (17, "17"),
    (-(2**80), str(-(2**80))),
    (np.int64(5), "5"),
    (np.uint8(200), "200"),
    (np.str_("x"), "x"),
    (Colour.RED, "red"),
    (Colour.TWO, "2"),
    (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (dt.date(999, 1, 2), "0999-01-02"),
    (None, None),
    (float("nan"), None),
    (np.float32("nan"), None),
    (Decimal("NaN"), None),
    (pd.NA, None),
    (pd.NaT, None),
    (np.datetime64("NaT"), None),
]
REFUSED = [
    1.0,
    1e-7,
    True,
    np.True_,
    np.float64(2),
    Decimal(1),
    b"\xff",
    [1],
    {"a": 1},
    Colour.HALF,
    dt.datetime(2020, 1, 1),
    dt.time(1),
    dt.timedelta(1),
    pd.Timestamp("2020-01-01"),
    np.datetime64("2020-01-01"),
    np.array([1, 2]),
    Decimal("sNaN"),
    10**5000,
    pd.Period("2020-01"),
]


@pytest.mark.parametrize(("value", "text"), TEXTS, ids=repr)
def test_the_text_of_a_value(value, text):
    assert keys.text(value) == text
    assert type(keys.text(value)) in (str, type(None))
    assert keys.texts([value, value], "k", keys.KEY) == [text, text]


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
def test_what_has_no_text_of_its_own_is_refused(value):
    with pytest.raises(
        keys.RefusedError, match=r"the field 'k', which is used as the key, is .* convert it to text"
    ) as raised:
        keys.texts(["a", value], "k", keys.KEY)
    assert raised.value.index == 1


@pytest.mark.parametrize("make", [dict, Sale, Struct], ids=lambda make: make.__name__)
def test_values_of_every_kind_have_the_keys_of_the_rule(log, make):
    found = ["a", 1, None, dt.date(2020, 1, 2), uuid.UUID(int=7), Colour.TWO]
    log.put_many([make(k=value) for value in found], key="k")
    assert [message.key for message in log] == [keys.text(value) for value in found]


@pytest.mark.parametrize("value", [1.0, True, [1], {"a": 1}, dt.datetime(2020, 1, 1)], ids=repr)
def test_a_value_without_a_key_is_refused_before_anything_is_put(log, value):
    with pytest.raises(pqlog.EncodeError, match="the field 'k', which is used as the key, is ") as raised:
        log.put_many([{"k": "a"}, {"k": 1}, {"k": value}, {"k": "b"}], key="k")
    assert (raised.value.index, raised.value.offset, len(log)) == (2, 3, 0)


def test_the_methods_of_values_are_no_keys(log):
    with pytest.raises(pqlog.EncodeError, match="builtin_function_or_method"):
        log.put_many([["a"], ["b"]], key="append")


def by_value(column, field, what=keys.KEY):
    """The result of the rule for values on a column."""
    try:
        return keys.texts(decoded_values(column, field), field.name, what)
    except keys.RefusedError as error:
        return error.index


def by_column(column, field, what=keys.KEY):
    try:
        return of_frames.texts(column, field, what).to_pylist()
    except keys.RefusedError as error:
        return error.index


DATES = st.dates()
TIMES = st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1))
COLUMNS = {
    pa.string(): st.text(max_size=3),
    pa.large_string(): st.text(max_size=3),
    pa.string_view(): st.text(max_size=20),
    pa.int8(): st.integers(-(2**7), 2**7 - 1),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.date32(): DATES,
    pa.date64(): DATES,
    pa.null(): st.none(),
    pa.bool_(): st.booleans(),
    pa.float32(): st.sampled_from([1.0, 0.5, float("nan")]),
    pa.float64(): st.just(float("nan")),
    pa.timestamp("us"): TIMES,
    pa.timestamp("ns"): TIMES,
    pa.duration("s"): st.timedeltas(dt.timedelta(0), dt.timedelta(9)).map(lambda t: t - t % dt.timedelta(seconds=1)),
    pa.time64("us"): st.times(),
    pa.binary(): st.binary(max_size=3),
    pa.decimal128(9, 0): st.integers(0, 9).map(Decimal),
    pa.list_(pa.string()): st.lists(st.text(max_size=2), max_size=2),
    pa.struct({"a": pa.int64()}): st.just({"a": 1}),
    pa.uuid(): st.uuids().map(lambda one: one.bytes),
}


@st.composite
def columns(draw):
    of = draw(st.sampled_from(list(COLUMNS)))
    values = draw(st.lists(st.none() | COLUMNS[of], max_size=6))
    half = draw(st.integers(0, len(values)))
    column = pa.chunked_array([pa.array(values[:half], of), pa.array(values[half:], of)], of)
    if draw(st.booleans()) and (pa.types.is_primitive(of) or of == pa.string()):
        column = column.dictionary_encode()
    return column


@given(columns(), st.sampled_from([keys.KEY, keys.ID]))
def test_columns_have_the_keys_that_their_values_have(column, what):
    field = pa.field("k", column.type)
    assert by_column(column, field, what) == by_value(column, field, what)


def test_a_date_with_a_time_of_day_is_refused_with_an_error_of_ours(log):
    """A date64 may have milliseconds beyond its day, which no Arrow file and no cast to days keeps."""
    dates = pa.array([1, 86_400_000], pa.int64()).view(pa.date64())
    with pytest.raises(pqlog.EncodeError, match="column 'd'"):
        log.put_many(pa.table({"d": dates}), key="d")


MIXED = st.sampled_from([None, "", "a", "č", 1, -9, True, 0.5]) | st.lists(st.integers(0, 1))


@given(st.lists(MIXED, max_size=5), st.booleans())
def test_mixed_objects_have_the_keys_that_they_have_one_by_one(values, as_category):
    with pqlog.open(":memory:") as one, pqlog.open(":memory:") as other:
        column = pd.Series(values, dtype=object)
        if as_category and not any(isinstance(value, list) for value in values):
            column = pd.Series([None if value is None else str(value) for value in values], dtype="category")
            values = [None if value is None else str(value) for value in values]
        frame = pd.DataFrame({"k": column, "n": range(len(values))})
        outcomes = []
        for log, given in ((one, [{"k": value} for value in values]), (other, frame)):
            try:
                log.put_many(given, key="k")
                outcomes.append([message.key for message in log])
                assert [message.key for message in log.history(key="1")] == ["1"] * outcomes[-1].count("1")
            except pqlog.EncodeError as error:
                outcomes.append(error.index)
        assert outcomes[0] == outcomes[1]


FRAMES = {
    "floats": pd.DataFrame({"k": [1.0, 2.5]}),
    "bools": pd.DataFrame({"k": [True, False]}),
    "times": pd.DataFrame({"k": [pd.Timestamp("2020-01-01")]}),
    "lists": pa.table({"k": pa.array([[1], [2]])}),
    "structs": pa.table({"k": pa.array([{"a": 1}] * 2)}),
    "bytes": pa.table({"k": pa.array([b"\xff", b"a"])}),
    "dicts": pd.DataFrame({"k": [{"a": 1}, None]}),
    "periods": pd.DataFrame({"k": pd.period_range("2020", periods=2, freq="D")}),
    "intervals": pd.DataFrame({"k": pd.cut([1, 2, 3], 2)}),
    "categories of floats": pd.DataFrame({"k": pd.Categorical([0.5, 1.5])}),
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_a_column_that_is_no_key_is_refused_and_the_topic_stays_readable(log, frame):
    with pytest.raises(pqlog.EncodeError, match=r"the field 'k', which is used as the key, is .* convert it to text"):
        log.put_many(frame, key="k")
    assert (list(log), len(log.to_pandas())) == ([], 0)


def test_where_pandas_made_floats_of_integers_the_error_says_how_they_become_integers(log):
    frame = pd.DataFrame({"k": [1, None, 3]})
    with pytest.raises(pqlog.EncodeError, match=r'frame.astype\(\{"k": "Int64"\}\)'):
        log.put_many(frame, key="k")
    log.put_many(frame.astype({"k": "Int64"}), key="k")
    assert [message.key for message in log] == ["1", None, "3"]
    with pytest.raises(pqlog.EncodeError) as raised:
        log.put_many(pd.DataFrame({"k": [1, 0.5]}), key="k")
    assert "Int64" not in str(raised.value)


def test_missing_text_is_no_key_in_every_kind_of_column(log):
    for dtype in ("str", "string", object, "category", "string[pyarrow]"):
        missing = [None, None] if dtype is object else [None, float("nan")]
        frame = pd.DataFrame({"k": pd.Series(["a", *missing], dtype=dtype)})
        where = log.put_many(frame, key="k")
        assert [message.key for message in log[where.first : where.last + 1]] == ["a", None, None], dtype
    assert log.to_pandas()["_key"].notna().sum() == 5


def test_a_row_in_the_midst_of_many_is_named(log):
    frame = pd.DataFrame({"k": pd.Series(["a"] * 70_000 + [[1]] + ["b"] * 10, dtype=object)})
    with pytest.raises(pqlog.EncodeError, match=r"is \[1\] \(of type list\)") as raised:
        log.put_many(frame, key="k")
    assert raised.value.index == 70_000


def test_an_index_can_be_the_key_if_it_is_a_field(log):
    log.put_many(pd.DataFrame({"n": [1, 2]}, index=pd.Index(["a", "b"], name="k")), key="k")
    assert [message.key for message in log] == ["a", "b"]
    log.put_many(pd.DataFrame({"n": [1, 2]}, index=pd.RangeIndex(2, name="k")), key="k")
    assert [message.key for message in log] == ["a", "b", "0", "1"]


def test_a_label_that_is_no_text_is_named_by_its_text(log):
    log.put_many(pd.DataFrame({5: ["a", "b"]}), key="5")
    assert [message.key for message in log] == ["a", "b"]
    with pytest.raises(pqlog.ArgumentError, match=r"key must be a str or None, not 5: str\(key\) would do"):
        log.put_many(pd.DataFrame({5: ["a", "b"]}), key=5)
