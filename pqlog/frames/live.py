"""Live: a frame that grows with the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from pqlog.frames.dataframes import frame_of
from pqlog.frames.latest import Latest, among
from pqlog.frames.pieces import Piece, chosen, pieces
from pqlog.frames.projection import Projection
from pqlog.frames.tables import Survey, check_names
from pqlog.source import Source, Stretch
from pqlog.store.api import Span

if TYPE_CHECKING:
    import pandas

    from pqlog.readable import Readable


class Live:
    """A frame of a growing stretch of a log: each `refresh` reads only what is new.

    Of ``history.latest()``, it drops what was replaced, and reads again what it was read with. So it does with what
    was trimmed: that is gone from the log, and from the frame at the next refresh.

    Made by ``log.live()`` or ``history.live()``.

    Attributes
    ----------
    frame : pandas.DataFrame
        As of the last refresh.

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
        self._survey = Survey(projection)
        self._latest: Latest | None = None
        self._pieces: list[Piece] = []
        self._read_to: int | None = None
        self.frame = self.refresh()

    def refresh(self) -> pandas.DataFrame:
        """Read what is new.

        Returns
        -------
        pandas.DataFrame
            All messages that the log still has, the new ones at the end; of the latest those that are it now.
        """
        stretch = self._readable._stretch()
        source = stretch.source
        begin = source.engine.span(source.topic).first
        was_trimmed = bool(self._pieces) and self._pieces[0].offsets[0].as_py() < begin
        first = stretch.span.first if self._read_to is None else max(self._read_to, stretch.span.first)
        new = stretch._replace(span=Span(first, stretch.span.stop))
        if len(new.span) or self._read_to is None or was_trimmed:
            survey, kept = self._survey, self._pieces
            if new.latest is not None:
                offsets = self._latest_with(new)
                offsets = offsets[np.searchsorted(offsets, begin) :]
                survey, kept = self._again(source, lambda had: among(had, offsets))
                found = list(chosen(source, offsets[np.searchsorted(offsets, first) :], self._projection))
            else:
                if was_trimmed:
                    survey, kept = self._again(source, lambda had: had >= begin)
                found = list(pieces(new, self._projection))
            for piece in found:
                survey.add(piece)
            layout = survey.layout()
            if found and not self._pieces:
                check_names(new, self._projection, layout)
            self.frame = frame_of([*kept, *found], layout, None)
            self._survey, self._pieces, self._read_to = survey, [*kept, *found], max(first, new.span.stop)
        return self.frame

    def _latest_with(self, new: Stretch) -> Any:
        """The offsets of the latest of the messages so far and of new ones, ascending."""
        assert new.latest is not None
        latest = self._latest = self._latest or Latest(new.latest)
        latest.add(new)
        return latest.offsets()

    def _again(self, source: Source, still: Callable[[Any], Any]) -> tuple[Survey, list[Piece]]:
        """Those of the messages so far that still count, which `still` tells by their offsets; and a survey of them."""
        survey, kept = Survey(self._projection), list[Piece]()
        for piece in self._pieces:
            had = piece.offsets.to_numpy()
            left = had[still(had)]
            if len(left) == len(had):
                kept.append(piece)
            else:  # what its columns are may have followed from a message that is gone
                kept += chosen(source, left, self._projection)
        for piece in kept:
            survey.add(piece)
        return survey, kept

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        return f"<pqlog.Live: {len(self.frame):,} messages, read up to offset {self._read_to}>"
