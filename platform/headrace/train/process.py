"""A rank's surroundings: device, process group, threads, and DeepSpeed's import without its compiler run."""

from __future__ import annotations

import ctypes
import functools
import gc
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NoReturn

import psutil
import torch
import torch.distributed as dist

from headrace.config import ConfigError
from headrace.train.rendezvous import listening_store

TIMEOUT = timedelta(minutes=65)  # longer than the slowest checkpoint; a peer that hangs is found by the watchdog long before

# Of glibc's mallopt(3): what it gives back to the system, what it takes from it ahead, and what it asks of it by itself; bytes.
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
LARGEST_KEPT = 32 << 20  # it takes no higher threshold
HEAP = 64 << 20  # what threads but the first have their memory in, each given back once it is empty, unless so much is taken ahead


def device() -> torch.device:
    """This rank's device: its own GPU where there are any, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return torch.device("cpu")


def choose_interface(address: str) -> None:
    """Have gloo meet its peers over the interface that has this node's address.

    By itself it takes that of the address which the machine's name resolves to. On many machines this is the loopback interface, over which
    no other node is met.
    """
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == address for each in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def join(where: torch.device) -> None:
    """Become part of the process group.

    A group that Ray Train or a test made is taken as it is. Under torchrun the environment names it; else the world is this process.
    The group must live as long as the process: DeepSpeed keeps groups made from the first one for every later engine.
    """
    world = os.environ.get("WORLD_SIZE", "1")
    os.environ.setdefault("RANK", "0")
    os.environ.setdefault("LOCAL_RANK", "0")
    os.environ.setdefault("WORLD_SIZE", world)
    # DeepSpeed's CPU accelerator would count NUMA nodes for want of this.
    os.environ.setdefault("LOCAL_SIZE", os.environ.get("LOCAL_WORLD_SIZE", world))
    if where.type == "cuda":
        torch.cuda.set_device(where)
    if dist.is_initialized():
        return
    backend = "nccl" if where.type == "cuda" else "gloo"
    if int(world) > 1:
        dist.init_process_group(backend, timeout=TIMEOUT)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=TIMEOUT)


def narrow(world: int) -> bool:
    """Let the first `world` ranks be the whole world; whether this rank is among them. Collective, and before DeepSpeed has begun.

    A layout seldom fits any number of workers. Collectives of the default group, of which DeepSpeed has many, would wait for those
    that have nothing to do, so the group is made anew without them.
    """
    if world == dist.get_world_size():
        return True
    rank, backend = dist.get_rank(), dist.get_backend()
    host = os.environ.get("MASTER_ADDR", "127.0.0.1")
    store = listening_store(host, TIMEOUT) if rank == 0 else None
    port = agreed(store.port if store else None)
    dist.barrier()
    dist.destroy_process_group()
    if rank >= world:
        return False
    os.environ["WORLD_SIZE"] = str(world)
    store = store or dist.TCPStore(host, port, is_master=False, timeout=TIMEOUT)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=TIMEOUT)
    return True


def keep_memory() -> None:
    """Have this process keep the memory that it frees, to take it again without the system.

    A ZeRO engine takes and frees buffers of the size of its weights in every step. glibc gives such memory back, and the next step pays
    for every page of it once more: a tenth of a small model's step. Under another C library nothing is changed.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(TRIM_THRESHOLD, -1)
        library.mallopt(MMAP_THRESHOLD, LARGEST_KEPT)
        library.mallopt(TOP_PAD, HEAP)


def let_go(engine: Any) -> None:
    """End an engine, so that its memory is free for the next one in this process once the caller drops it, too.

    Of one at ZeRO 3, DeepSpeed 0.19 keeps the module for ever (in a list, and in the cache of `__params_to_release`, which see in
    partitioned_param_coordinator.py). The module's hooks hold the engine, and so its optimizer; its parameters hold their shards.
    """
    engine.destroy()
    engine.optimizer = engine.basic_optimizer = engine.client_optimizer = None
    for parameter in engine.module.parameters():
        vars(parameter).clear()


def leave(code: int = 0) -> NoReturn:
    """End a rank that has done its work, together with its peers.

    DeepSpeed keeps process groups of its own to the end, and the interpreter's end tears them down under gloo's threads: now and then
    that aborts a rank whose every result is published. So the process ends here, without that.
    """
    if dist.is_initialized():
        if code == 0:  # another code may be one rank's own, whose peers are elsewhere
            dist.barrier()
        dist.destroy_process_group()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def import_deepspeed(where: torch.device) -> Any:
    """The deepspeed module; imported here and never at the top of a file, or Ray's controller would start it, too."""
    if where.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    with _made_to_stay():
        import deepspeed

        # It calls collectives by the names that torch 2.13 is about to drop; that is no news to a user.
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
        if where.type == "cpu":
            # It refuses fp16 where the processor has no instructions for it; torch computes it all the same, slowly.
            deepspeed.accelerator.get_accelerator().is_fp16_supported = functools.partial(bool, True)
            # At start-up DeepSpeed compiles a shared-memory all-reduce that only inference uses: minutes on a small machine, and a
            # killed compiler leaves a lock on which every later start waits. An empty table of usable extensions says "none";
            # the table is a cached module attribute made to be edited (deepspeed/ops/__init__.py).
            vars(deepspeed.ops).setdefault("__compatible_ops__", {})
            with _environment(TORCHDYNAMO_DISABLE="1"):
                # Any ZeRO engine imports this optimizer, whose kernels are compiled functions: that alone loads torch's compiler, 2 s.
                importlib.import_module("deepspeed.runtime.zero.muon.original_muon")
    return deepspeed


@contextmanager
def _made_to_stay() -> Iterator[None]:
    """What is made inside is not looked at by the garbage collector, neither now nor, the first time, ever after.

    Modules are half a million objects. While they are imported full collections take a quarter of the time, and each one later 0.2 s:
    DeepSpeed's bf16 optimizer has six at its start, a run's end has one, and Python by itself some between two steps.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            gc.freeze()
        if collects:
            gc.enable()


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def total(values: list[float], where: torch.device) -> list[float]:
    """Each number summed over all ranks, in float64: counts stay exact below 2^53."""
    summed = torch.tensor(values, dtype=torch.float64, device=where)
    dist.all_reduce(summed)
    return [float(value) for value in summed.tolist()]


def agreed(value: Any) -> Any:
    """Rank 0's value on every rank."""
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


@contextmanager
def refusing_together() -> Iterator[None]:
    """Have a ConfigError, or the lack of a file, that some ranks meet raised as a ConfigError on every rank; collective.

    One that raised alone would leave the others waiting for it, and none would tell why.
    """
    refusal: ConfigError | None = None
    try:
        yield
    except (ConfigError, FileNotFoundError) as error:
        refusal = error if isinstance(error, ConfigError) else ConfigError(str(error))
    met: list[ConfigError | None] = [None] * dist.get_world_size()
    dist.all_gather_object(met, refusal)
    if found := [each for each in met if each is not None]:
        raise found[0]
