"""One rank of several training runs, one after the other in one process group: run_cases.py FOLDER CASE.json ...

Started by torchrun, the worker joins the group that it names; started plainly, with RANK and WORLD_SIZE set, it finds one made already.
A case is {"spec", "begin": checkpoint folder to copy in first or null, "file_limit": bytes that rank 0 may write to a file or null}.
What a run raises is left in <RUN>.error<RANK>.json.
"""

import json
import os
import resource
import shutil
import sys
import time
from pathlib import Path

import torch.distributed as dist

from headrace.train.process import device, join, leave
from headrace.train.worker import Run, train

LATE_S = 0.5  # a rank other than the first begins its steps so much later, when the first one may have published its checkpoint


def late_start(run: Run, on_checkpoint, to_the_end=Run.to_the_end):
    time.sleep(LATE_S if run.step == 0 and dist.get_rank() else 0)
    to_the_end(run, on_checkpoint)


def main(folder: Path, paths: list[Path]) -> None:
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if "TORCHELASTIC_RUN_ID" in os.environ:
        join(device())
    else:
        dist.init_process_group("gloo", init_method=f"file://{folder / f'rendezvous-{world}'}", rank=rank, world_size=world)
    Run.to_the_end = late_start
    for path in paths:
        case = json.loads(path.read_text())
        run = Path(case["spec"]["run"])
        if case["begin"] and rank == 0:
            source = Path(case["begin"])
            shutil.copytree(source, run / "train" / "checkpoints" / source.name)
        if case["file_limit"] and rank == 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (case["file_limit"], resource.RLIM_INFINITY))
        dist.barrier()
        try:
            train(case["spec"])
        except Exception as error:
            error_path = run.with_name(f"{run.name}.error{rank}.json")
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            error_path.write_text(json.dumps({"type": type(error).__name__, "message": str(error)}))
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(argument) for argument in sys.argv[2:]])
