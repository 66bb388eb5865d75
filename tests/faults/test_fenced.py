"""A group of workers that was taken for dead comes back while, or after, another has done its work: it commits nothing."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from headrace import fence, storage

STEPS = 60


def contents(run: Path) -> dict[str, bytes]:
    """What counts of a run: steps, checkpoints."""
    paths = [run / "train" / "metrics.jsonl", *(run / "train" / "checkpoints").rglob("*")]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in paths if path.is_file()}


def test_a_group_that_was_cut_off_commits_nothing_when_it_is_back(faults: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its watchdog would end it for the time that it was away.
    spec = faults.specification(folder, "zombie", steps=STEPS, timeout_s=3600.0)
    run = Path(spec["run"])
    zombie = faults.start(spec)
    zombie.take_steps(15)
    # In the middle of a step: one that is stopped between its look and its commit gets through with that one.
    zombie.ranks[1].send_signal(signal.SIGSTOP)
    faults.wait_in_an_all_reduce(zombie, 0)
    zombie.ranks[0].send_signal(signal.SIGSTOP)
    faults.finish(spec)
    assert [line["step"] for line in faults.read_lines(run / "train" / "metrics.jsonl")] == list(range(1, STEPS + 1))
    before = contents(run)
    for rank in zombie.ranks:
        rank.send_signal(signal.SIGCONT)
    zombie.end()
    assert zombie.codes == [fence.EXIT_CODE] * 2, "\n".join(zombie.said)
    assert "group 1 of workers is replaced" in zombie.said[0]
    assert contents(run) == before

    # One that starts late, of an attempt that has a successor by now, does not come so far.
    storage.create(fence.attempt_path(run, "train", 2), b"{}")
    for name, value in fence.Identity(run, "train", 1).variables().items():
        monkeypatch.setenv(name, value)
    late = faults.start(spec, world=1)
    late.end()
    assert late.codes == [fence.EXIT_CODE], late.said[0]
    assert contents(run) == before
