"""The properties catch every way of breaking the promises that we could think of; otherwise they would prove nothing.

Each mutation replaces a part of pqlog with a wrong one; the property that should notice it must fail.
"""

import contextlib
import os
import random
import threading
from types import SimpleNamespace
from unittest import mock

import msgspec
import pytest
from hypothesis import Phase, settings
from hypothesis.errors import FlakyFailure
from hypothesis.stateful import run_state_machine_as_test

import pqlog
from pqlog import atomic, file_set
from pqlog.store.sqlite import append, client, connections, copies, file, identity, topic, wal, writer
from pqlog.store.sqlite import ids as message_ids
from pqlog.store.values import Put
from tests.simulation.calls import cut_a_call
from tests.simulation.group import check_cuts, put_from_threads
from tests.simulation.processes import check_cuts as check_cuts_among_processes
from tests.simulation.processes import put_from_processes
from tests.simulation.puts import cut_puts_at_every_event
from tests.simulation.story import Story
from tests.simulation.syncs import fail_a_sync


def stories(tmp_path):
    run_state_machine_as_test(
        Story,
        settings=settings(
            max_examples=600,
            stateful_step_count=30,
            deadline=None,
            phases=[Phase.generate],
            report_multiple_bugs=False,
            print_blob=False,
        ),
    )


def puts(tmp_path):
    cut_puts_at_every_event(tmp_path / "puts")


def threads(tmp_path):
    for number in range(5):
        folder = tmp_path / str(number)
        folder.mkdir()
        disk, puts = put_from_threads(folder)
        check_cuts(disk, puts, random.Random(number), cuts=40)


def failing_syncs(tmp_path):
    for number in range(12):
        fail_a_sync(tmp_path / str(number), number, True, number % 2 == 1, random.Random(number), cuts=12)


def calls(name):
    def prove(tmp_path):
        for seed in range(3):
            cut_a_call(tmp_path / str(seed), name, random.Random(seed), cuts=2)

    prove.__name__ = name
    return prove


def processes(tmp_path):
    """A mutation here would not affect the other processes, so the syncs of each -wal are removed from the record."""
    disk = put_from_processes(tmp_path, 1)
    disk.events = [event for event in disk.events if (event.kind, event.name) != ("sync", "a.db-wal")]
    check_cuts_among_processes(disk, random.Random(1), cuts=200)


@contextlib.contextmanager
def pragma(name, value):
    changed = tuple((n, value if n == name else v) for n, v in connections._PRAGMAS)
    with mock.patch.object(connections, "_PRAGMAS", changed):
        yield


def synchronous_normal():
    return pragma("synchronous", 1)


def synchronous_off():
    return pragma("synchronous", 0)


@contextlib.contextmanager
def rollback_journal():
    """As in the predecessor of this project: a journal whose deletion is not synced."""

    def delete(db, path, timeout_s):
        assert db.pragma("journal_mode", "delete") == "delete"

    with (
        mock.patch.object(connections, "set_wal", delete),
        mock.patch.object(file, "FileIdentity", lambda paths: identity.FileIdentity(paths[:1])),
    ):
        yield


@contextlib.contextmanager
def acknowledged_before_processing():
    def get(self, *, messages=False):
        state = self.store.join()
        for message in self.stream.messages(self.stream.store.read(state.unread, 100, 1 << 20)):
            self.store.acknowledge(message.offset, state.epoch)
            yield message if messages else message.value

    with mock.patch.object(pqlog.Client, "get", get):
        yield


@contextlib.contextmanager
def claims_not_synced():
    real = client.SqliteClient.advance

    def advance(self, *arguments):
        self._log._file._db.pragma("synchronous", 1)
        try:
            return real(self, *arguments)
        finally:
            self._log._file._db.pragma("synchronous", 2)

    with mock.patch.object(client.SqliteClient, "advance", advance):
        yield


def _apart(first):
    """Outputs and acknowledgement in two transactions."""
    real_finish, real_advance = client.SqliteClient.finish, client.SqliteClient.advance

    def put(outputs):
        return [output.topic.append(list(output.chunks)) for output in outputs]

    def finish(self, done, outputs=()):
        went = put(outputs) if first == "outputs" else None
        real_finish(self, done)
        return put(outputs) if went is None else went

    def advance(self, size, worker, done, outputs=()):
        went = put(outputs) if first == "outputs" else None
        claim, _ = real_advance(self, size, worker, done)
        return claim, put(outputs) if went is None else went

    return mock.patch.multiple(client.SqliteClient, finish=finish, advance=advance)


def outputs_before_the_acknowledgement():
    return _apart("outputs")


def outputs_after_the_acknowledgement():
    return _apart("acknowledgement")


@contextlib.contextmanager
def no_settling():
    with mock.patch.object(wal, "settle"):
        yield


@contextlib.contextmanager
def synced_but_not_written_again():
    """Only a sync: the system has marked the pages as clean."""
    real = wal._opened

    @contextlib.contextmanager
    def opened(*arguments):
        with real(*arguments) as file:
            yield SimpleNamespace(xRead=file.xRead, xWrite=lambda data, at: None, xSync=file.xSync)

    settle = wal.settle

    def settle_by_a_sync(*arguments):
        with mock.patch.object(wal, "_opened", opened):
            settle(*arguments)

    with mock.patch.object(wal, "settle", settle_by_a_sync):
        yield


@contextlib.contextmanager
def zeros_over_what_was_not_durably_cut_off():
    """The first sync of extending a -wal is left out."""
    real, extend = wal._opened, wal.extend

    @contextlib.contextmanager
    def opened(*arguments):
        with real(*arguments) as file:
            syncs = iter([lambda flags: None, file.xSync])
            yield SimpleNamespace(xFileSize=file.xFileSize, xWrite=file.xWrite, xSync=lambda flags: next(syncs)(flags))

    def extend_at_once(*arguments):
        with mock.patch.object(wal, "_opened", opened):
            extend(*arguments)

    with mock.patch.object(wal, "extend", extend_at_once):
        yield


@contextlib.contextmanager
def published_before_it_is_durable():
    with mock.patch.object(file_set.FileSet, "_make_durable", return_value=None):
        yield


@contextlib.contextmanager
def published_without_a_journal():
    def publish(self, moves, replaced):
        for made, place in moves.items():
            path = os.path.join(self.folder, place)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            atomic.appear(os.path.join(self._staging, made), path, replace=True)
        self._remove(replaced, moves.values())
        return [os.path.join(self.folder, place) for place in moves.values()]

    with mock.patch.object(file_set.FileSet, "publish", publish):
        yield


@contextlib.contextmanager
def made_where_it_will_be():
    @contextlib.contextmanager
    def appearing(path, like):
        yield path

    with mock.patch.object(copies, "appearing", appearing):
        yield


@contextlib.contextmanager
def a_file_that_is_never_synced():
    yield


@contextlib.contextmanager
def returned_before_its_commit():
    real = writer.Writer.submit
    late = []

    def submit(self, job):
        if not isinstance(job, append.PutOne):
            return real(self, job)
        ready = threading.Event()

        def later():
            ready.wait(0.002)
            with contextlib.suppress(pqlog.Error):
                real(self, job)

        late.append(threading.Thread(target=later))
        late[-1].start()
        return 0

    with mock.patch.object(writer.Writer, "submit", submit):
        yield
    for thread in late:
        thread.join(60)


@contextlib.contextmanager
def released_by_an_older_sync():
    """A commit also wakes threads that queued during its sync, whose puts it does not contain."""
    real = writer.Writer._wake

    def wake(self, group):
        for job in list(self._waiting):
            if isinstance(job, append.PutOne) and not job.taken:
                job.outcome, job.done, job.taken = 0, True, True
                self._waiting.remove(job)
                job.wake()
        real(self, group)

    with mock.patch.object(writer.Writer, "_wake", wake):
        yield


@contextlib.contextmanager
def id_in_a_commit_of_its_own():
    real = topic.SqliteTopic.append

    def put(self, chunks, id=None, cursor=None, ids=None):
        where = (self.find_id(id) if id else None) or real(self, chunks, None, cursor, ids)
        if id and not self.find_id(id):
            self.log.write(writer.Task(lambda t: message_ids.add(t.db, self.table, [id], where)))
        return where

    with mock.patch.object(topic.SqliteTopic, "append", put):
        yield


@contextlib.contextmanager
def chunks_in_commits_of_their_own():
    real = topic.SqliteTopic.append

    def put(self, chunks, id=None, cursor=None, ids=None):
        values = [
            msgspec.structs.replace(chunk, values=[value])
            for chunk in chunks
            if hasattr(chunk, "values")
            for value in chunk.values
        ]
        if not values or id or cursor or ids:
            return real(self, chunks, id, cursor, ids)
        first, rest = real(self, values[:1]), real(self, values[1:])
        return Put(first.first, rest.last, len(values))

    with mock.patch.object(topic.SqliteTopic, "append", put):
        yield


@pytest.mark.parametrize(
    ("mutation", "prove"),
    [
        (synchronous_normal, stories),
        (synchronous_normal, threads),
        (synchronous_off, stories),
        (rollback_journal, stories),
        (acknowledged_before_processing, stories),
        pytest.param(claims_not_synced, stories, marks=pytest.mark.slow),
        pytest.param(outputs_before_the_acknowledgement, stories, marks=pytest.mark.slow),
        pytest.param(outputs_after_the_acknowledgement, stories, marks=pytest.mark.slow),
        (id_in_a_commit_of_its_own, puts),
        (chunks_in_commits_of_their_own, puts),
        (no_settling, failing_syncs),
        (synced_but_not_written_again, failing_syncs),
        (zeros_over_what_was_not_durably_cut_off, calls("compact, then another opens")),
        (published_before_it_is_durable, calls("export")),
        (published_without_a_journal, calls("export by partition")),
        (made_where_it_will_be, calls("backup")),
        (made_where_it_will_be, calls("salvage")),
        (a_file_that_is_never_synced, processes),
        (returned_before_its_commit, threads),
        (released_by_an_older_sync, threads),
    ],
    ids=lambda part: part.__name__,
)
def test_the_properties_catch(mutation, prove, tmp_path):
    # FlakyFailure: it failed once and not again, which can happen if it depends on the order of threads
    with mutation(), pytest.raises((AssertionError, pqlog.CorruptLogError, FlakyFailure)):
        prove(tmp_path)
