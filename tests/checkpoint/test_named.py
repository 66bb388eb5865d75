from pathlib import Path
from typing import Any

import pytest
import torch

from headrace.checkpoint import CheckpointError
from headrace.checkpoint.named import find, place
from headrace.checkpoint.write import Writer


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "tokenizer.json").write_text("{}")
    for step in (0, 5, 10):
        write(tmp_path / "run", step)
    return tmp_path / "run"


def write(run: Path, step: int) -> None:
    writer = Writer(run / "train" / "checkpoints", step)
    writer.add("model", "head.norm.weight", torch.full((4,), float(step)))
    about: dict[str, Any] = {"model": {}, "state": {"step": step}, "config": {}, "layout": {}, "versions": {}}
    writer.publish(about, run.parent / "tokenizer.json")


def test_a_name_is_a_folder_and_a_step(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent)
    assert place("run@5") == (run, 5)
    assert place("run") == place(str(run)) == (run, None)
    assert place("run@x") == (run.with_name("run@x"), None)
    (run.parent / "run@5").mkdir()
    assert place("run@5") == (run.with_name("run@5"), None), "a folder that is called so"
    assert place("~/run@7") == (Path.home() / "run", 7)


def test_a_step_or_the_newest_that_is_whole(run: Path) -> None:
    assert find(run, 5).name == "step-00000005" and find(run, None).name == "step-00000010"
    (run / "train" / "checkpoints" / "step-00000010" / "model.safetensors").write_bytes(b"torn")
    assert find(run, None).name == "step-00000005"
    with pytest.raises(CheckpointError, match=r"model\.safetensors: 4 bytes.*; the newest that is whole is .*run@5\."):
        find(run, 10)


def test_a_step_that_is_not_there_is_refused_with_the_last_that_are(run: Path) -> None:
    with pytest.raises(CheckpointError, match=r"run has no checkpoint of step 7; it has 0, 5, 10\."):
        find(run, 7)
    for step in range(11, 20):
        write(run, step)
    with pytest.raises(CheckpointError, match=r"it has \.\.\., 10, 11, 12, .*, 19\."):
        find(run, 7)
    with pytest.raises(CheckpointError, match=r"nowhere has no checkpoint yet; `headrace train"):
        find(run.parent / "nowhere", None)
