"""The properties catch every way of breaking the promises that we could think of; otherwise they would prove nothing.

Each mutation replaces a part of pqlog with a wrong one; the property that should notice it must fail.
"""

import contextlib
import copy
import os
import random
import threading
from types import SimpleNamespace
from unittest import mock

import msgspec
import pytest
from hypothesis import Phase, settings
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test

import pqlog
from pqlog import atomic, delivery, file_set, reading, sender
from pqlog.store.sqlite import (
    append,
    claims,
    client,
    connections,
    copies,
    file,
    identity,
    sealing,
    statements,
    store,
    wal,
    writer,
)
from pqlog.store.sqlite import ids as message_ids
from pqlog.store.values import PartitionOffset, Put, Span
from tests.simulation.calls import cut_a_call
from tests.simulation.group import check_cuts, put_from_threads, send_from_threads
from tests.simulation.processes import check_cuts as check_cuts_among_processes
from tests.simulation.processes import put_from_processes
from tests.simulation.puts import cut_puts
from tests.simulation.stages import cut_a_call_over_partitions, cut_a_stage
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
    cut_puts(tmp_path)


def puts_over_partitions(tmp_path):
    cut_puts(tmp_path, partitions=3)


def stage_over_partitions(tmp_path):
    cut_a_stage(tmp_path)


def threads(tmp_path):
    for number in range(5):
        folder = tmp_path / str(number)
        folder.mkdir()
        disk, puts = put_from_threads(folder)
        check_cuts(disk, puts, random.Random(number), cuts=40)


def sends(tmp_path):
    for number in range(5):
        folder = tmp_path / str(number)
        folder.mkdir()
        disk, puts = send_from_threads(folder, threads=1)  # nobody else moves the end of the topic
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


def over_partitions(name):
    def prove(tmp_path):
        cut_a_call_over_partitions(tmp_path, name)

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
    def items(self):
        delivery.join(self._partitions)
        for one in self._oldest_first():
            state = one.client.state()
            for message in one.topic.messages(one.store.read(state.unread, 100, 1 << 20)):
                one.client.acknowledge(message.offset, state.epoch)
                yield message.value

    with mock.patch.object(reading.Reading, "items", items):
        yield


@contextlib.contextmanager
def acknowledged_with_the_one_that_is_worked_on():
    """A loop that ends acknowledges also the message that it was handed last."""
    real = reading.Reading.next_run

    def next_run(self):
        run = real(self)
        return run and run._replace(items=noting(self, run))

    def noting(self, run):
        for offset, item in run.items:
            self.last = run.number, offset, run.epoch
            yield offset, item

    def leave(self):
        if self._steps.every > 1 and hasattr(self, "last"):
            _, *self._done[self.last[0]] = self.last
            self.acknowledge()

    with mock.patch.multiple(reading.Reading, next_run=next_run, leave=leave):
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

    def put(one, outputs):
        return [put for output in outputs for put in one._log.append([output]).values()]

    def finish(self, done, outputs=()):
        went = put(self, outputs) if first == "outputs" else None
        real_finish(self, done)
        return put(self, outputs) if went is None else went

    def advance(self, size, worker, done=None, ordered=False):
        if done is None:
            return real_advance(self, size, worker, done, ordered)
        went = put(self, done.outputs) if first == "outputs" else None
        claim, _ = real_advance(self, size, worker, done._replace(outputs=()), ordered)
        return claim, put(self, done.outputs) if went is None else went

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
def done_before_its_commit():
    """The outcomes are right, but told while the commit is still under way."""
    real, late = store.SqliteStore.append_each, []

    def append_each(self, singles):
        for thread in late[-1:]:
            thread.join(60)
        stop = singles[0].topic.span().stop
        late.append(threading.Thread(target=lambda: real(self, singles)))
        late[-1].start()
        return [PartitionOffset(0, stop + index) for index in range(len(singles))]

    with mock.patch.object(store.SqliteStore, "append_each", append_each):
        yield
    for thread in late:
        thread.join(60)


@contextlib.contextmanager
def done_by_the_commit_before():
    """A commit also ends the futures of what was sent while it was under way."""
    real = sender.Sender._settle

    def settle(self, batch, outcomes):
        real(self, batch, outcomes)
        for index, one in enumerate(list(self._waiting)):
            if one.future.set_running_or_notify_cancel():
                one.future.set_result(outcomes[-1].offset + 1 + index)
                one.future.set_running_or_notify_cancel = lambda: True
                one.future.set_result = lambda offset: None

    with mock.patch.object(sender.Sender, "_settle", settle):
        yield


@contextlib.contextmanager
def id_in_a_commit_of_its_own():
    real = store.SqliteStore.append

    def put(self, outputs, id=None, cursor=None):
        one = outputs[0].topic
        if id is None or one.find_id(id):
            return real(self, outputs, id, cursor)
        went = real(self, outputs, None, cursor)
        where = {one.table.parts[number]: Span(put.first, put.last + 1) for number, put in went.items()}
        self.write(writer.Task(lambda t: message_ids.add(t.db, one.table, [id], where)))
        return went

    with mock.patch.object(store.SqliteStore, "append", put):
        yield


@contextlib.contextmanager
def chunks_in_commits_of_their_own():
    real = store.SqliteStore.append

    def put(self, outputs, id=None, cursor=None):
        values = [
            output._replace(chunks=[msgspec.structs.replace(chunk, values=[value])])
            for output in outputs
            for chunk in output.chunks
            if hasattr(chunk, "values")
            for value in chunk.values
        ]
        if not values or id or cursor or outputs[0].ids:
            return real(self, outputs, id, cursor)
        first, rest = real(self, values[:1]), real(self, values[1:])
        return {0: Put(first[0].first, rest[0].last, len(values))}

    with mock.patch.object(store.SqliteStore, "append", put):
        yield


def _one_by_one(name):
    """What is asked for several partitions at once, in a transaction for each."""
    real = getattr(store.SqliteStore, name)

    def call(self, several, *more):
        found = [real(self, [one], *more) for one in several]
        return any(found) if name == "delete_clients" else [one for (one,) in found]

    return mock.patch.object(store.SqliteStore, name, call)


def trimmed_partition_by_partition():
    return _one_by_one("trim")


def moved_partition_by_partition():
    return _one_by_one("seek")


def deleted_partition_by_partition():
    return _one_by_one("delete_clients")


@contextlib.contextmanager
def put_partition_by_partition():
    real = store.SqliteStore.append

    def put(self, outputs, id=None, cursor=None):
        *others, last = outputs
        if id and outputs[0].topic.find_id(id):
            others = []
        went = [real(self, [one]) for one in others] + [real(self, [last], id, cursor)]
        return {number: put for one in went for number, put in one.items()}

    with mock.patch.object(store.SqliteStore, "append", put):
        yield


@contextlib.contextmanager
def acknowledged_before_a_claim_of_another_partition():
    """What was put through the batch goes with the claim."""
    real = client.SqliteClient.advance

    def advance(self, size, worker, done=None, ordered=False):
        if done is None or done.client._id == self._id:
            return real(self, size, worker, done, ordered)
        done.client.finish(done.claim)
        claim, _ = real(self, size, worker, None, ordered)
        return claim, [put for output in done.outputs for put in self._log.append([output]).values()]

    with mock.patch.object(client.SqliteClient, "advance", advance):
        yield


@contextlib.contextmanager
def ids_of_one_partition():
    real_find, real_note = message_ids.find, message_ids.note

    def alone(table):
        own = copy.copy(table)
        own.topic_id, own.parts = table.id, range(table.id, table.id + 1)
        return own

    def note(db, table, lists, first, number):
        return real_note(db, alone(table), lists, first, number)

    with mock.patch.multiple(message_ids, note=note, find=lambda db, table, id: real_find(db, alone(table), id)):
        yield


def sealed_in_a_commit_behind_the_one_that_drops_the_rows():
    return mock.patch.object(statements, "DROP_RUN", f"{statements.DROP_RUN}; COMMIT; BEGIN IMMEDIATE")


def put_where_another_sealed():
    """The end of a topic is remembered although another process has sealed what lies before and behind it."""
    statement = statements.REMEMBERED_OFFSET.replace("max(first, sealed)", "first")
    return mock.patch.object(statements, "REMEMBERED_OFFSET", statement)


def sealed_by_turns(tmp_path):
    """Two open a log; each puts, seals, and puts what lies behind."""
    path = tmp_path / "a.db"
    with mock.patch.object(sealing, "LEAST", 2), pqlog.open(path) as one, pqlog.open(path) as other:
        for number in range(0, 40, 4):
            first, second = (one, other) if number % 8 else (other, one)
            assert [first.put(number), first.put(number + 1)] == [number + 1, number + 2]
            assert [second.put(number + 2), second.put(number + 3)] == [number + 3, number + 4]
            second.seal()
        assert [message.value for message in one] == list(range(40))
        assert one.verify() == []


def test_two_who_put_and_seal_by_turns_keep_every_message(tmp_path):
    sealed_by_turns(tmp_path)


@contextlib.contextmanager
def times_of_one_partition():
    with mock.patch.object(append, "next_time", side_effect=lambda transaction, tables: claims.now_micros()):
        yield


@pytest.mark.parametrize(
    ("mutation", "prove"),
    [
        (synchronous_normal, stories),
        (synchronous_normal, threads),
        (synchronous_off, stories),
        (rollback_journal, stories),
        (acknowledged_before_processing, stories),
        (acknowledged_with_the_one_that_is_worked_on, stories),
        pytest.param(claims_not_synced, stories, marks=pytest.mark.slow),
        pytest.param(outputs_before_the_acknowledgement, stories, marks=pytest.mark.slow),
        pytest.param(outputs_after_the_acknowledgement, stories, marks=pytest.mark.slow),
        (id_in_a_commit_of_its_own, puts),
        (chunks_in_commits_of_their_own, puts),
        (put_partition_by_partition, puts_over_partitions),
        (ids_of_one_partition, puts_over_partitions),
        (times_of_one_partition, puts_over_partitions),
        pytest.param(acknowledged_before_a_claim_of_another_partition, stage_over_partitions, marks=pytest.mark.slow),
        (trimmed_partition_by_partition, over_partitions("trim")),
        pytest.param(moved_partition_by_partition, over_partitions("seek"), marks=pytest.mark.slow),
        pytest.param(deleted_partition_by_partition, over_partitions("delete client"), marks=pytest.mark.slow),
        *(
            pytest.param(mutation, stories, marks=pytest.mark.slow)
            for mutation in (
                *(put_partition_by_partition, ids_of_one_partition),
                acknowledged_before_a_claim_of_another_partition,
            )
        ),
        (no_settling, failing_syncs),
        (synced_but_not_written_again, failing_syncs),
        (zeros_over_what_was_not_durably_cut_off, calls("compact, then another opens")),
        (published_before_it_is_durable, calls("export")),
        (published_without_a_journal, calls("export by partition")),
        (sealed_in_a_commit_behind_the_one_that_drops_the_rows, calls("seal")),
        (put_where_another_sealed, sealed_by_turns),
        (made_where_it_will_be, calls("backup")),
        (made_where_it_will_be, calls("salvage")),
        (a_file_that_is_never_synced, processes),
        (returned_before_its_commit, threads),
        (released_by_an_older_sync, threads),
        (done_before_its_commit, sends),
        (done_by_the_commit_before, sends),
        (synchronous_normal, sends),
    ],
    ids=lambda part: part.__name__,
)
def test_the_properties_catch(mutation, prove, tmp_path):
    # Flaky: it failed once and not again, which can happen if it depends on the order of threads
    with mutation(), pytest.raises((AssertionError, pqlog.CorruptLogError, Flaky)):
        prove(tmp_path)
