"""A paged HTTP API into a log: the number of the page commits with its messages.

python paged_api.py events.db http://localhost:8000/orders
"""

import json
import sys
import urllib.request

import pqlog


def pull(log: pqlog.Log, url: str) -> None:
    """Read pages until an empty one, starting where the last run stopped."""
    read = log.cursor("orders-api")  # the last page that was read, or None
    while True:
        page = (read or 0) + 1
        with urllib.request.urlopen(f"{url}?page={page}", timeout=60) as answer:
            orders = json.load(answer)
        if not orders:
            return
        log.put_many(orders, key="id", cursor=("orders-api", page, read))  # refused if another run has put it
        read = page


if __name__ == "__main__":
    with pqlog.open(sys.argv[1]) as log:
        pull(log, sys.argv[2])
