"""Workers that are killed, stopped, told to go and denied the disk: in the end their run is the one that nothing happened to.

`make test` has a fault of each kind befall one run, a start each; `make faults` ten of each, at random moments.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.checkpoint import committed, read_manifest, verify
from headrace.train.incidents import incidents

KINDS = ("in a step", "in an all-reduce", "in a checkpoint", "stopped", "told to go", "disk full", "all at once", "other data")
FEW = KINDS[:6]  # the others have tests of their own that are quicker


@dataclass
class Suffered:
    """A fault, and what was there behind it."""

    kind: str
    rank: int  # that it struck
    group: Any
    steps: int  # taken
    whole: int  # step of the newest checkpoint that is whole


class Story:
    """One run and what befell it."""

    def __init__(self, faults: Any, folder: Path, name: str, **train: Any) -> None:
        self.faults, self.spec = faults, faults.specification(folder, name, **train)
        self.run = Path(self.spec["run"])
        self.suffered: list[Suffered] = []

    def suffer(self, kind: str, rank: int) -> None:
        """One start, ended by a fault."""
        faults = self.faults
        strike: dict[str, Callable[[Any], None]] = {
            "in a step": lambda group: faults.kill_in_a_step(group, rank),
            "in an all-reduce": lambda group: faults.kill_in_an_all_reduce(group, rank),
            "in a checkpoint": lambda group: faults.kill_in_a_checkpoint(group, rank),
            "stopped": lambda group: faults.stop(group, rank),
            "told to go": lambda group: faults.terminate(group, rank),
            "disk full": faults.fill_the_disk,
            "all at once": faults.kill_everything,
            "other data": lambda group: group.end(),
        }
        manifest = Path(self.spec["tokens"]) / "manifest.json"
        kept = manifest.read_text()
        if kind == "other data":
            manifest.write_text(kept.replace('"0000000000000000"', '"1111111111111111"'))
        group = faults.start(self.spec)
        strike[kind](group)
        manifest.write_text(kept)
        whole = [folder for folder in committed(self.run / "train" / "checkpoints") if not verify(folder)]
        self.suffered.append(Suffered(kind, rank, group, group.steps(), read_manifest(whole[-1])["state"]["step"] if whole else 0))

    def of(self, *kinds: str) -> list[Suffered]:
        return [each for each in self.suffered if each.kind in kinds]


def ends_as(story: Story, plain: Path, same: Callable[[Path, Path], None]) -> None:
    same(story.run, plain)
    starts = story.faults.read_lines(story.run / "train" / "workers.jsonl")
    begun = [each for each in story.suffered if each.kind != "other data"]
    assert len(starts) == len(begun) + 1
    for start, before in zip(starts[1:], begun):
        assert (start["restored_step"] or 0) == before.whole


def loses_little(story: Story) -> None:
    for each in story.suffered:
        # A checkpoint is written behind the steps after it, and one that fails is known to have failed when the next is due.
        assert each.steps - each.whole <= 2 * story.spec["train"]["checkpoint"]["every"], each


def killed_take_their_peers_along(story: Story) -> None:
    for each in story.of("in a step", "in an all-reduce", "in a checkpoint"):
        assert each.group.codes[each.rank] == -signal.SIGKILL and each.group.codes[1 - each.rank] not in (0, None), each


def told_to_go_save_first(story: Story) -> None:
    for each in story.of("told to go"):
        assert each.group.codes == [75, 75] and each.whole == each.steps
        assert "this worker is asked to go: it got a SIGTERM" in each.group.said[each.rank]
        assert f"step {each.steps} is saved, and the same command goes on from it" in each.group.said[0]


def stopped_are_found(story: Story) -> None:
    hangs = [line for line in incidents(story.run) if line["event"] == "hang"]
    timeout = story.spec["train"]["timeout_s"]
    for hang, each in zip(hangs, story.of("stopped"), strict=True):
        assert each.group.codes[1 - each.rank] == 75 and hang["rank"] == 1 - each.rank and hang["silent"] == [each.rank]
        assert hang["message"] in each.group.said[1 - each.rank]
        assert timeout <= hang["seconds"] <= timeout + 3
        assert "step.py" in Path(hang["stacks"]).read_text()


def full_disks_are_told(story: Story) -> None:
    for each in story.of("disk full"):
        assert 0 not in each.group.codes
        assert all("could not be written: [Errno 27] File too large" in said for said in each.group.said), each.group.said


def other_data_is_refused(story: Story) -> None:
    for each in story.of("other data"):
        assert each.group.codes == [2, 2]
        assert all("but the run's data is now 1111111111111111; restore the data" in said for said in each.group.said), each.group.said


CLAIMS = [loses_little, killed_take_their_peers_along, told_to_go_save_first, stopped_are_found, full_disks_are_told, other_data_is_refused]


@pytest.fixture(scope="module")
def story(faults: Any, folder: Path) -> Story:
    """One run that everything happens to."""
    made = Story(faults, folder, "story")
    for place, kind in enumerate(FEW):
        made.suffer(kind, place % 2)
    faults.finish(made.spec)
    return made


def test_it_ends_as_the_run_that_nothing_happened_to(story: Story, plain: Path, same: Any) -> None:
    ends_as(story, plain, same)


@pytest.mark.parametrize("claim", CLAIMS[:-1], ids=lambda claim: claim.__name__.replace("_", " "))
def test_of_those_that_were_struck(story: Story, claim: Callable[[Story], None]) -> None:
    claim(story)


def test_a_run_goes_on_with_another_number_of_workers(faults: Any, folder: Path, plain: Path) -> None:
    """And after all ranks, and whoever started them, were killed at once."""
    spec = faults.specification(folder, "worlds")
    faults.kill_everything(faults.start(spec, world=2))
    faults.finish(spec, world=1)
    run = Path(spec["run"])
    assert [line["world"] for line in faults.read_lines(run / "train/workers.jsonl")] == [2, 1]
    ours, theirs = ([line["loss"] for line in faults.read_lines(each / "train/metrics.jsonl")] for each in (run, plain))
    assert len(ours) == len(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
def test_ten_of_a_kind_at_random_moments(faults: Any, folder: Path, plain: Path, same: Any, kind: str) -> None:
    story = Story(faults, folder, f"ten {kind}")
    if kind == "other data":  # other than that of a checkpoint
        story.suffer("told to go", 0)
    for _ in range(10):
        story.suffer(kind, faults.random.randrange(2))
    faults.finish(story.spec)
    ends_as(story, plain, same)
    for claim in CLAIMS:
        claim(story)
