"""Arrow's types: their families, the size of their values, and those that are refused."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
"""How many nanoseconds a unit of time has."""
TIME = pa.timestamp("us", tz="UTC")
HEADERS = pa.map_(pa.string(), pa.string())
MAX_EXACT_INTEGER = 2**53
"""Up to this, a double represents every integer exactly."""


def unit_of(of: pa.DataType) -> str | None:
    """The unit of timestamps and durations; None for other types."""
    if pa.types.is_timestamp(of) or pa.types.is_duration(of):
        return str(of.unit)
    return None


def is_number(of: pa.DataType) -> bool:
    return bool(pa.types.is_integer(of) or pa.types.is_floating(of))


def is_text(of: pa.DataType) -> bool:
    return bool(pa.types.is_string(of) or pa.types.is_large_string(of) or pa.types.is_string_view(of))


def is_binary(of: pa.DataType) -> bool:
    """Whether values of a type are bytes, which need not be text."""
    is_ = pa.types
    return bool(is_.is_binary(of) or is_.is_large_binary(of) or is_.is_binary_view(of) or is_.is_fixed_size_binary(of))


def is_variable_width(of: pa.DataType) -> bool:
    """Whether values of a type are text or bytes of any length."""
    return is_text(of) or (is_binary(of) and not pa.types.is_fixed_size_binary(of))


def is_view(of: pa.DataType) -> bool:
    return bool(pa.types.is_string_view(of) or pa.types.is_binary_view(of))


def is_plain(of: pa.DataType) -> bool:
    """Whether a type is neither nested nor rare, so that a dictionary can have it as its value type."""
    if isinstance(of, pa.BaseExtensionType):
        return False
    if is_number(of) or is_text(of) or is_binary(of) or unit_of(of) is not None:
        return True
    is_ = pa.types
    is_decimal = is_.is_decimal128(of) or is_.is_decimal256(of)
    return bool(is_decimal or is_.is_date(of) or is_.is_time(of) or is_.is_boolean(of) or is_.is_null(of))


def distinct(types: Iterable[pa.DataType]) -> list[pa.DataType]:
    """Some types without duplicates, in order."""
    return list(dict.fromkeys(types))


def normalized(of: pa.DataType) -> pa.DataType:
    """A nested type without the details that do not concern its values: names of list items, and non-nullability."""
    is_ = pa.types
    if is_.is_struct(of):
        return pa.struct([pa.field(child.name, normalized(child.type)) for child in of])
    if is_.is_large_list(of):
        return pa.large_list(normalized(of.value_type))
    if is_.is_list(of):
        return pa.list_(normalized(of.value_type))
    return of


def without_views(of: pa.DataType) -> pa.DataType:
    """A type with plain text and bytes instead of views."""
    is_ = pa.types
    if is_.is_string_view(of) or is_.is_binary_view(of):
        return pa.large_string() if is_.is_string_view(of) else pa.large_binary()
    if is_.is_struct(of):
        return pa.struct([field.with_type(without_views(field.type)) for field in of])
    if is_.is_map(of):
        return of
    if is_.is_fixed_size_list(of):
        return pa.list_(of.value_field.with_type(without_views(of.value_type)), of.list_size)
    if is_.is_list(of) or is_.is_large_list(of):
        make = pa.list_ if is_.is_list(of) else pa.large_list
        return make(of.value_field.with_type(without_views(of.value_type)))
    return of


def check_types(schema: pa.Schema) -> None:
    """Raise for types that Arrow's functions support only in part."""
    for field in schema:
        unsupported = _unsupported(field.type)
        if unsupported is not None:
            raise ValueError(
                f"column {field.name!r} ({field.type}): Arrow supports the type {unsupported} only in part"
            )


def _unsupported(of: pa.DataType) -> str | None:
    """The first type within a type that is refused; None if there is none."""
    is_ = pa.types
    if isinstance(of, pa.BaseExtensionType):
        return _unsupported(of.storage_type)
    if is_.is_dictionary(of):
        return None if is_plain(of.value_type) else str(of)
    children = [of.field(index).type for index in range(of.num_fields)]
    if is_.is_list_view(of) or is_.is_large_list_view(of):
        return None if is_plain(of.value_type) else str(of)
    if is_.is_union(of) or is_.is_run_end_encoded(of) or (is_.is_fixed_size_list(of) and not of.list_size):
        return str(of)
    return next((inner for child in children if (inner := _unsupported(child)) is not None), None)


def null_bytes(of: pa.DataType) -> int:
    """How many bytes a null of a type takes, at least."""
    is_ = pa.types
    if isinstance(of, pa.BaseExtensionType):
        return null_bytes(of.storage_type)
    if is_.is_fixed_size_binary(of):
        return int(of.byte_width)
    children = sum(null_bytes(of.field(index).type) for index in range(of.num_fields))
    return max(16, children) * (of.list_size if is_.is_fixed_size_list(of) else 1)
