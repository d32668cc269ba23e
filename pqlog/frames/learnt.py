"""What is known of the columns of a topic, kept with it: once it was read, its schema is known before its first row.

Facts of the messages from a topic's first up to some offset, joined with those of the messages behind, are the facts
of all. So a stream reads only what has come since. They are kept in the file, from where another process has them, and
beside an open log, which may have learnt more, or be read-only. Nothing depends on them: they may be missing, and what
a file says is taken for true only as far as each piece that is read agrees.
"""

from __future__ import annotations

from typing import NamedTuple
from weakref import WeakKeyDictionary

from pqlog.codecs import is_safe
from pqlog.frames.pieces import View
from pqlog.frames.schema import Facts
from pqlog.store.api import KeepsLearnt, TopicStore
from pqlog.store.values import Learnt, Span
from pqlog.stream import Selection, TopicStream

WORTH_WRITING = 20_000
"""What was learnt is written if it is of so many messages more than what the file has."""

_beside: WeakKeyDictionary[TopicStore, Learnt] = WeakKeyDictionary()
"""For each open topic: what was learnt last."""
_unlike: WeakKeyDictionary[TopicStore, set[Learnt]] = WeakKeyDictionary()
"""For each open topic: what is kept beside it, and is not so."""


class Known(NamedTuple):
    """What is known of the first messages of a topic."""

    facts: Facts
    span: Span
    """Which messages those are."""


def known(selection: Selection, view: View) -> Known | None:
    """What is known of the first messages of a selection; None if nothing is."""
    if not _is_whole(selection) or view.flatten or view.times:
        return None
    span = selection.span
    fitting = [one for one in _found(selection.topic) if one.span.first == span.first and one.span.stop <= span.stop]
    return max(fitting, key=lambda one: one.span.stop, default=None)


def of_topic(source: TopicStream) -> Known | None:
    """What is known of a topic without reading its messages."""
    return known(Selection(source, source.store.span()), View())


def keep(selection: Selection, view: View, facts: Facts) -> None:
    """Keep what was learnt of all messages of a selection, if that is the beginning of its topic."""
    source, span = selection.topic, selection.span
    if not _is_whole(selection) or view.columns is not None or view.flatten or view.times:
        return
    topic = source.store
    if not is_safe(source.codec_name) or not facts.rows or span.first != topic.span().first:
        return
    before = [one.span.stop for one in _found(source) if one.span.first == span.first]
    text = None if max(before, default=span.first) >= span.stop else facts.to_text()
    if text is None or facts.rows != topic.count(span):
        return
    _beside[topic] = Learnt(span, text)
    if not isinstance(topic, KeepsLearnt):
        return
    written = _readable(source, topic.learnt())
    begin = span.first if written is None or written.span.first != span.first else written.span.stop
    if topic.count(Span(begin, span.stop)) >= WORTH_WRITING:
        topic.keep_learnt(Learnt(span, text))


def distrust(source: TopicStream) -> None:
    """What is known of a topic is not so: it is not to be taken for true again."""
    topic = source.store
    _beside.pop(topic, None)
    learnt = topic.learnt() if isinstance(topic, KeepsLearnt) else None
    if learnt is not None:
        _unlike.setdefault(topic, set()).add(learnt)


def _found(source: TopicStream) -> list[Known]:
    topic = source.store
    if not is_safe(source.codec_name):
        return []
    both = (_beside.get(topic), topic.learnt() if isinstance(topic, KeepsLearnt) else None)
    return [found for found in (_readable(source, one) for one in both) if found is not None]


def _readable(source: TopicStream, learnt: Learnt | None) -> Known | None:
    """What was kept; None if it is nothing that could be true: a file may be anybody's."""
    if learnt is None or learnt in _unlike.get(source.store, ()):
        return None
    try:
        facts = Facts.from_text(learnt.text)
        return Known(facts, learnt.span) if facts.rows == source.store.count(learnt.span) else None
    except Exception:
        return None


def _is_whole(selection: Selection) -> bool:
    """Whether a selection has all messages of its span."""
    return selection.key is None and selection.latest is None
