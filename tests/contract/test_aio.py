"""`pqlog.aio` on every engine."""

import asyncio
import contextlib
import functools
import inspect
import threading
import time

import pytest

import pqlog
import pqlog.aio
from pqlog import sender
from pqlog.aio import bridge
from pqlog.log import Log
from pqlog.store.values import Single
from pqlog.stream import TopicStream
from tests.contract.engines import COUNT

DEADLINE_S = 60


def opened(engine, topic="main", partitions=None):
    """An engine as `pqlog.aio.open` opens it."""
    return pqlog.aio.Log(Log(engine.name, TopicStream.open(engine, topic, partitions=partitions)), bridge.Bridge("it"))


def in_a_loop(test):
    """The test as a coroutine, which must end in time; no task is left behind."""

    @functools.wraps(test)
    def run(**fixtures):
        async def main():
            async with asyncio.timeout(DEADLINE_S):
                await test(**fixtures)

        asyncio.run(main())

    run.__signature__ = inspect.signature(test)
    return run


async def values(generator):
    return [value async for value in generator]


async def until(condition):
    while not await asyncio.to_thread(condition):
        await asyncio.sleep(0.002)


# putting


@in_a_loop
async def test_tasks_put_each_in_its_order(engine):
    async with opened(engine) as log:

        async def work(name):
            return [await log.put([name, n], key=f"{name}", headers={"n": f"{n}"}) for n in range(10)]

        offsets = await asyncio.gather(*(work(name) for name in range(8)))
        found = {message.offset: message async for message in log.history()}
        for name, mine in enumerate(offsets):
            assert mine == sorted(mine)
            assert [found[offset].value for offset in mine] == [[name, n] for n in range(10)]
            assert [found[offset].headers for offset in mine] == [{"n": f"{n}"} for n in range(10)]
        assert await log.history().count() == 80


@in_a_loop
async def test_an_error_reaches_its_own_task_alone(engine):
    async with opened(engine) as log:
        puts = [log.put("a"), log.put(object()), log.put("b", id="x"), log.put("c", key=1), log.put("d", id="x")]
        outcomes = await asyncio.gather(*puts, return_exceptions=True)
        assert [type(one) for one in outcomes] == [int, pqlog.EncodeError, int, pqlog.ArgumentError, int]
        assert outcomes[4] == outcomes[2]
        with pytest.raises(pqlog.EncodeError):
            await log.put_many([1, object()])
        assert (await log.put_many([1, 2])).messages == 2
        assert await values(log.history().values()) == ["a", "b", 1, 2]


@in_a_loop
async def test_a_key_has_its_partition(engine):
    async with opened(engine) as log:
        orders = await log.topic("orders", partitions=COUNT)
        at = await asyncio.gather(*(orders.put(n, key=f"{n % 5}") for n in range(20)))
        for n, one in enumerate(at):
            assert orders.sync.partition(one.partition)[one.offset].value == n
        assert sorted(await values(orders.get("c"))) == list(range(20))


@in_a_loop
async def test_more_puts_than_may_be_under_way_do_not_block_the_loop(engine, monkeypatch):
    monkeypatch.setattr(sender, "MOST", 5)
    async with opened(engine) as log:
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1

        ticking = asyncio.create_task(tick())
        await asyncio.gather(*(log.put(n) for n in range(100)))
        ticking.cancel()
        assert ticks > 20
        assert sorted(await values(log.history().values())) == list(range(100))


@pytest.fixture
def gate(engine, monkeypatch):
    """Commits of what was sent wait until it is opened."""
    gate, put_each = threading.Event(), engine.append_each
    gate.began = threading.Event()

    def append_each(some):
        gate.began.set()
        assert gate.wait(DEADLINE_S)
        return put_each(some)

    monkeypatch.setattr(engine, "append_each", append_each)
    yield gate
    gate.set()


@in_a_loop
async def test_a_put_that_is_cancelled_is_not_there_or_says_where_it_is(engine, gate):
    async with opened(engine) as log:
        first = asyncio.create_task(log.put("first"))
        await asyncio.to_thread(gate.began.wait, DEADLINE_S)
        second = asyncio.create_task(log.put("second"))
        await asyncio.sleep(0.02)
        for task in (first, second):
            task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await second
        assert not hasattr(caught.value, "outcome")
        await asyncio.sleep(0.02)
        assert not first.done()  # what has begun is awaited
        gate.set()
        with pytest.raises(asyncio.CancelledError) as caught:
            await first
        assert log.sync[caught.value.outcome.result()].value == "first"
        assert f"returned {caught.value.outcome.result()}" in caught.value.__notes__[0]
        await log.put("third")
        assert await values(log.history().values()) == ["first", "third"]


@in_a_loop
async def test_a_put_that_runs_out_of_time_says_so_and_twice_cancelled_that_nobody_knows(engine, gate):
    async with opened(engine) as log:
        task = asyncio.create_task(asyncio.wait_for(log.put("first"), 0.05))
        await asyncio.to_thread(gate.began.wait, DEADLINE_S)
        await asyncio.sleep(0.1)
        other = asyncio.create_task(log.put("other"))
        gate.set()
        with contextlib.suppress(TimeoutError):  # wait_for may find that it was done in the end
            assert await task > 0
        await other
        gate.clear()
        gate.began.clear()
        task = asyncio.create_task(log.put("last"))
        await asyncio.to_thread(gate.began.wait, DEADLINE_S)
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0.02)
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert "not known" in caught.value.__notes__[0]
        gate.set()
        assert (await values(log.history().values()))[:2] == ["first", "other"]


@in_a_loop
async def test_random_cancellations_leave_no_put_half_known(engine):
    async with opened(engine) as log:
        tasks = [asyncio.create_task(log.put(n)) for n in range(150)]
        for n, task in enumerate(tasks):
            if n % 3 == 0:
                task.cancel()
            if n % 7 == 0:
                await asyncio.sleep(0.001)
        await asyncio.wait(tasks)
        found = {message.value: message.offset async for message in log.history()}
        for n, task in enumerate(tasks):
            try:
                offset = await task
                assert found[n] == offset
            except asyncio.CancelledError as error:  # gather would make another one
                told = getattr(error, "outcome", None)
                assert found.get(n) == (told and told.result())
        assert len(found) >= 100


@in_a_loop
async def test_a_close_waits_for_what_is_under_way(engine, gate):
    log = opened(engine)
    puts = [asyncio.create_task(log.put(n)) for n in range(5)]
    await asyncio.to_thread(gate.began.wait, DEADLINE_S)
    closing = asyncio.create_task(log.close())
    await asyncio.sleep(0.05)
    assert not closing.done()
    gate.set()
    await closing
    assert len(set(await asyncio.gather(*puts))) == 5
    await log.close()
    for call in (log.put(1), log.put_many([1]), log.topic("a"), anext(log.get("c"))):
        with pytest.raises(pqlog.ClosedError):
            await call


# reading


@in_a_loop
async def test_a_loop_acknowledges_what_it_asked_past(engine):
    async with opened(engine) as log:
        await log.put_many(range(20))
        billing = log.client("billing")
        async with contextlib.aclosing(billing.get()) as reading:
            async for value in reading:
                if value == 3:
                    break
        assert await billing.lag() == 17
        seen = []
        async with contextlib.aclosing(billing.get(ack_every=5, ack_seconds=60, messages=True)) as reading:
            async for message in reading:
                seen.append((message.value, await billing.lag()))
                if message.value == 13:
                    break
        assert seen == [(n, 17 - (n - 3) // 5 * 5) for n in range(3, 14)]
        assert await billing.lag() == 7
        assert await values(billing.get()) == list(range(13, 20))
        assert await billing.lag() == 0


@in_a_loop
async def test_a_reader_that_is_cancelled_keeps_its_message(engine):
    async with opened(engine) as log:
        await log.put_many(range(10))
        billing = log.client("billing")

        async def read():
            async for value in billing.get_blocking(ack_every=100, ack_seconds=60):
                if value == 6:
                    task.cancel()
                    await asyncio.sleep(60)

        task = asyncio.create_task(read())
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: billing.sync.lag == 4)
        assert await values(billing.get()) == [6, 7, 8, 9]


@in_a_loop
async def test_a_client_that_is_moved_goes_on_there(engine):
    async with opened(engine) as log:
        await log.put_many(range(20))
        billing, seen = log.client("billing"), []
        async for value in billing.get(ack_every=2, ack_seconds=60):
            seen.append(value)
            if len(seen) == 2:
                await billing.seek(log.sync[-3].offset)
        assert seen == [0, 1, 17, 18, 19]
        assert await values(billing.get()) == []


@in_a_loop
async def test_what_comes_before_an_error_is_delivered(engine):
    async with opened(engine) as log:
        await log.put_many(["a", "b"])
        engine.append_each([Single(log.sync.store, b"{", None, None, None)])
        seen = []
        with pytest.raises(pqlog.DecodeError):
            async for value in log.get("c"):
                seen.append(value)
        assert seen == ["a", "b"]
        assert await log.client("c").lag() == 1
        seen.clear()
        with pytest.raises(pqlog.DecodeError):
            async for message in log.history():
                seen.append(message.value)
        assert seen == ["a", "b"]


@in_a_loop
async def test_readers_wait_and_wake_when_something_is_put(engine):
    async with opened(engine) as log:
        orders = await log.topic("orders", partitions=COUNT)
        seen = {}

        async def read(topic, name):
            seen[name] = []
            async for value in topic.get_blocking(name):
                seen[name].append(value)

        readers = [asyncio.create_task(read(log, f"m{n}")) for n in range(3)]
        readers += [asyncio.create_task(read(orders, f"o{n}")) for n in range(3)]
        for round in range(5):
            await log.put(round)
            await orders.put(round, key=f"{round}")
            while any(len(mine) != round + 1 for mine in seen.values()) or len(seen) < 6:
                await asyncio.sleep(0.002)
        assert list(seen.values()) == [list(range(5))] * 6
        for reader in readers[:2]:
            reader.cancel()
    outcomes = await asyncio.gather(*readers, return_exceptions=True)
    assert [type(one) for one in outcomes] == [asyncio.CancelledError] * 2 + [pqlog.ClosedError] * 4


@in_a_loop
async def test_a_reader_wakes_for_what_another_store_puts_and_for_a_client_that_is_moved(shared, tmp_path):
    one, other = shared(tmp_path), shared(tmp_path)
    with contextlib.closing(other):
        async with opened(one) as log:
            await log.put("first")
            reading = log.get_blocking("c")
            assert await anext(reading) == "first"
            waiting = asyncio.create_task(anext(reading))
            await until(lambda: log.client("c").sync.lag == 0)
            (topic,) = other.find_topic("main")
            await asyncio.to_thread(topic.append_one, b'"second"', None, None)
            assert await waiting == "second"
            waiting = asyncio.create_task(anext(reading))
            await until(lambda: log.client("c").sync.lag == 0)
            await asyncio.to_thread(other.seek, [(topic.client("c"), topic.span().first)])
            assert await waiting == "first"
            await reading.aclose()


@in_a_loop
async def test_many_readers_that_wait_share_one_thread(engine):
    async with opened(engine) as log:
        await log.put("first")
        seen = []

        async def read(name):
            async for value in log.get_blocking(name):
                seen.append((name, value))

        def is_read():
            clients = log.sync.clients()
            return len(clients) == 3 and all(client.lag == 0 for client in clients)

        async with asyncio.TaskGroup() as group:
            readers = [group.create_task(read(f"c{n % 3}")) for n in range(60)]
            await until(is_read)
            await asyncio.sleep(0.1)
            names = [thread.name for thread in threading.enumerate()]
            assert names.count("pqlog-notifier") == 1
            assert sum(name.startswith("pqlog-aio") for name in names) <= bridge.THREADS
            seen.clear()
            await log.put("second")
            await until(is_read)
            for reader in readers:
                reader.cancel()
        assert set(seen) == {(f"c{n}", "second") for n in range(3)}


# batches


@in_a_loop
async def test_a_stage_puts_with_its_acknowledgement(engine):
    async with opened(engine) as log:
        await log.put_many(range(10))
        sizes = []
        async for batch in log.batches("stage", size=4):
            sizes.append((batch.number, len(batch), batch.sync.first == batch.first))
            await batch.put_many([2 * n async for n in batch], topic="out")
            await batch.put(batch.token, topic="tokens")
            async for message in batch.messages():
                if message.value == 5:
                    await batch.reject(message, "five")
        assert sizes == [(1, 4, True), (2, 4, True), (3, 2, True)]
        assert await values((await log.topic("out")).history().values()) == [2 * n for n in range(10)]
        assert await values((await log.topic("main.rejected")).history().values()) == [5]
        assert len(set(await values((await log.topic("tokens")).history().values()))) == 3


@in_a_loop
async def test_a_batch_that_was_not_done_comes_again(engine):
    async with opened(engine) as log:
        await log.put_many(range(10))
        etl = log.client("etl")
        with contextlib.suppress(ZeroDivisionError):
            async with contextlib.aclosing(etl.batches(size=4)) as batches:
                async for batch in batches:
                    await batch.put("never", topic="out")
                    1 / 0
        assert await etl.lag() == 10
        async with await etl.next_batch() as batch:
            assert (batch.number, batch.attempt, len(batch)) == (1, 2, 4)
        with contextlib.suppress(ZeroDivisionError):
            async with await etl.next_batch(size=3) as batch:
                1 / 0
        batch = await etl.next_batch()
        assert (batch.number, batch.attempt, batch.error) == (2, 2, "ZeroDivisionError: division by zero")
        await batch.release(ValueError("mine"))
        batch = await etl.next_batch()
        assert (batch.attempt, batch.error) == (3, "ValueError: mine")
        await batch.ack()
        assert await etl.lag() == 3
        assert await values((await log.topic("out")).history().values()) == []


@in_a_loop
async def test_a_batch_is_waited_for(engine):
    async with opened(engine) as log:
        etl = log.client("etl")
        assert await etl.next_batch() is None
        began = time.monotonic()
        assert await etl.next_batch(timeout=0.1) is None
        assert time.monotonic() - began >= 0.1
        waiting = asyncio.create_task(etl.next_batch(timeout=None))
        await asyncio.sleep(0.05)
        await log.put("a")
        async with await waiting as batch:
            assert len(batch) == 1
        seen = []

        async def follow():
            async for batch in etl.batches(follow=True):
                seen.extend([value async for value in batch])

        following = asyncio.create_task(follow())
        for n in range(3):
            await log.put(n)
            while len(seen) <= n:
                await asyncio.sleep(0.002)
    await following  # ends with the log
    assert seen == [0, 1, 2]


@in_a_loop
async def test_a_batch_that_is_given_back_wakes_who_waits(engine):
    async with opened(engine) as log:
        etl = log.client("etl")
        await log.put("a")
        batch = await etl.next_batch(ordered=True)
        waiting = asyncio.create_task(etl.next_batch(timeout=None, ordered=True))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await batch.release()
        assert (await waiting).attempt == 2


@in_a_loop
async def test_a_cancelled_wait_for_a_batch_holds_none(engine):
    async with opened(engine) as log:
        etl = log.client("etl")
        for n in range(6):
            waiting = asyncio.create_task(etl.next_batch(timeout=None))
            put = asyncio.create_task(log.put(n))
            await asyncio.sleep(0.0005 * n)
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await (await waiting).release()
            await put
        taken = [await etl.next_batch(timeout=30) for _ in range(1)]
        while (await etl.position()) != log.sync.store.span().stop and taken[-1] is not None:
            await taken[-1].ack()
            if not await etl.lag():
                break
            taken.append(await etl.next_batch(timeout=30))
        assert await etl.lag() == 0


@in_a_loop
async def test_dead_letters_and_a_wrong_option(engine):
    async with opened(engine) as log:
        await log.put_many(range(4))
        for _ in range(2):
            with contextlib.suppress(ZeroDivisionError):
                async with await log.client("etl").next_batch(size=2, attempts=1):
                    1 / 0
        assert await values((await log.topic("main.dead")).history().values()) == [0, 1]
        with pytest.raises(pqlog.ArgumentError):
            await anext(log.batches("etl", size=0))
        with pytest.raises(pqlog.ArgumentError):
            await log.client("etl").next_batch(timeout=-1)
