"""A selection of a topic as one table, or as a stream of them: for Arrow, pandas, polars."""

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
from pqlog.frames.pieces import HEADERS, Piece, View, pieces
from pqlog.frames.reshape import TIME
from pqlog.frames.schema import Facts
from pqlog.store.api import TopicStore
from pqlog.store.values import Span
from pqlog.stream import Selection, TopicStream

BATCH_ROWS = 65_536
KEEP_BYTES = 64 << 20
"""Of a stream as much is kept while its schema is being found out, so that a short one is read once only."""

Meta = bool | tuple[str, ...]
"""Which of `META` are wanted; True for the first three, but the key only if a message has one."""
META = {"offset": "offset", "time": "_time", "key": "_key", "headers": "_headers"}
_META_TYPES = {"offset": pa.int64(), "_time": TIME, "_key": pa.string(), "_headers": HEADERS}


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of a reading: the same for all its pieces.

    Attributes
    ----------
    fields : pyarrow.Schema
        The fields of the messages, by their own names.
    names : tuple of str
        What they are called in the table: a name that is taken has an underscore behind it.
    meta : tuple of str
        Which of ``offset``, ``_time``, ``_key``, ``_headers`` come first.
    nulls : frozenset of str
        The fields that some message has no value for.
    notes : dict of str to Note
        What pandas had a column as, where the frames that were put agree on it.
    dictionaries : dict of str to pyarrow.Array
        Those of columns that have one and the same in all pieces: categories in pandas.
    is_one_put : bool
        Whether all of it is of one frame that was put.
    without_value : tuple of str
        Names that were asked for, and of which no message has a value.
    kept : Kept, optional
        Where it was not found out from the pieces: each of them has to agree with it.
    """

    fields: pa.Schema
    names: tuple[str, ...]
    meta: tuple[str, ...]
    nulls: frozenset[str]
    notes: dict[str, Note]
    dictionaries: dict[str, pa.Array]
    is_one_put: bool
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
        return pa.schema([*(pa.field(name, _META_TYPES[name]) for name in self.meta), *named])

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
        meta = [pa.nulls(rows, _META_TYPES[name]) if head[name] is None else head[name] for name in self.meta]
        columns = [*meta, *conform(piece.fields, self.fields, self.dictionaries).columns]
        return parse.rows_table(list(self.schema), columns, rows)


class Kept:
    """What a layout follows from that was kept: what is known of the topic's columns, see `pqlog.frames.learnt`."""

    def __init__(self, facts: Facts, source: TopicStream) -> None:
        self._facts, self._stream = facts, source

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
        elif layout.is_one_put and _put_of(piece) not in facts.puts:
            what = "its puts"
        else:
            return
        learnt.distrust(self._stream)
        _layouts.pop(self._stream.store, None)
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

    def __init__(self, view: View, meta: Meta, known: Facts | None = None) -> None:
        self._view, self._meta = view, meta
        self._facts = Facts() if known is None else known
        self._times = reshape.Spread()

    def add(self, piece: Piece) -> None:
        """Take a piece into account."""
        with piece.told():
            self._facts.add(piece.fields)
        self._times.add(piece.fields, self._view.timed(piece.fields.schema.names), piece.offsets)
        self._facts.has_keys |= _has_keys(piece)
        if len(self._facts.puts) < 2:
            self._facts.puts.add(_put_of(piece))

    def keep(self, selection: Selection) -> None:
        """Keep what was learnt, if it was of a whole topic."""
        learnt.keep(selection, self._view, self._facts)

    def kept(self, source: TopicStream) -> Layout:
        """The layout, where it follows not only from pieces."""
        return replace(self.layout(), kept=Kept(self._facts, source))

    def layout(self) -> Layout:
        """The layout of all pieces so far."""
        columns, without_value = self._columns()
        fields = pa.schema(list(columns.values()))
        parse.check_fields(len(fields))
        meta, used = self._meta_columns()
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
        return Layout(fields, tuple(names), meta, nulls, notes, dictionaries, is_one_put, without_value)

    def _columns(self) -> tuple[dict[str, pa.Field], tuple[str, ...]]:
        """The columns by their own names, in order; and those names that were asked for of which no value came."""
        view, found = self._view, self._facts.schema()
        names = reshape.called(found) if view.flatten else {name: name for name in found.names}
        columns = {name: found.field(column) for column, name in names.items()}
        if view.columns is not None:
            columns = {name: columns.get(name, pa.field(reshape.of_path([name]), pa.null())) for name in view.columns}
        asked = dict.fromkeys((*(view.columns or ()), *view.times))
        missing = tuple(name for name in asked if name not in columns or pa.types.is_null(columns[name].type))
        for name in set(missing).intersection(view.times, columns):
            columns[name] = columns[name].with_type(TIME)
        return columns, missing

    def _meta_columns(self) -> tuple[tuple[str, ...], dict[str, None]]:
        """Those beside the fields, and the names that the fields cannot have therefore."""
        if isinstance(self._meta, tuple):
            meta = tuple(META[name] for name in self._meta)
            return meta, dict.fromkeys(meta)
        taken = ("offset", "_time", "_key") if self._meta else ()
        return taken if self._facts.has_keys else taken[:2], dict.fromkeys(taken)


def _has_each_once(dictionary: pa.Array) -> bool:
    """Whether a dictionary is one that pandas takes as categories."""
    if dictionary.null_count or pa.types.is_float16(dictionary.type):
        return False
    if pa.types.is_floating(dictionary.type):
        dictionary = pc.add(dictionary, 0.0)  # of the two zeros, one
    return len(dictionary.unique()) == len(dictionary)


def read(selection: Selection, view: View, meta: Meta, progress: bool) -> tuple[list[Piece], Layout]:
    """All pieces of a selection, and their layout."""
    survey = Survey(view, meta)
    found = []
    for piece in pieces(selection, view, progress):
        survey.add(piece)
        found.append(piece)
    survey.keep(selection)
    layout = survey.layout()
    check_names(selection, view, layout)
    return found, layout


def check_names(selection: Selection, view: View, layout: Layout) -> None:
    """Raise for a name that was asked for and that no message has; where it may still come, warn if it looks wrong.

    That no message has a value for it does not say that: it may be null wherever it is.
    """
    if not layout.without_value:
        return
    names_of = field_names.flat_columns if view.flatten else field_names.columns
    unknown = field_names.unknown(layout.without_value, runs.values(selection), names_of, bare=view.flatten)
    if unknown is None:
        return
    if not view.lenient:
        raise ArgumentError(unknown.said)
    if unknown.near:
        check.warn(unknown.said)


def to_arrow(selection: Selection, view: View, meta: Meta, progress: bool) -> pa.Table:
    """The messages of a selection as one table."""
    found, layout = read(selection, view, meta, progress)
    return layout.table(found)


def to_polars(selection: Selection, view: View, meta: Meta, progress: bool) -> Any:
    """The messages of a selection as a polars frame."""
    return polars.from_table(to_arrow(selection, view, meta, progress))


# streams

_layouts: WeakKeyDictionary[TopicStore, OrderedDict[tuple[Any, ...], Layout]] = WeakKeyDictionary()
"""Of the latest streams of each open topic: messages never change, so a selection's layout is found out once."""


def _survey(selection: Selection, view: View, meta: Meta) -> tuple[list[Piece] | None, Layout]:
    """The layout of a selection; and its pieces, if they are few and were read for it."""
    layouts = _layouts.setdefault(selection.topic.store, OrderedDict())
    about = (*selection.identity, view, meta)
    found = layouts.get(about)
    if found is not None:
        check_names(selection, view, found)
        return None, found
    known = learnt.known(selection, view)
    survey = Survey(view, meta, known and known.facts)
    kept: list[Piece] | None = [] if known is None else None
    rest = selection if known is None else selection._replace(span=Span(known.span.stop, selection.span.stop))
    size = 0
    for piece in pieces(rest, view):
        survey.add(piece)
        if kept is not None:
            size += piece.fields.nbytes
            kept.append(piece)
            if size > KEEP_BYTES:
                kept = None
    survey.keep(selection)
    layout = layouts[about] = survey.layout() if known is None else survey.kept(selection.topic)
    check_names(selection, view, layout)
    while len(layouts) > 64:
        layouts.popitem(last=False)
    return kept, layout


def read_ahead(selection: Selection, view: View, meta: Meta, progress: bool) -> tuple[Iterable[Piece], Layout]:
    """The pieces of a selection, one after the other, and their layout, which is known before them."""
    kept, layout = _survey(selection, view, meta)
    if kept is None:
        return pieces(selection, view, progress, layout.objects), layout
    return kept, layout


def layout_of(selection: Selection, view: View, meta: Meta) -> Layout:
    """The layout of the stream of a selection."""
    return _survey(selection, view, meta)[1]


def schema(selection: Selection, view: View, meta: Meta) -> pa.Schema:
    """The schema of the stream of a selection."""
    return layout_of(selection, view, meta).schema


def to_batches(selection: Selection, view: View, meta: Meta, rows: int | None, progress: bool) -> pa.RecordBatchReader:
    """The messages of a selection as a stream of record batches."""
    if rows is not None:
        check_rows(rows)
    found, layout = read_ahead(selection, view, meta, progress)

    def batches() -> Iterator[pa.RecordBatch]:
        for part in regroup(found, rows):
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


def check_rows(rows: int) -> None:
    """A number of messages."""
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        raise ArgumentError(f"rows is a number of messages, 1 or more, not {rows!r}")
