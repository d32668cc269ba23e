"""put_many(ids=): each message is put once, however often, by any process, in any form, and despite crashes."""

import random

import apsw
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import pqlog
from pqlog.partitioning import partition_of
from pqlog.store.sqlite import ids as runs
from tests import seams
from tests.messages import offsets
from tests.processes import start


@pytest.fixture
def log(path):
    with pqlog.open(path) as log:
        yield log


def values(log):
    return [plain(message.value) for message in log]


def plain(value):
    """Without the index of a filtered pandas frame."""
    return {name: field for name, field in value.items() if name != "index"}


FORMS = {
    "dicts": lambda rows: rows,
    "an iterator": iter,
    "pandas": lambda rows: pd.DataFrame(rows, columns=["id", "n"]),
    "polars": lambda rows: pl.DataFrame(rows, schema={"id": pl.String, "n": pl.Int64}),
    "Arrow": lambda rows: pa.Table.from_pylist(rows, SCHEMA),
    "a stream": lambda rows: pa.Table.from_pylist(rows, SCHEMA).to_reader(2),
}
SCHEMA = pa.schema({"id": pa.string(), "n": pa.int64()})


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_only_messages_whose_id_is_new_are_put(log, form):
    rows = [{"id": f"order-{n % 4}", "n": n} for n in range(6)]
    assert offsets(log.put_many(form(rows), ids="id", key="id", headers={"a": "b"})) == range(1, 5)
    assert values(log) == rows[:4]
    again = [{"id": f"order-{n}", "n": 10 + n} for n in (2, 7, 0, 8)]
    assert offsets(log.put_many(form(again), ids="id", key="id", cursor=("source", 7, None))) == range(5, 7)
    assert values(log) == [*rows[:4], again[1], again[3]]
    assert [message.key for message in log] == [f"order-{n}" for n in (0, 1, 2, 3, 7, 8)]
    assert offsets(log.put_many(form(rows + again), ids="id", cursor=("source", 8, 7))) == range(7, 7)
    assert (log.cursor("source"), log.verify(), log[1].headers, log[5].headers) == (8, [], {"a": "b"}, {})


def test_ids_of_calls_and_of_messages_are_the_same(log):
    log.put({"id": "a"}, id="a")
    assert offsets(log.put_many([{"id": "a"}, {"id": "b"}], ids="id")) == range(2, 3)
    assert log.put({"id": "b"}, id="b") == 2
    assert offsets(log.put_many([{"id": "b"}] * 3, id="b")) == range(2, 3)
    assert offsets(log.topic("other").put_many([{"id": "a"}], ids="id")) == range(1, 2)


def test_ids_are_the_texts_that_keys_are(log):
    log.put_many([{"id": 17}], ids="id")
    assert offsets(log.put_many(pd.DataFrame({"id": [17, 18]}), ids="id")) == range(2, 3)
    assert offsets(log.put_many([{"id": "18"}, {"id": "x\0y"}, {"id": "x"}, {"id": "x\0z"}], ids="id")) == range(3, 6)
    assert offsets(log.put_many([{"id": "x\0z"}, {"id": "č"}], ids="id")) == range(6, 7)
    assert log.verify() == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([{"id": "a"}, {"id": None}], "the field 'id', which is used as the id, is missing"),
        ([{"id": "a"}, {"n": 1}], "is missing: each message needs an id"),
        ([{"id": "a"}, {"id": ""}], "is empty: each message needs an id"),
        ([{"id": "a"}, {"id": 1.5}], r"is 1.5 \(of type float\), but an id must be text, an integer"),
        (pd.DataFrame({"id": ["a", None]}), "is missing: each message needs an id"),
        (pd.DataFrame({"id": ["a", ""]}), "is empty: each message needs an id"),
        (pd.DataFrame({"id": [1.0, 1.5]}).iloc[[1, 1]], r"is 1.5 \(of type float\), but an id must be"),
        (pd.DataFrame({"id": ["a", 2]}, dtype=object).replace(2, float("nan")), "is missing"),
    ],
)
def test_a_message_without_an_id_is_refused_with_all_the_others(log, given, said):
    with pytest.raises(pqlog.EncodeError, match=said) as raised:
        log.put_many(given, ids="id")
    assert (len(log), raised.value.index) == (0, 0 if "1.5" in said and hasattr(given, "iloc") else 1)
    assert offsets(log.put_many([{"id": "a"}], ids="id")) == range(1, 2)


def test_what_does_not_go_together_is_refused(log):
    with pytest.raises(pqlog.ArgumentError, match="id is one for all of a call, ids the field"):
        log.put_many([{"id": "a"}], id="a", ids="id")
    with pytest.raises(pqlog.ArgumentError, match="ids='x' is not a field of the frame: it has 'id'"):
        log.put_many(pd.DataFrame({"id": ["a"]}), ids="x")
    with pytest.raises(pqlog.ArgumentError, match="ids must be a non-empty str, not 5"):
        log.put_many([{"id": "a"}], ids=5)


INDICES = {
    "a range": pd.RangeIndex(10, 310, 3),
    "a named range": pd.RangeIndex(100, 0, -1, name="row"),
    "text": pd.Index([f"r{n}" for n in range(100)], name="row"),
    "two levels": pd.MultiIndex.from_product([range(10), list("abcdefghij")], names=["one", None]),
}


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
@pytest.mark.parametrize("rows", [7, 1000])
def test_a_frame_comes_back_as_if_it_had_been_filtered_before(log, monkeypatch, index, rows):
    monkeypatch.setattr("pqlog.frames.writer.SEGMENT_ROWS", rows)
    frame = pd.DataFrame(
        {"id": range(100), "c": pd.Categorical(["x", "y"] * 50), "t": pd.date_range("2026", periods=100)}, index=index
    )
    known = random.Random(rows).sample(range(100), 40)
    log.put_many([{"id": n} for n in known], ids="id")
    put = log.put_many(frame, ids="id")
    expected = frame[~frame["id"].isin(known)]
    assert offsets(put) == range(41, 101)
    pd.testing.assert_frame_equal(log[put.first : put.last + 1].to_pandas(metadata=False), expected, check_freq=False)
    assert offsets(log.put_many(frame, ids="id")) == range(101, 101)
    pd.testing.assert_frame_equal(log[60:80].to_pandas(metadata=False), expected.iloc[19:39], check_freq=False)


def test_a_frame_of_which_all_is_new_comes_back_with_its_range(log):
    frame = pd.DataFrame({"id": range(100)}, index=pd.RangeIndex(10, 310, 3))
    log.put_many(frame, ids="id")
    found = log.to_pandas(metadata=False)
    pd.testing.assert_frame_equal(found, frame)
    assert isinstance(found.index, pd.RangeIndex)


KINDS = {
    "views": pa.array(["a", "b", "c"], pa.string_view()),
    "lists": pa.array([[1], [2], None]),
    "list views": pa.array([[1], [2], None], pa.list_view(pa.int64())),
    "lists of two": pa.array([[1, 2], [3, 4], None], pa.list_(pa.int64(), 2)),
    "maps": pa.array([[("a", 1)], [], None], pa.map_(pa.string(), pa.int64())),
    "UUIDs": pa.array([b"0" * 16, b"1" * 16, None], pa.uuid()),
    "a dictionary": pa.array(["a", "b", "a"]).dictionary_encode(),
    "intervals": pa.array([pa.MonthDayNano([1, 2, 3])] * 3),
    "structs": pa.array([{"a": 1}, None, {"a": 3}]),
}


@pytest.mark.parametrize("column", KINDS.values(), ids=KINDS)
def test_columns_of_every_kind_are_filtered(log, column):
    table = pa.table({"id": [1, 2, 3], "c": column})
    log.topic("whole").put_many(table)
    log.put({}, id="2")
    assert offsets(log.put_many(table, ids="id")) == range(2, 4)
    assert values(log)[1:] == values(log.topic("whole"))[::2]


def test_more_than_memory_shall_hold_is_put_with_ids_in_several_blocks(log, monkeypatch):
    monkeypatch.setattr(runs, "BLOCK", 700)
    monkeypatch.setattr("pqlog.producer.CHUNK", 300)
    monkeypatch.setattr("pqlog.producer.MEMORY_BYTES", 2_000)
    order = random.Random(1).sample(range(5000), 5000)
    log.put_many(({"id": n} for n in order[:2000]), ids="id")
    twice = order[1000:3000] + order[2500:]
    assert offsets(log.put_many(({"id": n} for n in twice), ids="id")) == range(2001, 5001)
    assert [value["id"] for value in values(log)] == order
    assert offsets(log.put_many(pd.DataFrame({"id": order}), ids="id")) == range(5001, 5001)
    assert [log.put(0, id=str(n)) for n in order[::500]] == list(range(1, 5001, 500))
    assert log.verify() == []


def test_ids_are_forgotten_with_their_messages(log):
    log.put_many([{"id": n} for n in range(1000)], ids="id")
    log.trim(before=301)
    assert offsets(log.put_many([{"id": n} for n in range(200, 400)], ids="id")) == range(1001, 1101)
    assert (log.put(0, id="300"), log.put(0, id="250"), log.put(0, id="100")) == (301, 1051, 1101)
    assert log.verify() == []
    log.trim(before=1050)
    assert offsets(log.put_many([{"id": n} for n in range(100, 400)], ids="id")) == range(1102, 1350)
    assert log.verify() == []
    log.trim(before=log.last + 1)
    db = seams.connection(log)
    assert [db.execute(f"SELECT count(*) FROM {table}").get for table in ("ids", "id_runs")] == [0, 0]


def test_ids_that_are_trimmed_but_still_there_are_forgotten(path, monkeypatch):
    """As after a crash between the mark of a trim and its steps."""
    with monkeypatch.context() as patch, pqlog.open(path) as log:
        patch.setattr(runs, "drop", lambda *_: 0)
        log.put_many([{"id": n} for n in range(600)], ids="id")
        log.put(0, id="call")
        log.trim(before=601)
        assert offsets(log.put_many(pd.DataFrame({"id": [5, 6, 5, 700]}), ids="id")) == range(602, 605)
        assert log.put(0, id="call") == 601
        assert log.verify() == []
    with pqlog.open(path) as log:
        log.trim(before=602)
        assert log.verify() == []
        assert offsets(log.put_many([{"id": n} for n in (6, 7, 700)], ids="id")) == range(605, 606)
        assert seams.connection(log).execute("SELECT count(*) FROM ids").get == 4


def test_a_batch_puts_with_ids_too(log):
    log.put_many([{"id": n // 2} for n in range(6)])
    for batch in log.batches("etl", size=3):
        staged = batch.put_many(list(batch), topic="out", ids="id")
    assert [message.value for message in log.topic("out")] == [{"id": 0}, {"id": 1}, {"id": 2}]
    assert offsets(staged.put) == range(3, 4)


def test_salvage_keeps_the_ids_of_what_is_kept(path, tmp_path):
    with pqlog.open(path) as log:
        log.put_many([{"id": n} for n in range(25_000)], ids="id")
        log.put_many([{"n": n} for n in range(25_000)], id="call")
    db = apsw.Connection(str(path))
    db.execute("UPDATE messages_1 SET value = '{}' WHERE offset = 12000")
    db.close()
    lost = pqlog.salvage(path, tmp_path / "new.db").lost["main"]
    gone = sum(map(len, lost))
    assert 0 < gone <= 256
    with pqlog.open(tmp_path / "new.db") as log:
        assert offsets(log.put_many([{"id": n} for n in range(25_000)], ids="id")) == range(50_001 - gone, 50_001)
        assert offsets(log.put_many([], id="call")) == range(25_001 - gone, 50_001 - gone)
        assert log.verify() == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE id_runs SET first = 5, stop = 6 WHERE number = 1", "row '1/1' of the table id_runs"),
        ("UPDATE ids SET run = 2 WHERE id = '7'", "the row '1/7' of the table ids"),
        ("UPDATE ids SET run = 9 WHERE id = '7'", "the row '1/7' of the table ids"),
        ("DELETE FROM id_runs WHERE number = 1", "the row '1/7' of the table ids"),
    ],
)
@pytest.mark.parametrize(
    "use", [lambda log: log.put(0, id="7"), lambda log: log.put_many([{"id": 7}], ids="id")], ids=["put", "put_many"]
)
def test_damaged_ids_are_told_where_they_are_used_and_by_verify(path, change, said, use):
    with pqlog.open(path) as log:
        log.put_many([{"id": n} for n in range(600)], ids="id")
    db = apsw.Connection(str(path))
    db.execute(change)
    db.close()
    with pqlog.open(path) as log:
        assert log.verify() != []
        with pytest.raises(pqlog.CorruptLogError, match=said):
            use(log)


@pytest.mark.parametrize("change", ["DELETE FROM ids WHERE id = '7'", "UPDATE ids SET id = 'x' WHERE id = '7'"])
def test_verify_tells_of_ids_that_are_missing(path, change):
    with pqlog.open(path) as log:
        log.put_many([{"id": n} for n in range(600)], ids="id")
    db = apsw.Connection(str(path))
    db.execute(change)
    db.close()
    with pqlog.open(path, readonly=True) as log:
        assert any("the id '7' is not found" in said for said in log.verify())


class Ids(RuleBasedStateMachine):
    """Compared with a dict of the ids and their offsets."""

    def __init__(self):
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        for name, value in (("RUN", 3), ("BLOCK", 5), ("DROP", 2)):
            self.patch.setattr(runs, name, value)
        self.patch.setattr("pqlog.producer.CHUNK", 4)
        self.patch.setattr("pqlog.frames.writer.SEGMENT_ROWS", 3)
        self.log = pqlog.open(":memory:")
        self.known, self.values, self.first, self.n = {}, [], 1, 0

    def teardown(self):
        try:
            assert self.log.verify() == []
        finally:
            self.log.close()
            self.patch.undo()

    def fresh(self, ids):
        self.n += len(ids)
        return [{"id": str(id), "n": self.n - at} for at, id in enumerate(ids)]

    @rule(ids=st.lists(st.integers(0, 30), max_size=14), form=st.sampled_from(list(FORMS)))
    def put_many(self, ids, form):
        start = len(self.values) + 1
        rows = self.fresh(ids)
        for row in rows:
            if row["id"] not in self.known:
                self.known[row["id"]] = len(self.values) + 1
                self.values.append(row)
        assert offsets(self.log.put_many(FORMS[form](rows), ids="id", key="n")) == range(start, len(self.values) + 1)

    @rule(id=st.integers(0, 30))
    def put(self, id):
        (row,) = self.fresh([id])
        if row["id"] not in self.known:
            self.known[row["id"]] = len(self.values) + 1
            self.values.append(row)
        assert self.log.put(row, id=str(id), key=str(row["n"])) == self.known[row["id"]]

    @rule(before=st.integers(0, 40))
    def trim(self, before):
        self.first = max(self.first, min(before, len(self.values) + 1))
        self.log.trim(before=before)
        self.known = {id: offset for id, offset in self.known.items() if offset >= self.first}

    @invariant()
    def the_same(self):
        assert [(message.offset, message.key, plain(message.value)) for message in self.log] == [
            (offset, str(value["n"]), value)
            for offset, value in enumerate(self.values[self.first - 1 :], start=self.first)
        ]
        frame = self.log.to_pandas(metadata=False)
        if len(frame):
            assert frame[["id", "n"]].to_dict("records") == self.values[self.first - 1 :]


TestIds = Ids.TestCase
TestIds.settings = settings(stateful_step_count=10)


PUTTER = """
import os, random, sys
import pandas as pd
import pqlog
path, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
chance = random.Random(seed)
print("ready", flush=True)
with pqlog.open(path) as log:
    while len(log) < count:
        some = chance.sample(range(count), 40)
        rows = [{"id": f"id-{n}", "by": seed} for n in some]
        put = log.put_many(pd.DataFrame(rows) if chance.random() < 0.5 else rows, ids="id", key="id")
        if put.messages:
            os.write(1, f"{put.first} {put.last + 1}\\n".encode())
"""


@pytest.mark.slow
def test_two_processes_that_are_killed_put_each_id_once(path):
    """Each process puts some of the same ids until it is killed. What returned is there, and no id is there twice."""
    count, returned, chance = 1200, [], random.Random(7)
    for seed in (0, 2):
        pair = [start(PUTTER, path, seed + n, count) for n in range(2)]
        for process in pair:
            assert process.line() == "ready"
        for process in pair:
            for _ in range(chance.randrange(1, 6)):
                returned.append(process.stdout.readline())
            process.kill()
        for process in pair:
            returned += process.kill_and_read()
    with pqlog.open(path) as log:
        log.put_many([{"id": f"id-{n}", "by": "all"} for n in range(count)], ids="id", key="id")
        found = [message.value["id"] for message in log]
        assert sorted(found) == sorted(f"id-{n}" for n in range(count))
        assert [message.key for message in log] == found
        assert log.verify() == []
        spans = [tuple(map(int, line.split())) for line in returned if line.endswith("\n")]
        by = {offset: message.value["by"] for offset, message in enumerate(log, start=1)}
        assert all(len({by[offset] for offset in range(first, stop)}) == 1 for first, stop in spans)
        assert "all" not in {by[offset] for first, stop in spans for offset in range(first, stop)}


def test_the_methods_of_a_text_are_no_fields(log):
    for name in ("__doc__", "upper", "__class__"):
        with pytest.raises(pqlog.EncodeError, match="id"):
            log.put_many(["a", "b"], ids=name)
        assert len(log) == 0


def test_an_id_that_was_trimmed_in_one_partition_and_used_again_in_another_is_no_damage(path):
    keys = {partition_of(str(n), 2): str(n) for n in range(20)}
    with pqlog.open(path) as log:
        topic = log.topic("orders", partitions=2)
        topic.put_many([{"k": keys[0], "id": id} for id in "XYZ"], key="k", ids="id")
        topic.partition(0).trim(before=2)
        assert topic.put_many([{"k": keys[1], "id": "X"}], key="k", ids="id").messages == 1
        assert log.verify() == []
        topic.put("end", key=keys[1])
        topic.partition(1).trim(before=2)
        assert log.verify() == []
        assert topic.put_many([{"k": keys[0], "id": "X"}], key="k", ids="id").messages == 1
        assert log.verify() == []
