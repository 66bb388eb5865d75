"""A worker that hangs says where, names the ranks that keep it waiting, and ends, so that its launcher starts the group again.

A collective waits for its peers for ever, or until the process group's timeout, and tells nothing: the main thread is inside gloo or
NCCL. So each worker has a thread that watches the main thread's beats. Once a second it writes what the worker is at to
RUN/train/alive/rank-N.json, by which the others know that it runs.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import math
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch.distributed as dist

from headrace import storage
from headrace.train.incidents import record

log = logging.getLogger("headrace")

EXIT_CODE = 75  # worth trying again
BEAT_S = 1.0  # between two signs of life
LOOK_S = 3.0  # between the two looks at the others' signs of life: a rank that runs has written a new one by then
LAST_WORDS_S = 20.0  # for what is done once the time is up; a disk or a pipe that hangs, too, must not keep the worker
FOREVER = math.inf
TIMES_LONGER = 10  # than ever before in this process, until what has a time of its own counts as hanging


class Beat(NamedTuple):
    """What the main thread is at."""

    step: int  # optimizer steps taken
    doing: str
    allowed_s: float  # until the next beat
    began: float  # by the monotonic clock


class Watchdog:
    """Watches this process's main thread from its making until `close`; made by every rank of the process group.

    Time counts from the second step on: the first may compile for minutes. Time in which the whole process was stopped does not count,
    for nothing then waited; the others' watchdogs find a rank that is stopped.
    """

    def __init__(self, run: Path, rank: int, timeout_s: float) -> None:
        """
        Args:
            timeout_s: seconds after a beat, without another, until the worker counts as hanging, unless that beat allows more.
        """
        self._run, self._rank, self._world, self._timeout_s = run, rank, dist.get_world_size(), timeout_s
        self._beat = Beat(-1, "starting", FOREVER, time.monotonic())
        self._longest_s: dict[str, float] = {}  # by what was done
        self._first_step: int | None = None
        self._signs = 0
        self._heard = True  # whether this rank's own signs reach the disk
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def beat(self, step: int, doing: str, allowed_s: float | None = None) -> None:
        """Say what the main thread turns to now; costs about a microsecond.

        Args:
            step: optimizer steps taken.
            doing: a few words: "reading data", "forward and backward", "update", "checkpoint".
            allowed_s: seconds that it may take where nobody knows better, if that is not the timeout: a checkpoint's are its own. Once it
                has been done, it may take ten times as long as it took at most, and the timeout in any case.
        """
        now = time.monotonic()
        if self._first_step is None:
            self._first_step = step
        before = self._beat
        self._longest_s[before.doing] = max(now - before.began, self._longest_s.get(before.doing, 0.0))
        if step == self._first_step:
            allowed = FOREVER
        elif allowed_s is None:
            allowed = self._timeout_s
        elif doing in self._longest_s:
            allowed = min(allowed_s, max(self._timeout_s, TIMES_LONGER * self._longest_s[doing]))
        else:
            allowed = allowed_s
        self._beat = Beat(step, doing, allowed, now)

    def close(self) -> None:
        """Stop watching: training is over, or an error is on its way out of it."""
        self._ended.set()
        self._thread.join()
        error = sys.exc_info()[1]
        self._sign(self._beat, 0.0, "done" if error is None else f"ended by {type(error).__name__}: {error}")

    def _watch(self) -> None:
        seen, waited_s, now = None, 0.0, time.monotonic()
        while True:
            before, now = now, time.monotonic()
            beat = self._beat
            # A gap between two rounds was a stop of the whole process.
            waited_s = 0.0 if beat is not seen else waited_s + min(now - before, 2 * BEAT_S)
            seen = beat
            self._sign(beat, waited_s)
            if waited_s > beat.allowed_s:
                self._end(beat, waited_s)
            # While C code holds the interpreter's lock, this thread stands still as well; faulthandler's own thread needs no lock.
            if beat.allowed_s < FOREVER:
                faulthandler.dump_traceback_later(beat.allowed_s + LAST_WORDS_S, exit=True, file=_standard_error())
            else:
                faulthandler.cancel_dump_traceback_later()
            if self._ended.wait(BEAT_S):
                faulthandler.cancel_dump_traceback_later()
                return

    def _end(self, beat: Beat, waited_s: float) -> NoReturn:
        faulthandler.dump_traceback_later(LAST_WORDS_S, exit=True, file=_standard_error())
        stacks = self._dump_stacks(beat, waited_s)
        before = signs_of_life(self._run, self._world)
        for _ in range(round(LOOK_S / BEAT_S)):
            time.sleep(BEAT_S)
            self._sign(beat, waited_s)
        signs = signs_of_life(self._run, self._world)
        silent = sorted(silent_ranks(before, signs, self._world) - {self._rank})
        if storage.is_remote(self._run):  # signs stay on their machine then: of another's ranks nothing is known
            silent = [rank for rank in silent if rank in signs]
        elsewhere = {
            rank: sign
            for rank, sign in signs.items()
            if rank != self._rank and rank not in silent and (sign["step"], sign["doing"]) != (beat.step, beat.doing)
        }
        message = (
            f"rank {self._rank} hangs: {waited_s:.0f} s without a sign of progress at step {beat.step}, {beat.doing} "
            f"(it may take {beat.allowed_s:.0f} s; train.timeout_s = {self._timeout_s:g}); {self._suspects(signs, silent, elsewhere)}. "
            f"Stacks: {stacks or 'on standard error'}. The worker ends now; the group goes on from its newest checkpoint."
        )
        self._sign(beat, waited_s, "ended by its watchdog")
        places = {str(rank): {"step": sign["step"], "doing": sign["doing"]} for rank, sign in elsewhere.items()}
        about = {"rank": self._rank, "step": beat.step, "doing": beat.doing, "seconds": round(waited_s, 1), "silent": silent}
        record(self._run, "hang", message, **about, elsewhere=places, stacks=stacks and str(stacks))
        log.error("%s", message)
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(EXIT_CODE)

    def _suspects(self, signs: dict[int, dict[str, Any]], silent: list[int], elsewhere: dict[int, dict[str, Any]]) -> str:
        told = [] if self._heard else [f"signs of life cannot be written to {_sign_path(self._run, self._rank).parent}"]
        for rank in silent:
            last = signs.get(rank)
            at = f" (last at step {last['step']}, {last['doing']}, process {last['pid']} on {last['host']})" if last else ""
            told.append(f"rank {rank} gives no sign of life{at}: it is stopped or dead")
        for rank, sign in elsewhere.items():
            ended = f", {sign['ended']}" if sign["ended"] else f" for {sign['seconds']:.0f} s"
            told.append(f"rank {rank} is at step {sign['step']}, {sign['doing']}{ended}")
        if told:
            return "; ".join(told)
        return "no other rank takes part" if self._world == 1 else "every other rank is at the same place"

    def _dump_stacks(self, beat: Beat, waited_s: float) -> Path | None:
        """Python stacks of all threads into a file, or to standard error where that cannot be written."""
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        path = self._run / "train" / "stacks" / f"rank-{self._rank}-{moment}.txt"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w") as file:
                file.write(
                    f"rank {self._rank}, process {os.getpid()} on {socket.gethostname()}: step {beat.step}, {beat.doing}, "
                    f"{waited_s:.1f} s\n\n"
                )
                file.flush()
                faulthandler.dump_traceback(file=file, all_threads=True)
            if storage.is_remote(path):
                storage.write_bytes(path, path.read_bytes())
        except (OSError, storage.StorageError):
            faulthandler.dump_traceback(file=_standard_error(), all_threads=True)
            return None
        return path

    def _sign(self, beat: Beat, waited_s: float, ended: str | None = None) -> None:
        """Write this rank's sign of life. A disk that takes none ends no training."""
        self._signs += 1
        sign = {
            "rank": self._rank,
            "world": self._world,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "sign": self._signs,
            "time": time.time(),
            "step": beat.step,
            "doing": beat.doing,
            "seconds": round(waited_s, 1),
            "ended": ended,
        }
        path = _sign_path(self._run, self._rank)
        aside = path.with_name(f"{storage.ASIDE}{path.name}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(json.dumps(sign))
            aside.replace(path)
        except OSError:
            self._heard = False
        else:
            self._heard = True


def signs_of_life(run: Path, world: int) -> dict[int, dict[str, Any]]:
    """The last sign of life of each rank of a world, where there is one.

    It holds rank, world, pid, host, sign (a counter), time, step, doing, seconds (that it has been at it), and ended: null, "done", or why.
    """
    found: dict[int, dict[str, Any]] = {}
    for rank in range(world):
        with contextlib.suppress(OSError, ValueError):
            found[rank] = json.loads(_sign_path(run, rank).read_bytes())
    return found


def silent_ranks(before: dict[int, dict[str, Any]], now: dict[int, dict[str, Any]], world: int) -> set[int]:
    """Ranks of which nothing new was heard between two looks, at least `LOOK_S` apart, though they never said that they ended.

    The clocks of two machines may differ by more than any timeout; a counter cannot.
    """
    return {
        rank
        for rank in range(world)
        if rank not in now or (now[rank]["ended"] is None and rank in before and _count(before[rank]) == _count(now[rank]))
    }


def _count(sign: dict[str, Any]) -> tuple[Any, Any]:
    return sign["pid"], sign["sign"]


def _sign_path(run: Path, rank: int) -> Path:
    return storage.machine(run) / "train" / "alive" / f"rank-{rank}.json"


def _standard_error() -> int:
    """Its descriptor: Ray and tests put objects without one in its place."""
    return 2
