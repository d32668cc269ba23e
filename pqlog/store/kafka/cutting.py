"""Cutting: how many of the messages that were received make a batch."""

from __future__ import annotations

import bisect
import math

from pqlog.store.kafka.reader import Batch
from pqlog.store.kafka.records import ROWS
from pqlog.store.values import Span


class Cutter:
    """Finds the first messages of a span: within limits, but at least one if there is any.

    Parameters
    ----------
    span : Span
    messages : int
    max_bytes : float
        Of a segment, each message takes as much as the others.
    """

    def __init__(self, span: Span, messages: int, max_bytes: float = math.inf) -> None:
        self._wanted, self._left, self._bytes = span, messages, max_bytes
        self._first: int | None = None
        self._stop = span.stop
        self.messages = 0

    @property
    def span(self) -> Span:
        """From the first message to behind the last."""
        return Span(self._stop if self._first is None else self._first, self._stop)

    def add(self, batch: Batch) -> bool:
        """Take of what was received next; whether that is all."""
        at = batch.at
        while at < len(batch.records) and batch.stop_of(at) <= self._wanted.first:
            at = max(at + 1, bisect.bisect_left(batch.records, self._wanted.first // ROWS, at))
        end = batch.end(-(-self._wanted.stop // ROWS), len(batch.records))
        if batch.rows is None and self._bytes == math.inf:
            end = min(end, at + self._left)
            if at < end:
                self._take(batch.records[at] * ROWS, batch.records[end - 1] * ROWS + 1, end - at)
        else:
            for index in range(at, end):
                if not self._add_record(batch, index):
                    return True
        return not self._left

    def _add_record(self, batch: Batch, index: int) -> bool:
        """Take of one record; whether all of it fits."""
        begin = max(batch.records[index] * ROWS, self._wanted.first)
        count = min(batch.stop_of(index), self._wanted.stop) - begin
        each = len(batch.messages[index]) / ((batch.rows[index] if batch.rows else None) or 1)
        fitting = min(count, self._left)
        if each * fitting > self._bytes:
            fitting = max(0, int(self._bytes / each)) or int(not self.messages)
        if fitting:
            self._take(begin, begin + fitting, fitting)
            self._bytes -= each * fitting
        return fitting == count

    def _take(self, first: int, stop: int, messages: int) -> None:
        self._first = first if self._first is None else self._first
        self._stop = stop
        self.messages += messages
        self._left -= messages
