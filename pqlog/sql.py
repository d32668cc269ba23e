"""SQL over the topics of a log, by DuckDB, which asks for the columns and the rows that a query needs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pqlog import check, extras
from pqlog.errors import ArgumentError, UnknownTopicError
from pqlog.frames import Projection
from pqlog.frames.datasets import TopicDataset
from pqlog.frames.scans import Scan
from pqlog.readable import selection_of
from pqlog.topic import Topic

if TYPE_CHECKING:
    from pqlog.log import Log

LOG = "log"
"""What the log's own topic is called, besides its name, unless another topic has that name."""
_LOCKED = ("python_enable_replacements = false", "TimeZone = 'UTC'", "lock_configuration = true")


def query(log: Log, text: str, params: Any = None, external_access: bool = False) -> Any:
    """The result of a query over the topics of a log, as a relation of DuckDB."""
    if not isinstance(text, str):
        raise ArgumentError(f"a query must be text, not {text!r}")
    duckdb = extras.package("duckdb")
    database = duckdb.connect(config={} if external_access else {"enable_external_access": "false"})
    names = _names_in(database, text)
    for name, topic in _tables(log, names):
        database.register(name, TopicDataset(Scan(selection_of(topic), Projection())))
    for setting in _LOCKED:
        database.execute(f"SET {setting}")
    try:
        relation = database.sql(text, params=params)
    except duckdb.Error as error:
        raise _refused(log, text, names, error) from error
    if relation is None:
        raise ArgumentError(f"a query has a result, such as that of a SELECT: {text!r} has none")
    return relation


def _names_in(database: Any, text: str) -> set[str] | None:
    """The names of tables in a query, as DuckDB's parser finds them; None if it does not say."""
    (found,) = database.execute("SELECT json_serialize_sql(?)", [text]).fetchall()[0]
    tree = json.loads(found)
    return None if tree["error"] else set(_tables_of(tree))


def _tables_of(node: Any) -> Iterator[str]:
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if node.get("type") == "BASE_TABLE":
                yield node["table_name"]
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def _tables(log: Log, names: set[str] | None) -> Iterator[tuple[str, Topic]]:
    """The topics that a query names, or all; names of tables do not depend on case where that is unambiguous."""
    topics = log.topics()
    for name in (*topics, LOG) if names is None else sorted(names):
        alike = [name] if name in topics else [one for one in topics if one.lower() == name.lower()]
        if len(alike) == 1:
            yield name, log if alike[0] == log.name else log.topic(alike[0])
        elif name.lower() == LOG and not alike:
            yield name, log


def _refused(log: Log, text: str, names: set[str] | None, error: Exception) -> Exception:
    """DuckDB's refusal of a query as an error of ours, with what may be meant."""
    said = str(error)
    for name in names or ():
        if f"Table with name {name} does not exist" in said:
            return UnknownTopicError(name, check.near(name, log.topics()) or log.topics())
    if said.startswith("Parser Error") and re.search(r'(?<!")\boffset\b', text, re.IGNORECASE):
        said += '\n"offset" is a word of SQL: as a column it needs its double quotes'
    return ArgumentError(said)
