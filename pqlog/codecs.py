"""Codecs: values to bytes and back.

A codec is any object with a `name`, `encode` and `decode`. A topic keeps the codec that it was made with.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import msgspec

from pqlog.errors import ArgumentError, EncodeError

__all__ = ["UNDECODABLE", "Bytes", "Codec", "Json", "Msgpack", "Pickle", "codec_for", "unencodable"]

UNDECODABLE = (msgspec.MsgspecError, ValueError, RecursionError)
"""What decoding JSON raises: it is none, its text is none (a ValueError), or it is nested too deeply."""


@runtime_checkable
class Codec(Protocol):
    """What turns values into bytes and back; give your own to ``pqlog.open(codec=...)``.

    Attributes
    ----------
    name : str
        Kept in the file, so that a topic is not read with another codec.

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
        """The bytes of `value`; raises anything if it has none, of which an `EncodeError` is made."""
        ...

    def decode(self, data: bytes, /) -> Any:
        """The value that `encode` was given; raises anything if `data` is not of this codec."""
        ...


def _plain(value: Any) -> Any:
    """The JSON or msgpack form of what msgspec does not know: NumPy scalars and arrays, pandas times."""
    module = type(value).__module__.partition(".")[0]
    if module == "numpy" and hasattr(value, "tolist"):
        plain = value.tolist()
        if type(plain) is not type(value):  # a long double gives itself
            return plain
    if module == "pandas":
        if type(value).__name__ in ("NaTType", "NAType"):
            return None
        if hasattr(value, "to_pydatetime") and getattr(value, "nanosecond", 0) == 0:
            return value.to_pydatetime()
    raise NotImplementedError(f"{type(value).__module__}.{type(value).__qualname__} has no form in it")


class _Msgspec:
    """What the two codecs of msgspec share."""

    name: str
    takes_more = 'codec="pickle" takes any Python object; or convert it first'

    def __init__(self, encode: Callable[[Any], bytes], decode: Callable[[bytes], Any]) -> None:
        # msgspec's own methods, with nothing in between: they are called once a message
        self.encode, self.decode = encode, decode


class Json(_Msgspec):
    """JSON by msgspec, the default: text that SQLite, Datasette and every language can read.

    Parameters
    ----------
    type : type, optional
        Decode into this msgspec Struct, dataclass or other type, and refuse what does not fit.

    Notes
    -----
    Tuples and sets come back as lists, datetimes, UUIDs and Decimals as text, bytes as base64 text, NaN and the
    infinities as null, keys of dicts as str. Integers of any size are exact.
    """

    name = "json"

    def __init__(self, type: Any = Any) -> None:
        decoder = msgspec.json.Decoder(type)
        super().__init__(msgspec.json.Encoder(enc_hook=_plain).encode, decoder.decode)
        self.decode_lines = decoder.decode_lines
        """Many values, a line each, in one call."""


class Msgpack(_Msgspec):
    """MessagePack by msgspec: smaller than JSON, keeps bytes, NaN and datetimes.

    Integers end at 64 bits.

    Parameters
    ----------
    type : type, optional
        As for `Json`.
    """

    name = "msgpack"
    takes_more = 'codec="json" takes integers of any size, codec="pickle" any Python object; or convert it first'

    def __init__(self, type: Any = Any) -> None:
        super().__init__(msgspec.msgpack.Encoder(enc_hook=_plain).encode, msgspec.msgpack.Decoder(type).decode)


class Pickle:
    """Python's pickle: any object, but reading it can run any code, so it must be asked for at each opening."""

    name = "pickle"
    takes_more = "convert it first"

    def encode(self, value: Any) -> bytes:
        return pickle.dumps(value, protocol=5)

    def decode(self, data: bytes) -> Any:
        return pickle.loads(data)  # noqa: S301 - the caller asked for it when opening the file


class Bytes:
    """Bytes as they are."""

    name = "bytes"
    takes_more = 'codec="json" takes plain values'

    def encode(self, value: Any) -> bytes:
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value)
        raise TypeError("it takes bytes only")

    def decode(self, data: bytes) -> bytes:
        return data


def unencodable(codec: Codec, value: Any, error: Exception) -> EncodeError:
    """What to raise in place of the `error` that a codec raised for a value."""
    if isinstance(error, EncodeError):
        return error
    advice = getattr(codec, "takes_more", "convert it first")
    reason = f"{error or type(error).__name__}; {advice}"
    return EncodeError(reason, value_type=_type_name(value), codec=codec.name)


_BY_NAME: dict[str, Callable[[], Codec]] = {"json": Json, "msgpack": Msgpack, "pickle": Pickle, "bytes": Bytes}


def codec_for(codec: str | Codec, type: Any = None) -> Codec:
    """The codec that `codec` names, or `codec` itself.

    Raises
    ------
    ArgumentError
        There is no such codec, or it does not decode into a `type`.
    """
    if isinstance(codec, str):
        if codec not in _BY_NAME:
            raise ArgumentError(f"no codec {codec!r}: take one of {', '.join(_BY_NAME)}, or an object of your own")
        if type is None:
            return _BY_NAME[codec]()
        if codec == "json":
            return Json(type)
        if codec == "msgpack":
            return Msgpack(type)
        raise ArgumentError(f"type= needs the codec json or msgpack, not {codec!r}")
    if not isinstance(codec, Codec) or not isinstance(codec.name, str) or not codec.name:
        raise ArgumentError(f"a codec has a name, encode and decode; {codec!r} does not")
    if codec.name in {*_BY_NAME, "arrow"} and type_of(codec) not in _BY_NAME.values():
        raise ArgumentError(f"the name {codec.name!r} is taken by pqlog's own codec: name yours otherwise")
    if type is not None:
        raise ArgumentError("type= goes with a codec's name; give your own codec its type itself")
    return codec


def type_of(codec: Codec) -> Any:
    """The class of a codec (`type` is a parameter's name above)."""
    return codec.__class__


def _type_name(value: object) -> str:
    kind = value.__class__
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
