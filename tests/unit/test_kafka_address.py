"""The address of a cluster, and the properties that its clients are made with; none of it needs confluent-kafka."""

import pickle
import signal
import time

import pytest

from pqlog.errors import ArgumentError
from pqlog.store.kafka.address import Address
from pqlog.store.kafka.callbacks import TokenSource
from tests.processes import run

SECRET = "s3cr3t-w0rd"
SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"
OAUTH = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule"


def config_of(given):
    return Address.parse("kafka://h/etl", given).config


@pytest.mark.parametrize(
    ("url", "servers", "log"),
    [
        ("kafka://h1:9092,h2:9093/etl", "h1:9092,h2:9093", "etl"),
        ("kafka://h1,h2/etl", "h1:9092,h2:9092", "etl"),
        ("kafka://h1", "h1:9092", None),
        ("kafka://h1/", "h1:9092", None),
        ("kafka://h1/etl/", "h1:9092", "etl"),
        ("kafka://[::1]:9094,[fe80::1%eth0]/Log_2-x", "[::1]:9094,[fe80::1%eth0]:9092", "Log_2-x"),
        ("kafka://b-1.kafka.example.com:9096, b-2.kafka.example.com:9096/etl", None, "etl"),
        ("kafka://h1,h1:9092/etl", "h1:9092", "etl"),
    ],
)
def test_what_a_url_stands_for(url, servers, log):
    address = Address.parse(url)
    assert address.servers == servers or servers is None
    assert address.log == log
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("events.db", "kafka://host:9092"),
        ("kafka://", "not a broker"),
        ("kafka://h1,,h2/etl", "not a broker"),
        ("kafka://::1/etl", "brackets"),
        ("kafka://h:0/etl", "between 1 and 65535"),
        ("kafka://h:70000/etl", "between 1 and 65535"),
        ("kafka://h:port/etl", "not a broker"),
        ("kafka://h/a.b", "no dot"),
        ("kafka://h/__etl", "begin with __"),
        ("kafka://h/a/b", "letters, digits"),
        ("kafka://h/" + "x" * 101, "100 characters"),
        ("kafka://h/protokoll-ä", "letters, digits"),
        ("kafka://h/etl?acks=1", r"config=\{"),
    ],
)
def test_what_is_not_an_address(url, says):
    with pytest.raises(ArgumentError, match=says):
        Address.parse(url)


@pytest.mark.parametrize("url", [f"kafka://alice:{SECRET}@h:9092/etl", f"kafka://h/etl@{SECRET}"])
def test_a_password_in_a_url_is_refused_and_not_repeated(url):
    with pytest.raises(ArgumentError, match="config=") as caught:
        Address.parse(url)
    assert SECRET not in str(caught.value)


def test_secrets_are_not_shown():
    address = Address.parse("kafka://h/etl", {"sasl.username": "alice", "sasl.password": SECRET})
    assert address.client_config()["sasl.password"] == SECRET
    for shown in (repr(address), str(address), f"{address}", repr([address])):
        assert SECRET not in shown
    assert hash(address) == hash(Address("h:9092", "etl"))
    assert address != Address("h:9092", "etl")
    assert pickle.loads(pickle.dumps(address)) == address


def test_what_a_user_gives_replaces_what_is_usual_but_not_the_brokers():
    address = Address.parse("kafka://h/etl", {"client.id": "mine", "socket.keepalive.enable": True})
    made = address.client_config(**{"client.id": "pqlog", "linger.ms": 0})
    assert made.pop("logger").name == "pqlog.kafka"
    assert made == {
        "bootstrap.servers": "h:9092",
        "client.id": "mine",
        "socket.keepalive.enable": "true",
        "linger.ms": 0,
    }


def test_the_brokers_may_stand_in_the_properties_too_if_they_are_the_same():
    assert Address.parse("kafka://h1,h2/etl", {"bootstrap.servers": "h2:9092,h1:9092"}).config == {}
    with pytest.raises(ArgumentError, match=r"bootstrap\.servers names other brokers"):
        Address.parse("kafka://h1/etl", {"bootstrap.servers": "h3:9092"})


@pytest.mark.parametrize(
    "name",
    ["acks", "enable.idempotence", "isolation.level", "transactional.id", "group.id", "max.in.flight", "check.crcs"],
)
def test_what_would_break_a_promise_is_refused_by_name(name):
    with pytest.raises(ArgumentError, match=rf"config: {name}: pqlog's promises"):
        config_of({name: "1"})


def test_all_that_is_refused_is_named_at_once_and_no_value_is_shown():
    with pytest.raises(ArgumentError) as caught:
        config_of({"acks": "0", "key.serializer": SECRET, "ssl.truststore.password": SECRET, "client.id": "x"})
    assert {"acks", "key.serializer", "ssl.truststore.password"} <= set(str(caught.value).replace(":", "").split())
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("value", [None, ["a"], b"x", object()])
def test_a_value_of_another_type_is_refused(value):
    with pytest.raises(ArgumentError, match=r"sasl\.password is text"):
        config_of({"sasl.password": value})
    with pytest.raises(ArgumentError, match="oauth_cb is a function"):
        config_of({"oauth_cb": value})
    with pytest.raises(ArgumentError, match="names of properties"):
        config_of({1: "x"})


@pytest.mark.parametrize(
    ("java", "ours"),
    [
        (
            {
                "sasl.mechanism": "SCRAM-SHA-512",
                "sasl.jaas.config": f'{SCRAM} required username="al" password="s\\"1";',
            },
            {"sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "al", "sasl.password": 's"1'},
        ),
        (
            {"sasl.jaas.config": "x.y.PlainLoginModule required\n  username='al'\n  password=bare;"},
            {"sasl.username": "al", "sasl.password": "bare"},
        ),
        (
            {"ssl.truststore.type": "PEM", "ssl.truststore.location": "ca.pem"},
            {"ssl.ca.location": "ca.pem"},
        ),
        ({"ssl.truststore.type": "PEM", "ssl.truststore.certificates": "-----B"}, {"ssl.ca.pem": "-----B"}),
        (
            {"ssl.keystore.type": "PEM", "ssl.keystore.location": "me.pem", "ssl.key.password": "p"},
            {"ssl.certificate.location": "me.pem", "ssl.key.location": "me.pem", "ssl.key.password": "p"},
        ),
        (
            {"ssl.keystore.type": "PEM", "ssl.keystore.certificate.chain": "c", "ssl.keystore.key": "k"},
            {"ssl.certificate.pem": "c", "ssl.key.pem": "k"},
        ),
        (
            {"ssl.keystore.type": "PKCS12", "ssl.keystore.location": "me.p12", "ssl.keystore.password": "p"},
            {"ssl.keystore.location": "me.p12", "ssl.keystore.password": "p"},
        ),
        ({"ssl.endpoint.identification.algorithm": ""}, {"ssl.endpoint.identification.algorithm": "none"}),
        (
            {
                "sasl.jaas.config": f'{OAUTH} required clientId="app" clientSecret="s" scope="kafka";',
                "sasl.login.callback.handler.class": "org.apache.kafka.x.OAuthBearerLoginCallbackHandler",
                "sasl.oauthbearer.token.endpoint.url": "https://id.example.com/token",
            },
            {
                "sasl.oauthbearer.method": "oidc",
                "sasl.oauthbearer.client.id": "app",
                "sasl.oauthbearer.client.secret": "s",
                "sasl.oauthbearer.scope": "kafka",
                "sasl.oauthbearer.token.endpoint.url": "https://id.example.com/token",
            },
        ),
        (
            {
                "sasl.mechanism": "OAUTHBEARER",
                "sasl.jaas.config": f'{OAUTH} required unsecuredLoginStringClaim_sub="a";',
            },
            {
                "sasl.mechanism": "OAUTHBEARER",
                "enable.sasl.oauthbearer.unsecure.jwt": "true",
                "sasl.oauthbearer.config": "principal=a",
            },
        ),
    ],
)
def test_javas_properties_in_librdkafkas_words(java, ours):
    assert config_of(java) == ours


@pytest.mark.parametrize(
    ("java", "says"),
    [
        ({"ssl.truststore.location": "ca.jks"}, r"not a PEM file.*ssl\.ca\.location"),
        ({"ssl.truststore.location": "ca.p12", "ssl.truststore.type": "PKCS12"}, r"not a PEM file.*ssl\.ca\.location"),
        ({"ssl.keystore.location": "me.jks"}, "JKS keystore.*PKCS12"),
        ({"sasl.jaas.config": "com.sun.security.auth.module.Krb5LoginModule required;"}, r"sasl\.username"),
        ({"sasl.jaas.config": f"{SCRAM} required username='{SECRET}';"}, "no username and password"),
        ({"sasl.jaas.config": f"{OAUTH} required;", "sasl.login.callback.handler.class": "my.Own"}, "oauth_cb"),
        ({"sasl.jaas.config": f'{OAUTH} required clientId="{SECRET}";'}, "oauth_cb"),
        ({"sasl.mechanism": "OAUTHBEARER"}, r"oauth_cb.*method=oidc"),
        ({"sasl.kerberos.service.name": "kafka"}, "Kerberos"),
        ({"sasl.client.callback.handler.class": "x.Y"}, "Java code"),
    ],
)
def test_javas_properties_without_an_equivalent(java, says):
    with pytest.raises(ArgumentError, match=says) as caught:
        config_of(java)
    assert SECRET not in str(caught.value)


def test_a_file_of_properties(tmp_path):
    path = tmp_path / "client.properties"
    path.write_text(
        "# how to log in\n"
        "! another comment\n"
        "\n"
        "security.protocol=SASL_SSL\n"
        "  sasl.mechanism : SCRAM-SHA-256\n"
        "sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \\\n"
        f'    username="alice" \\\n    password="{SECRET}=#!";\n'
        "client.id caf\\u00e9\\ 1\n"
        "ssl.ca.location=C:\\\\keys\\\\ca.pem  \n"
    )
    for given in (path, str(path)):
        assert Address.parse("kafka://h/etl", given).config == {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-256",
            "sasl.username": "alice",
            "sasl.password": f"{SECRET}=#!",
            "client.id": "café 1",
            "ssl.ca.location": "C:\\keys\\ca.pem",
        }


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ArgumentError, match="cannot be read: No such file"):
        config_of(tmp_path / "none.properties")
    path = tmp_path / "store.jks"
    path.write_bytes(b"\xfe\xed\xfe\xed\xff")
    with pytest.raises(ArgumentError, match="not a file of properties"):
        config_of(path)


# tokens


def test_a_function_for_tokens_never_raises_and_its_last_token_is_used_while_it_is_valid():
    answers = [("first", time.time() + 600), RuntimeError("down"), ("late", time.time() - 1), None, ("", None)]

    def tokens(_):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    source = TokenSource(tokens)
    assert source("")[0] == "first"
    assert source.failure is None
    assert source("")[0] == "first"
    assert str(source.failure) == "down"
    for _ in range(3):
        assert source("")[0] == "first"
        assert isinstance(source.failure, TypeError)


def test_without_a_token_the_broker_is_asked_with_one_that_it_refuses():
    token, expires = TokenSource(lambda _: 1 / 0)("")
    assert token == "none"
    assert expires > time.time()


def test_an_interrupt_in_a_function_for_tokens_strikes_after_it():
    def tokens(_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            TokenSource(tokens)("")
            time.sleep(5)
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_address_does_not_need_confluent_kafka():
    run(
        "import sys; sys.modules['confluent_kafka'] = None\n"
        "from pqlog.store.kafka.address import Address\n"
        "Address.parse('kafka://h/etl', {'client.id': 'x'})"
    )


LOGIN = {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "sasl.username": "till", "sasl.password": SECRET}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"sasl.mecanism": "PLAIN"}, "sasl.mecanism: there is no such property: did you mean sasl.mechanism?"),
        ({"security_protocol": "SSL"}, "security_protocol: there is no such property: did you mean security.protocol?"),
        ({"ssl.ca.loction": "ca.pem"}, "ssl.ca.loction: .* did you mean ssl.ca.location?"),
        ({"ssl.ca.location": "/missing/ca.pem"}, "ssl.ca.location: '/missing/ca.pem' cannot be read: No such file"),
        ({"ssl.key.location": "/missing/a.key"}, "ssl.key.location: '/missing/a.key' cannot be read"),
        ({"ssl.truststore.location": "/missing/ca.pem"}, "ssl.ca.location: '/missing/ca.pem' cannot be read"),
        (LOGIN | {"sasl.mechanism": None}, "SASL_SSL needs sasl.mechanism, one of PLAIN"),
        (LOGIN | {"sasl.mechanism": "GSSAPI"}, "Kerberos is not built into confluent-kafka"),
        (LOGIN | {"sasl.mechanism": "SCRAM-SHA512"}, "did you mean SCRAM-SHA-512?"),
        (LOGIN | {"security.protocol": "TLS"}, "security.protocol is one of PLAINTEXT, SSL"),
        (LOGIN | {"security.protocol": "SSL"}, "needs security.protocol SASL_SSL"),
        (LOGIN | {"security.protocol": None}, "needs security.protocol SASL_SSL"),
        (LOGIN | {"sasl.username": None, "sasl.password": None}, "PLAIN needs sasl.username and sasl.password"),
        (LOGIN | {"sasl.password": None}, "PLAIN needs sasl.password"),
        ([("security.protocol", "SSL")], "config is a mapping.*not a list"),
        (f'{{"sasl.password": "{SECRET}"}}', "config is a mapping, or the path of a file"),
        (f"sasl.password={SECRET}", "config is a mapping, or the path of a file"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else None,
)
def test_a_login_that_cannot_work_is_refused_before_the_cluster_is_asked(config, says):
    if isinstance(config, dict):
        config = {name: value for name, value in config.items() if value is not None}
    with pytest.raises(ArgumentError, match=says.replace("?", "[?]")) as told:
        Address.parse("kafka://h/etl", config).check()
    assert SECRET not in str(told.value)


@pytest.mark.parametrize(
    "config",
    [
        LOGIN,
        LOGIN | {"ssl.ca.location": "probe"},
        LOGIN | {"ssl.ca.location": "/etc/ssl"},
        {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "OAUTHBEARER", "oauth_cb": lambda _: ("t", 1e10)},
        {"security.protocol": "ssl"},
        {},
    ],
)
def test_a_login_that_may_work_is_not_refused(config):
    Address.parse("kafka://host/etl", config).check()
