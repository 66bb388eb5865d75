"""Training under Ray Train whose workers are killed, stopped and told to go, whose driver is, too, and whose nodes come and go."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.train.incidents import incidents

SCRIPT = Path(__file__).with_name("run_fit.py")
PATIENCE_S = 300.0
pytestmark = pytest.mark.full  # tests/test_flow.py kills a worker and the driver in every run of the suite, test_nodes.py nodes


class Driver:
    """One start of run_fit.py."""

    def __init__(self, faults: Any, spec: dict[str, Any], *sizes: int) -> None:
        run = Path(spec["run"])
        self.path = run.with_name(f"{run.name}.json")
        self.path.write_text(json.dumps(spec))
        self.log = run.with_name(f"{run.name}-driver.log")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
        with self.log.open("ab") as log:
            command = [sys.executable, str(SCRIPT), str(self.path), *map(str, sizes)]
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        self.watched = faults.watched(run, 0)
        self.watched.met = len(self.watched.starts())
        self.watched.check = self.check

    def check(self) -> None:
        assert self.process.poll() is None, self.log.read_text(errors="replace")

    def strike(self, rank: int, number: signal.Signals) -> int:
        """Send a rank of the next group a signal once it has taken a few steps; how many are on record by then."""
        self.watched.take_steps(3)
        process, steps = self.watched.sign(rank)["pid"], self.watched.steps()
        os.kill(process, number)
        return steps

    def order(self, what: str) -> int:
        """Have the driver drain or add a node once the next group has taken a few steps; how many are on record by then."""
        self.watched.take_steps(3)
        steps = self.watched.steps()
        aside = self.path.with_suffix(".order")
        aside.write_text(what)
        aside.rename(self.path.with_suffix(".do"))
        return steps

    def end(self) -> int:
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if (temp := self.path.with_suffix(".ray")).exists():
            shutil.rmtree(temp.read_text(), ignore_errors=True)


@pytest.fixture(scope="module")
def drive(faults: Any) -> Iterator[Callable[..., Driver]]:
    made: list[Driver] = []

    def start(spec: dict[str, Any], *sizes: int) -> Driver:
        made.append(Driver(faults, spec, *sizes))
        return made[-1]

    yield start
    for driver in made:
        driver.close()


def restored(run: Path, faults: Any) -> list[int | None]:
    return [line["restored_step"] for line in faults.read_lines(run / "train" / "workers.jsonl")]


def test_workers_and_the_driver_may_be_killed(faults: Any, folder: Path, plain: Path, same: Any, drive: Callable[..., Driver]) -> None:
    spec = faults.specification(folder, "ray", max_failures=1)
    run = Path(spec["run"])
    driver = drive(spec, 2)
    driver.strike(1, signal.SIGKILL)
    told_at = driver.strike(1, signal.SIGTERM)
    driver.watched.take_steps(3)
    driver.process.kill()
    driver.end()
    assert drive(spec, 2).end() == 0
    same(run, plain)
    begun = restored(run, faults)
    assert len(begun) == 4, "the group whose worker was killed, that of the one told to go, the driver's, and the last"
    assert begun[2] is not None and begun[2] >= told_at, "it saved where it was"
    (failure,) = [line for line in incidents(run) if line["event"] == "failure"]
    assert failure["rank"] == 1 and failure["failures"] == 1 and failure["world"] == 2
    assert failure["message"].startswith("the group of 2 workers failed: rank 1") and "its process died" in failure["message"]


def test_a_stopped_worker_and_a_driver_that_is_told_to_go(
    faults: Any, folder: Path, plain: Path, same: Any, drive: Callable[..., Driver]
) -> None:
    spec = faults.specification(folder, "ray-told", max_failures=1)
    run = Path(spec["run"])
    driver = drive(spec, 2)
    driver.strike(1, signal.SIGSTOP)
    driver.watched.take_steps(3)
    told_at = driver.watched.steps()
    driver.process.terminate()
    assert driver.end() == 1
    error = json.loads(driver.path.with_suffix(".error").read_text())
    assert error["type"] == "Drained" and "the same command goes on from it" in error["message"]
    assert drive(spec, 2).end() == 0
    same(run, plain)
    last = restored(run, faults)[-1]
    assert last is not None and last >= told_at
    hang, failure = incidents(run)
    assert hang["event"] == "hang" and hang["rank"] == 0 and hang["silent"] == [1]
    assert failure["event"] == "failure" and failure["rank"] == 0 and "ended by its watchdog" in failure["message"]


def test_a_group_that_fails_too_often_is_given_up_with_its_root_cause(faults: Any, folder: Path, drive: Callable[..., Driver]) -> None:
    spec = faults.specification(folder, "ray-failed", max_failures=0)
    driver = drive(spec, 2)
    driver.strike(0, signal.SIGKILL)
    assert driver.end() == 1
    error = json.loads(driver.path.with_suffix(".error").read_text())
    assert error["type"] == "WorkersFailed" and "the group of 2 workers failed: rank 0" in error["message"]
    assert "its process died" in error["message"] and "incidents.jsonl" in error["message"]


def test_nodes_that_go_and_come_cost_no_step(faults: Any, folder: Path, drive: Callable[..., Driver]) -> None:
    spec = faults.specification(folder, "ray-nodes", steps=5000, num_workers=(1, 2), max_failures=0, checkpoint={"every": 1000})
    run = Path(spec["run"])
    driver = drive(spec, 2, 2)
    drained_at = driver.order("drain")
    added_at = driver.order("add")
    driver.watched.take_steps(3)
    driver.close()
    assert [line["world"] for line in faults.read_lines(run / "train" / "workers.jsonl")] == [2, 1, 2]
    none, smaller, larger = restored(run, faults)
    assert none is None and smaller is not None and smaller >= drained_at and larger is not None and larger >= added_at
    assert all(step % 1000 for step in (smaller, larger)), "saved where they were"
    assert not [line for line in incidents(run) if line["event"] == "failure"]
