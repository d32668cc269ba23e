"""For cron and the like: a run to the end. What comes later is for the next run; two runs at once share the work.

*/5 * * * *  python drain.py events.db
"""

import sys

import pandas as pd

import pqlog


def clean(frame: pd.DataFrame) -> pd.DataFrame:
    """Keep what has an amount."""
    return frame.dropna(subset=["amount"])


if __name__ == "__main__":
    with pqlog.open(sys.argv[1]) as log:
        print(log.client("clean").pipe(clean, into="clean", attempts=3))
