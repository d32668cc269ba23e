"""Addresses at which there is no Kafka: which error says so, within seconds."""

import contextlib
import http.server
import socket
import threading

import pytest

from pqlog.errors import ArgumentError, ClusterError
from tests.cluster.refusals import WRONG_PASSWORD, refused


@contextlib.contextmanager
def serving(banner=None):
    """A port that says something of its own, or nothing, to whoever connects."""
    connections = []

    def serve():
        with contextlib.suppress(OSError):
            while True:
                connections.append(listening.accept()[0])
                if banner is not None:
                    connections[-1].sendall(banner)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        yield f"kafka://127.0.0.1:{listening.getsockname()[1]}/etl"
        listening.shutdown(socket.SHUT_RDWR)
    for connection in connections:
        connection.close()


@contextlib.contextmanager
def web_server():
    class Quiet(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"kafka://127.0.0.1:{server.server_port}/etl"
        server.shutdown()


@pytest.mark.parametrize("config", [None, {"security.protocol": "SSL"}])
def test_a_web_server(config):
    with web_server() as url:
        said = refused(url, config, ClusterError)
    assert ("web server" if config is None else "security.protocol") in said


def test_an_ssh_server():
    with serving(b"SSH-2.0-OpenSSH_9.2\r\n") as url:
        assert "not Kafka" in refused(url, kind=ClusterError)


@pytest.mark.parametrize("config", [None, {"security.protocol": "SSL"}])
def test_a_port_that_says_nothing(config):
    with serving() as url:
        assert "no answer" in refused(url, config, ClusterError)


def test_a_port_that_nobody_listens_on():
    assert "Connection refused" in refused("kafka://127.0.0.1:1/etl", kind=ClusterError)


def test_a_host_that_does_not_exist():
    assert "unknown host" in refused("kafka://no-such-host.invalid/etl", kind=ClusterError)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN"}, "sasl.username and sasl.password must be set"),
        ({"security.protocol": "TLS"}, "security.protocol"),
        ({"security.protocol": "SSL", "ssl.ca.location": "/none.pem"}, "ssl.ca.location"),
        ({"security.protocol": "SSL", "ssl.key.pem": WRONG_PASSWORD}, "ssl.key.pem"),
        ({"ssl.no.such": WRONG_PASSWORD}, "ssl.no.such"),
    ],
)
def test_properties_that_librdkafka_refuses(config, says):
    assert says in refused("kafka://127.0.0.1:1/etl", config, ArgumentError)
