"""What goes wrong with lanes: whether another process took one, what may pass, and what nobody knows."""

from __future__ import annotations

import secrets
import time

from confluent_kafka import KafkaError, KafkaException

from pqlog.errors import Error, StoreError, UncertainError
from pqlog.store.kafka.faults import FENCED, PASSING, code, told


class Fenced(StoreError):
    """Another process took the lane."""


class Again(Exception):
    """It was not committed: to be tried again."""

    def __init__(self, error: Error, lost: bool = False, late: bool = False) -> None:
        self.error, self.lost, self.late = error, lost, late


def give_way(pause_s: float) -> None:
    """Wait about that long, since another process may want the same lane, too: each another time."""
    time.sleep(pause_s * secrets.randbelow(2000) / 1000)


def is_fenced(error: KafkaException) -> bool:
    # Once a producer has been fenced, its calls say only that it failed for good.
    return code(error) in FENCED or code(error) == KafkaError._FATAL


def problem(error: KafkaException, doing: str, is_late: bool = False) -> Exception:
    """What to raise: to try it again, or an error that does not pass."""
    failed: KafkaError = error.args[0]
    lost = is_fenced(error) and not is_late
    may_pass = lost or is_late or failed.code() in PASSING or failed.code() in _OURS or failed.retriable()
    return Again(told(error, doing), lost, is_late) if may_pass else told(error, doing)


_OURS = frozenset(
    {
        KafkaError._FATAL,
        KafkaError.UNKNOWN,  # of a broker that fences it just then: "already a pending state PREPARE_EPOCH_FENCE"
        KafkaError._STATE,
        KafkaError.INVALID_TXN_STATE,
        KafkaError._PURGE_QUEUE,
        KafkaError._PURGE_INFLIGHT,
    }
)
"""What a producer says that is given up, or was fenced before it was asked for something else."""


def uncertain(lane: str) -> UncertainError:
    return UncertainError(
        f"{lane}: the answer to a commit was lost, and the cluster did not say in time whether it was made. "
        f"Read what is there, or repeat the call: with an id, a put takes effect once"
    )
