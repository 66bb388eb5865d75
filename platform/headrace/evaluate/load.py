"""A model to evaluate or to generate with, from a canonical checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from headrace import storage
from headrace.checkpoint import load_model, read_manifest
from headrace.model import SizedDecoder
from headrace.model.sequential import build_model
from headrace.tokens.tokenizer import end_of_text


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint's model in evaluation mode, fp32, with what belongs to it; `eos` is the id of the end-of-text token."""

    model: torch.nn.Module
    tokenizer: Tokenizer
    manifest: Mapping[str, Any]
    config: SizedDecoder
    eos: int


def load_checkpoint(folder: Path) -> LoadedModel:
    """The model, tokenizer and manifest in a committed checkpoint folder.

    Raises:
        FileNotFoundError: the checkpoint was never committed, or one of its files is gone.
        ValueError: its tensors do not fit its model's configuration, it is no decoder, or its tokenizer has no end-of-text token.
    """
    manifest = read_manifest(folder)
    config, tensors = load_model(folder)
    if not isinstance(config, SizedDecoder):
        raise ValueError(f"{folder}: an {config.architecture} gives no probability of a text as a whole; only decoders are evaluated.")
    model = build_model(config, seed=None)
    parameters = dict(model.named_parameters())
    wrong = sorted(parameters.keys() ^ tensors.keys()) or [name for name, made in parameters.items() if made.shape != tensors[name].shape]
    if wrong:
        raise ValueError(
            f"{folder}: the tensors do not fit the model of its manifest: {', '.join(wrong[:3])}; was it written by another version?"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])
    tokenizer = Tokenizer.from_file(str(storage.local(folder / "tokenizer.json")))
    eos = end_of_text(tokenizer)
    if eos is None:
        raise ValueError(f"{folder / 'tokenizer.json'}: no end-of-text token, so where a document ends is unknown.")
    return LoadedModel(model.eval(), tokenizer, manifest, config, eos)
