"""One broker with TLS, SASL and rights: who gets in, who does not, and what each is told. No secret is ever shown."""

import base64
import contextlib
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from pqlog.errors import AccessError, ClusterError, UnsafeStorageError
from pqlog.log import Log
from pqlog.store.kafka import faults
from pqlog.store.kafka.address import Address
from pqlog.store.kafka.cluster import Cluster
from pqlog.store.kafka.promise import TRANSACTIONS, Durability, Kind, check_promise, new_topic
from pqlog.store.kafka.store import KafkaStore
from pqlog.stream import TopicStream
from tests.cluster.brokers import KafkaCluster
from tests.cluster.certificates import Authority
from tests.cluster.plugin import alone
from tests.cluster.refusals import (
    BOBS_PASSWORD,
    PLAIN_PASSWORD,
    SCRAM_PASSWORD,
    SECRETS,
    WRONG_PASSWORD,
    refused,
    topics,
)

MODULES = "org.apache.kafka.common.security"


@dataclass
class Guarded:
    """A broker, its certificates, and properties of clients."""

    kafka: KafkaCluster
    authority: Authority

    @property
    def tls(self):
        return {"security.protocol": "SSL", "ssl.ca.location": str(self.authority.certificate)}

    def sasl(self, mechanism, user=None, password=None, **more):
        named = {"sasl.username": user, "sasl.password": password} if user else {}
        return {**self.tls, "security.protocol": "SASL_SSL", "sasl.mechanism": mechanism, **named, **more}

    def url(self, listener="SAFE", log="etl"):
        return f"kafka://{self.kafka.address(listener)}/{log}"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guarded")
    authority = Authority(folder / "certificates")
    plain, scram, oauth = (
        f"listener.name.safe.{name}.sasl.jaas.config" for name in ("plain", "scram-sha-%d", "oauthbearer")
    )
    settings = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": authority.sign("broker"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": authority.certificate,
        "listener.name.tls.ssl.client.auth": "requested",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
        plain: f'{MODULES}.plain.PlainLoginModule required user_alice="{PLAIN_PASSWORD}";',
        scram % 256: f"{MODULES}.scram.ScramLoginModule required;",
        scram % 512: f"{MODULES}.scram.ScramLoginModule required;",
        oauth: f'{MODULES}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";',
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        # Whoever comes by the port without TLS is the broker itself or the one who keeps it.
        "super.users": "User:ANONYMOUS;User:alice;User:CN=alice",
    }
    kafka = KafkaCluster(
        folder / "kafka",
        nodes=1,
        listeners={"TLS": "SSL", "SAFE": "SASL_SSL"},
        users={"alice": SCRAM_PASSWORD, "bob": BOBS_PASSWORD},
        settings=settings,
    )
    with alone(), kafka:
        wait_for(lambda: users_are_known(kafka))
        yield Guarded(kafka, authority)


def users_are_known(kafka):
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    return all(
        future.result(10).scram_credential_infos for future in admin.describe_user_scram_credentials(["bob"]).values()
    )


def wait_for(condition, timeout_s=30):
    until = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(KafkaException):
            if condition():
                return
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.fixture(autouse=True)
def _nothing_shown(capfd, caplog):
    """What pqlog and librdkafka write anywhere has no secret in it."""
    caplog.set_level(logging.DEBUG)
    yield
    shown = "".join(capfd.readouterr()) + caplog.text
    assert not any(secret in shown for secret in SECRETS)


def token(user, lives_s=600):
    """A token that nobody signed."""

    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    now = int(time.time())
    return f"{part({'alg': 'none'})}.{part({'sub': user, 'iat': now, 'exp': now + lives_s})}.", now + lives_s


# who gets in


def test_tls(guarded):
    topics(guarded.url("TLS"), guarded.tls)


def test_a_certificate_of_ones_own_in_javas_words(guarded, tmp_path):
    path = tmp_path / "client.properties"
    path.write_text(
        "security.protocol=SSL\n"
        f"ssl.truststore.type=PEM\nssl.truststore.location={guarded.authority.certificate}\n"
        f"ssl.keystore.type=PEM\nssl.keystore.location={guarded.authority.sign('alice')}\n"
    )
    make(guarded, guarded.url("TLS"), path, "by-certificate")


@pytest.mark.parametrize(
    ("mechanism", "password"),
    [("SCRAM-SHA-256", SCRAM_PASSWORD), ("SCRAM-SHA-512", SCRAM_PASSWORD), ("PLAIN", PLAIN_PASSWORD)],
)
def test_user_and_password(guarded, mechanism, password):
    make(guarded, guarded.url(), guarded.sasl(mechanism, "alice", password), f"by-{mechanism.lower()}")


def test_javas_properties(guarded, tmp_path):
    path = tmp_path / "client.properties"
    path.write_text(
        "security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-512\n"
        f"sasl.jaas.config={MODULES}.scram.ScramLoginModule required \\\n"
        f'  username="alice" password="{SCRAM_PASSWORD}";\n'
        f"ssl.truststore.type=PEM\nssl.truststore.location={guarded.authority.certificate}\n"
    )
    make(guarded, guarded.url(), path, "by-file")


def test_tokens_of_a_function(guarded):
    config = guarded.sasl("OAUTHBEARER", oauth_cb=lambda _: token("alice"))
    make(guarded, guarded.url(), config, "by-token")


def test_tokens_without_signature(guarded):
    more = {"enable.sasl.oauthbearer.unsecure.jwt": True, "sasl.oauthbearer.config": "principal=alice"}
    make(guarded, guarded.url(), guarded.sasl("OAUTHBEARER", **more), "by-unsigned-token")


def make(guarded, url, config, name):
    """Who may create a topic is alice."""
    cluster = Cluster(Address.parse(url, config), timeout_s=20)
    try:
        cluster.make([new_topic(f"etl.{name}", 1, Kind.MESSAGES, Durability.DEVELOPMENT, 1)])
        assert f"etl.{name}" in cluster.topics()
    finally:
        cluster.close()


# who does not


@pytest.mark.parametrize(
    ("mechanism", "user"), [("SCRAM-SHA-256", "zoe"), ("SCRAM-SHA-512", "alice"), ("PLAIN", "alice")]
)
def test_wrong_credentials(guarded, mechanism, user):
    said = refused(guarded.url(), guarded.sasl(mechanism, user, WRONG_PASSWORD), AccessError)
    assert "refused the credentials" in said
    assert "sasl.password" in said


def test_a_mechanism_that_the_broker_has_not(guarded):
    said = refused(guarded.url(), guarded.sasl("SCRAM-SHA-1", "alice", SCRAM_PASSWORD), AccessError)
    assert "PLAIN,SCRAM-SHA-512,SCRAM-SHA-256,OAUTHBEARER" in said


def test_tokens_that_are_refused(guarded):
    config = guarded.sasl("OAUTHBEARER", oauth_cb=lambda _: ("a.b.c", time.time() + 600))
    assert "invalid_token" in refused(guarded.url(), config, AccessError)


def test_a_function_for_tokens_that_fails(guarded):
    def tokens(_):
        raise ConnectionError("the token service is down")

    said = refused(guarded.url(), guarded.sasl("OAUTHBEARER", oauth_cb=tokens), AccessError)
    assert said.endswith("no token: oauth_cb raised ConnectionError")


# another protocol than the port's


def test_without_tls_where_it_is_needed(guarded):
    assert "expects TLS" in refused(guarded.url("TLS"), kind=ClusterError)


def test_with_tls_where_there_is_none(guarded):
    assert "check security.protocol" in refused(guarded.url("PLAINTEXT"), guarded.tls, ClusterError)


def test_without_sasl_where_it_is_needed(guarded):
    said = refused(guarded.url("SAFE"), guarded.tls, ClusterError)
    assert "expects SASL" in said
    assert "SASL_SSL" in said


@pytest.mark.parametrize("listener", ["TLS", "PLAINTEXT"])
def test_with_sasl_where_there_is_none(guarded, listener):
    config = guarded.sasl("PLAIN", "alice", PLAIN_PASSWORD)
    if listener == "PLAINTEXT":
        config["security.protocol"] = "SASL_PLAINTEXT"
    assert "expects no SASL" in refused(guarded.url(listener), config, ClusterError)


def test_a_certificate_that_nobody_vouches_for(guarded, tmp_path):
    other = Authority(tmp_path, "other")
    config = {"security.protocol": "SSL", "ssl.ca.location": str(other.certificate)}
    assert "ssl.ca.location" in refused(guarded.url("TLS"), config, ClusterError)


def test_a_certificate_of_another_host(guarded):
    url = guarded.url("TLS").replace("127.0.0.1", "localhost")
    assert "certificates do not match" in refused(url, guarded.tls, ClusterError)


# rights


@pytest.fixture
def bob(guarded):
    """A cluster as bob sees it, who may do what `allow` says."""
    config = guarded.sasl("SCRAM-SHA-512", "bob", BOBS_PASSWORD)
    cluster = Cluster(Address.parse(guarded.url(log="bobs"), config), timeout_s=20)
    yield cluster
    cluster.close()
    everything = AclBindingFilter(
        ResourceType.ANY, None, ResourcePatternType.ANY, "User:bob", None, AclOperation.ANY, AclPermissionType.ANY
    )
    admin = keeper(guarded)
    admin.delete_acls([everything])[everything].result(10)


def keeper(guarded):
    return AdminClient({"bootstrap.servers": guarded.kafka.bootstrap, "log_level": 0})


def allow(guarded, kind, name, *operations, pattern=ResourcePatternType.LITERAL):
    rights = [
        AclBinding(kind, name, pattern, "User:bob", "*", operation, AclPermissionType.ALLOW) for operation in operations
    ]
    admin = keeper(guarded)
    for done in admin.create_acls(rights).values():
        done.result(10)


def bobs_topic():
    return new_topic("bobs.main", 1, Kind.MESSAGES, Durability.DEVELOPMENT, 1)


def test_without_rights_each_call_names_what_is_not_allowed(guarded, bob):
    calls = [
        lambda: bob.make([bobs_topic()]),
        lambda: bob.ends("bobs.main", 0),
        lambda: check_promise(bob.admin, {"bobs.main": Kind.MESSAGES}, Durability.DEVELOPMENT, 10),
        lambda: begin(bob),
    ]
    for call in calls:
        with pytest.raises(AccessError, match=r"not allowed on the (topic|transactional id).*cluster-security"):
            call()
    assert bob.topics() == {}


def test_the_rights_that_the_docs_list_are_enough(guarded, bob):
    prefixed = ResourcePatternType.PREFIXED
    allow(guarded, ResourceType.TOPIC, "bobs.", AclOperation.ALL, pattern=prefixed)
    allow(guarded, ResourceType.TRANSACTIONAL_ID, "bobs/", AclOperation.ALL, pattern=prefixed)
    bob.make([bobs_topic()])
    commit(bob)
    with pytest.raises(AccessError, match=TRANSACTIONS):
        check_promise(bob.admin, {"bobs.main": Kind.MESSAGES}, Durability.DEVELOPMENT, 10)
    allow(guarded, ResourceType.TOPIC, TRANSACTIONS, AclOperation.DESCRIBE, AclOperation.DESCRIBE_CONFIGS)
    assert check_promise(bob.admin, {"bobs.main": Kind.MESSAGES}, Durability.DEVELOPMENT, 10)["bobs.main"].copies == 1
    assert bob.ends("bobs.main", 0) == (0, 2)
    bob.delete_records({("bobs.main", 0): 1})
    assert bob.ends("bobs.main", 0) == (1, 2)
    assert read(bob) == []
    bob.delete(["bobs.main"])


def test_a_log_needs_no_more_than_the_rights_that_the_docs_list(guarded, bob):
    prefixed = ResourcePatternType.PREFIXED
    allow(guarded, ResourceType.TOPIC, "bobs.", AclOperation.ALL, pattern=prefixed)
    allow(guarded, ResourceType.TRANSACTIONAL_ID, "bobs/", AclOperation.ALL, pattern=prefixed)
    allow(guarded, ResourceType.TOPIC, TRANSACTIONS, AclOperation.DESCRIBE, AclOperation.DESCRIBE_CONFIGS)
    store = KafkaStore(bob.address, 20, Durability.DEVELOPMENT)
    with Log(store.name, TopicStream.open(store, "main", None, None)) as log:
        log.put({"n": 0})
        log.put_many([{"n": 1}, {"n": 2}], id="once")
        log.put_many([{"n": 1}, {"n": 2}], id="once")
        assert [value["n"] for value in log.get("reader")] == [0, 1, 2]
        for batch in log.batches("stage", size=2):
            log.topic("out").put_many(list(batch))
        assert len(list(log.topic("out").history())) == 3
        log.trim(-1, force=True)
        log.delete_topic("out")


def test_a_log_without_rights_is_not_opened(bob):
    with pytest.raises(AccessError, match="cluster-security"):
        KafkaStore(bob.address, 20, Durability.DEVELOPMENT)


def begin(cluster):
    producer = cluster.producer("bobs/lane")
    faults.patient(lambda s: producer.init_transactions(s), "taking a lane", 20)
    return producer


def commit(cluster):
    """A transaction with one message."""
    producer: Producer = begin(cluster)
    producer.begin_transaction()
    producer.produce("bobs.main", b"x", partition=0)
    producer.commit_transaction(20)


def read(cluster):
    consumer = cluster.consumer()
    consumer.assign([TopicPartition("bobs.main", 0, 1)])
    found = [message.value() for message in consumer.consume(10, 1) if message.error() is None]
    consumer.close()
    return found


# a cluster of one


def test_one_broker_cannot_keep_the_promise_and_is_refused_by_name(guarded):
    cluster = Cluster(Address.parse(guarded.url("PLAINTEXT")), timeout_s=20)
    try:
        with pytest.raises(UnsafeStorageError, match="durability='development'"):
            cluster.make([new_topic("etl.safe", 1, Kind.MESSAGES, Durability.SYNCED, 1)])
        cluster.make([new_topic("etl.weak", 1, Kind.MESSAGES, Durability.DEVELOPMENT, 1)])
        for durability in (Durability.SYNCED, Durability.REPLICATED):
            with pytest.raises(UnsafeStorageError) as caught:
                check_promise(cluster.admin, {"etl.weak": Kind.MESSAGES}, durability, 10)
            said = str(caught.value)
            assert "Topic 'etl.weak' has a replication factor of 1" in said
            assert "Topic 'etl.weak' has min.insync.replicas=1" in said
            assert f"Topic {TRANSACTIONS!r} has a replication factor of 1" in said
        check_promise(cluster.admin, {"etl.weak": Kind.MESSAGES}, Durability.DEVELOPMENT, 10)
    finally:
        cluster.close()


def test_the_rights_that_are_tested_are_those_of_the_docs():
    page = (Path(__file__).parents[2] / "docs" / "cluster-security.md").read_text()
    for words in (f"--topic {TRANSACTIONS}", "Describe --operation DescribeConfigs", "--transactional-id", "prefixed"):
        assert words in page
