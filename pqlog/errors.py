"""Every error of pqlog, as a tree.

::

    Error
    ├── ArgumentError               you passed something that cannot be (a ValueError)
    ├── ClosedError                 the log was closed
    │   └── ForkError               it belongs to the process of which this is a fork
    ├── Empty                       no message within the time-out
    ├── EncodeError                 a value has no form in the topic's codec
    ├── DecodeError                 a kept message cannot be decoded; carries its offset
    │   ├── PickleRefusedError      it is a pickle, and pickle was not asked for
    │   └── DamagedError            it is not what was put (also a CorruptLogError)
    ├── UntrustedPicklesError       a file to migrate holds pickles, and was not called trusted
    ├── CodecMismatchError          the topic was made with another codec
    ├── UnknownTopicError           no topic of that name (a KeyError)
    ├── UnknownClientError          no client of that name (a KeyError)
    ├── OffsetError                 no message at that offset (an IndexError)
    │   └── TrimmedError            it was trimmed away
    ├── UncountedError              the length of a history is not known before it is read (a TypeError)
    ├── TrimRefusedError            a client has not acknowledged what would be trimmed or deleted
    ├── ClaimedError                the client has an open batch
    ├── ClaimLostError              the batch is not held by this reader any more
    ├── CursorError                 somebody else moved the cursor meanwhile; nothing was put
    ├── WorkerDiedError             a worker of a pipe was killed; carries what was done
    ├── MissingExtraError           an optional package is not installed (an ImportError)
    └── StoreError                  the file or the disk
        ├── NotALogError            a directory, a text file, somebody else's database
        │   └── OldQueueError       a file of persistent-queue-log, which can be migrated
        ├── NewerFormatError        written by a newer pqlog
        ├── CorruptLogError         damaged
        ├── MovedError              the file was moved, replaced or deleted while it was open
        ├── ReadOnlyError           the file, or how it was opened, does not allow writing
        ├── DiskFullError           no space left
        ├── DiskError               the system reported an I/O error
        ├── LockTimeoutError        another process held the file for too long
        └── UnsafeStorageError      durability cannot be had here
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Error(Exception):
    """Base class of everything that pqlog raises on its own account."""


class ArgumentError(Error, ValueError):
    """An argument has a value that cannot be right."""


class ClosedError(Error):
    """The log was closed."""


class ForkError(ClosedError):
    """What was begun in a parent process goes on there; begin another in the fork."""


class Empty(Error):
    """No message came within the time-out."""


class EncodeError(Error, ValueError):
    """A value has no form in the topic's codec; nothing was put.

    Attributes
    ----------
    index : int
        Which of the values of the call it was; 0 is the first.
    offset : int or None
        The offset that the message would have had, when it is known.
    value_type : str
        The type of what could not be encoded.
    codec : str
        The topic's codec.
    """

    def __init__(self, reason: str, *, value_type: str, codec: str, index: int = 0, offset: int | None = None) -> None:
        where = "" if offset is None else f" (it would be offset {offset})"
        article = "an" if value_type[:1] in "aeiou" else "a"
        super().__init__(f"cannot put {article} {value_type} with the codec {codec!r}{where}: {reason}")
        self.reason, self.value_type, self.codec, self.index, self.offset = reason, value_type, codec, index, offset

    def placed(self, *, index: int, offset: int | None = None) -> EncodeError:
        """The same error, with its place among the values of the call and in the topic."""
        return EncodeError(self.reason, value_type=self.value_type, codec=self.codec, index=index, offset=offset)


class DecodeError(Error):
    """A kept message cannot be decoded.

    Attributes
    ----------
    topic : str
    offset : int
        Which message it is: skip it with ``log.client(name).seek(offset + 1)``.
    """

    def __init__(self, topic: str, offset: int, reason: str) -> None:
        super().__init__(
            f"message {offset} of topic {topic!r} cannot be decoded: {reason}. "
            f"A client skips it with {_of(topic)}.client(name).seek({offset + 1})"
        )
        self.topic, self.offset, self.reason = topic, offset, reason


class PickleRefusedError(DecodeError):
    """The message is a pickle, which can run any code, and pickle was not asked for."""


class UntrustedPicklesError(Error):
    """A file that is to be migrated holds pickles, which can run any code, and was not called trusted.

    Attributes
    ----------
    messages, clients : int
        How many pickled messages and how many clients it has.
    """

    def __init__(self, path: str, program: str, messages: int, clients: int) -> None:
        super().__init__(
            f"{path} is a file of {program} with {messages:,} pickled messages and {clients:,} clients. Unpickling can "
            f"run any code: if you trust the file, pass trust_pickle=True (--trust-pickle)"
        )
        self.messages, self.clients = messages, clients


class CodecMismatchError(Error):
    """The topic was made with another codec.

    Attributes
    ----------
    topic : str
    asked : str or None
        The codec that it was opened with; None if it was opened without one.
    made : str
        The codec that it was made with.
    """

    def __init__(self, topic: str, asked: str | None, made: str) -> None:
        if asked is None:
            said = f"topic {topic!r} has the codec {made!r}, which must be asked for: open it with codec={made!r}"
        else:
            said = (
                f"topic {topic!r} was made with the codec {made!r}, not {asked!r}: a topic keeps its codec. "
                f"Open it without codec=, or put into another topic"
            )
        super().__init__(said)
        self.topic, self.asked, self.made = topic, asked, made


class UnknownTopicError(Error, KeyError):
    """The file has no topic of that name."""

    def __init__(self, topic: str, near: Sequence[str]) -> None:
        super().__init__(f"no topic {topic!r} in this file{_did_you_mean(near)}")
        self.topic, self.near = topic, tuple(near)

    __str__ = Exception.__str__  # a KeyError would show the sentence in quotes


class UnknownClientError(Error, KeyError):
    """No client of that name has read the topic."""

    def __init__(self, client: str, topic: str, near: Sequence[str]) -> None:
        super().__init__(f"no client {client!r} has read topic {topic!r}{_did_you_mean(near)}")
        self.client, self.topic, self.near = client, topic, tuple(near)

    __str__ = Exception.__str__


class OffsetError(Error, IndexError):
    """There is no message at that offset."""


class TrimmedError(OffsetError):
    """The message was trimmed away."""

    def __init__(self, offset: int, first: int) -> None:
        super().__init__(f"offset {offset} was trimmed away; {first} is the first that is kept")
        self.offset, self.first = offset, first


class UncountedError(Error, TypeError):
    """How long a history is, is not known before it is read."""


class TrimRefusedError(Error):
    """A client has not acknowledged what would be trimmed or deleted."""

    def __init__(self, clients: Sequence[tuple[str, int]], topic: str, what: str = "trimmed") -> None:
        who = ", ".join(f"{name!r} ({count:,} message{'s' * (count != 1)})" for name, count in clients)
        super().__init__(
            f"not {what}: these clients would lose messages that they have not acknowledged: {who}. "
            f"Let them read on, delete them with {_of(topic)}.client(name).delete(), or pass force=True"
        )
        self.clients = tuple(clients)


class ClaimedError(Error):
    """The client has an open batch, whose messages cannot be got one by one."""

    def __init__(self, client: str, number: int, first: int, last: int, topic: str = "main") -> None:
        of = _of(topic)
        super().__init__(
            f"client {client!r} has batch {number} open (offsets {first} to {last}): finish it "
            f"with {of}.batches({client!r}) or {of}.get_one({client!r}), or give it up with "
            f"{of}.client({client!r}).seek({first})"
        )
        self.client, self.number, self.first, self.last = client, number, first, last


class ClaimLostError(Error):
    """The batch is no longer held by this reader: somebody else was handed it, or it was given back before.

    Attributes
    ----------
    client : str
    number : int
        The batch's.
    """

    def __init__(
        self,
        client: str,
        number: int,
        reason: str = "it was handed out again, or the client was moved with seek or deleted. Nothing was acknowledged",
    ) -> None:
        super().__init__(f"batch {number} of client {client!r} is no longer held by this reader: {reason}")
        self.client, self.number = client, number


class CursorError(Error):
    """Somebody else moved the cursor meanwhile, so has put what was to be put here. Nothing was put.

    Attributes
    ----------
    name : str
        The cursor's.
    expected, found : object
        What it was expected to be, and what it is.
    """

    def __init__(self, name: str, expected: Any, found: Any) -> None:
        super().__init__(
            f"cursor {name!r} is {found!r}, not {expected!r} as expected: somebody else moved it, so nothing was put. "
            f"Read log.cursor({name!r}) and continue from there"
        )
        self.name, self.expected, self.found = name, expected, found


class WorkerDiedError(Error):
    """A worker of a pipe was killed, or crashed; what it had not finished comes again.

    Attributes
    ----------
    summary : Summary
        What the pipe did all the same, at least: a worker may die before it can say that it finished a batch.
    left : int
        How many messages are still to be done: call the pipe again.
    """

    def __init__(self, died: Sequence[str], workers: int, summary: Any, left: int) -> None:
        then = f"{left:,} messages are left: call it again to go on" if left else "the others did all that was left"
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
    """The log is kept where that cannot be done: see its ``capabilities``."""


class StoreError(Error):
    """Something is wrong with the file, or with the disk below it."""


class NotALogError(StoreError):
    """The path holds something that is not a pqlog file."""


class OldQueueError(NotALogError):
    """The file was written by persistent-queue-log, of which pqlog is the successor."""


class NewerFormatError(StoreError):
    """The file was written by a newer version of pqlog."""


class CorruptLogError(StoreError):
    """The file is damaged."""


class MovedError(StoreError):
    """The file was moved, replaced or deleted while it was open."""


class ReadOnlyError(StoreError):
    """The file, or the way in which it was opened, does not allow writing."""


class DiskFullError(StoreError):
    """No space is left on the disk; what had been put is safe."""


class DiskError(StoreError):
    """The system reported an I/O error; what had been put before is safe."""


class LockTimeoutError(StoreError):
    """Another process held the file for longer than the time-out."""


class DamagedError(DecodeError, CorruptLogError):
    """Kept messages are not what was put: their checksum does not fit.

    Attributes
    ----------
    topic : str
    offset, last : int
        The first and the last of the messages that one checksum covers; at least one of them is damaged.
    """

    def __init__(self, topic: str, offset: int, last: int) -> None:
        which = f"message {offset}" if offset == last else f"one of the messages {offset} to {last}"
        Exception.__init__(
            self,
            f"{which} of topic {topic!r} is damaged: its checksum does not fit. Restore a backup, or copy what is "
            f"whole with pqlog.salvage(path, to); a client skips it with {_of(topic)}.client(name).seek({last + 1})",
        )
        self.topic, self.offset, self.last, self.reason = topic, offset, last, "its checksum does not fit"


class UnsafeStorageError(StoreError):
    """What the promises rest on cannot be had on this disk or with this SQLite."""


def _did_you_mean(near: Sequence[str]) -> str:
    return f": did you mean {' or '.join(map(repr, near))}?" if near else ""


def _of(topic: str) -> str:
    """What a user has of a topic: its clients are not those of another."""
    return "log" if topic == "main" else f"log.topic({topic!r})"
