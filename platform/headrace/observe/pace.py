"""How fast something gets on, and how long it still takes."""

from __future__ import annotations

import collections
import math
from collections.abc import Mapping
from typing import Any

WINDOW_S = 60.0  # a rate is that of the last minute, so that a pause is seen and soon forgotten


class Pace:
    """Rate of a count over the last minute of the time in which it was looked at."""

    def __init__(self) -> None:
        self._seen: collections.deque[tuple[float, float]] = collections.deque()

    def at(self, now: float, done: float) -> None:
        """So much is `done` at `now`, seconds of any steady clock. A count that went back starts anew."""
        if self._seen and done < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] > WINDOW_S:
            self._seen.popleft()

    @property
    def per_second(self) -> float | None:
        """None until it has moved."""
        if len(self._seen) < 2:
            return None
        (begin, first), (end, last) = self._seen[0], self._seen[-1]
        return (last - first) / (end - begin) if end > begin and last > first else None

    def left_s(self, total: float) -> float | None:
        """Seconds until `total` at this rate; None where there is none yet."""
        rate = self.per_second
        return None if rate is None or not self._seen else max(0.0, (total - self._seen[-1][1]) / rate)


def clock(seconds: float | None) -> str:
    """A time that is left, for a person: 12 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    if seconds is None or not math.isfinite(seconds):
        return "?"
    whole = round(seconds)
    for size, name, part, part_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {name}" + (f" {rest} {part_name}" if rest else "")
    return f"{whole} s"


def progress_line(stage: str, progress: Mapping[str, Any]) -> str:
    """A `progress` event in words: how much of the stage is done, how fast, and how long it still takes."""
    name = f"{stage}/{progress['phase']}" if "phase" in progress else stage
    parts = [f"{progress['done']:,} of {progress['total']:,} {progress['unit']}"]
    if progress.get("loss") is not None:
        parts.append(f"loss {progress['loss']:.3f}")
    if progress.get("tokens") is not None:
        parts.append(f"{progress['tokens']:,} tokens")
    parts += rates(progress)
    if progress.get("left_s") is not None and progress["done"] < progress["total"]:
        parts.append(f"{clock(progress['left_s'])} left")
    return f"{name}: {', '.join(parts)}"


def rates(progress: Mapping[str, Any]) -> list[str]:
    """The speeds that a `progress` event tells of."""
    found = []
    if progress.get("bytes_per_s") is not None:
        found.append(f"{progress['bytes_per_s'] / 1e6:,.1f} MB/s")
    if progress.get("documents_per_s") is not None:
        found.append(f"{progress['documents_per_s']:,.0f} documents/s")
    if progress.get("tokens_per_s") is not None:
        found.append(f"{progress['tokens_per_s']:,.0f} tokens/s")
    return found
