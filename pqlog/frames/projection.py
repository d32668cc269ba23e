"""Projection: which columns a reading returns, and in what form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pqlog.fields import METADATA_COLUMNS
from pqlog.frames.flatten import path_of, source_fields

if TYPE_CHECKING:
    from pqlog.frames.output_schema import OutputSchema


@dataclass(frozen=True, slots=True)
class Projection:
    """The options of a reading that determine its columns.

    Attributes
    ----------
    columns : tuple of str, optional
        The only fields to read, in this order.
    flatten : bool
        Whether the fields of nested objects become columns of their own.
    parse_dates : tuple of str
        Fields of ISO 8601 text to be parsed as times.
    metadata : bool or tuple of str
        Which of ``METADATA_COLUMNS`` come before the fields. True means offset, partition, if the topic has several,
        time, and key, if any message has one.
    lenient : bool
        Whether a field that no message has is a column of nulls instead of an error: the range was cut by a number of
        messages, or it grows.
    """

    columns: tuple[str, ...] | None = None
    flatten: bool = False
    parse_dates: tuple[str, ...] = ()
    metadata: bool | tuple[str, ...] = True
    lenient: bool = field(default=False, compare=False)

    @property
    def has_headers(self) -> bool:
        return isinstance(self.metadata, tuple) and "headers" in self.metadata

    @property
    def is_fields_only(self) -> bool:
        """Whether it gives all fields as they were put, and no metadata."""
        return self.metadata in (False, ()) and self.columns is None and not self.flatten and not self.parse_dates

    @property
    def source_fields(self) -> frozenset[str] | None:
        """The fields of the messages that have to be read; None for all."""
        if self.columns is None:
            return None
        return frozenset(source_fields(self.columns) if self.flatten else self.columns)

    def narrowed(self, output: OutputSchema) -> Projection:
        """The projection that reads only the columns of a part of its result."""
        names = [field.name for field in output.fields]
        columns = tuple(".".join(path_of(name)) if self.flatten else name for name in names)
        metadata = tuple(option for option, name in METADATA_COLUMNS.items() if name in output.metadata)
        dates = tuple(name for name in self.parse_dates if name in columns)
        return replace(self, columns=columns, parse_dates=dates, metadata=metadata, lenient=True)

    def metadata_columns(self, has_partitions: bool, has_keys: bool) -> tuple[str, ...]:
        """The metadata columns of a table: they depend on whether the topic has several partitions, and keys."""
        if isinstance(self.metadata, tuple):
            return tuple(METADATA_COLUMNS[name] for name in self.metadata)
        if not self.metadata:
            return ()
        return ("offset", *["_partition"] * has_partitions, "_time", *["_key"] * has_keys)

    def reserved_names(self, has_partitions: bool) -> tuple[str, ...]:
        """The names of metadata columns, which fields cannot have; the key's also where no message has a key."""
        return self.metadata_columns(has_partitions, has_keys=True)

    def top_level(self, columns: frozenset[str]) -> frozenset[str]:
        """Those of a chunk's columns that are fields of the messages themselves, and not nested in one of them."""
        paths = [path_of(column) if self.flatten else (column,) for column in columns]
        return frozenset(path[0] for path in paths if len(path) == 1)

    def date_columns(self, columns: Sequence[str]) -> dict[str, str]:
        """Those of a chunk's columns that are to be parsed as times, with their names in the result."""
        if not self.parse_dates:
            return {}
        names = {column: ".".join(path_of(column)) if self.flatten else column for column in columns}
        return {column: name for column, name in names.items() if name in self.parse_dates}
