"""Training under Ray Train: starts the workers, restarts them when one dies, and waits for the last step.

`ray.train.report` is not called. Nothing asks for it: each start finds its checkpoint by itself, and a run ends when every rank's
function has returned, whatever was reported (ray/train/v2/_internal/execution/controller/controller.py, `_is_training_succeeded`). It
would be a barrier of all ranks through an actor, then a queue of one that the controller empties every two seconds
(.../worker_group/worker.py, `poll_status`). For the same reason a rank with nothing to do may return early: the group goes on until
the last one has (.../worker_group/poll.py, `finished`), and only rank 0's value is kept.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchTrainer

from headrace import storage
from headrace.capacity import most_resources
from headrace.config import ConfigError
from headrace.fence import Fenced
from headrace.train.drain import Drained, Notice, request, requested
from headrace.train.incidents import incidents, record
from headrace.train.process import TIMEOUT
from headrace.train.ray_callback import Witness, preemption
from headrace.train.ray_group import ClosedTorchConfig
from headrace.train.save import CheckpointFailed
from headrace.train.spec import TrainSpec
from headrace.train.spikes import TrainingDiverged
from headrace.train.worker import train

log = logging.getLogger("headrace")

POOL = "train"  # logical resource by which a small cluster keeps cores for training free of data and evaluation jobs
START_TIMEOUT_S = 600  # of the wait for room for a group; a loaded machine is slow, and Ray's own 60 s gave up on it
# A group whose size Ray chose by nodes that have gone meanwhile waits for them in vain; after this it looks again, as often as it takes.
ELASTIC_START_TIMEOUT_S = 20
FINAL: dict[str, type[Exception]] = {kind.__name__: kind for kind in (ConfigError, TrainingDiverged, CheckpointFailed, Drained, Fenced)}


class WorkersFailed(RuntimeError):
    """The group of workers failed more often than it may; the message tells the root cause of the last time."""


def fit(values: dict[str, Any], workers: int, max_failures: int) -> None:
    """Run the worker on `workers` ranks of the connected cluster until the last step's checkpoint is published.

    When a rank dies, Ray Train starts the whole group again, up to `max_failures` times; each start finds the newest whole
    checkpoint by itself, so that what is lost is the steps behind it. When a node is about to go, or a worker alone is told to, the group
    saves its state and starts again on what is left, as often as that happens. With `train.num_workers: [min, max]` it starts with
    as many as there is room for, and again whenever that changes.

    A SIGTERM, as `ray job stop` sends it, has the workers save their state first; the job needs time for it, RAY_JOB_STOP_WAIT_TIME_S in
    its environment, for Ray's own 3 s are few.

    Args:
        values: `TrainSpec.plain()`; the run's folder must be the same storage on every node.

    Raises:
        ConfigError: the cluster is too small; or the worker's own.
        TrainingDiverged, CheckpointFailed: the worker's own; trying again would end the same way.
        Drained: this process was told to go, and the state is saved.
        Fenced: a newer attempt at this job has begun.
        WorkersFailed: a worker raised another error, or died, more often than `max_failures`.
    """
    spec = TrainSpec.read(values)
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # the run's paths may be relative to the directory that the job started in
    elastic = spec.train.num_workers if isinstance(spec.train.num_workers, tuple) else None
    fewest = min(elastic[0], workers) if elastic else workers
    patience_s = START_TIMEOUT_S if fewest == workers else ELASTIC_START_TIMEOUT_S
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(patience_s))
    on_gpu, resources = _resources(fewest)
    storage.remove(request(spec.run))  # it was for the last driver's workers
    while True:
        trainer = TorchTrainer(
            _on_a_worker,
            train_loop_config={"spec": storage.portable(values)},
            torch_config=ClosedTorchConfig(backend="nccl" if on_gpu else "gloo", timeout_s=int(TIMEOUT.total_seconds())),
            scaling_config=ScalingConfig(
                num_workers=workers if fewest == workers else (fewest, workers), use_gpu=on_gpu, resources_per_worker=resources
            ),
            run_config=RunConfig(
                name="train",
                storage_path=storage.name((spec.run / "train" / "ray").absolute()),
                failure_config=FailureConfig(max_failures=max_failures),
                callbacks=[Witness(storage.portable(spec.run.absolute()))],
            ),
        )
        with _passing_on_sigterm(spec):
            try:
                ended = trainer.fit().return_value
            except TrainingFailedError as error:
                raise WorkersFailed(_last_failure(spec, error)) from error
        if ended is None:
            return
        if ended["type"] != Drained.__name__ or storage.present(request(spec.run)):
            raise FINAL[ended["type"]](ended["message"])
        log.warning("%s The group starts again where there is room.", ended["message"])


def _resources(fewest: int) -> tuple[bool, dict[str, float]]:
    """Whether workers have a GPU each, and what Ray sets aside for one.

    Raises:
        ConfigError: the cluster has not so much for the fewest workers.
    """
    has = most_resources()
    on_gpu = has.get("GPU", 0) >= fewest
    resources = {"CPU": 1.0, **({"GPU": 1.0} if on_gpu else {}), **({POOL: 1.0} if POOL in has else {})}
    lacking = [
        f"{name} {need * fewest:g} (has {has.get(name, 0):g})" for name, need in resources.items() if has.get(name, 0) < need * fewest
    ]
    if lacking:
        raise ConfigError(f"{fewest} training workers: the cluster has too little of {', '.join(lacking)}; set train.num_workers lower.")
    return on_gpu, resources


def _on_a_worker(config: dict[str, Any]) -> dict[str, str] | None:
    """The worker; an error that every rank raises alike and that a restart would meet again is returned, lest Ray tries again."""
    values = storage.resolved(config["spec"])
    notices: list[Notice] = [preemption]
    if ray.train.get_context().get_world_rank() == 0:  # one asks for all
        notices.append(requested(TrainSpec.read(values).run))
    try:
        train(values, notices)
    except tuple(FINAL.values()) as error:
        return {"type": type(error).__name__, "message": str(error)}
    return None


@contextmanager
def _passing_on_sigterm(spec: TrainSpec) -> Iterator[None]:
    """Inside, a SIGTERM to this process asks the workers to save their state and end; a second one does what it did before."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        storage.write_json(request(spec.run), {"time": time.time(), "why": "the driver got a SIGTERM"})
        signal.signal(signal.SIGTERM, earlier)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


def _last_failure(spec: TrainSpec, error: TrainingFailedError) -> str:
    last = next((line["message"] for line in reversed(incidents(spec.run)) if line["event"] == "failure"), None)
    message = last or str(error).strip().splitlines()[-1]
    record(spec.run, "given up", message)
    return f"{message} (more: {storage.name(spec.run / 'train' / 'incidents.jsonl')})"
