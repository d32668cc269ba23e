"""Validation of arguments that several calls take, done in the same way before anything else happens."""

from __future__ import annotations

import difflib
import math
import os
import re
import sys
import warnings
from collections.abc import Iterable, Sequence
from types import FrameType
from typing import Any

from pqlog.errors import ArgumentError, ForkError, UnsupportedError
from pqlog.store.values import SCHEME

LARGEST = 2**62
"""Larger than any offset or size; SQLite's integers end at 2**63."""


def text(what: str, given: str) -> str:
    """Text that can be stored; a lone surrogate cannot be encoded as UTF-8.

    Parameters
    ----------
    what : str
        What the text is, for the error.
    given : str
        The text.

    Raises
    ------
    ArgumentError
        It has such a character.
    """
    if not given.isascii():
        try:
            given.encode()
        except UnicodeEncodeError as error:
            shown = given[max(0, error.start - 20) : error.start + 20]
            raise ArgumentError(
                f"{what} has a character that is not Unicode text, {given[error.start]!r} in {shown!r}: "
                f"remove it, for instance with .encode(errors='replace').decode()"
            ) from None
    return given


def texts(what: str, given: Iterable[str]) -> None:
    """Many texts at once: as fast as one if all are valid."""
    given = list(given)
    if not "".join(given).isascii():
        for one in given:
            text(what, one)


def name(what: str, given: object) -> str:
    """Text that names something, so it is not empty."""
    if not isinstance(given, str) or not given:
        raise ArgumentError(f"{what} must be a non-empty str, not {given!r}")
    return text(what, given)


def process(pid: int, what: str) -> None:
    """Raise in a forked child for something that the parent started: it continues there."""
    if os.getpid() != pid:
        raise ForkError(
            f"{what} was started by process {pid}, of which this one is a fork. It continues there: start another here"
        )


def path(what: str, given: object) -> str:
    """The path of a file, as text."""
    found = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    if not isinstance(found, str) or not found or "\0" in found:
        raise ArgumentError(f"{what} must be the path of a file, a str or a Path, not {_shown(given)}")
    try:
        os.fsencode(found)
    except UnicodeEncodeError:
        raise ArgumentError(f"{what} has a character that no path can have: {_shown(given)}") from None
    if _ADDRESS.match(found) and not os.path.lexists(found):
        if found.startswith(SCHEME):
            raise UnsupportedError(f"{what} must be a file, which a log on a cluster is not: {_shown(given)}")
        raise ArgumentError(
            f"{what} looks like an address: {_shown(given)}. That of a cluster is text that begins with {SCHEME}, "
            f"as in {SCHEME}host:9092/LOG; for a file of that name write ./{found}"
        )
    return found


_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[\w.-]+)"
_ADDRESS = re.compile(rf"[A-Za-z][\w+.-]*:/|{_HOST}:\d{{2,5}}(?:,{_HOST}:\d{{2,5}})*(?:/|$)", re.ASCII)
"""Paths that begin with a scheme, or are servers with their ports."""


def bounded(number: int) -> int:
    """An offset or a size, clipped to `LARGEST`, since beyond that the value makes no difference."""
    return max(-LARGEST, min(LARGEST, number))


def near(name: str, names: Sequence[str]) -> list[str]:
    """Other names like `name`, which may have been meant; `name` itself may have been added to them meanwhile.

    Names that differ only in their numbers do so on purpose: names of days, or of workers.
    """
    plain = _NUMBER.sub("", name)
    others = [other for other in names if other not in ("", name) and _NUMBER.sub("", other) != plain]
    close = difflib.get_close_matches(name, others, n=3, cutoff=0.8)
    return close or [other for other in others if other.casefold() == name.casefold()]


_NUMBER = re.compile(r"\d+")


def warn_if_misspelt(said: str, near: Sequence[str]) -> None:
    """Warn of what was just created, if there are names like its own that may have been meant."""
    if near:
        warn(f"{said}; was {' or '.join(map(repr, near))} meant?")


def warn(said: str) -> None:
    """A warning that points to the line of the user's program, however deep in pqlog it is raised."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and _is_ours(frame):
        level, frame = level + 1, frame.f_back
    warnings.warn(said, stacklevel=level)


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] == "pqlog"


def printable(given: str) -> str:
    """A text with lone surrogates escaped, so that it can be stored and printed."""
    return given.encode(errors="backslashreplace").decode()


def count(name: str, value: Any, what: str, most: int | None = None) -> int:
    """A number of things, 1 or more, clipped as by `bounded`; or refused beyond `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= (value if most is None else most):
        range_ = "1 or more" if most is None else f"1 to {most}"
        raise ArgumentError(f"{name} must be a number of {what}, {range_}, not {_shown(value)}")
    return bounded(value)


def partition(topic: str, number: object, partitions: int) -> int:
    """The number of a partition of a topic with that many, checked."""
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < partitions:
        raise ArgumentError(
            f"topic {topic!r} has {partitions} partition{'s' * (partitions != 1)}, numbered from 0: "
            f"there is no partition {_shown(number)}"
        )
    return number


def seconds(name: str, value: Any, least: str = "0 or more", most: float = math.inf) -> float:
    """A time in seconds: "0 or more", or "above 0"."""
    try:
        fits = not isinstance(value, bool) and isinstance(value, (int, float)) and float(value) <= most
    except OverflowError:
        fits = False
    if not fits or not (value > 0 if least == "above 0" else value >= 0):
        raise ArgumentError(f"{name} must be a number of seconds, {least}, not {_shown(value)}")
    return float(value)


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # for example an int with too many digits for repr()
        return f"a {type(value).__name__} that cannot be shown"
