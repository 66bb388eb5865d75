"""Ray jobs under names that follow from the run: submitted once, found again by a driver that was restarted."""

from __future__ import annotations

import hashlib
import logging
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import xxhash

import headrace
from headrace import storage
from headrace.artifact import StageError
from headrace.config import ConfigError
from headrace.control.cluster import Running
from headrace.fence import Identity

log = logging.getLogger("headrace")

REQUEST_TIMEOUT_S = 30.0
# Progress is told by events; between SIGTERM and SIGKILL there is to be time for a last checkpoint.
ALWAYS = {"RAY_DATA_DISABLE_PROGRESS_BARS": "1", "RAY_JOB_STOP_WAIT_TIME_S": "600"}
SCRIPTS = Path(headrace.__file__).resolve().parents[2] / "jobs"


class Unreachable(ConnectionError):
    """The cluster did not answer, or not with what was asked for; what was asked of it may have been done all the same."""


@dataclass(frozen=True)
class Job:
    """One thing to have done on the cluster: a script of `jobs/`, its arguments, and the logical resources of its driver."""

    name: str  # stage, or stage and item: "data", "evaluate-step-00000100-fast"
    script: str
    arguments: tuple[str, ...]
    resources: Mapping[str, float]
    nice: int = 0
    goal: str = ""  # what it is to make, as far as the arguments do not say: the fingerprint of its output
    progress: int = 0  # how far its work has come, in whatever it keeps when it fails; steps of training

    @property
    def stage(self) -> str:
        """What events call it."""
        return self.name.split("-")[0]

    @property
    def spec_sha256(self) -> str:
        """Digest of what it does: attempts of different digests are not attempts at the same thing."""
        values = {"script": self.script, "arguments": self.arguments, "resources": dict(self.resources), "goal": self.goal}
        return hashlib.sha256(storage.as_json(values)).hexdigest()


@dataclass(frozen=True)
class State:
    """How an attempt stands, as the cluster tells it."""

    submission_id: str
    job: str
    attempt: int
    status: str  # PENDING | RUNNING | SUCCEEDED | FAILED | STOPPED
    exit_code: int | None
    message: str
    error_type: str | None = None  # Ray's JobErrorType
    token: str | None = None  # of the attempt that it was submitted for

    @property
    def active(self) -> bool:
        return self.status in {"PENDING", "RUNNING"}


@dataclass(frozen=True)
class Listing:
    """What a cluster knows of a run's jobs."""

    cluster: str  # Ray's session: a head that starts anew has another, and knows no job of before
    states: Mapping[str, State]  # by submission id


class Api(Protocol):
    """The part of Ray's Jobs API that is used, and the name of the session that answers."""

    def session(self) -> str: ...
    def list_jobs(self) -> list[Any]: ...
    def submit_job(self, **request: Any) -> str: ...
    def stop_job(self, submission_id: str) -> bool: ...
    def get_job_logs(self, submission_id: str) -> str: ...
    def status(self) -> str: ...


class Jobs:
    """The jobs of one run on one cluster."""

    def __init__(self, run: Path, running: Running, api: Api | None = None) -> None:
        """
        Args:
            api: None = that of the cluster.
        """
        if not SCRIPTS.is_dir():
            raise ConfigError(f"{SCRIPTS}: the job scripts are not there; install headrace from its source folder with `pip install -e .`.")
        self._run = run
        self._name = storage.name(run)
        self._prefix = f"headrace-{xxhash.xxh3_64_hexdigest(self._name.encode())[:8]}"
        self.address = running.address
        self._api = api or _connect(running)

    def submission_id(self, job: str, attempt: int) -> str:
        return f"{self._prefix}-{job}-a{attempt}"

    def listing(self) -> Listing:
        """All of the run's jobs that the cluster knows.

        Raises:
            Unreachable: it does not answer.
        """
        cluster = self._ask(self._api.session)
        found = [self._state(details) for details in self._ask(self._api.list_jobs) if self._is_ours(details.submission_id)]
        return Listing(cluster, {state.submission_id: state for state in found})

    def submit(self, job: Job, attempt: int, token: str = "") -> bool:
        """Submit an attempt; whether it was us. One of that name that is there already is left as it is: `listing` tells what it is.

        Args:
            token: of the attempt's record, by which the job is known for an attempt of this run and not of one that was deleted.

        Raises:
            StageError: the cluster refuses such a job.
            Unreachable: it does not answer; the job may have been submitted.
        """
        submission_id = self.submission_id(job.name, attempt)
        command = [sys.executable, str(SCRIPTS / job.script), *job.arguments]
        variables = {"HEADRACE_SUBMISSION": submission_id, "HEADRACE_NICE": str(job.nice), "HEADRACE_SUBMITTED": str(time.time()), **ALWAYS}
        variables |= storage.environment() | Identity(self._run, job.name, attempt).variables()
        about = {"run": self._name, "job": job.name, "attempt": str(attempt), "spec_sha256": job.spec_sha256, "token": token}
        try:
            self._ask(
                lambda: self._api.submit_job(
                    entrypoint=shlex.join(command),
                    submission_id=submission_id,
                    entrypoint_resources=dict(job.resources) or None,
                    runtime_env={"env_vars": variables},
                    metadata=about,
                )
            )
        except Unreachable as error:
            if "already exists" in str(error):
                return False
            if "status code 400" in str(error):
                raise StageError(f"{job.name}: the cluster refused the job: {error}") from None
            raise
        return True

    def stop(self, submission_id: str) -> None:
        self._ask(lambda: self._api.stop_job(submission_id))

    def active(self) -> list[str]:
        """Submission ids of this run's jobs that are not over."""
        return [state.submission_id for state in self.listing().states.values() if state.active]

    def status(self) -> str:
        """How the cluster stands with what is asked of it, as `ray status` prints it."""
        return str(self._ask(self._api.status))

    def log_path(self, submission_id: str) -> Path:
        return self._run / "control" / "logs" / f"{submission_id}.log"

    def save_log(self, submission_id: str) -> Path:
        """Keep a job's output in the run's folder: on the cluster it is lost with the cluster."""
        path = self.log_path(submission_id)
        try:
            text = self._ask(lambda: self._api.get_job_logs(submission_id))
        except Unreachable as error:
            if storage.present(path):  # of an earlier try, or of another driver
                return path
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

    def _is_ours(self, submission_id: str | None) -> bool:
        return (submission_id or "").startswith(f"{self._prefix}-")

    def _state(self, details: Any) -> State:
        job, _, number = details.submission_id.removeprefix(f"{self._prefix}-").rpartition("-a")
        return State(
            submission_id=details.submission_id,
            job=job,
            attempt=int(number) if number.isdigit() else 0,
            status=str(details.status.value),
            exit_code=details.driver_exit_code,
            message=(details.message or "").strip(),
            error_type=details.error_type,
            token=(details.metadata or {}).get("token"),
        )

    def _ask(self, request: Callable[[], Any]) -> Any:
        try:
            return request()
        except Exception as error:
            if _is_about_tokens(error):
                raise ConfigError(_wrong_token(self.address)) from None
            if not isinstance(error, RuntimeError | OSError | ValueError):  # what Ray's client and the one below it raise
                raise
            lines = str(error).strip().splitlines() or [type(error).__name__]
            told = next((line for line in lines if "already exists" in line), lines[0] if len(lines) == 1 else f"{lines[0]} {lines[-1]}")
            raise Unreachable(told) from None


def error_path(run: Path, submission_id: str) -> Path:
    return run / "control" / "errors" / f"{submission_id}.json"


def beat_path(run: Path, submission_id: str) -> Path:
    """The sign of life of a job's driver; gone once it has ended in order."""
    return run / "control" / "beats" / f"{submission_id}.json"


def _connect(running: Running) -> Api:
    running.use()
    from ray.job_submission import JobSubmissionClient

    class Client(JobSubmissionClient):
        def session(self) -> str:
            return str(self._do_request("GET", "/api/version").json()["session_name"])

        def status(self) -> str:
            return str(self._do_request("GET", "/api/cluster_status?format=1").json()["data"]["clusterStatus"])

        def _do_request(self, method: str, endpoint: str, **more: Any) -> Any:
            # Ray's client waits for ever by itself, and a driver on the far side of a partition with it.
            return super()._do_request(method, endpoint, timeout=REQUEST_TIMEOUT_S, **more)

    # Ray keeps the first token that a process ever showed; this one may have talked to another cluster before.
    shown = {"Authorization": f"Bearer {Path(running.token_path).read_text().strip()}"} if running.token_path else None
    try:
        return Client(running.address, headers=shown)
    except ConnectionError:
        raise StageError(f"{running.address}: nobody answers there; is the cluster up, and is this the address of its dashboard?") from None
    except Exception as error:
        if _is_about_tokens(error):
            raise ConfigError(_wrong_token(running.address)) from None
        raise


def _is_about_tokens(error: Exception) -> bool:
    return type(error).__name__ == "AuthenticationError"  # Ray's; to import it is to import Ray


def _wrong_token(address: str) -> str:
    return f"{address}: asks for a token that is not the one here; set RAY_AUTH_TOKEN_PATH=FILE to that of the cluster."
