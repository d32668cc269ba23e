"""A durable, persistent log and queue for notebooks and data pipelines, in one SQLite file."""

from pqlog.batch import Batch
from pqlog.client import Client
from pqlog.clients import ClaimInfo, ClientInfo, Clients
from pqlog.codecs import Codec
from pqlog.errors import (
    ArgumentError,
    ClaimedError,
    ClaimLostError,
    ClosedError,
    CodecMismatchError,
    CorruptLogError,
    CursorError,
    DamagedError,
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
    PartitionsError,
    PickleRefusedError,
    ReadOnlyError,
    StoreError,
    TrimmedError,
    TrimRefusedError,
    UncertainError,
    UncountedError,
    UnknownClientError,
    UnknownTopicError,
    UnsafeStorageError,
    UnsupportedError,
    UntrustedPicklesError,
    WorkerDiedError,
)
from pqlog.extras import load_ipython_extension
from pqlog.files import explore, open, read_log, salvage
from pqlog.history import History
from pqlog.lease import Staged
from pqlog.log import Log
from pqlog.message import Message
from pqlog.migration import Migration, migrate
from pqlog.partition import Partition
from pqlog.store.values import Capabilities, Moved, PartitionOffset, Put, Salvage
from pqlog.topic import Topic

__all__ = [
    "ArgumentError",
    "Batch",
    "Capabilities",
    "ClaimInfo",
    "ClaimLostError",
    "ClaimedError",
    "Client",
    "ClientInfo",
    "Clients",
    "ClosedError",
    "Codec",
    "CodecMismatchError",
    "CorruptLogError",
    "CursorError",
    "DamagedError",
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
    "Migration",
    "MissingExtraError",
    "MovedError",
    "Moved",
    "NewerFormatError",
    "NotALogError",
    "OffsetError",
    "OldQueueError",
    "Partition",
    "PartitionOffset",
    "PartitionsError",
    "PickleRefusedError",
    "ReadOnlyError",
    "Put",
    "Salvage",
    "Staged",
    "StoreError",
    "Topic",
    "TrimRefusedError",
    "UncertainError",
    "UncountedError",
    "TrimmedError",
    "UnknownClientError",
    "UnknownTopicError",
    "UnsafeStorageError",
    "UnsupportedError",
    "UntrustedPicklesError",
    "WorkerDiedError",
    "explore",
    "load_ipython_extension",
    "migrate",
    "open",
    "read_log",
    "salvage",
]

__version__ = "0.1.0"
