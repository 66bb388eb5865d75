"""One optimizer step: forward and backward over this rank's micro-batches, the update, and what it measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from headrace.objectives import Example, ObjectiveConfig
from headrace.train.process import total


class StepResult(NamedTuple):
    """What an optimizer step measured, before its update."""

    loss: float  # nats per target, over all ranks
    grad_norm: float  # global 2-norm before clipping
    targets: int  # over all ranks


def optimizer_step(
    engine: Any, examples: Sequence[Example], objective: ObjectiveConfig, learning_rate: float, clip: float | None, data_size: int
) -> StepResult:
    """Take one optimizer step; collective.

    The gradient is that of (sum of nats) / (number of targets), both over all micro-batches and ranks: where packing makes the
    numbers of targets uneven, a mean of means would weight a target by the company that it keeps. The engine averages over ranks,
    so each micro-batch's sum is scaled by data_size / targets.

    Args:
        examples: this rank's micro-batches, one for each accumulation step of the engine.
        clip: largest gradient norm where the engine was not told to clip itself (ZeRO 0 in fp32).
    """
    where = examples[0].tokens.device
    targets = max(1.0, total([float(sum(example.num_targets for example in examples))], where)[0])
    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate
    nats = torch.zeros((), dtype=torch.float64, device=where)
    grad_norm = None
    for place, example in enumerate(examples, start=1):
        micro_nats, _ = objective.loss(engine(example.tokens, example.aux), example)
        engine.backward(micro_nats * (data_size / targets), scale_wrt_gas=False)
        nats += micro_nats.detach()
        if place == len(examples) and engine.gradient_clipping() == 0.0 and engine.zero_optimization_stage() == 0:
            largest = float("inf") if clip is None else clip
            grad_norm = torch.nn.utils.clip_grad_norm_(engine.module.parameters(), largest)
        engine.step()
    if grad_norm is None:
        grad_norm = engine.get_global_grad_norm()
    return StepResult(total([float(nats)], where)[0] / targets, float(grad_norm), int(targets))
