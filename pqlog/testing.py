"""For tests of programs that use pqlog: a log whose offsets have gaps."""

from __future__ import annotations

from typing import Any

from pqlog.codecs import Codec
from pqlog.log import Log
from pqlog.store.memory.store import MemoryStore
from pqlog.stream import TopicStream


def sparse_log(topic: str = "main", codec: str | Codec | None = None, *, type: Any = None, seed: int = 0) -> Log:
    """A log in memory that promises what every log promises, and nothing more.

    In a file, offsets have no gaps. On other engines they may, and a read may return fewer messages at a time. A
    program that works on this log relies on nothing that only a file promises. Its messages are lost when it is closed.

    Parameters
    ----------
    topic, codec, type
        As for `pqlog.open`.
    seed : int
        The seed of the gaps: the same calls with the same seed give the same offsets.

    Returns
    -------
    Log

    Examples
    --------
    >>> from pqlog.testing import sparse_log
    >>> log = sparse_log()
    >>> put = log.put_many(list("abc"))
    >>> put.messages, put.last - put.first + 1
    (3, 4)
    >>> list(log.get("billing"))
    ['a', 'b', 'c']
    """
    store = MemoryStore(seed)
    return Log(store.name, TopicStream.open(store, topic, codec, type))
