"""Raw files -> packed tokens: python jobs/curate_corpus.py RUN (a folder that holds config.yaml)."""

import contextlib
import sys
from pathlib import Path

from headrace import storage
from headrace.control.exits import run_job
from headrace.control.ray_session import connect
from headrace.events import event_log
from headrace.observe.metrics import Meter
from headrace.observe.units import UnitMetrics, events_of
from headrace.pipeline import curate
from headrace.run import open_run
from headrace.stage import heard_by


def main(run: Path) -> None:
    config = open_run(run)
    with contextlib.ExitStack() as heard:
        heard.enter_context(heard_by(events_of(event_log(run))))
        if config.cluster.data_engine == "ray":
            connect()
            heard.enter_context(heard_by(UnitMetrics(Meter(run.name))))
        curate(config, config.cluster.data_engine)


if __name__ == "__main__":
    run_job(main, storage.folder(sys.argv[1]))
