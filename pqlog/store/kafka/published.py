"""A log of pqlog's own on a cluster for those who only read it: its topics and clients, from its state."""

from __future__ import annotations

import difflib
import time

from pqlog.errors import StoreError, UnknownTopicError
from pqlog.store import owners
from pqlog.store.kafka.catalogue import Seen, View
from pqlog.store.kafka.cluster import Cluster
from pqlog.store.kafka.damaged import sound
from pqlog.store.kafka.lane import shown
from pqlog.store.kafka.partition import KafkaPartition
from pqlog.store.kafka.refusing import NoClient, ReadsOnly, Refusing
from pqlog.store.kafka.shapes import CATALOGUE, LOG, Known
from pqlog.store.kafka.standing import Lease, Standing, lanes_of
from pqlog.store.kafka.state import IDS, STATE, State
from pqlog.store.owners import Fate
from pqlog.store.values import SCHEME, Claim, ClientState, Span


class Published(View):
    """The state of a log, which is read and never written."""

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self.close = state.close

    def uuid(self) -> str:
        """What distinguishes the log from all others."""
        uuid: str = sound(shown(self._tail, CATALOGUE)[LOG])["uuid"]
        return uuid

    def standings(self, prefix: str) -> dict[str, Standing]:
        """Where the clients stand whose lanes begin with a prefix, by their names."""
        tail = self._state.tail(prefix)
        tail.refresh()
        found = {name.removeprefix(prefix): shown(tail, name) for name in tail.names(prefix)}
        standings = {name: Standing.found_in(values) for name, values in found.items()}
        return {name: standing for name, standing in standings.items() if standing is not None}


def published(cluster: Cluster, log: str) -> Published:
    """The state of a log on a cluster.

    Raises
    ------
    StoreError
        pqlog made no such log, or a process is creating it just now.
    """
    state = State(cluster, log)
    partitions = cluster.partitions(state.topic)
    try:
        if partitions is not None:
            state.begin(partitions)
            state.tail(CATALOGUE).refresh()
            if state.tail(CATALOGUE).entry(CATALOGUE, LOG) is not None:
                return Published(state)
        raise _missing(cluster, log)
    except BaseException:
        state.close()
        raise


def _missing(cluster: Cluster, log: str) -> StoreError:
    """That there is no such log, and what the user may have meant."""
    servers = f"{SCHEME}{cluster.address.servers}"
    there = sorted(cluster.topics())
    logs = [topic.removesuffix(STATE) for topic in there if topic.endswith(STATE)]
    near = difflib.get_close_matches(log, [name for name in logs if name != log], 1)
    topic = next((topic for topic in there if topic.startswith(f"{log}.") and not topic.endswith((STATE, IDS))), None)
    example = f", as {topic!r}" if topic is not None else ""
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return StoreError(
        f"there is no log {cluster.address}{hint}: the first that opens it for writing creates it. Topics of other "
        f"programs are read without the name of a log, at {servers}{example}"
    )


class PublishedPartition(Refusing, KafkaPartition):
    """A partition of a topic of such a log; the protocol is `pqlog.store.api.TopicStore`."""

    def __init__(self, log: ReadsOnly, state: Published, known: Known, number: int) -> None:
        super().__init__(log, known.info(number), known.kafka)
        self._state, self._topic_id = state, known.id
        self.checked(state.look())

    def check(self) -> None:
        """Raise if it was deleted; know how far it was trimmed."""
        self.checked(self._state.look())

    def checked(self, seen: Seen) -> None:
        """The same by what is in the catalogue."""
        if seen.known(self._topic_id) is None:
            raise UnknownTopicError(self.info.name, [])
        self._trimmed = max(self._trimmed, seen.trimmed(self._topic_id, self.info.partition))

    def kept(self) -> Span:
        self.check()
        return super().kept()

    # clients

    def standings(self) -> dict[str, Standing]:
        """Where the clients stand."""
        return self._state.standings(lanes_of(self._topic_id, self.info.partition))

    def clients(self) -> list[ClientState]:
        kept = self.span()
        return [standing.state(name, kept, self.count) for name, standing in sorted(self.standings().items())]

    def open_batches(self) -> dict[str, tuple[int, int]]:
        claims = {name: standing.claims for name, standing in self.standings().items()}
        return {name: (len(some), max(one.attempt for one in some)) for name, some in claims.items() if some}

    def clients_near(self, name: str) -> list[str]:
        return sorted(self.standings())

    def client(self, name: str) -> SeenClient:
        return SeenClient(self, name)


class SeenClient(NoClient):
    """A client that is looked at; the protocol is `pqlog.store.api.ClientStore`."""

    def __init__(self, topic: PublishedPartition, name: str) -> None:
        super().__init__(topic.log, name)
        self._topic = topic

    def state(self) -> ClientState | None:
        standing = self._topic.standings().get(self.name)
        return None if standing is None else standing.state(self.name, self._topic.span(), self._topic.count)

    def claims(self) -> list[Claim]:
        standing = self._topic.standings().get(self.name)
        if standing is None:
            return []
        return [lease.claim(self.name, standing.epoch, _is_free(lease)) for lease in standing.claims]


def _is_free(lease: Lease) -> bool:
    """Whether a batch has no holder any more, as far as can be seen without asking the cluster for its time."""
    fate = owners.fate(lease.process) if lease.process else Fate.GONE
    return fate is Fate.GONE or (fate is Fate.UNKNOWN and lease.expires <= time.time_ns() // 1000)
