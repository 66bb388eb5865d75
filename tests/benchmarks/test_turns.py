"""Sides that take turns: a side is a process that appends a line a step, here one that does nothing else, with a child of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

from turns import Side, SideError, started, steps_needed, take_turns

STEPPER = """
import json, subprocess, sys, time
path, speed, last = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
child = subprocess.Popen([sys.executable, "-c", "import time\\nwhile True: time.sleep(0.01)"])
for step in range(1, last + 1):
    with open(path, "a") as file:
        file.write(json.dumps({"step": step, "tokens_per_s": speed * (1 if step % 3 else 2)}) + "\\n")
    time.sleep(0.02)
child.kill()
sys.exit("out of steps" if speed < 0 else 0)
"""


def side(folder: Path, name: str, speed: float, last: int = 10_000) -> Side:
    metrics = folder / name / "train" / "metrics.jsonl"
    metrics.parent.mkdir(parents=True)
    return Side(name, [sys.executable, "-c", STEPPER, str(metrics), str(speed), str(last)], metrics)


def test_sides_work_in_turn_and_none_is_left(tmp_path: Path) -> None:
    sides = [side(tmp_path, "a", 10.0), side(tmp_path, "b", 20.0)]
    with started(sides, 2):
        processes = [process for each in sides for process in each.processes()]
        assert len(processes) == 4  # each with its child
        for process in processes:
            assert process.status() == psutil.STATUS_STOPPED
        before = [len(each.lines()) for each in sides]
        speeds = sides[0].turn(3)
        assert len(speeds) >= 3 and len(sides[0].lines()) == before[0] + 1 + len(speeds)  # one step was begun before
        assert len(sides[1].lines()) == before[1]
        found = take_turns(sides, rounds=3, steps=4)
        assert {name: len(rates) for name, rates in found.items()} == {"a": 3, "b": 3}
        assert set(found["a"]) <= {10.0, 15.0, 20.0} and set(found["b"]) <= {20.0, 30.0, 40.0}
    assert not [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def test_a_side_may_come_to_its_end(tmp_path: Path) -> None:
    last = steps_needed(2, 1, 3)
    one = side(tmp_path, "one", 1.0, last)
    with started([one], 2):
        one.wait_for(last)
        one.end()
    assert [line["step"] for line in one.lines()] == list(range(1, last + 1))


def test_a_side_that_ends_too_early_tells_its_last_words(tmp_path: Path) -> None:
    with (
        pytest.raises(SideError, match=r"short ended with 1 after 3 of 5 steps: .*out of steps"),
        started([side(tmp_path, "short", -1.0, 3)], 5),
    ):
        pass


def test_an_error_leaves_nothing_behind(tmp_path: Path) -> None:
    one = side(tmp_path, "one", 1.0)
    with pytest.raises(ZeroDivisionError), started([one], 1):
        processes = one.processes()
        raise ZeroDivisionError
    assert len(processes) == 2 and not [each for each in processes if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
