"""A cluster on a bad day, simulated: Ray's Jobs API as it then answers, and jobs that die, are called dead, are cut off and come back.

Nothing runs but the commits of the jobs, which are the project's own code on real files: stages, checkpoints and results with the look
for a newer attempt before each. Time is simulated, too.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from ray.dashboard.modules.job.pydantic_models import JobDetails

from headrace import artifact, fence, pipeline, storage
from headrace.artifact import StageOutput
from headrace.checkpoint import committed
from headrace.checkpoint.canonical import MANIFEST, step_of
from headrace.checkpoint.write import Writer
from headrace.control.exits import BEAT_S
from headrace.control.jobs import beat_path, error_path
from headrace.control.look import suites_of
from headrace.evaluate import result, watcher
from headrace.run import RunConfig
from headrace.train.spec import TrainSpec, train_spec

CONTENT = b"PAR1"
LATER_S = 60.0  # after its time is over, a process that was cut off comes back and wants to commit


@dataclass(frozen=True)
class Rates:
    """How often what goes wrong, of 1."""

    no_answer: float = 0.05  # of requests
    stale: float = 0.05  # of lists: the one before is told again
    refused_after: float = 0.1  # of submissions that took effect, and the answer was lost
    killed: float = 0.1  # of attempts
    failing: float = 0.03  # of attempts at an evaluation: an error of the job's own
    called_dead: float = 0.08  # of attempts: the cluster calls the job failed, and it goes on
    cut_off: float = 0.05  # of attempts: as before, and no sign of life reaches storage, until it is back
    head_lost: float = 0.0005  # of seconds: the cluster starts anew and knows nothing


@dataclass
class Process:
    """The driver of a job."""

    values: dict[str, Any]  # as the Jobs API tells them
    variables: dict[str, str]
    script: str
    arguments: list[str]
    begins: float
    ends: float
    fate: str
    beat: float = 0.0
    beats: int = 0
    entered: bool = False
    group: fence.Group | None = None

    @property
    def id(self) -> str:
        return str(self.values["submission_id"])

    @property
    def half(self) -> float:
        return (self.begins + self.ends) / 2


@dataclass
class Tally:
    """What happened."""

    commits: Counter[str] = field(default_factory=Counter)  # of each artifact, those that took effect
    refused: int = 0  # commits of fenced attempts
    doubled: int = 0  # attempts that were begun while the one before was alive and reached storage
    heads_lost: int = 0
    requests: int = 0
    fates: Counter[str] = field(default_factory=Counter)


class SimulatedCluster:
    """The Jobs API, and what is behind it."""

    def __init__(self, config: RunConfig, units: int, seed: int, rates: Rates) -> None:
        self.config, self.units, self.rates = config, units, rates
        self.random = random.Random(seed)
        self.now = 1_800_000_000.0
        self.tally = Tally()
        self.processes: list[Process] = []  # alive, whatever is said of them
        self._listed: dict[str, dict[str, Any]] = {}
        self._told = "[]"
        self._session = 1

    # What a controller asks.

    def session(self) -> str:
        self._answer()
        return f"session_{self._session}"

    def list_jobs(self) -> list[Any]:
        self._answer()
        if self.random.random() >= self.rates.stale:
            self._told = json.dumps(list(self._listed.values()))
        return [JobDetails(**values) for values in json.loads(self._told)]  # as Ray's client reads it

    def submit_job(self, **request: Any) -> str:
        self._answer()
        name = request["submission_id"]
        if name in self._listed:
            raise RuntimeError(f"Request failed with status code 500: ValueError: Job with submission_id {name} already exists.")
        self._start(name, request)
        if self.random.random() < self.rates.refused_after:
            raise TimeoutError("read timed out")
        return name

    def stop_job(self, submission_id: str) -> bool:
        self._answer()
        for process in [process for process in self.processes if process.id == submission_id]:
            self._over(process, "STOPPED", None, None)
        return True

    def get_job_logs(self, submission_id: str) -> str:
        self._answer()
        return f"the log of {submission_id}\n"

    def _answer(self) -> None:
        self.tally.requests += 1
        if self.random.random() < self.rates.no_answer:
            raise ConnectionError("connection reset by peer")

    # What becomes of the jobs.

    def _start(self, name: str, request: dict[str, Any]) -> None:
        _, script, *arguments = shlex.split(request["entrypoint"])
        about = request["metadata"]
        for other in self.processes:
            same = other.values["metadata"]["job"] == about["job"]
            if same and other.fate != "cut off" and not (other.fate == "killed" and self.now > other.half):
                self.tally.doubled += 1
        values = {"type": "SUBMISSION", "submission_id": name, "status": "PENDING", "entrypoint": request["entrypoint"]}
        values |= {"metadata": about, "message": "", "start_time": int(self.now * 1000), "runtime_env": request["runtime_env"]}
        begins = self.now + self.random.uniform(1, 6)
        fate = self._fate(Path(script).name)
        self.tally.fates[fate] += 1
        lasts = self.random.uniform(4, 14) * (10 if fate != "done" and about["job"] in ("data", "train") else 1)
        ends = begins + (300.0 if about["job"] == "train" else lasts)
        self._listed[name] = values
        variables = request["runtime_env"]["env_vars"]
        self.processes.append(Process(values, variables, Path(script).name, arguments, begins, ends, fate))

    def _fate(self, script: str) -> str:
        draw, rates = self.random.random(), self.rates
        failing = rates.failing if script == "evaluate_checkpoint.py" else 0.0
        shares = {"killed": rates.killed, "failing": failing, "called dead": rates.called_dead, "cut off": rates.cut_off}
        for fate, share in shares.items():
            if draw < share:
                return fate
            draw -= share
        return "done"

    def advance(self, seconds: float) -> None:
        """Let time go by."""
        self.now += seconds
        if self.random.random() < self.rates.head_lost * seconds:
            self.tally.heads_lost += 1
            self._session += 1
            self._listed.clear()
            self.processes = [process for process in self.processes if process.fate == "cut off"]
        for process in list(self.processes):
            if self.now >= process.begins:
                self._live(process)

    def _live(self, process: Process) -> None:
        if not process.entered:
            process.entered = True
            process.values["status"] = "RUNNING"
            with self._being(process):
                if process.script == "train_model.py":
                    process.group = fence.Group.claim(self.config.folder)
                else:
                    fence.check()
            if process not in self.processes:
                return
        past_half = self.now >= process.half
        if process.fate == "killed" and past_half:
            code = self.random.choice([137, None])
            self._over(process, "FAILED", code, "JOB_ENTRYPOINT_COMMAND_ERROR" if code else "JOB_SUPERVISOR_ACTOR_DIED")
            return
        if process.fate in {"called dead", "cut off"} and past_half and process.values["status"] == "RUNNING":
            process.values |= {"status": "FAILED", "error_type": "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE", "message": "no word of it"}
        reaches = process.fate != "cut off" or not past_half or self.now >= process.ends + LATER_S
        if reaches and self.now - process.beat >= BEAT_S:
            process.beat, process.beats = self.now, process.beats + 1
            storage.write_json(beat_path(self.config.folder, process.id), {"beat": process.beats})
        if process.script == "train_model.py" and reaches:
            with self._being(process):
                self._train(process)
            if process not in self.processes:
                return
        if self.now >= process.ends and reaches:
            self._end(process)

    def _end(self, process: Process) -> None:
        if process.fate == "failing":
            error = {"exit_code": 1, "message": "it does not like this checkpoint", "type": "ValueError"}
            storage.write_json(error_path(self.config.folder, process.id), error)
            self._over(process, "FAILED", 1, "JOB_ENTRYPOINT_COMMAND_ERROR")
            return
        with self._being(process):
            if process.script == "curate_corpus.py":
                self._curate()
            elif process.script == "train_model.py":
                self._train(process)
            elif process.script == "score_baselines.py":
                self._publish(self.config.folder / "eval" / "baselines.json", {})
            else:
                self._score(process.arguments[1], process.arguments[2])
        if process in self.processes:
            self._over(process, "SUCCEEDED", 0, None)

    def _over(self, process: Process, status: str, code: int | None, error_type: str | None) -> None:
        self.processes.remove(process)
        if process.values["status"] in {"PENDING", "RUNNING"}:
            process.values |= {"status": status, "driver_exit_code": code, "error_type": error_type}
        if status == "SUCCEEDED":
            storage.remove(beat_path(self.config.folder, process.id))

    @contextlib.contextmanager
    def _being(self, process: Process) -> Iterator[None]:
        """Inside, this is the process of a job; one that finds itself fenced ends."""
        before = {name: os.environ.get(name) for name in (fence.RUN, fence.JOB, fence.ATTEMPT)}
        os.environ.update({name: process.variables[name] for name in before})
        try:
            yield
        except (fence.Fenced, fence.GroupReplaced):
            self.tally.refused += 1
            self._over(process, "FAILED", fence.EXIT_CODE, "JOB_ENTRYPOINT_COMMAND_ERROR")
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    # The jobs' commits.

    def _curate(self) -> None:
        def make(folder: Path) -> StageOutput:
            names = [f"unit-{number:05d}" for number in range(self.units)]
            (folder / "verdicts").mkdir(exist_ok=True)
            for name in names:
                (folder / "verdicts" / f"{name}.parquet").write_bytes(CONTENT)
            about = {"bytes": len(CONTENT), "sha256": "0" * 64}
            counts = {"rows_in": 1, "rows_out": 1, "rejected": {}, "counters": {}}
            return StageOutput([{"id": name, "files": [{"path": f"verdicts/{name}.parquet", **about}], **counts} for name in names])

        def count(stage: str, event: str, **_: Any) -> None:
            if event == "finished":
                self.tally.commits[stage] += 1

        for name, plan in pipeline.refer(self.config).items():
            what = {"version": plan.version, "config": plan.config, "inputs": plan.inputs}
            artifact.build(self.config.folder, name, **what, make=make, event=count)

    def _train(self, process: Process) -> None:
        """The checkpoints whose time has come."""
        steps = self.config.train.steps
        made = committed(self.config.folder / "train" / "checkpoints")
        share = min(1.0, (self.now - process.begins) / (process.ends - process.begins))
        assert process.group is not None
        for step in range(step_of(made[-1]) + 1 if made else 1, int(steps * share) + 1):
            if (refusal := process.group.look()) is not None:
                raise refusal
            self._checkpoint(step)

    @functools.cached_property
    def _tokens(self) -> str:
        return str(storage.read_json(self.config.folder / "data" / "current.json")["tokens"])

    def _checkpoint(self, step: int) -> None:
        spec = TrainSpec.read(train_spec(self.config, self.config.folder / "data" / "tokens" / self._tokens))
        model = self.config.sized_model.model_dump(mode="json")
        about = {"model": model, "state": {"step": step}, "config": spec.fixed(self._tokens), "layout": {}, "versions": {}}
        writer = Writer(spec.checkpoints, step)
        writer.add("model", "w", torch.full((1,), float(step)))
        writer.publish(about, self.config.folder / "config.yaml")
        self.tally.commits[f"step-{step:08d}"] += 1

    def _score(self, checkpoint: str, suite: str) -> None:
        settings = next(each.settings for each in suites_of(self.config) if each.name == suite)
        folder = self.config.folder / "train" / "checkpoints" / checkpoint
        digest = storage.file_entry(folder, folder / MANIFEST)["sha256"]
        found = {"checkpoint_manifest_sha256": digest, **settings, "validation_loss": 1.0}
        self._publish(watcher.result_path(self.config.folder, checkpoint, suite), found)

    def _publish(self, out: Path, found: dict[str, Any]) -> None:
        result.publish(out, {**found, "tokens_fingerprint": self._tokens}, "simulated", 0.0)
        self.tally.commits[out.relative_to(self.config.folder).as_posix()] += 1
