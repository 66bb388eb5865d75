"""RUN/train/incidents.jsonl: what went wrong with a run's workers and what was done about it, a line each, oldest first.

Who looks at a group of workers that failed sees many errors and wants one: when a rank dies, the collectives of all others fail.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace import storage

# What gloo, NCCL and torch's store say when it is a peer that is gone.
COLLATERAL = re.compile(
    r"Connection (closed|reset) by peer|Connection refused|Broken pipe|Socket closed|gloo[/:]|[Tt]imed out (waiting|after)|NCCL|nccl"
    r"|DistNetworkError|DistStoreError|DistBackendError|TCPStore|Rendezvous"
)


def record(run: Path, event: str, message: str, **about: Any) -> None:
    """Add a line: time, event, a sentence, and what else is known.

    Every rank, and under Ray Train the controller, may write one: it is a single write to an append-only file. A disk that is full or
    gone costs the line and no more: who writes it has worse to deal with.
    """
    with contextlib.suppress(OSError, storage.StorageError):
        storage.append_line(_path(run), {"time": time.time(), "event": event, "message": message, **about})
        storage.flush(_path(run))  # who writes one may be about to end


def incidents(run: Path) -> list[dict[str, Any]]:
    """All of a run's."""
    return storage.read_lines(_path(run))


@dataclass(frozen=True)
class Cause:
    """Why a group of workers ended."""

    rank: int
    why: str
    collateral: tuple[int, ...]  # ranks whose errors only followed from it


def root_cause(
    died: Mapping[int, str], raised: Mapping[int, str], signs: Mapping[int, Mapping[str, Any]], silent: Collection[int]
) -> Cause:
    """The first of a group's errors in the order of causes, not of time.

    A process that died comes first, then an error of a rank's own, then a rank that its watchdog ended for waiting too long, then one
    that nobody hears of any more although no error tells of it yet. What is left are errors of collectives.

    Args:
        died: what is known of the end of each process that is gone, by rank.
        raised: type and text of each error that a rank raised, by rank. There is at least one of either.
        signs: last sign of life of each rank, as far as there is one; see `headrace.train.watchdog`.
        silent: ranks without any sign of life just now.
    """
    ended = {rank: str(sign["ended"]) for rank, sign in signs.items() if sign["ended"] not in (None, "done")}
    hung = {rank: f"{why}, whose own line says what it waited for" for rank, why in ended.items() if rank in died and "watchdog" in why}
    killed = {rank: why for rank, why in died.items() if rank not in hung}
    own = {rank: why for rank, why in {**ended, **raised}.items() if rank not in died and not COLLATERAL.search(why)}
    unheard = {rank: "no sign of life: it was stopped, or it died" for rank in silent if rank not in died and rank not in raised}
    for causes in (killed, own, hung, unheard, raised):
        if causes:
            rank = min(causes)
            at = f", at step {signs[rank]['step']}, {signs[rank]['doing']}" if rank in signs else ""
            return Cause(rank, f"rank {rank}{at}: {causes[rank]}", tuple(sorted({*died, *raised} - {rank})))
    raise ValueError("no rank has failed")


def _path(run: Path) -> Path:
    return run / "train" / "incidents.jsonl"
