"""Commands that copy messages between logs: ship, mirror."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

import pqlog
from pqlog import extras
from pqlog.cli import app, output

Follow = Annotated[
    bool, typer.Option("--follow", "-f", help="Go on with what comes; wait while a log cannot be reached.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command(
    app.MESSAGES,
    "ship",
    "pqlog ship events.db hub.db",
    "pqlog ship events.db hub.db --topic main --json",
    "pqlog ship events.db kafka://localhost:9092/etl --follow",
    writes=True,
)
def ship(
    file: app.File,
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET", help="The log to copy into; created if it does not exist.", show_default=False
        ),
    ],
    topic: Annotated[
        list[str] | None,
        typer.Option("--topic", "-t", help="A topic, or a pattern; can be repeated.", show_default=False),
    ] = None,
    follow: Follow = False,
    as_json: AsJson = False,
) -> None:
    """Copy the messages of a log into another one, each exactly once.

    Run it again to copy what has come since. It continues where it was, whatever ended it.
    """
    app.check_exists(file)
    options = app.at(file, target)

    def copy(progress: Progress) -> pqlog.Copied:
        return extras.copying.ship(file, target, topic, follow, progress, options)

    _run(copy, f"{file} to {target}", "shipped", follow, as_json)


@app.command(
    app.MESSAGES,
    "mirror",
    "pqlog mirror events.db local.db --since 1h",
    "pqlog mirror events.db berlin.db --topic 'ma*' --key cz",
    "pqlog mirror kafka://localhost:9092 web.db --topic 'web.*' --since 1h",
)
def mirror(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="The other log, or kafka://host:9092.", show_default=False)
    ],
    file: app.NewFile,
    topic: Annotated[
        list[str] | None,
        typer.Option("--topic", "-t", help="A topic, or a pattern; can be repeated.", show_default=False),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Begin at this time, ISO 8601 or an age such as 1h, if FILE is new.", show_default=False),
    ] = None,
    start: Annotated[
        int | None,
        typer.Option(help="Begin at this offset, if FILE is new; -5 means the last five.", show_default=False),
    ] = None,
    key: app.Key = None,
    codec: app.Codec = None,
    follow: Follow = False,
    as_json: AsJson = False,
) -> None:
    """Copy topics of another log into a file, each message exactly once.

    Run it again to copy what has come since. It continues where it was, whatever ended it.
    """
    app.check_exists(source)
    topics, options = topic or "*", app.at(source, file)

    def copy(progress: Progress) -> pqlog.Copied:
        chosen: dict[str, Any] = {"since": since, "start": start, "key": key, "codec": codec, **options}
        return pqlog.mirror(source, file, topics, **chosen, follow=follow, progress=progress)

    _run(copy, f"{source} to {file}", "mirrored", follow, as_json)


class _Terminated(KeyboardInterrupt):
    """SIGTERM, by which a service is ended."""


Progress = bool | Callable[[pqlog.CopyProgress], object]


def _run(copy: Callable[[Progress], pqlog.Copied], what: str, done: str, follow: bool, as_json: bool) -> None:
    """Run a copy; tell how it goes and, however it ends, how many messages were copied."""
    told = _Changes(what)
    try:
        with _terminable() if follow else contextlib.nullcontext():
            copied = copy(told if follow else app.is_watched())
    except KeyboardInterrupt as error:
        if follow:
            output.complain(f"{output.count(told.messages, 'message')} {done}")
        if isinstance(error, _Terminated):
            return
        raise
    if as_json:
        output.line(output.json_text(dataclasses.asdict(copied)))
        return
    topics = f" of {output.count(len(copied.topics), 'topic')}" if len(copied.topics) > 1 else ""
    output.say(f"{output.count(copied.messages, 'message')}{topics} {done} from {what}")


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """A block that SIGTERM leaves as Ctrl-C does."""

    def terminate(*_: object) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Changes:
    """Tells on standard error when a follower begins, is up to date, cannot go on, and can again."""

    def __init__(self, what: str) -> None:
        self._what = what
        self.messages = 0
        self._state = ""

    def __call__(self, progress: pqlog.CopyProgress) -> None:
        self.messages = progress.messages
        lag = None if progress.lag is None else output.count(progress.lag, "message")
        if progress.error is not None:
            waiting = "" if lag is None else f"; {lag} to go"
            self._tell("away", f"{progress.error}{waiting}; trying again every 1 to 60 s")
        elif self._state in ("", "away"):
            again = "again" if self._state else "now"
            self._tell("working", f"copying {again} from {self._what}{'' if lag is None else f', {lag} to go'}")
        if progress.error is None and progress.lag == 0 and self._state == "working":
            self._tell("idle", f"up to date: {output.count(self.messages, 'message')} copied so far")

    def _tell(self, state: str, text: str) -> None:
        if state != self._state:
            self._state = state
            output.complain(text)
