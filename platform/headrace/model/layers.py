"""Layers that every architecture is made of; at a tensor size of 1 they are the plain ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headrace.model.config import ModelConfig
from headrace.model.tensor_parallel import Shard, TensorParallel, column_linear, parameter, replicated, summed


class ColumnLinear(nn.Module):
    """Hidden states between blocks -> this rank's outputs, without a bias; the weight is left unset, for `draw` or a checkpoint to fill.

    Args:
        parts: outputs that are cut one by one.
    """

    def __init__(self, inputs: int, parts: tuple[int, ...], tensor: TensorParallel) -> None:
        super().__init__()
        self.tensor = tensor
        self.weight = parameter((sum(parts), inputs), Shard(0, parts), tensor)

    def forward(self, hidden: Tensor) -> Tensor:
        return column_linear(hidden, self.weight, self.tensor)


class RowLinear(nn.Module):
    """This rank's inputs -> hidden states between blocks, without a bias; the weight is left unset."""

    def __init__(self, inputs: int, outputs: int, tensor: TensorParallel) -> None:
        super().__init__()
        self.tensor = tensor
        self.weight = parameter((outputs, inputs), Shard(1, (inputs,)), tensor)

    def forward(self, values: Tensor) -> Tensor:
        return summed(F.linear(values, self.weight), self.tensor)


class RMSNorm(nn.Module):
    """Root-mean-square norm (Zhang and Sennrich 2019, arXiv:1910.07467), computed in float32."""

    def __init__(self, config: ModelConfig, tensor: TensorParallel) -> None:
        super().__init__()
        self.eps, self.tensor = config.norm_eps, tensor
        self.weight = nn.Parameter(torch.ones(config.hidden))

    def forward(self, hidden: Tensor) -> Tensor:
        weight = replicated(self.weight.float(), self.tensor)
        return F.rms_norm(hidden.float(), weight.shape, weight, self.eps).to(hidden.dtype)


class SwiGLU(nn.Module):
    """Gated feed-forward layer (Shazeer 2020, arXiv:2002.05202); `gate_up` holds the gate's rows, then the up projection's."""

    def __init__(self, config: ModelConfig, tensor: TensorParallel) -> None:
        super().__init__()
        self.gate_up = ColumnLinear(config.hidden, (config.mlp_size, config.mlp_size), tensor)
        self.down = RowLinear(config.mlp_size, config.hidden, tensor)

    def forward(self, hidden: Tensor) -> Tensor:
        gate, up = self.gate_up(hidden).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)
