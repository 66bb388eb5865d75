"""A canonical checkpoint as a model in the Hugging Face format, which transformers and what builds on it load as a Llama."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as serialized
from tokenizers import Tokenizer

from headrace import storage
from headrace.checkpoint.canonical import Reader, verify
from headrace.checkpoint.hugging_face import ARCHITECTURE, FIXED, MODEL_TYPE, Part, llama_parts
from headrace.checkpoint.model_folder import CONFIG, INDEX, TOKENIZER, WEIGHTS
from headrace.config import ConfigError
from headrace.model import ModelConfig, model_config
from headrace.tokens.tokenizer import end_of_text

FILE_BYTES = 1 << 30  # of tensors in one file: an export holds two files in memory


def export_hugging_face(checkpoint: Path, folder: Path) -> list[Path]:
    """Write a checkpoint's model, in float32, to a folder that then holds it whole; the files, by name.

    Args:
        folder: does not exist, or is empty.

    Raises:
        ConfigError: the folder is in use, the checkpoint is torn, or its architecture has no counterpart there.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: there is something already; name a folder that is not there yet.")
    breaches = verify(checkpoint)
    if breaches:
        raise ConfigError(f"{breaches[0]}; export another checkpoint.")
    storage.writable_folder(folder.parent, "the folder to export to")
    with Reader(checkpoint) as reader, storage.scratch_folder(folder.parent, folder.name) as scratch:
        config = model_config(reader.manifest["model"])
        new = scratch / "new"
        new.mkdir()
        _write_weights(new, reader, config)
        content = storage.read_bytes(checkpoint / TOKENIZER)
        (new / TOKENIZER).write_bytes(content)
        tokenizer = Tokenizer.from_str(content.decode())
        eos = end_of_text(tokenizer)
        _write_json(new / CONFIG, llama_settings(config, eos))
        # AutoTokenizer knows from this file alone which token ends a text.
        about = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": config.sequence_length}
        if eos is not None:
            about["eos_token"] = tokenizer.id_to_token(eos)
        _write_json(new / "tokenizer_config.json", about)
        new.replace(folder)
    storage.sync_folder(folder.parent)
    return sorted(folder.iterdir())


def llama_settings(config: ModelConfig, eos: int | None) -> dict[str, Any]:
    """config.json of the model; what transformers 4 and 5 name differently stands under both names."""
    return {
        "architectures": [ARCHITECTURE],
        "model_type": MODEL_TYPE,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden,
        "intermediate_size": config.mlp_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.key_value_heads,
        "head_dim": config.head_size,
        "max_position_embeddings": config.sequence_length,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "tie_word_embeddings": config.tied_embeddings,
        "bos_token_id": None,  # no token opens a document: the one before it ends with eos
        "eos_token_id": eos,
        "dtype": "float32",
        "torch_dtype": "float32",
        **FIXED,
    }


def _write_weights(folder: Path, reader: Reader, config: ModelConfig) -> None:
    table = llama_parts(config)
    groups = _files([part for parts in table.values() for part in parts])
    names = [WEIGHTS] if len(groups) == 1 else [f"model-{n:05d}-of-{len(groups):05d}.safetensors" for n in range(1, len(groups) + 1)]
    tensors = _pieces(reader, table)
    for name, group in zip(names, groups, strict=True):
        held = {part.name: next(tensors) for part in group}
        (folder / name).write_bytes(serialized(held, {"format": "pt"}))  # without this mark transformers refuses the file
    if len(groups) > 1:
        total = sum(_bytes(part) for group in groups for part in group)
        places = {part.name: name for name, group in zip(names, groups, strict=True) for part in group}
        _write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places})


def _files(parts: Sequence[Part]) -> list[list[Part]]:
    """The parts in order, cut into files of at most `FILE_BYTES`, unless one tensor is larger."""
    groups: list[list[Part]] = [[]]
    size = 0
    for part in parts:
        if groups[-1] and size + _bytes(part) > FILE_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(part)
        size += _bytes(part)
    return groups


def _pieces(reader: Reader, table: dict[str, tuple[Part, ...]]) -> Iterator[torch.Tensor]:
    for name, parts in table.items():
        whole = reader.get(name)
        for piece in whole.split([part.shape[0] for part in parts]):
            yield piece.clone() if len(parts) > 1 else whole  # safetensors writes no two tensors of one storage


def _bytes(part: Part) -> int:
    return 4 * int(torch.Size(part.shape).numel())


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
