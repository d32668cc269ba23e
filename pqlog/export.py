"""Export: a stretch of a topic as a dataset of Parquet files."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from pqlog import atomic, extras
from pqlog.errors import ArgumentError
from pqlog.frames import dtypes, parse, stream, tables
from pqlog.frames.conform import json_texts
from pqlog.frames.pieces import pieces
from pqlog.frames.projection import Projection
from pqlog.source import Stretch
from pqlog.store.api import Span

_ABOUT = b"pqlog.export"
"""In a file's metadata: what it holds, as JSON."""


_REFUSALS = (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError)
"""What Arrow raises for columns that it cannot write: an OSError for decimals with a negative scale."""


class Bucket(NamedTuple):
    """A fixed range of offsets: what one file holds."""

    number: int
    span: Span
    """The part of it that is exported."""


def to_parquet(
    stretch: Stretch,
    projection: Projection,
    folder: str,
    rows_per_file: int,
    partition_by: Sequence[str],
    progress: bool,
) -> list[str]:
    """Write a stretch as a dataset; the files that were written."""
    tables.check_size("rows_per_file", rows_per_file)
    if stretch.latest is not None:
        raise ArgumentError("which are the latest changes with each put: use history.latest().to_pandas().to_parquet()")
    layout = tables.layout_of(stretch, projection)
    unknown = [name for name in partition_by if name not in layout.schema.names]
    if unknown:
        raise ArgumentError(f"partition_by: no message has a field {unknown[0]!r}")
    os.makedirs(folder, exist_ok=True)
    export = _Export(stretch, projection, layout, folder, rows_per_file, tuple(partition_by))
    export.look_around()
    written = []
    with extras.progress_bar(len(stretch.span), "exporting", progress) as done:
        for bucket in _buckets(stretch.span, rows_per_file):
            written += export.write(bucket)
            done(len(bucket.span))
    return written


def _buckets(span: Span, rows: int) -> Iterator[Bucket]:
    first = span.first
    while first < span.stop:
        number = (first - 1) // rows
        stop = min(span.stop, (number + 1) * rows + 1)
        yield Bucket(number, Span(first, stop))
        first = stop


class _Export:
    def __init__(
        self,
        stretch: Stretch,
        projection: Projection,
        layout: tables.Layout,
        folder: str,
        rows_per_file: int,
        partition_by: tuple[str, ...],
    ) -> None:
        self._stretch, self._projection, self._layout, self._folder = stretch, projection, layout, folder
        self._rows, self._partition_by = rows_per_file, partition_by
        self._there: dict[str, list[str]] = {}
        """The paths of the files that were there before, by their names."""
        self._schema = parquet_schema(layout.schema)
        source = stretch.source
        self._options = {
            "log": source.engine.uuid,
            "topic": source.topic.name,
            "key": stretch.key,
            "rows_per_file": rows_per_file,
            "partition_by": list(partition_by),
            "columns": None if projection.columns is None else list(projection.columns),
            "flatten": projection.flatten,
            "parse_dates": list(projection.parse_dates),
        }

    def look_around(self) -> None:
        """Find the files that are there; refuse a folder with another export in it."""
        for path in _files(self._folder):
            if path.endswith(".parquet") and os.sep + "." not in path.removeprefix(self._folder):
                self._there.setdefault(os.path.basename(path), []).append(path)
        for path in itertools.islice(itertools.chain(*self._there.values()), 1):
            about = _about(path)
            if about is None or about["options"] != self._options:
                raise ArgumentError(
                    f"{path} is of another log, topic or history, or was written with other options: "
                    f"export into a folder of its own"
                )

    def write(self, bucket: Bucket) -> list[str]:
        """Write the file of a bucket, unless it is there; with partitions, one in each folder that has messages."""
        name = f"{bucket.number * self._rows + 1:015}.parquet"
        schema = hashlib.sha256(self._schema.serialize()).hexdigest()
        mine = {"options": self._options, "first": bucket.span.first, "stop": bucket.span.stop, "schema": schema}
        for path in self._there.get(name, ()):
            about = _about(path)
            if about is None:
                continue
            if about["first"] < bucket.span.first:
                raise ArgumentError(
                    f"{path} begins at offset {about['first']}, this export at {bucket.span.first}, so messages would "
                    f"be lost: export into a folder of its own"
                )
            if not self._partition_by and about["schema"] == schema and bucket.span.stop <= about["stop"]:
                return []
        with atomic.workplace(os.path.join(self._folder, name)) as partial:
            self._write_files(bucket, partial, name, {_ABOUT: json.dumps(mine).encode()})
            return [self._appear(path, partial) for path in sorted(_files(partial))]

    def _write_files(self, bucket: Bucket, partial: str, name: str, metadata: dict[bytes, bytes]) -> None:
        partitions = pa.schema([self._schema.field(column) for column in self._partition_by])
        form = pyarrow.dataset.ParquetFileFormat()
        try:
            pyarrow.dataset.write_dataset(
                (batch for table in self._tables(bucket) for batch in parquet_table(table, self._schema).to_batches()),
                partial,
                schema=self._schema.with_metadata(metadata),
                format=form,
                file_options=form.make_write_options(compression="zstd"),
                basename_template=f"{{i}}.{name}",
                partitioning=pyarrow.dataset.partitioning(partitions, flavor="hive"),
                preserve_order=True,
            )
        except _REFUSALS as error:
            self._check_columns(bucket)
            if self._partition_by and not isinstance(error, OSError):
                raise ArgumentError(f"cannot export by {', '.join(self._partition_by)}: {error}") from error
            raise

    def _tables(self, bucket: Bucket) -> Iterator[pa.Table]:
        part = self._stretch._replace(span=bucket.span)
        for group in tables.regroup(pieces(part, self._projection), tables.BATCH_ROWS):
            yield self._layout.table(group)

    def _check_columns(self, bucket: Bucket) -> None:
        """Raise if there is a column that Parquet cannot hold."""
        for table in self._tables(bucket):
            for had, field in zip(table.columns, self._schema, strict=True):
                try:
                    pq.write_table(pa.table({field.name: _as(had, field.type)}), pa.BufferOutputStream())
                except _REFUSALS as error:
                    raise ArgumentError(
                        f"Parquet cannot hold the column {field.name!r}, which is {had.type}: {error}. Leave it out "
                        f"with columns=, or convert it in history.to_arrow() and write that with pyarrow.parquet"
                    ) from error

    def _appear(self, path: str, partial: str) -> str:
        """Give a finished file its place; both are durable then."""
        place = os.path.join(self._folder, os.path.dirname(os.path.relpath(path, partial)))
        final = os.path.join(place, os.path.basename(path).partition(".")[2])
        os.makedirs(place, exist_ok=True)
        atomic.appear(path, final, replace=True)
        return final


def parquet_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of a Parquet file with the same columns."""
    return pa.schema([field.with_type(_held(field.type)) for field in schema])


def parquet_table(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table in the types of a `parquet_schema`."""
    columns = [_as(column, field.type) for column, field in zip(table.columns, schema, strict=True)]
    return pa.Table.from_arrays(columns, schema=schema) if columns else table


def _as(column: pa.ChunkedArray, of: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type) and not pa.types.is_dictionary(of):
        column = parse.decoded(column)
    return column.cast(of)


def csv_table(table: pa.Table) -> pa.Table:
    """A table in the types that Arrow writes as CSV: what is nested is JSON text."""
    for index, field in enumerate(table.schema):
        column, of = table.column(index), field.type
        if pa.types.is_dictionary(of):
            column = parse.decoded(column)
            of = column.type
        if pa.types.is_string_view(of):
            column = column.cast(pa.large_string())
        elif stream.is_binary(of):
            try:
                column = column.cast(pa.large_binary()).cast(pa.large_string())
            except pa.ArrowInvalid as error:
                raise ArgumentError(
                    f"the field {field.name!r} has bytes that are no text, which CSV cannot hold: leave it out, or "
                    f"export to Parquet"
                ) from error
        elif not stream.is_plain(of) or pa.types.is_float16(of) or pa.types.is_decimal256(of):
            column = json_texts(dtypes.python_values(column, field))
        table = table.set_column(index, field.name, column)
    return table


def _held(of: pa.DataType) -> pa.DataType:
    """The type in which Parquet holds the values of a type.

    Children may be null: those of a null are, and Arrow's writer refuses such where the type says that there are none.
    Arrow's date64 would be cut to Parquet's days without a look; a cast looks.
    """
    is_ = pa.types
    if is_.is_date64(of):
        return pa.date32()
    if is_.is_dictionary(of):
        return of.value_type if stream.is_view(of.value_type) else of
    if is_.is_struct(of):
        return pa.struct([_held_child(field) for field in of])
    if is_.is_map(of):
        return pa.map_(_held(of.key_type), _held_child(of.item_field), of.keys_sorted)
    if is_.is_fixed_size_list(of):
        return pa.list_(_held_child(of.value_field), of.list_size)
    if is_.is_list(of):
        return pa.list_(_held_child(of.value_field))
    if is_.is_large_list(of):
        return pa.large_list(_held_child(of.value_field))
    return of


def _held_child(field: pa.Field) -> pa.Field:
    return field.with_type(_held(field.type)).with_nullable(True)


def _files(folder: str) -> Iterator[str]:
    for inner, _, names in os.walk(folder):
        yield from (os.path.join(inner, name) for name in names)


def _about(path: str) -> dict[str, Any] | None:
    """What a file says of itself; None if it is not ours."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except pa.ArrowInvalid:
        return None
    found: dict[str, Any] | None = json.loads(metadata[_ABOUT]) if _ABOUT in metadata else None
    return found
