"""Every error of pqlog, as a tree.

::

    Error
    ├── ArgumentError               an argument is not valid (a ValueError)
    ├── ClosedError                 the log was closed
    │   └── ForkError               it belongs to the parent of this forked process
    ├── Empty                       no message arrived before the timeout
    ├── EncodeError                 a value cannot be encoded by the topic's codec
    ├── TooLargeError               a message is larger than the cluster accepts (a ValueError)
    ├── DecodeError                 a stored message cannot be decoded; has its offset
    │   ├── PickleRefusedError      it is a pickle, and the topic was opened without the codec pickle
    │   └── DamagedError            it is not what was put (also a CorruptLogError)
    ├── UntrustedPicklesError       a file to migrate contains pickles, and trust_pickle was not given
    ├── CodecMismatchError          the topic was created with another codec
    ├── PartitionsError             the topic was created with another number of partitions, or has more than one
    ├── UnknownTopicError           no topic has that name (a KeyError)
    ├── UnknownClientError          no client has that name (a KeyError)
    ├── OffsetError                 there is no message at that offset (an IndexError)
    │   └── TrimmedError            it was trimmed
    ├── UncountedError              the length of a history is unknown until it is read (a TypeError)
    ├── TrimRefusedError            a client has not acknowledged what would be trimmed or deleted
    ├── ClaimedError                the client has an open batch
    ├── ClaimLostError              the batch is no longer held by this reader
    ├── CursorError                 another process moved the cursor; nothing was put
    ├── WorkerDiedError             a worker of a pipe was killed; has a summary of what was done
    ├── MissingExtraError           an optional package is not installed (an ImportError)
    ├── UnsupportedError            this log cannot do that
    ├── UncertainError              it is not known whether a call took effect
    └── StoreError                  a problem with the file or the disk
        ├── NotALogError            a directory, a text file, or another program's database
        │   └── OldQueueError       a file of persistent-queue-log, which can be migrated
        ├── NewerFormatError        the file was written by a newer pqlog
        ├── CorruptLogError         the file is damaged
        ├── MovedError              the file was moved, replaced or deleted while it was open
        ├── ReadOnlyError           the file, or how it was opened, does not allow writing
        ├── DiskFullError           no space is left on the disk
        ├── DiskError               the system reported an I/O error
        ├── LockTimeoutError        another process held the lock for too long
        ├── UnsafeStorageError      this disk, SQLite or cluster cannot guarantee durability
        ├── ClusterError            the cluster cannot be reached, or does not answer in time
        └── AccessError             the cluster refuses the credentials, or does not allow this
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from pqlog.store.values import Claim, TopicInfo


SHOWN = 5
"""How many names an error lists."""


class Error(Exception):
    """Base class of every error that pqlog raises."""


class ArgumentError(Error, ValueError):
    """An argument has a value that is not valid."""


class ClosedError(Error):
    """The log was closed."""


class ForkError(ClosedError):
    """The iterator, batch or in-memory log belongs to the parent process: start a new one in the child."""


class Empty(Error):
    """No message arrived before the timeout."""


class EncodeError(Error, ValueError):
    """A value cannot be encoded by the topic's codec; nothing was put.

    Attributes
    ----------
    index : int
        The position of the value in the call; 0 is the first.
    offset : int or None
        The offset that the message would have had; None where offsets have gaps.
    value_type : str
        The type of the value.
    codec : str
        The topic's codec.
    """

    def __init__(self, reason: str, *, value_type: str, codec: str, index: int = 0, offset: int | None = None) -> None:
        where = "" if offset is None else f" (it would be offset {offset})"
        article = "an" if value_type[:1] in "aeiou" else "a"
        super().__init__(f"cannot put {article} {value_type} with the codec {codec!r}{where}: {reason}")
        self.reason, self.value_type, self.codec, self.index, self.offset = reason, value_type, codec, index, offset

    def placed(self, *, index: int, offset: int | None = None) -> EncodeError:
        """The same error, with the position of the value in the call and in the topic."""
        return EncodeError(self.reason, value_type=self.value_type, codec=self.codec, index=index, offset=offset)


class TooLargeError(Error, ValueError):
    """A message is larger than the cluster accepts; nothing was put."""


class DecodeError(Error):
    """A stored message cannot be decoded.

    Attributes
    ----------
    topic : str
    offset : int
        The offset of the message: skip it with ``log.client(name).seek(offset + 1)``, and in a topic of several
        partitions with ``seek(offset + 1, partition=partition)``.
    partition : int or None
        The number of its partition; None if the topic has only one.
    """

    behind: int | None = None
    """The place at which a reader of merged partitions continues behind it; for pqlog itself."""

    def __init__(self, topic: str, offset: int, reason: str, partition: int | None = None) -> None:
        of, at = _in(partition)
        self._said = f"message {offset}{of} of topic {topic!r} cannot be decoded: {reason}"
        super().__init__(f"{self._said}. A client skips it with {_of(topic)}.client(name).seek({offset + 1}{at})")
        self.topic, self.offset, self.partition, self.reason = topic, offset, partition, reason

    def without_clients(self) -> Self:
        """The same error for a topic that clients cannot read."""
        number = "" if self.partition is None else f".partition({self.partition})"
        self.args = (
            f"{self._said}. What lies behind it is read with "
            f"{_of(self.topic)}{number}.history(start={self.offset + 1})",
        )
        return self


class PickleRefusedError(DecodeError):
    """The message is a pickle, which can run any code, and the topic was opened without ``codec="pickle"``."""


class UntrustedPicklesError(Error):
    """A file to migrate contains pickles, which can run any code, and ``trust_pickle=True`` was not given.

    Attributes
    ----------
    messages, clients : int
        The number of pickled messages and of clients in the file.
    """

    def __init__(self, path: str, program: str, messages: int, clients: int) -> None:
        super().__init__(
            f"{path} is a file of {program} with {messages:,} pickled messages and {clients:,} clients. Unpickling can "
            f"run any code. If you trust the file, pass trust_pickle=True (--trust-pickle)"
        )
        self.messages, self.clients = messages, clients


class CodecMismatchError(Error):
    """The topic was created with another codec.

    Attributes
    ----------
    topic : str
    asked : str or None
        The codec that was asked for; None if none was.
    made : str
        The codec that the topic was created with.
    """

    def __init__(self, topic: str, asked: str | None, made: str) -> None:
        if asked is None:
            message = f"topic {topic!r} has the codec {made!r}, which must be named: open it with codec={made!r}"
        else:
            message = (
                f"topic {topic!r} was created with the codec {made!r}, not {asked!r}, and the codec cannot be changed. "
                f"Open it without codec=, or put into another topic"
            )
        super().__init__(message)
        self.topic, self.asked, self.made = topic, asked, made

    @classmethod
    def of_copy(cls, topic: str, asked: str, made: str, log: str) -> CodecMismatchError:
        """The error for a topic that cannot be copied into one of another codec."""
        error = cls(topic, asked, made)
        error.args = (
            f"topic {topic!r} of {log} has the codec {made!r}, and what is to be copied into it {asked!r}: rename one "
            f"of the two, or copy into another log",
        )
        return error


class PartitionsError(Error):
    """A topic has another number of partitions than was asked for, or a call must be told which of them is meant."""

    @classmethod
    def of(cls, topic: str, asked: int, made: int, readonly: bool = False) -> PartitionsError:
        """The error for a number that was asked for."""
        if readonly:
            return cls(
                f"topic {topic!r} has {made} partition{'s' * (made != 1)}, not {asked}. Leave partitions= out: it is "
                f"for a topic that is created"
            )
        return cls(
            f"topic {topic!r} was created with {made} partition{'s' * (made != 1)}, not {asked}, and that cannot be "
            f"changed: a key would go elsewhere. Leave partitions= out, or copy the topic into one that is created "
            f"with {asked}, as docs/workers.md shows. For the topic that a new file is opened with, there is "
            f"pqlog.open(path, partitions={asked})"
        )

    @classmethod
    def of_letters(cls, letters: str, made: int, topic: str, partitions: int) -> PartitionsError:
        """The error for a topic for dead letters that has not as many as the topic that they come from."""
        return cls(
            f"topic {letters!r} has {made} partition{'s' * (made != 1)}, and topic {topic!r} has {partitions}: a dead "
            f"letter goes into the partition of the same number. Choose another name for the dead letters: its topic "
            f"is created with {partitions} partitions"
        )

    @classmethod
    def of_copy(cls, topic: str, asked: int, made: int, log: str) -> PartitionsError:
        """The error for a topic that cannot be copied into one with fewer partitions."""
        return cls(
            f"topic {topic!r} of {log} has {made} partition{'s' * (made != 1)}, and what is to be copied into it has "
            f"{asked}: a message goes into the partition of the same number. Rename one of the two, or copy into "
            f"another log"
        )

    @classmethod
    def of_start(cls, topic: str, partitions: int) -> PartitionsError:
        """The error for a mirror that is to begin at an offset, which does not say of which partition it is."""
        return cls(
            f"topic {topic!r} has {partitions} partitions, each with offsets of its own, so a mirror of it cannot "
            f"start at one: begin at a time, with since="
        )

    @classmethod
    def of_seek(cls, topic: str, partitions: int, to: int) -> PartitionsError:
        """The error for a client that is moved to an offset, without a partition."""
        return cls(
            f"topic {topic!r} has {partitions} partitions, each with offsets of its own: seek({to}, partition=0), say. "
            f"A time, 'start' or 'end' moves the client in all of them"
        )

    @classmethod
    def by_offset(cls, topic: str, partitions: int, what: str, instead: str = "") -> PartitionsError:
        """The error for an offset that does not say of which partition it is."""
        return cls(
            f"topic {topic!r} has {partitions} partitions, each with offsets of its own, so {what} needs one of them: "
            f"partition(0) of the topic, say. {instead or 'Times are of the whole topic: history(since=...)'}"
        )


class UnknownTopicError(Error, KeyError):
    """No topic has that name."""

    def __init__(self, topic: str, near: Sequence[str]) -> None:
        super().__init__(f"no topic {topic!r} in this log{_did_you_mean(near)}")
        self.topic, self.near = topic, tuple(near)

    @classmethod
    def of_cluster(cls, topic: str, cluster: str, topics: Sequence[str]) -> UnknownTopicError:
        """The error for the topic of a log that is a whole cluster, where nobody may have named one."""
        error = cls(topic, topics)
        one = repr(topics[0]) if topics else "'orders'"
        have = f"it has {_some(topics)}" if topics else "it has none"
        error.args = (
            f"no topic {topic!r}: {cluster} is a whole cluster, of which a topic must be named, as in "
            f"log.topic({one}); {have}",
        )
        return error

    __str__ = Exception.__str__  # a KeyError would show the sentence in quotes


class UnknownClientError(Error, KeyError):
    """No client with that name has read the topic."""

    def __init__(self, client: str, topic: str, near: Sequence[str]) -> None:
        others = f" yet, so it has no position; {_of(topic)}.clients() lists those that have one"
        super().__init__(f"no client {client!r} has read topic {topic!r}{_did_you_mean(near) or others}")
        self.client, self.topic, self.near = client, topic, tuple(near)

    __str__ = Exception.__str__


class OffsetError(Error, IndexError):
    """There is no message at that offset."""


class TrimmedError(OffsetError):
    """The message was trimmed; or messages of several partitions were, while they were read.

    Attributes
    ----------
    offset, first : int or None
        That of the message, and the first that is kept; None if it is not known which were trimmed.
    partition : int or None
        The number of its partition; None if the topic has only one, or if it is not known.
    """

    def __init__(self, offset: int | None, first: int | None = None, partition: int | None = None) -> None:
        of, _ = _in(partition)
        if offset is None:
            super().__init__("messages were trimmed while they were read: read them again")
        else:
            super().__init__(f"offset {offset}{of} was trimmed; the first offset kept is {first}")
        self.offset, self.first, self.partition = offset, first, partition


class UncountedError(Error, TypeError):
    """The length of the history is unknown until it is read."""


class TrimRefusedError(Error):
    """A client has not acknowledged what would be trimmed or deleted."""

    def __init__(self, clients: Sequence[tuple[str, int]], topic: str, what: str = "trimmed") -> None:
        who = ", ".join(f"{name!r} ({count:,} message{'s' * (count != 1)})" for name, count in clients)
        super().__init__(
            f"not {what}: these clients would lose messages that they have not acknowledged: {who}. "
            f"Let them finish reading, delete them with {_of(topic)}.client(name).delete(), or pass force=True"
        )
        self.clients = tuple(clients)


class ClaimedError(Error):
    """The client has an open batch, so its messages cannot be read one by one.

    Attributes
    ----------
    client : str
    number, first, last : int
        The batch's number, and the offsets of its first and last message.
    partition : int or None
        The number of the batch's partition; None if the topic has only one.
    """

    def __init__(
        self, client: str, number: int, first: int, last: int, topic: str = "main", partition: int | None = None
    ) -> None:
        of, (of_partition, at) = _of(topic), _in(partition)
        super().__init__(
            f"client {client!r} has batch {number}{of_partition} open (offsets {first} to {last}): finish it "
            f"with {of}.batches({client!r}) or {of}.get_one({client!r}), or give it up with "
            f"{of}.client({client!r}).seek({first}{at})"
        )
        self.client, self.number, self.first, self.last, self.partition = client, number, first, last, partition

    @classmethod
    def of(cls, claim: Claim, topic: TopicInfo) -> ClaimedError:
        """The error for a claim on a partition."""
        return cls(claim.client, claim.number, claim.span.first, claim.span.last, topic.name, topic.number)


class ClaimLostError(Error):
    """The batch is no longer held by this reader: it was released, or handed to another worker.

    Attributes
    ----------
    client : str
    number : int
        The number of the batch.
    partition : int or None
        The number of the batch's partition; None if the topic has only one.
    """

    def __init__(
        self,
        client: str,
        number: int,
        reason: str = "it was handed out again, or the client was moved with seek or deleted. Nothing was acknowledged",
        partition: int | None = None,
    ) -> None:
        of, _ = _in(partition)
        super().__init__(f"batch {number}{of} of client {client!r} is no longer held by this reader: {reason}")
        self.client, self.number, self.partition = client, number, partition


class CursorError(Error):
    """Another process moved the cursor, and so has put these messages already. Nothing was put.

    Attributes
    ----------
    name : str
        The name of the cursor.
    expected, found : object
        The value that was expected, and the value that it has.
    """

    def __init__(self, name: str, expected: Any, found: Any) -> None:
        super().__init__(
            f"cursor {name!r} is {found!r}, not {expected!r}: another process moved it, so nothing was put. "
            f"Read log.cursor({name!r}) and continue from there"
        )
        self.name, self.expected, self.found = name, expected, found


class WorkerDiedError(Error):
    """A worker of a pipe was killed or crashed; the batch that it had open will be handed out again.

    Attributes
    ----------
    summary : Summary
        What the pipe did; at least this much, because a worker may die before it can report a finished batch.
    left : int
        The number of messages that remain: call the pipe again to continue.
    """

    def __init__(self, died: Sequence[str], workers: int, summary: Any, left: int) -> None:
        then = f"{left:,} messages remain: call it again to continue" if left else "the other workers did the rest"
        super().__init__(
            f"{len(died)} of {workers} workers of the pipe died ({', '.join(died)}). "
            f"Done, exactly once: {summary}; {then}"
        )
        self.summary, self.left = summary, left


class MissingExtraError(Error, ImportError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f'this needs {package}: pip install "pqlog[{extra}]"')
        self.package, self.extra = package, extra


class UnsupportedError(Error):
    """This log cannot do that, for example because it is not in a file."""


class UncertainError(Error):
    """It is not known whether a call took effect.

    Another thread committed for this one and was interrupted, or the connection to a cluster broke before the answer.
    Nothing that was acknowledged before is lost. Repeat the call: a put with an id, and a batch that is acknowledged
    once more, take effect once.
    """


class StoreError(Error):
    """A problem with the file, or with the disk that it is on."""


class NotALogError(StoreError):
    """The path is not a pqlog file."""


class OldQueueError(NotALogError):
    """The file was written by persistent-queue-log; `pqlog.migrate` converts it."""


class NewerFormatError(StoreError):
    """The file was written by a newer version of pqlog."""


class CorruptLogError(StoreError):
    """The file is damaged, or the state of a log on a cluster: something of it was deleted, or others wrote there."""


class MovedError(StoreError):
    """The file, or the state of a log on a cluster, was moved, replaced or deleted while it was open."""


class ReadOnlyError(StoreError):
    """The file cannot be written to, or it was opened for reading only."""


class DiskFullError(StoreError):
    """No space is left on the disk; everything that was put is safe."""


class DiskError(StoreError):
    """The system reported an I/O error; everything that was put before is safe."""


class LockTimeoutError(StoreError):
    """Another process held the file's lock for longer than the timeout."""


class DamagedError(DecodeError, CorruptLogError):
    """Stored messages are not what was put: their checksum does not match.

    Attributes
    ----------
    topic : str
    offset, last : int
        The first and last of the messages that one checksum covers; at least one of them is damaged.
    partition : int or None
        The number of their partition; None if the topic has only one.
    """

    def __init__(self, topic: str, offset: int, last: int, partition: int | None = None) -> None:
        of, at = _in(partition)
        which = f"message {offset}" if offset == last else f"one of the messages {offset} to {last}"
        Exception.__init__(
            self,
            f"{which}{of} of topic {topic!r} is damaged: its checksum does not match. Restore a backup, or copy the "
            f"intact messages with pqlog.salvage(path, to); a client skips it with "
            f"{_of(topic)}.client(name).seek({last + 1}{at})",
        )
        self.topic, self.offset, self.partition, self.last = topic, offset, partition, last
        self.reason = "its checksum does not match"


class UnsafeStorageError(StoreError):
    """This disk, this version of SQLite or this cluster cannot guarantee durability."""


class ClusterError(StoreError):
    """The cluster cannot be reached, or did not answer in time; everything that was put is safe."""


class AccessError(StoreError):
    """The cluster refuses the credentials, or does not allow them to do this."""


def _did_you_mean(near: Sequence[str]) -> str:
    if len(near) > SHOWN:
        return f"; it has {_some(near)}"
    return f": did you mean {' or '.join(map(repr, near))}?" if near else ""


def _some(names: Sequence[str]) -> str:
    """A few of many names, and how many there are."""
    more = f", and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more


def _of(topic: str) -> str:
    """How a user reaches the topic: each has clients of its own, and any may be the one that the log stands for."""
    return f"log.topic({topic!r})"


def _in(partition: int | None) -> tuple[str, str]:
    """How a sentence says of which partition something is, and how `seek` is told; nothing if there is only one."""
    return ("", "") if partition is None else (f" of partition {partition}", f", partition={partition}")
