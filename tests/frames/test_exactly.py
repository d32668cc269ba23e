"""What a frame's columns come back as: exactly as they were, or the put says which column cannot be kept."""

import datetime
import decimal
import io
import math
import uuid

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import pqlog
from pqlog.frames import writer
from tests.frames.test_values import chunks_of

DAY, NOON = datetime.date(2026, 11, 25), datetime.datetime(2026, 11, 25, 12)
UTC, FIVE = datetime.UTC, datetime.timezone(datetime.timedelta(hours=5))


def objects(*values):
    column = np.empty(len(values), dtype=object)
    for at, value in enumerate(values):
        column[at] = value
    return pd.DataFrame({"c": pd.Series(column, dtype=object)})


KEPT = {
    "text": objects("a", None),
    "text and NaN": objects("a", math.nan),
    "text and NA": objects("a", pd.NA),
    "text and NaT": objects("a", pd.NaT),
    "bytes": objects(b"a", None),
    "integers": objects(2**53 + 1, None),
    "integers and NaN": objects(2**53 + 1, math.nan),
    "large integers": objects(2**64, 1),
    "floats": objects(0.5, -0.0, math.inf),
    "floats and NaN": objects(0.5, math.nan),
    "decimals": objects(decimal.Decimal("1.50"), None),
    "dates": objects(DAY, None),
    "times": objects(NOON, None),
    "times in UTC": objects(NOON.replace(tzinfo=UTC)),
    "times of one zone": objects(NOON.replace(tzinfo=FIVE)),
    "times of day": objects(datetime.time(1, 2, 3)),
    "time spans": objects(datetime.timedelta(days=1, microseconds=1)),
    "Timestamps": objects(pd.Timestamp(1_795_600_000_123_456_789)),
    "Timedeltas": objects(pd.Timedelta(1)),
    "UUIDs": objects(uuid.UUID(int=5)),
    "lists": objects([1, "a", None], []),
    "lists of dates": objects([DAY], None),
    "lists of NaN": objects([math.nan]),
    "dicts": objects({"a": 1}, {"b": [2**60]}),
    "mixed": objects("a", 1, True, 1.0, [1]),
    "NumPy's scalars": objects(np.int64(1), np.str_("a")),
    "arrays": objects(np.array([1.5, 2.5]), None),
    "arrays of text": objects(np.array(["a", None], dtype=object)),
    "intervals": pd.DataFrame({"c": pd.cut([1, 5, 9], 3)}),
    "quantiles": pd.DataFrame({"c": pd.qcut([1.0, 5.0, math.nan], 2)}),
    "categories of periods": pd.DataFrame({"c": pd.Categorical(pd.period_range("2026", periods=2, freq="M"))}),
    "mixed categories": pd.DataFrame({"c": pd.Categorical([1, "a", None])}),
    "categories of dates": pd.DataFrame({"c": pd.Categorical(pd.to_datetime(["2026-01-01", None]))}),
    "ordered categories": pd.DataFrame({"c": pd.Categorical(["b"], categories=["b", "a"], ordered=True)}),
    "periods": pd.DataFrame({"c": pd.period_range("2026", periods=2, freq="Q")}),
    "unsigned": pd.DataFrame({"c": np.array([2**64 - 1], "uint64")}),
    "half floats": pd.DataFrame({"c": np.array([0.5, math.nan], "float16")}),
}


def is_missing(cell):
    return pd.api.types.is_scalar(cell) and pd.isna(cell)


def as_value(cell):
    """What a message has for a cell."""
    if is_missing(cell):
        return None
    return cell.tolist() if isinstance(cell, (np.generic, np.ndarray)) else cell


@pytest.mark.parametrize("name", KEPT)
def test_a_column_comes_back_as_it_was(log, name):
    frame = KEPT[name]
    log.put_many(frame)
    back = log.to_pandas(metadata=False)
    if name != "lists of NaN":  # which pandas itself considers different
        pd.testing.assert_frame_equal(back, frame, check_exact=True)
    cells = [as_value(cell) for cell in frame["c"]]
    if frame["c"].dtype == object and not name.startswith("arrays"):
        assert [type(cell) for cell in back["c"] if not is_missing(cell)] == [
            type(cell) for cell in cells if cell is not None
        ]
    for message, cell in zip(log, cells, strict=True):
        assert message.value["c"] == cell or repr(message.value["c"]) == repr(cell)
    log.put({"d": 1})
    beside = log.to_pandas(["c"], metadata=False)["c"]
    assert len(beside) == len(frame) + 1
    assert pd.isna(beside[len(frame)])


REFUSED = {
    "dates and times": (objects(DAY, NOON), "row 1, .* would come back as"),
    "times with and without a zone": (objects(NOON, NOON.replace(tzinfo=UTC)), "would come back as"),
    "text and bytes": (objects(b"a", "a"), "row 1, 'a', would come back as b'a'"),
    "decimals of several scales": (
        objects(decimal.Decimal("1.5"), decimal.Decimal("1.50")),
        r"Decimal\('1.5'\), would",
    ),
    "a decimal that is no number": (objects(decimal.Decimal("NaN")), "Decimal"),
    "None and NaN": (objects("a", None, math.nan), "None and nan for missing values"),
    "floats, None and NaN": (objects(0.5, None, math.nan), "None and nan for missing values"),
    "sets": (objects({1}), "would come back as"),
    "tuples": (objects((1, 2)), r"row 0, \(1, 2\), would come back as \[1, 2\]"),
    "tuples within": (objects({"a": (1,)}), "would come back as"),
    "dates in dicts of several keys": (objects({"a": DAY}, {"b": 1}), "would come back as"),
    "a time of day with a zone": (objects(datetime.time(1, tzinfo=UTC)), "would come back as"),
    "NumPy's times among numbers": (objects(np.datetime64("2026-01-01"), np.int64(1)), "datetime64, int"),
    "anything": (objects(object()), "object"),
    "complex numbers": (pd.DataFrame({"c": [1 + 2j]}), "complex128"),
    "years that Python has not": (
        pd.DataFrame({"c": np.array(["20000-01-01"], "datetime64[s]")}),
        "a message cannot have",
    ),
    "spans that Python has not": (pa.table({"c": pa.array([10**15], pa.duration("s"))}), "a message cannot have"),
    "a time that NumPy takes for none": (pa.table({"c": pa.array([-(2**63)]).view(pa.timestamp("us"))}), "NaT"),
    "a span that NumPy takes for none": (pa.table({"c": pa.array([1, -(2**63)]).view(pa.duration("us"))}), "NaT"),
    "nanoseconds of a day": (pa.table({"c": pa.array([1], pa.time64("ns"))}), "a message cannot have"),
    "a field twice": (
        pa.table({"c": pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])}),
        "two fields with the same name",
    ),
    "objects of polars": (pl.DataFrame({"c": pl.Series([object()], dtype=pl.Object)}), "polars.Object"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_change_is_refused_with_its_column(log, name):
    frame, says = REFUSED[name]
    log.put({"before": 1})
    with pytest.raises(pqlog.EncodeError, match=f"column 'c'.*{says}"):
        log.put_many(frame)
    assert log.to_pandas(metadata=False)["before"].tolist() == [1]
    assert log.put({"after": 1}) == 2


LABELS = [
    pd.period_range("2026", periods=2, freq="M", name="month"),
    pd.CategoricalIndex(["a", "b"], ordered=True),
    pd.interval_range(0, 2),
    pd.timedelta_range("1D", periods=2),
    pd.date_range("2026-01-01", periods=2, tz="Europe/Prague"),
    pd.Index([True, False]),
    pd.Index([1, "a"], dtype=object),
    pd.Index([DAY, datetime.date(2026, 11, 26)]),
    pd.Index(["a", "b"], dtype=object),
    pd.RangeIndex(2),
    pd.Index([0.5, 2.0]),
]


@pytest.mark.parametrize("labels", LABELS, ids=lambda labels: str(labels.dtype))
def test_labels_and_indexes_come_back_as_they_were(log, labels):
    frame = pd.DataFrame([[1, 2]], columns=labels)
    log.put_many(frame)
    pd.testing.assert_frame_equal(log.to_pandas(metadata=False), frame)
    assert log[1].value == {str(label): at for at, label in enumerate(labels, 1)}
    indexed = pd.DataFrame({"n": [1, 2]}, index=labels)
    put = log.put_many(indexed)
    pd.testing.assert_frame_equal(log[put.first :].to_pandas(metadata=False), indexed)
    names = {"n"} if labels.name is None else {"n", labels.name}
    assert set(log[put.first].value) == names


@pytest.mark.parametrize("dtype", ["str", "int64[pyarrow]", "object", "category"])
def test_a_frame_without_columns_keeps_its_rows_and_the_type_of_its_labels(log, dtype):
    frame = pd.DataFrame(index=[5, 6], columns=pd.Index([], dtype=dtype, name="measure"))
    log.put_many(frame)
    pd.testing.assert_frame_equal(log.to_pandas(metadata=False), frame)


@pytest.mark.parametrize("flatten", [False, True])
@pytest.mark.parametrize("put", [lambda log: log.put({"n": 1}), lambda log: log.put_many(pd.DataFrame({"n": [1]}))])
def test_a_frame_without_columns_keeps_its_rows_beside_others(log, put, flatten):
    put(log)
    log.put_many(pd.DataFrame(index=["x", "y", "z"]))
    put(log)
    read = {"metadata": False, "flatten": flatten}
    frame = log.to_pandas(**read)
    assert (len(frame), frame["n"].notna().tolist()) == (5, [True, False, False, False, True])
    assert len(log.to_pandas(flatten=flatten)) == log.to_arrow(**read).num_rows == log.to_polars(**read).height == 5
    assert [len(chunk) for chunk in log.chunks(2, **read)] == [2, 2, 1]
    assert sum(batch.num_rows for batch in log.to_batches(2, **read)) == 5


def test_several_levels_of_an_index_come_back(log):
    index = pd.MultiIndex.from_product([pd.Categorical(["a", "b"]), [1, 2]], names=["n", None])
    frame = pd.DataFrame({"n": range(4)}, index=index)  # one is named as a column: it is kept, and is no field
    log.put_many(frame)
    pd.testing.assert_frame_equal(log.to_pandas(metadata=False), frame)
    assert log[2].value == {"n": 1}


def test_frames_without_columns_are_messages_without_fields(log):
    frame = pd.DataFrame(index=pd.Index(["a", "b"]))
    log.put_many(frame)
    log.put_many(pd.DataFrame(index=range(3)))
    log.put_many(pa.table({"a": [1, 2]}).select([]))
    assert list(log.get("c")) == [{}] * len(log)
    assert len(log) >= 5
    pd.testing.assert_frame_equal(log[:3].to_pandas(metadata=False), frame, check_column_type=False)


def test_what_a_frame_of_an_owner_has_beside_its_columns_comes_back(log):
    class Own(pd.DataFrame):
        @property
        def _constructor(self):
            return Own

    frame = Own({"a": [1]})
    frame.attrs = {"source": "till-3", "ranks": [1, 2]}
    log.put_many(frame)
    assert log.to_pandas(metadata=False).attrs == frame.attrs
    assert log[1].value == {"a": 1}


def test_what_parquet_gives_can_be_put(log):
    file = io.BytesIO()
    frame = pd.DataFrame({"list": [[1, 2], None], "text": [["a"], ["b", None]], "struct": [{"a": 1}, None]})
    frame.to_parquet(file)
    for how in ({}, {"dtype_backend": "pyarrow"}, {"dtype_backend": "numpy_nullable"}):
        read = pd.read_parquet(file, **how)
        put = log.put_many(read)
        history = log[put.first :]
        pd.testing.assert_frame_equal(history.to_pandas(metadata=False), read)
        assert [message.value for message in history] == frame.to_dict("records")


def test_integers_beside_messages_without_them_stay_integers(log):
    log.put_many(pd.DataFrame({"n": [2**53 + 1, 5], "u": np.array([2**64 - 1, 0], "uint64"), "b": [True, False]}))
    log.put({"other": 1})
    frame = log.to_pandas(metadata=False)
    assert [str(frame[name].dtype) for name in ("n", "u", "b")] == ["Int64", "UInt64", "boolean"]
    assert frame["n"].tolist() == [2**53 + 1, 5, pd.NA]
    assert frame["u"][0] == 2**64 - 1


def test_infinities_beside_text_are_told_in_json_text(log):
    log.put_many(pd.DataFrame({"a": [math.inf, -math.inf, math.nan, 1.0]}))
    log.put({"a": "x"})
    assert log.to_arrow(metadata=False)["a"].to_pylist() == ['"Infinity"', '"-Infinity"', None, "1.0", '"x"']
    assert log.to_pandas(metadata=False)["a"].tolist() == [math.inf, -math.inf, None, 1.0, "x"]


def column(values, of):
    return pa.table({"a": pa.array(values, of)})


MIXTURES = {
    "lists": (column([[2**53 + 1]], pa.list_(pa.int64())), column([[0.5]], pa.list_(pa.float64()))),
    "structs": (
        column([{"x": 2**53 + 1}], pa.struct([("x", pa.int64())])),
        column([{"x": 0.5}], pa.struct([("x", pa.float64())])),
    ),
    "years": (column([32503680000], pa.timestamp("s")), column([1], pa.timestamp("ns"))),
    "spans": (column([10**12], pa.duration("s")), column([1], pa.duration("ns"))),
    "integers": (column([-1], pa.int64()), column([2**64 - 1], pa.uint64())),
    "decimals": (
        column([decimal.Decimal("1.5")], pa.decimal128(5, 1)),
        column([decimal.Decimal("1.50")], pa.decimal128(5, 2)),
    ),
    "zones": (column([0], pa.timestamp("us", "UTC")), column([0], pa.timestamp("us", "Europe/Prague"))),
    "spans and text": (column([1], pa.duration("ns")), column(["x"], pa.string())),
    "bins": (pd.DataFrame({"a": pd.cut([1, 2], 2)}), pd.DataFrame({"a": pd.cut([5, 9], 2)})),
    "bytes and text": (column([b"a"], pa.binary()), column(["a"], pa.string())),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_what_has_no_common_type_is_kept_each_as_it_was(log, name):
    for part in MIXTURES[name]:
        log.put_many(part)
    values = [message.value["a"] for message in log]
    frame = log.to_pandas(metadata=False)
    assert frame["a"].tolist() == values
    assert [type(value) for value in frame["a"]] == [type(value) for value in values]
    assert log.to_arrow(metadata=False).schema.field("a").metadata == {b"pqlog": b"json"}
    assert [chunk["a"].tolist() for chunk in log.chunks(1)] == [[value] for value in values]
    log.to_polars()


def test_a_number_beside_text_is_what_it_was_however_it_was_read(log):
    log.put_many([{"a": 1}, {"a": 0.5}, {"a": 3.0}, *[{"a": 2}] * 5, {"a": "x"}, {}])
    expected = [1, 0.5, 3.0, 2, 2, 2, 2, 2, "x", None]
    for rows in (1, 2, 3, 100):
        with chunks_of(rows):
            for values in (
                log.to_pandas(metadata=False)["a"].tolist(),
                [value for chunk in log.chunks(3, metadata=False) for value in chunk["a"]],
                log.live().frame["a"].tolist(),
            ):
                assert repr(values) == repr(expected)
            assert log.to_arrow()["a"].to_pylist()[:4] == ["1", "0.5", "3.0", "2"]
            assert log.to_batches(2).read_all()["a"].to_pylist()[:4] == ["1", "0.5", "3.0", "2"]


def test_chunks_have_the_same_dtypes(log):
    log.put_many(
        pd.DataFrame({"c": pd.Categorical(["x", "y"], ["x", "y", "z"], ordered=True), "i": [1, 2], "a": [1, 2]})
    )
    log.put_many(pd.DataFrame({"q": [1], "d": pd.Categorical(["x"]), "a": [0.5]}))
    log.put_many(pd.DataFrame({"d": pd.Categorical(["y"])}, index=["row"]))
    for metadata in (False, True):
        whole = log.to_pandas(metadata=metadata)
        assert [str(whole[name].dtype) for name in "ciad"] == ["category", "Int64", "float64", "str"]
        assert whole["c"].dtype.categories.tolist() == ["x", "y", "z"]
        for chunk in log.chunks(1, metadata=metadata):
            assert chunk.dtypes.tolist() == whole.dtypes.tolist()


def test_a_segment_that_would_not_come_back_is_not_put(log, monkeypatch):
    """What is stored is what was read back: if anything goes wrong in between, the put raises an error."""
    decode = writer.ipc.decode
    monkeypatch.setattr(writer.ipc, "decode", lambda *args: decode(*args).set_column(0, "n", pa.array([[1, 2, 4]][0])))
    with pytest.raises(pqlog.EncodeError, match=r"column 'n' .*would not come back as it is"):
        log.put_many(pa.table({"n": [1, 2, 3]}))
    assert len(log) == 0


def test_a_category_of_periods_stays_one_beside_a_category_without_values(log):
    periods = pd.DataFrame({"c": pd.Categorical(pd.period_range("2026-01", periods=2, freq="M"))})
    log.put_many(periods)
    log.put_many(pd.DataFrame({"c": pd.Categorical([None], categories=["a"])}))
    assert log.to_pandas()["c"].tolist()[:2] == periods["c"].tolist()


def test_a_column_of_nothing_keeps_what_its_owner_noted(log):
    table = pa.table([pa.nulls(2)], schema=pa.schema([pa.field("c", pa.null(), metadata={"unit": "CZK"})]))
    log.put_many(table)
    assert log.to_arrow(metadata=False).schema.equals(table.schema, check_metadata=True)
