"""The runs that there are, a row each: below a folder, or on a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headrace import storage
from headrace.config import ConfigError
from headrace.submit.remote import Remote, RemoteJob
from headrace.submit.standing import standing
from headrace.submit.submission import called

SHOWN = ("run", "state", "message", "finished", "updated")


def below(folder: Path) -> list[dict[str, Any]]:
    """The runs in a folder, or the one that the folder is, the newest last.

    Returns:
        a row each: {"run", "state", "message", "finished", "updated", "step", "steps", "loss", "score"}; see `standing`.

    Raises:
        ConfigError: there is none.
    """
    found = [folder] if _is_run(folder) else [folder / name for name in storage.names(folder) if _is_run(folder / name)]
    if not found:
        raise ConfigError(f"{folder}: no run there (a folder with config.yaml); name the folder that holds your runs.")
    return sorted((row(each) for each in found), key=lambda line: line["updated"] or 0.0)


def on_cluster(remote: Remote) -> list[dict[str, Any]]:
    """The runs that a cluster knows of, the newest last; of those whose folder is not reached, what their newest job says."""
    jobs: dict[str, list[RemoteJob]] = {}
    for job in remote.jobs():
        if "run" in job.metadata:
            jobs.setdefault(job.metadata["run"], []).append(job)
    rows = []
    for run, found in jobs.items():
        folder = storage.folder(run)
        rows.append(row(folder, remote) if _is_run(folder) else _told_by(run, found[-1]))
    return sorted(rows, key=lambda line: line["updated"] or 0.0)


def row(run: Path, remote: Remote | None = None) -> dict[str, Any]:
    """One run's row."""
    try:
        found = standing(run, remote)
    except ConfigError as error:  # of another version of headrace, say
        found = {"run": called(run), "state": "unknown", "message": str(error).splitlines()[0], "finished": None, "updated": None}
        return {**found, "step": None, "steps": None, "loss": None, "score": None}
    training = found["training"] or {}
    return {
        **{name: found[name] for name in SHOWN},
        **{name: training.get(name) for name in ("step", "steps", "loss")},
        "score": found["checkpoints"]["score"],
    }


def _told_by(run: str, newest: RemoteJob) -> dict[str, Any]:
    state = {"PENDING": "pending", "RUNNING": "at work", "SUCCEEDED": "done", "FAILED": "failed", "STOPPED": "idle"}[newest.status]
    about = {"finished": None, "updated": newest.ended or newest.started, "step": None, "steps": None, "loss": None, "score": None}
    return {"run": run, "state": state, "message": f"its folder is not reached from here; {newest.submission_id}", **about}


def _is_run(folder: Path) -> bool:
    return storage.present(folder / "config.yaml") or storage.present(folder / "control" / "submission.json")
