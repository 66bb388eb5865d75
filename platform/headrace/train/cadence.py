"""Behind which optimizer steps a checkpoint is written."""

from __future__ import annotations

import statistics
from collections import deque

from headrace.checkpoint.interval import WARM_UP, Interval, interval
from headrace.train.config import Checkpoint
from headrace.train.process import agreed
from headrace.train.save import Saved

RECENT = 64  # optimizer steps over which the time of one is taken


class Cadence:
    """Every so many steps; with `every: auto`, as many as balance what a checkpoint costs against what a failure would lose.

    Every rank makes one and gives it the same calls; rank 0's clock counts.
    """

    def __init__(self, settings: Checkpoint, step: int, found: Interval | None, restart_s: float) -> None:
        """
        Args:
            step: that of the checkpoint that training begins at.
            found: the interval that the run came to before it was begun again.
            restart_s: from a failure to the next step.
        """
        self._settings, self._last, self._restart_s = settings, step, restart_s
        self._step_s: deque[float] = deque(maxlen=RECENT)
        self.found = found

    def took(self, seconds: float) -> None:
        """An optimizer step took so long on this rank."""
        self._step_s.append(seconds)

    def due(self, step: int) -> bool:
        """Whether a checkpoint is to be written behind the step just taken, or was behind one before it and was put off."""
        if self._settings.every != "auto":
            return step // self._settings.every > self._last // self._settings.every
        return step - self._last >= (self.found.steps if self.found else WARM_UP)

    def wrote(self, step: int, before: Saved | None) -> None:
        """A checkpoint of this step is on its way; `before` is the last one that was published since, with what it cost. Collective."""
        self._last = step
        if self._settings.every == "auto":
            self.found = agreed(self._optimum(before))

    def _optimum(self, saved: Saved | None) -> Interval | None:
        if saved is None or not self._step_s:
            return self.found
        cost, failures = saved.stall_s + saved.waited_s, self._settings.mtbf_hours * 3600
        return interval(cost, saved.written_s, statistics.median(self._step_s), failures, self._restart_s)
