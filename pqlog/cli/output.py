"""What the commands print: lines of JSON, tables, error messages; never control characters for the terminal."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from pqlog import exact
from pqlog.clients import position_text
from pqlog.errors import StoreError
from pqlog.message import Message

if TYPE_CHECKING:
    from rich.table import Table

# C0 and C1 controls (escape codes begin with one), and characters that break lines or change the direction of text.
_HARMFUL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_encode = msgspec.json.Encoder(enc_hook=exact.plain).encode
"""For display: bytes become base64 text, NaN becomes null."""


class BrokenPipe(Exception):
    """The reader of our output has gone."""


def harmless(text: str) -> str:
    """Make a text safe for a terminal: control characters become JSON escapes, so JSON keeps its meaning."""
    return _HARMFUL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def json_text(value: Any) -> str:
    """A value as one line of JSON; what cannot be encoded as JSON becomes the text of its repr."""
    try:
        data = _encode(value)
    except Exception:  # a pickle may hold anything
        data = _encode(_printable(value))
    return harmless(data.decode())


def _printable(value: Any) -> Any:
    """The same value, with text instead of whatever cannot be encoded as JSON."""
    if isinstance(value, dict):
        return {str(key): _printable(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_printable(inner) for inner in value]
    try:
        _encode(value)
        return value
    except Exception:
        return repr(value).encode(errors="backslashreplace").decode()


def message_json(message: Message, has_partitions: bool = False) -> str:
    """A message as one line of JSON, with its offset, time, key and headers; and its partition if there are several."""
    head: dict[str, Any] = {"partition": message.partition} if has_partitions else {}
    head |= {"offset": message.offset, "time": message.time, "key": message.key, "headers": dict(message.headers)}
    return f'{json_text(head)[:-1]},"value":{json_text(message.value)}}}'


def lines(texts: Iterable[str]) -> None:
    """Print lines as fast as they come; the reader may go away at any time."""
    for text in texts:
        line(text, flush=False)
    flush()


def line(text: str, flush: bool = True) -> None:
    """Print a line; with `flush`, it has left this process when the call returns."""
    with writing():
        sys.stdout.write(text + "\n")
        if flush:
            sys.stdout.flush()


def flush() -> None:
    """Flush everything that was printed."""
    with writing():
        sys.stdout.flush()


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Wrap code that writes to standard output, which may be a closed pipe or a full disk."""
    try:
        yield
    except OSError as error:
        # otherwise the interpreter complains when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise BrokenPipe from None
        raise StoreError(f"the output cannot be written: {error.strerror}") from error


def count(number: int, what: str) -> str:
    """A count with its noun: "1 message", "2,000 messages"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def say(text: str) -> None:
    """Print a sentence for a person; used where a command has no data to print."""
    line(harmless(text))


def complain(text: str) -> None:
    """Print a sentence on standard error."""
    sys.stderr.write(f"pqlog: {harmless(text)}\n")
    sys.stderr.flush()


def records(found: Sequence[dict[str, Any]], as_json: bool, empty: str) -> None:
    """Print rows as a table, or as a JSON array."""
    if as_json:
        line(json_text(found))
    elif not found:
        say(empty)
    else:
        from rich.table import Table  # where it is used: it takes longer to load than most commands to run
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in found[0]:
            is_number = all(isinstance(record[name], int | None) for record in found)
            table.add_column(name.replace("_", " "), justify="right" if is_number else "left", overflow="fold")
        for record in found:
            table.add_row(*(Text(_cell(value)) for value in record.values()))
        _print(table)


def facts(found: dict[str, Any]) -> None:
    """Print names and values, one per line."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in found.items():
        table.add_row(name, Text(_cell(value)))
    _print(table)


def _print(table: Table) -> None:
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    with console.capture() as capture:
        console.print(table)
    lines(text.rstrip() for text in capture.get().splitlines())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, Mapping):
        return position_text(value) or "-"
    text = str(value)
    return harmless(text) if text else '""'
