"""Training under Ray Train: starts the workers, restarts them when one dies, and waits for the last step."""

from __future__ import annotations

import os
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from headrace.config import ConfigError
from headrace.train.process import TIMEOUT
from headrace.train.save import CheckpointFailed
from headrace.train.spec import TrainSpec
from headrace.train.worker import TrainingDiverged, train

POOL = "train"  # logical resource by which a small cluster keeps cores for training free of data and evaluation jobs
START_TIMEOUT_S = 600  # a loaded machine imports torch and DeepSpeed slowly; Ray's own 60 s gave up on it
FINAL: dict[str, type[Exception]] = {kind.__name__: kind for kind in (ConfigError, TrainingDiverged, CheckpointFailed)}


def fit(values: dict[str, Any], workers: int, max_failures: int) -> None:
    """Run the worker on `workers` ranks of the connected cluster until the last step's checkpoint is published.

    When a rank dies, Ray Train starts the whole group again, up to `max_failures` times; each start finds the newest whole
    checkpoint by itself, so that what is lost is the steps behind it.

    Args:
        values: `TrainSpec.plain()`; the run's folder must be the same storage on every node.

    Raises:
        ConfigError: the layout does not fit the number of workers or the cluster; or the worker's own.
        TrainingDiverged, CheckpointFailed: the worker's own; trying again would end the same way.
        ray.train.TrainingFailedError: a worker raised another error, or died, more often than `max_failures`.
    """
    spec = TrainSpec.read(values)
    spec.train.accumulation_steps(spec.train.layout.data_size(workers))
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(START_TIMEOUT_S))
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # the run's paths may be relative to the directory that the job started in
    has = ray.cluster_resources()
    on_gpu = has.get("GPU", 0) >= workers
    resources = {"CPU": 1.0, **({"GPU": 1.0} if on_gpu else {}), **({POOL: 1.0} if POOL in has else {})}
    lacking = [
        f"{name} {need * workers:g} (has {has.get(name, 0):g})" for name, need in resources.items() if has.get(name, 0) < need * workers
    ]
    if lacking:
        raise ConfigError(f"train.layout.data = {workers}: the cluster has too little of {', '.join(lacking)}; set it lower.")
    trainer = TorchTrainer(
        _on_a_worker,
        train_loop_config={"spec": values},
        torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo", timeout_s=int(TIMEOUT.total_seconds())),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=on_gpu, resources_per_worker=resources),
        run_config=RunConfig(
            name="train",
            storage_path=str((spec.run / "train" / "ray").absolute()),
            failure_config=FailureConfig(max_failures=max_failures),
        ),
    )
    refusal = trainer.fit().return_value
    if refusal is not None:
        raise FINAL[refusal["type"]](refusal["message"])


def _on_a_worker(config: dict[str, Any]) -> dict[str, str] | None:
    """The worker; an error that every rank raises alike and that a restart would meet again is returned, lest Ray tries again."""
    try:
        train(config["spec"], on_checkpoint=ray.train.report)
    except tuple(FINAL.values()) as error:
        return {"type": type(error).__name__, "message": str(error)}
    return None
