"""Work for another thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

T = TypeVar("T")


def submit(executor: Executor, call: Callable[..., T], *args: Any) -> Future[T]:
    """Call a function in another thread; at the interpreter's exit, when no thread can be started, call it here."""
    try:
        return executor.submit(call, *args)
    except RuntimeError:
        done: Future[T] = Future()
        try:
            done.set_result(call(*args))
        except Exception as error:
            done.set_exception(error)
        return done
