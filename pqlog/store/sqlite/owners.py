"""Owners of claims: who holds a batch, and whether it still lives."""

from __future__ import annotations

import functools
import os
import socket
import threading


def this_thread(name: str = "") -> str:
    """Who this is: its name, if it gave itself one; host, process, its start, and thread."""
    return f"{name}|{this_process()}{threading.get_native_id()}"


def this_process() -> str:
    """What all owners of this process have in common."""
    return _process(os.getpid())


def is_same(one: str, other: str) -> bool:
    """Whether two owners are the same: who has a name is the same wherever it runs."""
    name = one.rpartition("|")[0]
    return name == other.rpartition("|")[0] if name else one == other


def is_gone(owner: str) -> bool:
    """Whether an owner is known to be gone; of one on another host nothing is known."""
    host, _, rest = owner.rpartition("|")[2].rpartition("@")
    parts = rest.split(":")
    if host != _host() or len(parts) != 3 or not os.path.isdir("/proc/self"):
        return False
    pid, start, thread = parts
    return _start(int(pid)) != start or not os.path.exists(f"/proc/{pid}/task/{thread}")


@functools.cache
def _process(pid: int) -> str:
    return f"{_host()}@{pid}:{_start(pid)}:"


@functools.cache
def _host() -> str:
    try:  # two containers may have one name: their processes have numbers of their own
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return f"{socket.gethostname()} {space}".strip().replace("@", "-")


def _start(pid: int) -> str:
    """When a process began, so that another of the same number is not taken for it; empty if there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
