"""Rows as Kafka records, and back.

A single message is a record as any Kafka client would write it: the value, the key and the headers as UTF-8. A segment
is one record without a key, whose header ``pqlog-rows`` says how many messages it has, ``pqlog-bytes`` how long it is,
and ``pqlog-key`` which field is their key. A header of a user's with one of these names is written as
``pqlog-own-rows``.

What others write is not always like that, and is read all the same: bytes of a key or a header that are not UTF-8 are
escaped, as ``\\\\xff``; of several headers of one name the last counts, as in a dict; a header without a value has an
empty one; a record without a value, which deletes its key in a compacted topic, has the value ``null`` in a JSON or
MessagePack topic, and no bytes in others.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from pqlog.errors import ArgumentError
from pqlog.store.values import LATEST, Chunk, Row, Segment, Span

ROWS = 100_000
"""A message's offset is that of its record times this, and its place in the record: so 1,200,005 is in record 12.

A segment has at most 65,536 messages, and a record offset may be as large as 2**63 / 100,000.
"""
ROWS_HEADER, BYTES_HEADER, KEY_HEADER = "pqlog-rows", "pqlog-bytes", "pqlog-key"
MOST_ROWS = 65_536
"""Messages in a segment, at most."""
_OURS_ALONE = (ROWS_HEADER, BYTES_HEADER, KEY_HEADER)
OWN = "pqlog-own-"
_OURS = re.compile(r"pqlog-(own-)*(rows|bytes|key)")
"""Names that a header of a user's can have only with one more ``own-``."""
NOTHING = {"json": b"null", "msgpack": b"\xc0"}
"""What stands for a missing value, by the name of the codec; no bytes for others.

An empty value is missing, too, where it would be no value: some programs put that in place of a tombstone.
"""

UNREADABLE = ()
"""Headers of which a name is not UTF-8: reading the message's headers raises `DecodeError`, the rest of it is there."""
NOT_UTF8 = '["the name of a header is not UTF-8"]'

Headers = Iterable[tuple[str, Any]] | None

_headers_of = msgspec.json.Decoder(dict[str, str]).decode
_text = msgspec.json.Encoder().encode


class Record(NamedTuple):
    """What a producer is given."""

    value: bytes
    key: bytes | None
    headers: list[tuple[str, bytes]] | None
    rows: int
    """How many messages it has."""


def records_of(chunk: Chunk) -> Iterator[Record]:
    """The records of a chunk, in their order."""
    if isinstance(chunk, Segment):
        headers = kafka_headers(chunk.headers)
        own = [(ROWS_HEADER, b"%d" % chunk.rows), (BYTES_HEADER, b"%d" % len(chunk.value))]
        if chunk.key is not None:
            own.append((KEY_HEADER, chunk.key.encode()))
        yield Record(chunk.value, None, [*(headers or ()), *own], chunk.rows)
        return
    keys: Iterable[str | None] = itertools.repeat(None) if chunk.keys is None else chunk.keys
    last, headers = None, None
    for value, key, text in zip(chunk.values, keys, chunk.each_headers(), strict=False):
        if text is not last:
            last, headers = text, kafka_headers(text)
        yield Record(value, None if key is None else key.encode(), headers, 1)


def kafka_headers(text: str | None) -> list[tuple[str, bytes]] | None:
    """Headers as Kafka has them, from their JSON text.

    Raises
    ------
    ArgumentError
        A name cannot be kept.
    """
    headers = _headers_of(text) if text else {}
    for name in headers:
        if "\0" in name:
            raise ArgumentError(f"the name of a header cannot have a NUL on Kafka: {name!r}")
    return [(_written(name), value.encode()) for name, value in headers.items()] or None


def _written(name: str) -> str:
    """The name of a user's header as it is on Kafka."""
    return OWN + name.removeprefix("pqlog-") if _OURS.fullmatch(name) else name


def _read(name: str) -> str:
    """The same backwards."""
    return "pqlog-" + name.removeprefix(OWN) if name.startswith(OWN) and _OURS.fullmatch(name) else name


def headers_of(message: Message) -> Any:
    """The headers of a record; `UNREADABLE` if the name of one is not UTF-8.

    To be called once for each message: confluent-kafka 2.16 crashes if it is asked again for such a name.
    """
    try:
        return message.headers()
    except (SystemError, UnicodeDecodeError):
        return UNREADABLE


def time_of(message: Message) -> int:
    """The time of a record, in microseconds; 0 if it has none."""
    kind, ms = message.timestamp()
    return 0 if kind == TIMESTAMP_NOT_AVAILABLE or ms < 0 else min(ms * 1000, LATEST)


def times_of(messages: Iterable[Any]) -> list[int]:
    """The times of records, in microseconds."""
    times = [ms * 1000 for _, ms in [message.timestamp() for message in messages]]
    if times and (min(times) < 0 or max(times) > LATEST):
        return [min(max(0, time), LATEST) for time in times]
    return times


def key_of(message: Message) -> str | None:
    """The key of a single message."""
    key = message.key()
    return None if key is None else decoded(key)


def decoded(data: bytes | str) -> str:
    """Bytes as text; those that are not UTF-8 are escaped."""
    return data if isinstance(data, str) else data.decode("utf-8", "backslashreplace")


def rows_of(message: Message, headers: Headers) -> int | None:
    """How many messages the segment with these headers has; None if the record is a single message.

    Others may write a header ``pqlog-rows``, too, so all that a segment has must fit.
    """
    rows = length = None
    for name, value in headers or ():
        if name == ROWS_HEADER:
            rows = value
        elif name == BYTES_HEADER:
            length = value
    if rows is None or length is None or message.key() is not None:
        return None
    count = _number(rows)
    return count if 0 < count <= MOST_ROWS and _number(length) == len(message.value() or b"") else None


def _number(text: bytes) -> int:
    return int(text) if text.isdigit() and len(text) <= 10 else -1


def offset_of(message: Message) -> int:
    """The offset of the first message of a record."""
    record: Any = message.offset()
    return int(record) * ROWS


def row_of(message: Message, span: Span, nothing: bytes = b"") -> Row | None:
    """A record as a row, clipped to a span; None if nothing of it lies there.

    `nothing` stands for a value that is missing (`NOTHING`).
    """
    return row_with(message, offset_of(message), headers_of(message), span, nothing)


def row_with(message: Message, offset: int, headers: Any, span: Span, nothing: bytes) -> Row | None:
    """The same of a record whose offset and headers were asked for already."""
    value: Any = message.value()
    if not headers or (rows := rows_of(message, headers)) is None:
        if not span.first <= offset < span.stop:
            return None
        return Row(offset, time_of(message), key_of(message), header_text(headers), value or nothing, None, 0, None)
    first, stop = max(offset, span.first), min(offset + rows, span.stop)
    if first >= stop:
        return None
    field = next((text for name, text in headers if name == KEY_HEADER), None)
    key = None if field is None else decoded(field)
    others = [header for header in headers if header[0] not in _OURS_ALONE]
    return Row(first, time_of(message), key, header_text(others), value or b"", stop - first, first - offset, rows)


def header_text(headers: Headers) -> str | None:
    """Headers as JSON text; None if there are none."""
    if headers is UNREADABLE:
        return NOT_UTF8
    found = dict[str, str]()
    for kafka_name, value in headers or ():
        name = _read(kafka_name)
        if name in found:
            number = next(number for number in itertools.count(1) if f"{name}#{number}" not in found)
            found[f"{name}#{number}"] = found[name]
        found[name] = "" if value is None else decoded(value)
    return _text(found).decode() if found else None
