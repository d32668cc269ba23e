"""Type promotion: the type that holds the values of several types exactly.

It depends on the values, and never on the order of the types.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from pqlog.frames.arrow_types import MAX_EXACT_INTEGER, NANOSECONDS, distinct, is_binary, is_number, is_text, normalized

_INT64, _UINT64 = range(-(2**63), 2**63), range(2**64)
_UNITS = ("s", "ms", "us", "ns")


def common_type(types: Sequence[pa.DataType], bounds: tuple[int, int] | None) -> pa.DataType | None:
    """A type that holds the values of all of these exactly; None if there is none.

    Parameters
    ----------
    types : sequence of pyarrow.DataType
        All different, none of them null.
    bounds : tuple of int, optional
        The smallest and the largest of the integers, or of the times in nanoseconds.
    """
    if len(types) == 1:
        return types[0]
    if any(map(pa.types.is_dictionary, types)):
        return common_type(distinct(t.value_type if pa.types.is_dictionary(t) else t for t in types), bounds)
    for family, common in _FAMILIES:
        if all(map(family, types)):
            return common(types, bounds)
    nested = distinct(map(normalized, types))
    return nested[0] if len(nested) == 1 else None


def _integers(types: Sequence[pa.DataType], bounds: tuple[int, int] | None) -> pa.DataType | None:
    low, high = bounds or (0, 0)
    if low in _INT64 and high in _INT64:
        return pa.int64()
    return pa.uint64() if low in _UINT64 else None


def _numbers(types: Sequence[pa.DataType], bounds: tuple[int, int] | None) -> pa.DataType | None:
    low, high = bounds or (0, 0)
    return pa.float64() if low >= -MAX_EXACT_INTEGER and high <= MAX_EXACT_INTEGER else None


def _texts(types: Sequence[pa.DataType], bounds: tuple[int, int] | None) -> pa.DataType | None:
    return pa.string() if all(map(pa.types.is_string, types)) else pa.large_string()


def _binaries(types: Sequence[pa.DataType], bounds: tuple[int, int] | None) -> pa.DataType | None:
    return pa.large_binary()


def _instants(types: Sequence[pa.DataType], bounds: tuple[int, int] | None) -> pa.DataType | None:
    zones = {t.tz for t in types}
    if len(zones) > 1:
        return None  # each value keeps its own zone
    unit = _finest(types, bounds)
    return None if unit is None else pa.timestamp(unit, tz=zones.pop())


def _durations(types: Sequence[pa.DataType], bounds: tuple[int, int] | None) -> pa.DataType | None:
    unit = _finest(types, bounds)
    return None if unit is None else pa.duration(unit)


def _finest(types: Sequence[pa.DataType], bounds: tuple[int, int] | None) -> str | None:
    """The finest of several units, if all values fit into 64 bits of it."""
    unit = max((t.unit for t in types), key=_UNITS.index)
    return unit if all(bound // NANOSECONDS[unit] in _INT64 for bound in bounds or ()) else None


def _decimals(types: Sequence[pa.DataType], bounds: tuple[int, int] | None) -> pa.DataType | None:
    if len({t.scale for t in types}) > 1:
        return None  # 1.5 is not 1.50
    make = pa.decimal256 if any(t.bit_width > 128 for t in types) else pa.decimal128
    return make(max(t.precision for t in types), types[0].scale)


def _dates(types: Sequence[pa.DataType], bounds: tuple[int, int] | None) -> pa.DataType | None:
    return pa.date32()


def _times_of_day(types: Sequence[pa.DataType], bounds: tuple[int, int] | None) -> pa.DataType | None:
    return pa.time64("us")  # Python's times of day have no more digits


_Common = Callable[[Sequence[pa.DataType], "tuple[int, int] | None"], "pa.DataType | None"]
_FAMILIES: tuple[tuple[Callable[[pa.DataType], bool], _Common], ...] = (
    (pa.types.is_integer, _integers),
    (is_number, _numbers),
    (is_text, _texts),
    (is_binary, _binaries),
    (pa.types.is_timestamp, _instants),
    (pa.types.is_duration, _durations),
    (pa.types.is_decimal, _decimals),
    (pa.types.is_date, _dates),
    (pa.types.is_time, _times_of_day),
)
