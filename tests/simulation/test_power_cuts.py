"""After a power cut at any moment a log holds what had returned, and perhaps what was under way: nothing else."""

import os
import random

import pytest
from hypothesis import settings

import pqlog
from pqlog.store.sqlite import merger
from tests.simulation.disk import Disk
from tests.simulation.group import check_cuts, put_from_threads
from tests.simulation.puts import cut_puts_at_every_event
from tests.simulation.story import Story
from tests.simulation.syncs import fail_a_sync

TestPowerCuts = Story.TestCase
TestPowerCuts.settings = settings(stateful_step_count=30)


@pytest.mark.parametrize("seed", range(4))
def test_puts_of_many_threads_that_share_their_syncs(tmp_path, seed, monkeypatch):
    if seed % 2:  # and whose write-ahead log is merged meanwhile
        monkeypatch.setattr(merger, "PAGES", 10)
    disk, puts = put_from_threads(tmp_path)
    if seed % 2:
        merges = [event for event in disk.events if event.kind == "sync" and event.name == "a.db"]
        assert len(merges) > 3
    assert check_cuts(disk, puts, random.Random(seed), cuts=75) > 8


@pytest.mark.parametrize("killed", [True, False])
def test_a_sync_that_fails_loses_nothing_that_returned_before_or_after(tmp_path, killed):
    """Also what the failed put left in the page cache, on which later puts are built, must become durable."""
    for number in range(12):
        fail_a_sync(tmp_path / str(number), number, killed, random.Random(number), cuts=12)


@pytest.mark.slow
def test_a_new_file_may_be_cut_off_at_any_event_of_its_making(tmp_path):
    (tmp_path / "new").mkdir()
    disk = Disk(tmp_path / "new")
    with disk.listening(), pqlog.open(tmp_path / "new" / "a.db", vfs=disk.vfs_name) as log:
        made = disk.now
        log.put("first")
    chance = random.Random(1)
    for at in range(disk.now + 1):
        for number in range(3):
            folder = tmp_path / f"{at}-{number}"
            folder.mkdir()
            for name, data in disk.cut(at, chance).items():
                (folder / name).write_bytes(data)
            with pqlog.open(folder / "a.db") as log:
                assert [message.value for message in log] in ([], ["first"])
                assert log.put("next") == len(log)
                assert log.verify() == []
    assert made > 20


def test_each_put_is_whole_or_not_there_after_a_cut_at_any_event(tmp_path):
    cut_puts_at_every_event(tmp_path)


def test_a_backup_is_whole_or_not_there(tmp_path):
    """It is written beside its name and renamed when it is durable; a second run clears away what the first left."""
    with pqlog.open(tmp_path / "a.db") as log:
        log.put_many(range(1000))
        (tmp_path / "b.db.partial").write_bytes(b"what a killed process left")
        log.backup(tmp_path / "b.db")
        assert sorted(os.listdir(tmp_path)) == ["a.db", "a.db-shm", "a.db-wal", "b.db"]
    with pqlog.open(tmp_path / "b.db") as copy:
        assert copy.verify() == []
