from __future__ import annotations

import hashlib
import json

import pytest


class Run:
    """A run's folder in training, written as the worker and the scoring jobs write it."""

    def __init__(self, path):
        self.path = path
        path.mkdir()
        (path / "config.yaml").write_text(
            "out: x\nseed: 7\nsources:\n- {name: mill, path: a}\ntrain: {steps: 20, optimizer: {lr: 0.001}}\n"
        )

    def add(self, name, *lines):
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("a") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines))

    def start(self, time=1000.0):
        self.add("train/workers.jsonl", {"time": time, "world": 2, "restored_step": None})

    def steps(self, first, last, **more):
        """Lines of metrics.jsonl: 100 tokens a step at 50 tokens per second."""
        about = {"grad_norm": 1.0, "lr": 0.001, "tokens_per_s": 50.0, "mfu": None, "data_wait_s": 0.25}
        lines = ({"step": k, "loss": 8.0 / k, "tokens": 100 * k, **about, **more} for k in range(first, last + 1))
        self.add("train/metrics.jsonl", *lines)

    def cut(self, last):
        """Forget the steps behind `last`, as a resume does."""
        path = self.path / "train" / "metrics.jsonl"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:last]))

    def incident(self, kind, message):
        self.add("train/incidents.jsonl", {"time": 1010.0, "event": kind, "message": message, "rank": 1})

    def checkpoint(self, step, time=1020.0):
        folder = self.path / "train" / "checkpoints" / f"step-{step:08d}"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"files": [], "tensors": {}}))
        costs = {"stall_s": 0.25, "waited_s": 0.5, "written_s": 2.0, "every": None}
        self.add("train/checkpoints.jsonl", {"time": time, "step": step, "bytes": 5000, **costs})

    def result(self, step, bits=2.0, suite="fast", **more):
        name = f"step-{step:08d}"
        manifest = self.path / "train" / "checkpoints" / name / "manifest.json"
        if manifest.exists():
            more["checkpoint_manifest_sha256"] = hashlib.sha256(manifest.read_bytes()).hexdigest()
        rows = [{"metric": "bits_per_byte", "source": source, "value": bits, "stderr": 0.1} for source in ("all", "mill")]
        value = {"suite": suite, "checkpoint": name, "validation_loss": 2 * bits, "metrics": rows, "seconds": 3.0, **more}
        path = self.path / "eval" / name / f"{suite}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "trial")
