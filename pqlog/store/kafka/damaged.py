"""Values of the state of a log that somebody else wrote: who needs one is told, and nobody else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from pqlog.errors import CorruptLogError


@dataclass(frozen=True)
class Damaged:
    """In place of a value that is not what pqlog writes."""

    error: CorruptLogError

    def tell(self) -> NoReturn:
        """Raise that."""
        raise self.error


def sound(value: Any) -> Any:
    """A value that was read; raises if it is damaged."""
    if isinstance(value, Damaged):
        value.tell()
    return value
