"""What comes back how: a case for each sort of column, and the table of docs/frames.md that is made from them.

``python -m tests.frames.cases`` rewrites the table.
"""

from __future__ import annotations

import datetime
import decimal
import pathlib
import sys
import uuid
import zoneinfo
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

import pqlog
from pqlog.frames.columns import is_json
from tests.frames.compare import difference, missing, table_difference
from tests.frames.strategies import objects

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "frames.md"
BEGIN, END = "<!-- made by: python -m tests.frames.cases -->", "<!-- end of what is made -->"

UTC, PRAGUE = datetime.UTC, zoneinfo.ZoneInfo("Europe/Prague")
DAY, NOON = datetime.date(2026, 11, 24), datetime.datetime(2026, 11, 24, 12)
EARLY = pd.Timestamp("2026-11-24 12:00:00.000000001")
Decimal = decimal.Decimal


def column(values: Any, dtype: Any = None) -> pd.DataFrame:
    """A frame of one column."""
    return pd.DataFrame({"c": pd.Series(values, dtype=dtype)})


def of_objects(*cells: Any) -> pd.DataFrame:
    """A frame of one column of objects."""
    return pd.DataFrame({"c": objects(list(cells))})


def arrow(values: Any, type_: pa.DataType) -> pa.Table:
    """A table of one column."""
    return pa.table({"c": pa.array(values, type_)})


def polars(values: Any, dtype: Any) -> pl.DataFrame:
    """A frame of polars, of one column."""
    return pl.DataFrame({"c": pl.Series(values, dtype=dtype)})


CASES: dict[str, Any] = {
    "int8 ... uint64": column([1, 2**64 - 1], "uint64"),
    "float16, float32, float64": column([0.5, np.nan], "float64"),
    "bool": column([True, False]),
    "Int8 ... UInt64": column([1, None], "Int64"),
    "Float32, Float64": column([0.5, None], "Float64"),
    "boolean": column([True, None], "boolean"),
    "str, string": column(["a", None]),
    "datetime64[s], [ms], [us]": column(pd.to_datetime(["2026-11-24", None])),
    "datetime64[ns]": column([EARLY, pd.NaT]),
    "datetime64[us, zone]": column(pd.to_datetime(["2026-11-24"]).tz_localize("Europe/Prague")),
    "timedelta64[us]": column(pd.to_timedelta(["1D", None]).as_unit("us")),
    "timedelta64[ns]": column(pd.to_timedelta([1], "ns")),
    "period": column(pd.period_range("2026-11", periods=2, freq="M")),
    "interval": column(pd.interval_range(0, 2)),
    "category of text": column(["a", None], "category"),
    "category of numbers": column([3, 1], "category"),
    "category of datetimes": column(pd.Categorical(pd.to_datetime(["2026-11-24"]))),
    "pd.cut, pd.qcut": column(pd.cut([0.5, 1.5], [0, 1, 2])),
    "complex numbers": column([1j]),
    "sparse": column(pd.arrays.SparseArray([0, 0, 1])),
    "Arrow dtypes: numbers, text, times": column([1, None], "int64[pyarrow]"),
    "Arrow dtypes: list": column([[1], None], pd.ArrowDtype(pa.list_(pa.int64()))),
    "Arrow dtypes: struct": column([{"x": 1}, None], pd.ArrowDtype(pa.struct([("x", pa.int64())]))),
    "Arrow dtypes: map": column([[("k", 1)]], pd.ArrowDtype(pa.map_(pa.string(), pa.int64()))),
    "objects: text": of_objects("a", None),
    "objects: bytes": of_objects(b"a", None),
    "objects: integers of any size": of_objects(1, 2**70),
    "objects: text, with None or with nan": of_objects("a", np.nan),
    "objects: date": of_objects(DAY, None),
    "objects: datetime": of_objects(NOON, None),
    "objects: datetime with a zone": of_objects(NOON.replace(tzinfo=PRAGUE)),
    "objects: datetimes of several zones": of_objects(NOON.replace(tzinfo=PRAGUE), NOON),
    "objects: time": of_objects(datetime.time(12, 30)),
    "objects: timedelta": of_objects(datetime.timedelta(1)),
    "objects: Timestamp": of_objects(EARLY),
    "objects: Decimal, one scale": of_objects(Decimal("1.50"), Decimal("2.25")),
    "objects: Decimal, several scales": of_objects(Decimal("1.5"), Decimal("1.50")),
    "objects: UUID": of_objects(uuid.UUID(int=1), None),
    "objects: lists, dicts, mixed plain values": of_objects([1, "a"], {"b": None}, 2**60, True),
    "objects: lists of dates": of_objects([DAY], []),
    "objects: NumPy arrays": of_objects(np.array([1.5, 2.5]), None),
    "objects: NumPy scalars": of_objects(np.int64(1), np.int64(2)),
    "objects: tuples": of_objects((1, 2)),
    "objects: sets": of_objects({1, 2}),
    "objects: anything else": of_objects(object()),
    "Arrow: decimal128, decimal256": arrow([Decimal("1.50")], pa.decimal128(10, 2)),
    "Arrow: list, large_list, fixed_size_list": arrow([[1, None], None], pa.list_(pa.int64())),
    "Arrow: struct": arrow([{"x": 1}, None], pa.struct([("x", pa.int64())])),
    "Arrow: map": arrow([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
    "Arrow: dictionary": arrow(["a", None], pa.dictionary(pa.int8(), pa.string())),
    "Arrow: uuid": arrow([b"x" * 16], pa.uuid()),
    "Arrow: time64[us]": arrow([datetime.time(12, 30)], pa.time64("us")),
    "Arrow: time64[ns] with nanoseconds": arrow([1], pa.time64("ns")),
    "Arrow: timestamp beyond the year 9999": arrow([10**12], pa.timestamp("s")),
    "Arrow: union": pa.table(
        {"c": pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1]), pa.array(["a"])])}
    ),
    "polars: Decimal": polars([Decimal("1.5")], pl.Decimal(10, 2)),
    "polars: Enum, Categorical": polars(["a", None], pl.Enum(["a", "b"])),
    "polars: Array": polars([[1, 2]], pl.Array(pl.Int64, 2)),
    "polars: Duration": polars([datetime.timedelta(1)], pl.Duration("us")),
    "polars: Int128": polars([1], pl.Int128),
    "polars: Object": polars([object()], pl.Object),
}


def outcome(frame: Any) -> tuple[str, str, str]:
    """What a frame is in Arrow, which types its rows have, and what it is again in the form in which it was put."""
    with pqlog.open(":memory:") as log:
        try:
            log.put_many(frame)
        except pqlog.Error as error:
            assert "'c'" in str(error)
            return "", "", "**refused**"
        field = log.to_arrow(metadata=False).schema.field("c")
        kinds = {type(value) for message in log if not missing(value := message.value["c"])}
        names = sorted("Timestamp" if kind is pd.Timestamp else kind.__name__ for kind in kinds)
        if isinstance(frame, pd.DataFrame):
            changed = difference(frame, log.to_pandas(metadata=False))
        elif isinstance(frame, pl.DataFrame):
            back = log.to_polars(metadata=False)
            changed = None if back.schema == frame.schema and back.equals(frame) else "changed"
        else:
            changed = table_difference(frame, log.to_arrow(metadata=False))
        kind = "JSON text" if is_json(field) else f"`{_short(field.type)}`"
        again = "the same" if changed is None else changed
        framed = log.to_pandas()
        if isinstance(frame, pd.DataFrame) and list(map(type, frame["c"])) != list(map(type, framed["c"])):
            again = "the same, of Python's types"
        return kind, ", ".join(f"`{name}`" for name in names), again


def _short(type_: pa.DataType) -> str:
    text = getattr(type_, "extension_name", str(type_))
    if pa.types.is_dictionary(type_):
        return f"dictionary of {_short(type_.value_type)}"
    return text if len(text) < 32 else text.partition("<")[0]


def table() -> str:
    """The table, in Markdown."""
    lines = [
        "| what is put | in Arrow, for example | in messages | again in the form in which it was put |",
        "| --- | --- | --- | --- |",
    ]
    for what, frame in CASES.items():
        lines.append(f"| {what} | " + " | ".join(outcome(frame)) + " |")
    return "\n".join(lines)


def page(text: str) -> str:
    """A page with the table between its marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin, "the page has no place for the table"
    assert end
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    written = page(PAGE.read_text())
    changed = written != PAGE.read_text()
    PAGE.write_text(written)
    sys.stdout.write("docs/frames.md is new\n" if changed else "docs/frames.md was right\n")
