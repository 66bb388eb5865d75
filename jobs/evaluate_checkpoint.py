"""Score one checkpoint: python jobs/evaluate_checkpoint.py RUN step-00000100 fast|benchmarks."""

import sys
from pathlib import Path

from headrace import storage
from headrace.control.exits import run_job
from headrace.evaluate.benchmarks import score_benchmarks
from headrace.evaluate.config import BENCHMARKS
from headrace.evaluate.suite import evaluate_checkpoint
from headrace.evaluate.watcher import result_path
from headrace.inspection import current
from headrace.run import open_run


def main(run: Path) -> None:
    config = open_run(run).evaluate
    checkpoint, suite = run / "train" / "checkpoints" / sys.argv[2], sys.argv[3]
    out = result_path(run, checkpoint.name, suite)
    if suite == BENCHMARKS:
        assert config.benchmark_items is not None
        score_benchmarks(checkpoint, current(run, "decontaminate"), config.benchmark_items, out)
    else:
        evaluate_checkpoint(checkpoint, current(run, "tokens").folder, config, out)


if __name__ == "__main__":
    run_job(main, storage.folder(sys.argv[1]))
