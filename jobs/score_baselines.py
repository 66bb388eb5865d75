"""Unigram, bigram and 5-gram baselines on a run's own tokens: python jobs/score_baselines.py RUN."""

import sys
from pathlib import Path

from headrace import pipeline
from headrace.config import ConfigError
from headrace.control.exits import run_job
from headrace.evaluate.ngram import score_baselines
from headrace.run import open_run


def main(run: Path) -> None:
    config = open_run(run)
    tokens = pipeline.finished(config)
    if tokens is None:
        raise ConfigError(f"{run}: its tokens are not there yet; `headrace data {run / 'config.yaml'}` makes them.")
    score_baselines(tokens.folder, config.evaluate, run / "eval" / "baselines.json")


if __name__ == "__main__":
    run_job(main, Path(sys.argv[1]))
