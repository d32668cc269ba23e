"""Opening a log, and putting into it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_type

import pandas as pd
import polars as pl
import pyarrow as pa

import pqlog


def opening(path: Path) -> None:
    assert_type(pqlog.open(path), pqlog.Log)
    assert_type(pqlog.open("events.db", "orders", "msgpack", readonly=True, timeout=0.5), pqlog.Log)
    with pqlog.open(path) as log:
        assert_type(log, pqlog.Log)
        assert_type(log.topic("orders"), pqlog.Topic)
        assert_type(log.topics(), list[str])
        assert_type(log.uuid, str)
        assert_type(log.size_bytes(), int)
        assert_type(log.verify(), list[str])
    pqlog.open(path, readonly=1)  # type: ignore[arg-type]
    pqlog.open(path, "orders", "json", dict)  # type: ignore[call-arg] # the type of the values is named: type=


def putting(log: pqlog.Log) -> None:
    assert_type(log.put({"city": "Brno"}), int | Any)
    assert_type(log.put(None, key="cz", headers={"source": "till-3"}, id="order-1"), int | Any)
    assert_type(log.put_many([1, 2, 3]), pqlog.Put)
    assert_type(log.put_many({"n": n} for n in range(3)), pqlog.Put)
    assert_type(log.put_many(pd.DataFrame({"n": [1]}), key="n"), pqlog.Put)
    assert_type(log.put_many(pl.DataFrame({"n": [1]}), key="n", ids="n"), pqlog.Put)
    assert_type(log.put_many(pa.table({"n": [1]})), pqlog.Put)
    assert_type(log.put_many([1], cursor=("api", 2, None)), pqlog.Put)
    log.put(1, key=2)  # type: ignore[arg-type]
    log.put(1, headers={"n": 1})  # type: ignore[dict-item]
    log.put_many(3)  # type: ignore[arg-type]
    log.put_many([1], cursor=("api", 2))  # type: ignore[arg-type]


class Points:
    """A user's codec: it inherits nothing from pqlog."""

    name = "points"

    def encode(self, value: Any) -> bytes:
        return b"%d,%d" % value

    def decode(self, data: bytes) -> tuple[int, ...]:
        return tuple(map(int, data.split(b",")))


class Nameless:
    def encode(self, value: Any) -> bytes:
        return bytes(value)

    def decode(self, data: bytes) -> bytes:
        return data


@dataclass
class Order:
    city: str


def codecs(log: pqlog.Log, path: Path) -> None:
    assert_type(pqlog.open(path, codec=Points()), pqlog.Log)
    assert_type(log.topic("points", Points()), pqlog.Topic)
    assert_type(log.topic("orders", type=Order), pqlog.Topic)
    pqlog.open(path, codec=Nameless())  # type: ignore[arg-type]


def errors(log: pqlog.Log) -> None:
    try:
        log.put(object())
    except pqlog.EncodeError as error:
        assert_type(error.index, int)
    try:
        log.trim(5)
    except pqlog.TrimRefusedError as error:
        clients: Sequence[tuple[str, int]] = error.clients
        assert clients
