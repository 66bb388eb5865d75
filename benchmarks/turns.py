"""Sides of a comparison that take turns: each is a process with children of its own, and while one works all others are stopped.

So a machine that is slow for a while is slow for all of them, and what one keeps busy in the background costs the others nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from headrace import storage

POLL_S = 0.005
STARTS_S = 300.0  # for a side's first steps
LEAVES_S = 60.0  # for its end, once its work is done


class SideError(RuntimeError):
    """A side ended before its time or does not move on; its last words are in the message."""


@dataclass
class Side:
    """A process that appends a line of JSON to a file with each step; `start` before anything else, `end` at last."""

    name: str
    command: Sequence[str]
    metrics: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    began: float = 0.0  # seconds since the epoch
    first_step_s: float = 0.0  # from then to the first line
    _process: subprocess.Popen[bytes] | None = None
    _known: list[psutil.Process] = field(default_factory=list)  # to be stopped first: looking for all of them takes its time

    def start(self, steps: int) -> None:
        """Start it, and stop it once it has taken so many steps."""
        log = self.metrics.parent.parent.with_suffix(".log")
        log.parent.mkdir(parents=True, exist_ok=True)
        self.began = time.time()
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                self.command, env={**os.environ, **self.environment}, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._wait(1, STARTS_S)
        self.first_step_s = time.time() - self.began
        self._wait(steps, STARTS_S)
        self.stop()

    def turn(self, steps: int) -> list[float]:
        """Let it work for so many whole steps; what each line says of tokens a second. The step that it was stopped in is left out."""
        before = len(self.lines())
        self.go()
        self._wait(before + 1 + steps, STARTS_S)
        self.stop()
        return [line["tokens_per_s"] for line in self.lines()[before + 1 :]]

    def lines(self) -> list[dict[str, Any]]:
        return storage.read_lines(self.metrics)

    def go(self) -> None:
        """Let it work on."""
        self._known = self.processes()
        for process in reversed(self._known):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Stop it with its children, and theirs."""
        stopped: set[int] = set()
        found = self._known or self.processes()
        while found:  # one may be just starting another
            for process in found:
                stopped.add(process.pid)
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGSTOP)
            found = [process for process in self.processes() if process.pid not in stopped]
        while any(map(_is_at_work, self.processes())):  # a signal takes its time
            time.sleep(0.001)

    def processes(self) -> list[psutil.Process]:
        """The process and all below it."""
        assert self._process is not None
        try:
            top = psutil.Process(self._process.pid)
            return [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def wait_for(self, steps: int, timeout_s: float = STARTS_S) -> None:
        """Let it work until it has taken so many steps in all."""
        self.go()
        self._wait(steps, timeout_s)

    def end(self) -> None:
        """Let it finish."""
        assert self._process is not None
        self.go()
        try:
            code = self._process.wait(LEAVES_S)
        except subprocess.TimeoutExpired:
            raise SideError(self._told("does not end")) from None
        if code:
            raise SideError(self._told(f"ended with {code}"))

    def kill(self) -> None:
        """Have it end now, whatever it is at."""
        if self._process is None or self._process.poll() is not None:
            return
        processes = self.processes()  # those below it are nobody's once it has ended
        self.go()
        self._process.send_signal(signal.SIGINT)  # it may have something to tidy up
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(LEAVES_S / 4)
        for process in {*processes, *self.processes()}:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=LEAVES_S)

    def _wait(self, steps: int, timeout_s: float) -> None:
        assert self._process is not None
        deadline = time.monotonic() + timeout_s
        size = 0
        while time.monotonic() < deadline:
            now = self.metrics.stat().st_size if self.metrics.exists() else 0
            if now != size:
                size = now
                if len(self.lines()) >= steps:
                    return
            elif self._process.poll() is not None:
                raise SideError(self._told(f"ended with {self._process.returncode} after {len(self.lines())} of {steps} steps"))
            time.sleep(POLL_S)
        raise SideError(self._told(f"took no {steps} steps in {timeout_s:.0f} s"))

    def _told(self, what: str) -> str:
        log = self.metrics.parent.parent.with_suffix(".log")
        last = " | ".join(log.read_text(errors="replace").strip().splitlines()[-8:])
        return f"{self.name} {what}: {last}"


@contextlib.contextmanager
def started(sides: Sequence[Side], steps: int) -> Iterator[None]:
    """The sides, each started while all others stand still, with so many steps behind it; at the end none is left."""
    # A SIGTERM must not leave stopped processes behind.
    earlier = signal.signal(signal.SIGTERM, _leave)
    try:
        for side in sides:
            side.start(steps)
        yield
    finally:
        for side in sides:
            side.kill()
        signal.signal(signal.SIGTERM, earlier)


def _leave(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)


def take_turns(sides: Sequence[Side], rounds: int, steps: int) -> dict[str, list[float]]:
    """Side -> tokens a second in each round, the median of its whole steps."""
    found: dict[str, list[float]] = {side.name: [] for side in sides}
    for number in range(rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            found[side.name].append(statistics.median(side.turn(steps)))
    return found


def steps_needed(warm: int, rounds: int, steps: int) -> int:
    """Steps that are enough for all turns of a side, each with the step that it was stopped in, and another where the stop comes late."""
    return warm + rounds * (steps + 2)


def _is_at_work(process: psutil.Process) -> bool:
    try:
        return process.status() not in {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE}
    except psutil.NoSuchProcess:
        return False
