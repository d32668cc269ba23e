"""Producing: values to entries, encoded before any lock is taken, in bounded memory."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

import msgspec

from pqlog import extras
from pqlog.codecs import Codec, unencodable
from pqlog.errors import ArgumentError
from pqlog.store.api import Chunk, Cursor, Segment, Singles

CHUNK = 10_000
MEMORY_BYTES = 64 << 20
"""Of a `put_many` as much is held encoded in memory; what is beyond waits in a temporary file for its transaction."""


def encode(codec: Codec, value: Any) -> bytes:
    """A value's bytes."""
    try:
        data = codec.encode(value)
    except Exception as error:
        raise unencodable(codec, value, error) from error
    check_encoded(codec, data)
    return data


def check_encoded(codec: Codec, data: Any) -> None:
    """A codec of the user's may do anything."""
    if type(data) is not bytes:
        raise ArgumentError(f"the codec {codec.name!r} encodes to {type(data).__name__}, not to bytes")


def check_key(key: Any) -> str | None:
    """A key is text or None."""
    if key is None or isinstance(key, str):
        return key
    raise ArgumentError(f"key is a str or None, not {key!r}: str(key) would do")


def check_id(id: Any) -> str | None:
    """An id is text that is not empty, or None."""
    if id is None or (isinstance(id, str) and id):
        return id
    raise ArgumentError(f"id is a str that is not empty, not {id!r}")


def header_text(headers: Mapping[str, str] | None) -> str | None:
    """Headers as JSON text."""
    if not headers:
        return None
    if not isinstance(headers, Mapping) or not all(isinstance(text, str) for pair in headers.items() for text in pair):
        raise ArgumentError(f"headers are a dict of str to str, not {headers!r}")
    return msgspec.json.encode(dict(headers)).decode()


def cursor_of(cursor: Any) -> Cursor:
    """A cursor, with its values as JSON text."""
    if not isinstance(cursor, tuple) or len(cursor) != 3 or not isinstance(cursor[0], str) or not cursor[0]:
        raise ArgumentError(
            f"cursor is a tuple of a name (a str that is not empty), the new value, and the value that it is expected "
            f"to have until then: what log.cursor(name) gave before the source was read. It is not {cursor!r}"
        )
    try:
        return Cursor(cursor[0], *(msgspec.json.encode(value).decode() for value in cursor[1:]))
    except Exception as error:
        raise ArgumentError(f"the cursor {cursor[0]!r} has a value that is not JSON: {error}") from error


def cursor_value(text: str | None) -> Any:
    """The value of a cursor."""
    return None if text is None else msgspec.json.decode(text)


def is_frame(values: Any) -> bool:
    """Whether `values` is a table of some library, rather than an iterable of values."""
    return hasattr(values, "__arrow_c_stream__") or hasattr(values, "__dataframe__")


def chunks(
    codec: Codec,
    values: Any,
    key: str | None,
    headers: Mapping[str, str] | None,
    report: Callable[[int], object] = lambda messages: None,
) -> Spool:
    """Everything that one call puts, encoded; `report` is told of each number of messages that are.

    The caller's iterable is run to its end here, outside of any lock or transaction: it may be slow, it may raise, it
    may put or get through the same log.
    """
    check_key(key)
    text = header_text(headers)
    spool = Spool()
    try:
        if is_frame(values):
            for segment in extras.load("frames").segments_of(values, key, text):
                spool.add(segment)
                report(segment.rows)
            return spool
        if isinstance(values, Mapping) or not isinstance(values, Iterable):
            raise ArgumentError(
                f"put_many takes an iterable of values or a frame, not {type(values).__name__}: use put"
            )
        rest = iter(values)
        while chunk := list(itertools.islice(rest, CHUNK)):
            spool.add(_encode_chunk(codec, chunk, key, text, spool.messages))
            report(len(chunk))
    except BaseException:
        spool.close()
        raise
    return spool


def _encode_chunk(codec: Codec, chunk: Sequence[Any], field: str | None, headers: str | None, before: int) -> Singles:
    data: list[bytes] = []
    try:
        data.extend(map(codec.encode, chunk))  # extend keeps what came before an error, which tells which value it was
    except Exception as error:
        refused = unencodable(codec, chunk[len(data)], error)
        raise refused.placed(index=before + len(data)) from error
    if set(map(type, data)) != {bytes}:
        for one in data:
            check_encoded(codec, one)
    return Singles(data, None if field is None else [_field(value, field) for value in chunk], headers)


def _field(value: Any, field: str) -> str | None:
    try:
        key = value[field] if isinstance(value, Mapping) else getattr(value, field)
    except (KeyError, AttributeError):
        return None
    return key if key is None or isinstance(key, str) else str(key)


class Spool:
    """Chunks, to be read as often as it takes: in memory, the rest in a temporary file."""

    def __init__(self) -> None:
        self.messages = 0
        self._chunks: list[Chunk] = []
        self._bytes = 0
        self._file: IO[bytes] | None = None
        self._filed: list[tuple[int, type]] = []

    def add(self, chunk: Chunk) -> None:
        """Append a chunk."""
        if isinstance(chunk, Segment):
            self.messages += chunk.rows
            self._bytes += len(chunk.value)
        else:
            self.messages += len(chunk.values)
            self._bytes += sum(map(len, chunk.values))
        if self._bytes <= MEMORY_BYTES:
            self._chunks.append(chunk)
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="pqlog-")  # noqa: SIM115 - closed with the spool
        data = msgspec.msgpack.encode(chunk)
        self._filed.append((len(data), type(chunk)))
        self._file.write(data)

    def __iter__(self) -> Iterator[Chunk]:
        yield from self._chunks
        if self._file is not None:
            self._file.seek(0)
            for size, kind in self._filed:
                yield _DECODE[kind](self._file.read(size))

    def close(self) -> None:
        """Give the temporary file back."""
        if self._file is not None:
            self._file.close()


_DECODE: dict[type, Callable[[bytes], Any]] = {
    kind: msgspec.msgpack.Decoder(kind).decode for kind in (Singles, Segment)
}
