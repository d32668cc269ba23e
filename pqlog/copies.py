"""Copies: all partitions of the topics of a log that are chosen, copied into another log."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from pqlog import check
from pqlog.copier import Choice, Copier, position_of
from pqlog.errors import (
    ArgumentError,
    CodecMismatchError,
    DecodeError,
    Error,
    PartitionsError,
    TooLargeError,
    UnknownTopicError,
)
from pqlog.store.api import Store, TopicStore
from pqlog.store.values import Span, TopicInfo
from pqlog.stream import near_topics

TICK_S = 0.1
"""How often a file is asked for messages that another process put, where the system does not tell."""
ALL = "*"
"""The pattern of all topics, if there are any."""
LOOK_S = 2.0
"""How often a follower looks for topics that are new."""
RETRY_S = 60.0
"""After how long a follower tries a message again that could not be copied."""


class _Stuck(NamedTuple):
    """Why a partition cannot be copied further, and when that is tried again."""

    error: Error
    until: float


class Copies:
    """The copiers of all partitions of the topics that are chosen."""

    def __init__(self, source: Store, target: Store, patterns: Sequence[str], choice: Choice) -> None:
        self._source, self._target, self._patterns, self._choice = source, target, patterns, choice
        self._copiers: dict[int, Copier] = {}
        self._refused: dict[int, Error] = {}
        self._stuck: dict[int, _Stuck] = {}
        self._missing: set[str] = set()

    def find(self, must_exist: bool = False) -> list[Error]:
        """Add the topics that are new; why some of them, which are told once, cannot be copied."""
        found = chosen(self._source, self._patterns)
        names = {info.name for info in found}
        for name in self._patterns:
            if must_exist and name not in names and not _is_pattern(name):
                raise UnknownTopicError(name, near_topics(self._source, name))
            if name != ALL and not any(_fits(one, name) for one in names):
                self._tell_missing(name)
        refused = dict[int, Error]()
        for info in found:
            if info.id not in self._copiers:
                try:
                    self._add(self._source.find_topic(info.name))
                except (CodecMismatchError, PartitionsError) as error:
                    refused[info.id] = error
        new = [error for id, error in refused.items() if id not in self._refused]
        self._refused = refused
        if new and not self._copiers:
            raise new[0]
        return new

    def _tell_missing(self, name: str) -> None:
        """Warn once of a name or a pattern that no topic has: one may come, and it may be misspelt."""
        if name not in self._missing:
            self._missing.add(name)
            check.warn(f"no topic of {self._source.name} {'fits' if _is_pattern(name) else 'has the name'} {name!r}")

    def _add(self, partitions: Sequence[TopicStore]) -> None:
        if not partitions:  # it was deleted just now
            return
        name = partitions[0].info.name
        if self._choice.start is not None:
            if len(partitions) > 1:
                raise PartitionsError.of_start(name, len(partitions))
            if self._copiers:
                raise ArgumentError("start is an offset of one topic: name the topic, or give a time with since=")
        into = self._into(partitions)
        for source in partitions:
            copier = Copier(source, into[source.info.partition], into[0].info.id, self._choice)
            self._copiers[source.info.id] = copier

    def _into(self, partitions: Sequence[TopicStore]) -> Sequence[TopicStore]:
        """The topic that one is copied into: that of the last time, whatever the two are called by now."""
        info, into = partitions[0].info, self._last_into(partitions)
        if into is None:
            into = self._target.topic(info.name, info.codec, len(partitions))
        name, there = into[0].info.name, self._target.name
        if into[0].info.codec != info.codec:
            raise CodecMismatchError.of_copy(name, info.codec, into[0].info.codec, there)
        if len(into) < len(partitions):
            raise PartitionsError.of_copy(name, len(partitions), len(into), there)
        return into

    def _last_into(self, partitions: Sequence[TopicStore]) -> Sequence[TopicStore] | None:
        positions = (position_of(self._target, one)[0] for one in partitions)
        ids = {position.into for position in positions if position is not None}
        names = (info.name for info in self._target.topics() if info.id in ids)
        return next((found for name in names if (found := self._target.find_topic(name))), None)

    def round(self, until: Mapping[int, int] | None) -> Iterator[tuple[Copier, str, int]]:
        """A batch of each partition that has one, and that is not yet at an offset: how many messages it had.

        A partition with a message that cannot be copied does not hold up the others.
        """
        for id, copier in list(self._copiers.items()):
            if self._rests(id) or (until is not None and copier.at >= until.get(id, 0)):
                continue
            try:
                messages = copier.step()
            except (ArgumentError, DecodeError, TooLargeError) as error:
                self._stuck[id] = _Stuck(error, time.monotonic() + RETRY_S)
                continue
            except UnknownTopicError:
                if _is_there(copier.source):
                    raise  # that of the target is not
                del self._copiers[id]
                self._stuck.pop(id, None)
                continue
            self._stuck.pop(id, None)
            if messages is not None:
                yield copier, copier.source.info.name, messages

    def _rests(self, id: int) -> bool:
        return id in self._stuck and time.monotonic() < self._stuck[id].until

    def problems(self) -> list[Error]:
        """Why some partitions cannot be copied further; raises if none can."""
        errors = [stuck.error for stuck in self._stuck.values()]
        if errors and len(errors) == len(self._copiers):
            raise errors[0]
        return errors

    def ends(self) -> dict[int, int]:
        """Behind what each partition has now."""
        return {id: copier.source.span().stop for id, copier in self._copiers.items()}

    def note(self) -> None:
        """Store where everything is."""
        for copier in self._copiers.values():
            copier.note()

    def wait(self) -> None:
        """Wait until there may be something to copy, or it is time to look for new topics."""
        copiers = [copier for id, copier in self._copiers.items() if not self._rests(id)]

        def is_more() -> bool:
            try:
                spans = self._source.spans([copier.source for copier in copiers])
            except UnknownTopicError:
                return True
            return any(span.stop > copier.at for span, copier in zip(spans, copiers, strict=True))

        self._source.wait(is_more if copiers else lambda: False, LOOK_S, TICK_S)

    def places(self) -> dict[int, int]:
        """Up to where each partition was copied."""
        return {id: copier.at for id, copier in self._copiers.items()}

    def lag(self) -> int | None:
        """How many messages are still to be copied; None where only reading them would tell."""
        if self._choice.key is not None:
            return None
        return lag(self._source, chosen(self._source, self._patterns), self.places())


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def chosen(source: Store, patterns: Sequence[str]) -> list[TopicInfo]:
    """The topics that have one of the names, or fit one of the patterns."""
    return [info for info in source.topics() if any(_fits(info.name, pattern) for pattern in patterns)]


def _fits(name: str, pattern: str) -> bool:
    """Whether a topic is chosen by a name or a pattern."""
    return name == pattern or fnmatch.fnmatchcase(name, pattern)


def _is_there(partition: TopicStore) -> bool:
    """Whether a partition was not deleted."""
    return any(one.info.id == partition.info.id for one in partition.log.find_topic(partition.info.name))


def lag(source: Store, topics: Sequence[TopicInfo], places: Mapping[int, int]) -> int | None:
    """How many messages lie behind some places."""
    if not source.capabilities.dense_offsets:
        return None
    partitions = [one for info in topics for one in source.find_topic(info.name)]
    behind = [Span(places.get(one.info.id, 0), one.span().stop) for one in partitions]
    return sum(one.count(span) for one, span in zip(partitions, behind, strict=True) if span)
