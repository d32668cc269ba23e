"""How long a search is: in the fast ring, in the long one, and on a cluster, where each step takes long."""

from __future__ import annotations

from hypothesis import settings


def by_ring(fast: int, long: int) -> int:
    """The value for the current ring; call it when tests are collected, or in the code of a test itself."""
    if settings.default is settings.get_profile("cluster"):
        return max(2, fast // 6)
    return long if settings.default is settings.get_profile("all") else fast
