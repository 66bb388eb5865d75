"""One rank of several saves in one process group: run_saves.py FOLDER, with RANK and WORLD_SIZE set.

What each save gave or raised is left in FOLDER/rank<RANK>.json, by the name of the case.
"""

import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist

from headrace.train.save import Saver

ABOUT = {"model": {}, "config": {}, "layout": {}, "versions": {}}
NUMBER = 6


def tensors(step: int, keeper=lambda place, world: place % world, last=None) -> Iterator:
    """As an engine gives them: a collective for each, and the tensor on the rank that keeps it. They are spoilt once all are read."""
    rank, world = dist.get_rank(), dist.get_world_size()
    given = []
    for place in range(NUMBER):
        whole = torch.full((1000,), float(100 * step + place))
        dist.all_reduce(whole, dist.ReduceOp.MAX)
        given.append(whole)
        yield "model", f"blocks.{place}.weight", whole if keeper(place, world) == rank else None
    if last is not None:
        yield last
    for whole in given:
        whole.fill_(-1.0)
    dist.barrier()


def dies(given: Iterator) -> Iterator:
    """The same, but the last rank does not live to see the last of them."""
    for place, entry in enumerate(given):
        if place == NUMBER - 1 and dist.get_rank() == dist.get_world_size() - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        yield entry


def limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def main(folder: Path) -> None:
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=world)
    root, tokenizer = folder / "root", folder / "tokenizer.json"
    said = {}

    def attempt(case: str, function, *arguments) -> None:
        try:
            found = function(*arguments)
            said[case] = None if found is None else {key: str(value) for key, value in asdict(found).items()}
        except Exception as error:
            said[case] = f"{type(error).__name__}: {error}"

    def save(saver: Saver, step: int, given: Iterator) -> object:
        return saver.save(given, step, {**ABOUT, "state": {"step": step}}, tokenizer)

    published = []
    saver = Saver(root, range(world), published=lambda path: published.append(path.name))
    attempt("first", save, saver, 1, tensors(1))
    attempt("second", save, saver, 2, tensors(2))
    attempt("end of second", saver.finish)
    attempt("nothing more", saver.finish)

    if rank == 1:
        limit(2000)
    attempt("disk of rank 1 is full", save, saver, 3, tensors(3))
    attempt("its end", saver.finish)
    if rank == 1:
        limit(50)
    attempt("not even room for a word", save, saver, 3, tensors(3))
    attempt("the next says so", save, saver, 4, tensors(4))
    limit(resource.RLIM_INFINITY)

    attempt("kept by nobody", save, saver, 5, tensors(5, lambda place, world: None if place == 3 else 0))
    attempt("end of kept by nobody", saver.finish)
    huge = torch.zeros(1).expand(1 << 46) if rank == 1 else None
    attempt("no memory on rank 1", save, saver, 6, tensors(6, last=("model", "huge", huge)))
    attempt("end of no memory", saver.finish)

    attempt("whole again", save, saver, 7, tensors(7))
    attempt("end of whole again", saver.finish)
    direct = Saver(root, range(world), asynchronous=False)
    attempt("in the foreground", save, direct, 8, tensors(8))
    attempt("only rank 0 writes", save, Saver(root, asynchronous=False), 9, tensors(9, lambda place, world: 0))

    in_the_way = folder / "in-the-way"
    in_the_way.touch()
    attempt("no folder can be made", save, Saver(in_the_way, range(world)), 1, tensors(1))

    attempt("never asked about", save, saver, 10, tensors(10))
    saver.close()
    said["published"] = published
    if rank == 1:
        (folder / "rank1.json").write_text(json.dumps(said))
    attempt("rank 1 is killed", save, saver, 11, dies(tensors(11)))
    saver.close()
    (folder / "rank0.json").write_text(json.dumps(said))
    os._exit(0)  # the group's other end is gone


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
