"""HTML views of logs, clients, histories, batches and messages. Each reads a bounded amount, however large the log is.

Everything that comes from a file is escaped. Colours are those of the surrounding page, so light and dark themes work.
"""

from __future__ import annotations

import contextlib
import html
import itertools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from pqlog import extras
from pqlog.clients import client_table, position_text
from pqlog.errors import DecodeError, Error, MissingExtraError
from pqlog.history import timeline
from pqlog.message import Message, from_micros
from pqlog.readable import selection_of
from pqlog.store.api import CachesSchema, EstimatesTopics, IsAFile, Store
from pqlog.store.values import Span
from pqlog.stream import Selection, TopicStream

if TYPE_CHECKING:
    from pqlog.batch import Batch
    from pqlog.clients import ClientInfo, Clients
    from pqlog.history import History
    from pqlog.log import Log
    from pqlog.topic import Topic

Shown = TypeVar("Shown")

LOOK = 20_000
"""How many messages are searched for those to show."""
SHOWN = 5
SHORT = 80
LONG = 10_000
"""How many characters of a value are shown: in a table, and once it is clicked on."""
BINS = 48
LISTED = 16
"""Of so many partitions the messages are shown, if they are counted by reading them."""
MOST_FIELDS = 200

_STYLE = """<style>
.pqlog { font-size: 13px; line-height: 1.45; max-width: 100%; overflow-x: auto; }
.pqlog table { border-collapse: collapse; margin: 4px 0 8px; font-size: 12px; }
.pqlog table th, .pqlog table td { padding: 2px 10px 2px 0; text-align: left !important; vertical-align: top;
  border: 0; white-space: normal; max-width: 520px; overflow-wrap: break-word; }
.pqlog table tr, .pqlog table tr:hover { background: none !important; }
.pqlog th { font-weight: 600; opacity: .65; white-space: nowrap; }
.pqlog table td.n, .pqlog table th.n { text-align: right !important; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
.pqlog tbody tr { border-top: 1px solid rgba(128,128,128,.22); }
.pqlog .head { font-weight: 600; } .pqlog .dim { opacity: .65; }
.pqlog .bar { display: inline-block; width: 90px; height: 8px; background: rgba(128,128,128,.25); border-radius: 2px; }
.pqlog .bar i { display: block; height: 8px; background: #3b82c4; border-radius: 2px; }
.pqlog svg rect { fill: #3b82c4; } .pqlog svg rect.off { fill: rgba(128,128,128,.35); }
.pqlog summary { cursor: pointer; list-style: none; } .pqlog summary::after { content: " …"; color: #3b82c4; }
.pqlog details[open] summary { opacity: .5; }
.pqlog pre { margin: 4px 0; white-space: pre-wrap; overflow-wrap: anywhere; font-size: 12px; background: none; }
.pqlog .wrong { color: #c0392b; }
.pqlog-explorer .widget-html, .pqlog-explorer .widget-html-content { min-width: 0; max-width: 100%; }
</style>"""


def page(*parts: str) -> str:
    """A view that consists of parts."""
    return f'{_STYLE}<div class="pqlog">{"".join(parts)}</div>'


def esc(text: object) -> str:
    """Text as HTML; control characters are shown as their names."""
    return html.escape("".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in str(text)))


def size(count: int) -> str:
    """A number of bytes, readable."""
    value = float(count)
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:,.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} GB"


def moment(when: datetime) -> str:
    """A time, readable, to the second."""
    return f"{when:%Y-%m-%d %H:%M:%S}"


def instant(when: datetime) -> str:
    """A time, readable, to the millisecond."""
    return when.isoformat(" ", "milliseconds").removesuffix("+00:00")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: frozenset[int] = frozenset()) -> str:
    """A table of cells that are HTML already."""

    def line(cells: Sequence[str], tag: str) -> str:
        return "".join(f"<{tag}{' class=n' if i in numbers else ''}>{cell}</{tag}>" for i, cell in enumerate(cells))

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return f"<table><thead><tr>{line(head, 'th')}</tr></thead><tbody>{body}</tbody></table>"


def as_text(value: object) -> str:
    """A payload as text: JSON if it can be encoded."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return repr(value)
    try:
        return msgspec.json.encode(value).decode()
    except Exception:  # a user's codec may return anything
        return repr(value)


def value_cell(value: object, short: int = SHORT) -> str:
    """A payload in a table: shortened, and in full after a click."""
    if value is None:
        return ""
    text = as_text(value)
    if len(text) <= short and "\n" not in text:
        return esc(text)
    rest = "" if len(text) <= LONG else f"\n({len(text) - LONG:,} more characters)"
    first = text[:short].replace("\n", " ")
    return f"<details><summary>{esc(first)}</summary><pre>{esc(text[:LONG])}{rest}</pre></details>"


def lag_bar(client: ClientInfo, messages: int) -> str:
    """How much of a topic a client has acknowledged."""
    done = 100.0 if not messages else 100.0 * max(0, messages - client.lag) / messages
    return f'<span class="bar" title="{done:.1f} %"><i style="width:{done:.1f}%"></i></span>'


def histogram(counts: Sequence[int], chosen: tuple[int, int] | None = None, width: int = 240, height: int = 28) -> str:
    """Messages over time, as inline SVG; bars outside of `chosen` are pale."""
    if not any(counts):
        return ""
    step, top = width / len(counts), max(counts)
    bars = []
    for index, count in enumerate(counts):
        tall = 0 if not count else max(1.5, height * count / top)
        pale = chosen is not None and not chosen[0] <= index < chosen[1]
        bars.append(
            f'<rect{" class=off" if pale else ""} x="{index * step:.1f}" y="{height - tall:.1f}" '
            f'width="{max(0.5, step - 1):.1f}" height="{tall:.1f}"><title>{count:,}</title></rect>'
        )
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" preserveAspectRatio="none" '
        f'style="max-width:100%">{"".join(bars)}</svg>'
    )


def messages_table(
    messages: Iterable[Message | DecodeError], short: int = SHORT, *, has_partitions: bool = False
) -> str:
    """Messages, with the fields of their payloads as columns; and the partition of each, if there are several."""
    found = list(messages)
    fields = columns_of(found)
    has_key = any(isinstance(m, Message) and m.key is not None for m in found)
    where = ["partition", "offset"] if has_partitions else ["offset"]
    head = [*where, "time", *(["key"] if has_key else []), *(esc(name) for name in fields)]
    rows = [
        [*([str(message.partition or 0)] if has_partitions else []), *_cells(message, fields, has_key, short)]
        for message in found
    ]
    return table(head, rows, frozenset(range(len(where))))


def columns_of(messages: Iterable[Message | DecodeError]) -> list[str]:
    """The fields of payloads that are objects, and "value" for others."""
    fields: dict[str, None] = {}
    for message in messages:
        if isinstance(message, Message):
            value = message.value
            fields |= dict.fromkeys(map(str, value) if isinstance(value, Mapping) else ["value"])
    return list(fields)[:40]


def field_of(message: Message, name: str) -> Any:
    """The value of one of those fields."""
    value = message.value
    if isinstance(value, Mapping):
        return value.get(name)
    return value if name == "value" else None


def _cells(message: Message | DecodeError, fields: Sequence[str], has_key: bool, short: int) -> list[str]:
    if isinstance(message, DecodeError):
        return [f"{message.offset:,}", f'<span class="wrong">{esc(message.reason)}</span>']
    cells = [f"{message.offset:,}", instant(message.time)]
    if has_key:
        cells.append(value_cell(message.key, short))
    return cells + [value_cell(field_of(message, name), short) for name in fields]


def read_some(stream: TopicStream, span: Span, count: int, key: str | None = None) -> list[Message | DecodeError]:
    """The first messages of a span; a message that cannot be decoded is replaced by its error."""
    found: list[Message | DecodeError] = []
    span = stream.part(span, 0, LOOK)
    while span and len(found) < count:
        part = stream.part(span, 0, 500)
        try:
            found += itertools.islice(stream.messages(stream.rows(part, key), key), count - len(found))
            span = Span(part.stop, span.stop)
        except DecodeError as error:
            found.append(error)
            span = Span(stream.behind(error) or span.stop, span.stop)
    return found


def _span_line(stream: TopicStream, span: Span) -> str:
    if not span:
        return '<span class="dim">no messages</span>'
    times, counts = timeline(stream.store, span, BINS)
    if not times:  # trimmed away
        return '<span class="dim">no messages left</span>'
    first, last = from_micros(times[0]), from_micros(times[-1])
    offsets = "" if stream.is_merged else f"offsets {span.first:,} to {stream.store.from_end(1, span):,}, "
    return (
        f'{stream.store.count(span):,} messages <span class="dim">{offsets}'
        f"{instant(first)} to {instant(last)} UTC</span><br>{histogram(counts)}"
    )


def size_of(log: Store) -> str:
    """The size of a log on the disk; empty if it is not in a file."""
    return size(log.size_bytes()) if isinstance(log, IsAFile) else ""


def _schema(stream: TopicStream) -> str:
    """The fields of a topic as far as the cache has them; no message is read."""
    topic = stream.store
    known = None
    is_kept = isinstance(topic, CachesSchema) and topic.cached_schema() is not None
    if is_kept or "pqlog.frames.schema_cache" in sys.modules:  # pyarrow takes a while to be loaded
        with contextlib.suppress(MissingExtraError):
            known = extras.schema_cache.lookup_topic(stream)
    if known is None:
        return '<span class="dim">not known yet: <code>.schema</code> reads the topic to find out</span>'
    fields = known.inference.schema()
    shown = "\n".join(f"{field.name}: {_type(field)}" for field in itertools.islice(fields, MOST_FIELDS))
    more = "" if len(fields) <= MOST_FIELDS else f"\n({len(fields) - MOST_FIELDS:,} more fields)"
    behind = topic.count(Span(known.span.stop, topic.span().stop))
    since = f' <span class="dim">{behind:,} message{"s" * (behind != 1)} put since</span>' if behind else ""
    return f"<details><summary>{len(fields):,} fields{since}</summary><pre>{esc(shown)}{more}</pre></details>"


def _type(field: Any) -> str:
    is_json = (field.metadata or {}).get(b"pqlog") == b"json"
    return "JSON" if is_json else str(field.type)[:SHORT]


def log_view(log: Log) -> str:
    """A log: its file, topics, and the clients of each."""
    store = log.store.log
    infos = store.topics()
    several = any(info.partitions > 1 for info in infos)
    parts = [
        f'<span class="head">{esc(log.path)}</span> <span class="dim">{size_of(store)}, {len(infos)} topics</span>'
    ]
    rows, clients = [], []
    records = {info.id: many for info, many in store.records()} if isinstance(store, EstimatesTopics) else {}
    for info in infos[:50]:
        if isinstance(store, EstimatesTopics):  # its topics would be read to be counted
            about = f"about {records.get(info.id, 0):,} records"
            rows.append(
                [esc(info.name), esc(info.codec), *([str(info.partitions)] if several else []), about, "", "", ""]
            )
            continue
        partitions = store.find_topic(info.name)
        if not partitions:  # it was deleted just now
            continue
        stream = TopicStream.of(partitions, None)
        topic = stream.store
        span = topic.span()
        count = topic.count(span)
        times, counts = timeline(topic, span, BINS) if count else ([], [])
        until = moment(from_micros(times[-1])) if times else ""
        over_time = histogram(counts, width=160, height=18)
        fields = _schema(stream) if count else ""
        kept = [*([str(len(partitions))] if several else []), f"{count:,}"]
        rows.append([esc(info.name), esc(info.codec), *kept, until, over_time, fields])
        clients += [(info.name, count, client) for client in client_table(partitions)]
    head = ["topic", "codec", *(["partitions"] if several else []), "messages"]
    numbers = frozenset(range(2, len(head)))
    parts.append(table([*head, "last put (UTC)", "over time", "schema"], rows, numbers))
    if clients:
        parts.append(
            table(
                ["client", "topic", "position", "lag", "", "last seen (UTC)"],
                [
                    [esc(repr(c.client)), esc(name), position_cell(c.position), f"{c.lag:,}", lag_bar(c, count),
                     moment(c.seen)]
                    for name, count, c in clients[:50]
                ],
                frozenset({2, 3}),
            )
        )  # fmt: skip
    return page(*parts)


def topic_view(topic: Topic) -> str:
    """A topic: its span, its latest messages, its clients."""
    stream = topic.stream
    span = topic.store.span()
    fields = _schema(stream) if span else ""
    recent = Span(topic.store.from_end(SHOWN, span), span.stop)
    return page(
        f'<span class="head">{esc(topic.name)}</span> <span class="dim">codec {esc(topic.codec)}</span><br>',
        _span_line(stream, span),
        _partitions(topic) if topic.partitions > 1 else "",
        messages_table(read_some(stream, recent, SHOWN), has_partitions=stream.has_partitions) if span else "",
        fields,
        clients_table(topic.clients()) if len(topic.clients()) else "",
    )


def _partitions(topic: Topic) -> str:
    """What each partition has."""
    if topic.partitions > LISTED and not topic.store.log.capabilities.exact_counts:
        return f'<span class="dim">{topic.partitions} partitions</span>'
    parts = [topic.partition(number) for number in range(topic.partitions)]
    rows = [
        [
            str(number),
            f"{len(part):,}",
            *("" if offset is None else f"{offset:,}" for offset in (part.first, part.last)),
        ]
        for number, part in enumerate(parts)
    ]
    shown = table(["partition", "messages", "first", "last"], rows, frozenset(range(4)))
    return f"<details><summary>{topic.partitions} partitions</summary>{shown}</details>"


def position_cell(position: int | Mapping[int, int]) -> str:
    """A position in a table; that of many partitions in short, and in full after a click."""
    text = position_text(position)
    if isinstance(position, int) or "..." not in text:
        return text
    all_of_it = "\n".join(f"{number}: {offset:,}" for number, offset in position.items())
    return f"<details><summary>{text}</summary><pre>{all_of_it}</pre></details>"


def clients_table(clients: Clients) -> str:
    """Clients, with bars of what they have acknowledged."""
    return table(
        ["client", "position", "lag", "", "batches", "open", "attempt", "last seen (UTC)"],
        [
            [
                esc(repr(c.client)),
                position_cell(c.position),
                f"{c.lag:,}",
                lag_bar(c, clients.messages),
                f"{c.batches:,}",
                f"{c.open}",
                f"{c.attempt or ''}",
                moment(c.seen),
            ]
            for c in clients
        ],
        frozenset({1, 2, 4, 5, 6}),
    )


def clients_view(clients: Clients) -> str:
    """The clients of a topic."""
    return page(clients_table(clients) if len(clients) else '<span class="dim">no client has read this topic</span>')


def history_view(history: History) -> str:
    """A history: its bounds, and its first messages."""
    selection = selection_of(history)
    return page(esc(repr(history)[1:-1]), "<br>", _messages_of(selection))


def batch_view(batch: Batch) -> str:
    """A batch: its boundaries, and its first messages."""
    return page(esc(repr(batch)[1:-1]), "<br>", _messages_of(selection_of(batch)))


def _messages_of(selection: Selection) -> str:
    stream, span, key = selection.topic, selection.span, selection.key
    if selection.latest is not None or selection.where is not None:
        return '<span class="dim">not computed yet: convert it to a frame</span>'
    found = read_some(stream, span, 2 * SHOWN, key)
    line = _span_line(stream, span) if key is None else ""
    where = stream.has_partitions
    none = f'<span class="dim">none in the first {min(stream.store.count(span), LOOK):,} messages</span>'
    return line + (messages_table(found, has_partitions=where) if found else none if span else "")


def message_view(message: Message) -> str:
    """A message, in full."""
    text = as_text(message.value)
    if isinstance(message.value, (Mapping, list)):
        text = msgspec.json.format(text, indent=2) if text[:1] in "{[" else text
    facts = [
        ("partition", f"{message.partition}"),
        ("offset", f"{message.offset:,}"),
        ("time", esc(message.time.isoformat())),
    ]
    facts += [("key", esc(message.key))] if message.key is not None else []
    facts += [(esc(name), esc(text)) for name, text in message.headers.items()]
    rest = "" if len(text) <= LONG else f"\n({len(text) - LONG:,} more characters)"
    rows = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in facts)
    return page(f"<table><tbody>{rows}</tbody></table><pre>{esc(text[:LONG])}{rest}</pre>")


def or_reason(view: Callable[[Shown], str], of: Shown) -> str:
    """A view, or the reason why it cannot be shown, for example that the log was closed."""
    try:
        return view(of)
    except Error as error:
        return page(f'<span class="wrong">{esc(error)}</span>')
