"""A paged HTTP API into a log: the number of the next page commits with the messages of the page before.

python paged_api.py events.db http://localhost:8000/orders
"""

import json
import sys
import urllib.request

import pqlog


def pull(log: pqlog.Log, url: str) -> None:
    """Read pages until an empty one, from where the last run got to."""
    page = log.cursor("orders-api") or 1
    while True:
        with urllib.request.urlopen(f"{url}?page={page}", timeout=60) as answer:
            orders = json.load(answer)
        if not orders:
            return
        page += 1
        log.put_many(orders, key="id", cursor=("orders-api", page))


if __name__ == "__main__":
    with pqlog.open(sys.argv[1]) as log:
        pull(log, sys.argv[2])
