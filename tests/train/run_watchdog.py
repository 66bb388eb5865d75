"""One rank under a watchdog, adding up a number with its peers, step by step: run_watchdog.py FOLDER RANK WORLD TROUBLE TIMEOUT

TROUBLE, from step 30 on, on the last rank: "none"; "late": it never enters the collective; "lock": it holds the interpreter's lock; "slow":
the first step and a checkpoint, which may, take longer than the timeout; "stuck": so does the second checkpoint, while the first was
quick; "full": no file may grow.
"""

import ctypes
import os
import resource
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from headrace.train import watchdog
from headrace.train.watchdog import Watchdog

LONG, STEPS, TROUBLE_STEP = 2000, 60, 30


def main(folder: Path, rank: int, world: int, trouble: str, timeout_s: float) -> None:
    watchdog.LAST_WORDS_S = 6.0
    dist.init_process_group("gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=world)
    dog = Watchdog(folder / "run", rank, timeout_s)
    for step in range(LONG if trouble == "none" else STEPS):
        dog.beat(step, "reading data")
        if trouble == "slow" and step == 0:
            time.sleep(1.5 * timeout_s)
        if trouble == "full" and step == TROUBLE_STEP:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        if step == TROUBLE_STEP and rank == world - 1:
            if trouble == "late":
                time.sleep(1000)
            if trouble in ("lock", "full"):
                ctypes.PyDLL(None).sleep(1000)  # unlike CDLL, it keeps the lock
        if trouble == "slow" and step == TROUBLE_STEP:
            dog.beat(step, "checkpoint", allowed_s=10 * timeout_s)
            time.sleep(1.5 * timeout_s)
        if trouble == "stuck" and step in (TROUBLE_STEP - 10, TROUBLE_STEP):
            dog.beat(step, "checkpoint", allowed_s=100 * timeout_s)
            time.sleep(0.1 if step < TROUBLE_STEP else 1000)
        dog.beat(step, "forward and backward")
        number = torch.ones(1)
        dist.all_reduce(number)
        assert int(number) == world
        time.sleep(0.05)
    dog.close()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], float(sys.argv[5]))
