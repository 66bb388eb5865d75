"""Real ranks that hang, and what the others say of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import storage
from headrace.train.incidents import incidents

SCRIPT = Path(__file__).with_name("run_watchdog.py")
TIMEOUT_S = 4.0


class Group:
    """Ranks of run_watchdog.py."""

    def __init__(self, folder: Path, world: int, trouble: str) -> None:
        self.folder = folder
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        arguments = [str(world), trouble, str(TIMEOUT_S)]
        self.ranks = [
            subprocess.Popen(
                [sys.executable, str(SCRIPT), str(folder), str(rank), *arguments], env=environment, stderr=subprocess.PIPE, text=True
            )
            for rank in range(world)
        ]

    def wait_for_step(self, rank: int, step: int) -> None:
        while self.ranks[rank].poll() is None and self.sign(rank).get("step", -1) < step:
            time.sleep(0.05)
        assert self.ranks[rank].poll() is None, self.ranks[rank].communicate()[1]

    def sign(self, rank: int) -> dict:
        try:
            return storage.read_json(self.folder / "run/train/alive" / f"rank-{rank}.json")
        except FileNotFoundError:
            return {}

    def end(self, rank: int) -> tuple[int, str]:
        """Exit code and what it said on standard error."""
        said = self.ranks[rank].communicate(timeout=120)[1]
        return self.ranks[rank].returncode, said

    def close(self) -> None:
        for rank in self.ranks:
            if rank.poll() is None:
                rank.kill()
            rank.communicate()


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Group]]:
    """A group for each trouble, all at once: most of their time is waiting."""
    worlds = {"none": 2, "late": 3, "lock": 1, "full": 2, "slow": 2, "stuck": 1}
    made = {trouble: Group(tmp_path_factory.mktemp(trouble), world, trouble) for trouble, world in worlds.items()}
    yield made
    for group in made.values():
        group.close()


def test_a_stopped_rank_is_named_by_the_one_that_waits_for_it(groups: dict[str, Group]) -> None:
    group = groups["none"]
    group.wait_for_step(1, 3)
    stopped = group.ranks[1]
    stopped.send_signal(signal.SIGSTOP)
    code, said = group.end(0)
    assert code == 75, said
    assert "rank 0 hangs:" in said and "forward and backward" in said
    assert f"rank 1 gives no sign of life (last at step {group.sign(1)['step']}" in said and f"process {stopped.pid} on " in said
    (line,) = incidents(group.folder / "run")
    assert line["event"] == "hang" and line["rank"] == 0 and line["silent"] == [1] and line["message"] in said
    assert line["seconds"] >= TIMEOUT_S
    stacks = Path(line["stacks"]).read_text()
    assert "run_watchdog.py" in stacks and "all_reduce" in stacks and "watchdog.py" in stacks
    assert group.sign(0)["ended"] == "ended by its watchdog"
    # What it was stopped for does not count as its own waiting.
    time.sleep(TIMEOUT_S)
    stopped.send_signal(signal.SIGCONT)
    code, said = group.end(1)
    assert code not in (0, 75), "its peer is gone: the collective fails"
    assert len(incidents(group.folder / "run")) == 1


def test_a_rank_that_never_enters_a_collective_is_named_and_names_itself(groups: dict[str, Group]) -> None:
    group = groups["late"]
    ends = [group.end(rank) for rank in range(3)]
    assert [code for code, _ in ends] == [75, 75, 75], ends
    by_rank = {line["rank"]: line for line in incidents(group.folder / "run")}
    assert sorted(by_rank) == [0, 1, 2]
    for rank in (0, 1):
        assert by_rank[rank]["doing"] == "forward and backward" and by_rank[rank]["silent"] == []
        assert by_rank[rank]["elsewhere"]["2"] == {"step": 30, "doing": "reading data"}
        assert "rank 2 is at step 30, reading data" in ends[rank][1]
    assert by_rank[2]["doing"] == "reading data" and set(by_rank[2]["elsewhere"]) == {"0", "1"}
    assert "all_reduce" in Path(by_rank[0]["stacks"]).read_text() and "all_reduce" not in Path(by_rank[2]["stacks"]).read_text()


def test_a_rank_whose_interpreter_is_locked_ends_too(groups: dict[str, Group]) -> None:
    group = groups["lock"]
    code, said = group.end(0)
    assert code != 0 and "Timeout" in said and "run_watchdog.py" in said


def test_a_full_disk_keeps_no_watchdog_from_its_work(groups: dict[str, Group]) -> None:
    group = groups["full"]
    code, said = group.end(0)
    assert code == 75, said
    assert "signs of life cannot be written to" in said and "Stacks: on standard error" in said and "all_reduce" in said


def test_a_slow_start_and_a_long_checkpoint_are_no_hang(groups: dict[str, Group]) -> None:
    group = groups["slow"]
    assert [group.end(rank)[0] for rank in range(2)] == [0, 0]
    assert incidents(group.folder / "run") == []
    assert [group.sign(rank)["ended"] for rank in range(2)] == ["done", "done"]


def test_a_checkpoint_that_takes_far_longer_than_any_before_is_one(groups: dict[str, Group]) -> None:
    code, said = groups["stuck"].end(0)
    assert code == 75 and "at step 30, checkpoint (it may take 4 s; train.timeout_s = 4)" in said, said
