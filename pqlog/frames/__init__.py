"""Frames: a stretch of a log as a table, and a table as a batch of messages. Needs the extra ``pandas``."""

from pqlog.frames.dataframes import chunks, head, tail, to_pandas
from pqlog.frames.live import Live
from pqlog.frames.pieces import View, latest_runs
from pqlog.frames.segments import cut, segments_of, unpack
from pqlog.frames.tables import schema, to_arrow, to_batches, to_polars

__all__ = [
    "Live",
    "View",
    "chunks",
    "cut",
    "head",
    "latest_runs",
    "schema",
    "segments_of",
    "tail",
    "to_arrow",
    "to_batches",
    "to_pandas",
    "to_polars",
    "unpack",
]
