"""A Parquet dataset: readable by everyone, complete or absent, and no message twice."""

import errno
import functools
import os
import random
import shutil
import subprocess
import tempfile
from decimal import Decimal

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pqlog
from pqlog import export
from tests.interrupts import everywhere, moments
from tests.processes import start, wait_until


@pytest.fixture
def numbers(log):
    log.put_many({"n": n, "city": ("Brno", "Praha", None)[n % 3]} for n in range(10))
    return log


def read(folder):
    return pd.read_parquet(folder)["n"].tolist()


def test_a_dataset_is_read_by_pandas_polars_and_duckdb(numbers, tmp_path):
    folder = tmp_path / "out"
    written = numbers.to_parquet(folder, rows_per_file=4)
    assert [os.path.basename(path) for path in written] == [
        "000000000000001.parquet",
        "000000000000005.parquet",
        "000000000000009.parquet",
    ]
    assert sorted(os.listdir(folder)) == [os.path.basename(path) for path in written]
    assert read(folder) == list(range(10))
    assert pl.read_parquet(folder)["n"].to_list() == list(range(10))
    assert duckdb.sql(f"SELECT sum(n) FROM '{folder}/*.parquet'").fetchall() == [(45,)]
    assert pq.read_schema(written[0]).names == ["offset", "_time", "n", "city"]


def test_partitions_are_folders(numbers, tmp_path):
    folder = tmp_path / "out"
    for files in (6, 0):
        written = numbers.to_parquet(folder, rows_per_file=6, partition_by="city")
        assert len(written) == files
        assert sorted(os.listdir(folder)) == ["city=Brno", "city=Praha", "city=__HIVE_DEFAULT_PARTITION__"]
        assert sorted(pd.read_parquet(folder, partitioning=None)["n"]) == list(range(10))
    found = duckdb.sql(f"SELECT city, sum(n) FROM '{folder}/**/*.parquet' GROUP BY city ORDER BY city").fetchall()
    assert found == [("Brno", 18), ("Praha", 12), (None, 15)]
    assert pl.read_parquet(folder, hive_partitioning=True).filter(pl.col("city") == "Brno")["n"].sum() == 18
    with pytest.raises(pqlog.ArgumentError, match="no message has a field 'town'"):
        numbers.to_parquet(tmp_path / "other", partition_by="town")


def test_a_partition_column_whose_type_changes_moves_messages_to_other_folders(log, tmp_path):
    folder = tmp_path / "out"
    log.put({"g": "a", "n": 1})
    log.to_parquet(folder, partition_by="g")
    log.put({"g": 1, "n": 2})  # the column is JSON text from now on
    written = log.to_parquet(folder, partition_by="g")
    assert sorted(str(path) for path in folder.rglob("*.parquet")) == sorted(written)
    assert duckdb.sql(f"SELECT list(n ORDER BY n) FROM '{folder}/**/*.parquet'").fetchall() == [([1, 2],)]


def test_partitions_without_holes_are_read_by_pandas_as_columns(numbers, tmp_path):
    folder = tmp_path / "out"
    numbers.topic("whole").put_many({"n": n, "city": "BP"[n % 2]} for n in range(10))
    numbers.topic("whole").to_parquet(folder, rows_per_file=4, partition_by=["city"])
    frame = pd.read_parquet(folder)
    assert frame[frame["city"] == "P"]["n"].tolist() == [1, 3, 5, 7, 9]


def test_no_row_is_lost_if_there_are_more_partitions_than_files_that_may_be_open(log, tmp_path, monkeypatch):
    few = functools.partial(pyarrow.dataset.write_dataset, max_open_files=2)
    monkeypatch.setattr(pyarrow.dataset, "write_dataset", few)
    monkeypatch.setattr("pqlog.export.BATCH_ROWS", 6)
    log.put_many({"n": n, "store": n // 2 % 9} for n in range(54))  # each store in three batches
    written = log.to_parquet(tmp_path / "out", partition_by="store")
    assert sorted(pd.read_parquet(tmp_path / "out")["n"]) == list(range(54))
    assert len(written) > 9


def test_the_same_call_again_writes_only_what_is_new(numbers, tmp_path):
    folder = tmp_path / "out"
    assert len(numbers.to_parquet(folder, rows_per_file=4)) == 3
    assert numbers.to_parquet(folder, rows_per_file=4) == []
    numbers.put_many({"n": n, "city": "Brno"} for n in range(10, 14))
    assert len(numbers.to_parquet(folder, rows_per_file=4)) == 2
    assert read(folder) == list(range(14))


def test_with_partitions_too_the_same_call_again_writes_only_what_is_new(numbers, tmp_path):
    folder = tmp_path / "out"
    numbers.to_parquet(folder, rows_per_file=4, partition_by="city")
    before = {path: path.stat().st_ino for path in folder.rglob("*.parquet")}
    numbers.put_many({"n": n, "city": "Brno"} for n in range(10, 14))
    written = numbers.to_parquet(folder, rows_per_file=4, partition_by="city")
    new = [("Brno", 9), ("Brno", 13), ("__HIVE_DEFAULT_PARTITION__", 9)]
    assert sorted(written) == sorted(f"{folder}/city={city}/{first:015}.parquet" for city, first in new)
    after = {path: path.stat().st_ino for path in folder.rglob("*.parquet")}
    assert {str(path) for path, file in after.items() if before.get(path) != file} == set(written)
    assert before.keys() <= after.keys()
    assert sorted(pd.read_parquet(folder, partitioning=None)["n"]) == list(range(14))


@pytest.mark.parametrize("partition_by", [(), "city"])
def test_a_log_is_exported_and_trimmed_again_and_again(log, tmp_path, partition_by):
    folder, total, chance = tmp_path / "out", 0, random.Random(1)
    for _ in range(40):
        count = chance.randrange(1, 6)
        log.put_many({"n": n, "city": chance.choice("BPO")} for n in range(total, total + count))
        total += count
        log.to_parquet(folder, rows_per_file=7, partition_by=partition_by)
        assert log.to_parquet(folder, rows_per_file=7, partition_by=partition_by) == []
        assert sorted(pd.read_parquet(folder, partitioning=None)["n"]) == list(range(total))
        log.trim(before=chance.randrange(log.first or log.last, log.last + 2), force=True)


def test_a_type_that_changed_is_changed_in_all_files(numbers, tmp_path):
    folder = tmp_path / "out"
    numbers.to_parquet(folder, rows_per_file=4)
    numbers.put({"n": 10.5})
    assert len(numbers.to_parquet(folder, rows_per_file=4)) == 3
    assert read(folder) == [*range(10), 10.5]


def test_what_would_mix_or_lose_messages_is_refused(numbers, tmp_path):
    folder = tmp_path / "out"
    numbers.to_parquet(folder, rows_per_file=4)
    for other in (
        lambda: numbers.to_parquet(folder, rows_per_file=5),
        lambda: numbers.to_parquet(folder, rows_per_file=4, columns=["n"]),
        lambda: numbers.topic("other").to_parquet(folder, rows_per_file=4),
        lambda: numbers.history(key="x").to_parquet(folder, rows_per_file=4),
    ):
        with pytest.raises(pqlog.ArgumentError, match="another folder"):
            other()
    assert read(folder) == list(range(10))
    (folder / "other.parquet").write_bytes(b"PAR1")
    with pytest.raises(pqlog.ArgumentError, match=r"other\.parquet was not written by an export, or is damaged"):
        numbers.to_parquet(folder, rows_per_file=4)
    with pytest.raises(pqlog.ArgumentError, match="the latest messages change"):
        numbers.history().latest().to_parquet(tmp_path / "latest")


@pytest.mark.parametrize("partition_by", [(), "city"])
def test_a_range_adds_what_the_folder_lacks_of_it(numbers, tmp_path, partition_by):
    def export(history):
        return len(history.to_parquet(folder, partition_by=partition_by)) > 0

    def found():
        return sorted(pd.read_parquet(folder, partitioning=None)["n"])

    folder = tmp_path / "out"
    assert export(numbers[7:9])
    assert found() == [6, 7]
    assert export(numbers[5:8])  # begins earlier, and ends earlier
    assert found() == [4, 5, 6, 7]
    assert not export(numbers[6:8])
    assert export(numbers)
    assert found() == list(range(10))
    assert len({path.name for path in folder.rglob("*.parquet")}) == 1  # replaced those of parts of it
    assert not export(numbers[:8])
    assert not export(numbers)


@pytest.mark.parametrize("partition_by", [(), "city"])
def test_files_of_trimmed_messages_keep_their_columns_with_a_warning(numbers, tmp_path, partition_by):
    folder = tmp_path / "out"
    numbers.to_parquet(folder, rows_per_file=4, partition_by=partition_by)
    numbers.trim(before=3)
    numbers.put({"n": 10.5, "city": "Brno", "new": "x"})
    for _ in range(2):
        with pytest.warns(
            UserWarning, match=r"keep other columns .* such as .*000000000000001.parquet: .* union_by_name"
        ):
            numbers.to_parquet(folder, rows_per_file=4, partition_by=partition_by)
    rows = duckdb.sql(
        f"SELECT n, new FROM read_parquet('{folder}/**/*.parquet', union_by_name=true) ORDER BY n"
    ).fetchall()
    assert rows == [*((n, None) for n in range(10)), (10.5, "x")]
    schemas = {pq.read_schema(path).remove_metadata() for path in folder.rglob("*.parquet")}
    assert len(schemas) == 2


def test_files_of_trimmed_messages_that_had_more_fields_need_no_warning(log, tmp_path):
    folder = tmp_path / "out"
    log.put_many([{"n": 0.5, "old": "x"}, {"n": 1}, {"n": 2}])
    log.to_parquet(folder, rows_per_file=2)
    log.trim(before=2)
    log.put({"n": 3})
    log.to_parquet(folder, rows_per_file=2)
    assert read(folder) == [0.5, 1, 2, 3]


@pytest.mark.parametrize("partition_by", [(), "city"])
def test_a_trim_while_a_file_is_written_is_told(numbers, tmp_path, partition_by, monkeypatch):
    """The rows of the file were read after the trim, and its range is of before."""
    real = export.read_chunks

    def read_after_a_trim(selection, projection):
        numbers.trim(before=3)
        return real(selection, projection)

    with monkeypatch.context() as patch:
        patch.setattr(export, "read_chunks", read_after_a_trim)
        with pytest.raises(pqlog.TrimmedError, match="offset 1 was trimmed; the first offset kept is 3"):
            numbers.to_parquet(tmp_path / "d", partition_by=partition_by)
    numbers.to_parquet(tmp_path / "d", partition_by=partition_by)
    found = pd.read_parquet(tmp_path / "d", partitioning=None)
    assert sorted(found["offset"]) == [message.offset for message in numbers]


def test_a_trim_inside_a_complete_file_leaves_it_alone(numbers, tmp_path):
    folder = tmp_path / "out"
    numbers.to_parquet(folder, rows_per_file=4)
    numbers.trim(before=3)
    assert numbers.to_parquet(folder, rows_per_file=4) == []
    numbers.put_many({"n": n, "city": "Brno"} for n in range(10, 14))
    assert len(numbers.to_parquet(folder, rows_per_file=4)) == 2
    assert read(folder) == list(range(14))


READERS = {
    "pandas": lambda folder: pd.read_parquet(folder)["n"].tolist(),
    "polars": lambda folder: pl.scan_parquet(f"{folder}/*.parquet").collect()["n"].to_list(),
    "duckdb": lambda folder: [
        n for (n,) in duckdb.sql(f"SELECT n FROM '{folder}/*.parquet' ORDER BY \"offset\"").fetchall()
    ],
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS.keys())
@pytest.mark.parametrize(
    ("first", "later", "expected"),
    [
        ({"n": 1}, {"n": 2, "new": 5}, [1, 1, 2, 2]),
        ({"n": 1}, {"n": 2.5}, [1.0, 1.0, 2.5, 2.5]),
        ({"n": 1}, {"n": "x"}, ["1", "1", '"x"', '"x"']),  # JSON text, as in Arrow
        ({"n": None}, {"n": "x"}, [None, None, "x", "x"]),
    ],
    ids=["a new field", "fractions", "text", "first only null"],
)
def test_what_changes_later_is_in_all_files_and_readers_need_no_option(log, tmp_path, reader, first, later, expected):
    folder = tmp_path / "out"
    log.put_many([first] * 2)
    log.to_parquet(folder, rows_per_file=2)
    log.put_many([later] * 2)
    assert len(log.to_parquet(folder, rows_per_file=2)) == 2
    assert len({pq.read_schema(file).remove_metadata() for file in folder.glob("*.parquet")}) == 1
    found = reader(folder)
    assert [None if value != value else value for value in found] == expected
    assert list(map(type, found[2:])) == list(map(type, expected[2:]))


TWO = pa.array([1, 0], pa.int8())
COLUMNS = {
    "null": pa.nulls(2),
    "bool": pa.array([True, None]),
    **{str(of): pa.array([5, None], of) for of in (pa.int8(), pa.int16(), pa.int32(), pa.uint8(), pa.uint16())},
    "int64": pa.array([-(2**63), 2**63 - 1]),
    "uint32": pa.array([2**32 - 1, None], pa.uint32()),
    "uint64": pa.array([2**64 - 1, None], pa.uint64()),
    "half": pa.array([1.5, None], pa.float16()),
    "float": pa.array([0.1, float("inf")], pa.float32()),
    "double": pa.array([float("nan"), -0.0]),
    **{f"timestamp {unit}": pa.array([1, -1], pa.timestamp(unit)) for unit in ("s", "ms", "us", "ns")},
    **{
        f"timestamp {unit} zone": pa.array([1, None], pa.timestamp(unit, "Europe/Prague")) for unit in ("s", "us", "ns")
    },
    "year 20000": pa.array([568_971_820_800]).cast(pa.timestamp("s")),
    "year 2**40": pa.array([2**62]).cast(pa.timestamp("s")),
    **{f"duration {unit}": pa.array([2**62, -1], pa.duration(unit)) for unit in ("s", "ms", "us", "ns")},
    "time s": pa.array([1], pa.time32("s")),
    "time ms": pa.array([1], pa.time32("ms")),
    "time us": pa.array([1], pa.time64("us")),
    "time ns": pa.array([1], pa.time64("ns")),
    "date32": pa.array([2**31 - 1], pa.int32()).cast(pa.date32()),
    "date64": pa.array([86_400_000 * 5], pa.int64()).cast(pa.date64()),
    "date64 of no int32": pa.array([86_400_000 * 2**32], pa.int64()).cast(pa.date64()),
    "decimal32": pa.array([Decimal("1.10"), None], pa.decimal32(5, 2)),
    "decimal64": pa.array([Decimal("1.10"), None], pa.decimal64(12, 2)),
    "decimal128": pa.array([Decimal("1.10"), None], pa.decimal128(38, 2)),
    "decimal256": pa.array([Decimal("1.10"), None], pa.decimal256(76, 2)),
    "decimal of thousands": pa.array([Decimal("1E+3")], pa.decimal128(5, -2)),
    "string": pa.array(["a", None]),
    "large string": pa.array(["a"], pa.large_string()),
    "string view": pa.array(["a"], pa.string_view()),
    "binary": pa.array([b"\xff"]),
    "large binary": pa.array([b"a"], pa.large_binary()),
    "binary view": pa.array([b"a"], pa.binary_view()),
    "binary of two": pa.array([b"ab", None], pa.binary(2)),
    "list": pa.array([[1, None], None]),
    "large list": pa.array([[1], None], pa.large_list(pa.int8())),
    "list of two": pa.array([[1, 2], None], pa.list_(pa.int8(), 2)),
    "list view": pa.array([[1], None], pa.list_view(pa.int8())),
    "large list view": pa.array([[1], None], pa.large_list_view(pa.int8())),
    "struct": pa.array([{"a": 1, "b": None}, None]),
    "struct without fields": pa.array([{}], pa.struct([])),
    "map": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
    "dictionary": pa.array(["a", None]).dictionary_encode(),
    "dictionary, ordered": pa.DictionaryArray.from_arrays(TWO, pa.array(["a", "b"]), ordered=True),
    "dictionary of ints": pa.DictionaryArray.from_arrays(TWO, pa.array([5, 6])),
    "list of dictionary": pa.ListArray.from_arrays([0, 1, 2], pa.array(["a", "b"]).dictionary_encode()),
    "run ends": pa.RunEndEncodedArray.from_arrays(pa.array([2], pa.int32()), pa.array(["a"])),
    "months": pa.array([pa.MonthDayNano([1, 2, 3])]),
    "union": pa.UnionArray.from_sparse(TWO, [pa.array([1, 2]), pa.array(["a", "b"])]),
    "uuid": pa.array([b"a" * 16], pa.uuid()),
    "json": pa.array(["{}"], pa.json_()),
}
OTHER_TYPE = {
    "timestamp s": pa.timestamp("ms"),
    "timestamp s zone": pa.timestamp("ms", "Europe/Prague"),
    "year 20000": pa.timestamp("ms"),
    "time s": pa.time32("ms"),
    "date64": pa.date32(),
    "dictionary of ints": pa.int64(),
}
"""Types that Parquet lacks, but for which another type holds the same values."""
REFUSED = {
    *("year 2**40", "date64 of no int32", "decimal of thousands"),
    *("struct without fields", "run ends", "months", "union"),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_what_arrow_reads_back_is_what_to_arrow_gives_or_the_column_is_refused(log, tmp_path, kind):
    try:
        log.put_many(pa.table({"first": pa.nulls(len(COLUMNS[kind]), pa.int8()), "c": COLUMNS[kind]}))
    except pqlog.EncodeError as error:  # refused at the put
        assert "'c'" in str(error)
        return
    was = log.to_arrow()["c"]
    if kind in REFUSED:
        with pytest.raises(pqlog.ArgumentError, match=r"Parquet cannot hold the column 'c', which is .* columns="):
            log.to_parquet(tmp_path / "out")
        assert os.listdir(tmp_path / "out") == []
        assert len(log.to_parquet(tmp_path / "out", columns=["first"])) == 1
        return
    log.to_parquet(tmp_path / "out")
    found = pq.read_table(tmp_path / "out")["c"]
    assert found.type == OTHER_TYPE.get(kind, was.type)
    if pa.types.is_floating(was.type):
        assert repr(found.to_pylist()) == repr(was.to_pylist())
    else:
        if pa.types.is_dictionary(was.type):
            was = was.cast(was.type.value_type)
        assert found.cast(was.type).equals(was)


@st.composite
def nested(draw, kinds=("struct", "list", "large", "two", "map"), depth=3):
    """A type, and a strategy of its values: with children that may be null, and children that may not."""
    kind = draw(st.sampled_from(kinds))
    if kind == "int":
        return pa.int64(), st.integers(0, 9)

    def child(name):
        of, values = draw(nested(("int", "struct", "list", "map") if depth > 1 else ("int",), depth - 1))
        nullable = draw(st.booleans())
        return pa.field(name, of, nullable), st.none() | values if nullable else values

    if kind == "struct":
        children = [child(name) for name in "xyz"[: draw(st.integers(1, 3))]]
        values = st.fixed_dictionaries({field.name: values for field, values in children})
        return pa.struct([field for field, _ in children]), values
    if kind == "map":
        field, values = child("value")
        return pa.map_(pa.string(), field), st.lists(st.tuples(st.sampled_from("kl"), values), max_size=2)
    field, values = child("item")
    if kind == "two":
        return pa.list_(field, 2), st.lists(values, min_size=2, max_size=2)
    return (pa.list_ if kind == "list" else pa.large_list)(field), st.lists(values, max_size=2)


@given(st.data())
def test_nested_columns_are_kept_whichever_of_their_children_may_be_null(data):
    of, values = data.draw(nested())
    rows = data.draw(st.lists(st.none() | values, min_size=1, max_size=4))
    folder = tempfile.mkdtemp()
    try:
        with pqlog.open(":memory:") as log:
            log.put_many(pa.table({"c": pa.array(rows, of)}))
            log.put({"other": 1})  # has no such field: null, with all of its children
            log.to_parquet(folder)
            assert pq.read_table(folder)["c"].to_pylist() == [*rows, None] == log.to_arrow()["c"].to_pylist()
    finally:
        shutil.rmtree(folder)


def test_an_export_that_fails_says_by_what(log, tmp_path):
    log.put_many(pa.table({"n": range(1100), "m": pa.array([pa.MonthDayNano([1, 2, 3])] * 1100)}))
    with pytest.raises(pqlog.ArgumentError, match="the column 'm', which is month_day_nano_interval"):
        log.to_parquet(tmp_path / "months", partition_by="n")
    with pytest.raises(pqlog.ArgumentError, match=r"cannot export by n: .* 1024"):
        log.to_parquet(tmp_path / "parts", partition_by="n", columns=["n"])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # files not yet in a with block
@pytest.mark.parametrize("partition_by", [(), "city"])
def test_an_export_that_is_interrupted_anywhere_is_completed_by_the_next(numbers, tmp_path, partition_by):
    def export():
        return numbers.to_parquet(folder, rows_per_file=4, partition_by=partition_by)

    folder = tmp_path / "probe"
    step = max(1, moments(export) // 60)
    folder = tmp_path / "out"
    for where in everywhere(export, KeyboardInterrupt, step=step):
        if folder.exists():
            for path in folder.rglob("*.parquet"):
                pq.read_table(path)
        export()
        assert sorted(pd.read_parquet(folder, partitioning=None)["n"]) == list(range(10)), where
        assert export() == []
        assert not (folder / ".staging").exists()
        shutil.rmtree(folder)


def test_what_the_system_refuses_is_an_error_that_says_what_to_do(numbers, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(pqlog.ArgumentError, match="Give the path of a folder"):
        numbers.to_parquet(tmp_path / "file")
    write = pyarrow.dataset.write_dataset

    def full(*arguments, **options):
        write(*arguments, **options)
        raise OSError(errno.ENOSPC, "[Errno 28] Error writing bytes to file")

    with monkeypatch.context() as patch:
        patch.setattr(pyarrow.dataset, "write_dataset", full)
        with pytest.raises(pqlog.DiskFullError, match="free some space and call again to continue"):
            numbers.to_parquet(tmp_path / "out")
    assert os.listdir(tmp_path / "out") == []
    numbers.to_parquet(tmp_path / "out")
    assert read(tmp_path / "out") == list(range(10))


@pytest.mark.mounts
def test_an_export_to_a_disk_that_is_full_or_read_only_is_completed_later(log, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    log.put_many({"n": n, "text": random.Random(n).randbytes(400).hex()} for n in range(20_000))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], check=True)
    try:
        with pytest.raises(pqlog.DiskFullError, match="free some space"):
            log.to_parquet(disk / "out", rows_per_file=2_000)
        done = read(disk / "out")
        assert done == list(range(len(done)))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(pqlog.ReadOnlyError, match="writable"):
            log.to_parquet(disk / "out", rows_per_file=2_000)
        subprocess.run(["mount", "-o", "remount,rw,size=64m", str(disk)], check=True)
        log.to_parquet(disk / "out", rows_per_file=2_000)
        assert read(disk / "out") == list(range(20_000))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


EXPORT = """
import sys, pqlog
with pqlog.open(sys.argv[1], readonly=True) as log:
    print("ready", flush=True)
    log.to_parquet(sys.argv[2], rows_per_file=20_000, partition_by=sys.argv[3:])
"""


def files_in(folder):
    """How many Parquet files there are, while another process makes and removes folders."""
    return sum(name.endswith(".parquet") for _, _, names in os.walk(folder) for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("partition_by", [[], ["half"]])
def test_a_killed_export_is_completed_by_the_next(path, tmp_path, partition_by):
    folder = tmp_path / "out"
    each = 2 if partition_by else 1
    with pqlog.open(path) as log:
        log.put_many({"n": n, "half": n % 2, "text": f"text {n}" * 5} for n in range(200_000))
        killed = 0
        for enough in (1, 4, 8):
            process = start(EXPORT, path, folder, *partition_by)
            assert process.line() == "ready"
            wait_until(lambda p=process, n=enough: p.poll() is not None or files_in(folder) >= n * each)
            process.kill_and_read()
            killed += process.was_killed
            for file in folder.rglob("*.parquet"):
                assert pq.read_table(file).num_rows == 20_000 / each  # whole
        assert killed
        log.to_parquet(folder, rows_per_file=20_000, partition_by=partition_by)
        assert sorted(read(folder)) == list(range(200_000))
        assert len(list(folder.rglob("*.parquet"))) == 10 * each


def test_a_topic_is_known_by_its_id_and_not_by_its_name(log, tmp_path):
    log.topic("a").put({"n": 1})
    log.topic("a").to_parquet(tmp_path / "d")
    log.rename_topic("a", "b")
    log.topic("b").put({"n": 2})
    assert len(log.topic("b").to_parquet(tmp_path / "d")) == 1
    log.topic("a").put({"n": 3})
    with pytest.raises(pqlog.ArgumentError, match="belongs to another log, topic or history"):
        log.topic("a").to_parquet(tmp_path / "d")
    assert pd.read_parquet(tmp_path / "d")["n"].tolist() == [1, 2]


@pytest.mark.parametrize("name", ["_id", ".x", "_time", "a/b", "a=b"])
def test_folders_that_readers_skip_are_refused(log, tmp_path, name):
    log.put({"_id": 1, ".x": 1, "a/b": 1, "a=b": 1})
    with pytest.raises(pqlog.ArgumentError, match="partition_by"):
        log.to_parquet(tmp_path / "d", partition_by=[name])
