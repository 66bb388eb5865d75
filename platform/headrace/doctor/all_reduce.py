"""One rank of the doctor's all-reduce: python -m headrace.doctor.all_reduce BACKEND RANKS STORE RANK; exit code 0 if the sum is right."""

from __future__ import annotations

import sys
from datetime import timedelta

import torch
import torch.distributed as dist


def reduce(backend: str, ranks: int, store: str, rank: int) -> bool:
    """Whether this rank gets the sum of what all ranks hold; `store` is a file that they share, so that no port is needed to meet."""
    where = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    if where.type == "cuda":
        torch.cuda.set_device(where)
    dist.init_process_group(backend, store=dist.FileStore(store, ranks), rank=rank, world_size=ranks, timeout=timedelta(seconds=60))
    values = torch.full((1 << 10,), float(rank + 1), device=where)
    dist.all_reduce(values)
    right = bool((values == ranks * (ranks + 1) / 2).all())
    dist.destroy_process_group()
    return right


if __name__ == "__main__":
    sys.exit(0 if reduce(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])) else "the sum is wrong")
