"""Several calls at once, in threads, without waiting for threads that Ctrl-C left behind."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

MOST = 16
"""How many run at a time."""


def all_at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """The results of calls; raises the first error. They must bound their own time, and may outlive an interrupt."""
    if len(calls) <= 1:
        return [call() for call in calls]
    waiting = queue.SimpleQueue[int]()
    done = queue.SimpleQueue[tuple[int, T | None, BaseException | None]]()
    for index in range(len(calls)):
        waiting.put(index)

    def run() -> None:
        while True:
            try:
                index = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((index, calls[index](), None))
            except BaseException as error:  # the caller is told
                done.put((index, None, error))

    for _ in range(min(MOST, len(calls))):
        threading.Thread(target=run, name="pqlog-lanes", daemon=True).start()
    found = sorted((done.get() for _ in calls), key=lambda one: one[0])
    for _, _, error in found:
        if error is not None:
            raise error
    return [result for _, result, _ in found]  # type: ignore[misc]
