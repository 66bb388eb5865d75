"""The files of a model in the Hugging Face format: which there are, and that none of them can run code when it is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from headrace.config import ConfigError

CONFIG, TOKENIZER, WEIGHTS = "config.json", "tokenizer.json", "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
# What a configuration may ask for beyond weights and a known architecture, and why that is refused.
REFUSED = {
    "quantization_config": "quantized weights need further packages and are another model's",
    "attn_implementation": "it may name a kernel to fetch",
    "experts_implementation": "it may name a kernel to fetch",
}


def read_settings(folder: Path) -> dict[str, Any]:
    """config.json, if nothing in it asks for more than weights and a known architecture.

    Raises:
        ConfigError: a file is missing, or the model is not made of its own weights alone.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"{folder}: no such folder. Models are never fetched: download it first, and give the folder that holds {CONFIG}."
        )
    missing = [name for name in (CONFIG, TOKENIZER) if not (folder / name).is_file()]
    if missing:
        raise ConfigError(
            f"{folder}: {' and '.join(missing)} missing; a model in the Hugging Face format is {CONFIG}, {TOKENIZER}, {WEIGHTS}."
        )
    if (folder / "adapter_config.json").is_file():
        raise ConfigError(f"{folder}: holds an adapter (adapter_config.json); merge it into its model and give that one's folder.")
    settings = read_object(folder / CONFIG)
    for part in (settings, *(value for value in settings.values() if isinstance(value, dict))):
        for name, why in REFUSED.items():
            if part.get(name) is not None:
                raise ConfigError(f"{folder / CONFIG}: {name} = {part[name]!r}: not read, since {why}.")
    return settings


def weight_files(folder: Path, settings: dict[str, Any]) -> list[Path]:
    """The safetensors files that hold the model's weights, by name.

    Checked here, also for transformers' own `use_safetensors`: it takes the names of files out of config.json and out of the index, and
    loads one that does not end in .safetensors with pickle.

    Raises:
        ConfigError: there are none, or a listed one is missing, is no safetensors file or lies outside the folder.
    """
    asked = settings.get("transformers_weights")
    named = str(asked or (WEIGHTS if (folder / WEIGHTS).is_file() else INDEX))
    if Path(named).name != named or not named.endswith((".safetensors", ".safetensors.index.json")):
        raise ConfigError(f"{folder / CONFIG}: transformers_weights = {asked!r}: only safetensors files in the folder itself are opened.")
    if not (folder / named).is_file():
        found = sorted(path.name for path in folder.iterdir() if path.suffix in {".bin", ".pt", ".pth", ".ckpt"})
        held = f"; {', '.join(found[:3])} can run code when loaded, and is never opened: convert it to safetensors" if found else ""
        raise ConfigError(f"{folder}: no {asked or WEIGHTS}{held}.")
    names = [named]
    if named.endswith(".index.json"):
        names = sorted({str(name) for name in read_object(folder / named).get("weight_map", {}).values()})
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ConfigError(f"{folder / named}: lists {name!r}; only safetensors files in the folder itself are opened.")
        if not (folder / name).is_file():
            raise ConfigError(f"{folder}: {name} is missing; download the model again.")
    return [folder / name for name in names]


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file of the folder.

    Raises:
        ConfigError: it holds none.
    """
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{path}: not valid JSON ({error}); download the model again.") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: holds a {type(value).__name__} where an object is expected; download the model again.")
    return value
