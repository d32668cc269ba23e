"""What any engine must do with clients of several partitions, and with batches in order."""

import gc
import itertools
import random
import threading

import pytest

import pqlog
from pqlog.store.values import Done, Ids, Moved, Output, Put, Segment, Singles, Size
from tests.contract.engines import (
    COUNT,
    around,
    broken,
    clients_of,
    few,
    fill_all,
    kept,
    never,
    offsets,
    one_partition,
    put,
    put_in,
    rows,
    singles,
    standing,
    take,
)

# clients


def test_a_client_of_a_partition_is_nothing_to_the_others(engine, partitions):
    at = fill_all(partitions)
    first, second, third = clients_of(partitions)
    assert second.join(at[1][4]).lag == 2
    assert (first.state(), third.state()) == (None, None)
    assert [[state.client for state in one.clients()] for one in partitions] == [[], ["c"], []]
    third.join()
    partitions[2].client("d").join()
    assert [[state.client for state in one.clients()] for one in partitions] == [[], ["c"], ["c", "d"]]
    assert (list(partitions[0].clients_near("c")), list(partitions[1].clients_near("cc"))) == ([], ["c"])
    assert set(partitions[2].clients_near("cc")) == {"c", "d"}
    assert third.acknowledge(at[2][1], third.state().epoch)
    assert [client.state() and client.state().lag for client in (first, second, third)] == [None, 2, 3]
    epochs = [state.epoch for one in partitions for state in one.clients()]
    assert len(set(epochs)) == 3
    assert not third.acknowledge(at[2][2], second.state().epoch)
    assert {client.name for client in (first, second, third)} == {"c"}


def test_clients_are_created_in_all_partitions_or_in_none(engine, partitions):
    at = fill_all(partitions)
    clients = clients_of(partitions)
    assert list(engine.states(clients)) == [None, None, None]
    clients[1].join(at[1][4])
    engine.join(clients)
    states = list(engine.states(clients))
    assert [state.lag for state in states] == [3, 2, 5]
    assert states == [client.state() for client in clients]
    engine.join(clients)
    assert list(engine.states(clients)) == states
    topic = one_partition(engine, "gone")
    gone = topic.client("d")
    topic.delete(force=True)
    others = clients_of(partitions, "d")
    with pytest.raises(pqlog.UnknownTopicError):
        engine.join([*others, gone])
    assert list(engine.states(others)) == [None, None, None]
    engine.join([])
    assert list(engine.states([])) == []


def test_a_client_that_was_deleted_under_a_worker_begins_again_in_all_partitions(engine, partitions):
    fill_all(partitions)
    clients = clients_of(partitions)
    engine.join(clients)
    engine.delete_clients(clients)
    assert take(clients[1], "w", ordered=True).span.first == partitions[1].span().first
    assert [state.lag for state in engine.states(clients)] == [3, 6, 5]
    with pytest.raises(pqlog.TrimRefusedError):
        engine.trim([(partitions[0], 10**12)], force=False)


@pytest.mark.parametrize("ordered", [False, True])
def test_the_first_of_some_clients_that_has_work(engine, partitions, ordered):
    at = fill_all(partitions)
    clients = clients_of(partitions)

    def with_work(worker=""):
        found = engine.find_work(clients, worker, ordered)
        asked = [client.has_work(worker, ordered) for client in clients]
        assert found == (asked.index(True) if any(asked) else None)
        for start in range(COUNT):  # and of any of them
            behind = engine.find_work(clients[start:], worker, ordered)
            assert behind == (asked.index(True, start) - start if any(asked[start:]) else None)
        return asked

    assert engine.find_work([], "", ordered) is None
    assert with_work() == [True, True, True]  # they do not exist
    engine.join(clients)
    for client, some in zip(clients, at, strict=True):
        assert client.acknowledge(some[-1], client.state().epoch)
    assert take(clients[0]) is None  # what an earlier process of that number held is known from now on
    assert with_work() == [False, False, False]
    put(partitions[1], singles(b"7", b"8"))
    put(partitions[2], singles(b"9"))
    assert with_work() == [False, True, True]
    held = take(clients[1], "w", messages=1)
    assert with_work() == [False, not ordered, True]
    assert with_work("w") == [False, True, True]
    clients[1].release(held, None)
    assert with_work() == [False, True, True]
    engine.trim([(one, 10**12) for one in partitions], force=True)
    assert engine.find_work(clients[:1], "", ordered) is None
    assert not clients[2].has_work("", ordered)
    partitions[0].delete(force=True)
    with pytest.raises(pqlog.UnknownTopicError):
        engine.find_work(clients, "", ordered)


def test_clients_are_moved_anywhere_in_all_partitions(engine, partitions):
    at = fill_all(partitions)
    stops = [span.stop for span in engine.spans(partitions)]
    clients = clients_of(partitions)
    edges = [
        sorted({0, *some, *(offset + 1 for offset in some), stop, 10**12}) for some, stop in zip(at, stops, strict=True)
    ]
    seen = set()
    was = [len(some) for some in at]
    for case in few(engine, itertools.zip_longest(*edges, fillvalue=0), 3):
        moved = list(engine.seek(list(zip(clients, case, strict=True))))
        lags = [sum(offset >= to for offset in some) for some, to in zip(at, case, strict=True)]
        states = [client.state() for client in clients]
        assert [state.lag for state in states] == lags
        assert [one.position for one in moved] == [state.position for state in states]
        assert [(one.again, one.skipped) for one in moved] == [
            (max(0, now - before), max(0, before - now)) for now, before in zip(lags, was, strict=True)
        ]
        for state, stop in zip(states, stops, strict=True):
            assert state.position <= stop
            assert state.epoch not in seen
            seen.add(state.epoch)
        was = lags
    assert list(engine.seek([])) == []
    assert list(engine.seek([(clients[2], at[2][0])])) == [Moved(at[2][0], 5 - was[2], 0)]


def test_clients_are_moved_all_or_not_at_all(engine, partitions):
    at = fill_all(partitions)
    topic = one_partition(engine, "gone")
    gone = topic.client("c")
    clients = clients_of(partitions)
    held = take(clients[0])
    before = engine.states(clients)
    topic.delete(force=True)
    moves = [(clients[0], at[0][1]), (clients[1], at[1][1]), (gone, 1)]
    with pytest.raises(pqlog.UnknownTopicError):
        engine.seek(moves)
    assert engine.states(clients) == before
    clients[0].finish(held)
    before = engine.states(clients)
    with pytest.raises(pqlog.UnknownTopicError):
        engine.delete_clients([*clients, gone])
    assert engine.states(clients) == before


def test_moving_clients_gives_up_the_batches_of_each(engine, partitions):
    at = fill_all(partitions)
    clients = clients_of(partitions)
    held = [take(client) for client in clients]
    engine.seek([(clients[0], at[0][0]), (clients[2], at[2][1])])
    for number in (0, 2):
        with pytest.raises(pqlog.ClaimLostError):
            take(clients[1], done=Done(clients[number], held[number]))
        with pytest.raises(pqlog.ClaimLostError):
            clients[number].finish(held[number])
        assert clients[number].claims() == []
        assert not clients[number].release(held[number], None)
    assert len(clients[1].claims()) == 1
    clients[1].finish(held[1])
    following = take(clients[2])
    assert (following.number, following.span) == (2, around(at[2][1:3]))


def test_clients_are_deleted_in_all_partitions(engine, partitions):
    fill_all(partitions)
    clients = clients_of(partitions)
    assert not engine.delete_clients(clients)
    assert not engine.delete_clients([])
    clients[1].join()
    epoch = clients[1].state().epoch
    partitions[1].client("d").join()
    held = take(clients[1])
    assert engine.delete_clients(clients)
    assert not engine.delete_clients(clients)
    assert [[state.client for state in one.clients()] for one in partitions] == [[], ["d"], []]
    with pytest.raises(pqlog.ClaimLostError):
        clients[1].finish(held)
    assert clients[1].join().epoch != epoch
    assert clients[1].state().lag == 6


# batches


def test_each_partition_has_batches_of_its_own(engine, partitions):
    at = fill_all(partitions)
    clients = clients_of(partitions)
    held = [take(client, "one", messages=2) for client in clients]
    assert [(claim.number, claim.span, claim.messages) for claim in held] == [(1, around(some[:2]), 2) for some in at]
    assert len({claim.token for claim in held}) == COUNT
    for number, client in enumerate(clients):
        assert [claim.span for claim in client.claims()] == [held[number].span]
        assert partitions[number].open_batches() == {"c": (1, 1)}
        with pytest.raises(pqlog.ClaimedError):
            client.acknowledge(at[number][0], client.state().epoch)
    with pytest.raises(pqlog.ClaimLostError):
        clients[1].finish(held[0])
    clients[2].finish(held[2])
    assert [client.state().lag for client in clients] == [3, 6, 3]


def test_a_batch_of_another_partition_or_topic_is_acknowledged_with_a_claim(engine, partitions):
    at = fill_all(partitions)
    other = one_partition(engine, "other")
    there = put(other, singles(b"1", b"2", b"3"))
    first, second, third = clients_of(partitions)
    source = other.client("s")
    held = take(source, "w")
    claim, went = second.advance(Size(2), "w", Done(source, held, [Output(partitions[0], [singles(b"7")])]), True)
    assert (claim.span, claim.client, [put.messages for put in went]) == (around(at[1][:2]), "c", [1])
    assert (source.state().lag, source.claims(), len(offsets(partitions[0]))) == (1, [], 4)
    claim, went = third.advance(Size(2), "w", Done(second, claim), True)
    assert (claim.span, went, second.state().lag, second.claims()) == (around(at[2][:2]), [], 4, [])
    claim, _ = source.advance(Size(2), "w", Done(third, claim), True)
    assert (claim.number, claim.span, third.state().lag) == (2, around(there[2:]), 3)
    claim, _ = first.advance(Size(9), "w", Done(source, claim), True)
    assert (claim.messages, source.state().lag) == (4, 0)
    nothing, _ = source.advance(Size(9), "w", Done(first, claim), True)  # acknowledged, though nothing is claimed
    assert (nothing, first.state().lag, first.claims()) == (None, 0, [])


def test_a_batch_of_another_partition_that_is_lost_changes_nothing(engine, partitions):
    fill_all(partitions)
    first, second, _ = clients_of(partitions)
    second.join()
    lost = take(first)
    first.leave(lost)
    held = take(first)
    before, state = kept(partitions), standing(second)
    for done in (
        Done(first, lost, [Output(partitions[2], [singles(b"7")])]),
        Done(first, held, [Output(partitions[1], [singles(b"7")]), Output(partitions[2], broken(singles(b"7")))]),
    ):
        with pytest.raises(pqlog.Error):
            second.advance(Size(2), "", done, True)
        assert (kept(partitions), standing(second), second.claims()) == (before, state, [])
        assert [claim.token for claim in first.claims()] == [held.token]
    gone = one_partition(engine, "gone")
    gone.delete(force=True)
    for client, done in (
        (gone.client("c"), Done(first, held, [Output(partitions[2], [singles(b"7")])])),
        (second, Done(first, held, [Output(partitions[2], [singles(b"7")]), Output(gone, [])])),
    ):
        with pytest.raises(pqlog.UnknownTopicError):
            client.advance(Size(2), "", done, True)
        assert (kept(partitions), standing(second), second.claims()) == (before, state, [])
    first.finish(held)
    assert take(second).number == 1


def test_outputs_go_to_partitions_of_topics_and_are_said_in_their_order(engine, partitions):
    other = engine.topic("other", "json", 2)
    put(partitions[0], singles(b"1", b"2"))
    client = partitions[0].client("c")
    put_in(other, {1: [singles(b"old")]}, ids={1: Ids([["old"]], never)})
    outputs = [
        Output(other[1], [singles(b"a", b"b")], Ids([["a", "b"]], never)),
        Output(partitions[2], [Segment(b"segment", 4)]),
        Output(other[0], [singles(b"b", b"old", b"c")], Ids([["b", "old", "c"]], never)),
        Output(other[1], [singles(b"d")]),
        Output(partitions[0], [singles(b"3")]),
        Output(partitions[1], []),
    ]
    went = client.finish(take(client), outputs)
    assert [one.messages for one in went] == [2, 4, 1, 1, 1, 0]
    assert [[row.value for row in rows(one)] for one in other] == [[b"c"], [b"old", b"a", b"b", b"d"]]
    assert [[row.value for row in rows(one)] for one in partitions] == [[b"1", b"2", b"3"], [], [b"segment"]]
    assert other[0].find_id("b") == {1: Put(went[0].last, went[0].last, 1)}
    assert client.state().lag == 1


# in order


def test_while_a_batch_is_in_hands_nobody_gets_another_of_its_partition(engine, partitions):
    fill_all(partitions)
    clients = clients_of(partitions)
    assert all(client.has_work("w", ordered=True) for client in clients)  # it may be
    held = take(clients[1], "one", messages=2)
    for worker in ("two", ""):
        assert not clients[1].has_work(worker, ordered=True)
        assert take(clients[1], worker) is None
    assert clients[1].has_work("two")
    assert len(clients[1].claims()) == 1
    assert clients[0].has_work("two", ordered=True)
    assert take(clients[0], "two").number == 1
    assert partitions[1].client("d").has_work("two", ordered=True)
    assert take(partitions[1].client("d"), "two").number == 1
    clients[1].finish(held)
    assert clients[1].has_work("two", ordered=True)
    assert take(clients[1], "two").number == 2


GIVING_BACK = {
    "released": lambda client, held: client.release(held.pop(), "TypeError: no"),
    "left": lambda client, held: client.leave(held.pop()),
    "collected": lambda client, held: held.clear() or gc.collect(),
    "own": lambda client, held: None,
}


@pytest.mark.parametrize("how", GIVING_BACK)
def test_a_batch_that_is_free_is_handed_out_first(engine, partitions, how):
    at = fill_all(partitions)
    client = partitions[1].client("c")
    held = [take(client, "one", messages=2)]
    token = held[0].token
    GIVING_BACK[how](client, held)
    worker = "one" if how == "own" else "two"
    assert client.has_work(worker, ordered=True)
    again = take(client, worker, messages=9)
    assert (again.number, again.span, again.messages, again.attempt) == (1, around(at[1][:2]), 2, 2)
    assert again.token != token
    assert again.error == ("TypeError: no" if how == "released" else None)
    assert take(client, "three") is None
    following = take(client, worker, Done(client, again), messages=9)
    assert (following.number, following.span) == (2, around(at[1][2:]))
    assert take(client, worker, Done(client, following)) is None
    assert client.state().lag == 0
    assert not client.has_work(worker, ordered=True)


def test_a_worker_without_a_name_has_nothing_of_its_own(engine, partitions):
    fill_all(partitions)
    client = partitions[1].client("c")
    held = take(client, "")
    assert not client.has_work("", ordered=True)
    assert take(client, "") is None
    client.finish(held)


def test_of_several_batches_in_hands_all_must_come_back(engine, partitions):
    """They were handed out without asking for the order."""
    at = put(partitions[1], *[singles(b"1")] * 8)
    client = partitions[1].client("c")
    first, second, third = (take(client, name, ordered=False) for name in ("one", "two", "three"))
    for worker in ("one", "four"):
        assert not client.has_work(worker, ordered=True)
        assert take(client, worker) is None
    client.release(second, None)
    assert not client.has_work("four", ordered=True)
    assert take(client, "four") is None
    assert take(client, "one", Done(client, first)) is None  # acknowledged all the same
    assert client.state().lag == 6
    client.finish(third)
    assert client.state().lag == 6
    assert client.has_work("four", ordered=True)
    again = take(client, "four")
    assert (again.number, again.span) == (2, around(at[2:4]))
    following = take(client, "four", Done(client, again))
    assert (following.number, following.span, client.state().lag) == (4, around(at[6:]), 2)


def test_several_free_batches_are_handed_out_one_by_one(engine, partitions):
    at = put(partitions[1], *[singles(b"1")] * 8)
    client = partitions[1].client("c")
    for claim in [take(client, ordered=False) for _ in range(3)]:
        client.leave(claim)
    for index in range(4):
        held = take(client)
        assert (held.number, held.span) == (index + 1, around(at[2 * index : 2 * index + 2]))
        assert take(client) is None
        assert not client.has_work("", ordered=True)
        client.finish(held)
    assert client.state().lag == 0


def test_a_partition_of_one_may_be_in_order_too(engine):
    topic = one_partition(engine, "main")
    put(topic, *[singles(b"1")] * 4)
    client = topic.client("c")
    held = take(client)
    assert take(client) is None
    assert take(client, ordered=False).number == 2
    client.finish(held)


def test_workers_that_take_partitions_in_turn_keep_the_order_of_each(engine, partitions):
    """Each acknowledges its batch and claims one of the next partition in the same step."""
    count = 60
    for number, one in enumerate(partitions):
        put(one, singles(*[b"%d" % n for n in range(count - number)]))
    out = engine.topic("out", "json", COUNT)
    clients = clients_of(partitions)
    for client in clients:
        client.join()
    working, failed = [0] * COUNT, []

    def work(name):
        chance = random.Random(name)
        done = None
        try:
            while done or any(client.state().lag for client in clients):
                number = chance.randrange(COUNT)
                claim, _ = clients[number].advance(Size(chance.randint(1, 4)), str(name), done, True)
                done = None
                if claim is None:
                    continue
                working[number] += 1
                assert working[number] == 1, "two have a batch of one partition"
                values = [row.value for row in rows(partitions[number], claim.span)]
                if chance.random() < 0.2:
                    working[number] -= 1
                    assert clients[number].release(claim, None)
                else:
                    working[number] -= 1
                    done = Done(clients[number], claim, [Output(out[number], [Singles(values)])])
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    for number, one in enumerate(out):
        assert [row.value for row in rows(one)] == [b"%d" % n for n in range(count - number)]
