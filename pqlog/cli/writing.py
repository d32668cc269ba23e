"""The command `put`, and the inputs that it reads."""

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
    writes=True,
)
def put(
    file: app.NewFile,
    values: Annotated[
        list[str] | None, typer.Argument(metavar="VALUE", help="JSON values.", show_default=False)
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from", help="A file to read; - for standard input, which is also the default.", show_default=False
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="ndjson, csv, parquet, or json for one array; by default from the file's extension.",
            show_default=False,
        ),
    ] = None,
    topic: app.Topic = "main",
    text: Annotated[bool, typer.Option("--text", help="Each value or line is plain text, not JSON.")] = False,
    key: Annotated[
        str | None, typer.Option(help="The field to use as the key of each message.", show_default=False)
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE, added to every message; can be repeated.", show_default=False)
    ] = None,
    id: Annotated[
        str | None,
        typer.Option(help="Put only once under this id, however often the command is repeated.", show_default=False),
    ] = None,
    ids: Annotated[
        str | None,
        typer.Option(
            "--ids",
            help="The field to use as the id of each message; messages whose id was put before are skipped.",
            show_default=False,
        ),
    ] = None,
    each: Annotated[
        bool, typer.Option("--each", help="Put each line as soon as it arrives, for an input that does not end.")
    ] = False,
    as_json: app.AsJson = False,
) -> None:
    """Put messages into a log.

    They are values, lines of a file or of standard input, or the rows of a CSV or Parquet file. All or nothing, unless
    --each is given. When the command returns, they survive a power failure.
    """
    if values and source is not None:
        raise ArgumentError("give either values or --from, not both")
    kind = format or _KIND.get(Path(source or "").suffix.lower(), "ndjson")
    if kind not in ("ndjson", "csv", "parquet", "json"):
        raise ArgumentError(f"--format must be ndjson, csv, parquet or json, not {kind!r}")
    if text and kind != "ndjson":
        raise ArgumentError(f"--text is for values and lines, not for {kind}")
    headers, options = app.pairs(header), app.at(file)
    if values:
        found: Any = [argument if text else _value(argument, f"value {n}") for n, argument in enumerate(values, 1)]
    else:
        stream = _stream(source)  # before the log is created
        found = _lines(stream, text) if kind == "ndjson" else _items(stream) if kind == "json" else _table(stream, kind)
    with pqlog.open(file, topic, **options) as log:
        if each:
            _put_each(log, found, key, headers, id, ids, as_json)
        else:
            progress = app.is_watched() and not values and not (source is None and sys.stdin.isatty())
            put = log.put_many(found, key=key, headers=headers, id=id, progress=progress, ids=ids)
            _report(log, put, as_json, ids)


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
        raise ArgumentError("--id identifies the whole call, so it cannot be combined with --each")
    whole: pqlog.Put | None = None  # other processes may put in between
    try:
        for value in values:
            put = log.put_many([value], key=key, headers=headers, ids=ids)
            if put.messages and whole is not None:
                first, last = _or(whole.first, put.first), _or(put.last, whole.last)
                put = pqlog.Put(first, last, whole.messages + put.messages)
            if put.messages:
                whole = put
    finally:
        _report(log, whole or log.put_many([]), as_json, ids)


def _or(offset: Any, other: Any) -> Any:
    """An offset rather than another; of several partitions, for each of them."""
    return {**other, **offset} if isinstance(offset, dict) else offset


def _report(log: pqlog.Log, put: pqlog.Put, as_json: bool, ids: str | None) -> None:
    if as_json:
        output.line(
            output.json_text({"topic": log.name, "first": put.first, "last": put.last, "messages": put.messages})
        )
    elif not put.messages:
        output.say("no messages" if ids is None else "no messages with new ids")
    elif isinstance(put.last, dict):
        where = [f"offset {offset} of partition {partition}" for partition, offset in put.last.items()]
        many = f"{output.count(put.messages, 'message')} in {output.count(len(where), 'partition')}"
        output.say(f"{where[0] if put.messages == 1 else many} of topic {log.name!r}")
    elif put.messages == 1:
        output.say(f"offset {put.first} of topic {log.name!r}")
    else:
        output.say(f"{output.count(put.messages, 'message')}, offsets {put.first} to {put.last} of topic {log.name!r}")


def _stream(source: str | None) -> IO[bytes]:
    if source is None and sys.stdin.isatty():
        output.complain("reading lines from the terminal: Ctrl-D to finish, Ctrl-C to cancel")
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
        raise ArgumentError(f"the input is not one JSON array: {error}") from error
    if not isinstance(found, list):
        raise ArgumentError(f"--format json takes one JSON array, but this is a {type(found).__name__}")
    return found


def _value(text: str, what: str) -> Any:
    try:
        return _JSON.decode(text.encode())
    except UNDECODABLE as error:
        shown = text if len(text) < 60 else text[:57] + "..."
        raise ArgumentError(
            f"{what} is not JSON: {shown!r} ({error}). JSON strings need quotes, '\"{shown[:9]}\"'; --text takes "
            f"plain text; --format json reads one array that spans many lines"
        ) from error


def _table(stream: IO[bytes], kind: str) -> Any:
    """Read a CSV in full, so that the type of a column fits all lines; read Parquet as a stream of batches."""
    pyarrow = extras.package("pyarrow")
    extras.load("frames")
    try:
        if kind == "csv":
            return extras.package("pyarrow.csv").read_csv(stream)
        whole = stream if stream.seekable() else pyarrow.py_buffer(stream.read())
        file = extras.package("pyarrow.parquet").ParquetFile(whole)
        return pyarrow.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches())
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError) as error:
        raise ArgumentError(f"the input cannot be read as {kind}: {error}") from error
