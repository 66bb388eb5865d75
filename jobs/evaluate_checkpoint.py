"""Score one checkpoint: python jobs/evaluate_checkpoint.py RUN step-00000100."""

import sys
from pathlib import Path

from headrace.control.exits import run_job
from headrace.evaluate.suite import evaluate_checkpoint
from headrace.evaluate.watcher import SUITE, result_path
from headrace.inspection import current
from headrace.run import open_run


def main(run: Path) -> None:
    config = open_run(run)
    tokens = current(run, "tokens")
    checkpoint = run / "train" / "checkpoints" / sys.argv[2]
    evaluate_checkpoint(checkpoint, tokens.folder, config.evaluate, result_path(run, checkpoint.name, SUITE))


if __name__ == "__main__":
    run_job(main, Path(sys.argv[1]))
