"""A range of a topic as a dataset of pyarrow, as far as DuckDB reads one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from pqlog.frames.predicates import ArrowWhere, where_of
from pqlog.frames.scans import Scan


class TopicDataset(ds.Dataset):  # type: ignore[misc]
    """A range as a dataset. DuckDB asks for a scanner of the columns and the rows that a query needs."""

    def __init__(self, scan: Scan) -> None:  # not that of pyarrow, which makes datasets of its own only
        self._scan = scan

    @property
    def schema(self) -> pa.Schema:
        """All columns."""
        return self._scan.output.schema

    def scanner(
        self,
        columns: Sequence[str] | None = None,
        filter: Any = None,
        **_: Any,
    ) -> ds.Scanner:
        """A reader of some columns of some rows."""
        names = self.schema.names if columns is None else list(columns)
        where = None if filter is None else where_of(filter)
        assert where is None or isinstance(where, ArrowWhere)
        schema = pa.schema([self.schema.field(name) for name in names])
        return ds.Scanner.from_batches(self._batches(names, where), schema=schema)

    def _batches(self, names: list[str], where: ArrowWhere | None) -> Iterator[pa.RecordBatch]:
        for table in self._scan.tables(names, where):
            rows = table if where is None else where.select(table)
            yield from rows.select(names).to_batches()
