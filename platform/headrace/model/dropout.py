"""Dropout whose mask is a function of what is dropped, not of who computes it.

A mask comes from a hash of (seed, layer, sequence, position, column), where the sequence's number in the run also tells the step. So
it is the same number by number in any layout, with a cut sequence, and when a block is computed again in the backward pass.
"""

from __future__ import annotations

import torch
import xxhash
from torch import Tensor, nn

from headrace.model.aux import SAMPLE
from headrace.model.tensor_parallel import TensorParallel

LOW = 0xFFFFFFFF
# lowbias32 of Wellons 2018 (nullprogram.com/blog/2018/07/31), its second factor less 2^32: products of 32-bit numbers then stay
# inside int64, and the low half of them is the same.
FACTORS = 0x7FEB352D, 0x846CA68B - (1 << 32)
LANES = 2  # masks of 16 bits from one hash of 32
STEPS = 1 << 16  # a rate is rounded to a multiple of 1 / 65,536


class Dropout(nn.Module):
    """Zeroes each number with probability `rate` while training and scales the rest to keep the mean.

    Args:
        site: name of the layer and the branch, the same in every layout.
    """

    salt: Tensor

    def __init__(self, rate: float, seed: int, site: str, tensor: TensorParallel) -> None:
        super().__init__()
        self.threshold = round(rate * STEPS)
        self.tensor = tensor
        salt = xxhash.xxh64_intdigest(f"dropout/{seed}/{site}".encode())
        # A tensor, int64 [2] of 32 bits each: were it a number, code compiled for one block would not do for the next.
        self.register_buffer("salt", torch.tensor([salt & LOW, salt >> 32]), persistent=False)

    def forward(self, values: Tensor, aux: Tensor, start: int = 0) -> Tensor:
        """The same shape with some numbers zero.

        Args:
            values: [B, T, H], or this rank's [B, T / size, H] of them.
            aux: int64 [B, T, 4] of these tokens.
            start: index of the first of these tokens in its row.
        """
        if not (self.training and self.threshold):
            return values
        if self.tensor.cuts_sequence:
            start += self.tensor.rank * values.shape[1]
        index = torch.arange(start, start + values.shape[1], device=values.device)
        kept = _hashes(self.salt, aux[:, 0, SAMPLE], index, values.shape[2]) >= self.threshold
        return torch.where(kept, values, 0) * (STEPS / (STEPS - self.threshold))


def _hashes(salt: Tensor, samples: Tensor, index: Tensor, width: int) -> Tensor:
    """Numbers below 65,536, uniform: int64 [B, T, width] for the sequences int64 [B] and the indices of tokens int64 [T]."""
    row = _mixed(_mixed((samples & LOW) ^ salt[0]) ^ ((samples >> 32) & LOW))
    token = _mixed(_mixed(row[:, None] ^ index) ^ salt[1])
    column = torch.arange(-(-width // LANES), device=index.device)
    hashed = _mixed(token[..., None] ^ column)
    lanes = torch.stack((hashed & (STEPS - 1), hashed >> 16), -1)
    return lanes.flatten(-2)[..., :width]


def _mixed(numbers: Tensor) -> Tensor:
    """A bijection of the integers below 2^32 under which neighbours have nothing in common."""
    numbers = ((numbers ^ (numbers >> 16)) * FACTORS[0]) & LOW
    numbers = ((numbers ^ (numbers >> 15)) * FACTORS[1]) & LOW
    return numbers ^ (numbers >> 16)
