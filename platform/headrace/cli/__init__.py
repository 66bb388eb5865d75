"""The `headrace` command: verbs over the library; results on stdout, progress on stderr."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from types import FrameType

import typer

from headrace.cli import cluster, compare, corpus, doctor, jobs, models, observe, runs

VERBS: tuple[Callable[..., None], ...] = (
    *(runs.run, runs.data, runs.train, runs.evaluate, runs.quickstart, runs.init, runs.plan),
    *(jobs.submit, jobs.status, jobs.logs, jobs.stop, jobs.resume, jobs.runs),
    *(compare.compare, compare.config),
    *(observe.report, observe.monitor),
    *(corpus.inspect, corpus.overlap, corpus.materialize, corpus.clean),
    *(models.generate, models.export),
    doctor.doctor,
)

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Raw text to a trained, scored language model on Ray."
)
for verb in VERBS:
    app.command()(verb)
app.add_typer(cluster.app, name="cluster")


def guarded(command: Callable[[], None]) -> int:
    """Run a command; an error becomes its sentence on stderr and its exit code."""
    from headrace.control.exits import FAILED, exit_code, sentence

    try:
        command()
    except SystemExit as end:
        return int(end.code or 0) if not isinstance(end.code, str) else FAILED
    except Exception as error:
        code = exit_code(error)
        if code == FAILED:
            logging.getLogger("headrace").debug("", exc_info=error)
        print(f"headrace: {sentence(error)}", file=sys.stderr)
        return code
    return 0


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, _interrupt)  # as Ctrl-C: the run's jobs and its cluster are ended in order
    sys.exit(guarded(app))


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
