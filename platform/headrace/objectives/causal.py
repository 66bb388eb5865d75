"""Next-token prediction."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from headrace.config import Config
from headrace.model.aux import decoder_aux
from headrace.objectives.cross_entropy import cross_entropy


class Example(NamedTuple):
    """A micro-batch as the model and the loss see it."""

    tokens: Tensor  # int64 [B, T], what the model reads
    aux: Tensor  # int64 [B, T, 2], position and segment
    targets: Tensor  # int64 [B, T], what it should say
    weights: Tensor  # bool [B, T], whether that answer counts

    def to(self, device: torch.device) -> Example:
        return Example(*(tensor.to(device, non_blocking=True) for tensor in self))

    @property
    def num_targets(self) -> int:
        return int(self.weights.sum())


class CausalLM(Config):
    """Predict each token from those before it in the same document.

    What follows an end-of-text token is the first token of an unrelated document that the model may not look into: it has
    nothing to predict from, so it is no target, in training and in evaluation alike.
    """

    name: Literal["causal"] = "causal"

    def corrupt(self, sequences: Tensor, eos: int) -> Example:
        """Inputs and targets of T positions from int64 [B, T + 1] tokens of packed documents."""
        tokens, targets = sequences[:, :-1].contiguous(), sequences[:, 1:].contiguous()
        return Example(tokens, decoder_aux(tokens, eos), targets, tokens != eos)

    def loss(self, logits: Tensor, example: Example) -> tuple[Tensor, Tensor]:
        """Sum of nats, float32, and number of targets, int64, of logits [B, T, vocab_size]."""
        weights = example.weights.flatten()
        return cross_entropy(logits.flatten(0, 1), example.targets.flatten(), weights), weights.sum()
