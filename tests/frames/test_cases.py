"""The table of docs/frames.md is true."""

import pytest

from tests.frames import cases


@pytest.mark.parametrize("what", cases.CASES)
def test_a_column_is_refused_or_the_same(what):
    *_, again = cases.outcome(cases.CASES[what])
    assert again in ("**refused**", "the same", "the same, as Python's types")


def test_the_table_of_the_page_is_what_comes_back():
    """If not: python -m tests.frames.cases."""
    text = cases.PAGE.read_text()
    assert cases.page(text) == text
