"""Ray jobs under names that follow from the run: submitted once, found again by a driver that was restarted."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

import headrace
from headrace import storage
from headrace.artifact import StageError
from headrace.config import ConfigError
from headrace.control.cluster import Running

log = logging.getLogger("headrace")

SUBMIT_TIMEOUT_S = 60.0
QUIET = {"RAY_DATA_DISABLE_PROGRESS_BARS": "1"}  # progress is told by events
SCRIPTS = Path(headrace.__file__).resolve().parents[2] / "jobs"


@dataclass(frozen=True)
class Job:
    """One thing to have done on the cluster: a script of `jobs/`, its arguments, and the logical resources of its driver."""

    name: str  # stage, or stage and item: "data", "evaluate-step-00000100-fast"
    script: str
    arguments: tuple[str, ...]
    resources: Mapping[str, float]
    nice: int = 0


@dataclass(frozen=True)
class State:
    """How an attempt stands."""

    submission_id: str
    attempt: int
    status: str  # PENDING | RUNNING | SUCCEEDED | FAILED | STOPPED
    exit_code: int | None
    message: str

    @property
    def active(self) -> bool:
        return self.status in {"PENDING", "RUNNING"}


class Jobs:
    """The jobs of one run on one cluster."""

    def __init__(self, run: Path, running: Running) -> None:
        os.environ.update(running.environment())
        from ray.job_submission import JobSubmissionClient

        if not SCRIPTS.is_dir():
            raise ConfigError(f"{SCRIPTS}: the job scripts are not there; install headrace from its source folder with `pip install -e .`.")
        self._run = run
        self._prefix = f"headrace-{xxhash.xxh3_64_hexdigest(str(run).encode())[:8]}"
        self._client = JobSubmissionClient(running.address)

    def latest(self, job: Job) -> State | None:
        """The newest attempt of a job, whoever submitted it; None where there was none on this cluster."""
        stem = f"{self._prefix}-{job.name}-a"
        found = [details for details in self._client.list_jobs() if (details.submission_id or "").startswith(stem)]
        if not found:
            return None
        newest = max(found, key=lambda details: int(details.submission_id.removeprefix(stem)))
        number = int(newest.submission_id.removeprefix(stem))
        return State(newest.submission_id, number, str(newest.status.value), newest.driver_exit_code, newest.message or "")

    def submit(self, job: Job, attempt: int) -> str:
        """Submit an attempt; one of that number that exists already is adopted."""
        submission_id = f"{self._prefix}-{job.name}-a{attempt}"
        command = [sys.executable, str(SCRIPTS / job.script), *job.arguments]
        variables = {"HEADRACE_SUBMISSION": submission_id, "HEADRACE_NICE": str(job.nice), "HEADRACE_SUBMITTED": str(time.time()), **QUIET}
        error_path(self._run, submission_id).unlink(missing_ok=True)  # of the same name on an earlier cluster
        deadline = time.monotonic() + SUBMIT_TIMEOUT_S
        while True:
            try:
                self._client.submit_job(
                    entrypoint=shlex.join(command),
                    submission_id=submission_id,
                    entrypoint_resources=dict(job.resources) or None,
                    runtime_env={"env_vars": variables},
                    metadata={"run": str(self._run), "job": job.name, "attempt": str(attempt)},
                )
                return submission_id
            except RuntimeError as error:
                if "already exists" in str(error):
                    return submission_id
                # A cluster that has just come up answers before the agent that starts jobs has registered.
                if "try again later" not in str(error) or time.monotonic() > deadline:
                    why = str(error).strip().splitlines()[-1]
                    raise StageError(f"{job.name}: the cluster refused the job: {why}") from None
                time.sleep(0.5)

    def stop(self, submission_id: str) -> None:
        self._client.stop_job(submission_id)

    def active(self) -> list[str]:
        """Submission ids of this run's jobs that are not over."""
        return [
            details.submission_id
            for details in self._client.list_jobs()
            if (details.submission_id or "").startswith(self._prefix) and not details.status.is_terminal()
        ]

    def save_log(self, submission_id: str) -> Path:
        """Keep a job's output in the run's folder: on the cluster it is lost with the cluster."""
        path = self._run / "control" / "logs" / f"{submission_id}.log"
        try:
            text = self._client.get_job_logs(submission_id)
        except RuntimeError as error:
            text = f"(the log could not be fetched: {error})\n"
        storage.write_bytes(path, text.encode(errors="replace"))
        return path

    def error(self, submission_id: str) -> dict[str, Any] | None:
        """What a failed job wrote of its own end."""
        try:
            found: dict[str, Any] = storage.read_json(error_path(self._run, submission_id))
        except FileNotFoundError:
            return None
        return found


def error_path(run: Path, submission_id: str) -> Path:
    return run / "control" / "errors" / f"{submission_id}.json"
