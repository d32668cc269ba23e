"""Producing: values to entries, encoded before any lock is taken, in bounded memory."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

import msgspec

from pqlog import extras
from pqlog.codecs import Codec
from pqlog.errors import ArgumentError, EncodeError
from pqlog.store.api import Entry

CHUNK = 10_000
MEMORY_BYTES = 64 << 20
"""Of a `put_many` as much is held encoded in memory; what is beyond waits in a temporary file for its transaction."""


def encode(codec: Codec, value: Any) -> bytes:
    """A value's bytes, checked: a codec of the user's may do anything."""
    data = codec.encode(value)
    if type(data) is not bytes:
        raise ArgumentError(f"the codec {codec.name!r} encodes to {type(data).__name__}, not to bytes")
    return data


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


def is_frame(values: Any) -> bool:
    """Whether `values` is a table of some library, rather than an iterable of values."""
    return hasattr(values, "__arrow_c_stream__") or hasattr(values, "__dataframe__")


def chunks(codec: Codec, values: Any, key: str | None, headers: Mapping[str, str] | None) -> Spool:
    """Everything that one call puts, encoded.

    The caller's iterable is run to its end here, outside of any lock or transaction: it may be slow, it may raise, it
    may put or get through the same log.
    """
    check_key(key)
    text = header_text(headers)
    spool = Spool()
    try:
        if is_frame(values):
            for segment in extras.load("frames").segments(values, key, text):
                spool.add([segment])
            return spool
        if isinstance(values, Mapping) or not isinstance(values, Iterable):
            raise ArgumentError(
                f"put_many takes an iterable of values or a frame, not {type(values).__name__}: use put"
            )
        rest = iter(values)
        while chunk := list(itertools.islice(rest, CHUNK)):
            spool.add(_encode_chunk(codec, chunk, key, text, spool.messages))
    except BaseException:
        spool.close()
        raise
    return spool


def _encode_chunk(
    codec: Codec, chunk: Sequence[Any], field: str | None, headers: str | None, before: int
) -> list[Entry]:
    data: list[bytes] = []
    try:
        data.extend(map(codec.encode, chunk))  # extend keeps what came before an error, which tells which value it was
    except EncodeError as error:
        raise error.placed(index=before + len(data)) from error.__cause__
    if set(map(type, data)) != {bytes}:
        for value in chunk:
            encode(codec, value)
    if field is None:
        return [Entry(value, None, headers) for value in data]
    keys = [_field(value, field) for value in chunk]
    return [Entry(value, key, headers) for value, key in zip(data, keys, strict=True)]


def _field(value: Any, field: str) -> str | None:
    try:
        key = value[field] if isinstance(value, Mapping) else getattr(value, field)
    except (KeyError, AttributeError):
        return None
    return key if key is None or isinstance(key, str) else str(key)


class Spool:
    """Chunks of entries, to be read as often as it takes: in memory, the rest in a temporary file."""

    def __init__(self) -> None:
        self.messages = 0
        self._chunks: list[list[Entry]] = []
        self._bytes = 0
        self._file: IO[bytes] | None = None
        self._sizes: list[int] = []

    def add(self, chunk: list[Entry]) -> None:
        """Append a chunk."""
        self.messages += sum(entry.rows or 1 for entry in chunk) if chunk[0].rows is not None else len(chunk)
        self._bytes += sum([len(entry.value) for entry in chunk])
        if self._bytes <= MEMORY_BYTES:
            self._chunks.append(chunk)
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="pqlog-")  # noqa: SIM115 - closed with the spool
        data = msgspec.msgpack.encode(chunk)
        self._sizes.append(len(data))
        self._file.write(data)

    def __iter__(self) -> Iterator[list[Entry]]:
        yield from self._chunks
        if self._file is not None:
            self._file.seek(0)
            for size in self._sizes:
                yield _decode_chunk(self._file.read(size))

    def close(self) -> None:
        """Give the temporary file back."""
        if self._file is not None:
            self._file.close()


_decode_chunk = msgspec.msgpack.Decoder(list[Entry]).decode
