"""Live: a frame that grows with the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pqlog.frames.dataframes import frame_of
from pqlog.frames.latest import Latest, among
from pqlog.frames.pieces import Piece, View, chosen, pieces
from pqlog.frames.tables import Survey, check_names
from pqlog.source import Stretch
from pqlog.store.api import Span

if TYPE_CHECKING:
    import pandas

    from pqlog.readable import Readable


class Live:
    """A frame of a growing stretch of a log: each `refresh` reads only what is new.

    Of ``history.latest()``, it drops what was replaced, and reads again what it was read with.

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

    def __init__(self, readable: Readable, view: View) -> None:
        self._readable, self._view = readable, view
        self._survey = Survey(view, meta=True)
        self._latest: Latest | None = None
        self._pieces: list[Piece] = []
        self._read_to: int | None = None
        self.frame = self.refresh()

    def refresh(self) -> pandas.DataFrame:
        """Read what is new.

        Returns
        -------
        pandas.DataFrame
            All messages, the new ones at the end; of the latest those that are it now.
        """
        stretch = self._readable._stretch()
        first = stretch.span.first if self._read_to is None else max(self._read_to, stretch.span.first)
        new = stretch._replace(span=Span(first, stretch.span.stop))
        if len(new.span) or self._read_to is None:
            survey, kept = self._survey, self._pieces
            if new.latest is None:
                found = list(pieces(new, self._view))
            else:  # of what was read before, some is the latest no more, and counts no more
                survey, kept, found = Survey(self._view, meta=True), [], self._renewed(new)
            for piece in found:
                survey.add(piece)
            layout = survey.layout()
            if found and not self._pieces:
                check_names(new, self._view, layout)
            self.frame = frame_of([*kept, *found], layout, self._view, None)
            self._survey, self._pieces, self._read_to = survey, [*kept, *found], max(first, new.span.stop)
        return self.frame

    def _renewed(self, new: Stretch) -> list[Piece]:
        """What are the latest now, of the messages so far and of new ones."""
        assert new.latest is not None
        latest = self._latest = self._latest or Latest(new.latest)
        latest.add(new)
        offsets = latest.offsets()
        found = []
        for piece in self._pieces:
            had = piece.offsets.to_numpy()
            still = had[among(had, offsets)]
            if len(still) == len(had):
                found.append(piece)
            else:  # what its columns are may have followed from a message that is gone
                found += chosen(new.source, still, self._view)
        return [*found, *chosen(new.source, offsets[np.searchsorted(offsets, new.span.first) :], self._view)]

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        return f"<pqlog.Live: {len(self.frame):,} messages, read up to offset {self._read_to}>"
