"""Where a log is: the brokers, the name of the log, and how the cluster is logged into."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pqlog.errors import ArgumentError
from pqlog.store.kafka import properties
from pqlog.store.values import SCHEME

PORT = 9092
LONGEST_LOG = 100
"""Kafka allows 249 characters for a topic; the rest is for the name of the topic in the log."""

_QUIET = logging.getLogger("pqlog.kafka")
"""Otherwise librdkafka writes to the standard error whenever a producer is fenced, which is usual here."""
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False

Config = Mapping[str, Any] | str | os.PathLike[str]


@dataclass(frozen=True)
class Address:
    """The address of a log on a cluster.

    Attributes
    ----------
    servers : str
        The brokers to ask first, ``"h1:9092,h2:9092"``.
    log : str or None
        The name of the log; None for the cluster as such, whose topics can be read.
    config : dict
        Properties of librdkafka for every client of this log, secrets included: never shown.
    """

    servers: str
    log: str | None = None
    config: dict[str, Any] = field(default_factory=dict, repr=False, hash=False)

    @classmethod
    def parse(cls, url: str, config: Config | None = None) -> Address:
        """The address that a URL stands for, with the properties of a mapping or of a file."""
        if not url.startswith(SCHEME):
            raise ArgumentError("the address of a cluster is kafka://host:9092,host:9092/log")
        servers, _, log = url.removeprefix(SCHEME).partition("/")
        if "@" in url:
            raise ArgumentError(
                "a user or password in a URL ends up in logs and histories: leave it out of the address and pass "
                "config={'sasl.username': ..., 'sasl.password': ...}, or config='client.properties'"
            )
        if any(sign in url for sign in "?#"):
            raise ArgumentError("the address of a cluster has no ? or #: pass settings as config={...}")
        hosts = [_server(host) for host in servers.split(",")]
        log = log.rstrip("/")
        return cls(",".join(dict.fromkeys(hosts)), _checked(log) if log else None, _properties(config, hosts))

    def check(self) -> None:
        """Raise for properties that a client cannot log in with."""
        properties.check(self.config)

    def client_config(self, **more: Any) -> dict[str, Any]:
        """What every client of the cluster is made with; a user's own properties win, as none of them is harmful."""
        return {**more, **self.config, "bootstrap.servers": self.servers, "logger": _QUIET}

    def __str__(self) -> str:
        return SCHEME + self.servers + ("" if self.log is None else f"/{self.log}")


def _properties(config: Config | None, hosts: list[str]) -> dict[str, Any]:
    """What a user gave; a file that other clients share may name the brokers, if they are the same."""
    found = properties.of(config) if config is not None else {}
    named = found.pop("bootstrap.servers", None)
    if named is not None and {_server(host) for host in named.split(",")} != set(hosts):
        raise ArgumentError("config: bootstrap.servers names other brokers than the address: leave it out")
    return found


def _server(text: str) -> str:
    """A broker, with its port."""
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[\w.-]+)(?::(\d{1,5}))?", text.strip(), re.ASCII)
    if found is None:
        raise ArgumentError(
            f"{text!r} is not a broker: write host:port, and an IPv6 address in brackets, as in [::1]:9092"
        )
    host, port = found[1], int(found[2] or PORT)
    if not 0 < port < 65536:
        raise ArgumentError(f"{text!r}: a port is between 1 and 65535")
    return f"{host}:{port}"


def _checked(log: str) -> str:
    """The name of a log, if every topic of it has a name that Kafka allows and that no other log has."""
    if "." in log:
        raise ArgumentError(f"a log's name has no dot: {log!r} would share topics' names with another log")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", log):
        raise ArgumentError(f"{log!r} cannot be the name of a log: use letters, digits, _ and -")
    if log.startswith("__"):
        raise ArgumentError(f"{log!r} cannot be the name of a log: Kafka keeps names that begin with __ for itself")
    if len(log) > LONGEST_LOG:
        raise ArgumentError(f"a log's name has {LONGEST_LOG} characters at most, not {len(log)}")
    return log
