"""What is not what was put is not handed out: an error says so, and the rest stays readable."""

import random

import apsw
import pandas as pd
import pytest

import pqlog


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
        log.seek("c", to=after)
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
        assert [value["n"] for value in log.history().values()] == list(range(1, 1001))  # the values are whole


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


def test_a_flipped_bit_anywhere_is_an_error_or_changes_nothing(path):
    """Of a file in which all is messages, clients and what SQLite needs to find them."""
    with pqlog.open(path) as log:
        log.put_many([{"n": n, "text": "x" * 30} for n in range(300)])
        log.put_many(pd.DataFrame({"n": range(300, 400)}))
        for n in range(400, 500):
            log.put({"n": n})
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
            with pqlog.open(copy, mode="r") as log:
                assert [message.value["n"] for message in log] == list(range(500)), at
        except pqlog.Error as error:
            assert isinstance(error, pqlog.StoreError | pqlog.CodecMismatchError | pqlog.UnknownTopicError), (at, error)
            said += 1
    assert said > 100
