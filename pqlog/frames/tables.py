"""A stretch of a topic as one table, or as a stream of them: for Arrow, pandas, polars."""

from __future__ import annotations

import contextlib
import itertools
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import pyarrow as pa
import pyarrow.compute as pc

from pqlog import check
from pqlog import fields as field_names
from pqlog.errors import ArgumentError, CorruptLogError
from pqlog.frames import learnt, parse, polars, reshape, runs
from pqlog.frames.conform import conform
from pqlog.frames.notes import Note
from pqlog.frames.pieces import HEADERS, Piece, pieces
from pqlog.frames.projection import Projection
from pqlog.frames.reshape import TIME
from pqlog.frames.schema import Facts
from pqlog.source import Source, Stretch
from pqlog.store.api import Engine, Span

BATCH_ROWS = 65_536
KEEP_BYTES = 64 << 20
"""Of a stream as much is kept while its schema is being found out, so that a short one is read once only."""

_METADATA_TYPES = {"offset": pa.int64(), "_time": TIME, "_key": pa.string(), "_headers": HEADERS}


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of a reading: the same for all its pieces.

    Attributes
    ----------
    fields : pyarrow.Schema
        The fields of the messages, by their own names.
    names : tuple of str
        What they are called in the table: a name that is taken has an underscore behind it.
    metadata : tuple of str
        Which of ``offset``, ``_time``, ``_key``, ``_headers`` come first.
    nulls : frozenset of str
        The fields that some message has no value for.
    notes : dict of str to Note
        What pandas had a column as, where the frames that were put agree on it.
    dictionaries : dict of str to pyarrow.Array
        Those of columns that have one and the same in all pieces: categories in pandas.
    is_frame_as_put : bool
        Whether it is one frame, or a part of it, exactly as it was put.
    without_value : tuple of str
        Names that were asked for, and of which no message has a value.
    kept : Kept, optional
        Where it was not found out from the pieces: each of them has to agree with it.
    """

    fields: pa.Schema
    names: tuple[str, ...]
    metadata: tuple[str, ...]
    nulls: frozenset[str]
    notes: dict[str, Note]
    dictionaries: dict[str, pa.Array]
    is_frame_as_put: bool
    without_value: tuple[str, ...] = ()
    kept: Kept | None = field(default=None, compare=False)

    @property
    def objects(self) -> frozenset[str]:
        """The fields whose values have no common type, so that each is kept as it is."""
        return frozenset(field.name for field in self.fields if parse.mark(field) is not None)

    @property
    def schema(self) -> pa.Schema:
        """The schema of the Arrow table."""
        named = [field.with_name(name) for field, name in zip(self.fields, self.names, strict=True)]
        return pa.schema([*(pa.field(name, _METADATA_TYPES[name]) for name in self.metadata), *named])

    def table(self, part: Sequence[Piece]) -> pa.Table:
        """Pieces as one table."""
        if not part:
            return self.schema.empty_table()
        if not len(self.schema):  # of tables without columns, pyarrow forgets how long they are
            return parse.rows_table([], [], sum(len(piece.offsets) for piece in part))
        return pa.concat_tables([self._one(piece.exact(self.objects)) for piece in part])

    def _one(self, piece: Piece) -> pa.Table:
        with piece.told():
            return self._conformed(piece)

    def _conformed(self, piece: Piece) -> pa.Table:
        if self.kept is not None:
            self.kept.check(piece, self)
        rows = len(piece.offsets)
        head = {"offset": piece.offsets, "_time": piece.times, "_key": piece.keys, "_headers": piece.headers}
        metadata = [
            pa.nulls(rows, _METADATA_TYPES[name]) if head[name] is None else head[name] for name in self.metadata
        ]
        columns = [*metadata, *conform(piece.fields, self.fields, self.dictionaries).columns]
        return parse.rows_table(list(self.schema), columns, rows)


class Kept:
    """What a layout follows from that was kept: what is known of the topic's columns, see `pqlog.frames.learnt`."""

    def __init__(self, facts: Facts, source: Source) -> None:
        self._facts, self._source = facts, source

    def check(self, piece: Piece, layout: Layout) -> None:
        """Raise if a piece has something that the layout has no place for."""
        facts = self._facts
        fields = piece.fields
        names = fields.schema.names
        missing = set(layout.fields.names).difference(names)
        asked = [name for name in layout.without_value if name in names]  # the facts need not know them
        told = fields.drop_columns([name for name in asked if fields.column(name).null_count == len(fields)])
        surprise = facts.surprise(told) or next((name for name in missing if not facts.has_nulls(name)), None)
        if surprise is not None:
            what = f"the column {surprise!r}"
        elif _has_keys(piece) and not facts.has_keys:
            what = "the keys"
        elif layout.is_frame_as_put and _put_of(piece) not in facts.puts:
            what = "its puts"
        else:
            return
        learnt.distrust(self._source)
        _layouts.pop(self._source.engine, None)
        raise CorruptLogError(
            f"the schema cached in the file is wrong about {what} of topic {piece.topic!r} (at offset "
            f"{piece.offsets[0]}). The cache has been dropped; call again"
        )


def _has_keys(piece: Piece) -> bool:
    return piece.keys is not None and piece.keys.null_count < len(piece.keys)


def _put_of(piece: Piece) -> bytes | None:
    return None if piece.origin is None else piece.origin.call


class Survey:
    """Finds out the layout of a reading from its pieces, and what is `known` of those before them."""

    def __init__(self, projection: Projection, known: Facts | None = None) -> None:
        self._projection = projection
        self._facts = Facts() if known is None else known
        self._times = reshape.Spread()

    def add(self, piece: Piece) -> None:
        """Take a piece into account."""
        with piece.told():
            self._facts.add(piece.fields)
        self._times.add(piece.fields, self._projection.date_columns(piece.fields.schema.names), piece.offsets)
        self._facts.has_keys |= _has_keys(piece)
        if len(self._facts.puts) < 2:
            self._facts.puts.add(_put_of(piece))

    def keep(self, stretch: Stretch) -> None:
        """Keep what was learnt, if it was of a whole topic."""
        learnt.keep(stretch, self._projection, self._facts)

    def kept(self, source: Source) -> Layout:
        """The layout, where it follows not only from pieces."""
        return replace(self.layout(), kept=Kept(self._facts, source))

    def layout(self) -> Layout:
        """The layout of all pieces so far."""
        columns, without_value = self._columns()
        fields = pa.schema(list(columns.values()))
        parse.check_fields(len(fields))
        metadata = self._projection.metadata_columns(self._facts.has_keys)
        used = dict.fromkeys(self._projection.reserved_names)
        names = []
        for name in columns:
            name = parse.free(name, used)
            used[name] = None
            names.append(name)
        nulls = frozenset(name for name in fields.names if self._facts.has_nulls(name))
        notes = {name: note for name in fields.names if (note := self._facts.note(name)) is not None}
        coded = [field.name for field in fields if pa.types.is_dictionary(field.type)]
        dictionaries = {name: found for name in coded if (found := self._facts.dictionary(name)) is not None}
        dictionaries = {name: found for name, found in dictionaries.items() if _has_each_once(found)}
        is_one_put = len(self._facts.puts) == 1 and None not in self._facts.puts
        is_frame_as_put = is_one_put and self._projection.is_fields_only
        return Layout(fields, tuple(names), metadata, nulls, notes, dictionaries, is_frame_as_put, without_value)

    def _columns(self) -> tuple[dict[str, pa.Field], tuple[str, ...]]:
        """The columns by their own names, in order; and those names that were asked for of which no value came."""
        projection, found = self._projection, self._facts.schema()
        names = reshape.called(found) if projection.flatten else {name: name for name in found.names}
        columns = {name: found.field(column) for column, name in names.items()}
        if projection.columns is not None:
            columns = {
                name: columns.get(name, pa.field(reshape.of_path([name]), pa.null())) for name in projection.columns
            }
        asked = dict.fromkeys((*(projection.columns or ()), *projection.parse_dates))
        missing = tuple(name for name in asked if name not in columns or pa.types.is_null(columns[name].type))
        for name in set(missing).intersection(projection.parse_dates, columns):
            columns[name] = columns[name].with_type(TIME)
        return columns, missing


def _has_each_once(dictionary: pa.Array) -> bool:
    """Whether a dictionary is one that pandas takes as categories."""
    if dictionary.null_count or pa.types.is_float16(dictionary.type):
        return False
    if pa.types.is_floating(dictionary.type):
        dictionary = pc.add(dictionary, 0.0)  # of the two zeros, one
    return len(dictionary.unique()) == len(dictionary)


def read(stretch: Stretch, projection: Projection, progress: bool) -> tuple[list[Piece], Layout]:
    """All pieces of a stretch, and their layout."""
    survey = Survey(projection)
    found = []
    for piece in pieces(stretch, projection, progress):
        survey.add(piece)
        found.append(piece)
    survey.keep(stretch)
    layout = survey.layout()
    check_names(stretch, projection, layout)
    return found, layout


def check_names(stretch: Stretch, projection: Projection, layout: Layout) -> None:
    """Raise for a name that was asked for and that no message has; where it may still come, warn if it looks wrong.

    That no message has a value for it does not say that: it may be null wherever it is.
    """
    if not layout.without_value:
        return
    names_of = field_names.flat_columns if projection.flatten else field_names.columns
    unknown = field_names.unknown(layout.without_value, runs.values(stretch), names_of, bare=projection.flatten)
    if unknown is None:
        return
    if not projection.lenient:
        raise ArgumentError(unknown.said)
    if unknown.near:
        check.warn(unknown.said)


def to_arrow(stretch: Stretch, projection: Projection, progress: bool) -> pa.Table:
    """The messages of a stretch as one table."""
    found, layout = read(stretch, projection, progress)
    return layout.table(found)


def to_polars(stretch: Stretch, projection: Projection, progress: bool) -> Any:
    """The messages of a stretch as a polars frame."""
    return polars.from_table(to_arrow(stretch, projection, progress))


# streams

_layouts: WeakKeyDictionary[Engine, OrderedDict[tuple[Any, ...], Layout]] = WeakKeyDictionary()
"""Of the latest streams of each open log: messages never change, so a stretch's layout is found out once."""


def _survey(stretch: Stretch, projection: Projection) -> tuple[list[Piece] | None, Layout]:
    """The layout of a stretch; and its pieces, if they are few and were read for it."""
    layouts = _layouts.setdefault(stretch.source.engine, OrderedDict())
    about = (*stretch.identity, projection)
    found = layouts.get(about)
    if found is not None:
        check_names(stretch, projection, found)
        return None, found
    known = learnt.known(stretch, projection)
    survey = Survey(projection, known and known.facts)
    kept: list[Piece] | None = [] if known is None else None
    rest = stretch if known is None else stretch._replace(span=Span(known.span.stop, stretch.span.stop))
    size = 0
    for piece in pieces(rest, projection):
        survey.add(piece)
        if kept is not None:
            size += piece.fields.nbytes
            kept.append(piece)
            if size > KEEP_BYTES:
                kept = None
    survey.keep(stretch)
    layout = layouts[about] = survey.layout() if known is None else survey.kept(stretch.source)
    check_names(stretch, projection, layout)
    while len(layouts) > 64:
        layouts.popitem(last=False)
    return kept, layout


def read_ahead(stretch: Stretch, projection: Projection, progress: bool) -> tuple[Iterable[Piece], Layout]:
    """The pieces of a stretch, one after the other, and their layout, which is known before them."""
    kept, layout = _survey(stretch, projection)
    if kept is None:
        return pieces(stretch, projection, progress, layout.objects), layout
    return kept, layout


def layout_of(stretch: Stretch, projection: Projection) -> Layout:
    """The layout of the stream of a stretch."""
    return _survey(stretch, projection)[1]


def schema(stretch: Stretch, projection: Projection) -> pa.Schema:
    """The schema of the stream of a stretch."""
    return layout_of(stretch, projection).schema


def to_batches(
    stretch: Stretch, projection: Projection, batch_size: int | None, progress: bool
) -> pa.RecordBatchReader:
    """The messages of a stretch as a stream of record batches."""
    if batch_size is not None:
        check_size("batch_size", batch_size)
    found, layout = read_ahead(stretch, projection, progress)

    def batches() -> Iterator[pa.RecordBatch]:
        for part in regroup(found, batch_size):
            table = layout.table(part)
            # Arrow cannot make one dictionary of all: then these rows come in several batches.
            with contextlib.suppress(pa.ArrowException):
                table = table.combine_chunks()
            yield from table.to_batches()

    return pa.RecordBatchReader.from_batches(layout.schema, batches())


def regroup(found: Iterable[Piece], rows: int | None) -> Iterator[list[Piece]]:
    """Pieces in groups of so many messages; the last may have fewer. None: of few at first, of `BATCH_ROWS` later."""
    group: list[Piece] = []
    sizes = itertools.repeat(rows) if rows is not None else _growing()
    room = next(sizes)
    for piece in found:
        start, size = 0, len(piece.offsets)
        while start < size:
            part = piece if start == 0 and size <= room else piece.slice(start, min(room, size - start))
            group.append(part)
            start += len(part.offsets)
            room -= len(part.offsets)
            if not room:
                yield group
                group, room = [], next(sizes)
    if group:
        yield group


def _growing() -> Iterator[int]:
    rows = runs.FIRST_ROWS
    while True:
        yield rows
        rows = min(4 * rows, BATCH_ROWS)


def check_size(option: str, size: int) -> None:
    """Raise unless an option is a number of messages."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ArgumentError(f"{option} is a number of messages, 1 or more, not {size!r}")
