"""The verbs over runs, by the command itself, on one real cluster with a token."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from headrace import storage
from headrace.cli import app, guarded
from headrace.control import cluster

TEXT = "the river ran past an old mill and its wheel turned slowly while grain became flour for bread"
WORDS = tuple(TEXT.split())
TOKEN = "RAY_AUTH_TOKEN_PATH"


class Machine:
    """A folder with a configuration of relative paths, a cluster beside it, and the command, in this process: it loads Torch but once."""

    def __init__(self, folder: Path, running: cluster.Running) -> None:
        self.folder, self.running, self.told = folder, running, ""
        self.environment = {TOKEN: running.token_path, "CANARY_SECRET": "canary-3b1f9a77e2"}
        (folder / "raw").mkdir()
        draw = random.Random(3)
        texts = [" ".join(draw.choice(WORDS) for _ in range(100)) for _ in range(150)]
        (folder / "raw" / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        values = {
            "out": "one",
            "unit_bytes": 65536,
            "sources": [{"name": "mill", "kind": "prose", "path": "raw/*.jsonl", "filters": []}],
            "split": {"validation": 0.1},
            "tokens": {"vocab_size": 384, "sequence_length": 32},
            "model": {"layers": 1, "hidden": 16, "heads": 2},
            "train": {"steps": 100_000, "num_workers": 1, "batch": {"global": 2, "micro": 2}, "checkpoint": {"every": 50_000}},
            "cluster": {"data_engine": "local"},
        }
        (folder / "run.yaml").write_text(yaml.safe_dump(values))

    def __call__(self, *arguments: str, code: int = 0, **variables: str) -> str:
        """What the command writes to stdout; what it writes to stderr is kept in `told`."""
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            patch.chdir(self.folder)
            patch.setattr(sys, "argv", ["headrace", *arguments])
            patch.delenv("RAY_AUTH_TOKEN", raising=False)
            for name, value in (self.environment | variables).items():
                patch.setenv(name, value)
            found = guarded(app)
        assert found == code, f"{arguments}: {found}\n{out.getvalue()}\n{err.getvalue()}"
        self.told = err.getvalue()
        return out.getvalue()

    def json(self, *arguments: str, **more):
        return json.loads(self(*arguments, "--json", **more))

    def until(self, condition, seconds=180):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := condition():
                return found
            time.sleep(0.5)
        raise AssertionError(f"it did not come to pass: {self('status', 'one', '--json')}")


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jobs")
    control = folder / "cluster"
    running = cluster.start_local(control, cores=2, workers=1)
    try:
        with cluster.Heartbeat(control):
            yield Machine(folder, running)
    finally:
        cluster.stop(control)


@pytest.fixture(scope="module")
def curated(machine):
    """The run's data, made by a submission that was made twice; what the two were told."""
    order = ("submit", "run.yaml", "--address", machine.running.address, "--upto", "data")
    return machine.json(*order), machine.json(*order)


def test_a_mistake_is_told_before_anything_is_sent(machine):
    machine("submit", "run.yaml", "train.stepz=3", "model.hidden=none", "--address", machine.running.address, code=2)
    assert len([line for line in machine.told.splitlines() if "run.yaml" in line]) == 2
    machine("submit", "run.yaml", code=2)
    assert "--address http://HOST:8265" in machine.told
    assert not (machine.folder / "one").exists()


def test_who_has_no_token_is_sent_away(machine):
    address = machine.running.address
    nobody = {TOKEN: "", "HOME": str(machine.folder)}
    machine("runs", "--address", address, code=2, **nobody)
    assert "asks for a token (401)" in machine.told
    machine("runs", "--address", address, code=2, **nobody, RAY_AUTH_TOKEN="f" * 64)
    assert "(403)" in machine.told and "f" * 64 not in machine.told
    machine("runs", "--address", "http://127.0.0.1:9", code=75)
    assert "nobody answers there" in machine.told


def test_submitted_twice_is_submitted_once(machine, curated):
    first, second = curated
    assert (first["adopted"], second["adopted"]) == (False, True)
    assert first["submission_id"] == second["submission_id"]
    assert first["run"] == str(machine.folder / "one")


def test_following_a_log_ends_with_the_job(machine, curated):
    told = machine("logs", "one", "-f")  # exit code 0: that of the driver
    assert "data: done" in told or "data: job" in told
    lines = [json.loads(line) for line in machine("logs", "one", "-f", "--json").splitlines()]
    assert "".join(line["line"] + "\n" for line in lines[:-1]) == machine("logs", "one", "drive") == told
    assert lines[-1] == {"job": curated[0]["submission_id"], "status": "SUCCEEDED", "exit_code": 0}
    assert machine.json("logs", "one", "data")["log"] == machine("logs", "one", "data") != ""


def test_what_is_done_is_told(machine, curated):
    machine("logs", "one", "-f")
    found = machine.json("status", "one")
    assert (found["state"], found["finished"], found["message"]) == ("done", "data", None)
    assert [stage["stage"] for stage in found["stages"] if stage["done"]][-1] == "tokens"
    assert found["driver"]["submission_id"] == curated[0]["submission_id"]
    assert "one: done" in machine("status", "one")
    address = machine.running.address
    (row,) = machine.json("runs", ".")
    assert (row["run"], row["state"], row["finished"]) == (str(machine.folder / "one"), "done", "data")
    assert machine.json("runs", "--address", address) == [row]
    job = machine.json("status", curated[0]["submission_id"], "--address", address)
    assert (job["status"], job["exit_code"]) == ("SUCCEEDED", 0)
    assert {"drive", "data"} <= {each["metadata"]["job"] for each in machine.json("status", "--address", address)}


def test_a_driver_that_no_node_can_take_waits_and_says_so(machine, curated):
    machine("logs", "one", "-f")
    machine("submit", "run.yaml", "--address", machine.running.address, "--upto", "data", "--label", "pool=nowhere")
    found = machine.json("status", "one")
    assert found["state"] == "pending" and "waiting" in found["message"]
    assert machine.json("stop", "one")["driver"] == found["driver"]["submission_id"]
    assert machine.json("status", "one")["state"] == "done"  # the data is there


def test_another_environment_is_refused_with_each_difference(machine, curated):
    """By a Python of the cluster's that is not ours: one without any of our packages."""
    machine("logs", "one", "-f")
    bare = machine.folder / "bare-python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -I "$@"\n')
    bare.chmod(0o755)
    machine("submit", "run.yaml", "seed=1", "out=two", "--address", machine.running.address, "--upto", "data", "--python", str(bare))
    machine("logs", "two", "-f", code=2)
    found = machine.json("status", "two")
    assert found["state"] == "failed" and "and none on the cluster" in found["message"]
    assert found["driver"]["exit_code"] == 2


def test_a_run_is_stopped_in_order_and_resumed(machine, curated):
    machine("logs", "one", "-f")
    metrics, checkpoints = machine.folder / "one" / "train" / "metrics.jsonl", machine.folder / "one" / "train" / "checkpoints"
    submitted = machine.json("submit", "run.yaml", "--address", machine.running.address, "--upto", "train")
    assert submitted["generation"] > curated[0]["generation"]
    machine.until(lambda: len(storage.read_lines(metrics)) > 20)
    found = machine.json("status", "one")
    assert found["state"] == "at work" and found["training"]["step"] > 20 and found["training"]["seconds_left"] > 0
    assert "train" in [job["stage"] for job in found["jobs"] if job["status"] == "at work"]
    machine("submit", "run.yaml", "seed=9", "--address", machine.running.address, "--upto", "train", code=2)
    assert "is at work on it with another configuration" in machine.told
    stopped = machine.json("stop", "one")
    assert stopped["driver"] == submitted["submission_id"]
    reached = storage.read_lines(metrics)[-1]["step"]
    assert (checkpoints / f"step-{reached:08d}" / "manifest.json").is_file()  # it had the time for a last checkpoint
    jobs = machine.json("status", "--address", machine.running.address)
    assert not [job for job in jobs if job["status"] == "RUNNING"]
    assert machine.json("status", "one")["state"] == "idle"
    resumed = machine.json("resume", "one")
    assert resumed["generation"] == submitted["generation"] + 1 and not resumed["adopted"]
    assert machine.json("status", "one")["state"] in ("at work", "pending")
    assert machine.json("stop", "one")["driver"] == resumed["submission_id"]
    assert machine.json("stop", "one") == {"run": str(machine.folder / "one"), "driver": None, "jobs": []}


def test_no_secret_is_written_anywhere(machine, curated):
    """After all that: of the run's folders, and of what the cluster tells of its jobs."""
    secrets = (machine.environment["CANARY_SECRET"], Path(machine.running.token_path).read_text())
    told = machine("status", "--address", machine.running.address, "--json") + machine("logs", "one", "drive")
    written = [path for name in ("one", "two") for path in (machine.folder / name).rglob("*") if path.is_file()]
    for secret in secrets:
        assert secret not in told
        assert not [path for path in written if secret.encode() in path.read_bytes()]


def test_a_run_of_this_machine_is_told_of_stopped_and_gone_on_with(machine):
    """`headrace train` in another terminal: the same verbs, by the driver's lock and the run's own files."""
    command = ["train", "run.yaml", "out=three", f"cluster.address={machine.running.address}"]
    told = (machine.folder / "three.txt").open("w+")
    environment = os.environ | machine.environment
    driver = subprocess.Popen([sys.executable, "-m", "headrace.cli", *command], cwd=machine.folder, env=environment, stderr=told)
    try:
        found = machine.until(lambda: (machine.folder / "three" / "events.jsonl").exists() and machine.json("status", "three"))
        assert (found["state"], found["driver"]) == ("at work", {"kind": "process", "pid": driver.pid})
        assert machine.json("stop", "three") == {"run": str(machine.folder / "three"), "driver": driver.pid, "jobs": []}
        told.seek(0)
        assert "interrupted; the same command goes on from here" in told.read()  # `stop` runs in this process and takes its exit code
        assert not psutil.pid_exists(driver.pid)
    finally:
        driver.kill()
        told.close()
    assert machine.json("status", "three")["state"] == "idle"
