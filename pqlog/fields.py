"""Fields: the names that messages have, and suggestions for a name that none of them has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from pqlog import check

METADATA_COLUMNS = {
    "offset": "offset",
    "partition": "_partition",
    "time": "_time",
    "key": "_key",
    "headers": "_headers",
}
"""The columns that a table has for the messages' metadata, by what the option ``metadata`` calls them."""
MOST_NAMES = 5_000
"""At most this many are remembered for suggestions."""
SHOWN, LONGEST = 8, 60
"""How many names an error shows, and how many characters of each."""

NamesOf = Callable[[Any], Iterable[str]]
"""The names that a value has."""


def columns(value: Any) -> Iterator[str]:
    """The columns that a value has in a table."""
    yield from map(str, value) if isinstance(value, Mapping) else ("value",)


def flat_columns(value: Any) -> Iterator[str]:
    """The columns that a value has in a table with the fields of nested objects as columns."""
    waiting = (
        [(str(name), inner) for name, inner in value.items()] if isinstance(value, Mapping) else [("value", value)]
    )
    waiting.reverse()
    while waiting:  # not by recursion: values may be nested as deep as Python goes
        name, inner = waiting.pop()
        if can_be_flat(inner):
            waiting += [(f"{name}.{other}", value) for other, value in reversed(inner.items())]
        else:
            yield name


def paths(value: Any) -> Iterator[str]:
    """The fields that a value has, including nested ones such as ``outer.inner``."""
    waiting = [("", value)]
    while waiting:
        outer, inner = waiting.pop()
        if outer:
            yield outer[1:]
        if isinstance(inner, dict):
            waiting += [(f"{outer}.{name}", value) for name, value in reversed(inner.items())]


def can_be_flat(value: Any) -> bool:
    """Whether a value is an object with fields that can be columns of their own."""
    return isinstance(value, dict) and bool(value) and all(isinstance(name, str) for name in value)


class Unknown(NamedTuple):
    """A name that no message has."""

    said: str
    """A sentence that says so."""
    near: list[str]
    """Names that may have been meant."""


def unknown(names: Iterable[str], values: Iterable[Any], names_of: NamesOf, bare: bool = False) -> Unknown | None:
    """The first of `names` that no value has; None if every name occurs, or if there are no values.

    Values are read only until all names have occurred. With `bare`, underscores at the end are ignored: they may have
    been appended to tell apart two columns that would have the same name.
    """
    end = "_" if bare else ""
    missing = {name.rstrip(end): name for name in names}
    seen: dict[str, None] = {}
    some = False
    for value in values:
        some = True
        for name in names_of(value):
            missing.pop(name.rstrip(end), None)
            if len(seen) < MOST_NAMES:
                seen[name] = None
        if not missing:
            return None
    return _unknown(next(iter(missing.values())), list(seen)) if some and missing else None


def _unknown(name: str, seen: list[str]) -> Unknown:
    near = check.near(name, seen)
    if near:
        hint = f"did you mean {' or '.join(map(_shown, near))}?"
    elif not seen:
        hint = "none has any field"
    else:
        more = f" and {len(seen) - SHOWN:,} more" if len(seen) > SHOWN else ""
        hint = f"there are {', '.join(map(_shown, seen[:SHOWN]))}{more}"
    return Unknown(f"no message here has a field {name!r}: {hint}", near)


def _shown(name: str) -> str:
    return repr(name if len(name) <= LONGEST else name[:LONGEST] + "...")
