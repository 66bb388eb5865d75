"""The controller as a job of the very cluster that it has the run's other jobs done by."""

from __future__ import annotations

import signal
from types import FrameType

from headrace.config import ConfigError
from headrace.control.controller import run_on_cluster
from headrace.control.look import Upto
from headrace.run import RunConfig


def drive(config: RunConfig, upto: Upto) -> None:
    """Bring the run up to `upto` on this process's own cluster; a SIGTERM, as `ray job stop` sends it, stops the run's jobs, too.

    Raises:
        ConfigError, RunError: see `run_on_cluster`.
    """
    settings = config.cluster.model_copy(update={"address": dashboard()})
    signal.signal(signal.SIGTERM, _interrupt)  # Ray sets one of its own before
    run_on_cluster(config.model_copy(update={"cluster": settings}), upto)


def dashboard() -> str:
    """The address of the Jobs API of the cluster that this process runs in, as its head has it.

    Raises:
        ConfigError: this is no job of a cluster, or its head has no dashboard.
    """
    import ray

    try:
        found = ray.init(address="auto", log_to_driver=False, logging_level="ERROR").address_info["webui_url"]
    except ConnectionError:
        raise ConfigError("no Ray cluster runs here; jobs/drive_run.py is started by `headrace submit CONFIG --address URL`.") from None
    finally:
        ray.shutdown()  # the run is driven over HTTP alone, so that a failure of the cluster's own servers does not end the driver
    if not found:
        raise ConfigError("this cluster has no dashboard, by which jobs are submitted; start its head with --include-dashboard=true.")
    return f"http://{found}"


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
