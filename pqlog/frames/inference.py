"""Schema inference: one schema for all messages of a range, however they are divided into chunks.

A column's type is determined by the values of all chunks. What is remembered of a chunk is merged with what is known of
those before by minimum, maximum and union, so neither order nor grouping matters.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from pqlog.frames import ipc
from pqlog.frames.arrow_types import NANOSECONDS, check_types, distinct, is_number, null_bytes, unit_of
from pqlog.frames.columns import json_field, mark_of, pickle_field
from pqlog.frames.notes import OBJECT, Note, note_of
from pqlog.frames.promotion import common_type

VERSION = 1
"""The version of the text of a `SchemaInference`; other versions are not read."""
MAX_DICTIONARY_BYTES = 256 << 10
"""With larger dictionaries, a `SchemaInference` has no text."""
_MAX_NULL_BYTES = 4096
"""In a text from a file, a type whose nulls take more is refused."""


class SchemaInference:
    """What is known about the columns of all chunks so far.

    Attributes
    ----------
    rows : int
        Messages in all chunks.
    has_keys : bool
        Whether some of them have a key.
    puts : set of bytes or None
        The calls that put them as frames, None for other messages; at most two, since more make no difference.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.has_keys = False
        self.puts: set[bytes | None] = set()
        self._columns: dict[str, _Column] = {}

    def copy(self) -> SchemaInference:
        other = copy.copy(self)
        other.puts = set(self.puts)
        other._columns = {name: column.copy() for name, column in self._columns.items()}
        return other

    def add(self, table: pa.Table) -> None:
        """Take the fields of a chunk into account."""
        for field, column in zip(table.schema, table.columns, strict=True):
            self._columns.setdefault(field.name, _Column()).add(field, column)
        self.rows += table.num_rows

    def schema(self) -> pa.Schema:
        """The schema that holds the values of all chunks."""
        return pa.schema([self._field(name, column) for name, column in self._columns.items()])

    def _field(self, name: str, column: _Column) -> pa.Field:
        return column.field(name).with_nullable(column.is_nullable or column.valid < self.rows)

    def has_nulls(self, name: str) -> bool:
        """Whether a message has no value in a column."""
        return name not in self._columns or self._columns[name].valid < self.rows

    def note(self, name: str) -> Note | None:
        """The note on a column's pandas dtype, if all chunks that have the column agree."""
        return self._columns[name].note() if name in self._columns else None

    def dictionary(self, name: str) -> pa.Array | None:
        """The dictionary that all chunks of a column share; None if they have several, or none."""
        column = self._columns.get(name)
        return None if column is None or column.dictionaries_differ else column.dictionary

    def mismatch(self, table: pa.Table) -> str | None:
        """The first column of a chunk that would change the schema if the chunk were added; None if there is none."""
        for field, column in zip(table.schema, table.columns, strict=True):
            known = self._columns.get(field.name)
            if known is None:
                return str(field.name)
            if not known.is_only(field, column):
                merged = known.copy()
                merged.add(field, column)
                if merged.result() != known.result():
                    return str(field.name)
            if column.null_count and not self.has_nulls(field.name):
                return str(field.name)
        return None

    def to_text(self) -> str | None:
        """All of it as text, for `from_text`.

        None if it would be too large, or if Python objects are among the values.
        """
        fields = [field for column in self._columns.values() for field in column.fields()]
        if any(mark_of(field) == b"pickle" for field in fields):
            return None
        columns = [column.serialize(name) for name, column in self._columns.items()]
        dictionaries = [column.dictionary for column in columns if column.dictionary is not None]
        if b"" in dictionaries or sum(map(len, dictionaries)) > MAX_DICTIONARY_BYTES:
            return None
        schema = pa.schema(fields).serialize().to_pybytes()
        serialized = _Serialized(VERSION, self.rows, self.has_keys, list(self.puts), schema, columns)
        return msgspec.json.encode(serialized).decode()

    @classmethod
    def from_text(cls, text: str) -> SchemaInference:
        """The inverse of `to_text`.

        Raises
        ------
        Exception
            Any kind of exception: the text is not one of `to_text`, or is of another version.
        """
        serialized = msgspec.json.decode(text, type=_Serialized)
        if serialized.version != VERSION:
            raise ValueError(f"it is of version {serialized.version}")
        schema = pa.ipc.read_schema(pa.py_buffer(serialized.schema))
        check_types(schema)
        if any(null_bytes(field.type) > _MAX_NULL_BYTES for field in schema):
            raise ValueError("a column of nulls would take too much memory")
        fields = list(schema)
        if any(mark_of(field) == b"pickle" for field in fields):
            raise ValueError("reading a file must never run code from it")
        inference = cls()
        inference.rows, inference.has_keys = serialized.rows, serialized.has_keys
        inference.puts = set(serialized.puts)
        for column in serialized.columns:
            count = column.seen + column.empty
            inference._columns[column.name] = _Column.deserialize(column, fields[:count])
            fields = fields[count:]
        return inference


class _SerializedColumn(msgspec.Struct, omit_defaults=True):
    """A `_Column` without its fields, which are in the schema."""

    name: str
    valid: int
    seen: int
    """How many of the schema's next fields are those that occurred with values."""
    empty: int = 0
    """How many of the fields after them occurred without values."""
    notes: list[Note | None] = []
    notes_of_empty: list[Note | None] = []
    bounds: tuple[str, str] | None = None
    """As text, since integers in JSON have 64 bits."""
    dictionary: bytes | None = None
    """An Arrow stream; empty if it is too large."""
    dictionaries_differ: bool = False


class _Serialized(msgspec.Struct):
    version: int
    rows: int
    has_keys: bool
    puts: list[bytes | None]
    schema: bytes
    columns: list[_SerializedColumn]


class _Column:
    def __init__(self) -> None:
        self.valid = 0
        self._with_values = _Occurrences()
        """From chunks in which the column has a value."""
        self._without_values = _Occurrences()
        """From chunks without one: their types count only if there are no others."""
        self._bounds: tuple[int, int] | None = None
        """The smallest and the largest integer, or time in nanoseconds."""
        self.dictionary: pa.Array | None = None
        self.dictionaries_differ = False

    def copy(self) -> _Column:
        other = copy.copy(self)
        other._with_values, other._without_values = self._with_values.copy(), self._without_values.copy()
        return other

    def result(self) -> tuple[object, ...]:
        """All that is inferred about the column, except for other people's metadata."""
        field = self.field("")
        return field.type, mark_of(field), self.is_nullable, self.note(), self.dictionaries_differ

    def is_only(self, field: pa.Field, column: pa.ChunkedArray) -> bool:
        """Whether it occurred as this plain field alone, and so does not change by more of its values."""
        if field.metadata or pa.types.is_dictionary(field.type) or column.null_count == len(column):
            return False
        seen = self._with_values
        before = seen.fields.get((field.type, None, ()))
        if before is None or len(seen.fields) > 1 or seen.notes != {None}:
            return False
        return before.nullable or not field.nullable

    def fields(self) -> list[pa.Field]:
        """All fields that it occurred as."""
        return [*self._with_values.fields.values(), *self._without_values.fields.values()]

    def serialize(self, name: str) -> _SerializedColumn:
        return _SerializedColumn(
            name,
            self.valid,
            len(self._with_values.fields),
            len(self._without_values.fields),
            list(self._with_values.notes),
            list(self._without_values.notes),
            None if self._bounds is None else (str(self._bounds[0]), str(self._bounds[1])),
            None if self.dictionary is None or self.dictionaries_differ else _serialize(self.dictionary),
            self.dictionaries_differ,
        )

    @classmethod
    def deserialize(cls, serialized: _SerializedColumn, fields: Sequence[pa.Field]) -> _Column:
        """The inverse of `serialize` and `fields`; raises if they contradict each other."""
        name, seen = serialized.name, serialized.seen
        if len(fields) != seen + serialized.empty or any(field.name != name for field in fields):
            raise ValueError(f"the schema lacks fields of the column {name!r}")
        if bool(serialized.valid) != bool(seen):
            raise ValueError(f"the column {name!r} has {serialized.valid} values of {seen} types")
        column = cls()
        column.valid = serialized.valid
        column._with_values = _Occurrences.of(fields[:seen], serialized.notes)
        column._without_values = _Occurrences.of(fields[seen:], serialized.notes_of_empty)
        if serialized.bounds is not None:
            column._bounds = int(serialized.bounds[0]), int(serialized.bounds[1])
        column.dictionaries_differ = serialized.dictionaries_differ
        if serialized.dictionary is not None:
            column.dictionary = ipc.decode(serialized.dictionary, None).column(0).combine_chunks()
        expected = {field.type.value_type for field in fields if pa.types.is_dictionary(field.type)}
        actual = set() if column.dictionary is None else {column.dictionary.type}
        if expected != actual and not column.dictionaries_differ:
            raise ValueError(f"the column {name!r} has no dictionary, or one of another type")
        return column

    def add(self, field: pa.Field, column: pa.ChunkedArray) -> None:
        valid = len(column) - column.null_count
        if pa.types.is_dictionary(field.type):
            self._add_dictionaries(column)
        if not valid:
            if not pa.types.is_null(field.type) or field.metadata:
                self._without_values.add(field)
            return
        self.valid += valid
        self._with_values.add(field)
        if pa.types.is_integer(field.type) or unit_of(field.type) is not None:
            self._widen_bounds(field.type, column)

    def _add_dictionaries(self, column: pa.ChunkedArray) -> None:
        if self.dictionaries_differ:
            return
        for array in column.chunks:
            if self.dictionary is None:
                self.dictionary = array.dictionary
            elif not self.dictionary.equals(array.dictionary):
                self.dictionaries_differ = True

    def _widen_bounds(self, of: pa.DataType, column: pa.ChunkedArray) -> None:
        plain = column if pa.types.is_integer(of) else column.cast(pa.int64())
        bounds = pc.min_max(plain)
        low, high = (bounds[name].as_py() for name in ("min", "max"))
        unit = unit_of(of)
        if unit is not None:
            low, high = low * NANOSECONDS[unit], high * NANOSECONDS[unit]
        before = self._bounds
        self._bounds = (low, high) if before is None else (min(low, before[0]), max(high, before[1]))

    @property
    def _occurrences(self) -> _Occurrences:
        """The occurrences that determine the type."""
        return self._with_values if self.valid else self._without_values

    @property
    def is_nullable(self) -> bool:
        fields = self._occurrences.fields.values()
        return not fields or any(field.nullable for field in fields)

    def note(self) -> Note | None:
        notes = self._occurrences.notes
        return next(iter(notes)) if len(notes) == 1 and not self.dictionaries_differ else None

    def field(self, name: str) -> pa.Field:
        occurrences = self._occurrences
        if not occurrences.fields:
            return pa.field(name, pa.null())
        marks = {mark_of(field) for field in occurrences.fields.values()}
        if b"pickle" in marks:
            return pickle_field(name)
        if b"json" in marks or self._has_different_notes() or self._has_objects_and_numbers():
            return json_field(name)
        type_ = common_type(self._types(), self._bounds)
        if type_ is None:
            return json_field(name) if self.valid else pa.field(name, pa.null())
        (metadata, *others) = {metadata for _, _, metadata in occurrences.fields}
        return pa.field(name, type_, metadata=None if others else dict(metadata) or None)

    def _types(self) -> list[pa.DataType]:
        """The types that the column occurred with, without dictionaries if they differ."""
        types = distinct(of for of, _, _ in self._occurrences.fields)
        if not self.dictionaries_differ:
            return types
        return distinct(of.value_type if pa.types.is_dictionary(of) else of for of in types)

    def _has_different_notes(self) -> bool:
        """Whether values that Arrow holds in another form than pandas would not all come back alike."""
        notes = self._occurrences.notes
        opaque = {note for note in notes if note is not None and note.is_opaque}
        return bool(opaque) and (len(opaque) > 1 or notes != opaque or self.dictionaries_differ)

    def _has_objects_and_numbers(self) -> bool:
        """Whether there are numbers of several types, and some come from objects, where each number stays as it is."""
        types = self._types()
        if len(types) == 1 or not all(map(is_number, types)):
            return False
        return any(note is not None and note.dtype == OBJECT for note in self._occurrences.notes)


Metadata = tuple[tuple[bytes, bytes], ...]


def _foreign_metadata(field: pa.Field) -> Metadata:
    """The metadata of a field that is not ours."""
    return tuple(sorted(pair for pair in (field.metadata or {}).items() if not pair[0].startswith(b"pqlog")))


class _Occurrences:
    """The different fields and notes that a column occurred with."""

    def __init__(self) -> None:
        self.fields: dict[tuple[pa.DataType, bytes | None, Metadata], pa.Field] = {}
        self.notes: set[Note | None] = set()

    def add(self, field: pa.Field) -> None:
        key = field.type, mark_of(field), _foreign_metadata(field)
        if field.nullable or key not in self.fields:
            self.fields[key] = field
        self.notes.add(note_of(field))

    @classmethod
    def of(cls, fields: Sequence[pa.Field], notes: Sequence[Note | None]) -> _Occurrences:
        occurrences = cls()
        for field in fields:
            occurrences.add(field)
        occurrences.notes.update(notes)
        return occurrences

    def copy(self) -> _Occurrences:
        other = _Occurrences()
        other.fields, other.notes = dict(self.fields), set(self.notes)
        return other


def _serialize(dictionary: pa.Array) -> bytes:
    """A dictionary as an Arrow stream; empty if it is too large for one."""
    if len(dictionary) > ipc.MAX_ROWS:
        return b""
    try:
        return ipc.encode(pa.Table.from_arrays([dictionary], ["dictionary"]))
    except ipc.TooLargeError:
        return b""
