"""Raw files -> packed tokens: python jobs/curate_corpus.py RUN (a folder that holds config.yaml)."""

import sys
from pathlib import Path

from headrace.control.exits import run_job
from headrace.control.ray_session import connect
from headrace.pipeline import curate
from headrace.run import open_run


def main(run: Path) -> None:
    config = open_run(run)
    if config.cluster.data_engine == "ray":
        connect()
    curate(config, config.cluster.data_engine)


if __name__ == "__main__":
    run_job(main, Path(sys.argv[1]))
