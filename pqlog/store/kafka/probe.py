"""What is at a port that accepts connections, but does not answer as a broker should: librdkafka tries for ever.

Asked once, when a cluster that has never answered stays silent. No credentials are sent.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct

from pqlog.store.kafka.address import Address

_SASL_HANDSHAKE = struct.pack(">hhih", 17, 1, 1, -1) + struct.pack(">h", 0)
"""A request for a SASL mechanism without a name, of a client without a name: refused in words of Kafka's own."""
_UNSUPPORTED_MECHANISM, _ILLEGAL_STATE = 33, 34


def misfit(address: Address, timeout_s: float = 1.0) -> str | None:
    """What is wrong with the protocol or the port, and what to do; None if that cannot be told."""
    protocol = str(address.config.get("security.protocol", "PLAINTEXT")).upper()
    for server in address.servers.split(","):
        host, _, port = server.rpartition(":")
        with contextlib.suppress(OSError):
            found = _misfit((host.strip("[]"), int(port)), protocol, timeout_s)
            if found is not None:
                return f"{server}: {found}"
    return None


def _misfit(server: tuple[str, int], protocol: str, timeout_s: float) -> str | None:
    has_tls, has_sasl = protocol in ("SSL", "SASL_SSL"), protocol.startswith("SASL")
    if not has_tls and _speaks_tls(server, timeout_s):
        return f"the port expects TLS: pass config={{'security.protocol': {'SASL_SSL' if has_sasl else 'SSL'!r}, ...}}"
    answer = _asked(server, struct.pack(">i", len(_SASL_HANDSHAKE)) + _SASL_HANDSHAKE, has_tls, timeout_s)
    code = struct.unpack(">h", answer[8:10])[0] if len(answer) >= 10 else None
    if code == _UNSUPPORTED_MECHANISM and not has_sasl:
        with_sasl = "SASL_SSL" if has_tls else "SASL_PLAINTEXT"
        return (
            f"the port expects SASL: pass config={{'security.protocol': {with_sasl!r}, 'sasl.mechanism': ..., "
            f"'sasl.username': ..., 'sasl.password': ...}}"
        )
    if code in (_UNSUPPORTED_MECHANISM, _ILLEGAL_STATE):
        return None  # a broker
    if _asked(server, b"GET / HTTP/1.0\r\n\r\n", has_tls, timeout_s).startswith(b"HTTP/"):
        return "this is a web server, not a Kafka broker: check the port"
    return "this is not a Kafka broker: check the port" if answer else None


def _speaks_tls(server: tuple[str, int], timeout_s: float) -> bool:
    try:
        with socket.create_connection(server, timeout_s) as plain, _unverified().wrap_socket(plain):
            return True
    except ssl.SSLError as error:
        return "CERTIFICATE_REQUIRED" in str(error)


def _asked(server: tuple[str, int], request: bytes, has_tls: bool, timeout_s: float) -> bytes:
    """The beginning of what is answered; nothing if the connection is closed or silent."""
    with socket.create_connection(server, timeout_s) as plain:
        talking = _unverified().wrap_socket(plain) if has_tls else plain
        with talking, contextlib.suppress(OSError):
            talking.sendall(request)
            return talking.recv(1024)
    return b""


def _unverified() -> ssl.SSLContext:
    """Nothing is told to the other side, so it need not prove who it is."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
