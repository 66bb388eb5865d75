"""One side of benchmarks/train.py, which runs it: a plain torch loop, the DeepSpeed engine alone, or the worker under Ray Train.

python benchmarks/sides.py plain|engine SPEC.json, or ray SPEC.json WORKERS. Plain loop and engine leave RUN/train/metrics.jsonl as the
worker does; Ray's side leaves RUN/ray.json beside what the worker leaves.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from headrace import storage
from headrace.batches import Loader, Order
from headrace.model import ModelConfig
from headrace.model.sequential import build_model, initial_weight, whole_shapes
from headrace.objectives import ObjectiveConfig
from headrace.objectives.example import Example
from headrace.tokens.store import TokenStore
from headrace.train.config import TrainConfig
from headrace.train.engine import build_module, clips_itself, start_engine
from headrace.train.groups import ranks_of
from headrace.train.process import device, import_deepspeed, join, leave
from headrace.train.schedule import learning_rate
from headrace.train.spec import TrainSpec
from headrace.train.spikes import History
from headrace.train.state import fill, reset_state
from headrace.train.step import Stepper, SummedLoss

# A step's micro-batches and its learning rate -> its loss.
Step = Callable[[list[Example], float], float]


def plain_step(spec: TrainSpec, model: ModelConfig) -> Step:
    """The loop that one would write without any of this, at its best: no engine, no ranks, fused AdamW."""
    module = build_model(model, spec.seed)
    settings = spec.train.optimizer
    matrices, vectors = ([p for p in module.parameters() if (p.ndim >= 2) == wanted] for wanted in (True, False))
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=settings.betas, eps=settings.eps, fused=True)

    def step(examples: list[Example], rate: float) -> float:
        targets = sum(example.num_targets for example in examples)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = 0.0
        for example in examples:
            nats, _ = spec.objective.loss(module(example.tokens, example.aux), example)
            (nats / targets).backward()
            loss += nats.item() / targets
        torch.nn.utils.clip_grad_norm_(module.parameters(), settings.clip or math.inf)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    return step


def engine_stepper(model: ModelConfig, train: TrainConfig, objective: ObjectiveConfig, seed: int) -> Stepper:
    """DeepSpeed's engine, driven as the worker drives it, and nothing else of the worker; the layout has its sizes."""
    where = device()
    deepspeed = import_deepspeed(where)
    join(where)
    assert train.layout != "auto"
    ranks = ranks_of(train.layout)
    loss = SummedLoss(objective, ranks.tensor)
    module, shapes = build_module(deepspeed, model, seed, train, ranks, loss), whole_shapes(model)
    fill(module, lambda name: initial_weight(model, seed, name, shapes[name].shape), ranks)
    engine = start_engine(deepspeed, module, train, ranks, where, model.hidden)
    reset_state(engine)
    own_norm, history = not clips_itself(train, ranks), History.read(train.spikes, None)
    return Stepper(engine, ranks, loss, train.optimizer.clip, own_norm, train.spikes, where, lambda: False, history)


def engine_step(spec: TrainSpec, model: ModelConfig) -> Step:
    stepper = engine_stepper(model, spec.train, spec.objective, spec.seed)
    return lambda examples, rate: stepper.take(examples, rate).loss


def work(spec: TrainSpec, make: Callable[[TrainSpec, ModelConfig], Step]) -> None:
    """Take all steps, timed as the worker times its own."""
    torch.set_num_threads(spec.train.threads)
    store = TokenStore.open(spec.tokens)
    step = make(spec, spec.model.sized(store.vocab_size, store.sequence_length))
    counts = {name: store.num_sequences(name, "train") for name in store.sources}
    batch = spec.train.batch
    loader = Loader(store, Order(spec.seed, counts, spec.mixture), batch.global_batch, batch.micro_batch, 0, 1)
    for number in range(spec.train.steps):
        started = time.perf_counter()
        examples = [
            spec.objective.corrupt(torch.from_numpy(sequences), store.eos, torch.from_numpy(samples))
            for sequences, samples in loader.micro_batches(number)
        ]
        loss = step(examples, learning_rate(spec.train.schedule, spec.train.optimizer.lr, number, spec.train.steps))
        speed = batch.global_batch * store.sequence_length / (time.perf_counter() - started)
        storage.append_line(spec.run / "train" / "metrics.jsonl", {"step": number + 1, "loss": loss, "tokens_per_s": speed})


def on_ray(spec: TrainSpec, workers: int) -> None:
    """The whole worker under Ray Train, on a local Ray of as many CPUs."""
    import ours
    from headrace.train.fit import fit

    began = time.time()
    seconds = ours.start_ray(workers)
    storage.write_json(spec.run / "ray.json", {"began": began, "start_s": seconds, "fit": time.time()})
    fit(spec.plain(), workers, spec.train.max_failures)


def main(side: str, path: str, *workers: str) -> None:
    spec = TrainSpec.read(json.loads(Path(path).read_text()))
    if side == "ray":
        on_ray(spec, int(workers[0]))
    elif side == "plain":
        work(spec, plain_step)
    else:
        work(spec, engine_step)
        leave()


if __name__ == "__main__":
    main(*sys.argv[1:])
