"""Clients of topics with several partitions: in turn, in order, each partition by itself, on both engines."""

import collections
import itertools
import threading
import time

import pytest

import pqlog
from pqlog import errors
from pqlog.partitioning import partition_of
from pqlog.testing import sparse_log
from tests.interrupts import within
from tests.processes import wait_until

PARTITIONS = 4


@pytest.fixture(params=["file", "sparse"])
def any_log(request, path):
    with pqlog.open(path) if request.param == "file" else sparse_log() as log:
        yield log


@pytest.fixture
def orders(any_log):
    """A topic of several partitions."""
    return any_log.topic("orders", partitions=PARTITIONS)


KEYS = [f"key {n}" for n in range(20)]


def fill(orders, count=200):
    """Put messages with keys; those of each partition, in order."""
    orders.put_many([{"key": KEYS[n % len(KEYS)], "n": n} for n in range(count)], key="key")
    return {number: list(orders.partition(number)) for number in range(PARTITIONS)}


def by_key(values):
    found = collections.defaultdict(list)
    for value in values:
        found[value["key"]].append(value["n"])
    return found


def values_of(topic):
    """Its values, partition by partition."""
    return [message.value for number in range(topic.partitions) for message in topic.partition(number)]


def numbers(found):
    """Values by the number of their partition, in order."""
    return {number: [message.value["n"] for message in messages] for number, messages in found.items()}


# message by message


def test_get_delivers_all_in_the_order_of_each_partition_and_takes_them_in_turn(orders):
    put = fill(orders, 1_000)
    seen = list(orders.client("c").get(messages=True))
    got = collections.defaultdict(list)
    for message in seen:
        got[message.partition].append(message)
    assert got == put
    runs = [(number, len(list(run))) for number, run in itertools.groupby(seen, key=lambda message: message.partition)]
    assert max(length for _, length in runs) <= 100
    assert {number for number, _ in runs[:PARTITIONS]} == set(range(PARTITIONS))
    assert list(orders.client("c").get()) == []
    assert orders.client("c").lag == 0


def test_get_begins_with_the_oldest_message_so_what_was_left_comes_first_again(orders):
    put = fill(orders)
    client = orders.client("c")
    for _ in range(3):
        first = next(client.get(messages=True))
        assert first.time == min(messages[0].time for messages in put.values() if messages)
        assert next(client.get(messages=True)) == first
    number = first.partition
    client.seek("end")
    client.seek(put[number][-1].offset, partition=number)
    orders.put({"n": -1}, key=next(m.key for n, some in put.items() if n != number for m in some))
    assert [value["n"] for value in client.get()] == [put[number][-1].value["n"], -1]


def test_a_break_leaves_one_message(orders):
    put = numbers(fill(orders))
    client, seen = orders.client("c"), []
    while client.lag if seen else True:
        for value in client.get():
            seen.append(value)
            if len(seen) % 7 == 0:
                break
    again = [n for n, times in collections.Counter(value["n"] for value in seen).items() if times > 1]
    assert sorted({value["n"] for value in seen}) == sorted(itertools.chain(*put.values()))
    assert 0 < len(again) <= len(seen) // 7


def test_get_refuses_a_partition_of_which_a_batch_is_open(orders):
    put = fill(orders)
    client = orders.client("c")
    batch = client.next_batch(size=5)
    seen = []
    with pytest.raises(pqlog.ClaimedError, match=f"has batch 1 of partition {batch.partition} open") as refused:
        seen.extend(client.get(messages=True))
    assert f"seek({batch.first}, partition={batch.partition})" in str(refused.value)
    assert batch.partition not in {message.partition for message in seen}
    batch.ack()
    rest = [message.partition for message in client.get(messages=True)]
    assert rest.count(batch.partition) == len(put[batch.partition]) - 5


def test_get_blocking_wakes_for_any_partition(orders):
    got = []

    def read():
        for message in orders.client("c").get_blocking(tick=60, messages=True):
            got.append(message.key)
            if len(got) == len(KEYS):
                return

    reader = threading.Thread(target=read)
    reader.start()
    for count, key in enumerate(KEYS, start=1):
        orders.put(1, key=key)
        wait_until(lambda count=count: len(got) >= count, deadline_s=30)
    reader.join(30)
    assert got == KEYS


def test_get_one_hands_out_one_message_of_each_partition(orders):
    put = numbers(fill(orders))
    client, got = orders.client("c"), []

    def take():
        got.append(client.get_one(messages=True))
        done.wait(60)

    done = threading.Event()
    threads = [threading.Thread(target=take) for _ in range(PARTITIONS)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(got) == PARTITIONS)
    assert {message.partition for message in got} == set(range(PARTITIONS))
    with pytest.raises(pqlog.Empty):
        client.get_one()
    done.set()
    for thread in threads:
        thread.join()
    del threads
    values = []
    while len(values) < 200:
        values.append(client.get_one(timeout=60)["n"])
    assert sorted(values) == sorted(itertools.chain(*put.values()))
    client.ack()
    assert client.lag == 0


def test_an_acknowledgement_is_of_the_partition_of_its_message(orders):
    put = fill(orders)
    client = orders.client("c")
    (one, other) = (messages[3] for messages in list(put.values())[:2])
    client.ack(one)
    at = client.position
    assert at.pop(one.partition) in range(one.offset, put[one.partition][4].offset + 1)
    assert (client.lag, at) == (196, {n: messages[0].offset for n, messages in put.items() if n != one.partition})
    got = client.get_one(messages=True)
    if got.partition == other.partition:
        with pytest.raises(pqlog.ClaimedError):
            client.ack(other)
    else:
        client.ack(other)
        assert client.lag == 192
    client.ack(got)
    assert client.position[got.partition] > got.offset
    assert client.claims() == []


# where it stands


def test_a_client_stands_in_each_partition(orders):
    put = fill(orders)
    client = orders.client("c")
    for asked in (lambda: client.position, lambda: client.lag, client.claims, client.unread, client.delete):
        with pytest.raises(pqlog.UnknownClientError):
            asked()
    batch = client.next_batch(size=3)
    assert (client.lag, client.position) == (200, {n: messages[0].offset for n, messages in put.items()})
    (claim,) = client.claims()
    assert (claim.partition, claim.number, claim.first) == (batch.partition, 1, batch.first)
    batch.ack()
    assert client.lag == 197
    assert client.position[batch.partition] in range(batch.last, put[batch.partition][3].offset + 1)
    (info,) = orders.clients()
    assert (info.position, info.lag, info.batches, info.open, info.attempt) == (client.position, 197, 1, 0, 0)
    assert orders.clients().messages == 200
    client.delete()
    with pytest.raises(pqlog.UnknownClientError):
        client.delete()
    assert len(orders.clients()) == 0


def test_unread_is_what_it_has_not_acknowledged(orders):
    put = fill(orders)
    client = orders.client("c")
    for batch, _ in zip(client.batches(size=9), range(PARTITIONS + 2), strict=False):
        last = batch
    left = sorted(message.value["n"] for message in client.unread())
    assert len(left) == len(client.unread()) == client.lag
    with client.next_batch(size=9) as batch:
        pass
    assert len(client.unread()) == client.lag == len(left) - len(batch)
    assert last.partition in put
    client.seek("end")
    assert list(client.unread()) == []


def test_a_partition_that_a_client_has_not_read_counts_in_full(orders):
    """An engine may know it in some of them only."""
    put = fill(orders)
    orders.stream.partitions[1].client("c").join()
    client = orders.client("c")
    assert client.lag == orders.clients()[0].lag == 200
    assert client.position == orders.clients()[0].position == {n: messages[0].offset for n, messages in put.items()}
    assert len(list(client.get())) == 200


def test_a_client_that_is_deleted_under_its_reader_begins_again_in_all_partitions(orders):
    fill(orders)
    reading = orders.client("c").get()
    next(reading)
    orders.client("c").delete()
    assert len(list(reading)) == 200
    assert all(topic.client("c").state() for topic in orders.stream.partitions)


def test_from_its_first_reading_on_nothing_is_trimmed_under_a_client(orders):
    orders.client("c").next_batch()
    fill(orders)
    with pytest.raises(pqlog.TrimRefusedError):
        orders.trim("0s")


@pytest.mark.parametrize("how", ["get", "get_one", "batches"])
def test_a_client_that_is_deleted_under_its_reader_begins_again_in_every_partition(orders, how):
    put = fill(orders)
    client = orders.client("c")
    loop = {"get": client.get, "batches": lambda: client.batches(size=9)}.get(how, lambda: iter(client.get_one, None))()
    had = next(loop)
    if how != "get":  # nobody can acknowledge a batch of a client that is not there
        (client if how == "get_one" else had).ack()
    client.delete()
    next(loop)
    assert client.position == {number: messages[0].offset for number, messages in put.items()}
    assert [len(one.clients()) for one in orders.stream.partitions] == [1] * PARTITIONS
    with pytest.raises(pqlog.TrimRefusedError):
        orders.trim("0s")


def test_errors_say_of_which_partition_a_batch_is_and_their_advice_works(orders):
    put = fill(orders)
    number = next(number for number, messages in put.items() if messages)
    client = orders.client("c")
    client.seek("end")
    client.seek("start", partition=number)
    batch = client.next_batch(size=3)
    assert batch.partition == number
    told = f"client 'c' has batch 1 of partition {number} open .*seek\\({batch.first}, partition={number}\\)"
    for use in (lambda: next(client.get()), lambda: client.ack(put[number][5])):
        with pytest.raises(pqlog.ClaimedError, match=told) as caught:
            use()
        assert caught.value.partition == number
    messages = list(batch.messages())
    orders.stream.partitions[number].log.trim([(orders.stream.partitions[number], messages[2].offset)], force=True)
    trimmed = pytest.raises(pqlog.TrimmedError, match=f"of partition {number} was trimmed")
    with trimmed:
        batch.reject(messages[0], "why")
    if orders.stream.partitions[number].log.capabilities.dense_offsets:
        with trimmed:
            orders.partition(number)[messages[0].offset]
    client.seek(batch.first, partition=number)
    with pytest.raises(pqlog.ClaimLostError, match=f"batch 1 of partition {number} of client 'c'") as caught:
        batch.ack()
    assert caught.value.partition == number
    with pytest.raises(pqlog.ClaimLostError, match=f"batch 1 of partition {number} of client 'c'"):
        batch.ack()
    assert len(list(client.get())) == len(put[number]) - 2


def test_a_full_batch_goes_before_one_that_may_still_fill(orders):
    full, number = KEYS[0], partition_of(KEYS[0], PARTITIONS)
    other = next(key for key in KEYS if partition_of(key, PARTITIONS) != number)
    orders.put_many([{"key": key} for key in [full] * 20 + [other]], key="key")
    batches = orders.client("c").batches(size=5, linger=60)
    assert [len(batch) for batch in itertools.islice(batches, 4)] == [5] * 4
    batches.close()


def test_partitions_without_messages_are_looked_at_in_one_reading(path, monkeypatch):
    with pqlog.open(path) as log:
        hot = log.topic("hot", partitions=100)
        hot.put_many([{"n": n} for n in range(40)])  # without a key: all into one
        batches = hot.batches("c", size=1)
        next(batches)
        store, readings = log.store.log, []
        read = store.read
        monkeypatch.setattr(store, "read", lambda *query, **how: readings.append(1) or read(*query, **how))
        assert len(list(itertools.islice(batches, 20))) == 20
        assert len(readings) <= 2 * 20
        batches.close()


def test_clients_print_as_a_table(orders):
    put = fill(orders)
    list(orders.client("reader").get())
    orders.client("other").seek("start")
    lines = repr(orders.clients()).splitlines()
    assert lines[0].split()[:3] == ["client", "position", "lag"]
    assert len({len(line) for line in lines}) == 1
    assert "'other'" in lines[1]
    assert ", ".join(f"{number}: {messages[0].offset}" for number, messages in put.items()) in lines[1]


def test_seek_moves_all_partitions_or_one(orders):
    put = fill(orders)
    ends = {n: topic.span().stop for n, topic in enumerate(orders.stream.partitions)}
    starts = {n: messages[0].offset for n, messages in put.items()}
    client = orders.client("c")
    assert client.seek("end") == pqlog.Moved(ends, again=0, skipped=200)
    later = fill(orders, 100)
    ends = {n: topic.span().stop for n, topic in enumerate(orders.stream.partitions)}
    assert client.seek(later[0][-1].time) == pqlog.Moved(
        {n: messages[-sum(m.value["n"] < 100 for m in put[n])].offset for n, messages in later.items()},
        again=0,
        skipped=0,
    )
    assert client.lag == 100
    assert client.seek("start") == pqlog.Moved(starts, again=200, skipped=0)
    for to in (3, -1, 0):
        with pytest.raises(pqlog.PartitionsError, match=f"seek\\({to}, partition=0\\)"):
            client.seek(to)
    assert client.seek("end", partition=2) == pqlog.Moved({2: ends[2]}, again=0, skipped=len(later[2]))
    assert client.seek(later[2][-3].offset, partition=2) == pqlog.Moved({2: later[2][-3].offset}, again=3, skipped=0)
    assert client.seek(-2, partition=2).position == {2: later[2][-2].offset}
    assert client.position == starts | {2: later[2][-2].offset}
    for wrong in (PARTITIONS, -1, "0", True, 0.5):
        with pytest.raises(pqlog.ArgumentError):
            client.seek("end", partition=wrong)
    with pytest.raises(pqlog.ArgumentError):
        client.seek(True)


def test_seek_of_one_partition_makes_a_new_client_known_in_all(orders):
    put = fill(orders)
    orders.client("c").seek("end", partition=1)
    assert orders.client("c").lag == 200 - len(put[1])
    assert all(topic.client("c").state() for topic in orders.stream.partitions)


def test_seek_gives_up_the_batches_of_what_is_moved(orders):
    fill(orders)
    client = orders.client("c")
    first, second = client.next_batch(size=2), client.next_batch(size=2)
    client.seek("start", partition=first.partition)
    with pytest.raises(pqlog.ClaimLostError, match=f"batch 1 of partition {first.partition} of client 'c' is no"):
        first.ack()
    second.ack()
    third = client.next_batch(size=2)
    client.seek("start")
    with pytest.raises(pqlog.ClaimLostError):
        third.ack()
    assert client.claims() == []


def test_a_topic_of_one_partition_takes_its_number_too(any_log):
    any_log.put_many(list("abc"))
    client = any_log.client("c")
    client.seek("end", partition=0)
    assert client.lag == 0
    with pytest.raises(pqlog.ArgumentError, match="there is no partition 1"):
        client.seek("end", partition=1)


# batch by batch


def test_a_batch_is_of_one_partition_and_they_come_in_turn(orders):
    put = numbers(fill(orders, 400))
    taken = [(batch.partition, [value["n"] for value in batch]) for batch in orders.client("c").batches(size=10)]
    got = collections.defaultdict(list)
    for number, values in taken:
        got[number] += values
    assert got == put
    first = [number for number, _ in taken[:PARTITIONS]]
    assert first == [(first[0] + step) % PARTITIONS for step in range(PARTITIONS)]


def test_numbers_count_within_a_partition_and_tokens_tell_them_apart(orders):
    fill(orders)
    taken = list(orders.client("c").batches(size=5))
    counts = collections.Counter(batch.partition for batch in taken)
    for number, count in counts.items():
        assert [batch.number for batch in taken if batch.partition == number] == list(range(1, count + 1))
    assert len({batch.token for batch in taken}) == len(taken)


def test_nobody_gets_a_second_batch_of_a_partition(orders):
    fill(orders)
    client = orders.client("c")
    held = [client.next_batch(size=3) for _ in range(PARTITIONS)]
    assert {batch.partition for batch in held} == set(range(PARTITIONS))
    assert client.next_batch() is None
    assert list(client.batches()) == []
    held[2].ack()
    again = client.next_batch(size=3)
    assert (again.partition, again.number) == (held[2].partition, 2)
    held[1].release(ValueError("no"))
    again = client.next_batch(size=1)
    assert (again.partition, again.number, again.attempt, len(again)) == (held[1].partition, 1, 2, 3)


def test_workers_do_not_all_begin_at_the_same_partition(orders):
    fill(orders)
    taken = set()
    for _ in range(60):
        batch = orders.client("c").next_batch(size=1)
        taken.add(batch.partition)
        batch.release()
    assert taken == set(range(PARTITIONS))


def test_asking_for_the_next_acknowledges_also_if_there_is_none(orders):
    fill(orders)
    client = orders.client("c")
    held = [client.next_batch(size=1000) for _ in range(PARTITIONS - 1)]
    batches = client.batches(size=1000)
    last = next(batches)
    assert next(batches, None) is None
    assert last.lease.is_open is False
    assert {claim.partition for claim in client.claims()} == {batch.partition for batch in held}


def test_the_batch_of_another_partition_commits_with_the_outputs_of_the_one_before(orders, any_log):
    fill(orders)
    out = any_log.topic("out", partitions=2)
    for batch in orders.client("c").batches(size=7):
        before = len(out)
        staged = batch.put_many([value | {"of": batch.token} for value in batch], topic="out", key="key")
        assert len(out) == before
    assert staged.put.messages == len(batch)
    assert len(out) == 200
    assert by_key(values_of(out)) == {key: list(range(i, 200, 20)) for i, key in enumerate(KEYS)}


def test_a_batch_that_was_lost_is_not_acknowledged_with_the_claim_of_another(orders):
    fill(orders)
    client = orders.client("c")
    batches = client.batches(size=5)
    batch = next(batches)
    batch.put_many([1], topic="out")
    client.seek("start", partition=batch.partition)
    with pytest.raises(pqlog.ClaimLostError):
        next(batches)
    assert (client.claims(), client.lag) == ([], 200)
    assert len(list(client.batches())) == PARTITIONS


@pytest.mark.parametrize("wake", ["put", "ack", "release", "drop"])
def test_who_waits_is_woken_by_whatever_frees_a_batch(orders, wake):
    fill(orders)
    client = orders.client("c")
    held = [client.next_batch(size=1000) for _ in range(PARTITIONS)]
    taken = []
    waiting = threading.Thread(target=lambda: taken.append(client.next_batch(timeout=60)))
    waiting.start()
    time.sleep(0.05)
    if wake == "put":
        held[1].ack()
    if wake in ("put", "ack"):
        key = next(key for key in KEYS if orders.put({"n": 0}, key=key).partition == held[1].partition)
        assert key
    if wake == "ack":
        assert not taken
        held[1].ack()
    elif wake == "release":
        held[1].release()
    elif wake == "drop":
        del held[1]
    waiting.join(60)
    assert len(taken) == 1
    assert taken[0] is not None


def test_linger_waits_for_a_full_batch_of_some_partition(orders):
    client = orders.client("c")
    keys = {orders.put({"n": n}, key=key).partition: key for n, key in enumerate(KEYS)}
    client.seek("end")
    for key in keys.values():
        orders.put({"n": 0}, key=key)
    taken = []
    waiting = threading.Thread(target=lambda: taken.append(next(client.batches(size=3, linger=3600))))
    waiting.start()
    time.sleep(0.1)
    assert not taken
    for n in range(2):
        orders.put({"n": n}, key=keys[2])
    waiting.join(60)
    assert (taken[0].partition, len(taken[0])) == (2, 3)


def test_each_partition_lingers_by_itself(orders):
    client = orders.client("c")
    client.seek("end")
    for key in KEYS:
        orders.put({"n": 0}, key=key)
    began = time.monotonic()
    taken = within(60, lambda: list(client.batches(size=1000, linger=0.5)))
    assert len(taken) == PARTITIONS
    assert 0.5 <= time.monotonic() - began < 0.5 * PARTITIONS


def test_what_fails_too_often_goes_to_the_dead_letters_before_the_next_of_its_partition(orders, any_log):
    put = fill(orders)
    client, bad = orders.client("c"), put[1][0].value["n"]
    seen = []
    batches = client.batches(size=2, attempts=2)
    for batch in batches:
        values = [value["n"] for value in batch]
        if bad in values:
            batch.release(ValueError("bad"))
        else:
            seen += values
    letters = [value["n"] for value in values_of(any_log.topic("orders.dead"))]
    assert letters == [message.value["n"] for message in put[1][:2]]
    assert sorted(seen + letters) == list(range(200))


# one partition, strictly


def test_ordered_gives_one_partition_the_strict_way(any_log):
    any_log.put_many(range(20))
    client = any_log.client("c")
    first = client.next_batch(size=5, ordered=True)
    assert client.next_batch(ordered=True) is None
    assert list(client.batches(ordered=True)) == []
    shared = client.next_batch(size=5)
    assert (shared.number, list(shared)) == (2, [5, 6, 7, 8, 9])
    shared.release()
    assert client.next_batch(ordered=True) is None
    first.ack()
    assert [list(batch) for batch in client.batches(size=5, ordered=True)] == [
        [5, 6, 7, 8, 9],
        [10, 11, 12, 13, 14],
        [15, 16, 17, 18, 19],
    ]


@pytest.mark.parametrize(("partitions", "options"), [(PARTITIONS, {}), (1, {"ordered": True})])
def test_eight_threads_keep_the_order_of_each_key(any_log, partitions, options):
    orders = any_log.topic("many", partitions=partitions)
    out = any_log.topic("out", partitions=3)
    orders.put_many([{"key": KEYS[n % 20], "n": n} for n in range(2_000)], key="key")

    def work():
        for batch in orders.batches("c", size=9, follow=True, **options):
            batch.put_many(list(batch), topic="out", key="key")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    wait_until(lambda: [(info.lag, info.open) for info in orders.clients()] == [(0, 0)])
    got = by_key(values_of(out))
    any_log.close()
    for thread in threads:
        thread.join(60)
    assert got == {key: list(range(i, 2_000, 20)) for i, key in enumerate(KEYS)}


@pytest.mark.parametrize("dead_letter", ["failed", None])
def test_dead_letters_that_cannot_be_taken_are_refused_before_the_first_batch(any_log, orders, dead_letter):
    fill(orders, 10)
    name = dead_letter or "orders.dead"
    any_log.topic(name, partitions=PARTITIONS + 1)
    with pytest.raises(errors.PartitionsError, match=f"{name}.*{PARTITIONS + 1} partitions"):
        orders.client("c").batches(attempts=2, dead_letter=dead_letter)
    any_log.topic("other", codec="msgpack", partitions=PARTITIONS)
    with pytest.raises(errors.CodecMismatchError, match="other"):
        orders.client("c").pipe(list, attempts=2, dead_letter="other")


def test_the_lag_of_each_partition(orders):
    put = fill(orders)
    client = orders.client("c")
    client.seek("start")
    client.seek(put[1][2].offset, partition=1)
    lags = client.lag_by_partition
    assert lags == {number: max(0, len(some) - 2 * (number == 1)) for number, some in put.items()}
    assert client.lag == sum(lags.values())


@pytest.mark.filterwarnings("error")
def test_a_topic_made_with_a_number_of_partitions_is_meant_to_be_new(any_log, orders):
    any_log.topic("orders-16", partitions=16)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda topic: topic[-10:], r"tail\(10\)"),
        (lambda topic: topic.trim(before=5), r"trim\(before='30d'\)"),
        (lambda topic: topic.first, r"`first` needs one of them: partition\(0\)"),
    ],
)
def test_an_offset_of_the_whole_topic_is_refused_with_what_there_is_instead(orders, call, said):
    with pytest.raises(errors.PartitionsError, match=said):
        call(orders)
