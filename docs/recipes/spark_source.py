"""A Spark data source whose partitions are ranges of offsets: each is read by the executor that it falls to.

The executors need to see the file, so this is for Spark on one machine, or with a file system that all of them mount
and only read. The columns are those of ``log.to_arrow()``, as they are when the frame is made.

python spark_source.py events.db "SELECT city, sum(amount) FROM log GROUP BY city"
"""

import sys
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType

import pqlog

COLUMNS = ["offset", "time"]
"""Metadata that the frame has in addition to the fields."""


class Range(InputPartition):
    """Some of the messages."""

    def __init__(self, first: int, stop: int) -> None:
        self.first, self.stop = first, stop


class LogSource(DataSource):
    """``spark.read.format("pqlog").load("events.db")``; options: ``topic``, ``messages`` (per partition)."""

    @classmethod
    def name(cls) -> str:
        return "pqlog"

    def schema(self) -> StructType:
        return from_arrow_schema(columns(self.options))

    def reader(self, schema: StructType) -> DataSourceReader:
        return LogReader(self.options)


class LogReader(DataSourceReader):
    """Reads a topic that has one partition."""

    def __init__(self, options: Any) -> None:
        self.options = dict(options)
        self.columns = columns(options)
        with opened(options) as log:
            self.mixed = {field.name for field in log.schema if (field.metadata or {}).get(b"pqlog") == b"json"}

    def partitions(self) -> list[Range]:
        size = int(self.options.get("messages", 1_000_000))
        with opened(self.options) as log:
            first, last = log.first or 1, log.last or 0
        return [Range(at, min(at + size, last + 1)) for at in range(first, last + 1, size)]

    def read(self, partition: Range) -> Iterator[pa.RecordBatch]:
        with opened(self.options) as log:
            fields = [name for name in self.columns.names if name not in ("offset", "_time")]
            part = log[partition.first : partition.stop]
            known = part.schema.names  # a field may be absent from some part
            table = part.to_arrow([name for name in fields if name in known], metadata=COLUMNS)
            for field in table.schema:
                if self.columns.field(field.name).type != field.type and field.name in self.mixed:
                    raise ValueError(f"the values of {field.name!r} have no common type: Spark needs one")
            arrays = [
                table.column(field.name).cast(field.type) if field.name in table.column_names
                else pa.nulls(len(table), field.type)
                for field in self.columns
            ]  # fmt: skip
            yield from pa.Table.from_arrays(arrays, schema=self.columns).to_batches()


def opened(options: Any) -> pqlog.Log:
    return pqlog.open(options["path"], options.get("topic", "main"), readonly=True)


def columns(options: Any) -> pa.Schema:
    with opened(options) as log:
        return log.history().to_batches(metadata=COLUMNS).schema.remove_metadata()


if __name__ == "__main__":
    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    spark.dataSource.register(LogSource)
    spark.read.format("pqlog").load(sys.argv[1]).createOrReplaceTempView("log")
    for row in spark.sql(sys.argv[2]).collect():
        print(*row, sep="\t")
    spark.stop()
