"""The door: arguments that several calls take, checked in one way before anything is done with them."""

from __future__ import annotations

from collections.abc import Iterable

from pqlog.errors import ArgumentError

LARGEST = 2**62
"""Beyond every offset, and every size of anything; SQLite's integers end at 2**63."""


def text(what: str, given: str) -> str:
    """Text that a file can keep; a lone surrogate is no character, and has no bytes in UTF-8.

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


def bounded(number: int) -> int:
    """An offset or a size; beyond all that there are, it is as good as the largest."""
    return max(-LARGEST, min(LARGEST, number))


def printable(given: str) -> str:
    """A text that is kept for people to read, whatever is in it."""
    return given.encode(errors="backslashreplace").decode()
