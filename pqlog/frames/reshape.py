"""Columns on request: the fields of nested objects, and times of text.

While a stretch is read in pieces, a column of a nested field bears its path, in one string. What it is called,
``outer.inner`` unless a field is called that itself, is known when all pieces are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pqlog import fields
from pqlog.errors import ArgumentError
from pqlog.frames import parse
from pqlog.frames.dtypes import python_values
from pqlog.frames.notes import note_of
from pqlog.message import to_micros

TIME = pa.timestamp("us", tz="UTC")
FINE_TIME = pa.timestamp("ns", tz="UTC")
"""Where a time has digits behind the microseconds."""
_FINE = range(-(2**63) // 1000 + 1, 2**63 // 1000)
"""The microseconds that nanoseconds of 64 bits reach."""

# names

_INNER, _ESCAPE = "\x1f", "\x1e"
"""Between the parts of a path, and in front of what stands for one of these two in a name."""


def of_path(path: Iterable[str]) -> str:
    """The column of a field of nested objects, whatever its parts are called; that of a plain field is its name."""
    return _INNER.join(part.replace(_ESCAPE, _ESCAPE + "0").replace(_INNER, _ESCAPE + "1") for part in path)


def path_of(column: str) -> tuple[str, ...]:
    """The path of such a column."""
    parts = column.split(_INNER)
    return tuple(part.replace(_ESCAPE + "1", _INNER).replace(_ESCAPE + "0", _ESCAPE) for part in parts)


def called(schema: pa.Schema) -> dict[str, str]:
    """What the columns of all pieces are called, in their order: those of one object stand together.

    Where two would have the same name, the one that has any value has it, or else the one that is less deep. A field
    that is null wherever it is no object with fields has none of its own.
    """
    root = _Node()
    for field in schema:
        node = root
        for part in path_of(field.name):
            node = node.inner.setdefault(part, _Node())
        node.field = field
    ordered = list(root.fields())
    names: dict[str, str] = {}
    used: dict[str, None] = {}
    for field in sorted(ordered, key=_precedence):
        name = parse.free(".".join(path_of(field.name)), used)
        used[name] = None
        names[field.name] = name
    return {field.name: names[field.name] for field in ordered}


def _precedence(field: pa.Field) -> tuple[bool, int, tuple[str, ...]]:
    path = path_of(field.name)
    return pa.types.is_null(field.type), len(path), path


class _Node:
    def __init__(self) -> None:
        self.field: pa.Field | None = None
        self.inner: dict[str, _Node] = {}

    def fields(self) -> Iterator[pa.Field]:
        """Its own and those in it."""
        if self.field is not None and not (self.inner and pa.types.is_null(self.field.type)):
            yield self.field
        for node in self.inner.values():
            yield from node.fields()


def outer(names: Sequence[str]) -> set[str]:
    """The fields that have to be read for columns that are called so."""
    found = set()
    for name in names:
        for plain in _plain(name):
            found |= {plain[:at] for at in range(len(plain)) if plain[at] == "."} | {plain}
    return found


def among(columns: Sequence[str], names: Sequence[str]) -> list[str]:
    """Those columns of a piece that may be called so in the end."""
    wanted = {plain for name in names for plain in _plain(name)}
    return [column for column in columns if ".".join(path_of(column)) in wanted]


def _plain(name: str) -> list[str]:
    """A name, and without the underscores that tell it from another."""
    bare = name.rstrip("_")
    return [name[:end] for end in range(len(bare), len(name) + 1)]


# values

Column = tuple[pa.Field, Any]


Makers = Mapping[bytes, tuple[parse.ColumnOf, parse.ColumnOf]]
"""By the mark of a column, what makes columns of what is in it: of what type they are by their values, or objects."""


def flatten(table: pa.Table, makers: Makers, objects: frozenset[str] = frozenset()) -> pa.Table:
    """The fields of nested objects as columns of their own, which bear their paths, as deep as they go.

    The values of the columns `objects` are kept as they are, each for itself.
    """
    found = [
        flat
        for field, column in zip(table.schema, table.columns, strict=True)
        for flat in _flat((field.name,), field, column, makers, objects)
    ]
    parse.check_fields(len(found))
    return parse.rows_table([field for field, _ in found], [column for _, column in found], table.num_rows)


def _flat(
    path: tuple[str, ...], field: pa.Field, column: Any, makers: Makers, objects: frozenset[str]
) -> Iterator[Column]:
    mark = parse.mark(field)
    if mark is not None:
        yield from _leaves(path, python_values(column, field), makers[mark], objects)
    elif _can_be_flat(field):
        whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        for child, array in zip(field.type, whole.flatten(), strict=True):
            yield from _flat((*path, child.name), child, pa.chunked_array([array]), makers, objects)
    else:
        yield field.with_name(of_path(path)), column


def _can_be_flat(field: pa.Field) -> bool:
    """Whether a column is one of objects with fields that have names of their own."""
    note = note_of(field)
    if not pa.types.is_struct(field.type) or (note is not None and note.is_opaque):
        return False
    names = [child.name for child in field.type]
    return bool(names) and len(set(names)) == len(names)


def _leaves(
    path: tuple[str, ...],
    values: Sequence[Any],
    makers: tuple[parse.ColumnOf, parse.ColumnOf],
    mixed: frozenset[str],
) -> Iterator[Column]:
    objects = [value if fields.can_be_flat(value) else None for value in values]
    others = [value if inner is None else None for value, inner in zip(values, objects, strict=True)]
    names = dict.fromkeys(name for value in objects if value is not None for name in value)
    if not names or any(value is not None for value in others):
        column = of_path(path)
        yield makers[column in mixed](column, others)
    parse.check_fields(len(names))
    for name in names:
        inner = [None if value is None else value.get(name) for value in objects]
        yield from _leaves((*path, name), inner, makers, mixed)


def parse_times(table: pa.Table, names: Mapping[str, str], offsets: pa.Array) -> pa.Table:
    """Some columns as times, in microseconds, or nanoseconds if one needs them.

    Parameters
    ----------
    table : pyarrow.Table
    names : mapping of str to str
        Which columns, and what they are called in errors.
    offsets : pyarrow.Array
        Those of the messages, for errors.
    """
    for index, field in enumerate(table.schema):
        if field.name in names and not pa.types.is_null(field.type):
            times = _times(names[field.name], table.column(index), field, offsets)
            table = table.set_column(index, pa.field(field.name, times.type), times)
    return table


def _times(name: str, column: pa.ChunkedArray, field: pa.Field, offsets: pa.Array) -> Any:
    if pa.types.is_timestamp(field.type):
        return _timestamps(column)
    if pa.types.is_date(field.type):
        return _timestamps(column.cast(pa.timestamp("ms")))
    if pa.types.is_string(field.type) and parse.mark(field) is None:
        for unit in (TIME, FINE_TIME):
            try:
                return _timestamps(column.cast(unit))
            except pa.ArrowInvalid:  # some have no zone, more digits, or are no times at all
                continue
    return _one_by_one(name, python_values(column, field), offsets)


def _timestamps(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Timestamps of any unit; those without a zone are UTC."""
    unit = column.type.unit
    column = column.cast(pa.timestamp(unit, "UTC") if column.type.tz is None else column.type)
    if unit == "ns":
        numbers = column.cast(pa.int64())
        micros = pc.divide(numbers, 1000)
        if pc.any(pc.not_equal(pc.multiply(micros, 1000), numbers)).as_py():
            return column.cast(FINE_TIME)
        return micros.cast(TIME)
    return column.cast(TIME)


_DIGITS = re.compile(r"[.,]\d{6}(\d+)")


def _one_by_one(name: str, values: Sequence[Any], offsets: pa.Array) -> pa.Array:
    micros: list[int | None] = []
    rests: list[int] = []
    """The nanoseconds behind the microseconds."""
    far = None
    for index, value in enumerate(values):
        rest = 0
        if value is None:
            micros.append(None)
        else:
            try:
                micros.append(to_micros(datetime.fromisoformat(value)))
            except (TypeError, ValueError, OverflowError):
                raise ArgumentError(
                    f"parse_dates: the field {name!r} of message {offsets[index]} is {value!r}, "
                    f"which is not an ISO 8601 time"
                ) from None
            digits = _DIGITS.search(value)
            behind = digits[1].rstrip("0") if digits else ""
            if len(behind) > 3:
                raise ArgumentError(
                    f"parse_dates: the field {name!r} of message {offsets[index]} is {value!r}, and columns of times "
                    f"have no digits beyond the nanoseconds: leave it as text"
                )
            rest = int(behind.ljust(3, "0"))
        rests.append(rest)
        if micros[-1] is not None and micros[-1] not in _FINE:
            far = index
    if not any(rests):
        return pa.array(micros, pa.int64()).cast(TIME)
    if far is not None:
        fine = next(index for index, rest in enumerate(rests) if rest)
        raise _too_far(name, offsets[far].as_py(), offsets[fine].as_py())
    nanos = [None if micro is None else micro * 1000 + rest for micro, rest in zip(micros, rests, strict=True)]
    return pa.array(nanos, pa.int64()).cast(FINE_TIME)


def _too_far(name: str, far: int, fine: int) -> ArgumentError:
    return ArgumentError(
        f"parse_dates: the field {name!r} of message {fine} has nanoseconds, and that of message {far} lies outside "
        f"the years 1677 to 2262, the range of times with nanoseconds: no column holds both; leave it as text"
    )


class Spread:
    """Whether the times of all pieces fit into one column: they may need nanoseconds, which reach less far."""

    def __init__(self) -> None:
        self._fine: dict[str, int] = {}
        self._far: dict[str, int] = {}
        """Of each column, the offset of a message that needs nanoseconds, and of one that is out of their reach."""

    def add(self, table: pa.Table, names: Mapping[str, str], offsets: pa.Array) -> None:
        """Take those columns of a piece into account; raise if they do not fit together with what was before."""
        for column, name in names.items():
            field = table.schema.field(column)
            if field.type not in (TIME, FINE_TIME):  # nothing but null
                continue
            numbers = table.column(column).cast(pa.int64())
            if field.type == FINE_TIME:
                first = pc.index(pc.not_equal(pc.multiply(pc.divide(numbers, 1000), 1000), numbers), True)
                self._fine.setdefault(field.name, offsets[first.as_py()].as_py())
            else:
                beyond = pc.or_(pc.less(numbers, _FINE[0]), pc.greater(numbers, _FINE[-1]))
                first = pc.index(beyond, True).as_py()
                if first >= 0:
                    self._far.setdefault(field.name, offsets[first].as_py())
            if field.name in self._fine and field.name in self._far:
                raise _too_far(name, self._far[field.name], self._fine[field.name])
