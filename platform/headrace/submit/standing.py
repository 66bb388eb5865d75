"""How a run stands: what is done, at work, pending, failed. Said by its folder alone, and by the cluster where it can be asked."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from headrace import storage
from headrace.artifact import MANIFEST, STAGES
from headrace.checkpoint import committed
from headrace.checkpoint.canonical import step_of
from headrace.config import ConfigError
from headrace.control import cluster
from headrace.control.exits import RunError
from headrace.control.look import Upto, baselines_done
from headrace.evaluate import watcher
from headrace.run import RunConfig, open_run
from headrace.submit.remote import Remote, RemoteJob, connect, own
from headrace.submit.submission import Placement, Submission, called, is_doomed, jobs_of, newest_driver, recorded

ORDER: tuple[Upto, ...] = ("data", "train", "scores")
STATUS = {"PENDING": "pending", "RUNNING": "at work", "SUCCEEDED": "done", "FAILED": "failed", "STOPPED": "stopped"}
HEARD_S = 120.0  # a driver that wrote an event so lately is taken to be at work, where nobody can be asked


def standing(run: Path, remote: Remote | None = None) -> dict[str, Any]:
    """How a run stands, in plain values.

    Args:
        remote: the cluster to be asked; None = the one that the run was submitted to, or its own local one, where there is either.

    Returns:
        {"run", "state": "at work" | "pending" | "done" | "failed" | "idle" | "unknown", "message": why or null, "finished": the last of
        data, train, scores that is all there or null, "updated": seconds since 1970 of the last event or null, "driver", "stages",
        "progress", "training", "checkpoints", "jobs"}. "idle": nobody is at work on it, and nothing failed.

    Raises:
        ConfigError: there is no run.
    """
    submission = recorded(run)
    if submission is None and not storage.present(run / "config.yaml"):
        raise ConfigError(f"{called(run)}: no run there (config.yaml is missing); give the folder that `out` named.")
    asked = Asked(run, submission, remote)
    events = storage.read_lines(run / "events.jsonl")
    config = open_run(run) if storage.present(run / "config.yaml") else None
    finished = finished_part(run, config) if config else None
    jobs = _jobs(events, asked)
    failure = next((job for job in reversed(jobs) if job["status"] == "failed"), None)
    failed = failure is not None and failure is jobs[-1]
    state, message = _state(asked, _covers(finished, wanted(config, submission)), failure if failed else None, events)
    return {
        "run": called(run),
        "state": state,
        "message": message,
        "finished": finished,
        "updated": events[-1]["time"] if events else None,
        "driver": asked.driver,
        "stages": stages(run),
        "progress": _progress(events) if state == "at work" else [],
        "training": training(run, config),
        "checkpoints": checkpoints(run),
        "jobs": jobs,
    }


class Asked:
    """What is known of who drives the run: a process of this machine, or a job of a cluster."""

    def __init__(self, run: Path, submission: Submission | None, remote: Remote | None) -> None:
        self.problem: str | None = None
        self.jobs: list[RemoteJob] = []
        self.job: RemoteJob | None = None
        self.pid = local_driver(run)
        self.submission = submission
        try:
            remote = remote or cluster_of(run)
            if remote is not None:
                everything = remote.jobs()
                self.job = newest_driver([job for job in everything if not is_doomed(job, submission)], run)
                self.jobs = jobs_of(run, everything)
        except (ConfigError, RunError) as error:
            self.problem = str(error)

    @property
    def at_work(self) -> bool | None:
        """Whether somebody drives the run; None where that cannot be known."""
        if self.pid is not None or (self.job is not None and self.job.active):
            return True
        return None if self.problem else False

    @property
    def driver(self) -> dict[str, Any] | None:
        if self.pid is not None and not (self.job is not None and self.job.active):  # a job of this machine is a process of it, too
            return {"kind": "process", "pid": self.pid}
        if self.job is not None:
            return {"kind": "job", "submission_id": self.job.submission_id, "status": self.job.status, "exit_code": self.job.exit_code}
        if self.submission is not None:
            return {"kind": "job", "submission_id": self.submission.submission_id, "status": None, "exit_code": None}
        return None


def cluster_of(run: Path) -> Remote | None:
    """The cluster that a run is at work on: its own local one, or the one that it was submitted to; None for neither.

    Raises:
        ConfigError, RunError: it refuses us, or does not answer.
    """
    running = cluster.find_running(storage.machine(run / "control"))
    if running is not None:
        return own(running)
    submission = recorded(run)
    return None if submission is None else connect(submission.address)


def local_driver(run: Path) -> int | None:
    """Process id of the driver at work on the run on this machine; the file that it holds open tells it from one that had its number."""
    path = storage.machine(run / "control" / "driver.lock")
    with contextlib.suppress(OSError, ValueError, psutil.Error):
        pid = int(path.read_text())
        if any(Path(file.path).samefile(path) for file in psutil.Process(pid).open_files()):
            return pid
    return None


def _state(asked: Asked, done: bool, failure: Mapping[str, Any] | None, events: Sequence[Mapping[str, Any]]) -> tuple[str, str | None]:
    if asked.at_work:
        if asked.job is not None and asked.job.status == "PENDING":
            return "pending", asked.job.message + _asks_for(asked.submission)
        return "at work", None
    if done:
        return "done", None
    if asked.at_work is None:
        lately = bool(events) and time.time() - events[-1]["time"] < HEARD_S
        return ("at work" if lately else "unknown"), asked.problem
    if asked.job is not None and asked.job.status == "FAILED":
        return "failed", failure["message"] if failure else own_sentence(asked.job)
    if failure is not None:
        return "failed", failure["message"]
    return "idle", None


def _asks_for(submission: Submission | None) -> str:
    """What the driver was told to wait for, which Ray's message does not say."""
    placement = submission.placement if submission else Placement()
    asked = [f"{name}={value}" for name, value in (*placement.labels.items(), *placement.resources.items())]
    return f" Its node must have {', '.join(asked)}." if asked else ""


def own_sentence(job: RemoteJob) -> str:
    """What a failed job said of its end: the lines that are ours, else the last that it wrote."""
    lines = [line.strip() for line in job.message.splitlines() if line.strip()]
    ours = [line.removeprefix("headrace: ") for line in lines if line.startswith("headrace: ")]
    return "\n".join(ours) or (lines[-1] if lines else "no reason was left")


def wanted(config: RunConfig | None, submission: Submission | None) -> Upto:
    """What the run is brought up to: as it was submitted, else to the scores, where its kind of model has them."""
    if submission is not None:
        return submission.upto
    return "scores" if config is None or config.model.architecture == "decoder" else "train"


def _covers(finished: Upto | None, upto: Upto) -> bool:
    return finished is not None and ORDER.index(finished) >= ORDER.index(upto)


def finished_part(run: Path, config: RunConfig) -> Upto | None:
    """The last part of the run that is all there; what is committed is not looked into again."""
    names = _current(run)
    if "tokens" not in names or not storage.present(run / "data" / "tokens" / names["tokens"] / MANIFEST):
        return None
    made = committed(run / "train" / "checkpoints")
    if not made or step_of(made[-1]) < config.train.steps:
        return "data"
    suites = watcher.suites(config.evaluate, names.get("decontaminate"))
    return "train" if watcher.owed(run, suites) or not baselines_done(run, names["tokens"]) else "scores"


def _current(run: Path) -> dict[str, str]:
    try:
        return dict(storage.read_json(run / "data" / "current.json"))
    except FileNotFoundError:
        return {}


def stages(run: Path) -> list[dict[str, Any]]:
    """The data stages of the run in order: {"stage", "done", "rows_in", "rows_out"}; rows are null before it is done."""
    names = _current(run)
    found = []
    for stage in (stage for stage in STAGES if stage in names):
        try:
            totals = storage.read_json(run / "data" / stage / names[stage] / MANIFEST)["totals"]
        except FileNotFoundError:
            totals = None
        rows = {name: totals.get(name) if totals else None for name in ("rows_in", "rows_out")}
        found.append({"stage": stage, "done": totals is not None, **rows})
    return found


def training(run: Path, config: RunConfig | None) -> dict[str, Any] | None:
    """The last step's line, the steps of the whole and the seconds left; null before the first step."""
    lines = storage.read_lines(run / "train" / "metrics.jsonl")
    if not lines:
        return None
    last = lines[-1]
    steps = config.train.steps if config else None
    rates = sorted(line["tokens_per_s"] for line in lines[-20:])
    left = (steps - last["step"]) * last["tokens"] / last["step"] if steps else None
    rate = rates[len(rates) // 2]  # the first steps are slow, and so is one that waits for a checkpoint
    return {
        **{name: last.get(name) for name in ("step", "loss", "tokens", "tokens_per_s")},
        "steps": steps,
        "seconds_left": round(left / rate, 1) if left is not None and rate > 0 else None,
    }


def checkpoints(run: Path) -> dict[str, Any]:
    """{"committed": how many, "newest": step, "scored": how many, "score": {"step", "validation_loss", "bits_per_byte"} of the newest}."""
    made = committed(run / "train" / "checkpoints")
    scores = [score for name in storage.names(run / "eval") if (score := _score(run, name)) is not None]
    return {
        "committed": len(made),
        "newest": step_of(made[-1]) if made else None,
        "scored": len(scores),
        "score": max(scores, key=lambda score: score["step"], default=None),
    }


def _score(run: Path, checkpoint: str) -> dict[str, Any] | None:
    try:
        result = storage.read_json(run / "eval" / checkpoint / "fast.json")
    except (FileNotFoundError, NotADirectoryError):
        return None
    if result.get("status") == "failed":
        return None
    bits = [row["value"] for row in result["metrics"] if row["metric"] == "bits_per_byte" and row["source"] == "all"]
    return {
        "step": int(checkpoint.removeprefix("step-")),
        "validation_loss": result["validation_loss"],
        "bits_per_byte": bits[0] if bits else None,
    }


def _progress(events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The last word of every stage that is under way."""
    found: dict[str, dict[str, Any]] = {}
    for event in events:
        if event["event"] == "progress":
            found[event["stage"]] = dict(event)
        elif event["event"] in {"finished", "skipped", "job finished", "failed"}:
            found.pop(event["stage"], None)
    return list(found.values())


def _jobs(events: Sequence[Mapping[str, Any]], asked: Asked) -> list[dict[str, Any]]:
    """The run's jobs in the order of their last news: {"job", "stage", "status", "message", "exit_code"}.

    status: "pending", "at work", "done", "failed", "stopped", or "unknown" where the driver is gone and the cluster cannot be asked.
    """
    found: dict[str, dict[str, Any]] = {}
    for job, stage, status, about in _news(events):
        found.pop(job, None)
        found[job] = {"job": job, "stage": stage, "status": status, "message": None, "exit_code": None, **about}
    known = {job.submission_id: job for job in asked.jobs}
    for name, entry in found.items():
        if entry["status"] == "at work":
            remote = known.get(name)
            entry["status"] = STATUS[remote.status] if remote else "at work" if asked.at_work else "unknown"
            entry["message"] = remote.message or None if remote and remote.status == "PENDING" else None
    return list(found.values())


def _news(events: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    for event in events:
        if "job" not in event:
            continue
        stage, what = event["stage"], event["event"]
        if what in {"submitted", "adopted"}:
            yield event["job"], stage, "at work", {}
        elif what == "job finished":
            yield event["job"], stage, "done", {}
        elif what == "failed":
            yield event["job"], stage, "failed", {"message": event.get("message"), "exit_code": event.get("exit_code")}
