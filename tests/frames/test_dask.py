"""`to_dask()`: a frame of Dask whose parts are read by the processes that compute them."""

import pandas as pd
import polars as pl
import pytest

import pqlog
from pqlog.errors import ArgumentError, UnsupportedError


def test_it_is_the_frame_of_pandas_in_other_processes_too(tmp_path):
    with pqlog.open(tmp_path / "events.db") as log:
        log.put_many([{"n": n if n < 900 else n + 0.5, "city": "ab"[n % 2], "o": [n]} for n in range(1000)], key="city")
        frame, whole = log.to_dask(messages_per_part=300), log.to_pandas()
        assert frame.npartitions == 4
        assert frame.divisions == (1, 301, 601, 901, 1000)
        pd.testing.assert_series_equal(frame.dtypes, whole.dtypes)
        pd.testing.assert_frame_equal(frame.compute(scheduler="threads"), whole)
        pd.testing.assert_frame_equal(frame.compute(scheduler="processes", num_workers=2), whole)
        assert frame.loc[301:305]["n"].compute(scheduler="sync").tolist() == whole.loc[301:305]["n"].tolist()
        log.put_many([{"n": "text"}])
        assert len(frame) == 1000


@pytest.mark.parametrize("where", ["n >= 990 and city = 'a'", (pl.col("n") >= 990) & (pl.col("city") == "a")])
def test_it_is_of_a_history_too(where, tmp_path):
    with pqlog.open(tmp_path / "events.db") as opened:
        log = opened.topic("t", partitions=3)
        log.put_many([{"n": n, "city": "ab"[n % 2]} for n in range(1000)], key="city")
        found = log.history(where=where).to_dask(["n"], messages_per_part=100).compute(scheduler="threads")
        assert sorted(found["n"]) == [990, 992, 994, 996, 998]
        assert log.history(where="n > 5000").to_dask().compute(scheduler="sync").empty
        with pytest.raises(ArgumentError, match="latest"):
            log.history().latest().to_dask()


def test_a_log_in_memory_is_refused():
    with pytest.raises(UnsupportedError, match="in a file"):
        pqlog.open(":memory:").to_dask()


def test_an_empty_log(tmp_path):
    with pqlog.open(tmp_path / "events.db") as log:
        assert len(log.to_dask()) == 0
