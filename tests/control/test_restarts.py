"""Real drivers on a real cluster, killed at random moments: the next one goes on, as a process or as a job of the cluster itself."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from headrace import pipeline, storage
from headrace.config import validate
from headrace.control import cluster
from headrace.control.attempts import History, history
from headrace.run import RunConfig

DRIVE = Path(__file__).resolve().parents[2] / "jobs" / "drive_run.py"
KILLS = 20 if os.environ.get("HEADRACE_FAULTS") == "full" else 2  # `make faults`
PATIENCE_S = 240.0


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A cluster that belongs to no run."""
    control = tmp_path_factory.mktemp("cluster") / "control"
    with cluster.Heartbeat(control):
        yield cluster.start_local(control, cores=1, workers=1)
        cluster.stop(control)


@pytest.fixture
def configured(tmp_path, running):
    """A function of a name: the YAML and the configuration of a run of many small units on that cluster."""
    draw = random.Random(3)
    words = ["river", "ran", "past", "an", "old", "mill", "its", "wheel", "turned", "slowly", "while", "grain", "became", "flour"]
    lines = [json.dumps({"id": str(number), "text": " ".join(draw.choices(words, k=120))}) for number in range(1500)]
    (tmp_path / "raw.jsonl").write_text("\n".join(lines))

    def configure(name):
        values = {
            "out": str(tmp_path / name),
            "unit_bytes": 65536,
            "sources": [{"name": "mill", "kind": "prose", "path": str(tmp_path / "raw.jsonl"), "filters": []}],
            "tokens": {"vocab_size": 384, "sequence_length": 32},
            "train": {"layout": {"data": 1}},
            "cluster": {"address": running.address, "data_engine": "local"},
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path, validate(RunConfig, values, name)

    return configure


def digests(config):
    """Of everything that the data stages committed."""
    folders = [config.folder / "data" / name / plan.fingerprint for name, plan in pipeline.stage_plans(config).items()]
    paths = [path for folder in folders for path in folder.rglob("*") if path.is_file() and path.name != "timings.jsonl"]
    return {str(path.relative_to(config.folder)): storage.file_entry(config.folder, path)["sha256"] for path in paths}


def submit(running, name, *command):
    from ray.job_submission import JobSubmissionClient

    # Ray keeps the first token that a process showed, and this one has had other clusters.
    client = JobSubmissionClient(running.address, headers={"Authorization": f"Bearer {Path(running.token_path).read_text()}"})
    runtime_env = {"env_vars": {"HEADRACE_SUBMISSION": name}}
    client.submit_job(entrypoint=" ".join(map(str, command)), submission_id=name, runtime_env=runtime_env)
    return client


def until(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def test_drivers_that_are_killed_at_random_moments_change_nothing(configured, running, monkeypatch):
    for name, value in running.environment().items():
        monkeypatch.setenv(name, value)
    _, whole = configured("whole")
    pipeline.curate(whole, "local")
    path, config = configured("killed")
    run, draw = config.folder, random.Random(int(os.environ.get("HEADRACE_FAULTS_SEED", "0")))
    for _ in range(KILLS):
        driver = subprocess.Popen([sys.executable, "-m", "headrace.cli", "data", str(path)], stderr=subprocess.DEVNULL)
        until((run / "control" / "driver.lock").exists)
        time.sleep(draw.uniform(0, 5))
        driver.send_signal(signal.SIGKILL)
        driver.wait()

    # From now on a job of the cluster drives it; it is killed, too, and so is the job that works.
    client = submit(running, "drive-1", sys.executable, DRIVE, path, "data")
    beats = run / "control" / "beats"
    until(lambda: (beats / "drive-1.json").exists() or client.get_job_status("drive-1").is_terminal())
    for beat in beats.glob("*.json"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # done meanwhile
            os.kill(storage.read_json(beat)["pid"], signal.SIGKILL)
    submit(running, "drive-2", sys.executable, DRIVE, path, "data")
    until(lambda: client.get_job_status("drive-2").is_terminal())
    assert client.get_job_status("drive-2") == "SUCCEEDED", client.get_job_logs("drive-2")

    assert pipeline.finished(config) is not None
    assert digests(config) == digests(whole)
    assert not list(run.glob("data/*/*/.aside-*")), "nothing half-written is left"
    made = history(run, "data", History()).attempts
    states = {job.submission_id: job.metadata for job in client.list_jobs() if job.metadata and job.metadata.get("run") == str(run)}
    assert set(states) <= {attempt.submission_id for attempt in made}, "a job for an attempt on storage, and no other"
    assert len(made) <= 2 and [each.number for each in made] == list(range(1, len(made) + 1))
    shutil.rmtree(run)
