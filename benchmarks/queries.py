"""Queries over sealed messages: by a predicate, by polars, by DuckDB, and the same over Parquet files of the messages.

Each query is run once to warm up. What both give is compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet

import pqlog
from benchmarks.workloads import event

LAST = 1_000
"""Of how many messages at the end of the log some queries are; these are a tenth of them not sealed."""

Query = Callable[[Any, int], Any]


def _lazy(query: Callable[[Any, int], Any]) -> tuple[Query, Query]:
    """A query of polars: over a log, and over Parquet."""
    return (
        lambda log, rows: query(log.scan(), rows).collect().rows(),
        lambda path, rows: query(pl.scan_parquet(path).with_row_index("offset", 1), rows).collect().rows(),
    )


def _sql(query: str) -> tuple[Query, Query]:
    """A query of DuckDB, with the number of messages as ``{rows}``."""
    numbered = "(SELECT *, file_row_number + 1 AS \"offset\" FROM read_parquet('{path}', file_row_number = true))"
    whole = query.replace("log", numbered if "offset" in query else "'{path}'")
    return (
        lambda log, rows: log.sql(query.format(rows=rows)).fetchall(),
        lambda path, rows: duckdb.sql(whole.format(rows=rows, path=path)).fetchall(),
    )


QUERIES: dict[str, tuple[Query, Query]] = {
    "polars: the last 1,000 by offset": _lazy(
        lambda f, rows: f.filter(pl.col("offset") > rows - LAST).select("amount")
    ),
    "polars: one field": _lazy(lambda f, rows: f.select(pl.col("amount").sum())),
    "polars: group by": _lazy(lambda f, rows: f.group_by("city").agg(pl.col("amount").sum()).sort("city")),
    "polars: a narrow filter": _lazy(lambda f, rows: f.filter(pl.col("id") == rows // 2).select("city")),
    "DuckDB: group by": _sql("SELECT city, sum(amount) FROM log GROUP BY city ORDER BY city"),
    "DuckDB: one field": _sql("SELECT sum(amount) FROM log"),
    "DuckDB: a filter that fits a tenth": _sql("SELECT count(*) FROM log WHERE items = 7"),
    "DuckDB: a narrow filter": _sql("SELECT city FROM log WHERE id = {rows} // 2"),
    "DuckDB: the last 1,000 by offset": _sql('SELECT sum(amount) FROM log WHERE "offset" > {rows} - 1000'),
    "where: a filter that fits a tenth": (
        lambda log, rows: log.history(where="items = 7").count(),
        lambda path, rows: pl.scan_parquet(path).filter(pl.col("items") == 7).select(pl.len()).collect().item(),
    ),
    "where: a narrow filter": (
        lambda log, rows: [m.value["city"] for m in log.history(where=f"id = {rows // 2}")],
        lambda path, rows: pl.scan_parquet(path).filter(pl.col("id") == rows // 2).collect()["city"].to_list(),
    ),
}


def _files(folder: Path, rows: int) -> tuple[Path, Path]:
    """A log, of which all but the last messages are sealed, and a Parquet file of the same messages."""
    path, parquet = folder / f"queries-{rows}.db", folder / f"queries-{rows}.parquet"
    if path.exists():
        return path, parquet
    with pqlog.open(path, seal=None) as log:
        writer = None
        for first in range(0, rows, 100_000):
            values = [event(n) for n in range(first, min(rows, first + 100_000))]
            log.put_many(values)
            table = pa.Table.from_pylist(values)
            writer = writer or pa.parquet.ParquetWriter(parquet, table.schema, compression="zstd")
            writer.write_table(table)
            log.seal(before=-LAST // 10)
        if writer is not None:
            writer.close()
        assert len(log.schema) == len(event(0))  # from now on it is in the file
    return path, parquet


def run(folder: Path, rounds: int, scale: float, largest: int = 1_000_000) -> Iterator[dict[str, object]]:
    """A row for each number of messages and query, with the seconds of both in each round."""
    for rows in sorted({max(5_000, int(full * scale)) for full in (1_000_000, 10_000_000) if full <= largest}):
        path, parquet = _files(folder, rows)
        with pqlog.open(path, readonly=True) as log:
            for name, (over_log, over_parquet) in QUERIES.items():
                if over_log(log, rows) != over_parquet(parquet, rows):
                    raise AssertionError(f"{name}: another result than over Parquet")
                seconds: list[list[float]] = [[], []]
                for _ in range(rounds):
                    for found, work in zip(seconds, (over_log, over_parquet), strict=True):
                        begin = time.perf_counter()
                        work(log if found is seconds[0] else parquet, rows)
                        found.append(time.perf_counter() - begin)
                ratio = sorted(one / other for one, other in zip(*seconds, strict=True))[rounds // 2]
                yield {"messages": rows, "query": name, "seconds": seconds[0], "Parquet": seconds[1], "ratio": ratio}
