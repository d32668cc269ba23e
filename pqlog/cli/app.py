"""The command line as a whole: its commands, what they share, and how they end.

Exit codes: 0 done; 1 an error of ours, on standard error, or a file that `verify` found damaged; 2 wrong usage; 130
Ctrl-C; 141 whoever read the output has gone.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperGroup

import pqlog
from pqlog.cli import output
from pqlog.errors import ArgumentError, Error, StoreError

F = TypeVar("F", bound=Callable[..., Any])

EXAMPLES: dict[str, tuple[str, ...]] = {}
"""By command, what its help shows; the tests run them all."""


class _Commands(TyperGroup):
    """Ends every command as a user of a shell expects."""

    def invoke(self, ctx: Any) -> Any:
        warnings.showwarning = lambda message, *_: output.complain(f"warning: {message}")
        try:
            result = super().invoke(ctx)
            output.flush()
            return result
        except output.BrokenPipe:
            code = 141
        except KeyboardInterrupt:
            code = 130
        except Error as error:
            output.complain(in_the_shell(str(error)))
            code = 1
        raise typer.Exit(code)


_SAID = [
    (re.compile(said), instead)
    for said, instead in (
        (r"log\.client\((\w+|'[^']*'|\"[^\"]*\")\)\.seek\((-?\d+)\)", r"`pqlog seek FILE \1 \2`"),
        (r"log\.client\((\w+)\)\.delete\(\)", r"`pqlog delete-client FILE \1`"),
        (
            r"(?:ask )?log\.batches\((\w+|'[^']*'|\"[^\"]*\")\)(?: anew)?(?: or log\.get_one\([^)]*\))?",
            r"`pqlog get FILE --client \1 --batch 1000`",
        ),
        (r"pqlog\.salvage\(path, to\)", "`pqlog salvage FILE NEW`"),
        (r"pass force=True", "pass --force"),
        (r"pass trust_pickle=True \(--trust-pickle\)", "pass --trust-pickle"),
        (r"open it with codec='pickle'|ask for codec=\"pickle\"", "pass --trust-pickle"),
        (r"open it with codec=('[^']*')", r"from Python, open it with the codec \1"),
        (r"Open it without codec=, or put", "Put"),
        (r"pass it as codec=", "only Python can be given it"),
        (
            r"a topic with codec=(\"[^\"]*\") takes it, or convert it first",
            r"a topic with the codec \1 takes it, from Python",
        ),
        (
            r"[Oo]pen it with readonly=True( to read it)?|read it with readonly=True",
            "`pqlog get` and `pqlog export` only read it",
        ),
        (r"opened with readonly=True: open it without to write", "opened for reading only"),
        (r"; without readonly=True it would be made", ""),
        (r", or pass network=True if you know better", ""),
    )
]


# How errors say which topic they speak of; its name is as Python writes it, which a shell reads as well.
_TOPIC = re.compile(r"log\.topic\(('[^']*'|\"[^\"]*\")\)\.")


def in_the_shell(said: str) -> str:
    """What an error advises a Python program to do, for a person at a shell."""
    topic = _TOPIC.search(said)
    file = " FILE " if topic is None else f" FILE -t {topic[1]} ".replace("\\", r"\\")
    said = _TOPIC.sub("log.", said)
    for pattern, instead in _SAID:
        said = pattern.sub(instead.replace(" FILE ", file), said)
    return said


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        output.line(f"pqlog {pqlog.__version__}")
        raise typer.Exit


@app.callback(epilog="Each command has examples: pqlog COMMAND --help")
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A durable, persistent log and queue in one SQLite file."""


# What rich.markup.escape does; loading it would take every command 40 ms.
_MARKUP, _ESCAPED = re.compile(r"(?=\[[a-z#/@])"), r"\\"

MESSAGES, THE_LOG = "Messages", "The log"


def command(panel: str, name: str, *examples: str, negative: bool = False) -> Callable[[F], F]:
    """A command with examples in its help.

    Parameters
    ----------
    panel : str
        The heading under which the list of all commands has it.
    negative : bool
        Whether an argument may be a negative number, which is no option then.
    """
    EXAMPLES[name] = examples
    epilog = "\n\n".join(["[bold]Examples[/bold]", *(f"$ {_MARKUP.sub(_ESCAPED, example)}" for example in examples)])
    settings = {"ignore_unknown_options": negative}
    return app.command(name, epilog=epilog, rich_help_panel=panel, context_settings=settings)


File = Annotated[str, typer.Argument(metavar="FILE", help="The log.", show_default=False)]
Topic = Annotated[str, typer.Option("--topic", "-t", help="The topic.")]
Client = Annotated[str, typer.Argument(metavar="CLIENT", help="The client's name.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TrustPickle = Annotated[
    bool, typer.Option("--trust-pickle", help="Read pickles, which can run any code: only of a file that you trust.")
]
Since = Annotated[
    str | None, typer.Option(help="From this time on: ISO 8601, or how long ago, as in 1h, 2d.", show_default=False)
]
Until = Annotated[str | None, typer.Option(help="Up to, not including, this time.", show_default=False)]
Start = Annotated[int | None, typer.Option(help="From this offset on; -5: the last five.", show_default=False)]
Stop = Annotated[int | None, typer.Option(help="Up to, not including, this offset.", show_default=False)]
Key = Annotated[str | None, typer.Option(help="Only messages with this key.", show_default=False)]
Fields = Annotated[
    list[str] | None, typer.Option("--field", help="Only this field; may be repeated.", show_default=False)
]


def opened(file: str, topic: str = "main", *, write: bool = False, trust_pickle: bool = False) -> pqlog.Log:
    """Open a log that exists; for reading only, unless `write`."""
    if not os.path.exists(file):
        raise StoreError(f"{file} does not exist: `pqlog put {file} ...` makes it")
    try:
        return pqlog.open(file, topic, "pickle" if trust_pickle else None, readonly=not write)
    except pqlog.CodecMismatchError:
        if not trust_pickle:
            raise
        return pqlog.open(file, topic, readonly=not write)


def existing(file: str, topic: str, *, trust_pickle: bool = False) -> pqlog.Log:
    """Open a log that exists for writing; a topic that it does not have is an error and not made."""
    opened(file, topic, trust_pickle=trust_pickle).close()
    return opened(file, topic, write=True, trust_pickle=trust_pickle)


def whole(file: str, *, write: bool = False) -> pqlog.Log:
    """Open a log for what concerns all of it: at the topic main or, if it has none, at its first."""
    try:
        opened(file).close()
        name = "main"
    except pqlog.UnknownTopicError as error:
        if not error.near:
            raise
        name = error.near[0]
    return opened(file, name, write=write)


def is_watched() -> bool:
    """Whether a person sees standard error, for whom there are progress bars."""
    return sys.stderr.isatty()


def place(text: str) -> int | str:
    """An offset, a time, "start" or "end", as typed."""
    try:
        return int(text)
    except ValueError:
        return text


def pairs(headers: list[str] | None) -> dict[str, str]:
    """Headers from NAME=VALUE."""
    found = {}
    for header in headers or ():
        name, equals, value = header.partition("=")
        if not equals or not name:
            raise ArgumentError(f"--header takes NAME=VALUE, not {header!r}")
        found[name] = value
    return found
