"""What a worker has to work in: the memory of its device, and its neighbours on a node."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:  # see `has_driver`
    import torch

DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")  # of NVIDIA, of Windows' subsystem for Linux, of AMD


@dataclass(frozen=True)
class Room:
    """One worker's, the same for all."""

    memory: int  # bytes of its device; on a CPU its share of the host's
    per_node: int  # workers on a node: a matrix is not shared beyond
    on_gpu: bool


def room_of_machine(workers: int) -> Room:
    """That of so many workers on this machine, asked without a process of ours taking a place on a GPU."""
    count, memory = gpus()
    if count >= workers:
        return Room(memory, count, True)
    return Room(psutil.virtual_memory().total // workers, workers, False)


def room_of_worker(where: torch.device) -> Room:
    """That of the worker in this process, which has its device already."""
    neighbours = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1")))
    if where.type == "cuda":
        import torch

        return Room(int(torch.cuda.get_device_properties(where).total_memory), neighbours, True)
    return Room(psutil.virtual_memory().total // neighbours, neighbours, False)


@lru_cache(maxsize=1)
def gpus() -> tuple[int, int]:
    """How many GPUs this process may use, and bytes of the smallest; (0, 0) without any."""
    if not has_driver():
        return 0, 0
    import torch

    count = torch.cuda.device_count()
    if not count:
        return 0, 0
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
        return count, min(int(line) << 20 for line in told.split())
    except (OSError, subprocess.SubprocessError, ValueError):  # no such tool: torch knows, at the price of a place on each GPU
        return count, min(int(torch.cuda.get_device_properties(index).total_memory) for index in range(count))


def has_driver() -> bool:
    """Whether it is worth asking torch for GPUs: it takes two seconds to import, and every verb reads a configuration."""
    return not sys.platform.startswith("linux") or shutil.which("nvidia-smi") is not None or any(Path(each).exists() for each in DRIVERS)
