"""Commands that read messages: get, tail, export, sql, explore."""

from __future__ import annotations

import contextlib
import functools
import gzip
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Annotated, Any

import typer

import pqlog
from pqlog import atomic, check, extras, fields, files
from pqlog.cli import app, output
from pqlog.delivery import TICK_S
from pqlog.errors import ArgumentError, DecodeError, UnsupportedError
from pqlog.message import Message
from pqlog.readable import selection_of
from pqlog.store.values import Span
from pqlog.stream import Selection

Metadata = Annotated[
    bool, typer.Option("--metadata", "-m", help="Print whole messages: offset, time, key, headers, value.")
]
Limit = Annotated[
    int | None, typer.Option("--limit", "-n", min=0, help="Print at most this many messages.", show_default=False)
]


@app.command(
    app.MESSAGES,
    "get",
    "pqlog get events.db --since 1h",
    "pqlog get events.db --field city --field amount",
    "pqlog get events.db --where \"amount > 300 and city like 'B%'\"",
    "pqlog get events.db --client billing --limit 10",
    "pqlog get events.db --client etl --batch 1000 > part.ndjson",
    writes=True,
)
def get(
    file: app.File,
    topic: app.Topic = "main",
    partition: app.Partition = None,
    client: Annotated[
        str | None,
        typer.Option(
            "--client", "-c", help="Print and acknowledge what this client has not acknowledged.", show_default=False
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="With --client: acknowledge this many at a time; much faster.", show_default=False),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="With --client: wait for more messages.")] = False,
    since: app.Since = None,
    until: app.Until = None,
    start: app.Start = None,
    stop: app.Stop = None,
    key: app.Key = None,
    where: app.Where = None,
    field: app.Fields = None,
    metadata: Metadata = False,
    limit: Limit = None,
    trust_pickle: app.TrustPickle = False,
    codec: app.Codec = None,
) -> None:
    """Print messages, one line of JSON each.

    By default it prints all messages, or a range of them; with --client, those that the client has not acknowledged. A
    message is acknowledged when its line has been written. If interrupted, run it again to continue.
    """
    if client is None:
        if batch is not None or follow:
            raise ArgumentError("--batch and --follow need --client; `pqlog tail -f` follows without one")
        with app.opened(file, topic, trust_pickle=trust_pickle, codec=codec) as log:
            shown = _shower(metadata, field, log.partitions > 1)
            history = app.part(log, partition).history(start, stop, since=since, until=until, key=key, where=where)
            _check_fields(field, itertools.islice(history, limit))
            output.lines(map(shown, itertools.islice(history, limit)))
        return
    if any(given is not None for given in (partition, since, until, start, stop, key, where)):
        raise ArgumentError(
            "--client reads from the client's position, so it takes no range and no partition: `pqlog seek` moves a "
            "client"
        )
    with app.existing(file, topic, trust_pickle=trust_pickle) as log:
        shown = _shower(metadata, field, log.partitions > 1)
        _check_fields(field, log, grows=follow)
        if batch is None:
            _one_by_one(log, client, follow, limit, shown)
        else:
            _by_batches(log, client, batch, follow, limit, shown)


def _one_by_one(log: pqlog.Log, client: str, follow: bool, limit: int | None, shown: Callable[[Message], str]) -> None:
    if limit == 0:
        return
    reader = log.client(client)
    messages = reader.get_blocking(messages=True) if follow else reader.get(messages=True)
    for count, message in enumerate(messages, 1):
        output.line(shown(message))
        if count == limit:
            reader.ack(message)  # asking for the next message would acknowledge too, but also hand out another
            return


def _by_batches(
    log: pqlog.Log, client: str, size: int, follow: bool, limit: int | None, shown: Callable[[Message], str]
) -> None:
    left = limit
    while left is None or left > 0:
        reading = log.batches(client, size if left is None else min(size, left), follow=follow, messages=True)
        for batch in reading:
            with batch:
                output.lines(map(shown, batch))
            if left is not None:
                left -= len(batch)
                break
        else:
            return


def _shower(metadata: bool, asked: list[str] | None, has_partitions: bool = False) -> Callable[[Message], str]:
    """How to print a message."""
    if metadata and asked:
        raise ArgumentError("--metadata prints whole messages and cannot be combined with --field")
    if metadata:
        return functools.partial(output.message_json, has_partitions=has_partitions)
    if not asked:
        return lambda message: output.json_text(message.value)
    return lambda message: output.json_text({field: _field(message.value, field) for field in asked})


def _check_fields(asked: list[str] | None, messages: Iterable[Message], grows: bool = False) -> None:
    """Raise for a field that no message has, before printing anything; only warn when waiting for more messages."""
    try:
        unknown = fields.unknown(asked, (message.value for message in messages), fields.paths) if asked else None
    except DecodeError:  # raised again when that message is printed
        return
    if unknown is not None and not grows:
        raise ArgumentError(unknown.said)
    if unknown is not None and unknown.near:
        check.warn(unknown.said)


def _field(value: Any, field: str) -> Any:
    """A field of a value, possibly nested (``outer.inner``); None if the value does not have it."""
    if isinstance(value, dict) and field not in value and "." in field:
        outer, _, inner = field.partition(".")
        return _field(value.get(outer), inner)
    return value.get(field) if isinstance(value, dict) else None


@app.command(
    app.MESSAGES,
    "tail",
    "pqlog tail events.db",
    "pqlog tail events.db -n 100 --metadata",
    "pqlog tail -f events.db --field city",
    "pqlog tail events.db --where 'amount >= 300'",
)
def tail(
    file: app.File,
    topic: app.Topic = "main",
    partition: app.Partition = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="How many messages.")] = 10,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more messages, until Ctrl-C.")] = False,
    where: app.Where = None,
    field: app.Fields = None,
    metadata: Metadata = False,
    trust_pickle: app.TrustPickle = False,
    codec: app.Codec = None,
) -> None:
    """Print the last messages. One line of JSON each; no client is moved."""
    with app.opened(file, topic, trust_pickle=trust_pickle, codec=codec) as log:
        shown = _shower(metadata, field, log.partitions > 1)
        everything = selection_of(app.part(log, partition).history(where=where))
        last = _last(everything, limit)
        _check_fields(field, _messages(everything) if follow else last, grows=follow)
        output.lines(map(shown, last))
        if follow:
            for message in _behind(everything):
                output.line(shown(message))


def _last(selection: Selection, limit: int) -> list[Message]:
    """The last messages of a selection."""
    if selection.where is not None:
        return list(itertools.islice(extras.matching.messages_backwards(selection), limit))[::-1]
    stream, span = selection.topic, selection.span
    return list(stream.messages(stream.rows(Span(stream.store.from_end(limit, span), span.stop)))) if limit else []


def _messages(selection: Selection) -> Iterator[Message]:
    """The messages of a selection."""
    if selection.where is None:
        yield from selection.topic.messages(selection.topic.rows(selection.span))
    else:
        for rows, offsets in extras.matching.matching_rows(selection):
            yield from selection.topic.messages(rows, at=offsets)


def _behind(selection: Selection) -> Iterator[Message]:
    """The messages behind a selection that it would have, as they come; never ends."""
    stream, at = selection.topic, selection.span.stop

    def has_more() -> bool:
        return stream.store.span().stop > at

    while True:
        stream.store.log.wait(has_more, None, TICK_S)
        kept = stream.store.span()
        yield from _messages(selection._replace(span=Span(at, kept.stop)))
        at = kept.stop


@app.command(
    app.MESSAGES,
    "export",
    "pqlog export events.db flights.parquet",
    "pqlog export events.db dataset --since 7d",
    "pqlog export events.db errors.csv --where \"level = 'error'\"",
    "pqlog export events.db amounts.csv --field city --field amount",
    "pqlog export events.db - --format csv | head -3",
)
def export(
    file: app.File,
    out: Annotated[
        str, typer.Argument(metavar="OUT", help="A file, a folder for a Parquet dataset, or - for standard output.")
    ],
    topic: app.Topic = "main",
    partition: app.Partition = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format", help="parquet, csv, tsv or ndjson; by default from the extension of OUT.", show_default=False
        ),
    ] = None,
    since: app.Since = None,
    until: app.Until = None,
    start: app.Start = None,
    stop: app.Stop = None,
    key: app.Key = None,
    where: app.Where = None,
    field: app.Fields = None,
    flatten: Annotated[bool, typer.Option(help="Turn nested objects into columns named outer.inner.")] = False,
    trust_pickle: app.TrustPickle = False,
    codec: app.Codec = None,
) -> None:
    """Export messages as Parquet, CSV or NDJSON.

    It uses little memory. A file appears complete or not at all. A folder becomes a Parquet dataset; run it again to
    add new messages.
    """
    if files.is_cluster(out):
        raise UnsupportedError(f"`pqlog export` writes files: `pqlog ship {file} {out}` copies a log to a cluster")
    if out != "-":
        check.path("OUT", out)
    is_folder = not Path(out).suffix or out.endswith(os.sep) or os.path.isdir(out)
    kind = format or _kind(out, is_folder)
    if kind not in _WRITERS:
        raise ArgumentError(f"--format must be parquet, csv, tsv or ndjson, not {kind!r}")
    with app.opened(file, topic, trust_pickle=trust_pickle, codec=codec) as log:
        history = app.part(log, partition).history(start, stop, since=since, until=until, key=key, where=where)
        progress = app.is_watched() and out != "-"
        if kind == "parquet" and is_folder and out != "-":
            written = history.to_parquet(out, columns=field, flatten=flatten, progress=progress)
            output.say(f"{output.count(len(written), 'file')} written to {out}")
            return
        with _appearing(out) as target, _packed(target, out) as sink:
            messages = _WRITERS[kind](history, sink, field, flatten, progress)
        if out != "-":
            output.say(f"{output.count(messages, 'message')} written to {out}")


_KIND = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "ndjson",
}
"""The format for each extension; all but Parquet may be followed by ``.gz`` for compression."""


def _kind(out: str, is_folder: bool) -> str:
    if out == "-":
        return "ndjson"
    if is_folder:
        return "parquet"
    packed = out.lower().endswith(".gz")
    kind = _KIND.get(Path(out[:-3] if packed else out).suffix.lower())
    if kind is None or (packed and kind == "parquet"):
        raise ArgumentError(
            f"{out!r} does not have an extension of a known format: use {', '.join(_KIND)} (all but the first may be "
            f"followed by .gz), or give --format"
        )
    return kind


@contextlib.contextmanager
def _packed(target: IO[bytes], out: str) -> Iterator[IO[bytes]]:
    if not out.lower().endswith(".gz"):
        yield target
        return
    with gzip.GzipFile(fileobj=target, mode="wb", filename="") as packed:
        yield packed  # type: ignore[misc]


@contextlib.contextmanager
def _appearing(out: str) -> Iterator[IO[bytes]]:
    """A file that gets its name once it is complete and durable; or standard output."""
    if out == "-":
        yield sys.stdout.buffer
        output.flush()
        return
    folder = os.path.dirname(os.path.abspath(out))
    if not os.path.isdir(folder):
        raise ArgumentError(f"the folder {folder} does not exist: create it first")
    with atomic.workplace(out) as place:
        made = os.path.join(place, "new")
        with open(made, "wb") as file:
            yield file
        atomic.appear(made, out, replace=True)


def _ndjson(history: pqlog.History, target: IO[bytes], field: list[str] | None, flatten: bool, progress: bool) -> int:
    shown = _shower(False, field)
    _check_fields(field, history)
    count = 0
    with extras.progress_bar(selection_of(history).total() if progress else None, "export", progress) as report:
        for message in history:
            _write(target, shown(message).encode() + b"\n")
            count += 1
            report(1)
    return count


def _csv(
    history: pqlog.History,
    target: IO[bytes],
    field: list[str] | None,
    flatten: bool,
    progress: bool,
    delimiter: str = ",",
) -> int:
    csv = extras.package("pyarrow.csv")
    batches = history.to_batches(columns=field, flatten=flatten, progress=progress)
    tables = (extras.export.csv_table(extras.package("pyarrow").Table.from_batches([batch])) for batch in batches)
    schema = extras.export.csv_table(batches.schema.empty_table()).schema
    options = csv.WriteOptions(delimiter=delimiter)
    with _Piped(target) as sink, csv.CSVWriter(sink, schema, write_options=options) as writer:
        return _tables(tables, writer)


def _parquet(history: pqlog.History, target: IO[bytes], field: list[str] | None, flatten: bool, progress: bool) -> int:
    parquet = extras.package("pyarrow.parquet")
    batches = history.to_batches(columns=field, flatten=flatten, progress=progress)
    schema = extras.export.parquet_schema(batches.schema)
    made = (extras.package("pyarrow").Table.from_batches([batch]) for batch in batches)
    with parquet.ParquetWriter(target, schema, compression="zstd") as writer:
        return _tables((extras.export.parquet_table(table, schema) for table in made), writer)


def _tables(tables: Any, writer: Any) -> int:
    """Write Arrow tables; return the number of messages."""
    count = 0
    for table in tables:
        writer.write_table(table)
        count += table.num_rows
    return count


_WRITERS: dict[str, Callable[..., int]] = {
    "parquet": _parquet,
    "csv": _csv,
    "tsv": functools.partial(_csv, delimiter="\t"),
    "ndjson": _ndjson,
}


class _Piped:
    """A sink for tables; on a terminal, control characters are escaped."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target, self._shown = target, target.isatty()
        self.closed = False

    def write(self, data: bytes) -> int:
        """Write bytes."""
        text = bytes(data)
        if self._shown:
            text = "\n".join(map(output.harmless, text.decode().split("\n"))).encode()
        _write(self._target, text)
        return len(data)

    def flush(self) -> None:
        """Nothing is buffered."""

    def __enter__(self) -> _Piped:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True


def _write(target: IO[bytes], data: bytes) -> None:
    with output.writing() if target is sys.stdout.buffer else contextlib.nullcontext():
        target.write(data)


@app.command(
    app.MESSAGES,
    "sql",
    'pqlog sql events.db "select count(*) from log"',
    'pqlog sql events.db "select city, sum(amount) as total from log group by city order by total desc" --json',
)
def sql(
    file: app.File,
    query: Annotated[
        str, typer.Argument(metavar="QUERY", help="Topics are tables; log is the one of --topic.", show_default=False)
    ],
    topic: app.Topic = "main",
    as_json: app.AsJson = False,
    external_access: Annotated[
        bool, typer.Option("--external-access", help="Let the query read and write other files.")
    ] = False,
    codec: app.Codec = None,
) -> None:
    """Query the topics in SQL, by DuckDB.

    Only the columns and the ranges that the query needs are read. It cannot change the log.
    """
    with app.opened(file, topic, codec=codec) as log:
        relation = log.sql(query, external_access=external_access)
        names = relation.columns
        rows = [dict(zip(names, row, strict=True)) for row in relation.fetchall()]
    output.records(rows, as_json, "no rows")


@app.command(app.MESSAGES, "explore", "pqlog explore events.db", "pqlog explore events.db -- --no-browser --port=8899")
def explore(
    file: app.File,
    jupyter: Annotated[
        list[str] | None, typer.Argument(metavar="OPTION", help="Options for JupyterLab.", show_default=False)
    ] = None,
    notebook: Annotated[
        str | None, typer.Option(help="The notebook; FILE-explore.ipynb in this folder by default.", show_default=False)
    ] = None,
    topic: Annotated[
        str | None, typer.Option("--topic", "-t", help="The topic that is shown first.", show_default=False)
    ] = None,
    codec: app.Codec = None,
) -> None:
    """Open JupyterLab with the explorer of a log.

    It creates a notebook; an existing one is opened unchanged.
    """
    options = app.at(file)
    with app.whole(file) if topic is None else app.opened(file, topic, codec=codec) as log:
        names = log.topics()
        topic = log.name if log.name in names else next(iter(names), log.name)
    extras.package("jupyterlab")
    extras.load("notebook.explorer")
    is_cluster = files.is_cluster(file)
    path = Path(notebook or f"{topic if is_cluster else Path(file).stem}-explore.ipynb")
    if not path.exists():
        place = file if is_cluster else os.path.abspath(file)
        path.write_text(json.dumps(_notebook(place, topic, codec, options.get("config")), indent=1) + "\n")
    output.flush()
    # exec, so that Ctrl-C goes to JupyterLab
    os.execv(sys.executable, [sys.executable, "-m", "jupyterlab", str(path.absolute()), *(jupyter or ())])  # noqa: S606


def _notebook(file: str, topic: str, codec: str | None, config: str | None) -> dict[str, Any]:
    more = "" if codec is None else f", {codec!r}"
    more += ", readonly=True" if config is None else f", readonly=True, config={os.path.abspath(config)!r}"
    cells = [
        ("markdown", f"# {Path(file).name}\n\n`log` is open for reading only: this notebook cannot change it."),
        ("code", f"import pqlog\n\nlog = pqlog.open({file!r}, {topic!r}{more})\nlog"),
        ("code", "explorer = log.explore()\nexplorer"),
        ("code", "explorer.frame  # the selection above, as a DataFrame"),
    ]
    extra: dict[str, dict[str, Any]] = {"markdown": {}, "code": {"execution_count": None, "outputs": []}}
    return {
        "cells": [
            {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": text, **extra[kind]}
            for number, (kind, text) in enumerate(cells)
        ],
        "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
