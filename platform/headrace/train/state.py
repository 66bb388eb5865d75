"""Between the engine's shards and the canonical tensors of a checkpoint, both ways, one tensor at a time.

Every function is a collective: all ranks call it and go through the tensors in step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from headrace.checkpoint.canonical import STATES, STEP
from headrace.model.tensor_parallel import cut, joined, shard_of
from headrace.train.groups import Ranks

SCALER_STATE = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")  # of DeepSpeed's dynamic loss scale

Whole = Callable[[str], Tensor]  # canonical name -> whole float32 tensor on the CPU


def gather(engine: Any, ranks: Ranks) -> Iterator[tuple[Literal["model", "optimizer"], str, Tensor | None]]:
    """Kind, name and whole float32 tensor of everything that a checkpoint holds of this rank's stage; weights first.

    A tensor is given to the one rank that keeps it, in turn to each data-parallel rank of the stage, and is None on the others.
    """
    for place, (name, parameter) in enumerate(_owned(engine)):
        yield "model", name, _assembled(_master(engine, parameter), parameter, ranks, place)
    updates = _updates(engine)
    if updates == 0:
        return
    for state in STATES:
        for place, (name, parameter) in enumerate(_owned(engine)):
            yield "optimizer", f"{state}/{name}", _assembled(_state(engine, parameter, state), parameter, ranks, place)
    yield "optimizer", STEP, torch.tensor(float(updates)) if dist.get_rank() == 0 else None


def fill(module: Any, whole: Whole, ranks: Ranks) -> None:
    """Set a model's weights before the engine takes it over, so that the engine's own casts and shards come out right."""
    with torch.no_grad():
        for name, parameter in module.named_weights():
            parameter.copy_(_slice(whole(getattr(parameter, "tied_to", name)), parameter, ranks))


def scatter(engine: Any, whole: Whole, updates: float, ranks: Ranks) -> None:
    """Set float32 masters and optimizer state of an engine that was started around a module `fill`ed from the same checkpoint."""
    _make_state(engine, updates)
    if not updates:
        return
    where = engine.device
    for name, parameter in engine.module.named_weights():
        name = getattr(parameter, "tied_to", name)
        _write(engine, parameter, None, _slice(whole(name), parameter, ranks).to(where), ranks)
        for state in STATES:
            _write(engine, parameter, state, _slice(whole(f"{state}/{name}"), parameter, ranks).to(where), ranks)


def reset_state(engine: Any) -> None:
    """Optimizer state as before the first step, whatever the engine did while it started."""
    _make_state(engine, 0.0)


def _owned(engine: Any) -> Iterator[tuple[str, Tensor]]:
    """Weights of this stage that are not another stage's, held here, too, because they are tied."""
    return ((name, parameter) for name, parameter in engine.module.named_weights() if not hasattr(parameter, "tied_to"))


def _assembled(local: Tensor, parameter: Tensor, ranks: Ranks, place: int) -> Tensor | None:
    """The whole tensor on the rank whose turn it is; collective over the tensor-parallel group."""
    keeps = place % ranks.data_size == ranks.data_rank
    shard = shard_of(parameter)
    if ranks.tensor.size == 1 or shard is None:
        return local if keeps and ranks.tensor_rank == 0 else None
    if not keeps:
        return None  # nor does any other rank of this tensor-parallel group
    local = local.contiguous()
    pieces = [torch.empty_like(local) for _ in range(ranks.tensor.size)] if ranks.tensor_rank == 0 else None
    dist.gather(local, pieces, dst=ranks.tensor_ranks[0], group=ranks.tensor.group)
    return None if pieces is None else joined(pieces, shard)


def _slice(whole: Tensor, parameter: Tensor, ranks: Ranks) -> Tensor:
    shard = shard_of(parameter)
    return whole if shard is None or ranks.tensor.size == 1 else cut(whole, shard, ranks.tensor.rank, ranks.tensor.size)


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
    """At ZeRO 0: a parameter -> the float32 tensor that AdamW updates, the parameter itself unless the model is in 16 bits."""
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


def _write(engine: Any, parameter: Tensor, state: str | None, value: Tensor, ranks: Ranks) -> None:
    """Set a parameter's optimizer state, or with None its float32 master, from this rank's slice of the tensor."""
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
        value = _third_stage_shard(parameter, value, ranks)
        set_master, set_state = utils.safe_set_local_fp32_param, utils.safe_set_local_optimizer_state
    else:
        set_master, set_state = utils.safe_set_full_fp32_param, utils.safe_set_full_optimizer_state
    if state is None:
        set_master(parameter, value)
    else:
        set_state(parameter, value, state)


def _third_stage_shard(parameter: Any, value: Tensor, ranks: Ranks) -> Tensor:
    """This rank's part of a flattened tensor, padded with zeros to the size that every data-parallel rank's part has."""
    size = parameter.ds_tensor.ds_numel
    padded = torch.zeros(size * ranks.data_size, dtype=value.dtype, device=value.device)
    padded[: value.numel()] = value.flatten()
    return padded.narrow(0, size * ranks.data_rank, size)


def loss_scale(engine: Any) -> dict[str, float] | None:
    """How fp16's loss is scaled at the moment, and what the next change depends on; None in other precisions."""
    scaler = _scaler(engine)
    return None if scaler is None else {name: float(getattr(scaler, name)) for name in SCALER_STATE if hasattr(scaler, name)}


def set_loss_scale(engine: Any, values: dict[str, float] | None) -> None:
    """Go on with the loss scale of a checkpoint, if both it and the engine have one."""
    scaler = _scaler(engine)
    if scaler is not None and values:
        for name, value in values.items():
            setattr(scaler, name, value if name == "cur_scale" else int(value))


def scale_can_fall(engine: Any) -> bool:
    """Whether the engine scales fp16's loss, and by more than the least that it may."""
    scaler = _scaler(engine)
    return scaler is not None and scaler.cur_scale > scaler.min_scale


def keep_lowest_scale(engine: Any) -> None:
    """Have an engine whose loss scale is at its lowest skip a step that overflows, as any other, rather than end the run."""
    if (scaler := _scaler(engine)) is not None:
        scaler.raise_error_at_min_scale = False


def forget_gradients(engine: Any) -> None:
    """Drop the gradients of a step that the engine gave up.

    After an overflow, ZeRO 1 and 2 with the optimizer's state on the host keep what was added up in float32, and add the next step's to it:
    one number that is not finite would be in every step from then on (deepspeed/runtime/zero/stage_1_and_2.py, `step`, of 0.19.8).
    """
    if engine.zero_optimization_stage() in (1, 2):
        kept = getattr(engine.optimizer, "averaged_gradients", {})
        kept.update(dict.fromkeys(kept))


def _scaler(engine: Any) -> Any:
    if not engine.fp16_enabled():
        return None
    return getattr(engine.optimizer, "loss_scale_config", None) or engine.optimizer.loss_scaler
