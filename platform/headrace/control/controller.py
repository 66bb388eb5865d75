"""The loop that brings a run to its end: looks at storage and at the cluster, decides, acts, and forgets.

What it decides is a pure function (`control.reconcile`) of what is on storage (`control.look`); attempts are booked there, too
(`control.attempts`). So a controller may be killed at any moment and the next one goes on from what it finds, and two at once do the work
of one.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from headrace import pipeline, storage
from headrace.checkpoint.retention import prune
from headrace.config import ConfigError
from headrace.control import attempts, cluster
from headrace.control.attempts import GivenUp
from headrace.control.exits import FAILED, RETRY, RunError
from headrace.control.jobs import Job, Jobs, Unreachable
from headrace.control.look import Lookout, Upto, is_finished, suites_of
from headrace.control.progress import RunProgress
from headrace.control.reconcile import Action, Adopt, Begin, Finish, GiveUp, Plan, Submit, View, plan
from headrace.control.waiting import Waiting
from headrace.evaluate import watcher
from headrace.events import EventSink, event_log
from headrace.observe.copies import copied
from headrace.observe.follow import Follower
from headrace.report import write_report
from headrace.run import RunConfig, resolved_yaml
from headrace.train.spec import resumable, train_spec
from headrace.train.start import record

log = logging.getLogger("headrace")

TICK_S, TICK_FAR_S = 0.5, 2.0  # between two looks while something is at work: on this machine, and over a network
SLOTS_FAR = 8  # evaluations at once on a cluster that may have room for them; those without wait there
NICE = 19
PATIENCE_S = 600.0  # so long may the cluster, or the storage, be away
AGAIN_S = 2.0  # after it did not answer


class GaveWay(ConfigError):
    """Another command has taken the run over."""


@dataclass
class Controller:
    """One run on one cluster."""

    config: RunConfig
    jobs: Jobs
    event: EventSink
    local: bool
    upto: Upto
    exists: Callable[[], bool] = lambda: True  # whether the cluster is still there, as far as this machine can tell
    clock: Callable[[], float] = time.time
    tell_of_demand: Callable[[], None] = lambda: None  # says what the cluster has no room for
    following: set[str] = field(default_factory=set)  # submissions seen at work, to tell of their end
    _away_since: float | None = None
    _sure: bool = False

    def __post_init__(self) -> None:
        nice, slots = (NICE, 1) if self.local else (0, SLOTS_FAR)
        self.lookout = Lookout(self.config, self.jobs, self.upto, slots, nice, self.clock)
        self._written = _meant(storage.read_bytes(self.config.folder / "config.yaml"))
        self._read = b""

    def run(self) -> None:
        """Return when everything is on storage.

        Raises:
            RunError: a job failed for good, or the cluster is away.
            GaveWay: another command began the run anew with another configuration.
        """
        run, steps = self.config.folder, self.config.train.steps
        with (
            copied(run, self.config.report, steps),
            Follower(run, steps, [suite.name for suite in suites_of(self.config)], self.event) as follower,
            RunProgress(run, steps, follower) as progress,
        ):
            while True:
                progress.show()
                self.tell_of_demand()
                started = time.monotonic()
                done = self.reconcile()
                if done.finished:
                    progress.show()
                    return
                time.sleep(max(done.look_in_s, time.monotonic() - started))  # no more than half of the time goes into looking

    def reconcile(self) -> Plan:
        """Look, decide and act once."""
        try:
            self._give_way()
            view = self.lookout.view(frozenset(self.following))
            decided = plan(view, self.clock(), TICK_S if self.local else TICK_FAR_S)
            for action in decided.actions:
                self._act(action, view)
            self._unpin(view)
        except (Unreachable, storage.StorageError) as error:
            self._bear(error)
            return Plan((), AGAIN_S, False)
        self._away_since = None
        if decided.finished and not self._sure:
            # Scores that were found a while ago are looked at once more before the run is called done.
            self._sure = True
            self.lookout.forget_scores()
            return Plan(decided.actions, 0.0, False)
        self._sure = decided.finished
        return decided

    def _act(self, action: Action, view: View) -> None:
        if isinstance(action, Begin):
            self._begin(action, view)
        elif isinstance(action, Submit):
            self._pin(action.job)
            self._submit(action.job, action.number, action.submission_id, action.token)
        elif isinstance(action, Adopt):
            self._pin(action.job)
            self.following.add(action.submission_id)
            self.event(action.job.stage, "adopted", job=action.submission_id)
            log.info("%s: still at work from before", action.job.name)
        elif isinstance(action, Finish):
            self.jobs.save_log(action.submission_id)
            self.event(action.stage, "job finished", job=action.submission_id)
            storage.join(self.config.folder)
            self.following.discard(action.submission_id)
        else:
            self._give_up(action)

    def _begin(self, action: Begin, view: View) -> None:
        """Book the attempt before as ended and the next one as begun, in one write; who comes second with it does nothing."""
        job, before = action.job, self.jobs.submission_id(action.job.name, action.number - 1)
        self._pin(job)
        name, now = self.jobs.submission_id(job.name, action.number), self.clock()
        attempt = attempts.new_attempt(job, action.number, name, view.listing.cluster, now, action.previous, action.failed)
        known = before in self.following
        self.following.discard(before)
        if not attempts.begin(self.config.folder, job, attempt):
            return
        if action.stop is not None:
            with contextlib.suppress(Unreachable):  # it is fenced
                self.jobs.stop(action.stop)
        if action.previous is not None and (action.failed or known):
            self._tell_of_failure(job, before, action.previous.exit_code, action.previous.message)
            log.warning("%s: failed (%s); trying again in %.0f s", job.name, action.previous.message, max(0.0, attempt.not_before - now))
            self.event(job.stage, "retried", job=job.name)
        if attempts.is_due(attempt, now):
            self._submit(job, attempt.number, attempt.submission_id, attempt.token)

    def _submit(self, job: Job, number: int, submission_id: str, token: str) -> None:
        if self.jobs.submit(job, number, token):
            self.event(job.stage, "submitted", job=submission_id)
        self.following.add(submission_id)

    def _give_up(self, action: GiveUp) -> None:
        run, job, ending = self.config.folder, action.job, action.ending
        if attempts.give_up(run, job.name, action.number, GivenUp(ending, self.clock())):
            self._tell_of_failure(job, action.submission_id, ending.exit_code, ending.message)
        self.following.discard(action.submission_id)
        if job.stage != "evaluate":
            code = ending.exit_code if ending.exit_code in attempts.FINAL_CODES else FAILED
            raise RunError(f"{ending.message}\n(log: {storage.name(self.jobs.log_path(action.submission_id))})", code)
        watcher.record_failure(run, job.arguments[1], job.arguments[2], ending.message, action.attempts)
        log.warning("%s: given up after %d attempts: %s", job.name, action.attempts, ending.message)

    def _tell_of_failure(self, job: Job, submission_id: str, code: int | None, message: str) -> None:
        self.jobs.save_log(submission_id)
        self.event(job.stage, "failed", job=submission_id, exit_code=code, message=message)

    def _pin(self, job: Job) -> None:
        """Keep a checkpoint from retention for as long as one of its evaluations is under way, from before its first attempt."""
        if job.stage == "evaluate":
            watcher.pin(self.config.folder, job.arguments[1], job.name)

    def _unpin(self, view: View) -> None:
        """Let go of what no evaluation is under way of; whoever pinned it."""
        wanted = {job.name for job in view.wanted}
        for pin in storage.names(self.config.folder / "train" / "pins"):
            checkpoint, _, holder = pin.partition(".")
            if holder.startswith("evaluate-") and holder not in wanted:
                watcher.unpin(self.config.folder, checkpoint, holder)

    def _give_way(self) -> None:
        """Of two commands with different configurations the later goes on: both would have the jobs of the other made anew for ever."""
        found = storage.read_bytes(self.config.folder / "config.yaml")
        if found != self._read and _meant(found) != self._written:
            raise GaveWay(
                f"{storage.name(self.config.folder)}: another command has begun this run with another configuration and goes on with it; "
                f"this one leaves it to that."
            )
        self._read = found

    def _bear(self, error: Exception) -> None:
        """Wait for what does not answer, for a while.

        Raises:
            RunError: it was away for too long, or it is gone.
        """
        if not self.exists():
            raise RunError("the run's local cluster is gone (was it killed?); the same command goes on from here.", RETRY) from None
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
            log.warning("%s; looking again for up to %.0f s", error, PATIENCE_S)
        if now - self._away_since > PATIENCE_S:
            raise RunError(f"{self.jobs.address}: no answer for {PATIENCE_S:.0f} s ({error}); the same command goes on from here.", RETRY)


def _meant(content: bytes) -> dict[str, object]:
    """A configuration without where its jobs go, which may be named differently from elsewhere."""
    values = yaml.safe_load(content)
    return {key: value for key, value in values.items() if key != "cluster"}


def refuse_other_training(config: RunConfig, upto: Upto) -> None:
    """Say before any work that the folder's checkpoints could not be gone on from: the data's name is known before it is made.

    Raises:
        ConfigError: with every field that differs.
    """
    if upto != "data":
        tokens = pipeline.stage_plans(config)["tokens"]
        resumable(train_spec(config, config.folder / "data" / "tokens" / tokens.fingerprint), tokens.fingerprint)


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
            _let_go(config, upto)  # a driver may have been killed before it did
            return False
        control = storage.machine(run / "control")
        with cluster.Heartbeat(control):
            started = time.monotonic()
            running = connect(config, control)
            event("cluster", "finished", seconds=round(time.monotonic() - started, 3), address=running.address)
            local = running.keeper is not None
            try:
                jobs = Jobs(run, running)
                with _stopped_on_error(jobs):
                    tell = (lambda: None) if local else Waiting(jobs.status).look
                    exists = (lambda: cluster.find_running(control) is not None) if local else (lambda: True)
                    Controller(config, jobs, event, local, upto, exists, tell_of_demand=tell).run()
                _let_go(config, upto)
            finally:
                if local:
                    started = time.monotonic()
                    cluster.stop(control)
                    event("shutdown", "finished", seconds=round(time.monotonic() - started, 3))
                storage.join(run)
        write_report(run)
        return True


def _let_go(config: RunConfig, upto: Upto) -> None:
    """Delete the checkpoints that waited for their scores alone: training, which deletes the others, ended before these came."""
    if upto == "scores":
        settings = config.train.checkpoint
        prune(config.folder, settings.keep, [suite.name for suite in suites_of(config)], settings.milestones, settings.best)


@contextmanager
def _stopped_on_error(jobs: Jobs) -> Iterator[None]:
    """Inside, an error or an interrupt stops the run's jobs; a command that gave way leaves them to the other."""
    try:
        yield
    except GaveWay:
        raise
    except BaseException:
        with contextlib.suppress(Unreachable):
            for submission in jobs.active():
                jobs.stop(submission)
        raise


def connect(config: RunConfig, control: Path) -> cluster.Running:
    """The cluster that the configuration names, or the run's own local one."""
    if config.cluster.address:
        return cluster.remote(config.cluster.address)
    return cluster.start_local(control, config.cluster.cores, config.workers)


@contextmanager
def sole_driver(run: Path) -> Iterator[None]:
    """Hold the run's lock on this machine; the kernel lets go of it when the driver dies, however it dies.

    It spares a user two commands at once. Elsewhere there may be others all the same: nothing rests on it.

    Raises:
        ConfigError: another driver holds it.
    """
    path = storage.machine(run / "control" / "driver.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.seek(0)
            who = f"process {handle.read().strip() or '?'}"
            raise ConfigError(f"{storage.name(run)}: {who} is at work on this run; wait for it, or stop it.") from None
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield
