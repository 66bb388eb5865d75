"""Exit codes: what each kind of end tells the one who started it."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from headrace import storage
from headrace.artifact import QualityGateError, StageError
from headrace.config import ConfigError
from headrace.control.jobs import error_path
from headrace.ingest.object_store import StorageError

log = logging.getLogger("headrace")

# Ray Data hands over the text of a worker's error and not its causes; of these the sentence is found in it.
TOLD_BY_WORKERS = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in (ConfigError, StorageError)}
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
        if storage.is_full(link) or "No space left on device" in str(link) or "Disk quota exceeded" in str(link):
            return RETRY
        if isinstance(link, KeyboardInterrupt):
            return INTERRUPTED
    return FAILED


def sentence(error: BaseException) -> str:
    """What to tell the user: the innermost message that was written for one, else the error's last line."""
    for link in _chain(error):
        if isinstance(link, ConfigError | QualityGateError | StageError | StorageError | RunError):
            return str(link)
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
    """Body of a script in `jobs/`: nice it, run it, leave the reason of a failure where the driver finds it, exit with its code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True)
    if nice := int(os.environ.get("HEADRACE_NICE", "0")):
        os.nice(nice)
    submission = os.environ.get("HEADRACE_SUBMISSION", f"by-hand-{os.getpid()}")
    submitted = float(os.environ.get("HEADRACE_SUBMITTED", "nan"))
    storage.append_line(
        run / "control" / "jobs.jsonl", {"job": submission, "submitted": submitted, "entered": time.time(), "pid": os.getpid()}
    )
    try:
        main(run)
    except BaseException as error:
        if isinstance(error, SystemExit) and error.code in (0, None):
            raise
        traceback.print_exc()
        code = exit_code(error)
        report = {"exit_code": code, "message": sentence(error), "type": type(error).__name__}
        try:
            storage.write_json(error_path(run, submission), report)
        except OSError:
            log.exception("the reason of the failure could not be written")
        sys.stderr.flush()
        os._exit(code)  # Ray's threads must not turn the code into another
