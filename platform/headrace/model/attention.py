"""Grouped-query attention with rotary positions over packed documents."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from headrace.model.aux import POSITION, SEGMENT
from headrace.model.config import ModelConfig
from headrace.model.layers import Linear


@dataclass(frozen=True)
class Geometry:
    """What every block derives from the same aux."""

    mask: Tensor | None  # bool [B, 1, T, T], true = may attend; None where plain causal attention says the same
    cos: Tensor  # float32 [B, T, 1, head_size]
    sin: Tensor  # float32 [B, T, 1, head_size], the first half negated


# Each block derives its mask from aux alone, so that any block can stand first on a pipeline stage; deriving it once for
# all blocks that see the same aux tensor saves 1-2 % of a step. Entries live as long as their aux.
_geometries: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def geometry(aux: Tensor, head_size: int, theta: float) -> Geometry:
    """Mask and rotations of one micro-batch; aux int64 [B, T, 2], which must not be written to afterwards."""
    known: dict[tuple[int, float], Geometry] = _geometries.setdefault(aux, {})
    if (head_size, theta) not in known:
        cos, sin = rotary_table(_table_length(aux.shape[1]), head_size, theta, aux.device)
        position = aux[..., POSITION]
        known[head_size, theta] = Geometry(segment_mask(aux[..., SEGMENT]), cos[position].unsqueeze(2), sin[position].unsqueeze(2))
    return known[head_size, theta]


def segment_mask(segment: Tensor) -> Tensor | None:
    """Causal and inside one segment: bool [B, 1, T, T] for int64 [B, T]; None if every row is one segment.

    Without a mask the kernels skip the upper triangle: a quarter of attention's time at 1,024 tokens on a CPU.
    """
    if bool((segment == segment[:, :1]).all()):
        return None
    length = segment.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segment.device).tril()
    return ((segment[:, :, None] == segment[:, None, :]) & causal).unsqueeze(1)


def _table_length(length: int) -> int:
    return 1 << max(length - 1, 1).bit_length()  # few different tables, whatever lengths are asked for


@lru_cache(maxsize=32)
def rotary_table(length: int, head_size: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines of RoPE: float32 [length, head_size] each, pairs (i, i + head_size / 2).

    Source: Su et al. 2021, arXiv:2104.09864, equation 34, with the halves paired as Llama's published weights expect.
    """
    # float64 until the angle is known: at position 100,000 a float32 product is off by 0.004 radians.
    exponent = torch.arange(0, head_size, 2, dtype=torch.float64) / head_size
    angle = torch.outer(torch.arange(length, dtype=torch.float64), theta**-exponent)
    cos, sin = angle.cos().float(), angle.sin().float()
    return torch.cat((cos, cos), -1).to(device), torch.cat((-sin, sin), -1).to(device)


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions applied to [B, T, heads, head_size], in float32 whatever the precision of the input."""
    return (heads * cos + heads.roll(heads.shape[-1] // 2, -1) * sin).to(heads.dtype)


class Attention(nn.Module):
    """Self-attention, causal and within a segment.

    `qkv` holds the rows of all query heads, then all key heads, then all value heads.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_size = config.heads, config.key_value_heads, config.head_size
        self.theta = config.rope_theta
        self.qkv = Linear(config.hidden, (self.heads + 2 * self.kv_heads) * self.head_size)
        self.out = Linear(self.heads * self.head_size, config.hidden)

    def forward(self, hidden: Tensor, aux: Tensor) -> Tensor:
        """[B, T, hidden] -> [B, T, hidden]; aux int64 [B, T, 2]."""
        batch, length, _ = hidden.shape
        shared = geometry(aux, self.head_size, self.theta)
        heads = self.qkv(hidden).view(batch, length, -1, self.head_size)
        query_key, value = heads.split((self.heads + self.kv_heads, self.kv_heads), dim=2)
        query, key = rotate(query_key, shared.cos, shared.sin).split((self.heads, self.kv_heads), dim=2)
        attended = F.scaled_dot_product_attention(
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            attn_mask=shared.mask,
            is_causal=shared.mask is None,
            enable_gqa=self.kv_heads != self.heads,
        )
        return self.out(attended.transpose(1, 2).reshape(batch, length, -1))
