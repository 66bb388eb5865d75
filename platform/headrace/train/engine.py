"""The DeepSpeed engine of a run: optimizer groups and the engine's configuration, from ours."""

from __future__ import annotations

import contextlib
import io
import logging
from typing import Any

import torch

from headrace.model import SequentialModel
from headrace.train.config import TrainConfig

log = logging.getLogger("headrace")

BUCKET_ELEMENTS = 50_000_000  # numbers reduced or gathered at once; DeepSpeed's default of 5e8 holds 2 GB a buffer


def adamw(model: torch.nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over two groups: matrices, which are decayed, and vectors (norms), which are not."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.optimizer.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    # Rate 0 until the first step sets it: DeepSpeed's bf16 wrapper of ZeRO 0 takes an optimizer step while it starts.
    return torch.optim.AdamW(groups, lr=0.0, betas=config.optimizer.betas, eps=config.optimizer.eps, fused=True)


def clips_itself(config: TrainConfig) -> bool:
    """Whether the engine clips and gives the gradient norm; at ZeRO 0 in fp32 it gives none, so the step does both in one pass."""
    return config.layout.zero > 0 or config.precision != "fp32"


def engine_config(config: TrainConfig, data_size: int, hidden: int, on_gpu: bool) -> dict[str, Any]:
    """DeepSpeed's own configuration."""
    low_precision = config.precision == "bf16"
    settings: dict[str, Any] = {
        "train_batch_size": config.batch.global_batch,
        "train_micro_batch_size_per_gpu": config.batch.micro_batch,
        "gradient_accumulation_steps": config.accumulation_steps(data_size),
        "gradient_clipping": (config.optimizer.clip or 0.0) if clips_itself(config) else 0.0,
        "zero_optimization": {
            "stage": config.layout.zero,
            "contiguous_gradients": True,
            "overlap_comm": on_gpu,
            "reduce_bucket_size": BUCKET_ELEMENTS,
            "allgather_bucket_size": BUCKET_ELEMENTS,
            "stage3_prefetch_bucket_size": BUCKET_ELEMENTS,
            # Only norms stay whole on every rank; the default of 100,000 would keep a small model from being sharded at all.
            "stage3_param_persistence_threshold": hidden,
        },
        "bf16": {"enabled": low_precision},
        "zero_allow_untested_optimizer": False,
        "steps_per_print": 1 << 62,
        "wall_clock_breakdown": False,
        "timers": {"throughput": {"enabled": False, "synchronized": False}},
    }
    if low_precision and config.layout.zero > 0:
        # ZeRO 0 has no such mode: there bf16 gradients are added up in bf16.
        settings["data_types"] = {"grad_accum_dtype": "fp32"}
        settings["communication_data_type"] = "fp32"
    return settings


def start_engine(deepspeed: Any, model: SequentialModel, config: TrainConfig, data_size: int, where: torch.device) -> Any:
    """The engine around the model, which is moved to the device and, for bf16, cast."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):  # its bf16 optimizer prints memory figures, whatever the log level
        engine, _, _, _ = deepspeed.initialize(
            model=model,
            optimizer=adamw(model, config),
            config=engine_config(config, data_size, model.config.hidden, where.type == "cuda"),
            dist_init_required=False,
        )
    log.debug("DeepSpeed: %s", said.getvalue())
    return engine
