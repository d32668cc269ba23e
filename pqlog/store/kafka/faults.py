"""What Kafka's errors mean: which are waited out, and which error of ours each of the others is."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Container
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException

from pqlog import errors
from pqlog.store.kafka.address import Address
from pqlog.store.kafka.callbacks import interrupt_soon
from pqlog.store.kafka.probe import misfit

T = TypeVar("T")

FENCED = frozenset(
    {
        KafkaError._FENCED,
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.TRANSACTION_COORDINATOR_FENCED,
        KafkaError.INVALID_PRODUCER_ID_MAPPING,
    }
)
"""Another process has taken the transactional id."""

GONE = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.UNKNOWN_TOPIC_ID,
    }
)
"""The topic or the partition is not there; also for a moment after it was made."""

TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
"""A message or a batch of them is over the limit of the topic, or of the client."""

PASSING = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._RESOLVE,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._MSG_TIMED_OUT,
        KafkaError._WAIT_COORD,
        KafkaError._WAIT_CACHE,
        KafkaError._DESTROY_BROKER,
        KafkaError._UNKNOWN_BROKER,
        KafkaError._IN_PROGRESS,
        KafkaError._PREV_IN_PROGRESS,
        KafkaError._RETRY,
        KafkaError._NOENT,  # an AdminClient that finds no leader
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.NOT_CONTROLLER,
        KafkaError.CONCURRENT_TRANSACTIONS,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.STALE_BROKER_EPOCH,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.PREFERRED_LEADER_NOT_AVAILABLE,
        KafkaError.ELIGIBLE_LEADERS_NOT_AVAILABLE,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
        KafkaError.THROTTLING_QUOTA_EXCEEDED,
        KafkaError.REBOOTSTRAP_REQUIRED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,  # each consumer looks for its group, which pqlog does not use
    }
)
"""What an election, a dead node or a busy one say: waited out."""

_REFUSED = frozenset(
    {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError.UNSUPPORTED_SASL_MECHANISM}
)
_FORBIDDEN = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "the topic",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "the cluster",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "the transactional id",
    KafkaError.DELEGATION_TOKEN_AUTHORIZATION_FAILED: "the delegation token",
}
_VERDICT_AFTER_S = 2.0
"""How long a refusal by one broker may be followed by a welcome from another."""
_TOO_LONG_S = 4.0
"""A call that takes less is not begun where it would end behind the time."""


_COUNTS = re.compile(r" \(after \d+ms in state \w+(?:, \d+ identical error\(s\) suppressed)?\)")


def words_of(error: KafkaError) -> str:
    """What an error says, without what librdkafka counts."""
    return _COUNTS.sub("", error.str())


def code(error: BaseException) -> int | None:
    """The code of a Kafka exception; None for other exceptions."""
    return int(error.args[0].code()) if isinstance(error, KafkaException) and error.args else None


class Heard:
    """What a client says only to its ``error_cb``: of each broker the last. Give it to one client, and `serve` it.

    Parameters
    ----------
    serve : callable, optional
        What calls the callbacks of that client, such as its ``poll``; None where it is polled anyway.
    address : Address, optional
        Whose brokers are looked at more closely if nothing is heard and they never answered.
    """

    def __init__(self, serve: Callable[[float], object] | None = None, address: Address | None = None) -> None:
        self.serve = serve
        self._address, self._is_unknown = address, address is not None
        self._last: dict[str, KafkaError] = {}
        self._lock = threading.Lock()

    def __call__(self, error: KafkaError) -> None:
        """The callback."""
        try:
            if error.code() != KafkaError._ALL_BROKERS_DOWN:
                with self._lock:
                    self._last[_broker(error.str())] = error
        except KeyboardInterrupt:
            interrupt_soon()

    def words(self) -> KafkaError | None:
        """What explains most: a refusal before a broken connection."""
        if self.serve is not None:
            self.serve(0)
        with self._lock:
            heard = list(self._last.values())
        return max(heard, key=_is_refusal, default=None)

    def verdict(self, doing: str) -> errors.Error | None:
        """The error for what cannot be waited out, if there is such."""
        heard = self.words()
        if heard is not None:
            return (self._without_token(doing) or told(heard, doing)) if _is_refusal(heard) else None
        if self._address is None or not self._is_unknown:
            return None
        self._is_unknown = False
        found = misfit(self._address)
        return None if found is None else errors.ClusterError(f"{doing}: {found}")

    def _without_token(self, doing: str) -> errors.Error | None:
        """The error if the user's function for tokens failed."""
        source = self._address.config.get("oauth_cb") if self._address is not None else None
        if source is None or source.failure is None:
            return None
        error = errors.AccessError(f"{doing}: no token: oauth_cb raised {type(source.failure).__name__}")
        error.__cause__ = source.failure
        return error

    def forget(self) -> None:
        """The cluster has answered: what was heard is over."""
        self._is_unknown = False
        with self._lock:
            self._last.clear()


def patient(
    call: Callable[[float], T],
    doing: str,
    timeout_s: float,
    heard: Heard | None = None,
    also: Container[int | None] = (),
) -> T:
    """What `call` returns once the cluster answers: elections and dead nodes are waited out.

    Parameters
    ----------
    call : callable
        It is given the seconds that it may block in C, where Ctrl-C is not seen: few at first, more where the cluster
        is slow. A call that waits for a future of the AdminClient may wait as long as it likes.
    doing : str
        For the error: ``"reading the topics"``.
    timeout_s : float
    heard : Heard, optional
        What the client said meanwhile.
    also : container of int
        Codes that are waited out as well, such as `GONE` after a topic was made.

    Raises
    ------
    Error
        As `told`, at once for what does not pass.
    """
    start = time.monotonic()
    slice_s, longest_s = 0.2, 0.0
    while True:
        begun = time.monotonic()
        try:
            result = call(slice_s)
        except KafkaException as error:
            if code(error) not in PASSING and code(error) not in also:
                raise told(error, doing) from error
            now = time.monotonic()
            verdict = heard.verdict(doing) if heard is not None and now - start > _VERDICT_AFTER_S else None
            if verdict is not None:
                raise verdict from verdict.__cause__ or error
            longest_s = max(longest_s, min(now - begun, _TOO_LONG_S))
            if now + longest_s - start >= timeout_s:
                raise _late(error, heard, doing, now - start) from error
        else:
            if heard is not None:
                heard.forget()
            return result
        slice_s = min(slice_s * 1.3, 3.0)
        time.sleep(min(0.1, timeout_s / 10))


def told(error: KafkaException | KafkaError, doing: str) -> errors.Error:
    """The error of ours: what happened, while `doing` what, and what to do."""
    found: KafkaError = error.args[0] if isinstance(error, KafkaException) else error
    number, text = found.code(), words_of(found)
    if number == KafkaError._INVALID_ARG:
        return errors.ArgumentError(f"{doing}: config: {text}")
    if _SASL_STATE in text:
        return errors.ClusterError(f"{doing}: the port expects no SASL; check security.protocol in config=: {text}")
    if number in _REFUSED:
        return errors.AccessError(
            f"{doing}: the cluster refused the credentials: {text}. Check sasl.mechanism, sasl.username and "
            f"sasl.password in config="
        )
    if number in _FORBIDDEN:
        return errors.AccessError(
            f"{doing}: not allowed on {_FORBIDDEN[number]}: {text}. The rights (ACLs) that a log needs are listed in "
            f"docs/cluster-security.md"
        )
    if number in FENCED:
        return errors.StoreError(f"{doing}: another process has taken over: {text}. Nothing of this call was kept")
    if number in TOO_LARGE:
        return errors.TooLargeError(
            f"{doing}: larger than the cluster accepts: {text}. Put less in one message, or raise max.message.bytes of "
            f"the topic"
        )
    if number == KafkaError._SSL or _is_refusal(found):
        return errors.ClusterError(f"{doing}: {_protocol(text)}: {text}")
    if number in (KafkaError.UNSUPPORTED_VERSION, KafkaError._UNSUPPORTED_FEATURE):
        return errors.UnsupportedError(f"{doing}: the brokers are too old for it: {text}. Use Kafka 2.5 or newer")
    if number == KafkaError.INVALID_REPLICATION_FACTOR:
        return errors.UnsafeStorageError(
            f"{doing}: {text}. Three brokers are needed to keep three copies; to try "
            f"pqlog on fewer there is durability='development'"
        )
    if number in GONE:
        return errors.StoreError(f"{doing}: the topic or partition does not exist on the cluster: {text}")
    if number in PASSING:
        return errors.ClusterError(f"{doing}: {text}. Check that the brokers are running, then repeat the call")
    return errors.StoreError(f"{doing}: {text}")


def _late(error: KafkaException, heard: Heard | None, doing: str, waited_s: float) -> errors.Error:
    """The error for a cluster that did not answer in time, with the last that was heard of it."""
    words = heard.words() if heard is not None else None
    found = error.args[0] if words is None else words
    if found.code() == KafkaError._RESOLVE:
        return errors.ClusterError(f"{doing}: unknown host: {words_of(found)}. Check the address of the cluster")
    return errors.ClusterError(
        f"{doing}: no answer from the cluster in {waited_s:.0f} seconds: {words_of(found)}. Check the address and "
        f"security.protocol, and that the brokers are running, then repeat the call"
    )


def _is_refusal(error: Any) -> bool:
    """Whether waiting is in vain: wrong credentials, or a wrong protocol, which only the text tells."""
    return error.code() in _REFUSED or error.code() == KafkaError._SSL or _PROTOCOL.search(error.str()) is not None


_SASL_STATE = "current SASL state"
_PROTOCOL = re.compile(r"Invalid response size|security\.protocol|PLAINTEXT broker listener|certificate")


def _protocol(text: str) -> str:
    """What is at the other end, as far as the text tells."""
    if "Invalid response size" in text:
        return "what answers there is not Kafka, or expects TLS; check the port and security.protocol"
    if "certificate" in text:
        return "the certificates do not match; check ssl.ca.location and the host names"
    return "the broker speaks another protocol; check security.protocol in config="


def _broker(text: str) -> str:
    """Which broker a text speaks of."""
    found = re.search(r"[\w.\[\]:-]+:\d+(?=/)", text)
    return found[0] if found else ""
