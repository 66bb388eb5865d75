"""Steps whose gradients are no numbers: what they may not leave behind, and what going back must find and free."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EVERY_STEP = {"every": 1, "keep": 1}
CASES: dict[str, dict[str, Any]] = {
    "plain": {"layout": {"zero": 1}, "bad": [3]},
    **{f"offload-{zero}": {"layout": {"zero": zero, "offload": True}, "precision": "bf16", "bad": [3]} for zero in (1, 2, 3)},
    "high": {"layout": {"zero": 2}, "precision": "fp16", "steps": 24, "scale": 2**30},
    "lowest": {"layout": {"zero": 1}, "precision": "fp16", "scale": 1, "bad": [2, 3, 4]},
    "back": {"layout": {"zero": 3}, "checkpoint": EVERY_STEP, "spikes": {"patience": 2}, "bad": [5, 6]},
    "told": {"layout": {"zero": 1}, "drain": 6},
    "damaged": {"layout": {"zero": 1}},
    "lacking": {"layout": {"zero": 1}, "lacks": True},
}
FAULTS: dict[str, Any] = {"bad": [], "scale": None, "drain": None, "lacks": False}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, lab: Any) -> Path:
    folder: Path = tmp_path_factory.mktemp("skips")
    lab.write_tokens(folder / "tokens")
    (folder / "damaged" / "train").mkdir(parents=True)
    (folder / "damaged" / "train" / "skipped.json").write_text("{")
    paths = []
    for name, case in CASES.items():
        settings = {key: value for key, value in case.items() if key not in FAULTS}
        faults = {key: case.get(key, otherwise) for key, otherwise in FAULTS.items()}
        paths.append(folder / f"{name}.json")
        paths[-1].write_text(json.dumps({"spec": lab.spec(folder, name, **settings), **faults}))
    ranks = [
        subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "run_skips.py"), *map(str, paths)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "RENDEZVOUS": str(folder / "meet"), "WORLD_SIZE": "2", "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=300)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(said)
    return folder


@pytest.mark.parametrize("name", ["offload-1", "offload-2", "offload-3"])
def test_gradients_of_a_skipped_step_are_not_in_the_next(runs: Path, lab: Any, name: str) -> None:
    skipped = [line["step"] for line in lab.lines(runs / name) if "skipped" in line]
    assert skipped == [3]
    for figure in ("loss", "grad_norm"):
        ours, plain = lab.column(runs / name, figure)[3:], lab.column(runs / "plain", figure)[3:]
        assert ours.tolist() == pytest.approx(plain.tolist(), rel=2e-2)


def test_finding_the_loss_scale_is_no_spike(runs: Path, lab: Any) -> None:
    lines = lab.lines(runs / "high")
    found = [line.get("skipped") for line in lines]
    first = found.index(None)
    assert first > 8 and found == ["overflow"] * first + [None] * (24 - first), "more in a row than the patience with spikes"
    assert not (runs / "high/train/skipped.json").exists() and lab.error(runs, "high") is None


def test_an_overflow_at_the_lowest_loss_scale_is_the_step_s_own(runs: Path, lab: Any) -> None:
    assert [line.get("skipped") for line in lab.lines(runs / "lowest")] == [None, *["not finite"] * 3, None, None]
    assert lab.error(runs, "lowest") is None


def test_a_checkpoint_from_before_the_skipped_steps_is_there_to_go_back_to(runs: Path, lab: Any) -> None:
    (rewind,) = [line for line in lab.lines(runs / "back", "incidents.jsonl") if line["event"] == "rewind"]
    assert (rewind["step"], rewind["to"], rewind["batches_left_out"]) == (6, 4, 2)
    assert lab.column(runs / "back", "step").tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("rank", [0, 1])
def test_an_engine_is_gone_before_the_next_is_made(runs: Path, rank: int) -> None:
    first, second = json.loads((runs / f"back.bytes{rank}.json").read_text())
    # Two layers of hidden size 32 have 100 kB of weights, gradients and moments a rank, and a checkpoint's copies 256 MB.
    assert second - first < 20_000


def test_a_worker_that_is_told_to_go_at_the_last_step_is_done(runs: Path, lab: Any) -> None:
    assert [lab.error(runs, "told", rank) for rank in range(2)] == [None, None]
    assert lab.column(runs / "told", "step").tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(("name", "message"), [("damaged", "skipped.json: not valid JSON"), ("lacking", "this node has no such folder")])
def test_what_one_rank_refuses_all_do(runs: Path, lab: Any, name: str, message: str) -> None:
    for rank in range(2):
        error = lab.error(runs, name, rank)
        assert error is not None and error["type"] == "ConfigError" and message in error["message"]
