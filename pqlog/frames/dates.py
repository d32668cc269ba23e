"""The option ``parse_dates``: columns of ISO 8601 text as times."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pqlog.errors import ArgumentError
from pqlog.frames.arrow_types import TIME
from pqlog.frames.columns import mark_of
from pqlog.frames.dtypes import python_values
from pqlog.keys import is_missing
from pqlog.message import to_micros

NANOSECOND_TIME = pa.timestamp("ns", tz="UTC")
"""The type of a column with a time that has more digits than microseconds."""
Called = Callable[[int], str]
"""What errors call the message in a row of a table."""
_NANOSECOND_RANGE = range(-(2**63) // 1000 + 1, 2**63 // 1000)
"""The microseconds that 64 bits of nanoseconds can represent."""


def parse_dates(table: pa.Table, names: Mapping[str, str], called: Called) -> pa.Table:
    """Some columns as times, in microseconds, or in nanoseconds if a value has them.

    Parameters
    ----------
    table : pyarrow.Table
    names : mapping of str to str
        Which columns, and their names for errors.
    called : callable
        What errors call the message in a row of the table.
    """
    for index, field in enumerate(table.schema):
        if field.name in names and not pa.types.is_null(field.type):
            times = _times(names[field.name], table.column(index), field, called)
            table = table.set_column(index, pa.field(field.name, times.type), times)
    return table


def _times(name: str, column: pa.ChunkedArray, field: pa.Field, called: Called) -> Any:
    if pa.types.is_timestamp(field.type):
        return _timestamps(column)
    if pa.types.is_date(field.type):
        return _timestamps(column.cast(pa.timestamp("ms")))
    if pa.types.is_string(field.type) and mark_of(field) is None:
        for unit in (TIME, NANOSECOND_TIME):
            try:
                return _timestamps(column.cast(unit))
            except pa.ArrowInvalid:  # some have no zone, have more digits, or are not times
                continue
    return _parse_each(name, python_values(column, field), called)


def _timestamps(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Timestamps of any unit as those of this module; those without a zone are UTC."""
    unit = column.type.unit
    column = column.cast(pa.timestamp(unit, "UTC") if column.type.tz is None else column.type)
    if unit == "ns":
        numbers = column.cast(pa.int64())
        micros = pc.divide(numbers, 1000)
        if pc.any(pc.not_equal(pc.multiply(micros, 1000), numbers)).as_py():
            return column.cast(NANOSECOND_TIME)
        return micros.cast(TIME)
    return column.cast(TIME)


def _parse_each(name: str, values: Sequence[Any], called: Called) -> pa.Array:
    times = [None if is_missing(value) else _parse(name, value, index, called) for index, value in enumerate(values)]
    fine = next((index for index, time in enumerate(times) if time and time[1]), None)
    if fine is None:
        return pa.array([time and time[0] for time in times], pa.int64()).cast(TIME)
    for index, time in enumerate(times):
        if time is not None and time[0] not in _NANOSECOND_RANGE:
            raise _out_of_range(name, called(index), called(fine))
    return pa.array([time and time[0] * 1000 + time[1] for time in times], pa.int64()).cast(NANOSECOND_TIME)


_MORE_DIGITS = re.compile(r"[.,]\d{6}(\d+)")


def _parse(name: str, value: Any, index: int, called: Called) -> tuple[int, int]:
    """The microseconds of a time, and the nanoseconds beyond them."""
    try:
        if isinstance(value, date):
            return _of_object(value)
        micros = to_micros(datetime.fromisoformat(value))
    except (TypeError, ValueError, OverflowError):
        raise ArgumentError(
            f"parse_dates: the field {name!r} of {called(index)} is {value!r}, which is not an ISO 8601 time"
        ) from None
    match = _MORE_DIGITS.search(value)
    digits = match[1].rstrip("0") if match else ""
    if len(digits) > 3:
        raise ArgumentError(
            f"parse_dates: the field {name!r} of {called(index)} is {value!r}, which is more precise than the "
            f"nanoseconds that a column of times can hold: leave it as text"
        )
    return micros, int(digits.ljust(3, "0"))


def _of_object(value: date) -> tuple[int, int]:
    """As `_parse`; only pandas' times have nanoseconds."""
    when = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)
    return to_micros(when), getattr(value, "nanosecond", 0)


def _out_of_range(name: str, far: str, fine: str) -> ArgumentError:
    return ArgumentError(
        f"parse_dates: the field {name!r} of {fine} has nanoseconds, and that of {far} lies outside "
        f"the years 1677 to 2262, the range of times with nanoseconds: no column can hold both; leave it as text"
    )


class TimeRanges:
    """Checks that the times of all chunks fit into one column: with nanoseconds, its range is smaller."""

    def __init__(self) -> None:
        self._fine: dict[str, str] = {}
        """By column, a message with nanoseconds."""
        self._far: dict[str, str] = {}
        """By column, a message out of the range of nanoseconds."""

    def copy(self) -> TimeRanges:
        other = TimeRanges()
        other._fine, other._far = dict(self._fine), dict(self._far)
        return other

    def add(self, table: pa.Table, names: Mapping[str, str], called: Called) -> None:
        """Take some columns of a chunk into account; raise if they do not fit together with the chunks before."""
        for column, name in names.items():
            field = table.schema.field(column)
            if field.type not in (TIME, NANOSECOND_TIME):  # only nulls
                continue
            numbers = table.column(column).cast(pa.int64())
            if field.type == NANOSECOND_TIME:
                first = pc.index(pc.not_equal(pc.multiply(pc.divide(numbers, 1000), 1000), numbers), True)
                self._fine.setdefault(field.name, called(first.as_py()))
            else:
                beyond = pc.or_(pc.less(numbers, _NANOSECOND_RANGE[0]), pc.greater(numbers, _NANOSECOND_RANGE[-1]))
                first = pc.index(beyond, True).as_py()
                if first >= 0:
                    self._far.setdefault(field.name, called(first))
            if field.name in self._fine and field.name in self._far:
                raise _out_of_range(name, self._far[field.name], self._fine[field.name])
