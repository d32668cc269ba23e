"""Views and the explorer of topics of several partitions: places are nowhere shown."""

import re

import pandas as pd
import pytest

import pqlog
from pqlog.notebook import explorer as explorers
from pqlog.notebook.explorer import BINS
from pqlog.partitioning import partition_of

CITIES = [f"city {n}" for n in range(7)]
BUSY = partition_of("city 3", 4)


@pytest.fixture
def log(path):
    """A topic of four partitions with 200 messages, of which a client has read some."""
    with pqlog.open(path, "orders", partitions=4) as log:
        for n in range(100):
            log.put({"n": n, "city": CITIES[n % 7]}, key=CITIES[n % 7])
        log.put_many([{"n": n, "city": CITIES[n % 7]} for n in range(100, 200)], key="city")
        for count, _ in enumerate(log.get("reader")):
            if count == 50:
                break
        log.topic("plain").put_many(range(30))
        yield log


def rows_of(table):
    """The cells of a table of HTML."""
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", table)]


def where(messages):
    return [[str(message.partition), f"{message.offset:,}"] for message in messages]


def shown(explorer):
    """Partition and offset of each message on the page."""
    head, *rows = rows_of(explorer._table.value)
    assert head[:2] == ["partition", "offset"]
    return [row[:2] for row in rows]


# views


def test_a_log_says_how_many_partitions_its_topics_have(log):
    text = log._repr_html_()
    topics, clients = (rows_of(table) for table in re.findall(r"<table>.*?</table>", text))
    assert topics[0][:4] == ["topic", "codec", "partitions", "messages"]
    assert [row[:4] for row in topics[1:]] == [["orders", "json", "4", "200"], ["plain", "json", "1", "30"]]
    position = ", ".join(f"{number}: {at}" for number, at in log.client("reader").position.items())
    assert clients[1][2:4] == [position, "150"]


def test_a_log_of_plain_topics_says_nothing_of_partitions(path):
    with pqlog.open(path) as log:
        log.put_many([1, 2])
        list(log.get("c"))
        for thing in (log, log.topic("main"), log.clients(), log[:]):
            assert "partition" not in thing._repr_html_()


def test_a_topic_shows_its_partitions_and_the_latest_of_all(log):
    text = log.topic("orders")._repr_html_()
    assert "200 messages" in text
    assert "offsets" not in text
    parts, latest, clients = (rows_of(table) for table in re.findall(r"<table>.*?</table>", text))
    assert parts == [
        ["partition", "messages", "first", "last"],
        *(
            [str(number), str(len(part)), *(str(at or "") for at in (part.first, part.last))]
            for number, part in ((number, log.partition(number)) for number in range(4))
        ),
    ]
    assert [row[:2] for row in latest[1:]] == where(list(log)[-5:])
    assert clients[1][2] == "150"


def test_a_history_and_a_message_name_the_partition(log):
    for history in (log.history(), log.history(since="1h"), log.history(key="city 3")):
        first, *_ = messages = list(history)
        text = history._repr_html_()
        *_, table = re.findall(r"<table>.*?</table>", text)
        assert [row[:2] for row in rows_of(table)[1:]] == where(messages[:10])
        facts = dict(rows_of(first._repr_html_()))
        assert (facts["offset"], facts["partition"]) == (str(first.offset), str(first.partition))
    one = log.partition(BUSY)[2:4]
    assert "offsets 2 to 3" in one._repr_html_()
    assert [row[:2] for row in rows_of(one._repr_html_())[1:]] == [[str(BUSY), "2"], [str(BUSY), "3"]]
    assert "not computed yet" in log.history().latest()._repr_html_()


def test_a_batch_and_its_clients(log):
    batch = log.client("etl").next_batch(size=3)
    text = batch._repr_html_()
    assert f"offsets {batch.first} to {batch.last}" in text
    assert [row[:2] for row in rows_of(text)[1:]] == [[str(batch.partition), str(n)] for n in range(1, 4)]
    assert ["&#x27;etl&#x27;", "200"] in [row[::2][:2] for row in rows_of(log.clients()._repr_html_())]


def test_positions_of_many_partitions_are_shown_in_short_and_in_full(path):
    with pqlog.open(path, "orders", partitions=64) as log:
        log.put_many([{"n": n} for n in range(1000)], key="n")
        list(log.get("c"))
        text = log.clients()._repr_html_()
        assert "<summary>0: " in text
        assert f"63: {log.client('c').position[63]}</pre>" in text


def test_what_cannot_be_decoded_is_shown_where_it_is(path):
    with pqlog.open(path, "orders", codec="pickle", partitions=3) as log:
        for n in range(9):
            log.put(n, key=str(n))
        expected = where(log)
    with pqlog.open(path, "orders", readonly=True) as log:
        text = log.history()._repr_html_()
        assert text.count("it is a pickle") == 9
        assert [row[:2] for row in rows_of(text)[1:]] == expected
        assert shown(log.explore()) == expected


@pytest.mark.parametrize("damaged", [4, 11, 29])
def test_damage_is_shown_where_it_is(path, damaged):
    with pqlog.open(path, "orders", partitions=3) as log:
        for n in range(30):
            log.put({"n": f"<{n}>", "x": "y"}, key=str(n))
        expected = where(log)
    data = bytearray(path.read_bytes())
    data[data.index(f'{{"n":"<{damaged}>'.encode()) + 5] ^= 1
    path.write_bytes(data)
    with pqlog.open(path, "orders", readonly=True) as log:
        explorer = log.explore()
        pages, errors = shown(explorer), explorer._table.value.count("checksum")
        explorer._next.click()
        assert sorted(pages + shown(explorer)) == sorted(expected)  # on a page, what cannot be read comes last
        assert errors + explorer._table.value.count("checksum") == 1
        assert log.history()._repr_html_().count("checksum") == (damaged < 10)
        partition, offset = map(int, expected[damaged])
        with pytest.raises(pqlog.DamagedError, match=rf"seek\({offset + 1}, partition={partition}\)"):
            list(log)


# the explorer


def test_pages_are_of_the_merged_topic(log):
    explorer, messages = log.explore(), list(log)
    assert explorer._partition.layout.display != "none"
    assert explorer._where.value == "page 1 of 10, 200 messages"
    for page in range(10):
        assert shown(explorer) == where(messages[20 * page : 20 * page + 20])
        explorer._next.click()
    assert explorer._sort.value == "time"
    explorer._first.click()
    explorer._down.value = True
    assert shown(explorer) == where(messages[19::-1])
    explorer._sort.value = "partition"
    assert [partition for partition, _ in shown(explorer)] == sorted((p for p, _ in where(messages[:20])), reverse=True)
    assert explorer._error.value == ""


def test_one_partition_can_be_chosen(log):
    explorer = log.explore()
    number = next(number for number in range(4) if len(log.partition(number)) > 20)
    part = log.partition(number)
    explorer._next.click()
    explorer._partition.value = number
    assert explorer._where.value == f"page 1 of {-(-len(part) // 20)}, {len(part)} messages"
    assert shown(explorer) == where(part[1:21])
    assert explorer.frame["n"].tolist() == part.to_pandas()["n"].tolist()
    assert explorer.code == f"frame = log.partition({number}).history().to_pandas()"
    names = {"log": log}
    exec(explorer.code, names)
    pd.testing.assert_frame_equal(names["frame"], explorer.frame)
    explorer._topics.label = "plain"
    assert explorer._partition.layout.display == "none"
    assert explorer._where.value == "page 1 of 2, 30 messages"
    assert (explorer._sort.value, "partition" in explorer._table.value) == ("offset", False)
    explorer._topics.label = "orders"
    assert explorer._where.value == "page 1 of 10, 200 messages"
    assert explorer._sort.value == "time"


@pytest.mark.parametrize("part", [None, BUSY])
@pytest.mark.parametrize(
    "query",
    [
        *("CITY 3", 'key = "city 5"'),
        *(pytest.param(query, marks=pytest.mark.slow) for query in ("n = 123", "city = city 1", "nowhere", "")),
    ],
)
def test_a_search_its_frame_and_its_code_agree(log, query, part):
    explorer = log.explore()
    explorer._partition.value = part
    explorer.search(query)
    names = {"log": log}
    exec(explorer.code, names)
    pd.testing.assert_frame_equal(names["frame"], explorer.frame)
    found = len(explorer.frame)
    assert f"{found} {'found' if query else 'messages'}" in explorer._where.value
    if found:
        frame = explorer.frame.reset_index()
        assert shown(explorer) == frame[["_partition", "offset"]].astype(str).to_numpy().tolist()[:20]
    assert explorer._error.value == ""


def test_a_search_goes_on_when_asked(log, monkeypatch):
    monkeypatch.setattr(explorers, "SEARCH", 70)
    explorer = log.explore()
    explorer.search("city 3")
    assert "in 70 of 200 messages" in explorer._where.value
    explorer._search_on.click()
    explorer._search_on.click()
    assert "29 found in 200 of 200" in explorer._where.value
    assert explorer._search_on.disabled


def test_a_range_of_time_its_frame_and_its_code_agree(log):
    explorer = log.explore()
    explorer._range.value = (BINS // 4, BINS // 2)
    some = explorer.frame
    assert 0 < len(some) < 200
    assert f"{len(some)} messages" in explorer._where.value
    names = {"log": log}
    exec(explorer.code, names)
    pd.testing.assert_frame_equal(names["frame"], some)


def test_the_live_tail_shows_what_is_put_into_any_partition(log):
    explorer = log.explore()
    for n in range(200, 230):
        log.put({"n": n, "city": CITIES[n % 7]}, key=CITIES[n % 7])
        explorer._tail.value += 1
        assert shown(explorer)[-1:] == where(list(log)[-1:])
    assert explorer._where.value == "page 12 of 12, 230 messages"


def test_seek_of_one_partition_and_of_all_asks_first(log):
    explorer, before = log.explore(), log.client("reader").position
    explorer._to.value = "2"
    explorer._seek.click()
    assert "each with offsets of its own: choose one first" in explorer._error.value
    explorer._to.value = "start"
    explorer._seek.click()
    old = ", ".join(f"{number}: {at}" for number, at in before.items())
    assert explorer._question.value == (
        f"Move 'reader' from {old} to 0: 1, 1: 1, 2: 1, 3: 1? 50 messages will be redelivered, 0 skipped."
    )
    explorer._confirm.click()
    assert log.client("reader").position == dict.fromkeys(range(4), 1)
    explorer._to.value = "end"
    explorer._seek.click()
    log.put({"n": 1}, key="city 1")  # behind what was asked for
    explorer._confirm.click()
    assert log.client("reader").lag == 1
    explorer._partition.value = BUSY
    explorer._to.value = "2"
    explorer._seek.click()
    assert f"in partition {BUSY} from " in explorer._question.value
    explorer._confirm.click()
    assert log.client("reader").position[BUSY] == 2
    assert f"{BUSY}: 2" in explorer._clients.value
    assert explorer._error.value == ""
