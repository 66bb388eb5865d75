"""Reading and checking canonical checkpoints.

A checkpoint is a folder `step-00000100` that appears whole, by one rename:

    model.safetensors       float32 weights under their canonical names; further files model-00001.safetensors, ... past 2 GiB each
    optimizer.safetensors   `<state>/<name>` for every optimizer state tensor (exp_avg, exp_avg_sq), and `step`, how often it was
                            updated; absent before the first step
    tokenizer.json          the tokenizer that the model's ids belong to
    manifest.json           written last: files[{path, bytes, sha256}], tensors{name: {shape, dtype, file}}, model, state{step,
                            samples, tokens, ...}, config, layout, versions

Where several ranks wrote, their files are called model-writer-0003.safetensors, model-writer-0003-00001.safetensors, and so on.
No tensor is cut or padded for the layout that wrote it, and nothing is pickled: which file a tensor is in is all that the layout
decides. Equal training in an equal layout gives equal bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from headrace import storage
from headrace.model.config import ModelConfig, model_config
from headrace.paths import below, leads_out

if TYPE_CHECKING:  # a run's driver looks at checkpoints and opens none
    import torch

MANIFEST = "manifest.json"
OLD = "old"  # beside a new checkpoint on its way in: the one that it replaces
FORMAT, VERSION = "headrace-checkpoint", 1
NAME = re.compile(r"step-(\d{8,})")
STATES = ("exp_avg", "exp_avg_sq")  # optimizer state of the shape of its weight; names of torch.optim.AdamW
STEP = "step"


class CheckpointError(ValueError):
    """A checkpoint that is not there, not whole, or not of this format."""


def checkpoint_name(step: int) -> str:
    return f"step-{step:08d}"


def step_of(folder: Path) -> int:
    """Optimizer steps behind a checkpoint, by its name."""
    match = NAME.fullmatch(folder.name)
    if match is None:
        raise CheckpointError(f"{folder}: not a checkpoint; their folders are called {checkpoint_name(100)} and so on.")
    return int(match.group(1))


def committed(root: Path) -> list[Path]:
    """Folders of checkpoints that were published, by step; their contents are not looked at."""
    return sorted((path for path in storage.holding(root, MANIFEST) if NAME.fullmatch(path.name)), key=step_of)


def read_manifest(folder: Path) -> dict[str, Any]:
    """A checkpoint's manifest.

    Raises:
        CheckpointError: there is none, it is of another format, or it names a file outside the folder.
    """
    try:
        manifest = storage.read_json(folder / MANIFEST)
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: no {MANIFEST}: the checkpoint was never committed.") from None
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    if not isinstance(manifest, dict) or (manifest.get("format"), manifest.get("version")) != (FORMAT, VERSION):
        raise CheckpointError(f"{folder / MANIFEST}: not a manifest of format {FORMAT!r}, version {VERSION}.")
    try:
        listed = {entry["path"] for entry in manifest["files"]} | {tensor["file"] for tensor in manifest["tensors"].values()}
        for name in listed:
            if leads_out(folder, below(folder, name)):
                raise ValueError(f"names {name!r}, a link out of its folder")
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{folder / MANIFEST}: {error}; it is not opened.") from None
    return manifest


def verify(folder: Path) -> list[str]:
    """What is wrong with a checkpoint, a sentence each; empty if every listed byte and tensor is there.

    Of one on an object store it is the store's word that is taken, for nothing is fetched: each file is there, of its size, and was written
    with its SHA-256. Its bytes are verified when they are fetched.
    """
    try:
        manifest = read_manifest(folder)
    except CheckpointError as error:
        return [str(error)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # reading and hashing let other threads run
        looked_at = pool.map(lambda entry: _breach(folder, entry), manifest["files"])
        breaches = [breach for breach in looked_at if breach is not None]
    if breaches or storage.is_remote(folder):
        return breaches
    try:
        with Reader(folder) as reader:
            for name, tensor in manifest["tensors"].items():
                if (found := reader.shape(name)) != tensor["shape"]:
                    breaches.append(f"{folder / tensor['file']}: {name} has shape {found}, its manifest says {tensor['shape']}")
    except (CheckpointError, SafetensorError, OSError) as error:
        breaches.append(f"{folder}: {error}")
    return breaches


def _breach(folder: Path, entry: Mapping[str, Any]) -> str | None:
    """What is wrong with one of the files that a manifest lists."""
    path = folder / entry["path"]
    try:
        size = storage.size(path)
        if size is None:
            return f"{path}: missing"
        if size != entry["bytes"]:
            return f"{path}: {size} bytes, its manifest says {entry['bytes']}"
        if storage.file_entry(folder, path)["sha256"] != entry["sha256"]:
            return f"{path}: its SHA-256 differs from its manifest's"
    except FileNotFoundError:
        return f"{path}: missing"
    except OSError as error:  # a bad sector, say
        return f"{path}: cannot be read: {error}"
    return None


def newest_valid(root: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint of which every byte is right, and the breaches of those passed over on the way to it."""
    breaches: list[str] = []
    for folder in reversed(committed(root)):
        found = verify(folder)
        if not found:
            return folder, breaches
        breaches += found
    return None, breaches


class Reader:
    """Tensors of a checkpoint, read one at a time: a model larger than memory can be taken in shard by shard."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = read_manifest(folder)
        if storage.is_remote(folder):
            storage.drop_copies(folder.parent, [folder, *committed(folder.parent)])
        self._open = contextlib.ExitStack()
        self._files: dict[str, Any] = {}

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.close()

    @property
    def weights(self) -> list[str]:
        """Canonical names of the model's weights."""
        return [name for name, tensor in self.manifest["tensors"].items() if tensor["file"].startswith("model")]

    def get(self, name: str) -> torch.Tensor:
        """A whole tensor on the CPU.

        Raises:
            CheckpointError: the checkpoint has no such tensor.
        """
        tensor: torch.Tensor = self._file(name).get_tensor(name)
        return tensor

    def shape(self, name: str) -> list[int]:
        return list(self._file(name).get_slice(name).get_shape())

    def _file(self, name: str) -> Any:
        if name not in self.manifest["tensors"]:
            raise CheckpointError(f"{self.folder}: holds no tensor {name!r}.")
        path = self.manifest["tensors"][name]["file"]
        if path not in self._files:
            self._files[path] = self._open.enter_context(safe_open(str(storage.local(self.folder / path)), framework="pt", device="cpu"))
        return self._files[path]


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every tensor's bytes, by name: what two checkpoints hold, compared whatever layouts wrote them."""
    from headrace.checkpoint.tensor_file import as_bytes

    with Reader(folder) as reader:
        return {name: hashlib.sha256(as_bytes(reader.get(name))).hexdigest() for name in reader.manifest["tensors"]}


def load_model(folder: Path) -> tuple[ModelConfig, dict[str, torch.Tensor]]:
    """Configuration and float32 weights of a checkpoint's model.

    Raises:
        CheckpointError: it was never committed.
    """
    with Reader(folder) as reader:
        return model_config(reader.manifest["model"]), dict(_weights(reader))


def _weights(reader: Reader) -> Iterator[tuple[str, torch.Tensor]]:
    for name in reader.weights:
        yield name, reader.get(name)
