"""Frames: a stretch of a log as a table, and a table as a batch of messages. Needs the extra ``pandas``."""

from pqlog.frames.columns import to_arrow, to_pandas
from pqlog.frames.segments import segments, unpack

__all__ = ["segments", "to_arrow", "to_pandas", "unpack"]
