"""The learning rate of each optimizer step, as a pure function of the step."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from headrace.config import Config, ConfigError

Share = Annotated[float, Field(gt=0.0, lt=1.0)]
Duration = Annotated[int, Field(ge=0, strict=True)] | Share  # whole number: optimizer steps; fraction below 1: share of all steps


def duration(value: Duration, steps: int) -> int:
    """Optimizer steps that a duration means in a run of `steps`."""
    return value if isinstance(value, int) else round(value * steps)


class Cosine(Config):
    """Linear warm-up, then half a cosine down to `final` (Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts)."""

    name: Literal["cosine"] = "cosine"
    warmup: Duration = 0.05
    final: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1  # rate of the last step, as a share of the peak

    def check(self, steps: int) -> None:
        """Raises ConfigError where the warm-up does not fit into the run."""
        _fits("warmup", self.warmup, duration(self.warmup, steps), steps)

    def factor(self, step: int, steps: int) -> float:
        """Share of the peak rate at optimizer step 0..steps-1: rises to 1 in the warm-up's last step, is `final` in the last."""
        warmup = duration(self.warmup, steps)
        if step < warmup:
            return (step + 1) / warmup
        progress = (step - warmup) / max(1, steps - 1 - warmup)
        return self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


class WSD(Config):
    """Linear warm-up, a constant rate, then a short decay towards zero: a run can be continued from before the decay.

    Source: Hu et al. 2024 (MiniCPM, arXiv:2404.06395, section 4.1); the `sqrt` shape, 1 - sqrt(progress), is the one that
    Haegele et al. 2024 (arXiv:2405.18392, section 3) found best, with a decay of 10-20 % of the steps.
    """

    name: Literal["wsd"] = "wsd"
    warmup: Duration = 0.05
    decay: Duration = 0.2
    shape: Literal["sqrt", "linear"] = "sqrt"

    def check(self, steps: int) -> None:
        """Raises ConfigError where warm-up and decay do not fit into the run."""
        _fits("warmup + decay", f"{self.warmup} + {self.decay}", duration(self.warmup, steps) + duration(self.decay, steps), steps)

    def factor(self, step: int, steps: int) -> float:
        """Share of the peak rate at optimizer step 0..steps-1; the step behind the last would have rate zero."""
        warmup, decay = duration(self.warmup, steps), duration(self.decay, steps)
        if step < warmup:
            return (step + 1) / warmup
        if step < steps - decay:
            return 1.0
        progress = (step - (steps - decay)) / decay
        return 1.0 - (math.sqrt(progress) if self.shape == "sqrt" else progress)


Schedule = Annotated[Cosine | WSD, Field(discriminator="name")]


def learning_rate(schedule: Cosine | WSD, peak: float, step: int, steps: int) -> float:
    """Learning rate of optimizer step 0..steps-1."""
    return peak * schedule.factor(step, steps)


def _fits(field: str, value: object, found: int, steps: int) -> None:
    if found > steps:
        raise ConfigError(f"train.schedule.{field} = {value} is {found} steps, more than train.steps = {steps}; shorten it.")
