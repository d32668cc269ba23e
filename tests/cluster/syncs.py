"""What the nodes of a cluster write and sync, as strace sees it; and a power cut, which leaves only what was synced."""

from __future__ import annotations

import os
import re
import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.cluster.brokers import KafkaCluster

CALLS = "write,pwrite64,ftruncate,fsync,fdatasync,rename,unlink"

_LINE = re.compile(r"(?P<thread>\d+) +(?P<time>\d+\.\d+) (?P<rest>.*)")
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>(.*)")
_CALL = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+).* <(?P<took>\d+\.\d+)>$")
_FILE = re.compile(r"\d+<(?P<path>/[^>]*)>(?:, .*?, (?P<at>\d+))?")
_NAMES = re.compile(r'"(?P<old>[^"]*)"(?:, "(?P<new>[^"]*)")?')


class Sync(NamedTuple):
    """A file was synced; everything that had been written to it when the call began is on the disk when it ends."""

    path: str
    size: int
    begin: float
    end: float


@dataclass
class Disk:
    """What is known of the files of a node."""

    syncs: list[Sync] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """What was written."""
    kept: dict[str, int] = field(default_factory=dict)
    """How much of it is on the disk; files that were never synced are missing."""


class Call(NamedTuple):
    name: str
    arguments: str
    result: int
    begin: float
    end: float
    size: int
    """How long the file was when the call began."""


class Recorder:
    """Traces the nodes of a cluster from their start on: ``KafkaCluster(folder, under=Recorder(folder).under)``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._before: dict[int, dict[str, int]] = {}

    def under(self, node: int) -> list[str]:
        """The command: strace becomes the node, and a child of it traces. What is there before counts as synced."""
        self._before[node] = files(self.folder / f"node{node}" / "data")
        trace = ["-e", f"trace={CALLS}", "-y", "-ttt", "-T", "-s", "0", "-o", str(self._trace(node))]
        return ["strace", "-D", "-q", "-f", "--seccomp-bpf", *trace]

    def _trace(self, node: int) -> Path:
        return self.folder / f"trace{node}"

    def disk(self, node: int) -> Disk:
        """What the node did so far."""
        disk = Disk()
        disk.sizes.update(self._before[node])
        disk.kept.update(self._before[node])
        for call in _calls(self._trace(node), disk.sizes):
            _note(disk, call)
        return disk


def files(folder: Path) -> dict[str, int]:
    """The sizes of all files in a folder and its folders."""
    return {str(path): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def _calls(trace: Path, sizes: dict[str, int]) -> Iterator[Call]:
    """The calls in the order in which they ended. The sizes are the caller's, who keeps them up to date."""
    begun: dict[str, tuple[str, float, int]] = {}
    with open(trace, errors="replace") as lines:
        for line in lines:
            if not (match := _LINE.fullmatch(line.rstrip("\n"))):
                continue  # the last one, cut off
            thread, time, rest = match["thread"], float(match["time"]), match["rest"]
            size = sizes[path] if (path := _path(rest)) else 0
            if rest.endswith(" <unfinished ...>"):
                begun[thread] = rest.removesuffix(" <unfinished ...>"), time, size
                continue
            begin = time
            if resumed := _RESUMED.fullmatch(rest):
                if thread not in begun:
                    continue
                first, begin, size = begun.pop(thread)
                rest = first + resumed[1]
            if call := _CALL.fullmatch(rest):
                end = begin + float(call["took"])
                yield Call(call["name"], call["arguments"], int(call["result"]), begin, end, size)


def _path(rest: str) -> str | None:
    match = re.match(r"\w+\(\d+<(/[^>]*)>", rest)
    return match[1] if match else None


def _note(disk: Disk, call: Call) -> None:
    if call.result < 0:
        return
    if call.name in ("rename", "unlink"):
        if not (names := _NAMES.match(call.arguments)):
            return
        size, kept = disk.sizes.pop(names["old"], 0), disk.kept.pop(names["old"], None)
        if names["new"]:
            disk.kept.pop(names["new"], None)
            disk.sizes[names["new"]] = size
            if kept is not None:
                disk.kept[names["new"]] = kept
        return
    if not (file := _FILE.match(call.arguments)):
        return
    path = file["path"]
    if call.name == "write":
        disk.sizes[path] += call.result
    elif call.name == "pwrite64":
        disk.sizes[path] = max(disk.sizes[path], int(call.arguments.rpartition(", ")[2]) + call.result)
    elif call.name == "ftruncate":
        size = int(call.arguments.rpartition(", ")[2])
        disk.sizes[path] = size
        if path in disk.kept:
            disk.kept[path] = min(disk.kept[path], size)
    else:
        disk.kept[path] = max(disk.kept.get(path, 0), call.size)
        disk.syncs.append(Sync(path, call.size, call.begin, call.end))


def cut_power(cluster: KafkaCluster, recorder: Recorder) -> int:
    """Kill all nodes at once, and take from their disks what was not synced; returns how many bytes of logs that were.

    What was synced stays to the byte. A file that is new since the nodes were started, and was never synced, is gone.
    """
    cluster.kill()
    lost = 0
    for node in cluster.nodes:
        kept = recorder.disk(node).kept
        for path, size in files(cluster.data(node)).items():
            is_log = path.endswith(".log")
            if path not in kept:
                os.unlink(path)
            elif is_log:
                os.truncate(path, min(size, kept[path]))
            lost += max(size - kept.get(path, 0), 0) if is_log else 0
    return lost


class Batch(NamedTuple):
    """Records that lie in a file of a partition as one piece."""

    first: int
    last: int
    end: int
    """The position in the file behind it."""


def batches(log: Path) -> list[Batch]:
    """The batches in a file of a partition: it is the same, to the byte, on all nodes."""
    data, position, found = log.read_bytes(), 0, []
    while position < len(data):
        first, length = struct.unpack_from(">qi", data, position)
        (more,) = struct.unpack_from(">i", data, position + 23)
        position += 12 + length
        found.append(Batch(first, first + more, position))
    return found
