"""The sides of benchmarks/train.py at a tiny size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace import storage
from headrace.tokens.store import write_store

SIDES = Path(__file__).resolve().parents[2] / "benchmarks" / "sides.py"


def test_engine_and_plain_loop_take_the_same_steps(tmp_path: Path) -> None:
    (tmp_path / "tokens").mkdir()
    documents = [[(place * step) % 30 + 1 for place in range(40)] for step in range(1, 20)]
    write_store(tmp_path / "tokens", {"a": {"train": documents}}, vocab_size=31, eos=0, sequence_length=16)
    running, losses = [], []
    for name, kind, zero in (("plain", "plain", 1), ("zero 0", "engine", 0), ("zero 1", "engine", 1)):
        train = {"steps": 4, "batch": {"global": 4, "micro": 2}, "layout": {"data": 1, "zero": zero}, "optimizer": {"eps": 1e-6}}
        spec = {"run": str(tmp_path / name), "tokens": str(tmp_path / "tokens"), "seed": 3, "mixture": {"a": 1.0}, "train": train}
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({**spec, "model": {"layers": 2, "hidden": 32, "heads": 2}}))
        command = [sys.executable, str(SIDES), kind, str(path)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        running.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    outputs = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], "\n".join(outputs)
    for name in ("plain", "zero 0", "zero 1"):
        lines = storage.read_lines(tmp_path / name / "train" / "metrics.jsonl")
        assert [line["step"] for line in lines] == [1, 2, 3, 4]
        losses.append([line["loss"] for line in lines])
    assert losses[1] == pytest.approx(losses[0], abs=1e-5) and losses[2] == pytest.approx(losses[0], abs=1e-5)
    assert losses[0][-1] < losses[0][0]
