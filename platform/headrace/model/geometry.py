"""Who attends to whom, and from where: masks and rotary positions, derived from aux alone.

So any block can stand first on a pipeline stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from headrace.model.aux import POSITION, SEGMENT
from headrace.model.config import source_length

# Who attends to itself: all of a row; or of a packed row the encoder's stream, which looks both ways, or the decoder's.
View = Literal["decoder", "source", "target"]


@dataclass(frozen=True)
class Bounds:
    """Segments of packed rows, the rows laid end to end: what kernels for sequences of any length take in place of a mask."""

    starts: Tensor  # int32 [segments + 1], first token of each, and behind the last
    longest: int  # tokens


@dataclass(frozen=True)
class Sight:
    """Which of K keys each of Q queries attends to."""

    mask: Tensor | None  # bool [B, 1, Q, K], true = may attend; None where `bounds` or `causal` alone says the same
    causal: bool  # without a mask: each attends up to itself, rather than to all
    blind: Tensor | None = None  # bool [B, Q, 1], queries that may attend to nothing; their mask is all true. None if there are none
    bounds: Bounds | None = None  # attention stays within these


@dataclass(frozen=True)
class Geometry:
    """What self-attention derives from aux."""

    sight: Sight
    cos: Tensor  # float32 [B, T, 1, head_size]
    sin: Tensor  # float32 [B, T, 1, head_size], the first half negated


# Deriving it once for all blocks that see the same aux tensor saves 1-2 % of a step. Entries live as long as their aux.
_derived: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def geometry(aux: Tensor, view: View, head_size: int, theta: float, dtype: torch.dtype = torch.float32) -> Geometry:
    """Mask and rotations of one micro-batch.

    Args:
        aux: int64 [B, T, 4], which must not be written to afterwards.
        dtype: of what attends; the kernel for packed rows knows 16 bits only, and GPUs since Ampere.
    """
    known: dict[Any, Any] = _derived.setdefault(aux, {})
    packed = aux.is_cuda and dtype in (torch.bfloat16, torch.float16) and torch.cuda.get_device_capability(aux.device) >= (8, 0)
    key = (view, head_size, theta, packed)
    if key not in known:
        length = aux.shape[1]
        stream = {"decoder": slice(0, length), "source": slice(0, source_length(length)), "target": slice(source_length(length), length)}
        position, segment = aux[:, stream[view], POSITION], aux[:, stream[view], SEGMENT]
        cos, sin = rotary_table(_table_length(length), head_size, theta, aux.device)
        known[key] = Geometry(segment_sight(segment, view != "source", packed), cos[position].unsqueeze(2), sin[position].unsqueeze(2))
    found: Geometry = known[key]
    return found


def across(aux: Tensor) -> Sight:
    """From the decoder's stream of packed rows to the encoder's, within a segment; aux as for `geometry`."""
    known: dict[Any, Any] = _derived.setdefault(aux, {})
    if "across" not in known:
        source, target = aux[..., SEGMENT].tensor_split((source_length(aux.shape[1]),), 1)
        mask = target[:, :, None] == source[:, None, :]
        blind = ~mask.any(-1, keepdim=True)
        # A softmax over nothing is no number in some kernels: such a query attends to all, and is zeroed behind.
        known["across"] = Sight(None, False) if bool(mask.all()) else Sight((mask | blind).unsqueeze(1), False, blind)
    found: Sight = known["across"]
    return found


def segment_sight(segment: Tensor, causal: bool, packed: bool) -> Sight:
    """Within one segment, and causal or not, for int64 [B, T], the segments of a row rising from the left to the right.

    Where every row is one segment, nothing more is to be said: the kernels skip the upper triangle, a quarter of attention's time at
    1,024 tokens on a CPU.

    Args:
        packed: say it by the segments' bounds, for a kernel that skips whatever is outside of them, rather than by a mask.
    """
    if bool((segment == segment[:, :1]).all()):
        return Sight(None, causal)
    return Sight(None, causal, bounds=segment_bounds(segment)) if packed else Sight(segment_mask(segment, causal), False)


def segment_mask(segment: Tensor, causal: bool) -> Tensor:
    """Who may attend to whom: bool [B, 1, T, T] for int64 [B, T]."""
    length = segment.shape[1]
    same = segment[:, :, None] == segment[:, None, :]
    if causal:
        same &= torch.ones(length, length, dtype=torch.bool, device=segment.device).tril()
    return same.unsqueeze(1)


def segment_bounds(segment: Tensor) -> Bounds:
    """Where the segments of int64 [B, T] begin and end."""
    first = torch.ones_like(segment, dtype=torch.bool)
    first[:, 1:] = segment[:, 1:] != segment[:, :-1]
    ends = torch.tensor([segment.numel()], device=segment.device)
    starts = torch.cat((first.flatten().nonzero()[:, 0], ends)).int()
    return Bounds(starts, int(starts.diff().max()))


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
