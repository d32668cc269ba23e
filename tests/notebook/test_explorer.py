"""The explorer without a browser: its buttons, its frame, its code, its errors."""

import threading

import pandas as pd
import pytest

import pqlog
from pqlog.notebook.explorer import BINS


@pytest.fixture
def log(path):
    with pqlog.open(path) as log:
        for first in range(0, 500, 100):
            log.put_many([{"n": n, "city": f"city {n % 7}"} for n in range(first, first + 100)], key="city")
        log.topic("other").put_many(range(30))
        for value in log.get("reader"):
            if value["n"] == 99:
                break
        yield log


def test_pages(log):
    explorer = log.explore()
    assert explorer._where.value == "page 1 of 25, 500 messages"
    explorer._next.click()
    assert explorer._where.value == "page 2 of 25, 500 messages"
    assert "<td class=n>21</td>" in explorer._table.value
    explorer._last.click()
    assert "<td class=n>500</td>" in explorer._table.value
    explorer._next.click()
    assert explorer._where.value.startswith("page 25 of 25")
    explorer._first.click()
    explorer._back.click()
    assert explorer._where.value.startswith("page 1 of 25")


def test_sorting_is_within_the_page(log):
    explorer = log.explore()
    explorer._sort.value = "city"
    explorer._down.value = True
    first = explorer._table.value.index("city 6")
    assert first < explorer._table.value.index("city 0")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("n = 123", lambda frame: frame[frame["n"] == 123]),
        ("city 3", lambda frame: frame[frame["city"] == "city 3"]),
        ("CITY 3", lambda frame: frame[frame["city"] == "city 3"]),
        ('key = "city 5"', lambda frame: frame[frame["city"] == "city 5"]),
        ("city = city 1", lambda frame: frame[frame["city"] == "city 1"]),
        ("nowhere", lambda frame: frame[:0]),
        ("", lambda frame: frame),
    ],
)
def test_a_search_its_frame_and_its_code_agree(log, query, found):
    explorer = log.explore()
    explorer.search(query)
    expected = found(log.to_pandas())
    assert explorer.frame["n"].tolist() == expected["n"].tolist()
    assert f"{len(expected):,} {'found' if query else 'messages'}" in explorer._where.value
    names = {"log": log}
    exec(explorer.code, names)
    assert names["frame"]["n"].tolist() == expected["n"].tolist()
    explorer._clear.click()
    assert len(explorer.frame) == 500


def test_code_that_is_in_view_follows_the_selection(log):
    explorer = log.explore()
    assert explorer._code.value == ""
    explorer.search("n = 1")
    explorer._code_button.click()
    assert "&#x27;n&#x27;" in explorer._code.value
    explorer.search("n = 234")
    assert "234" in explorer._code.value
    explorer._clear.click()
    assert "234" not in explorer._code.value


def test_a_stretch_of_time_its_frame_and_its_code_agree(log):
    explorer = log.explore()
    explorer._range.value = (0, BINS // 2)
    some = explorer.frame
    assert 0 < len(some) < 500
    assert some.index[0] == 1
    names = {"log": log}
    exec(explorer.code, names)
    pd.testing.assert_frame_equal(names["frame"], some)
    explorer.search("city 1")
    exec(explorer.code, names)
    pd.testing.assert_frame_equal(names["frame"], explorer.frame)


def test_a_search_of_a_large_log_goes_on_when_asked(log, monkeypatch):
    monkeypatch.setattr("pqlog.notebook.explorer.SEARCH", 150)
    explorer = log.explore()
    explorer.search("city 3")
    assert "in 150 of 500 messages" in explorer._where.value
    assert not explorer._search_on.disabled
    for _ in range(3):
        explorer._search_on.click()
    assert "71 found in 500 of 500" in explorer._where.value
    assert explorer._search_on.disabled


def test_other_topics(log):
    explorer = log.explore()
    explorer._next.click()
    explorer._topics.label = "other"
    assert explorer._where.value == "page 1 of 2, 30 messages"
    assert explorer.frame["value"].tolist() == list(range(30))
    assert explorer.code.startswith("frame = log.topic('other')")
    log.topic("newer")
    explorer._refresh.click()
    assert [name for name, _ in explorer._topics.options] == ["main", "other", "newer"]


def test_a_refresh_stays_at_the_topic_whatever_happened_to_the_topics(log, path):
    other = log.topic("other")
    explorer = other.explore()
    explorer._next.click()
    shown = explorer._where.value
    with pqlog.open(path) as elsewhere:
        elsewhere.topic("newer")
        explorer._refresh.click()
        assert (explorer._topics.label, explorer._where.value) == ("other", shown)
        elsewhere.rename_topic("other", "renamed")
        elsewhere.topic("other").put("not this one")
        explorer._refresh.click()
        assert (explorer._topics.label, explorer._where.value) == ("renamed", shown)
        assert explorer._error.value == ""
        names = {"log": log}
        exec(explorer.code, names)
        assert names["frame"]["value"].tolist() == explorer.frame["value"].tolist() == list(range(30))
        explorer._topics.label = "other"
        assert explorer.frame["value"].tolist() == ["not this one"]
        explorer._topics.label = "renamed"
        elsewhere.delete_topic("renamed", force=True)
        explorer._refresh.click()
        assert explorer._topics.label is None
        assert "UnknownTopicError" in explorer._error.value
        explorer._topics.label = "main"
        assert (len(explorer.frame), explorer._error.value) == (500, "")


def test_a_topic_that_was_renamed_or_deleted_elsewhere_can_be_explored(log, path):
    other = log.topic("other")
    with pqlog.open(path) as elsewhere:
        elsewhere.rename_topic("other", "renamed")
        assert other.explore()._topics.label == "renamed"
        elsewhere.delete_topic("renamed", force=True)
        assert "UnknownTopicError" in other.explore()._error.value


def test_code_reads_the_topic_that_is_shown_whichever_the_log_was_opened_at(log, path):
    with pqlog.open(path, "other") as opened:
        explorer = opened.explore()
        for name, count in (("other", 30), ("main", 500), ("other", 30)):
            explorer._topics.label = name
            names = {"log": opened}
            exec(explorer.code, names)
            assert len(names["frame"]) == len(explorer.frame) == count


def test_the_live_tail_looks_only_while_it_runs(log):
    explorer = log.explore()
    log.put({"n": 500, "city": "a new one"})
    assert "a new one" not in explorer._table.value
    explorer._tail.value += 1
    assert "a new one" in explorer._table.value
    assert explorer._where.value == "page 26 of 26, 501 messages"
    before = explorer._table
    explorer._tail.value += 1
    assert explorer._table is before


def test_seek_asks_first(log):
    explorer = log.explore()
    explorer._to.value = "10"
    explorer._seek.click()
    assert "Move 'reader' from 100 to 10? 90 messages will be redelivered, 0 skipped." in explorer._question.value
    assert explorer._ask.layout.display != "none"
    explorer._cancel.click()
    assert explorer._ask.layout.display == "none"
    assert log.client("reader").position == 100
    explorer._seek.click()
    explorer._confirm.click()
    assert log.client("reader").position == 10
    explorer._to.value = "rubbish"
    explorer._seek.click()
    assert "ArgumentError" in explorer._error.value


def test_a_file_that_is_only_read_offers_no_seek(log, path):
    explorer = pqlog.explore(path)
    assert explorer._seek not in [child for box in explorer.children for child in getattr(box, "children", [])]
    assert len(explorer.frame) == 500


def test_errors_show_in_the_widget(log):
    explorer = log.explore()
    log.close()
    explorer._refresh.click()
    assert "ClosedError" in explorer._error.value


def test_callbacks_beside_each_other(log):
    explorer = log.explore()
    threads = [
        threading.Thread(target=lambda: [explorer._next.click() for _ in range(10)]),
        threading.Thread(target=lambda: [explorer.search(f"city {n % 7}") for n in range(10)]),
        threading.Thread(target=lambda: [log.put({"n": n}) for n in range(10)]),
        threading.Thread(target=lambda: [explorer._tick() for _ in range(10)]),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert explorer._error.value == ""


def test_in_a_terminal_it_prints(log):
    assert repr(log.explore()).startswith("main: 500 messages\n")


def test_the_magic(log, path, capsys):
    from IPython.testing.globalipapp import start_ipython

    shell = start_ipython()
    shell.run_line_magic("load_ext", "pqlog")
    explorer = shell.run_line_magic("pqlog", str(path))
    assert len(explorer.frame) == 500
    assert len(shell.user_ns["log"]) == 500
    shell.user_ns["log"].close()
    assert shell.run_line_magic("pqlog", "nowhere.db") is None
    assert "does not exist" in capsys.readouterr().out
    assert shell.run_line_magic("pqlog", "") is None


def test_the_client_that_was_asked_about_is_moved(log):
    list(log.get("another"))
    explorer = log.explore()
    explorer._client.value = "another"
    explorer._to.value = "1000000"
    explorer._seek.click()
    assert ", 0 skipped" in explorer._question.value
    explorer._to.value = "10"
    explorer._seek.click()
    explorer._client.value = "reader"
    explorer._confirm.click()
    assert (log.client("another").position, log.client("reader").position) == (10, 100)
    log.topic("other").put(1)
    explorer._refresh.click()
    explorer._seek.click()
    explorer._topics.label = "other"
    explorer._confirm.click()
    assert log.client("reader").position == 100
    assert len(log.topic("other").clients()) == 0


def test_a_topic_that_is_deleted_elsewhere_is_not_made_again(log):
    log.topic("other").put(1)
    explorer = log.explore()
    log.delete_topic("other")
    explorer._topics.label = "other"
    assert log.topics() == ["main"]
