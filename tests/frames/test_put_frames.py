"""A frame that is put comes back equal, whatever its dtypes; mixed histories are plain lists of messages."""

import datetime
import decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import pandas as pdst
from polars.testing import assert_frame_equal as assert_polars_equal
from polars.testing.parametric import dataframes as polars_frames

import pqlog
from pqlog.frames import writer
from tests import seams
from tests.frames.test_values import OBJECT, cell, expected_names, same
from tests.messages import offsets

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


def times(low, high, **how):
    return st.datetimes(datetime.datetime(low, 1, 1), datetime.datetime(high, 1, 1), **how)


COLUMNS = {
    "int8": (st.integers(-128, 127), "int8"),
    "uint64": (st.integers(0, 2**64 - 1), "uint64"),
    "int64": (st.integers(-(2**63), 2**63 - 1), "int64"),
    "float32": (st.floats(width=32), "float32"),
    "float64": (st.floats(), "float64"),
    "bool": (st.booleans(), "bool"),
    "str": (TEXT | st.none(), "str"),
    "text": (TEXT | st.none(), "object"),
    "bytes": (st.binary(max_size=4), "object"),
    "category": (st.sampled_from(["x", "y", None]), pd.CategoricalDtype(["y", "x", "z"], ordered=True)),
    "Int64": (st.integers(-(2**63), 2**63 - 1) | st.just(pd.NA), "Int64"),
    "boolean": (st.booleans() | st.just(pd.NA), "boolean"),
    "Float64": (st.floats(allow_nan=False) | st.just(pd.NA), "Float64"),
    "string": (TEXT | st.just(pd.NA), "string"),
    "arrow_int": (st.integers(-9, 9) | st.none(), pd.ArrowDtype(pa.int32())),
    "arrow_text": (TEXT | st.none(), pd.ArrowDtype(pa.string())),
    "time_ns": (times(1700, 2200) | st.just(pd.NaT), "datetime64[ns]"),
    "time_us": (times(1, 9999) | st.just(pd.NaT), "datetime64[us]"),
    "zone": (times(1700, 2200) | st.just(pd.NaT), pd.DatetimeTZDtype("us", "Europe/Prague")),
    "span": (st.timedeltas(datetime.timedelta(-9999), datetime.timedelta(9999)), "timedelta64[us]"),
    "decimal": (st.decimals(-999, 999, places=2), "object"),
    "date": (st.dates(), "object"),
    "list": (st.lists(st.integers(-9, 9), max_size=2) | st.none(), "object"),
    "dict": (st.dictionaries(TEXT, st.integers(-9, 9) | TEXT, max_size=2), "object"),
    "mixed": (st.integers(-9, 9) | TEXT | st.booleans() | st.none(), "object"),
}


@st.composite
def frames(draw, min_rows=1):
    """Frames with columns of several of these dtypes, and an index of any kind."""
    names = draw(st.lists(st.sampled_from(list(COLUMNS)), min_size=1, max_size=5, unique=True))
    rows = draw(st.integers(min_rows, 6))
    data = {}
    for name in names:
        values, dtype = COLUMNS[name]
        cells = draw(st.lists(values, min_size=rows, max_size=rows))
        if dtype == "object":
            column = np.empty(rows, dtype=object)
            column[:] = cells
            data[name] = pd.Series(column, dtype=object)
        else:
            data[name] = pd.Series(cells, dtype=dtype)
    frame = pd.DataFrame(data)
    index = draw(
        st.sampled_from(
            [
                lambda: pd.RangeIndex(5, 5 + 3 * rows, 3, name="range"),
                lambda: pd.Index([f"r{i}" for i in range(rows)], name="row"),
                lambda: pd.Index([i * i for i in range(rows)]),
                lambda: pd.MultiIndex.from_tuples([(i, str(i)) for i in range(rows)], names=["one", None]),
                lambda: (
                    pd.date_range("2026-01-01", periods=rows, freq=None, unit="us").set_names("day")
                    if rows > 1
                    else pd.RangeIndex(1)
                ),
                lambda: pd.RangeIndex(rows),
            ]
        )
    )
    frame.index = index()
    frame.columns.name = draw(st.none() | st.just("fields"))
    return frame


def equal(one, other):
    pd.testing.assert_frame_equal(one, other, check_freq=False, check_exact=True)
    for name in one.columns:
        if one[name].dtype.kind == "O":
            assert [type(v) for v in one[name]] == [type(v) for v in other[name]]


@settings(max_examples=100)
@given(frames(), st.data(), st.integers(1, 4))
def test_a_pandas_frame_comes_back_equal_and_so_does_each_part_of_it(frame, data, segment_rows):
    with pqlog.open(":memory:") as log, pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "SEGMENT_ROWS", segment_rows)
        log.put("before")
        put = log.put_many(frame)
        assert offsets(put) == range(2, 2 + len(frame))
        equal(log[2:].to_pandas(metadata=False), frame)
        first = data.draw(st.integers(0, len(frame) - 1))
        stop = data.draw(st.integers(first + 1, len(frame)))
        equal(log[2 + first : 2 + stop].to_pandas(metadata=False), frame.iloc[first:stop])
        columns = log[2:].to_pandas()[list(frame.columns)].reset_index(drop=True)
        columns.columns.name = frame.columns.name
        equal(columns, frame.reset_index(drop=True))


@settings(max_examples=100)
@given(
    pdst.data_frames(
        [
            *pdst.columns(["a", "b"], dtype=float),
            pdst.column("c", dtype=int),
            pdst.column("d", elements=TEXT, dtype=str),
        ],
        index=pdst.range_indexes(min_size=1, max_size=8),
    )
)
def test_frames_of_hypothesis_come_back_equal(frame):
    with pqlog.open(":memory:") as log:
        log.put_many(frame)
        equal(log.to_pandas(metadata=False), frame)


@settings(max_examples=75)
@given(
    polars_frames(max_cols=5, min_size=1, max_size=6, excluded_dtypes=[pl.Object, pl.Int128, pl.UInt128, pl.Float16])
)
def test_a_polars_frame_comes_back_equal(frame):
    with pqlog.open(":memory:") as log:
        log.put_many(frame)
        assert_polars_equal(log.to_polars(metadata=False), frame, categorical_as_str=False)


def test_what_cannot_be_put_names_its_column(log):
    with pytest.raises(pqlog.ArgumentError, match="several levels"):
        log.put_many(pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("a", "b")])))
    with pytest.raises(pqlog.ArgumentError, match="several columns named 'a'"):
        log.put_many(pd.DataFrame([[1, 2]], columns=["a", "a"]))
    with pytest.raises(pqlog.EncodeError, match=r"cannot put a DataFrame with the codec 'arrow'.*: column 'bad'"):
        log.put_many(pd.DataFrame({"good": [1, 2], "bad": [object(), 1]}))
    with pytest.raises(pqlog.ArgumentError, match="key='x' is not a field of the frame: it has 'a'"):
        log.put_many(pd.DataFrame({"a": [1]}), key="x")
    assert len(log) == 0


def test_anything_with_an_arrow_stream_can_be_put(log):
    table = pa.table({"n": [1, 2, 3], "s": ["a", None, "c"]})
    for frame in (
        table,
        table.to_batches()[0],
        table.to_reader(),
        pl.DataFrame(table),
        pl.DataFrame(table).lazy().collect(),
    ):
        log.put_many(frame, key="s")
    assert len(log) == 15
    assert [message.value for message in log.history(key="c")] == [{"n": 3, "s": "c"}] * 5
    assert log.to_arrow(["n", "s"], metadata=False).to_pylist() == table.to_pylist() * 5


def test_a_stream_is_put_in_bounded_pieces_in_one_transaction(log):
    schema = pa.schema([("n", pa.int64())])

    def batches(fail=False):
        for start in range(0, 200_000, 1_000):
            if fail and start == 150_000:
                raise RuntimeError("the source broke")
            yield pa.record_batch([pa.array(range(start, start + 1_000))], schema=schema)

    with pytest.raises(Exception, match="the source broke"):
        log.put_many(pa.RecordBatchReader.from_batches(schema, batches(fail=True)))
    assert len(log) == 0
    log.put_many(pa.RecordBatchReader.from_batches(schema, batches()), id="x")
    log.put_many(pa.RecordBatchReader.from_batches(schema, batches()), id="x")
    assert log.to_arrow().column("n").to_pylist() == list(range(200_000))
    assert max(row.rows for row in seams.rows(log)) <= writer.SEGMENT_ROWS


def test_long_values_make_short_segments(log, monkeypatch):
    monkeypatch.setattr(writer, "SEGMENT_BYTES", 1 << 20)
    log.put_many(pd.DataFrame({"text": ["x" * 300_000] * 10}))
    rows = seams.rows(log)
    assert max(row.rows for row in rows) <= 3
    assert log.to_pandas()["text"].str.len().tolist() == [300_000] * 10


def test_values_out_of_a_segment_are_plain(log):
    frame = pd.DataFrame(
        {
            "n": [1, 2],
            "x": [0.5, None],
            "when": pd.to_datetime(["2026-01-01", None]).as_unit("us"),
            "tags": [["a"], None],
            "amount": [decimal.Decimal("1.50"), None],
        },
        index=["r1", "r2"],
    )
    log.put_many(frame)
    first = {
        "n": 1,
        "x": 0.5,
        "when": datetime.datetime(2026, 1, 1),
        "tags": ["a"],
        "amount": decimal.Decimal("1.50"),
    }
    assert list(log.get("c")) == [first, {**dict.fromkeys(first), "n": 2}]
    assert "index" not in log.to_pandas()
    log.put_many(frame.rename_axis("row"))
    assert log[3].value == {**first, "row": "r1"}
    assert log[3:].to_pandas()["row"].tolist() == ["r1", "r2"]


PUTS = st.lists(
    st.tuples(st.sampled_from(["single", "many", "frame"]), st.lists(OBJECT, min_size=1, max_size=4)), max_size=6
)


@settings(max_examples=75)
@given(PUTS, st.integers(-20, 25), st.integers(-20, 25), st.integers(1, 3))
def test_mixed_histories_are_lists_of_messages(puts, start, stop, segment_rows):
    """Segments, single messages and many at once, of many schemas, sliced anywhere."""
    values = []
    with pqlog.open(":memory:") as log, pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "SEGMENT_ROWS", segment_rows)
        for kind, rows in puts:
            if kind == "frame":
                frame = pd.DataFrame(
                    {"n": pd.Series(range(len(rows)), dtype="int64"), "obj": pd.Series(rows, dtype=object)}
                )
                log.put_many(frame)
                values += [{"n": n, "obj": row} for n, row in enumerate(rows)]
            elif kind == "many":
                log.put_many(rows)
                values += rows
            else:
                for row in rows:
                    log.put(row)
                values += rows
        history = log[start:stop]
        offsets = [message.offset for message in history]
        expected = [values[offset - 1] for offset in offsets]
        assert [message.value for message in history] == expected
        assert list(history.values()) == expected
        frame = history.to_pandas()
        assert list(frame.index) == offsets
        batches = history.to_batches(batch_size=2)
        assert batches.read_all().equals(history.to_arrow())
        for name, column in expected_names(expected, ("offset", "_time", "_key")).items():
            doubles = frame.dtypes[column] == "float64"
            for row, got in zip(expected, frame[column], strict=True):
                assert same(cell(row.get(name)), cell(got), doubles), (name, row, got)


def test_types_that_differ_over_time_are_widened_or_kept_as_objects(log):
    log.put_many(
        pd.DataFrame(
            {"n": pd.array([1, 2], "int8"), "t": pd.to_datetime(["2026-01-01", "2026-01-02"]), "s": ["a", "b"]}
        )
    )
    log.put_many(pd.DataFrame({"n": [300], "t": ["later"], "s": pd.Categorical(["c"])}))
    log.put({"n": 2.5, "s": "d"})
    frame = log.to_pandas()
    assert (str(frame["n"].dtype), frame["n"].tolist()) == ("float64", [1, 2, 300, 2.5])
    assert (str(frame["s"].dtype), frame["s"].tolist()) == ("str", ["a", "b", "c", "d"])
    assert frame["t"].dtype == object
    assert frame["t"].tolist() == [pd.Timestamp("2026-01-01"), pd.Timestamp("2026-01-02"), "later", None]
    assert log.to_arrow()["t"].to_pylist()[:3] == ['"2026-01-01T00:00:00"', '"2026-01-02T00:00:00"', '"later"']


def test_a_key_column_that_is_not_text_is_given_as_text(log):
    log.put_many(pd.DataFrame({"n": [7, 8]}), key="n")
    assert [message.key for message in log] == ["7", "8"]
    assert log.to_pandas()["_key"].tolist() == ["7", "8"]
    assert [message.value for message in log.history(key="8")] == [{"n": 8}]
    assert log.history(key="8").to_pandas()["n"].tolist() == [8]


def test_a_bar_shows_how_far_a_put_has_come(log, capsys):
    log.put_many(pd.DataFrame({"n": range(200_000)}), progress=True)
    said = capsys.readouterr().err
    assert "put: 100%" in said
    assert "200k/200k" in said
    log.put_many(iter(range(25_000)), progress=True)
    assert "25.0k messages" in capsys.readouterr().err
