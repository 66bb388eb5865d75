"""Continuation of a text that is read as a whole: T5's prefix language modelling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from headrace.config import Config
from headrace.model.config import source_length

if TYPE_CHECKING:  # torch takes two seconds to import, and every verb reads configurations
    from torch import Tensor

    from headrace.model.tensor_parallel import TensorParallel
    from headrace.objectives.example import Example


class Continuation(Config):
    """The encoder reads the first half of a row, the decoder predicts the second from it, for an encoder-decoder.

    A document that lies across the middle is continued from what the encoder read of it; one that lies behind it is predicted by the
    decoder alone. The decoder begins with the first token of its half, not with a start symbol: no token is spent on one.

    Source: Raffel et al. 2020, JMLR 21(140), section 3.2.1 ("prefix language modeling"), with the split in the middle of a row.
    """

    name: Literal["continuation"] = "continuation"

    def corrupt(self, sequences: Tensor, eos: int, samples: Tensor | None = None) -> Example:
        """Inputs of T positions, both streams, and targets of the decoder's from int64 [B, T + 1] tokens of packed documents.

        Args:
            samples: int64 [B], the sequences' numbers in the run.
        """
        from headrace.model.aux import packed_aux
        from headrace.objectives.example import Example

        tokens = sequences[:, :-1].contiguous()
        start = source_length(tokens.shape[1])
        targets = sequences[:, start + 1 :].contiguous()
        return Example(tokens, packed_aux(tokens, eos, samples), targets, tokens[:, start:] != eos)

    def loss(self, logits: Tensor, example: Example, tensor: TensorParallel | None = None) -> tuple[Tensor, Tensor]:
        """Sum of nats, float32, and number of targets, int64, of logits [B, T', V] of the decoder's tokens, or of this rank's columns."""
        from headrace.objectives.example import summed_nats

        return summed_nats(logits, example, tensor)
