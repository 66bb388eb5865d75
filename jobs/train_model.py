"""Packed tokens -> checkpoints: python jobs/train_model.py RUN (a folder that holds config.yaml)."""

import sys
from pathlib import Path

from headrace import storage
from headrace.control.exits import run_job
from headrace.control.ray_session import connect
from headrace.evaluate import watcher
from headrace.inspection import current
from headrace.observe.publish import published
from headrace.run import open_run
from headrace.train.fit import fit
from headrace.train.spec import train_spec


def main(run: Path) -> None:
    config = open_run(run)
    tokens = current(run, "tokens")
    connect()
    suites = watcher.suites(config.evaluate, current(run, "decontaminate").fingerprint if config.decontaminate else None)
    with published(run, config.train.steps, suites):
        fit(train_spec(config, tokens.folder), config.workers, config.train.max_failures)


if __name__ == "__main__":
    run_job(main, storage.folder(sys.argv[1]))
