"""Between a Llama in the Hugging Face format and our decoder: the same numbers under other names, some of our matrices being several there.

Both pair the rotary dimensions (i, i + head_size / 2), so no row changes its place.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

from headrace import storage
from headrace.checkpoint.model_folder import CONFIG, TOKENIZER, read_settings, weight_files
from headrace.config import ConfigError
from headrace.model import DecoderConfig, ModelConfig, SizedDecoder

ARCHITECTURE, MODEL_TYPE = "LlamaForCausalLM", "llama"
FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
DERIVED = "rotary_emb.inv_freq"  # old files hold the rotary wavelengths, which follow from the configuration
# Fields of config.json, with the default that transformers gives them, which our decoder knows in one value only.
FIXED: dict[str, Any] = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


@dataclass(frozen=True)
class Part:
    """A tensor of the Hugging Face format: some rows of one of ours, or all."""

    name: str
    shape: tuple[int, ...]


def llama_parts(config: ModelConfig) -> dict[str, tuple[Part, ...]]:
    """Canonical name -> the parts that it is made of, stacked along the rows; in the model's order.

    Raises:
        ConfigError: there is no Llama of that architecture.
    """
    if not isinstance(config, SizedDecoder):
        raise ConfigError(f"model.architecture = {config.architecture!r}: the Hugging Face format is written and read for a decoder only.")
    hidden, mlp = config.hidden, config.mlp_size
    queries, keys = config.heads * config.head_size, config.key_value_heads * config.head_size
    parts: dict[str, tuple[Part, ...]] = {"embed.weight": (Part("model.embed_tokens.weight", (config.vocab_size, hidden)),)}
    for number in range(config.layers):
        ours, theirs = f"blocks.{number}", f"model.layers.{number}"
        attention, feed_forward = f"{theirs}.self_attn", f"{theirs}.mlp"
        parts[f"{ours}.attention_norm.weight"] = (Part(f"{theirs}.input_layernorm.weight", (hidden,)),)
        parts[f"{ours}.attention.qkv.weight"] = (
            Part(f"{attention}.q_proj.weight", (queries, hidden)),
            Part(f"{attention}.k_proj.weight", (keys, hidden)),
            Part(f"{attention}.v_proj.weight", (keys, hidden)),
        )
        parts[f"{ours}.attention.out.weight"] = (Part(f"{attention}.o_proj.weight", (hidden, queries)),)
        parts[f"{ours}.mlp_norm.weight"] = (Part(f"{theirs}.post_attention_layernorm.weight", (hidden,)),)
        parts[f"{ours}.mlp.gate_up.weight"] = (
            Part(f"{feed_forward}.gate_proj.weight", (mlp, hidden)),
            Part(f"{feed_forward}.up_proj.weight", (mlp, hidden)),
        )
        parts[f"{ours}.mlp.down.weight"] = (Part(f"{feed_forward}.down_proj.weight", (hidden, mlp)),)
    parts["head.norm.weight"] = (Part("model.norm.weight", (hidden,)),)
    if not config.tied_embeddings:
        parts["head.weight"] = (Part("lm_head.weight", (config.vocab_size, hidden)),)
    return parts


class HuggingFaceReader:
    """Weights of a Llama under their canonical names, whole and in float32, read one at a time; nothing of transformers is needed.

    An embedding may have more rows than its tokenizer has ids, for speed; the rows behind the last id are left out.

    Raises:
        ConfigError: the folder is no model that our decoder can compute, with every reason; or holds its weights as pickle.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        settings = read_settings(folder)
        self.files = [folder / CONFIG, folder / TOKENIZER, *weight_files(folder, settings)]
        self.config = _model_config(folder, settings)
        self._parts = llama_parts(self.config)
        self._open = contextlib.ExitStack()
        self._tensors: dict[str, Any] = {}  # the open file of each of its tensors
        try:
            self._look_into(self.files[2:], rows=int(settings["vocab_size"]))
        except BaseException:
            self._open.close()
            raise

    def __enter__(self) -> HuggingFaceReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.close()

    @property
    def weights(self) -> list[str]:
        """Canonical names of the model's weights."""
        return list(self._parts)

    def get(self, name: str) -> torch.Tensor:
        """A whole weight: float32 on the CPU, whatever it was saved in.

        Raises:
            ConfigError: it holds numbers that are no plain floats.
        """
        pieces = []
        for part in self._parts[name]:
            piece = self._tensors[part.name].get_tensor(part.name)
            if piece.dtype not in FLOATS:
                raise ConfigError(f"{self.folder}: {part.name} is {piece.dtype}; only weights in float64, 32, 16 and bfloat16 are read.")
            pieces.append(piece[: part.shape[0]].float())
        return torch.cat(pieces) if len(pieces) > 1 else pieces[0].contiguous()

    def shape(self, name: str) -> list[int]:
        first, *_ = parts = self._parts[name]
        return [sum(part.shape[0] for part in parts), *first.shape[1:]]

    def digest(self) -> str:
        """SHA-256 that stands for every byte of config.json, tokenizer.json and the weights."""
        entries = [storage.file_entry(self.folder, path) for path in self.files]
        return hashlib.sha256(storage.as_json(entries)).hexdigest()

    def _look_into(self, files: Sequence[Path], rows: int) -> None:
        """Open the files and hold their tensors' names and shapes, not yet their numbers, against the configuration's.

        Args:
            rows: of the embedding as saved.
        """
        for path in files:
            try:
                opened = self._open.enter_context(safe_open(str(path), framework="pt", device="cpu"))
            except (SafetensorError, OSError) as error:
                raise ConfigError(f"{path}: no whole safetensors file ({error}); download the model again.") from None
            self._tensors.update(dict.fromkeys(opened.keys(), opened))
        needed = {part.name: part for parts in self._parts.values() for part in parts}
        beside = {"lm_head.weight"} if self.config.tied_embeddings else set()  # a copy of the embedding
        lacking = sorted(needed.keys() - self._tensors.keys())
        foreign = sorted(name for name in self._tensors if name not in needed and name not in beside and not name.endswith(DERIVED))
        wrong = [f"its weights lack {', '.join(lacking[:3])} ({len(lacking)} in all)"] if lacking else []
        if foreign:
            wrong.append(f"its weights hold {', '.join(foreign[:3])} ({len(foreign)} in all), which a {ARCHITECTURE} has not")
        for name in sorted(needed.keys() & self._tensors.keys()):
            found = tuple(self._tensors[name].get_slice(name).get_shape())
            expected = needed[name].shape
            if name in ("model.embed_tokens.weight", "lm_head.weight"):
                expected = (rows, *expected[1:])
            if found != expected:
                wrong.append(f"{name} has shape {list(found)}, {CONFIG} says {list(expected)}")
        if wrong:
            raise ConfigError("\n".join(f"{self.folder}: {line}." for line in wrong))


def _model_config(folder: Path, settings: Mapping[str, Any]) -> SizedDecoder:
    """Our configuration of the same model, for the ids that the folder's tokenizer has."""
    path = folder / CONFIG
    named = settings.get("model_type"), (settings.get("architectures") or [None])[0]
    if settings.get("model_type") != MODEL_TYPE or named[1] not in (None, ARCHITECTURE):
        raise ConfigError(f"{path}: model_type = {named[0]!r}, architectures = [{named[1]!r}]: only Llama ({ARCHITECTURE}) can be read.")
    absent = [name for name in SIZES if not isinstance(settings.get(name), int)]
    if absent:
        raise ConfigError(f"{path}: no {', '.join(absent)}; download the model again.")
    rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    wrong = [f"{name} = {settings[name]!r}, not {only!r}" for name, only in FIXED.items() if settings.get(name, only) != only]
    if kind != "default":
        wrong.append(f"rope_type = {kind!r}, not 'default'")
    head_size = settings["hidden_size"] // settings["num_attention_heads"]
    if (settings.get("head_dim") or head_size) != head_size:
        wrong.append(f"head_dim = {settings['head_dim']}, not hidden_size / num_attention_heads = {head_size}")
    ids = _ids(folder / TOKENIZER)
    if ids > settings["vocab_size"]:
        wrong.append(f"vocab_size = {settings['vocab_size']}, fewer than the {ids} ids of its {TOKENIZER}")
    if wrong:
        raise ConfigError("\n".join(f"{path}: {line}: our decoder cannot compute that." for line in wrong))
    try:
        return DecoderConfig(
            layers=settings["num_hidden_layers"],
            hidden=settings["hidden_size"],
            heads=settings["num_attention_heads"],
            kv_heads=settings.get("num_key_value_heads") or settings["num_attention_heads"],
            mlp=settings["intermediate_size"],
            rope_theta=settings.get("rope_theta") or rope.get("rope_theta") or 10_000.0,
            norm_eps=settings.get("rms_norm_eps", 1e-6),
            tied_embeddings=bool(settings.get("tie_word_embeddings", False)),
        ).sized(ids, int(settings.get("max_position_embeddings") or 2048))
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def _ids(path: Path) -> int:
    """How many ids a tokenizer has."""
    try:
        vocabulary = Tokenizer.from_file(str(path)).get_vocab(with_added_tokens=True)
    except Exception as error:  # the library raises its own bare Exception
        raise ConfigError(f"{path}: {error}") from None
    largest = max(vocabulary.values(), default=-1)
    if largest + 1 != len(vocabulary):
        raise ConfigError(f"{path}: {len(vocabulary)} entries with ids up to {largest}; a tokenizer with gaps cannot be used.")
    return len(vocabulary)
