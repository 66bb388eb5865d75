"""An end in order: the driver first, for it starts what is stopped before it; each with time for a last checkpoint."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from headrace import storage
from headrace.config import ConfigError
from headrace.control import cluster
from headrace.control.exits import RETRY, RunError
from headrace.submit.logs import parts
from headrace.submit.remote import Remote, RemoteJob, own
from headrace.submit.standing import cluster_of, local_driver
from headrace.submit.submission import called, doom, is_doomed, jobs_of, newest_driver, recorded

POLL_S = 0.5
PENDING_S = 5.0  # a job whose start is under way is given as long


def stop(run: Path, remote: Remote | None, wait_s: float, tell: Callable[[str], None]) -> dict[str, Any]:
    """End what is at work on a run; returns when it is over.

    Args:
        remote: the cluster to ask; None = the one that the run was submitted to, or its own local one.
        wait_s: how long to wait for each to end by itself.
        tell: called with a line for every thing that is stopped.

    Returns:
        {"run", "driver": process id or submission id that was stopped, or null, "jobs": submission ids that were stopped after it}

    Raises:
        RunError: something is at work still.
    """
    control, pid = storage.machine(run / "control"), local_driver(run)
    running = cluster.find_running(control)
    active: list[RemoteJob] = []
    try:
        remote = own(running) if running else remote or cluster_of(run)
        active = _at_work(run, remote) if remote else []
    except (ConfigError, RunError):
        if pid is None:  # else the cluster of an earlier submission is of no matter
            raise
    driver = newest_driver(active, run)
    if pid is not None and driver is None:
        tell(f"process {pid} is asked to end; it stops its jobs and its cluster")
        _end_process(run, pid, wait_s)
        return {"run": called(run), "driver": pid, "jobs": []}
    if remote is None:
        return {"run": called(run), "driver": None, "jobs": []}
    if driver is not None:
        tell(f"{driver.submission_id} is asked to end; it stops its jobs")
        if driver in _end_jobs(remote, [driver], wait_s, tell):
            doom(run, driver)
    left = _at_work(run, remote)
    for job in left:
        tell(f"{job.submission_id} is asked to end")
    _end_jobs(remote, left, wait_s, tell)
    if running is not None:  # a driver that was killed left it
        cluster.stop(control)
    return {"run": called(run), "driver": driver.submission_id if driver else None, "jobs": [job.submission_id for job in left]}


def _at_work(run: Path, remote: Remote) -> list[RemoteJob]:
    """The run's jobs that are neither over nor to end by themselves."""
    submission = recorded(run)
    return [job for job in jobs_of(run, remote.jobs()) if job.active and not is_doomed(job, submission)]


def _end_process(run: Path, pid: int, wait_s: float) -> None:
    process = psutil.Process(pid)
    try:
        os.kill(pid, signal.SIGTERM)
        process.wait(wait_s)
    except ProcessLookupError:
        return
    except PermissionError:
        raise ConfigError(f"{called(run)}: process {pid} is at work on it and belongs to {process.username()}, who must stop it.") from None
    except psutil.TimeoutExpired:
        raise RunError(
            f"{called(run)}: process {pid} was asked to end and is at work still after {wait_s:.0f} s; ask again.", RETRY
        ) from None


def _end_jobs(remote: Remote, jobs: list[RemoteJob], wait_s: float, tell: Callable[[str], None]) -> list[RemoteJob]:
    """Ask jobs to end and wait for it; those that wait for their start still, at which Ray ends them: no process of theirs is there."""
    for job in sorted(jobs, key=lambda job: parts(job.submission_id)[0] != "train"):  # its last checkpoint takes longest
        remote.stop(job.submission_id)
    begun, waiting = time.monotonic(), []
    for job in jobs:
        while (now := remote.job(job.submission_id)) is not None and now.active:
            if now.status == "PENDING" and time.monotonic() - begun > PENDING_S:
                tell(f"{job.submission_id} waits for its start, and ends with it")
                waiting.append(job)
                break
            if time.monotonic() - begun > wait_s:
                raise RunError(f"{job.submission_id}: was asked to end and is at work still after {wait_s:.0f} s; ask again.", RETRY)
            time.sleep(POLL_S)
    return waiting
