"""The explorer: a widget that shows the messages of a file, follows it as it grows, and gives a selection as a frame.

The widgets are created once; afterwards only their values change. Every handler holds a lock, since Jupyter may run two
at once, and shows its own errors, since the page would not.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import ipywidgets as widgets

from pqlog.client import target_of
from pqlog.clients import position_text
from pqlog.errors import ArgumentError, DecodeError, UnknownTopicError
from pqlog.history import History, timeline
from pqlog.log import Log
from pqlog.message import Message, from_micros
from pqlog.notebook import views
from pqlog.partition import Messages
from pqlog.readable import selection_of
from pqlog.store.api import ClientStore
from pqlog.store.values import Span
from pqlog.stream import existing_topic
from pqlog.topic import Topic

if TYPE_CHECKING:
    import pandas


F = TypeVar("F", bound=Callable[..., Any])

ROWS = 20
"""Messages on a page."""
BINS = 60
SEARCH = 100_000
"""Messages that one search reads; "Search further" reads as many again."""
TAIL_MS = 500


def _guarded(handler: F) -> F:
    """A handler that shows its error, and runs only while no other does."""

    @functools.wraps(handler)
    def run(self: Explorer, *arguments: Any) -> Any:
        with self._lock:
            try:
                self._say("")
                return handler(self, *arguments)
            except Exception as error:
                self._say(f"{type(error).__name__}: {error}")
                return None

    return run  # type: ignore[return-value]


class Explorer(widgets.VBox):  # type: ignore[misc]
    """What ``log.explore()`` shows.

    Attributes
    ----------
    frame : pandas.DataFrame
        The selection: the topic's messages in the chosen range of time that match the search.

    Examples
    --------
    >>> import pqlog
    >>> log = pqlog.open(":memory:")
    >>> log.put_many({"n": n} for n in range(100))
    Put(first=1, last=100, messages=100)
    >>> explorer = log.explore()
    >>> explorer.search("n = 7")
    >>> explorer.frame["n"].tolist()
    [7]
    """

    def __init__(self, topic: Topic) -> None:
        self._lock = threading.RLock()
        self._topic = self._opened = topic
        self._log = topic.store.log
        self._offering = False
        self._page = 0
        self._times: list[int] = []
        self._counts: list[int] = []
        self._matches: list[Message] | None = None
        self._searched_to = 0
        self._moves: list[tuple[ClientStore, int]] = []
        """What the user is asked to confirm: the client to move, in each partition, and where to."""
        self._make()
        super().__init__(self._parts())
        self.add_class("pqlog-explorer")
        self._load()

    # the parts

    def _make(self) -> None:
        wide, full = widgets.Layout(width="auto"), widgets.Layout(width="auto", min_width="0")
        self._topics = widgets.Dropdown(description="Topic", layout=widgets.Layout(width="260px"))
        self._partition = widgets.Dropdown(description="Partition", layout=widgets.Layout(width="160px"))
        self._refresh = widgets.Button(description="Refresh", icon="refresh", layout=wide)
        self._tail = widgets.Play(
            interval=TAIL_MS, min=0, max=2**31 - 1, show_repeat=False, tooltip="Follow the topic", layout=wide
        )
        self._tail_label = widgets.Label("Live tail")
        self._summary = widgets.HTML(layout=full)
        self._plot = widgets.HTML(layout=full)
        self._range = widgets.IntRangeSlider(
            min=0, max=BINS, value=(0, BINS), readout=False, continuous_update=False,
            layout=widgets.Layout(width="auto", max_width="860px"),
        )  # fmt: skip
        self._range_label = widgets.HTML(layout=full)
        self._query = widgets.Text(
            placeholder='text, or field = value, or key = "name"',
            continuous_update=False,
            layout=widgets.Layout(width="320px"),
        )
        self._search = widgets.Button(description="Search", icon="search", layout=wide)
        self._search_on = widgets.Button(description="Search further", layout=wide)
        self._clear = widgets.Button(description="Clear", layout=wide)
        self._sort = widgets.Dropdown(description="Sort page", layout=widgets.Layout(width="240px"))
        self._down = widgets.ToggleButton(value=False, description="descending", layout=wide)
        self._table = widgets.HTML(layout=full)
        self._first, self._back, self._next, self._last = (
            widgets.Button(description=text, layout=wide) for text in ("First", "Back", "Next", "Last")
        )
        self._where = widgets.Label()
        self._clients = widgets.HTML(layout=full)
        self._client = widgets.Dropdown(description="Client", layout=widgets.Layout(width="240px"))
        self._to = widgets.Text(placeholder='offset, time, "start" or "end"', layout=widgets.Layout(width="220px"))
        self._seek = widgets.Button(description="Seek …", layout=wide)
        self._question = widgets.Label()
        self._confirm = widgets.Button(description="Move it", button_style="warning", layout=wide)
        self._cancel = widgets.Button(description="Cancel", layout=wide)
        self._ask = widgets.HBox([self._question, self._confirm, self._cancel], layout=widgets.Layout(display="none"))
        self._code_button = widgets.Button(description="Code for this selection", icon="code", layout=wide)
        self._code = widgets.HTML(layout=full)
        self._error = widgets.HTML(layout=full)

        self._list_topics()
        self._list_partitions()
        self._topics.observe(self._choose_topic, "value")
        self._partition.observe(self._choose_partition, "value")
        self._refresh.on_click(self._reload)
        self._tail.observe(self._tick, "value")
        self._range.observe(self._narrow, "value")
        self._query.observe(self._do_search, "value")  # Enter, or leaving the field
        self._search.on_click(self._do_search)
        self._search_on.on_click(self._do_search_on)
        self._clear.on_click(self._do_clear)
        self._sort.observe(self._resort, "value")
        self._down.observe(self._resort, "value")
        for button, where in ((self._first, "first"), (self._back, "back"), (self._next, "next"), (self._last, "last")):
            button.on_click(functools.partial(self._turn, where))
        self._seek.on_click(self._ask_seek)
        self._confirm.on_click(self._do_seek)
        self._cancel.on_click(self._do_cancel)
        self._code_button.on_click(self._show_code)

    def _parts(self) -> list[widgets.Widget]:
        line = widgets.Layout(flex_flow="row wrap", align_items="center")
        writes = [widgets.HBox([self._client, self._to, self._seek], layout=line), self._ask]
        return [
            widgets.HBox([self._topics, self._partition, self._refresh, self._tail, self._tail_label], layout=line),
            self._summary,
            self._error,
            self._plot,
            self._range,
            self._range_label,
            widgets.HBox([self._query, self._search, self._search_on, self._clear], layout=line),
            widgets.HBox([self._sort, self._down], layout=line),
            self._table,
            widgets.HBox([self._first, self._back, self._next, self._last, self._where], layout=line),
            widgets.HBox([self._code_button], layout=line),
            self._code,
            self._clients,
            *(writes if self._topic_writes() else []),
        ]

    def _topic_writes(self) -> bool:
        return not self._log.readonly

    # what is selected

    @property
    def _read(self) -> Messages:
        """What is read: the topic, or the partition of it that was chosen."""
        number = self._partition.value
        return self._topic if number is None else self._topic.partition(number)

    @property
    def _bounds(self) -> tuple[datetime | None, datetime | None]:
        """The chosen range of time, as far as it has bounds."""
        low, high = self._range.value
        since = from_micros(self._times[low]) if low > 0 and self._times else None
        return since, from_micros(self._times[high]) if high < BINS and self._times else None

    def _history(self, key: str | None = None) -> History:
        since, until = self._bounds
        return self._read.history(since=since, until=until, key=key)

    @property
    def _span(self) -> Span:
        """The messages in the chosen range of time."""
        return selection_of(self._history()).span

    def _count(self, span: Span) -> int:
        return self._read.store.count(span)

    @property
    def frame(self) -> pandas.DataFrame:
        """The selection as a DataFrame."""
        with self._lock:
            wanted = _Query.of(self._query.value) if self._matches is not None else _Query()
            history = self._history(wanted.key)
            frame = history.to_pandas()
            if wanted.is_all:
                return frame
            found = {(message.partition or 0, message.offset) for message in history if wanted.fits(message)}
            partitions = frame["_partition"] if self._read.stream.has_partitions else [0] * len(frame)
            return frame[[where in found for where in zip(partitions, frame.index, strict=True)]]

    def search(self, query: str) -> None:
        """Search for messages: a text, ``field = value``, or ``key = name``."""
        if self._query.value == query:
            self._do_search()
        else:
            self._query.value = query  # which searches

    # handlers

    @_guarded
    def _load(self) -> None:
        if self._topics.value is None:  # a log on a cluster need not have the topic that it stands for
            hint = ": choose one above" if self._topics.options else ""
            self._say(f"UnknownTopicError: {UnknownTopicError(self._topic.name, ())}{hint}")
            return
        self._show_timeline()
        self._show_page()
        self._show_clients()

    @_guarded
    def _reload(self, *_: object) -> None:
        self._list_topics()
        self._load()

    def _list_topics(self) -> None:
        """Offer the topics that there are; the one that is shown stays chosen, whatever its name is now."""
        ids = {info.name: info.id for info in self._log.topics()}
        shown = self._topic.store.info.id
        self._offering = True  # setting options chooses the first, which nobody asked for
        try:
            self._topics.options = list(ids.items())
            self._topics.value = shown if shown in ids.values() else None  # None: it was deleted
        finally:
            self._offering = False

    def _list_partitions(self) -> None:
        """Offer the partitions of the topic that is shown, if it has several; all of them are shown at first."""
        count = self._topic.partitions
        self._offering = True
        try:
            self._partition.options = [("all", None), *((str(number), number) for number in range(count))]
            self._partition.value = None
        finally:
            self._offering = False
        self._partition.layout.display = "none" if count == 1 else None

    @_guarded
    def _choose_topic(self, change: Any) -> None:
        chosen = change["new"]
        if self._offering or chosen in (None, self._topic.store.info.id):
            return
        self._topic = self._opened if chosen == self._opened.store.info.id else self._other(self._topics.label)
        self._list_partitions()
        self._show_from_start()

    @_guarded
    def _choose_partition(self, *_: object) -> None:
        if not self._offering:
            self._show_from_start()

    def _show_from_start(self) -> None:
        self._do_cancel()
        self._page, self._matches = 0, None
        self._range.value = (0, BINS)
        self._load()

    def _other(self, name: str) -> Topic:
        """Another topic of the log; it must exist."""
        return Topic(self._opened.stream.sibling(existing_topic(self._log, name)[0].info.name, "json"))

    @_guarded
    def _tick(self, *_: object) -> None:
        """One step of the live tail: if there are new messages, show the last page."""
        before = self._where.value
        self._show_timeline()
        span = self._span
        self._page = max(0, (self._count(span) - 1) // ROWS)
        if self._position(span) != before:
            self._matches = None
            self._show_page()
            self._show_clients()

    @_guarded
    def _narrow(self, *_: object) -> None:
        self._page, self._matches = 0, None
        self._show_timeline(recount=False)
        self._show_page()

    @_guarded
    def _do_search(self, *_: object) -> None:
        wanted = _Query.of(self._query.value)
        self._page = 0
        if wanted.is_nothing:
            self._matches = None
        else:
            self._matches, self._searched_to = [], self._span.first
            self._look(wanted)
        self._show_page()

    @_guarded
    def _do_search_on(self, *_: object) -> None:
        if self._matches is not None:
            self._look(_Query.of(self._query.value))
            self._show_page()

    @_guarded
    def _do_clear(self, *_: object) -> None:
        self._query.value, self._matches, self._page = "", None, 0
        self._show_page()

    @_guarded
    def _resort(self, *_: object) -> None:
        self._show_page()

    @_guarded
    def _turn(self, where: str, *_: object) -> None:
        last = self._pages() - 1
        self._page = {"first": 0, "back": self._page - 1, "next": self._page + 1, "last": last}[where]
        self._show_page()

    @_guarded
    def _ask_seek(self, *_: object) -> None:
        client, to = self._client.value, self._to.value.strip()
        if client is None:
            self._say("there is no client to move")
            return
        target = int(to) if to.lstrip("-").isdigit() else to
        reader, number = self._topic.client(client), self._partition.value
        chosen = [one for one in reader.partitions if number in (None, one.number)]
        if isinstance(target, int) and len(chosen) > 1:
            raise ArgumentError(
                f"the topic has {len(chosen)} partitions, each with offsets of its own: choose one first"
            )
        position, again, skipped = reader.position, 0, 0
        positions = position if isinstance(position, dict) else {0: position}
        goals: dict[int, int] = {}
        for one in chosen:
            kept, before = one.store.span(), positions[one.number]
            goals[one.number] = goal = min(max(target_of(one.store, target), kept.first), kept.stop)
            again += one.store.count(Span(goal, before))
            skipped += one.store.count(Span(before, goal))
        self._moves = [(one.client, goals[one.number]) for one in chosen]
        of = "" if number is None else f" in partition {number}"
        old, new = (
            position_text(by_partition if len(chosen) > 1 else by_partition[chosen[0].number])
            for by_partition in (positions, goals)
        )
        self._question.value = (
            f"Move {client!r}{of} from {old} to {new}? {again:,} messages will be redelivered, {skipped:,} skipped."
        )
        self._ask.layout.display = ""

    @_guarded
    def _do_seek(self, *_: object) -> None:
        if self._moves:
            self._log.seek(self._moves)
        self._do_cancel()
        self._show_clients()

    @_guarded
    def _do_cancel(self, *_: object) -> None:
        self._moves, self._ask.layout.display = [], "none"

    @_guarded
    def _show_code(self, *_: object) -> None:
        self._code.value = self._code_view()

    def _code_view(self) -> str:
        return views.page(f"<pre>{views.esc(self.code)}</pre>")

    # showing

    def _say(self, error: str) -> None:
        self._error.value = views.page(f'<span class="wrong">{views.esc(error)}</span>') if error else ""

    def _show_timeline(self, recount: bool = True) -> None:
        topic = self._read.store
        kept = topic.span()
        if recount:
            self._times, self._counts = timeline(topic, kept, BINS) if kept else ([], [])
        low, high = self._range.value
        size = views.size_of(self._log)
        path = views.esc(self._log.name)
        head = f'<span class="head" title="{path}">{views.esc(os.path.basename(self._log.name))}</span>'
        self._summary.value = views.page(f'{head} <span class="dim">{size}, {self._count(kept):,} messages</span>')
        self._plot.value = views.page(views.histogram(self._counts, (low, high), width=860, height=64))
        if self._times:
            since, until = (views.instant(from_micros(self._times[index])) for index in (low, high))
            text = f"{since} to {until} UTC, {self._count(self._span):,} messages"
            self._range_label.value = views.page(f'<span class="dim">{text}</span>')
        else:
            self._range_label.value = ""

    def _show_page(self) -> None:
        self._page = min(max(0, self._page), self._pages() - 1)
        span = self._span
        start = self._page * ROWS
        found: Sequence[Message | DecodeError]
        if self._matches is not None:
            found = self._matches[start : start + ROWS]
        else:
            found = views.read_some(self._read.stream, self._read.stream.part(span, start, ROWS), ROWS)
        several = self._read.stream.has_partitions
        self._offer_columns([*(["time", "partition", "offset"] if several else ["offset", "time"]), "key"], found)
        order = sorted(
            range(len(found)),
            key=lambda index: _rank(found[index], index, self._sort.value),
            reverse=self._down.value,
        )
        shown = views.messages_table([found[index] for index in order], short=60, has_partitions=several)
        none = "No messages yet." if not span else "No message matches."
        self._table.value = views.page(shown if found else f'<p class="dim">{none}</p>')
        self._where.value = self._position(span)
        if self._code.value:  # it is shown: keep it in step with the selection
            self._code.value = self._code_view()
        self._search_on.disabled = self._matches is None or self._searched_to >= span.stop

    def _offer_columns(self, metadata: Sequence[str], found: Sequence[Message | DecodeError]) -> None:
        """Offer to sort a page by any of its columns; unless somebody chose one, it is in the order of the topic."""
        names, before = [*metadata, *views.columns_of(found)], list(self._sort.options)
        if before != names:
            chosen = self._sort.value
            self._sort.options = names
            self._sort.value = chosen if chosen in names and before[0] == names[0] else names[0]

    def _position(self, span: Span) -> str:
        pages = f"page {self._page + 1:,} of {self._pages():,}"
        if self._matches is None:
            return f"{pages}, {self._count(span):,} messages"
        looked = self._count(Span(span.first, self._searched_to))
        return f"{pages}, {len(self._matches):,} found in {looked:,} of {self._count(span):,} messages"

    def _pages(self) -> int:
        count = self._count(self._span) if self._matches is None else len(self._matches)
        return max(1, -(-count // ROWS))

    def _show_clients(self) -> None:
        found = self._topic.clients()
        self._clients.value = views.clients_view(found)
        names = [client.client for client in found]
        if list(self._client.options) != names:
            chosen = self._client.value
            self._client.options = names
            self._client.value = chosen if chosen in names else next(iter(names), None)

    # searching

    def _look(self, wanted: _Query) -> None:
        stream = self._read.stream
        part = stream.part(Span(self._searched_to, self._span.stop), 0, SEARCH)
        key = None if stream.is_merged else wanted.key  # a key is read from its own partition
        assert self._matches is not None
        self._matches += filter(wanted.fits, stream.messages(stream.rows(part, key), key))
        self._searched_to = part.stop

    # code

    @property
    def code(self) -> str:
        """Python code for the same selection without the explorer."""
        opened = self._topic is self._opened and isinstance(self._opened, Log)
        topic = "log" if opened else f"log.topic({self._topic.name!r})"
        if self._partition.value is not None:
            topic += f".partition({self._partition.value})"
        times = zip(("since", "until"), self._bounds, strict=True)
        bounds = [f"{name}={time.isoformat()!r}" for name, time in times if time is not None]
        wanted = _Query.of(self._query.value) if self._matches is not None else _Query()
        if wanted.key is not None:
            bounds.append(f"key={wanted.key!r}")
        lines = [f"frame = {topic}.history({', '.join(bounds)}).to_pandas()"]
        if wanted.field is not None:
            lines.append(f"frame = frame[frame[{wanted.field!r}].astype(str) == {wanted.text!r}]")
        elif wanted.text:
            lines.append(f"frame = frame[frame.astype(str).apply(lambda row: row.str.contains({wanted.text!r}, "
                         f"case=False, regex=False).any(), axis=1)]")  # fmt: skip
        return "\n".join(lines)

    def __repr__(self) -> str:
        """In a plain terminal: the page as text."""
        if self._topics.value is None:
            return f"no topic chosen: the log has {', '.join(label for label, _ in self._topics.options) or 'none'}"
        frame = self.frame
        return f"{self._topic.name}: {len(frame):,} messages\n{frame.head(ROWS)}"


class _Query:
    """What to search for: a text anywhere, the value of a field, or a key."""

    def __init__(self, text: str = "", field: str | None = None, key: str | None = None) -> None:
        self.text, self.field, self.key = text, field, key

    @classmethod
    def of(cls, query: str) -> _Query:
        name, equals, value = query.partition("=")
        name, value = name.strip(), value.strip().strip("\"'")
        if equals and name == "key":
            return cls(key=value)
        if equals and name and " " not in name:
            return cls(value, field=name)
        return cls(query.strip())

    @property
    def is_nothing(self) -> bool:
        return not self.text and self.field is None and self.key is None

    @property
    def is_all(self) -> bool:
        """Whether it matches every message with the key."""
        return not self.text and self.field is None

    def fits(self, message: Message) -> bool:
        if self.key is not None and message.key != self.key:
            return False
        if self.field is not None:
            return views.as_text(views.field_of(message, self.field)) == self.text
        return self.is_all or self.text.lower() in views.as_text(message.value).lower()


def _rank(one: Message | DecodeError, index: int, name: str) -> tuple[int, Any]:
    """The rank of a message in a sorted page, given its index before: numbers, then text, then missing values."""
    if isinstance(one, DecodeError):
        return 3, index
    metadata = {"time": index, "partition": one.partition, "offset": one.offset, "key": one.key}
    value = metadata[name] if name in metadata else views.field_of(one, name)
    if isinstance(value, (int, float)) and value == value:
        return 0, value
    return (2, index) if value is None else (1, views.as_text(value))
