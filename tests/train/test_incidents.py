from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headrace.train.incidents import incidents, record, root_cause

GLOO = "RuntimeError: [gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:7604: Connection reset by peer. This is typically caused by"
NCCL = "DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:3690, remote process exited or there was a network error, NCCL version 2.27"
DEAD = "its process died (Worker unexpectedly exits with a connection error code 2. End of file.)"


def signs(**ended: str | None) -> dict[int, dict[str, Any]]:
    return {int(rank[1:]): {"step": 41, "doing": "reading data", "ended": why} for rank, why in ended.items()}


@pytest.mark.parametrize(
    ("died", "raised", "signed", "silent", "rank", "why"),
    [
        ({1: DEAD}, {0: GLOO, 2: GLOO}, {}, set(), 1, f"rank 1: {DEAD}"),
        ({1: DEAD}, {0: "ValueError: of its own"}, signs(r1=None), set(), 1, f"rank 1, at step 41, reading data: {DEAD}"),
        ({}, {0: NCCL, 2: "ValueError: sample 7 is empty", 3: GLOO}, {}, {3}, 2, "rank 2: ValueError: sample 7 is empty"),
        (
            {},
            {0: GLOO},
            signs(r1="ended by MemoryError: too much"),
            set(),
            1,
            "rank 1, at step 41, reading data: ended by MemoryError: too much",
        ),
        ({0: DEAD}, {2: GLOO}, signs(r0="ended by its watchdog"), set(), 0, "its watchdog, whose own line says what it waited for"),
        ({0: DEAD, 1: DEAD}, {}, signs(r0="ended by its watchdog", r1=None), set(), 1, f"rank 1, at step 41, reading data: {DEAD}"),
        ({}, {0: GLOO, 2: GLOO}, signs(r0=GLOO, r1=None), {1}, 1, "no sign of life: it was stopped, or it died"),
        ({}, {0: GLOO, 2: GLOO}, signs(r1="done"), set(), 0, f"rank 0: {GLOO}"),
    ],
)
def test_the_root_cause_comes_before_what_followed_from_it(
    died: dict[int, str], raised: dict[int, str], signed: dict[int, Any], silent: set[int], rank: int, why: str
) -> None:
    cause = root_cause(died, raised, signed, silent)
    assert cause.rank == rank and why in cause.why
    assert cause.collateral == tuple(sorted({*died, *raised} - {rank}))


def test_incidents_are_kept_in_order_and_a_full_disk_costs_no_more_than_one(tmp_path: Path) -> None:
    record(tmp_path, "skip", "step 7 was not taken", step=7)
    record(tmp_path, "rewind", "back to step 5")
    assert [(line["event"], line["message"]) for line in incidents(tmp_path)] == [
        ("skip", "step 7 was not taken"),
        ("rewind", "back to step 5"),
    ]
    assert incidents(tmp_path)[0]["step"] == 7 and incidents(tmp_path / "none") == []
    (tmp_path / "file").touch()
    record(tmp_path / "file", "hang", "nobody can write here")
