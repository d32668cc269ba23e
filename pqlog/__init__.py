"""A durable, persistent log and queue for notebooks and data pipelines, in one SQLite file."""

from pqlog.batch import Batch
from pqlog.client import Client
from pqlog.clients import ClaimInfo, ClientInfo, Clients
from pqlog.codecs import Codec
from pqlog.copying import Copied, CopyProgress, mirror
from pqlog.errors import (
    AccessError,
    ArgumentError,
    ClaimedError,
    ClaimLostError,
    ClosedError,
    ClusterError,
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
    TooLargeError,
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
    "AccessError",
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
    "ClusterError",
    "Codec",
    "Copied",
    "CopyProgress",
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
    "TooLargeError",
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
    "mirror",
    "open",
    "read_log",
    "salvage",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """``pqlog.aio``, which imports asyncio, when it is first used."""
    if name == "aio":
        from pqlog.extras import load as _load

        return _load("aio")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
