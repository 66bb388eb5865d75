"""A causal language model in the Hugging Face format, read from a folder: safetensors only, no code of its own, no network."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer

from headrace import storage
from headrace.checkpoint.model_folder import CONFIG, TOKENIZER, read_object, read_settings, weight_files
from headrace.config import ConfigError

EXTRA = "pip install 'headrace[evaluate]'"


@dataclass(frozen=True)
class HuggingFaceModel:
    """A model in evaluation mode, fp32 as our own are scored, with what belongs to it.

    model: tokens int64 [B, T], aux (not looked at) -> logits [B, T, V]. lead: the ids that its tokenizer itself puts in front of a text,
    often none. eos: id of the end-of-text token, if it names one. context: the longest input in tokens, None if it has no bound.
    """

    folder: Path
    model: torch.nn.Module
    tokenizer: Tokenizer
    lead: list[int]
    eos: int | None
    context: int | None
    vocab_size: int
    architecture: str
    files: list[Path]


class Logits(torch.nn.Module):
    """Lets a model of transformers be called as our own are; which positions and segments there are is its own affair."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor, aux: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids=tokens).logits
        return logits


def load_hugging_face(folder: Path) -> HuggingFaceModel:
    """The model, on the CPU.

    Raises:
        ConfigError: transformers is not installed; or the folder lacks a file, holds its weights as pickle, asks for code of its own, is
            no causal language model, or its parts do not fit each other.
    """
    settings = read_settings(folder)
    files = weight_files(folder, settings)
    tokenizer = _tokenizer(folder)
    model = _causal_model(folder)
    vocab_size = int(model.get_input_embeddings().num_embeddings)
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if largest >= vocab_size:
        raise ConfigError(f"{folder}: {TOKENIZER} has ids up to {largest}, its embedding {vocab_size} rows; they do not belong together.")
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    adapted = Logits(model).eval()
    _refuse_unless_causal(folder, adapted, vocab_size)
    return HuggingFaceModel(
        folder=folder,
        model=adapted,
        tokenizer=tokenizer,
        lead=_lead(tokenizer),
        eos=_end_of_text(folder, settings, tokenizer),
        context=int(context) if context else None,
        vocab_size=vocab_size,
        architecture=type(model).__name__,
        files=[folder / CONFIG, folder / TOKENIZER, *files],
    )


def _tokenizer(folder: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    except Exception as error:  # the library raises its own bare Exception
        raise ConfigError(f"{folder / TOKENIZER}: {error}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # a document that spells out a special token is text like any other
    return tokenizer


def _lead(tokenizer: Tokenizer) -> list[int]:
    """The special tokens, as a rule a beginning-of-text token, that the tokenizer puts in front of whatever it encodes."""
    encoding = tokenizer.encode("a")
    lead: list[int] = []
    for token_id, special in zip(encoding.ids, encoding.special_tokens_mask):
        if not special:
            break
        lead.append(token_id)
    return lead


def _end_of_text(folder: Path, settings: dict[str, Any], tokenizer: Tokenizer) -> int | None:
    """Id of the token that ends a text: what tokenizer_config.json names, else what config.json does.

    The latter counts only where it is a special token: configurations hold numbers that nobody chose.
    """
    path = folder / "tokenizer_config.json"
    named = read_object(path).get("eos_token") if path.is_file() else None
    if named is not None:
        found = tokenizer.token_to_id(named["content"] if isinstance(named, dict) else named)
        return int(found) if found is not None else None
    listed = settings.get("eos_token_id")
    special = {token_id for token_id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    return next((int(token_id) for token_id in (listed if isinstance(listed, list) else [listed]) if token_id in special), None)


def _causal_model(folder: Path) -> Any:
    transformers = _transformers()
    only_here: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = transformers.AutoConfig.from_pretrained(folder, **only_here)
        if type(config) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
            raise ValueError(f"model_type = {config.model_type!r} is no causal language model of transformers {transformers.__version__}")
        config.use_cache = False
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            folder, config=config, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **only_here
        )
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        if storage.is_full(error):
            raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        own = "; code that comes with a model is never run" if "auto_map" in read_object(folder / CONFIG) else ""
        raise ConfigError(f"{folder}: transformers {transformers.__version__} cannot load it: {first}{own}") from None
    unset = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if unset:  # transformers fills them with random numbers and a warning
        raise ConfigError(f"{folder}: its weights lack {', '.join(unset[:3])} ({len(unset)} in all), so there is no whole model to score.")
    return model


def _transformers() -> Any:
    os.environ["HF_HUB_OFFLINE"] = "1"  # read at import; some architectures look for faster kernels on the hub
    try:
        import transformers
    except ImportError:
        raise ConfigError(f"Models in the Hugging Face format need an optional package, which is not installed: {EXTRA}") from None
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


@torch.inference_mode()
def _refuse_unless_causal(folder: Path, model: torch.nn.Module, vocab_size: int) -> None:
    """A model that sees what it is to predict would score best of all; some architectures are causal only if told so."""
    tokens = (torch.arange(8) % vocab_size).repeat(2, 1)
    tokens[1, -1] = (tokens[1, -1] + 1) % vocab_size
    first, second = model(tokens, torch.empty(0))[:, :-1].float()
    if (first - second).abs().max() > 1e-4 * first.abs().max():
        raise ConfigError(f"{folder}: a token changes what the model says of those before it, so it is no causal language model.")
