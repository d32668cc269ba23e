"""Strategies for frames of every kind: pandas' dtypes, indexes and labels, Arrow's types, polars' types.

A `Kind` is one kind of pandas column: a strategy for its cells, and how cells become a column. The same kinds make
indexes. Arrow's types are drawn first, nested to a depth of two, and then an array of that type is built from its
parts, so that it has what values in Python cannot tell: nulls in dictionaries, offsets, chunks.
"""

from __future__ import annotations

import datetime
import decimal
import functools
import uuid
import zoneinfo
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from hypothesis import strategies as st

UTC = datetime.UTC
PRAGUE = zoneinfo.ZoneInfo("Europe/Prague")
HALF = datetime.timezone(datetime.timedelta(hours=5, minutes=30))
ZONES = ["UTC", "Europe/Prague", "America/St_Johns", HALF]

pick = st.sampled_from
TEXT = pick(["", "a", "b", "a b", "Žižkov", "\0", "𝒳", "null", "1", "NaN", "2026-01-01", '"', "a" * 40])
FLOATS = pick([0.0, -0.0, 1.0, 0.1, -2.5, 1e300, 5e-324, 2.0**53, 2.0**64, float("inf"), float("-inf")])
NAN = float("nan")


def whole(bits: int, signed: bool = True) -> st.SearchStrategy[int]:
    """Integers of this many bits, with those at the limits more often than by chance."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    edges = [n for n in (0, 1, -1, low, low + 1, high, 2**53, 2**53 + 1, -(2**53) - 1) if low <= n <= high]
    return pick(edges) | st.integers(low, high)


def floats(bits: int) -> st.SearchStrategy[Any]:
    """Floating-point numbers of this many bits: any bits, and special values more often."""
    of = {16: np.float16, 32: np.float32, 64: np.float64}[bits]
    edges = [of(value) for value in (0.0, -0.0, 0.5, -2.5, NAN, float("inf"), float("-inf"))]
    edges += [np.finfo(of).max, np.finfo(of).smallest_subnormal]
    raw = st.integers(0, 2**bits - 1).map(lambda number: np.array(number, f"uint{bits}").view(of)[()])
    return pick(edges) | raw


class Kind(NamedTuple):
    """A kind of pandas column."""

    name: str
    cells: st.SearchStrategy[Any]
    make: Callable[[list[Any]], Any]
    """A Series or an extension array of cells."""


def objects(cells: list[Any]) -> pd.Series:
    """A column of Python objects, which pandas must not convert."""
    array = np.empty(len(cells), dtype=object)
    for position, value in enumerate(cells):
        array[position] = value
    return pd.Series(array, dtype=object)


def _typed(dtype: Any) -> Callable[[list[Any]], Any]:
    return lambda cells: pd.Series(cells, dtype=dtype)


def _numpy(dtype: str) -> Callable[[list[Any]], Any]:
    return lambda cells: pd.Series(np.array(cells, dtype=dtype))


def _counted(dtype: str) -> Callable[[list[Any]], Any]:
    """Times and spans from their number of units: NaT is the smallest integer."""
    return lambda cells: pd.Series(np.array(cells, dtype="int64").view(dtype))


def _zoned(zone: Any, unit: str) -> Callable[[list[Any]], Any]:
    plain = _counted(f"datetime64[{unit}]")
    return lambda cells: plain(cells).dt.tz_localize("UTC").dt.tz_convert(zone)


def _period(freq: str) -> Callable[[list[Any]], Any]:
    return lambda cells: pd.Series(pd.arrays.PeriodArray(np.array(cells, dtype="int64"), dtype=pd.PeriodDtype(freq)))


def _interval(points: Callable[[list[Any]], Any], closed: str) -> Callable[[list[Any]], Any]:
    def make(cells: list[Any]) -> Any:
        edges = points(list(range(8)))
        index = [0 if cell is None else cell for cell in cells]
        left = edges.take(index)
        right = edges.take([one + 1 for one in index])
        made = pd.arrays.IntervalArray.from_arrays(pd.Index(left), pd.Index(right), closed=closed)
        if None in cells:
            made = pd.Series(made).where([cell is not None for cell in cells]).array
        return pd.Series(made)

    return make


def _category(categories: Callable[[], Any], ordered: bool) -> Callable[[list[Any]], Any]:
    def make(cells: list[Any]) -> Any:
        index = pd.Index(categories())
        codes = [-1 if cell is None else cell % max(1, len(index)) for cell in cells]
        return pd.Series(pd.Categorical.from_codes(codes if len(index) else [-1] * len(cells), index, ordered=ordered))

    return make


def _sparse(dtype: str, fill: Any) -> Callable[[list[Any]], Any]:
    return lambda cells: pd.Series(pd.arrays.SparseArray(np.array(cells, dtype=dtype), fill_value=fill))


def _arrow(type_: pa.DataType) -> Callable[[list[Any]], Any]:
    return lambda cells: pd.Series(pd.arrays.ArrowExtensionArray(pa.chunked_array([pa.array(cells, type_)], type_)))


NAT = np.iinfo("int64").min
COUNTS = {
    "s": pick([0, 1, -1, 1_700_000_000, 32_503_680_000, -62_135_596_800, NAT]),
    "ms": pick([0, 1, -1, 1_700_000_000_123, 32_503_680_000_001, NAT]),
    "us": pick([0, 1, -1, 1_700_000_000_123_456, 253_402_300_799_999_999, -62_135_596_800_000_000, NAT]),
    "ns": pick([0, 1, -1, 1_700_000_000_123_456_789, 1_700_000_000_123_456_000, 2**63 - 1, NAT + 1, NAT]),
}
# Half past two on the night when the clocks of Prague go back: twice, an hour apart.
FOLDS = [1_761_438_600, 1_761_442_200]
SPANS = {unit: pick([0, 1, -1, 86_400, 10**12 + 1, -(10**14), NAT]) for unit in ("s", "ms", "us", "ns")}
CODES = st.none() | st.integers(0, 5)
PLACES = st.none() | st.integers(0, 6)

Pair = namedtuple("Pair", "x y")


class Text(str):
    """A subclass: either it comes back as one too, or the put refuses it."""

    __slots__ = ()


class Number(int):
    """A subclass of int."""


class Odd:
    """An object that cannot be kept."""


MOMENTS = [
    datetime.datetime(2026, 1, 1),
    datetime.datetime(2026, 1, 1, 12, 30, 1, 5),
    datetime.datetime(1, 1, 1),
    datetime.datetime(9999, 12, 31, 23, 59, 59, 999999),
]
AWARE = [
    datetime.datetime(2026, 1, 1, 12, tzinfo=UTC),
    datetime.datetime(2026, 7, 1, 12, tzinfo=PRAGUE),
    datetime.datetime(2025, 10, 26, 2, 30, tzinfo=PRAGUE),
    datetime.datetime(2025, 10, 26, 2, 30, fold=1, tzinfo=PRAGUE),
    datetime.datetime(2026, 7, 1, 12, tzinfo=HALF),
]
DATES = [datetime.date(2026, 1, 1), datetime.date(1, 1, 1), datetime.date(9999, 12, 31)]
TIMES = [datetime.time(12, 30), datetime.time(0, 0, 0, 1), datetime.time(23, 59, 59, 999999)]
DECIMALS = [decimal.Decimal(text) for text in ("1.50", "1.5", "0", "-0.00", "1E+5", "123456789.123456789", "1e-20")]
UUIDS = [uuid.UUID(int=0), uuid.UUID(int=2**128 - 1), uuid.UUID("12345678123456781234567812345678")]
STAMPS = [
    pd.Timestamp("2026-01-01"),
    pd.Timestamp("2026-01-01 12:00:00.123456789"),
    pd.Timestamp("2026-01-01").as_unit("s"),
]
JSON = st.recursive(
    st.none() | st.booleans() | pick([0, 1, -1, 2**53 + 1, 2**64, -(2**70)]) | pick([0.5, -0.0, 1e300]) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
ODDITIES: dict[str, list[Any]] = {
    "text": ["a", "", None],
    "bytes": [b"a", b"", b"\xff", None],
    "bytes and text": [b"a", "a", b"\xff"],
    "bytearray": [bytearray(b"a"), b"a", memoryview(b"a")],
    "ints": [1, -1, 2**53 + 1, 2**63 - 1, None],
    "ints, NaN": [1, 2**53 + 1, NAN],
    "ints, NA": [1, 2**53 + 1, pd.NA],
    "huge ints": [2**63, 2**64, -(2**70), 1],
    "ints and bools": [1, True, 0, False],
    "ints and floats": [1, 1.0, 2**53 + 1, 0.5, None],
    "floats": [0.5, -0.0, float("inf"), None],
    "bools": [True, False, None],
    "missing": [None, NAN, pd.NA, pd.NaT],
    "text, missing": ["a", None, NAN, pd.NA, pd.NaT],
    "NaT of NumPy": [np.datetime64("NaT"), np.timedelta64("NaT"), None],
    "numpy scalars": [np.int64(1), np.float32(0.5), np.bool_(True), np.str_("a"), np.datetime64("2026-01-01")],
    "decimals": [decimal.Decimal("1.50"), decimal.Decimal("2.25"), None],
    "decimals, exponents": DECIMALS,
    "decimals, NaN": [decimal.Decimal("1.5"), decimal.Decimal("NaN"), decimal.Decimal("Infinity"), None],
    "decimals and ints": [decimal.Decimal("1.5"), 1, 0.5],
    "dates": [*DATES, None],
    "moments": [*MOMENTS, None],
    "aware moments": [*AWARE, None],
    "UTC moments": [AWARE[0], None],
    "moments of all kinds": [*MOMENTS, *AWARE, *DATES],
    "dates and moments": [DATES[0], MOMENTS[0], MOMENTS[1]],
    "times": [*TIMES, None],
    "times with a zone": [datetime.time(12, 30, tzinfo=UTC), datetime.time(12, 30, tzinfo=HALF), TIMES[0]],
    "folded times": [datetime.time(2, 30, fold=1), datetime.time(2, 30)],
    "spans": [datetime.timedelta(1), datetime.timedelta(microseconds=1), datetime.timedelta.max, None],
    "timestamps": [*STAMPS, None],
    "timestamps, NaT": [*STAMPS, pd.NaT],
    "timestamps with a zone": [pd.Timestamp("2026-01-01", tz="Europe/Prague"), pd.Timestamp("2026-01-01", tz="UTC")],
    "timestamps and moments": [STAMPS[0], MOMENTS[0]],
    "timedeltas": [pd.Timedelta(1, "ns"), pd.Timedelta("1D"), pd.NaT],
    "periods": [pd.Period("2026-01", "M"), pd.Period("2026", "Y"), None],
    "intervals": [pd.Interval(0, 1), pd.Interval(0.5, 1.5, closed="both"), None],
    "uuids": [*UUIDS, None],
    "uuids and text": [UUIDS[0], str(UUIDS[0])],
    "lists": [[1, 2], [], [None], None],
    "lists, one length": [[1, 2], [3, 4]],
    "lists, mixed": [[1, "a"], [0.5, None, True], [[1], {"a": 1}]],
    "lists with NaN": [[NAN], [1.5, NAN], [float("inf")]],
    "lists of dates": [[DATES[0]], [MOMENTS[0], AWARE[0]], []],
    "lists of bytes": [[b"a"], [b"\xff"], []],
    "tuples": [(1, 2), (), ("a", None), None],
    "tuples and lists": [(1, 2), [1, 2]],
    "named tuples": [Pair(1, 2), (1, 2)],
    "sets": [{1, 2}, set(), {"a"}, None],
    "frozen sets": [frozenset([1]), frozenset(), {1}],
    "dicts": [{"a": 1}, {"b": "x"}, {}, None],
    "dicts, other orders": [{"a": 1, "b": 2}, {"b": 2, "a": 1}],
    "dicts with dates": [{"at": DATES[0]}, {"at": MOMENTS[0], "n": NAN}, {}],
    "dicts with NaN": [{"x": NAN}, {"x": float("-inf")}, {"x": None}],
    "dicts with other keys": [{1: "a"}, {(1, 2): "b"}, {None: 1}, {True: 1}],
    "dicts, nested": [{"a": {"b": [1, {"c": None}]}}, {"a": {"d": 2**64}}],
    "dicts like ours": [{"__pqlog__": 1}, {"pqlog": "json"}, {"type": "datetime", "value": "2026-01-01"}, {"$": []}],
    "ordered dicts": [OrderedDict(a=1), {"a": 1}],
    "arrays": [np.array([1, 2]), np.array([0.5], dtype="float32"), None],
    "arrays, two dimensions": [np.array([[1, 2], [3, 4]]), np.array(["a"], dtype=object)],
    "mixed": ["a", 1, 0.5, True, None, [1], {"a": 1}],
    "everything": ["a", b"a", 1, 2**64, NAN, None, pd.NA, DATES[0], AWARE[1], DECIMALS[0], UUIDS[0], (1,), {1}, [NAN]],
    "subclasses": [Text("a"), "a", Number(1), 1],
    "complex numbers": [1j, 2.5, None],
    "ranges": [range(3), slice(1, 2)],
    "odd objects": [Odd, Odd(), None],
    "surrogates": ["\ud800", "a"],
    "classes": [int, str, pd.Timestamp],
    "ellipsis": [..., NotImplemented],
    "frames": [pd.Series([1]), pd.DataFrame({"a": [1]})],
}


def _kinds() -> dict[str, Kind]:
    """All of them, by name."""
    kinds: list[Kind] = []

    def add(name: str, cells: st.SearchStrategy[Any], make: Callable[[list[Any]], Any]) -> None:
        kinds.append(Kind(name, cells, make))

    for bits in (8, 16, 32, 64):
        add(f"int{bits}", whole(bits), _numpy(f"int{bits}"))
        add(f"uint{bits}", whole(bits, signed=False), _numpy(f"uint{bits}"))
        add(f"Int{bits}", whole(bits) | st.none(), _typed(f"Int{bits}"))
        add(f"UInt{bits}", whole(bits, signed=False) | st.none(), _typed(f"UInt{bits}"))
    for name in ("float16", "float32", "float64", "longdouble"):
        add(name, floats({"float16": 16, "float32": 32}.get(name, 64)), _numpy(name))
    add("int64, big-endian", whole(64), _numpy(">i8"))
    add("float64, big-endian", FLOATS, _numpy(">f8"))
    for name in ("complex64", "complex128"):
        add(name, pick([0j, -0.0 + 1j, complex(NAN, 1), 1.5 - 2j]), _numpy(name))
    add("bool", st.booleans(), _numpy("bool"))
    add("boolean", st.booleans() | st.none(), _typed("boolean"))
    for name in ("Float32", "Float64"):
        cells = pick([0.0, -0.0, 0.5, float("inf"), None])
        add(name, cells, _typed(name))
        add(
            f"{name} with NaN",
            pick([0.0, -0.0, 0.5, NAN, None]),
            lambda cells, name=name: pd.Series(
                pd.arrays.FloatingArray(
                    np.array([1.0 if cell is None else cell for cell in cells], name.lower()),
                    np.array([cell is None for cell in cells], bool),
                )
            ),
        )
    texts = TEXT | st.none()
    add("str", texts, _typed("str"))
    add("str, python", texts, _typed(pd.StringDtype("python", na_value=np.nan)))
    add("string", texts, _typed("string"))
    add("string[python]", texts, _typed("string[python]"))
    add("string[pyarrow]", texts, _typed("string[pyarrow]"))
    for unit in ("s", "ms", "us", "ns"):
        add(f"datetime64[{unit}]", COUNTS[unit], _counted(f"datetime64[{unit}]"))
        add(f"timedelta64[{unit}]", SPANS[unit], _counted(f"timedelta64[{unit}]"))
        add(f"datetime64[{unit}, UTC]", COUNTS[unit], _zoned("UTC", unit))
    for zone in ("Europe/Prague", "America/St_Johns", PRAGUE, HALF, UTC):
        add(f"datetime64 in {zone!r}", pick([*FOLDS, 0, 1_700_000_000, NAT]), _zoned(zone, "s"))
    add("datetime64[us] in Prague", pick([0, 1_700_000_000_123_456, NAT]), _zoned("Europe/Prague", "us"))
    for freq in ("D", "M", "Q-NOV", "W-WED", "h", "ns", "2D", "5min", "Y"):
        add(f"period[{freq}]", pick([0, 1, -5, 600, NAT]), _period(freq))
    points: dict[str, Callable[[list[Any]], Any]] = {
        "int64": _numpy("int64"),
        "float64": lambda cells: pd.Series(np.array(cells, dtype="float64") / 4),
        "datetime64[ns]": _counted("datetime64[ns]"),
        "datetime64[s, Prague]": _zoned("Europe/Prague", "s"),
        "timedelta64[us]": _counted("timedelta64[us]"),
    }
    for name, make in points.items():
        for closed in ("right", "both") if name == "int64" else ("left",):
            # Integers have no missing interval: pandas makes them floats.
            cells = st.integers(0, 6) if name == "int64" else PLACES
            add(f"interval[{name}, {closed}]", cells, _interval(make, closed))
    categories: dict[str, Callable[[], Any]] = {
        "str": lambda: ["x", "y", "z", ""],
        "object": lambda: pd.Index(["x", "y"], dtype=object),
        "mixed": lambda: pd.Index(["x", 1, 2.5], dtype=object),
        "tuple": lambda: pd.MultiIndex.from_tuples([(1, 2), (3, 4)]).to_flat_index(),
        "int64": lambda: [3, 1, 2**53 + 1],
        "int8": lambda: np.array([3, 1], dtype="int8"),
        "uint64": lambda: np.array([2**64 - 1, 1], dtype="uint64"),
        "float64": lambda: [0.5, -1.5, 1e300],
        "bool": lambda: [True, False],
        "datetime64": lambda: pd.date_range("2026-01-01", periods=3),
        "datetime64, zone": lambda: pd.date_range("2026-01-01", periods=3, tz="Europe/Prague"),
        "timedelta64": lambda: pd.timedelta_range("1D", periods=3),
        "period": lambda: pd.period_range("2026-01", periods=3, freq="M"),
        "interval": lambda: pd.interval_range(0, 3),
        "interval of floats": lambda: pd.cut([0.1, 0.9], 3).categories,
        "interval of times": lambda: pd.interval_range(pd.Timestamp("2026-01-01"), periods=3),
        "string": lambda: pd.array(["x", "y"], dtype="string"),
        "Int64": lambda: pd.array([1, 2], dtype="Int64"),
        "arrow": lambda: pd.array([1, 2], dtype=pd.ArrowDtype(pa.int32())),
        "date": lambda: pd.Index(DATES, dtype=object),
        "Timestamp objects": lambda: pd.Index(STAMPS[:2], dtype=object),
        "nothing": lambda: pd.Index([], dtype=object),
        "many": lambda: range(300),
    }
    for name, values in categories.items():
        add(f"category of {name}", CODES, _category(values, ordered=len(name) % 2 == 0))
    add("category of str, ordered", CODES, _category(categories["str"], ordered=True))
    add("pd.cut", pick([0.5, 1.5, 2.5, NAN]), lambda cells: pd.Series(pd.cut(cells, [0, 1, 2, 3])))
    add("pd.cut, one interval", pick([0.5]), lambda cells: pd.Series(pd.cut(cells, [0, 1])))
    add("sparse int", pick([0, 0, 1, 2**53 + 1]), _sparse("int64", 0))
    add("sparse float", pick([NAN, NAN, 0.5]), _sparse("float64", np.nan))
    add("sparse float of zeros", pick([0.0, 0.5, NAN]), _sparse("float64", 0.0))
    add("sparse bool", st.booleans(), _sparse("bool", False))
    add("sparse times", pick([0, 1, NAT]), lambda cells: _sparse("datetime64[ns]", pd.NaT)(cells))
    leaves: dict[pa.DataType, Any] = {
        pa.null(): st.none(),
        pa.bool_(): st.booleans(),
        pa.int8(): whole(8),
        pa.int64(): whole(64),
        pa.uint64(): whole(64, signed=False),
        pa.float32(): pick([0.0, -0.0, 0.5, NAN]),
        pa.float64(): FLOATS | pick([NAN]),
        pa.string(): TEXT,
        pa.large_string(): TEXT,
        pa.string_view(): TEXT,
        pa.binary(): st.binary(max_size=3),
        pa.large_binary(): st.binary(max_size=3),
        pa.binary(3): st.binary(min_size=3, max_size=3),
        pa.decimal128(12, 2): st.decimals(-999, 999, places=2),
        pa.decimal256(50, 5): st.decimals(-999, 999, places=5),
        pa.date32(): pick(DATES),
        pa.date64(): pick(DATES),
        pa.time32("s"): pick([datetime.time(12, 30, 1)]),
        pa.time64("us"): pick(TIMES),
        pa.time64("ns"): pick(TIMES),
        pa.timestamp("s"): pick([MOMENTS[0], MOMENTS[2]]),
        pa.timestamp("us"): pick(MOMENTS),
        pa.timestamp("ns"): pick([*STAMPS, MOMENTS[0]]),
        pa.timestamp("us", "Europe/Prague"): pick(AWARE[:4]),
        pa.timestamp("ns", "UTC"): pick([AWARE[0], pd.Timestamp("2026-01-01 12:00:00.123456789", tz="UTC")]),
        pa.duration("s"): pick([datetime.timedelta(1)]),
        pa.duration("ns"): pick([datetime.timedelta(1), pd.Timedelta(1, "ns")]),
        pa.month_day_nano_interval(): pick([pa.MonthDayNano([1, 2, 3]), pa.MonthDayNano([0, -1, 10**15])]),
        pa.dictionary(pa.int8(), pa.string()): TEXT,
        pa.dictionary(pa.int32(), pa.int64()): whole(64),
        pa.list_(pa.int64()): st.lists(whole(64) | st.none(), max_size=2),
        pa.large_list(pa.string()): st.lists(TEXT, max_size=2),
        pa.list_(pa.float32(), 2): st.lists(pick([0.5, NAN]), min_size=2, max_size=2),
        pa.list_(pa.list_(pa.timestamp("ns"))): st.lists(st.lists(pick(STAMPS), max_size=2), max_size=2),
        pa.struct([("x", pa.int64()), ("y", pa.string())]): st.fixed_dictionaries(
            {"x": whole(64) | st.none(), "y": TEXT | st.none()}
        ),
        pa.struct([("at", pa.timestamp("us", "Europe/Prague")), ("in", pa.list_(pa.decimal128(5, 2)))]): (
            st.fixed_dictionaries({"at": pick(AWARE[:2]), "in": st.lists(st.decimals(-9, 9, places=2), max_size=2)})
        ),
        pa.struct([]): st.just({}),
        pa.map_(pa.string(), pa.int64()): st.dictionaries(TEXT, whole(64), max_size=2).map(lambda d: list(d.items())),
        pa.map_(pa.int64(), pa.float64()): st.just([(1, 0.5), (1, NAN)]),
        pa.uuid(): pick(UUIDS).map(lambda one: one.bytes),
        pa.json_(pa.string()): pick(['{"a": 1}', "[1,2]", "null"]),
    }
    for type_, cells in leaves.items():
        add(f"{type_}[pyarrow]", cells | st.none(), _arrow(type_))
    for name, pool in ODDITIES.items():
        add(f"objects: {name}", pick(pool), objects)
    add("objects: JSON", JSON, objects)
    add("objects: one JSON each", st.dictionaries(TEXT, JSON, max_size=2), objects)
    return {kind.name: kind for kind in kinds}


KINDS = _kinds()
PLAIN = ["int64", "float64", "bool", "str", "datetime64[us]", "Int64", "category of str", "objects: mixed"]
"""What most frames are made of."""

MOST_ROWS = 5


def column(kind: Kind, rows: int) -> st.SearchStrategy[Any]:
    """Columns of one kind."""
    return st.lists(kind.cells, min_size=rows, max_size=rows).map(kind.make)


# indexes and labels

_NAMES = [None, "row", "", "a", "c0", 0, 7, 2.5, True, ("x", 1), DATES[0], STAMPS[0], "index", "level_0", "offset"]
NAMES = pick([*_NAMES, "_key", "__index_level_0__"])
FREQS = pick(["D", "h", "ME", "B", "2W-WED", "3min", "-1D", "QS-FEB"])
LISTABLE = [
    name
    for name in KINDS
    # What cannot be looked up cannot be an index either.
    if not any(word in name for word in ("list", "dict", "set", "array", "frames", "struct", "map<", "sparse"))
    and name not in ("float16", "objects: everything", "objects: mixed", "objects: JSON", "objects: one JSON each")
    and name not in ("objects: bytearray", "longdouble", "objects: ranges", "objects: odd objects")
]


@st.composite
def indexes(draw: Any, rows: int, kinds: list[str] | None = None) -> pd.Index:
    """Indexes of every kind."""
    which = draw(st.integers(0, 9))
    name = draw(NAMES)
    if which <= 2:
        start, step = draw(pick([(0, 1), (5, 3), (10, -2), (-1, 1), (0, 7)]))
        return pd.RangeIndex(start, start + rows * step, step, name=name)
    if which == 3:
        zone = draw(pick([None, "UTC", "Europe/Prague"]))
        unit = draw(pick(["s", "us", "ns"]))
        made = pd.date_range("2026-01-01", periods=rows, freq=draw(FREQS), tz=zone, unit=unit)
        return made.set_names([name])
    if which == 4:
        made = draw(
            pick(
                [
                    lambda: pd.timedelta_range("1D", periods=rows, freq="6h"),
                    lambda: pd.period_range("2026-01", periods=rows, freq="M"),
                    lambda: pd.interval_range(0, rows),
                ]
            )
        )()
        return made.set_names([name])
    many = which <= 6
    columns = [
        draw(column(KINDS[draw(pick(kinds or LISTABLE))], rows)) for _ in range(draw(pick([1, 2, 3])) if many else 1)
    ]
    names = [draw(NAMES) for _ in columns]
    try:
        if many:
            return pd.MultiIndex.from_arrays([pd.Index(one) for one in columns], names=names)
        return pd.Index(columns[0], name=name)
    except (NotImplementedError, TypeError, ValueError, DeprecationWarning):  # not every kind can be looked up
        return pd.RangeIndex(rows, name=name)


LABELS: dict[str, list[Any]] = {
    "text": ["a", "b", "", "ž", "index", "offset", "_time", "_key", "value", "a.b", "__index_level_0__", "0", "1"],
    "ints": [0, 1, -1, 2**40],
    "mixed": ["0", 0, 1.5, "1.5", None, ("a", 1), True],
    "bools": [True, False],
    "floats": [0.5, 1.0, float("nan")],
    "dates": DATES,
    "times": [STAMPS[0], pd.Timestamp("2026-01-02")],
    "tuples": [("a", 1), ("a", 2), ()],
    "bytes": [b"a", b"b"],
    "None": [None, "a"],
}


@st.composite
def labels(draw: Any, width: int) -> pd.Index:
    """Column labels of every kind, without duplicates."""
    name = draw(st.none() | NAMES)
    which = draw(st.integers(0, 12))
    if which <= 6 or not width:
        return pd.Index([f"c{i}" for i in range(width)], name=name)
    if which == 7:
        return pd.RangeIndex(width, name=name)
    if which == 8:
        made = draw(
            pick(
                [
                    lambda: pd.period_range("2026-01", periods=width, freq="M"),
                    lambda: pd.date_range("2026-01-01", periods=width, freq="D"),
                    lambda: pd.date_range("2026-01-01", periods=width, freq="D", tz="Europe/Prague"),
                    lambda: pd.timedelta_range("1D", periods=width),
                    lambda: pd.interval_range(0, width),
                    lambda: pd.CategoricalIndex([f"c{i}" for i in range(width)]),
                    lambda: pd.CategoricalIndex(range(width), categories=range(width + 1), ordered=True),
                    lambda: pd.Index(range(width), dtype="Int64"),
                    lambda: pd.Index([f"c{i}" for i in range(width)], dtype="string"),
                    lambda: pd.Index([f"c{i}" for i in range(width)], dtype=object),
                    lambda: pd.Index(np.arange(width, dtype="int8")),
                    lambda: pd.Index(np.arange(width) / 2),
                    lambda: pd.MultiIndex.from_product([["a"], range(width)], names=["x", None]),
                ]
            )
        )()
        return made if isinstance(made, pd.MultiIndex) else made.set_names([name])
    pool = LABELS[draw(pick(list(LABELS)))]
    chosen = draw(
        st.lists(pick(pool), min_size=min(width, len(pool)), max_size=width, unique_by=lambda x: (str(type(x)), str(x)))
    )
    chosen += [f"c{i}" for i in range(width - len(chosen))]
    plain = draw(st.booleans()) or any(isinstance(one, tuple) for one in chosen)
    made = np.empty(width, dtype=object)
    made[:] = chosen
    return pd.Index(made, dtype=object, name=name) if plain else pd.Index(chosen, name=name)


ATTRS = pick(
    [{}] * 8
    + [{"source": "till", "n": 1}, {"nested": {"a": [1, None]}}, {"at": STAMPS[0]}, {1: "a"}, {"x": NAN}, {"x": (1,)}]
    + [{"odd": Odd()}]
)


@st.composite
def pandas_frames(
    draw: Any, kinds: list[str] | None = None, first: str | None = None, plain: bool = False
) -> pd.DataFrame:
    """Frames of columns of any kinds.

    `first` is the kind of the first column. A `plain` one has text as labels, the simplest kind of index, and no
    attributes, like frames that are put next to others.
    """
    rows = draw(pick([1, 2, 2, 3, 3, MOST_ROWS, 0] if not plain else [1, 2, 3]))
    width = draw(pick([0, 1, 1, 2, 2, 3] if not plain else [1, 2, 3]))
    names = [draw(pick(kinds or PLAIN + list(KINDS))) for _ in range(width)]
    if first is not None:
        names = [first, *names[1:]]
    columns = [draw(column(KINDS[name], rows)) for name in names]
    index = pd.RangeIndex(rows) if plain or draw(st.booleans()) else draw(indexes(rows))
    frame = pd.DataFrame(dict(enumerate(columns)), index=None if columns else index)
    frame.index = index
    if plain:
        frame.columns = [f"c{i}" for i in range(len(names))]
    else:
        frame.columns = draw(labels(len(names)))
        frame.attrs = dict(draw(ATTRS))
    return frame


# Arrow

_INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
_ARROW_ZONES = [None, "UTC", "Europe/Prague", "+05:30", "-00:30"]
LEAVES: list[pa.DataType] = [
    pa.null(),
    pa.bool_(),
    *_INTEGERS,
    pa.float16(),
    pa.float32(),
    pa.float64(),
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.binary(0),
    pa.binary(3),
    pa.decimal32(5, 2),
    pa.decimal64(12, 3),
    pa.decimal128(38, 10),
    pa.decimal128(5, -2),
    pa.decimal256(76, 5),
    pa.date32(),
    pa.date64(),
    pa.time32("s"),
    pa.time32("ms"),
    pa.time64("us"),
    pa.time64("ns"),
    *(pa.timestamp(unit, zone) for unit in ("s", "ms", "us", "ns") for zone in _ARROW_ZONES[:3]),
    *(pa.timestamp("us", zone) for zone in _ARROW_ZONES[3:]),
    *(pa.duration(unit) for unit in ("s", "ms", "us", "ns")),
    pa.month_day_nano_interval(),
    pa.uuid(),
    pa.json_(pa.string()),
    pa.bool8(),
    pa.opaque(pa.binary(), "type", "vendor"),
]
METADATA = pick([None] * 4 + [{"unit": "CZK"}, {b"\xff": b"\x00"}, {"": ""}])
FIELD_NAMES = pick(["a", "b", "x", "ž", "a.b", "value", "key", ""])


def _field(name: str, type_: pa.DataType, nullable: bool, metadata: Any = None) -> pa.Field:
    """A field; one of nulls is always nullable."""
    return pa.field(name, type_, nullable or pa.types.is_null(type_), metadata)


@st.composite
def _fields(draw: Any, children: st.SearchStrategy[pa.DataType], most: int = 3) -> list[pa.Field]:
    types = draw(st.lists(children, max_size=most))
    return [_field(draw(FIELD_NAMES), one, draw(pick([True, True, False])), draw(METADATA)) for one in types]


def _item(types: st.SearchStrategy[pa.DataType]) -> st.SearchStrategy[pa.Field]:
    return st.builds(functools.partial(_field, "item"), types, pick([True, True, False]))


def _nested(inner: st.SearchStrategy[pa.DataType]) -> st.SearchStrategy[pa.DataType]:
    def union(fields: list[pa.Field], mode: str) -> pa.DataType:
        return pa.union([field.with_nullable(True) for field in fields], mode)

    return st.one_of(
        _item(inner).map(pa.list_),
        _item(inner).map(pa.list_),
        _fields(inner).map(pa.struct),
        _fields(inner).map(pa.struct),
        _item(inner).map(pa.large_list),
        _item(inner).map(pa.list_view),
        _item(inner).map(pa.large_list_view),
        st.builds(pa.list_, _item(inner), pick([0, 1, 2])),
        st.builds(pa.map_, pick([pa.string(), pa.int32(), pa.date32(), pa.binary(2)]), inner),
        st.builds(pa.dictionary, pick(_INTEGERS), inner, st.booleans()),
        st.builds(pa.run_end_encoded, pick([pa.int16(), pa.int32(), pa.int64()]), inner),
        st.builds(union, _fields(inner).filter(len), pick(["sparse", "dense"])),
    )


_FLAT = pick(LEAVES)
_ONCE = _nested(_FLAT)
ARROW_TYPES = _FLAT | _ONCE | _nested(_FLAT | _ONCE)
"""Any Arrow type, nested at most two deep."""
DICTIONARIES = st.builds(pa.dictionary, pick(_INTEGERS), pick([pa.string(), pa.int64(), pa.date32()]), st.booleans())


def _integers(type_: pa.DataType) -> st.SearchStrategy[int]:
    signed = pa.types.is_signed_integer(type_)
    return whole(type_.bit_width, signed)


@functools.cache
def _leaf_values(type_: pa.DataType) -> tuple[st.SearchStrategy[Any], pa.DataType]:
    """Values, and the type with which their array is created before it is viewed as the type itself."""
    is_ = pa.types
    if is_.is_boolean(type_):
        return st.booleans(), type_
    if is_.is_integer(type_):
        return _integers(type_), type_
    if is_.is_floating(type_):
        return floats(type_.bit_width), type_
    if is_.is_decimal(type_):
        digits = 10**type_.precision - 1
        whole_ = pick([0, 1, -1, digits, -digits]) | st.integers(-digits, digits)
        scale = decimal.Decimal(1).scaleb(-type_.scale)
        with decimal.localcontext(decimal.Context(prec=100)):
            return whole_.map(lambda n: decimal.Context(prec=100).multiply(decimal.Decimal(n), scale)), type_
    if is_.is_fixed_size_binary(type_):
        return st.binary(min_size=type_.byte_width, max_size=type_.byte_width), type_
    if is_.is_binary(type_) or is_.is_large_binary(type_) or type_ == pa.binary_view():
        return st.binary(max_size=3), type_
    if is_.is_string(type_) or is_.is_large_string(type_) or type_ == pa.string_view():
        return TEXT, type_
    if is_.is_time(type_):
        most = 86_400 * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[type_.unit]
        return pick([0, 1, most - 1]), pa.int32() if type_.bit_width == 32 else pa.int64()
    if is_.is_date32(type_):
        return pick([0, 1, -1, -719_162, 2_932_896, 2_932_897, -719_163, 2**31 - 1]), pa.int32()
    if is_.is_date64(type_):
        return pick([0, 1, -1, -719_162, 2_932_896, 2_932_897]).map(lambda days: days * 86_400_000), pa.int64()
    if is_.is_timestamp(type_):
        return COUNTS[type_.unit] | pick([0, 253_402_300_800 * {"s": 1, "ms": 1000}.get(type_.unit, 1)]), pa.int64()
    if is_.is_duration(type_):
        return SPANS[type_.unit], pa.int64()
    if is_.is_interval(type_):
        return pick([pa.MonthDayNano([1, 2, 3]), pa.MonthDayNano([0, -1, 10**15])]), type_
    raise AssertionError(type_)


@st.composite
def _arrays(draw: Any, type_: pa.DataType, rows: int, nulls: bool = True) -> pa.Array:
    """An array of a type, built from its parts."""
    is_ = pa.types
    if is_.is_null(type_):
        return pa.nulls(rows)
    holes = nulls and draw(st.booleans())
    if isinstance(type_, pa.BaseExtensionType):
        if isinstance(type_, pa.JsonType):
            storage = pa.array([draw(pick(['{"a": 1}', "[1, 2]", "null"])) for _ in range(rows)], type_.storage_type)
        else:
            storage = draw(_arrays(type_.storage_type, rows, nulls))
        return pa.ExtensionArray.from_storage(type_, storage)
    if is_.is_dictionary(type_):
        size = draw(pick([1, 2, 3]))
        values = draw(_arrays(type_.value_type, size, nulls))
        indices = [None if holes and draw(st.booleans()) else draw(st.integers(0, size - 1)) for _ in range(rows)]
        return pa.DictionaryArray.from_arrays(pa.array(indices, type_.index_type), values, ordered=type_.ordered)
    if is_.is_run_end_encoded(type_):
        ends = sorted({draw(st.integers(1, rows)) for _ in range(2)} | {rows}) if rows else []
        values = draw(_arrays(type_.value_type, len(ends), nulls))
        return pa.RunEndEncodedArray.from_arrays(pa.array(ends, type_.run_end_type), values, type_)
    if is_.is_union(type_):
        fields = [type_.field(i) for i in range(type_.num_fields)]
        codes = [draw(st.integers(0, len(fields) - 1)) for _ in range(rows)]
        names = [field.name for field in fields]
        children = [draw(_arrays(field.type, rows)) for field in fields]
        if type_.mode == "sparse":
            return pa.UnionArray.from_sparse(pa.array(codes, pa.int8()), children, names)
        return pa.UnionArray.from_dense(pa.array(codes, pa.int8()), pa.array(range(rows), pa.int32()), children, names)
    mask = [holes and draw(st.booleans()) for _ in range(rows)]
    if is_.is_struct(type_):
        fields = [type_.field(i) for i in range(type_.num_fields)]
        children = [draw(_arrays(field.type, rows, field.nullable)) for field in fields]
        if not fields:
            return pa.array([None if hole else {} for hole in mask], type_)
        return pa.StructArray.from_arrays(children, fields=fields, mask=pa.array(mask, pa.bool_()))
    if is_.is_map(type_):
        lengths = [0 if hole else draw(pick([0, 1, 2])) for hole in mask]
        keys = draw(_arrays(type_.key_type, sum(lengths), nulls=False))
        items = draw(_arrays(type_.item_type, sum(lengths), type_.item_field.nullable))
        return pa.MapArray.from_arrays(_offsets(lengths, mask, pa.int32()), keys, items, type_)
    if is_.is_fixed_size_list(type_):
        field = type_.value_field
        if not type_.list_size:  # pyarrow's from_arrays divides by it
            values = draw(_arrays(field.type, 0))
            valid = pa.array([not hole for hole in mask], pa.bool_()).buffers()[1]
            return pa.Array.from_buffers(type_, rows, [valid], children=[values])
        values = draw(_arrays(field.type, rows * type_.list_size, field.nullable))
        return pa.FixedSizeListArray.from_arrays(values, type=type_, mask=pa.array(mask, pa.bool_()))
    if is_.is_list(type_) or is_.is_large_list(type_):
        lengths = [0 if hole else draw(pick([0, 1, 2])) for hole in mask]
        values = draw(_arrays(type_.value_type, sum(lengths), type_.value_field.nullable))
        large = is_.is_large_list(type_)
        make = pa.LargeListArray if large else pa.ListArray
        return make.from_arrays(_offsets(lengths, mask, pa.int64() if large else pa.int32()), values, type=type_)
    if is_.is_list_view(type_) or is_.is_large_list_view(type_):
        count = draw(st.integers(1, 3))
        values = draw(_arrays(type_.value_type, count, type_.value_field.nullable))
        large = is_.is_large_list_view(type_)
        number = pa.int64() if large else pa.int32()
        starts = [draw(st.integers(0, count - 1)) for _ in range(rows)]
        sizes = [draw(st.integers(0, count - start)) for start in starts]
        make = pa.LargeListViewArray if large else pa.ListViewArray
        return make.from_arrays(
            pa.array(starts, number), pa.array(sizes, number), values, type=type_, mask=pa.array(mask, pa.bool_())
        )
    cells, base = _leaf_values(type_)
    found = pa.array([None if hole else draw(cells) for hole in mask], base)
    return found if base == type_ else found.view(type_)


def _offsets(lengths: list[int], mask: list[bool], number: pa.DataType) -> pa.Array:
    """The offsets of lists; a null list has a null offset."""
    found, start = [], 0
    for length, hole in zip(lengths, mask, strict=True):
        found.append(None if hole else start)
        start += length
    return pa.array([*found, start], number)


@st.composite
def arrow_columns(draw: Any, type_: pa.DataType, rows: int, nulls: bool = True) -> pa.ChunkedArray:
    """A column of a type: in one piece or in chunks, and perhaps a slice of something longer."""
    extra = draw(pick([0, 0, 1]))
    array = draw(_arrays(type_, rows + 2 * extra, nulls))
    array = array.slice(extra, rows)
    if rows > 1 and draw(pick([False, False, True])):
        return pa.chunked_array([array.slice(0, 1), array.slice(1)], type_)
    return pa.chunked_array([array], type_)


@st.composite
def arrow_tables(draw: Any, types: st.SearchStrategy[pa.DataType] = ARROW_TYPES, plain: bool = False) -> pa.Table:
    """Tables of columns of any types. A `plain` one has rows, and names like other frames."""
    rows = draw(pick([1, 2, 3] if plain else [1, 2, 2, 3, 3, MOST_ROWS, 0]))
    width = draw(pick([1, 2, 2, 3] if plain else [1, 1, 2]))
    chosen = [draw(types) for _ in range(width)]
    if plain:
        names = [f"c{i}" for i in range(width)]
    else:
        names = draw(st.lists(pick(LABELS["text"]), min_size=width, max_size=width, unique=True))
    fields = [
        _field(name, type_, True if plain else draw(pick([True, True, False])), None if plain else draw(METADATA))
        for name, type_ in zip(names, chosen, strict=True)
    ]
    columns = [draw(arrow_columns(field.type, rows, field.nullable)) for field in fields]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields, None if plain else draw(METADATA)))


# polars

_FEW = decimal.Context(prec=50)
POLARS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "Null": (pl.Null, st.none()),
    "Boolean": (pl.Boolean, st.booleans()),
    **{f"Int{bits}": (getattr(pl, f"Int{bits}"), whole(bits)) for bits in (8, 16, 32, 64, 128)},
    **{f"UInt{bits}": (getattr(pl, f"UInt{bits}"), whole(bits, signed=False)) for bits in (8, 16, 32, 64)},
    "Float32": (pl.Float32, pick([0.0, -0.0, 0.5, NAN])),
    "Float64": (pl.Float64, FLOATS | pick([NAN])),
    "String": (pl.String, TEXT),
    "Binary": (pl.Binary, st.binary(max_size=3)),
    "Date": (pl.Date, pick(DATES)),
    "Time": (pl.Time, pick(TIMES)),
    "Datetime us": (pl.Datetime("us"), pick(MOMENTS)),
    "Datetime ns": (pl.Datetime("ns"), pick(MOMENTS[:2])),
    "Datetime ms, UTC": (pl.Datetime("ms", "UTC"), pick(AWARE[:1])),
    "Datetime us, Prague": (pl.Datetime("us", "Europe/Prague"), pick(AWARE[1:4])),
    "Duration ms": (pl.Duration("ms"), pick([datetime.timedelta(1), datetime.timedelta(-9999)])),
    "Duration ns": (pl.Duration("ns"), pick([datetime.timedelta(microseconds=1)])),
    "Decimal": (pl.Decimal(38, 5), st.integers(-(10**30), 10**30).map(lambda n: _FEW.scaleb(decimal.Decimal(n), -5))),
    "Enum": (pl.Enum(["y", "x", "z"]), pick(["x", "y"])),
    "Categorical": (pl.Categorical(), pick(["x", "y", ""])),
    "List": (pl.List(pl.Int64), st.lists(whole(64) | st.none(), max_size=2)),
    "List of List": (pl.List(pl.List(pl.String)), st.lists(st.lists(TEXT | st.none(), max_size=2), max_size=2)),
    "List of Categorical": (pl.List(pl.Categorical()), st.lists(pick(["x", "y"]), max_size=2)),
    "List of Date": (pl.List(pl.Date), st.lists(pick(DATES), max_size=2)),
    "Array": (pl.Array(pl.Float64, 2), st.lists(pick([0.5, NAN, None]), min_size=2, max_size=2)),
    "Struct": (
        pl.Struct({"x": pl.Int64, "y": pl.String}),
        st.fixed_dictionaries({"x": whole(64) | st.none(), "y": TEXT | st.none()}),
    ),
    "Struct of Struct": (
        pl.Struct({"": pl.Struct({"at": pl.Datetime("us"), "in": pl.List(pl.Int8)})}),
        st.fixed_dictionaries(
            {"": st.none() | st.fixed_dictionaries({"at": pick(MOMENTS), "in": st.lists(whole(8), max_size=2)})}
        ),
    ),
    "Struct of Enum": (pl.Struct({"e": pl.Enum(["a", "b"])}), st.fixed_dictionaries({"e": pick(["a", "b", None])})),
    "Object": (pl.Object, pick(["a", 1, b"x", (1, 2), {1}])),
}
for _name, _bits in (("UInt128", 128),):
    if hasattr(pl, _name):
        POLARS[_name] = (getattr(pl, _name), whole(_bits, signed=False))
if hasattr(pl, "Float16"):
    POLARS["Float16"] = (pl.Float16, pick([0.0, -0.0, 0.5, NAN]))


@st.composite
def polars_frames(draw: Any, kinds: list[str] | None = None) -> pl.DataFrame:
    """polars frames with columns of any types."""
    rows = draw(pick([1, 2, 3, MOST_ROWS, 0]))
    width = draw(pick([1, 1, 2, 3]))
    names = draw(st.lists(pick(LABELS["text"]), min_size=width, max_size=width, unique=True))
    columns = []
    for name in names:
        dtype, cells = POLARS[draw(pick(kinds or list(POLARS)))]
        values = draw(st.lists(cells | st.none(), min_size=rows, max_size=rows))
        columns.append(pl.Series(name, values, dtype, strict=False))
    return pl.DataFrame(columns)
