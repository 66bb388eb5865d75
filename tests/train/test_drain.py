"""Processes that are really told to go."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.train.drain import Drain, request

SCRIPT = Path(__file__).with_name("run_drain.py")


@pytest.fixture(params=["main", "thread"])
def worker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen([sys.executable, str(SCRIPT), str(tmp_path), request.param])
    wait_for(tmp_path / "steps", started)
    yield started
    if started.poll() is None:
        started.kill()
    started.wait()


def wait_for(path: Path, worker: subprocess.Popen[bytes]) -> None:
    while worker.poll() is None and not (path.exists() and path.read_text()):
        time.sleep(0.01)
    assert worker.poll() is None


def test_a_worker_that_gets_a_sigterm_saves_its_state_and_leaves(worker: subprocess.Popen[bytes], tmp_path: Path) -> None:
    worker.send_signal(signal.SIGTERM)
    wait_for(tmp_path / "why", worker)
    assert (tmp_path / "why").read_text() == "it got a SIGTERM"
    (tmp_path / "saved").touch()
    assert worker.wait(60) == 0, "and SIGTERM means again what it meant before"


def test_a_second_sigterm_does_what_the_first_would_have_done(worker: subprocess.Popen[bytes], tmp_path: Path) -> None:
    worker.send_signal(signal.SIGTERM)
    wait_for(tmp_path / "why", worker)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) > 40


def test_a_driver_asks_by_a_file(worker: subprocess.Popen[bytes], tmp_path: Path) -> None:
    path = request(tmp_path)
    path.parent.mkdir()
    path.touch()
    wait_for(tmp_path / "why", worker)
    assert (tmp_path / "why").read_text() == f"{path} is there"
    (tmp_path / "saved").touch()
    assert worker.wait(60) == 0


def test_what_a_launcher_knows_is_asked_each_time_until_it_tells() -> None:
    answers = iter([None, None, "node 7 goes at noon"])
    drain = Drain([lambda: None, lambda: next(answers)])
    assert [drain.asked() for _ in range(5)] == [False, False, True, True, True]
    assert drain.why == "node 7 goes at noon"
