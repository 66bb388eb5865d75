"""Workers that are killed, stopped, told to go and denied the disk: in the end their run is the one that nothing happened to.

`make test` has one fault of each kind befall one run, a start each; `make faults` ten of each kind, at random moments.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.checkpoint import committed, read_manifest, verify
from headrace.train.incidents import incidents

KINDS = ("in a step", "in an all-reduce", "in a checkpoint", "all at once", "stopped", "told to go", "disk full", "other data")


class Story:
    """One run and what befell it."""

    def __init__(self, faults: Any, folder: Path, name: str, **train: Any) -> None:
        self.faults, self.spec = faults, faults.specification(folder, name, **train)
        self.run = Path(self.spec["run"])
        self.told: list[tuple[str, int, Any, int | None, int]] = []  # kind, rank, outcome, step restored by the next start, steps taken

    def starts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.faults.read_lines(self.run / "train" / "workers.jsonl")
        return found

    def suffer(self, kind: str, rank: int) -> None:
        """One start, ended by a fault."""
        strike: dict[str, Callable[[Any], Any]] = {
            "in a step": lambda group: self.faults.kill_in_a_step(group, rank),
            "in an all-reduce": lambda group: self.faults.kill_in_an_all_reduce(group, rank),
            "in a checkpoint": lambda group: self.faults.kill_in_a_checkpoint(group, rank),
            "all at once": self.faults.kill_everything,
            "stopped": lambda group: self.faults.stop(group, rank),
            "told to go": lambda group: self.faults.terminate(group, rank),
            "disk full": self.faults.fill_the_disk,
            "other data": lambda group: group.end(),
        }
        manifest = Path(self.spec["tokens"]) / "manifest.json"
        kept = manifest.read_text()
        if kind == "other data":
            manifest.write_text(kept.replace('"0000000000000000"', '"1111111111111111"'))
        group = self.faults.start(self.spec)
        outcome = strike[kind](group)
        manifest.write_text(kept)
        steps = group.steps()
        whole = [folder for folder in committed(self.run / "train" / "checkpoints") if not verify(folder)]
        self.told.append((kind, rank, outcome, read_manifest(whole[-1])["state"]["step"] if whole else None, steps))

    def of(self, kind: str) -> list[tuple[str, int, Any, int | None, int]]:
        return [each for each in self.told if each[0] == kind]


@pytest.fixture(scope="module")
def plain(faults: Any, folder: Path) -> Path:
    """The run that nothing happens to."""
    spec = faults.specification(folder, "plain")
    faults.finish(spec)
    return Path(spec["run"])


@pytest.fixture(scope="module")
def story(faults: Any, folder: Path, plain: Path) -> Story:
    """One run that everything happens to."""
    made = Story(faults, folder, "story")
    for kind in KINDS:
        made.suffer(kind, KINDS.index(kind) % 2)
    faults.finish(made.spec)
    return made


def test_it_ends_as_the_run_that_nothing_happened_to(story: Story, plain: Path, equal: Any) -> None:
    equal(story.run, plain)
    assert [start["restored_step"] for start in story.starts()][1:] == [step for kind, *_, step, _ in story.told if kind != "other data"]


def test_no_more_is_lost_than_the_steps_since_the_last_checkpoint(story: Story) -> None:
    for kind, _, _, restored, steps in story.told:
        # A checkpoint is written behind the steps after it, and one that was killed in the middle is not there.
        assert restored is not None and steps - restored < 2 * story.spec["train"]["checkpoint"]["every"], kind


def test_a_worker_that_is_told_to_go_loses_no_step_and_asks_to_be_started_again(story: Story) -> None:
    for _, rank, outcome, restored, steps in story.of("told to go"):
        assert outcome.codes == [75, 75] and restored == steps
        assert "this worker is asked to go: it got a SIGTERM" in outcome.said[rank]
        assert f"step {steps} is saved, and the same command goes on from it" in outcome.said[0]


def test_a_stopped_worker_is_found_by_the_other_in_its_time(story: Story) -> None:
    hangs = [line for line in incidents(story.run) if line["event"] == "hang"]
    assert len(hangs) == len(story.of("stopped"))
    for hang, (_, rank, outcome, _, _) in zip(hangs, story.of("stopped")):
        assert outcome.codes[1 - rank] == 75 and hang["rank"] == 1 - rank and hang["silent"] == [rank]
        assert hang["message"] in outcome.said[1 - rank]
        timeout = story.spec["train"]["timeout_s"]
        assert timeout <= hang["seconds"] <= timeout + 3
        assert "step.py" in Path(hang["stacks"]).read_text()


def test_a_full_disk_ends_every_rank_and_says_so(story: Story) -> None:
    for _, _, outcome, _, _ in story.of("disk full"):
        assert 0 not in outcome.codes
        assert all("could not be written: [Errno 27] File too large" in said for said in outcome.said), outcome.said


def test_data_that_changed_under_the_run_is_refused(story: Story) -> None:
    for _, _, outcome, _, _ in story.of("other data"):
        assert outcome.codes == [2, 2]
        assert all("but the run's data is now 1111111111111111; restore the data" in said for said in outcome.said)


def test_a_run_goes_on_with_another_number_of_workers(faults: Any, folder: Path, plain: Path) -> None:
    spec = faults.specification(folder, "worlds")
    faults.kill_everything(faults.start(spec, world=2))
    faults.kill_everything(faults.start(spec, world=1))
    faults.finish(spec, world=4)
    run = Path(spec["run"])
    assert [line["world"] for line in faults.read_lines(run / "train/workers.jsonl")] == [2, 1, 4]
    ours, theirs = ([line["loss"] for line in faults.read_lines(each / "train/metrics.jsonl")] for each in (run, plain))
    assert len(ours) == len(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_ten_of_a_kind_at_random_moments(faults: Any, folder: Path, equal: Any, kind: str) -> None:
    if not faults.full:
        pytest.skip("`make faults` runs these")
    long = {"steps": 260, "checkpoint": {"every": 10, "keep": 3}}
    undisturbed = faults.specification(folder, "undisturbed", **long)
    if not (folder / "undisturbed").exists():
        faults.finish(undisturbed)
    story = Story(faults, folder, f"ten {kind}", **long)
    for _ in range(10):
        story.suffer(kind, faults.random.randrange(2))
    faults.finish(story.spec)
    equal(story.run, folder / "undisturbed")
    for test in (
        test_no_more_is_lost_than_the_steps_since_the_last_checkpoint,
        test_a_worker_that_is_told_to_go_loses_no_step_and_asks_to_be_started_again,
        test_a_stopped_worker_is_found_by_the_other_in_its_time,
        test_a_full_disk_ends_every_rank_and_says_so,
        test_data_that_changed_under_the_run_is_refused,
    ):
        test(story)
