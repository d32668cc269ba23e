"""How long a search is, in the fast ring and in the long one."""

from __future__ import annotations

from hypothesis import settings


def by_ring(fast: int, long: int) -> int:
    """The value for the current ring; call it when tests are collected, or in the code of a test itself."""
    return long if settings.default is settings.get_profile("all") else fast
