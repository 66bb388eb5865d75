"""A worker that is told to go: its state is saved first, so that no step is lost.

What really reaches a worker, in torch 2.13 and Ray 2.60:

- torchrun passes the SIGTERM that it gets on to its workers and kills what is left of them after 30 s
  (torch/distributed/elastic/multiprocessing/api.py, PContext.close).
- Under Ray Train the train function runs in a thread of the actor, and the actor's main thread has a handler of its own, which ends the
  process at once (ray/_private/worker.py, main_loop). `listen`, called in the main thread, takes its place.
- `ray job stop` signals the driver alone; see `headrace.train.fit`, which passes it on as a file.
- `ray drain-node`, and whatever drains the nodes of a spot market, signals nobody: Ray Train tells each worker's actor
  (ray/train/v2/_internal/execution/preemption.py), and `ray.train.get_preemption_info` makes a barrier of asking for it. The worker
  agrees on its answer in the step's own all-reduce, so what each rank was told is enough: a `Notice`.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from headrace import storage

log = logging.getLogger("headrace")

LOOK_S = 1.0  # between two looks at a file, which may lie on a slow storage

Notice = Callable[[], str | None]  # why the worker is to go, as far as one source knows


class Drained(RuntimeError):
    """A worker was asked to go; the state is saved, and the same command goes on from it."""


# A signal is the process's: so is what is known of it.
_told: str | None = None
_earlier: Any = None  # the handler whose place was taken


def listen() -> bool:
    """Take note of a SIGTERM from now on instead of dying of it; false outside the main thread, where Python allows no handler.

    The second one does again what the first would have done: who asks twice does not want to wait.
    """
    global _told, _earlier
    if threading.current_thread() is not threading.main_thread():
        return False
    if signal.getsignal(signal.SIGTERM) is not _note:
        _told = None
        _earlier = signal.signal(signal.SIGTERM, _note)
    return True


def stop_listening() -> None:
    """Give SIGTERM its earlier meaning back."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is _note:
        signal.signal(signal.SIGTERM, _earlier)


def tell(why: str) -> None:
    """Ask this process to go, as a SIGTERM does; from any thread."""
    global _told
    _told = _told or why


def _note(number: int, frame: FrameType | None) -> None:
    tell("it got a SIGTERM")
    stop_listening()


class Drain:
    """Whether this worker was asked to go. A context: inside, a SIGTERM asks."""

    def __init__(self, notices: Sequence[Notice] = ()) -> None:
        """
        Args:
            notices: further sources, each asked once a step.
        """
        self._notices = tuple(notices)
        self.why: str | None = None  # it was asked to go

    def __enter__(self) -> Drain:
        listen()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        stop_listening()

    def asked(self) -> bool:
        """Whether this worker is to go; what only one rank knows. Cheap enough for every step."""
        if self.why is None:
            found = _told or next((why for ask in self._notices if (why := ask())), None)
            if found:
                self.why = found
                log.warning("this worker is asked to go: %s; the state is saved behind this step", found)
        return self.why is not None


def request(run: Path) -> Path:
    """The file by which a driver, which has no other way to its workers, asks them to go."""
    return run / "train" / "drain.json"


def requested(run: Path) -> Notice:
    """Whether that file is there; looked for once a second at most. One rank of the group is enough to ask."""
    path, looked = request(run), 0.0

    def ask() -> str | None:
        nonlocal looked
        if time.monotonic() - looked < LOOK_S:
            return None
        looked = time.monotonic()
        with contextlib.suppress(storage.StorageError):  # a store that is away for a while says nothing
            return f"{storage.name(path)} is there" if storage.present(path) else None
        return None

    return ask
