"""Who may commit: the newest attempt at a job and, of training, the newest group of workers within it.

An attempt is a file, RUN/control/attempts/<job>/<k>.json, made only if absent and never changed. Whoever makes attempt k+1 fences
attempt k: a job that was given up for dead and comes back, on a node that was cut off say, finds the file before it commits anything,
and ends. A look and the commit behind it are two operations, so a process that is stopped between them gets through; what it commits
then is what its successor commits, for stages are pure functions and steps are repeatable.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from headrace import storage

RUN, JOB, ATTEMPT = "HEADRACE_RUN", "HEADRACE_JOB", "HEADRACE_ATTEMPT"  # in the environment of a job and of its workers
EXIT_CODE = 76  # of a job that was fenced
SHARE = 0.01  # of the time that looks may take where there are many
BY_HAND = "train"  # the job of workers that no controller started; they count as its attempt 0


class Fenced(RuntimeError):
    """A newer attempt at the same job has begun: this one commits nothing and ends."""


class GroupReplaced(RuntimeError):
    """A newer group of workers of the same attempt has begun: this one commits nothing and ends."""


@dataclass(frozen=True)
class Identity:
    """Which attempt at which job of a run this process belongs to."""

    run: Path
    job: str
    attempt: int

    def superseded(self) -> str | None:
        """What tells of a newer attempt; None while this is the newest."""
        newer = attempt_path(self.run, self.job, self.attempt + 1)  # numbers have no gaps
        return f"attempt {self.attempt} at {self.job} is fenced: {newer} is there" if storage.present(newer) else None

    def variables(self) -> dict[str, str]:
        """The environment that `identity` reads."""
        return {RUN: storage.name(self.run), JOB: self.job, ATTEMPT: str(self.attempt)}


def attempts_folder(run: Path, job: str) -> Path:
    return run / "control" / "attempts" / job


def attempt_path(run: Path, job: str, number: int) -> Path:
    return attempts_folder(run, job) / f"{number}.json"


def identity() -> Identity | None:
    """What the environment says of this process; None outside a job, where nobody else commits."""
    if JOB not in os.environ:
        return None
    return Identity(storage.folder(os.environ[RUN]), os.environ[JOB], int(os.environ[ATTEMPT]))


def check() -> None:
    """To be called before each commit; costs one look at the storage.

    Raises:
        Fenced: a newer attempt has begun.
    """
    own = identity()
    if own and (why := own.superseded()):
        raise Fenced(why)


@dataclass
class Group:
    """The group of workers that trains; its rank 0 has claimed the generation, RUN/control/generations/<attempt>/<n>.json."""

    run: Path
    own: Identity
    number: int
    _refusal: Fenced | GroupReplaced | None = field(default=None, init=False)
    _next_look: float = field(default=0.0, init=False)

    @classmethod
    def claim(cls, run: Path) -> Group:
        """Be the newest group of this attempt; those before it can commit nothing from now on.

        Raises:
            Fenced: a newer attempt has begun.
        """
        own = identity() or Identity(run, BY_HAND, 0)
        if why := own.superseded():
            raise Fenced(why)
        folder = _generations(run, own)
        number = max((int(Path(name).stem) for name in storage.names(folder)), default=0) + 1
        while not storage.create(folder / f"{number}.json", storage.as_json({"time": time.time(), "pid": os.getpid()})):
            number += 1
        return cls(run, own, number)

    def look(self) -> Fenced | GroupReplaced | None:
        """Why this group may not commit, looked up now."""
        if self._refusal is None:
            newer = _generations(self.run, self.own) / f"{self.number + 1}.json"
            if why := self.own.superseded():
                self._refusal = Fenced(why)
            elif storage.present(newer):
                self._refusal = GroupReplaced(f"group {self.number} of workers is replaced: {newer} is there")
        return self._refusal

    def glance(self) -> str | None:
        """The same for every step: as often as it costs no more than `SHARE` of the time, so each time on a local disk."""
        if self._refusal is None and time.monotonic() < self._next_look:
            return None
        started = time.monotonic()
        refusal = self.look()
        ended = time.monotonic()
        self._next_look = ended + (ended - started) / SHARE
        return str(refusal) if refusal else None


def _generations(run: Path, own: Identity) -> Path:
    return run / "control" / "generations" / str(own.attempt)
