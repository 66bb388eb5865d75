"""Sharing a layer between the ranks of a tensor-parallel group: which part of a weight each keeps, and what they tell each other.

Every column layer starts from hidden states that all ranks hold, every row layer ends with a sum over the ranks. With Megatron-LM's
sequence parallelism the hidden states between the two are cut along the sequence: gathered in front of a column layer, and the sum
behind a row layer is scattered (Shoeybi et al. 2019, arXiv:1909.08053, section 3; Korthikanti et al. 2022, arXiv:2205.05198, section 4.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed import ProcessGroup


@dataclass(frozen=True)
class TensorParallel:
    """A rank's place among those that share its matrices."""

    group: ProcessGroup | None
    rank: int = 0
    size: int = 1
    sequence: bool = False  # hidden states between the matrices are [B, T / size, hidden]

    @property
    def cuts_sequence(self) -> bool:
        return self.sequence and self.size > 1


ALONE = TensorParallel(None)


@dataclass(frozen=True)
class Shard:
    """How a weight is cut: each part by itself, and a rank holds its pieces of all parts one behind the other."""

    dim: int  # 0: rows, 1: columns
    parts: tuple[int, ...]  # sizes along dim of what is cut one by one, such as query, key and value heads; together the whole weight
    padded: bool = False  # a part that does not divide is filled up with zeros at its end

    def local(self, size: int) -> int:
        """Rows, or columns, that each rank holds.

        Raises:
            ValueError: a part does not divide by the number of ranks, and is not padded.
        """
        uneven = [part for part in self.parts if part % size]
        if uneven and not self.padded:
            raise ValueError(f"a weight's part of {uneven[0]} {('rows', 'columns')[self.dim]} does not divide by a tensor size of {size}.")
        return sum(-(-part // size) for part in self.parts)

    def ranges(self, rank: int, size: int) -> list[tuple[int, int]]:
        """First and last + 1 of what a rank keeps of each part, in rows or columns of the whole weight; padding is outside."""
        found, start = [], 0
        for part in self.parts:
            each = -(-part // size)
            found.append((start + min(rank * each, part), start + min((rank + 1) * each, part)))
            start += part
        return found


def shard_of(parameter: Tensor) -> Shard | None:
    """How a parameter is cut; None for one that every rank holds whole."""
    return getattr(parameter, "shard", None)


def cut(whole: Tensor, shard: Shard, rank: int, size: int) -> Tensor:
    """A rank's piece of a weight; at size 1 the weight itself.

    Raises:
        ValueError: it does not divide.
    """
    if size == 1:
        return whole
    shard.local(size)
    pieces = []
    for part, (start, stop) in zip(shard.parts, shard.ranges(rank, size)):
        pieces.append(whole.narrow(shard.dim, start, stop - start))
        if missing := -(-part // size) - (stop - start):
            pieces.append(whole.new_zeros([missing if dim == shard.dim else length for dim, length in enumerate(whole.shape)]))
    return torch.cat(pieces, shard.dim)


def joined(pieces: Sequence[Tensor], shard: Shard) -> Tensor:
    """The whole weight from the pieces of ranks 0, 1, ...: the inverse of `cut`."""
    size = len(pieces)
    if size == 1:
        return pieces[0]
    each = [-(-part // size) for part in shard.parts]
    split = [piece.split(each, shard.dim) for piece in pieces]
    parts = [torch.cat([piece[place] for piece in split], shard.dim).narrow(shard.dim, 0, part) for place, part in enumerate(shard.parts)]
    return torch.cat(parts, shard.dim)


def parameter(shape: tuple[int, int], shard: Shard, tensor: TensorParallel) -> nn.Parameter:
    """This rank's piece of a weight of that whole shape, its values left unset."""
    local = [shard.local(tensor.size) if dim == shard.dim else length for dim, length in enumerate(shape)]
    made = nn.Parameter(torch.empty(local))
    made.shard = shard
    if tensor.size > 1:
        made.tensor_model_parallel = True  # DeepSpeed counts the gradient of what is not flagged on the first rank alone
    return made


def all_gathered(values: Tensor, tensor: TensorParallel) -> Tensor:
    """[B, T / size, H] of each rank -> [B, T, H]."""
    batch, length, hidden = values.shape
    stacked = values.new_empty((tensor.size * batch, length, hidden))
    dist.all_gather_into_tensor(stacked, values.contiguous(), group=tensor.group)
    return stacked.view(tensor.size, batch, length, hidden).transpose(0, 1).reshape(batch, tensor.size * length, hidden)


def _reduce_scattered(values: Tensor, tensor: TensorParallel) -> tuple[Tensor, Any]:
    """[B, T, H] of each rank -> this rank's [B, T / size, H] of their sum, and what to wait for before it is read."""
    batch, length, hidden = values.shape
    if length % tensor.size:
        raise ValueError(f"a stream of {length} tokens does not divide by a tensor size of {tensor.size}, as layout.sequence needs.")
    piece = length // tensor.size
    stacked = values.view(batch, tensor.size, piece, hidden).transpose(0, 1).contiguous()
    own = values.new_empty((batch, piece, hidden))
    return own, dist.reduce_scatter_tensor(own, stacked.view(-1, piece, hidden), group=tensor.group, async_op=True)


class _Copy(torch.autograd.Function):
    """Forward: as it is. Backward: the sum of the ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, tensor: TensorParallel) -> Tensor:
        ctx.tensor = tensor
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        total = upstream.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=ctx.tensor.group)
        return total, None


class _Reduce(torch.autograd.Function):
    """Forward: the sum over the ranks. Backward: as it is."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, tensor: TensorParallel) -> Tensor:
        # Not in place: selective recomputation has kept the product that comes in here.
        total = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=tensor.group)
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return upstream, None


class _ReduceScatter(torch.autograd.Function):
    """Forward: this rank's tokens of the sum over the ranks. Backward: the gradients of all tokens."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, tensor: TensorParallel) -> Tensor:
        ctx.tensor = tensor
        own, work = _reduce_scattered(values.contiguous(), tensor)
        work.wait()
        return own

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return all_gathered(upstream, ctx.tensor), None


class _ColumnLinear(torch.autograd.Function):
    """A product with this rank's rows of a matrix. The gradient of its input is summed while that of the matrix is computed.

    Where the sequence is cut, only this rank's tokens are kept for the backward pass; they are gathered once more.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, tensor: TensorParallel) -> Tensor:
        ctx.tensor = tensor
        ctx.save_for_backward(values, weight)
        return F.linear(all_gathered(values, tensor) if tensor.sequence else values, weight)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        values, weight = ctx.saved_tensors
        to_values = upstream.matmul(weight)
        if ctx.tensor.sequence:
            values = all_gathered(values, ctx.tensor)
            to_values, work = _reduce_scattered(to_values, ctx.tensor)
        else:
            work = dist.all_reduce(to_values, group=ctx.tensor.group, async_op=True)
        to_weight = upstream.flatten(0, -2).t().matmul(values.flatten(0, -2))
        work.wait()
        return to_values, to_weight, None


def column_linear(hidden: Tensor, weight: Tensor, tensor: TensorParallel) -> Tensor:
    """Hidden states between blocks, [B, T, inputs] or [B, T / size, inputs] -> this rank's [B, T, outputs / size]."""
    if tensor.size == 1:
        return F.linear(hidden, weight)
    product: Tensor = _ColumnLinear.apply(hidden, weight, tensor)
    return product


def summed(partial: Tensor, tensor: TensorParallel) -> Tensor:
    """Each rank's share [B, T, hidden] of a sum -> hidden states between blocks: [B, T, hidden], or [B, T / size, hidden]."""
    if tensor.size == 1:
        return partial
    total: Tensor = (_ReduceScatter if tensor.sequence else _Reduce).apply(partial, tensor)
    return total


def replicated(weight: Tensor, tensor: TensorParallel) -> Tensor:
    """A weight that every rank holds whole, on its way into work on the hidden states between blocks.

    Where the sequence is cut, each rank sees the gradient of its own tokens only; the backward pass sums them.
    """
    if not tensor.cuts_sequence:
        return weight
    same: Tensor = _Copy.apply(weight, tensor)
    return same
