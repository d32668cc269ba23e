"""What the state of a log keeps under which key, and what is told of a value that somebody else wrote there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypedDict

import msgspec

from pqlog.errors import CorruptLogError
from pqlog.store.kafka import standing
from pqlog.store.kafka.damaged import Damaged
from pqlog.store.values import TopicInfo

LOG, TOPIC, TRIM, GONE, USED = "log", "topic/", "trim/", "gone/", "used/"
"""Keys of the catalogue: of the log; and what those begin with of topics, of trims, and of topics to delete.

And of names on the cluster that deleted topics had: no other topic has them, since a message may be on its way.
"""
CATALOGUE = "topics"
"""The lane of the topics: it has a partition for itself, since everything looks at it."""
ID, TEXT = "#", "text"
"""What the keys of ids begin with, and the key of a cursor."""


class LogRecord(TypedDict):
    """What distinguishes the log from all others, and the id of the next topic."""

    uuid: str
    next: int


class Known(msgspec.Struct, frozen=True):
    """A topic."""

    id: int
    """That of its first partition; the others have those that follow."""
    name: str
    codec: str
    partitions: int
    kafka: str
    """Its name on the cluster, which stays when it is renamed."""
    max_bytes: int
    """The largest record that it takes."""

    def info(self, number: int = 0) -> TopicInfo:
        """One of its partitions."""
        return TopicInfo(self.id + number, self.name, self.codec, number, self.partitions, self.max_bytes)


class Shape(NamedTuple):
    """What a value must be."""

    key: str
    """What its key begins with."""
    kind: Any
    without: str = ""
    """What it is like without it, if one can do without."""


_SHAPES: Mapping[str, tuple[Shape, ...]] = {
    CATALOGUE: (
        Shape(LOG, LogRecord),
        Shape(TOPIC, Known, "that topic is not of the log any more then"),
        Shape(TRIM, int, "that partition begins where its topic on the cluster does then"),
        Shape(GONE, str, "that topic is not deleted from the cluster then"),
    ),
    "client": (Shape(standing.KEY, standing.Standing, "that client does not exist then"),),
    "id": (Shape(ID, list[tuple[int, int, int, int]], "a put with that id is a new one then"),),
    "cursor": (Shape(TEXT, str, "that cursor is not set then"),),
}
"""By the first part of the names of lanes."""


def read(data: bytes, where: str, lane: str, key: str) -> Any:
    """A value, or that it is damaged; `where` is what its topic and partition are called."""
    shape = next((one for one in _SHAPES.get(lane.partition("/")[0], ()) if key.startswith(one.key)), None)
    try:
        value = msgspec.json.decode(data)
        if shape is not None:
            msgspec.convert(value, shape.kind)
    except msgspec.MsgspecError as error:
        return Damaged(_problem(error, where, lane, key, "" if shape is None else shape.without))
    return value


def _problem(error: msgspec.MsgspecError, where: str, lane: str, key: str, without: str) -> CorruptLogError:
    name = msgspec.json.encode((lane, key)).decode()
    said = f"the value of the key {name} in {where} is not one that pqlog writes: {error}. Nobody else may write there"
    if without:
        said += f". To remove it, close the log everywhere and write a record with that key and no value: {without}"
    return CorruptLogError(said)
