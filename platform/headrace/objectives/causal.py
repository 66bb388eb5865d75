"""Next-token prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from headrace.config import Config

if TYPE_CHECKING:  # torch takes two seconds to import, and every verb reads configurations
    from torch import Tensor

    from headrace.model.tensor_parallel import TensorParallel
    from headrace.objectives.example import Example


class CausalLM(Config):
    """Predict each token from those before it in the same document.

    What follows an end-of-text token is the first token of an unrelated document that the model may not look into: it has
    nothing to predict from, so it is no target, in training and in evaluation alike.
    """

    name: Literal["causal"] = "causal"

    def corrupt(self, sequences: Tensor, eos: int, samples: Tensor | None = None) -> Example:
        """Inputs and targets of T positions from int64 [B, T + 1] tokens of packed documents.

        Args:
            samples: int64 [B], the sequences' numbers in the run.
        """
        from headrace.model.aux import decoder_aux
        from headrace.objectives.example import Example

        tokens, targets = sequences[:, :-1].contiguous(), sequences[:, 1:].contiguous()
        return Example(tokens, decoder_aux(tokens, eos, samples), targets, tokens != eos)

    def loss(self, logits: Tensor, example: Example, tensor: TensorParallel | None = None) -> tuple[Tensor, Tensor]:
        """Sum of nats, float32, and number of targets, int64, of logits [B, T, V], or of this rank's share of their columns."""
        from headrace.objectives.example import summed_nats

        return summed_nats(logits, example, tensor)
