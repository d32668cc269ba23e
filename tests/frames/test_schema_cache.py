"""The schema of a topic is cached: it saves a pass; if missing, reading is only slower; if wrong, an error says so."""

import contextlib
import random
import threading
from unittest import mock

import apsw
import msgspec
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pqlog
from pqlog.frames import inference_pass, ipc, schema_cache
from pqlog.frames.inference import SchemaInference
from pqlog.frames.parse import SAMPLE_ROWS
from pqlog.frames.projection import Projection
from pqlog.readable import selection_of
from pqlog.store.sqlite import smallrows
from pqlog.store.values import Output, Singles
from tests.frames.test_values import VALUES
from tests.processes import run


@pytest.fixture
def eager():
    """Every schema is cached in the file."""
    with mock.patch.object(schema_cache, "MIN_NEW_MESSAGES", 1):
        yield


@contextlib.contextmanager
def counted(log):
    """Counts the messages that are read meanwhile."""
    topic, count = log.store, [0]
    read, read_lines = topic.read, topic.read_lines

    def counting(*args, **named):
        found = read(*args, **named)
        count[0] += sum(row.rows or 1 for row in found)
        return found

    def counting_lines(*args):
        lines = read_lines(*args)
        count[0] += lines.rows if lines else 0
        return lines

    with mock.patch.object(topic, "read", counting), mock.patch.object(topic, "read_lines", counting_lines):
        yield count


def agree(readable, columns=None, metadata=True):
    """The schema of a stream is the one that is inferred from all of its messages."""
    selection, projection = selection_of(readable), Projection(columns, metadata=metadata, lenient=True)
    ours, (_, right) = (
        inference_pass.infer_output(selection, projection),
        inference_pass.read_all(selection, projection, False),
    )
    assert ours == right
    assert ours.schema.equals(right.schema, check_metadata=True)


def kept_in(path):
    """What the file has cached: first, stop and text, by partition."""
    db = apsw.Connection(str(path))
    found = {
        partition: rest for partition, *rest in db.execute("SELECT partition, first, stop, inference FROM schema_cache")
    }
    db.close()
    return found


FRAMES = (
    pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}),
    pd.DataFrame({"a": pd.array([1, None], "Int8"), "c": pd.Categorical(["u", "v"])}),
    pd.DataFrame({"c": pd.Categorical(["v", "w"], ordered=True), "t": pd.to_datetime(["2020", "3000"], format="%Y")}),
    pd.DataFrame({"t": pd.date_range("2020", periods=2, tz="UTC", unit="ns"), "p": pd.period_range("2020", periods=2)}),
    pd.DataFrame({"a": [2**63, 1], "l": [[1], {"k": 2}]}, index=["i", "j"]),
    pa.table({"a": pa.array([0.5, 1.5]), "s": [{"x": 1}, None], "d": pa.array(["q", None]).dictionary_encode()}),
    pa.table({"z": pa.nulls(1), "a": pa.array([None], pa.int16())}),
)
PUTS = VALUES.map(lambda values: ("values", values)) | st.sampled_from(FRAMES).map(lambda frame: ("frame", frame))
STEPS = st.lists(PUTS | st.sampled_from(["key", "learn", "read", "reopen", "trim", "rename"]).map(lambda s: (s, 0)))


@given(STEPS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_a_schema_from_what_was_kept_is_the_one_that_follows_from_the_messages(tmp_path_factory, eager, steps):
    path = tmp_path_factory.mktemp("schema_cache") / "a.db"
    log, name = pqlog.open(path), "main"
    for number, (step, what) in enumerate(steps):
        if step == "values":
            log.put_many(what)
        elif step == "key":
            log.put({"a": number}, key="k")
        elif step == "frame":
            log.put_many(what)
        elif step == "learn":
            log.schema
        elif step == "read":
            with contextlib.suppress(pqlog.DecodeError):
                log.to_pandas()
        elif step == "reopen":
            log.close()
            log = pqlog.open(path, name)
        elif step == "trim":
            log.trim(before=(log.first or 0) + 2)
        elif step == "rename":
            log.rename_topic(name, name := f"t{number}")
    agree(log)
    agree(log, metadata=False)
    agree(log, ("a", "b"))
    agree(log.history(stop=(log.last or 1)))
    found = [log.to_arrow(), log.to_batches().read_all(), log.to_batches(batch_size=3).read_all()]
    assert len({repr((table.schema, table.to_pylist())) for table in found}) == 1
    frames = list(log.chunks(3))
    assert sum(map(len, frames)) == len(log)
    assert len({tuple(map(repr, frame.dtypes)) for frame in frames}) <= 1
    log.close()


def test_a_cached_schema_costs_no_pass_in_this_process_or_another(path):
    with pqlog.open(path) as log:
        log.put_many({"n": n, "s": str(n)} for n in range(25_000))
        log.to_batches().read_all()
    with pqlog.open(path, readonly=True) as log, counted(log) as count:
        assert log.schema == pa.schema({"n": pa.int64(), "s": pa.string()})
        assert count == [0]
        assert next(iter(log.to_batches())).num_rows < 25_000
        assert next(iter(log.chunks(100)))["n"].dtype == "int64"
        assert log.to_batches(columns=["s"]).schema.names == ["offset", "_time", "s"]
        assert count[0] < 25_000
    with pqlog.open(path) as log:
        log.put({"n": 0.5})
        with counted(log) as count:
            assert pa.types.is_floating(log.schema.field("n").type)
            assert count == [1]
            assert log.to_batches().schema.field("n").type == pa.float64()
            assert count == [1]


def test_the_first_messages_are_read_alone(log):
    log.put_many({"n": n} for n in range(50_000))
    with counted(log) as count:
        assert log.head()["n"].tolist() == [0, 1, 2, 3, 4]
        assert count[0] <= 5_005  # what was read ahead, and the messages of the frame once more


def test_a_schema_is_cached_in_the_file_only_if_that_is_worth_it(path):
    with pqlog.open(path) as log:
        log.put_many({"n": n} for n in range(schema_cache.MIN_NEW_MESSAGES - 1))
        log.to_arrow()
        assert kept_in(path) == {}
        with counted(log) as count:
            log.schema
            assert count == [0]  # this open log has it nevertheless
        log.put({"n": 1})
        log.to_pandas()
        assert kept_in(path)[1][:2] == [1, schema_cache.MIN_NEW_MESSAGES + 1]
        log[5:].to_arrow()
        log.to_arrow(columns=["n"])
        log.put_many({"n": "x"} for n in range(100))
        log.schema
        assert kept_in(path)[1][:2] == [1, schema_cache.MIN_NEW_MESSAGES + 1]


def test_what_only_python_can_tell_is_not_kept(path, eager):
    with pqlog.open(path, codec="pickle") as log:
        log.put_many([{"a": {1, 2}}, {"a": 5}])
        assert log.to_pandas()["a"].tolist() == [{1, 2}, 5]
        log.schema
    assert kept_in(path) == {}


def test_a_field_that_no_message_has_yet_is_no_contradiction(log):
    rows = 3 * SAMPLE_ROWS
    log.put_many({"a": n} for n in range(rows))
    log.to_pandas()
    batch = log.client("etl").next_batch(size=rows)
    assert schema_cache.lookup_topic(log.stream) is not None
    found = batch.to_batches(columns=["a", "zz"]).read_all()
    assert found.column("a").to_pylist() == list(range(rows))
    assert found.column("zz").null_count == rows
    assert [len(frame) for frame in batch.chunks(rows, columns=["zz"])] == [rows]
    assert schema_cache.lookup_topic(log.stream) is not None


def test_of_a_read_only_log_nothing_is_written(path, eager):
    with pqlog.open(path) as log:
        log.put_many([{"a": 1}] * 10)
    with pqlog.open(path, readonly=True) as log, counted(log) as count:
        log.schema
        log.schema
        assert count == [10]
    assert kept_in(path) == {}


def test_it_goes_with_its_topic_and_is_not_used_behind_a_trim(path, eager):
    with pqlog.open(path) as log:
        log.put_many([{"a": "x"}, {"a": 1}, {"a": 2}])
        assert log.schema.field("a").type == pa.string()
        log.trim(before=2)
        assert log.schema.field("a").type == pa.int64()
        other = log.topic("other")
        other.put({"b": 1})
        other.schema
        assert set(kept_in(path)) == {1, 2}
        log.delete_topic("other")
        assert set(kept_in(path)) == {1}


def test_two_files_with_one_uuid_do_not_mix_up_what_they_know(tmp_path, eager):
    with pqlog.open(tmp_path / "a.db") as log:
        log.put({"x": 0})
    (tmp_path / "b.db").write_bytes((tmp_path / "a.db").read_bytes())
    with pqlog.open(tmp_path / "a.db") as one, pqlog.open(tmp_path / "b.db") as two:
        assert one.uuid == two.uuid
        one.put({"x": 1})
        two.put({"y": "text"})
        for columns in (None, ("x",)):
            one.to_batches(columns=columns).read_all()
            agree(two, columns)
        assert two.to_batches(metadata=False).read_all().to_pylist() == [{"x": 0, "y": None}, {"x": None, "y": "text"}]


def test_reading_does_not_wait_for_those_who_put(path, eager):
    """A long transaction holds the file, here or in another process; nothing is cached then."""
    with pqlog.open(path) as log, pqlog.open(path) as other:
        log.put_many([{"a": 1}] * 10)
        for writing in (log, other):
            begun, done = threading.Event(), threading.Event()

            def slowly(begun=begun, done=done):
                yield Singles([b'{"a":2}'])
                begun.set()
                assert done.wait(60)

            output = Output(writing.store, slowly())
            putting = threading.Thread(target=writing.store.log.append, args=[[output]])
            putting.start()
            assert begun.wait(60)
            assert log.schema.names == ["a"]
            assert len(log.to_pandas()) >= 10
            assert putting.is_alive()
            assert kept_in(path) == {}
            done.set()
            putting.join()
        log.to_pandas()
        assert set(kept_in(path)) == {1}


def test_reading_within_a_put_is_no_error(path, eager):
    with pqlog.open(path) as log:
        log.put_many([{"a": 1}] * 3)
        log.put_many({"a": int(n)} for n in log.to_pandas()["a"])
        log.put_many({"a": len(log.to_pandas())} for _ in range(2))
        assert log.to_pandas()["a"].tolist() == [1] * 6 + [6] * 2


def change(path, edit):
    """Change the entry as a program would that knows the format."""
    db = apsw.Connection(str(path))
    ((seed,),) = db.execute("SELECT value FROM file WHERE name = 'seed'").fetchall()
    smallrows.register(db, seed)
    for partition, text in db.execute("SELECT partition, inference FROM schema_cache").fetchall():
        new = edit(text)
        db.execute("UPDATE schema_cache SET inference = ? WHERE partition = ?", (new, partition))
    db.execute(f"UPDATE schema_cache SET crc = {smallrows.sum_of('schema_cache')}")
    db.close()


def of(*values):
    """An entry about other messages, as text, but about as many."""
    inference = SchemaInference()
    inference.add(pa.Table.from_pylist(values) if not isinstance(values[0], pa.Table) else values[0])
    return lambda text: inference.to_text()


def with_fields(**changed):
    """The same columns with other types, or notes of a dtype."""

    def other(field):
        change = changed.get(field.name)
        if isinstance(change, dict):
            return field.with_metadata({b"pqlog.pandas": msgspec.json.encode(change)})
        return field if change is None else field.with_type(change)

    def edit(text):
        found = msgspec.json.decode(text)
        fields = pa.ipc.read_schema(pa.py_buffer(msgspec.json.decode(f'"{found["schema"]}"', type=bytes)))
        found["schema"] = pa.schema(map(other, fields)).serialize().to_pybytes()
        for column in found["columns"]:
            column.pop("notes")  # the fields have them
        return msgspec.json.encode(found).decode()

    return edit


def with_column(name, **changes):
    def edit(text):
        found = msgspec.json.decode(text)
        for column in found["columns"]:
            if column["name"] == name:
                column.update(changes)
        return msgspec.json.encode(found).decode()

    return edit


def of_dictionary(values):
    stored = ipc.encode(pa.table({"dictionary": values}))
    return with_column("c", dictionary=msgspec.json.decode(msgspec.json.encode(stored)))


WRONG = {
    "fewer columns": of(pa.table({"n": [1, 2, 3]})),
    "no columns": of(pa.table({"": [1, 2, 3]}).select([])),
    "text": with_fields(n=pa.string()),
    "int8": with_fields(n=pa.int8()),
    "float32": with_fields(f=pa.float32()),
    "no text": with_fields(s=pa.int64()),
    "times": with_fields(n=pa.timestamp("s")),
    "no nulls": with_column("h", valid=3),
    "a note": with_fields(n={"dtype": "int8"}),
    "a note of objects": with_fields(s={"dtype": "object", "array": "float64"}),
    "a category": with_fields(n={"dtype": "category"}),
    "another category": with_fields(c={"dtype": "category", "ordered": True}),
    "a note of another kind": with_fields(n={"dtype": 5}),
    "another dictionary": of_dictionary(["x", "z"]),
    "a dictionary of numbers": of_dictionary([1, 2]),
    "a dictionary of lists": of_dictionary([[1], [2]]),
    "a dictionary that is none": with_column("c", dictionary="0" * 64),
    "one put": lambda text: text.replace('"puts":["', '"puts":["AAAA'),
    "no dictionary": with_column("c", dictionary=None),
    "bounds": with_column("n", bounds=["5", "6"]),
    "huge bounds": with_column("n", bounds=["-" + "9" * 30, "9" * 30]),
    "endless bounds": with_column("n", bounds=["1" * 100_000, "1" * 100_000]),
    "no column of a type": with_column("n", seen=0),
    "types of others": with_column("n", seen=2),
    "negative": with_column("n", seen=-1, empty=2),
    "a million": with_column("n", valid=10**6),
    "the version after this": lambda text: text.replace('"version":1', '"version":2'),
    "nothing": lambda text: "",
    "null": lambda text: "null",
    "deep": lambda text: "[" * 100_000,
    "a stump": lambda text: text[: len(text) // 2],
    "much": lambda text: text + " " * (5 << 20),
    "another schema": lambda text: text.replace('"schema":"', '"schema":"AAAA'),
}


@pytest.mark.parametrize("how", WRONG)
def test_what_is_kept_and_wrong_is_told_or_ignored_and_changes_nothing(path, eager, how):
    frame = pd.DataFrame({"n": [2**60, 2, 300], "f": [0.1, 1, 2], "s": list("123"), "c": pd.Categorical(list("xyx"))})
    frame["h"] = pd.array([1, None, 2**60 + 1], "Int64")
    with pqlog.open(path) as log:
        log.put_many(frame, key="s")
        log.schema
        right = log.to_arrow()
        pandas = log.to_pandas()
    change(path, WRONG[how])
    for _ in range(2):
        with pqlog.open(path, readonly=True) as log:
            for read in (lambda: log.to_batches().read_all(), lambda: pd.concat(log.chunks())):
                try:
                    found = read()
                except pqlog.CorruptLogError as error:
                    assert "call again" in str(error)
                    found = read()
                if isinstance(found, pa.Table):
                    assert found.cast(right.schema).equals(right)
                else:
                    assert found.astype(pandas.dtypes).equals(pandas)
            assert log.to_arrow().equals(right)
            log._repr_html_()
    with pqlog.open(path) as log:
        with contextlib.suppress(pqlog.CorruptLogError):
            log.to_batches().read_all()
        log.to_arrow()
        log.put_many(frame, key="s")
        log.to_arrow()
    with pqlog.open(path) as log:
        agree(log)  # it was replaced


def test_bytes_changed_anywhere_do_no_harm(path, eager):
    """In a process of its own: Arrow reads what anybody may have written."""
    with pqlog.open(path) as log:
        log.put_many(FRAMES[4])
        log.put_many(FRAMES[1])
        log.schema
        text = SchemaInference.to_text(schema_cache.lookup_topic(log.stream).inference)
    script = """
import base64, json, random, sys
from pqlog.frames.inference import SchemaInference
text, chance = sys.stdin.read(), random.Random(7)
found = json.loads(text)
raw = base64.b64decode(found["schema"])
read = 0
for _ in range(3000):
    data = bytearray(raw)
    for _ in range(chance.randrange(1, 4)):
        data[chance.randrange(len(data))] = chance.choice([0, 1, 127, 128, 255, chance.randrange(256)])
    try:
        inference = SchemaInference.from_text(json.dumps({**found, "schema": base64.b64encode(data).decode()}))
        inference.schema()
        read += 1
    except Exception:
        pass
print(read)
"""
    assert int(run(script, input=text)) > 0


def test_a_text_that_is_none_and_a_page_that_is_none_are_as_good_as_none(path, eager):
    with pqlog.open(path) as log:
        log.put_many([{"a": 1}] * 5)
        log.schema
    whole = path.read_bytes()
    db = apsw.Connection(str(path))
    ((root,),) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'schema_cache'").fetchall()
    db.execute("UPDATE schema_cache SET inference = CAST(x'7bff7d' AS TEXT)")
    ((seed,),) = db.execute("SELECT value FROM file WHERE name = 'seed'").fetchall()
    smallrows.register(db, seed)
    db.execute(f"UPDATE schema_cache SET crc = {smallrows.sum_of('schema_cache')}")
    db.close()
    no_text = path.read_bytes()
    at = (root - 1) * 4096
    for data in (no_text, whole[:at] + bytes(100) + whole[at + 100 :]):
        path.write_bytes(data)
        with pqlog.open(path, readonly=True) as log:
            agree(log)
            assert "fields" in log._repr_html_()
        with pqlog.open(path) as log:
            agree(log)
            assert log.put({"a": 0.5}) == 6
            agree(log)


def test_a_damaged_row_is_as_good_as_none_and_told_by_verify(path, eager):
    with pqlog.open(path) as log:
        log.put_many([{"a": 1}] * 5)
        log.schema
    whole = path.read_bytes()
    at = whole.index(b'"version":1')
    chance = random.Random(3)
    for _ in range(20):
        data = bytearray(whole)
        data[at + chance.randrange(100)] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        with pqlog.open(path, readonly=True) as log:
            assert any("'1' of the table schema_cache" in said for said in log.verify())
            agree(log)
            assert log._repr_html_()
