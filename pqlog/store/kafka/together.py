"""Several calls at once, in threads, without waiting for threads that Ctrl-C left behind."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

MOST = 16
"""How many run at a time."""


def all_at_once(calls: Sequence[Callable[[], T]], undo: Callable[[T], object] = lambda _: None) -> list[T]:
    """The results of calls; raises the first error. They must bound their own time, and may outlive an interrupt.

    `undo` is called with each result that is not returned, because another call failed, or the caller was interrupted.
    """
    if len(calls) <= 1:
        return [call() for call in calls]
    waiting, done = queue.SimpleQueue[int](), queue.SimpleQueue[None]()
    results: dict[int, tuple[T | None, BaseException | None]] = {}
    is_given_up = threading.Event()
    for index in range(len(calls)):
        waiting.put(index)

    def run() -> None:
        while not is_given_up.is_set():
            try:
                index = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                results[index] = calls[index](), None
            except BaseException as error:  # the caller is told
                results[index] = None, error
            done.put(None)
        undo_all()

    def undo_all() -> None:
        while results:
            with contextlib.suppress(KeyError):  # another thread was faster
                _, (result, error) = results.popitem()
                if error is None:
                    undo(result)  # type: ignore[arg-type]

    try:
        for _ in range(min(MOST, len(calls))):
            threading.Thread(target=run, name="pqlog-lanes", daemon=True).start()
        for _ in calls:
            done.get()
        for index in range(len(calls)):
            if (failed := results[index][1]) is not None:
                raise failed
    except BaseException:
        is_given_up.set()
        undo_all()
        raise
    return [results[index][0] for index in range(len(calls))]  # type: ignore[misc]
