"""Which of Kafka's errors are waited out, and which error of ours each of the others is."""

import signal
import threading
import time

import pytest
from confluent_kafka import KafkaError, KafkaException

import pqlog
from pqlog import errors
from pqlog.store.kafka.address import Address
from pqlog.store.kafka.cluster import Cluster
from pqlog.store.kafka.faults import FENCED, GONE, PASSING, Heard, code, patient, told
from pqlog.store.kafka.promise import Durability, Kind, new_topic


def failure(number, text="broker says"):
    return KafkaException(KafkaError(number, text))


def answers(*outcomes):
    """A call with these outcomes, one after the other; the last one again and again."""
    left = list(outcomes)

    def call(_):
        outcome = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return call


@pytest.mark.parametrize("number", sorted(PASSING))
def test_what_passes_is_waited_out(number):
    assert patient(answers(failure(number), failure(number), "there"), "reading", 10) == "there"


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (KafkaError._AUTHENTICATION, errors.AccessError),
        (KafkaError.SASL_AUTHENTICATION_FAILED, errors.AccessError),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, errors.AccessError),
        (KafkaError.CLUSTER_AUTHORIZATION_FAILED, errors.AccessError),
        (KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, errors.AccessError),
        (KafkaError._SSL, errors.ClusterError),
        (KafkaError.MSG_SIZE_TOO_LARGE, errors.TooLargeError),
        (KafkaError.RECORD_LIST_TOO_LARGE, errors.TooLargeError),
        (KafkaError.UNSUPPORTED_VERSION, errors.UnsupportedError),
        (KafkaError.INVALID_REPLICATION_FACTOR, errors.UnsafeStorageError),
        (KafkaError._INVALID_ARG, errors.ArgumentError),
        (KafkaError.POLICY_VIOLATION, errors.StoreError),
        *((number, errors.StoreError) for number in sorted(FENCED | GONE)),
    ],
)
def test_what_does_not_pass_is_told_at_once(number, kind):
    with pytest.raises(kind, match=r"^reading: .*broker says") as caught:
        patient(answers(failure(number)), "reading", 60)
    assert type(caught.value) is kind
    assert isinstance(caught.value.__cause__, KafkaException)


@pytest.mark.parametrize("number", sorted(PASSING))
def test_what_has_not_passed_in_time_is_the_clusters(number):
    assert isinstance(told(failure(number), "reading"), errors.ClusterError)
    with pytest.raises(errors.ClusterError, match=r"^reading: .*broker says"):
        patient(answers(failure(number)), "reading", 0.1)


def test_codes_of_the_callers_own_are_waited_out_too():
    assert patient(answers(failure(KafkaError.UNKNOWN_TOPIC_OR_PART), 1), "reading", 10, also=GONE) == 1


def test_the_time_is_kept():
    start = time.monotonic()
    with pytest.raises(errors.ClusterError):
        patient(answers(failure(KafkaError._TRANSPORT)), "reading", 1)
    assert 0.5 < time.monotonic() - start < 1.5


def test_other_errors_come_through():
    with pytest.raises(ZeroDivisionError):
        patient(lambda _: 1 / 0, "reading", 10)


def test_an_interrupt_ends_the_wait():
    timer = threading.Timer(0.3, lambda: signal.raise_signal(signal.SIGINT))
    timer.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        patient(answers(failure(KafkaError._TRANSPORT)), "reading", 10)
    assert time.monotonic() - start < 1
    timer.join()


# what is heard


def test_a_refusal_that_was_heard_ends_the_wait():
    heard = Heard()
    heard(KafkaError(KafkaError._TRANSPORT, "h1:9092/1: Connection refused"))
    heard(KafkaError(KafkaError._AUTHENTICATION, "sasl_ssl://h2:9092/2: Invalid credentials"))
    heard(KafkaError(KafkaError._ALL_BROKERS_DOWN, "2/2 brokers are down"))
    start = time.monotonic()
    with pytest.raises(errors.AccessError, match="h2:9092/2: Invalid credentials"):
        patient(answers(failure(KafkaError._TRANSPORT)), "reading", 60, heard)
    assert time.monotonic() - start < 5


def test_a_refusal_does_not_count_where_another_broker_answers():
    heard = Heard()
    heard(KafkaError(KafkaError._AUTHENTICATION, "h1:9092/1: Invalid credentials"))
    assert patient(answers(failure(KafkaError._TRANSPORT), "there"), "reading", 60, heard) == "there"
    assert heard.words() is None


def test_what_a_broker_said_last_counts():
    heard = Heard()
    heard(KafkaError(KafkaError._SSL, "ssl://h1:9092/1: SSL handshake failed"))
    heard(KafkaError(KafkaError._TRANSPORT, "ssl://h1:9092/1: Connection refused"))
    assert heard.words().code() == KafkaError._TRANSPORT
    assert heard.verdict("reading") is None


def test_what_was_heard_explains_what_did_not_come_in_time():
    heard = Heard(address=Address.parse("kafka://127.0.0.1:1/etl"))
    heard(KafkaError(KafkaError._TRANSPORT, "127.0.0.1:1/1: Connection refused"))
    with pytest.raises(errors.ClusterError, match=r"no answer.*Connection refused.*repeat the call"):
        patient(answers(failure(KafkaError._TRANSPORT, "vague")), "reading", 0.2, heard)


def test_an_interrupt_in_a_callback_strikes_after_it(monkeypatch):
    heard = Heard()
    error = KafkaError(KafkaError._TRANSPORT, "h1:9092/1: Connection refused")
    monkeypatch.setattr("pqlog.store.kafka.faults._broker", answers(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        heard(error)
        time.sleep(5)


def test_a_producer_that_is_fenced_writes_nothing_to_the_standard_error(cluster_url, capfd):
    address = Address.parse(cluster_url)
    cluster = Cluster(address, timeout_s=20)
    cluster.make([new_topic(f"{address.log}.main", 1, Kind.MESSAGES, Durability.SYNCED, 3)])
    old, new = (cluster.producer(f"{address.log}/lane") for _ in range(2))
    for producer in (old, new):
        producer.init_transactions(20)
    old.begin_transaction()
    old.produce(f"{address.log}.main", b"x")
    with pytest.raises(KafkaException) as caught:
        old.commit_transaction(20)
    assert code(caught.value) in FENCED
    old.poll(0.2)
    cluster.close()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("counted", ["", ", 1 identical error(s) suppressed", ", 27 identical error(s) suppressed"])
def test_what_librdkafka_counts_is_not_said(counted):
    text = f"127.0.0.1:1/bootstrap: Connect failed: Connection refused (after 1ms in state CONNECT{counted})"
    said = str(told(failure(KafkaError._TRANSPORT, text), "reading"))
    assert "failed: Connection refused. Check" in said
    with pytest.raises(errors.ClusterError, match=r"failed: Connection refused\. Check"):
        patient(answers(failure(KafkaError._TRANSPORT, text)), "reading", 0.1)


def test_properties_that_cannot_work_are_refused_before_anybody_is_asked(tmp_path):
    began = time.monotonic()
    for readonly in (False, True):
        config = {"security.protocol": "SSL", "ssl.ca.location": str(tmp_path / "ca.pem")}
        with pytest.raises(errors.ArgumentError, match=r"ssl\.ca\.location: '.*ca.pem' cannot be read"):
            pqlog.open("kafka://127.0.0.1:1/etl", readonly=readonly, config=config)
    with pytest.raises(errors.ArgumentError, match="leave it out with readonly=True"):
        pqlog.open("kafka://127.0.0.1:1/etl", readonly=True, durability="replicated")
    assert time.monotonic() - began < 2
