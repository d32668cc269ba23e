"""The judge of the stories notices what it is there for; the log is a file here."""

import json

import pytest

import pqlog
from tests.cluster.stories import PARTITIONS, Worker, check, check_readers, story


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    folder = tmp_path_factory.mktemp("story")
    with story(folder, str(folder / "events.db")) as telling:
        stage = next(worker for worker in telling.workers if worker.work == "stage")
        stage.kill()
        telling.start("stage")
    with pqlog.open(folder / "events.db") as log:
        there = [{one.offset: one.value for one in log.topic("orders").partition(p)} for p in range(PARTITIONS)]
        done = [one.value for p in range(2) for one in log.topic("handled").partition(p)]
    return telling.workers, there, done


@pytest.fixture
def case(told):
    workers, there, done = told
    return workers, [dict(partition) for partition in there], list(done)


def test_it_finds_nothing_where_nothing_happened(case):
    check(*case)


def acknowledged(workers, kind):
    return next(line for worker in workers for line in worker.lines(kind))


def test_a_message_that_is_lost(case):
    workers, there, _ = case
    _, _, partition, offset = acknowledged(workers, "one")
    del there[partition][offset]
    with pytest.raises(AssertionError, match="lost"):
        check(*case)


def test_a_message_of_many_that_is_lost(case):
    workers, there, _ = case
    _, _, first, last, _ = acknowledged(workers, "many")
    partition = next(partition for partition in first if first[partition] < last[partition])
    del there[int(partition)][last[partition]]
    with pytest.raises(AssertionError, match="lost"):
        check(*case)


def test_a_message_that_is_there_twice(case):
    _, there, _ = case
    there[0][max(there[0]) + 1] = there[0][max(there[0])]
    with pytest.raises(AssertionError, match="twice"):
        check(*case)


def test_a_message_that_is_elsewhere(case):
    workers, there, _ = case
    _, _, partition, offset = acknowledged(workers, "one")
    value = there[partition].pop(offset)
    there[partition][max(there[partition]) + 1] = value
    with pytest.raises(AssertionError, match="elsewhere"):
        check(*case)


def test_a_reader_that_missed_a_message(case):
    workers, there, _ = case
    reader = next(worker for worker in workers if worker.work == "read")
    _, partition, messages = reader.lines("read")[0]
    del there[partition][messages[0][0]]
    with pytest.raises(AssertionError, match="read otherwise"):
        check_readers(workers, there)


@pytest.mark.parametrize("change", [lambda done: done.pop(), lambda done: done.append(done[0])])
def test_a_message_that_the_stage_left_out_or_handled_twice(case, change):
    change(case[2])
    with pytest.raises(AssertionError, match="not handled once"):
        check(*case)


def test_messages_of_a_key_in_another_order(case):
    case[2].reverse()
    with pytest.raises(AssertionError, match="order"):
        check(*case)


def test_a_line_that_was_cut_off_does_not_count(tmp_path):
    worker = Worker.__new__(Worker)
    worker.ledger = tmp_path / "put0"
    worker.ledger.write_text(json.dumps([1.0, "try", 1]) + "\n" + "[2.0, ")
    assert worker.lines() == [["try", 1]]
