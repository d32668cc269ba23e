"""Export: a range of a topic as a dataset of Parquet files.

The offsets of a topic's partition are divided into *buckets*: of a fixed size if offsets have no gaps, else of as many
messages, from the first that the folder lacks. What one call writes of a bucket is a *part*: a file, or with
``partition_by`` a file in each folder that has messages. The files of a part are published together, also if there is a
crash, and each has a description of the whole part; so one of them tells which messages the folder has.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from pqlog import check, extras
from pqlog.errors import ArgumentError
from pqlog.file_set import FileSet, change_files
from pqlog.frames import dtypes
from pqlog.frames.arrays import decode_dictionary
from pqlog.frames.arrow_types import is_binary, is_plain, is_view
from pqlog.frames.columns import is_json
from pqlog.frames.conform import lenient_json_column
from pqlog.frames.inference_pass import infer_output
from pqlog.frames.output_schema import OutputSchema
from pqlog.frames.places import by_partition, trimmed
from pqlog.frames.projection import Projection
from pqlog.frames.reading import read_chunks
from pqlog.frames.tables import BATCH_ROWS, check_size, regroup
from pqlog.store.api import MessageSource
from pqlog.store.values import Span, TopicInfo
from pqlog.stream import CHUNK_BYTES, CHUNK_ROWS, Selection

_DESCRIPTION = b"pqlog.export"
"""In a file's metadata: what the file holds, as JSON."""


_REFUSALS = (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError)
"""Raised by Arrow for columns that it cannot write; OSError, without a number, for decimals with a negative scale."""


class Part(NamedTuple):
    """Messages that the folder has already.

    Attributes
    ----------
    partition : int
    span : Span
    messages : int or None
        How many messages of the topic it has, those of other keys included; None if offsets have no gaps.
    schema : str
        A digest of the schema.
    columns : dict of str to str
        The types of the columns in the files.
    files : list of str
        Relative to the folder.
    """

    partition: int
    span: Span
    messages: int | None
    schema: str
    columns: dict[str, str]
    files: list[str]


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
    parts = by_partition(selection)
    output = infer_output(selection, projection)
    unknown = [name for name in partition_by if name not in output.schema.names]
    if unknown:
        raise ArgumentError(f"partition_by: no message has a field {unknown[0]!r}")
    unfit = [name for name in partition_by if name.startswith(("_", ".")) or "/" in name or "=" in name]
    if unfit:
        raise ArgumentError(
            f"partition_by: {unfit[0]!r} makes no name of a folder: readers of datasets skip those that begin with _ "
            f"or ., and / and = have a meaning in them. Give the field another name, or partition by another one"
        )

    def write(files: FileSet) -> list[str]:
        export = _Export(selection, projection, output, files, rows_per_file, tuple(partition_by))
        written = list(files.completed)
        with extras.progress_bar(selection.total(), "exporting", progress) as done:
            for part in parts:
                for span, messages in export.buckets(part):
                    written += export.write(part._replace(span=span), messages)
                    done(messages or part.topic.store.count(span))
        export.warn_of_other_columns()
        return written

    return change_files(folder, write)


def _aligned(span: Span, size: int) -> Iterator[tuple[Span, None]]:
    """The parts of a range that are in one bucket each, where offsets have no gaps."""
    first = span.first
    while first < span.stop:
        stop = min(span.stop, ((first - 1) // size + 1) * size + 1)
        yield Span(first, stop), None
        first = stop


def _counted(store: MessageSource, span: Span, size: int) -> Iterator[tuple[Span, int]]:
    """The parts of a range that have as many messages each, and how many: they are read to be counted."""
    first, stop, left = span.first, span.first, size
    while rows := store.read(span, min(left, CHUNK_ROWS), CHUNK_BYTES) if span else ():
        for row in rows:
            at, last = row.offset, row.stop
            while at < last:
                first = at if left == size else first
                stop = min(last, at + left)
                left -= stop - at
                at = stop
                if not left:
                    yield Span(first, stop), size
                    left = size
        span = Span(rows[-1].stop, span.stop)
    if left < size:
        yield Span(first, stop), size - left


def missing(span: Span, present: Iterable[Span]) -> Iterator[Span]:
    """What of a range is in none of some others, which are ascending."""
    first = span.first
    for other in present:
        if first < min(other.first, span.stop):
            yield Span(first, min(other.first, span.stop))
        first = max(first, other.stop)
    if first < span.stop:
        yield Span(first, span.stop)


class _Export:
    def __init__(
        self,
        selection: Selection,
        projection: Projection,
        output: OutputSchema,
        files: FileSet,
        rows_per_file: int,
        partition_by: tuple[str, ...],
    ) -> None:
        self._projection, self._output, self._files = projection, output, files
        self._partition_by, self._size = partition_by, rows_per_file
        self._is_dense = selection.topic.log.capabilities.dense_offsets
        self._schema = parquet_schema(output.schema)
        self._digest = hashlib.sha256(self._schema.serialize()).hexdigest()
        self._columns = {field.name: _shown(field) for field in self._schema if field.name not in partition_by}
        self._options = {
            "log": selection.topic.store.log.uuid,
            "key": selection.key,
            "where": None if selection.where is None else selection.where.identity,
            "rows_per_file": rows_per_file,
            "partition_by": list(partition_by),
            "columns": None if projection.columns is None else list(projection.columns),
            "flatten": projection.flatten,
            "parse_dates": list(projection.parse_dates),
        }
        self._partitions = {store.info.id: store.info.partition for store in selection.topic.partitions}
        self._parts: dict[int, list[Part]] = {number: [] for number in self._partitions.values()}
        """The parts of the folder, by their partitions, in their order."""
        for part in sorted(self._existing(), key=lambda part: part.span.first):
            self._parts[part.partition].append(part)

    def _existing(self) -> Iterator[Part]:
        """The parts of the folder; raises if it has another export."""
        by_name: dict[str, list[str]] = {}
        for file in _files(self._files.folder):
            if file.endswith(".parquet") and f"{os.sep}." not in os.sep + file:
                by_name.setdefault(_part_name(file)[0], []).append(file)
        for files in by_name.values():
            path = os.path.join(self._files.folder, files[0])
            description = _description_of(path)
            if description is None:
                raise ArgumentError(
                    f"{path} was not written by an export, or is damaged: move it away, or export into another folder"
                )
            topic = description["options"].pop("topic", None)
            if topic not in self._partitions or description["options"] != self._options:
                raise ArgumentError(
                    f"{path} belongs to another log, topic or history, or was written with other options: "
                    f"export into another folder"
                )
            span = Span(description["first"], description["stop"])
            of = description["messages"], description["schema"], description["columns"]
            yield Part(self._partitions[topic], span, *of, files)

    def buckets(self, selection: Selection) -> Iterator[tuple[Span, int | None]]:
        """The buckets of a range of one partition, and how many messages each has, if they were counted."""
        span, (store,) = selection.span, selection.topic.partitions
        if self._is_dense:
            yield from _aligned(span, self._size)
            return
        first = span.first
        for part in list(self._parts[store.info.partition]):
            if part.span.stop <= first:
                continue
            yield from _counted(store, Span(first, min(part.span.first, span.stop)), self._size)
            is_inside = _covers(span, part)
            first = part.span.stop
            if is_inside and part.messages == self._size:
                yield part.span, part.messages
            elif is_inside:  # the bucket begins with it
                first = part.span.first
        yield from _counted(store, Span(first, span.stop), self._size)

    def write(self, selection: Selection, messages: int | None) -> list[str]:
        """Write what the folder lacks of a range in one bucket of one partition.

        A part that is incomplete, or has another schema, is rewritten if the range has all of its messages. Otherwise
        it stays as it is, and only what is around it is written.
        """
        span, all_parts = selection.span, self._parts[selection.topic.store.info.partition]
        begin = bisect.bisect_right(all_parts, span.first, key=lambda part: part.span.stop)
        end = bisect.bisect_left(all_parts, span.stop, key=lambda part: part.span.first)
        parts = all_parts[begin:end]
        kept = [part.span for part in parts if not _covers(span, part)]
        written = []
        for gap in missing(span, kept):
            inside = [part for part in parts if _covers(gap, part)]
            is_complete = not list(missing(gap, [part.span for part in inside]))
            if not is_complete or any(part.schema != self._digest for part in inside):
                written += self._write_part(selection._replace(span=gap), messages, inside)
                parts = [part for part in parts if part not in inside]
        all_parts[begin:end] = parts
        return written

    def warn_of_other_columns(self) -> None:
        """Warn about files that could not be rewritten, if their columns cannot hold what the others have."""
        parts = [part for parts in self._parts.values() for part in parts]
        files = [file for part in parts if not _holds(part.columns, self._columns) for file in part.files]
        if files:
            check.warn(
                f"{len(files):,} files in {self._files.folder} keep other columns than the new ones, such as "
                f"{files[0]}: they have messages that were trimmed or are not in this range, so they cannot be "
                f"rewritten. Read the folder with DuckDB's union_by_name=true or the like, or export into another "
                f"folder"
            )

    def _write_part(self, selection: Selection, messages: int | None, replaced: Sequence[Part]) -> list[str]:
        """Write a part in place of others."""
        staging = self._files.stage()
        self._write_files(selection, messages, staging)
        (store,) = selection.topic.partitions
        trimmed(store, selection.span.first)  # these files would say that they have what was trimmed meanwhile
        moves = {file: _final(file) for file in sorted(_files(staging))}
        if not moves:  # no message has the key
            return []
        final = set(moves.values())
        return self._files.publish(moves, [file for part in replaced for file in part.files if file not in final])

    def _write_files(self, selection: Selection, messages: int | None, folder: str) -> None:
        info, span = selection.topic.store.info, selection.span
        description = {
            "options": {"topic": info.id, **self._options},
            "first": span.first,
            "stop": span.stop,
            "messages": messages,
            "schema": self._digest,
            "columns": self._columns,
        }
        partitions = pa.schema([self._schema.field(column) for column in self._partition_by])
        form = pyarrow.dataset.ParquetFileFormat()
        try:
            pyarrow.dataset.write_dataset(
                (
                    batch
                    for table in self._tables(selection)
                    for batch in parquet_table(table, self._schema).to_batches()
                ),
                folder,
                schema=self._schema.with_metadata({_DESCRIPTION: json.dumps(description).encode()}),
                format=form,
                file_options=form.make_write_options(compression="zstd"),
                basename_template=f"{_name_of(info, span)}-{{i}}",  # not yet .parquet, which readers look for
                partitioning=pyarrow.dataset.partitioning(partitions, flavor="hive"),
                preserve_order=True,
            )
        except _REFUSALS as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            self._check_columns(selection)
            by = f" by {', '.join(self._partition_by)}" if self._partition_by else ""
            raise ArgumentError(f"cannot export{by}: {error}") from error

    def _tables(self, selection: Selection) -> Iterator[pa.Table]:
        for group in regroup(read_chunks(selection, self._projection), BATCH_ROWS):
            yield self._output.table(group)

    def _check_columns(self, selection: Selection) -> None:
        """Raise for a column that Parquet cannot hold."""
        for table in self._tables(selection):
            for column, field in zip(table.columns, self._schema, strict=True):
                try:
                    pq.write_table(pa.table({field.name: _cast(column, field.type)}), pa.BufferOutputStream())
                except _REFUSALS as error:
                    raise ArgumentError(
                        f"Parquet cannot hold the column {field.name!r}, which is {column.type}: {error}. Leave it out "
                        f"with columns=, or convert it in history.to_arrow() and write that with pyarrow.parquet"
                    ) from error


def _covers(span: Span, part: Part) -> bool:
    """Whether a range has all messages of a part."""
    return span.first <= part.span.first and part.span.stop <= span.stop


def _name_of(info: TopicInfo, span: Span) -> str:
    """The name of a part; with the number of its partition if the topic has several."""
    return f"{span.first:015}" if info.partitions == 1 else f"p{info.partition:03}_{span.first:015}"


def _part_name(file: str) -> tuple[str, str]:
    """The name of a file's part, and its number.

    A folder has several files of a part if Arrow closed the first before its last row, since only so many may be open.
    """
    name, _, number = os.path.basename(file).removesuffix(".parquet").partition("-")
    return name, number


def _final(file: str) -> str:
    """The place of a file that Arrow wrote."""
    name, number = _part_name(file)
    return os.path.join(os.path.dirname(file), f"{name}.parquet" if number == "0" else f"{name}-{number}.parquet")


def _shown(field: pa.Field) -> str:
    return "JSON text" if is_json(field) else str(field.type)


def _holds(columns: dict[str, str], others: dict[str, str]) -> bool:
    """Whether readers that take these columns for all files lose nothing of files with other columns."""
    return all(
        of in (columns.get(name), "null") or (columns.get(name) == "double" and of.startswith(("int", "uint")))
        for name, of in others.items()
    )


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
    """The files in a folder and those within it, relative to it."""
    for inner, _, names in os.walk(folder):
        yield from (os.path.normpath(os.path.join(os.path.relpath(inner, folder), name)) for name in names)


def _description_of(path: str) -> dict[str, Any] | None:
    """What a file says it holds; None if it is not ours, or cannot be read as Parquet."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        return None
    description: dict[str, Any] | None = json.loads(metadata[_DESCRIPTION]) if _DESCRIPTION in metadata else None
    return description
