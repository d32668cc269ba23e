"""Logs on a cluster, as tests open them."""

import pqlog


def opened(url: str) -> pqlog.Log:
    """A log that is written to; three copies are enough for what is not about power cuts."""
    return pqlog.open(url, durability="replicated")
