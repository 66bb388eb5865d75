"""Exit codes: what each kind of end tells the one who started it."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from headrace import fence, storage
from headrace.artifact import QualityGateError, StageError
from headrace.config import ConfigError
from headrace.control.jobs import beat_path, error_path
from headrace.storage.object_store import StorageError

log = logging.getLogger("headrace")

# Ray Data hands over the text of a worker's error and not its causes; of these the sentence is found in it.
TOLD_BY_WORKERS = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in (ConfigError, StorageError)}
BEAT_S = 5.0
FULL = ("No space left on device", "Disk quota exceeded")
SPILL_FULL = "local disk's utilization is over capacity"  # of ray.exceptions.OutOfDiskError
DONE, FAILED, CONFIGURATION, GATE, RETRY, INTERRUPTED = 0, 1, 2, 3, 75, 130


class RunError(RuntimeError):
    """A run ended, with the code and the sentence of the job that ended it."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def exit_code(error: BaseException) -> int:
    """The exit code of an error, wherever in its chain of causes the telling one stands."""
    for link in _chain(error):
        if isinstance(link, RunError):
            return link.code
        if isinstance(link, ConfigError):
            return CONFIGURATION
        if isinstance(link, QualityGateError):
            return GATE
        if isinstance(link, StorageError):
            return RETRY
        # Ray wraps a worker's error in its own and may keep only its text.
        if storage.is_full(link) or any(words in str(link) for words in (*FULL, SPILL_FULL)):
            return RETRY
        if isinstance(link, KeyboardInterrupt):
            return INTERRUPTED
    return FAILED


def sentence(error: BaseException) -> str:
    """What to tell the user: the innermost message that was written for one, else the error's last line."""
    for link in _chain(error):
        if isinstance(link, ConfigError | QualityGateError | StageError | StorageError | RunError):
            return str(link)
    if any(SPILL_FULL in str(link) for link in _chain(error)):
        return (
            "a node's object store is full, and so is the disk that Ray spills to; free some space there, or start the nodes with "
            "--object-spilling-directory=FOLDER on a larger disk, and run the same command again: what is done stays done."
        )
    if exit_code(error) == RETRY:
        full = next((link for link in _chain(error) if storage.is_full(link)), error)
        place = getattr(full, "filename", None)
        return f"the disk is full{f' ({place})' if place else ''}; free some space and run the same command again: what is done stays done."
    last = next((line for line in reversed(str(error).strip().splitlines()) if line.strip()), "")
    return f"{type(error).__name__}: {last.strip()}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop(0)
        if link is None or id(link) in seen or not isinstance(link, BaseException):
            continue
        seen.add(id(link))
        yield link
        waiting += [getattr(link, "cause", None), link.__cause__, link.__context__]
        lines = re.findall(r"^([\w.]+): (.+)$", str(link), re.MULTILINE)
        waiting += [TOLD_BY_WORKERS[name](message) for name, message in lines if name in TOLD_BY_WORKERS]


def run_job(main: Callable[[Path], None], run: Path) -> None:
    """Body of a script in `jobs/`: nice it, run it, leave the reason of a failure where the driver finds it, exit with its code.

    Meanwhile it gives signs of life on storage: Ray's own servers may call a job failed that is at work.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True)
    if nice := int(os.environ.get("HEADRACE_NICE", "0")):
        os.nice(nice)
    submission = os.environ.get("HEADRACE_SUBMISSION", f"by-hand-{os.getpid()}")
    submitted = float(os.environ.get("HEADRACE_SUBMITTED", "nan"))
    code = DONE
    try:
        fence.check()  # it may have waited long for its start
        with Beating(beat_path(run, submission)):
            entered = {"job": submission, "submitted": submitted, "entered": time.time(), "pid": os.getpid()}
            storage.append_line(run / "control" / "jobs.jsonl", entered)
            main(run)
            storage.flush()
    except BaseException as error:
        if isinstance(error, SystemExit) and error.code in (0, None):
            raise
        code = _told(error, run, submission)
    if code != DONE:
        sys.stderr.flush()
        os._exit(code)  # Ray's threads must not turn the code into another


def _told(error: BaseException, run: Path, submission: str) -> int:
    """The exit code of a job's error, which is left where the driver finds it."""
    fenced = next((link for link in _chain(error) if isinstance(link, fence.Fenced)), None)
    if fenced is not None:
        log.warning("%s; this one ends.", fenced)
        return fence.EXIT_CODE
    traceback.print_exception(error)
    code = exit_code(error)
    try:
        storage.write_json(error_path(run, submission), {"exit_code": code, "message": sentence(error), "type": type(error).__name__})
        storage.flush()
    except (OSError, StorageError):
        log.exception("the reason of the failure could not be written")
    return code


class Beating:
    """Inside, a file changes every few seconds, from a thread; it is gone afterwards, and stays after a kill."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="headrace-beat")

    def __enter__(self) -> Beating:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        with contextlib.suppress(OSError, StorageError):
            storage.remove(self._path)

    def _beat(self) -> None:
        number = 0
        while number == 0 or not self._stopped.wait(BEAT_S):
            number += 1
            with contextlib.suppress(OSError, StorageError):  # a full disk, say; who finds no new beat looks at the cluster's word
                storage.write_json(self._path, {"beat": number, "pid": os.getpid()})
