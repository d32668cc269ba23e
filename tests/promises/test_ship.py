"""Ship and mirror: every message once, as it was, however often a copy is stopped, killed, or run twice at once."""

import contextlib
import datetime
import itertools
import shutil
import threading
import warnings

import apsw
import msgspec
import numpy as np
import pandas as pd
import pytest

import pqlog
from pqlog import copier, copies, copying, files
from pqlog.errors import TooLargeError
from pqlog.log import Log
from pqlog.message import from_micros
from pqlog.store.memory.store import MemoryStore
from pqlog.store.values import Segment
from pqlog.stream import TopicStream
from pqlog.testing import sparse_log
from tests.interrupts import everywhere
from tests.messages import is_same
from tests.processes import start, wait_until
from tests.promises.killed_copies import prove
from tests.rings import by_ring

ORIGIN = {"pqlog-time", "pqlog-offset", "pqlog-partition"}


def fill(log):
    """Everything that a topic can hold."""
    log.put({"city": "Brno", "amount": 12.5}, key="cz", headers={"source": "till-3"})
    log.put_many([1, "", None, 2**70, {'ž\n"': [True, {}]}, -0.0, "\0", "a" * 10_000])
    log.put_many([{"k": f"{n}"} for n in range(400)], key="k", headers={"ř": 'a "quoted"\n\\ text', "": ""})
    log.put_many([{"n": n} for n in range(300)], headers={"part": "2"})
    frame = pd.DataFrame({"n": np.arange(500, dtype="int16"), "t": pd.Timestamp("2026-01-01", tz="Europe/Prague")})
    log.put_many(frame.set_index(np.arange(500) * 3), key="n", headers={"frame": "1"})
    log.put_many(frame)
    log.put("last")
    raw = log.topic("raw", codec="bytes")
    raw.put_many([b"", b"\xff\0\n", bytes(range(256))])
    log.topic("objects", codec="pickle").put_many([{1, 2}, (1, "a"), datetime.date(2026, 1, 1)])
    orders = log.topic("orders", partitions=3)
    orders.put_many([{"k": f"{n % 7}", "n": n} for n in range(200)], key="k")
    orders.put_many(pd.DataFrame({"k": [f"{n % 7}" for n in range(100)]}), key="k")
    log.topic("empty", codec="msgpack", partitions=2)


def in_a_file(folder, name="other.db"):
    return pqlog.open(folder / name)


def sparse(folder, name=""):
    return sparse_log(seed=3)


def rows_of(log, name):
    """The rows of each partition, without where they are."""
    found = []
    for partition in log.stream.log.find_topic(name):
        stream = TopicStream.of([partition], None)
        for row in stream.rows(partition.span()):
            headers = msgspec.json.decode(row.headers or "{}")
            own = {key: text for key, text in headers.items() if key not in ORIGIN}
            found.append((partition.info.partition, row.value, row.key, own, row.rows))
    return found


def compare(source, target):
    assert sorted(target.topics()) == sorted({*source.topics(), "main"})
    for name in source.topics():
        assert rows_of(target, name) == rows_of(source, name)
    for partition in (*source.stream.log.find_topic("main"), *source.stream.log.find_topic("orders")):
        stream = TopicStream.of([partition], None)
        into = TopicStream.of([target.stream.log.find_topic(partition.info.name)[partition.info.partition]], None)
        for was, now in zip(stream.rows(partition.span()), into.rows(into.store.span()), strict=True):
            headers = msgspec.json.decode(now.headers)
            assert headers["pqlog-offset"] == str(was.offset)
            time = datetime.datetime.fromisoformat(headers["pqlog-time"])
            assert time == from_micros(was.time)
            number = partition.info.number
            assert headers.get("pqlog-partition") == (None if number is None else str(number))


@pytest.mark.parametrize(
    ("source", "target"), list(itertools.product([in_a_file, sparse], repeat=2)), ids=lambda make: make.__name__
)
def test_all_is_copied_as_it_was(source, target, tmp_path):
    with source(tmp_path, "events.db") as log, target(tmp_path) as other:
        fill(log)
        copied = log.ship(other)
        compare(log, other)
        assert copied.messages == sum(len(log.topic(name, codec=None)) for name in log.topics())
        assert copied.topics["orders"] == 300
        assert log.ship(other) == pqlog.Copied()
        log.put("more")
        assert log.ship(other).topics == {"main": 1}
        compare(log, other)
        for was, now in zip(log, other, strict=True):
            assert is_same(was.value, now.value)
            assert was.key == now.key
        frame = log.history(-1300, -1).to_pandas(metadata=False)
        pd.testing.assert_frame_equal(frame, other.history(-1300, -1).to_pandas(metadata=False))


def test_progress_is_a_bar_or_what_a_function_is_told(tmp_path, log, capsys, monkeypatch):
    monkeypatch.setattr(copier, "ROWS", 2)
    log.put_many([1, 2, 3, 4])
    with in_a_file(tmp_path, "a.db") as other:
        log.ship(other, progress=True)
        assert "ship: 100%" in capsys.readouterr().err
    told = []
    with in_a_file(tmp_path, "b.db") as other:
        log.ship(other, progress=told.append)
    assert [(one.messages, one.lag) for one in told] == [(0, 4), (2, 2), (4, 0)]


def test_a_frame_comes_back_as_it_was_put(tmp_path, log):
    frame = pd.DataFrame({"a": pd.Categorical(["x", "y"] * 500)}, index=pd.Index(range(0, 3000, 3), name="id"))
    log.put_many(frame)
    with in_a_file(tmp_path) as other:
        log.ship(other)
        pd.testing.assert_frame_equal(other.to_pandas(metadata=False), log.to_pandas(metadata=False))


def test_a_copy_of_a_copy_says_where_a_message_was_first(tmp_path, log):
    log.put_many(["dropped", "a", "b"])
    log.trim(before=2)
    log.put_many(pd.DataFrame({"n": [1, 2]}), headers={"a": "b"})
    with in_a_file(tmp_path, "hub.db") as hub, in_a_file(tmp_path, "local.db") as local:
        log.ship(hub)
        pqlog.mirror(hub, local)
        assert [message.headers["pqlog-offset"] for message in local] == ["2", "3", "4", "4"]
        assert [message.headers for message in local] == [message.headers for message in hub]
        assert [message.headers["pqlog-time"] for message in local] == [message.time.isoformat() for message in log]


def test_dead_letters_say_where_the_message_was_that_failed(tmp_path, log):
    log.put_many(["a", "b"])
    for batch in log.batches("etl", messages=True):
        for message in batch:
            batch.reject(message, "too short")
    with in_a_file(tmp_path) as other:
        log.ship(other, ["main.dead"] if "main.dead" in log.topics() else log.topics()[1:])
        name = next(name for name in other.topics() if name != "main")
        letters = [message.headers for message in other.topic(name)]
        assert letters == [message.headers for message in log.topic(name)]
        assert [headers["pqlog-offset"] for headers in letters] == ["1", "2"]


# stopped, killed, run twice


# An exception in a generator that is being garbage-collected is only printed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("target", [in_a_file, sparse], ids=lambda make: make.__name__)
def test_an_exception_anywhere_loses_nothing_and_copies_nothing_twice(target, tmp_path, monkeypatch, log):
    monkeypatch.setattr(copier, "ROWS", 4)
    log.put_many(range(9))
    log.put_many(pd.DataFrame({"n": range(4)}), headers={"a": "b"})
    log.topic("orders", partitions=2).put_many([{"k": str(n)} for n in range(9)], key="k")
    with target(tmp_path) as other:
        places = 0
        for places, _ in enumerate(everywhere(lambda: log.ship(other), KeyboardInterrupt, by_ring(29, 3)), 1):
            log.put(places)
            log.topic("orders").put({"k": str(places)}, key=str(places))
        assert places > 50
        compare(log, other)


def test_two_at_once_copy_each_message_once(tmp_path, monkeypatch, log):
    monkeypatch.setattr(copier, "ROWS", 10)
    log.put_many(range(3_000))
    log.topic("orders", partitions=3).put_many([{"k": str(n)} for n in range(3_000)], key="k")
    counts = []
    with in_a_file(tmp_path) as other:
        threads = [threading.Thread(target=lambda: counts.append(log.ship(other).messages)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        compare(log, other)
        assert sum(counts) == 6_000
        assert len(counts) == 4


@pytest.mark.slow
def test_copies_that_are_killed_again_and_again_are_exact(tmp_path):
    outcome = prove(tmp_path, messages=60_000, kills=25, rows=100)
    assert outcome.is_exact, outcome
    assert outcome.kills >= 5  # how many it takes to come to the end depends on the machine


def test_copies_that_are_killed_are_exact(tmp_path):
    outcome = prove(tmp_path, messages=15_000, kills=3, rows=100)
    assert outcome.is_exact, outcome


class Uncertain(MemoryStore):
    """Says now and then that it does not know whether a put took effect, and it may have."""

    turn = 0

    def append(self, outputs, id=None, cursor=None):
        self.turn += 1
        if self.turn % 3 == 0:
            raise pqlog.UncertainError("the answer was lost")
        went = super().append(outputs, id, cursor)
        if self.turn % 3 == 1:
            raise pqlog.UncertainError("the answer was lost")
        return went


def opened(store):
    return Log(store.name, TopicStream.open(store, "main"))


def test_an_answer_that_is_lost_is_settled_by_the_position(log, monkeypatch):
    monkeypatch.setattr(copier, "ROWS", 10)
    log.put_many(range(200))
    with opened(Uncertain()) as other:
        copied = 0
        for _ in range(20):
            with contextlib.suppress(pqlog.UncertainError):
                log.ship(other, progress=lambda progress: None)
        assert [message.value for message in other] == list(range(200))
        assert copied == 0


# what cannot be copied


def test_a_topic_of_another_codec_is_refused(tmp_path, log):
    log.topic("raw", codec="bytes").put(b"1")
    with in_a_file(tmp_path) as other:
        other.topic("raw", codec="json").put(1)
        with pytest.raises(pqlog.CodecMismatchError, match=r"has the codec 'json', and what .*'bytes'"):
            log.ship(other)
        assert len(other.topic("raw")) == 1


def test_a_topic_that_is_refused_does_not_hold_up_the_others(tmp_path, log):
    log.topic("raw", codec="bytes").put(b"1")
    log.topic("till", partitions=1).put(2)
    with in_a_file(tmp_path) as other:
        other.topic("raw", codec="json")
        with pytest.raises(pqlog.CodecMismatchError):
            log.ship(other)
        assert [message.value for message in other.topic("till")] == [2]

        def follow():
            following = Following(lambda report: log.ship(other, follow=True, progress=report))
            log.topic("till").put(3)
            wait_until(lambda: following.has(1))
            following.stop()

        with pytest.warns(UserWarning, match="has the codec 'json', and what is to be copied"):
            follow()
        assert [message.value for message in other.topic("till")] == [2, 3]


class Picky(MemoryStore):
    """Takes no message with a header of this name, and none of more than 100 bytes."""

    def append(self, outputs, id=None, cursor=None):
        for output in outputs:
            for chunk in output.chunks:
                if any("odd" in (text or "") for text in chunk.each_headers()):
                    raise pqlog.ArgumentError("the header 'odd' is not allowed here")
                if max(map(len, chunk.values)) > 100:
                    raise TooLargeError("at most 100 bytes")
        return super().append(outputs, id, cursor)


@pytest.mark.parametrize(("value", "header", "error"), [(1, "odd", "'odd'"), ("x" * 200, "even", "200|202")])
def test_a_message_that_the_target_does_not_take_is_named_and_holds_up_only_its_topic(log, value, header, error):
    log.put_many(range(100))
    log.put(value, headers={header: "1"})
    log.put(102)
    for name in ("aaa", "zzz"):
        log.topic(name).put_many(range(copier.ROWS + 10))
    target = Log("picky", TopicStream.open(Picky(), "main"))
    for _ in range(2):
        with pytest.raises((pqlog.ArgumentError, TooLargeError), match=rf"message 101 of topic 'main'.*({error})"):
            log.ship(target)
        assert list(target.history().values()) == list(range(100))
        assert [len(target.topic(name)) for name in ("aaa", "zzz")] == [copier.ROWS + 10] * 2

    def follow():
        following = Following(lambda report: log.ship(target, follow=True, progress=report))
        log.topic("zzz").put(3)
        wait_until(lambda: following.has(1))
        wait_until(lambda: following.reports[-1].lag == 2)
        following.stop()

    with pytest.warns(UserWarning, match="message 101 of topic 'main'"):
        follow()


def test_headers_that_a_cluster_cannot_have_are_refused_where_they_are_put(log):
    for put in (log.put, lambda value, headers: log.put_many([value], headers=headers)):
        with pytest.raises(pqlog.ArgumentError, match="cannot have a NUL"):
            put(1, headers={"a\0b": "x"})
    assert len(log) == 0


def test_a_topic_with_fewer_partitions_is_refused_and_one_with_more_is_not(tmp_path, log):
    log.topic("orders", partitions=3).put_many([{"k": str(n)} for n in range(30)], key="k")
    with in_a_file(tmp_path) as fewer, in_a_file(tmp_path, "more.db") as more:
        fewer.topic("orders", partitions=2)
        with pytest.raises(pqlog.PartitionsError, match="has 2 partitions, and what is to be copied into it has 3"):
            log.ship(fewer, "orders")
        more.topic("orders", partitions=5)
        assert log.ship(more).messages == 30
        for number in range(3):
            keys = [[m.key for m in one.topic("orders").partition(number)] for one in (log, more)]
            assert keys[0] == keys[1]


def test_a_log_is_not_copied_into_itself(path, log, tmp_path):
    log.put(1)
    for same in (path, log):
        with pytest.raises(pqlog.ArgumentError, match="cannot be copied into itself"):
            log.ship(same)
    log.close()
    shutil.copy(path, tmp_path / "copy.db")
    with pytest.raises(pqlog.ArgumentError, match="a copy of its file"):
        pqlog.mirror(path, tmp_path / "copy.db")


def test_topics_are_chosen_by_names_and_patterns(tmp_path, log):
    for name in ("web.a", "web.b", "till", "a[b]"):
        log.topic(name, partitions=1).put(name)
    with in_a_file(tmp_path) as other:
        assert log.ship(other, "web.*").topics == {"web.a": 1, "web.b": 1}
        assert log.ship(other, ["till", "a[b]"]).topics == {"a[b]": 1, "till": 1}
        with pytest.raises(pqlog.UnknownTopicError, match="did you mean 'till'"):
            log.ship(other, ["til"])


def damage(path, offset):
    with contextlib.closing(apsw.Connection(str(path))) as db:
        db.execute("UPDATE messages_1 SET value = 'damaged' WHERE offset = ?", (offset,))


def test_what_is_damaged_stops_a_copy_and_nothing_is_left_out(path, tmp_path):
    with pqlog.open(path) as log:
        for n in range(1, 11):
            log.put(n)
    damage(path, 5)
    with pqlog.open(path, readonly=True) as log, in_a_file(tmp_path) as other:
        for _ in range(3):
            with pytest.raises(pqlog.DamagedError) as caught:
                log.ship(other)
            assert caught.value.offset == 5
            assert [message.value for message in other] == [1, 2, 3, 4]


class Limited(MemoryStore):
    """Takes no row larger than this, and not more than this at once."""

    def append(self, outputs, id=None, cursor=None):
        for output in outputs:
            sizes = [
                len(value)
                for chunk in output.chunks
                for value in ([chunk.value] if isinstance(chunk, Segment) else chunk.values)
            ]
            if max(sizes, default=0) > 4_000:
                raise TooLargeError("at most 4,000 bytes")
        return super().append(outputs, id, cursor)


def test_a_segment_that_is_too_large_is_cut_and_a_message_that_is_too_large_named(log):
    frame = pd.DataFrame({"text": [f"{n}" * 40 for n in range(2_000)]}, index=pd.RangeIndex(5, 4005, 2))
    frame["noise"] = np.random.default_rng(1).random(2_000)
    log.put_many(frame)
    log.put_many(["a", "b", "c" * 5_000, "d"])
    with opened(Limited()) as other:
        for _ in range(2):
            with pytest.raises(pqlog.TooLargeError, match="message 2003 of topic 'main' has 5,002 bytes"):
                log.ship(other)
            assert len(other) == 2_002
        back = other.history(0, -2).to_pandas(metadata=False)
        pd.testing.assert_frame_equal(back, log.history(0, -4).to_pandas(metadata=False))
        at = [int(message.headers["pqlog-offset"]) for message in other]
        assert at == sorted(at)
        assert len(set(at)) > 5
        log.trim(before=2004, force=True)
        with pytest.warns(UserWarning, match="1 message of topic 'main' was trimmed before it could be copied"):
            assert log.ship(other) == pqlog.Copied(1, {"main": 1}, 1)


def test_a_file_that_was_put_back_to_an_older_state_is_refused(path, tmp_path):
    with pqlog.open(path) as log:
        log.put_many(range(5))
    shutil.copy(path, tmp_path / "old.db")
    with pqlog.open(path) as log, in_a_file(tmp_path) as other:
        log.put("lost")
        log.ship(other)
    for more in (0, 1, 7):
        shutil.copy(tmp_path / "old.db", path)
        with pqlog.open(path) as log, in_a_file(tmp_path) as other:
            for n in range(more):
                log.put(n)
            with pytest.raises(pqlog.StoreError, match="is it an older state"):
                log.ship(other)
            assert len(other) == 6
            log.backup(tmp_path / f"new-{more}.db")
        with pqlog.open(tmp_path / f"new-{more}.db") as log, in_a_file(tmp_path, f"hub-{more}.db") as other:
            assert log.ship(other).messages == 5 + more


# trims, names


@pytest.mark.parametrize("make", [in_a_file, sparse], ids=lambda make: make.__name__)
def test_what_is_trimmed_before_it_was_copied_is_told(make, tmp_path):
    with make(tmp_path, "events.db") as log, in_a_file(tmp_path) as other:
        log.put_many(range(10))
        log.ship(other)
        offsets = [message.offset for message in log]
        log.trim(before=offsets[8])
        assert log.ship(other).messages == 0  # all that was trimmed had been copied
        log.put_many(range(10, 20))
        log.trim(before=[message.offset for message in log][-4])
        with pytest.warns(UserWarning, match="trimmed before they could be copied to"):
            copied = log.ship(other)
        assert copied.messages == 4
        assert copied.trimmed == (6 if make is in_a_file else 0)
        assert [message.value for message in other] == [*range(10), *range(16, 20)]
        assert log.ship(other) == pqlog.Copied()
        log.put_many(["a", "b"])
        log.trim(before=log.stream.store.span().stop)
        with pytest.warns(UserWarning, match="trimmed before"):
            log.ship(other)
        assert log.ship(other) == pqlog.Copied()


def test_a_segment_of_which_a_part_was_trimmed_is_copied_as_that_part(tmp_path, log):
    log.put_many(pd.DataFrame({"n": range(100)}, index=pd.RangeIndex(0, 200, 2)))
    log.trim(before=41)
    with in_a_file(tmp_path) as other:
        assert log.ship(other).messages == 60
        assert other[1].headers["pqlog-offset"] == "41"
        pd.testing.assert_frame_equal(other.to_pandas(metadata=False), log.to_pandas(metadata=False))


def test_a_topic_that_is_renamed_stays_one_topic(tmp_path, log):
    log.topic("raw").put(1)
    with in_a_file(tmp_path) as other:
        log.ship(other)
        log.rename_topic("raw", "original")
        log.topic("original").put(2)
        log.ship(other)
        assert other.topics() == ["main", "raw"]
        other.rename_topic("raw", "kept")
        log.topic("original").put(3)
        log.ship(other)
        assert [message.value for message in other.topic("kept")] == [1, 2, 3]


def test_a_topic_that_was_deleted_in_the_target_is_copied_again(tmp_path, log):
    log.topic("raw").put_many([1, 2])
    with in_a_file(tmp_path) as other:
        log.ship(other)
        other.delete_topic("raw")
        assert log.ship(other).topics == {"raw": 2}
        assert log.ship(other).messages == 0


def test_a_topic_that_is_made_again_is_another_one(tmp_path, log):
    log.topic("raw").put_many([1, 2])
    with in_a_file(tmp_path) as other:
        log.ship(other)
        log.delete_topic("raw")
        log.topic("raw").put(3)
        assert log.ship(other).topics == {"raw": 1}
        assert [message.value for message in other.topic("raw")] == [1, 2, 3]


# mirror: a part of a log


def test_a_mirror_begins_at_a_time_or_an_offset_and_continues_where_it_was(tmp_path, log):
    log.put_many(range(10))
    middle = log.put(10) and log[-1].time
    log.put_many(range(11, 15))
    hub = tmp_path / "events.db"
    assert pqlog.mirror(hub, tmp_path / "since.db", since=middle).messages == 5
    assert pqlog.mirror(hub, tmp_path / "start.db", start=3).messages == 13
    assert pqlog.mirror(hub, tmp_path / "last.db", start=-2).messages == 2
    log.put(15)
    for name in ("since", "start", "last"):
        assert pqlog.mirror(hub, tmp_path / f"{name}.db", since="0s").messages == 1
    assert pqlog.mirror(hub, tmp_path / "none.db", since="0s").messages == 0
    log.put(16)
    assert pqlog.mirror(hub, tmp_path / "none.db").messages == 1
    with pytest.raises(pqlog.ArgumentError, match="since and start"):
        pqlog.mirror(hub, tmp_path / "new.db", since="1h", start=1)
    log.topic("other")
    with pytest.raises(pqlog.ArgumentError, match="start is an offset of one topic"):
        pqlog.mirror(hub, tmp_path / "new.db", start=1)
    log.topic("orders", partitions=2)
    with pytest.raises(pqlog.PartitionsError, match="start"):
        pqlog.mirror(hub, tmp_path / "new.db", "orders", start=1)


@pytest.mark.parametrize("make", [in_a_file, sparse], ids=lambda make: make.__name__)
def test_a_mirror_of_one_key_has_all_messages_of_it_and_no_others(make, tmp_path, monkeypatch):
    monkeypatch.setattr(copier, "ROWS", 7)
    with make(tmp_path, "events.db") as log, in_a_file(tmp_path) as other:
        log.put_many([{"k": "ab"[n % 2], "n": n} for n in range(100)], key="k")
        log.put_many(pd.DataFrame({"k": list("abb") * 20, "n": range(60)}), key="k")
        log.put_many(pd.DataFrame({"k": ["c"] * 3, "n": range(3)}), key="k")
        log.put_many(pd.DataFrame({"k": ["a"] * 3, "n": range(3)}), key="k")
        log.put_many(pd.DataFrame({"n": range(3)}))
        assert pqlog.mirror(log, other, key="a").messages == 50 + 20 + 3
        was = [(message.value, message.key) for message in log.history(key="a")]
        assert [(message.value, message.key) for message in other] == was
        assert pqlog.mirror(log, other, key="a").messages == 0
        log.put_many(["x"] * 20)
        assert pqlog.mirror(log, other, key="a").messages == 0
        log.put({"k": "a"}, key="a")
        assert pqlog.mirror(log, other, key="a").messages == 1
        for key, what in (("b", "the key 'a'"), (None, "the key 'a'")):
            with pytest.raises(pqlog.StoreError, match=what):
                pqlog.mirror(log, other, key=key)


def test_a_mirror_leaves_its_source_unchanged(path, tmp_path):
    with pqlog.open(path) as log:
        log.put_many(range(10))
    before = path.read_bytes()
    path.chmod(0o444)
    pqlog.mirror(path, tmp_path / "local.db")
    assert path.read_bytes() == before
    with pytest.raises(pqlog.StoreError):
        pqlog.mirror(tmp_path / "missing.db", tmp_path / "local.db")
    assert not (tmp_path / "missing.db").exists()


# following


class Following:
    """A copy that follows in a thread, until `stop`."""

    def __init__(self, copy):
        self.reports, self._ends, self.result = [], False, None
        self._thread = threading.Thread(target=self._run, args=(copy,))
        self._thread.start()

    def _run(self, copy):
        try:
            copy(self._report)
        except Exception as error:
            self.result = error

    def _report(self, progress):
        self.reports.append(progress)
        if self._ends:
            raise InterruptedError

    def stop(self):
        self._ends = True
        self._thread.join(30)
        assert isinstance(self.result, InterruptedError), self.result

    def has(self, messages):
        return any(report.messages == messages for report in self.reports)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(copies, "LOOK_S", 0.05)
    monkeypatch.setattr(copying, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(copying, "LONGEST_WAIT_S", 0.04)


@pytest.mark.usefixtures("impatient")
def test_a_follower_copies_what_comes_also_into_new_topics(path, tmp_path, log):
    log.put(1)
    with in_a_file(tmp_path) as other, pqlog.open(path, readonly=True) as reader:
        following = Following(lambda report: reader.ship(other, follow=True, progress=report))
        wait_until(lambda: following.has(1))
        log.put(2)
        log.topic("new", partitions=2).put_many([{"k": str(n)} for n in range(8)], key="k")
        wait_until(lambda: following.has(10))
        log.delete_topic("new")
        log.put(3)
        wait_until(lambda: following.has(11))
        following.stop()
        assert [message.value for message in other] == [1, 2, 3]
        assert len(other.topic("new")) == 8
        assert following.reports[-1].lag == 0


@pytest.mark.usefixtures("impatient")
def test_a_follower_waits_while_the_target_is_away(tmp_path, log, monkeypatch):
    away, tried, real = threading.Event(), [], files.opened

    def opened(path, **options):
        tried.append(path)
        if away.is_set():
            raise pqlog.StoreError("no broker answers")
        return real(path, **options)

    monkeypatch.setattr(files, "opened", opened)
    away.set()
    log.put_many([1, 2])
    following = Following(lambda report: log.ship(tmp_path / "other.db", follow=True, progress=report))
    wait_until(lambda: len(tried) > 4)
    waits = [report.wait for report in following.reports]
    assert waits[:4] == [0.01, 0.02, 0.04, 0.04]
    assert str(following.reports[0].error) == "no broker answers"
    away.clear()
    wait_until(lambda: following.has(2))
    following.stop()
    with in_a_file(tmp_path) as other:
        assert [message.value for message in other] == [1, 2]


class Failing(MemoryStore):
    """Can be switched off."""

    is_away = False

    def append(self, outputs, id=None, cursor=None):
        if self.is_away:
            raise pqlog.StoreError("gone")
        return super().append(outputs, id, cursor)


@pytest.mark.usefixtures("impatient")
def test_a_follower_says_how_much_waits_while_the_target_is_away(log):
    store = Failing()
    with opened(store) as other:
        log.put_many(range(5))
        following = Following(lambda report: log.ship(other, follow=True, progress=report))
        wait_until(lambda: following.has(5))
        store.is_away = True
        log.put_many(range(5, 12))
        wait_until(lambda: following.reports[-1].error is not None)
        assert following.reports[-1].lag == 7
        store.is_away = False
        wait_until(lambda: following.has(12))
        following.stop()
        assert [message.value for message in other] == list(range(12))


@pytest.mark.usefixtures("impatient")
def test_a_follower_ends_where_waiting_would_not_help(path, tmp_path):
    with pqlog.open(path) as log:
        log.put(1)
        log.put(2)
    damage(path, 2)
    with pqlog.open(path, readonly=True) as log, in_a_file(tmp_path) as other:
        with pytest.raises(pqlog.DamagedError):
            log.ship(other, follow=True)
        with pytest.raises(pqlog.NotALogError):
            log.ship(__file__, follow=True)
        assert [message.value for message in other] == [1]


PUT = """
import sys, pqlog
with pqlog.open(sys.argv[1]) as log:
    for n in range(200):
        log.put(n)
"""


def test_a_follower_does_not_hold_up_those_who_put(path, tmp_path):
    with pqlog.open(path) as log, pqlog.open(path, readonly=True) as reader, in_a_file(tmp_path) as other:
        following = Following(lambda report: reader.ship(other, follow=True, progress=report))
        with start(PUT, path) as process:
            process.finish()
        wait_until(lambda: following.has(200))
        following.stop()
        assert [message.value for message in other] == list(range(200))
        assert len(log) == 200


def test_a_pattern_that_no_topic_fits_is_told(tmp_path, log):
    with pqlog.open(tmp_path / "empty.db") as empty, pqlog.open(tmp_path / "other.db") as other:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert empty.ship(other).messages == 0
            log.put(1)
            assert log.ship(other, "ma*").messages == 1
        with pytest.warns(UserWarning, match=r"no topic of .* fits 'zzz\*'"):
            assert log.ship(other, ["main", "zzz*"]).messages == 0


@pytest.mark.usefixtures("impatient")
def test_a_follower_tells_of_a_name_that_is_not_there_yet(tmp_path, log):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        following = Following(lambda report: log.ship(tmp_path / "other.db", "clean", follow=True, progress=report))
        wait_until(lambda: len(told) == 1)
        log.topic("clean").put(1)
        wait_until(lambda: following.has(1))
        following.stop()
    assert ["has the name 'clean'" in str(one.message) for one in told] == [True]


def test_a_mirror_is_a_file(log):
    with pytest.raises(pqlog.UnsupportedError, match=r"log\.ship\('kafka://host/etl'\)"):
        pqlog.mirror(log, "kafka://host/etl")
