"""Grouped-query attention over packed documents, the heads cut between the tensor-parallel ranks."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from headrace.model.config import ModelConfig
from headrace.model.geometry import Geometry, Sight, View, geometry, rotate
from headrace.model.layers import ColumnLinear, RowLinear
from headrace.model.tensor_parallel import ALONE, TensorParallel


class Attention(nn.Module):
    """Self-attention with rotary positions, within a segment; causal, except in the encoder's stream.

    `qkv` holds the rows of all query heads, then all key heads, then all value heads.
    """

    def __init__(self, config: ModelConfig, tensor: TensorParallel = ALONE, view: View = "decoder") -> None:
        super().__init__()
        self.heads, self.kv_heads = local_heads(config, tensor)
        self.head_size, self.theta, self.view = config.head_size, config.rope_theta, view
        queries, keys = config.heads * config.head_size, config.key_value_heads * config.head_size
        self.qkv = ColumnLinear(config.hidden, (queries, keys, keys), tensor)
        self.out = RowLinear(queries, config.hidden, tensor)

    def geometry(self, hidden: Tensor, aux: Tensor) -> Geometry:
        """What is derived from aux int64 [B, T, 4] of the whole row, once for all blocks that attend alike."""
        return geometry(aux, self.view, self.head_size, self.theta, hidden.dtype)

    def forward(self, hidden: Tensor, shared: Geometry) -> Tensor:
        """The stream's hidden states between blocks -> what the branch adds to them."""
        heads = self.qkv(hidden)
        heads = heads.view(*heads.shape[:2], -1, self.head_size)
        query_key, value = heads.split((self.heads + self.kv_heads, self.kv_heads), dim=2)
        query, key = rotate(query_key, shared.cos, shared.sin).split((self.heads, self.kv_heads), dim=2)
        return self.out(attended(query, key, value, shared.sight))


class CrossAttention(nn.Module):
    """Attention of the decoder's stream to the encoder's, within a segment; without positions, as in T5.

    `key_value` holds the rows of all key heads, then all value heads.
    """

    def __init__(self, config: ModelConfig, tensor: TensorParallel = ALONE) -> None:
        super().__init__()
        local_heads(config, tensor)
        self.head_size = config.head_size
        queries, keys = config.heads * config.head_size, config.key_value_heads * config.head_size
        self.query = ColumnLinear(config.hidden, (queries,), tensor)
        self.key_value = ColumnLinear(config.hidden, (keys, keys), tensor)
        self.out = RowLinear(queries, config.hidden, tensor)

    def forward(self, hidden: Tensor, memory: Tensor, sight: Sight) -> Tensor:
        """Hidden states between blocks of the decoder's and of the encoder's stream -> what the branch adds to the decoder's."""
        query, key_value = (heads.view(*heads.shape[:2], -1, self.head_size) for heads in (self.query(hidden), self.key_value(memory)))
        key, value = key_value.chunk(2, dim=2)
        return self.out(attended(query, key, value, sight))


def attended(query: Tensor, key: Tensor, value: Tensor, sight: Sight) -> Tensor:
    """[B, Q, heads, head_size], [B, K, kv_heads, head_size] twice -> [B, Q, heads x head_size]; zeros where a query sees nothing."""
    grouped = query.shape[2] != key.shape[2]
    if sight.bounds is not None:
        from torch.nn.attention.varlen import varlen_attn  # loads torch's compiler, which a CPU can do without

        starts, longest = sight.bounds.starts, sight.bounds.longest
        window = (-1, 0) if sight.causal else (-1, -1)
        rows = (each.flatten(0, 1) for each in (query, key, value))
        packed = varlen_attn(*rows, starts, starts, longest, longest, window_size=window, enable_gqa=grouped)
        return packed.view(query.shape).flatten(2)
    values = F.scaled_dot_product_attention(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        attn_mask=sight.mask,
        is_causal=sight.causal,
        enable_gqa=grouped,
    )
    values = values.transpose(1, 2).flatten(2)
    return values if sight.blind is None else values.masked_fill(sight.blind, 0)


def local_heads(config: ModelConfig, tensor: TensorParallel) -> tuple[int, int]:
    """Query heads and key and value heads of a rank.

    Raises:
        ValueError: they do not divide.
    """
    heads, kv_heads = config.heads, config.key_value_heads
    if heads % tensor.size or kv_heads % tensor.size:
        raise ValueError(f"heads = {heads} and kv_heads = {kv_heads} must both be multiples of the tensor size, {tensor.size}.")
    return heads // tensor.size, kv_heads // tensor.size
