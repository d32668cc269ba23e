"""How many of the messages that were received make a batch."""

import math

import pytest

from pqlog.store.kafka.cutting import Cutter
from pqlog.store.kafka.reader import Batch
from pqlog.store.kafka.records import ROWS
from pqlog.store.values import Span

WHOLE = Batch([b"1" * 1000, b"2", b"s" * 1000, b"3"], [4, 5, 7, 9], None, [None, None, 10, None])


@pytest.mark.parametrize(
    ("first", "messages", "max_bytes", "cut", "count"),
    [
        (0, 100, math.inf, (4 * ROWS, 9 * ROWS + 1), 13),
        (0, 1, math.inf, (4 * ROWS, 4 * ROWS + 1), 1),
        (0, 100, 450, (4 * ROWS, 4 * ROWS + 1), 1),  # larger than the limit, but never nothing
        (4 * ROWS + 1, 100, 450, (5 * ROWS, 7 * ROWS + 4), 5),
        (7 * ROWS + 8, 100, 450, (7 * ROWS + 8, 9 * ROWS + 1), 3),
        (7 * ROWS, 3, math.inf, (7 * ROWS, 7 * ROWS + 3), 3),
        (9 * ROWS + 1, 3, math.inf, (10 * ROWS, 10 * ROWS), 0),
    ],
)
def test_a_batch_is_within_its_limits_but_never_empty(first, messages, max_bytes, cut, count):
    cutter = Cutter(Span(first, 10 * ROWS), messages, max_bytes)
    cutter.add(WHOLE)
    assert ((cutter.span.first, cutter.span.stop), cutter.messages) == (cut, count)
