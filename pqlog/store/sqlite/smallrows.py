"""Checksums of the rows of the small tables: properties, topics, clients, claims, runs of ids, cursors, cached schemas.

Each statement that reads such a row asks `fits`, which raises if it is not what was written, and each that writes one
sets `sum_of`; both are functions of our connections. So a row is verified wherever it is used, in the same statement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from zlib import crc32

import apsw

from pqlog.errors import CorruptLogError

COLUMNS = {
    "file": ("name", "value"),
    "topics": ("id", "name", "codec", "partition", "partitions", "first", "sealed", "created"),
    "clients": ("partition", "name", "next", "claimed", "epoch", "batches", "seen"),
    "claims": (
        *("partition", "client", "number", "first", "stop", "token", "attempt"),
        *("worker", "process", "expires", "error"),
    ),
    "id_runs": ("partition", "number", "first", "stop", "ids"),
    "cursors": ("name", "value"),
    "schema_cache": ("partition", "first", "stop", "inference"),
}
"""Those that a checksum covers: the CRC-32 of the table's name and their values, joined by line feeds (NULL, which is
only ever the last, is left out), masked as those of messages are."""
_TEXTS = {
    "file": ("name",),
    "topics": ("name", "codec"),
    "clients": ("name",),
    "claims": ("client", "worker", "process", "error"),
    "id_runs": ("ids",),
    "cursors": ("name", "value"),
    "schema_cache": ("inference",),
}
"""What must be text: one flipped bit makes bytes of it, with the same sum."""
_KEYS = {"file": 1, "topics": 1, "clients": 2, "claims": 3, "id_runs": 2, "cursors": 1, "schema_cache": 1}


def sum_of(table: str, **new: str) -> str:
    """SQL: the checksum of a row, of which some columns have new values."""
    return f"sum_of({_text(table, [new.get(column, column) for column in COLUMNS[table]])})"


def fits(table: str) -> str:
    """SQL: true if a row's checksum fits it; else it raises, or is false in a file that is known to be damaged."""
    return f"fits({table}.crc, {_text(table, [f'{table}.{column}' for column in COLUMNS[table]])})"


def _text(table: str, values: Sequence[str]) -> str:
    typed = [
        f"iif(typeof({value}) = 'text', {value}, NULL)" if column in _TEXTS[table] else value
        for column, value in zip(COLUMNS[table], values, strict=True)
    ]
    return f"CAST(concat_ws(char(10), '{table}', {', '.join(typed)}) AS BLOB)"


class SmallRow(NamedTuple):
    """Which row of which table."""

    table: str
    key: Sequence[str]

    @property
    def partition(self) -> str | None:
        """The id of the partition that it is of, as text; None if it is of none."""
        return None if COLUMNS[self.table][0] == "name" else self.key[0]

    def __str__(self) -> str:
        return f"the row {'/'.join(self.key)!r} of the table {self.table}"


def unfit(db: apsw.Connection) -> list[SmallRow]:
    """Which rows are damaged."""
    found: list[SmallRow] = []
    for table, columns in COLUMNS.items():
        damaged = f"SELECT {_text(table, columns)} FROM {table} WHERE {sum_of(table)} IS NOT crc"
        found += [_which(text) for (text,) in db.execute(damaged)]
    return found


def register(db: apsw.Connection, seed: int, lost: Callable[[str], object] | None = None) -> None:
    """Make the functions known to a connection.

    Parameters
    ----------
    lost : callable, optional
        Is told of each row that is damaged, and nothing is raised.
    """
    mask = seed & 0xFFFF_FFFF

    def sum_of(text: bytes) -> int:
        return crc32(text) if text.startswith(b"file\n") else crc32(text) ^ mask  # the seed is in the table file

    def fits(crc: object, text: bytes) -> bool:
        if crc == sum_of(text):
            return True
        if lost is None:
            raise CorruptLogError(
                f"{_which(text)} is not what was written: its checksum does not fit. Restore a backup, or copy what is "
                f"whole with pqlog.salvage(path, to)"
            )
        lost(str(_which(text)))
        return False

    functions: dict[str, Callable[..., Any]] = {"sum_of": sum_of, "fits": fits}
    for name, function in functions.items():
        db.create_scalar_function(name, function)


def _which(text: bytes) -> SmallRow:
    table, *values = text.decode(errors="replace").split("\n")
    return SmallRow(table, values[: _KEYS[table]])
