"""A run's numbers as TensorBoard's event files (extra `tensorboard`)."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headrace.observe.scalars import Point


class TensorBoard:
    """Appends scalars to a folder of event files; one that is gone on with gets a file more."""

    def __init__(self, folder: Path, last_step: int) -> None:
        """Args:
        last_step: the last that is in the folder already; what a killed writer left behind it is to be passed over. Below 0: none is.
        """
        self._folder = folder
        self._last = last_step
        self._writer: Any = None

    def write(self, steps: Sequence[Point], results: Sequence[Point]) -> None:
        for point in steps:
            if self._writer is None or point.step <= self._last:  # taken again since: the earlier ones go, from there on
                self._open(point.step)
            self._add(point)
            self._last = point.step
        for point in results:
            if self._writer is None:
                self._open(self._last + 1)
            self._add(point)
        if self._writer is not None:
            self._writer.flush()

    def _open(self, step: int) -> None:
        """A further file, at which TensorBoard drops what it has from `step` on."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from tensorboardX import SummaryWriter
        self.close(finished=False)
        # A file's name has the second in it, and TensorBoard reads the files in the order of their names.
        self._writer = SummaryWriter(str(self._folder), purge_step=max(0, step), filename_suffix=f".{time.time_ns()}")

    def _add(self, point: Point) -> None:
        for name, value in point.scalars.items():
            self._writer.add_scalar(name, value, point.step, walltime=point.time)

    def close(self, finished: bool) -> None:
        """Args:
        finished: whether training is over; event files do not say.
        """
        if self._writer is not None:
            self._writer.close()
