"""Which checkpoints go: never the newest, never one that is being read, never one that still owes a score."""

from __future__ import annotations

import math
import shutil
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headrace import storage
from headrace.checkpoint.canonical import MANIFEST, OLD, committed, step_of

PIN_SECONDS = 6 * 3600.0  # a pin older than this belongs to a reader that died


def removable(
    run: Path, keep: int, owed: Sequence[str], now: float, milestones: int | None = None, best: int = 0, newest: int | None = None
) -> list[Path]:
    """Checkpoints of a run that may be deleted, oldest first.

    Args:
        keep: how many of the newest stay in any case; at least 1.
        owed: names of the evaluation suites of which each checkpoint must have a result before it goes.
        now: seconds since the epoch, against which the age of pins is taken.
        milestones: checkpoints of steps that are multiples of this stay.
        best: so many of the lowest validation loss stay; of equals the newer.
        newest: step of the checkpoint that was just published. Those behind it are broken ones, which the run was not resumed from:
            they do not count among the newest, for the last whole one would go in their place. None: there are none.
    """
    checkpoints = committed(run / "train" / "checkpoints")
    course = [folder for folder in checkpoints if newest is None or step_of(folder) <= newest]
    scored = [(loss, -step_of(folder), folder) for folder in course if (loss := validation_loss(run, folder.name)) is not None]
    stay = {*course[-keep:], *(folder for _, _, folder in sorted(scored)[:best])}
    pins = [name for name, touched in storage.touched(run / "train" / "pins").items() if now - touched < PIN_SECONDS]
    return [
        folder
        for folder in course
        if folder not in stay
        and not (milestones is not None and step_of(folder) % milestones == 0)
        and not any(pin.startswith(folder.name) for pin in pins)
        and all(storage.present(run / "eval" / folder.name / f"{suite}.json") for suite in owed)
    ]


def validation_loss(run: Path, checkpoint: str) -> float | None:
    """Nats per token of a checkpoint on held-out text; None where it was not scored, or the score is no finite number."""
    try:
        scores: Any = storage.read_json(run / "eval" / checkpoint / "fast.json")
    except (FileNotFoundError, ValueError):
        return None
    loss = scores.get("validation_loss") if isinstance(scores, dict) else None
    return float(loss) if isinstance(loss, int | float) and math.isfinite(loss) else None


def prune(run: Path, keep: int, owed: Sequence[str], milestones: int | None = None, best: int = 0, newest: int | None = None) -> list[str]:
    """Delete what may go, see `removable`; names of the deleted checkpoints."""
    gone = removable(run, keep, owed, time.time(), milestones, best, newest)
    for folder in gone:
        _delete(folder)
    return [folder.name for folder in gone]


def forget(root: Path, step: int) -> list[str]:
    """Delete the checkpoints behind a step, a course that is given up: a resume must not take it up again; their names."""
    gone = [folder for folder in committed(root) if step_of(folder) > step]
    for folder in reversed(gone):  # the newest first: a kill in between leaves the course only longer
        _delete(folder)
    return [folder.name for folder in gone]


def _delete(folder: Path) -> None:
    if storage.is_remote(folder):
        storage.remove(folder / MANIFEST)
        storage.remove_tree(folder)
        return
    # Renamed first: a reader sees the whole checkpoint or none.
    aside = folder.with_name(f"{storage.ASIDE}{folder.name}-{uuid.uuid4().hex[:8]}")
    folder.replace(aside)
    shutil.rmtree(aside)


def sweep(root: Path) -> None:
    """Remove what a killed writer left aside; only the one publisher of `root` may call it, with no writer at work."""
    if storage.is_remote(root):
        _sweep_store(root)
        return
    for path in root.glob(f"{storage.ASIDE}*"):
        if (path / OLD).is_dir():
            # Killed between the two renames by which one checkpoint replaces another: the new one is whole, so it takes its place.
            for new in path.glob("step-*"):
                if not (root / new.name).exists():
                    new.replace(root / new.name)
        shutil.rmtree(path, ignore_errors=True)


def _sweep_store(root: Path) -> None:
    """The same on an object store: files that no manifest lists."""
    for name in storage.names(root):
        try:
            manifest = storage.read_json(root / name / MANIFEST)  # asked for itself: a listing may be late
        except FileNotFoundError:
            storage.remove_tree(root / name)
            continue
        listed = {MANIFEST, *(entry["path"] for entry in manifest["files"])}
        for path in storage.sizes(root / name).keys() - listed:
            storage.remove(root / name / path)
