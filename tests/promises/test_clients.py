"""Every client gets every message in order, and gets it again until it has asked for the next one."""

import threading
import time

import pytest

import pqlog
from tests import seams
from tests.processes import wait_until


def test_clients_are_independent(log):
    log.put_many(list("abc"))
    assert list(log.get("one")) == ["a", "b", "c"]
    assert list(log.get("two")) == ["a", "b", "c"]
    assert list(log.get()) == ["a", "b", "c"]
    assert [client.client for client in log.clients()] == ["", "one", "two"]


def test_break_and_exceptions_acknowledge_nothing(log):
    log.put_many(list("abc"))
    for value in log.get("c"):
        if value == "b":
            break
    assert log.client("c").position == 2

    def work():
        for _ in log.get("c"):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()
    assert list(log.get("c")) == ["b", "c"]


def test_messages_put_meanwhile_are_delivered(log):
    log.put(0)
    seen = []
    for value in log.get("c"):
        seen.append(value)
        if value < 5:
            log.put(value + 1)
    assert seen == [0, 1, 2, 3, 4, 5]


def test_an_unfinished_generator_can_be_dropped_or_closed(log):
    log.put_many(list("abc"))
    reading = log.get("c")
    assert next(reading) == "a"
    del reading
    assert next(log.get("c")) == "a"
    reading = log.get("c")
    next(reading)
    reading.close()
    assert log.client("c").lag == 3


def test_messages_carry_key_headers_and_time(log):
    log.put(1, key="k", headers={"a": "b"})
    (message,) = log.get("c", messages=True)
    assert (message.offset, message.value, message.key, message.headers) == (1, 1, "k", {"a": "b"})
    assert message.time.tzinfo is not None


def test_get_blocking_waits_and_wakes_at_once(log):
    got = []

    def read():
        for value in log.get_blocking("c", tick=60):  # only a wake-up can be this fast
            got.append((value, time.monotonic()))
            if value == "end":
                return

    reader = threading.Thread(target=read)
    reader.start()
    sent = {}
    for value in ("a", "b", "end"):
        time.sleep(0.05)
        sent[value] = time.monotonic()
        log.put(value)
    reader.join(30)
    assert [value for value, _ in got] == ["a", "b", "end"]


def test_closing_wakes_who_waits(log):
    errors = []

    def wait(reading):
        try:
            next(reading)
        except pqlog.Error as error:
            errors.append(type(error))

    waiting = [
        threading.Thread(target=wait, args=(log.get_blocking("c", tick=60),)),
        threading.Thread(target=wait, args=(iter(lambda: log.get_one("d", timeout=None), None),)),
    ]
    for thread in waiting:
        thread.start()
    wait_until(lambda: seams.waiting(log) == 2)
    log.close()
    for thread in waiting:
        thread.join(30)
    assert errors == [pqlog.ClosedError] * 2
    with pytest.raises(pqlog.ClosedError):
        log.put(1)
    log.close()


def test_get_one(log):
    log.put_many(list("ab"))
    assert log.get_one("c") == "a"
    assert log.client("c").position == 1
    assert log.get_one("c") == "b"
    assert log.client("c").position == 2
    start = time.monotonic()
    with pytest.raises(pqlog.Empty, match=r"no message for client 'c' of topic 'main' within 0\.05 s"):
        log.get_one("c", timeout=0.05)
    assert time.monotonic() - start >= 0.05
    assert log.client("c").position == 3


def test_get_one_goes_on_though_the_topic_is_asked_for_anew(log):
    log.topic("other").put_many(list("ab"))
    assert [log.topic("other").get_one("c") for _ in range(2)] == ["a", "b"]


def test_a_message_of_get_one_is_acknowledged_by_itself(path, log):
    log.put_many(list("abc"))
    client = log.client("c")
    assert client.get_one() == "a"
    client.ack()
    assert client.position == 2
    with pytest.raises(pqlog.ArgumentError, match="get_one has handed nothing to this thread"):
        client.ack()
    message = client.get_one(messages=True)
    client.ack(message)
    with pqlog.open(path) as other:
        assert other.get_one("c") == "c"


def test_a_message_of_get_one_is_given_back_at_once(path, log):
    log.put_many(list("ab"))
    client = log.client("c")
    assert client.get_one() == "a"
    client.nack(ValueError("not now"))
    with pytest.raises(pqlog.ArgumentError, match="get_one has handed nothing to this thread"):
        client.nack()
    (claim,) = client.claims()
    assert (claim.error, claim.owner) == ("ValueError: not now", "")
    with pqlog.open(path) as other:
        assert other.get_one("c") == "a"
        assert client.get_one() == "b"
        with pytest.raises(pqlog.ArgumentError):
            in_another_thread(client.nack)
        client.nack()
    assert [client.get_one(), client.get_one()] == ["a", "b"]


def in_another_thread(call):
    """Call it in another thread; its exception is raised here."""
    raised = []

    def run():
        try:
            call()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    for error in raised:
        raise error


def test_everything_up_to_a_message_is_acknowledged(log):
    log.put_many(list("abcd"))
    client = log.client("c")
    client.ack(log[2])  # also for a client that has read nothing yet
    assert client.position == 3
    client.ack(log[1])  # never back
    assert client.position == 3
    assert list(client.get()) == ["c", "d"]
    client.seek("start")
    batch = client.next_batch(size=1)
    with pytest.raises(pqlog.ClaimedError):
        client.ack(log[3])
    batch.ack()
    client.ack(log[3])
    assert (client.position, client.lag) == (4, 1)
    for wrong in (3, "c", batch):
        with pytest.raises(pqlog.ArgumentError, match="ack takes a message"):
            client.ack(wrong)


def test_get_one_goes_on_by_whatever_object_of_the_log_it_is_called(log):
    class Json:  # a user's codec, created for each call and not hashable
        name = "mine"
        __hash__ = None

        def encode(self, value):
            return str(value).encode()

        def decode(self, data):
            return int(data)

    log.topic("other", codec=Json()).put_many(range(4))
    assert log.topic("other", codec=Json()).get_one("c") == 0
    assert log.topic("other", codec=Json()).client("c").get_one() == 1
    log.topic("other", codec=Json()).client("c").ack()
    assert log.topic("other", codec=Json()).client("c").position == 3
    log.put_many(list("ab"))
    assert (log.get_one("c"), log.topic("main").get_one("c")) == ("a", "b")


def test_no_token_is_used_twice(log):
    """A sink that keys its output by the token would mistake new messages for old ones."""
    log.put_many(range(4))
    tokens = [batch.token for batch in log.batches("c", size=2)]
    log.client("c").seek(to="start")
    tokens += [batch.token for batch in log.batches("c", size=2)]
    log.client("c").delete()
    tokens += [batch.token for batch in log.batches("c", size=2)]
    tokens += [batch.token for batch in log.batches("d", size=2)]
    assert len(set(tokens)) == len(tokens) == 8


def test_seek_says_what_it_did_and_a_reader_follows(log):
    log.put_many(range(10))
    reading = log.get("c")
    assert [next(reading) for _ in range(4)] == [0, 1, 2, 3]
    assert log.client("c").seek(to=9) == pqlog.Moved(position=9, again=0, skipped=5)
    assert list(reading) == [8, 9]  # a reader that began before neither moves the client back nor repeats messages
    assert log.client("c").seek(to="start") == pqlog.Moved(position=1, again=10, skipped=0)
    assert log.client("c").seek(to="end") == pqlog.Moved(position=11, again=0, skipped=10)
    assert log.client("c").seek(to=-2) == pqlog.Moved(position=9, again=2, skipped=0)
    assert log.client("c").seek(to=10**6).position == 11
    assert log.client("c").seek(to="1h") == pqlog.Moved(position=1, again=10, skipped=0)
    assert log.client("new").seek(to=5) == pqlog.Moved(position=5, again=0, skipped=4)


def test_an_open_batch_bars_getting_one_by_one(log):
    log.put_many(range(5))
    for _ in log.batches("c", size=2):
        break
    with pytest.raises(pqlog.ClaimedError, match=r"batch 1 open \(offsets 1 to 2\)"):
        next(log.get("c"))
    log.client("c").seek(to=1)
    assert next(log.get("c")) == 0


def test_a_batch_of_an_older_reader_is_not_acknowledged(log):
    log.put_many(range(4))
    old, new = log.batches("c", size=2, owner="me"), log.batches("c", size=2, owner="me")
    first, again = next(old), next(new)
    assert (first.number, first.first, first.last, again.attempt) == (1, 1, 2, 2)
    with pytest.raises(pqlog.ClaimLostError):
        next(old)
    assert log.client("c").position == 1
    assert [batch.number for batch in new] == [2]


def test_unknown_names_get_a_suggestion(log):
    list(log.get("billing"))
    with pytest.raises(pqlog.UnknownClientError, match=r"no client 'biling' has read topic 'main': did you mean 'bil"):
        log.client("biling").position
    with pytest.warns(UserWarning, match="'bilings' is new and begins at the start; was 'billing' meant"):
        list(log.get("bilings"))
    log.client("bilings").delete()
    with pytest.raises(pqlog.UnknownClientError, match=r"'nobody' .* yet, so it has no position; log\.topic"):
        log.client("nobody").delete()
    with pytest.raises(pqlog.UnknownClientError, match=r"log\.topic\('jobs'\)\.clients\(\) lists"):
        log.topic("jobs").client("nobody").lag


def test_a_name_is_not_like_itself():
    """Two threads that create a client at the same time do not get the warning about a similar name."""
    from pqlog.check import near

    assert near("stage", ["", "stage", "stages"]) == ["stages"]


@pytest.mark.parametrize("name", ["Main", "MAIN"])
def test_a_name_that_differs_in_case_may_have_been_meant(log, name):
    log.put(1)
    with pytest.warns(UserWarning, match=f"topic '{name}' is new and empty; was 'main' meant"):
        log.topic(name)


def test_names_may_be_any_text(log):
    for name in ("", " ", "'", '"; DROP TABLE clients', "日本", "\n", "a" * 1000, "\0"):
        log.topic(name or "x", codec="json").put(name)
        assert list(log.topic(name or "x").get(name)) == [name]


def test_unread_never_acknowledges(log):
    log.put_many(list("abc"))
    next(log.get("c"))
    unread = log.client("c").unread()
    assert [message.value for message in unread] == ["a", "b", "c"]
    log.put("d")
    assert len(unread) == 4
    assert log.client("c").lag == 4


def test_a_message_that_does_not_exist_yet_is_not_acknowledged(log):
    log.put_many(list("abc"))
    log.topic("other").put_many(range(500))
    with pytest.raises(pqlog.ArgumentError, match="has no message at offset 400 yet"):
        log.client("c").ack(log.topic("other")[400])
    assert (log.client("c").position, list(log.get("c"))) == (1, ["a", "b", "c"])
    assert log.verify() == []
