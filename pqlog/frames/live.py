"""Live: a frame that grows with the log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pqlog.errors import TrimmedError
from pqlog.frames import places
from pqlog.frames.chunks import Chunk
from pqlog.frames.dataframes import frame_of
from pqlog.frames.inference_pass import InferencePass, check_names
from pqlog.frames.latest import Latest, contains
from pqlog.frames.projection import Projection
from pqlog.frames.reading import chunks_at, read_chunks
from pqlog.merged import Positions
from pqlog.readable import selection_of
from pqlog.store.values import Span
from pqlog.stream import Selection, TopicStream

if TYPE_CHECKING:
    import pandas

    from pqlog.readable import Readable


ATTEMPTS = 10
"""How often a refresh reads merged partitions that are trimmed meanwhile."""


class Live:
    """A frame of a growing range of a log: each `refresh` reads only the new messages.

    If it is one of ``history.latest()``, superseded messages are dropped. Messages that were trimmed from the log are
    dropped at the next refresh.

    Created by ``log.live()`` or ``history.live()``.

    Attributes
    ----------
    frame : pandas.DataFrame
        The frame as of the last refresh.

    Examples
    --------
    >>> import pqlog
    >>> log = pqlog.open(":memory:")
    >>> log.put({"n": 1})
    1
    >>> live = log.live()
    >>> log.put({"n": 2})
    2
    >>> len(live.frame), len(live.refresh())
    (1, 2)
    """

    def __init__(self, readable: Readable, projection: Projection) -> None:
        self._readable, self._projection = readable, projection
        self._state: _State | None = None
        self.frame = self.refresh()

    def refresh(self) -> pandas.DataFrame:
        """Read the new messages.

        Returns
        -------
        pandas.DataFrame
            All messages that the log still has, the new ones at the end; with ``latest()``, those that are current now.

        Raises
        ------
        TrimmedError
            A topic of several partitions was trimmed again and again meanwhile; the frame is as it was.
        """
        for _ in range(ATTEMPTS):
            if self._read_new():
                return self.frame
        raise TrimmedError(None)

    def _read_new(self) -> bool:
        """Read the new messages; False if a trim may have moved their places meanwhile."""
        selection, state = selection_of(self._readable), self._state
        begin = selection.topic.store.span().first
        mark = places.mark_of(selection.topic, begin)
        if state is not None and state.begin != mark and selection.topic.is_merged:
            state = None  # what was read has other places now
        first = selection.span.first
        if state is not None:
            first = max(first, places.at_mark(selection.topic, state.next))
        new = selection._replace(span=Span(first, selection.span.stop))
        if state is None or new.span or state.has_before(begin):
            return self._update(new, begin, mark, state or _State.empty(selection.topic, self._projection))
        return True

    def _update(self, new: Selection, begin: int, mark: int | Positions, state: _State) -> bool:
        """Read new messages, and drop those before the beginning of the topic; all or nothing."""
        stream, chunks, latest = new.topic, state.chunks, state.latest
        new_chunks: Iterable[Chunk]
        if new.latest is not None:
            latest = Latest(new.latest) if latest is None else latest.copy()
            latest.add(new)
            offsets = latest.offsets()
            offsets = offsets[np.searchsorted(offsets, begin) :]
            inference, chunks = self._select(stream, chunks, lambda had: contains(offsets, had))
            new_chunks = chunks_at(stream, offsets[np.searchsorted(offsets, new.span.first) :], self._projection)
        else:
            if state.has_before(begin):
                inference, chunks = self._select(stream, chunks, lambda had: had >= begin)
            else:
                inference = state.inference.copy()
            new_chunks = read_chunks(new, self._projection)
        new_chunks = list(new_chunks)
        for chunk in new_chunks:
            inference.add(chunk)
        output = inference.output()
        if new_chunks and not state.chunks:
            check_names(new, self._projection, output)
        chunks = [*chunks, *new_chunks]
        frame = frame_of(chunks, output, None)
        next = places.mark_of(stream, max(new.span.first, new.span.stop))
        state = _State(inference, latest, chunks, mark, next)
        if stream.is_merged and places.mark_of(stream, stream.store.span().first) != mark:
            return False
        # Nothing is called here, so Ctrl-C strikes before all of these assignments or after them.
        self.frame, self._state = frame, state
        return True

    def _select(
        self, stream: TopicStream, had: Sequence[Chunk], is_current: Callable[[Any], Any]
    ) -> tuple[InferencePass, list[Chunk]]:
        """The chunks so far, without the messages that `is_current` rejects, and an inference from these alone."""
        inference, chunks = InferencePass(stream, self._projection), list[Chunk]()
        for chunk in had:
            offsets = chunk.offsets.to_numpy()
            current = offsets[is_current(offsets)]
            if len(current) == len(offsets):
                chunks.append(chunk)
            else:  # its columns may have been inferred from a message that is gone
                chunks += chunks_at(stream, current, self._projection)
        for chunk in chunks:
            inference.add(chunk)
        return inference, chunks

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        next = None if self._state is None else self._state.next
        return f"<pqlog.Live: {len(self.frame):,} messages{f', read up to offset {next}' * isinstance(next, int)}>"


class _State(NamedTuple):
    """What was read so far."""

    inference: InferencePass
    latest: Latest | None
    chunks: list[Chunk]
    begin: int | Positions
    """Where the topic began then."""
    next: int | Positions
    """Where what was not read yet begins."""

    @classmethod
    def empty(cls, topic: TopicStream, projection: Projection) -> _State:
        return cls(InferencePass(topic, projection), None, [], 0, 0)

    def has_before(self, begin: int) -> bool:
        """Whether it has messages that lie before the beginning of the topic."""
        return bool(self.chunks) and self.chunks[0].offsets[0].as_py() < begin
