"""What a model makes of held-out text: negative log-likelihood and hits of every scored token, summed per document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from headrace.evaluate.excerpts import Excerpts
from headrace.evaluate.metrics import DocumentScores
from headrace.model.aux import decoder_aux
from headrace.tokens.store import TokenStore

LOGITS_AT_ONCE = 1 << 23  # float32 logits of one forward pass: 32 MB; more made a CPU no faster
GPU_LOGITS_AT_ONCE = 1 << 28


def score(model: torch.nn.Module, store: TokenStore, excerpts: Excerpts, sequence_length: int, vocab_size: int) -> DocumentScores:
    """Score every token of every excerpt but its first, exactly once; see `score_ids`."""
    ids = [excerpts.ids(store, row) for row in range(len(excerpts))]
    nats, correct = score_ids(model, ids, store.eos, sequence_length, vocab_size)
    return DocumentScores(excerpts.source, excerpts.doc, excerpts.tokens - 1, excerpts.num_bytes, nats, correct)


def score_ids(
    model: torch.nn.Module, ids: Sequence[np.ndarray[Any, Any]], eos: int, sequence_length: int, vocab_size: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Negative log-likelihood and hits of every token of N texts but their first: float64 [N] nats, int64 [N].

    A text is read in windows of `sequence_length` tokens at a stride of as many, as training reads a stream: the token at place j
    of a window is predicted from the j before it in the window and the one before the window. So each token has between 1 and
    `sequence_length` tokens of context. Windows are batched by length; the padding lies behind the tokens, where a causal model does
    not look, and is not scored.

    Args:
        model: tokens int64 [B, T], aux int64 [B, T, A] -> logits [B, T, V]; on the device on which it is to run.
        ids: the tokens of each text, two or more.
        vocab_size: V, bounds the windows of one forward pass.
    """
    windows = _windows([len(text) for text in ids], sequence_length)
    budget = GPU_LOGITS_AT_ONCE if next(model.parameters()).is_cuda else LOGITS_AT_ONCE
    per_pass = max(1, budget // (vocab_size * sequence_length))
    nats = np.zeros(len(ids), dtype=np.float64)
    correct = np.zeros(len(ids), dtype=np.int64)
    for first in range(0, len(windows), per_pass):
        batch = windows[first : first + per_pass]
        inputs, targets = _collate(batch, ids, padding=0 if eos else 1)
        window_nats, window_correct = score_windows(model, inputs, targets, eos)
        for (row, _, _), window_nat, hits in zip(batch, window_nats.tolist(), window_correct.tolist()):
            nats[row] += window_nat
            correct[row] += hits
    return nats, correct


def _windows(tokens: Sequence[int], sequence_length: int) -> list[tuple[int, int, int]]:
    """(row of the text, first input, inputs) of every window, longest first so that a batch wastes little padding."""
    found = [
        (row, start, min(sequence_length, count - 1 - start))
        for row, count in enumerate(tokens)
        for start in range(0, count - 1, sequence_length)
    ]
    return sorted(found, key=lambda window: (-window[2], window[0], window[1]))


def _collate(batch: list[tuple[int, int, int]], ids: Sequence[np.ndarray[Any, Any]], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets, the latter padded with -100: int64 [B, T].

    Padding is no end of text, so that a row stays one segment and attention needs no mask.
    """
    width = max(length for _, _, length in batch)
    inputs = np.full((len(batch), width), padding, dtype=np.int64)
    targets = np.full((len(batch), width), -100, dtype=np.int64)
    for place, (row, start, length) in enumerate(batch):
        inputs[place, :length] = ids[row][start : start + length]
        targets[place, :length] = ids[row][start + 1 : start + length + 1]
    return torch.from_numpy(inputs), torch.from_numpy(targets)


@torch.inference_mode()
def score_windows(model: torch.nn.Module, inputs: torch.Tensor, targets: torch.Tensor, eos: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums over the targets of each window: nats float64 [B], hits int64 [B].

    Args:
        inputs, targets: int64 [B, T]; a target of -100 is not scored.
    """
    device = next(model.parameters()).device
    inputs, targets = inputs.to(device), targets.to(device)
    logits = model(inputs, decoder_aux(inputs, eos))
    nats = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=-100, reduction="none").view_as(targets)
    hits = (logits.argmax(dim=-1) == targets).sum(dim=1)
    return nats.double().sum(dim=1).cpu(), hits.cpu()
