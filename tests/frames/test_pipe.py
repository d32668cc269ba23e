"""A pipe is a stage in one call: exactly once, also with several processes, and when they are killed."""

import multiprocessing.process
import operator
import os
import random
import signal
import sys
import threading

import pandas as pd
import pytest

import pqlog
from tests.messages import values
from tests.processes import Process, wait_until


def test_a_pipe_moves_what_the_function_returns(log):
    log.put_many(pd.DataFrame({"n": range(10), "s": list("abcdefghij")}))
    done = log.client("even").pipe(lambda frame: frame[frame["n"] % 2 == 0], into="even", size=4, key="s")
    assert (done.batches, done.messages_in, done.messages_out, done.rejected) == (3, 10, 5, 0)
    assert "3 batches, 10 messages in, 5 out, 0 rejected" in str(done)
    assert log.topic("even").to_pandas()["n"].tolist() == [0, 2, 4, 6, 8]
    assert log.topic("even")[2].key == "c"
    again = log.client("even").pipe(lambda frame: frame, into="even")
    assert (again.batches, again.messages_out) == (0, 0)


def test_it_may_return_values_or_nothing(log):
    log.put_many({"n": n} for n in range(4))
    seen = []
    assert log.client("look").pipe(lambda frame: seen.extend(frame["n"]), size=3).messages_out == 0
    one = log.client("one").pipe(lambda frame: None, size=1000)
    assert str(one).startswith("1 batch, 4 messages in, 0 out, ")
    assert seen == [0, 1, 2, 3]
    log.client("sum").pipe(lambda frame: [{"sum": int(frame["n"].sum())}], into="sums", size=2)
    assert values(log.topic("sums")) == [{"sum": 1}, {"sum": 5}]


def test_a_failure_ends_it_and_the_batch_comes_again(log):
    log.put_many({"n": n} for n in range(6))
    with pytest.raises(KeyError):
        log.client("bad").pipe(lambda frame: frame["nothing"], into="out", size=2)
    assert (log.client("bad").lag, len(log.topic("out"))) == (6, 0)
    assert log.client("bad").claims()[0].error == "KeyError: 'nothing'"
    assert log.client("bad").pipe(lambda frame: frame, into="out", size=9).batches == 2
    assert len(log.topic("out")) == 6


def test_with_attempts_a_bad_batch_is_put_aside(log):
    log.put_many({"n": n} for n in range(6))
    tries = []

    def work(frame):
        tries.append(frame["n"].tolist())
        if 2 in tries[-1]:
            raise ValueError("two")
        return frame

    done = log.client("work").pipe(work, into="out", size=2, attempts=3)
    assert tries == [[0, 1], [2, 3], [2, 3], [2, 3], [4, 5]]
    assert (done.batches, done.messages_in, done.messages_out, done.rejected) == (3, 6, 4, 2)
    assert [message.headers["pqlog-reason"] for message in log.topic("main.dead")] == ["ValueError: two"] * 2


def test_what_cannot_be_is_said_at_once(log):
    log.put({"n": 1})
    with pytest.raises(pqlog.ArgumentError, match="into itself would never end"):
        log.client("x").pipe(lambda frame: frame, into="main")
    with pytest.raises(pqlog.ArgumentError, match=r"name a topic for it with into="):
        log.client("x").pipe(lambda frame: frame)
    with pytest.raises(pqlog.ArgumentError, match="is not callable"):
        log.client("x").pipe(None, into="y")
    with pytest.raises(pqlog.ArgumentError, match="workers must be a number"):
        log.client("x").pipe(len, workers=0)
    with pytest.raises(pqlog.ArgumentError, match="define it at the top of a module"):
        log.client("x").pipe(lambda frame: frame, into="y", workers=2)
    with pqlog.open(":memory:") as memory, pytest.raises(pqlog.ArgumentError, match="in memory"):
        memory.client("x").pipe(len, workers=2)


def test_processes_share_the_work(log, capsys):
    log.put_many(pd.DataFrame({"n": range(1000)}))
    double = operator.methodcaller("mul", 2)
    done = log.client("double").pipe(double, into="out", size=50, workers=2, progress=True)
    assert (done.batches, done.messages_in, done.messages_out) == (20, 1000, 1000)
    assert sorted(log.topic("out").to_pandas()["n"]) == list(range(0, 2000, 2))
    shown = capsys.readouterr().err
    assert "double: 100%" in shown
    assert "messages/s" in shown


def test_stages_in_a_chain_run_at_once(log):
    """Three stages in one file at the same time, the second of two inputs, the third into two outputs."""
    more, joined, ended = log.topic("more"), log.topic("joined"), threading.Event()
    for topic, client in ((log, "one"), (more, "one"), (joined, "split")):
        topic.client(client).seek(to="start")  # created before their threads ask

    def split():
        for batch in joined.batches("split", size=9):
            frame = batch.to_pandas(metadata=False)
            batch.put_many(frame[frame["n"] % 2 == 0], topic="even")
            batch.put_many(frame[frame["n"] % 2 == 1], topic="odd")

    def again_and_again(stage):
        while True:
            last = ended.is_set()
            stage()
            if last:
                return

    stages = [
        lambda: log.client("one").pipe(lambda frame: frame.assign(of=1), into="joined", size=7),
        lambda: more.client("one").pipe(lambda frame: frame.assign(of=2), into="joined", size=11),
    ]
    first = [threading.Thread(target=again_and_again, args=(stage,)) for stage in stages]
    third = threading.Thread(target=again_and_again, args=(split,))
    for thread in (*first, third):
        thread.start()
    for n in range(0, 400, 2):
        log.put({"n": n // 2})
        more.put_many([{"n": 200 + n // 2}])
    wait_until(lambda: not (log.client("one").lag or more.client("one").lag or joined.client("split").lag))
    ended.set()
    for thread in (*first, third):
        thread.join(60)
    assert sorted(log.topic("even").to_pandas()["n"]) == list(range(0, 400, 2))
    assert sorted(log.topic("odd").to_pandas()["n"]) == list(range(1, 400, 2))


PIPE = """
import operator, sys, pqlog
if __name__ == "__main__":
    with pqlog.open(sys.argv[1]) as log:
        print("ready", flush=True)
        log.client("double").pipe(operator.methodcaller("mul", 2), into="out", size=20, workers=int(sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4])
def test_a_killed_pipe_goes_on_where_it_was(path, tmp_path, workers):
    """The whole group of processes is killed at random moments; still, each message is doubled exactly once."""
    script = tmp_path / "pipe.py"
    script.write_text(PIPE)
    chance = random.Random(workers)
    with pqlog.open(path) as log:
        log.put_many(pd.DataFrame({"n": range(10_000)}))
        while not any(client.client == "double" for client in log.clients()) or log.client("double").lag:
            command = [sys.executable, str(script), str(path), str(workers)]
            with Process(command, start_new_session=True) as process:
                process.line()
                out = log.topic("out")
                enough = len(out) + chance.randrange(500, 4000)
                wait_until(lambda p=process, out=out, enough=enough: p.poll() is not None or len(out) >= enough)
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
        assert sorted(out.to_pandas()["n"]) == list(range(0, 20_000, 2))


def die_in_the_first_batch(frame):
    """The first worker to get here is killed."""
    flag = os.environ["PQLOG_TEST_FLAG"]
    try:
        os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
        os.kill(os.getpid(), signal.SIGKILL)
    except FileExistsError:
        pass
    return frame


def die(frame):
    os.kill(os.getpid(), signal.SIGKILL)


class Unpicklable(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def fail_unpicklably(frame):
    raise Unpicklable("this", "that")


def test_a_killed_worker_is_an_error_that_says_what_was_done(path, tmp_path, monkeypatch):
    monkeypatch.setenv("PQLOG_TEST_FLAG", str(tmp_path / "flag"))
    with pqlog.open(path) as log:
        log.put_many({"n": n} for n in range(2000))
        with pytest.raises(
            pqlog.WorkerDiedError, match=r"1 of 2 workers of the pipe died \(killed by signal 9\)"
        ) as caught:
            log.client("p").pipe(die_in_the_first_batch, into="out", size=100, workers=2)
        done, left = caught.value.summary, caught.value.left
        assert (done.messages_in, done.messages_out, left) == (2000, 2000, 0)  # the other worker did its work
        assert sorted(value["n"] for value in values(log.topic("out"))) == list(range(2000))


@pytest.mark.slow
def test_where_all_workers_are_killed_the_next_call_goes_on(path, tmp_path, monkeypatch):
    with pqlog.open(path) as log:
        log.put_many({"n": n} for n in range(300))
        with pytest.raises(pqlog.WorkerDiedError, match="300 messages remain: call it again to continue") as caught:
            log.client("p").pipe(die, into="out", size=100, workers=2)
        assert caught.value.summary.messages_in == 0
        monkeypatch.setenv("PQLOG_TEST_FLAG", str(tmp_path))  # it exists, so no further worker dies
        again = log.client("p").pipe(die_in_the_first_batch, into="out", size=100, workers=2)
        assert (again.messages_in, again.messages_out) == (300, 300)


@pytest.mark.slow
def test_what_a_worker_raised_is_raised_with_its_traceback(path):
    with pqlog.open(path) as log:
        log.put({"n": 1})
        with pytest.raises(pqlog.ArgumentError, match="name a topic") as caught:
            log.client("p").pipe(operator.itemgetter, workers=2)
        assert "in the worker" in str(caught.value.__cause__)
        with pytest.raises(RuntimeError, match="Unpicklable: this and that"):
            log.client("p").pipe(fail_unpicklably, workers=2)
        assert log.client("p").lag == 1


def kept(frame):
    return frame[frame["keep"]]


LEVELS = {
    "no name": None,
    "numbers without a name": pd.Index([7, 3, 5, 1]),
    "text without a name": pd.Index(list("wxyz")),
    "a name": pd.Index(list("wxyz"), name="id"),
    "a range with a name": pd.RangeIndex(1, 5, name="id"),
    "levels": pd.MultiIndex.from_arrays([list("wxyz"), [1, 2, 3, 4]], names=["id", None]),
}


@pytest.mark.parametrize("index", LEVELS.values(), ids=LEVELS.keys())
@pytest.mark.parametrize("keep", [[1, 1, 1, 1], [0, 1, 1, 1], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]])
def test_which_rows_a_stage_keeps_does_not_decide_what_fields_there_are(log, index, keep):
    """A pandas index with a name is put as a field; one without only numbers the rows of the batch, and is left out."""
    frame = pd.DataFrame({"a": range(4), "keep": pd.Series(keep, dtype=bool).tolist()}, index=index)
    log.put_many(frame)
    log.client("c").pipe(kept, into="clean")
    names = {str(name) for name in frame.index.names if name is not None}
    assert [set(value) for value in values(log.topic("clean"))] == [{"a", "keep"} | names] * sum(keep)
    found = log.topic("clean").to_pandas(metadata=False)
    named = [level for level, name in enumerate(frame.index.names) if name is not None]
    unnamed = [level for level, name in enumerate(frame.index.names) if name is None]
    expected = kept(frame).reset_index(level=unnamed, drop=True) if unnamed else kept(frame)
    pd.testing.assert_frame_equal(found, expected, check_index_type="equiv" if named else False)


def test_the_index_of_a_stage_goes_along_where_it_is_asked_for(log):
    frame = pd.DataFrame({"a": range(4), "keep": [False, True, False, True]}, index=list("wxyz"))
    log.put_many(frame)
    log.client("c").pipe(kept, into="clean", index=True)
    pd.testing.assert_frame_equal(log.topic("clean").to_pandas(metadata=False), kept(frame))
    for batch in log.batches("d"):
        batch.put_many(kept(batch.to_pandas(metadata=False)), topic="by hand", index=True)
    pd.testing.assert_frame_equal(log.topic("by hand").to_pandas(metadata=False), kept(frame))


def test_the_offsets_of_a_batch_are_no_field_of_what_it_puts(log):
    log.put_many({"a": n, "keep": n != 1} for n in range(3))
    for batch in log.batches("c"):
        frame = kept(batch.to_pandas())[["a"]]
        assert frame.index.name == "offset"
        batch.put_many(frame, topic="clean")
        batch.put_many(frame.set_index("a", append=True).assign(b=1), topic="levels")
        batch.put_many(frame, topic="asked", index=True)
        batch.put_many(frame.rename_axis("from"), topic="renamed")
    assert values(log.topic("clean")) == [{"a": 0}, {"a": 2}]
    assert values(log.topic("levels")) == [{"b": 1, "a": 0}, {"b": 1, "a": 2}]
    assert values(log.topic("asked")) == [{"a": 0, "offset": 1}, {"a": 2, "offset": 3}]
    assert values(log.topic("renamed")) == [{"a": 0, "from": 1}, {"a": 2, "from": 3}]


def test_workers_that_cannot_be_started_leave_none_behind(log, monkeypatch):
    log.put_many({"n": n} for n in range(10))
    started = []

    def start(process):
        if started:
            raise BlockingIOError("no more processes")
        started.append(process)
        real(process)

    real = multiprocessing.process.BaseProcess.start
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", start)
    with pytest.raises(BlockingIOError, match="no more processes"):
        log.client("c").pipe(die, into="even", workers=2)
    assert not started[0].is_alive()
