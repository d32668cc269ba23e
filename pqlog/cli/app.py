"""The command line as a whole: its commands, what they share, and how they end.

Exit codes: 0 success; 1 an error, reported on standard error, or a file that `verify` found damaged; 2 wrong usage; 130
Ctrl-C; 141 the reader of the output has gone.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperGroup

import pqlog
from pqlog import check, codecs, files
from pqlog import partition as partitions
from pqlog.cli import output
from pqlog.errors import ArgumentError, Error, StoreError, UnsupportedError
from pqlog.store.api import ReadsForeignTopics

F = TypeVar("F", bound=Callable[..., Any])

EXAMPLES: dict[str, tuple[str, ...]] = {}
"""The examples in the help of each command; the tests run all of them."""


class _Commands(TyperGroup):
    """Turn errors into messages and exit codes, as a user of a shell expects."""

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


_IN_THE_SHELL = [
    (re.compile(advice), instead)
    for advice, instead in (
        (r"log\.client\((\w+|'[^']*'|\"[^\"]*\")\)\.seek\((-?\d+)\)", r"`pqlog seek FILE \1 \2`"),
        (
            r"log\.client\((\w+|'[^']*'|\"[^\"]*\")\)\.seek\((-?\d+), partition=(\d+)\)",
            r"`pqlog seek FILE \1 \2 --partition \3`",
        ),
        (r": seek\(-?\d+, partition=0\), say\.", ", so an offset needs --partition."),
        (
            r"so .{1,200} needs one of them: partition\(0\) of the topic, say\. .*",
            r"so an offset needs --partition. Times are of the whole topic",
        ),
        (
            r"Leave partitions= out, or copy .*",
            "Use it as it is, or create another topic and put its messages there",
        ),
        (r"log\.client\((\w+)\)\.delete\(\)", r"`pqlog delete-client FILE \1`"),
        (
            r"log\.batches\((\w+|'[^']*'|\"[^\"]*\")\)(?: or log\.get_one\([^)]*\))?",
            r"`pqlog get FILE --client \1 --batch 1000`",
        ),
        (r"log\.clients\(\)", "`pqlog clients FILE`"),
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
            r"Open it with readonly=True, or make the file and its folder writable",
            "Make the file and its folder writable; `pqlog get` and `pqlog export` read it as it is",
        ),
        (r"; or read it with readonly=True", "; `pqlog get` and `pqlog export`, which only read, take it as it is"),
        (r"open it with readonly=True to read it", "`pqlog get` and `pqlog export` only read it"),
        (r": pqlog\.open\(path\), without readonly=True, opens it for writing", ""),
        (r"pqlog\.open\(path\) creates a log there", "`pqlog put FILE ...` creates it"),
        (
            r"open a log with pqlog\.open\('([^']*)'\)",
            r"name a log of pqlog's, as in \1",
        ),
        (r"history\(\), tail\(\) and live\(\) need", "`pqlog get`, `pqlog tail` and `pqlog export` need"),
        (r"log\.ship\('(.*)'\) copies", r"`pqlog ship FILE \1` copies"),
        (r" in config=", " in the file given as --config"),
        (r"must be named, as in log\.topic\(('[^']*'|\"[^\"]*\")\)", r"must be named, as in --topic \1"),
        (r"begin at a time, with since=", "begin at a time, with --since"),
        (r'codec="bytes", or an object of yours that decodes', "--codec bytes"),
        (r'as in codec="bytes"', "as in --codec bytes"),
        (r"is read with log\.history\(start=(\d+)\)", r"is read with `pqlog get FILE --start \1`"),
        (
            r"is read with log\.partition\((\d+)\)\.history\(start=(\d+)\)",
            r"is read with `pqlog get FILE --partition \1 --start \2`",
        ),
        (r", or pass network=True if you know better", ""),
    )
]


# How errors name the topic. A name that is quoted for Python is also quoted for a shell.
_TOPIC = re.compile(r"log\.topic\(('[^']*'|\"[^\"]*\")\)\.")


def in_the_shell(text: str) -> str:
    """The advice of an error to a Python program, as commands for a shell."""
    topic = _TOPIC.search(text)
    file = " FILE " if topic is None or topic[1] == "'main'" else f" FILE -t {topic[1]} ".replace("\\", r"\\")
    text = _TOPIC.sub("log.", text)
    for pattern, instead in _IN_THE_SHELL:
        text = pattern.sub(instead.replace(" FILE ", file), text)
    return text


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
    """A durable, persistent log and queue in one SQLite file, or on a Kafka cluster."""


# What rich.markup.escape does; loading it would take every command 40 ms.
_MARKUP, _ESCAPED = re.compile(r"(?=\[[a-z#/@])"), r"\\"

MESSAGES, THE_LOG = "Messages", "The log"


def command(
    panel: str, name: str, *examples: str, negative: bool = False, config: bool = True, writes: bool = False
) -> Callable[[F], F]:
    """Declare a command with examples in its help.

    Parameters
    ----------
    panel : str
        The heading under which `pqlog --help` lists it.
    negative : bool
        Whether an argument may be a negative number, which would otherwise be parsed as an option.
    config : bool
        Whether it takes the address of a cluster, and so --config.
    writes : bool
        Whether it may open a log for writing, and so takes --durability, too.
    """
    EXAMPLES[name] = examples
    epilog = "\n\n".join(["[bold]Examples[/bold]", *(f"$ {_MARKUP.sub(_ESCAPED, example)}" for example in examples)])
    settings = {"ignore_unknown_options": negative}
    declare = app.command(name, epilog=epilog, rich_help_panel=panel, context_settings=settings)
    options = [option for option, is_taken in (("config", config), ("durability", config and writes)) if is_taken]

    def add(function: F) -> F:
        declare(_with_options(function, options))
        return function

    return add


File = Annotated[str, typer.Argument(metavar="FILE", help="The log, or kafka://host:9092.", show_default=False)]
NewFile = Annotated[
    str, typer.Argument(metavar="FILE", help="The log; created if it does not exist.", show_default=False)
]
Topic = Annotated[str, typer.Option("--topic", "-t", help="The topic.")]
Partition = Annotated[
    int | None,
    typer.Option(
        "--partition", "-p", min=0, help="One partition; offsets need it if there are several.", show_default=False
    ),
]
Client = Annotated[str, typer.Argument(metavar="CLIENT", help="The client's name.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TrustPickle = Annotated[
    bool, typer.Option("--trust-pickle", help="Read pickles, which can run any code: only for files you trust.")
]
Since = Annotated[
    str | None, typer.Option(help="From this time on: ISO 8601, or an age such as 1h or 2d.", show_default=False)
]
Until = Annotated[str | None, typer.Option(help="Before this time.", show_default=False)]
Start = Annotated[int | None, typer.Option(help="From this offset on; -5 means the last five.", show_default=False)]
Stop = Annotated[int | None, typer.Option(help="Before this offset.", show_default=False)]
Key = Annotated[str | None, typer.Option(help="Only messages with this key.", show_default=False)]
Where = Annotated[
    str | None,
    typer.Option(
        help="Only messages that this is true of, in SQL's grammar: \"ms > 300 and level = 'error'\".",
        show_default=False,
    ),
]


def _safe_codec(codec: str | None) -> str | None:
    """The codec as given; raises for one with which reading anybody's topic could run any code."""
    if codec == codecs.Pickle.name:
        raise ArgumentError(
            "--codec takes json, msgpack or bytes. Pickles can run any code: commands that read them take "
            "--trust-pickle instead, for topics whose writers you trust"
        )
    return None if codec is None else codecs.safe(codec)


Codec = Annotated[
    str | None,
    typer.Option(
        help="What the values of a cluster's topic are: json, msgpack or bytes.",
        show_default=False,
        callback=_safe_codec,
    ),
]
Fields = Annotated[
    list[str] | None, typer.Option("--field", help="Only this field; can be repeated.", show_default=False)
]


_OPTIONS: dict[str, Any] = {
    "config": Annotated[
        str | None,
        typer.Option(help="For a cluster: a file with the properties of its clients.", show_default=False),
    ],
    "durability": Annotated[
        str | None,
        typer.Option(
            help="For a cluster: what it must promise: synced, replicated or development.", show_default=False
        ),
    ],
}
"""The options of all commands that take the address of a cluster."""

_given: ContextVar[dict[str, Any]] = ContextVar("options for a cluster")


def _with_options(function: F, names: Sequence[str]) -> F:
    """A command with some of those options, for `at`."""
    signature = inspect.signature(function, eval_str=True)
    more = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_OPTIONS[name])
            for name in names]  # fmt: skip

    @functools.wraps(function)
    def run(**arguments: Any) -> Any:
        _given.set({name: arguments.pop(name) for name in names})
        return function(**arguments)

    parameters = [*signature.parameters.values(), *more]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run  # type: ignore[return-value]


def at(*files_or_clusters: str) -> dict[str, Any]:
    """The options for a cluster as `pqlog.open` takes them; refused unless one of the command's logs is on one."""
    given = _given.get()
    named = [f"--{name}" for name, value in given.items() if value is not None]
    if named and not any(map(files.is_cluster, files_or_clusters)):
        raise ArgumentError(f"{' and '.join(named)} is for a cluster: a FILE that begins with {files.SCHEME}")
    return given


def check_is_a_file(command: str, *given: str) -> None:
    """Raise if a command about files is given a cluster."""
    if any(map(files.is_cluster, given)):
        raise UnsupportedError(f"`pqlog {command}` needs a log in a file, which a log on a cluster is not")


def check_exists(file: str) -> None:
    """Raise unless there is a file; of a cluster nothing is asked."""
    if not files.is_cluster(file) and not os.path.exists(check.path("FILE", file)):
        raise StoreError(f"{file} does not exist: `pqlog put {file} ...` creates it")


def opened(
    file: str, topic: str = "main", *, write: bool = False, trust_pickle: bool = False, codec: str | None = None
) -> pqlog.Log:
    """Open a log that exists, for reading only unless `write` is given."""
    options = at(file)
    if files.is_cluster(file):
        if not write:
            options = {name: value for name, value in options.items() if name != "durability"}
    elif codec is not None:
        raise ArgumentError(f"--codec is for a cluster: a FILE that begins with {files.SCHEME}")
    else:
        check_exists(file)
    try:
        return pqlog.open(file, topic, "pickle" if trust_pickle else codec, readonly=not write, **options)
    except pqlog.CodecMismatchError:
        if not trust_pickle:
            raise
        return pqlog.open(file, topic, codec, readonly=not write, **options)


def existing(file: str, topic: str, *, trust_pickle: bool = False) -> pqlog.Log:
    """Open a log that exists for writing; a topic that it does not have is an error and is not created."""
    with opened(file, topic, trust_pickle=trust_pickle) as log:
        _check_ours(file, log)
        names = log.topics()
        if topic not in names:  # on a cluster, a log need not stand for one
            raise pqlog.UnknownTopicError(topic, check.near(topic, names) or names)
    return opened(file, topic, write=True, trust_pickle=trust_pickle)


def whole(file: str, *, write: bool = False) -> pqlog.Log:
    """Open a log for a command about the whole file: at the topic main or, if it does not exist, at the first topic."""
    if files.is_cluster(file):
        log = opened(file)
        if write:
            _check_ours(file, log)
        if not (names := log.topics()) and not file.removeprefix(files.SCHEME).strip("/").partition("/")[2]:
            return log
        if not names and _is_foreign(log):
            raise StoreError(f"{file} does not exist: `pqlog put {file} ...` creates it")
        if not write:
            return log
        log.close()
        return opened(file, names[0], write=True)
    try:
        opened(file).close()
        name = "main"
    except pqlog.UnknownTopicError as error:
        if not error.near:
            raise
        name = error.near[0]
    return opened(file, name, write=write)


def _is_foreign(log: pqlog.Log) -> bool:
    """Whether a log on a cluster is none that pqlog made."""
    store = log.store.log
    return isinstance(store, ReadsForeignTopics) and store.is_foreign


def _check_ours(file: str, log: pqlog.Log) -> None:
    """Raise before a command makes a log where there is none."""
    if _is_foreign(log):
        where = "" if file.removeprefix(files.SCHEME).partition("/")[2] else "/LOG"
        raise StoreError(f"there is no log {file}{where}: `pqlog put {file}{where} ...` creates it")


def part(topic: pqlog.Topic, partition: int | None) -> partitions.Messages:
    """The whole topic, or one partition of it if that is asked for."""
    return topic if partition is None else topic.partition(partition)


def is_watched() -> bool:
    """Whether standard error is a terminal, so that progress bars make sense."""
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
