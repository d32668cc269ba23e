"""A frame's cells are what json.loads gives, whatever the values, and its dtypes do not depend on how chunks fall."""

import contextlib
import datetime
import json
import math
from unittest import mock

import msgspec
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import pqlog
from pqlog.frames import parse, prefetch
from pqlog.frames.columns import json_field, pickle_field
from tests import seams

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
SCALAR = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, 2**63, -(2**63)])
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
    | st.sampled_from(["2026-11-24T10:00:00Z", "2026-11-24", "1", "true", "null", ""])
)
JSON = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=5
)
NAMES = st.sampled_from(["a", "b", "offset", "_time", "_key", "value", "a.b", "", "offset_"]) | TEXT
# Fields with one kind of value are more frequent than by chance.
FIELD = st.one_of(st.integers(-9, 9), st.floats(allow_nan=False, allow_infinity=False), TEXT, st.booleans(), JSON)
OBJECT = st.dictionaries(NAMES, FIELD, max_size=4)
VALUES = st.lists(OBJECT | JSON, max_size=12) | st.lists(
    st.fixed_dictionaries({}, optional={"a": st.integers(), "b": st.floats(allow_nan=False, allow_infinity=False)}),
    max_size=12,
)


@contextlib.contextmanager
def chunks_of(rows):
    """Ranges are read, and types inferred, in chunks of this few messages."""
    with (
        mock.patch.object(prefetch, "READ_ROWS", rows),
        mock.patch.object(parse, "SAMPLE_ROWS", max(1, rows // 2)),
        mock.patch.object(parse, "DECODED_ROWS", rows),
    ):
        yield


def cell(value):
    """A cell as a plain Python value; None if it is missing."""
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return None
    return value.item() if hasattr(value, "item") else value


def same(one, other, doubles=False):
    """Equal, and of the same kind: true is not 1. Only in a column of doubles may an integer be its double."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, float) and isinstance(other, float):
        return math.copysign(1, one) == math.copysign(1, other) and one == other
    if doubles and isinstance(one, int) and isinstance(other, float):
        return one == other
    return type(one) is type(other) and one == other


def expected_names(rows, taken):
    """Every field in order of its first appearance, with the name that it has in the frame."""
    names = {}
    for row in rows:
        for name in row:
            if name not in names:
                free = name
                while free in taken or free in names.values():
                    free += "_"
                names[name] = free
    return names


@settings(max_examples=150)
@given(VALUES, st.integers(1, 5), st.booleans())
@example([{"a": 1}, None, {"a": 2}], 1, True)
@example([{"a": 1.5}, {"a": 2**53 + 1}], 1, True)
@example([{"a": 1e300}, {"a": 5}], 1, True)
@example([{"a": {"x": 1}}, {"a": 2}, {"b": 3}], 1, True)
@example([{"a": -0.0}, {"a": 0}], 1, False)
def test_cells_are_what_json_loads_gives(values, rows, metadata):
    with pqlog.open(":memory:") as log, chunks_of(rows):
        log.put_many(values)
        plain = [json.loads(msgspec.json.encode(value)) for value in values]
        frame = log.to_pandas(metadata=metadata)
        fields = [value if isinstance(value, dict) else {"value": value} for value in plain]
        names = expected_names(fields, ("offset", "_time", "_key") if metadata else ())
        assert [name for name in frame.columns if not (metadata and name == "_time")] == list(names.values())
        for name, column in names.items():
            doubles = frame.dtypes[column] == "float64"
            for row, got in zip(fields, frame[column], strict=True):
                assert same(cell(row.get(name)), cell(got), doubles), (name, row, got, frame.dtypes)


@settings(max_examples=100)
@given(VALUES, st.integers(1, 7), st.integers(1, 7))
def test_dtypes_do_not_depend_on_how_chunks_fall(values, one, other):
    with pqlog.open(":memory:") as log:
        log.put_many(values)
        found = []
        for rows in (one, other, 100_000):
            with chunks_of(rows):
                found.append((log.to_arrow(), log.to_pandas(), log.to_batches(batch_size=rows).read_all()))
        for table, frame, stream in found[1:]:
            assert table.schema.equals(found[0][0].schema, check_metadata=True)
            assert table.equals(found[0][0])
            assert stream.equals(table)
            assert list(frame.dtypes.items()) == list(found[0][1].dtypes.items())


def frame(*values, **how):
    with pqlog.open(":memory:") as log:
        log.put_many(values)
        return log.to_pandas(**how).drop(columns="_time", errors="ignore")


def test_types_of_columns():
    rows = [
        {"int": 1, "holes": 1, "big": 2**53 + 1, "flag": True, "maybe": False, "number": 1, "text": "a", "none": None},
        {"int": -2, "big": 2**63 - 1, "flag": False, "number": 0.5, "text": "b", "none": None},
    ]
    found = frame(*rows)
    assert {name: str(dtype) for name, dtype in found.dtypes.items()} == {
        "int": "int64",
        "holes": "Int64",
        "big": "int64",
        "flag": "bool",
        "maybe": "boolean",
        "number": "float64",
        "text": "str",
        "none": "object",
    }
    assert found["big"].tolist() == [2**53 + 1, 2**63 - 1]
    assert found["holes"].tolist() == [1, pd.NA]


def test_integers_beyond_64_bits_stay_what_they_are():
    assert frame({"n": 2**64}, {"n": 1})["n"].tolist() == [2**64, 1]


def test_nested_values_stay_objects_or_become_columns():
    rows = [{"who": {"name": "A", "at": {"x": 1}}, "tags": [1, "b"]}, {"who": "nobody"}, {"who": {}}]
    assert frame(*rows)["who"].tolist() == [{"name": "A", "at": {"x": 1}}, "nobody", {}]
    flat = frame(*rows, flatten=True)
    assert list(flat.columns) == ["who", "who.name", "who.at.x", "tags"]
    assert flat["who"].tolist() == [None, "nobody", {}]
    assert flat["who.at.x"].tolist() == [1, pd.NA, pd.NA]
    assert flat["tags"].tolist() == [[1, "b"], None, None]


def test_values_that_are_no_objects():
    assert frame(1, {"value": 2}, 3)["value"].tolist() == [1, 2, 3]
    assert frame("a", [1], None)["value"].tolist() == ["a", [1], None]


def test_columns_in_the_order_asked_for():
    found = frame({"a": 1, "b": 2, "c": [3]}, {"c": 4}, columns=["c", "a"], metadata=False)
    assert list(found.columns) == ["c", "a"]
    assert found["c"].tolist() == [[3], 4]
    with pytest.raises(pqlog.ArgumentError, match="a list of the names"):
        frame({"a": 1}, columns="a")
    with pytest.raises(pqlog.ArgumentError, match="twice"):
        frame({"a": 1}, columns=["a", "a"])


@settings(max_examples=100)
@given(st.lists(OBJECT, max_size=8), st.lists(NAMES, max_size=3, unique=True), st.integers(1, 4))
def test_chosen_columns_are_those_of_the_whole(values, columns, rows):
    with pqlog.open(":memory:") as log, chunks_of(rows):
        log.put_many(values)
        whole = log.to_arrow(metadata=False)
        if values and not set(columns) <= set(whole.column_names):
            with pytest.raises(pqlog.ArgumentError, match="no message here has a field"):
                log.to_arrow(columns, metadata=False)
            return
        part = log.to_arrow(columns, metadata=False)
        assert part.column_names == columns
        assert part.num_rows == len(values)
        for name in columns if values else ():
            assert part.column(name).equals(whole.column(name))
            assert part.schema.field(name).equals(whole.schema.field(name), check_metadata=True)


def test_times_are_parsed_on_request():
    rows = [
        {"at": "2026-11-24T10:00:00Z"},
        {"at": "2026-11-24T12:00:00.123456+02:00"},
        {"at": "2026-11-24"},
        {"at": None},
    ]
    at = frame(*rows, parse_dates=["at"])["at"]
    assert str(at.dtype) == "datetime64[us, UTC]"
    assert [t.isoformat() for t in at[:3]] == [
        "2026-11-24T10:00:00+00:00",
        "2026-11-24T10:00:00.123456+00:00",
        "2026-11-24T00:00:00+00:00",
    ]
    assert str(frame(*rows)["at"].dtype) == "str"
    with pytest.raises(pqlog.ArgumentError, match="field 'at' of message 2 is 'soon', which is not an ISO 8601 time"):
        frame(rows[0], {"at": "soon"}, parse_dates=["at"])
    with pytest.raises(pqlog.ArgumentError, match="is 5, which is not an ISO"):
        frame({"at": 5}, parse_dates=["at"])


@pytest.mark.parametrize("backend", ["pyarrow", "numpy_nullable"])
def test_dtype_backends(backend):
    found = frame({"n": 1, "s": "a", "x": 0.5}, {"s": None}, dtype_backend=backend)
    kinds = [str(dtype) for dtype in found.dtypes]
    wanted = {"pyarrow": ["int64[pyarrow]", "string[pyarrow]", "double[pyarrow]"]}
    assert kinds == wanted.get(backend, ["Int64", "string", "Float64"])
    assert found["n"].tolist() == [1, pd.NA]
    with pytest.raises(pqlog.ArgumentError, match="dtype_backend must be"):
        frame({"n": 1}, dtype_backend="polars")


def test_empty_ranges_have_the_logs_own_columns():
    with pqlog.open(":memory:") as log:
        found = log.to_pandas()
        assert (len(found), list(found.columns), found.index.name) == (0, ["_time"], "offset")
        assert log.to_arrow().schema.names == ["offset", "_time"]
        assert len(log.to_polars()) == 0
        assert list(log.chunks()) == []
        assert log.head().empty
        assert log.tail().empty


def test_a_million_different_fields_are_refused():
    with pqlog.open(":memory:") as log:
        log.put_many({f"key-{n}": n} for n in range(20_000))
        with pytest.raises(pqlog.ArgumentError, match=r"more than 5,000 different fields.*columns="):
            log.to_pandas()
        assert log.to_pandas(["key-7"])["key-7"].sum() == 7


NO_TEXT = st.dictionaries(
    st.sampled_from([1, 2, "1", "2", "1_", True, b"1"]), st.integers(-5, 5) | st.floats(-5, 5) | TEXT, max_size=4
)


@given(st.lists(NO_TEXT, max_size=8), st.integers(1, 8))
def test_names_that_are_no_text_do_not_depend_on_chunks(values, rows):
    with pqlog.open(":memory:", codec="msgpack") as log:
        log.put_many(values)
        whole = log.to_arrow(metadata=False)
        with chunks_of(rows):
            assert log.to_arrow(metadata=False).equals(whole, check_metadata=True)


def test_integers_of_a_field_whose_name_is_no_text_stay_integers():
    with pqlog.open(":memory:", codec="msgpack") as log, chunks_of(2):
        log.put_many([{1: 1}, {1: 0.5}, {1: "x"}])
        assert repr(log.to_pandas()["1"].tolist()) == "[1, 0.5, 'x']"


def test_bytes_and_msgpack_topics():
    with pqlog.open(":memory:", codec="bytes") as log:
        log.put_many([b"a", b"\xff"])
        assert log.to_pandas()["value"].tolist() == [b"a", b"\xff"]
    utc = datetime.UTC
    values = [{"b": b"x", "at": datetime.datetime(2026, 1, 1, tzinfo=utc), "l": [b"y"]}, {"b": b"z", "n": math.inf}]
    with pqlog.open(":memory:", codec="msgpack") as log:
        log.put_many(values)
        found = log.to_pandas()
        assert found["b"].tolist() == [b"x", b"z"]
        assert found["at"][1] == values[0]["at"]
        assert found["l"].tolist() == [[b"y"], None]
        assert found["n"][2] == math.inf


def test_pickle_topics_keep_their_objects(path):
    values = [{"x": (1, 2), "n": 1}, {"x": {3}, "n": 2}]
    with pqlog.open(path, codec="pickle") as log:
        log.put_many(values)
        found = log.to_pandas()
        assert found["x"].tolist() == [(1, 2), {3}]
        assert str(found["n"].dtype) == "int64"
        assert pa.types.is_binary(log.to_arrow().schema.field("x").type)
    with pqlog.open(path) as log, pytest.raises(pqlog.PickleRefusedError, match="message 1"):
        log.to_pandas()


def test_a_message_that_cannot_be_decoded_says_which_it_is(path):
    with pqlog.open(path) as log:
        seams.put_encoded(log, b'{"a": 1}', b'{"a":', b'{"a": 3}')
    with pqlog.open(path) as log, pytest.raises(pqlog.DecodeError, match="message 2 of topic 'main'") as caught:
        log.to_pandas()
    assert caught.value.offset == 2


def test_typed_topics_are_read_as_plain_columns(path):
    class Sale(msgspec.Struct):
        city: str
        amount: float

    with pqlog.open(path, type=Sale) as log:
        log.put(Sale("Brno", 1.5), key="cz")
        assert next(log.get("c")) == Sale("Brno", 1.5)
        assert log.to_pandas()["amount"].tolist() == [1.5]
        assert log.history(key="cz").to_pandas()["city"].tolist() == ["Brno"]


def test_very_long_values():
    with pqlog.open(":memory:") as log:
        log.put_many([{"a": "x" * 3_000_000}, {"a": "y"}] * 3 + [{"a": "z"}] * 3000)
        assert [len(text) for text in log.to_pandas()["a"]] == [3_000_000, 1] * 3 + [1] * 3000


def test_a_file_cannot_make_its_reader_unpickle(path):
    """A segment whose metadata calls a column a pickle: it stays bytes, and no code of the file runs."""
    import os
    import pickle

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(path.parent / "was-here"),)

    column = pa.array([pickle.dumps(Evil())], pa.binary())
    with pqlog.open(path) as log:
        log.put_many(pa.table([column], schema=pa.schema([pickle_field("x")])))
    with pqlog.open(path) as log:
        assert isinstance(log.to_pandas()["x"][1], bytes)
        assert isinstance(log.to_pandas(metadata=False)["x"][0], bytes)
        assert isinstance(log[1].value["x"], bytes)
        assert isinstance(next(log.get("c"))["x"], bytes)
        log.put({"x": 1})
        assert isinstance(log.to_pandas()["x"][1], (bytes, str))
    assert not (path.parent / "was-here").exists()
    with pqlog.open(path.parent / "b.db") as log:
        with pytest.raises(pqlog.EncodeError, match=r"column 'x'.*marked as JSON text"):
            log.put_many(pa.table([pa.array(["no json"])], schema=pa.schema([json_field("x")])))
        assert len(log) == 0
