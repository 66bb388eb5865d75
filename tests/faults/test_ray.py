"""Training under Ray Train whose workers are killed, stopped and told to go, and whose driver is, too."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.train.incidents import incidents

SCRIPT = Path(__file__).with_name("run_fit.py")
PATIENCE_S = 300.0


class Driver:
    """One start of run_fit.py."""

    def __init__(self, faults: Any, spec: dict[str, Any], workers: int = 2) -> None:
        self.faults, self.run = faults, Path(spec["run"])
        self.path = self.run.with_name(f"{self.run.name}.json")
        self.path.write_text(json.dumps(spec))
        self.log = self.run.with_name(f"{self.run.name}-driver-{time.time_ns()}.log")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
        with self.log.open("wb") as log:
            command = [sys.executable, str(SCRIPT), str(self.path), str(workers)]
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        self.seen = self.starts()

    def starts(self) -> int:
        return len(self.faults.read_lines(self.run / "train" / "workers.jsonl"))

    def until(self, what: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while not (found := what()):
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text(errors="replace")
            time.sleep(0.02)
        return found

    def group(self, steps: int = 3) -> list[int]:
        """Process ids of the next group of workers by rank, once it has taken a few steps."""
        self.until(lambda: self.starts() > self.seen)
        self.seen = self.starts()
        first = self.faults.read_lines(self.run / "train" / "workers.jsonl")[-1]["restored_step"] or 0

        def taken() -> bool:
            lines = self.faults.read_lines(self.run / "train" / "metrics.jsonl")
            return bool(lines and lines[-1]["step"] >= first + steps)

        self.until(taken)
        signs = [json.loads(path.read_bytes()) for path in sorted((self.run / "train" / "alive").glob("rank-*.json"))]
        return [sign["pid"] for sign in signs]

    def end(self) -> int:
        return self.process.wait(PATIENCE_S)

    def error(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.path.with_suffix(".error").read_text())
        return found

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if (temp := self.path.with_suffix(".ray")).exists():
            shutil.rmtree(temp.read_text(), ignore_errors=True)


@pytest.fixture(scope="module")
def drive(faults: Any) -> Iterator[Callable[..., Driver]]:
    made: list[Driver] = []

    def start(spec: dict[str, Any], workers: int = 2) -> Driver:
        made.append(Driver(faults, spec, workers))
        return made[-1]

    yield start
    for driver in made:
        driver.close()


@pytest.fixture(scope="module")
def ended(faults: Any, folder: Path, drive: Callable[..., Driver]) -> Path:
    """One run under Ray Train: a worker is killed, one is told to go, then the driver is killed, and another one brings it to its end."""
    spec = faults.specification(folder, "ray", max_failures=1)
    driver = drive(spec)
    os.kill(driver.group()[1], signal.SIGKILL)
    os.kill(driver.group()[1], signal.SIGTERM)
    driver.group()
    driver.process.kill()
    driver.end()
    assert drive(spec).end() == 0
    return Path(spec["run"])


def test_it_ends_as_the_run_that_nothing_happened_to(faults: Any, folder: Path, ended: Path, equal: Any) -> None:
    plain = faults.specification(folder, "ray-plain")
    faults.finish(plain)
    equal(ended, Path(plain["run"]))


def test_a_killed_worker_is_put_down_as_the_root_cause(ended: Path) -> None:
    (failure,) = [line for line in incidents(ended) if line["event"] == "failure"]
    assert failure["rank"] == 1 and failure["failures"] == 1 and failure["world"] == 2
    assert failure["message"].startswith("the group of 2 workers failed: rank 1, at step ")
    assert "its process died" in failure["message"]


def test_a_worker_that_is_told_to_go_costs_no_step_and_no_restart(faults: Any, ended: Path) -> None:
    starts = faults.read_lines(ended / "train" / "workers.jsonl")
    assert len(starts) == 4, "the killed worker's group, the next, one behind the drain, one of the second driver"
    drained = starts[2]["restored_step"]
    assert drained % 10, "saved where it was, not where a checkpoint was due"
