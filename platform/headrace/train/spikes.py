"""Steps out of the ordinary: which are skipped, and from where, on which data, training goes on after many of them.

Nothing here knows of ranks: every rank calls with the same numbers and comes to the same verdict.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import NonNegativeInt, PositiveInt

from headrace import storage
from headrace.config import Config, ConfigError, validate
from headrace.train.config import Spikes

Verdict = Literal["not finite", "loss spike", "gradient spike"]

# A sum of float32 repeats to about this share of itself: deviations of a flat curve below it are rounding, whatever its sigma.
ROUNDING = 1e-6


class TrainingDiverged(RuntimeError):
    """The loss is out of hand, and going back did not help; the message says what to do."""


class Window(Config):
    """Data left out: from optimizer step `step` on, the samples of `batches` further global batches are passed over."""

    step: NonNegativeInt  # optimizer steps behind the checkpoint that training went back to
    batches: PositiveInt


class LeftOut(Config):
    """RUN/train/skipped.json: every rewind of the run in the order in which they happened."""

    windows: tuple[Window, ...] = ()


@dataclass
class History:
    """Losses and gradient norms of the last steps that were taken, oldest first, and how many were skipped in a row since."""

    window: int  # optimizer steps that are remembered
    losses: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)
    skipped: int = 0

    @classmethod
    def read(cls, settings: Spikes, values: Mapping[str, Any] | None) -> History:
        """The history in the plain values of a checkpoint's manifest; an empty one before the first checkpoint."""
        if values is None:
            return cls(settings.window)
        last = slice(-settings.window, None)
        return cls(settings.window, list(values["losses"])[last], list(values["grad_norms"])[last], int(values["skipped"]))

    def plain(self) -> dict[str, Any]:
        return {"losses": list(self.losses), "grad_norms": list(self.grad_norms), "skipped": self.skipped}

    def taken(self, loss: float, grad_norm: float) -> None:
        """A step was taken."""
        self.losses = [*self.losses, loss][-self.window :]
        self.grad_norms = [*self.grad_norms, grad_norm][-self.window :]
        self.skipped = 0

    def passed_over(self) -> None:
        """A step was skipped: its numbers say nothing about what is ordinary."""
        self.skipped += 1


def verdict(history: History, settings: Spikes, loss: float, grad_norm: float) -> Verdict | None:
    """Why a step is to be skipped; None where it is to be taken.

    A step is skipped whose loss or gradient norm (before clipping) is no finite number, or lies more than `sigma` standard deviations
    above the mean of the history; above only, for a loss that falls is no harm. Nothing finite is a spike before half a window is known.

    Source: SkipStepOptimizer of OLMo-core, the trainer of OLMo 2 (arXiv:2501.00656), which looks at both sides.
    """
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        return "not finite"
    if settings.sigma is None or len(history.losses) < settings.window / 2:
        return None
    if loss > _ceiling(history.losses, settings.sigma):
        return "loss spike"
    if grad_norm > _ceiling(history.grad_norms, settings.sigma):
        return "gradient spike"
    return None


def _ceiling(values: Sequence[float], sigma: float) -> float:
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
    return mean + sigma * max(math.sqrt(variance), ROUNDING * abs(mean))


def batches_before(windows: Sequence[Window], step: int) -> int:
    """Global batches that were left out before optimizer step `step` (0, 1, ...), which so reads batch step + batches_before.

    Going back behind an earlier window undoes it: the steps that it belonged to are taken again, on data from behind all that was read.
    """
    standing: list[Window] = []
    for window in windows:
        standing = [*(earlier for earlier in standing if earlier.step <= window.step), window]
    return sum(window.batches for window in standing if window.step <= step)


@dataclass(frozen=True)
class Rewind:
    """Back to the state behind `step` optimizer steps, of the checkpoint of that step or, at 0 without one, of the start."""

    step: int
    windows: tuple[Window, ...]  # of the run from now on, the new one last


def rewind(
    windows: Sequence[Window], settings: Spikes, history: History, step: int, checkpoints: Iterable[int], last: str = ""
) -> Rewind | None:
    """Where training goes back to once `patience` steps in a row were skipped; None before that.

    It is the newest checkpoint before the first of the skipped steps; if training came from that very one and took no step since, the
    state in it is part of the trouble, and the one before it is taken. The data between it and now is left out, as PaLM did
    (arXiv:2204.02311, section 5.1): the same state on other data mostly goes well.

    Args:
        windows: the run's so far.
        step: optimizer steps behind the last one skipped, itself counted.
        checkpoints: steps of the checkpoints that can be gone back to.
        last: the last skipped step's numbers, for the message.

    Raises:
        TrainingDiverged: the run has gone back `rewinds` times before.
    """
    if history.skipped < settings.patience:
        return None
    first = step - history.skipped
    behind = step + batches_before(windows, step - 1)  # the first batch that was not read yet
    if len(windows) >= settings.rewinds:
        read = first + batches_before(windows, first)
        raise TrainingDiverged(
            f"optimizer step {step}: the last {history.skipped} steps were skipped{f' ({last})' if last else ''}, and training went back "
            f"{len(windows)} times before, of {settings.rewinds} (train.spikes.rewinds); lower train.optimizer.lr or lengthen "
            f"train.schedule.warmup in a new run, or look into the samples of batches {read} to {behind - 1}, which are where it happens."
        )
    there = sorted(set(checkpoints))
    # One from between the skipped steps holds the weights from before them. What retention has deleted cannot be gone back to.
    older = [found for found in there if found <= first] or there[:1] or [0]
    goal = older[-1]
    if goal == first and windows and windows[-1].step == goal and len(older) > 1:
        goal = older[-2]
    batches = behind - (goal + batches_before(windows, goal))
    return Rewind(goal, (*windows, Window(step=goal, batches=batches)))


def left_out(run: Path) -> tuple[Window, ...]:
    """Windows of a run, as the last rewind published them.

    Raises:
        ConfigError: the file that holds them is damaged; without it nobody knows which data a step reads.
    """
    path = _path(run)
    try:
        return validate(LeftOut, storage.read_json(path), str(path)).windows
    except FileNotFoundError:
        return ()
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from None


def leave_out(run: Path, windows: Sequence[Window]) -> None:
    """Publish the windows of a run. Rank 0 does, once the checkpoints behind the one to go back to are forgotten.

    A crash between the two finds the older checkpoint and no window: it takes the same steps, skips the same, and goes back again.
    """
    storage.write_json(_path(run), LeftOut(windows=tuple(windows)).model_dump(mode="json"))


def _path(run: Path) -> Path:
    return run / "train" / "skipped.json"
