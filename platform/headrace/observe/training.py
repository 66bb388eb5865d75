"""What training has written of itself since one looked last: steps, checkpoints, incidents, starts of the workers."""

from __future__ import annotations

import collections
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.observe.tail import Tail


@dataclass(frozen=True)
class News:
    """New lines of metrics.jsonl, checkpoints.jsonl, incidents.jsonl and workers.jsonl below RUN/train."""

    steps: list[dict[str, Any]]
    checkpoints: list[dict[str, Any]]
    incidents: list[dict[str, Any]]
    starts: list[dict[str, Any]]


class Training:
    """A run's training, followed; what is known of it stands in the fields."""

    def __init__(self, run: Path) -> None:
        folder = run / "train"
        self._files = [Tail(folder / name) for name in ("metrics.jsonl", "checkpoints.jsonl", "incidents.jsonl", "workers.jsonl")]
        self.step: dict[str, Any] | None = None
        self.checkpoint: dict[str, Any] | None = None
        self.start: dict[str, Any] | None = None  # the first one
        self.skipped = 0
        self.incidents: collections.Counter[str] = collections.Counter()

    def look(self) -> News:
        news = News(*(file.lines() for file in self._files))
        for line in news.steps:
            if self.step is not None and line["step"] <= self.step["step"]:  # a resume takes steps again; the file was read anew
                self.skipped = 0
            self.step = line
            self.skipped += line.get("skipped") not in (None, "overflow")
        self.incidents.update(line["event"] for line in news.incidents)
        self.checkpoint = news.checkpoints[-1] if news.checkpoints else self.checkpoint
        self.start = self.start or (news.starts[0] if news.starts else None)
        return news
