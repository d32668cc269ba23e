"""Runs of rows of a topic, read by one thread while another makes something of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import msgspec

from pqlog.codecs import is_text
from pqlog.errors import DecodeError, Error
from pqlog.frames import parse, segments
from pqlog.frames.ahead import submit
from pqlog.store.values import Lines, Row, Span
from pqlog.stream import Selection, TopicStream, stop_of

CHUNK_ROWS = 100_000
CHUNK_BYTES = 32 << 20
FIRST_ROWS = parse.LEARN_ROWS
FIRST_BYTES = 1 << 20
"""How much is read at first; four times as much with each further read, so that the first messages come at once."""
SMALL = 20_000
"""A span of so few messages is not worth a thread."""

Run = Lines | Sequence[Row]
"""Lines only of a JSON topic."""

decode_lines = msgspec.json.Decoder().decode_lines


def runs(source: TopicStream, span: Span, key: str | None = None, *, headers: bool = False) -> Iterator[Run]:
    """What a span holds, in order; with `headers` as rows, since lines have none."""
    growing = _growing()

    def fetch(span: Span) -> tuple[Run, Span] | None:
        """The next run of a span, and what is left behind it; None at its end."""
        if not len(span):
            return None
        most, max_bytes = next(growing)
        if key is None and not headers:
            lines = source.lines(span, most, max_bytes)
            if lines is not None:
                return lines, Span(lines.offset + lines.rows, span.stop)
        rows = source.store.read(span, min(most, parse.SLICE_ROWS), max_bytes, key)
        return (rows, Span(stop_of(rows[-1]), span.stop)) if rows else None

    if len(span) <= SMALL:
        found = fetch(span)
        while found is not None:
            yield found[0]
            found = fetch(found[1])
        return
    with ThreadPoolExecutor(1, thread_name_prefix="pqlog-read") as ahead:
        waiting = submit(ahead, fetch, span)
        while (found := waiting.result()) is not None:
            waiting = submit(ahead, fetch, found[1])
            yield found[0]


def _growing() -> Iterator[tuple[int, int]]:
    """How many messages and bytes are read at a time."""
    rows, size = min(FIRST_ROWS, CHUNK_ROWS), FIRST_BYTES
    while True:
        yield rows, size
        rows, size = min(4 * rows, CHUNK_ROWS), min(4 * size, CHUNK_BYTES)


def parts(rows: Sequence[Row]) -> Iterator[Row | Sequence[Row]]:
    """Rows as they are read: a segment by itself, single messages together."""
    start = 0
    for index, row in enumerate(rows):
        if row.rows is not None:
            if start < index:
                yield rows[start:index]
            yield row
            start = index + 1
    if start < len(rows):
        yield rows[start:]


def joined(rows: Sequence[Row]) -> bytes:
    """The values of single messages of a JSON topic as lines."""
    return b"\n".join([row.value for row in rows])


def values(selection: Selection) -> Iterator[Any]:
    """The values of the messages of a selection, all versions of the latest included, as plain objects."""
    source, key = selection.topic, selection.key
    for run in runs(source, selection.span, key):
        if isinstance(run, Lines):
            yield from decode_lines(run.values)
            continue
        for part in parts(run):
            if isinstance(part, Row):
                keys, found = segments.unpack(part, source.name)
                if key is None:
                    yield from found
                elif keys is not None:
                    yield from (value for of, value in zip(keys, found, strict=True) if of == key)
            elif is_text(source.codec_name):
                yield from decode_lines(joined(part))
            else:
                yield from (message.value for message in source.messages(part))


def blame(error: Exception | None, source: TopicStream, offsets: Sequence[int]) -> NoReturn:
    """Raise for the message among these that cannot be decoded."""
    if isinstance(error, Error):
        raise error
    for offset in offsets:
        list(source.messages(source.rows(Span(offset, offset + 1))))
    raise DecodeError(source.name, offsets[0], "its JSON is damaged") from None
