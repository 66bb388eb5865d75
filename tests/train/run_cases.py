"""One rank of several training runs, one after the other in one process group: run_cases.py CASE.json ...

Started by torchrun, the worker joins the group that it names; started plainly, with RANK, WORLD_SIZE and RENDEZVOUS (a file's path)
set, it finds one made already.
A rank that is restored from a checkpoint first compares, bit for bit, what it would write with what it read: <RUN>.moments<RANK>.json.
A case is {"spec", "begin": checkpoint folder to copy in first or null, "file_limit": bytes that a rank may write to a file or null}.
What a run raises is left in <RUN>.error<RANK>.json.
"""

import json
import os
import resource
import shutil
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from headrace.checkpoint import Reader
from headrace.train.loop import Run
from headrace.train.process import device, join, leave
from headrace.train.state import gather
from headrace.train.worker import train

LATE_S = 0.2  # a rank other than the first begins its steps so much later, when the first one may have published its checkpoint


def late_start(run: Run, to_the_end=Run.to_the_end):
    if run.restored.checkpoint:
        compare(run)
    time.sleep(LATE_S if run.step == 0 and dist.get_rank() else 0)
    to_the_end(run)


def compare(run: Run) -> None:
    """Leave the names of the tensors that this rank keeps and of those that differ from the checkpoint's."""
    with Reader(run.restored.checkpoint) as reader:
        kept = [(name, tensor) for _, name, tensor in gather(run.engine, run.ranks) if tensor is not None]
        other = [name for name, tensor in kept if not torch.equal(tensor.cpu(), reader.get(name))]
    found = {"kept": [name for name, _ in kept], "other": other}
    run.spec.run.with_name(f"{run.spec.run.name}.moments{dist.get_rank()}.json").write_text(json.dumps(found))


def main(paths: list[Path]) -> None:
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if "TORCHELASTIC_RUN_ID" in os.environ:
        join(device())
    else:
        dist.init_process_group("gloo", init_method=f"file://{os.environ['RENDEZVOUS']}", rank=rank, world_size=world)
    Run.to_the_end = late_start
    for path in paths:
        case = json.loads(path.read_text())
        run = Path(case["spec"]["run"])
        if case["begin"] and rank == 0:
            source = Path(case["begin"])
            shutil.copytree(source, run / "train" / "checkpoints" / source.name)
        if case["file_limit"]:
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
    main([Path(argument) for argument in sys.argv[1:]])
