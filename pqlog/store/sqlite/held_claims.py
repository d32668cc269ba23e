"""What this process holds: the claims of a log that somebody still has.

A claim belongs to the holder of its object, in any thread. When nobody has it any more, after ``del``, say, or because
the thread that had it ended, the claim is free. That is only noted at first, and told to the file by the next
transaction: an object may be collected at any moment, in any thread, also during a commit of this log.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable

import apsw

from pqlog.store import owners
from pqlog.store.sqlite import claims
from pqlog.store.sqlite.claims import ClaimKey
from pqlog.store.values import Claim

_held: set[tuple[str, int]] = set()
"""The tokens of all claims that this process holds, with the file that each is of."""


class HeldClaims:
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
        self._refs: dict[ClaimKey, weakref.ref[Claim]] = {}
        self._left: dict[ClaimKey, None] = {}
        self._knows_its_own = False

    def add(self, key: ClaimKey, claim: Claim) -> None:
        """A claim that is handed out, as long as somebody has this object."""
        _held.add((self._file, key.token))
        self._refs[key] = weakref.ref(claim, lambda _: self.leave(key))

    def drop(self, key: ClaimKey) -> None:
        """It was acknowledged, released, or lost to somebody else."""
        self._refs.pop(key, None)
        _held.discard((self._file, key.token))

    def leave(self, key: ClaimKey) -> None:
        """Nobody holds it any more, and the file does not know yet."""
        if key in self._refs:
            self._left[key] = None  # first: Ctrl-C may strike behind each call
            _held.discard((self._file, key.token))
            self._refs.pop(key, None)
            self._wake()

    def _sweep(self) -> None:
        """Find what is collected also where Ctrl-C struck in the call that should have said so."""
        for key in list(self._refs):  # not items(): it makes tuples, so claims can be collected while it goes through
            ref = self._refs.get(key)
            if ref is not None and ref() is None:
                self.leave(key)

    def left(self) -> list[ClaimKey]:
        """Those that the file shall be told of."""
        self._sweep()
        return list(self._left)

    def has_news(self) -> bool:
        """Whether the file is to be told something."""
        return bool(self.left()) or not self._knows_its_own

    def release_left(self, db: apsw.Connection) -> list[ClaimKey]:
        """Release what nobody holds any more; the first time also what this process is said to hold and does not.

        That is what an earlier log of the process could not release when it was closed, or an earlier program that this
        one has replaced (`os.exec`). To be followed by `told` after the commit.
        """
        left = self.left()
        if not self._knows_its_own:
            left += [one for one in claims.held_by(db, owners.this_process()) if not self.is_held(one)]
        claims.release(db, left)
        return left

    def renew(self, db: apsw.Connection, is_due: bool) -> tuple[list[ClaimKey], list[ClaimKey]]:
        """Release what was left, and renew the rest if that is due; what was left, and what was lost to others."""
        left = self.release_left(db)
        kept = self.all() if is_due else []
        return left, [one for one in kept if not claims.renew(db, one)]

    def told(self, left: Iterable[ClaimKey]) -> None:
        """The file knows of these."""
        self._knows_its_own = True
        for key in left:
            self._left.pop(key, None)

    def all(self) -> list[ClaimKey]:
        """Those that somebody holds."""
        self._sweep()
        return list(self._refs)

    def is_held(self, key: ClaimKey) -> bool:
        """Whether this process holds a claim, by whatever log."""
        return (self._file, key.token) in _held

    def forget(self) -> None:
        """In a forked child: they are the parent's."""
        self._refs, self._left = {}, {}
