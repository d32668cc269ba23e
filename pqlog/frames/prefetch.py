"""Prefetching: one thread reads a topic's rows, in blocks, while another processes them."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn, TypeVar

from pqlog.codecs import is_text
from pqlog.errors import DecodeError, Error, TrimmedError
from pqlog.frames import parse, segments
from pqlog.frames.background import submit
from pqlog.frames.parse import decode_lines
from pqlog.store.sealed import SealedPart
from pqlog.store.values import Lines, PartitionRun, Row, Span
from pqlog.stream import Selection, TopicStream

READ_ROWS = 100_000
READ_BYTES = 32 << 20
"""How much is read at a time."""
FIRST_READ_ROWS = parse.SAMPLE_ROWS
FIRST_READ_BYTES = 1 << 20
"""How much is read at first, so that the first messages arrive at once; each further read is four times as large."""
MIN_THREADED_ROWS = 20_000
"""For fewer, starting a thread takes longer than it saves."""

Block = Lines | Sequence[Row]
"""What one read returns; lines only if the topic's codec is JSON. If the topic has several partitions, it says of which
they are."""
Part = Lines | SealedPart | Row | Sequence[Row]
"""What is parsed at a time: lines, sealed messages, a segment, or single messages."""
_Sizes = Iterator[tuple[int, int]]
B = TypeVar("B")
_Fetched = tuple[B, Span]


def blocks(stream: TopicStream, span: Span, key: str | None = None, *, headers: bool = False) -> Iterator[Block]:
    """The rows of a span, in order; with `headers` always as rows, since lines have no headers."""
    return _blocks(stream, span, functools.partial(_fetch, stream, key, headers))


def column_blocks(
    stream: TopicStream, span: Span, key: str | None = None, *, headers: bool = False
) -> Iterator[Block | SealedPart]:
    """The same for a reader of columns: sealed messages as they are kept, where that is in columns."""
    if key is not None or headers or stream.number is not None:
        return blocks(stream, span, key, headers=headers)
    groups = _blocks(stream, span, functools.partial(_fetch_columns, stream))
    return itertools.chain.from_iterable(groups)


def _blocks(stream: TopicStream, span: Span, fetch_with: Callable[[_Sizes, Span], _Fetched[B] | None]) -> Iterator[B]:
    sizes = zip(growing(FIRST_READ_ROWS, READ_ROWS), growing(FIRST_READ_BYTES, READ_BYTES), strict=True)
    fetch = functools.partial(fetch_with, sizes)
    fetched = fetch(span)
    if fetched is None or not fetched[1] or stream.store.count(fetched[1]) <= MIN_THREADED_ROWS:
        while fetched is not None:
            yield fetched[0]
            fetched = fetch(fetched[1])
        return
    with ThreadPoolExecutor(1, thread_name_prefix="pqlog-read") as executor:
        while fetched is not None:
            future = submit(executor, fetch, fetched[1])
            yield fetched[0]
            fetched = future.result()


def _fetch(stream: TopicStream, key: str | None, headers: bool, sizes: _Sizes, span: Span) -> _Fetched[Block] | None:
    """The first block of a span, and the rest of the span; None at its end."""
    if not span:
        return None
    max_rows, max_bytes = next(sizes)
    if key is None and not headers:
        lines = stream.lines(span, max_rows, max_bytes)
        if lines is not None:
            return _numbered_lines(stream, lines), Span(lines.stop, span.stop)
    rows = numbered(stream, stream.read(span, min(max_rows, parse.DECODED_ROWS), max_bytes, key))
    return (rows, Span(rows[-1].stop, span.stop)) if rows else None


def _fetch_columns(stream: TopicStream, sizes: _Sizes, span: Span) -> _Fetched[Sequence[Block | SealedPart]] | None:
    """The first block of a span, or several pieces: one takes less time than it takes another thread to say so."""
    parts, rows, most = list[Block | SealedPart](), 0, 0
    while span and rows <= most and (part := stream.sealed(span)) is not None:
        most = most or next(sizes)[0]
        rows += part.rows
        parts.append(part)
        span = Span(part.stop, span.stop)
    if parts:
        return parts, span
    fetched = _fetch(stream, None, False, sizes, span)
    return None if fetched is None else ([fetched[0]], fetched[1])


def numbered(stream: TopicStream, rows: Sequence[Row]) -> Sequence[Row]:
    """Rows that say of which partition they are, if their topic has several, though only one is read."""
    number = stream.number
    return rows if number is None else [row._replace(partition=number) for row in rows]


def _numbered_lines(stream: TopicStream, lines: Lines) -> Lines:
    number = stream.number
    if number is None:
        return lines
    if lines.offsets is not None:
        return lines._replace(origins=([number] * lines.rows, lines.offsets))
    return lines._replace(runs=[PartitionRun(number, lines.offset, lines.rows)])


def growing(first: int, most: int) -> Iterator[int]:
    """Sizes that begin with `first` and quadruple up to `most`."""
    size = min(first, most)
    while True:
        yield size
        size = min(4 * size, most)


def split_segments(rows: Sequence[Row]) -> Iterator[Row | Sequence[Row]]:
    """Rows in order: each segment by itself, single messages between them together."""
    start = 0
    for index, row in enumerate(rows):
        if row.rows is not None:
            if start < index:
                yield rows[start:index]
            yield row
            start = index + 1
    if start < len(rows):
        yield rows[start:]


def json_lines(rows: Sequence[Row]) -> bytes:
    """The values of single messages of a JSON topic as lines."""
    return b"\n".join([row.value for row in rows])


def read_values(selection: Selection) -> Iterator[Any]:
    """The values of a range as plain Python objects; if it is of the latest messages, those of all its versions."""
    stream, key = selection.topic, selection.key
    for block in blocks(stream, selection.span, key):
        if isinstance(block, Lines):
            yield from decode_lines(block.values)
            continue
        for part in split_segments(block):
            if isinstance(part, Row):
                keys, values = segments.unpack(part, stream.name)
                if key is None:
                    yield from values
                elif keys is not None:
                    yield from (value for of, value in zip(keys, values, strict=True) if of == key)
            elif is_text(stream.codec_name):
                yield from decode_lines(json_lines(part))
            else:
                yield from (message.value for message in stream.messages(part))


def raise_undecodable(error: Exception | None, stream: TopicStream, offsets: Sequence[int]) -> NoReturn:
    """Raise for the first of some messages that cannot be decoded."""
    if isinstance(error, Error):
        raise error
    for offset in offsets:
        list(stream.messages(stream.rows(Span.at(offset))))
    row = row_at(stream, offsets[0])
    raise DecodeError(stream.name, row.partition_offset, "its JSON is damaged", row.partition) from None


def called(stream: TopicStream, offset: int) -> str:
    """What errors call the message at an offset."""
    if not stream.has_partitions:
        return f"message {offset}"
    row = row_at(stream, offset)
    return f"message {row.partition_offset} of partition {row.partition}"


def row_at(stream: TopicStream, offset: int) -> Row:
    """The row of a message, for errors about it."""
    rows = stream.store.read(Span.at(offset), 1, READ_BYTES)
    if not rows:
        raise TrimmedError(None) if stream.is_merged else TrimmedError(offset, stream.store.span().first, stream.number)
    return numbered(stream, rows)[0]
