"""One caller's bad input is that caller's error, raised immediately; nobody else notices, and nothing is put."""

import os
import subprocess
import sys
import threading

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import pqlog

LONE = "a\ud800b"


def staged(call):
    def run(log):
        log.topic("source").put(1)
        for batch in log.topic("source").batches("stage"):
            call(batch)

    return run


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda log: log.put(1, key=LONE), "key"),
        (lambda log: log.put(1, id=LONE), "id"),
        (lambda log: log.put(1, headers={LONE: "x"}), "headers"),
        (lambda log: log.put(1, headers={"x": LONE}), "headers"),
        (lambda log: log.put(1, key="k", headers={"č": "x", "y": LONE}), "headers"),
        (lambda log: log.put_many([1], key=LONE), "key"),
        (lambda log: log.put_many([1], id=LONE), "id"),
        (lambda log: log.put_many([1], headers={"x": LONE}), "headers"),
        (lambda log: log.put_many([1], cursor=(LONE, 1, None)), "the name of a cursor"),
        (lambda log: log.cursor(LONE), "the name of a cursor"),
        (lambda log: log.topic(LONE), "the topic's name"),
        (lambda log: log.get(LONE), "the client's name"),
        (lambda log: log.get_one(LONE), "the client's name"),
        (lambda log: log.client(LONE).seek(to=1), "the client's name"),
        (lambda log: log.batches(LONE), "the client's name"),
        (lambda log: log.batches("c", owner=LONE), "owner"),
        (lambda log: log.history(key=LONE), "key"),
        (staged(lambda batch: batch.put(1, topic="main", key=LONE)), "key"),
        (staged(lambda batch: batch.put(1, topic="main", headers={"x": LONE})), "headers"),
        (staged(lambda batch: batch.put_many([1], topic="main", key=LONE)), "key"),
        (staged(lambda batch: batch.put_many([1], topic=LONE)), "the topic's name"),
        (staged(lambda batch: batch.reject(next(batch.messages()), LONE)), "headers"),
    ],
)
def test_text_that_is_no_unicode_is_told_at_the_door(log, call, names):
    with pytest.raises(pqlog.ArgumentError, match=f"^{names} has a character that is not Unicode text"):
        call(log)
    assert len(log) == 0
    assert log.put("good", key="č", id="ž", headers={"ř": "š"}) == 1


@pytest.mark.parametrize("codec", ["json", "msgpack", "pickle"])
def test_a_field_that_is_the_key_must_be_unicode_too(path, codec):
    with pqlog.open(path, codec=codec) as log:
        with pytest.raises(pqlog.EncodeError) as caught:
            log.put_many([{"k": "č"}, {"k": LONE}], key="k")
        assert (caught.value.index, len(log)) == (1, 0)


def test_neighbours_of_bad_input_notice_nothing(log):
    failed, stop = [], threading.Event()

    def put():
        while not stop.is_set():
            try:
                log.put({"good": 1}, key="fine")
            except Exception as error:
                failed.append(error)

    threads = [threading.Thread(target=put) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        for bad in ({"key": LONE}, {"id": LONE}, {"headers": {"x": LONE}}):
            with pytest.raises(pqlog.ArgumentError):
                log.put(1, **bad)
    stop.set()
    for thread in threads:
        thread.join()
    assert failed == []


def test_why_a_batch_was_released_is_kept_whatever_it_says(log):
    log.put(1)
    batches = log.batches("c")
    next(batches).release(ValueError(LONE))
    assert log.client("c").claims()[0].error == "ValueError: a\\ud800b"


@pytest.mark.parametrize("offset", [2**62, 2**63 - 1, 2**63, 2**70, 10**400])
def test_numbers_beyond_64_bits_are_just_beyond_the_end(log, offset):
    log.put_many(list("abc"))
    with pytest.raises(pqlog.OffsetError, match="no message at offset"):
        log[offset]
    with pytest.raises(pqlog.OffsetError):
        log[-offset]
    assert list(log[offset:]) == []
    assert len(log[:offset]) == len(log[-offset:]) == len(log.history(-offset, offset)) == 3
    assert len(list(log[-offset:offset].values())) == 3
    assert len(list(log.history(-offset, offset, key="k"))) == 0
    assert len(log.history(stop=offset).to_pandas()) == 3
    assert log.client("c").seek(to=offset).position == 4
    assert log.client("c").seek(to=-offset).position == 1
    assert len(next(log.batches("d", size=offset, max_bytes=offset))) == 3
    assert len(log.head(offset)) == len(log.tail(offset)) == 3
    assert log.trim(before=-offset) == 0
    assert log.trim(before=offset, force=True) == 3
    assert log.verify() == []


@pytest.mark.parametrize("value", ["one text", b"ab", bytearray(b"ab"), memoryview(b"ab"), {"a": 1}, 3])
def test_one_value_is_not_taken_for_many(log, value):
    with pytest.raises(pqlog.ArgumentError, match=r"is one value: use put\(value\), or put_many\(\[value\]\)"):
        log.put_many(value)
    assert len(log) == 0


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (pd.Series([1, 2], name="n"), r"put_many\(column.to_frame\(\)\) .* put_many\(list\(column\)\)"),
        (pd.Index([1, 2]), r"put_many\(column.to_frame\(\)\) .* put_many\(list\(column\)\)"),
        (pl.Series("n", [1, 2]), r"put_many\(column.to_frame\(\)\) .* put_many\(list\(column\)\)"),
        (pa.array([1, 2]), r"pyarrow.table.* put_many\(column.to_pylist\(\)\)"),
        (pa.chunked_array([[1], [2]]), r"pyarrow.table.* put_many\(column.to_pylist\(\)\)"),
        (pd.DataFrame({"n": pd.arrays.SparseArray([0, 1])}), "sparse columns, which Arrow does not keep: 'n'"),
    ],
)
def test_a_column_is_refused_with_the_two_ways_to_put_it(log, column, says):
    with pytest.raises(pqlog.ArgumentError, match=says):
        log.put_many(column)
    assert len(log) == 0


def test_cells_that_arrow_cannot_take_are_told_with_their_column(log):
    frame = pd.DataFrame({"fine": [1], "bad": pd.Series([LONE], dtype=object)})
    with pytest.raises(pqlog.EncodeError, match=r"column .bad. .*surrogates not allowed"):
        log.put_many(frame)


def test_a_lazy_frame_is_collected(log):
    log.put_many(pl.LazyFrame({"n": [1, 2]}).filter(pl.col("n") > 1))
    assert [message.value for message in log] == [{"n": 2}]


@pytest.mark.skipif(sys.platform != "linux", reason="a small disk in memory is mounted as root on Linux")
def test_a_full_folder_of_temporary_files_is_an_error_of_ours(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    program = f"""
import pqlog
log = pqlog.open({str(tmp_path / "a.db")!r})
try:
    log.put_many("x" * 100_000 for _ in range(1000))
except pqlog.DiskFullError as error:
    print(error)
print(log.put(1), len(log), log.verify())
"""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(small)], check=True)
    try:
        ran = subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "TMPDIR": str(small)}, capture_output=True, text=True
        )
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert ran.stderr == ""
    said, after = ran.stdout.splitlines()
    assert f"the folder for temporary files, {small}, cannot take" in said
    assert "set TMPDIR" in said
    assert after == "1 1 []"
