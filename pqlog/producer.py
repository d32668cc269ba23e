"""Producing: values to entries, encoded before any lock is taken, in bounded memory."""

from __future__ import annotations

import contextlib
import errno
import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple

import msgspec

from pqlog import check, extras, keys
from pqlog.codecs import UNDECODABLE, Codec, Json, unencodable
from pqlog.errors import ArgumentError, CorruptLogError, DiskError, DiskFullError, EncodeError, StoreError
from pqlog.exact import is_pydantic
from pqlog.partitioning import Partitioner
from pqlog.store.values import Chunk, Cursor, Ids, Output, Segment, Single, Singles
from pqlog.stream import TopicStream

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


def single(
    topic: TopicStream, partitioner: Partitioner, value: Any, key: Any, headers: Mapping[str, str] | None, id: Any
) -> Single:
    """A message that is sent, encoded and checked."""
    data = encode(topic.codec or topic.writable(), value)
    key = check_key(key)
    text = header_text(headers)
    return Single(topic.partitions[partitioner.choose(key)], data, key, text, check_id(id))


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
    for name in headers:
        if "\0" in name:
            raise ArgumentError(f"the name of a header cannot have a NUL, which Kafka does not take: {name!r}")
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
    partitioner: Partitioner,
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
    put = Encoded(ids is not None)
    try:
        if is_frame(values):
            into = getattr(codec, "type", None)
            if into is not None:
                raise ArgumentError(
                    f"a frame comes back as dicts, not as {getattr(into, '__name__', into)}, the type that the topic "
                    f"was opened with: put frame.to_dict('records'), or open the topic without a type"
                )
            segments = extras.frames.segments_of(values, partitioner, key, text, ids, index)
            for partition, segment, its_ids in segments:
                put.add(partition, segment, its_ids)
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
            if texts is None or partitioner.partitions == 1:
                put.add(partitioner.next_for(len(chunk)), Singles(data, texts, text), named)
            else:
                for partition, which in partitioner.split(texts).items():
                    part = Singles([data[index] for index in which], [texts[index] for index in which], text)
                    put.add(partition, part, None if named is None else [named[index] for index in which])
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
    """What one call puts: for each partition of its topic the chunks, and the ids of their messages."""

    def __init__(self, has_ids: bool = False) -> None:
        self.messages = 0
        self._has_ids = has_ids
        self._spool = Spool()
        self._chunks: dict[int, Spooled] = {}
        self._ids: dict[int, Spooled] = {}

    def add(self, partition: int, chunk: Chunk, ids: Sequence[str | None] | None = None) -> None:
        """Append a chunk for a partition, and the ids of its messages if they have any."""
        self.messages += chunk.rows if isinstance(chunk, Segment) else len(chunk.values)
        for lists, items in ((self._chunks, chunk), (self._ids, ids)):
            if items is not None:
                if partition not in lists:
                    lists[partition] = Spooled(self._spool)
                lists[partition].add(items)

    def outputs(self, topic: TopicStream) -> list[Output]:
        """As the engine takes them: at least one, which may be without chunks."""
        return [
            Output(
                topic.partitions[partition],
                self._chunks.get(partition, ()),
                Ids(self._ids.get(partition, ()), _thin, self) if self._has_ids else None,
            )
            for partition in sorted(self._chunks) or [0]
        ]

    def close(self) -> None:
        """Give the temporary file back."""
        self._spool.close()


def _thin(segment: Segment, mask: bytes | None, start: int) -> Iterable[Segment]:
    return extras.frames.thin(segment, mask, start)


class Spooled:
    """Some chunks, or lists of their ids, to be read as often as it takes."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._items: list[Any] = []

    def add(self, item: Any) -> None:
        """Append one."""
        self._items.append(self._spool.keep(item))

    def __iter__(self) -> Iterator[Any]:
        return map(self._spool.read, self._items)


class _Filed(NamedTuple):
    """Where something lies in the temporary file."""

    at: int
    size: int
    kind: type


class Spool:
    """Keeps all that one call puts: in memory, and what is too much for that in a temporary file."""

    def __init__(self) -> None:
        self._bytes = self._end = 0
        self._file: IO[bytes] | None = None

    def keep(self, item: Any) -> Any:
        """Keep a chunk, or a list of ids; what `read` takes."""
        if isinstance(item, Segment):
            self._bytes += len(item.value)
        else:
            self._bytes += sum(map(len, item.values if isinstance(item, Singles) else item))
            if isinstance(item, Singles) and item.headers is not None:
                self._bytes += sum(len(headers or "") for headers in item.each_headers())
        if self._bytes <= MEMORY_BYTES:
            return item
        data = msgspec.msgpack.encode(item)
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="pqlog-")  # noqa: SIM115 - closed with the spool
            self._file.write(data)
            self._file.flush()  # what the disk refuses, it shall refuse here
        except OSError as error:
            raise _no_room(error) from error
        self._end += len(data)
        return _Filed(self._end - len(data), len(data), type(item))

    def read(self, kept: Any) -> Any:
        """What was kept."""
        if not isinstance(kept, _Filed) or self._file is None:
            return kept
        self._file.seek(kept.at)
        return _DECODE[kept.kind](self._file.read(kept.size))

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
