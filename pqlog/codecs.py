"""Codecs: values to bytes and back.

A codec is any object with a `name`, `encode` and `decode`. A topic keeps the codec that it was created with.
"""

from __future__ import annotations

import contextlib
import operator
import pickle
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec

from pqlog import exact
from pqlog.errors import ArgumentError, EncodeError

__all__ = ["UNDECODABLE", "Bytes", "Codec", "Json", "Msgpack", "Pickle", "codec_for", "unencodable"]

_HALF = re.compile(
    rb"(?<!\\)\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD])[c-fC-F][0-9a-fA-F]{2})"
)
"""One of the two escapes of a character beyond U+FFFF, without the other."""

UNDECODABLE = (msgspec.MsgspecError, ValueError, RecursionError)
"""Raised for JSON that is malformed, not UTF-8 (a ValueError), or nested too deeply."""


@runtime_checkable
class Codec(Protocol):
    """Converts values to bytes and back; pass your own as ``pqlog.open(codec=...)``.

    Attributes
    ----------
    name : str
        Stored in the file, so that a topic is not read with another codec.

    Examples
    --------
    >>> import pqlog
    >>> class Points:
    ...     name = "points"
    ...     def encode(self, value):
    ...         return b"%d,%d" % value
    ...     def decode(self, data):
    ...         return tuple(map(int, data.split(b",")))
    >>> log = pqlog.open(":memory:", codec=Points())
    >>> log.put((3, 4))
    1
    >>> log[1].value
    (3, 4)
    """

    name: str

    def encode(self, value: Any, /) -> bytes:
        """The bytes of `value`; any exception means that it cannot be encoded, and becomes an `EncodeError`."""
        ...

    def decode(self, data: bytes, /) -> Any:
        """The value that `encode` was given; any exception means that `data` is not from this codec."""
        ...


class _Msgspec:
    """The common part of the two msgspec codecs: a value is decoded again when it is put, and refused if it changes.

    For 10,000 dicts with six fields each, that takes 0.4 µs per dict, in addition to 0.2 for encoding it. Checking the
    types of all keys and values, which would suffice for most, takes as long.
    """

    name: str
    _keys_are_text: bool
    _decode_plain: Callable[[bytes], Any]

    def __init__(self, type: Any, encode: Callable[[Any], bytes], decode: Callable[[bytes], Any]) -> None:
        self.type = None if type is Any else type
        """The type that values are decoded into, if one was given."""
        self._encode, self.decode = encode, decode  # msgspec's own methods, with nothing in between

    def encode(self, value: Any) -> bytes:
        data = self._encode(value)
        try:
            same = self.decode(data) == value
        except Exception:  # an error that _check reports; or arrays, whose comparison is not a bool
            same = False
        if same is not True:
            self._check(value, data)
        return data

    def encode_many(self, values: Sequence[Any]) -> list[bytes]:
        """The bytes of many values; an `EncodeError` has the index of the value that caused it."""
        data: list[bytes] = []
        try:
            data.extend(map(self._encode, values))  # extend keeps what precedes an error, so its length is the index
        except Exception as error:
            raise unencodable(self, values[len(data)], error).placed(index=len(data)) from error
        try:
            same = set(map(operator.eq, map(self.decode, data), values)) <= {True}
        except Exception:
            same = False
        if not same:
            for index, value in enumerate(values):
                try:
                    self._check(value, data[index])
                except Exception as error:
                    raise unencodable(self, value, error).placed(index=index) from error
        return data

    def _check(self, value: Any, data: bytes) -> None:
        """Raise an `EncodeError` if a value does not come back as it is, save for differences that `exact` accepts."""
        try:
            back = self.decode(data)
        except Exception as error:
            if self.type is None:
                raise
            expected = getattr(self.type, "__name__", self.type)
            reason = f"it is not a valid {expected}, the type that the topic was opened with: {error}"
            raise EncodeError(reason, value_type=_type_name(value), codec=self.name) from error
        found = exact.change(value, back, self._keys_are_text)
        if found is not None and self.type is not None:
            found = exact.change(value, self._decode_plain(data), self._keys_are_text)
        if found is not None:
            where = "it" if found.path == "$" else found.path
            reason = f"{where} {found.said}; {_advice(self, value)}"
            raise EncodeError(reason, value_type=_type_name(found.value), codec=self.name)


def _into(type: Any, value: Any) -> Any:
    """Convert a decoded value to a type that msgspec does not know: pydantic models."""
    if exact.is_pydantic(type):
        return type.model_validate_json(msgspec.json.encode(value))
    raise NotImplementedError(f"decoding into {type!r} is not supported")


class Json(_Msgspec):
    """JSON by msgspec, the default: text that SQLite, Datasette and every language can read.

    Parameters
    ----------
    type : type, optional
        Decode into this msgspec Struct, dataclass, pydantic model or other type, and refuse values that do not fit,
        both when they are put and when they are read.

    Notes
    -----
    A value that would not come back as it was put is refused: NaN and the infinities, bytes, sets, dicts with keys that
    are not text. These conversions are accepted: tuples come back as lists; datetimes, UUIDs and Decimals as text;
    members of an Enum as their values; dataclasses, Structs and pydantic models as dicts. Integers of any size are
    exact.
    """

    name = "json"
    is_text, is_safe = True, True
    _keys_are_text = True
    _decode_plain = staticmethod(msgspec.json.Decoder().decode)

    def __init__(self, type: Any = Any) -> None:
        decoder = msgspec.json.Decoder(type, dec_hook=_into)
        super().__init__(type, msgspec.json.Encoder(enc_hook=exact.plain).encode, decoder.decode)
        self.decode_lines = decoder.decode_lines
        """Decodes many values, one per line, in one call."""


class Msgpack(_Msgspec):
    """MessagePack by msgspec: smaller than JSON; keeps bytes, NaN, aware datetimes, and keys of any kind.

    A value that would not come back as it was put is refused, with the same exceptions as for `Json`. Integers have at
    most 64 bits. Aware datetimes come back in UTC, naive ones as text.

    Parameters
    ----------
    type : type, optional
        As for `Json`.
    """

    name = "msgpack"
    is_text, is_safe = False, True
    _keys_are_text = False
    _decode_plain = staticmethod(msgspec.msgpack.Decoder().decode)

    def __init__(self, type: Any = Any) -> None:
        decoder = msgspec.msgpack.Decoder(type, dec_hook=_into)
        super().__init__(type, msgspec.msgpack.Encoder(enc_hook=exact.plain).encode, decoder.decode)


class Pickle:
    """Python's pickle: any object, but reading it can run any code, so it must be named at each opening."""

    name = "pickle"
    is_text, is_safe = False, False

    def encode(self, value: Any) -> bytes:
        return pickle.dumps(value, protocol=5)

    def decode(self, data: bytes) -> Any:
        return pickle.loads(data)  # noqa: S301 - the caller asked for it when opening the file


class Bytes:
    """Bytes as they are."""

    name = "bytes"
    is_text, is_safe = False, True

    def encode(self, value: Any) -> bytes:
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value)
        raise TypeError("it takes bytes only")

    def decode(self, data: bytes) -> bytes:
        return data


def why_undecodable(codec: Codec, data: bytes, error: Exception) -> str:
    """Why a codec cannot decode some bytes, from the error that it raised."""
    half = _HALF.search(data) if isinstance(codec, Json) else None
    if half is not None:  # msgspec says that the input was truncated
        return f"its JSON has {half[0].decode()}, which is half of a character: text that was cut in UTF-16"
    return f"{type_of(error).__name__}: {error}"


def unencodable(codec: Codec, value: Any, error: Exception) -> EncodeError:
    """The error to raise instead of the `error` that a codec raised for a value."""
    if isinstance(error, EncodeError):
        return error
    reason = f"{error or type(error).__name__}; {_advice(codec, value)}"
    return EncodeError(reason, value_type=_type_name(value), codec=codec.name)


def _advice(codec: Codec, value: Any) -> str:
    """Which other codec takes a value."""
    for other in (Json(), Msgpack(), Pickle()):
        if codec.name in _BY_NAME and other.name != codec.name:
            with contextlib.suppress(Exception):
                other.encode(value)
                return f'a topic with codec="{other.name}" takes it, or convert it first'
    return "convert it first"


_BUILT_IN: tuple[type[Json | Msgpack | Pickle | Bytes], ...] = (Json, Msgpack, Pickle, Bytes)
_BY_NAME = {one.name: one for one in _BUILT_IN}


def is_text(name: str) -> bool:
    """Whether the values of a topic are JSON text, one line each, by the name of its codec."""
    return name in _BY_NAME and _BY_NAME[name].is_text


def is_safe(name: str) -> bool:
    """Whether bytes mean the same to every reader, and reading them runs no code, by the name of the codec."""
    return name in _BY_NAME and _BY_NAME[name].is_safe


def safe(codec: str | Codec) -> str:
    """The name of a codec that is safe to read anybody's values with.

    Raises
    ------
    ArgumentError
        It is another one.
    """
    name = codec_for(codec).name
    if not is_safe(name):
        raise ArgumentError(f"codec must be 'json', 'msgpack' or 'bytes', not {codec!r}")
    return name


def codec_for(codec: str | Codec, type: Any = None) -> Codec:
    """The codec that `codec` names, or `codec` itself.

    Raises
    ------
    ArgumentError
        The codec does not exist, or does not decode into a `type`.
    """
    if isinstance(codec, str):
        if codec not in _BY_NAME:
            raise ArgumentError(f"no codec {codec!r}: use one of {', '.join(_BY_NAME)}, or an object of your own")
        if type is None:
            return _BY_NAME[codec]()
        made = _BY_NAME[codec]
        if not issubclass(made, _Msgspec):
            raise ArgumentError(f"type= needs the codec json or msgpack, not {codec!r}")
        try:
            return made(type)
        except (TypeError, ValueError, RecursionError) as error:
            raise ArgumentError(f"type={type!r:.200} cannot be decoded into: {error}") from error
    if not isinstance(codec, Codec) or not isinstance(codec.name, str) or not codec.name:
        raise ArgumentError(f"a codec has a name, encode and decode; {codec!r} does not")
    if codec.name in {*_BY_NAME, "arrow"} and type_of(codec) not in _BUILT_IN:
        raise ArgumentError(f"the name {codec.name!r} is taken by pqlog's own codec: give yours another name")
    if type is not None:
        raise ArgumentError(
            "type= can be combined only with the name of a codec: pass the type to your own codec itself"
        )
    return codec


def type_of(codec: object) -> Any:
    """The class of a codec (`type` is a parameter's name above)."""
    return codec.__class__


def _type_name(value: object) -> str:
    kind = value.__class__
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
