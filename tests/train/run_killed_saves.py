"""Processes that save the same step over and over, each killed at another moment: run_killed_saves.py FOLDER.

A line for each kill: the last save that the process told of as published, and what is there after a sweep.
"""

import itertools
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from headrace.checkpoint import Reader, newest_valid
from headrace.checkpoint import write as writing
from headrace.checkpoint.retention import sweep
from headrace.train.save import Saver

KILLS = 10
ABOUT = {"model": {}, "state": {"step": 7}, "config": {}, "layout": {}, "versions": {}}


def save_for_ever(folder: Path, first: int, heard: int) -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    writing.FILE_BYTES = 100_000
    published = itertools.count(first)
    saver = Saver(folder / "root", published=lambda _: os.write(heard, f"{next(published)}\n".encode()))
    for value in itertools.count(first):
        tensors = [("model", f"blocks.{place}.weight", torch.full((5000,), float(value))) for place in range(10)]
        saver.save(tensors, 7, ABOUT, folder / "tokenizer.json")


def main(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    last = 0
    for _ in range(KILLS):
        heard, told = os.pipe()
        child = os.fork()
        if child == 0:
            save_for_ever(folder, last + 1, told)
        os.close(told)
        with os.fdopen(heard, "rb") as lines:
            lines.readline()  # it is at work
            time.sleep(random.uniform(0, 0.05))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            rest = lines.read().splitlines()
        told_last = int(rest[-1]) if rest else last + 1
        aside = [path.name for path in (folder / "root").iterdir() if path.name.startswith(".")]
        sweep(folder / "root")
        newest, breaches = newest_valid(folder / "root")
        with Reader(newest) as reader:
            values = sorted({float(value) for name in reader.weights for value in (reader.get(name).min(), reader.get(name).max())})
        print(
            json.dumps(
                {
                    "told": told_last,
                    "values": values,
                    "breaches": breaches,
                    "aside": aside,
                    "names": [path.name for path in (folder / "root").iterdir()],
                }
            )
        )
        last = int(values[0])


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
