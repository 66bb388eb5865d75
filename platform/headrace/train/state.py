"""Between the engine's shards and the canonical tensors of a checkpoint, both ways, one tensor at a time.

Every function is a collective: all ranks call it and see the same tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from headrace.checkpoint.canonical import STATES, STEP, CheckpointError, Reader
from headrace.model import SequentialModel


def gather(engine: Any) -> Iterator[tuple[Literal["model", "optimizer"], str, Tensor]]:
    """Kind, name and whole float32 tensor of everything that a checkpoint holds; weights first."""
    for name, parameter in engine.module.named_parameters():
        yield "model", name, _master(engine, parameter)
    updates = _updates(engine)
    if updates == 0:
        return
    for state in STATES:
        for name, parameter in engine.module.named_parameters():
            yield "optimizer", f"{state}/{name}", _state(engine, parameter, state)
    yield "optimizer", STEP, torch.tensor(float(updates))


def fill(model: SequentialModel, reader: Reader) -> None:
    """Set a model's weights before the engine takes it over, so that the engine's own casts and shards come out right.

    Raises:
        CheckpointError: the tensors do not fit the model.
    """
    parameters = dict(model.named_parameters())
    if set(parameters) != set(reader.weights):
        name = min(set(parameters) ^ set(reader.weights))
        raise CheckpointError(f"{reader.folder}: its weights are not those of the model; {name} is in one of them only.")
    with torch.no_grad():
        for name, parameter in parameters.items():
            value = reader.get(name)
            if value.shape != parameter.shape:
                raise CheckpointError(f"{reader.folder}: {name} has shape {list(value.shape)}, the model needs {list(parameter.shape)}.")
            parameter.copy_(value)


def scatter(engine: Any, reader: Reader) -> None:
    """Set float32 masters and optimizer state of an engine that was started around a model `fill`ed from the same checkpoint."""
    if STEP not in reader.manifest["tensors"]:
        _make_state(engine, 0.0)
        return
    _make_state(engine, float(reader.get(STEP)))
    where = engine.device
    for name, parameter in engine.module.named_parameters():
        _write(engine, parameter, None, reader.get(name).to(where))
        for state in STATES:
            _write(engine, parameter, state, reader.get(f"{state}/{name}").to(where))


def reset_state(engine: Any) -> None:
    """Optimizer state as before the first step, whatever the engine did while it started."""
    _make_state(engine, 0.0)


def _shards(engine: Any) -> list[Tensor]:
    """The float32 tensors that the engine's AdamW updates on this rank."""
    if engine.zero_optimization_stage() == 3:
        return list(engine.optimizer.fp32_partitioned_groups_flat)
    return [tensor for group in engine.basic_optimizer.param_groups for tensor in group["params"]]


def _updates(engine: Any) -> int:
    """How often AdamW has updated its tensors: enters its bias correction."""
    states = engine.basic_optimizer.state
    return max((int(states[shard]["step"]) for shard in _shards(engine) if "step" in states.get(shard, {})), default=0)


def _make_state(engine: Any, updates: float) -> None:
    """Give every shard the state that AdamW would make in its first step; DeepSpeed cannot write into what is not there."""
    for shard in _shards(engine):
        engine.basic_optimizer.state[shard] = {
            "step": torch.tensor(updates, dtype=torch.float32, device=shard.device),
            **{state: torch.zeros_like(shard) for state in STATES},
        }
    if engine.zero_optimization_stage() in (1, 2):
        engine.optimizer._hp_optimizer_states_linked = False
        engine.optimizer._lazy_init_hp_params_optimizer_state()


def _replica(engine: Any) -> Callable[[Tensor], Tensor]:
    """At ZeRO 0: a parameter -> the float32 tensor that AdamW updates, the parameter itself unless the model is in bf16."""
    optimizer = engine.optimizer
    if not hasattr(optimizer, "fp32_groups"):
        return lambda parameter: parameter
    pairs = ((low, high) for lows, highs in zip(optimizer.fp16_groups, optimizer.fp32_groups) for low, high in zip(lows, highs))
    masters = {id(low): high for low, high in pairs}
    return lambda parameter: masters[id(parameter)]


def _master(engine: Any, parameter: Tensor) -> Tensor:
    if engine.zero_optimization_stage() == 0:
        return _replica(engine)(parameter)
    from deepspeed.utils import safe_get_full_fp32_param

    whole: Tensor = safe_get_full_fp32_param(parameter)
    return whole


def _state(engine: Any, parameter: Tensor, state: str) -> Tensor:
    if engine.zero_optimization_stage() == 0:
        replica: Tensor = engine.basic_optimizer.state[_replica(engine)(parameter)][state]
        return replica
    from deepspeed.utils import safe_get_full_optimizer_state

    whole: Tensor = safe_get_full_optimizer_state(parameter, state)
    return whole


def _write(engine: Any, parameter: Tensor, state: str | None, value: Tensor) -> None:
    """Set a parameter's optimizer state, or with None its float32 master, from the whole tensor."""
    stage = engine.zero_optimization_stage()
    if stage == 0:
        replica = _replica(engine)(parameter)
        target = replica if state is None else engine.basic_optimizer.state[replica][state]
        with torch.no_grad():
            target.copy_(value)
        return
    from deepspeed import utils

    if stage == 3:
        # The "full" setters of ZeRO 3 cut a tensor that does not divide by the number of ranks in the wrong places.
        value = _third_stage_shard(parameter, value)
        set_master, set_state = utils.safe_set_local_fp32_param, utils.safe_set_local_optimizer_state
    else:
        set_master, set_state = utils.safe_set_full_fp32_param, utils.safe_set_full_optimizer_state
    if state is None:
        set_master(parameter, value)
    else:
        set_state(parameter, value, state)


def _third_stage_shard(parameter: Any, value: Tensor) -> Tensor:
    """This rank's part of a flattened tensor, padded with zeros to the size that every rank's part has."""
    size = parameter.ds_tensor.ds_numel
    padded = torch.zeros(size * dist.get_world_size(), dtype=value.dtype, device=value.device)
    padded[: value.numel()] = value.flatten()
    return padded.narrow(0, size * dist.get_rank(), size)
