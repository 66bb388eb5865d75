"""Which checkpoints go: never the newest, never one that is being read, never one that still owes a score."""

from __future__ import annotations

import contextlib
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from headrace import storage
from headrace.checkpoint.canonical import committed

PIN_SECONDS = 6 * 3600.0  # a pin older than this belongs to a reader that died


def removable(run: Path, keep: int, owed: Sequence[str], now: float) -> list[Path]:
    """Checkpoints of a run that may be deleted, oldest first.

    Args:
        keep: how many of the newest stay in any case.
        owed: names of the evaluation suites of which each checkpoint must have a result before it goes.
        now: seconds since the epoch, against which the age of pins is taken.
    """
    pins = [name for name, touched in _pins(run / "train" / "pins") if now - touched < PIN_SECONDS]
    return [
        folder
        for folder in committed(run / "train" / "checkpoints")[:-keep]
        if not any(pin.startswith(folder.name) for pin in pins)
        and all((run / "eval" / folder.name / f"{suite}.json").is_file() for suite in owed)
    ]


def _pins(folder: Path) -> Iterator[tuple[str, float]]:
    for path in folder.glob("*"):
        with contextlib.suppress(FileNotFoundError):  # its reader has just ended
            yield path.name, path.stat().st_mtime


def prune(run: Path, keep: int, owed: Sequence[str]) -> list[str]:
    """Delete what may go; names of the deleted checkpoints."""
    gone = removable(run, keep, owed, time.time())
    for folder in gone:
        # Renamed first: a reader sees the whole checkpoint or none.
        aside = folder.with_name(f"{storage.ASIDE}{folder.name}-{uuid.uuid4().hex[:8]}")
        folder.replace(aside)
        shutil.rmtree(aside)
    return [folder.name for folder in gone]


def sweep(root: Path) -> None:
    """Remove what a killed writer left aside; only the one writer of `root` may call it."""
    for path in root.glob(f"{storage.ASIDE}*"):
        shutil.rmtree(path, ignore_errors=True)
