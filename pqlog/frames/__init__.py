"""Frames: a stretch of a log as a table, and a table as a batch of messages.

What is here needs pyarrow and NumPy; `dataframes` and `live` need pandas as well, and are loaded by themselves.
"""

from pqlog.frames.latest import latest_runs
from pqlog.frames.projection import Projection
from pqlog.frames.segments import cut, unpack
from pqlog.frames.tables import schema, to_arrow, to_batches, to_polars
from pqlog.frames.writer import segments_of, thin

__all__ = [
    "Projection",
    "cut",
    "latest_runs",
    "schema",
    "segments_of",
    "thin",
    "to_arrow",
    "to_batches",
    "to_polars",
    "unpack",
]
