"""A run's numbers as named scalars over its steps, for the tools that draw them: what of them was not handed over yet."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace import storage
from headrace.observe.tail import Tail

STEP_KEYS = ("loss", "grad_norm", "lr", "tokens", "tokens_per_s", "mfu", "data_wait_s", "loss_scale")


@dataclass(frozen=True)
class Point:
    """Scalars by name at one step; `time` in seconds since 1970."""

    step: int
    time: float
    scalars: Mapping[str, float]


@dataclass
class Handed:
    """What was handed over: every step up to `step`, and these results."""

    step: int = -1
    results: set[str] = field(default_factory=set)  # "step-00000100/fast"


class Unwritten:
    """Follows metrics.jsonl and the results of a run."""

    def __init__(self, run: Path, handed: Handed) -> None:
        self._run = run
        self._lines = Tail(run / "train" / "metrics.jsonl")
        self._first = True
        self._begin: float | None = None
        self._seconds = 0.0  # of the steps so far
        self._tokens = 0.0
        self.handed = handed

    def look(self) -> tuple[list[Point], list[Point]]:
        """New steps, and new results at the step of their checkpoint. A step may come again: a resume has taken it again."""
        return self._new_steps(), self._new_results()

    def _new_steps(self) -> list[Point]:
        lines, first = self._lines.lines(), self._first
        self._first = self._first and not lines
        points = [self._point(line) for line in lines]
        if first and points:  # the file as it was before; later lines are news, whatever their step
            points = [point for point in points if point.step > self.handed.step]
            self.handed.step = min(self.handed.step, lines[-1]["step"])
        if points:
            self.handed.step = points[-1].step
        return points

    def _point(self, line: Mapping[str, Any]) -> Point:
        """A line has no time of its own: its is that of the run's first start and the seconds of the steps since."""
        if self._begin is None:
            starts = storage.read_lines(self._run / "train" / "workers.jsonl")
            self._begin = float(starts[0]["time"]) if starts else time.time()
        speed, tokens = line.get("tokens_per_s") or 0.0, float(line.get("tokens") or 0.0)
        if speed > 0 and tokens > self._tokens:
            self._seconds += (tokens - self._tokens) / speed
        self._tokens = tokens
        scalars = {f"train/{key}": float(line[key]) for key in STEP_KEYS if _is_number(line.get(key))}
        return Point(line["step"], self._begin + self._seconds, scalars)

    def _new_results(self) -> list[Point]:
        points, there = [], set()
        for checkpoint in [name for name in storage.names(self._run / "eval") if name.startswith("step-")]:
            for file in storage.names(self._run / "eval" / checkpoint):
                name = f"{checkpoint}/{file.removesuffix('.json')}"
                there.add(name)
                if name not in self.handed.results:
                    result = storage.read_json(self._run / "eval" / checkpoint / file)
                    if scalars := result_scalars(result):
                        points.append(Point(int(checkpoint.removeprefix("step-")), time.time(), scalars))
        self.handed.results = there
        return points


def result_scalars(result: Mapping[str, Any]) -> dict[str, float]:
    """Of a result: the validation loss, and each score of each source or set of items. None where it failed."""
    found = {}
    if _is_number(result.get("validation_loss")):
        found["evaluate/validation_loss"] = float(result["validation_loss"])
    for row in result.get("metrics", []):
        if _is_number(row.get("value")):
            part = f"/{row['items']}" if "items" in row else ""  # of a benchmark: all, clean or contaminated
            found[f"{'benchmarks' if part else 'evaluate'}/{row['metric']}/{row['source']}{part}"] = float(row["value"])
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
