"""Unigram, bigram and 5-gram baselines on a run's own tokens: python jobs/score_baselines.py RUN."""

import sys
from pathlib import Path

from headrace import storage
from headrace.control.exits import run_job
from headrace.evaluate.ngram import score_baselines
from headrace.inspection import current
from headrace.run import open_run


def main(run: Path) -> None:
    config = open_run(run)
    tokens = current(run, "tokens")
    score_baselines(tokens.folder, config.evaluate, run / "eval" / "baselines.json")


if __name__ == "__main__":
    run_job(main, storage.folder(sys.argv[1]))
