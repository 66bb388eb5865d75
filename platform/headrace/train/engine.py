"""The DeepSpeed engine of a run: the model cut to its layout, optimizer groups and the engine's configuration, from ours."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
from typing import Any

import torch

from headrace.config import ConfigError
from headrace.model import ModelConfig
from headrace.model.compiled import COMPILERS, compiled, compiler
from headrace.model.recompute import recomputed
from headrace.model.sequential import SequentialModel, layer_specs
from headrace.train.config import TrainConfig
from headrace.train.groups import Ranks, model_parallel_unit
from headrace.train.memory import bucket_elements
from headrace.train.pipeline import LossFunction, pipeline_module
from headrace.train.process import device, keep_memory, total
from headrace.train.stages import stage_bounds

log = logging.getLogger("headrace")


def build_module(deepspeed: Any, model: ModelConfig, seed: int, config: TrainConfig, ranks: Ranks, loss: LossFunction) -> Any:
    """This rank's share of the model, its weights not set yet.

    Raises:
        ConfigError: its blocks are to be compiled, and some rank has no compiler.
    """
    if config.compile and any(total([float(compiler() is None)], device())):
        raise ConfigError(
            "train.compile = true: torch's compiler needs a C++ compiler, and a worker found none by the names of CXX (in its "
            f"environment), {', '.join(COMPILERS)}; install one on every node, or set train.compile=false."
        )
    if ranks.layout.pipeline == 1:
        return SequentialModel(model, seed, ranks.tensor, config.activation_checkpointing, config.compile)
    specs = layer_specs(model, seed, ranks.tensor)
    bounds = stage_bounds(model, ranks.layout.pipeline)
    with _quiet("pipeline"):
        deepspeed.init_distributed(dist_init_required=False)  # takes the group that is there; the module makes its own from it
        called = functools.partial(compiled if config.compile else recomputed, mode=config.activation_checkpointing)
        return pipeline_module(deepspeed, specs, bounds, model.tied_embeddings, ranks, called, loss)


def start_engine(deepspeed: Any, module: Any, config: TrainConfig, ranks: Ranks, where: torch.device, hidden: int) -> Any:
    """The engine around a module, which is moved to the device and, for 16 bits, cast."""
    with _quiet("engine"):  # its bf16 optimizer prints memory figures, whatever the log level
        engine, _, _, _ = deepspeed.initialize(
            model=module,
            optimizer=adamw(module, config),
            config=engine_config(config, ranks, hidden, where.type == "cuda"),
            mpu=model_parallel_unit(ranks) if ranks.layout.pipeline == 1 else None,
            dist_init_required=False,
        )
    if ranks.layout.pipeline == 1 and ranks.layout.zero == 0 and ranks.data_size == 1:
        engine.enable_backward_allreduce = False  # with nobody to share them with, all gradients would be copied together and back
    if where.type == "cpu":
        keep_memory()
    return engine


def adamw(module: torch.nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over two groups: matrices, which are decayed, and vectors (norms), which are not."""
    parameters = list(module.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.optimizer.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    # Rate 0 until the first step sets it: DeepSpeed's bf16 wrapper of ZeRO 0 takes an optimizer step while it starts.
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=0.0, betas=config.optimizer.betas, eps=config.optimizer.eps, fused=True
    )


def clips_itself(config: TrainConfig, ranks: Ranks) -> bool:
    """Whether the engine clips and gives the gradient norm; at ZeRO 0 in fp32 it gives none, so the step does both in one pass."""
    return ranks.layout.zero > 0 or config.precision != "fp32"


def engine_config(config: TrainConfig, ranks: Ranks, hidden: int, on_gpu: bool) -> dict[str, Any]:
    """DeepSpeed's own configuration."""
    zero: dict[str, Any] = {
        "stage": ranks.layout.zero,
        "contiguous_gradients": True,
        "overlap_comm": on_gpu,
        "reduce_bucket_size": bucket_elements(on_gpu),
        "allgather_bucket_size": bucket_elements(on_gpu),
        "stage3_prefetch_bucket_size": bucket_elements(on_gpu),
        # Only norms stay whole on every rank; the default of 100,000 would keep a small model from being sharded at all.
        "stage3_param_persistence_threshold": hidden,
    }
    if ranks.layout.offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": on_gpu}
    settings: dict[str, Any] = {
        "train_batch_size": config.batch.global_batch,
        "train_micro_batch_size_per_gpu": config.batch.micro_batch,
        "gradient_accumulation_steps": config.accumulation_steps(ranks.data_size),
        "gradient_clipping": (config.optimizer.clip or 0.0) if clips_itself(config, ranks) else 0.0,
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,  # that one is compiled at the first start
        # What crosses a stage's border is sent once by the tensor-parallel ranks together, each a part of it, if all hold the same.
        "pipeline": {"pipe_partitioned": not ranks.layout.sequence, "grad_partitioned": not ranks.layout.sequence},
        "bf16": {"enabled": config.precision == "bf16"},
        "fp16": {"enabled": config.precision == "fp16", "loss_scale": 0, "initial_scale_power": 16, "loss_scale_window": 1000},
        "zero_allow_untested_optimizer": False,
        "steps_per_print": 1 << 62,
        "wall_clock_breakdown": False,
        "timers": {"throughput": {"enabled": False, "synchronized": False}},
    }
    if config.precision != "fp32" and ranks.layout.zero > 0:
        # ZeRO 0 has no such mode: there 16-bit gradients are added up in 16 bits.
        settings["data_types"] = {"grad_accum_dtype": "fp32"}
        settings["communication_data_type"] = "fp32"
    return settings


@contextlib.contextmanager
def _quiet(what: str) -> Any:
    """DeepSpeed prints to stdout, which is for results; kept for the log."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        yield
    log.debug("DeepSpeed, %s: %s", what, said.getvalue())
