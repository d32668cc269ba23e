"""Client properties: those of librdkafka, and those of Java clients where they have an equivalent.

What decides about durability, order or who reads what is set by pqlog alone and refused by name, as is everything that
pqlog would not pass on. No error here shows a value: it may be a secret.
"""

from __future__ import annotations

import difflib
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

_NO_KERBEROS = "Kerberos is not built into confluent-kafka: use SCRAM, OAUTHBEARER or certificates"
_TO_PEM = "convert it to PEM (keytool -importkeystore to PKCS12, then openssl pkcs12 -nokeys -out ca.pem)"
_INSTEAD = {
    "ssl.truststore.password": "a PEM file needs no password: leave it out",
    "ssl.protocol": "OpenSSL chooses the version of TLS: leave it out",
    "ssl.enabled.protocols": "OpenSSL chooses the version of TLS: leave it out",
    "sasl.kerberos.service.name": _NO_KERBEROS,
    "sasl.client.callback.handler.class": "Java code cannot be run: for OAUTHBEARER pass oauth_cb",
    "sasl.login.class": "Java code cannot be run: for OAUTHBEARER pass oauth_cb",
}
_OIDC_HANDLER = "OAuthBearerLoginCallbackHandler"

_WELL_KNOWN = {
    *(f"ssl.ca.{name}" for name in ("certificate.stores", "location", "pem")),
    *(f"ssl.certificate.{name}" for name in ("location", "pem")),
    *(f"ssl.key.{name}" for name in ("location", "password", "pem")),
    *(f"ssl.keystore.{name}" for name in ("certificate.chain", "key", "location", "password", "type")),
    *(f"ssl.truststore.{name}" for name in ("certificates", "location", "password", "type")),
    *(f"ssl.{name}" for name in ("cipher.suites", "crl.location", "curves.list", "engine.location", "providers")),
    *(f"ssl.{name}" for name in ("endpoint.identification.algorithm", "sigalgs.list")),
    *(f"sasl.oauthbearer.{name}" for name in ("client.id", "client.secret", "config", "extensions", "method", "scope")),
    "sasl.oauthbearer.token.endpoint.url",
    "sasl.jaas.config",
}
"""Of the families that are passed on, and of Java's: what a misspelt name may mean."""
_FILES = ("ssl.ca", "ssl.certificate", "ssl.key", "ssl.keystore", "ssl.crl", "https.ca")
"""Their ``.location`` is a file, or a folder, or ``probe``."""
_VALUES = {
    "security.protocol": ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
    "sasl.mechanism": ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"),
}
_SCRAM = re.compile(r"SCRAM-SHA-\d+", re.IGNORECASE)
"""One of these that is another is refused by the broker, which says what it has."""


def of(config: Mapping[str, Any] | str | os.PathLike[str]) -> dict[str, Any]:
    """The properties of a mapping or of a file, in librdkafka's words."""
    if not isinstance(config, Mapping | str | os.PathLike):
        raise ArgumentError(
            f"config is a mapping, such as {{'security.protocol': 'SSL'}}, or the path of a file of properties, not a "
            f"{type(config).__name__}"
        )
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
    refused = [f"{name}: {_reason(name)}" for name in found if not _is_passed(name) or _meant(name)]
    if refused:
        raise ArgumentError(f"config: {'; '.join(refused)}")
    _check_token(found)
    return found


def check(found: Mapping[str, Any]) -> None:
    """Raise for properties that a client cannot log in with, which librdkafka would not explain."""
    for family in _FILES:
        _check_file(f"{family}.location", found)
    _check_login(found)


def _is_passed(name: str) -> bool:
    return name in _PASSED or (name.startswith(_PASSED_FAMILIES) and name not in _INSTEAD)


def _check_file(name: str, found: Mapping[str, Any]) -> None:
    """Librdkafka would not say which property it is."""
    place = found.get(name)
    if place is None or place == "probe" or os.path.isdir(place):
        return
    try:
        with open(place, "rb"):
            pass
    except OSError as error:
        raise ArgumentError(f"config: {name}: {place!r} cannot be read: {error.strerror}") from error


def _check_login(found: Mapping[str, Any]) -> None:
    """What librdkafka would answer with silence, or with Kerberos."""
    chosen = {"security.protocol": found.get("security.protocol"), "sasl.mechanism": _mechanism(found)}
    for name, value in chosen.items():
        if value is not None and value.upper() not in _VALUES[name] and not _SCRAM.fullmatch(value):
            if value.upper() == "GSSAPI":
                raise ArgumentError(f"config: {name}: {_NO_KERBEROS}")
            near = difflib.get_close_matches(value.upper(), _VALUES[name], n=1, cutoff=0.6)
            raise ArgumentError(f"config: {name} is one of {', '.join(_VALUES[name])}{_did_you_mean(near)}")
    protocol, mechanism = ((value or "").upper() for value in chosen.values())
    logs_in = [name for name in found if name == "oauth_cb" or name.startswith("sasl.")]
    if not protocol.startswith("SASL"):
        if logs_in:
            raise ArgumentError(
                f"config: {logs_in[0]} needs security.protocol SASL_SSL, or SASL_PLAINTEXT where there is no TLS: "
                f"without it nobody logs in"
            )
    elif not mechanism:
        raise ArgumentError(f"config: {protocol} needs sasl.mechanism, one of {', '.join(_VALUES['sasl.mechanism'])}")
    elif mechanism != "OAUTHBEARER" and (missing := {"sasl.username", "sasl.password"} - found.keys()):
        raise ArgumentError(f"config: {mechanism} needs {' and '.join(sorted(missing, reverse=True))}")


def _mechanism(found: Mapping[str, Any]) -> str | None:
    mechanism: str | None = found.get("sasl.mechanism", found.get("sasl.mechanisms"))
    return mechanism


def _check_token(found: Mapping[str, Any]) -> None:
    """Without a way to get a token librdkafka would wait for one for ever."""
    mechanism = _mechanism(found) or ""
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
    if (meant := _meant(name)) and name not in _INSTEAD:
        return f"there is no such property{_did_you_mean(meant)}"
    return _INSTEAD.get(name, "not a property that pqlog passes on: leave it out")


def _meant(name: str) -> list[str]:
    """What a property that is not known may be a misspelling of."""
    known = _PASSED | _WELL_KNOWN
    if name in known or name in _PROMISED or name in _INSTEAD:
        return []
    return difflib.get_close_matches(name.replace("_", ".").lower(), sorted(known), n=1, cutoff=0.85)


def _did_you_mean(near: list[str]) -> str:
    return f": did you mean {near[0]}?" if near else ""


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
        if any(sign in str(path) for sign in "{=\n"):  # secrets may be among them
            raise ArgumentError(
                "config is a mapping, or the path of a file of properties: text with the properties themselves is none"
            ) from None
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
