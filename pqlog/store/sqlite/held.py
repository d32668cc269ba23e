"""What this process holds: the claims of an engine that somebody still has.

A claim belongs to whoever has the object, in any thread. When nobody has it any more, after ``del``, say, or because
the thread that had it ended, the claim is free. That is only noted at first, and told to the file by the next
transaction: an object may be collected at any moment, in any thread, also in the midst of a commit of this very log.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable

from pqlog.store.api import Claim, TopicInfo
from pqlog.store.sqlite.claims import Held

_held: set[tuple[str, int]] = set()
"""The tokens of all claims that this process holds, with the file that each is of."""


class Holdings:
    """The claims that one engine has handed out.

    Parameters
    ----------
    file : str
        The uuid of the engine's file.
    wake : callable
        Called when a claim was left, from anywhere: it must not wait for anything.
    """

    def __init__(self, file: str, wake: Callable[[], object]) -> None:
        self._file, self._wake = file, wake
        self._refs: dict[Held, weakref.ref[Claim]] = {}
        self._left: dict[Held, None] = {}

    def add(self, topic: int, claim: Claim) -> None:
        """A claim that is handed out, as long as somebody has this object."""
        held = Held(topic, claim.client, claim.number, claim.token)
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

    def told(self, left: Iterable[Held]) -> None:
        """The file knows of these."""
        for held in left:
            self._left.pop(held, None)

    def all(self) -> list[Held]:
        """Those that somebody holds."""
        self._sweep()
        return list(self._refs)

    def is_held(self, held: Held) -> bool:
        """Whether this process holds a claim, by whatever engine."""
        return (self._file, held.token) in _held

    def forget(self) -> None:
        """In a forked child: they are the parent's."""
        self._refs, self._left = {}, {}


def of(topic: TopicInfo, claim: Claim) -> Held:
    """A claim, as the file knows it."""
    return Held(topic.id, claim.client, claim.number, claim.token)
