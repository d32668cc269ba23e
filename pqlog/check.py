"""The door: arguments that several calls take, checked in one way before anything is done with them."""

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

from pqlog.errors import ArgumentError, ForkError

LARGEST = 2**62
"""Beyond every offset, and every size of anything; SQLite's integers end at 2**63."""


def text(what: str, given: str) -> str:
    """Text that a file can keep; a lone surrogate cannot be encoded as UTF-8.

    Parameters
    ----------
    what : str
        What it is, for the error.
    given : str
        The text.

    Raises
    ------
    ArgumentError
        There is such a character in it.
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
    """Many texts at once: as fast as one where all is well."""
    given = list(given)
    if not "".join(given).isascii():
        for one in given:
            text(what, one)


def name(what: str, given: object) -> str:
    """Text that names something, so it is not empty."""
    if not isinstance(given, str) or not given:
        raise ArgumentError(f"{what} is a str that is not empty, not {given!r}")
    return text(what, given)


def process(pid: int, what: str) -> None:
    """Raise in a forked child for what was begun by the parent, where it continues."""
    if os.getpid() != pid:
        raise ForkError(
            f"{what} was started by process {pid}, of which this is a fork: it continues there; start another one here"
        )


def path(what: str, given: object) -> str:
    """The path of a file, as text."""
    found = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    if not isinstance(found, str) or not found or "\0" in found:
        raise ArgumentError(f"{what} is the path of a file, a str or a Path, not {_shown(given)}")
    try:
        os.fsencode(found)
    except UnicodeEncodeError:
        raise ArgumentError(f"{what} has a character that no path can have: {_shown(given)}") from None
    return found


def bounded(number: int) -> int:
    """An offset or a size; beyond all that there are, it is as good as the largest."""
    return max(-LARGEST, min(LARGEST, number))


def near(name: str, names: Sequence[str]) -> list[str]:
    """Other names like `name`, which may have been meant; it may itself have come to be among them meanwhile.

    Names that differ in their numbers only are meant to: those of days, or of workers.
    """
    plain = _NUMBER.sub("", name)
    others = [other for other in names if other not in ("", name) and _NUMBER.sub("", other) != plain]
    return difflib.get_close_matches(name, others, n=3, cutoff=0.8)


_NUMBER = re.compile(r"\d+")


def warn_if_misspelt(said: str, near: Sequence[str]) -> None:
    """Warn of what was just created, if there are names like its own that may have been meant."""
    if near:
        warn(f"{said}; was {' or '.join(map(repr, near))} meant?")


def warn(said: str) -> None:
    """A warning that points to the line of the user's program, however deep in here it is given."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and _is_ours(frame):
        level, frame = level + 1, frame.f_back
    warnings.warn(said, stacklevel=level)


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] == "pqlog"


def printable(given: str) -> str:
    """A text that is kept for people to read, whatever is in it."""
    return given.encode(errors="backslashreplace").decode()


def count(name: str, value: Any, what: str) -> int:
    """A number of things, 1 or more; beyond all that there are, it is as good as the largest."""
    if isinstance(value, bool) or not isinstance(value, int) or not value >= 1:
        raise ArgumentError(f"{name} is a number of {what}, 1 or more, not {_shown(value)}")
    return bounded(value)


def seconds(name: str, value: Any, least: str = "0 or more", most: float = math.inf) -> float:
    """A time in seconds: "0 or more", or "above 0"."""
    try:
        fits = not isinstance(value, bool) and isinstance(value, (int, float)) and float(value) <= most
    except OverflowError:
        fits = False
    if not fits or not (value > 0 if least == "above 0" else value >= 0):
        raise ArgumentError(f"{name} is a number of seconds, {least}, not {_shown(value)}")
    return float(value)


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # an int of more digits than Python writes, say
        return f"a {type(value).__name__} that cannot be shown"
