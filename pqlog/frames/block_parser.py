"""The parser that makes chunks of the blocks of rows that were read."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from pqlog.codecs import UNDECODABLE, is_text
from pqlog.errors import DamagedError, DecodeError
from pqlog.fields import METADATA_COLUMNS
from pqlog.frames import pieces, places, segments
from pqlog.frames.arrow_types import HEADERS, TIME
from pqlog.frames.chunks import Chunk, Reread
from pqlog.frames.columns import PYTHON_COLUMNS, make_table, table_of
from pqlog.frames.parse import JsonParser
from pqlog.frames.prefetch import Block, Part, json_lines, raise_undecodable, split_segments
from pqlog.store.sealed import DAMAGE, SealedPart
from pqlog.store.values import Lines, Row
from pqlog.stream import TopicStream, headers_of

ALL_METADATA = frozenset(METADATA_COLUMNS.values())
Choose = Callable[[Part], Any]
"""For each message of a part whether it is taken: a NumPy array of booleans."""


class BlockParser:
    """Parses the blocks of a topic, in order.

    Parameters
    ----------
    stream : TopicStream
    fields : frozenset of str, optional
        The only fields to read.
    mixed : frozenset of str
        Fields whose values must each stay as they are.
    key : str, optional
        Take only messages with this key. (Single messages were already selected when the block was read.)
    choose : callable, optional
        Take only the messages of a part that it chooses: it is given one part after the other.
    headers : bool
        Whether chunks have the messages' headers.
    metadata : collection of str
        The metadata columns that matter: of sealed messages, others may be null.
    reread : callable, optional
        Passed to each chunk.
    """

    def __init__(
        self,
        stream: TopicStream,
        fields: frozenset[str] | None,
        mixed: frozenset[str],
        *,
        key: str | None = None,
        choose: Choose | None = None,
        headers: bool = False,
        metadata: Collection[str] = ALL_METADATA,
        reread: Reread | None = None,
    ) -> None:
        self._stream, self._topic = stream, stream.name
        self._fields, self._mixed = fields, mixed
        self._key, self._choose, self._has_headers, self._reread = key, choose, headers, reread
        self._json = JsonParser(fields, mixed)
        self._metadata = metadata

    def parse(self, block: Block | SealedPart) -> Iterator[Chunk]:
        """The messages of a block as columns."""
        if isinstance(block, Lines):
            yield from self._parse_lines(block)
            return
        if isinstance(block, SealedPart):
            yield from self._parse_sealed(block)
            return
        for part in split_segments(block):
            yield from self._parse_segment(part) if isinstance(part, Row) else self._parse_singles(part)

    def _parse_lines(self, lines: Lines) -> Iterator[Chunk]:
        offsets = pa.array(np.asarray(lines.all_offsets, np.int64))
        chunk = self._without_fields(offsets, _times_of(lines), _keys_of(lines), places.origins(lines))
        mask = None if self._choose is None else self._choose(lines)
        if mask is None or mask.all():
            yield from self._with_fields(chunk, lines.values)
        elif mask.any():
            texts = lines.values.split(b"\n")
            if len(texts) != lines.rows:
                raise_undecodable(None, self._stream, offsets.to_pylist())
            selected = b"\n".join(itertools.compress(texts, mask))
            yield from self._with_fields(chunk.filter(pa.array(mask)), selected)

    def _parse_sealed(self, part: SealedPart) -> Iterator[Chunk]:
        mask = None if self._choose is None else self._choose(part)
        if mask is not None and not mask.any():
            return
        chunk = self._chunk_of_sealed(part)
        yield chunk if mask is None or mask.all() else chunk.filter(pa.array(mask))

    def _chunk_of_sealed(self, part: SealedPart) -> Chunk:
        try:
            offsets = pa.array(np.arange(part.offset, part.stop))
            times = pieces.times(part).view(TIME) if "_time" in self._metadata else pa.nulls(part.rows, TIME)
            keys = pieces.keys(part) if "_key" in self._metadata else None
            chunk = self._without_fields(offsets, times, keys, (None, None))
            return chunk._replace(fields=pieces.table_of(part, self._fields, self._mixed))
        except (*DAMAGE, pa.ArrowException) as error:
            raise DamagedError(self._topic, part.offset, part.last, self._stream.number) from error

    def _parse_singles(self, rows: Sequence[Row]) -> Iterator[Chunk]:
        if self._choose is not None:
            rows = list(itertools.compress(rows, self._choose(rows)))
        if not rows:
            return
        offsets = pa.array([row.offset for row in rows], pa.int64())
        times = pa.array([row.time for row in rows], pa.int64()).cast(TIME)
        keys = None
        if any(row.key is not None for row in rows):
            keys = pa.array([row.key for row in rows], pa.string())
        headers = self._headers_of(rows)
        chunk = self._without_fields(offsets, times, keys, places.shown(places.runs_of(rows)), headers)
        if is_text(self._stream.codec_name):
            yield from self._with_fields(chunk, json_lines(rows))
        else:
            values = [message.value for message in self._stream.messages(rows)]
            yield chunk._replace(fields=table_of(values, self._fields, self._mixed, PYTHON_COLUMNS))

    def _without_fields(
        self,
        offsets: pa.Array,
        times: pa.Array,
        keys: pa.Array | None,
        origins: tuple[pa.Array, pa.Array] | tuple[None, None],
        headers: pa.Array | None = None,
    ) -> Chunk:
        """A chunk of single messages, whose fields are to be parsed."""
        fields = make_table([], [], len(offsets))
        partitions, partition_offsets = origins
        return Chunk(
            offsets,
            times,
            keys,
            fields,
            self._topic,
            headers=headers,
            reread=self._reread,
            partitions=partitions,
            partition_offsets=partition_offsets,
        )

    def _with_fields(self, chunk: Chunk, lines: bytes) -> Iterator[Chunk]:
        """A chunk with the fields of its JSON lines, as several chunks if the parser returns several tables."""
        rows = len(chunk.offsets)
        if self._fields is not None and not self._fields:
            yield chunk._replace(fields=make_table([], [], rows))
            return
        start = 0
        try:
            for table in self._json.parse(lines, rows):
                yield chunk.slice(start, table.num_rows)._replace(fields=table)
                start += table.num_rows
        except UNDECODABLE as error:
            raise_undecodable(error, self._stream, chunk.offsets.to_pylist()[start:])

    def _headers_of(self, rows: Sequence[Row]) -> pa.Array | None:
        """The headers of rows; None if they were not asked for."""
        if not self._has_headers:
            return None
        positions: dict[str | None, int] = {None: 0}  # most rows have the same headers, and each is decoded once
        maps: list[list[tuple[str, str]] | None] = [None]
        for row in rows:
            if row.headers not in positions:
                positions[row.headers] = len(maps)
                try:
                    maps.append(list(headers_of(row).items()))
                except UNDECODABLE as error:
                    reason = f"its headers are damaged: {error}"
                    raise DecodeError(self._topic, row.partition_offset, reason, row.partition) from error
        return pa.array(maps, HEADERS).take(pa.array([positions[row.headers] for row in rows]))

    def _parse_segment(self, row: Row) -> Iterator[Chunk]:
        mask = None if self._choose is None else self._choose(row)
        if mask is not None and not mask.any():
            return
        with segments.row_errors(self._topic, row):
            chunk = self._chunk_of(row)
        if self._key is not None:
            if chunk.keys is None:
                return
            of_key = pc.equal(chunk.keys, self._key).fill_null(False)
            mask = of_key if mask is None else pc.and_(of_key, pa.array(mask))
        if mask is not None:
            chunk = chunk.filter(mask if isinstance(mask, pa.Array) else pa.array(mask))
        if len(chunk.offsets):
            yield chunk

    def _chunk_of(self, row: Row) -> Chunk:
        """A segment as a chunk."""
        table = segments.read(row, self._topic, self._fields)
        texts = segments.key_texts(table, row)
        fields = segments.visible(table)
        if fields.num_columns:  # pyarrow would forget how many rows a table without columns has
            fields = fields.replace_schema_metadata(None)
        if self._fields is not None:
            fields = fields.select([name for name in fields.schema.names if name in self._fields])
        headers = self._headers_of([row])
        if headers is not None:
            headers = headers.take(pa.nulls(table.num_rows, pa.int64()).fill_null(0))
        partitions, partition_offsets = places.shown(places.runs_of([row]))
        return Chunk(
            pa.array(np.arange(row.offset, row.offset + table.num_rows)),
            pa.repeat(pa.scalar(row.time, TIME), table.num_rows),
            None if texts is None else texts.combine_chunks(),
            fields,
            self._topic,
            table,
            segments.origin(table, row),
            headers,
            partitions=partitions,
            partition_offsets=partition_offsets,
        )


def _keys_of(lines: Lines) -> pa.Array | None:
    if lines.keys is None or isinstance(lines.keys, list):
        return None if lines.keys is None else pa.array(lines.keys, pa.string())
    return pa.array(msgspec.json.Decoder(str | None).decode_lines(lines.keys), pa.string())


def _times_of(lines: Lines) -> pa.Array:
    if not isinstance(lines.times, bytes):
        return pa.array(np.asarray(lines.times, np.int64)).cast(TIME)
    if b"\n" not in lines.times:
        return pa.repeat(pa.scalar(int(lines.times), TIME), lines.rows)
    read = pa.csv.ReadOptions(column_names=["t"], use_threads=False)
    return pa.csv.read_csv(io.BytesIO(lines.times), read_options=read).column("t").combine_chunks().cast(TIME)
