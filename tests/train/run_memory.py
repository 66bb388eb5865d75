"""One rank of several engines, each measured while it accumulates a step: run_memory.py FOLDER.

FOLDER/cases.json holds a list of {"model", "train"}; what this rank measured of each is left in FOLDER/measured-<RANK>.json.
"""

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from headrace.model import DecoderConfig
from headrace.objectives import CausalLM
from headrace.train.config import TrainConfig
from headrace.train.engine import build_module, start_engine
from headrace.train.groups import ranks_of
from headrace.train.held import measured
from headrace.train.process import device, import_deepspeed, leave
from headrace.train.state import fill, reset_state
from headrace.train.step import SummedLoss

VOCABULARY, LENGTH = 97, 16


def measure(deepspeed, values):
    model = DecoderConfig.model_validate(values["model"]).sized(VOCABULARY, LENGTH)
    config = TrainConfig.model_validate(values["train"])
    ranks = ranks_of(config.layout)
    loss = SummedLoss(CausalLM(), ranks.tensor)
    module = build_module(deepspeed, model, 0, config, ranks, loss)
    fill(module, lambda name: torch.ones(model.hidden) if name.endswith("norm.weight") else weight(model, name), ranks)
    engine = start_engine(deepspeed, module, config, ranks, device(), model.hidden)
    reset_state(engine)
    sequences = torch.arange(2 * (LENGTH + 1)).view(2, -1) % VOCABULARY
    example = CausalLM().corrupt(sequences, 0)
    found = {}
    if ranks.layout.pipeline > 1:
        at_the_end_of_the_passes(engine, lambda: found.update(measured(engine)))
        steps = config.accumulation_steps(ranks.data_size)
        engine.train_batch(iter([((example.tokens, example.aux), (example.targets, example.weights))] * steps))
    else:
        engine.backward(loss(engine(example.tokens, example.aux), (example.targets, example.weights)), scale_wrt_gas=False)
        found = measured(engine)
    engine.destroy()
    return {**found, "stage": ranks.stage, "data_rank": ranks.data_rank, "data": ranks.data_size}


def weight(model, name):
    from headrace.model.sequential import whole_shapes

    return torch.full(whole_shapes(model)[name].shape, 0.01)


def at_the_end_of_the_passes(engine, look):
    """Have `look` called when a pipeline has gone through its micro-batches and has not yet reduced their gradients."""
    from deepspeed.runtime.pipe.schedule import ReduceTiedGrads

    reduce = engine._INSTRUCTION_MAP[ReduceTiedGrads]

    def seen(self):
        look()
        reduce(self)

    engine._INSTRUCTION_MAP = {**engine._INSTRUCTION_MAP, ReduceTiedGrads: seen}


def main(folder):
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    deepspeed = import_deepspeed(device())
    dist.init_process_group("gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=world)
    found = [measure(deepspeed, case) for case in json.loads((folder / "cases.json").read_text())]
    (folder / f"measured-{rank}.json").write_text(json.dumps(found))
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
