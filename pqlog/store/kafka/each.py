"""Single messages of several calls, put at once: each has its outcome."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from pqlog.errors import Error
from pqlog.store.kafka import ids
from pqlog.store.kafka.lane import Transaction, id_lane
from pqlog.store.kafka.putting import check_sizes
from pqlog.store.kafka.records import ROWS, Record, records_of
from pqlog.store.values import PartitionOffset, Single, Singles

if TYPE_CHECKING:
    from pqlog.store.kafka.store import KafkaStore
    from pqlog.store.kafka.topic import KafkaTopic

Outcome = PartitionOffset | Error


def put_each(log: KafkaStore, singles: Sequence[Single]) -> list[Outcome]:
    """Put messages in their order: those without ids at once, those of a topic with ids in one transaction."""
    outcomes: list[Outcome] = []
    for _, run in itertools.groupby(singles, lambda single: None if single.id is None else _topic(single).topic_id):
        some = list(run)
        outcomes += _put_at_once(log, some) if some[0].id is None else _put_with_ids(log, some)
    return outcomes


def _topic(single: Single) -> KafkaTopic:
    return cast("KafkaTopic", single.topic)


def _put_at_once(log: KafkaStore, singles: Sequence[Single]) -> list[Outcome]:
    records = _checked(singles)
    sent = [(_topic(single), one) for single, one in zip(singles, records, strict=True) if isinstance(one, Record)]
    offsets = iter(log.singles.put_each(sent) if sent else ())
    outcomes: list[Outcome] = []
    for single, one in zip(singles, records, strict=True):
        outcome = one if isinstance(one, Error) else next(offsets)
        if isinstance(outcome, Error):
            outcomes.append(outcome)
        else:
            topic = _topic(single)
            topic.wrote(outcome * ROWS)
            outcomes.append(PartitionOffset(topic.info.partition, outcome * ROWS))
    return outcomes


def _checked(singles: Sequence[Single]) -> list[Record | Error]:
    """Each as a record, or why it cannot be put."""
    faults = {topic: _fault(topic) for topic in set(map(_topic, singles))}
    return [faults[_topic(single)] or _record(single) for single in singles]


def _fault(topic: KafkaTopic) -> Error | None:
    """Why nothing can be put into a topic."""
    try:
        topic.check()
    except Error as error:
        return error
    return None


def _record(single: Single) -> Record | Error:
    try:
        (record,) = records_of(Singles([single.value], [single.key], single.headers))
        check_sizes(_topic(single), [record])
    except Error as error:
        return error
    return record


def _put_with_ids(log: KafkaStore, singles: Sequence[Single]) -> list[Outcome]:
    """Messages with ids of one topic; what one transaction refuses is told of each."""
    checked = _checked(singles)
    whole = [single for single, one in zip(singles, checked, strict=True) if isinstance(one, Record)]
    try:
        went = _in_a_transaction(log, whole) if whole else {}
    except Error as error:
        return [one if isinstance(one, Error) else error for one in checked]
    return [
        one if isinstance(one, Error) else went[str(single.id)] for single, one in zip(singles, checked, strict=True)
    ]


def _in_a_transaction(log: KafkaStore, singles: Sequence[Single]) -> dict[str, PartitionOffset]:
    """Where the message with each id went, now or before."""
    topic, lane = _topic(singles[0]), id_lane(_topic(singles[0]))

    def work(tx: Transaction) -> dict[str, PartitionOffset]:
        went: dict[str, PartitionOffset] = {}
        new: dict[str, Single] = {}
        for single in singles:
            id = str(single.id)
            if found := ids.find_in(tx, topic, id):
                partition, put = min(found.items())
                went[id] = PartitionOffset(partition, put.first)
            else:
                new.setdefault(id, single)
        puts = tx.put_all([single.output for single in new.values()])
        for (id, single), put in zip(new.items(), puts, strict=True):
            number = single.topic.info.partition
            tx.set(lane, ids.key_of(id), ids.value_of({number: put}))
            went[id] = PartitionOffset(number, put.first)
        return went

    went = log.lanes.change([lane], work)
    log.show(list({_topic(single) for single in singles}))
    return went
