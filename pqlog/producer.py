"""Producing: values to entries, encoded before any lock is taken, in bounded memory."""

from __future__ import annotations

import contextlib
import errno
import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

import msgspec

from pqlog import check, extras, keys
from pqlog.codecs import UNDECODABLE, Codec, Json, unencodable
from pqlog.errors import ArgumentError, CorruptLogError, DiskError, DiskFullError, EncodeError, StoreError
from pqlog.exact import is_pydantic
from pqlog.store.values import Chunk, Cursor, Ids, Segment, Singles

CHUNK = 10_000
MEMORY_BYTES = 64 << 20
"""This much of a `put_many` is held in memory, encoded; the rest waits in a temporary file for its transaction."""


def encode(codec: Codec, value: Any) -> bytes:
    """A value's bytes."""
    try:
        data = codec.encode(value)
    except Exception as error:
        check_no_frame(value)
        raise unencodable(codec, value, error) from error
    check_encoded(codec, data)
    return data


def check_no_frame(value: Any) -> None:
    """Raise for a frame where one value is expected."""
    if is_frame(value):
        raise ArgumentError(
            f"a {type(value).__name__} is many messages: put_many(frame) puts it, a message for each row; of several "
            f"frames, each with a call of its own"
        )


def check_encoded(codec: Codec, data: Any) -> None:
    """A codec of the user's may do anything."""
    if type(data) is not bytes:
        raise ArgumentError(f"the codec {codec.name!r} encodes to {type(data).__name__}, not to bytes")


def check_key(key: Any) -> str | None:
    """A key is text or None."""
    if key is None:
        return None
    if isinstance(key, str):
        return check.text("key", key)
    raise ArgumentError(f"key must be a str or None, not {key!r}: str(key) would do")


def check_id(id: Any) -> str | None:
    """An id is text that is not empty, or None."""
    return None if id is None else check.name("id", id)


def header_text(headers: Mapping[str, str] | None) -> str | None:
    """Headers as JSON text."""
    if not headers:
        return None
    if not isinstance(headers, Mapping) or not all(isinstance(text, str) for pair in headers.items() for text in pair):
        raise ArgumentError(f"headers must be a dict of str to str, not {headers!r}")
    check.texts("headers", itertools.chain(*headers.items()))
    return msgspec.json.encode(dict(headers)).decode()


def cursor_of(cursor: Any) -> Cursor:
    """A cursor, with its values as JSON text."""
    if not isinstance(cursor, tuple) or len(cursor) != 3 or not isinstance(cursor[0], str) or not cursor[0]:
        raise ArgumentError(
            f"cursor must be a tuple of a name (a non-empty str), the new value, and the value that it is expected to "
            f"have until then, which log.cursor(name) gave before the source was read; not {cursor!r}"
        )
    name = check.name("the name of a cursor", cursor[0])
    try:
        return Cursor(name, *(_JSON.encode(value).decode() for value in cursor[1:]))
    except Exception as error:
        reason = error.reason if isinstance(error, EncodeError) else error
        raise ArgumentError(f"the cursor {name!r} has a value that JSON does not hold as it is: {reason}") from error


def cursor_value(text: str | None) -> Any:
    """The value of a cursor."""
    try:
        return None if text is None else msgspec.json.decode(text)
    except UNDECODABLE as error:
        raise CorruptLogError(f"a cursor is not valid JSON: {error}. Set it again, or restore a backup") from error


_JSON = Json()


def is_frame(values: Any) -> bool:
    """Whether `values` is a table or a column of some library, rather than an iterable of values."""
    return any(hasattr(values, name) for name in _OF_TABLES) or (
        hasattr(values, "collect") and hasattr(values, "lazy")  # a LazyFrame of polars
    )


_OF_TABLES = ("__arrow_c_stream__", "__arrow_c_array__", "__dataframe__", "to_frame")


_ONE_VALUE = (str, bytes, bytearray, memoryview, Mapping)
"""What can be iterated over, and is a value all the same."""


def chunks(
    codec: Codec,
    values: Any,
    key: str | None,
    headers: Mapping[str, str] | None,
    ids: str | None = None,
    report: Callable[[int], object] = lambda messages: None,
    index: bool = True,
) -> Encoded:
    """Everything that one call puts, encoded; `report` is told of each number of messages that are.

    `index` says whether a pandas index without a name goes along.

    The caller's iterable is run to its end here, outside of any lock or transaction: it may be slow, it may raise, it
    may put or get through the same log.
    """
    check_key(key)
    if ids is not None:
        check.name("ids", ids)
    text = header_text(headers)
    put = Encoded(None if ids is None else Spool())
    try:
        if is_frame(values):
            into = getattr(codec, "type", None)
            if into is not None:
                raise ArgumentError(
                    f"a frame comes back as dicts, not as {getattr(into, '__name__', into)}, the type that the topic "
                    f"was opened with: put frame.to_dict('records'), or open the topic without a type"
                )
            for segment, its_ids in extras.frames.segments_of(values, key, text, ids, index):
                put.add(segment, its_ids)
                report(segment.rows)
            return put
        if isinstance(values, _ONE_VALUE) or is_pydantic(values) or not isinstance(values, Iterable):
            raise ArgumentError(
                f"put_many takes an iterable of values or a frame, and {type(values).__name__} is one value: "
                f"use put(value), or put_many([value])"
            )
        rest = iter(values)
        while chunk := list(itertools.islice(rest, CHUNK)):
            before = put.messages
            data = _encode_chunk(codec, chunk, before)
            texts = None if key is None else _texts(codec, chunk, key, keys.KEY, before)
            named = None if ids is None else _texts(codec, chunk, ids, keys.ID, before)
            put.add(Singles(data, texts, text), named)
            report(len(chunk))
    except BaseException:
        put.close()
        raise
    return put


def _encode_chunk(codec: Codec, chunk: Sequence[Any], before: int) -> list[bytes]:
    try:
        return _encode_many(codec, chunk)
    except EncodeError as error:
        check_no_frame(chunk[error.index])
        raise error.placed(index=before + error.index) from error.__cause__


def _encode_many(codec: Codec, chunk: Sequence[Any]) -> list[bytes]:
    encode_many: Callable[[Sequence[Any]], list[bytes]] | None = getattr(codec, "encode_many", None)
    if encode_many is not None:
        return encode_many(chunk)
    data: list[bytes] = []
    try:
        data.extend(map(codec.encode, chunk))  # extend keeps what came before an error, which tells which value it was
    except Exception as error:
        raise unencodable(codec, chunk[len(data)], error).placed(index=len(data)) from error
    if set(map(type, data)) != {bytes}:
        for one in data:
            check_encoded(codec, one)
    return data


def _texts(codec: Codec, chunk: Sequence[Any], field: str, what: str, before: int) -> list[str | None]:
    try:
        return keys.texts(keys.column(chunk, field), field, what)
    except keys.RefusedError as error:
        raise error.encode_error(codec.name, before) from None


class Encoded:
    """What one call puts: chunks, and the ids of their messages."""

    def __init__(self, ids: Spool | None) -> None:
        self.messages = 0
        self.chunks, self._ids = Spool(), ids

    @property
    def ids(self) -> Ids | None:
        """As the engine takes them."""
        return None if self._ids is None else Ids(self._ids, _thin)

    def add(self, chunk: Chunk, ids: Sequence[str | None] | None) -> None:
        """Append a chunk, and the ids of its messages if they have any."""
        self.messages += chunk.rows if isinstance(chunk, Segment) else len(chunk.values)
        self.chunks.add(chunk)
        if self._ids is not None:
            self._ids.add(ids)

    @classmethod
    def of(cls, chunk: Chunk) -> Encoded:
        """One chunk, whose messages have no ids."""
        put = cls(None)
        put.add(chunk, None)
        return put

    def close(self) -> None:
        """Give temporary files back."""
        self.chunks.close()
        if self._ids is not None:
            self._ids.close()


def _thin(segment: Segment, mask: bytes | None, start: int) -> Iterable[Segment]:
    return extras.frames.thin(segment, mask, start)


class Spool:
    """Chunks, or their ids, to be read as often as it takes: in memory, the rest in a temporary file."""

    def __init__(self) -> None:
        self._chunks: list[Any] = []
        self._bytes = 0
        self._file: IO[bytes] | None = None
        self._filed: list[tuple[int, type]] = []

    def add(self, chunk: Any) -> None:
        """Append a chunk."""
        if isinstance(chunk, Segment):
            self._bytes += len(chunk.value)
        else:
            self._bytes += sum(map(len, chunk.values if isinstance(chunk, Singles) else chunk))
        if self._bytes <= MEMORY_BYTES:
            self._chunks.append(chunk)
            return
        data = msgspec.msgpack.encode(chunk)
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="pqlog-")  # noqa: SIM115 - closed with the spool
            self._file.write(data)
            self._file.flush()  # what the disk refuses, it shall refuse here
        except OSError as error:
            raise _no_room(error) from error
        self._filed.append((len(data), type(chunk)))

    def __iter__(self) -> Iterator[Any]:
        yield from self._chunks
        if self._file is not None:
            self._file.seek(0)
            for size, kind in self._filed:
                yield _DECODE[kind](self._file.read(size))

    def close(self) -> None:
        """Give the temporary file back."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # a full disk: what was not written is not needed any more
                self._file.close()


def _no_room(error: OSError) -> StoreError:
    """The error for a temporary file that cannot be written."""
    try:
        folder = tempfile.gettempdir()
    except OSError:
        folder = "which is missing"
    said = (
        f"the folder for temporary files, {folder}, cannot take what put_many holds back beyond "
        f"{MEMORY_BYTES >> 20} MB ({error.strerror or error}); nothing was put. Free space there, set TMPDIR to "
        f"another folder, or put fewer values at a time"
    )
    return DiskFullError(said) if error.errno in (errno.ENOSPC, errno.EDQUOT) else DiskError(said)


_DECODE: dict[type, Callable[[bytes], Any]] = {
    kind: msgspec.msgpack.Decoder(kind).decode for kind in (Singles, Segment, list)
}
