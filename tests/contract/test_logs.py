"""Promise 9: a log answers the same on every engine. One whose offsets have gaps is asked what one without is asked."""

import contextlib
import gc
import itertools
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import polars
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pqlog
from pqlog.history import timeline
from pqlog.log import Log
from pqlog.notebook import views
from pqlog.store import sealed
from pqlog.store.sqlite import sealing
from pqlog.stream import TopicStream
from pqlog.testing import sparse_log
from tests.interrupts import last, moments, struck
from tests.rings import by_ring

KEYS = st.sampled_from(["a", "b", "c"])
ONE = st.tuples(st.just("one"), st.integers(0, 9), KEYS | st.none())
MANY = st.tuples(st.just("many"), st.lists(st.integers(0, 9), max_size=30), st.booleans())
FRAME = st.tuples(st.just("frame"), st.lists(st.integers(0, 9), min_size=1, max_size=30), st.booleans())
PUTS = st.lists(ONE | MANY | FRAME, min_size=1, max_size=8)


def fill(log, puts):
    """Put everything; the offsets of the messages."""
    for kind, content, key in puts:
        if kind == "one":
            log.put({"n": content, "k": key}, key=key)
            continue
        values = [{"n": n, "k": "abc"[n % 3]} for n in content]
        log.put_many(pd.DataFrame(values) if kind == "frame" else values, key="k" if key else None)
    return [message.offset for message in log]


class Ranks:
    """Offsets of a log as the numbers of its messages, from 0: the same on every engine."""

    def __init__(self, at):
        self.at = np.array(at, int)

    def of(self, offset):
        """How many messages lie before an offset."""
        return int(np.searchsorted(self.at, offset))

    def gap(self, rank):
        """The first offset behind the message before one: where there is a gap, it is of no message."""
        return self.at[rank - 1].item() + 1 if rank else 0

    def frame(self, frame):
        """A frame with ranks in its index, and without times."""
        return frame.set_axis([self.of(offset) for offset in frame.index]).drop(columns="_time", errors="ignore")

    def message(self, message):
        return self.of(message.offset), message.value, message.key, message.headers

    def messages(self, messages):
        return list(map(self.message, messages))


def reading(log, ranks, first, stop):
    """Everything that reads."""
    start, end = ranks.at[[first, stop]].tolist()
    yield "len", len(log)
    yield "bounds", (ranks.of(log.first), ranks.of(log.last))
    yield "messages", ranks.messages(log)
    yield "backwards", ranks.messages(reversed(log))
    yield "one", (ranks.message(log[start]), ranks.message(log[-1]), ranks.message(log[-first - 1]))
    yield "values", list(log.history().values())
    part = log[start:end]
    yield "from within a gap", ranks.messages(log[ranks.gap(first) : ranks.gap(stop)])
    yield "backwards from within a gap", ranks.messages(reversed(log[ranks.gap(first) :]))
    yield "at the last gap", list(reversed(log[ranks.at[-1].item() + 1 :]))
    yield "part", (len(part), bool(part), ranks.messages(part), list(part.values()), ranks.messages(reversed(part)))
    yield "from the end", (ranks.messages(log[-first - 1 :]), len(log[-stop - 1 : -first - 1 or None]))
    for key in "ab":
        history = log.history(start, key=key)
        yield "key", (bool(history), ranks.messages(history), ranks.messages(reversed(history)))
        yield (
            "key in frames",
            (ranks.frame(history.to_pandas()), ranks.frame(history.tail(3)), ranks.frame(history.head(3))),
        )
    for by in ("key", "k"):
        latest = part.latest(by) if by == "k" else log.history().latest()
        yield "latest", (ranks.messages(latest), ranks.messages(reversed(latest)))
        yield "latest in frames", (ranks.frame(latest.to_pandas()), ranks.frame(latest.tail(2)))
    yield "frame", ranks.frame(part.to_pandas())
    yield "ends", (ranks.frame(log.head(5)), ranks.frame(log.tail(5)), ranks.frame(part.tail(2)))
    yield "chunks", [ranks.frame(chunk) for chunk in log.history().chunks(chunksize=7)]
    yield "polars", log.to_polars(["n", "k"], metadata=False).to_dicts()
    yield "arrow", part.to_arrow(["n"], metadata=False).to_pylist()
    yield "schema", log.history().schema.names
    at = ranks.at[first].item()
    for where in ("n > 4 and k = 'a'", "k <> 'b' or n < 3", "_key = 'c'", f"offset > {at}", "nothing is not null"):
        found = log.history(where=where)
        yield where.split()[0], (ranks.messages(found), ranks.messages(reversed(found)), found.count())
        yield (
            "where in frames",
            (ranks.frame(found.to_pandas()), ranks.frame(found.tail(2)), ranks.frame(found.head(2))),
        )
    c = polars.col
    yield "scan", log.scan().filter((c("n") > 4) & (c("offset") >= at)).select("n", "k").collect().to_dicts()
    yield "sql", log.sql(f'select k, sum(n) from log where "offset" >= {at} group by 1 order by 1').fetchall()
    shown = views.topic_view(log)
    yield "views", (shown.count("<tr>"), shown.split(" messages")[0])
    yield "over time", sum(timeline(log.store, log.store.span(), 12)[1])


def assert_same(one, other):
    if isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other)
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    else:
        assert one == other


@contextlib.contextmanager
def both(make, puts, codec="json"):
    """A log of SQLite and one on another engine, with the ranks of each."""
    with tempfile.TemporaryDirectory() as folder:
        store = make(Path(folder))
        with (
            pqlog.open(":memory:", codec=codec) as log,
            Log(store.name, TopicStream.open(store, "main", codec)) as other,
        ):
            yield [(one, Ranks(fill(one, puts))) for one in (log, other)]


def compare(one, other):
    """Compare the answers to one question after the other."""
    for (what, here), (_, there) in itertools.zip_longest(one, other):
        try:
            assert_same(here, there)
        except AssertionError as error:
            raise AssertionError(f"{what}: {here} is not {there}") from error


@settings(max_examples=by_ring(15, 150))
@given(
    puts=PUTS,
    codec=st.sampled_from(["json", "msgpack"]),
    ends=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    seals=st.booleans(),
)
def test_reading(other_engine, puts, codec, ends, seals):
    with both(other_engine, puts, codec) as ((log, its), (other, theirs)):
        if seals:
            with mock.patch.object(sealing, "LEAST", 2), mock.patch.object(sealed, "MAX_ROWS", 12):
                log.seal()
        if not len(its.at):
            assert (len(other), other.first, other.last, list(other)) == (0, None, None, [])
            return
        first, stop = sorted(int(end * (len(its.at) - 1)) for end in ends)
        compare(reading(log, its, first, stop), reading(other, theirs, first, stop))


def consuming(log, ranks, size, stop):
    """Everything that a client does."""
    client = log.client("c")
    where = lambda: (ranks.of(client.position), client.lag)  # noqa: E731
    client.seek("start")
    taken = ranks.messages(itertools.islice(client.get(messages=True), stop))
    yield "get", (taken, where())
    client.ack(log[int(ranks.at[stop])])
    yield "ack", (where(), ranks.messages(client.unread()))
    moved = client.seek(ranks.gap(stop // 2))
    yield "seek", (ranks.of(moved.position), moved.again, moved.skipped, where())
    moved = client.seek(-1)
    yield "seek from the end", (ranks.of(moved.position), moved.again, moved.skipped)
    yield "seek to both ends", [(client.seek(to).again, client.lag) for to in ("end", "start")]
    one = client.get_one(messages=True), client.nack(), client.get_one(messages=True)
    yield "one by one", (ranks.message(one[0]), ranks.message(one[2]), where(), client.ack(), where())
    client.seek("start")
    for batch in client.batches(size=size):
        around = (ranks.of(batch.first), ranks.of(batch.last), len(batch), batch.number)
        (claim,) = client.claims()
        yield "batch", (around, list(batch), ranks.messages(batch.messages()), ranks.frame(batch.to_pandas()))
        yield "claim", (ranks.of(claim.first), ranks.of(claim.last), claim.attempt)
        staged = batch.put_many([{"m": value["n"]} for value in batch], topic="out", key="m")
        rejected = batch.reject(next(batch.messages()), "why")
    yield "staged", (staged.put.messages, rejected.put.messages, log.topic("out").last == staged.put.last, where())
    out = log.topic("out")
    yield "out", [(message.value, message.key) for message in out]
    dead = log.topic("main.rejected")
    offsets = [int(message.headers["pqlog-offset"]) for message in dead]
    yield "rejected", ([message.value for message in dead], list(map(ranks.of, offsets)))
    done = out.client("pipe").pipe(lambda frame: frame[frame.m > 4], into="large", size=size)
    yield "pipe", (done.batches, done.messages_in, done.messages_out, list(log.topic("large").history().values()))
    yield "clients", [(one.client, one.lag, one.batches, one.open) for one in [*log.clients(), *out.clients()]]


@settings(max_examples=by_ring(15, 100))
@given(puts=PUTS, size=st.integers(1, 12), end=st.floats(0, 1))
def test_consuming(other_engine, puts, size, end):
    with both(other_engine, puts) as ((log, its), (other, theirs)):
        if len(its.at):
            stop = int(end * (len(its.at) - 1))
            compare(consuming(log, its, size, stop), consuming(other, theirs, size, stop))


def keeping(log, ranks, puts, stop):
    """What changes while somebody looks."""
    live = log.live()
    explorer = log.explore()
    yield "explorer", (ranks.frame(explorer.frame), explorer._where.value, explorer._table.value.count("<tr>"))
    explorer._turn("last")
    yield "explorer's last page", (explorer._where.value, explorer._table.value.count("<tr>"))
    explorer.search("n = 3")
    yield "search", (ranks.frame(explorer.frame), explorer._where.value)
    yield "schema", log.schema.names
    yield "trim", (log.trim(ranks.gap(stop)), len(log), ranks.of(log.first))
    yield "trimmed", (ranks.frame(live.refresh()), ranks.messages(log))
    everything = Ranks([*ranks.at, *(offset for offset in fill(log, puts) if offset > ranks.at[-1])])
    yield "more", (everything.frame(live.refresh()), everything.frame(log.to_pandas()), log.schema.names)
    yield "more, by a new reading", everything.frame(log.live().frame)
    yield "trim from the end", (log.trim(-2), len(log), everything.messages(log))
    yield "trim all", (log.trim(everything.at[-1].item() + 1), len(log), log.first, log.last, list(log))
    explorer._reload()
    yield "explorer of nothing", (explorer._where.value, len(explorer.frame))


@settings(max_examples=by_ring(15, 100))
@given(puts=PUTS, end=st.floats(0, 1))
def test_keeping(other_engine, puts, end):
    with both(other_engine, puts) as ((log, its), (other, theirs)):
        if len(its.at) > 1:
            stop = int(end * (len(its.at) - 1))
            compare(keeping(log, its, puts, stop), keeping(other, theirs, puts, stop))


def exported(log, folder, rows_per_file):
    log.to_parquet(folder, rows_per_file=rows_per_file)
    fill(log, [("many", list(range(9)), True)])
    log.to_parquet(folder, rows_per_file=rows_per_file)
    return pd.read_parquet(folder).sort_values("offset")[["n", "k"]].to_dict("records")


@pytest.mark.parametrize("rows_per_file", [3, 1000])
def test_an_export_is_completed(other_engine, tmp_path, rows_per_file):
    with both(other_engine, [("many", list(range(20)), True), ("frame", [1, 2, 3], False)]) as ((log, _), (other, _)):
        found = [exported(one, tmp_path / name, rows_per_file) for one, name in ((log, "1"), (other, "2"))]
        assert found == [list(other.history().values())] * 2


def files_of(folder):
    """The numbers of rows of the files of a dataset, and which file each is."""
    paths = sorted(folder.iterdir())
    return {path.name: (pq.read_metadata(path).num_rows, path.stat().st_ino) for path in paths}


def test_files_of_an_export_have_as_many_messages_as_was_said_and_stay(other_engine, tmp_path):
    """Also where offsets have gaps, and a segment has more messages than a file."""
    with both(other_engine, []) as (_, (log, _)):
        folder, other = tmp_path / "all", tmp_path / "part"
        log.put_many({"n": n} for n in range(5))
        log.put_many(pd.DataFrame({"n": range(5, 16)}))
        log.to_parquet(folder, rows_per_file=4)
        before = files_of(folder)
        assert [rows for rows, _ in before.values()] == [4, 4, 4, 4]
        log.put({"n": 16})
        assert len(log.to_parquet(folder, rows_per_file=4)) == 1
        log.put_many({"n": n} for n in range(17, 22))
        _, _ = log.to_parquet(folder, rows_per_file=4)
        assert log.to_parquet(folder, rows_per_file=4) == []
        after = files_of(folder)
        assert [rows for rows, _ in after.values()] == [4, 4, 4, 4, 4, 2]
        assert before.items() <= after.items()
        assert pd.read_parquet(folder)["n"].tolist() == list(range(22))
        offsets = [message.offset for message in log]
        for part in (log[offsets[6] : offsets[9]], log[offsets[3] : offsets[8]], log.history(), log.history()):
            part.to_parquet(other, rows_per_file=4)
        assert sorted(pd.read_parquet(other)["n"]) == list(range(22))
        log.put({"n": 22, "new": 1})  # the schema changes: all files do, and are as large as they were
        assert len(log.to_parquet(folder, rows_per_file=4)) == 6
        assert [rows for rows, _ in files_of(folder).values()] == [4, 4, 4, 4, 4, 3]
        log.trim(before=offsets[10], force=True)
        log.put_many({"n": n} for n in range(23, 26))
        log.to_parquet(folder, rows_per_file=4)
        assert [rows for rows, _ in files_of(folder).values()] == [4, 4, 4, 4, 4, 4, 2]
        assert pd.read_parquet(folder)["n"].tolist() == list(range(26))


def test_an_export_of_partitions_has_no_file_for_the_first_messages_alone(other_engine, tmp_path):
    with both(other_engine, []) as (_, (log, _)):
        orders = log.topic("orders", partitions=2)
        orders.put_many([{"n": n, "key": f"k{n}"} for n in range(40)], key="key")
        orders.to_parquet(tmp_path, rows_per_file=1000)
        assert len(files_of(tmp_path)) == 2
        orders.put_many([{"n": n, "key": f"k{n}"} for n in range(40, 45)], key="key")
        orders.history(key="k3").to_parquet(tmp_path / "one", rows_per_file=4)
        orders.history(key="k3").to_parquet(tmp_path / "one", rows_per_file=4)
        assert pd.read_parquet(tmp_path / "one")["n"].tolist() == [3]
        orders.to_parquet(tmp_path / "all", rows_per_file=4)
        assert sorted(pd.read_parquet(tmp_path / "all")["n"]) == list(range(45))
        assert {rows for rows, _ in files_of(tmp_path / "all").values()} <= {1, 2, 3, 4}


def test_ids_and_cursors():
    for log in (pqlog.open(":memory:"), sparse_log()):
        first = log.put_many([{"id": 1}, {"id": 2}], ids="id")
        again = log.put_many([{"id": 2}, {"id": 3}], ids="id")
        assert (first.messages, again.messages, len(log)) == (2, 1, 3)
        assert log.put({"id": 4}, id="x") == log.put({"id": 5}, id="x")
        whole = log.put_many([1, 2], id="call")
        assert log.put_many([3], id="call") == whole
        log.put_many([], cursor=("source", {"page": 1}, None))
        assert log.cursor("source") == {"page": 1}
        with pytest.raises(pqlog.CursorError):
            log.put_many([1], cursor=("source", 2, None))
        nothing = log.put_many([])
        assert (nothing.messages, nothing.first) == (0, nothing.last + 1)


def test_what_only_a_file_can_is_refused_elsewhere(tmp_path):
    log = sparse_log()
    calls = (log.size_bytes, log.verify, log.compact, lambda: log.backup(tmp_path / "copy.db"))
    for call in calls:
        with pytest.raises(pqlog.UnsupportedError, match="needs a log in a file, which :sparse: is not"):
            call()
    with pytest.raises(pqlog.ArgumentError, match="workers=1, or use a file"):
        log.client("c").pipe(print, workers=2)


# An exception in a generator that is being garbage-collected is only printed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("make", [lambda: pqlog.open(":memory:"), sparse_log], ids=["dense", "sparse"])
def test_ctrl_c_anywhere_in_a_stage_leaves_no_half_of_it(make):
    log = make()
    client = log.client("stage")

    def stage():
        batch = client.next_batch(size=2)
        batch.put_many(list(batch), topic="out")
        batch.ack()

    list(log.get("stage"))  # it is known, and so is the topic that it puts into
    log.topic("out")
    log.put_many([0, 1])
    count = moments(stage)
    for at in range(1, count, count // 60):
        log.put_many([2 * at, 2 * at + 1])
        struck(stage, at, KeyboardInterrupt())
        last.clear()
        done = [message.value for message in log.topic("out")]
        assert len(done) == len(set(done)), f"moment {at} of {count}: a stage's output came twice"
        assert set(done) == {value ^ 1 for value in done}, f"moment {at} of {count}: half of a stage's output came"
    gc.collect()  # the interrupted calls' batches are garbage
    while client.lag:
        stage()
    assert {message.value for message in log.topic("out")} == {message.value for message in log}
