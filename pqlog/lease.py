"""Lease: a batch in somebody's hands, and what was put through it: both commit together, or neither does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pqlog import check, extras, producer
from pqlog.codecs import UNDECODABLE
from pqlog.errors import (
    ArgumentError,
    ClaimLostError,
    CodecMismatchError,
    DecodeError,
    Error,
    PartitionsError,
    UncertainError,
)
from pqlog.message import from_micros
from pqlog.partitioning import Partitioner
from pqlog.store.api import ClientStore, TopicStore
from pqlog.store.values import LATEST, Chunk, Claim, Done, Output, Put, Row, Segment, Singles, Span
from pqlog.stream import TopicStream, headers_of

DEAD = ".dead"
"""What the name of a topic for dead letters ends with, unless another is given."""


def check_letters(topic: TopicStream, letters: Sequence[TopicStore]) -> None:
    """Raise unless a topic can take the messages of another as they are."""
    ours, theirs = topic.partitions[0].info, letters[0].info
    if theirs.codec != ours.codec:
        raise CodecMismatchError(theirs.name, ours.codec, theirs.codec)
    if theirs.partitions != ours.partitions:
        raise PartitionsError.of_letters(theirs.name, theirs.partitions, ours.name, ours.partitions)


class Staged:
    """What a stage has put through its batch: there for others once the batch is acknowledged.

    Attributes
    ----------
    topic : str
        Where it goes.

    Examples
    --------
    >>> import pqlog
    >>> log = pqlog.open(":memory:")
    >>> log.put("a")
    1
    >>> for batch in log.batches("etl"):
    ...     staged = batch.put("b", topic="out")
    >>> staged.put
    Put(first=1, last=1, messages=1)
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self._went: Put | str = _OPEN

    @property
    def put(self) -> Put:
        """Where the messages went; raises `ArgumentError` before the acknowledgement, and if there was none."""
        if isinstance(self._went, str):
            raise ArgumentError(f"the messages have no offsets: {self._went}")
        return self._went

    def __repr__(self) -> str:
        return f"<pqlog.Staged for topic {self.topic!r}: {self._went}>"


_OPEN = "the batch is not acknowledged yet"
_DROPPED = "the batch was not acknowledged, so they were dropped"
_UNKNOWN = "the call that acknowledged the batch was interrupted: if it did, they are at the end of the topic"


class _Stage(NamedTuple):
    """What was put through a batch by one call."""

    staged: Staged
    outputs: Sequence[Output]
    spooled: producer.Encoded | None
    """Where their chunks are, if it is to be closed."""
    partitions: int
    """How many its topic has."""


class Lease:
    """A claim in somebody's hands: open until it is acknowledged or given back.

    Attributes
    ----------
    topic : TopicStream
        The one partition that it is a batch of.
    claim : Claim
    """

    def __init__(self, topic: TopicStream, client: ClientStore, claim: Claim) -> None:
        self.topic, self.claim = topic, claim
        self.partition, self.partitions = topic.partitions[0].info.partition, topic.partitions[0].info.partitions
        self._client = client
        self._ended: str | None = None
        """How it ended; None while it is open."""
        self._is_doubtful = False
        """Whether Ctrl-C may have struck between its acknowledgement and the note of it here."""
        self._staged: list[_Stage] = []
        self._partitioners: dict[int, Partitioner] = {}
        """By topic: what has no key goes round there."""

    @property
    def is_open(self) -> bool:
        """Whether it is neither acknowledged nor given back."""
        return self._ended is None

    def check_open(self) -> None:
        """Raise `ClaimLostError` unless it is open."""
        if self._ended is not None:
            raise ClaimLostError(self.claim.client, self.claim.number, self._ended, self.topic.store.info.number)

    # what is put through it

    def output(self, topic: str) -> TopicStream:
        """A topic of the same log to put into; created, for JSON, if it does not exist."""
        self.check_open()
        if not isinstance(topic, str):
            raise ArgumentError(f"topic must be the name of a topic of the same log, not {topic!r}")
        return self.topic.sibling(topic, "json")

    def partitioner(self, topic: TopicStream) -> Partitioner:
        """What chooses the partitions of a topic for all that is put through this batch."""
        id = topic.partitions[0].info.id
        if id not in self._partitioners:
            self._partitioners[id] = Partitioner(len(topic.partitions), topic.partitions[0].info.max_bytes)
        return self._partitioners[id]

    def stage(self, topic: TopicStream, put: producer.Encoded) -> Staged:
        """Note what is to be put into a topic with the acknowledgement."""
        return self._stage(topic, put.outputs(topic), put)

    def stage_one(self, topic: TopicStream, partition: int, chunk: Chunk, is_placed: bool = True) -> Staged:
        """The same of one chunk, which is put into one partition: that of its key, or the engine is told."""
        return self._stage(topic, [Output(topic.partitions[partition], [chunk], is_placed=is_placed)], None)

    def _stage(self, topic: TopicStream, outputs: Sequence[Output], spooled: producer.Encoded | None) -> Staged:
        staged = Staged(topic.name)
        self._staged.append(_Stage(staged, outputs, spooled, len(topic.partitions)))
        return staged

    def put_aside(self, row: Row, topic: str, reason: str) -> Staged:
        """Stage a row for a dead-letter topic, as it is: nothing is encoded again."""
        self.check_open()
        is_placed = self.partitions == 1 or self.topic.places_keys()
        return self.stage_one(self._dead_letters(topic), self.partition, self._letter(row, reason), is_placed)

    def put_all_aside(self, topic: str | None, reason: str) -> None:
        """The same with all of its rows: they may be what cannot be decoded."""
        name = topic or f"{self.topic.name}{DEAD}"
        for row in self.topic.rows(self.claim.span, damaged=True):
            self.put_aside(row, name, reason)

    def _dead_letters(self, name: str) -> TopicStream:
        """A topic for messages as they are, so of the same codec and with as many partitions."""
        letters = self.topic.sibling(name, self.topic.codec_name, self.partitions)
        check_letters(self.topic, letters.partitions)
        return letters

    def _letter(self, row: Row, reason: str) -> Chunk:
        """A row for a dead-letter topic: as it is where all of it goes, or where its part cannot be taken out of it."""
        headers = self._headers(row, reason)
        if row.rows is None:
            return Singles([row.value], [row.key], producer.header_text(headers))
        value, rows = row.value, row.rows
        if not row.is_whole:
            try:
                value = extras.frames.cut(row, self.topic.name)
            except DecodeError:
                headers["pqlog-part"] = f"{row.offset}-{Span(row.offset, row.stop).last}"
                rows = row.whole or row.rows
        return Segment(value, rows, row.key, producer.header_text(headers))

    def _headers(self, row: Row, reason: str) -> dict[str, str]:
        try:
            headers = headers_of(row)
        except UNDECODABLE:
            headers = {"pqlog-headers": str(row.headers)}
        partition = {"pqlog-partition": str(self.partition)} if self.partitions > 1 else {}
        return headers | {
            "pqlog-topic": self.topic.name,
            **partition,
            "pqlog-offset": str(row.offset),
            "pqlog-time": from_micros(min(max(0, row.time), LATEST)).isoformat(),
            "pqlog-client": self.claim.client,
            "pqlog-batch": str(self.claim.number),
            "pqlog-reason": str(reason),
        }

    # its end

    def ack(self) -> None:
        """Acknowledge it, with what was put through it, in one commit."""
        self.check_open()
        self.acknowledge(lambda done: (None, self._client.finish(done.claim, done.outputs)))

    def acknowledge(self, commit: Callable[[Done], tuple[Claim | None, Sequence[Put]]]) -> Claim | None:
        """The same by a call that may claim another batch: that claim.

        If an earlier call was interrupted, it may have acknowledged the batch: then it is not held any more, and this
        is no error.
        """
        outputs = [output for stage in self._staged for output in stage.outputs]
        was_doubtful, self._is_doubtful = self._is_doubtful, True
        try:
            claim, went = commit(Done(self._client, self.claim, outputs))
        except ClaimLostError:
            self._is_doubtful = was_doubtful and self._is_done()
            self._end("it was acknowledged" if self._is_doubtful else "it was handed out again")
            if self._is_doubtful:
                return None
            raise
        except Error as error:
            self._is_doubtful = was_doubtful or isinstance(error, UncertainError)
            raise
        puts = iter(went)
        for stage in self._staged:
            parts = {output.topic.info.partition: next(puts) for output in stage.outputs}
            stage.staged._went = Put.of(parts, stage.partitions)
        self._end("it was acknowledged")
        return claim

    def release(self, error: BaseException | str | None) -> None:
        """Give it back, so that the next caller gets it at once."""
        if self._ended is None:
            self._end("it was released")
            if isinstance(error, BaseException):
                error = check.printable(f"{type(error).__name__}: {error}")
            try:
                self._client.release(self.claim, error)
            except BaseException:  # a full disk, say: it is given back as soon as that is possible
                self._client.leave(self.claim)
                raise

    def leave(self) -> None:
        """Give it back without waiting, since a finalizer does it: the loop that it was handed to is gone."""
        if self._ended is None:
            self._end("its loop was left, which gives it back; next_batch hands out a single one")
            self._client.leave(self.claim)

    def _is_done(self) -> bool:
        """Whether a batch that is not held any more was acknowledged: nobody moved its client, nobody else has it."""
        state, claim = self._client.state(), self.claim
        is_moved = state is None or state.epoch != claim.epoch
        return not is_moved and all(one.number != claim.number for one in self._client.claims())

    def _end(self, how: str) -> None:
        self._ended = how
        why = _UNKNOWN if self._is_doubtful else _DROPPED
        for stage in self._staged:
            if stage.spooled is not None:
                stage.spooled.close()
            stage.staged._went = why if stage.staged._went is _OPEN else stage.staged._went
        self._staged = []
