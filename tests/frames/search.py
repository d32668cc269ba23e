"""Searches that are split: a few hundred examples in the fast ring, a hundred thousand in the long one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.rings import by_ring


def shares(count: int) -> Any:
    """Gives a test a `share`, which is the seed of its search: the first in both rings, the others in the long one."""
    numbers = [0, *(pytest.param(number, marks=pytest.mark.slow) for number in range(1, count))]
    return pytest.mark.parametrize("share", numbers)


def search(
    check: Callable[..., None], *strategies: st.SearchStrategy[Any], fast: int, long: int, share: int = 0
) -> None:
    """Search for an example of these strategies that fails `check`."""

    @seed(share)
    @settings(
        max_examples=by_ring(fast, long),
        derandomize=False,
        database=None,
        # The time that drawing an example takes must not fail a test on a slow machine.
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.tuples(*strategies))
    def run(example: tuple[Any, ...]) -> None:
        check(*example)

    run()
