"""A stage as a Dagster asset: each materialization runs to the end of the log.

PQLOG_FILE=events.db dagster dev -f dagster_asset.py
"""

import os

import pandas as pd
from dagster import Definitions, MaterializeResult, asset

import pqlog


def clean(frame: pd.DataFrame) -> pd.DataFrame:
    """Keep the orders that have an amount."""
    return frame.dropna(subset=["amount"])


@asset
def clean_orders() -> MaterializeResult:
    """The topic `clean`: each order exactly once, however often this failed in between."""
    with pqlog.open(os.environ["PQLOG_FILE"]) as log:
        done = log.client("clean").pipe(clean, into="clean")
    return MaterializeResult(metadata={"batches": done.batches, "in": done.messages_in, "out": done.messages_out})


defs = Definitions([clean_orders])
