"""Comparing measures with thresholds: the first test that a document fails is the reason it is dropped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc


class Threshold(NamedTuple):
    """Keep a document whose `measure` is within `limit`, bounds included; None keeps every document."""

    measure: str
    bound: Literal["min", "max"]
    limit: float | None
    reason: str


def first_breach(rule: str, measured: pa.Table, tests: Iterable[Threshold]) -> pa.ChunkedArray:
    """`<rule>:<reason>` of the first test that each of N documents fails, null where it passes all: string [N].

    Limits are rounded to the measures' float32, so that 3 repeats in 10 lines are not more than 0.30, and the verdict can be
    worked out again from the recorded measures.
    """
    reason = pa.chunked_array([pa.nulls(measured.num_rows, pa.string())])
    for test in reversed(list(tests)):
        if test.limit is None:
            continue
        column = measured[test.measure]
        limit = pa.scalar(test.limit, column.type)
        breached = pc.less(column, limit) if test.bound == "min" else pc.greater(column, limit)
        reason = pc.if_else(breached, pa.scalar(f"{rule}:{test.reason}"), reason)
    return reason
