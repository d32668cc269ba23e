"""`pqlog.aio` in a file: thousands that wait, Ctrl-C and kills, and the import of it."""

import asyncio
import signal
import threading

import pytest

import pqlog.aio
from tests import processes
from tests.processes import Process, python, start, wait_until
from tests.rings import by_ring


@pytest.mark.slow
@pytest.mark.parametrize(("readers", "clients"), [(10_000, 100), (1_000, 1_000)])
def test_thousands_of_readers_that_wait_take_less_than_a_hundredth_of_a_core(path, readers, clients):
    script = """
import asyncio, sys, threading, time
import pqlog.aio
READERS, CLIENTS = map(int, sys.argv[2:])
async def read(log, n):
    async for value in log.get_blocking(f"client {n % CLIENTS}"):
        pass
async def main():
    async with pqlog.aio.open(sys.argv[1]) as log:
        tasks = [asyncio.create_task(read(log, n)) for n in range(READERS)]
        async def read_by_all(value):
            await log.put(value)
            async with asyncio.timeout(120):
                while True:
                    clients = await asyncio.to_thread(log.sync.clients)
                    if len(clients) == CLIENTS and not any(client.lag for client in clients):
                        return
                    await asyncio.sleep(0.1)
        await read_by_all("first")
        await asyncio.sleep(5)      # they all wait by then
        shares = []
        for _ in range(3):
            began, used = time.monotonic(), time.process_time()
            await asyncio.sleep(2)
            shares.append((time.process_time() - used) / (time.monotonic() - began))
        print(min(shares), threading.active_count())
        for n in range(3):
            await read_by_all(n)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
asyncio.run(main())
"""
    share, threads = processes.run(script, path, readers, clients, timeout=250).split()
    assert float(share) < 0.01
    assert int(threads) < 20


def test_what_a_task_was_told_is_there_after_a_kill(path):
    script = """
import asyncio, os, sys
import pqlog.aio
async def work(log, name):
    for n in range(sys.maxsize):
        offset = await log.put([name, n])
        os.write(1, f"{offset} {name} {n}\\n".encode())
async def main():
    async with pqlog.aio.open(sys.argv[1]) as log:
        await asyncio.gather(*(work(log, name) for name in range(20)))
asyncio.run(main())
"""
    told = {}
    for seed in range(by_ring(4, 20)):
        with Process(python(script, path)) as process:
            lines = [process.line() for _ in range(100 + 37 * seed)]
            lines += process.kill_and_read()[:-1]
        for line in lines:
            offset, name, n = map(int, line.split())
            told[offset] = [name, n]
    with pqlog.open(path) as log:
        assert log.verify() == []
        found = {message.offset: message.value for message in log}
    assert all(found[offset] == value for offset, value in told.items())


def test_ctrl_c_ends_a_program_whose_tasks_put_and_wait(path):
    """asyncio.run cancels its task then; what the others were told is there, and nothing hangs."""
    script = """
import asyncio, os, sys
import pqlog.aio
async def work(log, name):
    for n in range(sys.maxsize):
        offset = await log.put([name, n])
        os.write(1, f"{offset} {name} {n}\\n".encode())
async def read(log):
    async for _ in log.get_blocking("c", ack_every=10):
        pass
async def follow(log):
    async for batch in log.batches("etl", follow=True):
        await batch.put_many([value async for value in batch], topic="out")
async def main():
    async with pqlog.aio.open(sys.argv[1]) as log:
        await asyncio.gather(*(work(log, name) for name in range(20)), read(log), follow(log))
asyncio.run(main())
"""
    for seed in range(by_ring(2, 10)):
        with start(script, f"{path}{seed}", stderr=-3) as process:
            lines = [process.line() for _ in range(200 + 53 * seed)]
            process.send_signal(signal.SIGINT)
            printed, _ = process.communicate(timeout=60)
            lines += printed.splitlines()
        assert process.returncode in (1, -signal.SIGINT, 130)
        with pqlog.open(f"{path}{seed}") as log:
            assert log.verify() == []
            found = {message.offset: message.value for message in log}
            for line in lines:
                offset, name, n = map(int, line.split())
                assert found[offset] == [name, n]
            out = [message.value for message in log.topic("out")] if "out" in log.topics() else []
            assert out == [found[offset] for offset in range(1, len(out) + 1)]
            assert log.client("etl").position == len(out) + 1


def test_pqlog_imports_asyncio_only_for_who_uses_it():
    processes.run(
        "import sys, pqlog; assert 'asyncio' not in sys.modules; pqlog.aio.open; assert 'asyncio' in sys.modules"
    )


def test_an_open_log_is_closed_by_its_block_and_its_threads_end(path):
    async def main():
        async with pqlog.aio.open(path) as log:
            await log.put(1)
            reader = asyncio.create_task(anext(log.get_blocking("c")))
            assert await reader == 1
            waiting = asyncio.create_task(anext(log.get_blocking("d", ack_every=5)))
            await waiting
        with pytest.raises(ZeroDivisionError):
            async with pqlog.aio.open(path) as log:
                1 / 0
        with pytest.raises(pqlog.StoreError):
            async with pqlog.aio.open(path / "nowhere" / "a.db"):
                pass

    asyncio.run(main())
    wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("pqlog")], 20)
