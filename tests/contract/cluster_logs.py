"""Logs on the cluster of the tests, which are cheap: what each needs is created for many of them at once.

A cluster gets slow with thousands of partitions: the states of these logs have few, and what a test leaves is deleted.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from confluent_kafka.admin import AdminClient

from pqlog.store.kafka.address import Address
from pqlog.store.kafka.promise import Durability, Kind, new_topic
from pqlog.store.kafka.store import KafkaStore

RUNNING = "PQLOG_CLUSTER"
"""The environment variable with the address of the cluster, for other processes, too."""
AT_ONCE, PARTITIONS = 10, 2
DURABILITY = Durability.REPLICATED
"""What is synced, other tests look at."""

_ready: list[str] = []
_used: list[str] = []
_made: list[AdminClient] = []


def opened(folder: Path) -> KafkaStore:
    """A store of a log: of the same for the same folder."""
    note = folder / "log on the cluster"
    if not note.exists():
        note.write_text(_new())
    return KafkaStore(Address.parse(f"kafka://{os.environ[RUNNING]}/{note.read_text()}"), durability=DURABILITY)


def _new() -> str:
    if not _ready:
        _ready.extend(f"t{uuid.uuid4().hex[:12]}" for _ in range(AT_ONCE))
        kinds = {"__state": Kind.STATE, "__ids": Kind.IDS}
        names = [(f"{log}.{name}", kind) for log in _ready for name, kind in kinds.items()]
        for made in _admin().create_topics([new_topic(*one, DURABILITY, 3) for one in _topics(names)]).values():
            made.result(60)
    _used.append(_ready.pop(0))
    return _used[-1]


def _topics(names: list[tuple[str, Kind]]) -> list[tuple[str, int, Kind]]:
    return [(name, PARTITIONS, kind) for name, kind in names]


def _admin() -> AdminClient:
    if not _made:
        _made.append(AdminClient({"bootstrap.servers": os.environ[RUNNING], "log_level": 0}))
    return _made[0]


def clean(logs: int = AT_ONCE) -> None:
    """Delete what was used, if it is as much as that."""
    if len(_used) < max(1, logs):
        return
    there = _admin().list_topics(timeout=60).topics
    names = [name for name in there if name.partition(".")[0] in _used]
    for deleted in _admin().delete_topics(names).values() if names else ():
        deleted.result(60)
    _used.clear()


def clean_all() -> None:
    """Delete everything."""
    _used.extend(_ready)
    _ready.clear()
    clean(0)
