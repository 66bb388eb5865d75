"""What a run's folder and its cluster show: the view that the controller decides on.

What is remembered between two looks only saves reading again what cannot have changed, or is read again every so often; a controller
that was killed loses nothing by it.
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from headrace import pipeline, storage
from headrace.artifact import Artifact
from headrace.checkpoint import committed
from headrace.checkpoint.canonical import MANIFEST, step_of
from headrace.control.attempts import Ending, History, classify, history, is_in_doubt
from headrace.control.jobs import Job, Jobs, Listing, State, beat_path
from headrace.control.reconcile import View
from headrace.evaluate import watcher
from headrace.run import RunConfig
from headrace.train.spec import train_spec, training_done

Upto = Literal["data", "train", "scores"]

BEAT_PATIENCE_S = 20.0  # without a new sign of life, before a job in doubt counts as dead; four of its beats
RECHECK_S = 300.0  # a score is looked at again after this: its checkpoint may have been made anew, or somebody has scored it by hand


class Lookout:
    """Looks at one run for one controller."""

    def __init__(self, config: RunConfig, jobs: Jobs, upto: Upto, slots: int, nice: int, clock: Callable[[], float] = time.time) -> None:
        """
        Args:
            slots: evaluations that may be at work at once.
            nice: of jobs that must not hold up training.
        """
        self._config, self._jobs, self._upto, self._slots, self._nice, self._clock = config, jobs, upto, slots, nice, clock
        self._run = config.folder
        self._since = clock()
        self._histories: dict[str, History] = {}
        self._beats: dict[str, tuple[bytes | None, float]] = {}  # of jobs in doubt: the last one, and when it was new
        self._looked: dict[str, tuple[Any, Any]] = {}  # what was found, and under which circumstances
        self._scored: dict[tuple[str, str], tuple[bool, float]] = {}  # of a checkpoint and suite: whether, and when to look again
        self._digests: dict[str, tuple[str, float]] = {}  # of a checkpoint's manifest, likewise

    def view(self, following: frozenset[str]) -> View:
        """How the run stands.

        Args:
            following: submissions that the controller saw at work.

        Raises:
            Unreachable: the cluster does not answer.
            ConfigError: the folder holds the training of another configuration.
        """
        # Before storage: what is over by then had made all that it made.
        listing = self._jobs.listing()
        attempted = set(storage.names(self._run / "control" / "attempts"))
        self._read_histories(attempted & {"data", "train"})
        wanted, complete = self._wanted(listing, attempted)
        self._read_histories(attempted & {job.name for job in wanted if job.name not in {"data", "train"}})
        histories = {job.name: self._histories[job.name] for job in wanted if job.name in self._histories}
        states = [state for name in histories if (state := self._state(name, listing)) is not None and not state.active]
        alive = frozenset(state.submission_id for state in states if self._is_alive(state))
        return View(
            listing=listing,
            wanted=tuple(wanted),
            complete=complete,
            histories=histories,
            alive=alive,
            endings={state.submission_id: self._ending(state) for state in states if state.submission_id not in alive},
            following=following,
            slots=self._slots,
            since=self._since,
        )

    def forget_scores(self) -> None:
        """Have every score looked for again."""
        self._scored.clear()
        self._digests.clear()

    @functools.cached_property
    def _plans(self) -> dict[str, pipeline.StagePlan]:
        return pipeline.stage_plans(self._config)

    def _read_histories(self, jobs: set[str]) -> None:
        for job in jobs:
            self._histories[job] = history(self._run, job, self._histories.get(job, History()))

    def _state(self, job: str, listing: Listing) -> State | None:
        newest = self._histories.get(job, History()).newest
        return listing.states.get(newest.submission_id) if newest else None

    def _is_alive(self, state: State) -> bool:
        """Whether a job that the cluster calls over gives signs of life."""
        return is_in_doubt(state) and self._jobs.error(state.submission_id) is None and self._beats_on(state.submission_id)

    def _beats_on(self, id: str) -> bool:
        """Whether a job in doubt gave a sign of life of late. By this process's clock alone: nobody's is compared with another's."""
        found, now = _content(beat_path(self._run, id)), self._clock()
        before, since = self._beats.get(id, (None, now))
        if id not in self._beats or found != before:
            self._beats[id], since = (found, now), now
        return now - since < BEAT_PATIENCE_S

    def _ending(self, state: State) -> Ending:
        entered = storage.present(beat_path(self._run, state.submission_id))
        return classify(state, self._jobs.error(state.submission_id), entered)

    def _wanted(self, listing: Listing, attempted: set[str]) -> tuple[list[Job], bool]:
        """Jobs whose work is not there and can be done now, the most urgent first; and whether that was all."""
        run = storage.name(self._run)
        tokens: Artifact | None = self._found("data", listing, None, lambda: pipeline.finished(self._config))
        if tokens is None:
            return [Job("data", "curate_corpus.py", (run,), {}, goal=self._plans["tokens"].fingerprint)], False
        if self._upto == "data":
            return [], True
        spec = train_spec(self._config, tokens.folder)
        checkpoints = committed(self._run / "train" / "checkpoints")
        newest = checkpoints[-1].name if checkpoints else None
        trained = self._found("train", listing, newest, lambda: training_done(spec) or None)
        wanted = []
        if not trained:
            goal = hashlib.sha256(storage.as_json(storage.portable([spec, tokens.fingerprint]))).hexdigest()
            progress = step_of(checkpoints[-1]) if checkpoints else 0
            wanted.append(Job("train", "train_model.py", (run,), {}, goal=goal, progress=progress))
        if self._upto == "train":
            return wanted, bool(trained)
        owed = self._owed(checkpoints, listing, attempted)
        if not baselines_done(self._run, tokens.fingerprint):
            baselines = Job("baselines", "score_baselines.py", (run,), {"evaluate": 1}, self._nice, tokens.fingerprint)
            owed.append(baselines)
        return wanted + owed, bool(trained) and not owed

    def _found(self, job: str, listing: Listing, more: Any, find: Callable[[], Any]) -> Any:
        """What `find` finds of a job's work; it reads much, so it is asked again only if something has happened to the job since.

        While the job is at work, its work counts as not there: it is waited for to the end.
        """
        state, newest = self._state(job, listing), self._histories.get(job, History()).newest
        seen, found = self._looked.get(job, (None, None))
        if found is not None:
            return found
        alive = state is not None and (state.active or self._is_alive(state))
        circumstances = (newest and newest.number, state and state.status, more)
        if not alive and seen != circumstances:
            found = find()
            self._looked[job] = (circumstances, found)
        return found

    def _owed(self, checkpoints: list[Path], listing: Listing, attempted: set[str]) -> list[Job]:
        """One job for each checkpoint and suite without a result, as `watcher.owed` has them."""
        now = self._clock()
        names = {folder.name for folder in checkpoints}
        self._scored = {key: known for key, known in self._scored.items() if key[0] in names}
        self._digests = {name: known for name, known in self._digests.items() if name in names}
        results = set(storage.names(self._run / "eval"))
        found = []
        for suite in suites_of(self._config, self._plans):
            for folder in reversed(checkpoints):
                key, name = (folder.name, suite.name), f"evaluate-{folder.name}-{suite.name}"
                scored, until = self._scored.get(key, (False, 0.0))
                # A result comes from an attempt; where none was made, or it is at work, there is nothing to look for each time.
                state = self._state(name, listing)
                if until <= now or (not scored and name in attempted and not (state and state.active)):
                    scored = folder.name in results and watcher.is_scored(self._run, folder, suite)
                    self._scored[key] = (scored, now + RECHECK_S * (0.5 + 0.5 * _spread(key)))  # drawn apart: not all in one look
                if scored:
                    continue
                goal = f"{self._digest(folder, now)} {storage.as_json(dict(suite.settings)).decode()}"
                arguments = (storage.name(self._run), folder.name, suite.name)
                found.append(Job(name, "evaluate_checkpoint.py", arguments, {"evaluate": 1}, self._nice, goal))
        return found

    def _digest(self, folder: Path, now: float) -> str:
        digest, until = self._digests.get(folder.name, ("", 0.0))
        if until <= now:
            digest = str(storage.file_entry(folder, folder / MANIFEST)["sha256"])
            self._digests[folder.name] = (digest, now + RECHECK_S * (0.5 + 0.5 * _spread(folder.name)))
        return digest


def suites_of(config: RunConfig, plans: Mapping[str, pipeline.StagePlan] | None = None) -> list[watcher.Suite]:
    """What every checkpoint of the run is scored on.

    Args:
        plans: the run's stages; None = they are planned, which reads the input files.
    """
    plan = (plans or pipeline.stage_plans(config))["decontaminate"] if config.decontaminate else None
    return watcher.suites(config.evaluate, plan.fingerprint if plan else None)


def baselines_done(run: Path, tokens_fingerprint: str) -> bool:
    try:
        found: Mapping[str, Any] = storage.read_json(run / "eval" / "baselines.json")
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


def _content(path: Path) -> bytes | None:
    try:
        return storage.as_json(storage.read_json(path))
    except (FileNotFoundError, ValueError):
        return None


def _spread(key: object) -> float:
    """A number in [0, 1) that follows from a name."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:4]) / 2**32
