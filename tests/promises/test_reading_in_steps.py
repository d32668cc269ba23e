"""`get(ack_every=)` in a file: what a kill, Ctrl-C and a finalizer leave."""

import gc
import itertools

import pytest

import pqlog
from tests.interrupts import moments, struck
from tests.promises.test_kills import kill_again_and_again, report_of
from tests.rings import by_ring

EVERY = 10


def test_after_a_kill_at_most_the_messages_of_a_step_come_again(path):
    rounds = by_ring(5, 40)
    with pqlog.open(path) as log:
        log.put_many(range(200_000))
    kill_again_and_again(path, ("consume_in_steps",), rounds)
    behind, again = 0, 0
    for number in range(rounds):
        offsets = list(map(int, report_of(path, "consume_in_steps", number)[1:]))
        if not offsets:
            continue
        assert offsets == list(range(offsets[0], offsets[-1] + 1))
        assert behind - EVERY <= offsets[0] <= behind + 1  # the report may have ended in the midst of a line
        again += max(0, behind + 1 - offsets[0])
        behind = offsets[-1]
    assert behind > EVERY
    assert again > 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # one in a finalizer is only printed
def test_ctrl_c_at_any_moment_of_a_loop_loses_no_message_and_keeps_the_step(path):
    with pqlog.open(path) as log:
        log.put_many(range(12))
        seen = []

        def loop(log):
            for value in log.get("c", ack_every=4, ack_seconds=1e6):
                seen.append(value)

        count = moments(lambda: loop(log))
        for at in range(1, count, max(1, count // by_ring(60, 1000))):
            log.client("c").seek("start")
            seen.clear()
            _, where = struck(lambda: loop(log), at, KeyboardInterrupt())
            position = log.client("c").position
            assert position - 1 <= len(seen), where  # nothing was acknowledged that was not seen
            assert len(seen) - (position - 1) <= 4 + 1, where
            assert list(log.get("c")) == list(range(position - 1, 12)), where


def test_a_loop_that_is_collected_during_a_call_of_its_log_waits_for_nothing(path):
    """A commit there would wait for itself."""
    with pqlog.open(path) as log:
        log.put_many(range(9))
        readings = [log.get("c", ack_every=100)]
        assert list(itertools.islice(readings[0], 3)) == [0, 1, 2]

        def collect(span):
            readings.clear()
            gc.collect()
            return span

        log.store.log.read(collect)
        assert log.client("c").position == 1
        assert list(log.get("c")) == list(range(9))


def test_acknowledging_after_a_number_of_messages_takes_a_commit_for_each_step(path):
    with pqlog.open(path) as log:
        log.put_many(range(100))
        list(itertools.islice(log.get("c"), 0))
        commits, real = [], log.store.log.write
        log.store.log.write = lambda job: (commits.append(job), real(job))[1]
        list(log.get("c", ack_every=25, ack_seconds=1e6))
        assert len(commits) - 1 == 4  # one creates the client
