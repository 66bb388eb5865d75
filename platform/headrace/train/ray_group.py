"""Ray Train's process group, met at a store that listens on this node's address alone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
import torch.distributed as dist
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _TorchBackend

from headrace.train.rendezvous import listening_store

_offered: list[dist.TCPStore] = []  # rank 0's, between the two calls by which Ray Train sets a worker up


@dataclass
class ClosedTorchConfig(TorchConfig):
    """`TorchConfig` with such a store; `backend` must be given."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _ClosedTorchBackend


class _ClosedTorchBackend(_TorchBackend):
    """`on_start` does what that of Ray 2.60 does, but for the store, and for TPUs."""

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        timeout = timedelta(seconds=backend_config.timeout_s)
        host, port = worker_group.execute_single(0, _offer, timeout)
        worker_group.execute(_set_torch_distributed_env_vars)
        world = len(worker_group)
        meet = (backend_config.backend, world, host, port, timeout)
        ray.get([worker_group.execute_single_async(rank, _meet, rank, *meet) for rank in range(world)])


def _offer(timeout: timedelta) -> tuple[str, int]:
    """On rank 0: the address of a new store."""
    host = ray.util.get_node_ip_address()
    _offered[:] = [listening_store(host, timeout)]
    return host, _offered[0].port


def _meet(rank: int, backend: str, world: int, host: str, port: int, timeout: timedelta) -> None:
    """On each rank: be part of the group."""
    os.environ.update({"MASTER_ADDR": host, "MASTER_PORT": str(port)})
    store = _offered.pop() if rank == 0 else dist.TCPStore(host, port, is_master=False, timeout=timeout)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timeout)
