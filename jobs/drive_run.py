"""Drive a run from inside its cluster: python jobs/drive_run.py CONFIG.yaml [data|train|scores], itself a Ray job on the head.

It takes no CPU: it looks at storage and has the run's other jobs done by the Jobs API of the cluster that it runs in.
"""

import sys
from pathlib import Path

from headrace.cli import guarded
from headrace.control.exits import run_job
from headrace.control.own_cluster import drive
from headrace.run import load_run


def main() -> None:
    config = load_run(Path(sys.argv[1]))
    upto = sys.argv[2] if len(sys.argv) > 2 else "scores"
    run_job(lambda run: drive(config, upto), config.folder)


if __name__ == "__main__":
    sys.exit(guarded(main))
