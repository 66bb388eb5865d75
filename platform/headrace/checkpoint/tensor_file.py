"""One safetensors file, written piece by piece and hashed on the way: no second copy of its tensors is ever in memory.

The format is a little-endian uint64, the bytes of the header behind it; the header, JSON; then every tensor's bytes, row-major
(https://github.com/huggingface/safetensors, "Format"). Header and order are those of the library's own writer, so the bytes are, too.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

BLOCK = 8 << 20  # bytes written and hashed at once; either lets Python's other threads run meanwhile
ALIGNMENT = 8  # the tensors begin at a multiple of it

# In the library's order: a file's tensors are sorted by type, the last one here first, then by name.
TYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
}
RANK = {dtype: rank for rank, dtype in enumerate(TYPES)}


def write_tensor_file(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write a new file and wait until it is on the disk; its entry for a manifest: path (its name), bytes, sha256.

    Args:
        tensors: on the CPU.

    Raises:
        OSError: the file system refuses, or the file is there.
        TypeError: a tensor of a type that a checkpoint does not hold.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in TYPES:
            raise TypeError(f"{path}: {name} is of type {tensor.dtype}; a checkpoint holds {', '.join(TYPES.values())}.")
    ordered = sorted(tensors.items(), key=lambda item: (-RANK[item[1].dtype], item[0]))
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as handle:
        head = header(ordered)
        handle.write(head)
        digest.update(head)
        size += len(head)
        for _, tensor in ordered:
            content = memoryview(as_bytes(tensor))
            for start in range(0, len(content), BLOCK):
                handle.write(content[start : start + BLOCK])
                digest.update(content[start : start + BLOCK])
            size += len(content)
        handle.flush()
        os.fsync(handle.fileno())
    return {"path": path.name, "bytes": size, "sha256": digest.hexdigest()}


def header(ordered: list[tuple[str, Tensor]]) -> bytes:
    """What stands before the tensors' bytes: the length of the JSON, and the JSON, padded with spaces."""
    entries, start = {}, 0
    for name, tensor in ordered:
        entries[name] = {"dtype": TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, start + tensor.nbytes]}
        start += tensor.nbytes
    content = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    content += b" " * (-len(content) % ALIGNMENT)
    return struct.pack("<Q", len(content)) + content


def as_bytes(tensor: Tensor) -> Any:
    """A tensor's bytes: NumPy uint8 [tensor.nbytes], row-major, a view wherever the tensor is contiguous."""
    return tensor.detach().reshape(-1).view(torch.uint8).numpy()
