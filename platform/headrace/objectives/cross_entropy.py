"""Cross entropy in float32, a block of positions at a time, of logits whose vocabulary may be cut between ranks."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from headrace.model.tensor_parallel import ALONE, TensorParallel
from headrace.objectives.blocks import BLOCK_BYTES, GPU_BLOCK_BYTES


class _CrossEntropy(torch.autograd.Function):
    """Keeps the logits, which are there anyway, and one number a position; the gradient is made once it is known what to scale it by.

    `F.cross_entropy` keeps the log-probabilities of every position in float32. And a gradient made before it is scaled would lose its
    small numbers in fp16, for which the loss is scaled up in the first place.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, weights: Tensor, tensor: TensorParallel) -> Tensor:
        if tensor.size > 1:
            targets = targets - tensor.rank * logits.shape[1]
            elsewhere = (targets < 0) | (targets >= logits.shape[1])
            targets = targets.masked_fill(elsewhere, 0)
            total, nats = _over_ranks(logits, targets, elsewhere, tensor)
            hits = elsewhere.float() - 1.0
        else:
            total, nats = _alone(logits, targets)
            hits = torch.full_like(total, -1.0)
        ctx.save_for_backward(logits, total, targets, weights, hits)
        return (nats * weights).sum()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        logits, total, targets, weights, hits = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        scale = weights * upstream.float()
        for rows in _blocks(logits):
            probability = (logits[rows] - total[rows, None]).exp_()
            probability.scatter_add_(1, targets[rows, None], hits[rows, None].to(probability.dtype))
            gradient[rows] = probability.mul_(scale[rows, None])
        return gradient, None, None, None


def _alone(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithm of the sum of exponentials of each position, and the nats of its target: float32 [N] both."""
    total, nats = torch.empty((2, len(logits)), dtype=torch.float32, device=logits.device)
    for rows in _blocks(logits):
        target = targets[rows, None]
        log_probability = torch.log_softmax(logits[rows], dim=-1, dtype=torch.float32).gather(1, target)
        nats[rows] = -log_probability[:, 0]
        total[rows] = (logits[rows].gather(1, target) - log_probability)[:, 0]
    return total, nats


def _over_ranks(logits: Tensor, targets: Tensor, elsewhere: Tensor, tensor: TensorParallel) -> tuple[Tensor, Tensor]:
    """The same over all ranks' logits; the target of a position is this rank's unless it is elsewhere."""
    largest = logits.amax(1).float()
    dist.all_reduce(largest, dist.ReduceOp.MAX, group=tensor.group)
    picked = (logits.gather(1, targets[:, None])[:, 0] - largest).masked_fill_(elsewhere, 0)
    sums = torch.stack((torch.empty_like(picked), picked))
    for rows in _blocks(logits):
        sums[0, rows] = (logits[rows] - largest[rows, None]).exp_().sum(1)
    dist.all_reduce(sums, group=tensor.group)
    logarithm = sums[0].log()
    return largest + logarithm, logarithm - sums[1]


def _blocks(logits: Tensor) -> list[slice]:
    budget = GPU_BLOCK_BYTES if logits.is_cuda else BLOCK_BYTES
    block = max(1, budget // (4 * logits.shape[1]))
    return [slice(start, start + block) for start in range(0, logits.shape[0], block)]


def cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor, tensor: TensorParallel = ALONE) -> Tensor:
    """Nats of the targets under the logits, summed where the weight is true: float32 scalar, the same on every rank.

    Args:
        logits: [N, V], any floating type; or this rank's columns of them, rank 0's first, equally many on each rank.
        targets: int64 [N], ids below V.
        weights: bool [N].
    """
    nats: Tensor = _CrossEntropy.apply(logits, targets, weights, tensor)
    return nats
