"""Which scores are owed: a scan of what is committed against what is scored. State is on storage, so a watcher may die at any time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace import storage
from headrace.checkpoint import committed
from headrace.checkpoint.canonical import MANIFEST
from headrace.evaluate.config import BENCHMARKS, FAST, EvaluateConfig


@dataclass(frozen=True)
class Suite:
    """Scores that every checkpoint is owed; a result counts if it says of itself what `settings` ask for."""

    name: str
    settings: Mapping[str, Any]


def suites(config: EvaluateConfig, decontaminate: str | None) -> list[Suite]:
    """The suites of a run, the most urgent first.

    Args:
        decontaminate: fingerprint of the run's artifact of that stage, None where it has none.
    """
    found = [Suite(FAST, {"max_tokens": config.max_tokens})]
    if decontaminate is not None and config.benchmark_items is not None:
        asked = {"benchmark_items": config.benchmark_items, "decontaminate_fingerprint": decontaminate}
        found.append(Suite(BENCHMARKS, asked))
    return found


def result_path(run: Path, checkpoint: str, suite: str) -> Path:
    return run / "eval" / checkpoint / f"{suite}.json"


def owed(run: Path, wanted: Sequence[Suite]) -> list[tuple[Path, Suite]]:
    """Committed checkpoints and suites of which there is no result, by suite and newest first: the newest tells whether to go on.

    A result counts only for the very checkpoint that it names by digest, and for what the configuration asks for.
    """
    checkpoints = committed(run / "train" / "checkpoints")
    return [(folder, suite) for suite in wanted for folder in reversed(checkpoints) if not is_scored(run, folder, suite)]


def is_scored(run: Path, checkpoint: Path, suite: Suite) -> bool:
    try:
        result = storage.read_json(result_path(run, checkpoint.name, suite.name))
    except FileNotFoundError:
        return False
    if result.get("status") == "failed":
        return True
    digest = storage.file_entry(checkpoint, checkpoint / MANIFEST)["sha256"]
    return bool(result["checkpoint_manifest_sha256"] == digest and all(result[key] == value for key, value in suite.settings.items()))


def forget_failures(run: Path) -> None:
    """Have what could not be scored tried again."""
    for checkpoint in storage.names(run / "eval"):
        for name in storage.names(run / "eval" / checkpoint) if checkpoint.startswith("step-") else ():
            if storage.read_json(run / "eval" / checkpoint / name).get("status") == "failed":
                storage.remove(run / "eval" / checkpoint / name)


def pin(run: Path, checkpoint: str, holder: str) -> None:
    """Keep retention from deleting a checkpoint while `holder` reads it."""
    storage.write_bytes(run / "train" / "pins" / f"{checkpoint}.{holder}", b"")


def unpin(run: Path, checkpoint: str, holder: str) -> None:
    storage.remove(run / "train" / "pins" / f"{checkpoint}.{holder}")


def record_failure(run: Path, checkpoint: str, suite: str, reason: str, attempts: int) -> None:
    """A result that says that there is none: a checkpoint that cannot be scored must not hold up the run, nor be tried for ever."""
    value: dict[str, Any] = {"suite": suite, "checkpoint": checkpoint, "status": "failed", "reason": reason, "attempts": attempts}
    storage.write_json(result_path(run, checkpoint, suite), value)


def latest_checkpoint(run: Path) -> Path | None:
    checkpoints = committed(run / "train" / "checkpoints")
    return checkpoints[-1] if checkpoints else None
