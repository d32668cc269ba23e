"""What a log of which topics were deleted has left: nothing is made again that would be without what it had."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pqlog.errors import CorruptLogError, UnknownTopicError
from pqlog.store.kafka.cluster import Cluster
from pqlog.store.kafka.promise import Durability, Kind, is_ours, new_topic, read_settings
from pqlog.store.kafka.shapes import CATALOGUE, LOG
from pqlog.store.kafka.state import State
from pqlog.store.values import SCHEME

SHOWN = 5
"""How many topics an error names."""


def check_new(cluster: Cluster, state: State, there: Mapping[str, int]) -> None:
    """Raise if the state of a log, or its ids, are not there because somebody deleted them.

    Whoever creates a log creates both topics before anything else, and may die in between.

    Parameters
    ----------
    cluster : Cluster
    state : State
    there : Mapping
        The topics of the cluster, with how many partitions they have.

    Raises
    ------
    CorruptLogError
        What is missing, and what to do.
    """
    if not _is_there(cluster, state.topic):
        _check_no_state(cluster, state, there)
    elif not _is_there(cluster, state.ids):
        _check_no_ids(cluster, state)


def _is_there(cluster: Cluster, topic: str) -> bool:
    """Whether a topic exists; brokers hear of new ones one after the other."""
    try:
        cluster.check_topic(topic)
    except UnknownTopicError:
        return False
    return True


def _check_no_state(cluster: Cluster, state: State, there: Mapping[str, int]) -> None:
    prefix = f"{cluster.address.log}."
    some = [name for name in there if name.startswith(prefix) and name not in (state.topic, state.ids)]
    settings = read_settings(cluster.admin, some, cluster.timeout_s)
    left = sorted(name for name, each in settings.items() if is_ours(each))
    if state.ids in there and any(cluster.high(state.ids, number) for number in range(there[state.ids])):
        left.append(state.ids)
    if left:
        raise CorruptLogError(
            f"the topic {state.topic!r} was deleted, in which the log {cluster.address} keeps what topics and clients "
            f"it has; {_listed(left)} of it {'is' if len(left) == 1 else 'are'} left. The messages can be read, or "
            f"copied with pqlog.mirror, as topics of the cluster: at {SCHEME}{cluster.address.servers}, without the "
            f"name of the log. For a new log give another name, or delete what is left"
        )


def _check_no_ids(cluster: Cluster, state: State) -> None:
    catalogue = state.tail(CATALOGUE)
    catalogue.refresh()
    if catalogue.entry(CATALOGUE, LOG) is None:  # it is being created, or whoever did so was killed
        return
    partitions = cluster.check_topic(state.topic)
    topic = new_topic(state.ids, partitions, Kind.IDS, Durability.SYNCED, 0)
    config = " ".join(f"--config {name}={value}" for name, value in (topic.config or {}).items())
    raise CorruptLogError(
        f"the topic {state.ids!r} was deleted, in which the log {cluster.address} keeps the ids of what was put: a put "
        f"that is repeated with its id would be there twice. If none will be, create it again: kafka-topics.sh "
        f"--bootstrap-server ... --create --topic {state.ids} --partitions {partitions} --replication-factor "
        f"{topic.replication_factor} {config}"
    )


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    return ", ".join(map(repr, shown[:SHOWN])) + more
