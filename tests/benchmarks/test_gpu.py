"""What of benchmarks/gpu.py runs without a GPU: engine, step and compiled blocks at a tiny size, and the word that nothing was measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import gpu
from headrace.model.compiled import compiler

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
TRIAL = """
import dataclasses, json, sys, torch
torch.set_num_threads(1)
import gpu
from headrace.model import DecoderConfig
from headrace.train.process import leave
model = DecoderConfig(layers=2, hidden=32, heads=4, kv_heads=2).sized(97, 16)
found = {}
for name, compile, make in (("plain", False, gpu.whole_rows), ("compiled", True, gpu.whole_rows), ("packed", True, gpu.packed_rows)):
    gpu.DOCUMENT = 5
    train = gpu.settings(1, 2, sequences=4, compile=compile)
    run = gpu.measure(model, train, make(model, 2), 1, 2)
    found[name] = {**dataclasses.asdict(run), "row": gpu.memory_row(name, model, train, 1, run)}
print("FOUND", json.dumps(found))
leave()
"""


def test_without_a_gpu_it_says_so_and_measures_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    for rank, expected in (("0", "no GPU on this machine: nothing was measured\n"), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        gpu.main()
        assert capsys.readouterr().out == expected
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--json"])
    gpu.main()
    found = json.loads(capsys.readouterr().out)
    assert (found["name"], found["rows"], found["skipped"][:6]) == ("gpu", [], "no GPU")


@pytest.mark.skipif(compiler() is None, reason="torch's compiler needs a C++ compiler")
def test_compiled_blocks_take_the_steps_of_plain_ones() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(BENCHMARKS), "CUDA_VISIBLE_DEVICES": ""}
    # A process of its own: DeepSpeed keeps process groups to the end.
    done = subprocess.run([sys.executable, "-c", TRIAL], env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.split("FOUND")[1])
    assert found["compiled"]["losses"] == pytest.approx(found["plain"]["losses"], abs=1e-2)
    assert found["plain"]["losses"][-1] < found["plain"]["losses"][0] and found["packed"]["losses"][-1] < found["packed"]["losses"][0]
    for name in ("plain", "compiled", "packed"):
        assert found[name]["tokens_per_s"] > 0 and found[name]["peak_bytes"] is None
        assert found[name]["row"]["equal"] is True  # the state's bytes are those of the plan
