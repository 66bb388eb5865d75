"""The blocks of an encoder-decoder whose two streams travel as one tensor, [encoder ; decoder] along the sequence.

So every layer has the decoder's shape, `(hidden, aux) -> (hidden, aux)`, and one tensor crosses the border of a pipeline stage: the
encoder's blocks change the first part, and the decoder's read it as memory and change the second. With a cut sequence a rank holds
its share of either stream, [B, S / size + D / size, hidden].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from headrace.model.attention import Attention, CrossAttention
from headrace.model.config import SizedEncoderDecoder, source_length
from headrace.model.decoder import Block
from headrace.model.dropout import Dropout
from headrace.model.geometry import Geometry, Sight, across
from headrace.model.layers import RMSNorm, SwiGLU
from headrace.model.tensor_parallel import TensorParallel


class EncoderBlock(Block):
    """One pre-norm block of the encoder: every token attends to all of its segment in the encoder's stream."""

    def __init__(self, config: SizedEncoderDecoder, name: str, seed: int, tensor: TensorParallel) -> None:
        super().__init__(config, name, seed, tensor, "source")

    def body(self, hidden: Tensor, aux: Tensor, shared: Geometry) -> Tensor:
        source, target = _streams(hidden)
        return torch.cat((super().body(source, aux, shared), target), 1)


class EncoderNorm(nn.Module):
    """The norm behind the encoder's last block."""

    def __init__(self, config: SizedEncoderDecoder, tensor: TensorParallel) -> None:
        super().__init__()
        self.norm = RMSNorm(config, tensor)

    def forward(self, hidden: Tensor, aux: Tensor) -> tuple[Tensor, Tensor]:
        source, target = _streams(hidden)
        return torch.cat((self.norm(source), target), 1), aux


class DecoderBlock(nn.Module):
    """One pre-norm block of the decoder: causal attention, attention to the encoder's stream, feed-forward layer."""

    def __init__(self, config: SizedEncoderDecoder, name: str, seed: int, tensor: TensorParallel) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config, tensor)
        self.attention = Attention(config, tensor, "target")
        self.attention_dropout = Dropout(config.dropout, seed, f"{name}.attention", tensor)
        self.cross_norm = RMSNorm(config, tensor)
        self.cross = CrossAttention(config, tensor)
        self.cross_dropout = Dropout(config.dropout, seed, f"{name}.cross", tensor)
        self.mlp_norm = RMSNorm(config, tensor)
        self.mlp = SwiGLU(config, tensor)
        self.mlp_dropout = Dropout(config.dropout, seed, f"{name}.mlp", tensor)

    def forward(self, hidden: Tensor, aux: Tensor) -> tuple[Tensor, Tensor]:
        return self.body(hidden, aux, self.derived(hidden, aux)), aux

    def derived(self, hidden: Tensor, aux: Tensor) -> tuple[Geometry, Sight]:
        """What follows from aux, of the decoder's stream and from it to the encoder's."""
        return self.attention.geometry(hidden, aux), across(aux)

    def body(self, hidden: Tensor, aux: Tensor, shared: tuple[Geometry, Sight]) -> Tensor:
        """The block's arithmetic."""
        memory, target = _streams(hidden)
        start = source_length(aux.shape[1])
        target = target + self.attention_dropout(self.attention(self.attention_norm(target), shared[0]), aux, start)
        target = target + self.cross_dropout(self.cross(self.cross_norm(target), memory, shared[1]), aux, start)
        target = target + self.mlp_dropout(self.mlp(self.mlp_norm(target)), aux, start)
        return torch.cat((memory, target), 1)


def _streams(hidden: Tensor) -> tuple[Tensor, Tensor]:
    """The encoder's and the decoder's part."""
    middle = source_length(hidden.shape[1])
    return hidden[:, :middle], hidden[:, middle:]
