"""From token ids to hidden states and back to logits, the vocabulary cut between the tensor-parallel ranks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headrace.model.config import ModelConfig
from headrace.model.dropout import Dropout
from headrace.model.layers import RMSNorm
from headrace.model.tensor_parallel import Shard, TensorParallel, column_linear, parameter, summed


def vocabulary(config: ModelConfig) -> Shard:
    """Each rank holds ceil(V / size) rows; the last ones may be padding."""
    return Shard(0, (config.vocab_size,), padded=True)


class Embed(nn.Module):
    """Token ids int64 [B, T] -> hidden [B, T, hidden], or [B, T / size, hidden]."""

    def __init__(self, config: ModelConfig, seed: int, tensor: TensorParallel) -> None:
        super().__init__()
        self.config, self.tensor = config, tensor
        self.first, _ = vocabulary(config).ranges(tensor.rank, tensor.size)[0]
        self.weight = parameter((config.vocab_size, config.hidden), vocabulary(config), tensor)
        self.dropout = Dropout(config.dropout, seed, "embed", tensor)

    def forward(self, tokens: Tensor, aux: Tensor) -> tuple[Tensor, Tensor]:
        if self.tensor.size == 1:
            return self.dropout(F.embedding(tokens, self.weight), aux), aux
        local = tokens - self.first
        elsewhere = (local < 0) | (local >= self.weight.shape[0])
        hidden = F.embedding(local.masked_fill(elsewhere, 0), self.weight).masked_fill(elsewhere[..., None], 0)
        if not self.tensor.cuts_sequence:
            return self.dropout(summed(hidden, self.tensor), aux), aux
        # Each stream is cut by itself, so that a rank's share of a row holds its share of either stream.
        streams = self.config.streams(tokens.shape[1])
        parts = [self.dropout(summed(hidden[:, start:stop], self.tensor), aux, start) for start, stop in streams]
        return torch.cat(parts, 1), aux


class Head(nn.Module):
    """Final norm and projection of the predicted stream: hidden -> logits [B, T', V], or a rank's [B, T', ceil(V / size)] of them.

    T' is T; of an encoder-decoder, the length of the decoder's stream. Logits of padding are -infinity.
    """

    def __init__(self, config: ModelConfig, tensor: TensorParallel) -> None:
        super().__init__()
        self.config, self.tensor = config, tensor
        start, stop = vocabulary(config).ranges(tensor.rank, tensor.size)[0]
        self.vocabulary = stop - start  # rows that are no padding
        self.norm = RMSNorm(config, tensor)
        self.weight = parameter((config.vocab_size, config.hidden), vocabulary(config), tensor)

    def forward(self, hidden: Tensor, aux: Tensor) -> tuple[Tensor, Tensor]:
        start, stop = self.config.streams(hidden.shape[1])[-1]
        logits = column_linear(self.norm(hidden[:, start:stop]), self.weight, self.tensor)
        if logits.shape[-1] > self.vocabulary:
            logits = logits.masked_fill(torch.arange(logits.shape[-1], device=logits.device) >= self.vocabulary, -torch.inf)
        return logits, aux
