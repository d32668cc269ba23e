"""Live: a frame that grows with the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pqlog.frames.dataframes import frame_of
from pqlog.frames.pieces import Piece, View, pieces
from pqlog.frames.tables import Survey
from pqlog.store.api import Span

if TYPE_CHECKING:
    import pandas

    from pqlog.readable import Readable


class Live:
    """A frame of a growing stretch of a log: each `refresh` reads only what is new.

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
        self._pieces: list[Piece] = []
        self._read_to: int | None = None
        self.frame = self.refresh()

    def refresh(self) -> pandas.DataFrame:
        """Read what is new.

        Returns
        -------
        pandas.DataFrame
            All messages, the new ones at the end.
        """
        stretch = self._readable._stretch()
        first = stretch.span.first if self._read_to is None else max(self._read_to, stretch.span.first)
        new = stretch._replace(span=Span(first, stretch.span.stop))
        if len(new.span) or self._read_to is None:
            for piece in pieces(new, self._view):
                self._survey.add(piece)
                self._pieces.append(piece)
            self._read_to = max(first, new.span.stop)
            self.frame = frame_of(self._pieces, self._survey.layout(), self._view, None)
        return self.frame

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        return f"<pqlog.Live: {len(self.frame):,} messages, read up to offset {self._read_to}>"
