"""The command that puts messages, and what it reads them from."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Any

import typer

import pqlog
from pqlog import extras
from pqlog.cli import app, output
from pqlog.codecs import UNDECODABLE, Json
from pqlog.errors import ArgumentError

_KIND = {".csv": "csv", ".parquet": "parquet"}
_JSON = Json()


@app.command(
    app.MESSAGES,
    "put",
    """pqlog put events.db '{"city": "Brno", "amount": 12.5}'""",
    "pqlog put events.db --text 'till 3 is open'",
    "pqlog put events.db --from flights.csv --id flights-2013 --key carrier",
    "pqlog put events.db --from orders.csv --topic orders --ids order",
    "cat events.ndjson | pqlog put events.db",
    "tail -n 5 app.log | pqlog put events.db --text --each --topic app",
)
def put(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The log; made if it is missing.", show_default=False)],
    values: Annotated[
        list[str] | None, typer.Argument(metavar="VALUE", help="JSON values.", show_default=False)
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--from", help="A file to read them from; - or nothing: standard input.", show_default=False),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="ndjson, csv, parquet, or json for one array; else by the file's ending.",
            show_default=False,
        ),
    ] = None,
    topic: app.Topic = "main",
    text: Annotated[bool, typer.Option("--text", help="Each value, or line, is a text and not JSON.")] = False,
    key: Annotated[str | None, typer.Option(help="The field that is each message's key.", show_default=False)] = None,
    header: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE, on every message; may be repeated.", show_default=False)
    ] = None,
    id: Annotated[
        str | None, typer.Option(help="Put under this id only once, however often it is tried.", show_default=False)
    ] = None,
    ids: Annotated[
        str | None,
        typer.Option(
            "--ids",
            help="The field that is each message's id; those with an id that is there are skipped.",
            show_default=False,
        ),
    ] = None,
    each: Annotated[
        bool, typer.Option("--each", help="Put each line when it comes, as of an input without end.")
    ] = False,
    as_json: app.AsJson = False,
) -> None:
    """Put messages: values, the lines of a file or of standard input, a CSV or Parquet file.

    All or nothing, unless --each. When it returns, they survive a power failure.
    """
    if values and source is not None:
        raise ArgumentError("give values or --from, not both")
    kind = format or _KIND.get(Path(source or "").suffix.lower(), "ndjson")
    if kind not in ("ndjson", "csv", "parquet", "json"):
        raise ArgumentError(f"--format is ndjson, csv, parquet or json, not {kind!r}")
    if text and kind != "ndjson":
        raise ArgumentError(f"--text is for values and lines, not for {kind}")
    headers = app.pairs(header)
    if values:
        found: Any = [argument if text else _value(argument, f"value {n}") for n, argument in enumerate(values, 1)]
    else:
        stream = _stream(source)  # before the log is made
        found = _lines(stream, text) if kind == "ndjson" else _items(stream) if kind == "json" else _table(stream, kind)
    with pqlog.open(file, topic) as log:
        if each:
            _put_each(log, found, key, headers, id, ids, as_json)
        else:
            progress = app.is_watched() and not values and not (source is None and sys.stdin.isatty())
            _report(log, log.put_many(found, key, headers, id, progress=progress, ids=ids), as_json)


def _put_each(
    log: pqlog.Log,
    values: Iterator[Any],
    key: str | None,
    headers: dict[str, str],
    id: str | None,
    ids: str | None,
    as_json: bool,
) -> None:
    if id is not None:
        raise ArgumentError("--id is one for all of a call: it does not go with --each")
    offsets: list[int] = []  # the first and the last; others may put in between
    count = 0
    try:
        for value in values:
            put = log.put_many([value], key, headers, ids=ids)
            offsets[1:] = put or offsets[1:]
            count += len(put)
    finally:
        _report(log, range(offsets[0], offsets[-1] + 1) if offsets else range(0), as_json, count)


def _report(log: pqlog.Log, put: range, as_json: bool, count: int | None = None) -> None:
    count = len(put) if count is None else count
    if as_json:
        found = {"topic": log.name, "first": put.start, "stop": put.stop, "messages": count}
        output.line(output.json_text(found))
    elif count == 1:
        output.say(f"offset {put.start} of topic {log.name!r}")
    elif put:
        output.say(f"{output.count(count, 'message')}, offsets {put.start} to {put.stop - 1} of topic {log.name!r}")
    else:
        output.say("no messages")


def _stream(source: str | None) -> IO[bytes]:
    if source is None and sys.stdin.isatty():
        output.complain("reading lines from the terminal: Ctrl-D ends, Ctrl-C gives up")
    if source is None or source == "-":
        return sys.stdin.buffer
    try:
        return open(source, "rb")
    except OSError as error:
        raise ArgumentError(f"{source} cannot be read: {error.strerror}") from error


def _lines(stream: IO[bytes], text: bool) -> Iterator[Any]:
    for number, line in enumerate(stream, 1):
        try:
            found = line.rstrip(b"\r\n").decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise ArgumentError(f"line {number} is not UTF-8: {error}") from error
        if text:
            yield found
        elif found.strip():
            value = _value(found, f"line {number}")
            if number == 1 and isinstance(value, list):
                output.complain("warning: line 1 is a JSON array, put as one message; --format json puts its items")
            yield value


def _items(stream: IO[bytes]) -> list[Any]:
    """The items of one JSON array."""
    try:
        found = _JSON.decode(stream.read())
    except UNDECODABLE as error:
        raise ArgumentError(f"this cannot be read as one JSON array: {error}") from error
    if not isinstance(found, list):
        raise ArgumentError(f"--format json takes one JSON array, and this is a {type(found).__name__}")
    return found


def _value(text: str, what: str) -> Any:
    try:
        return _JSON.decode(text.encode())
    except UNDECODABLE as error:
        shown = text if len(text) < 60 else text[:57] + "..."
        raise ArgumentError(
            f"{what} is not JSON: {shown!r} ({error}). JSON texts stand in quotes, '\"{shown[:9]}\"'; --text takes "
            f"texts without; --format json takes one array over many lines"
        ) from error


def _table(stream: IO[bytes], kind: str) -> Any:
    """A CSV whole, so that a column's type fits all its lines; Parquet as a stream of batches."""
    pyarrow = extras.package("pyarrow")
    extras.load("frames")
    try:
        if kind == "csv":
            return extras.package("pyarrow.csv").read_csv(stream)
        whole = stream if stream.seekable() else pyarrow.py_buffer(stream.read())
        file = extras.package("pyarrow.parquet").ParquetFile(whole)
        return pyarrow.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches())
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError) as error:
        raise ArgumentError(f"this cannot be read as {kind}: {error}") from error
