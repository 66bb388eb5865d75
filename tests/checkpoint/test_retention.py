import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from headrace.checkpoint import committed
from headrace.checkpoint.retention import PIN_SECONDS, forget, prune, removable, sweep, validation_loss

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


def score(run: Path, step: int, value: Any) -> None:
    (run / "eval" / f"step-{step:08d}" / "fast.json").write_text(json.dumps({"validation_loss": value}))


def test_milestones_stay(run: Path) -> None:
    assert steps(removable(run, 1, ["fast"], NOW, milestones=20)) == [10]
    assert steps(removable(run, 1, ["fast"], NOW, milestones=40)) == [10, 20], "0 is a multiple of all"


def test_the_best_stay(run: Path) -> None:
    for step, loss in ((0, 9.0), (10, 2.5), (20, 2.5), (30, 3.0)):
        score(run, step, loss)
    assert steps(removable(run, 1, ["fast"], NOW, best=1)) == [0, 10], "of equals the newer"
    assert steps(removable(run, 1, ["fast"], NOW, best=2)) == [0]
    assert steps(removable(run, 1, ["fast"], NOW, best=3)) == [0], "the newest is among the best three, and counts"
    assert removable(run, 1, ["fast"], NOW, best=4) == []


@pytest.mark.parametrize("content", ['{"validation_loss": null}', '{"status": "failed"}', '{"validation_loss": NaN}', "[]", "{", ""])
def test_what_has_no_loss_is_not_among_the_best(run: Path, content: str) -> None:
    for step in (0, 20, 30):
        score(run, step, 5 + step)
    (run / "eval" / "step-00000010" / "fast.json").write_text(content)
    assert validation_loss(run, "step-00000010") is None and validation_loss(run, "step-00000040") is None
    assert steps(removable(run, 1, ["fast"], NOW, best=2)) == [10]


def test_broken_ones_behind_the_one_just_published_do_not_count_as_newest(run: Path) -> None:
    # 20 and 30 were passed over at the resume from 0, and 10 has just been written.
    assert steps(removable(run, 1, ["fast"], NOW, newest=10)) == [0]
    assert removable(run, 2, ["fast"], NOW, newest=10) == []
    assert prune(run, 1, ["fast"], newest=20) == ["step-00000000", "step-00000010"]


def test_a_course_that_is_given_up_is_forgotten(run: Path) -> None:
    root = run / "train" / "checkpoints"
    assert forget(root, 10) == ["step-00000020", "step-00000030"]
    assert steps(sorted(root.iterdir())) == [0, 10]
    assert forget(root, 10) == []


@pytest.mark.parametrize("renamed", [False, True])
def test_a_replacement_that_was_cut_short_is_ended(run: Path, renamed: bool) -> None:
    """Killed between the renames old -> aside and new -> final, or behind both."""
    root = run / "train" / "checkpoints"
    aside = root / ".aside-step-00000030-1234"
    new = aside / "step-00000030"
    shutil.copytree(root / "step-00000030", new)
    (new / "new").touch()
    (root / "step-00000030").replace(aside / "old")
    if renamed:
        new.replace(root / "step-00000030")
    sweep(root)
    assert steps(sorted(root.iterdir())) == [0, 10, 20, 30]
    assert (root / "step-00000030" / "new").exists()


def test_what_a_killed_writer_left_is_swept(run: Path) -> None:
    root = run / "train" / "checkpoints"
    (root / ".aside-step-00000040-1234").mkdir()
    (root / ".aside-step-00000040-1234" / "model.safetensors").touch()
    sweep(root)
    assert steps(sorted(root.iterdir())) == [0, 10, 20, 30]
