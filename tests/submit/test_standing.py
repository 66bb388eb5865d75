"""How a run stands, told by what its folder holds and by what a cluster says."""

from __future__ import annotations

import fcntl
import json
import os
import time

import pytest

from headrace import storage
from headrace.config import ConfigError, validate
from headrace.run import RunConfig, resolved_yaml
from headrace.submit import standing
from headrace.submit.listing import below, on_cluster
from headrace.submit.logs import choose, parts
from headrace.submit.remote import Remote
from headrace.submit.submission import Placement, Submission, driver_stem, record_path

FINGERPRINT = "0123456789abcdef"


@pytest.fixture
def run(tmp_path):
    """The folder of a run that has begun, and nothing more."""
    values = {
        "out": str(tmp_path / "one"),
        "sources": [{"name": "mill", "kind": "prose", "path": "raw/*.jsonl"}],
        "model": {"layers": 1, "hidden": 16, "heads": 2},
        "train": {"steps": 40, "num_workers": 1},
    }
    config = validate(RunConfig, values, "test")
    storage.write_bytes(config.folder / "config.yaml", resolved_yaml(config).encode())
    storage.write_json(config.folder / "data" / "current.json", {"ingest": FINGERPRINT, "tokens": FINGERPRINT})
    return config.folder


def event(run, stage, what, **more):
    storage.append_line(run / "events.jsonl", {"time": time.time() - 1000, "stage": stage, "event": what, **more})


def commit(run, stage):
    manifest = {"units": [], "totals": {"rows_in": 10, "rows_out": 7}}
    storage.write_json(run / "data" / stage / FINGERPRINT / "manifest.json", manifest)


def trained(run, steps):
    for step in range(1, steps + 1):
        line = {"step": step, "loss": 9.0 / step, "tokens": step * 100, "tokens_per_s": 50.0}
        storage.append_line(run / "train" / "metrics.jsonl", line)
    storage.write_json(run / "train" / "checkpoints" / f"step-{steps:08d}" / "manifest.json", {})


def scored(run, step):
    checkpoint = run / "train" / "checkpoints" / f"step-{step:08d}"
    digest = storage.file_entry(checkpoint, checkpoint / "manifest.json")["sha256"]
    metrics = [{"metric": "bits_per_byte", "source": "all", "value": 2.5}]
    result = {"checkpoint_manifest_sha256": digest, "max_tokens": 200_000, "validation_loss": 3.25, "metrics": metrics}
    storage.write_json(run / "eval" / checkpoint.name / "fast.json", result)


def test_what_is_no_run_is_said_to_be_none(tmp_path):
    with pytest.raises(ConfigError, match=r"no run there \(config\.yaml is missing\)"):
        standing.standing(tmp_path)


def test_a_run_is_finished_by_its_parts(run):
    def finished():
        return standing.standing(run)["finished"], standing.standing(run)["state"]

    assert finished() == (None, "idle")
    commit(run, "ingest")
    assert finished() == (None, "idle")
    commit(run, "tokens")
    assert finished() == ("data", "idle")
    trained(run, 20)
    assert finished() == ("data", "idle")
    trained(run, 40)
    assert finished() == ("train", "idle")
    for step in (20, 40):
        scored(run, step)
    storage.write_json(run / "eval" / "baselines.json", {"tokens_fingerprint": "of another store"})
    assert finished() == ("train", "idle")
    storage.write_json(run / "eval" / "baselines.json", {"tokens_fingerprint": FINGERPRINT})
    assert finished() == ("scores", "done")


def test_numbers_of_training_and_scores(run):
    commit(run, "ingest")
    trained(run, 30)
    scored(run, 30)
    found = standing.standing(run)
    assert found["training"] == {"step": 30, "loss": 0.3, "tokens": 3000, "tokens_per_s": 50.0, "steps": 40, "seconds_left": 20.0}
    assert found["checkpoints"]["score"] == {"step": 30, "validation_loss": 3.25, "bits_per_byte": 2.5}
    assert found["stages"] == [
        {"stage": "ingest", "done": True, "rows_in": 10, "rows_out": 7},
        {"stage": "tokens", "done": False, "rows_in": None, "rows_out": None},
    ]


def test_a_failure_counts_until_it_is_tried_again(run):
    event(run, "data", "submitted", job="headrace-aaaaaaaa-data-a1")
    event(run, "data", "failed", job="headrace-aaaaaaaa-data-a1", exit_code=1, message="sources.mill: every file is damaged")
    found = standing.standing(run)
    assert (found["state"], found["message"]) == ("failed", "sources.mill: every file is damaged")
    assert found["jobs"][0]["exit_code"] == 1
    event(run, "data", "submitted", job="headrace-aaaaaaaa-data-a2")
    event(run, "data", "job finished", job="headrace-aaaaaaaa-data-a2")
    found = standing.standing(run)
    assert (found["state"], found["message"]) == ("idle", None)
    assert [job["status"] for job in found["jobs"]] == ["failed", "done"]


def test_a_driver_of_this_machine_is_known_by_the_file_that_it_holds(run):
    path = run / "control" / "driver.lock"
    storage.write_bytes(path, str(os.getpid()).encode())
    assert standing.local_driver(run) is None  # its number alone says nothing
    event(run, "filters", "progress", done=3, total=9, unit="units", elapsed_s=1.0, left_s=2.0)
    with path.open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        found = standing.standing(run)
    assert (found["state"], found["driver"]) == ("at work", {"kind": "process", "pid": os.getpid()})
    assert [(line["stage"], line["done"], line["total"]) for line in found["progress"]] == [("filters", 3, 9)]
    assert standing.standing(run)["progress"] == []  # of a driver that is gone


def submitted(run, address, **more):
    values = {
        "submission_id": f"{driver_stem(run)}1",
        "generation": 1,
        "upto": "data",
        "config": "",
        "config_sha256": "",
        "python": "python",
    }
    values |= {"address": address, "shared_storage": False, "placement": Placement(), "submitted": 0.0}
    made = Submission(**{**values, **more})
    storage.write_json(record_path(run), {**vars(made), "placement": vars(made.placement)})


@pytest.fixture
def cluster(run, dashboard):
    """A function that has a cluster tell of the run's driver, which was submitted to it."""
    dashboard.answers["GET", "/api/version"] = (200, b"{}")
    submitted(run, dashboard.address)

    def tell(status, message="", exit_code=None, *others):
        driver = {"submission_id": f"{driver_stem(run)}1", "status": status, "message": message, "driver_exit_code": exit_code}
        jobs = [{**driver, "metadata": {"run": str(run), "job": "drive"}, "start_time": 5000}, *others]
        dashboard.answers["GET", "/api/jobs/"] = (200, json.dumps(jobs).encode())
        return Remote(dashboard.address)

    return tell


@pytest.mark.parametrize(
    "status, message, code, state, told",
    [
        ("PENDING", "Job has not started yet. It may be waiting for resources.", None, "pending", "waiting for resources"),
        ("RUNNING", "Job is currently running.", None, "at work", None),
        ("STOPPED", "", None, "idle", None),
        (
            "FAILED",
            "Job entrypoint command failed with exit code 2, last available logs (truncated to 20,000 chars):\n"
            "headrace: ray is 2.60.0 here, 2.59.0 on the cluster\nheadrace: the environments must be equal\n",
            2,
            "failed",
            "ray is 2.60.0 here, 2.59.0 on the cluster\nthe environments must be equal",
        ),
    ],
)
def test_a_submitted_run_stands_as_its_driver_does(run, cluster, status, message, code, state, told):
    cluster(status, message, code)
    found = standing.standing(run)
    assert found["state"] == state
    assert found["message"] == told or told in found["message"]
    assert found["driver"]["status"] == status


def test_its_jobs_stand_as_the_cluster_says(run, cluster):
    waiting = {"submission_id": "headrace-aaaaaaaa-train-a1", "status": "PENDING", "message": "waiting for train: 4", "start_time": 6000}
    cluster("RUNNING", "", None, {**waiting, "metadata": {"run": str(run), "job": "train"}})
    event(run, "data", "submitted", job="headrace-aaaaaaaa-data-a1")
    event(run, "data", "job finished", job="headrace-aaaaaaaa-data-a1")
    event(run, "train", "submitted", job="headrace-aaaaaaaa-train-a1")
    found = standing.standing(run)["jobs"]
    assert [(job["status"], job["message"]) for job in found] == [("done", None), ("pending", "waiting for train: 4")]


def test_a_cluster_that_is_away_leaves_what_storage_says(run, cluster, dashboard):
    cluster("RUNNING")
    event(run, "train", "submitted", job="headrace-aaaaaaaa-train-a1")
    submitted(run, "http://127.0.0.1:9")  # nobody answers there
    found = standing.standing(run)
    assert found["state"] == "unknown" and "nobody answers there" in found["message"]
    assert found["jobs"][0]["status"] == "unknown"
    commit(run, "tokens")
    assert standing.standing(run)["state"] == "done"  # up to its data was all that was asked


def test_runs_are_listed_with_what_tells_them_apart(run, cluster, tmp_path):
    remote = cluster(
        "RUNNING", "", None, {"submission_id": "other-1", "status": "FAILED", "metadata": {"run": "/not/here"}, "start_time": 1}
    )
    trained(run, 30)
    scored(run, 30)
    event(run, "train", "submitted", job="headrace-aaaaaaaa-train-a1")
    (tmp_path / "no-run").mkdir()
    (row,) = below(tmp_path)
    assert (row["run"], row["state"], row["step"], row["steps"], row["loss"]) == (str(run), "at work", 30, 40, 0.3)
    assert row["score"]["bits_per_byte"] == 2.5
    assert below(run) == [row]
    far, near = on_cluster(remote)
    assert (far["run"], far["state"], near) == ("/not/here", "failed", row)
    with pytest.raises(ConfigError, match="no run there"):
        below(tmp_path / "no-run")


def test_a_broken_configuration_does_not_hide_the_other_runs(run, tmp_path):
    storage.write_bytes(tmp_path / "two" / "config.yaml", b"out: x\nsauces: []\n")
    states = {row["run"]: row["state"] for row in below(tmp_path)}
    assert states == {str(run): "idle", str(tmp_path / "two"): "unknown"}


def test_a_log_is_chosen_by_job_attempt_or_name(run, cluster):
    for name in ("headrace-aaaaaaaa-data-a2", "headrace-aaaaaaaa-data-a10", "headrace-aaaaaaaa-evaluate-step-00000020-fast-a1"):
        storage.write_bytes(run / "control" / "logs" / f"{name}.log", b"words\n")
    assert parts("headrace-aaaaaaaa-evaluate-step-00000020-fast-a1") == ("evaluate-step-00000020-fast", 1)
    assert choose(run, "data", []) == "headrace-aaaaaaaa-data-a10"
    assert choose(run, "headrace-aaaaaaaa-data-a2", []) == "headrace-aaaaaaaa-data-a2"
    jobs = cluster("RUNNING").jobs()
    assert choose(run, None, jobs) == f"{driver_stem(run)}1"
    with pytest.raises(ConfigError, match="no job 'train'; there are data, drive, evaluate-step-00000020-fast"):
        choose(run, "train", jobs)
