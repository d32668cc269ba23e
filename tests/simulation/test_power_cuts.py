"""After a power cut at any moment a log holds what had returned, perhaps what was running, and nothing else."""

import random

import pytest
from hypothesis import settings

import pqlog
from pqlog.store.sqlite import checkpointer
from tests.simulation.calls import CALLS, cut_a_call
from tests.simulation.disk import Disk
from tests.simulation.group import check_cuts, put_from_tasks, put_from_threads, send_from_threads
from tests.simulation.lives import cut_again_and_again
from tests.simulation.processes import check_cuts as check_cuts_among_processes
from tests.simulation.processes import put_from_processes
from tests.simulation.puts import cut_puts
from tests.simulation.stages import CALLS as CALLS_OVER_PARTITIONS
from tests.simulation.stages import cut_a_call_over_partitions, cut_a_stage
from tests.simulation.story import Story
from tests.simulation.syncs import fail_a_sync

TestPowerCuts = Story.TestCase
TestPowerCuts.settings = settings(stateful_step_count=30)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))])
def test_puts_of_many_threads_that_share_their_syncs(tmp_path, seed, monkeypatch):
    if seed % 2:  # and whose write-ahead log is checkpointed meanwhile
        monkeypatch.setattr(checkpointer, "PAGES", 10)
    disk, puts = put_from_threads(tmp_path)
    if seed % 2:
        checkpoints = [event for event in disk.events if event.kind == "sync" and event.name == "a.db"]
        assert len(checkpoints) > 3
    assert check_cuts(disk, puts, random.Random(seed), cuts=75) > 8


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))])
def test_what_was_sent_is_there_once_its_future_is_done(tmp_path, seed):
    disk, puts = send_from_threads(tmp_path)
    assert len(puts) == 3 * 40
    assert check_cuts(disk, puts, random.Random(seed), cuts=75) > 8


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))])
def test_what_tasks_put_is_there_once_they_go_on(tmp_path, seed):
    disk, puts = put_from_tasks(tmp_path)
    assert check_cuts(disk, puts, random.Random(seed), cuts=75) > 8


@pytest.mark.parametrize("reader", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["beside a reader", ""])
@pytest.mark.parametrize("killed", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_sync_that_fails_loses_nothing_that_returned_before_or_after(tmp_path, killed, reader):
    """What the failed put left in the page cache, on which later puts are built, must become durable too."""
    for number in range(12):
        fail_a_sync(tmp_path / str(number), number, killed, reader, random.Random(number), cuts=12)


@pytest.mark.slow
def test_a_new_file_may_be_cut_off_while_it_is_made(tmp_path):
    (tmp_path / "new").mkdir()
    disk = Disk(tmp_path / "new")
    with disk.listening(), pqlog.open(tmp_path / "new" / "a.db", vfs=disk.vfs_name) as log:
        made = disk.now
        log.put("first")
    chance = random.Random(1)
    for at in range(0, disk.now + 1, 2):
        for number in range(2):
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
    cut_puts(tmp_path)


@pytest.mark.parametrize("every", [pytest.param(3, marks=pytest.mark.fast), pytest.param(1, marks=pytest.mark.slow)])
def test_each_put_is_whole_in_all_partitions_or_in_none_after_a_cut(tmp_path, every):
    cut_puts(tmp_path, partitions=3, every=every)


@pytest.mark.parametrize("every", [pytest.param(7, marks=pytest.mark.fast), pytest.param(1, marks=pytest.mark.slow)])
def test_a_stage_over_partitions_goes_on_after_a_cut_with_each_message_once_and_in_order(tmp_path, every):
    cut_a_stage(tmp_path, every)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in ("delete topic", "new topic")))
        for name in CALLS_OVER_PARTITIONS
    ],
)
def test_what_changes_all_partitions_has_changed_all_or_none_after_a_cut(tmp_path, name):
    cut_a_call_over_partitions(tmp_path, name)


@pytest.mark.parametrize("name", CALLS)
def test_what_a_call_makes_is_whole_or_not_there_after_a_cut(tmp_path, name):
    assert cut_a_call(tmp_path, name, random.Random(1), cuts=1, every=3) > 3


def test_power_cuts_in_a_row_while_a_log_is_opened_again_and_again(tmp_path):
    assert sum(cut_again_and_again(tmp_path / str(seed), random.Random(seed), lives=10) for seed in range(8)) > 20


@pytest.mark.parametrize("seed", [0, 5])
def test_puts_of_several_processes_of_which_one_is_killed(tmp_path, seed):
    disk = put_from_processes(tmp_path, seed)
    assert check_cuts_among_processes(disk, random.Random(seed), cuts=40) > 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
def test_all_of_that_again_with_other_chances(tmp_path, seed):
    for name in CALLS:
        cut_a_call(tmp_path / name, name, random.Random(seed), cuts=3)
    for number in range(60):
        cut_again_and_again(tmp_path / str(number), random.Random(100 * seed + number), lives=12)
    for number in range(5):
        folder = tmp_path / f"processes-{number}"
        folder.mkdir()
        disk = put_from_processes(folder, 100 * seed + number)
        check_cuts_among_processes(disk, random.Random(seed), cuts=50)
