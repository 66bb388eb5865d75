"""A micro-batch as the model and the loss see it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from headrace.model.tensor_parallel import ALONE, TensorParallel
from headrace.objectives.cross_entropy import cross_entropy


class Example(NamedTuple):
    """B sequences of T tokens, of which the last T' are predicted from: all, or those of the decoder's stream."""

    tokens: Tensor  # int64 [B, T], what the model reads
    aux: Tensor  # int64 [B, T, 4], see headrace.model.aux
    targets: Tensor  # int64 [B, T'], what it should say
    weights: Tensor  # bool [B, T'], whether that answer counts

    def to(self, device: torch.device) -> Example:
        return Example(*(tensor.to(device, non_blocking=True) for tensor in self))

    @property
    def num_targets(self) -> int:
        return int(self.weights.sum())


def summed_nats(logits: Tensor, example: Example, tensor: TensorParallel | None = None) -> tuple[Tensor, Tensor]:
    """Sum of nats, float32, and number of targets, int64, of logits [B, T', V] or of this rank's share of their columns."""
    weights = example.weights.flatten()
    return cross_entropy(logits.flatten(0, 1), example.targets.flatten(), weights, tensor or ALONE), weights.sum()
