"""What every layer knows of a token besides its hidden state, int64 [B, T, 4]: position, segment, role, and whose sequence it is."""

from __future__ import annotations

import torch
from torch import Tensor

from headrace.model.config import source_length

# Columns of aux.
POSITION = 0  # in its document, from 0
SEGMENT = 1  # number of its document in the row: packed documents do not see each other
ROLE = 2  # which stream it is in
SAMPLE = 3  # number of the row's sequence among all that the run consumes, so of the step, too; dropout is drawn from it

DECODER, ENCODER = 0, 1  # roles


def decoder_aux(tokens: Tensor, eos: int, samples: Tensor | None = None) -> Tensor:
    """aux of packed documents: int64 [B, T, 4] for int64 [B, T].

    A document ends with its `eos`; behind it the position starts at 0 again and the segment number rises by one, so that
    packed documents do not see each other. A row that begins inside a document counts its positions from the row's start.

    Args:
        samples: int64 [B], the sequences' numbers; 0 where there is no run.
    """
    ends = (tokens == eos).long()
    segment = ends.cumsum(1) - ends  # an eos still belongs to the document that it ends
    index = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    first = torch.zeros_like(index)
    first[:, 1:] = torch.where(ends[:, :-1].bool(), index[:, 1:], 0)
    sample = torch.zeros_like(index) if samples is None else samples[:, None].expand_as(index)
    return torch.stack((index - first.cummax(1).values, segment, torch.full_like(index, DECODER), sample), dim=-1)


def packed_aux(tokens: Tensor, eos: int, samples: Tensor | None = None) -> Tensor:
    """aux of documents of which an encoder reads the first half of the row and a decoder the second: int64 [B, T, 4].

    Segments are those of the whole row, so a document on both sides of the middle has one number in both streams.
    """
    aux = decoder_aux(tokens, eos, samples)
    aux[:, : source_length(tokens.shape[1]), ROLE] = ENCODER
    return aux
