"""A log is a Python sequence (len, bool, list, reversed, repr), and reads no more than each of these needs."""

import pathlib
import random
import warnings

import pandas as pd
import pytest

import pqlog
from tests import seams


@pytest.fixture
def sales(log):
    """Single messages and a frame, of three keys."""
    log.put_many([{"n": n, "city": ("Brno", "Praha", "Wien")[n % 3]} for n in range(9000)], key="city")
    log.put_many(pd.DataFrame({"n": range(9000, 9100), "city": "Brno"}), key="city")
    log.put({"n": 9100, "city": "Praha"}, key="Praha")
    return log


def test_reversed_is_the_same_the_other_way_round(sales):
    def same(one):
        assert list(reversed(one)) == list(one)[::-1]

    same(sales)
    same(sales[10:4500])
    same(sales[5:5])
    same(sales.history(key="Praha"))
    same(sales.history(key="nobody"))
    same(sales.history().latest())
    sales.trim(before=8000)
    same(sales)
    assert next(reversed(sales)).value["n"] == 9100


def test_reversed_holds_few_large_messages_at_a_time(path, monkeypatch):
    monkeypatch.setattr("pqlog.stream.CHUNK_BYTES", 100_000)
    with pqlog.open(path, codec="bytes") as log:
        log.put_many([bytes([n]) * 30_000 for n in range(50)])
        reads = seams.Reads(log, monkeypatch)
        backwards = reversed(log)
        assert next(backwards).offset == 50
        assert reads.rows < 20
        assert [message.value[0] for message in backwards] == list(range(49))[::-1]


def test_the_newest_is_found_without_reading_what_lies_before(sales, monkeypatch):
    reads = seams.Reads(sales, monkeypatch)
    assert next(reversed(sales)).offset == 9101
    assert reads.rows <= 4096


def test_offset_0_says_that_offsets_count_from_1(log):
    log.put_many(range(5))
    with pytest.raises(pqlog.OffsetError, match=r"Offsets count from 1: what counts from 0"):
        log[0]
    assert random.choice(list(log)).value in range(5)


def test_a_list_of_a_history_reads_it_once(sales, monkeypatch):
    reads = seams.Reads(sales, monkeypatch)
    assert len(list(sales.history(key="Praha"))) == 3001
    assert reads.rows <= 3001 + 1
    history = sales.history(key="Praha")
    for uncounted in (history, sales.history().latest()):
        with pytest.raises(pqlog.UncountedError, match="reads and counts"):
            len(uncounted)
    assert sum(1 for _ in history) == 3001
    assert len(sales[5:10]) == 5


def test_whether_there_is_anything_takes_one_message(sales, monkeypatch):
    reads = seams.Reads(sales, monkeypatch)
    assert sales.history(key="Praha")
    assert sales.history()
    assert sales[3:]
    assert not sales[5:5]
    assert not sales.history(stop=2, key="Praha")
    assert reads.rows < 500
    assert sales  # an empty topic is true as well


def test_the_first_and_last_of_a_key_are_read_and_no_more(sales, monkeypatch):
    reads = seams.Reads(sales, monkeypatch)
    assert next(iter(sales.history(key="Brno"))).value["n"] == 0
    assert sales.history(key="Brno").head(3)["n"].tolist() == [0, 3, 6]
    assert sales.history(key="Wien").head(1)["n"].tolist() == [2]
    assert reads.rows < 1_000  # runs of 128 are read and checked at once
    reads.rows = 0
    assert sales.history(key="Brno").tail(2)["n"].tolist() == [9098, 9099]
    assert sales.history(key="Praha").tail(2)["n"].tolist() == [8998, 9100]
    assert reads.rows < 9_000
    for n in (0, 3, 5000):
        expected = [message.value["n"] for message in sales.history(key="Brno")]
        assert sales.history(key="Brno").head(n)["n" if n else []].values.flatten().tolist() == expected[:n]
        assert sales.history(key="Brno").tail(n)["n" if n else []].values.flatten().tolist() == (
            expected[-n:] if n else []
        )
    assert len(sales.history(key="nobody").head(3)) == len(sales.history(key="nobody").tail(3)) == 0


def test_a_repr_never_raises(path):
    with pqlog.open(path) as log:
        log.put_many(list("abc"))
        topic = log.topic("other")
        history, latest = log[1:], log.history(key="k").latest()
        batch = next(log.batches("c"))
        shown = [log, topic, history, latest, batch, log[1], log.clients(), log.client("c").unread()]
        assert all(map(repr, shown))
    for one in shown:
        assert repr(one)
    assert "was closed" in repr(topic)
    assert "was closed" in repr(history)


def test_a_warning_points_to_the_line_that_may_be_wrong(log):
    log.put_many(list("abc"))
    list(log.get("billing"))
    log.topic("flights")
    log.topic("day-2026-11-23")
    list(log.get("worker-1"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in log.get("biling"):
            break
        for _ in log.batches("bling"):
            break
        log.get_one("billingg")
        log.topic("flihgts")
        for batch in log.batches("stage"):
            batch.put(1, topic="flightss")
    assert {warning.filename for warning in caught} == {__file__}
    lines = [line.strip() for line in pathlib.Path(__file__).read_text().splitlines()]
    pointed = [lines[warning.lineno - 1] for warning in caught]
    assert pointed == [
        'for _ in log.get("biling"):',
        'for _ in log.batches("bling"):',
        'log.get_one("billingg")',
        'log.topic("flihgts")',
        'batch.put(1, topic="flightss")',
    ]
    assert str(caught[3].message) == "topic 'flihgts' is new and empty; was 'flights' meant?"
    log.topic("day-2026-11-24")  # names that differ in a number do so on purpose
    list(log.get("worker-2"))


def test_a_client_may_be_named_by_a_number(log):
    log.put_many(list("abc"))
    assert list(log.get(7)) == list("abc")
    assert log.client(7).position == log.client("7").position == 4
    assert next(log.batches(8)).client == "8"
    with pytest.raises(pqlog.ArgumentError, match="the client's name must be a str or an int, not True"):
        log.get(True)
