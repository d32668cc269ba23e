"""Client properties: those of librdkafka, and those of Java clients where they have an equivalent.

What decides about durability, order or who reads what is set by pqlog alone and refused by name, as is everything that
pqlog would not pass on. No error here shows a value: it may be a secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pqlog.errors import ArgumentError
from pqlog.store.kafka.callbacks import TokenSource

_PASSED = {
    "bootstrap.servers",
    "broker.address.family",
    "client.dns.lookup",
    "client.id",
    "client.rack",
    "connections.max.idle.ms",
    "enable.sasl.oauthbearer.unsecure.jwt",
    "enable.ssl.certificate.verification",
    "https.ca.location",
    "https.ca.pem",
    "metadata.max.age.ms",
    "oauth_cb",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "socket.nagle.disable",
}
_PASSED_FAMILIES = ("sasl.oauthbearer.", "ssl.")
_PROMISED = {
    "acks",
    "allow.auto.create.topics",
    "auto.offset.reset",
    "check.crcs",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "isolation.level",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.send.max.retries",
    "message.timeout.ms",
    "partitioner",
    "partitioner.class",
    "request.required.acks",
    "request.timeout.ms",
    "retries",
    "transaction.timeout.ms",
    "transactional.id",
}
"""Each could weaken a promise: what is acknowledged, in which order, once, and who is handed what."""

_TO_PEM = "convert it to PEM (keytool -importkeystore to PKCS12, then openssl pkcs12 -nokeys -out ca.pem)"
_INSTEAD = {
    "ssl.truststore.password": "a PEM file needs no password: leave it out",
    "ssl.protocol": "OpenSSL chooses the version of TLS: leave it out",
    "ssl.enabled.protocols": "OpenSSL chooses the version of TLS: leave it out",
    "sasl.kerberos.service.name": "Kerberos is not built into confluent-kafka: use SCRAM, OAUTHBEARER or certificates",
    "sasl.client.callback.handler.class": "Java code cannot be run: for OAUTHBEARER pass oauth_cb",
    "sasl.login.class": "Java code cannot be run: for OAUTHBEARER pass oauth_cb",
}
_OIDC_HANDLER = "OAuthBearerLoginCallbackHandler"


def of(config: Mapping[str, Any] | str | os.PathLike[str]) -> dict[str, Any]:
    """The properties of a mapping or of a file, in librdkafka's words."""
    given = dict(config) if isinstance(config, Mapping) else _read(Path(config))
    for name, value in given.items():
        if not isinstance(name, str):
            raise ArgumentError("config maps names of properties to values, such as {'security.protocol': 'SSL'}")
        if name == "oauth_cb" and not callable(value):
            raise ArgumentError("config: oauth_cb is a function that returns (token, when it expires)")
        if name != "oauth_cb" and not isinstance(value, str | int | float):
            raise ArgumentError(f"config: {name} is text, a number, True or False, not {type(value).__name__}")
    words = {name: _text(value) for name, value in given.items()}
    if "oauth_cb" in words:
        words["oauth_cb"] = TokenSource(words["oauth_cb"])
    found = _translated(words)
    refused = [f"{name}: {_reason(name)}" for name in found if not _is_passed(name)]
    if refused:
        raise ArgumentError(f"config: {'; '.join(refused)}")
    _check_token(found)
    return found


def _is_passed(name: str) -> bool:
    return name in _PASSED or (name.startswith(_PASSED_FAMILIES) and name not in _INSTEAD)


def _check_token(found: Mapping[str, Any]) -> None:
    """Without a way to get a token librdkafka would wait for one for ever."""
    mechanism = found.get("sasl.mechanism", found.get("sasl.mechanisms", ""))
    ways = ("oauth_cb", "sasl.oauthbearer.method", "enable.sasl.oauthbearer.unsecure.jwt")
    if mechanism.upper() == "OAUTHBEARER" and not any(way in found for way in ways):
        raise ArgumentError(
            "config: OAUTHBEARER needs oauth_cb, a function that returns (token, when it expires), or "
            "sasl.oauthbearer.method=oidc with sasl.oauthbearer.client.id, .client.secret and .token.endpoint.url"
        )


def _text(value: Any) -> Any:
    """A value as librdkafka wants it."""
    return value if callable(value) else str(value).lower() if isinstance(value, bool) else str(value)


def _reason(name: str) -> str:
    """Why a property is refused, and what to do."""
    if name in _PROMISED:
        return "pqlog's promises depend on it, so pqlog sets it: leave it out"
    return _INSTEAD.get(name, "not a property that pqlog passes on: leave it out")


# Java's words


def _translated(words: dict[str, Any]) -> dict[str, Any]:
    """The same in librdkafka's words; what has no equivalent stays, and is refused by name."""
    found = dict(words)
    jaas, handler = found.pop("sasl.jaas.config", None), found.pop("sasl.login.callback.handler.class", "")
    if jaas is not None:
        found.update(_login(jaas, handler, found))
    elif handler:
        found["sasl.login.class"] = handler
    if found.get("ssl.endpoint.identification.algorithm") == "":
        found["ssl.endpoint.identification.algorithm"] = "none"
    for old, new in (
        ("ssl.truststore.certificates", "ssl.ca.pem"),
        ("ssl.keystore.certificate.chain", "ssl.certificate.pem"),
        ("ssl.keystore.key", "ssl.key.pem"),
    ):
        if old in found:
            found[new] = found.pop(old)
    _trust(found)
    _key(found)
    return found


def _trust(found: dict[str, Any]) -> None:
    """The certificates that are trusted."""
    kind, place = found.pop("ssl.truststore.type", None), found.pop("ssl.truststore.location", None)
    if place is None:
        return
    if not _is_pem(kind, place):
        raise ArgumentError(f"config: ssl.truststore.location is not a PEM file: {_TO_PEM} and pass ssl.ca.location")
    found["ssl.ca.location"] = place


def _key(found: dict[str, Any]) -> None:
    """Our own certificate and its key. librdkafka reads a keystore too, but only PKCS12."""
    kind, place = found.pop("ssl.keystore.type", None), found.get("ssl.keystore.location")
    if place is None:
        return
    if _is_pem(kind, place):
        del found["ssl.keystore.location"]
        found["ssl.certificate.location"] = found["ssl.key.location"] = place
    elif (kind or "").upper() == "JKS" or place.endswith(".jks"):
        raise ArgumentError(
            "config: ssl.keystore.location is a JKS keystore: convert it (keytool -importkeystore -deststoretype "
            "PKCS12) and pass ssl.keystore.type=PKCS12, or use ssl.certificate.location and ssl.key.location"
        )


def _is_pem(kind: str | None, place: str) -> bool:
    return kind.upper() == "PEM" if kind else place.endswith((".pem", ".crt", ".cer"))


def _login(jaas: str, handler: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """What a login module's line says, as properties."""
    module = re.match(r"\s*([\w.$]+)", jaas)
    name = module[1].rpartition(".")[2] if module else ""
    options = dict(_options(jaas))
    match name:
        case "PlainLoginModule" | "ScramLoginModule":
            if not {"username", "password"} <= options.keys():
                raise ArgumentError("config: sasl.jaas.config has no username and password")
            return {"sasl.username": options["username"], "sasl.password": options["password"]}
        case "OAuthBearerLoginModule" if handler.endswith(_OIDC_HANDLER):
            return _oidc(options, found)
        case "OAuthBearerLoginModule" if not handler and "unsecuredLoginStringClaim_sub" in options:
            return {
                "enable.sasl.oauthbearer.unsecure.jwt": "true",
                "sasl.oauthbearer.config": f"principal={options['unsecuredLoginStringClaim_sub']}",
            }
        case "OAuthBearerLoginModule":
            raise ArgumentError(
                "config: sasl.login.callback.handler.class is Java code and cannot be run: pass oauth_cb, or "
                "sasl.oauthbearer.method=oidc with sasl.oauthbearer.client.id, .client.secret and .token.endpoint.url"
            )
        case _:
            raise ArgumentError(
                "config: sasl.jaas.config has a login module that pqlog cannot translate: pass sasl.username and "
                "sasl.password, or oauth_cb"
            )


def _oidc(options: Mapping[str, str], found: Mapping[str, Any]) -> dict[str, Any]:
    """A client that fetches its tokens with an id and a secret."""
    if not {"clientId", "clientSecret"} <= options.keys() or "sasl.oauthbearer.token.endpoint.url" not in found:
        raise ArgumentError(
            "config: OAUTHBEARER needs clientId and clientSecret in sasl.jaas.config, and "
            "sasl.oauthbearer.token.endpoint.url"
        )
    scope = {"sasl.oauthbearer.scope": options["scope"]} if "scope" in options else {}
    return {
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.client.id": options["clientId"],
        "sasl.oauthbearer.client.secret": options["clientSecret"],
        **scope,
    }


def _options(jaas: str) -> Iterator[tuple[str, str]]:
    """The options of a login module: ``name="value"``, or without quotes."""
    for name, quoted, single, bare in re.findall(
        r"""(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|([^\s;"']+))""", jaas
    ):
        yield name, re.sub(r"\\(.)", r"\1", quoted or single) or bare


# Java's files of properties


def _read(path: Path) -> dict[str, Any]:
    """The properties of a file."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ArgumentError(f"config: {str(path)!r} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ArgumentError(f"config: {str(path)!r} is not a file of properties") from None
    return dict(_pairs(text))


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """Names and values, as Java reads them: lines continue behind a backslash, and = or : or a blank ends the name."""
    lines = iter(text.splitlines())
    for line in lines:
        line = line.lstrip()
        if not line or line.startswith(("#", "!")):
            continue
        while (len(line) - len(line.rstrip("\\"))) % 2:
            line = line[:-1] + next(lines, "").lstrip()
        found = re.match(r"((?:[^\\=:\s]|\\.)+)\s*[=:]?\s*(.*)", line, re.DOTALL)
        if found is not None:
            yield _unescaped(found[1]), _unescaped(found[2]).rstrip(" \t\r")


def _unescaped(text: str) -> str:
    signs = {"n": "\n", "t": "\t", "r": "\r", "f": "\f"}
    return re.sub(
        r"\\(?:u([0-9A-Fa-f]{4})|(.))",
        lambda found: chr(int(found[1], 16)) if found[1] else signs.get(found[2], found[2]),
        text,
        flags=re.DOTALL,
    )
