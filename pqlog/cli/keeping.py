"""Commands about the log itself: its contents, its clients, seeking, trimming, checking, converting."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

import pqlog
from pqlog import check, extras, files
from pqlog.cli import app, output
from pqlog.errors import ArgumentError, UnknownClientError, UnknownTopicError
from pqlog.message import from_micros
from pqlog.partition import Messages
from pqlog.store.api import EstimatesTopics, ReadsForeignTopics
from pqlog.store.values import MAX_PARTITIONS, TopicInfo

HOUR = 3600 * 1_000_000
"""In microseconds."""

Old = Annotated[str, typer.Argument(metavar="OLD", help="The old file; it is not changed.", show_default=False)]
New = Annotated[str, typer.Argument(metavar="NEW", help="The new file.", show_default=False)]


@app.command(
    app.THE_LOG, "topics", "pqlog topics events.db", "pqlog topics events.db --json", "pqlog topics events.db --count"
)
def topics(
    file: app.File,
    as_json: app.AsJson = False,
    count: Annotated[
        bool, typer.Option("--count", help="On a cluster: count the messages too, which reads some of them.")
    ] = False,
) -> None:
    """List the topics. For each: the number of messages, and the first and the last offset of each partition.

    Of topics on a cluster, it lists about how many records each has: a record is a message, or a segment of a frame.
    """
    with app.whole(file) as log:
        store = log.store.log
        found = list[dict[str, Any]]()
        if isinstance(store, EstimatesTopics) and not count:
            found += [_in_records(info, records) for info, records in store.records()]
        else:
            topics = _topics(log)
            for topic in topics:
                with contextlib.suppress(UnknownTopicError):  # somebody deleted it just now
                    found.append(_listed(topic, _have_partitions(topics)))
    output.records(found, as_json, "no topics")


def _listed(topic: pqlog.Topic, has_partitions: bool) -> dict[str, Any]:
    return {
        "topic": topic.name,
        "codec": topic.codec,
        **({"partitions": topic.partitions} if has_partitions else {}),
        "messages": len(topic),
        "first": _offsets(topic, lambda partition: partition.first),
        "last": _offsets(topic, lambda partition: partition.last),
        "clients": len(topic.clients()),
    }


def _in_records(info: TopicInfo, records: int) -> dict[str, Any]:
    """A topic whose messages are not counted."""
    return {"topic": info.name, "codec": info.codec, "partitions": info.partitions, "records": records}


@app.command(
    app.THE_LOG,
    "create-topic",
    "pqlog create-topic events.db orders --partitions 8",
    writes=True,
)
def create_topic(
    file: app.NewFile,
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The new topic.", show_default=False)],
    partitions: Annotated[
        int, typer.Option(min=1, max=MAX_PARTITIONS, help="How many partitions it has, for ever.")
    ] = 1,
) -> None:
    """Create a topic, for JSON. Messages with the same key go to the same partition; `put` creates topics with one."""
    with pqlog.open(file, topic, partitions=partitions, **app.at(file)):
        output.say(f"topic {topic!r} has {output.count(partitions, 'partition')}")


@app.command(app.THE_LOG, "schema", "pqlog schema events.db", "pqlog schema events.db --json")
def schema(
    file: app.File,
    topic: app.Topic = "main",
    as_json: app.AsJson = False,
    trust_pickle: app.TrustPickle = False,
    codec: app.Codec = None,
) -> None:
    """List the fields of a topic and their types.

    The types are Arrow's; nested and mixed values are JSON text. Only messages that the cached schema lacks are read.
    """
    with app.opened(file, topic, trust_pickle=trust_pickle, codec=codec) as log:
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
    "pqlog clients events.db --topic main --partitions",
)
def clients(
    file: app.File,
    topic: Annotated[
        str | None, typer.Option("--topic", "-t", help="Only clients of this topic.", show_default=False)
    ] = None,
    by_partition: Annotated[bool, typer.Option("--partitions", help="A line for each partition.")] = False,
    as_json: app.AsJson = False,
) -> None:
    """List the clients. For each: the position, the lag, and when it was last seen."""
    with app.whole(file) if topic is None else app.opened(file, topic) as log:
        topics = _topics(log) if topic is None else [log]
        if by_partition:
            output.records(_by_partition(topics), as_json, "no clients")
            return
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
            for one in topics
            for client in one.clients()
        ]
    output.records(found, as_json, "no clients")


def _by_partition(topics: Sequence[pqlog.Topic]) -> list[dict[str, Any]]:
    """Where each client stands in each partition."""
    return [
        {
            "topic": one.name,
            "client": client.client,
            "partition": number,
            "position": client.position[number] if isinstance(client.position, dict) else client.position,
            "lag": lag,
        }
        for one in topics
        for client in one.clients()
        for number, lag in one.client(client.client).lag_by_partition.items()
    ]


@app.command(app.THE_LOG, "claims", "pqlog claims events.db etl")
def claims(file: app.File, client: app.Client, topic: app.Topic = "main", as_json: app.AsJson = False) -> None:
    """List the open batches of a client. For each: its holder, and why it failed the last time."""
    with app.opened(file, topic) as log:
        found = [
            {
                **({"partition": claim.partition} if log.partitions > 1 else {}),
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
    "pqlog seek events.db billing 2 --partition 0",
    negative=True,
    writes=True,
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
    partition: app.Partition = None,
    as_json: app.AsJson = False,
) -> None:
    """Move a client to an offset or a time.

    Its open batches are cancelled. A new client is created.
    """
    with app.existing(file, topic) as log:
        names = [known.client for known in log.clients()]
        similar = check.near(client, names)
        if client not in names and similar:
            raise UnknownClientError(client, topic, similar)
        moved = log.client(client).seek(app.place(to), partition=partition)
    if as_json:
        output.line(output.json_text({"position": moved.position, "again": moved.again, "skipped": moved.skipped}))
        return
    new, position = "" if client in names else "new ", moved.position
    where = (
        f"position {position:,}" if isinstance(position, int) else f"a position in each of {len(position)} partitions"
    )
    if partition is not None and not isinstance(position, int):
        where = f"position {position[partition]:,} of partition {partition}"
    output.say(
        f"{new}client {client!r} is at {where}: {output.count(moved.again, 'message')} will be redelivered, "
        f"{moved.skipped:,} skipped"
    )


@app.command(app.THE_LOG, "delete-client", "pqlog delete-client events.db billing", writes=True)
def delete_client(file: app.File, client: app.Client, topic: app.Topic = "main") -> None:
    """Delete a client and its position. If it reads again, it begins at the start."""
    with app.existing(file, topic) as log:
        log.client(client).delete()
    output.say(f"client {client!r} deleted")


@app.command(app.THE_LOG, "rename-topic", "pqlog rename-topic events.db raw original", writes=True)
def rename_topic(
    file: app.File,
    old: Annotated[str, typer.Argument(metavar="OLD", help="The topic.", show_default=False)],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The new name.", show_default=False)],
) -> None:
    """Rename a topic. Its messages and clients stay."""
    with app.whole(file, write=True) as log:
        log.rename_topic(old, new)
    output.say(f"topic {old!r} renamed to {new!r}")


@app.command(app.THE_LOG, "delete-topic", "pqlog delete-topic events.db raw --force", writes=True)
def delete_topic(
    file: app.File,
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The topic.", show_default=False)],
    force: Annotated[
        bool, typer.Option("--force", help="Delete it even if a client has not acknowledged all of it.")
    ] = False,
) -> None:
    """Delete a topic. Its messages and clients are deleted too, and their disk space is freed."""
    with app.existing(file, topic) as log:
        others = [name for name in log.topics() if name != topic]
    if not others:
        instead = "create another one first" if files.is_cluster(file) else "delete the file instead"
        raise ArgumentError(f"{topic!r} is the only topic: {instead}")
    with app.opened(file, others[0], write=True) as log:
        log.delete_topic(topic, force=force)
    output.say(f"topic {topic!r} deleted")


@app.command(app.THE_LOG, "stats", "pqlog stats events.db", "pqlog stats events.db --json")
def stats(file: app.File, as_json: app.AsJson = False) -> None:
    """Summarize a log. Shows its size, its topics, recent messages, and the largest lag of a client.

    Of topics on a cluster, it shows about how many records there are: a record is a message, or a segment of a frame.
    """
    with app.whole(file) as log:
        store = log.store.log
        found = _stats_of_a_cluster(log, store) if isinstance(store, EstimatesTopics) else _stats_of_a_file(log)
    if as_json:
        output.line(output.json_text(found))
        return
    output.facts({name: value for name, value in found.items() if name != "topics"})
    output.line("")
    output.records(found["topics"], False, "no topics")


def _stats_of_a_file(log: pqlog.Log) -> dict[str, Any]:
    topics = _topics(log)
    return {
        "file": os.path.abspath(log.path),
        "uuid": log.uuid,
        "bytes": log.size_bytes(),
        "messages": sum(map(len, topics)),
        "topics": [_topic_stats(topic, _have_partitions(topics)) for topic in topics],
    }


def _stats_of_a_cluster(log: pqlog.Log, store: EstimatesTopics) -> dict[str, Any]:
    """What is known without counting: of a log of ours, also the clients."""
    now = time.time_ns() // 1000
    records = store.records()
    hour, day = ({info.id: many for info, many in store.records(now - age)} for age in (HOUR, 24 * HOUR))
    is_ours = not (isinstance(store, ReadsForeignTopics) and store.is_foreign)
    topics = []
    for info, many in records:
        clients = log.topic(info.name, codec=info.codec).clients() if is_ours else ()
        lags = {"clients": len(clients), "largest_lag": max((client.lag for client in clients), default=0)}
        recent = {"last_hour": hour.get(info.id, 0), "last_day": day.get(info.id, 0)}
        topics.append({**_in_records(info, many), **recent, **(lags if is_ours else {})})
    return {"cluster": log.path, "uuid": log.uuid, "records": sum(many for _, many in records), "topics": topics}


def _topics(log: pqlog.Log) -> list[pqlog.Topic]:
    found = list[pqlog.Topic]()
    for name in log.topics():
        with contextlib.suppress(UnknownTopicError):  # somebody deleted it just now
            found.append(log.topic(name))
    return found


def _have_partitions(topics: Sequence[pqlog.Topic]) -> bool:
    """Whether any topic has several; where none has, nothing is said of partitions."""
    return any(topic.partitions > 1 for topic in topics)


def _offsets(topic: pqlog.Topic, offset_of: Callable[[Messages], int | None]) -> int | dict[int, int] | None:
    """An offset of a topic; of several partitions, that of each which has one."""
    if topic.partitions == 1:
        return offset_of(topic)
    found = {number: offset_of(topic.partition(number)) for number in range(topic.partitions)}
    return {number: offset for number, offset in found.items() if offset is not None}


def _topic_stats(topic: pqlog.Topic, has_partitions: bool) -> dict[str, Any]:
    lags = [client.lag for client in topic.clients()]
    kept = topic.store.span()
    return {
        "topic": topic.name,
        **({"partitions": {n: len(topic.partition(n)) for n in range(topic.partitions)}} if has_partitions else {}),
        "messages": len(topic),
        "from": _time(topic, kept.first),
        "to": _time(topic, topic.store.from_end(1, kept)),
        "last_hour": len(topic.history(since="1h")),
        "last_day": len(topic.history(since="1d")),
        "clients": len(lags),
        "largest_lag": max(lags, default=0),
    }


def _time(topic: pqlog.Topic, offset: int) -> datetime | None:
    """When a message was put, if there is one; works with every codec."""
    micros = topic.store.time_at(offset)
    return None if micros is None else from_micros(micros)


@app.command(
    app.THE_LOG,
    "trim",
    "pqlog trim events.db 2",
    "pqlog trim events.db 30d --json",
    "pqlog trim events.db -1 --force",
    negative=True,
    writes=True,
)
def trim(
    file: app.File,
    before: Annotated[
        str,
        typer.Argument(metavar="BEFORE", help="The first offset to keep (-5: keep the last five), or a time."),
    ],
    topic: app.Topic = "main",
    partition: app.Partition = None,
    force: Annotated[
        bool, typer.Option("--force", help="Delete also messages that a client has not acknowledged.")
    ] = False,
    as_json: app.AsJson = False,
) -> None:
    """Delete old messages. Deletes those before an offset or a time, and frees their disk space."""
    with app.existing(file, topic) as log:
        trimmed = app.part(log, partition)
        dropped = trimmed.trim(app.place(before), force=force)
        kept = len(trimmed)
    if as_json:
        output.line(output.json_text({"dropped": dropped, "kept": kept}))
    else:
        output.say(f"{output.count(dropped, 'message')} dropped, {kept:,} kept")


@app.command(
    app.THE_LOG,
    "seal",
    "pqlog seal events.db",
    "pqlog seal events.db 1h --json",
    negative=True,
    writes=True,
)
def seal(
    file: app.File,
    before: Annotated[
        str | None,
        typer.Argument(metavar="BEFORE", help="The first offset that stays as it is (-5: the last five), or a time."),
    ] = None,
    topic: app.Topic = "main",
    partition: app.Partition = None,
    as_json: app.AsJson = False,
) -> None:
    """Keep old messages in columns. They take a tenth of the space, and read as before."""
    with app.existing(file, topic) as log:
        messages = app.part(log, partition)
        sealed = messages.seal(None if before is None else app.place(before), progress=app.is_watched())
    if as_json:
        output.line(output.json_text({"sealed": sealed}))
    else:
        output.say(f"{output.count(sealed, 'message')} sealed")


@app.command(app.THE_LOG, "compact", "pqlog compact events.db", config=False)
def compact(file: app.File) -> None:
    """Free the disk space of half-empty pages. Puts wait until it is done."""
    app.check_is_a_file("compact", file)
    with app.whole(file, write=True) as log:
        freed = log.compact()
    output.say(f"{output.count(freed, 'byte')} freed, {Path(file).stat().st_size:,} in use")


@app.command(app.THE_LOG, "verify", "pqlog verify events.db", "pqlog verify events.db --json", config=False)
def verify(file: app.File, as_json: app.AsJson = False) -> None:
    """Check the whole file for damage.

    It reads SQLite's structures, the clients, and every message with its checksum. The exit code is 1 if the file is
    damaged.
    """
    app.check_is_a_file("verify", file)
    with app.whole(file) as log:
        messages = sum(map(len, _topics(log)))
        problems = log.verify(progress=app.is_watched())
    if as_json:
        output.line(output.json_text({"messages": messages, "problems": problems}))
    else:
        output.lines(map(output.harmless, problems or [f"{file} is intact: {output.count(messages, 'message')}"]))
    if problems:
        raise typer.Exit(1)


@app.command(app.THE_LOG, "salvage", "pqlog salvage events.db rescued.db", config=False)
def salvage(old: Old, new: New, as_json: app.AsJson = False) -> None:
    """Copy the intact messages of a damaged log. They go to a new file."""
    app.check_is_a_file("salvage", old, new)
    found = pqlog.salvage(old, new, progress=app.is_watched())
    if as_json:
        lost = {topic: [[run.start, run.stop] for run in runs] for topic, runs in found.lost.items()}
        output.line(output.json_text({"messages": found.messages, "lost": lost, "problems": found.problems}))
        return
    output.say(f"{output.count(found.messages, 'message')} copied to {new}")
    for topic, runs in found.lost.items():
        which = ", ".join(f"{run.start} to {run.stop - 1}" if len(run) > 1 else str(run.start) for run in runs)
        output.say(f"topic {topic!r}: lost offset{'s' * (sum(map(len, runs)) > 1)} {which} of the old file")
    output.lines(map(output.harmless, found.problems))


@app.command(app.THE_LOG, "migrate", "pqlog migrate old.db new.db --trust-pickle", config=False)
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
        bool, typer.Option("--trust-pickle", help="Unpickle, which can run any code: only for files you trust.")
    ] = False,
    as_json: app.AsJson = False,
) -> None:
    """Convert a queue of another library to a log.

    It reads files of persistent-queue-log and persist-queue. If interrupted, run it again to continue.
    """
    app.check_is_a_file("migrate", old, new)
    done = pqlog.migrate(old, new, trust_pickle=trust_pickle, progress=app.is_watched())
    if as_json:
        output.line(output.json_text(dataclasses.asdict(done)))
        return
    output.say(f"{output.count(done.messages, 'message')} copied from {done.program} to {new}, read back and compared")
    for topic, codec in done.topics.items():
        hint = "" if codec == "json" else f": open it with codec={codec!r}, or --trust-pickle in a shell"
        output.say(f"topic {topic!r} has the codec {codec}{hint}")
    their = "its position" if done.clients == 1 else "their positions"
    output.say(f"{output.count(done.clients, 'client')} copied, with {their}")
    output.lines(map(output.harmless, done.notes))


@app.command(app.THE_LOG, "demo", "pqlog demo --folder demo", config=False)
def demo(
    folder: Annotated[
        str | None, typer.Option(help="Where to write; a new temporary folder by default.", show_default=False)
    ] = None,
) -> None:
    """Run a demo with real flights. It kills a process halfway, and draws a picture at the end."""
    extras.package("matplotlib")
    output.flush()
    if extras.demo.main([] if folder is None else ["--folder", folder]):
        raise typer.Exit(1)
