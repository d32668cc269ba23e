"""The schema cache: what was inferred about a topic's columns, kept with the topic.

Inference about the first messages of a topic can be merged with that about the messages after them. So once a topic
was read, its schema is known before its first row, except for what was put since, which is all that has to be read. The
cache is kept in the file, for other processes, and next to the open log, where it may be newer, since the log may be
read-only; what was inferred about merged partitions is kept only there. Nothing depends on it: it may be missing, and
every chunk that is read is compared with it.
"""

from __future__ import annotations

from typing import NamedTuple
from weakref import WeakKeyDictionary

from pqlog.codecs import is_safe
from pqlog.frames.inference import SchemaInference
from pqlog.frames.places import is_from_beginning
from pqlog.frames.projection import Projection
from pqlog.store.api import CachesSchema, MessageSource, TopicStore
from pqlog.store.values import CachedSchema, Span
from pqlog.stream import Selection, TopicStream

MIN_NEW_MESSAGES = 20_000
"""The file's entry is replaced when it lacks this many messages."""

_in_memory: WeakKeyDictionary[TopicStore, dict[int, CachedSchema]] = WeakKeyDictionary()
"""For each open partition, its latest entry; for the first of several also that of all merged: by how many are read."""
_invalid: WeakKeyDictionary[TopicStore, set[CachedSchema]] = WeakKeyDictionary()
"""For each open partition, stored entries that turned out to be wrong."""


class CachedInference(NamedTuple):
    """What is known about the first messages of a topic."""

    inference: SchemaInference
    span: Span
    """The span of these messages."""


def lookup(selection: Selection, projection: Projection) -> CachedInference | None:
    """What is known about the first messages of a range; None if nothing is."""
    if not _has_all_messages(selection) or projection.flatten or projection.parse_dates:
        return None
    if selection.topic.is_merged and not is_from_beginning(selection):
        return None
    span = selection.span
    fitting = [
        entry for entry in _entries(selection.topic) if entry.span.first == span.first and entry.span.stop <= span.stop
    ]
    return max(fitting, key=lambda entry: entry.span.stop, default=None)


def lookup_topic(stream: TopicStream) -> CachedInference | None:
    """What is known about a topic without reading its messages."""
    return lookup(Selection(stream, stream.store.span()), Projection())


def store(selection: Selection, projection: Projection, inference: SchemaInference) -> None:
    """Cache what was inferred from all messages of a range, if it begins where its topic does."""
    stream, span = selection.topic, selection.span
    has_all_fields = projection.columns is None and not projection.flatten and not projection.parse_dates
    if not _has_all_messages(selection) or not has_all_fields:
        return
    if not is_safe(stream.codec_name) or not inference.rows or not is_from_beginning(selection):
        return
    before = [entry.span.stop for entry in _entries(stream) if entry.span.first == span.first]
    text = None if max(before, default=span.first) >= span.stop else inference.to_text()
    topic = stream.store
    if text is None or inference.rows != topic.count(span):
        return
    _in_memory.setdefault(stream.partitions[0], {})[len(stream.partitions)] = CachedSchema(span, text)
    if not isinstance(topic, CachesSchema):
        return
    stored = _decode(stream, topic.cached_schema())
    begin = span.first if stored is None or stored.span.first != span.first else stored.span.stop
    if topic.count(Span(begin, span.stop)) >= MIN_NEW_MESSAGES:
        topic.cache_schema(CachedSchema(span, text))


def invalidate(topic: TopicStore) -> None:
    """Never use the current entries of a partition again: they are wrong."""
    _in_memory.pop(topic, None)
    entry = _stored(topic)
    if entry is not None:
        _invalid.setdefault(topic, set()).add(entry)


def _stored(topic: MessageSource) -> CachedSchema | None:
    return topic.cached_schema() if isinstance(topic, CachesSchema) else None


def _entries(stream: TopicStream) -> list[CachedInference]:
    if not is_safe(stream.codec_name):
        return []
    both = (_in_memory.get(stream.partitions[0], {}).get(len(stream.partitions)), _stored(stream.store))
    return [decoded for decoded in (_decode(stream, entry) for entry in both) if decoded is not None]


def _decode(stream: TopicStream, entry: CachedSchema | None) -> CachedInference | None:
    """A decoded entry; None if it cannot be true, since the file may come from anybody."""
    if entry is None or entry in _invalid.get(stream.partitions[0], ()):
        return None
    try:
        inference = SchemaInference.from_text(entry.text)
        is_complete = inference.rows == stream.store.count(entry.span)
        return CachedInference(inference, entry.span) if is_complete else None
    except Exception:
        return None


def _has_all_messages(selection: Selection) -> bool:
    """Whether a range has all messages of its span."""
    return selection.is_whole
