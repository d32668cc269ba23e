"""A Parquet dataset: read by everyone, whole or not at all, and never twice."""

import os
import signal
import subprocess
import sys

import duckdb
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

import pqlog


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
    for _ in range(2):
        written = numbers.to_parquet(folder, rows_per_file=6, partition_by="city")
        assert len(written) == 6
        assert sorted(os.listdir(folder)) == ["city=Brno", "city=Praha", "city=__HIVE_DEFAULT_PARTITION__"]
        assert sorted(pd.read_parquet(folder, partitioning=None)["n"]) == list(range(10))
    found = duckdb.sql(f"SELECT city, sum(n) FROM '{folder}/**/*.parquet' GROUP BY city ORDER BY city").fetchall()
    assert found == [("Brno", 18), ("Praha", 12), (None, 15)]
    assert pl.read_parquet(folder, hive_partitioning=True).filter(pl.col("city") == "Brno")["n"].sum() == 18
    with pytest.raises(pqlog.ArgumentError, match="no message has a field 'town'"):
        numbers.to_parquet(tmp_path / "other", partition_by="town")


def test_partitions_without_holes_are_read_by_pandas_as_columns(numbers, tmp_path):
    folder = tmp_path / "out"
    numbers.topic("whole").put_many({"n": n, "city": "BP"[n % 2]} for n in range(10))
    numbers.topic("whole").to_parquet(folder, rows_per_file=4, partition_by=["city"])
    frame = pd.read_parquet(folder)
    assert frame[frame["city"] == "P"]["n"].tolist() == [1, 3, 5, 7, 9]


def test_the_same_call_again_writes_only_what_is_new(numbers, tmp_path):
    folder = tmp_path / "out"
    assert len(numbers.to_parquet(folder, rows_per_file=4)) == 3
    assert numbers.to_parquet(folder, rows_per_file=4) == []
    numbers.put_many({"n": n, "city": "Brno"} for n in range(10, 14))
    assert len(numbers.to_parquet(folder, rows_per_file=4)) == 2
    assert read(folder) == list(range(14))


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
        with pytest.raises(pqlog.ArgumentError, match="a folder of its own"):
            other()
    numbers.trim(before=3)
    numbers.put({"n": 0.5})  # another schema: the first file would have to be written again
    with pytest.raises(pqlog.ArgumentError, match="begins at offset 1, this export at 3"):
        numbers.to_parquet(folder, rows_per_file=4)
    assert read(folder) == list(range(10))
    with pytest.raises(pqlog.ArgumentError, match="which are the latest"):
        numbers.history().latest().to_parquet(tmp_path / "latest")


EXPORT = """
import sys, pqlog
with pqlog.open(sys.argv[1], mode="r") as log:
    print("ready", flush=True)
    log.to_parquet(sys.argv[2], rows_per_file=20_000)
"""


def test_a_killed_export_is_completed_by_the_next(path, tmp_path):
    folder = tmp_path / "out"
    with pqlog.open(path) as log:
        log.put_many({"n": n, "text": f"text {n}" * 5} for n in range(200_000))
        killed = 0
        for enough in (1, 4, 8):
            process = subprocess.Popen([sys.executable, "-c", EXPORT, path, folder], stdout=subprocess.PIPE, text=True)
            with process:
                assert process.stdout.readline() == "ready\n"
                while process.poll() is None and len(list(folder.glob("*.parquet"))) < enough:
                    pass
                process.kill()
            killed += process.returncode == -signal.SIGKILL
            for file in folder.glob("*.parquet"):
                assert pq.read_table(file).num_rows == 20_000  # whole
        assert killed
        log.to_parquet(folder, rows_per_file=20_000)
        assert read(folder) == list(range(200_000))
        assert len(list(folder.glob("*.parquet"))) == 10
