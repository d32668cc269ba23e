"""JSON lines to columns: without a Python object per message where each value comes out exactly, else one by one.

A column has one of five types: bool, int64, double, string, or JSON text, which stands for nested and mixed values and
is marked in its metadata. Types are learnt by decoding a few messages; from then on pyarrow's parser is told them, so
that it never infers one: what does not fit is an error there, and that chunk is decoded message by message instead.
"""

from __future__ import annotations

import datetime
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Protocol

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from pqlog.codecs import UNDECODABLE
from pqlog.errors import ArgumentError
from pqlog.store.values import Lines

MOST_FIELDS = 5_000
"""A history with more fields is no table: a million keys used as fields would take all memory."""

LEARN_ROWS = 1_000
SLICE_ROWS = 10_000
"""Messages that are decoded at a time: bounds the Python objects that exist at once."""
BLOCK_BYTES = 1 << 20
EXACT = 2**53
"""Integers below have a double of their own."""

OBJECTS = np.dtype(object)
"""The dtype of pandas columns of Python objects; that of its text columns has the same kind, but is another."""
_MARK = b"pqlog"
_INT64 = range(-(2**63), 2**63)


def json_field(name: str) -> pa.Field:
    """A field of JSON text."""
    return pa.field(name, pa.string(), metadata={_MARK: b"json"})


def pickle_field(name: str) -> pa.Field:
    """A field of pickled objects, of topics whose values Arrow has no type for."""
    return pa.field(name, pa.binary(), metadata={_MARK: b"pickle"})


def mark(field: pa.Field) -> bytes | None:
    """What a field's bytes stand for: ``b"json"``, ``b"pickle"``, or None, themselves."""
    return field.metadata.get(_MARK) if field.metadata else None


def is_json(field: pa.Field) -> bool:
    """Whether a field is one of JSON text."""
    return mark(field) == b"json"


def pickled(values: Sequence[Any]) -> pa.Array:
    """The column of a `pickle_field`."""
    return pa.array([None if value is None else pickle.dumps(value) for value in values], pa.binary())


def json_column(values: Sequence[Any]) -> pa.Array:
    """The column of a `json_field`."""
    encode = msgspec.json.encode
    return pa.array([None if value is None else encode(value) for value in values], pa.binary()).cast(pa.string())


def json_texts(values: Sequence[Any]) -> pa.Array | None:
    """The same, but None unless exactly the same objects come back."""
    try:
        column = json_column(values)
    except (*UNDECODABLE, TypeError, OverflowError):
        return None
    return column if all(map(same, decode_text(column.to_pylist()), values)) else None


def same(one: Any, other: Any) -> bool:
    """Whether two objects are the same to the type and the last bit."""
    kind = type(one)
    if one is other:
        return True
    if kind is not type(other):
        return False
    if kind is float:
        return (one == other and (one != 0 or str(one) == str(other))) or (one != one and other != other)
    if kind in (list, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if kind is dict:
        return len(one) == len(other) and all(map(same, one.items(), other.items()))
    if kind is Decimal:
        return bool(one.as_tuple() == other.as_tuple())
    if isinstance(one, (datetime.datetime, datetime.time)):
        same_zone = str(one.tzinfo) == str(other.tzinfo) and one.utcoffset() == other.utcoffset()
        return same_zone and bool(one.replace(tzinfo=None) == other.replace(tzinfo=None)) and one.fold == other.fold
    if hasattr(one, "dtype") and hasattr(one, "tolist"):  # an array
        return bool(one.dtype == other.dtype) and one.shape == other.shape and same(one.tolist(), other.tolist())
    try:
        return (one == other) is True
    except Exception:  # an object may be anything, and raise anything
        return False


def decode_text(column: Iterable[str | None]) -> list[Any]:
    """The values of a column of JSON text."""
    decode = msgspec.json.decode
    try:
        return [None if text is None else decode(text) for text in column]
    except (*UNDECODABLE, TypeError) as error:
        raise ValueError(f"a column is marked as JSON text, but holds something else: {error}") from error


def without_pickles(table: pa.Table) -> pa.Table:
    """A table from a file, in which nothing is taken for a pickle: to read a file must never run code from it."""
    for index, field in enumerate(table.schema):
        if mark(field) == b"pickle":
            table = table.set_column(index, field.remove_metadata(), table.column(index))
    return table


def decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of a dictionary as its values; Arrow's own cast and take do not know all types."""
    of = column.type.value_type
    plain = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}.get(of, of)
    chunks = [chunk.dictionary.cast(plain).take(chunk.indices) for chunk in column.chunks]
    return pa.chunked_array(chunks, plain).cast(of)


def python_values(column: pa.ChunkedArray, field: pa.Field) -> list[Any]:
    """The values of a column as Python objects."""
    if mark(field) == b"json":
        return decode_text(column.to_pylist())
    if mark(field) == b"pickle":  # made by this process, of values that it was allowed to unpickle
        return [None if data is None else pickle.loads(data) for data in column.to_pylist()]  # noqa: S301
    if not column.null_count and (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return column.to_numpy().tolist()  # type: ignore[no-any-return]  # five times as fast
    return column.to_pylist()  # type: ignore[no-any-return]


def column_of(name: str, values: Sequence[Any]) -> tuple[pa.Field, pa.Array]:
    """A column of decoded JSON values: of the narrowest type that holds each exactly."""
    kinds = {type(value) for value in values}
    kinds.discard(type(None))
    if not kinds:
        return pa.field(name, pa.null()), pa.nulls(len(values))
    if kinds == {str}:
        return pa.field(name, pa.string()), pa.array(values, pa.string())
    if kinds == {bool}:
        return pa.field(name, pa.bool_()), pa.array(values, pa.bool_())
    if kinds <= {int, float} and bool not in kinds:
        numbers = [value for value in values if value is not None]
        if kinds == {int} and min(numbers) in _INT64 and max(numbers) in _INT64:
            return pa.field(name, pa.int64()), pa.array(values, pa.int64())
        if float in kinds and all(type(n) is float or -EXACT <= n <= EXACT for n in numbers):
            return pa.field(name, pa.float64()), pa.array(values, pa.float64())
    return json_field(name), json_column(values)


class ColumnOf(Protocol):
    """Makes a column of values."""

    def __call__(self, name: str, values: Sequence[Any], /) -> tuple[pa.Field, pa.Array]: ...


def object_column(name: str, values: Sequence[Any]) -> tuple[pa.Field, pa.Array]:
    """A column of decoded JSON values, each as it is."""
    return json_field(name), json_column(values)


def table_of(
    values: Sequence[Any],
    wanted: frozenset[str] | None,
    column_of: ColumnOf = column_of,
    objects: frozenset[str] = frozenset(),
    object_column: ColumnOf = object_column,
) -> pa.Table:
    """Decoded values as a table of their fields; what is no object is in ``value``.

    `objects` are the fields whose values shall stay what they are, each for itself.
    """
    rows = [value if isinstance(value, Mapping) else {"value": value} for value in values]
    names = dict.fromkeys(name for row in rows for name in row)
    if wanted is not None:
        names = {name: None for name in names if str(name) in wanted}
    check_fields(len(names))
    used: dict[str, None] = {}
    fields, columns = [], []
    for name in names:
        of = object_column if name in objects else column_of
        field, column = of(free(str(name), used), [row.get(name) for row in rows])
        used[field.name] = None
        fields.append(field)
        columns.append(column)
    return rows_table(fields, columns, len(rows))


def rows_table(fields: Sequence[pa.Field], columns: Sequence[Any], rows: int) -> pa.Table:
    """A table that keeps its number of rows also where it has no column."""
    if not fields:
        return pa.table({"": pa.nulls(rows)}).select([])
    return pa.Table.from_arrays(list(columns), schema=pa.schema(fields))


def free(name: str, used: Mapping[str, Any]) -> str:
    """`name`, with underscores behind it until it is not used yet."""
    while name in used:
        name += "_"
    return name


def check_fields(count: int) -> None:
    """Refuse what is no table."""
    if count > MOST_FIELDS:
        raise ArgumentError(
            f"the messages have more than {MOST_FIELDS:,} different fields, which makes no table: name the ones you "
            f"need with columns=, or iterate over the messages"
        )


class JsonParser:
    """Parses the runs of lines of one reading, one after the other; what it learns from one serves the next.

    Parameters
    ----------
    wanted : frozenset of str, optional
        The only fields to read.
    objects : frozenset of str
        Fields whose values shall stay what they are, each for itself, whatever they are.
    """

    def __init__(self, wanted: frozenset[str] | None, objects: frozenset[str] = frozenset()) -> None:
        self._wanted, self._objects = wanted, objects
        self._known: dict[str, pa.Field] = {}
        if wanted is not None:  # not seen yet: a value that comes is an error to the parser, and is learnt then
            self._known = {name: pa.field(name, pa.null()) for name in sorted(wanted)}
            self._known |= {name: json_field(name) for name in sorted(wanted & objects)}
        self._fresh = True

    def parse(self, lines: Lines) -> Iterator[pa.Table]:
        """The fields of a run of lines, in order."""
        table = None if self._fresh else self._by_columns(lines.values, lines.rows)
        if table is not None:
            yield table
        else:
            yield from self._by_messages(lines.values)

    def _by_messages(self, text: bytes) -> Iterator[pa.Table]:
        lines = text.split(b"\n")
        start, size = 0, LEARN_ROWS if self._fresh else SLICE_ROWS
        while start < len(lines):
            part = lines[start : start + size]
            table = table_of(_decode_plain(b"\n".join(part)), self._wanted, objects=self._objects)
            self._learn(table.schema)
            yield table
            start += len(part)
            if self._fresh:
                self._fresh = False
                rest = lines[start:]
                table = self._by_columns(b"\n".join(rest), len(rest)) if rest else None
                if table is not None:
                    yield table
                    return
            size = SLICE_ROWS

    def _learn(self, schema: pa.Schema) -> None:
        for field in schema:
            before = self._known.get(field.name)
            self._known[field.name] = field if before is None else _wider(before, field)
        check_fields(len(self._known))

    def _by_columns(self, text: bytes, rows: int) -> pa.Table | None:
        """By pyarrow's parser; None where a field is new, or a value does not fit what is known."""
        if not text.startswith(b"{"):
            return None
        nested = [field for field in self._known.values() if is_json(field)]
        plain = [field for field in self._known.values() if not is_json(field)]
        raw = self._raw(text, nested) if nested else []
        if raw is None:
            return None
        others = "error" if self._wanted is None and not nested else "ignore"
        options = pa.json.ParseOptions(explicit_schema=pa.schema(plain), unexpected_field_behavior=others)
        table = _read_json(text, options)
        if table is None or table.num_rows != rows:
            return None
        if all(column.null_count for column in table.columns) and (b"\nnull\n" in text or text.endswith(b"\nnull")):
            return None  # the parser takes a null for an object without fields
        for column in table.columns:
            if pa.types.is_floating(column.type) and (pc.max(pc.abs(column)).as_py() or 0) >= EXACT:
                return None
        columns = dict(zip(table.column_names, table.columns, strict=True))
        columns |= {field.name: texts for field, texts in zip(nested, raw, strict=True)}
        fields = list(self._known.values())
        return rows_table(fields, [columns[field.name] for field in fields], rows)

    def _raw(self, text: bytes, nested: Sequence[pa.Field]) -> list[pa.Array] | None:
        """The JSON text of nested and mixed fields; None if a line has a field that is not known."""
        try:
            rows = _decode_raw(text)
        except UNDECODABLE:
            return None
        if self._wanted is None and not all(map(self._known.keys().__ge__, map(dict.keys, rows))):
            return None
        found = []
        for field in nested:
            values = [row.get(field.name) for row in rows]
            texts = [None if value is None else bytes(value) for value in values]
            texts = [None if text == b"null" else text for text in texts]
            found.append(pa.array(texts, pa.binary()).cast(pa.string()))
        return found


# Arrow's own allocator keeps what the parser gives back: 216 MB at the peak of a million messages in place of 150.
_POOL = pa.system_memory_pool()

_decode_plain = msgspec.json.Decoder().decode_lines
_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode_lines


def _wider(one: pa.Field, other: pa.Field) -> pa.Field:
    """What the parser is told of a field that came as both."""
    if one.equals(other, check_metadata=True) or pa.types.is_null(other.type):
        return one
    if pa.types.is_null(one.type):
        return other
    if {one.type, other.type} == {pa.int64(), pa.float64()}:
        return pa.field(one.name, pa.float64())
    return json_field(one.name)


def _read_json(text: bytes, options: pa.json.ParseOptions) -> pa.Table | None:
    for block_size, threads in ((BLOCK_BYTES, True), (len(text) + 1, False)):  # a line must fit its block
        read = pa.json.ReadOptions(block_size=block_size, use_threads=threads)
        try:
            return pa.json.read_json(pa.BufferReader(text), read_options=read, parse_options=options, memory_pool=_POOL)
        except pa.ArrowInvalid as error:
            if "straddling" not in str(error):
                return None
    return None
