"""Opening and reading a file never runs code from it, never crashes the process, never hangs, whoever made it."""

import contextlib
import functools
import json
import pickle
import subprocess
import sys
from pathlib import Path

import apsw
import pyarrow as pa
import pytest

import pqlog
from pqlog.store.sqlite import checksums, smallrows
from tests import rows


class Evil:
    """When it is unpickled, it creates a file."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return Path.touch, (self.canary,)


def edited(path, *edits):
    """A small log, changed by SQL statements or functions of a connection."""
    with pqlog.open(path) as log:
        log.put_many([{"a": n} for n in range(3)], id="i", cursor=("c", 1, None))
        log.client("g").seek(to=2)
        for _ in log.batches("b", size=2):
            break
    db = apsw.Connection(str(path))
    for edit in edits:
        if callable(edit):
            edit(db)
        else:
            db.execute(edit).fetchall()
    seal(db)
    db.close()


def seal(db):
    """Give all rows of the small tables, if they exist, matching checksums."""
    with contextlib.suppress(apsw.SQLError):
        seed = db.execute("SELECT value FROM file WHERE name = 'seed'").get
        smallrows.register(db, seed if isinstance(seed, int) else 0)
    for table in smallrows.COLUMNS:
        with contextlib.suppress(apsw.SQLError):
            db.execute(f"UPDATE {table} SET crc = {smallrows.sum_of(table)}").fetchall()


def put(value, rows=None, key=None, headers=None, offset=4):
    """Put a row as pqlog would, with matching checksums."""

    def edit(db):
        (seed,) = db.execute("SELECT value FROM file WHERE name = 'seed'").fetchone()
        time, kept = db.execute("SELECT time, crc FROM messages_1 ORDER BY offset DESC LIMIT 1").fetchone()
        crc = checksums.extend(checksums.unmask(kept, seed)[0], value)
        crc = checksums.mask(crc, checksums.of_metadata(time, headers, (key,), rows), seed)
        put = value if rows is not None else value.decode()
        db.execute(
            "INSERT INTO messages_1 VALUES (?, ?, ?, ?, ?, NULL, ?, ?)", (offset, time, key, headers, rows, crc, put)
        )

    return edit


def plain(table, compression="zstd"):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def segment(table, rows=None, key=None):
    return put(plain(table), table.num_rows if rows is None else rows, key)


def changed(table, what, to, width=4):
    """A segment of three rows, in which a sequence of numbers is replaced by another."""
    data = plain(table, None)
    what, to = (b"".join(number.to_bytes(width, "little", signed=True) for number in run) for run in (what, to))
    assert data.count(what) >= 1
    at = data.rindex(what)
    return put(data[:at] + to + data[at + len(to) :], 3)


def marked(metadata, column):
    return pa.table({"a": column}, schema=pa.schema([pa.field("a", column.type, metadata=metadata)]))


def noted(**metadata):
    table = pa.table({"a": [1, 2, 3]})
    return segment(table.replace_schema_metadata({name.replace("_", "."): text for name, text in metadata.items()}))


def notes(**changes):
    return json.dumps({"columns": 1, "levels": [{"step": 1}], "names": [None], **changes}).encode()


def dtype(note, column=None):
    """A segment whose column has a note of its dtype."""
    text = note if isinstance(note, bytes) else json.dumps(note).encode()
    column = pa.array([1, 2, 3]) if column is None else column
    table = marked({b"pqlog.pandas": text}, column)
    return segment(table.replace_schema_metadata({b"pqlog.frame": notes(), b"pqlog.call": b"x", b"pqlog.row": b"0"}))


def framed(**changes):
    """A segment that says that it was a frame of another kind."""
    table = marked({b"pqlog.pandas": b'{"dtype":"int64"}'}, pa.array([1, 2, 3]))
    metadata = {b"pqlog.frame": notes(**changes), b"pqlog.call": b"x", b"pqlog.row": b"0"}
    return segment(table.replace_schema_metadata(metadata))


def of(values, type):
    return pa.table({"a": pa.array(values, type)})


def nested(depth):
    return functools.reduce(lambda inner, _: pa.list_(inner), range(depth), pa.int64())


def segments(canary):
    """Contents of a segment that must be refused when they are read."""
    evil = pickle.dumps(Evil(canary))
    three = pa.table({"a": [1, 2, 3]})
    texts, lists = of(["abc", "def", "ghi"], pa.string()), of([[1], [2], [3]], pa.list_(pa.int64()))
    coded = pa.table({"a": pa.array(["x", "y", "x"]).dictionary_encode()})
    word = pa.array(["x" * 20_000])
    views, big = of(["abc", "def", "x" * 90], pa.string_view()), 2**31 - 1
    return {
        "text beyond its buffer": changed(texts, (3, 6, 9), (3, big - 1, big)),
        "text that runs backwards": changed(texts, (3, 6, 9), (9, 3, 9)),
        "text that is none": segment(of([b"\xff"] * 3, pa.binary()), key="a"),
        "list beyond its buffer": changed(lists, (1, 2, 3), (1 << 28, 2 << 28, 3 << 28)),
        "list of fewer than nothing": changed(lists, (1, 2, 3), (1, -2, 3)),
        "view beyond its buffer": changed(views, (90,), (1 << 30,)),
        "dictionary without the word": changed(coded, (0, 1, 0), (big,) * 3),
        "nothing": put(b"", 3),
        "no stream": put(b"abc" * 100, 3),
        "a stump": put(plain(three)[:-300], 3),
        "fewer rows": segment(three, rows=1000),
        "more rows": segment(three, rows=2),
        "no rows": segment(three, rows=0),
        "less than no rows": segment(three, rows=-5),
        "too many rows": segment(three, rows=2**62),
        "key that is not there": segment(three, key="nope"),
        "key of lists": segment(lists, key="a"),
        "key that runs code": segment(marked({b"pqlog": b"pickle"}, pa.array([evil] * 3)), key="a"),
        "JSON that is none": segment(marked({b"pqlog": b"json"}, pa.array(["{", "x", ""]))),
        "JSON of numbers": segment(marked({b"pqlog": b"json"}, pa.array([1, 2, 3]))),
        "JSON too deep": segment(marked({b"pqlog": b"json"}, pa.array(["[" * 99_999 + "]" * 99_999] * 3))),
        "two columns of one name": segment(pa.Table.from_arrays([pa.array([1, 2, 3])] * 2, names=["a", "a"])),
        "place that is no number": noted(**{"pqlog_call": b"x", "pqlog_row": b"zz"}),
        "place that is not said": noted(pqlog_call=b"x"),
        "notes: a list": noted(pqlog_frame=b"[]"),
        "notes: a stump": noted(pqlog_frame=b"{"),
        "notes: numbers": noted(pqlog_frame=notes(levels=7)),
        "notes: of what?": noted(pqlog_frame=notes(levels=[5])),
        "notes: a range of text": noted(pqlog_frame=notes(levels=[{"start": "a"}])),
        "notes: a dtype that is a list": dtype(b"[]"),
        "notes: a dtype that is a number": dtype({"dtype": 5}),
        "notes: a period of text": dtype({"dtype": "period[M]"}, pa.array(["a", "b", "c"])),
        "notes: categories of nothing": dtype({"dtype": "category", "stored": "AAAA"}),
        "year 300000": segment(of([2**62] * 3, pa.timestamp("us"))),
        "fixed list beyond all": segment(of([None] * 3, pa.list_(pa.null(), 2**29))),
        "many rows of nothing": segment(pa.table({"": pa.nulls(100_000)}), rows=100_000),
        "one word, many times": segment(
            pa.table({"a": pa.DictionaryArray.from_arrays(pa.array([0] * 65_536, pa.int8()), word)})
        ),
        "one run, many times": segment(
            pa.table({"a": pa.RunEndEncodedArray.from_arrays(pa.array([65_536], pa.int32()), word)})
        ),
        "headers that are no JSON": put(plain(three), 3, headers="{"),
    }


def harmless_segments(canary):
    """Contents of a segment that may be read, and must do nothing else."""
    evil = pickle.dumps(Evil(canary))
    return {
        "pickle": segment(marked({b"pqlog": b"pickle"}, pa.array([evil] * 3))),
        "pickle of a type": segment(
            marked(
                {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": evil},
                pa.array([evil] * 3),
            )
        ),
        "type of nobody": segment(marked({b"ARROW:extension:name": b"pandas.period"}, pa.array([1, 2, 3]))),
        "zone of nobody": segment(of([1, 2, 3], pa.timestamp("us", tz="../../etc/passwd"))),
        "notes: dtype of nobody": dtype({"dtype": "datetime64[ns, __import__('os')]"}),
        "notes: dtype of objects": dtype({"dtype": "object", "missing": "nan"}),
        "notes: missing what?": dtype({"dtype": "object", "missing": "x"}),
        "notes: dtype of long texts": dtype({"dtype": "U500000000"}),
        "notes: dtype of bytes": dtype({"dtype": "S2000000000"}),
        "notes: dtype of void": dtype({"dtype": "V2000000000"}),
        "notes: an Arrow dtype": dtype({"dtype": "arrow"}),
        "notes: text of numbers": dtype({"dtype": "str", "storage": "pyarrow"}),
        "notes: a storage of nobody": dtype({"dtype": "str", "storage": "nobody"}),
        "notes: a category of numbers": dtype({"dtype": "category"}),
        "notes: categories twice": dtype(
            {"dtype": "category", "categories": {"dtype": "int64"}},
            pa.DictionaryArray.from_arrays(pa.array([0, 1, 0]), pa.array([1, 1])),
        ),
        "notes: an index of nobody": framed(levels=[{"field": "nope"}]),
        "notes: no index": framed(levels=[], names=[]),
        "notes: a long range": framed(levels=[{"start": 0, "step": 2**62}]),
        "notes: many columns": framed(columns=2**60),
        "notes: fewer than no columns": framed(columns=-1),
        "notes: labels of nobody": framed(labels="AAAA"),
        "notes: names of objects": framed(names=[{"a": 1}]),
        "notes: frequency of nobody": framed(levels=[{"field": "a", "freq": "__import__('os')"}]),
        "place far away": noted(**{"pqlog_call": b"x", "pqlog_row": b"9" * 30}),
        "lists in lists": segment(of([None] * 3, nested(60))),
        "columns named as ours": segment(pa.table({"offset": [1, 2, 3], "_time": ["x"] * 3, "_key": [1] * 3})),
        "union": segment(
            pa.table(
                {
                    "a": pa.UnionArray.from_sparse(
                        pa.array([0, 1, 0], pa.int8()), [pa.array([1, 2, 3]), pa.array(list("abc"))]
                    )
                }
            )
        ),
    }


def others():
    """Other contents of a file that must be refused somewhere."""
    like = "(replace(hex(zeroblob(200000)), '0', 'a') LIKE '%a%a%a%a%a%a%a%a%a%b')"
    endless = "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT x AS"
    columns = "offset INTEGER PRIMARY KEY, time, key, headers, value, rows, crc"
    again = "DROP TABLE messages_1"
    last = 2**63 - 1
    return {
        "topics: a view": [
            "ALTER TABLE topics RENAME TO t",
            f"CREATE VIEW topics AS {endless} id, 'main' AS name FROM r",
        ],
        "topics: computed": [
            "DROP TABLE topics",
            f"CREATE TABLE topics (id INTEGER PRIMARY KEY, name, codec, first AS {like}, created)",
            "INSERT INTO topics (id, name, codec) VALUES (1, 'main', 'json')",
        ],
        "topics: a search index": [
            "DROP TABLE topics",
            "CREATE VIRTUAL TABLE topics USING fts5(id, name, codec, first)",
        ],
        "topics: none": ["DROP TABLE topics"],
        "topic without messages": [
            "INSERT INTO topics SELECT 7, 'x', codec, partition, partitions, first, sealed, created, crc FROM topics"
        ],
        "topic of a negative number": ["UPDATE topics SET id = -1"],
        "messages without a topic": ["UPDATE topics SET id = 2"],
        "messages: a view": [again, f"CREATE VIEW messages_1 AS {endless} offset, 1 AS time, '1' AS value FROM r"],
        "messages: other columns": [again, f"CREATE TABLE messages_1 ({columns})"],
        "messages: computed": [again, f"CREATE TABLE messages_1 ({columns.replace('value', f'value AS {like}')})"],
        "messages: large": [again, f"CREATE TABLE messages_1 ({columns.replace('value', 'value AS (zeroblob(9e8))')})"],
        "messages: a search index": [again, f"CREATE VIRTUAL TABLE messages_1 USING fts5({columns[27:]})"],
        "messages: checked": [again, f"CREATE TABLE messages_1 ({columns}, CHECK ({like}))"],
        "messages: an index": ["CREATE INDEX i ON messages_1 (key)"],
        "messages: a large index": [f"CREATE INDEX i ON messages_1 (offset) WHERE {like}"],
        "messages: no index": ["DROP INDEX segments_1"],
        "messages: another index": ["DROP INDEX segments_1", "CREATE INDEX segments_1 ON messages_1 (offset)"],
        "file: computed": [
            "ALTER TABLE file RENAME TO f",
            f"CREATE TABLE file (name TEXT PRIMARY KEY, v, value AS (iif(v, {like}, v)))",
            "INSERT INTO file (name, v) SELECT name, 1 FROM f",
        ],
        "file: empty": ["DELETE FROM file"],
        "file: no seed": ["DELETE FROM file WHERE name = 'seed'"],
        "file: no epoch": ["DELETE FROM file WHERE name = 'epoch'"],
        "file: seed of text": ["UPDATE file SET value = 'x' WHERE name = 'seed'"],
        "file: negative seed": ["UPDATE file SET value = -1 WHERE name = 'seed'"],
        "file: epoch of text": ["UPDATE file SET value = 'x' WHERE name = 'epoch'"],
        "file: no text": ["UPDATE file SET value = 5 WHERE name = 'uuid'"],
        "clients: checked": [
            "ALTER TABLE clients RENAME TO c",
            f"CREATE TABLE clients (topic, name, next, claimed, epoch, batches, seen, CHECK ({like} OR 1))",
        ],
        "trigger": ["CREATE TRIGGER t AFTER INSERT ON messages_1 BEGIN DELETE FROM messages_1; END"],
        "view": ["CREATE VIEW v AS SELECT 1"],
        "search index": ["CREATE VIRTUAL TABLE s USING fts5(text)"],
        "table that computes": [f"CREATE TABLE t (a, b AS {like})"],
        "table that checks": [f"CREATE TABLE t (a, CHECK ({like}))"],
        "index that computes": ["CREATE TABLE t (a)", f"CREATE INDEX i ON t ({like})"],
        "table named as a function": ["CREATE TABLE carray (value)"],
        "two tables in one place": [
            "PRAGMA writable_schema = on",
            "UPDATE sqlite_master SET rootpage = (SELECT max(rootpage) FROM sqlite_master) WHERE name = 'cursors'",
        ],
        "offset beyond all": [put(b'{"a":1}', offset=last)],
        "offsets below all": ["UPDATE messages_1 SET offset = offset - 9"],
        "time beyond all": ["UPDATE messages_1 SET time = 1 << 62"],
        "time before all": ["UPDATE messages_1 SET time = -(1 << 62)"],
        "first beyond all": [f"UPDATE topics SET first = {last}"],
        "codec that runs code": ["UPDATE topics SET codec = 'pickle'"],
        "client beyond all": [f"UPDATE clients SET next = {last}, claimed = {last}, batches = {last}, seen = {last}"],
        "client before all": [
            "UPDATE clients SET next = -5, claimed = -7, batches = -1, epoch = -1, seen = -(1 << 62)"
        ],
        "claim beyond all": [f"UPDATE claims SET first = 1, stop = {last}, expires = {last}, attempt = {last}"],
        "claim of nobody": [
            "UPDATE claims SET worker = 'x', process = 'h@1/../../../etc:1:1', first = 5, stop = 3, number = -1"
        ],
        "JSON too deep": [put(b"[" * 100_000 + b"]" * 100_000)],
        "JSON of too many fields": [put(json.dumps({f"f{n}": n for n in range(6000)}).encode())],
        "headers: a stump": [put(b'{"a":1}', headers="{")],
        "headers: nested": [put(b'{"a":1}', headers='{"a":{"b":1}}')],
        "id of nothing": [f"UPDATE id_runs SET first = -5, stop = {last}"],
        "id without a run": [f"UPDATE ids SET run = {last}"],
        "runs beyond all": [f"UPDATE id_runs SET number = {2**63 - 1}"],
        "ids that are no JSON": ["UPDATE id_runs SET ids = '{'"],
        "ids that are no text": ["UPDATE id_runs SET ids = '[1]'"],
        "cursor that is no JSON": ["UPDATE cursors SET value = '{'"],
    }


def harmless_others():
    return {
        "table of a user": ["CREATE TABLE t (a, b)", "CREATE INDEX i ON t (b)", "INSERT INTO t VALUES (1, 2)"],
        "statistics": ["ANALYZE"],
        "small pages": ["PRAGMA journal_mode = delete", "PRAGMA page_size = 512", "VACUUM"],
        "name of a topic": ["UPDATE topics SET name = '<script>alert(1)</script>'"],
        "large number": [put(b'{"a":' + b"9" * 4000 + b"}")],
        "two fields of one name": [put(b'{"a":1,"a":{"b":2}}')],
        "line feed": [put(b'{"a":\n1}')],
        "schema_cache: a stump": ["INSERT INTO schema_cache VALUES (1, 1, 4, '{', 0)"],
        "schema_cache: deep": [
            "INSERT INTO schema_cache VALUES (1, 1, 4, replace(hex(zeroblob(100000)), '0', '['), 0)"
        ],
        "schema_cache: beyond all": [f"INSERT INTO schema_cache VALUES (1, -5, {2**63 - 1}, 'null', 0)"],
    }


def run(tmp_path, cases):
    """What happened to each file: the error of each step, or None."""
    paths = []
    for name, edits in cases.items():
        path = tmp_path / f"{name.replace('/', '-')}.db"
        edited(path, *(edits if isinstance(edits, list) else [edits]))
        paths.append(str(path))
    script = Path(__file__).with_name("hostile.py")
    done = subprocess.run([sys.executable, str(script), *paths], capture_output=True, text=True, timeout=280)
    lines = [json.loads(line.rpartition("\r")[2]) for line in done.stdout.split("\n") if line]
    assert done.returncode == 0, (done.returncode, lines[-1], done.stderr[-500:])
    strange = [line for line in lines if "error" in line and not line["ours"]]
    assert not strange, "\n".join(map(str, strange))
    found = {Path(path).stem: {} for path in paths}
    for line in lines:
        found[Path(line["file"]).stem][line["step"]] = line.get("error")
    return found


def parts(cases, count):
    """Groups, so that several processes can run at a time."""
    names = sorted(cases)
    return [{name: cases[name] for name in names[part::count]} for part in range(count)]


@pytest.mark.parametrize("part", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_segment_of_anybody_is_refused(tmp_path, part):
    canary = tmp_path / "canary"
    found = run(tmp_path, parts(segments(canary), 2)[part])
    for name, steps in found.items():
        if name in ("no rows", "less than no rows", "too many rows"):  # the engine has noticed
            assert steps["iterate r"] in ("CorruptLogError", "DamagedError"), (name, steps)
            continue
        assert steps["iterate r"] == "DecodeError", (name, steps)
        assert steps["batch w"] == "DecodeError", (name, steps)
        assert steps["pandas r"] == ("DecodeError" if name != "headers that are no JSON" else None), (name, steps)
        assert steps["dead letters w"] is None, (name, steps)
        assert steps["put w"] is None, (name, steps)
    assert not canary.exists()


@pytest.mark.slow
@pytest.mark.parametrize("part", range(2))
def test_a_segment_of_anybody_does_nothing_but_being_read(tmp_path, part):
    canary = tmp_path / "canary"
    found = run(tmp_path, parts(harmless_segments(canary), 2)[part])
    assert all(steps["put w"] is None and steps["verify r"] is None for steps in found.values())
    assert not canary.exists()


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in (1, 2))])
def test_a_file_of_anybody_is_refused(tmp_path, part):
    found = run(tmp_path, parts(others(), 3)[part])
    assert [name for name, steps in found.items() if not any(steps.values())] == []


def test_what_others_may_do_to_a_file(tmp_path):
    found = run(tmp_path, harmless_others())
    for name, steps in found.items():
        failed = {step: error for step, error in steps.items() if error and not step.endswith(" r")}
        assert failed == {} or name in ("name of a topic", "large number"), (name, failed)


@pytest.mark.parametrize("value", [b"", b'{"a": 1}\n{"a": 2}'], ids=["a blank line", "two lines"])
def test_a_message_that_is_not_one_line_of_json_moves_no_other(tmp_path, value):
    path = tmp_path / "lines.db"
    edited(path, put(value), put(b'{"a":5}', offset=5))
    with pqlog.open(path, readonly=True) as log:
        for read in (log.to_pandas, log.to_arrow, lambda: list(log.chunks(2)), lambda: list(log)):
            with pytest.raises(pqlog.DecodeError) as raised:
                read()
            assert raised.value.offset == 4


BOMBS = {
    "zeros": lambda: segment(of([0] * 40_000_000, pa.int64()), rows=40_000_000),
    "columns of zeros": lambda: segment(pa.table({f"c{n}": pa.array([0] * 65_536, pa.int64()) for n in range(2_000)})),
    "one text": lambda: segment(of(["x" * (2000 << 20), "b"], pa.large_string())),
    "many columns": lambda: segment(pa.table({f"c{n}": [1, 2, 3] for n in range(6_000)})),  # 5,000 are allowed
    "large column": lambda: [
        "DROP TABLE messages_1",
        "CREATE TABLE messages_1 (offset, value AS (zeroblob(900000000)))",
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(BOMBS))
def test_a_bomb_does_not_go_off(tmp_path, name):
    found = run(tmp_path, {name: BOMBS[name]()})
    assert any(found[name].values())


@pytest.mark.parametrize(
    ("partition", "partitions"), [("0", "0"), ("0", "-1"), ("0", "2"), ("0", "1 << 40"), ("-1", "1"), ("5", "3")]
)
def test_numbers_of_partitions_that_no_pqlog_wrote(path, partition, partitions):
    with pqlog.open(path) as log:
        log.put(1)
        log.topic("whole").put(2)
    rows.change(apsw.Connection(str(path)), "topics", "name = 'main'", partition=partition, partitions=partitions)
    for readonly in (True, False):
        with pytest.raises(pqlog.errors.CorruptLogError):
            pqlog.open(path, readonly=readonly)
    with pqlog.open(path, "whole") as log:
        log.verify()
    salvaged = pqlog.salvage(path, path.with_name("new.db"))
    assert salvaged.messages == 2
