"""Raises an exception at any moment at which Ctrl-C can strike: after a call, or at the beginning of a function.

CPython checks for signals as part of the call instruction, after the called function has returned. A *profile*
function that raises at the event "c_return" or "return" does the same: the exception leaves the call, and the handlers
around the call are those that run. (One that is raised at the next instruction, as a trace function does, may find
itself outside of them already: ``return f()`` in a ``with`` has left its block by then.)
"""

from __future__ import annotations

import gc
import inspect
import os
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_PQLOG = f"{os.sep}pqlog{os.sep}"
_WITHIN = tuple(os.sep + name for name in ("contextlib.py", "threading.py", "weakref.py", "tempfile.py"))


def _is_ours(frame: FrameType | None) -> bool:
    """Whether a frame belongs to pqlog, or to the standard library called by it."""
    if frame is None:
        return False
    file = frame.f_code.co_filename
    return _PQLOG in file or file.endswith(_WITHIN)


def _is_finalizer(frame: FrameType | None) -> bool:
    """Whether a frame is part of a finalizer, whose exceptions nobody sees."""
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


class Strike:
    """Raises at the n-th moment; to be passed to `sys.setprofile`."""

    def __init__(self, at: int, error: BaseException) -> None:
        self.at, self.error, self.seen, self.where = at, error, 0, ""

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "return":
            if frame.f_code.co_flags & inspect.CO_GENERATOR:
                return  # it may be a yield, from which an exception would skip the generator's own handlers
            caller = frame.f_back
        elif event in ("call", "c_return"):
            caller = frame
        else:
            return
        if self.where or not _is_ours(caller) or _is_finalizer(caller):
            return
        if event == "call" and frame.f_code.co_flags & inspect.CO_GENERATOR:
            return
        self.seen += 1
        if self.seen == self.at:
            assert caller is not None
            name = getattr(argument, "__qualname__", frame.f_code.co_name)
            self.where = f"{os.path.basename(caller.f_code.co_filename)}:{caller.f_lineno} {event} {name}"
            raise self.error


last: list[BaseException] = []
"""The last exception raised: a notebook, too, keeps the traceback and everything that it refers to."""

returned: list[object] = []
"""What the call returned that was struck last, if it did: nobody sees an exception in the callback of a weakref."""


def moments(call: Callable[[], object]) -> int:
    """The number of moments in a call."""
    strike = Strike(0, KeyboardInterrupt())
    sys.setprofile(strike)
    try:
        call()
    finally:
        sys.setprofile(None)
    return strike.seen


def struck(call: Callable[[], object], at: int, error: BaseException) -> tuple[bool, str]:
    """Whether the n-th moment of a call was reached, and where that is; what the call raises then is kept in `last`."""
    strike = Strike(at, error)
    returned.clear()
    sys.setprofile(strike)
    try:
        returned[:] = [call()]
    except BaseException as raised:
        sys.setprofile(None)
        if not strike.where:
            raise
        last[:] = [raised]
    finally:
        sys.setprofile(None)
    return bool(strike.where), strike.where


def everywhere(
    call: Callable[[], object], make: Callable[[], BaseException], step: int = 1, first: int = 1
) -> Iterator[str]:
    """Raise at every `step`-th place of a call, one after the other; yields the place after each."""
    at = first
    while True:
        reached, where = struck(call, at, make())
        if not reached:
            last.clear()
            gc.collect()  # what was left half done is ended here, and if it complains, this test fails and no later one
            return
        yield where
        at += step


def within(seconds: float, call: Callable[[], Any]) -> Any:
    """The result of a call in another thread; fails if it does not end in time."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append((True, call()))
        except BaseException as error:
            outcome.append((False, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise AssertionError(f"{call} did not end within {seconds} s")
    returned, value = outcome[0]
    if not returned:
        raise value
    return value
