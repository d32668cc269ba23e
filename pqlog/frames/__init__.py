"""Frames: ranges of a log as tables, and tables as segments of messages.

This needs pyarrow and NumPy. The modules `dataframes` and `live` need pandas as well, and are imported separately.
"""

from pqlog.frames.latest import latest_groups
from pqlog.frames.projection import Projection
from pqlog.frames.segments import check, cut, unpack
from pqlog.frames.tables import count, schema, to_arrow, to_batches, to_polars
from pqlog.frames.writer import segments_of, thin, with_key

__all__ = [
    "Projection",
    "check",
    "count",
    "cut",
    "latest_groups",
    "schema",
    "segments_of",
    "thin",
    "to_arrow",
    "to_batches",
    "to_polars",
    "unpack",
    "with_key",
]
