"""Which scores are owed: a scan of what is committed against what is scored. State is on storage, so a watcher may die at any time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headrace import storage
from headrace.checkpoint import committed
from headrace.checkpoint.canonical import MANIFEST

SUITE = "fast"


def result_path(run: Path, checkpoint: str, suite: str) -> Path:
    return run / "eval" / checkpoint / f"{suite}.json"


def owed(run: Path, max_tokens: int) -> list[Path]:
    """Committed checkpoints without a result of the fast suite, newest first: the newest tells whether to go on.

    A result counts only for the very checkpoint that it names by digest, and for the amount of text that the configuration asks for.
    """
    checkpoints = committed(run / "train" / "checkpoints")
    return [folder for folder in reversed(checkpoints) if not is_scored(run, folder, max_tokens)]


def is_scored(run: Path, checkpoint: Path, max_tokens: int) -> bool:
    try:
        result = storage.read_json(result_path(run, checkpoint.name, SUITE))
    except FileNotFoundError:
        return False
    if result.get("status") == "failed":
        return True
    digest = storage.file_entry(checkpoint, checkpoint / MANIFEST)["sha256"]
    return bool(result["checkpoint_manifest_sha256"] == digest and result["max_tokens"] == max_tokens)


def forget_failures(run: Path) -> None:
    """Have what could not be scored tried again."""
    for path in (run / "eval").glob(f"*/{SUITE}.json"):
        if storage.read_json(path).get("status") == "failed":
            path.unlink()


def pin(run: Path, checkpoint: str, holder: str) -> None:
    """Keep retention from deleting a checkpoint while `holder` reads it."""
    path = run / "train" / "pins" / f"{checkpoint}.{holder}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def unpin(run: Path, checkpoint: str, holder: str) -> None:
    (run / "train" / "pins" / f"{checkpoint}.{holder}").unlink(missing_ok=True)


def drop_pins(run: Path) -> None:
    for path in (run / "train" / "pins").glob("*"):
        path.unlink(missing_ok=True)


def record_failure(run: Path, checkpoint: str, reason: str, attempts: int) -> None:
    """A result that says that there is none: a checkpoint that cannot be scored must not hold up the run, nor be tried for ever."""
    value: dict[str, Any] = {"suite": SUITE, "checkpoint": checkpoint, "status": "failed", "reason": reason, "attempts": attempts}
    storage.write_json(result_path(run, checkpoint, SUITE), value)


def latest_checkpoint(run: Path) -> Path | None:
    checkpoints = committed(run / "train" / "checkpoints")
    return checkpoints[-1] if checkpoints else None
