"""Message: one message of a topic, as readers get it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pqlog import extras
from pqlog.errors import CorruptLogError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def from_micros(micros: int) -> datetime:
    """The UTC time that lies `micros` microseconds after the start of 1970, exactly."""
    try:
        return _EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        raise CorruptLogError(
            f"a time of {micros} microseconds since 1970 is not valid: pqlog did not write it. Restore a backup"
        ) from None


def to_micros(time: datetime) -> int:
    """Microseconds since the start of 1970; a naive time is taken as UTC."""
    aware = time.replace(tzinfo=UTC) if time.tzinfo is None else time
    return (aware - _EPOCH) // _MICROSECOND


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a topic.

    Attributes
    ----------
    offset : int
        Its number in its partition; ascending from 1, never used twice.
    time : datetime.datetime
        When it was put: UTC, in microseconds, never decreasing within its partition.
    value : object
        What was put, as the topic's codec returns it.
    key : str or None
        What the message is about, if it was put with a key.
    headers : Mapping of str to str
        Metadata that its producer stored with the value; empty if none.
    partition : int
        The number of the partition that it is in; 0 if the topic has one.

    Examples
    --------
    >>> import pqlog
    >>> log = pqlog.open(":memory:")
    >>> log.put({"city": "Brno"}, key="cz", headers={"source": "till-3"})
    1
    >>> message = log[1]
    >>> message.offset, message.key, message.value, message.headers["source"]
    (1, 'cz', {'city': 'Brno'}, 'till-3')
    """

    offset: int
    time: datetime
    value: Any
    key: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    partition: int = 0

    def _repr_html_(self) -> str:
        return extras.views.message_view(self)
