"""Which layout a run has on the workers that are there."""

from __future__ import annotations

import torch
import torch.distributed as dist

from headrace.config import ConfigError
from headrace.model import ModelConfig
from headrace.train.elastic import Settled, settle
from headrace.train.process import agreed
from headrace.train.room import room_of_worker
from headrace.train.spec import TrainSpec


def settled(spec: TrainSpec, model: ModelConfig, where: torch.device) -> tuple[TrainSpec, Settled]:
    """The specification with its layout settled to the last size, and which workers it takes; alike on every rank.

    Raises:
        ConfigError: no layout, or not the one asked for, fits these workers.
    """
    found = agreed(_settled(spec, model, where) if dist.get_rank() == 0 else None)  # memory differs a little from node to node
    if isinstance(found, ConfigError):
        raise found
    train = spec.train.model_copy(update={"layout": found.layout})
    return spec.model_copy(update={"train": train}), found


def _settled(spec: TrainSpec, model: ModelConfig, where: torch.device) -> Settled | ConfigError:
    try:
        return settle(spec.train, model, dist.get_world_size(), room_of_worker(where))
    except ConfigError as refusal:
        return refusal
