"""What is known of the columns of a topic, kept with it: once it was read, its schema is known before its first row.

Facts of the messages from a topic's first up to some offset, joined with those of the messages behind, are the facts
of all. So a stream reads only what has come since. They are kept in the file, from where another process has them, and
beside an open log, which may have learnt more, or be read-only. Nothing depends on them: they may be missing, and what
a file says is taken for true only as far as each piece that is read agrees.
"""

from __future__ import annotations

from typing import NamedTuple
from weakref import WeakKeyDictionary

from pqlog.frames.projection import Projection
from pqlog.frames.schema import Facts
from pqlog.source import Source, Stretch
from pqlog.store.api import Engine, Learnt, Span

WORTH_WRITING = 20_000
"""What was learnt is written if it is of so many messages more than what the file has."""

_CODECS = frozenset({"json", "msgpack", "bytes"})
"""Those whose bytes always mean the same; what others give depends on the reader's code."""

_beside: WeakKeyDictionary[Engine, dict[int, Learnt]] = WeakKeyDictionary()
"""For each open log and topic, by its id: what was learnt last."""
_unlike: WeakKeyDictionary[Engine, set[Learnt]] = WeakKeyDictionary()
"""For each open log: what its file says, and is not so."""


class Known(NamedTuple):
    """What is known of the first messages of a topic."""

    facts: Facts
    span: Span
    """Which messages those are."""


def known(stretch: Stretch, projection: Projection) -> Known | None:
    """What is known of the first messages of a stretch; None if nothing is."""
    if not _is_whole(stretch) or projection.flatten or projection.parse_dates:
        return None
    span = stretch.span
    fitting = [one for one in _found(stretch.source) if one.span.first == span.first and one.span.stop <= span.stop]
    return max(fitting, key=lambda one: one.span.stop, default=None)


def of_topic(source: Source) -> Known | None:
    """What is known of a topic without reading its messages."""
    return known(Stretch(source, source.engine.span(source.topic)), Projection())


def keep(stretch: Stretch, projection: Projection, facts: Facts) -> None:
    """Keep what was learnt of all messages of a stretch, if that is the beginning of its topic."""
    source, span = stretch.source, stretch.span
    if not _is_whole(stretch) or projection.columns is not None or projection.flatten or projection.parse_dates:
        return
    engine, topic = source.engine, source.topic
    if topic.codec not in _CODECS or not facts.rows or span.first != engine.span(topic).first:
        return
    before = [one.span.stop for one in _found(source) if one.span.first == span.first]
    text = None if max(before, default=span.first) >= span.stop else facts.to_text()
    if text is None or facts.rows != engine.count(topic, span):
        return
    _beside.setdefault(engine, {})[topic.id] = Learnt(span, text)
    written = _readable(source, engine.learnt(topic))
    begin = span.first if written is None or written.span.first != span.first else written.span.stop
    if engine.count(topic, Span(begin, span.stop)) >= WORTH_WRITING:
        engine.keep_learnt(topic, Learnt(span, text))


def distrust(source: Source) -> None:
    """What is known of a topic is not so: it is not to be taken for true again."""
    _beside.get(source.engine, {}).pop(source.topic.id, None)
    learnt = source.engine.learnt(source.topic)
    if learnt is not None:
        _unlike.setdefault(source.engine, set()).add(learnt)


def _found(source: Source) -> list[Known]:
    engine, topic = source.engine, source.topic
    if topic.codec not in _CODECS:
        return []
    both = (_beside.get(engine, {}).get(topic.id), engine.learnt(topic))
    return [found for found in (_readable(source, one) for one in both) if found is not None]


def _readable(source: Source, learnt: Learnt | None) -> Known | None:
    """What was kept; None if it is nothing that could be true: a file may be anybody's."""
    if learnt is None or learnt in _unlike.get(source.engine, ()):
        return None
    try:
        facts = Facts.from_text(learnt.text)
        return Known(facts, learnt.span) if facts.rows == source.engine.count(source.topic, learnt.span) else None
    except Exception:
        return None


def _is_whole(stretch: Stretch) -> bool:
    """Whether a stretch has all messages of its span."""
    return stretch.key is None and stretch.latest is None
