"""A run handed to a cluster: one Ray job that drives it there, under a name that follows from the run.

What is sent is the configuration, what it is to be run with, and `environment.py`; the text and the code are there already. The second
submission of a run finds the first by its name and goes along with it.
"""

from __future__ import annotations

import hashlib
import io
import json
import shlex
import sys
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import xxhash
import yaml

from headrace import __version__, storage
from headrace.config import ConfigError, override, validate
from headrace.control.look import Upto
from headrace.run import RunConfig, resolved_yaml
from headrace.submit import environment
from headrace.submit.remote import RefusedRequest, Remote, RemoteJob

SCRIPT = "environment.py"
DRIVE = "drive"  # the driver's name among the jobs of a run
DRIVER = "headrace-drive-"  # before the digest of the run: its other jobs are named otherwise, so that the driver never stops itself
MAX_PACKAGE_BYTES = 8 << 20  # packed; Ray keeps it in the head's memory
STOP_WAIT_S = 600  # from SIGTERM to SIGKILL: time for a last checkpoint
AGENT_WAIT_S = 60.0


@dataclass(frozen=True)
class Placement:
    """Where the driver may run; with neither it is pinned to the head. It is light: by default it takes nothing."""

    labels: Mapping[str, str] = field(default_factory=dict)  # labels that its node must have
    resources: Mapping[str, float] = field(default_factory=dict)  # logical ones that it takes; "CPU" and "GPU" among them

    def request(self) -> dict[str, Any]:
        """As the Jobs API has it."""
        own = {name: amount for name, amount in self.resources.items() if name not in ("CPU", "GPU")}
        fields = {
            "entrypoint_num_cpus": self.resources.get("CPU"),
            "entrypoint_num_gpus": self.resources.get("GPU"),
            "entrypoint_resources": own,
            "entrypoint_label_selector": dict(self.labels),
        }
        return {name: value for name, value in fields.items() if value}


@dataclass(frozen=True)
class Submission:
    """What was handed over, as RUN/control/submission.json holds it: enough to find it, and to do the same again."""

    address: str
    submission_id: str
    generation: int
    upto: Upto
    config: str  # the YAML that was sent
    config_sha256: str
    python: str
    shared_storage: bool
    placement: Placement
    submitted: float  # seconds since 1970
    adopted: bool = False  # somebody had submitted it before
    stopped: bool = False  # it was asked to end while it waited for its start, and Ray tells it so only then


def submit(
    config: RunConfig, remote: Remote, upto: Upto, placement: Placement, *, shared_storage: bool, python: str | None = None
) -> Submission:
    """Hand the run over; or find that it was, and is at work still.

    Args:
        python: the interpreter on the cluster; None = this one where the cluster is this machine, else `python`.

    Raises:
        ConfigError: the cluster is at work on another configuration of the run, or refuses the request.
        RunError: the cluster cannot be asked.
    """
    sent = resolved_yaml(config)
    without_address = config.model_copy(update={"cluster": config.cluster.model_copy(update={"address": None})})  # it may be a tunnel's
    ours = Submission(
        address=remote.address,
        submission_id="",
        generation=0,
        upto=upto,
        config=sent,
        config_sha256=hashlib.sha256(resolved_yaml(without_address).encode()).hexdigest(),
        python=python or (sys.executable if remote.is_this_machine else "python"),
        shared_storage=shared_storage,
        placement=placement,
        submitted=round(time.time(), 3),
    )
    newest, before = newest_driver(remote.jobs(), config.folder), recorded(config.folder)
    if newest is not None and newest.active and not is_doomed(newest, before):
        return _adopt(config.folder, ours, newest)
    # After the numbers of an earlier cluster, too: what its drivers left in RUN/control is not written over.
    generation = 1 + max(_generation(newest) if newest else 0, before.generation if before else 0)
    ours = replace(ours, submission_id=f"{driver_stem(config.folder)}{generation}", generation=generation)
    if not _post(remote, _request(config.folder, remote, ours)):
        return _adopt(config.folder, ours, remote.known(ours.submission_id))
    storage.write_json(record_path(config.folder), asdict(ours))
    return ours


def _request(run: Path, remote: Remote, ours: Submission) -> dict[str, Any]:
    """The body of the submission, once what it refers to is uploaded."""
    expected = {"environment": environment.environment(), "upto": ours.upto}
    files = {
        environment.RUN: ours.config.encode(),
        environment.EXPECTED: json.dumps(expected, sort_keys=True).encode(),
        SCRIPT: Path(environment.__file__).read_bytes(),
    }
    variables = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S), "HEADRACE_SUBMISSION": ours.submission_id}
    return {
        "entrypoint": shlex.join([ours.python, SCRIPT, "."]),
        "submission_id": ours.submission_id,
        "runtime_env": {"working_dir": upload(remote, files), "env_vars": variables},
        "metadata": {
            "run": called(run),
            "job": DRIVE,
            "attempt": str(ours.generation),
            "upto": ours.upto,
            "config_sha256": ours.config_sha256,
            "headrace_version": __version__,
        },
        **ours.placement.request(),
    }


def _adopt(run: Path, ours: Submission, job: RemoteJob) -> Submission:
    """The submission that is at work, if it is the same as ours."""
    if job.metadata.get("config_sha256") != ours.config_sha256:
        theirs = "another configuration"
    elif job.metadata.get("upto") != ours.upto:
        theirs = f"--upto {job.metadata.get('upto')}"
    else:
        theirs = None
    if theirs:
        raise ConfigError(
            f"{called(run)}: {job.submission_id} is at work on it with {theirs}; wait for it, or `headrace stop {called(run)}`."
        )
    found = replace(ours, submission_id=job.submission_id, generation=_generation(job), submitted=job.started or ours.submitted)
    storage.write_json(record_path(run), asdict(found))
    return replace(found, adopted=True)


def _post(remote: Remote, request: Mapping[str, Any]) -> bool:
    """Submit; False where a submission of that name exists already."""
    deadline = time.monotonic() + AGENT_WAIT_S
    while True:
        try:
            remote.send("POST", "/api/jobs/", json.dumps(request).encode())
            return True
        except RefusedRequest as refused:
            if "already exists" in refused.text:
                return False
            # A cluster that has just come up answers before the agent that starts jobs has registered.
            if "try again later" not in refused.text or time.monotonic() > deadline:
                raise remote.sentence(refused, "the submission") from None
            time.sleep(0.5)


def upload(remote: Remote, files: Mapping[str, bytes]) -> str:
    """Have files ready on the cluster as a working directory; its URI. What is there under its content's name is not sent again.

    Raises:
        ConfigError: more than may be sent.
    """
    name, content = packed(files)
    if len(content) > MAX_PACKAGE_BYTES:
        raise ConfigError(
            f"the configuration takes {len(content) / 1e6:,.1f} MB packed, and {MAX_PACKAGE_BYTES / 1e6:,.1f} MB may be sent; "
            f"name folders or patterns in it rather than every file."
        )
    path = f"/api/packages/gcs/{quote(name)}"
    try:
        remote.send("GET", path)
    except RefusedRequest as refused:
        if refused.status != 404:
            raise remote.sentence(refused, "the upload") from None
        try:
            remote.send("PUT", path, content)
        except RefusedRequest as second:
            raise remote.sentence(second, "the upload") from None
    return f"gcs://{name}"


def packed(files: Mapping[str, bytes]) -> tuple[str, bytes]:
    """Files as an archive; equal contents give equal bytes, and its name is their digest in the form that Ray looks for."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), files[name], zipfile.ZIP_DEFLATED)
    content = buffer.getvalue()
    return f"_ray_pkg_{hashlib.sha256(content).hexdigest()[:40]}.zip", content


def called(run: Path) -> str:
    """What a run is called in the metadata of its jobs: the same on every machine."""
    return storage.name(run)


def driver_stem(run: Path) -> str:
    """What the names of a run's drivers begin with; the generation follows."""
    return f"{DRIVER}{xxhash.xxh3_64_hexdigest(called(run).encode())[:8]}-g"


def _generation(job: RemoteJob) -> int:
    return int(job.submission_id.rpartition("-g")[2])


def jobs_of(run: Path, jobs: Sequence[RemoteJob]) -> list[RemoteJob]:
    """Those of a cluster's jobs that belong to a run, its drivers among them."""
    return [job for job in jobs if job.metadata.get("run") == called(run)]


def newest_driver(jobs: Sequence[RemoteJob], run: Path) -> RemoteJob | None:
    """The last driver of a run that a cluster remembers."""
    own = [job for job in jobs if job.submission_id.startswith(driver_stem(run))]
    return max(own, key=_generation, default=None)


def is_doomed(job: RemoteJob, submission: Submission | None) -> bool:
    """Whether a job is a driver that waits for its start and will end with it: asked to end, or one before the newest."""
    if job.status != "PENDING" or submission is None or not job.submission_id.startswith(DRIVER):
        return False
    return _generation(job) < submission.generation or (submission.stopped and submission.submission_id == job.submission_id)


def doom(run: Path, job: RemoteJob) -> None:
    """Keep in mind that a driver was asked to end before its start."""
    submission = recorded(run)
    if submission is not None and submission.submission_id == job.submission_id:
        storage.write_json(record_path(run), asdict(replace(submission, stopped=True)))


def record_path(run: Path) -> Path:
    return run / "control" / "submission.json"


def recorded(run: Path) -> Submission | None:
    """The newest submission of a run; None of a run that was never handed over."""
    try:
        values = storage.read_json(record_path(run))
    except FileNotFoundError:
        return None
    return Submission(**{**values, "placement": Placement(**values["placement"])})


def resubmit(run: Path, remote: Remote) -> Submission:
    """The same again, on the cluster that the caller names: a run goes on from what is on storage.

    Raises:
        ConfigError: the run was never submitted.
        RunError: the cluster cannot be asked.
    """
    before = recorded(run)
    if before is None:
        raise ConfigError(f"{called(run)}: was never submitted; `headrace submit` or `headrace run` begins it.")
    values = override(yaml.safe_load(before.config), [f"cluster.address={remote.address}"])
    config = validate(RunConfig, values, str(record_path(run)))
    return submit(config, remote, before.upto, before.placement, shared_storage=before.shared_storage, python=before.python)
