"""Several calls at once, in threads, without waiting for threads that Ctrl-C left behind."""

from __future__ import annotations

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
    waiting = queue.SimpleQueue[int]()
    done = queue.SimpleQueue[tuple[int, T | None, BaseException | None]]()
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
                done.put((index, calls[index](), None))
            except BaseException as error:  # the caller is told
                done.put((index, None, error))
        undo_all()

    def undo_all() -> None:
        while True:
            try:
                _, result, error = done.get_nowait()
            except queue.Empty:
                return
            if error is None:
                undo(result)  # type: ignore[arg-type]

    found: list[tuple[int, T | None, BaseException | None]] = []
    try:
        for _ in range(min(MOST, len(calls))):
            threading.Thread(target=run, name="pqlog-lanes", daemon=True).start()
        while len(found) < len(calls):
            found.append(done.get())
        for _, _, failed in sorted(found, key=lambda one: one[0]):
            if failed is not None:
                raise failed
    except BaseException:
        is_given_up.set()
        for one in found:
            done.put(one)
        undo_all()
        raise
    return [result for _, result, _ in sorted(found, key=lambda one: one[0])]  # type: ignore[misc]
