"""Counts that do not drift: how many syncs, writes and bytes an operation takes, as SQLite asks for them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import apsw

_numbers = itertools.count()


@dataclass
class Counts:
    """What passed through a VFS."""

    syncs: int = 0
    writes: int = 0
    bytes: int = 0

    def per(self, operations: int) -> dict[str, float]:
        """The counts per operation, for a table."""
        return {name: round(value / operations, 4) for name, value in vars(self).items()}


class CountingVfs(apsw.VFS):
    """A VFS on top of the system's own; pass `vfs_name` to open files through it."""

    def __init__(self) -> None:
        self.vfs_name = f"counting-{next(_numbers)}"
        self.counts = Counts()
        super().__init__(self.vfs_name, "")

    def xOpen(self, name: object, flags: list[int]) -> apsw.VFSFile:
        return _File(self, name, flags)


class _File(apsw.VFSFile):
    def __init__(self, vfs: CountingVfs, name: object, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self.vfs = vfs

    def xWrite(self, data: bytes, offset: int) -> None:
        self.vfs.counts.writes += 1
        self.vfs.counts.bytes += len(data)
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self.vfs.counts.syncs += 1
        super().xSync(flags)
