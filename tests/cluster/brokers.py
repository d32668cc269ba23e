"""A Kafka cluster on this machine, with real brokers that tests can kill, pause and restart.

    with KafkaCluster(folder) as cluster:
        cluster.bootstrap         # "127.0.0.1:21001,127.0.0.1:21002,127.0.0.1:21003"
        cluster.kill(2)           # SIGKILL
        cluster.start(2)          # again, with the data that it has
        cluster.pause(1)          # SIGSTOP: silent, but not dead
        cluster.resume(1)

Every node is a broker and a controller, in a process group of its own. On Linux a node is killed when the thread that
started it ends, however that ends.
"""

from __future__ import annotations

import base64
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

JARS = Path(__file__).parents[2] / "build" / "kafka"
"""Where `make build/kafka` puts the jars."""

DURABLE = {
    # A message counts when two of three nodes have it on their disks.
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "unclean.leader.election.enable": "false",
    "log.flush.interval.messages": "1",
    # Nothing expires.
    "log.retention.ms": "-1",
    "log.retention.bytes": "-1",
    "offsets.retention.minutes": str(2**31 - 1),
    "transactional.id.expiration.ms": str(2**31 - 1),
    # A topic with a misspelt name is an error.
    "auto.create.topics.enable": "false",
    # A segment is one record.
    "message.max.bytes": str(96 << 20),
    "replica.fetch.max.bytes": str(96 << 20),
    "socket.request.max.bytes": str(128 << 20),
    # Kafka's own topics.
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
}
SMALL = {
    # Three nodes fit on a machine with two processors.
    "offsets.topic.num.partitions": "3",
    "transaction.state.log.num.partitions": "6",
    "share.coordinator.state.topic.num.partitions": "1",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "num.replica.fetchers": "1",
    "background.threads": "2",
    "log.cleaner.dedupe.buffer.size": str(8 << 20),
    # The tests' topics are many and short-lived.
    "log.index.size.max.bytes": str(256 << 10),
    "log.segment.delete.delay.ms": "1000",
}
QUICK = {
    # A dead node is noticed after 3 s (Kafka's default: 9 s), a replica that lags after 5 s (30 s).
    "broker.heartbeat.interval.ms": "500",
    "broker.session.timeout.ms": "3000",
    "replica.lag.time.max.ms": "5000",
    "controller.quorum.election.timeout.ms": "500",
    "controller.quorum.fetch.timeout.ms": "1500",
    "group.initial.rebalance.delay.ms": "0",
}
JVM = (
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Djava.awt.headless=true",
    "-Dorg.apache.logging.log4j.level=WARN",
)
"""Starts quickly; over hours another choice would be faster."""

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class KafkaCluster:
    """Some nodes, with their data and logs in a folder.

    Parameters
    ----------
    folder
        Where the data lies; an empty one is formatted at the first start.
    nodes
        How many.
    settings
        Of all brokers, in addition to `DURABLE`, `SMALL` and `QUICK`.
    listeners
        More listeners, by name, with their protocol: ``{"SAFE": "SASL_SSL"}``. `address` says where they are; their
        keys and mechanisms are `settings`, such as ``listener.name.safe.ssl.keystore.location``.
    users
        Passwords by name, stored for SCRAM-SHA-256 and SCRAM-SHA-512 when the folder is formatted.
    heap
        Of each node.
    under
        A command under which a node runs, such as one that traces it. It must become the node itself.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        nodes: int = 3,
        settings: Mapping[str, str] | None = None,
        listeners: Mapping[str, str] | None = None,
        users: Mapping[str, str] | None = None,
        heap: str = "320m",
        jvm: Sequence[str] = JVM,
        jars: str | os.PathLike[str] = JARS,
        under: Callable[[int], Sequence[str]] = lambda node: (),
    ) -> None:
        self.folder = Path(folder).resolve()
        self.nodes = range(1, nodes + 1)
        self._protocols = {"PLAINTEXT": "PLAINTEXT", **(listeners or {}), "CONTROLLER": "PLAINTEXT"}
        free = _free_ports()
        self._ports = {name: {node: next(free) for node in self.nodes} for name in self._protocols}
        self._settings = {**DURABLE, **SMALL, **QUICK}
        if nodes < 3:
            alone = ("replication.factor", "min.isr", "min.insync.replicas")
            self._settings |= {name: "1" for name in self._settings if name.endswith(alone)}
        self._settings |= settings or {}
        self._users = dict(users or {})
        self._under = under
        self._java = [_java(), f"-Xms{heap}", f"-Xmx{heap}", *jvm, "-cp", str(_jars(jars) / "*")]
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    # where it is

    @property
    def bootstrap(self) -> str:
        """What clients connect to."""
        return self.address("PLAINTEXT")

    def address(self, listener: str) -> str:
        """What clients of a listener connect to."""
        return ",".join(f"127.0.0.1:{port}" for port in self._ports[listener].values())

    def url(self, log: str) -> str:
        """The address of a log on it."""
        return f"kafka://{self.bootstrap}/{log}"

    def pid(self, node: int) -> int:
        """The process of a node."""
        return self._processes[node].pid

    def data(self, node: int) -> Path:
        """The folder with a node's partitions."""
        return self.folder / f"node{node}" / "data"

    def is_running(self, node: int) -> bool:
        """Whether its process lives, if perhaps paused."""
        return node in self._processes and self._processes[node].poll() is None

    # what is done to it

    def start(self, *nodes: int, timeout_s: float = 90) -> None:
        """Start nodes that do not run, all unless some are named, and wait until they answer."""
        if not self.data(self.nodes[0]).exists():
            self._format()
        for node in nodes or self.nodes:
            if not self.is_running(node):
                self._spawn(node)
        until = time.monotonic() + timeout_s
        for node in nodes or self.nodes:
            self._wait_for(node, until)

    def kill(self, *nodes: int) -> None:
        """End nodes with SIGKILL, all unless some are named: none gets to flush anything, or to say good-bye."""
        chosen = [self._processes[node] for node in nodes or self._processes]
        for process in chosen:
            process.kill()
        for process in chosen:
            process.wait()

    def pause(self, *nodes: int) -> None:
        """Make nodes silent without ending them; a paused leader still believes that it leads."""
        for node in nodes or self.nodes:
            os.kill(self.pid(node), signal.SIGSTOP)

    def resume(self, *nodes: int) -> None:
        """Let paused nodes continue."""
        for node in nodes or self.nodes:
            os.kill(self.pid(node), signal.SIGCONT)

    def stop(self, *nodes: int, timeout_s: float = 20) -> None:
        """Let nodes hand over what they lead, and end; kill those that do not in time.

        All together do not get far, without anybody left to hand over to: they are given less time.
        """
        if not nodes:
            nodes, timeout_s = tuple(self.nodes), 4
        running = [self._processes[node] for node in nodes if self.is_running(node)]
        for process in running:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        until = time.monotonic() + timeout_s
        for process in running:
            try:
                process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def restart(self, *nodes: int) -> None:
        """Stop and start nodes one by one, all unless some are named, as an upgrade does."""
        for node in nodes or self.nodes:
            self.stop(node)
            self.start(node)

    def heal(self) -> None:
        """Let all nodes run, whatever was done to them."""
        for node in self.nodes:
            if self.is_running(node):
                self.resume(node)
        self.start()

    def __enter__(self) -> KafkaCluster:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End all nodes at once: nobody needs their data any more."""
        self.kill()

    # how

    def _write_settings(self, node: int) -> Path:
        ports = {name: ports[node] for name, ports in self._ports.items()}
        addresses = [f"{name}://127.0.0.1:{port}" for name, port in ports.items()]
        quorum = [f"{other}@127.0.0.1:{port}" for other, port in self._ports["CONTROLLER"].items()]
        lines = {
            "node.id": str(node),
            "process.roles": "broker,controller",
            "controller.quorum.voters": ",".join(quorum),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listeners": ",".join(addresses),
            "advertised.listeners": ",".join(addresses[:-1]),
            "listener.security.protocol.map": ",".join(f"{name}:{how}" for name, how in self._protocols.items()),
            "log.dirs": str(self.data(node)),
            **self._settings,
        }
        path = self.folder / f"node{node}" / "server.properties"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        return path

    def _format(self) -> None:
        """Format one folder with Kafka's tool, which takes a second, and make the others like it."""
        first, *others = self.nodes
        command = ["kafka.tools.StorageTool", "format", "-t", _uuid(), "-c", str(self._write_settings(first))]
        for user, password in self._users.items():
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
                command += ["--add-scram", f"{mechanism}=[name={user},password={password}]"]
        done = subprocess.run([*self._java, *command], capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise RuntimeError(f"the storage of Kafka was not formatted:\n{done.stdout}{done.stderr}")
        for node in others:
            shutil.copytree(self.data(first), self.data(node))
            meta = self.data(node) / "meta.properties"
            lines = (line.partition("=") for line in meta.read_text().splitlines())
            own = {"node.id": str(node), "directory.id": _uuid()}
            meta.write_text("".join(f"{name}{equals}{own.get(name, value)}\n" for name, equals, value in lines))

    def _spawn(self, node: int) -> None:
        path = self._write_settings(node)
        with open(path.with_name("console.log"), "ab") as console:
            self._processes[node] = subprocess.Popen(
                [*self._under(node), *self._java, "kafka.Kafka", str(path)],
                cwd=path.parent,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    def _wait_for(self, node: int, until: float) -> None:
        """Wait until a node opens its port: it does that after it has caught up and was let into the cluster."""
        while True:
            if not self.is_running(node):
                said = (self.folder / f"node{node}" / "console.log").read_text(errors="replace")
                raise RuntimeError(f"node {node} of Kafka ended:\n{said[-3000:]}")
            try:
                socket.create_connection(("127.0.0.1", self._ports["PLAINTEXT"][node]), 1).close()
                return
            except OSError:
                if time.monotonic() > until:
                    raise TimeoutError(f"node {node} of Kafka did not start in time") from None
                time.sleep(0.05)


def leader(bootstrap: str, topic: str, partition: int = 0, timeout_s: float = 30) -> int:
    """The node that leads a partition of a Kafka topic."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        try:
            known = admin.list_topics(topic, timeout=5).topics[topic].partitions
        except KafkaException:
            continue
        if partition in known and known[partition].leader > 0:
            return int(known[partition].leader)
        time.sleep(0.05)
    raise TimeoutError(f"{topic}/{partition} has no leader")


def _java() -> str:
    java = shutil.which("java")
    if java is None:
        raise RuntimeError("a Kafka cluster needs Java 17 or later: make build/kafka")
    return java


def _jars(folder: str | os.PathLike[str]) -> Path:
    jars = Path(folder).resolve()
    if not any(jars.glob("kafka_*.jar")):
        raise RuntimeError(f"{jars} has no jars of Kafka: make build/kafka")
    return jars


def _uuid() -> str:
    """A UUID as Kafka writes it. One that begins with a dash would look like an option."""
    return base64.urlsafe_b64encode(b"\x01" + uuid.uuid4().bytes[1:]).decode().rstrip("=")


def _end_with_parent() -> None:
    if _LIBC is not None:
        _LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _free_ports() -> Iterator[int]:
    """Ports that nobody listens on, each once.

    They lie below those that the system gives to outgoing connections: one of these could be taken by a client while
    its node is down.
    """
    first, count = 20_000, 12_000
    begin = os.getpid() * 61 % count
    for port in (first + (begin + step) % count for step in range(count)):
        if _is_free(port):
            yield port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def main(folder: str) -> None:
    """Run a cluster until it is interrupted."""
    with KafkaCluster(folder) as cluster:
        print(f"PQLOG_CLUSTER={cluster.bootstrap}", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main(*sys.argv[1:])
