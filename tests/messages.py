"""What a topic has, in the form that tests compare."""

from __future__ import annotations

from typing import Any

import pqlog


def values(messages: pqlog.Topic | pqlog.History) -> list[Any]:
    """The values of messages, each decoded by itself."""
    return [message.value for message in messages]
