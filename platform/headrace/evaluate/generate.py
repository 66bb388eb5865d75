"""Continue a text with a trained model."""

from __future__ import annotations

from pathlib import Path

import torch

from headrace.evaluate.load import LoadedModel, load_checkpoint
from headrace.model.aux import decoder_aux

# Training never predicts a document's first token, so a continuation of nothing starts behind a line feed.
EMPTY_PROMPT = "\n"


def generate(checkpoint: Path, prompt: str, max_tokens: int, temperature: float = 1.0, top_k: int | None = None, seed: int = 0) -> str:
    """The text that a checkpoint's model writes behind `prompt`, without the prompt.

    Args:
        max_tokens: stop after as many tokens, if no end-of-text token came before.
        temperature: divides the logits; 0 takes the most probable token each time.
        top_k: draw among the most probable k tokens only; None draws among all.
        seed: equal arguments give equal text.

    Raises:
        FileNotFoundError: no committed checkpoint there.
        ValueError: a negative temperature, or a top_k below 1.
    """
    loaded = load_checkpoint(checkpoint)
    return loaded.tokenizer.decode(continue_tokens(loaded, prompt, max_tokens, temperature, top_k, seed))


def continue_tokens(loaded: LoadedModel, prompt: str, max_tokens: int, temperature: float, top_k: int | None, seed: int) -> list[int]:
    """Ids of the continuation of `prompt`, without the closing end-of-text token; see `generate`."""
    if temperature < 0:
        raise ValueError(f"temperature = {temperature}: must be 0 (most probable token) or above.")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k = {top_k}: must be 1 or above; leave it out to draw among all tokens.")
    ids = _encode(loaded, prompt) or _encode(loaded, EMPTY_PROMPT) or [loaded.eos]
    generator = torch.Generator().manual_seed(seed)
    written: list[int] = []
    for _ in range(max_tokens):
        # The last window only: the model has seen no longer context in training.
        window = torch.tensor([(ids + written)[-loaded.config.sequence_length :]], dtype=torch.int64)
        token = _draw(_next_logits(loaded, window), temperature, top_k, generator)
        if token == loaded.eos:
            break
        written.append(token)
    return written


def _encode(loaded: LoadedModel, text: str) -> list[int]:
    ids: list[int] = loaded.tokenizer.encode(text, add_special_tokens=False).ids
    return ids


@torch.inference_mode()
def _next_logits(loaded: LoadedModel, window: torch.Tensor) -> torch.Tensor:
    """Logits of the token behind a window int64 [1, T], over the tokenizer's vocabulary: float32 [V]."""
    logits: torch.Tensor = loaded.model(window, decoder_aux(window, loaded.eos))
    return logits[0, -1, : loaded.tokenizer.get_vocab_size()].float()


def _draw(logits: torch.Tensor, temperature: float, top_k: int | None, generator: torch.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    if top_k is not None and top_k < len(logits):
        logits = logits.masked_fill(logits < logits.topk(top_k).values[-1], float("-inf"))
    return int(torch.multinomial(torch.softmax(logits / temperature, dim=-1), 1, generator=generator))
