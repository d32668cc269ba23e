"""For cron and similar: one run to the end. Later messages are for the next run; concurrent runs share the work.

*/5 * * * *  python drain.py events.db
"""

import sys

import pandas as pd

import pqlog


def clean(frame: pd.DataFrame) -> pd.DataFrame:
    """Keep the orders that have an amount."""
    return frame.dropna(subset=["amount"])


if __name__ == "__main__":
    with pqlog.open(sys.argv[1]) as log:
        print(log.client("clean").pipe(clean, into="clean", attempts=3))
