"""The decoder as an ordered list of layers, each `(hidden, aux) -> (hidden, aux)`, so that any cut makes a pipeline stage."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
import xxhash
from torch import Tensor, nn

from headrace.model.attention import Attention
from headrace.model.config import ModelConfig
from headrace.model.layers import RMSNorm, SwiGLU

INIT_STD = 0.02
RESIDUAL = ("attention.out.weight", "mlp.down.weight")  # projections that write into the residual stream


class Embed(nn.Module):
    """Token ids int64 [B, T] -> hidden [B, T, hidden]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.vocab_size, config.hidden))

    def forward(self, tokens: Tensor, aux: Tensor) -> tuple[Tensor, Tensor]:
        return F.embedding(tokens, self.weight), aux


class Block(nn.Module):
    """One pre-norm transformer block."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden, config.norm_eps)
        self.attention = Attention(config)
        self.mlp_norm = RMSNorm(config.hidden, config.norm_eps)
        self.mlp = SwiGLU(config)

    def forward(self, hidden: Tensor, aux: Tensor) -> tuple[Tensor, Tensor]:
        hidden = hidden + self.attention(self.attention_norm(hidden), aux)
        return hidden + self.mlp(self.mlp_norm(hidden)), aux


class Head(nn.Module):
    """Final norm and projection: hidden -> logits [B, T, vocab_size]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.hidden, config.norm_eps)
        self.weight = nn.Parameter(torch.empty(config.vocab_size, config.hidden))

    def forward(self, hidden: Tensor, aux: Tensor) -> tuple[Tensor, Tensor]:
        return F.linear(self.norm(hidden), self.weight), aux


class SequentialModel(nn.Module):
    """The layers run one behind the other on one rank.

    Names of parameters are canonical: `embed.weight`, `blocks.<i>.attention.qkv.weight`, ..., `head.weight` (absent where it is
    tied to the embedding). They, and the shapes, are what checkpoints store, whatever the layout.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = Embed(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.head = Head(config)
        if config.tied_embeddings:
            self.head.weight = self.embed.weight

    def layers(self) -> Iterator[tuple[str, nn.Module]]:
        """Name and layer, first to last."""
        yield "embed", self.embed
        yield from ((f"blocks.{index}", block) for index, block in enumerate(self.blocks))
        yield "head", self.head

    def forward(self, tokens: Tensor, aux: Tensor) -> Tensor:
        """Logits [B, T, vocab_size] for tokens int64 [B, T] and aux int64 [B, T, 2]."""
        hidden = tokens
        for _, layer in self.layers():
            hidden, aux = layer(hidden, aux)
        return hidden


def build_model(config: ModelConfig, seed: int | None) -> SequentialModel:
    """The model in float32 on the CPU, weights drawn from the seed; with None they are left unset, for a checkpoint to fill."""
    model = SequentialModel(config)
    if seed is not None:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(initial_weight(config, seed, name, tuple(parameter.shape)))
    return model


def initial_weight(config: ModelConfig, seed: int, name: str, shape: tuple[int, ...]) -> Tensor:
    """One whole weight as it is before the first step: a function of the seed and its canonical name alone.

    So neither the order in which layers are made nor a layout that keeps a slice of it changes a number. Normal with
    standard deviation 0.02; projections into the residual stream are smaller by sqrt(2 x layers) (Radford et al. 2019,
    GPT-2, section 2.3); norms start at one.
    """
    if len(shape) == 1:
        return torch.ones(shape)
    std = INIT_STD / math.sqrt(2 * config.layers) if name.endswith(RESIDUAL) else INIT_STD
    generator = torch.Generator().manual_seed(xxhash.xxh64_intdigest(f"{seed}/{name}".encode()) >> 1)
    return torch.empty(shape).normal_(0.0, std, generator=generator)
