"""What an engine that is a file must do besides, over SQLite: in a file, and in memory."""

import pytest

import pqlog
from pqlog.store.sqlite.store import SqliteStore
from pqlog.store.values import Span
from tests.contract.engines import append, fill, in_a_file, in_memory, one_partition, singles

pytestmark = pytest.mark.parametrize("make", [in_a_file, in_memory], ids=lambda make: make.__name__)


@pytest.fixture
def topic(engine):
    return one_partition(engine, "main")


def test_verify_reads_everything_and_tells(engine, topic):
    fill(topic)
    told = []
    assert engine.verify(told.append) == []
    assert sum(told) == 8


def test_what_is_damaged_is_read_only_on_request(engine, topic):
    fill(topic)
    engine._file._db.execute("UPDATE messages_1 SET value = '9' WHERE offset = 8")
    assert [row.value for row in topic.read(Span(4, 8), 100, 1 << 20)] == [b"segment"]
    with pytest.raises(pqlog.DamagedError) as caught:
        topic.read(Span(8, 9), 100, 1 << 20)
    assert (caught.value.offset, caught.value.last) == (8, 8)
    assert [row.value for row in topic.read(Span(8, 9), 100, 1 << 20, damaged=True)] == [b"9"]
    assert len(engine.verify(lambda messages: None)) == 1


def test_lines_end_where_a_segment_begins(engine, topic):
    fill(topic)
    lines = topic.read_lines(Span(2, 9), 100, 1 << 20)
    assert (lines.offset, lines.rows, lines.values) == (2, 2, b"2\n3")
    assert topic.read_lines(Span(4, 9), 100, 1 << 20) is None
    assert topic.read_lines(Span(5, 9), 100, 1 << 20) is None
    lines = topic.read_lines(Span(8, 9), 100, 1 << 20)
    assert (lines.offset, lines.values, lines.keys) == (8, b"8", b'"k"')


def test_compact_gives_space_back_and_keeps_everything(engine, topic):
    for _ in range(3):
        append(topic, [singles(*[b"x" * 1_000] * 1_000)])
    topic.client("c").join()
    kept = topic.read(Span(1, 3_001), 3_000, 1 << 24)
    assert engine.compact() >= 0
    assert topic.read(Span(1, 3_001), 3_000, 1 << 24) == kept
    assert topic.span() == Span(1, 3_001)
    assert topic.client("c").state().unread == Span(1, 3_001)
    assert append(topic, [singles(b"1")]).first == 3_001


def test_a_backup_is_a_file_of_its_own(engine, topic, tmp_path):
    fill(topic)
    engine.backup(str(tmp_path / "copy.db"))
    copy = SqliteStore(str(tmp_path / "copy.db"), readonly=True)
    assert copy.find_topic("main")[0].span() == Span(1, 9)
    assert copy.uuid != engine.uuid
    copy.close()
