"""One optimizer step: forward and backward over this rank's micro-batches, the judgement on what came of them, and the update."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from headrace.model.tensor_parallel import TensorParallel, shard_of
from headrace.objectives import ObjectiveConfig
from headrace.objectives.example import Example
from headrace.train.config import Spikes
from headrace.train.groups import Ranks
from headrace.train.process import total
from headrace.train.spikes import History, Verdict, verdict
from headrace.train.state import forget_gradients, keep_lowest_scale, scale_can_fall

# "overflow": fp16's loss scale was too high and is lower now. That is how it is found, and says nothing of the data or the weights.
Skipped = Verdict | Literal["overflow"]


class StepResult(NamedTuple):
    """What an optimizer step measured, before its update."""

    loss: float  # nats per target, over all ranks
    grad_norm: float  # global 2-norm before clipping
    targets: int  # over all ranks
    skipped: Skipped | None  # why the update was not made; None = it was
    drain: bool  # a rank was asked to go


class SummedLoss:
    """The loss as the engine calls it: nats times a scale, and the nats that have passed through."""

    def __init__(self, objective: ObjectiveConfig, tensor: TensorParallel) -> None:
        self.objective, self.tensor = objective, tensor
        self.scale = 1.0
        self.nats = 0.0

    def __call__(self, logits: Tensor, labels: tuple[Tensor, Tensor]) -> Tensor:
        """Nats of the targets int64 [B, T] that count, by weights bool [B, T], scaled: float32 scalar."""
        targets, weights = labels
        nats, _ = self.objective.loss(logits, Example(targets, targets, targets, weights), self.tensor)  # looks at labels alone
        self.nats = self.nats + nats.detach().double()
        return nats * self.scale


@dataclass
class Stepper:
    """Takes the optimizer steps of one engine.

    DeepSpeed's wrappers know the global gradient norm, and have averaged and clipped, just before they call the optimizer that they
    wrap. That call is where all ranks look at the step together and leave the weights and moments as they are if it is no good.
    """

    engine: Any
    ranks: Ranks
    loss: SummedLoss
    clip: float | None  # where the engine was not told to clip itself, the largest gradient norm
    own_norm: bool  # the engine gives no gradient norm: it is taken here, and the gradients are clipped
    spikes: Spikes
    where: torch.device
    asked: Callable[[], bool]  # whether this rank has been asked to go
    history: History
    _targets: float = 1.0
    _result: StepResult | None = None

    def __post_init__(self) -> None:
        optimizer = self.engine.basic_optimizer
        update = optimizer.step

        def step(closure: None = None) -> None:
            # A ZeRO engine calls once for each group of parameters.
            if self._judgement().skipped is None:
                update()

        optimizer.step = step
        keep_lowest_scale(self.engine)

    def take(self, examples: Sequence[Example], learning_rate: float) -> StepResult:
        """Take one optimizer step; collective.

        The gradient is that of (sum of nats) / (number of targets), both over all micro-batches and ranks: where packing makes the
        numbers of targets uneven, a mean of means would weight a target by the company that it keeps. The engine averages over ranks,
        so each micro-batch's sum is scaled by data_size / targets.

        Args:
            examples: this rank's micro-batches, one for each accumulation step of the engine.
        """
        counted = sum(example.num_targets for example in examples) if self.ranks.speaks else 0
        self._targets = max(1.0, total([float(counted)], self.where)[0])
        self._result, self.loss.nats = None, 0.0
        self.loss.scale = self.ranks.data_size / self._targets
        for group in self.engine.basic_optimizer.param_groups + self.engine.optimizer.param_groups:
            group["lr"] = learning_rate
        if self.ranks.layout.pipeline > 1:
            self.loss.scale *= len(examples)  # a pipeline's engine takes the mean over micro-batches, whatever is asked of it
            self.engine.train_batch(iter([((each.tokens, each.aux), (each.targets, each.weights)) for each in examples]))
        else:
            for example in examples:
                loss = self.loss(self.engine(example.tokens, example.aux), (example.targets, example.weights))
                self.engine.backward(loss, scale_wrt_gas=False)
                self.engine.step()
        if self._result is None:  # the engine found an overflow and never came to the update
            forget_gradients(self.engine)
            self._result = self._measured(math.inf, overflow=True)
        if self._result.skipped is None:
            self.history.taken(self._result.loss, self._result.grad_norm)
        elif self._result.skipped != "overflow":
            self.history.passed_over()
        return self._result

    def _judgement(self) -> StepResult:
        """What came of this step, found once: collective."""
        if self._result is None:
            norm = None if self.own_norm else self.engine.optimizer._global_grad_norm
            self._result = self._measured(norm)
        return self._result

    def _measured(self, norm: Any, overflow: bool = False) -> StepResult:
        said = float(self.loss.nats) if self.ranks.speaks else 0.0
        squares = self._squares() if norm is None else 0.0
        # All ranks judge by rank 0's norm: were one of them a rounding apart, it could come to another verdict.
        first = float(norm) if norm is not None and dist.get_rank() == 0 else 0.0
        nats, squares, asked, first = total([said, squares, float(self.asked()), first], self.where)
        if norm is None:
            norm = math.sqrt(squares) if squares >= 0 else math.nan
            self._clip(norm)
        else:
            norm = first
        loss = nats / self._targets
        skipped: Skipped | None = verdict(self.history, self.spikes, loss, norm)
        if overflow and math.isfinite(loss) and scale_can_fall(self.engine):
            skipped = "overflow"
        return StepResult(loss, norm, int(self._targets), skipped, asked > 0)

    def _squares(self) -> float:
        """This rank's share of the squared global norm: every number of the model is counted by one rank."""
        if self.ranks.data_rank:
            return 0.0
        counted = [
            parameter.grad
            for _, parameter in self.engine.module.named_weights()
            if not hasattr(parameter, "tied_to") and (self.ranks.tensor_rank == 0 or shard_of(parameter) is not None)
        ]
        return float(torch.stack(torch._foreach_norm(counted)).double().square().sum()) if counted else 0.0

    def _clip(self, norm: float) -> None:
        if self.clip is not None and norm > self.clip:
            gradients = [parameter.grad for parameter in self.engine.module.parameters()]
            torch._foreach_mul_(gradients, self.clip / (norm + 1e-6))
