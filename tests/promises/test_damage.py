"""A message that is not what was put is not handed out: an error says so, and the rest stays readable."""

import contextlib
import itertools
import random
from unittest import mock

import apsw
import pandas as pd
import pytest

import pqlog
from pqlog.frames import schema_cache
from tests import rows, seams
from tests.processes import crashed


def edit(path, statement, *bindings):
    db = apsw.Connection(str(path))
    db.execute(statement, bindings)
    db.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE messages_1 SET value = '{\"n\":7}' WHERE offset = 300",
        "DELETE FROM messages_1 WHERE offset = 300",
        "UPDATE messages_1 SET value = (SELECT value FROM messages_1 WHERE offset = 301) WHERE offset = 300",
    ],
)
def test_an_edited_message_is_found_by_every_way_of_reading(path, statement):
    with pqlog.open(path) as log:
        log.put_many([{"n": n} for n in range(1, 1001)], key="n")
    edit(path, statement)
    with pqlog.open(path) as log:
        for read in (
            lambda: list(log),
            lambda: log[300],
            lambda: list(log.history(key="299")) + list(log.history(key="300")),
            lambda: list(log.get("c")),
            lambda: list(log.history().values()),
            lambda: log.to_pandas(),
            lambda: log[290:310].to_pandas(),
            lambda: [list(batch) for batch in log.batches("b", size=100)],
        ):
            with pytest.raises(pqlog.DamagedError, match="of topic 'main' is damaged") as caught:
                read()
            assert 1 < caught.value.offset <= 300 <= caught.value.last
            assert isinstance(caught.value, pqlog.CorruptLogError)
        assert [message.value["n"] for message in log[:257]] == list(range(1, 257))
        after = caught.value.last + 1
        assert [message.value["n"] for message in log[after:]] == list(range(after, 1001))
        log.client("c").seek(to=after)
        assert len(list(log.get("c"))) == 1001 - after


@pytest.mark.parametrize(
    "change", ["key = 'x'", "time = time - 1", "time = 1 << 62", "headers = '{}'", "crc = crc + 1", "crc = NULL"]
)
def test_what_stands_beside_a_value_is_covered_too(path, change):
    with pqlog.open(path) as log:
        log.put_many([{"n": n} for n in range(1, 1001)], key="n")
    edit(path, f"UPDATE messages_1 SET {change} WHERE offset = 512")
    with pqlog.open(path) as log:
        for read in (lambda: list(log), lambda: list(log.get("c")), lambda: log[500]):
            with pytest.raises(pqlog.DamagedError):
                read()
        assert [value["n"] for value in log.history().values()] == list(range(1, 1001))  # the values are intact


def set_loosely(path, change):
    """Change a row to what SQLite does not let anybody write into its columns, though damage does."""
    schema = "SELECT sql FROM sqlite_schema WHERE name = 'messages_1'"
    with contextlib.closing(apsw.Connection(str(path))) as db:
        strict = db.execute(schema).get
    pragma, set_schema = "PRAGMA writable_schema = 1", "UPDATE sqlite_schema SET sql = ? WHERE name = 'messages_1'"
    edit(path, f"{pragma}; {set_schema}", strict.replace(" STRICT", "").replace(" TEXT", ""))
    edit(path, f"UPDATE messages_1 SET {change}")
    edit(path, f"{pragma}; {set_schema}", strict)


@pytest.mark.parametrize("change", ["key = 7", "key = x'ff'", "key = CAST(x'ff' AS TEXT)", "time = 1.5", "time = 'x'"])
def test_columns_are_not_made_of_values_of_another_type(path, change):
    with pqlog.open(path) as log:
        log.put_many([{"n": n} for n in range(1, 257)], key="n")
        for n in range(257, 301):
            log.put({"n": n}, key=str(n))
    set_loosely(path, f"{change} WHERE offset = 290")
    with pqlog.open(path) as log:
        history = log.history()
        for read in (
            log.to_pandas,
            lambda: log.tail(20),
            history.to_arrow,
            lambda: list(history.latest()),
            lambda: history.latest().to_pandas(),
            lambda: list(log),
        ):
            with pytest.raises(pqlog.DamagedError) as caught:
                read()
            assert caught.value.offset == caught.value.last == 290
        assert len(log[:290].to_pandas()) == 289


@pytest.mark.parametrize("rows", ["1.5", "1e300", "9e999", "1 << 62", "9223372036854775807", "-1", "0", "'x'", "x'ff'"])
def test_a_damaged_number_of_rows_does_not_keep_verify_and_salvage_busy(path, rows):
    with pqlog.open(path) as log:
        log.put_many([{"n": n} for n in range(1, 301)])
    set_loosely(path, f"rows = {rows} WHERE offset = 300")
    with pqlog.open(path, readonly=True) as log:
        assert any("257" in said for said in log.verify())
    found = pqlog.salvage(path, path.parent / "new.db")
    assert found.messages == 256
    assert found.lost or found.problems


def test_an_edited_segment(path):
    frame = pd.DataFrame({"n": range(1000)})
    with pqlog.open(path) as log:
        log.put_many(frame)
        log.put_many(frame)
        log.put("after")
    value = apsw.Connection(str(path)).execute("SELECT value FROM messages_1 WHERE offset = 1001").get
    edit(path, "UPDATE messages_1 SET value = ? WHERE offset = 1001", value[:-9] + b"x" + value[-8:])
    with pqlog.open(path) as log:
        for read in (log.to_pandas, lambda: list(log), lambda: log[1500]):
            with pytest.raises(pqlog.DamagedError) as caught:
                read()
            assert (caught.value.last, caught.value.offset <= 1500) == (2000, True)
        assert len(log[:1001].to_pandas()) == 1000
        assert log[-1].value == "after"


def test_sums_go_on_after_a_trim_in_the_midst_of_a_run(path, log):
    log.put_many(range(1000))
    assert log.trim(before=300) == 299
    log.put(1000)
    assert [message.value for message in log] == list(range(299, 1001))
    assert list(log.get("c")) == list(range(299, 1001))
    assert log.trim(before=10**6) == 702
    assert log.put("next") == 1002
    assert [message.value for message in log] == ["next"]


@pytest.mark.slow
def test_rows_of_very_different_sizes(log):
    values = ["x" * size for size in (1, 3_000_000, 2, 500_000, 600_000, 5)] * 60
    log.put_many(values)
    for value in values[:7]:
        log.put(value)
    assert list(log.get("c")) == values + values[:7]
    assert [len(log[n].value) for n in (2, 100, 361)] == [3_000_000, 500_000, 1]


def test_a_backup_keeps_the_sums(path, log):
    log.put_many(range(1000))
    log.backup(path.parent / "copy.db")
    with pqlog.open(path.parent / "copy.db") as copy:
        copy.put("more")
        assert len(list(copy)) == 1001


@pytest.mark.parametrize("partitions", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_flipped_bit_anywhere_is_an_error_or_changes_nothing(path, partitions):
    """Flip bits of a file that has only messages, clients and what SQLite needs to find them."""
    key = "n" if partitions > 1 else None
    with pqlog.open(path, partitions=partitions) as log:
        log.put_many([{"n": n, "text": "x" * 30} for n in range(300)], key=key)
        log.put_many(pd.DataFrame({"n": range(300, 400)}), key=key)
        for n in range(400, 500):
            log.put({"n": n}, key=key and str(n))
        numbers = [message.value["n"] for message in log]
    whole = path.read_bytes()
    chance = random.Random(3)
    copy = path.parent / "copy.db"
    said = 0
    for _ in range(400):
        data = bytearray(whole)
        at = chance.randrange(len(data))
        data[at] ^= 1 << chance.randrange(8)
        copy.write_bytes(data)
        try:
            with pqlog.open(copy, readonly=True) as log:
                assert [message.value["n"] for message in log] == numbers, at
        except (pqlog.StoreError, pqlog.CodecMismatchError, pqlog.UnknownTopicError, pqlog.DecodeError):
            said += 1
    assert said > 100


def test_messages_of_a_key_are_read_up_to_the_damage(path):
    with pqlog.open(path) as log:
        for n in range(1, 2001):
            log.put({"n": n, "": ""}, key="ten" if n % 10 == 0 else "other")
    whole = path.read_bytes()

    def read():
        """All that is read, and whether it ends with an error."""
        found = []
        with pqlog.open(path) as log:
            try:
                found += (message.value["n"] for message in log.history(key="ten"))
            except pqlog.CorruptLogError:
                return found, True
        return found, False

    edit(path, "UPDATE messages_1 SET value = '{}' WHERE offset = 1500")
    assert read() == (list(range(10, 1500, 10)), True)
    path.write_bytes(whole)
    damage(path, 1500)
    found, has_failed = read()
    assert has_failed
    assert 1300 < found[-1] < 1500
    assert found == list(range(10, found[-1] + 1, 10))


def damage(path, *offsets):
    """Overwrite the pages that hold messages."""
    data, size = bytearray(path.read_bytes()), 4096
    places = [data.index(f'"n":{offset},'.encode()) // size * size for offset in offsets]
    for place in places:
        data[place : place + size] = random.Random(place).randbytes(size)
    path.write_bytes(data)


def test_verify_says_what_is_wrong_and_salvage_copies_the_rest(path):
    with pqlog.open(path) as log:
        log.put_many({"n": n, "text": "x" * 50} for n in range(1, 3001))
        log.put_many(pd.DataFrame({"n": range(3001, 4001)}), key="n", headers={"from": "frame"})
        log.put({"n": 4001}, key="k", id="last")
        log.topic("raw", codec="bytes").put(b"abc")
        for batch in log.batches("etl", size=2500):
            if batch.number == 2:
                break
        log.put_many([], cursor=("api", 7, None))
        before = list(log)
        assert log.verify() == []
    damage(path, 700, 1500)
    with pqlog.open(path, readonly=True) as log:
        problems = log.verify(progress=True)
        assert len(problems) >= 2
        assert any("malformed" in said for said in problems)
        with pytest.raises(pqlog.CorruptLogError, match=r"pqlog\.salvage"):
            list(log)
    found = pqlog.salvage(path, path.parent / "new.db", progress=True)
    lost = {offset for run in found.lost["main"] for offset in run}
    assert {700, 1500} <= lost
    assert len(lost) < 800
    assert found.messages == 4002 - len(lost)
    assert found.problems == []
    with pqlog.open(path.parent / "new.db") as log:
        assert log.verify() == []
        kept = [message for message in before if message.offset not in lost]
        for name in ("value", "time", "key", "headers"):
            assert [getattr(message, name) for message in log] == [getattr(message, name) for message in kept]
        assert next(log.get("etl"))["n"] == 2501
        assert log.cursor("api") == 7
        assert log.put("again", id="last") == log.last
        assert [message.value for message in log.topic("raw")] == [b"abc"]
    with pytest.raises(pqlog.ArgumentError, match="exists"):
        pqlog.salvage(path, path.parent / "new.db")


def test_salvage_of_a_trimmed_log_loses_nothing(path):
    with pqlog.open(path) as log:
        log.put_many(pd.DataFrame({"n": range(1000)}))
        log.put_many({"n": n} for n in range(1000, 2000))
        list(log.get("c"))
        log.trim(before=500)
    found = pqlog.salvage(path, path.parent / "new.db")
    assert (found.messages, found.lost) == (1501, {})
    with pqlog.open(path.parent / "new.db") as log:
        assert log.to_pandas()["n"].tolist() == list(range(499, 2000))
        assert log.client("c").lag == 0


@pytest.mark.parametrize("how", ["zeros", "one bit of its header"])
@pytest.mark.parametrize("others", [[], [1], [2000, 9000]])
def test_salvage_where_the_end_of_a_topic_is_damaged(path, others, how):
    with pqlog.open(path) as log:
        log.put_many({"n": n, "text": "x" * 20} for n in range(1, 10_001))
        log.client("billing").seek(to=5000)
        log.put("last", id="last")
    data, size = bytearray(path.read_bytes()), 4096
    for offset in [*others, 10_000]:
        place = data.index(b'"n":%d,' % offset) // size * size
        if how == "zeros":
            data[place : place + size] = bytes(size)
        else:
            data[place] ^= 16
    path.write_bytes(data)
    found = pqlog.salvage(path, path.parent / "new.db")
    lost = {offset for run in found.lost.get("main", []) for offset in run}
    assert len(lost) < 600 * len(others) + 1
    assert set(others) <= lost
    (problem,) = found.problems
    end = 1 + found.messages + len(lost)
    assert 9500 < end <= 10_000
    assert f"the messages of topic 'main' from offset {end} on are lost, and how many they were is not known" in problem
    with pqlog.open(path.parent / "new.db") as log:
        assert log.verify() == []
        assert [message.value["n"] for message in log] == [n for n in range(1, end) if n not in lost]
        assert next(log.get("billing"))["n"] == 5000
    with pqlog.open(path, readonly=True) as log:
        assert any("malformed" in said for said in log.verify())


def test_salvage_of_a_topic_of_which_nothing_can_be_read(path):
    with pqlog.open(path) as log:
        log.put_many({"n": n, "": ""} for n in range(10))
        log.topic("other").put("intact")
        log.client("billing").seek(to="end")
    damage(path, 0)
    found = pqlog.salvage(path, path.parent / "new.db")
    assert (found.messages, found.lost) == (1, {})
    (problem,) = found.problems
    assert "the messages of topic 'main' from offset 1 on are lost" in problem
    with pqlog.open(path.parent / "new.db") as log:
        assert [message.value for message in log.topic("other")] == ["intact"]
        assert log.client("billing").lag == 0


PUTS = "for n in range(1, 101): log.put({'n': n})"


@pytest.mark.parametrize("where", [10, 40, 20_000])
def test_damage_in_the_write_ahead_log_is_no_end_of_it(path, where):
    """SQLite alone would take it for the end, and overwrite what follows."""
    wal = crashed(path, PUTS)
    data = bytearray(wal.read_bytes())
    data[where] ^= 4
    wal.write_bytes(data)
    before = path.read_bytes(), wal.read_bytes()
    for readonly in (False, True):
        with pytest.raises(pqlog.CorruptLogError, match="-wal is damaged"):
            pqlog.open(path, readonly=readonly)
        assert (path.read_bytes(), wal.read_bytes()) == before
    found = pqlog.salvage(path, path.parent / "new.db")
    with pqlog.open(path.parent / "new.db") as log:
        assert [message.value["n"] for message in log] == list(range(1, found.messages + 1))
    assert (path.read_bytes(), wal.read_bytes()) == before


def test_the_torn_end_of_a_write_ahead_log_is_one(path):
    wal = crashed(path, PUTS)
    data = wal.read_bytes()
    end = len(data.rstrip(b"\0"))
    wal.write_bytes(data[: end - 100] + bytes(len(data) - end + 100))
    with pqlog.open(path) as log:
        assert [message.value["n"] for message in log] == list(range(1, 100))
        assert log.put("next") == 100


def test_a_write_ahead_log_of_another_file(path):
    """Its pages would fit; the checksums of the messages do not."""
    other = path.parent / "other.db"
    crashed(path, PUTS)
    foreign = crashed(other, PUTS.replace("'n': n", "'n': -n"))
    path.with_name(path.name + "-wal").write_bytes(foreign.read_bytes())
    with pytest.raises(pqlog.CorruptLogError), pqlog.open(path) as log:
        list(log)


def test_a_missing_write_ahead_log_leaves_what_is_in_the_file(path):
    """Another program may have run the checkpoint, so it need not be there; the rest is consistent, though older."""
    wal = crashed(path, PUTS + "\nlog.store.log.checkpoint()\nlog.put({'n': 101})")
    wal.unlink()
    with pqlog.open(path) as log:
        assert [message.value["n"] for message in log] == list(range(1, 101))
        assert log.verify() == []


@pytest.mark.parametrize("left", [0, 1, 100, 4096, 5000, 40_000])
def test_a_truncated_file(path, left):
    with pqlog.open(path) as log:
        log.put_many({"n": n} for n in range(3000))
        with_room = path.stat().st_size
    data = path.read_bytes()
    assert len(data) > 60_000, with_room
    path.write_bytes(data[:left])
    if left == 0:  # an empty file is a new log
        with pqlog.open(path) as log:
            assert len(log) == 0
        return
    with pytest.raises(pqlog.StoreError), pqlog.open(path) as log:
        list(log)


SMALL = ("file", "topics", "clients", "claims", "ids", "id_runs", "cursors", "schema_cache")


def with_small_rows(path, partitions=1):
    """A log with rows in all the small tables; and a claim that is open."""
    with pqlog.open(path, partitions=partitions) as log:
        for n in range(300):
            log.put({"n": n}, key=str(n))
        for n in range(300, 320):
            log.put({"n": n}, id=f"order-{n}", key=str(n))
        log.put_many([{"n": 320}], cursor=("api", {"page": 12345}, None))
        for number in range(partitions):
            log.partition(number).trim(before=40, force=True)
        list(log.get("billing"))
        log.client("back").seek(to=200, partition=partitions - 1)
        log.topic("raw", codec="bytes").put(b"abc")
        with mock.patch.object(schema_cache, "MIN_NEW_MESSAGES", 1):
            log.schema
        for client in ("etl", "other"):
            for batch in log.batches(client, size=50):
                if batch.number == 2:
                    break


def state(log):
    clients = [(c.client, c.position, c.lag, c.batches) for c in log.clients()]
    claims = [(k.number, k.first, k.last, k.attempt) for c in log.clients() for k in log.client(c.client).claims()]
    ids = [seams.find_id(log, f"order-{n}") for n in range(300, 320)]
    return len(log), seams.spans(log), clients, claims, log.cursor("api"), ids, log.uuid, log.topics()


def rot(path, table, chance):
    """Flip a bit in the stored rows of a table."""
    data = bytearray(path.read_bytes())
    db = apsw.Connection(str(path))
    statement = "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf' ORDER BY pageno"
    start = (chance.choice([page for (page,) in db.execute(statement, (table,))]) - 1) * 4096
    db.close()
    at = start + chance.randrange(int.from_bytes(data[start + 5 : start + 7], "big"), 4096)
    data[at] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("table", "partitions"),
    [
        *((table, 1) for table in SMALL),
        *(  # what readers infer of merged partitions is not kept in the file
            pytest.param(table, 3, marks=pytest.mark.slow) for table in SMALL if table != "schema_cache"
        ),
    ],
)
def test_rot_in_a_small_table_is_told(path, table, partitions):
    """The damage is reported when the rows are used, or at least by verify: the state never changes silently."""
    with_small_rows(path, partitions)
    with pqlog.open(path, readonly=True) as log:
        right = state(log)
        assert log.verify() == []
    whole, chance = path.read_bytes(), random.Random(SMALL.index(table))
    told = 0
    for _ in range(40):
        path.write_bytes(whole)
        rot(path, table, chance)
        try:
            with pqlog.open(path, readonly=True) as log:
                found = log.verify()
                assert found or state(log) == right
                told += bool(found)
                state(log)
        except pqlog.CorruptLogError as error:
            assert str(path) in str(error) or table in str(error)
            told += 1
    assert told > 20


@pytest.mark.parametrize(
    ("change", "use", "row"),
    [
        ("file SET value = 7 WHERE name = 'epoch'", None, "'epoch' of the table file"),
        ("file SET value = 7 WHERE name = 'seed'", None, "'seed' of the table file"),
        ("topics SET first = 3 WHERE id = 1", None, "'1' of the table topics"),
        ("topics SET name = 'niam' WHERE id = 1", None, "'1' of the table topics"),
        ("topics SET name = 'rwa' WHERE id = 2", lambda log: log.topic("new"), "'2' of the table topics"),
        (
            "clients SET next = 3 WHERE name = 'back'",
            lambda log: list(log.get("back")),
            "'1/back' of the table clients",
        ),
        ("clients SET name = 'bakc' WHERE name = 'back'", lambda log: next(log.get("back")), "'1/bakc'"),
        ("clients SET epoch = 1 WHERE name = 'back'", lambda log: log.client("back").seek(to=50), "'1/back'"),
        ("clients SET next = 300 WHERE name = 'back'", lambda log: log.trim(before=250), "'1/back'"),
        ("claims SET stop = 91 WHERE client = 'etl'", lambda log: next(log.batches("etl")), "'1/etl/2' of the table"),
        (
            "claims SET attempt = 9 WHERE client = 'etl'",
            lambda log: log.client("etl").claims(),
            "'1/etl/2' of the table claims",
        ),
        (
            "id_runs SET first = 9 WHERE number = 1",
            lambda log: log.put(1, id="order-300"),
            "'1/1' of the table id_runs",
        ),
        ("cursors SET value = '[]'", lambda log: log.cursor("api"), "'api' of the table cursors"),
        ("cursors SET value = '[]'", lambda log: log.put_many([1], cursor=("api", 1, 0)), "'api' of the table cursors"),
    ],
)
def test_a_changed_row_is_told_where_it_is_used(path, change, use, row):
    with_small_rows(path)
    edit(path, f"UPDATE {change}")
    if use is not None:
        with pqlog.open(path) as log:
            assert any(row in said for said in log.verify())
    with pytest.raises(pqlog.CorruptLogError, match=row), pqlog.open(path) as log:
        use(log)


def test_verify_says_in_which_partition_a_client_is_wrong(path):
    with pqlog.open(path) as log:
        log.topic("orders", partitions=2).client("c").seek("start")
    db = apsw.Connection(str(path))
    rows.change(db, "clients", "partition = 3", next="7")
    db.close()
    with pqlog.open(path) as log:
        assert log.verify() == [
            "partition 1 of topic 'orders', client 'c': it stands at 7, claims end at 1 of 1",
        ]


def test_salvage_leaves_damaged_rows_out_and_says_which(path):
    with_small_rows(path)
    for change in (
        *("file SET value = 7 WHERE name = 'seed'", "file SET value = 'x' WHERE name = 'uuid'"),
        *("topics SET first = 400 WHERE id = 1", "clients SET next = 3 WHERE name = 'back'"),
        *("id_runs SET first = 9 WHERE number = 1", "cursors SET value = '[]'"),
    ):
        edit(path, f"UPDATE {change}")
    found = pqlog.salvage(path, path.parent / "new.db")
    for row in ("'seed'", "'uuid'", "'1' of the table topics", "'1/back'", "'1/1' of the table id_runs", "'api'"):
        assert any(row in problem for problem in found.problems), row
    with pqlog.open(path.parent / "new.db") as log:
        assert log.verify() == []
        assert [message.value["n"] for message in log][-282:] == list(range(39, 321))
        assert [client.client for client in log.clients()] == ["billing", "etl", "other"]
        assert log.client("billing").lag == 0
        assert log.put({"n": 1}, id="order-301") == log.last - 19
        assert log.cursor("api") is None


def test_a_damaged_number_of_rows_does_not_hide_what_lies_behind(path):
    with pqlog.open(path) as log:
        for n in range(100):
            log.put(n)
    with contextlib.closing(apsw.Connection(str(path))) as db:
        db.execute("UPDATE messages_1 SET rows = 1 << 40 WHERE offset = 50")
    with pqlog.open(path) as log:
        with pytest.raises(pqlog.DamagedError) as caught:
            list(log)
        assert (caught.value.offset, caught.value.last) == (50, 50)
        assert [message.value for message in log[52:]] == list(range(51, 100))
    done = pqlog.salvage(path, path.with_name("saved.db"))
    assert (done.messages, done.lost) == (98, {"main": [range(50, 52)]})  # where the next one begins is not sure


@pytest.mark.parametrize("key", [None, "k"])
def test_backwards_what_is_newer_than_the_damage_comes_first(path, key):
    with pqlog.open(path) as log:
        for n in range(100):
            log.put(n, key="k")
    edit(path, "UPDATE messages_1 SET value = '7' WHERE offset IN (30, 60)")
    with pqlog.open(path) as log:
        got, reading = [], reversed(log.history(key=key))
        with pytest.raises(pqlog.DamagedError) as caught:
            got.extend(message.value for message in reading)
        assert (got, caught.value.offset) == (list(range(99, 59, -1)), 60)


def test_backwards_what_is_newer_than_a_value_that_cannot_be_decoded_comes_first(path):
    with pqlog.open(path) as log:
        log.put_many([1, 2])
        seams.put_encoded(log, b"{")
        log.put_many([4, 5])
        got, reading = [], reversed(log)
        with pytest.raises(pqlog.DecodeError, match=r"offset 3|message 3"):
            got.extend(message.value for message in reading)
        assert got == [5, 4]


@pytest.mark.parametrize(
    ("change", "name"),
    [("name = CAST(x'6fff' AS TEXT)", "o\\xff"), ("name = ''", "topic 2")],
)
def test_a_damaged_name_of_a_topic_costs_no_message(path, change, name):
    with pqlog.open(path) as log:
        log.put_many(range(5))
        log.topic("other").put_many(range(7))
    edit(path, f"UPDATE OR IGNORE topics SET {change} WHERE id = 2")
    done = pqlog.salvage(path, path.with_name("saved.db"))
    assert (done.messages, done.lost) == (12, {})
    assert any("table topics is damaged, so the name and the codec" in problem for problem in done.problems)
    with pqlog.open(path.with_name("saved.db")) as log:
        assert log.topics() == ["main", name]
        assert len(log.topic(name)) == 7


def with_partitions(path):
    """Three partitions with 400 messages, clients that stand somewhere in each, and ids of calls and of messages."""
    with pqlog.open(path, partitions=3) as log:
        for start in (1, 101):  # several rows of each
            log.put_many(({"n": n, "text": "x" * 90} for n in range(start, start + 100)), key="n")
        log.put_many(pd.DataFrame({"n": range(201, 301)}), key="n", id="frame")
        for n in range(301, 321):
            log.put({"n": n, "": ""}, key=str(n))
        log.put_many([{"n": n, "order": f"{n}"} for n in range(321, 341)], key="n", ids="order")
        for n in range(341, 351):
            log.put_many([{"n": 10 * n + digit, "": ""} for digit in range(6)], key="n", id=f"call-{n}")
        log.client("ahead").seek("end")
        log.client("back").seek(30, partition=1)
        for _ in itertools.islice(log.batches("etl", size=30), 3):  # one of each, of which two are acknowledged
            pass
        held = [log.client("held").next_batch(size=5) for _ in range(3)]
        assert {batch.partition for batch in held} == {0, 1, 2}
        assert log.verify() == []
        return list(log)


def test_damage_in_one_partition_is_told_with_its_number(path):
    before = with_partitions(path)
    whole = {n: [m.value for m in before if m.partition == n] for n in range(3)}
    (damaged,) = (message for message in before if message.value["n"] == 305)
    number, offset = damaged.partition, damaged.offset
    edit(path, f"UPDATE messages_{number + 1} SET key = 'x' WHERE offset = {offset}")
    with pqlog.open(path) as log:
        (said,) = log.verify()
        assert f"message {offset} of partition {number} of topic 'main' is damaged" in said
        got = []
        with pytest.raises(pqlog.DamagedError) as caught:
            got.extend(log)
        error = caught.value
        assert (error.partition, error.offset, error.last) == (number, offset, offset)
        assert got == before[: before.index(damaged)]
        got, backwards = [], reversed(log)
        with pytest.raises(pqlog.DamagedError):
            got.extend(backwards)
        assert got == before[: before.index(damaged) : -1]
        for one in range(3):
            if one != number:
                assert list(log.partition(one).history().values()) == whole[one]
        values = []
        with pytest.raises(pqlog.DamagedError) as caught:
            values.extend(log.get("new"))
        assert caught.value.partition == number
        log.client("new").seek(error.last + 1, partition=number)  # as the error says
        values.extend(log.get("new"))
        assert len(values) >= len(before) - 1
        assert {value["n"] for value in values} == {message.value["n"] for message in before} - {305}


def test_a_page_that_cannot_be_read_is_told_with_its_partition(path):
    before = with_partitions(path)
    (damaged,) = (message for message in before if message.value["n"] == 150)
    damage(path, 150)
    with pqlog.open(path, readonly=True) as log:
        said = log.verify()
        assert any(f"partition {damaged.partition} of topic 'main', behind offset" in one for one in said)
        assert not any(f"partition {number} of" in one for one in said for number in {0, 1, 2} - {damaged.partition})


@pytest.mark.parametrize("change", ["clients SET next = 3", "claims SET stop = 9", "topics SET first = 3 WHERE id = 2"])
def test_a_damaged_small_row_is_told_with_its_partition(path, change):
    with_partitions(path)
    edit(path, f"UPDATE {change}")
    with pqlog.open(path, readonly=True) if "topics" not in change else contextlib.nullcontext() as log:
        if log is None:
            with pytest.raises(pqlog.CorruptLogError, match="row '2' of the table topics"):
                pqlog.open(path)
            return
        said = log.verify()
    for number in range(3):
        expected = f"of the table {change.split()[0]}, of partition {number} of topic 'main', is damaged"
        assert any(f"'{number + 1}/" in one and expected in one for one in said)


def test_clients_and_ids_that_stand_wrong_are_told_with_their_partition(path, log):
    with_partitions(path.with_name("parts.db"))
    with pqlog.open(path.with_name("parts.db")) as parts:
        db = seams.connection(parts)
        rows.change(db, "clients", "partition = 2 AND name = 'back'", claimed="9999")
        db.execute("DELETE FROM ids WHERE id = 'call-345'")
        said = parts.verify()
    assert any("partition 1 of topic 'main', client 'back': it stands at 30" in one for one in said)
    assert any("of topic 'main': the id 'call-345' is not found" in one for one in said)


def salvaged(path, before):
    """Salvage; all but what is said to be lost is there, in its partition and order."""
    found = pqlog.salvage(path, path.with_name("saved.db"))
    lost = [m for m in before if any(m.offset in run for run in found.lost.get(f"main, partition {m.partition}", []))]
    assert sum(len(run) for runs in found.lost.values() for run in runs) == len(lost)
    with pqlog.open(path.with_name("saved.db")) as log:
        assert log.verify() == []
        assert log.partitions == 3
        kept = [(m.partition, m.time, m.key, m.value) for m in before if m not in lost]
        assert [(m.partition, m.time, m.key, m.value) for m in log] == kept
        assert found.messages == len(kept)
    return found, lost


def standing(log):
    """What each client reads next in each partition, and what is kept of each put with an id."""
    names = [client.client for client in log.clients()]
    after = {name: log.client(name).position for name in names}
    reads = {
        name: {number: next(log.partition(number)[at:].values(), None) for number, at in positions.items()}
        for name, positions in after.items()
    }
    ids = ["frame", *(f"call-{n}" for n in range(341, 351)), *map(str, range(321, 341))]
    put = {id: seams.find_id(log, id) for id in ids}
    values = {
        (id, number): list(log.partition(number)[went.first : went.last + 1].values())
        for id, where in put.items()
        for number, went in (where or {}).items()
    }
    return reads, values


def test_salvage_keeps_partitions_and_what_stands_in_them(path):
    before = with_partitions(path)
    with pqlog.open(path) as log:
        log.partition(0).trim(before=5, force=True)
        log.partition(2).trim(before=80, force=True)  # within what a call with an id has put
        right, kept = standing(log), list(log)
    assert len(kept) < len(before)
    found, lost = salvaged(path, kept)
    assert (lost, found.problems) == ([], [])
    with pqlog.open(path.with_name("saved.db")) as log:
        assert standing(log) == right
        assert log.client("back").lag == sum(m.partition != 1 or m.offset >= 30 for m in kept)


def test_salvage_says_what_is_lost_of_which_partition(path):
    before = with_partitions(path)
    damaged = [message for message in before if message.value["n"] in (305, 3453)]
    for message in damaged:
        edit(path, f"UPDATE messages_{message.partition + 1} SET value = '1' WHERE offset = {message.offset}")
    found, lost = salvaged(path, before)
    assert found.problems == []
    assert set(map(id, damaged)) <= set(map(id, lost))
    assert {message.value["n"] // 10 for message in lost} == {30, 345}
    with pqlog.open(path.with_name("saved.db")) as log:
        assert seams.find_id(log, "call-345") is None  # some of it is lost, so it can be put again
        assert len(seams.find_id(log, "call-346")) > 1


@pytest.mark.parametrize(
    "change",
    [
        *("name = 'niam'", "name = CAST(x'6fff' AS TEXT)", "codec = 'bytes'", "partition = 77", "created = 7"),
        *("partitions = 1", "partitions = 4", "partitions = 1 << 60", "partition = -1"),
    ],
)
@pytest.mark.parametrize("number", [1, *(pytest.param(number, marks=pytest.mark.slow) for number in (0, 2))])
def test_salvage_where_the_row_of_one_partition_is_damaged(path, change, number):
    before = with_partitions(path)
    with pqlog.open(path) as log:
        log.topic("other", partitions=2).put_many(range(10))
        right = standing(log)
    edit(path, f"UPDATE topics SET {change} WHERE id = {number + 1}")
    with pytest.raises(pqlog.CorruptLogError, match="of the table topics"):
        pqlog.open(path)
    found = pqlog.salvage(path, path.with_name("saved.db"))
    assert (found.messages, found.lost) == (len(before) + 10, {})
    assert any(f"row '{number + 1}' of the table topics is damaged" in problem for problem in found.problems)
    with pqlog.open(path.with_name("saved.db")) as log:
        assert log.topics() == ["main", "other"]
        assert (log.partitions, log.topic("other").partitions) == (3, 2)
        assert [(m.partition, m.value) for m in log] == [(m.partition, m.value) for m in before]
        assert standing(log) == right
        assert log.verify() == []
