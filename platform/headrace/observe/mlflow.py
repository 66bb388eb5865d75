"""A run's numbers and configuration as a run of MLflow (extra `mlflow`), on a tracking server or in a SQLite file."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from headrace import storage
from headrace.observe.scalars import Point

EXPERIMENT = "headrace"  # unless MLFLOW_EXPERIMENT_NAME, MLflow's own variable, names another
METRICS_A_CALL, PARAMS_A_CALL, PARAM_CHARS = 1000, 100, 500  # what every MLflow server takes


class MLflow:
    """One run of MLflow that follows one of ours."""

    def __init__(self, run: Path, uri: str, run_id: str | None) -> None:
        """Args:
        uri: of the tracking server, or sqlite:///FILE.
        run_id: of the MLflow run to go on with; None makes one, with the configuration as its parameters.
        """
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        logging.getLogger("alembic").setLevel(logging.WARNING)
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._metric, self._param = Metric, Param
        self._client = MlflowClient(tracking_uri=uri)
        self.run_id = run_id if run_id is not None and self._is_there(run_id) else self._begin(run)

    def _is_there(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            self._client.update_run(run_id, status="RUNNING")
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        return True

    def _begin(self, run: Path) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name)
        made = self._client.create_run(experiment, run_name=run.name, tags={"headrace.run": storage.name(run)})
        parameters = parameters_of(run)
        for first in range(0, len(parameters), PARAMS_A_CALL):
            batch = [self._param(key, value) for key, value in parameters[first : first + PARAMS_A_CALL]]
            self._client.log_batch(made.info.run_id, params=batch)
        return str(made.info.run_id)

    def write(self, steps: Sequence[Point], results: Sequence[Point]) -> None:
        metrics = [
            self._metric(allowed(name), value, int(point.time * 1000), point.step)
            for point in [*steps, *results]
            for name, value in point.scalars.items()
        ]
        for first in range(0, len(metrics), METRICS_A_CALL):
            self._client.log_batch(self.run_id, metrics=metrics[first : first + METRICS_A_CALL])

    def close(self, finished: bool) -> None:
        """Args:
        finished: whether training is over; else the MLflow run stays open for the driver that goes on.
        """
        if finished:
            self._client.set_terminated(self.run_id, "FINISHED", int(time.time() * 1000))


def allowed(name: str) -> str:
    """A name with the characters that MLflow takes in one."""
    return re.sub(r"[^\w./:\- ]", "_", name)


def parameters_of(run: Path) -> list[tuple[str, str]]:
    """Every leaf of the run's configuration by its path in the YAML, shortened where it is long."""
    path = run / "config.yaml"
    values = yaml.safe_load(storage.read_bytes(path)) if storage.present(path) else {}
    return [(allowed(key), text[:PARAM_CHARS]) for key, text in _leaves(values, ())]


def _leaves(value: Any, place: tuple[str, ...]) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [leaf for key, item in value.items() for leaf in _leaves(item, (*place, str(key)))]
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        return [leaf for number, item in enumerate(value) for leaf in _leaves(item, (*place, str(number)))]
    return [(".".join(place), "null" if value is None else str(value))]
