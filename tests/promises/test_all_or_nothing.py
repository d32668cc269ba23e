"""A put is stored in full or not at all; bad input changes nothing, and the error says what is wrong."""

import pandas as pd
import pytest

import pqlog
from tests.messages import offsets


def test_a_generator_that_raises_leaves_nothing(log):
    def values():
        yield from range(25_000)
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        log.put_many(values())
    assert len(log) == 0
    assert log.put("next") == 1


def test_a_value_without_a_form_leaves_nothing_and_says_which(log):
    log.put(0)
    with pytest.raises(pqlog.EncodeError, match="cannot put an object with the codec 'json'") as caught:
        log.put_many([1, 2, object(), 4])
    assert (caught.value.index, caught.value.offset) == (2, 4)
    assert [message.value for message in log] == [0]


def test_put_many_may_put_through_the_same_log(log):
    assert offsets(log.put_many(log.put(n) for n in range(3))) == range(4, 7)
    assert [message.value for message in log] == [0, 1, 2, 1, 2, 3]


def test_put_many_of_nothing(log):
    assert offsets(log.put_many([])) == range(1, 1)
    assert offsets(log.put_many([], id="empty")) == range(1, 1)
    assert log.put("a") == 1
    assert offsets(log.put_many(["ignored"], id="empty")) == range(1, 1)


@pytest.mark.slow
def test_larger_than_memory_is_spooled_and_comes_back(log, monkeypatch):
    monkeypatch.setattr("pqlog.producer.MEMORY_BYTES", 1 << 16)
    values = [{"n": n, "text": "x" * 100} for n in range(20_000)]
    assert offsets(log.put_many(iter(values), key="n")) == range(1, 20_001)
    assert list(log.get("c")) == values
    assert log[20_000].key == "19999"


def test_the_same_id_again_puts_nothing(path):
    with pqlog.open(path) as log:
        assert log.put("a", id="one") == 1
        assert offsets(log.put_many(list("bcd"), id="many")) == range(2, 5)
    with pqlog.open(path) as log:
        assert log.put("z", id="one") == 1
        assert offsets(log.put_many((1 / 0 for _ in "x"), id="many")) == range(2, 5)  # not even iterated
        assert log.topic("other").put("a", id="one") == 1  # ids belong to their topic
        assert [message.value for message in log] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda log: log.put(1, key=3), "key must be a str"),
        (lambda log: log.put(1, id=""), "id must be a non-empty str"),
        (lambda log: log.put(1, headers={"a": 1}), "headers must be a dict of str"),
        (lambda log: log.put_many(3), "takes an iterable"),
        (lambda log: log.put_many({"a": 1}), "use put"),
        (lambda log: log.batches(size=0), "size must be a number of messages"),
        (lambda log: log.batches(max_bytes=0), "max_bytes must be a number of bytes"),
        (lambda log: log.batches(linger=-1), "linger must be a number of seconds"),
        (lambda log: log.batches(attempts=0), "attempts must be a number of attempts"),
        (lambda log: log.batches(dead_letter="x"), "dead_letter goes with attempts="),
        (lambda log: log.batches(owner=""), "owner must be a non-empty str"),
        (lambda log: log.put_many([], cursor="x"), "cursor must be a tuple of a name"),
        (lambda log: log.put_many([], cursor=("x", 1)), "which log.cursor.name. gave"),
        (lambda log: log.put_many([], cursor=("x", object(), None)), "JSON does not hold"),
        (lambda log: log.get(3.5), "name must be a str"),
        (lambda log: log.get_blocking(tick=0), "tick must be a number of seconds"),
        (lambda log: log.get("\ud800"), "not Unicode text"),
        (lambda log: log.topic(""), "non-empty"),
        (lambda log: log.topic("\ud800"), "not Unicode text"),
        (lambda log: log.topic("t", codec="xml"), "no codec 'xml'"),
        (lambda log: log[::2], r"no step: take list\(log\[:\]\)\[::2\]"),
        (lambda log: log[3::-1], r"take list\(log\[3:\]\)\[::-1\]"),
        (lambda log: log["a"], "an offset must be an int"),
        (lambda log: log.history(start="a"), "start must be an offset"),
        (lambda log: log.history(key=3), "key must be a str"),
        (lambda log: log.history(since=3.5), "a time must be a datetime"),
        (lambda log: log.history().latest(by=3), 'by must be "key"'),
        (lambda log: log.trim(True), "before must be an offset or a time"),
        (lambda log: log.history(since="gestern"), "is not a valid time"),
        (lambda log: log.history(since="1 hour"), 'as in "30s", "5min", "1.5h", "2d"'),
        (lambda log: log.client("c").seek(to=1.5), "to must be an offset, a time"),
        (lambda log: log.client("c").seek(to=True), "to must be an offset, a time"),
        (lambda log: log.client("c").seek(to="beginning"), '"start" or "end": \'beginning\' is not a valid time'),
        (lambda log: pqlog.open(""), "path of a file"),
        (lambda log: pqlog.open("x", readonly="yes"), "readonly must be True or False"),
        (lambda log: pqlog.open("x", timeout=-1), "timeout must be a number"),
    ],
)
def test_bad_arguments_are_told_at_once(log, call, says):
    with pytest.raises(pqlog.ArgumentError, match=says):
        call(log)
    assert len(log) == 0


def test_big_and_empty_values(path):
    big = b"\x00" * (100 << 20)
    with pqlog.open(path, codec="bytes") as log:
        log.put(b"")
        log.put(big)
        log.put_many([b"", b"x"])
    with pqlog.open(path) as log:
        assert [len(value) for value in log.get("c")] == [0, len(big), 0, 1]


def test_a_value_beyond_sqlites_limit_is_refused(path):
    with pqlog.open(path, codec="bytes") as log:
        with pytest.raises(pqlog.ArgumentError, match="up to 1,000,000,000 bytes"):
            log.put(bytes(1_000_000_001))
        assert log.put(b"a") == 1


def test_a_frame_is_not_one_value(log):
    frame = pd.DataFrame({"a": [1]})
    for put in (log.put, lambda frame: log.put_many([frame])):
        with pytest.raises(pqlog.ArgumentError, match=r"put_many\(frame\) puts it, a message for each row"):
            put(frame)
