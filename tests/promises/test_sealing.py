"""Sealed messages are to every reader what they were: exactly, at any offset, after whatever happens meanwhile."""

import contextlib
import functools
import json
import math
import os
import threading
import time

import apsw
import msgspec
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pqlog
from pqlog.errors import DamagedError, Error, ReadOnlyError
from pqlog.frames import pieces as frame_pieces
from pqlog.store import columns, sealed
from pqlog.store.api import HasStatistics
from pqlog.store.columns import Part
from pqlog.store.sqlite import checksums, sealer, sealing
from pqlog.store.values import Span
from tests.interrupts import moments, struck, within
from tests.rings import by_ring


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(sealed, "MAX_ROWS", 300)
    monkeypatch.setattr(sealing, "LEAST", 2)


def seen(log, **part):
    """All that messages are, to the type and the order of their fields."""
    return [(m.offset, m.time, m.key, m.headers, repr(m.value)) for m in log.history(**part)]


def pieces(log):
    partition = log.topic("main").stream.partitions[0]
    assert isinstance(partition, HasStatistics)
    return [found.span for found in partition.statistics(Span(1, 2**60))]


def event(n):
    return {"id": n, "city": ("Brno", "Praha")[n % 2], "amount": n * 0.25, "paid": n % 3 == 0, "at": f"10:{n % 60:02}"}


def fill(log, count=1000):
    """Several pieces, of calls of one message and of many."""
    log.put_many(event(n) for n in range(count))
    for n in range(20):
        log.put({"n": n, "more": [n]}, key=f"k{n % 3}", headers={"x": str(n)})


NUMBERS = (
    st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([1, 1.0, -0.0, 0.0, 2**63, 0.1])
)
SCALARS = NUMBERS | st.none() | st.booleans() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('ab\n"é', max_size=2), inner, max_size=3),
    max_leaves=5,
)
SHAPED = st.builds(
    lambda rows, names: [dict(zip(names, row, strict=False)) for row in rows],
    st.lists(st.lists(SCALARS, min_size=3, max_size=3), min_size=2, max_size=8),
    st.lists(st.sampled_from("abcd"), min_size=2, max_size=3, unique=True),
)
TYPED = st.sampled_from(
    [st.integers(), st.integers(-128, 127), st.floats(allow_nan=False), st.booleans(), st.text("ab\n", max_size=2)]
).flatmap(
    lambda kind: st.lists(
        st.fixed_dictionaries({"a": kind, "b": kind | st.none()}, optional={"c": kind}), min_size=2, max_size=20
    )
)
META = st.tuples(st.none() | st.text("ab\n", max_size=2), st.none() | st.just({"x": "1"}))


@settings(max_examples=by_ring(60, 600))
@given(values=st.lists(JSON, min_size=2, max_size=12) | SHAPED | TYPED, meta=st.lists(META, min_size=1, max_size=4))
def test_what_is_sealed_comes_back_exactly(values, meta):
    values = [value for value in values if not isinstance(value, float) or math.isfinite(value)]
    with pqlog.open(":memory:") as log:
        try:
            log.put_many(values)
        except Error:
            return
        for n, (key, headers) in enumerate(meta):
            log.put(values[n % len(values)] if values else n, key=key, headers=headers)
        before = seen(log)
        log.seal()
        assert seen(log) == before
        assert log.verify() == []
        assert [repr(value) for value in log.get("reader")] == [found[-1] for found in before]


@pytest.mark.parametrize("codec", ["json", "msgpack", "pickle", "bytes"])
def test_messages_of_any_codec_are_sealed(path, codec):
    values = (
        [bytes([n % 7]) * (n % 50) for n in range(500)]
        if codec == "bytes"
        else [{"n": n, 1 if codec == "pickle" else "1": n} for n in range(500)]
    )
    with pqlog.open(path, codec=codec) as log:
        log.put_many(values)
        before = seen(log)
        assert log.seal() == 500
        assert pieces(log)
        assert seen(log) == before
        assert list(log.get("reader")) == values


def test_columns_are_what_the_usual_messages_become(path, monkeypatch):
    monkeypatch.setattr(sealed, "MAX_ROWS", 16_384)
    with pqlog.open(path) as log:
        log.put_many(event(n) for n in range(20_000))
        log.compact()
        before = path.stat().st_size
        log.seal()
        log.compact()
        assert path.stat().st_size < before / 8
        (first, *_) = log.topic("main").stream.partitions[0].statistics(Span(1, 2**60))
        assert first.columns["id"] == (0, first.span.stop - 2, 0, 0)
        assert first.columns["city"][:2] == ("Brno", "Praha")


def test_everything_works_at_any_offset_of_sealed_messages(path, tmp_path):
    with pqlog.open(path) as log:
        log.put_many(event(n) for n in range(700))
        for n in range(200):
            log.put({"n": n}, key=f"k{n % 3}", headers={"x": str(n % 2)})
        log.put_many(pd.DataFrame({"n": range(50)}))
        log.put_many(event(n) for n in range(400))
        log.backup(tmp_path / "as rows.db")
        rows = pqlog.open(tmp_path / "as rows.db", readonly=True)
        assert log.seal() > 1000
        assert len(pieces(log)) > 4
        for offset in (1, 2, 299, 300, 301, 650, 701, 899, 900, 901, 951, 1000, 1350):
            assert seen(log, start=offset) == seen(rows, start=offset)
            assert seen(log, start=offset, stop=offset + 7) == seen(rows, start=offset, stop=offset + 7)
            assert repr(log[offset].value) == repr(rows[offset].value)
            time = rows[offset].time
            assert [m.offset for m in log.history(since=time)] == [m.offset for m in rows.history(since=time)]
            assert [m.offset for m in log.history(until=time)] == [m.offset for m in rows.history(until=time)]
            client = log.client(f"at {offset}")
            client.seek(offset)
            assert next(iter(client.get())) == rows[offset].value
        for key in ("k0", "k2", "none"):
            assert seen(log, key=key) == seen(rows, key=key)
            assert seen(log, key=key, start=705, stop=890) == seen(rows, key=key, start=705, stop=890)
        assert [m.offset for m in reversed(log)] == [m.offset for m in reversed(rows)]
        assert log.to_pandas().equals(rows.to_pandas())
        assert log.to_pandas(["n"], metadata=["headers"]).equals(rows.to_pandas(["n"], metadata=["headers"]))
        in_batches = [value for batch in log.batches("b", size=130) for value in batch]
        assert in_batches == [message.value for message in rows]
        rows.close()


@settings(max_examples=by_ring(60, 600))
@given(
    values=st.lists(JSON, min_size=2, max_size=12) | SHAPED | TYPED, cut=st.tuples(st.integers(0, 8), st.integers(1, 9))
)
def test_tables_of_sealed_messages_are_those_of_the_rows(values, cut):
    """Whatever part of them: types, order of columns, nulls."""
    first, count = cut[0] + 1, cut[1]
    with pqlog.open(":memory:") as log, pqlog.open(":memory:") as rows:
        try:
            log.put_many(values)
        except Error:
            return
        rows.put_many(values)
        log.seal()
        for part in ({}, {"start": first, "stop": first + count}, {"start": first}):
            for options in ({}, {"columns": ["a", "c"]}, {"flatten": True}):
                tables = []
                for one in (log, rows):
                    try:
                        tables.append(one.history(**part).to_arrow(metadata=["offset"], **options))
                    except pqlog.ArgumentError as error:
                        tables.append(str(error))
                assert isinstance(tables[0], str) is isinstance(tables[1], str)
                if not isinstance(tables[0], str):
                    assert tables[0].schema.equals(tables[1].schema, check_metadata=True)
                    assert repr(tables[0].to_pylist()) == repr(tables[1].to_pylist())


@pytest.mark.parametrize("action", ["backup", "salvage", "compact", "ship", "parquet"])
def test_copies_have_all_sealed_messages(path, tmp_path, action):
    with pqlog.open(path) as log:
        fill(log)
        before = seen(log)
        log.seal()
        if action == "compact":
            log.compact()
            assert seen(log) == before
        elif action == "parquet":
            log.to_parquet(tmp_path / "out.parquet")
            assert len(pd.read_parquet(tmp_path / "out.parquet")) == len(before)
        elif action == "ship":
            with pqlog.open(tmp_path / "other.db") as other:
                log.ship(other)
                assert [found[-1] for found in seen(other)] == [found[-1] for found in before]
        elif action == "backup":
            log.backup(tmp_path / "b.db")
    if action == "salvage":
        pqlog.salvage(path, tmp_path / "b.db")
    if action in ("backup", "salvage"):
        with pqlog.open(tmp_path / "b.db") as copy:
            assert seen(copy) == before
            assert copy.verify() == []
    with pqlog.open(path) as log:
        assert log.verify() == []


def test_claims_and_trims_go_through_sealed_messages(path):
    with pqlog.open(path) as log:
        fill(log)
        worker = log.client("worker")
        batches = worker.batches(size=170)
        batch = next(batches)
        log.seal()
        assert [m.offset for m in batch.messages()] == list(range(1, 171))
        assert log.trim(before=250, force=True) == 249
        assert log.first == 250
        assert [m.offset for m in log.history()][:2] == [250, 251]
        rest = [m.offset for batch in batches for m in batch.messages()]
        assert rest == list(range(250, 1021))
        assert log.trim(before=1021) == 771
        assert log.put("next") == 1021
        assert log.verify() == []


def test_a_limit_of_bytes_means_the_same_before_and_after(path):
    with pqlog.open(path) as log:
        log.put_many(event(n) for n in range(600))
        before = [len(batch) for batch in log.batches("rows", size=600, max_bytes=5_000)]
        log.seal()
        after = [len(batch) for batch in log.batches("sealed", size=600, max_bytes=5_000)]
        assert max(after) < 1.3 * max(before)


def test_one_who_remembers_the_end_does_not_put_into_what_another_sealed(path):
    """Two processes: the rows between which one remembers the end are in one row, which begins before it."""
    with pqlog.open(path) as one, pqlog.open(path) as other:
        assert [one.put({"n": n}) for n in range(5)] == [1, 2, 3, 4, 5]
        assert [other.put({"n": n}) for n in range(5, 10)] == [6, 7, 8, 9, 10]
        assert other.seal() == 10
        assert one.put({"n": 10}) == 11
        assert [message.value["n"] for message in one] == list(range(11))
        assert one.verify() == []


def test_two_seal_at_once(path):
    with pqlog.open(path) as log:
        fill(log, 3000)
        before = seen(log)

    def seal(found):
        with pqlog.open(path) as log:
            found.append(log.seal())

    counts = []
    threads = [threading.Thread(target=seal, args=(counts,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with pqlog.open(path) as log:
        assert sum(counts) == 3020
        assert seen(log) == before
        assert log.verify() == []


def test_readers_and_puts_go_on_meanwhile(path):
    with pqlog.open(path) as log, pqlog.open(path) as other:
        fill(log, 3000)
        before = [found[-1] for found in seen(log)]
        thread = threading.Thread(target=other.seal)
        thread.start()
        values = []
        for value in log.get("reader"):
            values.append(repr(value))
            if len(values) % 50 == 0 and len(values) < 3000:
                log.put("more")
        thread.join()
        assert values[: len(before)] == before
        assert values[len(before) :] == ["'more'"] * 59


def test_some_stay_as_they_are_and_are_sealed_later(path):
    with pqlog.open(path) as log:
        fill(log)
        assert 0 < log.seal(before=-500) <= 520
        assert log.seal(before="1d") == 0
        assert log.seal() >= 500
        assert log.seal() == 0
        with pytest.raises(pqlog.ArgumentError):
            log.seal(before="x")
    with pqlog.open(path, readonly=True) as log, pytest.raises(ReadOnlyError):
        log.seal()


def test_partitions_are_sealed_each(path):
    with pqlog.open(path) as log:
        orders = log.topic("orders", partitions=3)
        orders.put_many([{"n": n, "key": f"k{n % 7}"} for n in range(2000)], key="key")
        before = [(m.partition, m.offset, m.time, m.key, m.value) for m in orders]
        assert orders.seal(before="0s") in (0, 2000)
        assert orders.seal() in (0, 2000)
        assert [(m.partition, m.offset, m.time, m.key, m.value) for m in orders] == before
        assert [m.offset for m in orders.history(key="k3")] == [of[1] for of in before if of[3] == "k3"]
        with pytest.raises(pqlog.PartitionsError, match="seal"):
            orders.seal(before=7)
        assert log.verify() == []


def test_ids_are_kept(path):
    with pqlog.open(path) as log:
        log.put_many([{"n": n} for n in range(500)], ids="n")
        log.put_many([{"n": n} for n in range(500, 600)], id="call")
        log.seal()
        assert log.put_many([{"n": n} for n in range(505)], ids="n").messages == 5
        assert log.put_many([{"n": n} for n in range(500, 600)], id="call").first == 501


def test_ctrl_c_in_seal_leaves_each_message_sealed_or_not(tmp_path):
    def filled(name):
        log = pqlog.open(tmp_path / name)
        fill(log, 400)
        return log

    with filled("0.db") as log:
        before = seen(log)
        count = moments(log.seal)
    for at in range(1, count, max(1, count // by_ring(20, 300))):
        with filled(f"{at}.db") as log:
            values = [found[2:] for found in seen(log)]
            _, where = struck(log.seal, at, KeyboardInterrupt())
            assert [found[2:] for found in seen(log)] == values, where
            within(60, log.seal)
            assert [found[2:] for found in seen(log)] == values, where
            assert log.put("next") == len(before) + 1
            assert log.verify() == []


def test_a_full_put_is_sealed_by_itself(path, monkeypatch):
    monkeypatch.setattr(sealer, "DUE", 1000)
    monkeypatch.setattr(sealer, "KEPT", 700)
    monkeypatch.setattr(sealer, "QUIET_S", 0.01)
    with pqlog.open(path) as log, pqlog.open(path, "other", seal=None) as other:
        other.put_many(event(n) for n in range(3000))
        fill(log, 2000)
        while len(pieces(log)) < 3:
            threading.Event().wait(0.01)
        assert not other.topic("other").stream.partitions[0].statistics(Span(1, 2**60))
        assert len(log) == 2020
        assert log.verify() == []
    assert "pqlog-seal" not in [thread.name for thread in threading.enumerate()]


def test_nothing_is_sealed_by_itself_while_others_put_unless_too_much_is_due(path, monkeypatch):
    monkeypatch.setattr(sealer, "DUE", 1000)
    monkeypatch.setattr(sealer, "KEPT", 700)
    monkeypatch.setattr(sealer, "QUIET_S", 1.0)
    with pqlog.open(path) as log:
        log.put_many(event(n) for n in range(2000))
        until = time.monotonic() + 2
        while time.monotonic() < until:
            log.put("more")
        assert not pieces(log)
        monkeypatch.setattr(sealer, "MOST", 1500)
        while not pieces(log):
            log.put("more")
        assert log.verify() == []


def test_a_forked_child_seals_and_puts_beside_its_parent(path, monkeypatch):
    monkeypatch.setattr(sealer, "DUE", 1000)
    monkeypatch.setattr(sealer, "KEPT", 700)
    monkeypatch.setattr(sealer, "QUIET_S", 0.01)
    with pqlog.open(path) as log:
        log.put_many(event(n) for n in range(6000))
        for _ in range(5):
            while not pieces(log):  # its thread is at work
                threading.Event().wait(0.001)
            pid = os.fork()
            if not pid:
                with contextlib.suppress(BaseException):
                    log.put_many(event(n) for n in range(1000))
                    log.seal(before=-1000)
                    log.close()
                    os._exit(0)
                os._exit(1)
            log.put("of the parent")
            assert os.waitpid(pid, 0)[1] == 0
        assert len(log) == 6000 + 5 * 1001
        assert log.verify() == []


def damage(path, change):
    db = apsw.Connection(str(path))
    ((offset, value),) = db.execute(
        "SELECT offset, value FROM messages_1 WHERE last IS NOT NULL ORDER BY offset LIMIT 1 OFFSET 1"
    )
    db.execute("UPDATE messages_1 SET value = ? WHERE offset = ?", (change(bytearray(value)), offset))
    db.close()
    return offset


def flipped(value, at):
    value[at] ^= 4
    return bytes(value)


@pytest.mark.parametrize("at", [0, 5, 60, -1, -40, -300])
def test_damage_is_told_and_the_rest_is_salvaged(path, tmp_path, at):
    with pqlog.open(path) as log:
        fill(log)
        log.seal()
        spans = pieces(log)
    offset = damage(path, lambda value: flipped(value, at))
    span = next(span for span in spans if span.first == offset)
    with pqlog.open(path) as log:
        with pytest.raises(DamagedError) as caught:
            seen(log)
        assert (caught.value.offset, caught.value.last) == (span.first, span.stop - 1)
        with pytest.raises(DamagedError):
            log[offset + 5]
        with pytest.raises(Error):
            log.to_pandas()
        assert next(m.offset for m in log.history(start=span.stop)) == span.stop
        assert len(log.verify()) == 1
    found = pqlog.salvage(path, tmp_path / "new.db")
    assert found.messages == 1020 - (span.stop - span.first)


@pytest.mark.parametrize("column", ["time", "last", "rows", "crc", "key"])
def test_damage_of_a_row_is_told(path, column):
    with pqlog.open(path) as log:
        fill(log)
        log.seal()
    db = apsw.Connection(str(path))
    change = "'x'" if column == "key" else f"{column} + 1"
    db.execute(f"UPDATE messages_1 SET {column} = {change} WHERE offset = 1")
    db.close()
    with pqlog.open(path) as log:
        with pytest.raises(DamagedError):
            seen(log)
        assert log.verify()


@settings(max_examples=by_ring(100, 1500))
@given(data=st.data())
def test_a_forged_piece_raises_only_errors_that_say_so(data):
    """Whoever writes a file on purpose can make all checksums fit."""
    piece = _piece()
    at = data.draw(st.integers(0, len(piece) - 1))
    forged = bytearray(piece)
    forged[at] = data.draw(st.integers(0, 255))
    for read in (
        lambda p: p.values,
        lambda p: p.times,
        lambda p: p.keys,
        lambda p: p.headers,
        lambda p: p.may_have_key()("k1"),
    ):
        with contextlib.suppress(*sealed.DAMAGE):
            read(sealed.Piece(bytes(forged)))


@functools.cache
def _piece():
    texts = [json.dumps(event(n), separators=(",", ":")).encode() for n in range(100)]
    return sealed.seal(sealed.Singles(texts, list(range(100)), [f"k{n}" for n in range(100)], [None] * 100), True)


@pytest.mark.parametrize(
    "part",
    [
        Part("same"),
        Part("choices", number=1 << 40, inner=Part("same", value=1)),
        Part("nulls", number=2, inner=Part("same", value=1)),
        Part("integers", code="x"),
        Part("decimals", number=0, inner=Part("same", value=1)),
        Part("texts"),
    ],
)
def test_a_forged_part_is_refused(part):
    out = columns.Buffers()
    part = msgspec.structs.replace(part, buffer=out.add(bytes([2, 1, 1])))
    for rows in (3, 1 << 40):
        if part.kind != "same" or rows > 3:
            with contextlib.suppress(*sealed.DAMAGE):
                columns.unpack(part, rows, lambda buffer: bytes([2, 1, 1]))
                raise AssertionError("it was taken")
        with contextlib.suppress(*sealed.DAMAGE, pa.ArrowException):
            frame_pieces.array_of(part, rows, lambda buffer: bytes([2, 1, 1]))


def test_a_piece_cannot_fill_the_memory():
    out = columns.Buffers()
    bomb = out.add(bytes(1 << 24))
    with pytest.raises(ValueError, match="damaged"):
        columns.unpacked(bomb.__class__(0, bomb.kept, 100, bomb.crc), out.kept[0])
    with pytest.raises(ValueError, match="damaged"):
        columns.unpacked(bomb.__class__(0, bomb.kept, 1 << 60, bomb.crc), out.kept[0])


def test_the_checksums_of_sealed_messages_are_as_described(path):
    with pqlog.open(path) as log:
        fill(log)
        log.seal()
    db = apsw.Connection(str(path))
    seed = db.execute("SELECT value FROM file WHERE name = 'seed'").get
    rows = db.execute("SELECT time, key, rows, last, crc, value FROM messages_1 WHERE last IS NOT NULL").fetchall()
    assert rows
    for first_time, key, count, last_time, crc, value in rows:
        low, high = checksums.unmask(crc, seed)
        assert high == checksums.of_sealed(sealed.head_crc(value), low, first_time, key, count, last_time)
    db.close()
