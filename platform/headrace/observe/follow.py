"""The driver's own ear: training's progress, its checkpoints and incidents, and the results of evaluation, told as events.

They are read from what the workers and jobs leave on storage, so none of these has to know of events, and each is told once, whichever
of a run's drivers comes to see it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headrace import storage
from headrace.checkpoint import committed
from headrace.events import EventSink
from headrace.observe.pace import Pace
from headrace.observe.training import Training

log = logging.getLogger("headrace")

LOOK_S = 1.0
PROGRESS_S = 10.0  # between two events of training's progress
RESULTS_S = 5.0  # between two looks for results


class Follower:
    """Follows one run for the time of a driver."""

    def __init__(self, run: Path, steps: int, suites: Sequence[str], event: EventSink) -> None:
        self._run, self._steps, self._suites, self._event = run, steps, tuple(suites), event
        self._training = Training(run)
        self._told: dict[str, int] | None = None  # by earlier drivers, and not yet met again; None before the first look
        self._results: set[tuple[str, str]] = set()
        self._busy: float | None = None  # since when the next result has been waited for
        self._waits: list[float] = []  # seconds that each result took to come, its job's start included
        self._pace = Pace()
        self._begin = time.monotonic()
        self._at = {"look": -math.inf, "progress": self._begin, "results": -math.inf}
        self._warned = False

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        self._at = dict.fromkeys(self._at, -math.inf)
        self.look()

    def look(self) -> None:
        """Tell what is new, at most once a second; an error of the look itself is logged and ends nothing."""
        now = time.monotonic()
        if now - self._at["look"] < LOOK_S:
            return
        self._at["look"] = now
        try:
            self._recall()
            self._look_at_training(now)
            if now - self._at["results"] >= RESULTS_S:
                self._at["results"] = now
                self._look_at_results(now)
        except Exception as error:
            if not self._warned:
                log.warning("%s: progress is not told (%s: %s)", self._run, type(error).__name__, error)
                self._warned = True

    def _recall(self) -> None:
        """Read once what earlier drivers told."""
        if self._told is None:
            before = storage.read_lines(self._run / "events.jsonl")
            self._results = {(line["checkpoint"], line["suite"]) for line in before if line.get("event") == "evaluation"}
            self._told = {kind: sum(line.get("event") == kind for line in before) for kind in ("checkpoint", "incident")}

    def _look_at_training(self, now: float) -> None:
        news = self._training.look()
        for line in self._untold("checkpoint", news.checkpoints):
            costs = {name: line[name] for name in ("step", "bytes", "stall_s", "waited_s", "written_s")}
            self._event("train", "checkpoint", **costs)
        # Steps that were not taken can be many, and are counted in the metrics.
        for line in self._untold("incident", [line for line in news.incidents if line["event"] != "skip"]):
            self._event("train", "incident", kind=line["event"], message=line["message"])
        if not news.steps:
            return
        step = news.steps[-1]
        self._pace.at(now, step["step"])
        if now - self._at["progress"] >= PROGRESS_S:
            self._at["progress"] = now
            left = self._pace.left_s(self._steps)
            self._event(
                "train",
                "progress",
                done=step["step"],
                total=self._steps,
                unit="steps",
                tokens=step["tokens"],
                tokens_per_s=step["tokens_per_s"],
                loss=finite(step["loss"]),
                elapsed_s=round(now - self._begin, 3),
                left_s=None if left is None else round(left, 1),
            )

    def _untold(self, kind: str, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Without those that an earlier driver told; these files only grow."""
        assert self._told is not None
        skipped = min(self._told[kind], len(lines))
        self._told[kind] -= skipped
        return lines[skipped:]

    def _look_at_results(self, now: float) -> None:
        there = {(checkpoint, suite) for checkpoint in storage.names(self._run / "eval") for suite in self._suites_of(checkpoint)}
        self._results &= there  # a rewind has forgotten some, which will be made again
        news = sorted(there - self._results)
        for checkpoint, suite in news:
            self._results.add((checkpoint, suite))
            self._event("evaluate", "evaluation", checkpoint=checkpoint, suite=suite, **self._result(checkpoint, suite))
        if news and self._busy is not None:
            self._waits += [(now - self._busy) / len(news)] * len(news)
        owed = {(folder.name, suite) for folder in committed(self._run / "train" / "checkpoints") for suite in self._suites} - there
        if not owed:
            self._busy = None
        elif news or self._busy is None:
            self._busy = now
        if news:
            left = len(owed) * sum(self._waits) / len(self._waits) if self._waits else None
            counts = {"done": len(there), "total": len(there) + len(owed), "unit": "results"}
            times = {"elapsed_s": round(now - self._begin, 3), "left_s": None if left is None else round(left, 1)}
            self._event("evaluate", "progress", **counts, **times)

    def _suites_of(self, checkpoint: str) -> list[str]:
        if not checkpoint.startswith("step-"):
            return []
        found = storage.names(self._run / "eval" / checkpoint)
        return [suite for suite in self._suites if f"{suite}.json" in found]

    def _result(self, checkpoint: str, suite: str) -> dict[str, Any]:
        result = storage.read_json(self._run / "eval" / checkpoint / f"{suite}.json")
        if result.get("status") == "failed":
            return {"status": "failed", "reason": str(result.get("reason"))}
        found: dict[str, Any] = {"status": "scored"}
        if "validation_loss" in result:
            found["validation_loss"] = finite(result["validation_loss"])
        for row in result.get("metrics", []):
            if row["metric"] == "bits_per_byte" and row["source"] == "all":
                found["bits_per_byte"] = finite(row["value"])
        return found


def finite(value: Any) -> float | None:
    """The number if it is one that JSON can hold, else None."""
    return value if isinstance(value, int | float) and math.isfinite(value) else None
