"""Which jobs of a run have a log, and what is in it: from the cluster while it is there, else from what the driver kept of it."""

from __future__ import annotations

import re
from pathlib import Path

from headrace import storage
from headrace.config import ConfigError
from headrace.submit.remote import Remote, RemoteJob
from headrace.submit.submission import DRIVE, called, driver_stem

NAME = re.compile(r"headrace-[0-9a-f]{8}-(?P<job>.+)-a(?P<attempt>\d+)")


def parts(submission_id: str) -> tuple[str, int]:
    """Job and number of the attempt that a submission of a run is: ("train", 2); a driver is ("drive", its generation)."""
    if match := NAME.fullmatch(submission_id):
        return match["job"], int(match["attempt"])
    _, _, generation = submission_id.rpartition("-g")
    return DRIVE, int(generation) if generation.isdigit() else 0


def stored(run: Path) -> list[str]:
    """Submission ids of the jobs whose log is in the run's folder."""
    return [name.removesuffix(".log") for name in storage.names(run / "control" / "logs") if name.endswith(".log")]


def choose(run: Path, wanted: str | None, jobs: list[RemoteJob]) -> str:
    """The submission that a person means.

    Args:
        wanted: a job (data, train, evaluate-step-00000100-fast, baselines, drive: its newest attempt) or a submission id; None = the
            driver where it is a job, else the newest job that is at work, else the newest.

    Raises:
        ConfigError: there is none, with those that there are.
    """
    ids = list(dict.fromkeys([*stored(run), *(job.submission_id for job in jobs)]))
    if not ids:
        raise ConfigError(f"{called(run)}: no job has left a log yet; `headrace status {called(run)}` says how the run stands.")
    if wanted is None:
        drivers = [each for each in ids if each.startswith(driver_stem(run))]
        active = [job.submission_id for job in jobs if job.active]
        return max(drivers, key=parts) if drivers else (active or ids)[-1]
    found = [each for each in ids if wanted in (each, parts(each)[0])]
    if not found:
        raise ConfigError(f"{called(run)}: no job {wanted!r}; there are {', '.join(sorted({parts(each)[0] for each in ids}))}.")
    return max(found, key=parts)


def text(run: Path, submission_id: str, remote: Remote | None) -> str:
    """All that a job has written."""
    if submission_id in stored(run):  # written when it was over, so whole
        return storage.read_bytes(run / "control" / "logs" / f"{submission_id}.log").decode(errors="replace")
    assert remote is not None  # else it would not have been chosen
    return remote.log(submission_id)
