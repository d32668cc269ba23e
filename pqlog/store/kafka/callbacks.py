"""Callbacks that librdkafka calls while it is polled: nothing may be raised from them."""

from __future__ import annotations

import _thread
import threading
import time
from collections.abc import Callable
from typing import Any

_REFUSED = "none"
"""A token for a broker to refuse: without any, librdkafka waits, and confluent-kafka fails inside Python."""
_SOON_S = 5.0


class TokenSource:
    """A user's ``oauth_cb``. If it fails, the token before is used while it is valid; `failure` is what was raised."""

    def __init__(self, callback: Callable[[str], Any]) -> None:
        self._callback = callback
        self._last: Any = ("", 0.0)
        self.failure: Exception | None = None

    def __call__(self, config: str) -> Any:
        try:
            found = self._callback(config)
            token, expires, *_ = found
            if not isinstance(token, str) or not isinstance(expires, int | float) or expires <= time.time():
                raise TypeError("oauth_cb must return (token, time in the future at which it expires)")
        except KeyboardInterrupt:
            interrupt_soon()
        except Exception as error:
            self.failure = error
        else:
            self.failure, self._last = None, found
            return found
        soon = time.time() + _SOON_S
        return self._last if self._last[1] > soon else (_REFUSED, soon)


def interrupt_soon() -> None:
    """Repeat a Ctrl-C that struck in a callback, once the callback has returned."""
    again = threading.Timer(0.05, _thread.interrupt_main)
    again.daemon = True
    again.start()
