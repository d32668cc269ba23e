"""Anybody's topics: whatever others write is read, and nothing is written."""

import datetime
import itertools
import json
import os
import random
import subprocess
import sys
import threading
import time

import msgspec
import pandas as pd
import pytest

import pqlog
from tests.cluster.foreign import Foreign
from tests.cluster.plugin import delete_topics
from tests.docs import pages


@pytest.fixture
def foreign(cluster_url):
    return Foreign(cluster_url)


def json_values(count, start=0):
    return [b'{"n":%d,"city":"Brno"}' % n for n in range(start, start + count)]


def test_a_colleagues_topic_is_a_frame_in_three_lines(foreign):
    foreign.make("orders", 4)
    for number in range(4):
        foreign.put("orders", json_values(50, 50 * number), number, keys=[f"k{n}" for n in range(50)])
    log = pqlog.open(foreign.whole, readonly=True)
    orders = log.topic(foreign.name("orders"))
    frame = orders.history(since="1h").to_pandas(metadata=["partition", "key", "time"])
    assert sorted(frame["n"]) == list(range(200))
    assert frame["_partition"].tolist() == [n // 50 for n in frame["n"]]
    assert frame["_key"].tolist() == [f"k{n % 50}" for n in frame["n"]]
    assert foreign.name("orders") in log.topics()
    assert not [name for name in log.topics() if name.startswith("__")]
    log.close()


def test_reading_writes_nothing(foreign):
    foreign.make("orders", 2)
    foreign.put("orders", json_values(10))
    before = foreign.state()
    with foreign.open("orders") as log:
        assert len(list(log)) == len(log) == len(log.history().to_pandas()) == 10
        assert log.tail(3)["n"].tolist() == [7, 8, 9]
        assert foreign.topics(log) == ["orders"]
        assert len(log.clients()) == 0
        repr(log), log._repr_html_()
        with pytest.raises(pqlog.UnknownTopicError):
            log.topic("nothing")
    assert foreign.state() == before


def test_what_writes_is_refused_and_says_what_to_do(foreign):
    foreign.make("orders")
    foreign.put("orders", json_values(3))
    with foreign.open("orders") as log:
        for put in (log.put, lambda value: log.put_many([value]), lambda _: log.trim(before="1h")):
            with pytest.raises(pqlog.ReadOnlyError, match="opened for reading only"):
                put({"n": 1})
        for use in (lambda: next(log.get("me")), lambda: next(log.batches("me")), lambda: log.client("me").seek("end")):
            with pytest.raises(pqlog.UnsupportedError, match="a client needs a place"):
                use()
        with pytest.raises(pqlog.ReadOnlyError):
            log.rename_topic(log.name, "others")
    with pytest.raises(pqlog.ArgumentError, match="readonly=True"):
        pqlog.open(foreign.whole)


def test_a_cluster_need_not_have_a_main_topic(foreign):
    foreign.make("orders")
    with pqlog.open(foreign.whole, readonly=True) as log:
        assert foreign.topics(log) == ["orders"]
        for put in (log.put, lambda value: log.put_many([value]), lambda value: log.put(value, id="x")):
            with pytest.raises(pqlog.ReadOnlyError, match="/etl'"):
                put(1)
        with pytest.raises(pqlog.UnknownTopicError):
            list(log)
        with pytest.raises(pqlog.UnknownTopicError, match=f"did you mean '{foreign.name('orders')}'"):
            pqlog.open(foreign.whole, foreign.name("order"), readonly=True)
        with pytest.raises(pqlog.UnknownTopicError):
            log.topic("not a name that Kafka allows")


@pytest.mark.parametrize("is_begun", [False, True])
def test_a_name_of_a_log_that_does_not_exist_is_not_taken_for_topics_of_others(foreign, is_begun):
    foreign.make("orders")
    foreign.put("orders", json_values(3))
    if is_begun:  # a process is creating the log, or was killed meanwhile
        foreign.make("__state", 8)
    said = rf"no log {foreign.url}.* at {foreign.whole}, as '{foreign.log}.orders'"
    with pytest.raises(pqlog.StoreError, match=said):
        pqlog.open(foreign.url, readonly=True)
    with pqlog.open(f"{foreign.url}-a", durability="development"):
        try:
            with pytest.raises(pqlog.StoreError, match=f"did you mean '{foreign.log}-a'"):
                pqlog.open(f"{foreign.url}-b", readonly=True)
        finally:
            delete_topics(foreign.bootstrap, f"{foreign.log}-a.")


ODD = [
    (b'{"a":\n 1}', b"key", None),
    (None, b"deleted", None),
    (b'"text"', b"\xff\xfe", [("plain", "text"), ("binary", b"\x00\xff"), ("twice", "1"), ("twice", "2")]),
    (b"[1,2]", None, [("nothing", None), ("", "")]),
    ('"é\U0001f600"'.encode(), "é\x00".encode(), [("é", "ü"), ("pqlog-rows", "many")]),
    (b" 12 ", b"", []),
    (b"12345678901234567890123", b"k", [("pqlog-rows", "999999")]),
]
READ = [
    ({"a": 1}, "key", {}),
    (None, "deleted", {}),
    ("text", "\\xff\\xfe", {"plain": "text", "binary": "\x00\\xff", "twice#1": "1", "twice": "2"}),
    ([1, 2], None, {"nothing": "", "": ""}),
    ("é\U0001f600", "é\x00", {"é": "ü", "pqlog-rows": "many"}),
    (12, "", {}),
    (12345678901234567890123, "k", {"pqlog-rows": "999999"}),
]


def test_odd_records_are_read_exactly(foreign):
    foreign.make("odd")
    for value, key, headers in ODD:
        foreign.put("odd", [value], keys=[key], headers=headers)
    with foreign.open("odd") as log:
        assert [(message.value, message.key, message.headers) for message in log] == READ
        assert list(log.history().values()) == [value for value, _, _ in READ]
        assert [message.value for message in log.history(key="\\xff\\xfe")] == ["text"]  # as it is shown
        assert [message.value for message in log.history(key="é\x00")] == ["é\U0001f600"]
    with foreign.open("odd", codec="bytes") as log:
        assert [message.value for message in log] == [value or b"" for value, _, _ in ODD]


def test_objects_over_several_lines_are_a_frame(foreign):
    foreign.make("pretty")
    foreign.put("pretty", [b'{\n  "n": %d,\r\n  "s": "a\\nb"\n}\n' % n for n in range(3000)], headers=[("h", "1")])
    with foreign.open("pretty") as log:
        for metadata in (True, ["headers"]):
            frame = log.history().to_pandas(metadata=metadata)
            assert frame["n"].tolist() == list(range(3000))
            assert set(frame["s"]) == {"a\nb"}


def test_values_that_are_not_json_say_which_codec(foreign):
    foreign.make("raw")
    foreign.put("raw", [b"\x00\x01binary"])
    with foreign.open("raw") as log:
        for read in (list, lambda log: log.history().to_pandas()):
            with pytest.raises(pqlog.DecodeError, match=r"message 0 .*codec=\"bytes\""):
                read(log)
    with foreign.open("raw", codec="bytes") as log:
        assert [message.value for message in log] == [b"\x00\x01binary"]
        assert [message.value for message in log.topic(foreign.name("raw"))] == [b"\x00\x01binary"]


def test_values_are_decoded_as_the_reader_says(foreign):
    class Doubled:
        name = "doubled"

        def encode(self, value):
            raise NotImplementedError

        def decode(self, data):
            return data * 2

    foreign.make("avro")
    foreign.put("avro", [b"ab", b"cd"])
    foreign.make("packed")
    foreign.put("packed", [msgspec.msgpack.encode({"n": 1}), None])
    with pqlog.open(foreign.whole, readonly=True) as log:
        avro, packed = map(foreign.name, ("avro", "packed"))
        assert [message.value for message in log.topic(avro, codec=Doubled())] == [b"abab", b"cdcd"]
        assert log.topic(avro, codec=Doubled()).history().to_pandas()["value"].tolist() == [b"abab", b"cdcd"]
        assert list(log.topic(packed, codec="msgpack").history().values()) == [{"n": 1}, None]
        typed = log.topic(packed, codec="msgpack", type=dict[str, int] | None)
        assert typed[0].value == {"n": 1}


def test_a_header_whose_name_is_not_text_is_refused_and_nothing_crashes(foreign):
    import ctypes
    import glob

    import confluent_kafka

    folder = os.path.join(os.path.dirname(os.path.dirname(confluent_kafka.__file__)), "confluent_kafka.libs")
    (path,) = glob.glob(os.path.join(folder, "librdkafka-*.so*"))
    library = ctypes.CDLL(path)
    library.rd_kafka_conf_new.restype = library.rd_kafka_new.restype = ctypes.c_void_p
    error, conf = ctypes.create_string_buffer(500), ctypes.c_void_p(library.rd_kafka_conf_new())
    library.rd_kafka_conf_set(conf, b"bootstrap.servers", foreign.bootstrap.encode(), error, 500)
    producer = ctypes.c_void_p(library.rd_kafka_new(0, conf, error, 500))
    foreign.make("hostile")
    foreign.put("hostile", json_values(1), headers=[("h", "1")])
    header = (9, ctypes.c_char_p(b"\xff\xfe"), ctypes.c_char_p(b"x"), ctypes.c_ssize_t(1))
    topic = ctypes.c_char_p(foreign.name("hostile").encode())
    value = (4, ctypes.c_char_p(b'{"n":1}'), ctypes.c_size_t(7))
    assert library.rd_kafka_producev(producer, 1, topic, 3, ctypes.c_int32(0), *value, 7, 2, *header, 0) == 0
    assert library.rd_kafka_flush(producer, 10_000) == 0
    library.rd_kafka_destroy(producer)
    foreign.put("hostile", json_values(1, 2))
    with foreign.open("hostile") as log:
        assert log.history().to_pandas()["n"].tolist() == [0, 1, 2]
        with pytest.raises(pqlog.DecodeError, match="headers are not valid"):
            list(log)
        assert log[200_000].value["n"] == 2


def test_a_compacted_topic_with_gaps_and_tombstones(foreign):
    foreign.make(
        "table",
        cleanup_policy="compact",
        segment_ms="100",
        min_cleanable_dirty_ratio="0.01",
        max_compaction_lag_ms="100",
        delete_retention_ms="100000",
    )
    for turn in range(3):
        foreign.put("table", json_values(50, 50 * turn), keys=[f"k{n}" for n in range(50)])
        time.sleep(0.2)
    foreign.put("table", [None, b'{"n":999}'], keys=["k0", "last"])
    expected = [(offset * 100_000, value) for _, offset, value in foreign.plain("table")]
    with foreign.open("table") as log:
        assert [(message.offset, message.value and message.value["n"]) for message in log] == [
            (offset, None if value is None else msgspec.json.decode(value)["n"]) for offset, value in expected
        ]
        assert len(log) == len(log.history().to_pandas()) == len(expected)
        assert log[-1].value == {"n": 999}


def test_create_times_may_run_backwards(foreign):
    base = 1_700_000_000_000
    foreign.make("late", 2, message_timestamp_type="CreateTime")
    times = [base + 1000, base, base + 2000, base + 500]
    foreign.put("late", json_values(4), 0, times=times)
    foreign.put("late", json_values(4, 10), 1, times=[base + 100 * n for n in range(4)])
    with foreign.open("late") as log:
        first = list(log.partition(0))
        assert [round(message.time.timestamp() * 1000) for message in first] == times
        assert [message.value["n"] for message in first] == [0, 1, 2, 3]
        values = [message.value["n"] for message in log]
        assert [n for n in values if n < 10] == [0, 1, 2, 3]
        assert sorted(values) == [0, 1, 2, 3, 10, 11, 12, 13]
        assert sorted(log.history().to_pandas()["n"]) == sorted(values)
        before = datetime.datetime.fromtimestamp((base + 300) / 1000, datetime.UTC).isoformat()
        early = log.history(where=f"_time < '{before}'")
        assert sorted(message.value["n"] for message in early) == sorted(early.to_pandas()["n"]) == [1, 10, 11, 12]


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("kind", ["plain", "headers", "segments"])
def test_a_range_of_times_is_exact_though_times_run_backwards(foreign, tmp_path, partitions, kind):
    base, chance = 1_700_000_000, random.Random(1)
    foreign.make("late", partitions, message_timestamp_type="CreateTime", retention_ms="-1")
    times = [base + chance.randrange(100) for _ in range(300)]
    stream = segment_of(pd.DataFrame({"n": [-1, -2]}))
    for number in range(partitions):
        own = range(number, 300, partitions)
        keys = ["ab"[n % 2] for n in own]
        values = [json_values(1, n)[0] for n in own]
        headers = None if kind == "plain" else [("h", "1")]
        foreign.put("late", values, number, keys=keys, headers=headers, times=[1000 * times[n] for n in own])
    at = [-1, -2] if kind == "segments" else []
    if kind == "segments":
        headers = [("pqlog-rows", b"2"), ("pqlog-bytes", b"%d" % len(stream))]
        for when in (base + 50, base + 500):
            foreign.put("late", [stream], headers=headers, times=[1000 * when])
    with foreign.open("late") as log:
        for since, until in ((40, 60), (None, 50), (95, None), (None, 0), (200, None), (0, 100)):
            bounds = [None if bound is None else datetime.datetime.fromtimestamp(base + bound, datetime.UTC)
                      for bound in (since, until)]  # fmt: skip
            history = log.history(since=bounds[0], until=bounds[1])
            low, high = since or 0, 1000 if until is None else until
            expected = [n for n, when in enumerate(times) if low <= when - base < high]
            expected += [*(at if low <= 50 < high else []), *(at if low <= 500 < high else [])]
            assert sorted(message.value["n"] for message in history) == sorted(expected)
            assert sorted(value["n"] for value in history.values()) == sorted(expected)
            assert len(history) == len(expected)
            frame = history.to_pandas()
            assert sorted(frame["n"] if len(frame) else []) == sorted(expected)
            assert len(history.tail(7)) == len(list(itertools.islice(reversed(history), 7))) == min(7, len(expected))
            if partitions == 1:  # else the keys are not where Kafka's own producers put them
                some = log.history(since=bounds[0], until=bounds[1], key="a")
                assert sorted(one.value["n"] for one in some) == sorted(n for n in expected if n >= 0 and n % 2 == 0)
    with foreign.open("late") as log:
        log.history(since=bounds[0], until=bounds[1]).to_parquet(tmp_path, rows_per_file=50)
    assert sorted(pd.read_parquet(tmp_path)["n"]) == sorted(expected)


def test_a_topic_whose_brokers_give_the_times_is_not_read_behind_the_range(foreign):
    foreign.make("ordered", message_timestamp_type="LogAppendTime")
    foreign.put("ordered", json_values(10))
    time.sleep(0.05)
    until = datetime.datetime.now(datetime.UTC)
    time.sleep(0.05)
    foreign.put("ordered", json_values(10, 10))
    with foreign.open("ordered") as log:
        history = log.history(until=until)
        assert [value["n"] for value in history.values()] == list(range(10))
        assert history._selection().span.stop <= 1_000_000


def test_a_topic_that_is_deleted_underneath(foreign):
    foreign.make("gone")
    foreign.put("gone", json_values(5000))
    with foreign.open("gone") as log:
        messages = iter(log)
        assert next(messages).value["n"] == 0
        foreign.delete("gone")
        started = time.monotonic()
        with pytest.raises(pqlog.UnknownTopicError):
            while True:
                len(log)
                time.sleep(0.05)
        with pytest.raises(pqlog.UnknownTopicError):
            log.history().to_pandas()
        assert time.monotonic() - started < 10
        assert foreign.topics(log) == []


def test_partitions_that_are_added_meanwhile_are_seen_by_who_asks_again(foreign):
    from confluent_kafka.admin import NewPartitions

    foreign.make("grown", 1)
    foreign.put("grown", json_values(5))
    with foreign.open("grown") as log:
        assert len(log) == 5
        (future,) = foreign.admin.create_partitions([NewPartitions(foreign.name("grown"), 3)]).values()
        future.result()
        time.sleep(0.5)
        foreign.put("grown", json_values(5, 5), 2, producer=foreign.producer())
        assert len(log) == 5
        grown = log.topic(foreign.name("grown"))
        assert (grown.partitions, len(grown), len(grown.history().to_pandas())) == (3, 10, 10)


def test_live_tail_and_waiting(foreign):
    foreign.make("live", 2)
    foreign.put("live", json_values(5))
    with foreign.open("live") as log:
        live = log.live()
        assert len(live.frame) == 5
        foreign.put("live", json_values(5, 5), 1)
        assert live.refresh()["n"].tolist() == list(range(10))
        assert live.refresh()["n"].tolist() == list(range(10))
        seen = threading.Event()
        waiting = threading.Thread(target=lambda: log.store.log.wait(lambda: len(log) > 10, 20, 0.005) and seen.set())
        waiting.start()
        foreign.put("live", json_values(1, 10))
        waiting.join()
        assert seen.is_set()


def test_read_log_and_explore(foreign):
    pytest.importorskip("ipywidgets")
    foreign.make("orders", 3)
    for number in range(3):
        foreign.put("orders", json_values(40, 40 * number), number)
    frame = pqlog.read_log(foreign.whole, foreign.name("orders"), since="1h")
    assert isinstance(frame, pd.DataFrame)
    assert sorted(frame["n"]) == list(range(120))
    assert sorted(pqlog.read_log(foreign.whole, foreign.name("orders"), ["n"], partition=1)["n"]) == list(range(40, 80))
    explorer = pqlog.explore(foreign.whole, foreign.name("orders"))
    assert sorted(explorer.frame["n"]) == list(range(120))
    explorer.search("n = 7")
    assert explorer.frame["n"].tolist() == [7]


def test_the_command_line(foreign):
    def pqlog_(*arguments):
        command = [sys.executable, "-m", "pqlog", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    foreign.make("orders", 2)
    foreign.put("orders", json_values(5))
    url, orders = foreign.whole, foreign.name("orders")
    assert pqlog_("topics", url, "--json").stdout.count(f'"{orders}"') == 1
    assert pqlog_("tail", url, "-t", orders, "-n", "1").stdout == '{"n":4,"city":"Brno"}\n'
    assert len(pqlog_("get", url, "-t", orders, "--since", "1h").stdout.splitlines()) == 5
    assert "4" in pqlog_("export", url, "-", "--format", "csv", "-t", orders, "--field", "n").stdout
    assert pqlog_("get", url, "-t", orders, "--codec", "bytes", "-n", "1").stdout.startswith('"')
    refused = pqlog_("get", url, "-t", orders, "--client", "me")
    assert (refused.returncode, "Traceback" in refused.stderr) == (1, False)


def test_a_child_after_a_fork_is_refused_and_ends(foreign):
    foreign.make("orders")
    foreign.put("orders", json_values(5))
    with foreign.open("orders") as log:
        assert len(list(log)) == 5
        child = os.fork()
        if not child:
            try:
                list(log)
            except pqlog.ForkError:
                with foreign.open("orders") as again:
                    os._exit(len(list(again)))
            os._exit(99)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 5
        assert len(list(log)) == 5


def test_nobody_there_is_told_within_seconds():
    started = time.monotonic()
    with pytest.raises(pqlog.ClusterError, match=r"127\.0\.0\.1:1"):
        pqlog.open("kafka://127.0.0.1:1", readonly=True)
    assert time.monotonic() - started < 20


def segment_of(frame):
    with pqlog.open(":memory:") as log:
        log.put_many(frame)
        (row,) = log.store.read(log.store.span(), 1, 1 << 30)
        return row.value


ROWS_OF_OTHERS = ["5", "0", "99999", "-1", "abc"]


def test_a_header_of_others_does_not_make_a_segment(foreign, tmp_path):
    foreign.make("odd")
    values = json_values(len(ROWS_OF_OTHERS))
    for value, rows in zip(values, ROWS_OF_OTHERS, strict=True):
        headers = [("pqlog-rows", rows.encode()), ("pqlog-bytes", b"%d" % len(value)), ("pqlog-key", b"n")]
        foreign.put("odd", [value], headers=headers if rows != "5" else headers[::2])
    stream = segment_of(pd.DataFrame({"n": [7, 8]}))
    foreign.put("odd", [b"six"], headers=[("pqlog-rows", b"5"), ("pqlog-bytes", b"6")])
    foreign.put("odd", [stream], keys=["k"], headers=[("pqlog-rows", b"2"), ("pqlog-bytes", b"%d" % len(stream))])
    foreign.put("odd", [None], headers=[("pqlog-rows", b"2"), ("pqlog-bytes", None)])
    with foreign.open("odd", codec="bytes") as log:
        assert [message.value for message in log] == [*values, b"six", stream, b""]
        assert [message.headers["pqlog-rows"] for message in log][:5] == ROWS_OF_OTHERS
        assert len(log) == 8
        assert len(log.to_pandas()) == 8
    foreign.mirror("odd", tmp_path / "local.db", codec="bytes")
    with pqlog.open(tmp_path / "local.db", foreign.name("odd")) as local:
        assert [message.value for message in local][:5] == values
        assert len(local.to_pandas()) == 8
        assert local.verify() == []


def test_a_segment_that_cannot_be_read_is_not_mirrored(foreign, tmp_path):
    foreign.make("odd")
    stream = segment_of(pd.DataFrame({"n": [7, 8]}))
    foreign.put("odd", json_values(2))
    for rows in (b"2", b"3"):
        foreign.put("odd", [stream], headers=[("pqlog-rows", rows), ("pqlog-bytes", b"%d" % len(stream))])
    for _ in range(2):
        with pytest.raises(pqlog.DecodeError, match=r"message 300000 of topic '.*odd' .* segment is damaged"):
            foreign.mirror("odd", tmp_path / "local.db")
    with pqlog.open(tmp_path / "local.db", foreign.name("odd")) as local:
        assert local.to_pandas(metadata=False)["n"].tolist() == [0, 1, 7, 8]


@pytest.mark.parametrize("partitions", [1, 2])
def test_times_that_python_cannot_have_are_read_as_the_first_or_the_last_that_it_can(foreign, tmp_path, partitions):
    foreign.make("late", partitions, message_timestamp_after_max_ms=str(2**63 - 1), retention_ms="-1")
    now = int(time.time() * 1000)
    times = [now, now * 1_000, now * 1_000_000, 2**62, now]
    foreign.put("late", json_values(5), times=times)
    last = datetime.datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=datetime.UTC)
    this = datetime.datetime.fromtimestamp(now // 1000, datetime.UTC).replace(microsecond=now % 1000 * 1000)
    expected = [this, last, last, last, this]
    with foreign.open("late") as log:
        assert [message.time for message in log] == expected
        assert log.to_pandas()["_time"].dt.to_pydatetime().tolist() == expected
        assert log.to_pandas()["n"].tolist() == [value["n"] for value in log.history().values()] == list(range(5))
        assert log.topic(foreign.name("late")).partition(0)[200_000].time == last
        assert len(list(log.history(since="1h"))) == 5
        assert log.tail(1)["n"].tolist() == [4]
        assert log.live().refresh()["n"].tolist() == list(range(5))
        log._repr_html_(), log.explore()
    foreign.mirror("late", tmp_path / "local.db")
    with pqlog.open(tmp_path / "local.db", foreign.name("late")) as local:
        assert [message.headers["pqlog-time"] for message in local] == [time.isoformat() for time in expected]
        assert foreign.mirror("late", tmp_path / "local.db").messages == 0


def check_keys(topic, where):
    """Whatever partitions the messages of a key are in, reading the key finds them."""
    for key, numbers in where.items():
        found = topic.history(key=key)
        assert sorted(message.value["n"] for message in found) == numbers
        assert [message.value["n"] for message in reversed(found)] == [message.value["n"] for message in found][::-1]
        assert sorted(found.to_pandas()["n"]) == numbers
        assert len(found.tail(5)) == len(found.head(5)) == min(5, len(numbers))
        assert [message.value["n"] for message in found.latest()] == [list(found)[-1].value["n"]]


def test_a_key_is_found_whatever_partitioner_put_it(foreign, tmp_path):
    foreign.make("keys", 3)
    where: dict[str, list[int]] = {}
    for turn, partitioner in enumerate(("consistent_random", "murmur2_random", "fnv1a_random")):
        producer = foreign.producer(partitioner=partitioner)
        for n in range(turn * 700, turn * 700 + 700):
            producer.produce(foreign.name("keys"), json.dumps({"n": n}), f"order-{n % 7}")
            where.setdefault(f"order-{n % 7}", []).append(n)
        assert producer.flush(30) == 0
    foreign.put("keys", [b'{"n": 5000}', b'{"n": 5001}'], 2, [b"\xff", b"caf\xc3\xa9"])
    where |= {"\\xff": [5000], "caf\u00e9": [5001]}
    with foreign.open("keys") as topic:
        frame = topic.to_pandas()
        assert frame.groupby("_key")["_partition"].nunique().max() > 1
        check_keys(topic, where)
        assert [one.value["n"] for one in topic.partition(2).history(key="\\xff")] == [5000]
    foreign.mirror("keys", tmp_path / "keys.db")
    with pqlog.open(tmp_path / "keys.db", foreign.name("keys")) as topic:
        check_keys(topic, where)
        script = [
            sys.executable,
            "-m",
            "pqlog",
            "get",
            str(tmp_path / "keys.db"),
            "--topic",
            foreign.name("keys"),
            "--key",
            "order-1",
        ]
        printed = subprocess.run(script, capture_output=True, check=True, text=True).stdout
        assert len(printed.splitlines()) == 300


def test_a_key_is_found_that_others_put_into_a_log_of_pqlog(cluster_url):
    where: dict[str, list[int]] = {}
    with pqlog.open(cluster_url) as log:
        orders = log.topic("orders", partitions=3)
        orders.put_many([{"key": f"k{n % 5}", "n": n} for n in range(100)], key="key")
        orders.put_many(pd.DataFrame({"key": [f"k{n % 5}" for n in range(100, 200)], "n": range(100, 200)}), key="key")
        kafka = orders.stream.partitions[0].kafka_topic
        producer = Foreign(cluster_url).producer()
        for n in range(200, 300):
            producer.produce(kafka, json.dumps({"key": f"k{n % 5}", "n": n}), f"k{n % 5}", n % 3)
        assert producer.flush(30) == 0
        for n in range(300):
            where.setdefault(f"k{n % 5}", []).append(n)
        check_keys(orders, where)
        with pqlog.open(cluster_url, "orders", readonly=True) as seen:
            check_keys(seen, where)


def test_a_whole_cluster_offers_its_topics(foreign):
    foreign.make("orders")
    foreign.put("orders", json_values(5))
    with pqlog.open(foreign.whole, readonly=True) as log:
        with pytest.raises(pqlog.UnknownTopicError, match=r"is a whole cluster.*log\.topic\(") as told:
            list(log)
        assert str(told.value).count("'") < 20
        assert foreign.name("orders") in told.value.near
        with pytest.raises(pqlog.ReadOnlyError, match=f"{foreign.whole}/etl"):
            log.put(1)
    explorer = pqlog.explore(foreign.whole)
    assert "choose one above" in explorer._error.value
    assert foreign.name("orders") in repr(explorer)
    explorer._topics.value = dict(explorer._topics.options)[foreign.name("orders")]
    assert explorer._error.value == ""
    assert len(explorer.frame) == 5
    assert explorer.code == f"frame = log.topic({foreign.name('orders')!r}).history().to_pandas()"


def test_an_empty_value_is_missing_and_what_cannot_be_decoded_says_how_to_go_on(foreign, tmp_path):
    foreign.make("orders", 2)
    foreign.put("orders", [b'{"n": 1}', b"", None, b'{"n": 2}'])
    with foreign.open("orders") as log:
        assert [message.value for message in log] == [{"n": 1}, None, None, {"n": 2}]
        assert [len(log.to_pandas()), len(log.tail(3)), len(log.explore().frame)] == [4, 3, 4]
        assert [message.value for message in log.topic(foreign.name("orders"), codec="bytes")][1:3] == [b"", b""]
        foreign.put("orders", [b"\xff", b'{"n": 3}'])
        with pytest.raises(pqlog.DecodeError, match=r"log\.topic\('.*orders'\)\.partition\(0\)\.history") as told:
            list(log)
        after = log.partition(0).history(start=told.value.offset + 1)
        assert [message.value for message in after] == [{"n": 3}]
    (tmp_path / "lenient.py").write_text(pages.file("beyond-one-machine.md", "lenient.py"))
    script = [sys.executable, tmp_path / "lenient.py", foreign.whole, foreign.name("orders")]
    printed = subprocess.run(script, capture_output=True, check=True, text=True).stdout
    assert len(printed.splitlines()) == 2 + 6
