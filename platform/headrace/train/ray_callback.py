"""What happens around a group of Ray Train's workers: why it failed, and that a worker saves its state before it is shut down.

The hooks are Ray's own, of 2.60 (ray/train/v2/_internal/execution/callback.py); `RunConfig(callbacks=...)` hands them through. Of the
public ones, `UserCallback.after_exception` gives neither the workers' processes nor a hook in them.
"""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError
from ray.train.v2._internal.execution.callback import WorkerCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.context import get_train_context
from ray.train.v2._internal.execution.worker_group import WorkerGroup, WorkerGroupPollStatus

from headrace import storage
from headrace.train import drain
from headrace.train.incidents import record, root_cause
from headrace.train.process import choose_interface
from headrace.train.watchdog import LOOK_S, signs_of_life, silent_ranks

log = logging.getLogger("headrace")

PATIENCE_S = 4.0  # Ray kills a worker 5 s after it asked it to shut down (.../worker_group/state.py, _shutdown_workers)


class Witness(WorkerGroupCallback, WorkerCallback):
    """One object of it lives in the controller, and a copy in each worker."""

    def __init__(self, run: Path | str) -> None:
        """
        Args:
            run: the run's folder, as `storage.portable` has it.
        """
        self._place = run
        self._processes: dict[int, int] = {}  # process id of each rank
        self._failures = 0

    @property
    def _run(self) -> Path:
        return Path(storage.resolved(self._place))

    # In the controller.

    def after_worker_group_start(self, worker_group: WorkerGroup) -> None:
        self._processes = {
            worker.distributed_context.world_rank: worker.metadata.pid
            for worker in worker_group.get_workers()
            if worker.distributed_context
        }

    def after_worker_group_poll_status(self, worker_group_status: WorkerGroupPollStatus) -> None:
        """Record why a group failed; Ray Train starts it again, or not, after the first look that finds an error."""
        errors = worker_group_status.errors
        if not errors:
            return
        died = {rank: why for rank, error in errors.items() if (why := _died(error))}
        raised = {rank: f"{type(error).__name__}: {error}" for rank, error in errors.items() if rank not in died}
        world = len(worker_group_status.worker_statuses)
        before = signs_of_life(self._run, world)
        time.sleep(0.0 if died else LOOK_S)  # a rank that died may not have been missed yet, and then only the signs tell of it
        now = signs_of_life(self._run, world)
        # Signs of an earlier group say nothing of this one, which may not have come so far.
        signs = {rank: sign for rank, sign in now.items() if sign["pid"] == self._processes.get(rank)}
        silent = silent_ranks(before, now, world) & signs.keys() if not died else set()
        cause = root_cause(died, raised, signs, silent)
        self._failures += 1
        followed = f"; what ranks {', '.join(map(str, cause.collateral))} met followed from it" if cause.collateral else ""
        message = f"the group of {world} workers failed: {cause.why}{followed}"
        told = {"rank": cause.rank, "world": world, "failures": self._failures}
        record(self._run, "failure", message, **told, errors={str(rank): why for rank, why in sorted({**died, **raised}.items())})
        log.warning("%s", message)

    # In each worker, in the main thread of its actor; the train function runs in another.

    def after_init_train_context(self) -> None:
        drain.listen()
        choose_interface(ray.util.get_node_ip_address())

    def before_worker_shutdown(self) -> None:
        """Ray Train ends this group: because it is done, because another rank failed, or to start one of another size.

        In the last case the worker still trains, and saves its state first if a step and a checkpoint fit in Ray's patience.
        """
        running = get_train_context().execution_context.training_thread_runner.is_running
        drain.tell("its group ends, or is to have another size")
        deadline = time.monotonic() + PATIENCE_S
        while running() and time.monotonic() < deadline:
            time.sleep(0.02)
        drain.stop_listening()


def preemption() -> str | None:
    """Why this worker's group is to go, as Ray Train told the worker's actor.

    It is what `ray.train.get_preemption_info` gives, without the barrier of all ranks that it makes of each question: the ranks agree in
    the step's own all-reduce.
    """
    info = get_train_context().preemption_context.preemption_info
    if info is None:
        return None
    until = "" if info.deadline_ms is None else f" in {max(0.0, info.deadline_ms / 1000 - time.time()):.0f} s"
    return f"node {', '.join(info.preempted_node_ids)} goes{until}"


def _died(error: Any) -> str | None:
    """What is known of the end of a worker's process, if it was that; else None."""
    if isinstance(error, WorkerHealthCheckTimeoutError):
        return "its process does not answer"
    inner = error.health_check_failure if isinstance(error, WorkerHealthCheckFailedError) else error
    if not isinstance(inner, RayActorError):
        return None
    detail = re.search(r"Worker exit detail: (.*?)(?: Some common causes|$)", str(inner), re.MULTILINE)
    told = detail.group(1) if detail else str(inner).strip().splitlines()[-1]
    return f"its process died ({'its node was taken away; ' if inner.preempted else ''}{told.strip()[:300]})"
