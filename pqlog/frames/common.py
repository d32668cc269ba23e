"""Which type holds the values of several types exactly: by their values, never by the order of the types."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import pyarrow as pa

from pqlog.frames.parse import EXACT

_INT64, _UINT64 = range(-(2**63), 2**63), range(2**64)
_UNITS = ("s", "ms", "us", "ns")
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def common_type(types: Sequence[pa.DataType], bounds: tuple[int, int] | None) -> pa.DataType | None:
    """A type that holds the values of all of these exactly; None if there is none.

    Parameters
    ----------
    types : sequence of pyarrow.DataType
        All different, none of them null.
    bounds : tuple of int, optional
        The least and the greatest of the integers; of times, in nanoseconds.
    """
    if len(types) == 1:
        return types[0]
    if any(map(pa.types.is_dictionary, types)):
        return common_type(distinct(t.value_type if pa.types.is_dictionary(t) else t for t in types), bounds)
    for family, common in _FAMILIES:
        if all(map(family, types)):
            return common(types, bounds)
    nested = distinct(map(_nullable, types))
    return nested[0] if len(nested) == 1 else None


def distinct(types: Iterable[pa.DataType]) -> list[pa.DataType]:
    return list(dict.fromkeys(types))


def _nullable(of: pa.DataType) -> pa.DataType:
    """A nested type without what says nothing of the values: names of items, and what cannot be null."""
    is_ = pa.types
    if is_.is_struct(of):
        return pa.struct([pa.field(child.name, _nullable(child.type)) for child in of])
    if is_.is_large_list(of):
        return pa.large_list(_nullable(of.value_type))
    if is_.is_list(of):
        return pa.list_(_nullable(of.value_type))
    return of


def _integers(types: Sequence[pa.DataType], bounds: tuple[int, int] | None) -> pa.DataType | None:
    low, high = bounds or (0, 0)
    if low in _INT64 and high in _INT64:
        return pa.int64()
    return pa.uint64() if low in _UINT64 else None


def _numbers(types: Sequence[pa.DataType], bounds: tuple[int, int] | None) -> pa.DataType | None:
    low, high = bounds or (0, 0)
    return pa.float64() if low >= -EXACT and high <= EXACT else None


def _texts(types: Sequence[pa.DataType], bounds: tuple[int, int] | None) -> pa.DataType | None:
    return pa.string() if all(map(pa.types.is_string, types)) else pa.large_string()


def _binaries(types: Sequence[pa.DataType], bounds: tuple[int, int] | None) -> pa.DataType | None:
    return pa.large_binary()


def _instants(types: Sequence[pa.DataType], bounds: tuple[int, int] | None) -> pa.DataType | None:
    zones = {t.tz for t in types}
    if len(zones) > 1:
        return None  # each keeps its own
    unit = _finest(types, bounds)
    return None if unit is None else pa.timestamp(unit, tz=zones.pop())


def _durations(types: Sequence[pa.DataType], bounds: tuple[int, int] | None) -> pa.DataType | None:
    unit = _finest(types, bounds)
    return None if unit is None else pa.duration(unit)


def _finest(types: Sequence[pa.DataType], bounds: tuple[int, int] | None) -> str | None:
    """The finest unit of some times, if all of them have room in 64 bits of it."""
    unit = max((t.unit for t in types), key=_UNITS.index)
    per = 10**9 // PER_SECOND[unit]
    return unit if all(bound // per in _INT64 for bound in bounds or ()) else None


def _decimals(types: Sequence[pa.DataType], bounds: tuple[int, int] | None) -> pa.DataType | None:
    if len({t.scale for t in types}) > 1:
        return None  # 1.5 is not 1.50
    make = pa.decimal256 if any(t.bit_width > 128 for t in types) else pa.decimal128
    return make(max(t.precision for t in types), types[0].scale)


def _dates(types: Sequence[pa.DataType], bounds: tuple[int, int] | None) -> pa.DataType | None:
    return pa.date32()


def _times_of_day(types: Sequence[pa.DataType], bounds: tuple[int, int] | None) -> pa.DataType | None:
    return pa.time64("us")  # what is finer, Python does not have


def _is_text(t: pa.DataType) -> bool:
    return bool(pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_string_view(t))


def _is_bytes(t: pa.DataType) -> bool:
    is_ = pa.types
    return bool(is_.is_binary(t) or is_.is_large_binary(t) or is_.is_fixed_size_binary(t) or is_.is_binary_view(t))


def is_number(t: pa.DataType) -> bool:
    return bool(pa.types.is_integer(t) or pa.types.is_floating(t))


_Common = Callable[[Sequence[pa.DataType], "tuple[int, int] | None"], "pa.DataType | None"]
_FAMILIES: tuple[tuple[Callable[[pa.DataType], bool], _Common], ...] = (
    (pa.types.is_integer, _integers),
    (is_number, _numbers),
    (_is_text, _texts),
    (_is_bytes, _binaries),
    (pa.types.is_timestamp, _instants),
    (pa.types.is_duration, _durations),
    (pa.types.is_decimal, _decimals),
    (pa.types.is_date, _dates),
    (pa.types.is_time, _times_of_day),
)


def unit_of(of: pa.DataType) -> str | None:
    if pa.types.is_timestamp(of) or pa.types.is_duration(of):
        return str(of.unit)
    return None
