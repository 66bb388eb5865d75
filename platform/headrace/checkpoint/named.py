"""Checkpoints by the names that users give them: RUN@STEP, or RUN for its newest."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from headrace import storage
from headrace.checkpoint.canonical import CheckpointError, checkpoint_name, committed, newest_valid, step_of, verify

log = logging.getLogger("headrace")

SHOWN = 10  # steps that a message lists


def place(name: str) -> tuple[Path, int | None]:
    """The absolute folder in a name, and the step if it gives one; a folder that is called so is no step of another."""
    match = re.fullmatch(r"(.+)@(\d+)", name)
    if match and not Path(name).expanduser().exists():
        return storage.folder(match[1]), int(match[2])
    return storage.folder(name), None


def find(run: Path, step: int | None) -> Path:
    """A checkpoint of a run of which every byte is right: that of the step, or the newest.

    Raises:
        CheckpointError: there is none, with those that there are.
    """
    root = run / "train" / "checkpoints"
    there, called = committed(root), storage.name(run)
    if not there:
        raise CheckpointError(f"{called} has no checkpoint yet; `headrace train {called}/config.yaml` makes them.")
    if step is None:
        newest, breaches = newest_valid(root)
        for breach in breaches:
            log.warning("checkpoint passed over: %s", breach)
        if newest is None:
            raise CheckpointError(f"no checkpoint of {called} is whole: {breaches[0]}.")
        return newest
    folder = root / checkpoint_name(step)
    if folder not in there:
        steps = [str(step_of(each)) for each in there]
        shown = ", ".join(["..."] * (len(steps) > SHOWN) + steps[-SHOWN:])
        raise CheckpointError(f"{called} has no checkpoint of step {step}; it has {shown}.")
    if breaches := verify(folder):
        newest, _ = newest_valid(root)
        way_out = f"the newest that is whole is {called}@{step_of(newest)}" if newest else "no other is whole"
        raise CheckpointError(f"{breaches[0]}; {way_out}.")
    return folder
