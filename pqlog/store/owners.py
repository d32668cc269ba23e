"""Owners of claims: which process holds a batch, and whether it still lives.

An owner is ``worker|process``: the name that a worker gave itself, or nothing, and the process that it runs in. Which
reader of that process has a batch only the process itself knows: each engine notes which claims it has handed out.
"""

from __future__ import annotations

import enum
import functools
import os
import socket
from typing import TYPE_CHECKING

from pqlog.errors import ForkError

if TYPE_CHECKING:
    from pqlog.store.values import Claim


class Fate(enum.Enum):
    """What is known of a process."""

    LIVES = enum.auto()
    GONE = enum.auto()
    UNKNOWN = enum.auto()
    """It is on another host or in another container, or its user's processes are hidden."""


def this_process() -> str:
    """The process that this is: host, number, start, boot."""
    return _process(os.getpid())


def owner(worker: str) -> str:
    """A worker of this process; its name, if it has one."""
    return f"{worker}|{this_process()}"


def parts(owner: str) -> tuple[str, str]:
    """An owner's worker and process."""
    worker, _, process = owner.rpartition("|")
    return worker, process


def check_mine(claim: Claim) -> None:
    """Raise unless a batch was handed to this process: a fork has the object, too."""
    if parts(claim.owner)[1] != this_process():
        raise ForkError(
            f"batch {claim.number} of client {claim.client!r} was handed to another process, of which this is a "
            f"fork: it is for that one to acknowledge"
        )


def fate(process: str, is_same_host: bool = False) -> Fate:
    """What is known of a process. One that cannot be seen is not gone.

    With `is_same_host`, all processes that are asked for run on this host: one of another boot ended with that.
    Otherwise it may run on another host of the same name.
    """
    if process == this_process():
        return Fate.LIVES
    host, _, rest = process.rpartition("@")
    pid, _, started = rest.partition(":")
    if host != _host() or not pid.isdecimal():
        return Fate.UNKNOWN
    start, _, boot = started.partition(":")
    if boot != _boot():
        return Fate.GONE if is_same_host else Fate.UNKNOWN
    if not boot and not is_same_host:
        return Fate.UNKNOWN
    seen = _start(int(pid))
    if seen is None:
        return Fate.UNKNOWN if _exists(int(pid)) else Fate.GONE
    return Fate.LIVES if seen == start else Fate.GONE


@functools.cache
def _process(pid: int) -> str:
    return f"{_host()}@{pid}:{_start(pid) or ''}:{_boot()}"


@functools.cache
def _host() -> str:
    try:  # two containers may have one name: their processes have numbers of their own
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return f"{socket.gethostname()} {space}".strip().replace("@", "-").replace("|", "-")


@functools.cache
def _boot() -> str:
    """Which start of the system this is: starts of processes count from it."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read(8)
    except OSError:
        return ""


def _start(pid: int) -> str | None:
    """When a process began, so that another of its number is not taken for it; None if it cannot be seen.

    Empty if it has ended, and nobody has asked how.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except OSError:
        return None
    return "" if fields[0] in "ZX" else fields[19]


def _exists(pid: int) -> bool:
    """Whether there is a process of that number, though it cannot be seen: another user's where /proc hides those."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # there is one, and it is not ours to signal
        return True
    return True
