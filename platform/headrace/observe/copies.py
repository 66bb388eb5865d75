"""Copies of a run's numbers for TensorBoard and MLflow: kept up while a run is on, or made of one that is over."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import xxhash
from pydantic import AfterValidator

from headrace import storage
from headrace.config import Config, ConfigError
from headrace.observe.mlflow import MLflow
from headrace.observe.scalars import Handed, Unwritten
from headrace.observe.tensorboard import TensorBoard

log = logging.getLogger("headrace")

EVERY_S = 10.0
CLOSE_S = 20.0  # for the last points, when a run ends
PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow"}  # extra: what it installs for us


def tracking_uri(uri: str) -> str:
    """The URI, if it is one that MLflow keeps runs under.

    Raises:
        ValueError: it is not.
    """
    if not re.match(r"https?://[^/]|sqlite:///.", uri):
        raise ValueError("no place of MLflow's; write http://HOST:PORT of a tracking server, or sqlite:///FILE")
    if re.match(r"https?://[^/]*@", uri):
        raise ValueError("holds a credential; MLflow takes it from MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or _TOKEN")
    return uri


class ReportConfig(Config):
    """What a run's numbers are copied to while it is on, beside its own files."""

    tensorboard: bool = False  # event files in RUN/tensorboard, for `tensorboard --logdir`
    mlflow: Annotated[str, AfterValidator(tracking_uri)] | None = None  # of a tracking server (http://HOST:PORT), or sqlite:///FILE

    def missing(self) -> list[str]:
        """Extras that this asks for and that are not installed."""
        wanted = {"tensorboard": self.tensorboard, "mlflow": self.mlflow is not None}
        return [extra for extra, asked in wanted.items() if asked and importlib.util.find_spec(PACKAGES[extra]) is None]


class Copy:
    """One copy of a run, brought up to date by `update`.

    What was handed over stands in RUN/copies, a file for each target, so that neither a driver that goes on nor the same command given
    again writes it twice; a killed one may leave the points of its last look to be written twice to MLflow.
    """

    def __init__(self, run: Path, kind: str, target: str) -> None:
        """Args:
        kind: "tensorboard" or "mlflow".
        target: a folder, or the URI of a tracking server.

        Raises:
            ConfigError: the extra is not installed; or the folder holds event files of something else.
        """
        if importlib.util.find_spec(PACKAGES[kind]) is None:
            raise ConfigError(f"{kind}: its packages are not installed; pip install 'headrace[{kind}]'.")
        self._record = run / "copies" / f"{kind}-{xxhash.xxh3_64_hexdigest(target.encode())}.json"
        self._about: dict[str, Any] = {"target": target, "run_id": None}
        handed = Handed()
        known = storage.read_json(self._record) if storage.present(self._record) else None
        if kind == "tensorboard":
            files = any(Path(target).glob("events.out.tfevents.*"))
            if files and known is None:
                raise ConfigError(f"{target}: event files of something else are there; give an empty folder, or one that is not there yet.")
            if known and files:
                handed = Handed(known["step"], set(known["results"]))
            self._writer: TensorBoard | MLflow = TensorBoard(Path(target), handed.step)
        else:
            before = known["run_id"] if known else None
            self._writer = MLflow(run, target, before)
            if known and self._writer.run_id == before:
                handed = Handed(known["step"], set(known["results"]))
            self._about["run_id"] = self._writer.run_id
        self._unwritten = Unwritten(run, handed)

    def update(self) -> int:
        """Hand over what is new; how many points that were."""
        steps, results = self._unwritten.look()
        if steps or results:
            self._writer.write(steps, results)
            handed = self._unwritten.handed
            storage.write_json(self._record, {**self._about, "step": handed.step, "results": sorted(handed.results)})
        return len(steps) + len(results)

    def close(self, steps: int) -> None:
        """Args:
        steps: of the whole run.
        """
        self._writer.close(self._unwritten.handed.step >= steps)


def targets(run: Path, config: ReportConfig) -> list[tuple[str, str]]:
    """Kind and target of each copy that a configuration asks for."""
    asked = [("tensorboard", str(run / "tensorboard"))] if config.tensorboard else []
    return [*asked, *([("mlflow", config.mlflow)] if config.mlflow else [])]


@contextlib.contextmanager
def copied(run: Path, config: ReportConfig, steps: int) -> Iterator[None]:
    """Inside, a thread keeps up the copies that the configuration asks for. One that fails is logged and given up: no run ends for it."""
    stopped = threading.Event()
    threads = [
        threading.Thread(target=_keep_up, args=(run, kind, target, steps, stopped), daemon=True, name=f"headrace-{kind}")
        for kind, target in targets(run, config)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopped.set()
        for thread in threads:
            thread.join(CLOSE_S)


def _keep_up(run: Path, kind: str, target: str, steps: int, stopped: threading.Event) -> None:
    try:
        copy = Copy(run, kind, target)
        while not stopped.wait(EVERY_S):
            copy.update()
        copy.update()
        copy.close(steps)
    except Exception as error:  # its server is gone, its disk is full
        log.warning("%s: no longer copied to (%s: %s); `headrace report RUN --%s` makes up for it", kind, type(error).__name__, error, kind)
