"""Views at the end of a cell: escaped, bounded, and never an unhandled error."""

import time

import pandas as pd
import pytest

import pqlog
from pqlog.store.sqlite import reader

EVIL = '<script>alert(1)</script>"><img src=x onerror=alert(1)>\x1b[31m'


def views_of(log):
    batch = next(log.batches(EVIL, size=3))
    return [log, log.topic(EVIL), log.clients(), log[1:3], log[1], batch, log.history(key=EVIL), log.history().latest()]


def test_whatever_is_in_the_file_is_shown_as_text(path):
    with pqlog.open(path) as log:
        log.put({EVIL: EVIL, "nested": {"a": [EVIL]}}, key=EVIL, headers={EVIL: EVIL})
        log.put(EVIL * 100)
        log.put_many(pd.DataFrame({"a": [EVIL]}))
        log.topic(EVIL).put(EVIL)
        for view in views_of(log):
            text = view._repr_html_()
            assert "<script>" not in text
            assert "<img" not in text
            assert "\x1b" not in text
        assert "&lt;script&gt;" in log[1]._repr_html_()
        assert EVIL not in log.explore()._table.value


def test_one_line_says_the_essential(path):
    with pqlog.open(path) as log:
        log.put_many(range(1500))
        log.topic("other")
        assert repr(log).startswith(f"<pqlog.Log {str(path)!r}: 1,500 messages in 2 topics, ")
        assert repr(log[3:7]) == "<pqlog.History of 'main': offsets 3 up to 7>"
    assert "closed" in repr(log)
    assert "was closed" in log._repr_html_()


def test_a_message_that_cannot_be_decoded_is_shown_as_its_error(path):
    with pqlog.open(path, codec="pickle") as log:
        log.put_many([1, 2, 3])
    with pqlog.open(path) as log:
        text = log[:]._repr_html_()
        assert text.count("it is a pickle") == 3
        assert log.explore()._error.value == ""


def test_damage_is_shown_where_it_is(path):
    with pqlog.open(path) as log:
        for n in range(10):
            log.put({"n": n, "x": "y"})
    data = bytearray(path.read_bytes())
    data[data.index(b'{"n":4,') + 5] ^= 1
    path.write_bytes(data)
    with pqlog.open(path, readonly=True) as log:
        text = log[:]._repr_html_()
        assert "its checksum does not match" in text
        assert text.count("<td>y</td>") == 9


def test_views_read_a_bounded_amount(path, monkeypatch):
    """However large the log: measured in rows read, since times depend on the machine."""
    with pqlog.open(path) as log:
        for _ in range(10):
            log.put_many({"n": n} for n in range(30_000))
        batch = next(log.batches("b", size=100_000))
        read = []
        real = reader.read

        def counted(*arguments, **named):
            rows = real(*arguments, **named)
            read.append(len(rows))
            return rows

        monkeypatch.setattr(reader, "read", counted)
        for view in (log, log.topic("main"), log.clients(), log[:], log[1000:200_000], batch, log.history(key="none")):
            read.clear()
            assert view._repr_html_()
            assert sum(read) <= 1_000
        read.clear()
        log.explore()
        assert sum(read) <= 1_000


def test_times_are_counted_right(path, monkeypatch):
    from pqlog.history import timeline
    from pqlog.store.values import Span

    with pqlog.open(path) as log:
        for n in range(50):
            log.put(n)
            if n % 10 == 0:
                time.sleep(0.002)
        times = [message.time.timestamp() * 1e6 for message in log]
        for span in (Span(1, 51), Span(7, 8), Span(10, 40)):
            edges, counts = timeline(log.store, span, 12)
            assert sum(counts) == span.stop - span.first
            inside = times[span.first - 1 : span.stop - 1]
            for start, stop, count in zip(edges[:-1], edges[1:], counts, strict=True):
                if stop != edges[-1]:
                    assert count == sum(start <= round(at) < stop for at in inside)


@pytest.mark.parametrize("values", [[], [1], [{"a": 1}], ["x"] * 3, [None], [{"a": float("nan")}]])
def test_small_logs(path, values):
    with pqlog.open(path, codec="msgpack") as log:
        log.put_many(values)
        for view in (log, log.topic("main"), log.clients(), log[:]):
            assert view._repr_html_()
        explorer = log.explore()
        assert explorer._error.value == ""
        assert len(explorer.frame) == len(values)


def test_the_schema_is_shown_as_far_as_it_is_known_and_nothing_is_read_for_it(path, monkeypatch):
    with pqlog.open(path) as log:
        log.put_many({"n": n, "<b>": [n]} for n in range(30_000))
    with pqlog.open(path) as log:
        reads = []
        monkeypatch.setattr("pqlog.frames.reading.read_chunks", lambda *given: reads.append(given))
        assert all(".schema" in view and "2 fields" not in view for view in (log._repr_html_(), topic_html(log)))
        assert reads == []
        monkeypatch.undo()
        log.to_arrow()
        log.put({"n": 1})
    with pqlog.open(path, readonly=True) as log:
        monkeypatch.setattr("pqlog.frames.reading.read_chunks", lambda *given: reads.append(given))
        for view in (log._repr_html_(), topic_html(log)):
            assert "2 fields" in view
            assert "1 message put since" in view
            assert "n: int64\n&lt;b&gt;: JSON" in view
        assert reads == []


def topic_html(log):
    return log.topic("main")._repr_html_()


def test_a_batch_that_is_trimmed_away_is_shown(log):
    log.put_many(range(10))
    batch = log.client("c").next_batch(size=5)
    log.trim(before=8, force=True)
    assert "no messages left" in batch._repr_html_()
