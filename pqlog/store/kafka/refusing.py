"""What a log that was opened for reading only refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Protocol

from pqlog.store.api import ClientStore
from pqlog.store.kafka.partition import KafkaLog
from pqlog.store.values import Claim, ClientState, Done, Output, Put, Size


class ReadsOnly(KafkaLog, Protocol):
    """A log that says why it does not do what is asked for."""

    def refuse(self) -> NoReturn:
        """In place of whatever writes."""
        ...

    def no_clients(self) -> NoReturn:
        """In place of what a client does."""
        ...


class Refusing:
    """What a partition cannot do here."""

    log: Any

    def rename(self, name: str) -> None:
        self.log.refuse()

    def delete(self, force: bool) -> None:
        self.log.refuse()

    def append_one(self, value: bytes, key: str | None, headers: str | None) -> int:
        return self.log.refuse()  # type: ignore[no-any-return]

    def find_id(self, id: str) -> Mapping[int, Put] | None:
        return self.log.refuse()  # type: ignore[no-any-return]

    def clients(self) -> Sequence[ClientState]:
        return ()

    def open_batches(self) -> Mapping[str, tuple[int, int]]:
        return {}

    def clients_near(self, name: str) -> Sequence[str]:
        return ()

    def client(self, name: str) -> ClientStore:
        return NoClient(self.log, name)


class NoClient:
    """A client where there can be none; the protocol is `pqlog.store.api.ClientStore`."""

    def __init__(self, log: ReadsOnly, name: str) -> None:
        self._log, self.name = log, name

    def state(self) -> ClientState | None:
        self._log.no_clients()

    def join(self, start: int | None = None) -> ClientState:
        self._log.no_clients()

    def acknowledge(self, offset: int, epoch: int) -> bool:
        self._log.no_clients()

    def claims(self) -> Sequence[Claim]:
        self._log.no_clients()

    def has_work(self, worker: str, ordered: bool = False) -> bool:
        self._log.no_clients()

    def advance(
        self, size: Size, worker: str, done: Done | None = None, ordered: bool = False
    ) -> tuple[Claim | None, list[Put]]:
        self._log.no_clients()

    def finish(self, done: Claim, outputs: Sequence[Output] = ()) -> list[Put]:
        self._log.no_clients()

    def release(self, claim: Claim, error: str | None) -> bool:
        self._log.no_clients()

    def leave(self, claim: Claim) -> None:
        """There is none."""
