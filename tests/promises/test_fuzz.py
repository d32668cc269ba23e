"""Whatever is in the file, whatever the names and values: an error of ours or the right answer, and soon."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pqlog
from tests import seams
from tests.processes import run

same_file = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@same_file
@given(data=st.binary(max_size=3000), header=st.booleans(), readonly=st.booleans())
def test_random_bytes_are_refused_and_left_as_they_are(tmp_path, data, header, readonly):
    path = tmp_path / "a.db"
    for old in tmp_path.iterdir():
        old.unlink()
    data = b"SQLite format 3\0" + data if header else data
    path.write_bytes(data)
    if not data:
        return
    with pytest.raises(pqlog.StoreError):
        pqlog.open(path, readonly=readonly)
    assert path.read_bytes() == data


EDITS = """
import pathlib, random, resource, sys, warnings
import pandas, pyarrow, pqlog
warnings.simplefilter("ignore")
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
folder, seed, rounds = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
whole = (folder / "whole.db").read_bytes()
chance = random.Random(seed)
right = None

def values(log):
    return {name: [message.value for message in log.topic(name)] for name in log.topics()}

with pqlog.open(folder / "whole.db", readonly=True) as log:
    right = values(log)
said = answered = 0
for number in range(rounds):
    data = bytearray(whole)
    for _ in range(chance.choice([1, 1, 3, 30])):
        page = chance.randrange(len(data) // 4096) * 4096
        at = page + (chance.randrange(60) if chance.random() < 0.5 else chance.randrange(4096))
        length = chance.choice([1, 1, 2, 4, 40])
        data[at : at + length] = chance.choice([b"\\0", b"\\xff", b"\\x7f", chance.randbytes(1)]) * length
    path = folder / f"{seed}-{number}.db"
    path.write_bytes(data[: chance.randrange(len(data))] if chance.random() < 0.05 else data)
    copy = folder / f"{seed}-{number}-salvaged.db"
    for use in (
        lambda: pqlog.open(path, readonly=True),
        lambda: pqlog.open(path),
    ):
        try:
            with use() as log:
                for look in (
                    lambda: values(log), log.clients, log.verify, log.to_pandas, lambda: log[-1:].to_arrow(),
                    lambda: list(log.get("c")), lambda: log.put({"n": 1}), lambda: log.client("etl").claims(),
                    lambda: [list(batch) for batch in log.batches("etl")], lambda: log.history(since="1h").to_pandas(),
                    lambda: list(log.history(key="1")), lambda: log.trim(5), lambda: repr(log) + repr(log.clients()),
                ):
                    try:
                        look()
                        answered += 1
                    except pqlog.Error:
                        said += 1
        except pqlog.Error:
            said += 1
    path.write_bytes(data)
    for left in folder.glob(path.name + "-*"):
        left.unlink()
    try:
        found = pqlog.salvage(path, copy)
    except pqlog.Error:
        said += 1
    else:
        with pqlog.open(copy, readonly=True) as log:
            for name, kept in values(log).items():
                wrong = [value for value in kept if value not in right.get(name, kept)]
                assert not wrong, (number, name, wrong[:3])
    for left in folder.glob(f"{seed}-{number}*"):
        left.unlink()
print(said, answered)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_random_edits_of_a_file(tmp_path, seed):
    """In a process of its own: a crash or too much memory is a failure too."""
    import pandas as pd

    with pqlog.open(tmp_path / "whole.db") as log:
        log.put_many([{"n": n, "text": "x" * 40} for n in range(200)], key="n")
        log.put_many(pd.DataFrame({"n": range(200, 300), "at": pd.Timestamp("2026-11-24")}))
        for n in range(300, 320):
            log.put({"n": n}, headers={"h": "x"}, id=str(n))
        list(log.topic("raw", codec="bytes").get("r"))
        log.topic("raw").put(b"abc")
        for batch in log.batches("etl", size=50):
            if batch.number == 3:
                break
    said, answered = map(int, run(EDITS, tmp_path, seed, 60, timeout=280).split())
    assert said > 100
    assert answered > 100


names = st.text(min_size=1, max_size=50) | st.sampled_from(
    [
        "main'; DROP TABLE topics; --",
        '"',
        "[x]",
        "\0",
        "a\0b",
        "../../etc/passwd",
        "messages_1",
        "x" * 10_000,
        " ",
        "\n",
        "ﬀ",
        "😀",
    ]
)


@same_file
@given(topic=names, client=names, key=names, cursor=names)
def test_names_are_only_names(topic, client, key, cursor):
    with pqlog.open(":memory:") as log:
        other = log.topic(topic)
        other.put(1, key=key, headers={key.replace("\0", "-"): client}, id=cursor)
        assert [m.key for m in other] == [key]
        assert list(other.get(client)) == [1]
        assert [c.client for c in other.clients()] == [client]
        assert set(log.topics()) == {"main", topic}
        other.put_many([2], cursor=(cursor, 7, log.cursor(cursor)))
        assert log.cursor(cursor) == 7
        assert [len(batch) for batch in other.batches(client)] == [1]
        assert other.put(1, id=cursor) == 1
        repr(other), repr(other.clients()), repr(list(other))


HOSTILE = [
    b"[" * 100_000 + b"]" * 100_000,
    b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    b"1" * 100_000,
    b"1e999999999",
    b"-",
    b"\xff\xfe",
    b'"\xed\xa0\x80"',
    b'"\\ud800"',
    b'{"a":1,"a":2}',
    b"NaN",
    b"",
    b"\0",
    b'{"a": "' + b"x" * 1_000_000,
    b'{"__class__": "os.system"}',
    json.dumps({f"k{n}": n for n in range(20_000)}).encode(),
]


@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
def test_json_that_no_pqlog_wrote(path, data):
    with pqlog.open(path) as log:
        seams.put_encoded(log, b'{"n": 1}', data, b'{"n": 3}')
    with pqlog.open(path) as log:
        for read in (
            lambda: list(log),
            lambda: list(log.get("c")),
            lambda: log.to_pandas(),
            lambda: log.to_pandas(flatten=True),
            lambda: log.to_polars(),
            lambda: [list(batch) for batch in log.batches("b")],
        ):
            try:
                read()
            except pqlog.Error as error:
                assert len(str(error)) < 2_000, "an error is to be read"
        assert log[3].value == {"n": 3}


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(None, id="nested lists"),
        10**5000,
        float("inf"),
        "\ud800",
        {"\ud800": 1},
        {1: "a", (1, 2): "b"},
        b"\xff" * 100,
        object,
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_that_are_hard_to_encode(log, value):
    if value is None:
        value = []
        for _ in range(100_000):
            value = [value]
    try:
        log.put(value)
    except pqlog.EncodeError as error:
        assert len(str(error)) < 2_000
    log.put("next")
    assert log[-1].value == "next"
    list(log)
