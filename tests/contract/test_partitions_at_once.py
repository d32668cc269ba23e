"""Partitions that threads, stores and processes use at once, and what Ctrl-C strikes: all of a call, or nothing."""

import contextlib
import itertools
import random
import threading
import time

import pytest

import pqlog
from pqlog.store.values import Cursor, Done, Ids, Output, Put, Segment, Size
from tests.contract.engines import (
    COUNT,
    around,
    clients_of,
    fill_all,
    kept,
    never,
    offsets,
    put_in,
    rows,
    singles,
    skip_unless_in_order,
    take,
)
from tests.interrupts import last, moments, struck
from tests.processes import Process, python
from tests.rings import by_ring

# threads


def merged(partitions, spans):
    """The messages of some spans, in the merged order: by time, partition and offset."""
    found = [
        (row.time, number, offset, row.value)
        for number, (one, span) in enumerate(zip(partitions, spans, strict=True))
        for row in rows(one, span)
        for offset in range(row.offset, row.stop)
    ]
    return sorted(found)


def watch_threads_that_put(stores):
    """What was seen at one moment is the beginning of what is seen at a later one; of each call all, or nothing."""
    skip_unless_in_order(stores[0])
    topics = [store.find_topic("main") for store in stores]
    sizes = {}

    def work(name):
        chance = random.Random(name)
        partitions = topics[name % len(topics)]
        for n in range(25):
            value = b"%d %d" % (name, n)
            numbers = chance.sample(range(COUNT), chance.randint(1, COUNT))
            sizes[value] = len(numbers)
            if sizes[value] == 1:
                partitions[numbers[0]].append_one(value, None, None)
            else:
                put_in(partitions, {number: [singles(value)] for number in numbers})

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    seen, is_over = [], False
    while not is_over:
        is_over = not any(thread.is_alive() for thread in threads)
        for partitions in topics:
            now = merged(partitions, partitions[0].log.spans(partitions))
            assert now[: len(seen)] == seen
            for _, call in itertools.groupby(now, key=lambda one: one[0]):
                values = [value for *_, value in call]
                assert values == values[:1] * sizes[values[0]]
            seen = now
    values = [value for value, _ in itertools.groupby(value for *_, value in seen)]
    assert len(values) == len(set(values)) == 100
    for name in range(4):  # each thread's in the order of its calls
        own = [value for value in values if value.startswith(b"%d " % name)]
        assert own == [b"%d %d" % (name, n) for n in range(25)]


def test_the_merged_order_grows_only_at_its_end_while_threads_put(engine, partitions):
    watch_threads_that_put([engine])


# interrupted


def _append(engine, partitions):
    before = [offsets(one) for one in partitions]
    chunks = {number: [singles(b"7"), Segment(b"segment", 2)] for number in range(COUNT)}
    source = partitions[0].info.name
    return (
        lambda: put_in(partitions, chunks, id="x", cursor=Cursor(source, "1", "null")),
        lambda: [
            *(offsets(one) != some for one, some in zip(partitions, before, strict=True)),
            *(one.find_id("x") is not None for one in partitions),
            engine.cursor(source) is not None,
        ],
    )


def _trim(engine, partitions):
    cuts = [offsets(one)[2] for one in partitions]
    return (
        lambda: engine.trim(list(zip(partitions, cuts, strict=True)), force=True),
        lambda: [one.span().first == cut for one, cut in zip(partitions, cuts, strict=True)],
    )


def _seek(engine, partitions):
    clients = clients_of(partitions)
    epochs = [client.state().epoch for client in clients]
    return (
        lambda: engine.seek([(client, 10**12) for client in clients]),
        lambda: [
            *(client.state().epoch != epoch for client, epoch in zip(clients, epochs, strict=True)),
            *(client.state().lag == 0 for client in clients),
        ],
    )


def _delete_clients(engine, partitions):
    clients = clients_of(partitions)
    return lambda: engine.delete_clients(clients), lambda: [client.state() is None for client in clients]


def _rename(engine, partitions):
    old = partitions[0].info.name

    def parts():
        found = engine.find_topic(old) or engine.find_topic(f"new {old}")
        assert list(found) == list(partitions)
        return [one.info.name != old for one in partitions]

    return lambda: partitions[1].rename(f"new {old}"), parts


def _delete(engine, partitions):
    def is_gone(one):
        try:
            return one.span() is None
        except pqlog.UnknownTopicError:
            return True

    name = partitions[0].info.name
    return (
        lambda: partitions[1].delete(force=True),
        lambda: [not engine.find_topic(name), *map(is_gone, partitions)],
    )


def _advance(engine, partitions):
    first, second, _ = clients_of(partitions)
    before = [offsets(one) for one in partitions]
    done = Done(first, take(first), [Output(one, [singles(b"7")]) for one in partitions])
    return (
        lambda: second.advance(Size(2), "", done, True),
        lambda: [
            *(offsets(one) != some for one, some in zip(partitions, before, strict=True)),
            first.state().lag == 2,
            second.state().batches == 1,
        ],
    )


# An exception in the callback of a weak reference is only printed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "prepare",
    [
        *(_append, _advance),
        *(
            pytest.param(prepare, marks=pytest.mark.slow)
            for prepare in (_trim, _seek, _delete_clients, _rename, _delete)
        ),
    ],
)
def test_ctrl_c_anywhere_leaves_all_or_nothing(engine, prepare):
    def made(name):
        partitions = engine.topic(name, "json", COUNT)
        fill_all(partitions)
        for client in clients_of(partitions):
            client.join()
        return partitions, *prepare(engine, partitions)

    _, call, parts = made("whole")
    assert set(parts()) == {False}
    count = moments(call)
    assert set(parts()) == {True}
    for at in range(1, count + 1, count // by_ring(30, 300) + 1):
        partitions, call, parts = made(f"{at}")
        reached, where = struck(call, at, KeyboardInterrupt())
        last.clear()
        assert len(set(parts())) == 1, f"moment {at} of {count}: half of it is done ({reached}, {where})"
        if engine.find_topic(partitions[0].info.name):
            put_in(partitions, {number: [singles(b"8")] for number in range(COUNT)})
            assert [rows(one)[-1].value for one in partitions] == [b"8"] * COUNT


# two processes, or what is like them: two stores of one file


def set_clock(monkeypatch, step):
    """Let the clock go on by so many microseconds whenever it is read."""
    readings = itertools.count(10**15, step)
    monkeypatch.setattr(time, "time_ns", lambda: next(readings) * 1_000)


@pytest.fixture
def two(shared, tmp_path):
    with contextlib.ExitStack() as stack:
        stores = [shared(tmp_path) for _ in range(2)]
        for store in stores:
            stack.callback(store.close)
        yield stores


def test_two_stores_agree_about_the_partitions_of_a_topic(two):
    here, there = two
    made = here.topic("main", "json", COUNT)
    found = there.find_topic("main")
    assert [one.info for one in there.topic("main", "bytes", 1)] == [one.info for one in found]
    assert [one.info for one in found] == [one.info for one in made]
    made[1].rename("new")
    assert list(there.find_topic("main")) == []
    assert list(there.find_topic("new")) == list(found)
    assert [one.info.name for one in found] == ["new"] * COUNT
    fill_all(found)
    assert kept(made) == kept(found)
    found[2].delete(force=True)
    assert here.topics() == []
    for one in made:
        with pytest.raises(pqlog.UnknownTopicError):
            one.append_one(b"1", None, None)


def test_a_topic_that_two_stores_make_at_once_is_one(two):
    made = [[], []]
    barrier = threading.Barrier(2)

    def work(index):
        for n in range(20):
            barrier.wait()
            topic = two[index].topic(f"{n}", "json", index + 2)
            made[index].append([one.info for one in topic])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made[0] == made[1]
    assert len(two[0].topics()) == 20


@pytest.mark.parametrize("step", [0, -(10**9)], ids=["stands", "goes_back"])
def test_the_times_of_two_stores_never_meet(two, step, monkeypatch):
    skip_unless_in_order(two[0])
    set_clock(monkeypatch, step)
    two[0].topic("main", "json", COUNT)
    topics = [store.find_topic("main") for store in two]
    chance, newest = random.Random(1), 0
    for n in range(60):
        partitions = topics[chance.randrange(2)]
        numbers = chance.sample(range(COUNT), chance.randint(1, COUNT))
        if n % 3:
            went = put_in(partitions, {number: [singles(b"1", b"2")] for number in numbers})
        else:
            at = partitions[numbers[0]].append_one(b"1", None, None)
            went = {numbers[0]: Put(at, at, 1)}
        for other in topics:
            found = {other[number].time_at(put.last) for number, put in went.items()}
            assert len(found) == 1
            assert min(found) > newest
        newest = max(found)


def test_the_merged_order_of_two_stores_grows_only_at_its_end(two):
    two[0].topic("main", "json", COUNT)
    watch_threads_that_put(two)


def test_the_ids_of_two_stores_are_of_one_topic(two):
    here = two[0].topic("main", "json", COUNT)
    there = two[1].find_topic("main")
    went = put_in(here, {0: [singles(b"1")], 2: [singles(b"2")]}, id="x")
    assert put_in(there, {1: [singles(b"3")]}, id="x") == went
    ids = {number: Ids([[f"{number}", "shared"]], never) for number in (1, 2)}
    chunks = {number: [singles(b"a", b"b")] for number in (1, 2)}
    assert [put.messages for put in put_in(there, chunks, ids=ids).values()] == [2, 1]
    assert [put.messages for put in put_in(here, chunks, ids=ids).values()] == [0, 0]
    two[1].trim([(one, 10**12) for one in there], force=True)
    assert here[0].find_id("x") is here[1].find_id("shared") is None
    assert [put.messages for put in put_in(here, chunks, ids=ids).values()] == [2, 1]


def test_a_batch_that_one_store_has_keeps_the_other_from_the_partition(two):
    here = two[0].topic("main", "json", COUNT)
    fill_all(here)
    there = two[1].find_topic("main")
    mine, theirs = clients_of(here), clients_of(there)
    held = take(mine[1], "one")
    assert take(theirs[1], "two") is None
    assert not theirs[1].has_work("two", ordered=True)
    other = take(theirs[2], "two")
    following, _ = theirs[0].advance(Size(2), "two", Done(theirs[2], other), True)
    assert following.number == 1
    assert mine[2].state().lag == 3
    with pytest.raises(pqlog.ClaimLostError):
        two[1].seek([(theirs[1], 1)])
        mine[1].finish(held)
    held = take(mine[1], "one")
    two[0].close()
    assert take(theirs[1], "two").number == held.number


def test_a_batch_of_a_process_that_is_gone_is_handed_out_first(shared, tmp_path):
    engine = shared(tmp_path)
    at = fill_all(engine.topic("main", "json", COUNT))
    client = engine.find_topic("main")[1].client("c")
    script = """
import sys
from pathlib import Path
from pqlog.store.values import Size
from tests.contract import engines
client = getattr(engines, sys.argv[2])(Path(sys.argv[1])).find_topic("main")[1].client("c")
held = client.advance(Size(2), "one", None, True)
print("has it", flush=True)
sys.stdin.read()
"""
    with Process(python(script, tmp_path, shared.__name__)) as other:
        assert other.line() == "has it"
        assert take(client, "two") is None
        assert not client.has_work("two", ordered=True)
        other.kill()
        other.wait()
    assert client.has_work("two", ordered=True)
    again = take(client, "two")
    assert (again.number, again.span, again.attempt) == (1, around(at[1][:2]), 2)
    assert take(client, "three") is None
    assert take(client, "two", Done(client, again)).number == 2
    engine.close()
