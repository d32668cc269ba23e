"""One schema for the pieces of a reading: for the same messages always the same, however they fall into pieces.

A column's type follows from the values of all pieces. What is remembered of a piece is joined with what is known of
those before by minimum, maximum and union, so that neither order nor grouping matters.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from pqlog.frames import parse, stream
from pqlog.frames.common import PER_SECOND, common_type, distinct, is_number, unit_of
from pqlog.frames.notes import OBJECT, Note, note_of
from pqlog.frames.parse import json_field, mark

VERSION = 1
"""Of the text of `Facts`: what another version wrote is not read."""
DICTIONARY_BYTES = 256 << 10
"""Facts with larger dictionaries have no text."""

_WIDEST = 4096
"""Bytes that a null takes at most in a column that is made of facts from a file."""


class Facts:
    """What is known of the columns of all pieces so far.

    Attributes
    ----------
    rows : int
        Messages in all pieces.
    has_keys : bool
        Whether some of them have a key.
    puts : set of bytes or None
        The frames that they were put with, None for other messages; two of them at most: more need not be known.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.has_keys = False
        self.puts: set[bytes | None] = set()
        self._columns: dict[str, _Column] = {}

    def add(self, piece: pa.Table) -> None:
        """Take a piece into account."""
        for field, column in zip(piece.schema, piece.columns, strict=True):
            self._columns.setdefault(field.name, _Column()).add(field, column)
        self.rows += piece.num_rows

    def schema(self) -> pa.Schema:
        """The schema that holds all pieces."""
        return pa.schema([self._field(name, column) for name, column in self._columns.items()])

    def _field(self, name: str, column: _Column) -> pa.Field:
        return column.field(name).with_nullable(column.is_nullable or column.valid < self.rows)

    def has_nulls(self, name: str) -> bool:
        """Whether a message has no value in that column."""
        return name not in self._columns or self._columns[name].valid < self.rows

    def note(self, name: str) -> Note | None:
        """What pandas had a column as, if all pieces that have it agree."""
        return self._columns[name].note() if name in self._columns else None

    def dictionary(self, name: str) -> pa.Array | None:
        """The dictionary that all pieces of a column share; None if they have several, or none."""
        column = self._columns.get(name)
        return None if column is None or column.dictionaries_differ else column.dictionary

    def surprise(self, piece: pa.Table) -> str | None:
        """The first column of a piece that is not as it would have to be, were these facts true of it too."""
        for field, column in zip(piece.schema, piece.columns, strict=True):
            known = self._columns.get(field.name)
            if known is None:
                return str(field.name)
            joined = known.copy()
            joined.add(field, column)
            if joined.outcome() != known.outcome() or (column.null_count and not self.has_nulls(field.name)):
                return str(field.name)
        return None

    def to_text(self) -> str | None:
        """All of it as text, from which `from_text` makes it again.

        None where it would be too much, or where Python objects are among the values.
        """
        fields = [field for column in self._columns.values() for field in column.fields()]
        if any(mark(field) == b"pickle" for field in fields):
            return None
        columns = [column.to_kept(name) for name, column in self._columns.items()]
        dictionaries = [column.dictionary for column in columns if column.dictionary is not None]
        if b"" in dictionaries or sum(map(len, dictionaries)) > DICTIONARY_BYTES:
            return None
        schema = pa.schema(fields).serialize().to_pybytes()
        kept = _Kept(VERSION, self.rows, self.has_keys, list(self.puts), schema, columns)
        return msgspec.json.encode(kept).decode()

    @classmethod
    def from_text(cls, text: str) -> Facts:
        """What was `to_text`.

        Raises
        ------
        Exception
            Of any kind: it was not, or by another version.
        """
        kept = msgspec.json.decode(text, type=_Kept)
        if kept.version != VERSION:
            raise ValueError(f"it is of version {kept.version}")
        schema = pa.ipc.read_schema(pa.py_buffer(kept.schema))
        stream.check_types(schema)
        if any(stream.widest(field.type) > _WIDEST for field in schema):
            raise ValueError("a column of nulls would take too much memory")
        fields = list(schema)
        if any(mark(field) == b"pickle" for field in fields):
            raise ValueError("to read a file must never run code from it")
        facts = cls()
        facts.rows, facts.has_keys, facts.puts = kept.rows, kept.has_keys, set(kept.puts)
        for column in kept.columns:
            own, fields = fields[: column.seen + column.empty], fields[column.seen + column.empty :]
            facts._columns[column.name] = _Column.from_kept(column, own)
        return facts


class _KeptColumn(msgspec.Struct, omit_defaults=True):
    """A column, as text."""

    name: str
    valid: int
    seen: int
    """How many of the schema's next fields are those that it was seen with."""
    empty: int = 0
    """How many of those behind them are of pieces without a value."""
    notes: list[Note | None] = []
    notes_of_empty: list[Note | None] = []
    bounds: tuple[str, str] | None = None
    """JSON's integers have 64 bits."""
    dictionary: bytes | None = None
    """An Arrow stream; none in it where it is too large."""
    dictionaries_differ: bool = False


class _Kept(msgspec.Struct):
    version: int
    rows: int
    has_keys: bool
    puts: list[bytes | None]
    schema: bytes
    columns: list[_KeptColumn]


class _Column:
    def __init__(self) -> None:
        self.valid = 0
        self._seen = _Seen()
        """Of pieces that have a value in it."""
        self._empty = _Seen()
        """Of those that have none: their types count only if there is no other."""
        self._bounds: tuple[int, int] | None = None
        """Of integers, and of times in the finest of their units."""
        self.dictionary: pa.Array | None = None
        self.dictionaries_differ = False

    def copy(self) -> _Column:
        """The same, to add to."""
        other = copy.copy(self)
        other._seen, other._empty = self._seen.copy(), self._empty.copy()
        return other

    def outcome(self) -> tuple[object, ...]:
        """What follows from it, but for what others noted of a field."""
        field = self.field("")
        return field.type, mark(field), self.is_nullable, self.note(), self.dictionaries_differ

    def fields(self) -> list[pa.Field]:
        """All that it came as."""
        return [*self._seen.fields.values(), *self._empty.fields.values()]

    def to_kept(self, name: str) -> _KeptColumn:
        """All but its `fields`."""
        return _KeptColumn(
            name,
            self.valid,
            len(self._seen.fields),
            len(self._empty.fields),
            list(self._seen.notes),
            list(self._empty.notes),
            None if self._bounds is None else (str(self._bounds[0]), str(self._bounds[1])),
            None if self.dictionary is None or self.dictionaries_differ else _stored(self.dictionary),
            self.dictionaries_differ,
        )

    @classmethod
    def from_kept(cls, kept: _KeptColumn, fields: Sequence[pa.Field]) -> _Column:
        """What was `to_kept`, and its `fields`; raises where they do not belong to each other."""
        column = cls()
        if len(fields) != kept.seen + kept.empty or any(field.name != kept.name for field in fields):
            raise ValueError(f"it has not the fields of the column {kept.name!r}")
        if bool(kept.valid) != bool(kept.seen):
            raise ValueError(f"the column {kept.name!r} has {kept.valid} values of {kept.seen} types")
        column.valid = kept.valid
        column._seen = _Seen.of(fields[: kept.seen], kept.notes)
        column._empty = _Seen.of(fields[kept.seen :], kept.notes_of_empty)
        if kept.bounds is not None:
            column._bounds = int(kept.bounds[0]), int(kept.bounds[1])
        column.dictionaries_differ = kept.dictionaries_differ
        if kept.dictionary is not None:
            column.dictionary = stream.decode(kept.dictionary, None).column(0).combine_chunks()
        values = {field.type.value_type for field in fields if pa.types.is_dictionary(field.type)}
        of_dictionary = set() if column.dictionary is None else {column.dictionary.type}
        if values != of_dictionary and not column.dictionaries_differ:
            raise ValueError(f"the column {kept.name!r} has a dictionary of another type, or none")
        return column

    def add(self, field: pa.Field, column: pa.ChunkedArray) -> None:
        valid = len(column) - column.null_count
        if pa.types.is_dictionary(field.type) and not self.dictionaries_differ:
            for chunk in column.chunks:
                if self.dictionary is None:
                    self.dictionary = chunk.dictionary
                elif not self.dictionary.equals(chunk.dictionary):
                    self.dictionaries_differ = True
        if not valid:
            if not pa.types.is_null(field.type) or field.metadata:
                self._empty.add(field)
            return
        self.valid += valid
        self._seen.add(field)
        if pa.types.is_integer(field.type) or unit_of(field.type) is not None:
            self._widen(field.type, column)

    def _widen(self, of: pa.DataType, column: pa.ChunkedArray) -> None:
        plain = column if pa.types.is_integer(of) else column.cast(pa.int64())
        bounds = pc.min_max(plain)
        low, high = (bounds[name].as_py() for name in ("min", "max"))
        unit = unit_of(of)
        if unit is not None:
            low, high = (bound * (10**9 // PER_SECOND[unit]) for bound in (low, high))
        before = self._bounds
        self._bounds = (low, high) if before is None else (min(low, before[0]), max(high, before[1]))

    @property
    def _known(self) -> _Seen:
        return self._seen if self.valid else self._empty

    @property
    def is_nullable(self) -> bool:
        return any(field.nullable for field in self._known.fields.values()) or not self._known.fields

    def note(self) -> Note | None:
        notes = self._known.notes
        return next(iter(notes)) if len(notes) == 1 and not self.dictionaries_differ else None

    def field(self, name: str) -> pa.Field:
        known = self._known
        if not known.fields:
            return pa.field(name, pa.null())
        marks = {mark(field) for field in known.fields.values()}
        if b"pickle" in marks:
            return parse.pickle_field(name)
        opaque = {note for note in known.notes if note is not None and note.is_opaque}
        if b"json" in marks or (opaque and (len(opaque) > 1 or known.notes != opaque or self.dictionaries_differ)):
            return json_field(name)
        types = distinct(of for of, _, _ in known.fields)
        if self.dictionaries_differ:
            types = distinct(of.value_type if pa.types.is_dictionary(of) else of for of in types)
        if len(types) > 1 and all(map(is_number, types)) and any(note and note.dtype == OBJECT for note in known.notes):
            return json_field(name)  # as if they were of one column of objects, where each is what it is
        type_ = common_type(types, self._bounds)
        if type_ is None:
            return json_field(name) if self.valid else pa.field(name, pa.null())
        (shown, *others) = {metadata for _, _, metadata in known.fields}
        return pa.field(name, type_, metadata=None if others else dict(shown) or None)


Metadata = tuple[tuple[bytes, bytes], ...]


def _shown(field: pa.Field) -> Metadata:
    """What others noted of a field."""
    return tuple(sorted(pair for pair in (field.metadata or {}).items() if not pair[0].startswith(b"pqlog")))


class _Seen:
    """The types that a column came with."""

    def __init__(self) -> None:
        self.fields: dict[tuple[pa.DataType, bytes | None, Metadata], pa.Field] = {}
        self.notes: set[Note | None] = set()

    def add(self, field: pa.Field) -> None:
        about = field.type, mark(field), _shown(field)
        if field.nullable or about not in self.fields:
            self.fields[about] = field
        self.notes.add(note_of(field))

    @classmethod
    def of(cls, fields: Sequence[pa.Field], notes: Sequence[Note | None]) -> _Seen:
        """The types of these fields, with these notes."""
        seen = cls()
        for field in fields:
            seen.add(field)
        seen.notes.update(notes)
        return seen

    def copy(self) -> _Seen:
        """The same, to add to."""
        other = _Seen()
        other.fields, other.notes = dict(self.fields), set(self.notes)
        return other


def _stored(dictionary: pa.Array) -> bytes:
    """A dictionary as a stream; nothing where it is too large for one."""
    if len(dictionary) > stream.MOST_ROWS:
        return b""
    try:
        return stream.encode(pa.Table.from_arrays([dictionary], ["dictionary"]))
    except stream.TooLargeError:
        return b""
