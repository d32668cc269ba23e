"""One total order: offsets and times never decrease, and every slice and time range equals that of a plain list."""

import contextlib
import threading
from datetime import UTC, datetime, timedelta
from unittest import mock

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pqlog
from pqlog.message import from_micros


@contextlib.contextmanager
def clock(times):
    """The engine's clock shows `times` one after the other; real clocks are set back too."""
    shown = iter(times)
    with mock.patch("pqlog.store.sqlite.claims.now_micros", side_effect=shown):
        yield


# Puts: the time on the clock, and the number of messages at once; None for a single put.
PUTS = st.lists(st.tuples(st.integers(0, 60), st.none() | st.integers(1, 5), st.booleans()), max_size=20)


def filled(puts):
    """A log with puts at these times, and the times that its messages should have."""
    log = pqlog.open(":memory:")
    expected = []
    for at, count, as_frame in puts:
        with clock([at] * 10):
            if count is None:
                log.put({"n": at})
            elif as_frame:
                log.put_many(pd.DataFrame({"n": [at] * count}))
            else:
                log.put_many([{"n": at}] * count)
        newest = max([at, *expected[-1:]])
        expected += [newest] * (count or 1)
    return log, expected


@given(PUTS, st.integers(0, 61), st.integers(0, 61))
def test_times_never_run_backwards_and_ranges_are_exact(puts, since, until):
    log, expected = filled(puts)
    with log:
        assert [message.time for message in log] == [from_micros(at) for at in expected]
        found = log.history(since=from_micros(since), until=from_micros(until))
        wanted = [offset for offset, at in enumerate(expected, start=1) if since <= at < until]
        assert [message.offset for message in found] == wanted
        assert len(found) == len(wanted)
        assert list(found.to_pandas().index) == wanted


@given(PUTS, st.integers(1, 80), st.integers(0, 61))
def test_time_ranges_stay_exact_behind_what_was_trimmed(puts, before, since):
    log, expected = filled(puts)
    with log:
        log.trim(before, force=True)
        wanted = [offset for offset, at in enumerate(expected, start=1) if offset >= before and since <= at]
        assert [message.offset for message in log.history(since=from_micros(since))] == wanted


BOUND = st.none() | st.integers(-90, 90)


@given(PUTS, BOUND, BOUND)
def test_a_slice_is_the_slice_of_a_list(puts, start, stop):
    log, expected = filled(puts)
    with log:
        offsets = list(range(1, len(expected) + 1))

        def index(bound):  # a list begins at 0, a topic at 1
            return bound if bound is None or bound < 0 else max(0, bound - 1)

        wanted = offsets[index(start) : index(stop)]
        assert [message.offset for message in log[start:stop]] == wanted
        assert len(log[start:stop]) == len(wanted)


@pytest.mark.parametrize("zone", [None, "UTC", "+02:00"])
def test_naive_times_are_utc(log, zone):
    log.put("a")
    now = log[1].time
    text = (now.replace(tzinfo=None)).isoformat() if zone is None else now.isoformat()
    if zone == "+02:00":
        text = (now + timedelta(hours=2)).replace(tzinfo=None).isoformat() + zone
    assert len(log.history(since=text)) == 1
    assert len(log.history(until=text)) == 0


@settings(max_examples=200)
@given(st.datetimes(timezones=st.just(UTC)))
def test_times_are_exact_to_the_microsecond(when):
    from pqlog.message import to_micros

    assert from_micros(to_micros(when)) == when
    assert to_micros(when) - to_micros(datetime(1970, 1, 1, tzinfo=UTC)) == (
        when - datetime(1970, 1, 1, tzinfo=UTC)
    ) // timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("span", "hours"), [("1h", 1), ("90min", 1.5), ("2 d", 48), ("1w", 168), (timedelta(hours=3), 3)]
)
def test_how_long_ago(span, hours):
    from pqlog.history import micros_of

    now = datetime(2026, 11, 24, tzinfo=UTC)
    assert from_micros(micros_of(span, now)) == now - timedelta(hours=hours)


def test_what_counts_from_the_end_counts_from_one_end_though_others_put(log):
    log.put_many(range(10))
    stop = threading.Event()

    def put():
        while not stop.is_set():
            log.put("more")

    putting = threading.Thread(target=put)
    putting.start()
    try:
        for _ in range(300):
            assert len(list(log[-3:])) == len(log[-3:]) == len(list(log.history(start=-5, stop=-2))) == 3
            assert log[-1:]
            assert log[-1].offset >= 10
    finally:
        stop.set()
        putting.join(60)
