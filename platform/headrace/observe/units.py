"""Progress of the data stages, told by the process that drives them after each unit: as events, and as metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from headrace.events import EventSink
from headrace.observe.metrics import Meter
from headrace.stage import Pass

LEAST_S, MOST_S = 2.0, 10.0  # between two events of a pass: at first often, so that a short one shows, then seldom

# The pass of each stage whose units are the stage's own account, as its manifest holds it; the other passes count on the way to it.
ACCOUNTED = {
    "ingest": "read",
    "filters": "verdicts",
    "dedup": "verdicts",
    "decontaminate": "verdicts",
    "split": "verdicts",
    "tokens": "tokens",
}


def text_bytes(counters: Mapping[str, int]) -> int | None:
    """UTF-8 bytes of text that a unit went through, where its stage counts them."""
    if "text_bytes" in counters:
        return counters["text_bytes"]
    if "train_bytes" in counters:
        return counters["train_bytes"] + counters.get("validation_bytes", 0)
    return None


class UnitProgress:
    """A listener of `stage.run_units`: how far each pass is, how fast it goes, and how long it still takes."""

    def __init__(self, tell: Callable[[str, dict[str, Any]], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._tell = tell
        self._clock = clock
        self._begin = self._told = 0.0
        self._already = self._documents = self._bytes = 0
        self._counts_bytes = False

    def __call__(self, now: Pass) -> None:
        at = self._clock()
        if now.account is None:
            self._begin = self._told = at
            self._already, self._documents, self._bytes, self._counts_bytes = now.done, 0, 0, False
            return
        size = text_bytes(now.account["counters"])
        self._documents += now.account["rows_in"]
        self._bytes += size or 0
        self._counts_bytes |= size is not None
        elapsed = at - self._begin
        if elapsed > 0 and (at - self._told >= min(MOST_S, max(LEAST_S, elapsed / 50)) or self._last_of_a_long_one(now, at)):
            self._told = at
            self._tell(now.stage, self._progress(now, elapsed))

    def _last_of_a_long_one(self, now: Pass, at: float) -> bool:
        return now.done == now.total and at - self._begin >= LEAST_S

    def _progress(self, now: Pass, elapsed: float) -> dict[str, Any]:
        left = (now.total - now.done) * elapsed / (now.done - self._already)
        return {
            "phase": now.phase,
            "done": now.done,
            "total": now.total,
            "unit": "units",
            **({"documents_per_s": round(self._documents / elapsed, 1)} if self._documents else {}),
            **({"bytes_per_s": round(self._bytes / elapsed)} if self._counts_bytes else {}),
            "elapsed_s": round(elapsed, 3),
            "left_s": round(left, 1),
        }


def events_of(event: EventSink) -> UnitProgress:
    """A listener that appends `progress` events."""
    return UnitProgress(lambda stage, what: event(stage, "progress", **what))


class UnitMetrics:
    """A listener that counts documents, bytes and drops, and sets how far a stage is.

    It counts in the process that drives the stage and not in the workers: a series for each of their processes would outlive them all.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def __call__(self, now: Pass) -> None:
        meter, stage = self._meter, now.stage
        meter.set("units_done", now.done, stage=stage, phase=now.phase)
        meter.set("units_planned", now.total, stage=stage, phase=now.phase)
        if now.account is None or ACCOUNTED.get(stage) != now.phase:
            return
        account, source = now.account, str(now.account.get("source", "all"))
        meter.count("documents_in", account["rows_in"], stage=stage, source=source)
        meter.count("documents_out", account["rows_out"], stage=stage, source=source)
        meter.count("text_bytes", text_bytes(account["counters"]) or 0, stage=stage, source=source)
        for reason, rows in account["rejected"].items():
            meter.count("documents_dropped", rows, stage=stage, source=source, reason=reason)
