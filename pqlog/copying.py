"""Shipping and mirroring: the messages of topics of one log copied into another, exactly once."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from pqlog import check, extras, files
from pqlog.codecs import safe
from pqlog.copier import Choice
from pqlog.copies import ALL, Copies, chosen, lag
from pqlog.errors import (
    ArgumentError,
    CorruptLogError,
    Error,
    MovedError,
    NewerFormatError,
    NotALogError,
    ReadOnlyError,
    StoreError,
    UncertainError,
    UnsafeStorageError,
    UnsupportedError,
)
from pqlog.history import Time, time_of
from pqlog.log import Log
from pqlog.store.api import Store

TURN_S = 0.02
"""How long to wait where others are at work."""
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
"""How long a follower waits before it tries again, at first and at most."""

_FOR_GOOD = (CorruptLogError, MovedError, NewerFormatError, NotALogError, ReadOnlyError, UnsafeStorageError)
"""Problems of a store that do not pass by themselves."""

End = Log | str | os.PathLike[str]
"""A log, or what opens it."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What a call copied.

    Attributes
    ----------
    messages : int
        How many messages, by this call.
    topics : dict of str to int
        How many from each topic.
    trimmed : int
        How many were trimmed before they could be copied, as far as that is known.

    Examples
    --------
    >>> import pqlog
    >>> log = pqlog.open(":memory:")
    >>> log.put("a")
    1
    >>> log.ship(pqlog.open(":memory:"))
    Copied(messages=1, topics={'main': 1}, trimmed=0)
    """

    messages: int = 0
    topics: dict[str, int] = field(default_factory=dict)
    trimmed: int = 0


@dataclass(frozen=True, slots=True)
class CopyProgress:
    """How far a copy is.

    Attributes
    ----------
    messages : int
        How many messages were copied by this call.
    lag : int or None
        How many are still to be copied; None where that takes reading them.
    error : Error or None
        Why nothing can be copied at present; None while all is well.
    wait : float
        In how many seconds that is tried again.

    Examples
    --------
    >>> import pqlog
    >>> log = pqlog.open(":memory:")
    >>> log.put("a")
    1
    >>> copied = log.ship(pqlog.open(":memory:"), progress=print)
    CopyProgress(messages=0, lag=1, error=None, wait=0.0)
    CopyProgress(messages=1, lag=0, error=None, wait=0.0)
    """

    messages: int
    lag: int | None
    error: Error | None = None
    wait: float = 0.0


Report = Callable[[CopyProgress], object]


def mirror(
    source: End,
    path: End,
    topics: str | Sequence[str] = (ALL,),
    *,
    since: Time | None = None,
    start: int | None = None,
    key: str | None = None,
    codec: str | None = None,
    follow: bool = False,
    progress: bool | Report = False,
    config: files.Config | None = None,
    timeout: float | None = None,
) -> Copied:
    """Copy topics of another log, on a cluster say, into a local file, exactly once.

    Call it again to copy what has come since. It continues where it was, whatever ended it, also if several run at
    once: the position is in the file, and commits with the messages. It is `Log.ship` seen from the other end, which
    says what a copy is like.

    Parameters
    ----------
    source : str, os.PathLike or Log
        The other log; it is only read.
    path : str, os.PathLike or Log
        The file; created if it does not exist. `Log.ship` copies into a cluster.
    topics : str or sequence of str
        Names or patterns, as in ``"web.*"``; all topics by default.
    since : datetime, date, timedelta or str, optional
        Where a topic is copied for the first time, begin with the messages put at or after this time.
    start : int, optional
        The same with an offset: -1000 begins with the last thousand messages. One topic with one partition.
    key : str, optional
        Only messages with this key. A topic that is mirrored with a key stays with it in that file.
    codec : {"json", "msgpack", "bytes"}, optional
        What the values of other programs' topics are, which a cluster does not know: JSON unless said otherwise. A
        value that is something else is refused; what lies before it is copied.
    config
        For a cluster, as for `pqlog.open`.
    follow, progress, timeout
        As for `Log.ship`.

    Returns
    -------
    Copied

    Examples
    --------
    >>> import pathlib, pqlog, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> with pqlog.open(folder / "events.db") as log:
    ...     log.put_many([{"city": "Brno"}, {"city": "Praha"}, {"city": "Brno"}], key="city")
    Put(first=1, last=3, messages=3)
    >>> pqlog.mirror(folder / "events.db", folder / "local.db", key="Brno")
    Copied(messages=2, topics={'main': 2}, trimmed=0)
    >>> with pqlog.open(folder / "local.db") as local:
    ...     [message.headers["pqlog-offset"] for message in local]
    ['1', '3']
    """
    if since is not None and start is not None:
        raise ArgumentError("since and start both say where to begin: give one of them")
    if start is not None and (isinstance(start, bool) or not isinstance(start, int)):
        raise ArgumentError(f"start must be an offset, an int, not {start!r}")
    if key is not None:
        check.text("key", key) if isinstance(key, str) else check.name("key", key)
    begin = None if since is None else time_of(since, "since must be a time")
    choice = Choice(begin, start, key)
    if codec is not None:
        safe(codec)
    if files.is_cluster(path):
        raise UnsupportedError(f"a mirror is a file, and {path} is on a cluster: log.ship({path!r}) copies a log there")
    ends = _Ends(source, path, {"timeout": timeout, "config": config, "codec": codec}, {})
    return _run(_Run(ends, _patterns(topics), choice), follow, progress, "mirror")


def ship(
    source: End,
    target: End,
    topics: str | Sequence[str] | None,
    follow: bool,
    progress: bool | Report,
    options: Mapping[str, Any],
) -> Copied:
    """Copy topics of a log into another: see `Log.ship`. The source may be a path, which is opened read-only."""
    ends = _Ends(source, target, {}, options)
    return _run(_Run(ends, _patterns(ALL if topics is None else topics), Choice()), follow, progress, "ship")


def _patterns(topics: str | Sequence[str]) -> tuple[str, ...]:
    names = (topics,) if isinstance(topics, str) else tuple(topics)
    for name in names:
        check.name("a topic", name)
    return names


def _run(run: _Run, follow: bool, progress: bool | Report, what: str) -> Copied:
    copy = run.follow if follow else run.once
    if callable(progress):
        return copy(progress)
    with run.bar(what, progress) as report:
        return copy(report)


@dataclass(frozen=True)
class _Ends:
    """The two logs of a copy, opened where that is needed."""

    source: End
    target: End
    source_options: Mapping[str, Any]
    target_options: Mapping[str, Any]

    @contextlib.contextmanager
    def opened(self) -> Iterator[tuple[Store, Store]]:
        """Both, for as long as nothing breaks."""
        with (
            _opened(self.source, readonly=True, **self.source_options) as source,
            _opened(self.target, **self.target_options) as target,
        ):
            if source.uuid == target.uuid:
                raise ArgumentError(
                    f"{target.name} is {source.name} itself, or a copy of its file: a log cannot be copied into itself"
                )
            yield source, target


def _opened(end: End, **options: Any) -> AbstractContextManager[Store]:
    if isinstance(end, Log):
        return contextlib.nullcontext(end.stream.log)
    return contextlib.closing(files.opened(end, **options))


class _Run:
    """A call that copies, whatever happens to the logs meanwhile."""

    def __init__(self, ends: _Ends, patterns: Sequence[str], choice: Choice) -> None:
        self._ends, self._patterns, self._choice = ends, patterns, choice
        self._messages, self._trimmed = Counter[str](), 0
        self._warned: set[str] = set()
        self._places: dict[int, int] | None = None
        """Where the partitions were when it was last known."""

    @property
    def _copied(self) -> int:
        return self._messages.total()

    def _result(self) -> Copied:
        return Copied(self._copied, dict(sorted((+self._messages).items())), self._trimmed)

    @contextlib.contextmanager
    def bar(self, what: str, show: bool) -> Iterator[Report]:
        """A bar that moves with the reports."""
        done = 0
        with contextlib.ExitStack() as stack:
            move: Callable[[int], object] | None = None

            def report(progress: CopyProgress) -> None:
                nonlocal done, move
                if move is None:
                    total = None if progress.lag is None else progress.messages + progress.lag
                    move = stack.enter_context(extras.progress_bar(total, what, show))
                move(progress.messages - done)
                done = progress.messages

            yield report

    def once(self, report: Report) -> Copied:
        """Copy what is there now."""
        with self._ends.opened() as (source, target):
            copies = Copies(source, target, self._patterns, self._choice)
            refused = copies.find(must_exist=True)
            until = copies.ends()
            report(CopyProgress(self._copied, copies.lag()))
            while self._round(copies, until):
                report(CopyProgress(self._copied, copies.lag()))
            copies.note()
            refused += copies.problems()
        if refused:  # the others were copied
            raise refused[0]
        return self._result()

    def _round(self, copies: Copies, until: Mapping[int, int] | None = None) -> bool:
        """A batch of each partition; whether there may be more."""
        is_more, before = False, self._copied
        for copier, name, messages in copies.round(until):
            self._messages[name] += messages
            self._trimmed += copier.trimmed
            copier.trimmed = 0
            is_more = True
        if is_more and self._copied == before:
            time.sleep(TURN_S)
        return is_more

    def follow(self, report: Report) -> Copied:
        """Copy what is there and what comes, until it is interrupted; wait while one of the logs cannot be reached."""
        wait_s, failed = FIRST_WAIT_S, False
        while True:
            before = self._copied
            try:
                self._follow_while_it_works(report)
            except (StoreError, UncertainError) as error:
                if isinstance(error, _FOR_GOOD):
                    raise
                wait_s = min(2 * wait_s, LONGEST_WAIT_S) if failed and self._copied == before else FIRST_WAIT_S
                failed = True
                report(CopyProgress(self._copied, self._lag_alone(), error, wait_s))
            time.sleep(wait_s)

    def _find(self, copies: Copies) -> None:
        """Add new topics; warn of those that cannot be copied, which do not hold up the others."""
        self._warn(copies.find())

    def _warn(self, errors: Sequence[Error]) -> None:
        for error in errors:
            if str(error) not in self._warned:
                self._warned.add(str(error))
                check.warn(str(error))

    def _follow_while_it_works(self, report: Report) -> None:
        with self._ends.opened() as (source, target):
            copies = Copies(source, target, self._patterns, self._choice)
            try:
                self._find(copies)
                report(CopyProgress(self._copied, copies.lag()))
                while True:
                    while self._round(copies):
                        report(CopyProgress(self._copied, copies.lag()))
                    problems = copies.problems()
                    self._warn(problems)
                    report(CopyProgress(self._copied, copies.lag() if problems else 0))
                    copies.wait()
                    self._find(copies)
            finally:
                self._places = copies.places() or self._places

    def _lag_alone(self) -> int | None:
        """How many messages wait, while the target may be away: from the last known places on."""
        with contextlib.suppress(Error), _opened(self._ends.source, readonly=True, **self._ends.source_options) as log:
            if self._places is not None:
                return lag(log, chosen(log, self._patterns), self._places)
        return None
