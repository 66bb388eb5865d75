"""The process groups of a layout: who shares a matrix, who shares a batch, who passes activations on."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch.distributed as dist
from torch.distributed import ProcessGroup

from headrace.model.tensor_parallel import ALONE, TensorParallel
from headrace.train.layout import Layout
from headrace.train.process import TIMEOUT


@dataclass(frozen=True)
class Ranks:
    """This rank's place in a layout. World = pipeline x data x tensor, tensor fastest, as in Megatron-LM and DeepSpeed's topology."""

    layout: Layout  # its data-parallel size settled
    stage: int
    data_rank: int
    tensor_rank: int
    tensor: TensorParallel  # the ranks that share this one's matrices
    tensor_ranks: tuple[int, ...]
    data_group: ProcessGroup  # those that hold the same slice of the model and other samples
    data_ranks: tuple[int, ...]
    model_group: ProcessGroup  # those that hold one model together
    ties_group: ProcessGroup  # the first and the last stage of a replica, which share a tied embedding

    @property
    def data_size(self) -> int:
        return len(self.data_ranks)

    @property
    def is_first_stage(self) -> bool:
        return self.stage == 0

    @property
    def is_last_stage(self) -> bool:
        return self.stage == self.layout.pipeline - 1

    @property
    def writers(self) -> list[int]:
        """Ranks that keep tensors of a checkpoint: of each slice of the data, one of those who share the matrices."""
        return list(range(0, self.layout.replica * self.data_size, self.layout.tensor))

    @property
    def speaks(self) -> bool:
        """Whether this rank's share of the loss is counted: one rank of a replica says it."""
        return self.is_last_stage and self.tensor_rank == 0


# Groups cost sockets and are never given back, so each cut of the world is made once.
_known: dict[tuple[Any, ...], Any] = {}


def ranks_of(layout: Layout) -> Ranks:
    """The place of this rank; collective at the first call for a layout's sizes."""
    world, rank = dist.get_world_size(), dist.get_rank()
    data = layout.data_size(world)
    tensor, pipeline = layout.tensor, layout.pipeline
    stage, place = divmod(rank, data * tensor)
    data_rank, tensor_rank = divmod(place, tensor)

    def number(stage: int, data_rank: int, tensor_rank: int) -> int:
        return (stage * data + data_rank) * tensor + tensor_rank

    stages, replicas, shares = range(pipeline), range(data), range(tensor)
    key = (data, tensor, pipeline)
    tensor_group, tensor_ranks = _group(key, "tensor", [[number(s, d, t) for t in shares] for s in stages for d in replicas])
    data_group, data_ranks = _group(key, "data", [[number(s, d, t) for d in replicas] for s in stages for t in shares])
    model_group, _ = _group(key, "model", [[number(s, d, t) for s in stages for t in shares] for d in replicas])
    ends = sorted({0, pipeline - 1})
    ties_group, _ = _group(key, "ties", [[number(s, d, t) for s in ends] for d in replicas for t in shares])
    sharing = ALONE if tensor == 1 else TensorParallel(tensor_group, tensor_rank, tensor, layout.sequence)
    settled = layout.with_data(data)
    return Ranks(settled, stage, data_rank, tensor_rank, sharing, tensor_ranks, data_group, data_ranks, model_group, ties_group)


def _group(key: tuple[int, ...], kind: str, members: Sequence[Sequence[int]]) -> tuple[Any, tuple[int, ...]]:
    """The group among `members` that this rank belongs to; every rank takes part in making all of them."""
    name = (dist.group.WORLD, *key, kind)
    if name not in _known:
        mine: tuple[Any, tuple[int, ...]] = (None, ())
        for ranks in members:
            # A group made without a timeout has torch's own of half an hour, whatever the world's is.
            group = dist.new_group(list(ranks), timeout=TIMEOUT)
            if dist.get_rank() in ranks:
                mine = group, tuple(ranks)
        _known[name] = mine
    found: tuple[Any, tuple[int, ...]] = _known[name]
    return found


def model_parallel_unit(ranks: Ranks) -> SimpleNamespace:
    """What DeepSpeed's plain engine asks of an `mpu`, in Megatron-LM's names. With a pipeline it brings a grid of its own."""
    answers = {
        "get_data_parallel_rank": ranks.data_rank,
        "get_data_parallel_world_size": ranks.data_size,
        "get_data_parallel_group": ranks.data_group,
        "get_data_parallel_group_ranks": list(ranks.data_ranks),
    }
    for kind in ("model", "tensor_model"):  # without a pipeline, those who share the matrices hold the model
        answers |= {
            f"get_{kind}_parallel_rank": ranks.tensor_rank,
            f"get_{kind}_parallel_world_size": ranks.layout.tensor,
            f"get_{kind}_parallel_group": ranks.model_group,
            f"get_{kind}_parallel_src_rank": ranks.tensor_ranks[0],
        }
    return SimpleNamespace(**{name: functools.partial(_same, answer) for name, answer in answers.items()})


def _same(value: Any) -> Any:
    return value
