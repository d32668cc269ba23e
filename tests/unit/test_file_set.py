"""A set of files changes as a whole, however the change is interrupted."""

import os
import shutil
import threading

import pytest

import pqlog
from pqlog import atomic
from pqlog.file_set import change_files, make_folder
from tests.interrupts import everywhere, moments

OLD = {"city=Brno/1": "old", "city=Praha/1": "old", "gone/1": "old"}
NEW = {"city=Brno/1": "new", "city=Praha/1": "new", "city=Plzeň/1": "new"}


def content(folder):
    """The files in a folder, without hidden ones."""
    files = [path for path in folder.rglob("*") if path.is_file() and ".staging" not in path.parts]
    return {str(path.relative_to(folder)): path.read_text() for path in files}


def fill(folder):
    for name, text in OLD.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(text)


def change(folder):
    def work(files):
        staging = files.stage()
        for name, text in NEW.items():
            os.makedirs(os.path.join(staging, os.path.dirname(name)))
            with open(os.path.join(staging, f"{name}-made"), "w") as file:
                file.write(text)
        return files.publish({f"{name}-made": name for name in NEW}, ["gone/1", "never/there"])

    return change_files(str(folder), work)


def complete(folder):
    return change_files(str(folder), lambda files: files.completed)


def test_a_change_moves_all_files_and_leaves_no_trace(tmp_path):
    fill(tmp_path)
    assert sorted(change(tmp_path)) == sorted(str(tmp_path / name) for name in NEW)
    assert content(tmp_path) == NEW
    assert not (tmp_path / ".staging").exists()
    assert complete(tmp_path) == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # files not yet in a with block
def test_a_change_that_is_interrupted_anywhere_takes_place_or_does_not(tmp_path):
    folder = tmp_path / "out"
    fill(folder)
    step = max(1, moments(lambda: change(folder)) // 300)
    shutil.rmtree(folder)
    fill(folder)
    outcomes = []
    for where in everywhere(lambda: change(folder), KeyboardInterrupt, step=step):
        complete(folder)
        assert content(folder) in (OLD, NEW), where
        outcomes.append(content(folder) == NEW)
        shutil.rmtree(folder)
        fill(folder)
    assert set(outcomes) == {False, True}
    assert outcomes == sorted(outcomes)  # from some moment on it takes place


@pytest.mark.parametrize("step", ["rename", "remove", "sync_folder"])
def test_a_change_that_was_killed_while_files_moved_is_completed_by_the_next(tmp_path, monkeypatch, step):
    class Killed(BaseException):
        pass

    real, calls = getattr(atomic, step), []

    def kill(*arguments, **options):
        calls.append(arguments)
        if len(calls) == at:
            raise Killed
        return real(*arguments, **options)

    for at in range(1, 20):
        folder = tmp_path / str(at)
        fill(folder)
        calls.clear()
        with monkeypatch.context() as patch:
            patch.setattr(atomic, step, kill)
            patch.setattr(shutil, "rmtree", lambda *arguments, **options: None)  # no handler of a killed process runs
            try:
                change(folder)
            except Killed:
                pass
            else:
                assert at > 1
                break
        complete(folder)
        assert content(folder) in (OLD, NEW)
    else:
        raise AssertionError("it has no end")


def test_a_file_is_not_removed_under_another_name_of_a_new_one(tmp_path):
    def work(files):
        staging = files.stage()
        with open(os.path.join(staging, "new"), "w"):
            pass
        os.link(os.path.join(staging, "new"), tmp_path / "OTHER")  # as where the case of names is ignored
        files.publish({"new": "other"}, ["OTHER"])

    change_files(str(tmp_path), work)
    assert (tmp_path / "OTHER").exists()


def test_new_folders_are_durable_with_those_that_contain_them(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(atomic, "sync_folder", lambda path: synced.append(os.path.dirname(os.path.abspath(path))))
    make_folder(str(tmp_path / "a" / "b"))
    assert synced == [str(tmp_path), str(tmp_path / "a")]
    fill(tmp_path / "a" / "b")
    synced.clear()
    change(tmp_path / "a" / "b")
    folder = str(tmp_path / "a" / "b")
    assert {folder, os.path.join(folder, "city=Plzeň"), os.path.join(folder, "gone")} <= set(synced)
    synced.clear()
    make_folder(str(tmp_path / "a" / "b"))
    assert synced == []


def test_whoever_changes_the_folder_meanwhile_waits(tmp_path):
    inside, order = threading.Event(), []

    def second():
        inside.wait()
        change_files(str(tmp_path), lambda files: order.append("second"))

    def first(files):
        inside.set()
        thread.join(0.2)
        order.append("first")

    thread = threading.Thread(target=second)
    thread.start()
    change_files(str(tmp_path), first)
    thread.join(60)
    assert order == ["first", "second"]


@pytest.mark.parametrize(
    ("number", "error", "match"),
    [
        (28, pqlog.DiskFullError, "free some space and call again"),
        (122, pqlog.DiskFullError, "free some space"),
        (13, pqlog.ReadOnlyError, "writable"),
        (30, pqlog.ReadOnlyError, "writable"),
        (5, pqlog.DiskError, "call again to continue"),
        (None, pqlog.DiskError, "odd"),
    ],
)
def test_errors_of_the_system_are_errors_of_ours(tmp_path, number, error, match):
    def work(files):
        raise OSError("odd") if number is None else OSError(number, os.strerror(number), "x")

    with pytest.raises(error, match=match) as caught:
        change_files(str(tmp_path), work)
    assert str(tmp_path) in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in ("file", "file/inner", "file/inner/more"):
        with pytest.raises(pqlog.ArgumentError, match="Give the path of a folder"):
            complete(tmp_path / path)
