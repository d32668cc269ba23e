"""Scans: a range of a topic as a table of which others take some columns and rows: polars, DuckDB."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pqlog import extras
from pqlog.frames import polars
from pqlog.frames.chunks import Chunk
from pqlog.frames.inference_pass import infer_output
from pqlog.frames.output_schema import OutputSchema
from pqlog.frames.places import begins, trimmed
from pqlog.frames.predicates import ExpressionWhere, PolarsWhere
from pqlog.frames.projection import Projection
from pqlog.frames.reading import read_chunks
from pqlog.frames.tables import regroup
from pqlog.stream import Selection


@dataclass
class Scan:
    """The messages of a fixed range as a table; its columns are found out when they are first asked for.

    Attributes
    ----------
    selection : Selection
    projection : Projection
    """

    selection: Selection
    projection: Projection

    def __post_init__(self) -> None:
        self._begins = begins(self.selection.topic)

    def _check(self) -> None:
        """Raise if a trim has moved the places of merged partitions: the range would be of other messages."""
        for store, first in zip(self.selection.topic.partitions, self._begins, strict=False):
            trimmed(store, first)

    @functools.cached_property
    def output(self) -> OutputSchema:
        """All of its columns."""
        return infer_output(self.selection, self.projection)

    def tables(
        self,
        columns: Sequence[str] | None = None,
        where: ExpressionWhere | None = None,
        rows: int | None = None,
    ) -> Iterator[pa.Table]:
        """Its rows in pieces, with at least some columns.

        Parameters
        ----------
        columns : sequence of str, optional
            The columns to read, besides those that `where` needs.
        where : ExpressionWhere, optional
            Rows that it is not true of may be left out.
        rows : int, optional
            At most about this many, if there is no `where`.
        """
        names = self.output.schema.names if columns is None else list(columns)
        needed = () if where is None else where.names(self.output.schema)
        part = self.output.select([*names, *needed])
        is_more = not set(names) <= set(needed)
        self._check()
        for chunks in self._chunks(part, where, is_more, rows):
            yield part.table(chunks)
        self._check()

    def _chunks(
        self, part: OutputSchema, where: ExpressionWhere | None, is_more: bool, rows: int | None
    ) -> Iterator[list[Chunk]]:
        """The chunks that may have some of the rows, with some of the columns."""
        selection, narrow = self.selection, self.projection.narrowed(part)
        spans, choose = [selection.span], None
        if rows is not None and selection.is_whole:
            spans = [selection.topic.part(selection.span, 0, rows)]
        if where is not None:
            matcher = where.bound(selection, self.projection, self.output)
            spans = matcher.spans(selection.span)
            choose = matcher.of_columns if is_more else None
        for span in spans:
            part_of_it = selection._replace(span=span)
            chunks = read_chunks(part_of_it, narrow, mixed=part.mixed, choose=choose, metadata=part.metadata)
            yield from regroup(chunks, None)


def to_lazy(selection: Selection, projection: Projection) -> Any:
    """A range as a LazyFrame of polars."""
    plugins = extras.package("polars.io.plugins")
    scan = Scan(selection, projection)

    def schema() -> Any:
        return polars.from_table(scan.output.schema.empty_table()).schema

    def frames(columns: list[str] | None, predicate: Any, rows: int | None, size: int | None) -> Iterator[Any]:
        # A limit is of the rows before the predicate.
        where = None if predicate is None or rows is not None else PolarsWhere.pushed(predicate)
        left = rows
        for table in scan.tables(columns if predicate is None or where is not None else None, where, rows):
            frame = polars.from_table(table)
            if left is not None:
                frame = frame.head(left)
                left -= len(frame)
            if predicate is not None:
                frame = frame.filter(predicate)
            yield frame if columns is None else frame.select(columns)
            if left == 0:
                return

    return plugins.register_io_source(frames, schema=schema, validate_schema=True, is_pure=True)
