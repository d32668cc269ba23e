"""The schema cache: what was inferred about a topic's columns, kept with the topic.

Inference about the first messages of a topic can be merged with that about the messages after them. So once a topic
was read, its schema is known before its first row, except for what was put since, which is all that has to be read. The
cache is kept in the file, for other processes, and next to the open log, where it may be newer, since the log may be
read-only. Nothing depends on it: it may be missing, and every chunk that is read is compared with it.
"""

from __future__ import annotations

from typing import NamedTuple
from weakref import WeakKeyDictionary

from pqlog.frames.inference import SchemaInference
from pqlog.frames.projection import Projection
from pqlog.source import Source, Stretch
from pqlog.store.api import CachedSchema, Engine, Span

MIN_NEW_MESSAGES = 20_000
"""The file's entry is replaced when it lacks this many messages."""

_CODECS = frozenset({"json", "msgpack", "bytes"})
"""Codecs whose bytes always mean the same; what others decode depends on the reader's code."""

_in_memory: WeakKeyDictionary[Engine, dict[int, CachedSchema]] = WeakKeyDictionary()
"""For each open log, the latest entry of each topic, by the topic's id."""
_invalid: WeakKeyDictionary[Engine, set[CachedSchema]] = WeakKeyDictionary()
"""For each open log, entries of its file that turned out to be wrong."""


class CachedInference(NamedTuple):
    """What is known about the first messages of a topic."""

    inference: SchemaInference
    span: Span
    """Those messages."""


def lookup(stretch: Stretch, projection: Projection) -> CachedInference | None:
    """What is known about the first messages of a range; None if nothing is."""
    if not _has_all_messages(stretch) or projection.flatten or projection.parse_dates:
        return None
    span = stretch.span
    fitting = [
        entry for entry in _entries(stretch.source) if entry.span.first == span.first and entry.span.stop <= span.stop
    ]
    return max(fitting, key=lambda entry: entry.span.stop, default=None)


def lookup_topic(source: Source) -> CachedInference | None:
    """What is known about a topic without reading its messages."""
    return lookup(Stretch(source, source.engine.span(source.topic)), Projection())


def store(stretch: Stretch, projection: Projection, inference: SchemaInference) -> None:
    """Cache what was inferred from all messages of a range, if it begins where its topic does."""
    source, span = stretch.source, stretch.span
    has_all_fields = projection.columns is None and not projection.flatten and not projection.parse_dates
    if not _has_all_messages(stretch) or not has_all_fields:
        return
    engine, topic = source.engine, source.topic
    if topic.codec not in _CODECS or not inference.rows or span.first != engine.span(topic).first:
        return
    before = [entry.span.stop for entry in _entries(source) if entry.span.first == span.first]
    text = None if max(before, default=span.first) >= span.stop else inference.to_text()
    if text is None or inference.rows != engine.count(topic, span):
        return
    _in_memory.setdefault(engine, {})[topic.id] = CachedSchema(span, text)
    in_file = _decode(source, engine.cached_schema(topic))
    begin = span.first if in_file is None or in_file.span.first != span.first else in_file.span.stop
    if engine.count(topic, Span(begin, span.stop)) >= MIN_NEW_MESSAGES:
        engine.cache_schema(topic, CachedSchema(span, text))


def invalidate(source: Source) -> None:
    """Never use the present entries of a topic again: they are wrong."""
    _in_memory.get(source.engine, {}).pop(source.topic.id, None)
    entry = source.engine.cached_schema(source.topic)
    if entry is not None:
        _invalid.setdefault(source.engine, set()).add(entry)


def _entries(source: Source) -> list[CachedInference]:
    engine, topic = source.engine, source.topic
    if topic.codec not in _CODECS:
        return []
    both = (_in_memory.get(engine, {}).get(topic.id), engine.cached_schema(topic))
    return [decoded for decoded in (_decode(source, entry) for entry in both) if decoded is not None]


def _decode(source: Source, entry: CachedSchema | None) -> CachedInference | None:
    """An entry, decoded; None if it cannot be true: the file may come from anybody."""
    if entry is None or entry in _invalid.get(source.engine, ()):
        return None
    try:
        inference = SchemaInference.from_text(entry.text)
        is_complete = inference.rows == source.engine.count(source.topic, entry.span)
        return CachedInference(inference, entry.span) if is_complete else None
    except Exception:
        return None


def _has_all_messages(stretch: Stretch) -> bool:
    """Whether a range has all messages of its span."""
    return stretch.key is None and stretch.latest is None
