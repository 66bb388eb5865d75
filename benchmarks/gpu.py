"""How much of a GPU's arithmetic training uses: presets of the decoder in bf16 with compiled blocks and fused attention.

torchrun --standalone --nproc-per-node N benchmarks/gpu.py [--json] [--only PRESET] [--tokens N]; without torchrun on one GPU. No Ray, no
data: random tokens, ZeRO 1 over all ranks. Of each preset: the utilisation of the peak that the data sheet gives; compiled blocks against
plain ones; packed documents against whole rows; memory against the estimate of `headrace plan`. About a quarter of an hour. Where there is
no GPU it says so and measures nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch

from headrace.model import DecoderConfig, ModelConfig, flops_per_token
from headrace.model.attention import attended
from headrace.model.geometry import segment_sight
from headrace.objectives import CausalLM
from headrace.objectives.example import Example
from headrace.train.config import TrainConfig
from headrace.train.held import measured
from headrace.train.layout import Layout
from headrace.train.memory import rank_bytes
from headrace.train.metrics import PEAKS, peak_flops
from headrace.train.process import device, join, leave
from rows import row, show
from sides import engine_stepper

PRESETS = ("124m", "350m", "1b")
FLOORS = {"1b": 0.45}  # of the utilisation, on one H200 at 4,096 tokens
VOCABULARY = 32_768
EOS = 0
DOCUMENT = 1024  # tokens of a packed document, on average
SEQUENCES = 64  # a rank and step
FULL = 0.8  # of a GPU's memory may be planned for
WARM, STEPS = 3, 8
SAME_LOSS = 0.02  # nats, first step in bf16
SAME_ATTENTION = 0.02  # of its norm, in bf16
SAME_STATE = 0.05  # of its bytes


@dataclass(frozen=True)
class Measured:
    """Some steps of one configuration on this rank."""

    losses: list[float]
    tokens_per_s: float  # a rank; median of the steps
    peak_bytes: int | None  # of a GPU's memory, at the worst moment
    state: dict[str, int]  # bytes of parameters, gradients and optimizer state in the middle of a step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--only", choices=PRESETS, help="one preset")
    parser.add_argument("--tokens", type=int, default=4096, help="of a sequence")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        skip("no GPU on this machine: nothing was measured", arguments.json)
        return
    where = device()
    peak = peak_flops(where, "bf16")
    if peak is None:
        name = torch.cuda.get_device_name(where)
        skip(f"the peak of a {name} is not known, only of {', '.join(PEAKS)}: nothing was measured", arguments.json)
        return
    join(where)
    rows = []
    for preset in (arguments.only,) if arguments.only else PRESETS:
        rows += preset_rows(preset, arguments.tokens, peak)
    if torch.distributed.get_rank() == 0:
        show("gpu", rows, arguments.json)
    leave()


def skip(why: str, as_json: bool) -> None:
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps({"name": "gpu", "machine": platform.platform(), "rows": [], "skipped": why}, indent=1) if as_json else why)


def preset_rows(preset: str, tokens: int, peak: float) -> list[dict[str, Any]]:
    """Compiled, plain and packed, and memory."""
    model = DecoderConfig.model_validate({"preset": preset}).sized(VOCABULARY, tokens)
    world = torch.distributed.get_world_size()
    train = fitting(model, world)
    micro = train.batch.micro_batch
    fast = measure(model, train, whole_rows(model, micro), WARM, STEPS)
    packed = measure(model, train, packed_rows(model, micro), WARM, STEPS // 2)
    plain = measure(model, train.model_copy(update={"compile": False}), whole_rows(model, micro), WARM, STEPS // 2)
    name, speed = f"{preset}, {tokens:,} tokens", fast.tokens_per_s
    achieved = speed * flops_per_token(model)
    same = abs(fast.losses[0] - plain.losses[0]) <= SAME_LOSS
    apart = packed_apart(tokens, device())
    peak_told = f"a GPU's peak in bf16; {speed:,.0f} tokens/s a GPU of {world}, micro-batches of {micro}"
    packed_told = f"whole rows; documents of {DOCUMENT} tokens, attention apart from that under a mask by {apart:.0e} of it"
    return [
        row(f"{name}: use", peak_told, achieved / peak, achieved / 1e12, peak / 1e12, "TFLOP/s", same, floor=FLOORS.get(preset)),
        row(f"{name}: compiled", "plain blocks", speed / plain.tokens_per_s, speed, plain.tokens_per_s, "tokens/s", same),
        row(f"{name}: packed", packed_told, packed.tokens_per_s / speed, packed.tokens_per_s, speed, "tokens/s", apart <= SAME_ATTENTION),
        memory_row(f"{name}: memory, compiled", model, train, world, fast),
        memory_row(f"{name}: memory, plain", model, train, world, plain),
    ]


def memory_row(work: str, model: ModelConfig, train: TrainConfig, world: int, run: Measured) -> dict[str, Any]:
    """The peak against the estimate, which is of plain blocks; equal: of what is kept from step to step."""
    need = rank_bytes(model, train, world, on_gpu=True)
    off = {part: size / getattr(need, part) for part, size in run.state.items()}
    told = "the estimate of `headrace plan`; " + ", ".join(f"{part} {ratio:.2f} of it" for part, ratio in off.items())
    peak = run.peak_bytes or 0
    return row(
        work, told, need.device / max(1, peak), peak / 2**30, need.device / 2**30, "GiB", all(abs(x - 1) <= 0.05 for x in off.values())
    )


def fitting(model: ModelConfig, world: int) -> TrainConfig:
    """Settings with the largest micro-batch, a power of two, that is planned to fit."""
    memory = torch.cuda.get_device_properties(device()).total_memory
    micro = SEQUENCES
    while micro > 1:
        train = settings(world, micro)
        if rank_bytes(model, train, world, on_gpu=True).device <= FULL * memory:
            return train
        micro //= 2
    return settings(world, 1)


def settings(world: int, micro: int, sequences: int = SEQUENCES, compile: bool = True, precision: str = "bf16") -> TrainConfig:
    values = {
        "batch": {"global": sequences * world, "micro": micro},
        "layout": Layout(data=world, zero=1),
        "precision": precision,
        "compile": compile,
        "checkpoint": {"initial": False},
    }
    return TrainConfig.model_validate(values)


def whole_rows(model: ModelConfig, micro: int) -> Example:
    """A micro-batch whose rows are one document each."""
    generator = torch.Generator().manual_seed(1)
    return CausalLM().corrupt(torch.randint(EOS + 1, model.vocab_size, (micro, model.sequence_length + 1), generator=generator), EOS)


def packed_rows(model: ModelConfig, micro: int) -> Example:
    """A micro-batch whose documents end anywhere, every DOCUMENT tokens on average."""
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(EOS + 1, model.vocab_size, (micro, model.sequence_length + 1), generator=generator)
    return CausalLM().corrupt(tokens.masked_fill(torch.rand(tokens.shape, generator=generator) < 1 / DOCUMENT, EOS), EOS)


def measure(model: ModelConfig, train: TrainConfig, example: Example, warm: int, steps: int) -> Measured:
    """Take steps on one micro-batch over and over; collective."""
    stepper = engine_stepper(model, train, CausalLM(), seed=1)
    where = stepper.where
    gpu = where.type == "cuda"
    if gpu:
        torch.cuda.reset_peak_memory_stats(where)
    example = example.to(where)
    passes = train.accumulation_steps(stepper.ranks.data_size)
    losses, speeds = [], []
    for _ in range(warm + steps):
        if gpu:
            torch.cuda.synchronize(where)
        started = time.perf_counter()
        # What is derived from aux is derived of each, as in a run.
        examples = [example._replace(aux=example.aux.clone()) for _ in range(passes)]
        losses.append(stepper.take(examples, train.optimizer.lr / 10).loss)
        if gpu:
            torch.cuda.synchronize(where)
        speeds.append(passes * example.tokens.numel() / (time.perf_counter() - started))
    peak = torch.cuda.max_memory_allocated(where) if gpu else None
    state = in_a_step(stepper, example)
    stepper.engine.destroy()
    del stepper
    gc.collect()
    torch.compiler.reset()  # the next model's blocks are others
    if gpu:
        torch.cuda.empty_cache()
    return Measured(losses, statistics.median(speeds[warm:]), peak, state)


def in_a_step(stepper: Any, example: Example) -> dict[str, int]:
    """Bytes of an engine's state while it accumulates a step, which is left half done."""
    loss = stepper.loss(stepper.engine(example.tokens, example.aux), (example.targets, example.weights))
    stepper.engine.backward(loss, scale_wrt_gas=False)
    return measured(stepper.engine)


def packed_apart(tokens: int, where: torch.device) -> float:
    """How far the kernel for packed rows is from attention under a mask, outputs and gradients, as a share of their norms."""
    torch.manual_seed(3)
    segment = (torch.arange(tokens, device=where) // (DOCUMENT // 3)).expand(2, -1)
    found: list[list[torch.Tensor]] = []
    start = [torch.randn(2, tokens, heads, 64, device=where, dtype=torch.bfloat16) for heads in (8, 2, 2)]
    for packed in (True, False):
        inputs = [each.clone().requires_grad_() for each in start]
        output = attended(inputs[0], inputs[1], inputs[2], segment_sight(segment, True, packed))
        output.float().square().sum().backward()
        found.append([output, *(each.grad for each in inputs if each.grad is not None)])
    return max(distance(one, other) for one, other in zip(*found))


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.float() - other.float()).norm() / other.float().norm())


if __name__ == "__main__":
    main()
