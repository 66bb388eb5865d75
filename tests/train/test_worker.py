"""A run that is begun again: after damage, after a kill, when it is done, and when it may not go on."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from headrace.checkpoint import read_manifest, verify

SETTINGS = {"steps": 6, "layout": {"zero": 0}, "checkpoint": {"every": 2, "keep": 2}}
LONG = {"steps": 300, "layout": {"zero": 1}, "checkpoint": {"every": 20, "keep": 2, "initial": False}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, lab: Any) -> Path:
    """A run of six steps, copies of it that are begun again, and a long one that is killed."""
    folder: Path = tmp_path_factory.mktemp("worker")
    lab.write_tokens(folder / "tokens")
    lab.write_tokens(folder / "other" / "tokens", seed=1)
    manifest = folder / "other" / "tokens" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"0000000000000000"', '"1111111111111111"'))
    lab.run(folder, 1, [lab.case(lab.spec(folder, "whole", **SETTINGS)), lab.case(lab.spec(folder, "long", **LONG))])
    for name in ("again", "torn", "lost", "changed", "other-tokens"):
        shutil.copytree(folder / "whole", folder / name)
    newest = Path("train/checkpoints/step-00000006")
    torn = folder / "torn" / newest / "optimizer.safetensors"
    torn.write_bytes(torn.read_bytes()[:-100])
    shutil.rmtree(folder / "lost" / "train" / "checkpoints")
    killed = kill_in_the_middle(folder, lab)
    changed = {**SETTINGS, "optimizer": {"lr": 2e-3, "eps": 1e-6, "clip": 0.5}, "batch": {"global": 24, "micro": 4}}
    lab.run(
        folder,
        1,
        [
            lab.case(lab.spec(folder, "again", **SETTINGS)),
            lab.case(lab.spec(folder, "torn", **SETTINGS)),
            lab.case(lab.spec(folder, "lost", **{**SETTINGS, "batch": {"global": 12, "micro": 4}})),
            lab.case(lab.spec(folder, "changed", **changed)),
            lab.case({**lab.spec(folder, "other-tokens", **SETTINGS), "tokens": str(folder / "other" / "tokens")}),
            lab.case({**lab.spec(folder, "unweighted", **SETTINGS), "mixture": {"a": 1.0}}),
            lab.case(lab.spec(folder, "diverged", **{**SETTINGS, "steps": 40, "optimizer": {"lr": 1e30, "clip": None}})),
            lab.case(killed),
        ],
    )
    return folder


def kill_in_the_middle(folder: Path, lab: Any) -> dict[str, Any]:
    """Begin a run and SIGKILL it behind its second checkpoint; its specification."""
    spec: dict[str, Any] = lab.spec(folder, "killed", **LONG)
    (folder / "killed-spec.json").write_text(json.dumps(spec))
    command = [sys.executable, "-m", "headrace.train.worker", str(folder / "killed-spec.json")]
    worker = subprocess.Popen(command, env=lab.environment)
    metrics = folder / "killed" / "train" / "metrics.jsonl"
    while worker.poll() is None and not (metrics.exists() and len(metrics.read_bytes().splitlines()) >= 50):
        time.sleep(0.005)
    worker.kill()
    assert worker.wait() == -signal.SIGKILL, "it was still at work"
    return spec


def steps(run: Path) -> list[int]:
    return sorted(read_manifest(folder)["state"]["step"] for folder in (run / "train" / "checkpoints").iterdir())


def same_run(runs: Path, lab: Any, name: str, other: str) -> bool:
    return all(
        lab.column(runs / name, figure).tolist() == lab.column(runs / other, figure).tolist()
        for figure in ("step", "loss", "grad_norm", "lr")
    )


def newest_files(run: Path) -> Any:
    return read_manifest(max((run / "train" / "checkpoints").iterdir()))["files"]


def test_a_finished_run_is_let_alone(runs: Path, lab: Any) -> None:
    assert (runs / "again/train/metrics.jsonl").read_bytes() == (runs / "whole/train/metrics.jsonl").read_bytes()
    assert [line["restored_step"] for line in lab.lines(runs / "again", "workers.jsonl")] == [None, 6]
    assert newest_files(runs / "again") == newest_files(runs / "whole")


def test_the_newest_checkpoints_are_kept(runs: Path) -> None:
    assert steps(runs / "whole") == [4, 6]
    manifest = read_manifest(runs / "whole/train/checkpoints/step-00000004")
    assert manifest["state"]["samples"] == 4 * 12 and manifest["state"]["tokens"] == 4 * 12 * 16
    assert manifest["state"]["tokens_fingerprint"] == "0" * 16 and manifest["layout"]["data"] == 1


def test_a_torn_checkpoint_is_passed_over_and_written_again(runs: Path, lab: Any) -> None:
    _, start = lab.lines(runs / "torn", "workers.jsonl")
    assert start["restored_step"] == 4
    assert len(start["skipped_checkpoints"]) == 1 and "step-00000006/optimizer.safetensors" in start["skipped_checkpoints"][0]
    assert same_run(runs, lab, "torn", "whole")
    assert verify(runs / "torn/train/checkpoints/step-00000006") == [] and newest_files(runs / "torn") == newest_files(runs / "whole")


def test_without_a_checkpoint_a_run_begins_anew_and_forgets_its_metrics(runs: Path, lab: Any) -> None:
    assert lab.column(runs / "lost", "step").tolist() == [1, 2, 3, 4, 5, 6]
    # Another micro batch: the same step in other passes.
    assert lab.column(runs / "lost", "loss").tolist() == pytest.approx(lab.column(runs / "whole", "loss").tolist(), abs=1e-5)
    assert lab.column(runs / "lost", "grad_norm").tolist() == pytest.approx(lab.column(runs / "whole", "grad_norm").tolist(), rel=1e-4)


def test_a_killed_run_goes_on_step_for_step(runs: Path, lab: Any) -> None:
    _, start = lab.lines(runs / "killed", "workers.jsonl")
    assert start["restored_step"] >= 40
    assert lab.column(runs / "killed", "step").tolist() == list(range(1, 301))
    assert same_run(runs, lab, "killed", "long")
    assert newest_files(runs / "killed") == newest_files(runs / "long")


def test_a_changed_configuration_is_refused_by_field(runs: Path, lab: Any) -> None:
    error = lab.error(runs, "changed")
    assert error is not None and error["type"] == "ConfigError"
    assert "train.batch.global = 24, but 12 so far; train.optimizer.lr = 0.002, but 0.001 so far" in error["message"]
    assert steps(runs / "changed") == [4, 6] and same_run(runs, lab, "changed", "whole")


def test_other_data_is_refused(runs: Path, lab: Any) -> None:
    error = lab.error(runs, "other-tokens")
    assert error is not None and error["type"] == "ConfigError" and "is now 1111111111111111" in error["message"]


def test_a_source_without_a_weight_is_refused(runs: Path, lab: Any) -> None:
    error = lab.error(runs, "unweighted")
    assert error is not None and error["type"] == "ConfigError" and "mixture: no weight for b" in error["message"]


def test_a_loss_that_is_no_number_ends_the_run(runs: Path, lab: Any) -> None:
    error = lab.error(runs, "diverged")
    assert error is not None and error["type"] == "TrainingDiverged" and "lower train.optimizer.lr" in error["message"]
    assert len(lab.lines(runs / "diverged")) < 40
    rewinds = [line for line in lab.lines(runs / "diverged", "incidents.jsonl") if line["event"] == "rewind"]
    assert len(rewinds) == 2 and len(json.loads((runs / "diverged/train/skipped.json").read_text())["windows"]) == 2
