"""What the processes of test_kills.py do until they are killed; each appends its progress to a report.

As a program, it forks one for each line that it reads, which is much faster than starting an interpreter.
"""

import os
import signal
import sys
import time
import traceback

import pqlog
from pqlog.store import sealed
from pqlog.store.sqlite import sealing


def _reporting(path):
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    return lambda *what: os.write(fd, (" ".join(map(str, what)) + "\n").encode())


def produce(path, report, name):
    say = _reporting(report)
    with pqlog.open(path) as log:
        say("ready")
        for n in range(sys.maxsize):
            if n % 5 == 4:
                went = log.put_many([[int(name), n, i] for i in range(30)])
                say(went.first, went.last + 1)
            else:
                offset = log.put([int(name), n, 0], id=f"{name}-{n}")
                say(offset, offset + 1)


def send(path, report, name):
    """What is told comes from the thread that commits: it must be there whatever ends the process then."""
    say = _reporting(report)
    with pqlog.open(path) as log:
        say("ready")
        for n in range(sys.maxsize):
            future = log.send([name, n], id=f"{name}-{n}" if n % 7 == 0 else None)
            future.add_done_callback(lambda future, n=n: say(n, future.result()))


def produce_keys(path, report, name):
    say = _reporting(report)
    with pqlog.open(path) as log:
        orders = log.topic("orders")
        say("ready")
        for n in range(sys.maxsize):
            values = [{"of": name, "n": 10 * n + i, "key": f"{name}-{i % 4}"} for i in range(10)]
            if n % 3:
                orders.put_many(values, key="key")
            else:
                for value in values:
                    orders.put(value, key=value["key"])
            say(n)


def handle(path, report, name):
    say = _reporting(report)
    with pqlog.open(path) as log:
        say("ready")
        for batch in log.topic("orders").batches("stage", size=7, follow=True):
            say(batch.partition, batch.number, batch.first, batch.last)
            batch.put_many(list(batch), topic="handled", key="key")


def seal(path, report, name):
    sealed.MAX_ROWS, sealing.LEAST = 200, 2
    say = _reporting(report)
    with pqlog.open(path) as log:
        say("ready")
        while True:
            say(log.seal())


def consume(path, report, name):
    say = _reporting(report)
    with pqlog.open(path) as log:
        say("ready")
        for message in log.get_blocking("reader", messages=True):
            say(message.offset)


def consume_in_steps(path, report, name):
    say = _reporting(report)
    with pqlog.open(path) as log:
        say("ready")
        for message in log.get_blocking("steps", messages=True, ack_every=10, ack_seconds=1e6):
            say(message.offset)
            time.sleep(0.0005)  # or most kills would strike in a commit


def stage(path, report, name):
    say = _reporting(report)
    with pqlog.open(path) as log:
        say("ready")
        for batch in log.batches("stage", size=7, follow=True):
            say(batch.number, batch.first, batch.last)
            batch.put_many([[message.offset] for message in batch.messages()], topic="out")


def main():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # leave no zombies
    for line in sys.stdin:
        work, *arguments = line.rstrip("\n").split("\t")
        pid = os.fork()
        if pid == 0:
            try:
                globals()[work](*arguments)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        print(pid, flush=True)


if __name__ == "__main__":
    main()
