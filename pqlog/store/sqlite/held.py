"""What this process holds: the claims of a log that somebody still has.

A claim belongs to the holder of its object, in any thread. When nobody has it any more, after ``del``, say, or because
the thread that had it ended, the claim is free. That is only noted at first, and told to the file by the next
transaction: an object may be collected at any moment, in any thread, also during a commit of this log.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable

import apsw

from pqlog.store.sqlite import claims, owners
from pqlog.store.sqlite.claims import Held
from pqlog.store.values import Claim

_held: set[tuple[str, int]] = set()
"""The tokens of all claims that this process holds, with the file that each is of."""


class Holdings:
    """The claims that one open log has handed out.

    Parameters
    ----------
    file : str
        The UUID of its file.
    wake : callable
        Called when a claim was left, from anywhere: it must not wait for anything.
    """

    def __init__(self, file: str, wake: Callable[[], object]) -> None:
        self._file, self._wake = file, wake
        self._refs: dict[Held, weakref.ref[Claim]] = {}
        self._left: dict[Held, None] = {}
        self._knows_its_own = False

    def add(self, held: Held, claim: Claim) -> None:
        """A claim that is handed out, as long as somebody has this object."""
        _held.add((self._file, held.token))
        self._refs[held] = weakref.ref(claim, lambda _: self.leave(held))

    def drop(self, held: Held) -> None:
        """It was acknowledged, released, or lost to somebody else."""
        self._refs.pop(held, None)
        _held.discard((self._file, held.token))

    def leave(self, held: Held) -> None:
        """Nobody holds it any more, and the file does not know yet."""
        if held in self._refs:
            self._left[held] = None  # first: Ctrl-C may strike behind each call
            _held.discard((self._file, held.token))
            self._refs.pop(held, None)
            self._wake()

    def _sweep(self) -> None:
        """Find what is collected also where Ctrl-C struck in the call that should have said so."""
        for held in list(self._refs):  # not items(): it makes tuples, so claims can be collected while it goes through
            ref = self._refs.get(held)
            if ref is not None and ref() is None:
                self.leave(held)

    def left(self) -> list[Held]:
        """Those that the file shall be told of."""
        self._sweep()
        return list(self._left)

    def has_news(self) -> bool:
        """Whether the file is to be told something."""
        return bool(self.left()) or not self._knows_its_own

    def release_left(self, db: apsw.Connection) -> list[Held]:
        """Release what nobody holds any more; the first time also what this process is said to hold and does not.

        That is what an earlier log of the process could not release when it was closed, or an earlier program that this
        one has replaced (`os.exec`). To be followed by `told` after the commit.
        """
        left = self.left()
        if not self._knows_its_own:
            left += [one for one in claims.held_by(db, owners.this_process()) if not self.is_held(one)]
        claims.release(db, left)
        return left

    def renew(self, db: apsw.Connection, is_due: bool) -> tuple[list[Held], list[Held]]:
        """Release what was left, and renew the rest if that is due; what was left, and what was lost to others."""
        left = self.release_left(db)
        kept = self.all() if is_due else []
        return left, [one for one in kept if not claims.renew(db, one)]

    def told(self, left: Iterable[Held]) -> None:
        """The file knows of these."""
        self._knows_its_own = True
        for held in left:
            self._left.pop(held, None)

    def all(self) -> list[Held]:
        """Those that somebody holds."""
        self._sweep()
        return list(self._refs)

    def is_held(self, held: Held) -> bool:
        """Whether this process holds a claim, by whatever log."""
        return (self._file, held.token) in _held

    def forget(self) -> None:
        """In a forked child: they are the parent's."""
        self._refs, self._left = {}, {}
