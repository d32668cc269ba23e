"""What became of a message, as librdkafka says while it is polled.

Python looks for Ctrl-C when a function begins, where no handler of the function can be yet. confluent-kafka forgets
what is raised there, in a function that it calls back, and fails with a SystemError that has no cause. So what it calls
for each message is written in C.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException, Message

T = TypeVar("T")


class Outcome(dict[KafkaError | None, Message]):
    """What became of a message: its `setdefault`, which is written in C, is what the producer calls."""


def offset_of(outcome: Outcome) -> int:
    """Where a message went; raises KafkaException if it went nowhere."""
    ((error, message),) = outcome.items()
    if error is not None:
        raise KafkaException(error)
    offset = message.offset()
    if offset is None:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "it was not said where a message went"))
    return offset


def uninterrupted(call: Callable[[float], T], timeout_s: float) -> T:
    """A call that may call back; Ctrl-C in between is raised as such."""
    try:
        return call(timeout_s)
    except SystemError as error:
        raise error.__cause__ or error.__context__ or KeyboardInterrupt() from None
