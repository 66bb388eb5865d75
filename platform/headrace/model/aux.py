"""What every layer knows of a token besides its hidden state: its position and its segment."""

from __future__ import annotations

import torch
from torch import Tensor

POSITION, SEGMENT = 0, 1  # columns of aux


def decoder_aux(tokens: Tensor, eos: int) -> Tensor:
    """Position and segment of each token of packed documents: int64 [B, T, 2] for int64 [B, T].

    A document ends with its `eos`; behind it the position starts at 0 again and the segment number rises by one, so that
    packed documents do not see each other. A row that begins inside a document counts its positions from the row's start.
    """
    ends = (tokens == eos).long()
    segment = ends.cumsum(1) - ends  # an eos still belongs to the document that it ends
    index = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    first = torch.zeros_like(index)
    first[:, 1:] = torch.where(ends[:, :-1].bool(), index[:, 1:], 0)
    return torch.stack((index - first.cummax(1).values, segment), dim=-1)
