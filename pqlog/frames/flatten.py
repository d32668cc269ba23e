"""Flattening: the fields of nested objects as columns of their own.

While a range is read in chunks, the column of a nested field is named by its path, encoded in one string. Its final
name, ``outer.inner`` unless another field has that name, is known only when all chunks are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pqlog import fields
from pqlog.frames.columns import ColumnMakers, check_field_count, make_table, mark_of, unused_name
from pqlog.frames.dtypes import python_values
from pqlog.frames.notes import note_of

_SEPARATOR, _ESCAPE = "\x1f", "\x1e"


def column_of_path(path: Iterable[str]) -> str:
    """The column of a field of nested objects; that of a field that is not nested has its name."""
    return _SEPARATOR.join(part.replace(_ESCAPE, _ESCAPE + "0").replace(_SEPARATOR, _ESCAPE + "1") for part in path)


def path_of(column: str) -> tuple[str, ...]:
    """The path of such a column."""
    parts = column.split(_SEPARATOR)
    return tuple(part.replace(_ESCAPE + "1", _SEPARATOR).replace(_ESCAPE + "0", _ESCAPE) for part in parts)


def final_names(schema: pa.Schema) -> dict[str, str]:
    """The final names of all columns, in their order: those of one object are next to each other.

    If two columns would have the same name, one with values takes precedence over one without, then the less deeply
    nested one. A field that is null wherever it is not an object with fields gets no column of its own.
    """
    root = _Node()
    for field in schema:
        node = root
        for part in path_of(field.name):
            node = node.children.setdefault(part, _Node())
        node.field = field
    ordered = list(root.fields())
    names: dict[str, str] = {}
    used: dict[str, None] = {}
    for field in sorted(ordered, key=_precedence):
        name = unused_name(".".join(path_of(field.name)), used)
        used[name] = None
        names[field.name] = name
    return {field.name: names[field.name] for field in ordered}


def _precedence(field: pa.Field) -> tuple[bool, int, tuple[str, ...]]:
    path = path_of(field.name)
    return pa.types.is_null(field.type), len(path), path


class _Node:
    def __init__(self) -> None:
        self.field: pa.Field | None = None
        self.children: dict[str, _Node] = {}

    def fields(self) -> Iterator[pa.Field]:
        """Its own field and those below it."""
        if self.field is not None and not (self.children and pa.types.is_null(self.field.type)):
            yield self.field
        for node in self.children.values():
            yield from node.fields()


def source_fields(names: Iterable[str]) -> set[str]:
    """The fields of the messages that columns with these final names may come from."""
    found = set()
    for name in names:
        for dotted in _without_underscores(name):
            found |= {dotted[:at] for at in range(len(dotted)) if dotted[at] == "."} | {dotted}
    return found


def matching(columns: Sequence[str], names: Iterable[str]) -> list[str]:
    """Those of a chunk's columns that may get one of these final names."""
    wanted = {dotted for name in names for dotted in _without_underscores(name)}
    return [column for column in columns if ".".join(path_of(column)) in wanted]


def _without_underscores(name: str) -> list[str]:
    """A name, and what it was if underscores were appended to make it unique."""
    bare = name.rstrip("_")
    return [name[:end] for end in range(len(bare), len(name) + 1)]


Makers = Mapping[bytes, ColumnMakers]
"""By a column's mark, what makes columns of the values in it."""

_Columns = Iterator[tuple[pa.Field, Any]]


def flatten(table: pa.Table, makers: Makers, mixed: frozenset[str] = frozenset()) -> pa.Table:
    """The fields of nested objects as columns named by their paths, at any depth.

    The values of the columns `mixed` each stay as they are.
    """
    flat = [
        pair
        for field, column in zip(table.schema, table.columns, strict=True)
        for pair in _flat((field.name,), field, column, makers, mixed)
    ]
    check_field_count(len(flat))
    return make_table([field for field, _ in flat], [column for _, column in flat], table.num_rows)


def _flat(path: tuple[str, ...], field: pa.Field, column: Any, makers: Makers, mixed: frozenset[str]) -> _Columns:
    mark = mark_of(field)
    if mark is not None:
        yield from _flat_values(path, python_values(column, field), makers[mark], mixed)
    elif _is_flattened(field):
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        for child, inner in zip(field.type, array.flatten(), strict=True):
            yield from _flat((*path, child.name), child, pa.chunked_array([inner]), makers, mixed)
    else:
        yield field.with_name(column_of_path(path)), column


def _is_flattened(field: pa.Field) -> bool:
    """Whether a column is of structs whose fields have different names."""
    note = note_of(field)
    if not pa.types.is_struct(field.type) or (note is not None and note.is_opaque):
        return False
    names = [child.name for child in field.type]
    return bool(names) and len(set(names)) == len(names)


def _flat_values(path: tuple[str, ...], values: Sequence[Any], makers: ColumnMakers, mixed: frozenset[str]) -> _Columns:
    objects = [value if fields.can_be_flat(value) else None for value in values]
    others = [value if inner is None else None for value, inner in zip(values, objects, strict=True)]
    names = dict.fromkeys(name for value in objects if value is not None for name in value)
    if not names or any(value is not None for value in others):
        column = column_of_path(path)
        make = makers.mixed if column in mixed else makers.typed
        yield make(column, others)
    check_field_count(len(names))
    for name in names:
        inner = [None if value is None else value.get(name) for value in objects]
        yield from _flat_values((*path, name), inner, makers, mixed)
