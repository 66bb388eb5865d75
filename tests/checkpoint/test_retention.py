import os
from pathlib import Path

import pytest

from headrace.checkpoint import committed
from headrace.checkpoint.retention import PIN_SECONDS, prune, removable, sweep

NOW = 2_000_000_000.0


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for step in (0, 10, 20, 30):
        folder = tmp_path / "train" / "checkpoints" / f"step-{step:08d}"
        folder.mkdir(parents=True)
        (folder / "manifest.json").touch()
        score = tmp_path / "eval" / folder.name / "fast.json"
        score.parent.mkdir(parents=True)
        score.touch()
    return tmp_path


def steps(folders: list[Path]) -> list[int]:
    return [int(folder.name.removeprefix("step-")) for folder in folders]


def pin(run: Path, name: str, touched: float) -> None:
    path = run / "train" / "pins" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (touched, touched))


def test_the_newest_stay(run: Path) -> None:
    assert steps(removable(run, 2, ["fast"], NOW)) == [0, 10]
    assert removable(run, 4, ["fast"], NOW) == []
    assert prune(run, 1, ["fast"]) == ["step-00000000", "step-00000010", "step-00000020"]
    assert steps(committed(run / "train" / "checkpoints")) == [30]
    assert [path.name for path in (run / "train" / "checkpoints").iterdir()] == ["step-00000030"]


def test_one_that_owes_a_score_stays(run: Path) -> None:
    (run / "eval" / "step-00000010" / "fast.json").unlink()
    assert steps(removable(run, 1, ["fast"], NOW)) == [0, 20]
    assert steps(removable(run, 1, [], NOW)) == [0, 10, 20]
    assert removable(run, 1, ["fast", "full"], NOW) == []


def test_one_that_is_being_read_stays(run: Path) -> None:
    pin(run, "step-00000000.evaluate-fast", NOW - 10)
    pin(run, "step-00000010.evaluate-fast", NOW - PIN_SECONDS - 10)
    assert steps(removable(run, 1, ["fast"], NOW)) == [10, 20], "the second pin's reader is long dead"


def test_what_a_killed_writer_left_is_swept(run: Path) -> None:
    root = run / "train" / "checkpoints"
    (root / ".aside-step-00000040-1234").mkdir()
    (root / ".aside-step-00000040-1234" / "model.safetensors").touch()
    sweep(root)
    assert steps(sorted(root.iterdir())) == [0, 10, 20, 30]
