"""One rank of training runs with gradients that are no numbers, one after the other in one process group: run_skips.py CASE.json ...

RANK, WORLD_SIZE and RENDEZVOUS (a file's path) are set. A case is
{"spec", "bad": which of the steps that are taken have such gradients, rewound ones counted again,
"scale": the loss scale to begin with or null, "drain": the step at which rank 1 is asked to go or null, "spoil": a file that rank 1 lacks}.
What a run raises is left in <RUN>.error<RANK>.json, and bytes of tensors in memory before each start in <RUN>.bytes<RANK>.json.
"""

import gc
import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from headrace.config import ConfigError
from headrace.train import loop
from headrace.train.loop import Run
from headrace.train.process import leave
from headrace.train.state import set_loss_scale
from headrace.train.step import Stepper, SummedLoss
from headrace.train.worker import train


class Spoilt(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values):
        return values.view_as(values)

    @staticmethod
    def backward(ctx, upstream):
        return upstream * float("nan")


def bytes_of_tensors():
    found = {}
    for each in gc.get_objects():
        if type(each) in (torch.Tensor, torch.nn.Parameter) and each.device.type == "cpu":
            found[each.untyped_storage().data_ptr()] = each.untyped_storage().nbytes()
    return sum(found.values())


class Case:
    def __init__(self, case):
        self.case, self.attempt, self.bytes = case, 0, []
        self.kept = Run.start.__func__, Run.to_the_end, Stepper.take, SummedLoss.__call__, loop._loader

    def __enter__(self):
        start, to_the_end, take, call, loader = self.kept

        def counted_start(cls, *arguments):
            self.bytes.append(bytes_of_tensors())
            return start(cls, *arguments)

        def prepared(run):
            if self.case["scale"]:
                set_loss_scale(run.engine, {"cur_scale": float(self.case["scale"])})
            if self.case["drain"] and dist.get_rank() == 1:
                run.stepper.asked = lambda: run.step + 1 >= self.case["drain"]
            to_the_end(run)

        def counted_take(stepper, examples, rate):
            self.attempt += 1
            return take(stepper, examples, rate)

        def spoilt_call(loss, logits, labels):
            return call(loss, Spoilt.apply(logits) if self.attempt in self.case["bad"] else logits, labels)

        def lacking(*arguments):
            if self.case["lacks"] and dist.get_rank() == 1:
                raise ConfigError("this node has no such folder")
            return loader(*arguments)

        Run.start, Run.to_the_end, loop._loader = classmethod(counted_start), prepared, lacking
        Stepper.take, SummedLoss.__call__ = counted_take, spoilt_call
        return self

    def __exit__(self, *error):
        start, Run.to_the_end, Stepper.take, SummedLoss.__call__, loop._loader = self.kept
        Run.start = classmethod(start)


def main(paths: list[Path]) -> None:
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", init_method=f"file://{os.environ['RENDEZVOUS']}", rank=rank, world_size=world)
    for path in paths:
        case = json.loads(path.read_text())
        run = Path(case["spec"]["run"])
        dist.barrier()
        with Case(case) as spoilt:
            try:
                train(case["spec"])
            except Exception as error:
                told = {"type": type(error).__name__, "message": str(error)}
                run.with_name(f"{run.name}.error{rank}.json").write_text(json.dumps(told))
        run.with_name(f"{run.name}.bytes{rank}.json").write_text(json.dumps(spoilt.bytes))
    leave()


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
