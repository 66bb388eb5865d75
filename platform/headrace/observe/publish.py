"""Metrics of training and evaluation, set from a thread of the training job, which is a Ray driver and lasts as long as training does.

The thread reads what the workers leave on storage; the workers themselves know nothing of metrics, and no step waits for one.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from headrace import storage
from headrace.evaluate import watcher
from headrace.observe.metrics import Meter
from headrace.observe.training import Training

log = logging.getLogger("headrace")

EVERY_S = 5.0  # Ray forgets a gauge that was not set for two of its own intervals, of 10 s
EVALUATION_EVERY = 3  # looks: each opens the manifest of every checkpoint


class TrainingMetrics:
    """Looks at a run's folder and sets what it finds."""

    def __init__(self, run: Path, steps: int, suites: Sequence[watcher.Suite], meter: Meter) -> None:
        self._run, self._steps, self._suites, self._meter = run, steps, tuple(suites), meter
        self._training = Training(run)
        self._moved = time.monotonic()
        self._looks = 0
        self._backlog: collections.Counter[str] = collections.Counter()
        self._newest: dict[str, Any] = {}  # result of the newest checkpoint that is scored

    def look(self) -> None:
        training, meter = self._training, self._meter
        news = training.look()
        if news.steps or news.starts:
            self._moved = time.monotonic()
        meter.set("train_steps_planned", self._steps)
        meter.set("train_step_age_seconds", time.monotonic() - self._moved)
        if training.step is not None:
            self._set_step(training.step)
        meter.set("train_skipped_steps", training.skipped)
        for kind, lines in training.incidents.items():
            meter.set("train_incidents", lines, kind=kind)
        if training.checkpoint is not None:
            meter.set("checkpoint_step", training.checkpoint["step"])
            meter.set("checkpoint_stall_seconds", training.checkpoint["stall_s"] + training.checkpoint["waited_s"])
        since = training.checkpoint or training.start
        if since is not None:
            meter.set("checkpoint_age_seconds", max(0.0, time.time() - since["time"]))
        if self._looks % EVALUATION_EVERY == 0:
            self._look_at_evaluation()
        self._looks += 1
        for suite in self._suites:
            meter.set("evaluation_backlog", self._backlog[suite.name], suite=suite.name)
        meter.set("evaluation_validation_loss", self._newest.get("validation_loss"))
        for row in self._newest.get("metrics", []):
            if row["metric"] == "bits_per_byte":
                meter.set("evaluation_bits_per_byte", row["value"], source=row["source"])

    def _set_step(self, step: dict[str, float]) -> None:
        names = {
            "train_step": "step",
            "train_loss": "loss",
            "train_grad_norm": "grad_norm",
            "train_learning_rate": "lr",
            "train_tokens": "tokens",
            "train_tokens_per_second": "tokens_per_s",
            "train_data_wait_seconds": "data_wait_s",
            "train_model_flops_utilization": "mfu",
        }
        for name, key in names.items():
            self._meter.set(name, step.get(key))

    def _look_at_evaluation(self) -> None:
        self._backlog = collections.Counter(suite.name for _, suite in watcher.owed(self._run, self._suites))
        scored = [name for name in storage.names(self._run / "eval") if storage.present(self._run / "eval" / name / "fast.json")]
        self._newest = storage.read_json(self._run / "eval" / max(scored) / "fast.json") if scored else {}


@contextlib.contextmanager
def published(run: Path, steps: int, suites: Sequence[watcher.Suite]) -> Iterator[None]:
    """Inside, a thread sets the run's metrics every few seconds; needs a process that is connected to Ray."""
    metrics, stopped = TrainingMetrics(run, steps, suites, Meter(run.name)), threading.Event()

    def look_often() -> None:
        warned, last = False, False
        while not last:
            last = stopped.wait(EVERY_S)
            try:
                metrics.look()  # once more at the end: what a process that ends in order has set, Ray still hands on
            except Exception as error:  # a file that retention just took away; metrics are no reason to end a run
                if not warned:
                    log.warning("metrics: not looked at (%s: %s); the next look is in %.0f s", type(error).__name__, error, EVERY_S)
                    warned = True

    thread = threading.Thread(target=look_often, daemon=True, name="headrace-metrics")
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(2 * EVERY_S)
