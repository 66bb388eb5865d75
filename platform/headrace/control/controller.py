"""The loop that brings a run to its end: looks at storage, sees what is missing, has it done by Ray jobs.

Nothing is remembered: a stage is done iff its artifact is there, an attempt is known by its submission id. So the driver may be
killed at any moment, and the next one goes on from what it finds.
"""

from __future__ import annotations

import fcntl
import functools
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from headrace import pipeline, storage
from headrace.artifact import Artifact
from headrace.config import ConfigError
from headrace.control import cluster
from headrace.control.exits import CONFIGURATION, FAILED, GATE, RETRY, RunError
from headrace.control.jobs import Job, Jobs, State
from headrace.control.progress import RunProgress
from headrace.evaluate import watcher
from headrace.events import EventSink, event_log
from headrace.report import write_report
from headrace.run import RunConfig, resolved_yaml
from headrace.train.spec import resumable, train_spec, training_done
from headrace.train.start import record

log = logging.getLogger("headrace")

Upto = Literal["data", "train", "scores"]

TICK_S = 0.5
FINAL = {CONFIGURATION, GATE, RETRY}  # exit codes after which trying again would end the same way
FINAL_ERRORS = {"StageError", "TrainingDiverged"}  # and errors
ATTEMPTS = {"infrastructure": 4, "user": 2}  # what Ray or the machine broke is tried more often than what raised an error of its own
BACKOFF_S = 3.0
NICE = 19


@dataclass
class Pending:
    """A job that the loop is waiting for, or will try again at `not_before`."""

    job: Job
    done: Callable[[], bool]
    stage: str
    not_before: float = 0.0
    submission: str | None = None
    failures: int = 0
    infrastructure: int = 0


@dataclass
class Controller:
    """One run on one cluster."""

    config: RunConfig
    jobs: Jobs
    event: EventSink
    local: bool
    waiting: dict[str, Pending] = field(default_factory=dict)

    def run(self, upto: Upto) -> None:
        """Return when everything up to `upto` is on storage.

        Raises:
            RunError: a job failed for good.
        """
        with RunProgress(self.config.folder, self.config.train.steps) as progress:
            self._run(upto, progress)

    def _run(self, upto: Upto, progress: RunProgress) -> None:
        run = self.config.folder
        watcher.drop_pins(run)  # of an earlier driver's jobs; those still at work are pinned again when they are adopted
        tokens = self.tokens()
        if tokens is None:
            data = Job("data", "curate_corpus.py", (str(run),), {})
            self.wait_for(Pending(data, lambda: pipeline.finished(self.config) is not None, "data"), progress)
            tokens = self.tokens()
        assert tokens is not None
        if upto == "data":
            return
        spec = train_spec(self.config, tokens.folder)
        baselines = Job("baselines", "score_baselines.py", (str(run),), {"evaluate": 1}, self.nice)
        train = Job("train", "train_model.py", (str(run),), {})
        trained = training_done(spec)
        if not trained:
            self.start(Pending(train, lambda: training_done(spec), "train"))
        while True:
            progress.show()
            self.advance()
            if upto == "scores" and not any(name != "train" for name in self.waiting):
                self.next_evaluation(baselines, tokens)
            if not self.waiting:
                return
            time.sleep(TICK_S)

    @functools.cached_property
    def suites(self) -> list[watcher.Suite]:
        return suites_of(self.config)

    @property
    def nice(self) -> int:
        return NICE if self.local else 0

    def tokens(self) -> Artifact | None:
        return pipeline.finished(self.config)

    def next_evaluation(self, baselines: Job, tokens: Artifact) -> None:
        """Start one scoring job if one is owed: the `fast` suite and the newest checkpoint first, the baselines when none waits."""
        run = self.config.folder
        for checkpoint, suite in watcher.owed(run, self.suites):
            name = f"evaluate-{checkpoint.name}-{suite.name}"
            scored = functools.partial(watcher.is_scored, run, checkpoint, suite)
            job = Job(name, "evaluate_checkpoint.py", (str(run), checkpoint.name, suite.name), {"evaluate": 1}, self.nice)
            watcher.pin(run, checkpoint.name, name)
            self.start(Pending(job, scored, "evaluate"))
            return
        if not baselines_done(run, tokens.fingerprint):
            self.start(Pending(baselines, lambda: baselines_done(run, tokens.fingerprint), "baselines"))

    def start(self, pending: Pending) -> None:
        """Submit a job, or adopt the attempt that an earlier driver submitted."""
        self.waiting[pending.job.name] = pending
        state = self.jobs.latest(pending.job)
        if state and state.active:
            pending.submission = state.submission_id
            self.event(pending.stage, "adopted", job=state.submission_id)
            log.info("%s: still at work from before", pending.job.name)
            return
        self.submit(pending, state)

    def submit(self, pending: Pending, before: State | None) -> None:
        pending.submission = self.jobs.submit(pending.job, before.attempt + 1 if before else 1)
        self.event(pending.stage, "submitted", job=pending.submission)

    def wait_for(self, pending: Pending, progress: RunProgress) -> None:
        self.start(pending)
        while self.waiting:
            progress.show()
            self.advance()
            time.sleep(TICK_S)
        progress.show()

    def advance(self) -> None:
        """Look at each job that is waited for: done, at work, to be tried again, or failed for good."""
        for pending in list(self.waiting.values()):
            if pending.submission is None:
                if time.monotonic() >= pending.not_before:
                    self.submit(pending, self.jobs.latest(pending.job))
                continue
            state = self.jobs.latest(pending.job)
            if state and state.active:
                continue
            self.jobs.save_log(pending.submission)
            if pending.done():
                self.event(pending.stage, "job finished", job=pending.submission)
                self.finish(pending)
            else:
                self.retry(pending, state)

    def finish(self, pending: Pending) -> None:
        del self.waiting[pending.job.name]
        if pending.stage == "evaluate":
            watcher.unpin(self.config.folder, pending.job.arguments[1], pending.job.name)

    def retry(self, pending: Pending, state: State | None) -> None:
        """Try again what may succeed; end the run (or give up on a score) where it cannot."""
        assert pending.submission is not None
        error = self.jobs.error(pending.submission)
        code = error["exit_code"] if error else state.exit_code if state else None
        message = error["message"] if error else (state.message.strip() if state else "the cluster does not know the job any more")
        if error:
            pending.failures += 1
        else:
            pending.infrastructure += 1
        exhausted = pending.failures >= ATTEMPTS["user"] or pending.infrastructure >= ATTEMPTS["infrastructure"]
        self.event(pending.stage, "failed", job=pending.submission, exit_code=code, message=message)
        final = code in FINAL or (error is not None and error["type"] in FINAL_ERRORS)
        if not final and not exhausted:
            log.warning("%s: failed (%s); trying again", pending.job.name, message)
            pending.submission, pending.not_before = None, time.monotonic() + BACKOFF_S
            self.event(pending.stage, "retried", job=pending.job.name)
            return
        if pending.stage == "evaluate":
            attempts = pending.failures + pending.infrastructure
            watcher.record_failure(self.config.folder, pending.job.arguments[1], pending.job.arguments[2], message, attempts)
            log.warning("%s: given up after %d attempts: %s", pending.job.name, attempts, message)
            self.finish(pending)
            return
        raise RunError(
            f"{message}\n(log: {self.config.folder / 'control' / 'logs' / pending.submission}.log)", code if code in FINAL else FAILED
        )


def suites_of(config: RunConfig) -> list[watcher.Suite]:
    """What every checkpoint of the run is scored on."""
    plan = pipeline.stage_plans(config)["decontaminate"] if config.decontaminate else None
    return watcher.suites(config.evaluate, plan.fingerprint if plan else None)


def baselines_done(run: Path, tokens_fingerprint: str) -> bool:
    try:
        found = storage.read_json(run / "eval" / "baselines.json")
    except FileNotFoundError:
        return False
    return bool(found.get("tokens_fingerprint") == tokens_fingerprint)


def is_finished(config: RunConfig, upto: Upto) -> bool:
    """Whether there is nothing to do: known from storage alone, without a cluster."""
    tokens = pipeline.finished(config)
    if tokens is None:
        return False
    if upto == "data":
        return True
    if not training_done(train_spec(config, tokens.folder)):
        return False
    return upto == "train" or (not watcher.owed(config.folder, suites_of(config)) and baselines_done(config.folder, tokens.fingerprint))


def refuse_other_training(config: RunConfig, upto: Upto) -> None:
    """Say before any work that the folder's checkpoints could not be gone on from: the data's name is known before it is made.

    Raises:
        ConfigError: with every field that differs.
    """
    if upto != "data":
        plan = pipeline.stage_plans(config)["tokens"]
        resumable(train_spec(config, config.folder / "data" / "tokens" / plan.fingerprint), plan.fingerprint)


def run_on_cluster(config: RunConfig, upto: Upto) -> bool:
    """Bring the run up to `upto`; whether there was anything to do.

    Raises:
        ConfigError: the folder cannot be written to, another driver is at work on it, or its training had another configuration.
        RunError: a job failed for good.
    """
    if upto == "scores" and config.model.architecture != "decoder":
        raise ConfigError(
            f"model.architecture = {config.model.architecture}: checkpoints are scored as decoders; "
            f"`headrace train` trains it without scores."
        )
    run = storage.writable_folder(config.folder, "out")
    with sole_driver(run):
        event = event_log(run)
        refuse_other_training(config, upto)
        if config.train.start is not None:
            record(config.train.start, run)
        pipeline.refer(config)
        storage.note(run / "config.yaml", resolved_yaml(config).encode())
        if is_finished(config, upto):
            return False
        control = run / "control"
        with cluster.Heartbeat(control):
            started = time.monotonic()
            running = connect(config, control)
            event("cluster", "finished", seconds=round(time.monotonic() - started, 3), address=running.address)
            local = running.keeper is not None
            try:
                jobs = Jobs(run, running)
                try:
                    Controller(config, jobs, event, local).run(upto)
                except BaseException:
                    for submission in jobs.active():
                        jobs.stop(submission)
                    raise
            finally:
                if local:
                    started = time.monotonic()
                    cluster.stop(control)
                    event("shutdown", "finished", seconds=round(time.monotonic() - started, 3))
        write_report(run)
        return True


def connect(config: RunConfig, control: Path) -> cluster.Running:
    """The cluster that the configuration names, or the run's own local one."""
    if config.cluster.address:
        return cluster.Running(config.cluster.address, os.environ.get("RAY_AUTH_TOKEN_PATH"), None)
    return cluster.start_local(control, config.cluster.cores, config.workers)


@contextmanager
def sole_driver(run: Path) -> Iterator[None]:
    """Hold the run's lock; the kernel lets go of it when the driver dies, however it dies.

    Raises:
        ConfigError: another driver holds it.
    """
    path = run / "control" / "driver.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.seek(0)
            raise ConfigError(f"{run}: process {handle.read().strip() or '?'} is at work on this run; wait for it, or stop it.") from None
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield
