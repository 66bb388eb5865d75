"""One rank of tensor-parallel groups that compute several cases: run_ranks.py FOLDER, with RANK and WORLD_SIZE set.

FOLDER/cases.json is a list of {name, size, model, objective, tokens, samples, sequence, recompute, dtype}; ranks below `size` take
part. What a rank gets, its loss, its logits and its piece of every weight and of its gradient, is left in
FOLDER/<name>.<rank>.safetensors. FOLDER/logits.safetensors holds [N, V] `float32` and `bfloat16`, and int64 [N] `targets` and `weights`;
the losses of groups of each size and this rank's gradients go to FOLDER/logits-<size>.<rank>.safetensors.
"""

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file

from headrace.model import model_config
from headrace.model.sequential import build_model
from headrace.model.tensor_parallel import TensorParallel, shard_of
from headrace.objectives import ObjectiveConfig
from headrace.objectives import cross_entropy as module
from headrace.objectives.cross_entropy import cross_entropy

BLOCK_POSITIONS = 7  # of the cross entropy of 12 columns in float32, so that there are several blocks and the last is short


def main(folder: Path) -> None:
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    module.BLOCK_BYTES = BLOCK_POSITIONS * 4 * 12
    dist.init_process_group("gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=world)
    cases, shared = json.loads((folder / "cases.json").read_text()), load_file(folder / "logits.safetensors")
    for size in sorted({case["size"] for case in cases}):
        group = dist.new_group(list(range(size)))
        if rank >= size:
            continue
        for case in cases:
            if case["size"] == size:
                tensor = TensorParallel(group, rank, size, case["sequence"])
                save_file(computed(case, tensor), folder / f"{case['name']}.{rank}.safetensors")
        save_file(losses(shared, TensorParallel(group, rank, size)), folder / f"logits-{size}.{rank}.safetensors")
    dist.destroy_process_group()


def computed(case: dict, tensor: TensorParallel) -> dict[str, torch.Tensor]:
    objective = TypeAdapter(ObjectiveConfig).validate_python({"name": case["objective"]})
    model = build_model(model_config(case["model"]), 3, tensor, case["recompute"]).to(getattr(torch, case["dtype"]))
    example = objective.corrupt(torch.tensor(case["tokens"]), 0, torch.tensor(case["samples"]))
    logits = model(example.tokens, example.aux)
    nats, _ = objective.loss(logits, example, tensor)
    (nats * 0.1).backward()
    found = {"nats": nats.detach(), "logits": logits.detach().contiguous()}
    for name, weight in model.named_weights():
        assert getattr(weight, "tensor_model_parallel", False) == (tensor.size > 1 and shard_of(weight) is not None)
        found |= {f"weight/{name}": weight.detach(), f"gradient/{name}": weight.grad.contiguous()}
    return found


def losses(shared: dict[str, torch.Tensor], tensor: TensorParallel) -> dict[str, torch.Tensor]:
    found = {}
    for name in ("float32", "bfloat16"):
        width = -(-shared[name].shape[1] // tensor.size)
        padded = F.pad(shared[name], (0, width * tensor.size - shared[name].shape[1]), value=-torch.inf)
        columns = padded.split(width, 1)[tensor.rank].clone().requires_grad_()
        nats = cross_entropy(columns, shared["targets"], shared["weights"].bool(), tensor)
        (nats * 0.25).backward()
        found |= {f"nats/{name}": nats.detach(), f"gradient/{name}": columns.grad}
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
