"""What the soak kills, what it finds left behind, and what it takes for another result."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys

import pytest

import soak
from headrace.checkpoint.canonical import FORMAT, VERSION
from headrace.control.cluster import MARK


@pytest.fixture
def start(tmp_path):
    """Start a process of the cluster `tmp_path` with words in its command line; all are ended afterwards."""
    started = []

    def begin(*words):
        command = [sys.executable, "-c", "import time; time.sleep(600)", *words]
        started.append(subprocess.Popen(command, env=os.environ | {MARK: str(tmp_path)}))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def test_a_process_of_a_kind_that_is_there_is_killed(start, tmp_path):
    driver, job, other = start(), start("jobs/train_model.py"), start("something else")
    running = {"driver": driver, "training job": job}
    draw, killed = random.Random(1), []
    for _ in range(200):
        kind = soak.strike(draw, list(soak.of_marks({str(tmp_path)})), driver)
        if kind:
            assert running.pop(kind).wait(10) == -9
            killed.append(kind)
        if not running:
            break
    assert sorted(killed) == ["driver", "training job"]
    assert other.poll() is None and soak.strike(draw, list(soak.of_marks({str(tmp_path)})), driver) is None


def test_what_is_left_is_told(start, tmp_path, monkeypatch):
    monkeypatch.setattr(soak, "SETTLE_S", 0.0)
    marks = {str(tmp_path), str(tmp_path / "gone")}
    process = start()
    assert [line.split(" is left")[0] for line in soak.leftovers(marks)] == [f"process {process.pid}", str(tmp_path)]
    process.kill()
    process.wait()
    assert soak.leftovers({str(tmp_path / "gone")}) == []


def write_run(folder, loss=1.0, score=2.0, documents="a", tensor="b"):
    line = {"step": 1, "loss": loss, "grad_norm": 1.0, "lr": 0.1, "tokens": 8}
    manifest = {"format": FORMAT, "version": VERSION, "tensors": {}, "files": [{"path": tensor}]}
    files = {
        "data/ingest/f00/manifest.json": {"files": [documents]},
        "train/metrics.jsonl": line,
        "train/checkpoints/step-00000001/manifest.json": manifest,
        "eval/step-00000001/fast.json": {"metrics": [score]},
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content) + "\n")
    return folder


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, []),
        ({"loss": 1.5}, ["losses differ"]),
        ({"score": 2.5}, ["scores differ"]),
        ({"documents": "z"}, ["data/ingest/f00/manifest.json differs"]),
        ({"tensor": "z"}, ["the last checkpoint differs"]),
    ],
)
def test_another_result_is_told(tmp_path, change, told):
    plain, run = write_run(tmp_path / "plain"), write_run(tmp_path / "run", **change)
    assert soak.differences(run, plain) == [f"run: {what}" for what in told]


def test_a_stage_that_is_not_there_is_told(tmp_path):
    plain, run = write_run(tmp_path / "plain"), write_run(tmp_path / "run")
    shutil.rmtree(run / "data")
    assert soak.differences(run, plain) == ["run: data/ingest/f00/manifest.json differs"]
