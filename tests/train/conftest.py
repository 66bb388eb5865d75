"""Small training runs, each rank a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.tokens.store import write_store

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Case:
    """One training run for `run_cases.py`."""

    spec: dict[str, Any]
    begin: Path | None = None
    file_limit: int | None = None


class Lab:
    """Makes and runs small trainings in a folder that holds a token store in `tokens`."""

    case = Case

    def __init__(self) -> None:
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def write_tokens(self, folder: Path, seed: int = 0) -> None:
        """A store of two sources whose documents can be learned: each token is at most 2 above the one before."""
        generator = np.random.default_rng(seed)

        def documents(count: int) -> list[list[int]]:
            return [(np.cumsum(generator.integers(0, 3, generator.integers(3, 40))) % 96 + 1).tolist() for _ in range(count)]

        folder.mkdir(parents=True)
        streams = {"a": {"train": documents(60)}, "b": {"train": documents(20)}}
        write_store(folder, streams, vocab_size=97, eos=0, sequence_length=16)
        (folder / "tokenizer.json").write_text("{}")

    def spec(self, folder: Path, name: str, model: Mapping[str, Any] | None = None, **train: Any) -> dict[str, Any]:
        """Specification of the run folder/name: six steps, unless `train` says otherwise, of a small decoder, unless `model` does."""
        settings = {
            "steps": 6,
            "batch": {"global": 12, "micro": 2},
            "schedule": {"name": "cosine", "warmup": 2},
            "optimizer": {"lr": 1e-3, "eps": 1e-6, "clip": 0.5},
            "checkpoint": {"every": 3},
            **train,
        }
        return {
            "run": str(folder / name),
            "tokens": str(folder / "tokens"),
            "seed": 7,
            "mixture": {"a": 1.0, "b": 2.0},
            "model": {"layers": 2, "hidden": 32, "heads": 4, "kv_heads": 2, "mlp": 34, **(model or {})},
            "objective": {"name": "continuation" if model and model.get("architecture") == "encoder_decoder" else "causal"},
            "train": settings,
        }

    def run(self, folder: Path, world: int, cases: Sequence[Case], torchrun: bool = False) -> None:
        """Run the cases, one after the other, on `world` ranks."""
        arguments = [str(HERE / "run_cases.py")]
        for case in cases:
            path = folder / f"{Path(case.spec['run']).name}.json"
            path.write_text(json.dumps({"spec": case.spec, "begin": case.begin and str(case.begin), "file_limit": case.file_limit}))
            arguments.append(str(path))
        if torchrun:
            launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
            started = [self._start([*launcher, *arguments], {})]
        else:
            meet = {"WORLD_SIZE": str(world), "RENDEZVOUS": str(folder / f"rendezvous-{uuid.uuid4().hex}")}  # a file serves once
            ranks = [{**meet, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]
            started = [self._start(arguments, rank) for rank in ranks]
        outputs = [process.communicate(timeout=500)[0] for process in started]
        assert [process.returncode for process in started] == [0] * len(started), "\n".join(outputs)

    def _start(self, arguments: Sequence[str], variables: dict[str, str]) -> subprocess.Popen[str]:
        environment = {**self.environment, **variables}
        return subprocess.Popen([sys.executable, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def error(self, folder: Path, name: str, rank: int = 0) -> dict[str, str] | None:
        """Type and message of what a run raised on a rank."""
        path = folder / f"{name}.error{rank}.json"
        return json.loads(path.read_text()) if path.exists() else None

    def lines(self, run: Path, file: str = "metrics.jsonl") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (run / "train" / file).read_text().splitlines()]

    def column(self, run: Path, name: str) -> np.ndarray[Any, Any]:
        return np.array([line[name] for line in self.lines(run)])


@pytest.fixture(scope="session")
def lab() -> Lab:
    return Lab()
