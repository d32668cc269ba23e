"""Export: a range of a topic as a dataset of Parquet files."""

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
from pqlog.frames import dtypes
from pqlog.frames.arrays import decode_dictionary
from pqlog.frames.arrow_types import is_binary, is_plain, is_view
from pqlog.frames.conform import lenient_json_column
from pqlog.frames.inference_pass import infer_output
from pqlog.frames.output_schema import OutputSchema
from pqlog.frames.projection import Projection
from pqlog.frames.reading import read_chunks
from pqlog.frames.tables import BATCH_ROWS, check_size, regroup
from pqlog.store.values import Span
from pqlog.stream import Selection

_DESCRIPTION = b"pqlog.export"
"""In a file's metadata: what the file holds, as JSON."""


_REFUSALS = (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError)
"""Raised by Arrow for columns that it cannot write; OSError for decimals with a negative scale."""


class Bucket(NamedTuple):
    """A fixed range of offsets, which is what one file holds."""

    number: int
    span: Span
    """The part of the range to export."""


def to_parquet(
    selection: Selection,
    projection: Projection,
    folder: str,
    rows_per_file: int,
    partition_by: Sequence[str],
    progress: bool,
) -> list[str]:
    """Write a range as a dataset; the paths of the files that were written."""
    check_size("rows_per_file", rows_per_file)
    if selection.latest is not None:
        raise ArgumentError("the latest messages change with each put: use history.latest().to_pandas().to_parquet()")
    output = infer_output(selection, projection)
    unknown = [name for name in partition_by if name not in output.schema.names]
    if unknown:
        raise ArgumentError(f"partition_by: no message has a field {unknown[0]!r}")
    os.makedirs(folder, exist_ok=True)
    export = _Export(selection, projection, output, folder, rows_per_file, tuple(partition_by))
    export.find_existing()
    written = []
    with extras.progress_bar(selection.total(), "exporting", progress) as done:
        for bucket in _buckets(selection.span, rows_per_file):
            written += export.write(bucket)
            done(selection.topic.store.count(bucket.span))
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
        selection: Selection,
        projection: Projection,
        output: OutputSchema,
        folder: str,
        rows_per_file: int,
        partition_by: tuple[str, ...],
    ) -> None:
        self._selection, self._projection, self._output, self._folder = selection, projection, output, folder
        self._rows, self._partition_by = rows_per_file, partition_by
        self._existing: dict[str, list[str]] = {}
        """The paths of existing files, by the name of their bucket."""
        self._schema = parquet_schema(output.schema)
        stream = selection.topic
        self._options = {
            "log": stream.store.log.uuid,
            "topic": stream.name,
            "key": selection.key,
            "rows_per_file": rows_per_file,
            "partition_by": list(partition_by),
            "columns": None if projection.columns is None else list(projection.columns),
            "flatten": projection.flatten,
            "parse_dates": list(projection.parse_dates),
        }

    def find_existing(self) -> None:
        """Find existing files; raise if the folder has another export."""
        for path in _files(self._folder):
            if path.endswith(".parquet") and os.sep + "." not in path.removeprefix(self._folder):
                name = os.path.basename(path).removesuffix(".parquet").partition("-")[0]
                self._existing.setdefault(name, []).append(path)
        for path in itertools.islice(itertools.chain(*self._existing.values()), 1):
            description = _description_of(path)
            if description is None or description["options"] != self._options:
                raise ArgumentError(
                    f"{path} belongs to another log, topic or history, or was written with other options: "
                    f"export into another folder"
                )

    def write(self, bucket: Bucket) -> list[str]:
        """Write the files of a bucket, unless they are complete; with partitions, in each folder that has messages."""
        name = f"{bucket.number * self._rows + 1:015}"
        schema = hashlib.sha256(self._schema.serialize()).hexdigest()
        expected = {"options": self._options, "first": bucket.span.first, "stop": bucket.span.stop, "schema": schema}
        replaced = []
        for path in self._existing.get(name, ()):
            description = _description_of(path)
            if description is None:
                continue
            replaced.append(path)
            first, stop = description["first"], description["stop"]
            is_complete = first <= bucket.span.first and bucket.span.stop <= stop
            if not self._partition_by and description["schema"] == schema and is_complete:
                return []
            if first < bucket.span.first:
                raise _lossy(path, f"begins at offset {first}, this export at {bucket.span.first}")
            if stop > bucket.span.stop:
                raise _lossy(path, f"ends at offset {stop - 1}, this export at {bucket.span.last}")
        with atomic.workplace(os.path.join(self._folder, name)) as partial:
            self._write_files(bucket, partial, name, {_DESCRIPTION: json.dumps(expected).encode()})
            published = [self._publish(path, partial) for path in sorted(_files(partial))]
        _remove_stale(replaced, published)
        return published

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
                basename_template=f"{name}-{{i}}.parquet",
                partitioning=pyarrow.dataset.partitioning(partitions, flavor="hive"),
                preserve_order=True,
            )
        except _REFUSALS as error:
            self._check_columns(bucket)
            if self._partition_by and not isinstance(error, OSError):
                raise ArgumentError(f"cannot export by {', '.join(self._partition_by)}: {error}") from error
            raise

    def _tables(self, bucket: Bucket) -> Iterator[pa.Table]:
        part = self._selection._replace(span=bucket.span)
        for group in regroup(read_chunks(part, self._projection), BATCH_ROWS):
            yield self._output.table(group)

    def _check_columns(self, bucket: Bucket) -> None:
        """Raise for a column that Parquet cannot hold."""
        for table in self._tables(bucket):
            for column, field in zip(table.columns, self._schema, strict=True):
                try:
                    pq.write_table(pa.table({field.name: _cast(column, field.type)}), pa.BufferOutputStream())
                except _REFUSALS as error:
                    raise ArgumentError(
                        f"Parquet cannot hold the column {field.name!r}, which is {column.type}: {error}. Leave it out "
                        f"with columns=, or convert it in history.to_arrow() and write that with pyarrow.parquet"
                    ) from error

    def _publish(self, path: str, partial: str) -> str:
        """Move a finished file to its folder, durably.

        A folder has several files of a bucket if Arrow closed the first before its last row, because it limits the
        number of open files.
        """
        folder = os.path.join(self._folder, os.path.dirname(os.path.relpath(path, partial)))
        name, _, number = os.path.basename(path).removesuffix(".parquet").partition("-")
        target = os.path.join(folder, f"{name}.parquet" if number == "0" else f"{name}-{number}.parquet")
        os.makedirs(folder, exist_ok=True)
        atomic.appear(path, target, replace=True)
        return target


def _remove_stale(replaced: Sequence[str], published: Sequence[str]) -> None:
    """Remove those files of a bucket whose messages are in other folders now, since a partition column changed type.

    Files are compared by number, since a file system may ignore the case of names.
    """
    present = {os.stat(path).st_ino for path in published}
    for path in replaced:
        if os.stat(path).st_ino not in present:
            os.remove(path)
            atomic.sync_folder(path)


def _lossy(path: str, problem: str) -> ArgumentError:
    return ArgumentError(f"{path} {problem}, so messages would be lost: export into another folder")


def parquet_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of a Parquet file for columns of these types."""
    return pa.schema([field.with_type(_parquet_type(field.type)) for field in schema])


def parquet_table(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table, cast to a `parquet_schema`."""
    columns = [_cast(column, field.type) for column, field in zip(table.columns, schema, strict=True)]
    return pa.Table.from_arrays(columns, schema=schema) if columns else table


def _cast(column: pa.ChunkedArray, of: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type) and not pa.types.is_dictionary(of):
        column = decode_dictionary(column)
    return column.cast(of)


def csv_table(table: pa.Table) -> pa.Table:
    """A table, cast to types that Arrow can write as CSV; nested values become JSON text."""
    for index, field in enumerate(table.schema):
        column, of = table.column(index), field.type
        if pa.types.is_dictionary(of):
            column = decode_dictionary(column)
            of = column.type
        if pa.types.is_string_view(of):
            column = column.cast(pa.large_string())
        elif is_binary(of):
            try:
                column = column.cast(pa.large_binary()).cast(pa.large_string())
            except pa.ArrowInvalid as error:
                raise ArgumentError(
                    f"the field {field.name!r} has bytes that are not text, which CSV cannot hold: leave it out, or "
                    f"export to Parquet"
                ) from error
        elif not is_plain(of) or pa.types.is_float16(of) or pa.types.is_decimal256(of):
            column = lenient_json_column(dtypes.python_values(column, field))
        table = table.set_column(index, field.name, column)
    return table


def _parquet_type(of: pa.DataType) -> pa.DataType:
    """The type in which Parquet holds the values of a type.

    Children are nullable, since those of a null are null, which Arrow's writer refuses for a non-nullable child.
    Arrow's writer would truncate date64 to days unchecked; a cast checks.
    """
    is_ = pa.types
    if is_.is_date64(of):
        return pa.date32()
    if is_.is_dictionary(of):
        return of.value_type if is_view(of.value_type) else of
    if is_.is_struct(of):
        return pa.struct([_parquet_child(field) for field in of])
    if is_.is_map(of):
        return pa.map_(_parquet_type(of.key_type), _parquet_child(of.item_field), of.keys_sorted)
    if is_.is_fixed_size_list(of):
        return pa.list_(_parquet_child(of.value_field), of.list_size)
    if is_.is_list(of):
        return pa.list_(_parquet_child(of.value_field))
    if is_.is_large_list(of):
        return pa.large_list(_parquet_child(of.value_field))
    return of


def _parquet_child(field: pa.Field) -> pa.Field:
    return field.with_type(_parquet_type(field.type)).with_nullable(True)


def _files(folder: str) -> Iterator[str]:
    for inner, _, names in os.walk(folder):
        yield from (os.path.join(inner, name) for name in names)


def _description_of(path: str) -> dict[str, Any] | None:
    """The description in a file's metadata; None if pqlog did not write the file."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except pa.ArrowInvalid:
        return None
    description: dict[str, Any] | None = json.loads(metadata[_DESCRIPTION]) if _DESCRIPTION in metadata else None
    return description
