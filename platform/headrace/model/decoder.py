"""The decoder's block."""

from __future__ import annotations

from torch import Tensor, nn

from headrace.model.attention import Attention
from headrace.model.config import ModelConfig
from headrace.model.dropout import Dropout
from headrace.model.geometry import Geometry, View
from headrace.model.layers import RMSNorm, SwiGLU
from headrace.model.tensor_parallel import TensorParallel


class Block(nn.Module):
    """One pre-norm transformer block: hidden states between blocks -> the same."""

    def __init__(self, config: ModelConfig, name: str, seed: int, tensor: TensorParallel, view: View = "decoder") -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config, tensor)
        self.attention = Attention(config, tensor, view)
        self.attention_dropout = Dropout(config.dropout, seed, f"{name}.attention", tensor)
        self.mlp_norm = RMSNorm(config, tensor)
        self.mlp = SwiGLU(config, tensor)
        self.mlp_dropout = Dropout(config.dropout, seed, f"{name}.mlp", tensor)

    def forward(self, hidden: Tensor, aux: Tensor) -> tuple[Tensor, Tensor]:
        return self.body(hidden, aux, self.derived(hidden, aux)), aux

    def derived(self, hidden: Tensor, aux: Tensor) -> Geometry:
        """What follows from aux: looked up or made outside of what is compiled."""
        return self.attention.geometry(hidden, aux)

    def body(self, hidden: Tensor, aux: Tensor, shared: Geometry) -> Tensor:
        """The block's arithmetic."""
        hidden = hidden + self.attention_dropout(self.attention(self.attention_norm(hidden), shared), aux)
        return hidden + self.mlp_dropout(self.mlp(self.mlp_norm(hidden)), aux)
