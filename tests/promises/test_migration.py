"""A queue of persistent-queue-log or persist-queue becomes a log; nothing is lost, the old file is not touched."""

import hashlib
import json
import os
import pickle
import random

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pqlog
from pqlog import migration
from pqlog.store.sqlite.foreign import open_foreign
from pqlog.store.sqlite.store import SqliteStore
from tests.messages import is_same
from tests.processes import run, run_until_killed, start
from tests.simulation.disk import Disk, write

TABLES = """
CREATE TABLE IF NOT EXISTS log (id INTEGER PRIMARY KEY AUTOINCREMENT, data BLOB);
CREATE TABLE IF NOT EXISTS clients (client_id TEXT PRIMARY KEY, acknowledged INTEGER);
"""


def old_queue(path, values, clients=None, first=1, wal=False, raw=False):
    """A file as persistent-queue-log leaves it; `values` are pickled unless they already are (`raw`)."""
    db = apsw.Connection(str(path))
    if wal:
        db.pragma("journal_mode", "wal")
    for statement in TABLES.split(";"):
        db.execute(statement)
    with db:
        for id, value in enumerate(values, first):
            db.execute("INSERT INTO log VALUES (?, ?)", (id, value if raw else pickle.dumps(value)))
        for client, acknowledged in (clients or {}).items():
            db.execute("INSERT INTO clients VALUES (?, ?)", (client, acknowledged))
    db.close()
    return path


@pytest.fixture
def old(tmp_path):
    (tmp_path / "old").mkdir()
    return tmp_path / "old" / "queue.db"


def state_of(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def values_of(path, codec=None, topic="main"):
    with pqlog.open(path, topic, codec, readonly=True) as log:
        assert log.verify() == []
        return [message.value for message in log]


@pytest.mark.parametrize("wal", [False, True])
def test_ids_become_offsets_and_clients_keep_their_positions(old, path, wal):
    old_queue(old, [{"n": n} for n in range(10)], {"": 10, "billing": 3, "new": -1}, wal=wal)
    before = state_of(old.parent)
    done = pqlog.migrate(old, path, trust_pickle=True)
    assert (done.program, done.messages, done.topics) == ("persistent-queue-log", 10, {"main": "json"})
    assert (done.clients, done.notes) == (3, [])
    assert state_of(old.parent) == before
    with pqlog.open(path) as log:
        assert [(message.offset, message.value["n"]) for message in log] == [(n + 1, n) for n in range(10)]
        assert {client.client: client.position for client in log.clients()} == {"": 11, "billing": 4, "new": 1}
        assert [value["n"] for value in log.get("billing")] == list(range(3, 10))
        assert log.put("next") == 11
        assert log.verify() == []


def test_ids_that_begin_later_are_offsets_too(old, path):
    old_queue(old, [{"n": n} for n in range(5)], {"billing": 102, "slow": 7}, first=101)
    pqlog.migrate(old, path, trust_pickle=True)
    with pqlog.open(path) as log:
        assert (log.first, log.last, len(log)) == (101, 105, 5)
        assert (log.client("billing").position, log.client("billing").lag, log.client("slow").lag) == (103, 3, 5)
        assert [value["n"] for value in log.get("slow")] == list(range(5))
        assert log.to_pandas()["n"].tolist() == list(range(5))
        assert (log.put(1), log.trim(before=104, force=True), log.verify()) == (106, 3, [])


def test_ids_with_gaps_are_counted_from_1_and_said_to_be(old, path):
    old_queue(old, range(10), {"billing": 6})
    db = apsw.Connection(str(old))
    db.execute("DELETE FROM log WHERE id IN (2, 3, 8)")
    db.close()
    done = pqlog.migrate(old, path, trust_pickle=True)
    assert "gaps between the ids" in done.notes[0]
    with pqlog.open(path) as log:
        assert [message.value for message in log] == [0, 3, 4, 5, 6, 8, 9]
        assert list(log.get("billing")) == [6, 8, 9]


@pytest.mark.parametrize("value", [(1, 2), {1: 2}, float("nan"), b"bytes", {"a", "b"}, "\ud800", -0.0 + 2**70, 1j])
def test_what_json_would_change_makes_it_a_pickle_topic(old, path, value):
    old_queue(old, [{"plain": 1}, value] if value == value else [value])
    done = pqlog.migrate(old, path, trust_pickle=True)
    json_keeps_it = isinstance(value, float) and value == value
    assert done.topics == {"main": "json" if json_keeps_it else "pickle"}
    found = values_of(path, "pickle" if not json_keeps_it else None)
    assert is_same(found[-1], value)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=9)
    | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(values=st.lists(plain, max_size=4))
def test_values_are_what_they_were(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("migration")
    old_queue(folder / "old.db", values)
    (codec,) = pqlog.migrate(folder / "old.db", folder / "new.db", trust_pickle=True).topics.values()
    found = values_of(folder / "new.db", "pickle" if codec == "pickle" else None)
    assert [repr(value) for value in found] == [repr(value) for value in values]
    simple = (type(None), bool, str)
    if all(isinstance(value, simple) and "\ud800" not in repr(value) for value in values):
        assert codec == ("json" if not any("\\ud" in repr(value) for value in values) else "pickle")


class Harmful:
    """What a file from somebody else may contain."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_is_unpickled_unless_trusted(old, path, tmp_path):
    old_queue(old, [{"n": 1}, Harmful(tmp_path / "harm")], {"billing": 1})
    with pytest.raises(
        pqlog.UntrustedPicklesError, match=r"2 pickled messages and 1 clients.*trust_pickle=True"
    ) as caught:
        pqlog.migrate(old, path)
    assert (caught.value.messages, caught.value.clients) == (2, 1)
    assert not (tmp_path / "harm").exists()
    assert not path.exists()


def test_pickles_of_python_2(old, path):
    # protocol 0 of Python 2, stored as text: {'city': 'Brno'}, u'caf\xe9', and byte strings in UTF-8 and in Latin-1
    texts = [
        "(dp0\nS'city'\np1\nS'Brno'\np2\ns.",
        "Vcaf\\u00e9\np0\n.",
        "S'caf\\xc3\\xa9'\np0\n.",
        "S'caf\\xe9'\np0\n.",
    ]
    old_queue(old, texts, raw=True)
    assert pqlog.migrate(old, path, trust_pickle=True).topics == {"main": "json"}
    assert values_of(path) == [{"city": "Brno"}, "café", "café", "café"]


def test_pickles_of_python_2_in_a_pickle_topic(old, path):
    old_queue(old, ["S'caf\\xc3\\xa9'\np0\n.", pickle.dumps((1, 2))], raw=True)
    assert pqlog.migrate(old, path, trust_pickle=True).topics == {"main": "pickle"}
    assert values_of(path, "pickle") == ["café", (1, 2)]


def test_what_cannot_be_unpickled_here_is_kept_as_it_is(old, path):
    missing = b"\x80\x04\x8c\x04shop\x8c\x05Order\x93)\x81."
    old_queue(old, [pickle.dumps(1), missing], raw=True)
    assert pqlog.migrate(old, path, trust_pickle=True).topics == {"main": "pickle"}
    with pqlog.open(path, codec="pickle") as log:
        assert log[1].value == 1
        with pytest.raises(pqlog.DecodeError, match="shop"):
            log[2]


def test_an_empty_queue(old, path):
    old_queue(old, [], {"billing": -1})
    assert pqlog.migrate(old, path, trust_pickle=True).messages == 0
    with pqlog.open(path) as log:
        assert (len(log), log.client("billing").lag, log.put("first")) == (0, 0, 1)


WRITER = """
import apsw, os, pickle, signal, sys
db = apsw.Connection(sys.argv[1])
if sys.argv[2] == "wal":
    db.pragma("journal_mode", "wal")
    db.wal_autocheckpoint(0)
db.pragma("cache_size", 2)
for n in range(100):
    db.execute("INSERT INTO log (data) VALUES (?)", (pickle.dumps(n),))
db.execute("BEGIN")
for n in range(2000):
    db.execute("INSERT INTO log (data) VALUES (?)", (pickle.dumps("x" * 100),))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("mode", ["journal", "wal"])
def test_an_old_file_that_a_crash_left(old, path, mode):
    """Its journal must be rolled back, or its write-ahead log read, without changing the old file."""
    old_queue(old, [])
    run_until_killed(WRITER, old, mode)
    assert (old.parent / f"queue.db-{mode}").stat().st_size
    (old.parent / "queue.db-shm").unlink(missing_ok=True)
    before = state_of(old.parent)
    assert pqlog.migrate(old, path, trust_pickle=True).messages == 100
    after = state_of(old.parent)
    after.pop("queue.db-shm", None)
    assert after == before
    assert values_of(path) == list(range(100))


def test_the_new_path_must_be_free(old, path):
    old_queue(old, [1])
    with pytest.raises(pqlog.ArgumentError, match="is the old file"):
        pqlog.migrate(old, old, trust_pickle=True)
    with pqlog.open(path) as log:
        log.put("mine")
    with pytest.raises(pqlog.ArgumentError, match="messages of its own"):
        pqlog.migrate(old, path, trust_pickle=True)
    assert values_of(path) == ["mine"]
    with pytest.raises(pqlog.StoreError, match="does not exist"):
        pqlog.migrate(old.with_name("other.db"), path)
    with pytest.raises(pqlog.NotALogError, match="neither"):
        pqlog.migrate(path, path.with_name("third.db"))


def test_a_second_run_does_nothing_and_one_of_another_file_is_refused(old, path, tmp_path):
    old_queue(old, [1, 2], {"billing": 1})
    pqlog.migrate(old, path, trust_pickle=True)
    with pqlog.open(path) as log:
        log.put("new life")
        list(log.get("billing"))
    again = pqlog.migrate(old, path, trust_pickle=True)
    assert (again.messages, again.notes) == (0, ["It was migrated before: nothing was done."])
    with pqlog.open(path) as log:
        assert log.client("billing").position == 4
    other = old_queue(tmp_path / "other.db", ["other"])
    with pytest.raises(pqlog.ArgumentError, match="was not migrated from"):
        pqlog.migrate(other, path, trust_pickle=True)
    old_queue(old, [3], first=3)
    with pytest.raises(pqlog.ArgumentError, match="has 1 new message since"):
        pqlog.migrate(old, path, trust_pickle=True)


def check(path):
    with pqlog.open(path, readonly=True) as log:
        assert [message.value["n"] for message in log] == list(range(25))
        assert [message.offset for message in log] == list(range(11, 36))
        assert (log.client("billing").position, log.client("new").lag) == (16, 25)
        assert log.verify() == []


def test_a_power_cut_at_any_event_of_it(old, tmp_path, monkeypatch):
    monkeypatch.setattr(migration, "STEP_ROWS", 7)
    old_queue(old, [{"n": n} for n in range(25)], {"billing": 15, "new": -1}, first=11)
    write(tmp_path / "new", {})
    disk = Disk(tmp_path / "new")
    with disk.listening(), open_foreign(str(old)) as file:
        log = SqliteStore(str(tmp_path / "new" / "a.db"), vfs=disk.vfs_name)
        migration._Migrating(file, log).run(lambda messages: None)
        log.close()
    check(tmp_path / "new" / "a.db")
    chance = random.Random(1)
    resumed = 0
    for at in range(0, disk.now + 1, 2):
        folder = tmp_path / f"cut-{at}"
        write(folder, disk.cut(at, chance))
        done = pqlog.migrate(old, folder / "a.db", trust_pickle=True)
        resumed += 0 < done.messages < 25
        check(folder / "a.db")
    assert disk.now > 60
    assert resumed > 5


# Reports every twenty messages in each of the three passes: examine, copy, compare.
KILLED = """
import contextlib, sys
from pqlog import extras, migration
migration.STEP_ROWS = 20

@contextlib.contextmanager
def told(*_):
    done = 0
    def report(messages):
        nonlocal done
        before, done = done, done + messages
        for step in range(before // 20, done // 20):
            print(f"{step:50}", flush=True)
    yield report

extras.progress_bar = told
migration.migrate(sys.argv[1], sys.argv[2], trust_pickle=True)
"""


def test_killed_again_and_again_it_comes_to_its_end(old, path):
    """At any speed: it reports its steps to a small pipe, and blocks when that is full and nobody reads."""
    old_queue(old, [{"n": n} for n in range(20_000)], {"billing": 15_000})
    chance = random.Random(5)
    kills = 0
    for _ in range(12):
        with start(KILLED, old, path, text=False, bufsize=0, pipesize=4096) as process:
            told = [process.stdout.readline() for _ in range(chance.randrange(100, 1500))]
            process.kill()
        assert process.was_killed or process.returncode == 0
        kills += process.was_killed
        if not told[-1]:
            break
    pqlog.migrate(old, path, trust_pickle=True)
    with pqlog.open(path) as log:
        assert [value["n"] for value in log.history().values()] == list(range(20_000))
        assert (log.client("billing").position, log.verify()) == (15_001, [])
    assert kills > 2


def persist(script, folder):
    """The queue that a script makes with persist-queue, in another process, since it uses the module sqlite3."""
    head = (
        "import sys, persistqueue, persistqueue.serializers.json; s = persistqueue.serializers; folder = sys.argv[1]\n"
    )
    run("import warnings; warnings.simplefilter('ignore')\n" + head + script, folder)


def test_a_queue_of_persist_queue(tmp_path, path):
    persist(
        "q = persistqueue.SQLiteQueue(folder, auto_commit=True)\n"
        "[q.put({'n': n}) for n in range(10)]\n"
        "[q.get() for n in range(3)]\n",
        tmp_path / "q",
    )
    before = state_of(tmp_path / "q")
    with pytest.raises(pqlog.UntrustedPicklesError, match="7 pickled"):
        pqlog.migrate(tmp_path / "q", path)
    done = pqlog.migrate(tmp_path / "q", path, trust_pickle=True)
    assert (done.program, done.messages, done.topics) == ("persist-queue", 7, {"main": "json"})
    assert state_of(tmp_path / "q") == before
    with pqlog.open(path) as log:
        assert [value["n"] for value in log.get()] == list(range(3, 10))
        db = apsw.Connection(str(tmp_path / "q" / "data.db"))
        times = [time for (time,) in db.execute("SELECT timestamp FROM queue_default")]
        db.close()
        assert [message.time.timestamp() for message in log] == pytest.approx(times, abs=1e-5)


def test_an_ack_queue_of_persist_queue(tmp_path, path):
    persist(
        "q = persistqueue.SQLiteAckQueue(folder, name='jobs')\n"
        "[q.put(n) for n in range(10)]\n"
        "items = [q.get() for n in range(4)]\n"
        "q.ack(items[0]); q.ack(items[2]); q.ack_failed(items[1])\n",
        tmp_path / "q",
    )
    done = pqlog.migrate(tmp_path / "q" / "data.db", path, trust_pickle=True)
    assert done.topics == {"jobs": "json", "jobs.dead": "json"}
    assert done.notes == ["2 items of ack_queue_jobs were acknowledged before, and are not copied."]
    assert values_of(path, topic="jobs") == [3, *range(4, 10)]
    assert values_of(path, topic="jobs.dead") == [1]


def test_two_queues_of_persist_queue_in_one_file_are_two_topics(tmp_path, path):
    persist(
        "for kind in (persistqueue.SQLiteQueue, persistqueue.SQLiteAckQueue):\n"
        "    q = kind(folder, auto_commit=True)\n"
        "    [q.put((kind.__name__, n)) for n in range(5)]\n"
        "persistqueue.SQLiteQueue(folder, name='other', auto_commit=True).put(1)\n",
        tmp_path / "q",
    )
    done = pqlog.migrate(tmp_path / "q", path, trust_pickle=True)
    assert done.topics == {"ack_queue_default": "pickle", "other": "json", "queue_default": "pickle"}
    assert values_of(path, "pickle", "ack_queue_default") == [("SQLiteAckQueue", n) for n in range(5)]
    assert values_of(path, "pickle", "queue_default") == [("SQLiteQueue", n) for n in range(5)]


def test_a_queue_of_persist_queue_in_json_needs_no_trust(tmp_path, path):
    persist(
        "q = persistqueue.SQLiteQueue(folder, auto_commit=True, serializer=s.json)\nq.put({'city': 'Brno'})\n",
        tmp_path / "q",
    )
    assert pqlog.migrate(tmp_path / "q", path).topics == {"main": "json"}
    assert values_of(path) == [json.loads('{"city": "Brno"}')]


@pytest.mark.parametrize(
    ("items", "says"),
    [
        ([b"\x93\x01\x02\x03"], "neither a pickle nor JSON"),
        ([b"\x80"], "neither a pickle nor JSON"),  # {} in msgpack, [] in cbor2: the first byte of a pickle
        ([b"1", b"2", b"3"], "one number as JSON and another as msgpack"),  # 49, 50, 51
        ([b"85", b"912", b"9.5", b"7"], "one number as JSON and another as msgpack or cbor2"),
        ([b"1", b"\x80"], "neither a pickle nor JSON"),
    ],
)
def test_other_serializers_of_persist_queue_are_refused(tmp_path, path, items, says):
    a_queue_of(items, tmp_path / "q")
    with pytest.raises(pqlog.ArgumentError, match=says):
        pqlog.migrate(tmp_path / "q", path, trust_pickle=True)


def a_queue_of(items, folder):
    persist("persistqueue.SQLiteQueue(folder, auto_commit=True)\n", folder)
    db = apsw.Connection(str(folder / "data.db"))
    db.executemany("INSERT INTO queue_default (data, timestamp) VALUES (?, 0)", [(item,) for item in items])
    db.close()


def test_small_numbers_are_json_where_another_item_is(tmp_path, path):
    a_queue_of([b"1", b"22", b"85", b'"x"'], tmp_path / "q")
    assert pqlog.migrate(tmp_path / "q", path).topics == {"main": "json"}
    assert values_of(path) == [1, 22, 85, "x"]


@pytest.mark.parametrize("kind", ["UniqueQ", "FILOSQLiteQueue", "FILOSQLiteAckQueue", "UniqueAckQ"])
def test_every_kind_of_persist_queue_has_its_name(tmp_path, path, kind):
    persist(f"persistqueue.{kind}(folder, auto_commit=True).put(1)\n", tmp_path / "q")
    assert pqlog.migrate(tmp_path / "q", path, trust_pickle=True).topics == {"main": "json"}


def test_priorities_are_dropped_with_a_note(tmp_path, path):
    persist(
        "from persistqueue.priorityqueue import PriorityQueue\n"
        "q = PriorityQueue(folder, auto_commit=True)\nq.put('late', priority=5)\nq.put('first', priority=1)\n",
        tmp_path / "q",
    )
    done = pqlog.migrate(tmp_path / "q", path, trust_pickle=True)
    assert done.topics == {"main": "json"}
    assert done.notes == [
        "The items of priority_queue_default have 2 priorities, which a log does not have: they come as they were put."
    ]
    assert values_of(path) == ["late", "first"]
