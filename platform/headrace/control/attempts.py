"""Attempts at a job, as they stand on storage: RUN/control/attempts/<job>/<k>.json, made only if absent and never changed.

The file of attempt k+1 says how attempt k ended, so one conditional write books a failure, fences the attempt that failed and says when
to try again. Of two controllers one makes it, and both submit what it describes, under the one name that follows from it. What a job
has failed so far is counted from these files: it outlives every controller.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from headrace import storage
from headrace.control.exits import CONFIGURATION, GATE, RETRY
from headrace.control.jobs import Job, State
from headrace.fence import attempt_path, attempts_folder

# infrastructure: what Ray, a node or the machine broke; user: an error of the job's own; final: it would end the same way again;
# uncounted: nobody's fault (stopped, lost with its cluster, another configuration); asked again: it had been given up before.
Kind = Literal["infrastructure", "user", "final", "uncounted", "asked again"]

ATTEMPTS: dict[Kind, int] = {"infrastructure": 10, "user": 2, "final": 1}  # of each kind, until the job is given up
FINAL_CODES = {CONFIGURATION, GATE, RETRY}
FINAL_ERRORS = {"StageError", "TrainingDiverged"}
TOLD_TO_GO = {"Drained"}  # errors of a job that a node took with it
KILLED = {137, 143, -9, -15}  # exit codes of SIGKILL and SIGTERM, told by a shell or by the kernel
# After these of Ray's JobErrorType no process of the job can be left, or ever was.
SURELY_OVER = {
    "RUNTIME_ENV_SETUP_FAILURE",
    "JOB_SUPERVISOR_ACTOR_START_TIMEOUT",
    "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE",
    "JOB_ENTRYPOINT_COMMAND_START_ERROR",
    "JOB_ENTRYPOINT_COMMAND_ERROR",
}
OF_THE_JOB = {"RUNTIME_ENV_SETUP_FAILURE", "JOB_ENTRYPOINT_COMMAND_START_ERROR"}  # errors that its own description causes
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 3.0, 120.0
JITTER = 0.25


@dataclass(frozen=True)
class Ending:
    """How an attempt ended without its work being there."""

    kind: Kind
    exit_code: int | None
    message: str


@dataclass(frozen=True)
class Attempt:
    """One attempt, as its file has it."""

    number: int
    submission_id: str
    token: str  # drawn anew for each: a job of the same name that has another is of a run that was deleted
    spec_sha256: str
    cluster: str  # the session that it was meant for
    progress: int  # of the job, when the attempt was made
    time: float  # seconds since 1970
    not_before: float  # the same
    previous: Ending | None  # how the attempt before ended


@dataclass(frozen=True)
class GivenUp:
    """The end of a job: beside its last attempt, <k>.end.json."""

    ending: Ending
    time: float


@dataclass(frozen=True)
class History:
    """What is on storage of the attempts at one job, the oldest first."""

    attempts: tuple[Attempt, ...] = ()
    given_up: GivenUp | None = None  # after the last of them

    @property
    def newest(self) -> Attempt | None:
        return self.attempts[-1] if self.attempts else None

    def failures(self, kind: Kind, job: Job) -> int:
        """Endings of a kind that are on record and count: of the same work, since it was last asked for, and since it last got on."""
        found = 0
        for before, after in zip(self.attempts, self.attempts[1:]):
            ended = after.previous.kind if after.previous else None
            if ended == "asked again" or after.progress > before.progress:
                found = 0
            if ended == kind and before.spec_sha256 == job.spec_sha256:
                found += 1
        return 0 if self.attempts and job.progress > self.attempts[-1].progress else found


def history(run: Path, job: str, known: History) -> History:
    """What is on storage; files that are known already are not read again, for they never change."""
    names = storage.names(attempts_folder(run, job))
    have = {attempt.number: attempt for attempt in known.attempts}
    numbers = sorted(int(name.removesuffix(".json")) for name in names if name.removesuffix(".json").isdigit())
    attempts = tuple(have.get(number) or _attempt(storage.read_json(attempt_path(run, job, number)), number) for number in numbers)
    if not attempts or f"{numbers[-1]}.end.json" not in names:
        return History(attempts)
    values = storage.read_json(_end_path(run, job, numbers[-1]))
    return History(attempts, GivenUp(Ending(**values["ending"]), values["time"]))


def begin(run: Path, job: Job, attempt: Attempt) -> bool:
    """Make an attempt, which fences those before it; whether it was us who made it."""
    return storage.create(attempt_path(run, job.name, attempt.number), storage.as_json(asdict(attempt)))


def give_up(run: Path, job: str, number: int, end: GivenUp) -> bool:
    """Record that a job is not tried again; whether it was us who did."""
    return storage.create(_end_path(run, job, number), storage.as_json(asdict(end)))


def new_attempt(job: Job, number: int, submission_id: str, cluster: str, now: float, previous: Ending | None, failed: int) -> Attempt:
    """The next attempt.

    Args:
        failed: how often it failed as it did this time, this time included.
    """
    wait = backoff(job.name, number, failed) if previous and failed else 0.0
    return Attempt(number, submission_id, uuid.uuid4().hex[:12], job.spec_sha256, cluster, job.progress, now, now + wait, previous)


def backoff(job: str, number: int, failed: int) -> float:
    """Seconds to wait before an attempt: doubled each time, and drawn apart by the name, so that what failed together is not tried so."""
    draw = int.from_bytes(hashlib.sha256(f"{job} {number}".encode()).digest()[:4]) / 2**32
    return min(FIRST_BACKOFF_S * 2.0 ** (failed - 1), LONGEST_BACKOFF_S) * (1 + JITTER * (2 * draw - 1))


def is_due(attempt: Attempt, now: float) -> bool:
    """Whether it may be submitted; a controller whose clock is behind waits no longer than the longest wait there is."""
    return now >= attempt.not_before or attempt.not_before - now > LONGEST_BACKOFF_S * (1 + JITTER)


def is_in_doubt(state: State) -> bool:
    """Whether the process may be alive although the cluster calls the job over: after a failure of Ray's own servers."""
    return state.status == "FAILED" and state.exit_code is None and state.error_type not in SURELY_OVER


def classify(state: State, error: dict[str, Any] | None, entered: bool) -> Ending:
    """How a job ended that left nothing done.

    Args:
        error: what it wrote of its own end.
        entered: whether it ever came to its first line.
    """
    if state.status == "STOPPED":
        return Ending("uncounted", state.exit_code, "the job was stopped")
    if error is not None:
        code, kind = error["exit_code"], error["type"]
        if kind in TOLD_TO_GO:
            return Ending("infrastructure", code, error["message"])
        return Ending("final" if code in FINAL_CODES or kind in FINAL_ERRORS else "user", code, error["message"])
    message = state.message or f"the job ended as {state.status} without its result and without a word"
    code = state.exit_code
    own = state.error_type in OF_THE_JOB or (code is not None and code > 0 and code not in KILLED and not entered)
    return Ending("user" if own else "infrastructure", code, message)


def _attempt(values: dict[str, Any], number: int) -> Attempt:
    previous = values.pop("previous")
    return Attempt(**{**values, "number": number}, previous=Ending(**previous) if previous else None)


def _end_path(run: Path, job: str, number: int) -> Path:
    return attempts_folder(run, job) / f"{number}.end.json"
