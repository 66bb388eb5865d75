"""Prometheus metrics of a run, through the endpoint that every Ray node has: `ray_headrace_...`, for Ray puts its name before ours.

They are set by the jobs' own processes, which are few: a series for each worker process would stay at the endpoint after its end.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

log = logging.getLogger("headrace")

MAX_VALUES = 100  # of a label; whatever comes after those is called "other", for each value is a series that Prometheus keeps for ever


@dataclass(frozen=True)
class Metric:
    """A metric by its kind, what it says and its labels, beside `run` (name of the run's folder), which all have."""

    kind: Literal["counter", "gauge"]
    says: str
    labels: tuple[str, ...] = ()


METRICS: Mapping[str, Metric] = {
    "documents_in": Metric("counter", "Documents that a data stage went through", ("stage", "source")),
    "documents_out": Metric("counter", "Documents that a data stage kept", ("stage", "source")),
    "documents_dropped": Metric("counter", "Documents that a data stage rejected, by reason", ("stage", "source", "reason")),
    "text_bytes": Metric("counter", "UTF-8 bytes of text that a data stage went through, where it counts them", ("stage", "source")),
    "units_done": Metric("gauge", "Work units of a pass that are done", ("stage", "phase")),
    "units_planned": Metric("gauge", "Work units of a pass", ("stage", "phase")),
    "train_step": Metric("gauge", "Optimizer steps taken"),
    "train_steps_planned": Metric("gauge", "Optimizer steps of the whole run"),
    "train_loss": Metric("gauge", "Training loss of the last step, nats per token"),
    "train_grad_norm": Metric("gauge", "Norm of the last step's gradient"),
    "train_learning_rate": Metric("gauge", "Learning rate of the last step"),
    "train_tokens": Metric("gauge", "Tokens trained on"),
    "train_tokens_per_second": Metric("gauge", "Tokens per second in the last step"),
    "train_model_flops_utilization": Metric("gauge", "Share of the devices' peak that the model's own arithmetic had in the last step"),
    "train_data_wait_seconds": Metric("gauge", "Seconds that the last step waited for data"),
    "train_step_age_seconds": Metric("gauge", "Seconds since the last step, or since the workers' last start"),
    "train_skipped_steps": Metric("gauge", "Steps whose update was not taken"),
    "train_incidents": Metric("gauge", "Lines of train/incidents.jsonl: failures of workers, skips, rewinds", ("kind",)),
    "checkpoint_step": Metric("gauge", "Step of the newest published checkpoint"),
    "checkpoint_age_seconds": Metric("gauge", "Seconds since the newest checkpoint was published, or since the workers' first start"),
    "checkpoint_stall_seconds": Metric("gauge", "Seconds that training stood still for the last checkpoint"),
    "evaluation_backlog": Metric("gauge", "Results that published checkpoints are owed and have not", ("suite",)),
    "evaluation_bits_per_byte": Metric("gauge", "Bits per byte on held-out text of the newest scored checkpoint", ("source",)),
    "evaluation_validation_loss": Metric("gauge", "Validation loss of the newest scored checkpoint, nats per token"),
}


class Meter:
    """Sets the metrics of one run. Where there is no Ray they go nowhere; no error of theirs reaches the caller, the first is logged."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._made: dict[str, Any] = {}
        self._values: dict[str, set[str]] = {}
        self._warned = False

    def count(self, name: str, more: float, **labels: str) -> None:
        """Add to a counter."""
        if more > 0:
            self._record(name, more, labels)

    def set(self, name: str, value: float | None, **labels: str) -> None:
        """Set a gauge; a value that is none, or no finite number, leaves it as it was."""
        if value is not None and math.isfinite(value):
            self._record(name, value, labels)

    def _record(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        bounded = {"run": self._run, **{label: self._bounded(label, text) for label, text in labels.items()}}
        try:
            made = self._made.get(name) or self._make(name)
            made.inc(value, tags=bounded) if METRICS[name].kind == "counter" else made.set(value, tags=bounded)
        except Exception as error:  # metrics are no reason to end a run
            if not self._warned:
                log.warning("metrics: %s is not set (%s: %s), and no more is said of it", name, type(error).__name__, error)
                self._warned = True

    def _make(self, name: str) -> Any:
        from ray.util import metrics

        metric = METRICS[name]
        made = {"counter": metrics.Counter, "gauge": metrics.Gauge}[metric.kind]
        self._made[name] = made(f"headrace_{name}", description=metric.says, tag_keys=("run", *metric.labels))
        return self._made[name]

    def _bounded(self, label: str, text: str) -> str:
        known = self._values.setdefault(label, set())
        if text not in known and len(known) >= MAX_VALUES:
            return "other"
        known.add(text)
        return text
