"""A durable, persistent log and queue for notebooks and data pipelines, in one SQLite file."""

from pqlog.batches import Batch
from pqlog.clients import Client, Clients
from pqlog.codecs import Codec
from pqlog.errors import (
    ArgumentError,
    ClaimedError,
    ClaimLostError,
    ClosedError,
    CodecMismatchError,
    CorruptLogError,
    DecodeError,
    DiskError,
    DiskFullError,
    Empty,
    EncodeError,
    Error,
    ForkError,
    LockTimeoutError,
    MissingExtraError,
    MovedError,
    NewerFormatError,
    NotALogError,
    OffsetError,
    OldQueueError,
    PickleRefusedError,
    ReadOnlyError,
    StoreError,
    TrimmedError,
    TrimRefusedError,
    UnknownClientError,
    UnknownTopicError,
    UnsafeStorageError,
)
from pqlog.history import History
from pqlog.log import Log, Topic, open, read_log
from pqlog.message import Message
from pqlog.store.api import Moved

__all__ = [
    "ArgumentError",
    "Batch",
    "ClaimLostError",
    "ClaimedError",
    "Client",
    "Clients",
    "ClosedError",
    "Codec",
    "CodecMismatchError",
    "CorruptLogError",
    "DecodeError",
    "DiskError",
    "DiskFullError",
    "Empty",
    "EncodeError",
    "Error",
    "ForkError",
    "History",
    "LockTimeoutError",
    "Log",
    "Message",
    "MissingExtraError",
    "MovedError",
    "Moved",
    "NewerFormatError",
    "NotALogError",
    "OffsetError",
    "OldQueueError",
    "PickleRefusedError",
    "ReadOnlyError",
    "StoreError",
    "Topic",
    "TrimRefusedError",
    "TrimmedError",
    "UnknownClientError",
    "UnknownTopicError",
    "UnsafeStorageError",
    "open",
    "read_log",
]

__version__ = "0.1.0"
