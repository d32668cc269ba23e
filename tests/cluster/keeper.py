"""A process that keeps the cluster of a test run: ``python -m tests.cluster.keeper SOCKET FOLDER``.

It starts the cluster when somebody first connects to the socket, and tells everybody who connects where it is. It ends
with its standard input, so also if the test run is killed.
"""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType

from tests.cluster.brokers import KafkaCluster

OK = b"ok "


class Keeper:
    """The same process, as the one that started it sees it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="pqlog-kafka-")
        self.socket = str(Path(self._folder.name, "socket"))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.keeper", self.socket, self._folder.name],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # an interrupt of the tests comes to it as the end of its input
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()  # now it listens

    def close(self) -> None:
        """End it, and the cluster."""
        self._process.communicate()
        self._folder.cleanup()

    def __enter__(self) -> Keeper:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def ask(path: str) -> str:
    """Where the cluster of a keeper is, which is started if it does not run yet."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(path)
        with asking.makefile("rb") as answer:
            told = answer.read()
    if not told.startswith(OK):
        raise RuntimeError(told.decode() or "the process that keeps the cluster ended")
    return told.removeprefix(OK).decode()


def main(path: str, folder: str) -> None:
    """Keep a cluster until the standard input ends."""
    cluster: KafkaCluster | None = None
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(64)
        print("listening", flush=True)
        try:
            while sys.stdin not in select.select([sys.stdin, listening], [], [])[0]:
                asking, _ = listening.accept()
                with asking:
                    try:
                        if cluster is None:
                            cluster = KafkaCluster(folder)
                            cluster.start()
                        asking.sendall(OK + cluster.bootstrap.encode())
                    except (OSError, RuntimeError) as error:
                        asking.sendall(str(error).encode())
        finally:
            if cluster is not None:
                cluster.kill()


if __name__ == "__main__":
    main(*sys.argv[1:])
