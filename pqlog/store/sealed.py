"""Sealed messages: a run of single messages as one piece, and each of them back, byte for byte.

The bytes of a piece are the length of its head (four bytes, little-endian), the head (JSON), and the buffers that it
names. The head has the checksum of each buffer, and its own is kept with the row: so any part can be read without the
others. What is sealed was read back, and is what was put.
"""

from __future__ import annotations

import functools
import itertools
import operator
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from pqlog.store import columns
from pqlog.store.columns import MAX_BYTES, Bounds, Buffer, Buffers, Part, pack, unpack, unpacked
from pqlog.store.values import ColumnStatistics, SegmentStatistics, Span

MAX_ROWS = 16_384
"""The most messages of a piece: one is read by decoding some of all of them."""
MAX_TEXT = 8 << 20
"""The most bytes that their values have."""
MAX_FIELDS, MAX_SHAPES = 1_000, 100
STEP = 2048
"""So many are decoded at a time: nobody else in the process runs meanwhile."""
FEW_KEYS = 256
"""Of more distinct keys, hashes are kept."""
HEAD_BYTES = 4

_encoder = msgspec.json.Encoder()
# What makes values something else than columns: they are not JSON, or not as msgspec writes it.
_NO_COLUMNS = (ValueError, TypeError, OverflowError, RecursionError, msgspec.MsgspecError)
DAMAGE = (ValueError, TypeError, LookupError, ArithmeticError, RecursionError, zlib.error, msgspec.MsgspecError)
"""What reading a damaged piece raises."""


class Field(msgspec.Struct, frozen=True, array_like=True):
    """A field of JSON objects: the values of those messages that have it."""

    name: str
    rows: int
    part: Part
    bounds: Bounds


class Head(msgspec.Struct, frozen=True, array_like=True):
    """What a piece has, and where.

    Values are in one of four forms: ``objects``, JSON objects in `fields`, of which each has one of the `shapes`, the
    names of its fields in their order, by its number in `shape`; ``values``, other JSON values, in the one of `fields`;
    ``lines``, JSON texts joined by line feeds; ``blocks``, bytes one behind the other with their `lengths`.
    """

    version: int
    rows: int
    text: int
    """How many bytes the values have as they were put."""
    times: Part
    keys: Part
    headers: Part
    form: str
    shapes: list[list[str]] = []
    shape: Part | None = None
    fields: list[Field] = []
    lengths: Part | None = None
    data: Buffer | None = None
    hashes: Buffer | None = None
    """The CRC-32 of each distinct key, ascending, if these are many."""


VERSION = 1
_decode_head = msgspec.json.Decoder(Head).decode


class Singles(NamedTuple):
    """The single messages of a run."""

    values: Sequence[bytes]
    times: Sequence[int]
    keys: Sequence[str | None]
    headers: Sequence[str | None]


def seal(singles: Singles, is_json: bool, rest: Callable[[], object] = lambda: None) -> bytes:
    """The messages of a run as a piece: what is read from it is compared with them.

    `rest` is called between small steps.

    Raises `ValueError` if they do not come back as they are.
    """
    for form in ("objects", "lines", "blocks") if is_json else ("blocks",):
        made = _made(singles, form, rest)
        try:
            if Piece(made).holds(singles):
                return made
        except DAMAGE:
            continue
    raise ValueError("these messages do not come back as they were put")


def _made(singles: Singles, form: str, rest: Callable[[], object]) -> bytes:
    rows, out = len(singles.values), Buffers(rest)
    times, keys, headers = (pack(column, out)[0] for column in (singles.times, singles.keys, singles.headers))
    hashes = _hashes(singles.keys, keys, out)
    values = _values(singles.values, out, form)
    text = sum(map(len, singles.values))
    head = _encoder.encode(Head(VERSION, rows, text, times, keys, headers, hashes=hashes, **values))
    return b"".join((len(head).to_bytes(HEAD_BYTES, "little"), head, *out.kept))


def _hashes(keys: Sequence[str | None], part: Part, out: Buffers) -> Buffer | None:
    inner = part.inner if part.kind == "nulls" else part
    if inner is None or inner.kind == "same" or (inner.kind == "choices" and inner.number <= FEW_KEYS):
        return None
    found = sorted({zlib.crc32(key.encode()) for key in keys if key is not None})
    return columns.buffer_of("I", found, out)


def _values(texts: Sequence[bytes], out: Buffers, form: str) -> dict[str, Any]:
    """Values in a form, or if they cannot be in it, in a plainer one."""
    lines = b"\n".join(texts)
    if form == "blocks" or lines.count(b"\n") >= len(texts):
        lengths = pack(list(map(len, texts)), out)[0]
        return {"form": "blocks", "lengths": lengths, "data": out.add(b"".join(texts))}
    if form == "lines":
        return {"form": "lines", "data": out.add(lines)}
    mark = out.mark()
    try:
        found = _objects_of_one_shape(texts, out) or _objects(lines, out)
        if found is not None:
            return found
    except _NO_COLUMNS:
        pass
    out.back_to(mark)
    return {"form": "lines", "data": out.add(lines)}


@functools.lru_cache(64)
def _record(names: tuple[str, ...]) -> Any:
    """A type for objects with some fields in their order: msgspec writes and reads it three times as fast as a dict."""
    fields = [(f"f{index}", Any, msgspec.field(name=name)) for index, name in enumerate(names)]
    return msgspec.defstruct("Record", fields, gc=False, forbid_unknown_fields=True)


@functools.lru_cache(64)
def _decoder(names: tuple[str, ...]) -> Any:
    return msgspec.json.Decoder(_record(names)).decode_lines


def _objects_of_one_shape(texts: Sequence[bytes], out: Buffers) -> dict[str, Any] | None:
    """Objects that all have the fields of the first; None if they have not."""
    first = msgspec.json.decode(texts[0])
    if not isinstance(first, dict) or not 0 < len(first) <= MAX_FIELDS:
        return None
    names = tuple(first)
    decode, records = _decoder(names), list[Any]()
    try:
        for start in range(0, len(texts), STEP):
            records += decode(b"\n".join(texts[start : start + STEP]))
            out.rest()
    except msgspec.ValidationError:
        return None
    fields = []
    for index, name in enumerate(names):
        column = list(map(operator.attrgetter(f"f{index}"), records))
        fields.append(Field(name, len(column), *pack(column, out)))
    return {"form": "objects", "shapes": [list(names)], "fields": fields}


def _objects(lines: bytes, out: Buffers) -> dict[str, Any] | None:
    """Objects of several shapes, or values of other kinds; None if they have too many shapes."""
    values = msgspec.json.Decoder().decode_lines(lines)
    if not all(isinstance(value, dict) and value for value in values):
        return {"form": "values", "fields": [Field("", len(values), *pack(values, out))]}
    shapes = dict.fromkeys(map(tuple, values))
    names = dict.fromkeys(itertools.chain.from_iterable(shapes))
    if len(shapes) > MAX_SHAPES or len(names) > MAX_FIELDS:
        return None
    numbers = {shape: number for number, shape in enumerate(shapes)}
    shape = pack([numbers[tuple(value)] for value in values], out)[0]
    fields = []
    for name in names:
        column = [value[name] for value in values if name in value]
        fields.append(Field(name, len(column), *pack(column, out)))
    return {"form": "objects", "shapes": list(map(list, shapes)), "shape": shape, "fields": fields}


class SealedPart(NamedTuple):
    """Sealed messages that follow each other, as they are kept: for readers of columns."""

    offset: int
    """That of the first of them."""
    rows: int
    piece: Piece
    start: int
    """The index of the first of them in the piece."""

    @property
    def stop(self) -> int:
        """The offset behind the last of them."""
        return self.offset + self.rows

    @property
    def last(self) -> int:
        """That of the last of them."""
        return self.stop - 1


def head_crc(piece: bytes) -> int:
    """The checksum of the head of a piece."""
    return zlib.crc32(piece[: HEAD_BYTES + int.from_bytes(piece[:HEAD_BYTES], "little")])


class Piece:
    """A piece as it is read: only what is asked for is decompressed.

    Parameters
    ----------
    head : bytes
        All of its bytes; or those up to the end of its head.
    read : callable, optional
        Reads bytes of it, from one position and as many, if `head` is not all.
    crc : int, optional
        What the checksum of its head is to be.
    """

    def __init__(self, head: bytes, read: Callable[[int, int], bytes] | None = None) -> None:
        end = HEAD_BYTES + int.from_bytes(head[:HEAD_BYTES], "little")
        if len(head) < end:
            raise ValueError("the head is cut off")
        self.head = _decode_head(head[HEAD_BYTES:end])
        self.crc = zlib.crc32(head[:end])
        if self.head.version != VERSION or not 0 < self.head.rows <= MAX_ROWS:
            raise ValueError("it is of another version")
        self._body = end
        self._read_at = read or (lambda at, size: head[at : at + size])

    @property
    def rows(self) -> int:
        """How many messages it has."""
        return self.head.rows

    def read(self, buffer: Buffer) -> bytes:
        """The bytes of a buffer."""
        if not 0 <= buffer.size <= MAX_BYTES or buffer.at < 0 or not 0 <= buffer.kept <= MAX_BYTES:
            raise ValueError("a buffer cannot be that large")
        return unpacked(buffer, self._read_at(self._body + buffer.at, buffer.kept))

    def _texts_of(self, part: Part) -> list[str | None]:
        values = unpack(part, self.rows, self.read)
        if msgspec.Raw in set(map(type, values)):  # texts with line feeds
            return msgspec.convert([value and msgspec.json.decode(value) for value in values], list[str | None])
        return values

    @functools.cached_property
    def times(self) -> list[int]:
        """When each was put."""
        return unpack(self.head.times, self.rows, self.read)

    @functools.cached_property
    def keys(self) -> list[str | None]:
        """The key of each."""
        return self._texts_of(self.head.keys)

    @functools.cached_property
    def headers(self) -> list[str | None]:
        """The headers of each."""
        return self._texts_of(self.head.headers)

    @property
    def has_keys(self) -> bool:
        """Whether any has a key."""
        return self.head.keys.kind != "same" or self.head.keys.value is not None

    @functools.cached_property
    def lines(self) -> bytes | None:
        """The values as lines, if they are JSON and have no line feeds."""
        head = self.head
        if head.form == "blocks":
            return None
        if head.form == "lines":
            lines = self._data()
            if lines.count(b"\n") != self.rows - 1:
                raise ValueError("it has not as many values as messages")
            return lines
        records = unpack(head.fields[0].part, self.rows, self.read) if head.form == "values" else self._records()
        return _encoder.encode_lines(records)[:-1]

    def _records(self) -> list[Any]:
        head = self.head
        columns_of = [unpack(field.part, field.rows, self.read) for field in head.fields]
        if head.shape is None:
            if any(field.rows != self.rows for field in head.fields):
                raise ValueError("a field has not as many values as there are messages")
            return list(map(_record(tuple(head.shapes[0])), *columns_of))
        sources = {field.name: iter(column) for field, column in zip(head.fields, columns_of, strict=True)}
        makers = [(_record(tuple(shape)), [sources[name] for name in shape]) for shape in head.shapes]
        numbers = unpack(head.shape, self.rows, self.read)
        try:
            return [make(*map(next, some)) for make, some in map(makers.__getitem__, numbers)]
        except StopIteration:
            raise ValueError("a field has too few values") from None

    @functools.cached_property
    def values(self) -> list[bytes]:
        """The value of each, as it was put."""
        if self.lines is not None:
            return self.lines.split(b"\n")
        if self.head.lengths is None:
            raise ValueError("the lengths are missing")
        data, lengths = self._data(), unpack(self.head.lengths, self.rows, self.read)
        if min(lengths) < 0 or sum(lengths) != len(data):
            raise ValueError("the lengths do not fit")
        return [data[stop - length : stop] for length, stop in zip(lengths, itertools.accumulate(lengths), strict=True)]

    def _data(self) -> bytes:
        if self.head.data is None:
            raise ValueError("the values are missing")
        return self.read(self.head.data)

    def holds(self, singles: Singles) -> bool:
        """Whether it has exactly these messages."""
        mine: list[list[Any]] = [self.values, self.times, self.keys, self.headers]
        return all(one == list(other) for one, other in zip(mine, singles, strict=True))

    def may_have_key(self) -> Callable[[str], bool]:
        """A test for keys: False only of one that no message has."""
        if self.head.hashes is not None:
            hashes = array("I")
            hashes.frombytes(self.read(self.head.hashes))

            def is_hashed(key: str) -> bool:
                crc = zlib.crc32(key.encode(errors="surrogatepass"))
                at = bisect_left(hashes, crc)
                return at < len(hashes) and hashes[at] == crc

            return is_hashed
        part = self.head.keys.inner if self.head.keys.kind == "nulls" else self.head.keys
        if part is None:
            raise ValueError("a part is missing")
        known = [part.value]
        if part.kind == "choices" and part.inner is not None:
            known = unpack(part.inner, part.number, self.read)
        elif part.kind != "same":
            return lambda key: True
        return frozenset(known).__contains__

    def statistics(self, offset: int, times: tuple[int, int]) -> SegmentStatistics:
        """What is known of its messages, the first of which has that offset."""
        head, found = self.head, None
        if head.form == "objects":
            found = {
                field.name: ColumnStatistics(
                    field.bounds.least, field.bounds.most, field.bounds.nulls, head.rows - field.rows
                )
                for field in head.fields
            }
        return SegmentStatistics(Span(offset, offset + head.rows), times, found, self.may_have_key())
