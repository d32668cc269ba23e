"""Sealed messages in the file: their pieces, verified by their rows, and those that were read last."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from pqlog.errors import DamagedError
from pqlog.store.sealed import DAMAGE, HEAD_BYTES, Piece
from pqlog.store.sqlite import checksums
from pqlog.store.sqlite.connections import fetch_one

if TYPE_CHECKING:
    import apsw

    from pqlog.store.sqlite.table import Table

REMEMBERED_BYTES = 64 << 20
"""How much text the pieces have that are kept for the next read."""
FIRST_READ = 4_096
"""How much of a piece is read for its head, which is seldom longer."""


class SealedRow(NamedTuple):
    """A row of sealed messages, without their values."""

    offset: int
    time: int
    key: str | None
    headers: str | None
    rows: int
    last: int
    crc: int | None

    @property
    def stop(self) -> int:
        """The offset behind the last of them."""
        return self.offset + self.rows


class Pieces:
    """Remembers the pieces that were read last: a reader comes back for the rest of one."""

    def __init__(self) -> None:
        self._found: OrderedDict[tuple[int, int, int | None], Piece] = OrderedDict()

    def get(self, table: Table, row: SealedRow) -> Piece | None:
        """A piece that was read before."""
        return self._found.get((table.id, row.offset, row.crc))

    def add(self, table: Table, row: SealedRow, piece: Piece) -> None:
        """Remember a piece, and forget others."""
        self._found[table.id, row.offset, row.crc] = piece
        with contextlib.suppress(KeyError, RuntimeError):  # other threads add some, too
            while len(self._found) > 1 and self._size() > REMEMBERED_BYTES:
                self._found.popitem(last=False)

    def _size(self) -> int:
        return sum([piece.head.text for piece in list(self._found.values())])


def checked(table: Table, row: SealedRow, head: bytes, read: Callable[[int, int], bytes] | None = None) -> Piece:
    """The piece of a row; raises one of `DAMAGE` if it is not what was written."""
    piece = Piece(head, read)
    crc, kept = checksums.unmask(row.crc, table.seed)
    if kept != checksums.of_sealed(piece.crc, crc, *row[1:3], row.rows, row.last) or piece.rows != row.rows:
        raise ValueError("its checksum does not fit")
    return piece


@contextlib.contextmanager
def damage_told(table: Table, row: SealedRow) -> Iterator[None]:
    """Around what reads a piece."""
    try:
        yield
    except DAMAGE as error:
        raise DamagedError(table.topic, row.offset, row.stop - 1, table.partition) from error


def opened(table: Table, row: SealedRow, value: bytes) -> Piece:
    """The piece of a row that was read with its value."""
    known = table.pieces.get(table, row)
    if known is None:
        known = checked(table, row, value)
        table.pieces.add(table, row, known)
    return known


def find(db: apsw.Connection, table: Table, offset: int) -> SealedRow | None:
    """The row of sealed messages that begins at an offset."""
    found = fetch_one(db.execute(table.sealed_row, (offset,)))
    return SealedRow(offset, *found) if found else None


@contextlib.contextmanager
def look(db: apsw.Connection, table: Table, offset: int) -> Iterator[tuple[SealedRow, Piece]]:
    """The piece that begins at an offset, of which only what is asked for is read, while the block lasts."""
    row = find(db, table, offset)
    if row is None:
        raise DamagedError(table.topic, offset, offset, table.partition)
    known = table.pieces.get(table, row)
    if known is not None:
        with damage_told(table, row):
            yield row, known
        return
    blob: Any = db.blob_open("main", table.name, "value", offset, False)
    try:

        def read(at: int, size: int) -> bytes:
            if at + size > blob.length():
                raise ValueError("it is cut off")
            blob.seek(at)
            return bytes(blob.read(size))

        with damage_told(table, row):
            head = read(0, min(FIRST_READ, blob.length()))
            length = HEAD_BYTES + int.from_bytes(head[:HEAD_BYTES], "little")
            yield row, checked(table, row, head if length <= len(head) else read(0, length), read)
    finally:
        blob.close(True)


def whole(db: apsw.Connection, table: Table, offset: int, keep: bool = True) -> tuple[SealedRow, Piece]:
    """The piece that begins at an offset, remembered unless nobody comes back for the rest of it."""
    row = find(db, table, offset)
    if row is None:
        raise DamagedError(table.topic, offset, offset, table.partition)
    with damage_told(table, row):
        known = table.pieces.get(table, row)
        if known is None:
            value = fetch_one(db.execute(table.value_of, (offset,)))[0]
            known = opened(table, row, value) if keep else checked(table, row, value)
        return row, known
