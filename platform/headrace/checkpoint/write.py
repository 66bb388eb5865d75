"""Writing a canonical checkpoint: tensors as they come, then the manifest, then one rename that makes it seen."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save as serialized

from headrace import storage
from headrace.checkpoint.canonical import FORMAT, MANIFEST, VERSION, checkpoint_name

FILE_BYTES = 2 << 30  # of tensors held back for one file: bounds the memory of the rank that writes

Kind = Literal["model", "optimizer"]


class Writer:
    """The checkpoint of one step in the making, in a private folder below `root` until `publish`.

    Tensors are collected into files of at most `FILE_BYTES`, unless one tensor is larger.
    """

    def __init__(self, root: Path, step: int) -> None:
        self.final = root / checkpoint_name(step)
        self._aside = root / f"{storage.ASIDE}{self.final.name}-{uuid.uuid4().hex[:8]}"
        self._folder = self._aside / "new"
        self._folder.mkdir(parents=True)
        self._tensors: dict[str, dict[str, Any]] = {}
        self._entries: list[dict[str, Any]] = []
        self._held: dict[Kind, dict[str, torch.Tensor]] = {"model": {}, "optimizer": {}}
        self._files: dict[Kind, int] = {"model": 0, "optimizer": 0}

    def add(self, kind: Kind, name: str, tensor: torch.Tensor) -> None:
        """Take in a whole tensor; it is copied to the CPU and may change afterwards."""
        held = self._held[kind]
        if held and sum(other.nbytes for other in held.values()) + tensor.nbytes > FILE_BYTES:
            self._flush(kind)
        held[name] = tensor.detach().to("cpu", copy=True).contiguous()

    def _flush(self, kind: Kind) -> None:
        held = self._held[kind]
        if not held:
            return
        number = self._files[kind]
        file = f"{kind}-{number:05d}.safetensors" if number else f"{kind}.safetensors"
        self._write(file, serialized(held))
        for name, tensor in held.items():
            self._tensors[name] = {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch."), "file": file}
        self._files[kind] += 1
        held.clear()

    def _write(self, file: str, content: bytes) -> None:
        with (self._folder / file).open("wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        self._entries.append({"path": file, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})

    def publish(self, about: Mapping[str, Any], tokenizer: Path) -> Path:
        """Write what is held back and the manifest, and let the checkpoint appear; its folder.

        Args:
            about: the manifest's `model`, `state`, `config`, `layout` and `versions`.
            tokenizer: the tokenizer.json to copy along.
        """
        self._flush("model")
        self._flush("optimizer")
        self._write("tokenizer.json", tokenizer.read_bytes())
        manifest = {"format": FORMAT, "version": VERSION, "files": self._entries, "tensors": self._tensors, **about}
        storage.write_json(self._folder / MANIFEST, manifest)
        if self.final.exists():  # left over, and found broken, by a resume from an older one
            self.final.replace(self._aside / "old")
        self._folder.replace(self.final)
        storage.sync_folder(self.final.parent)
        self.discard()
        return self.final

    def discard(self) -> None:
        """Remove what is not published; nothing, after `publish`."""
        shutil.rmtree(self._aside, ignore_errors=True)
