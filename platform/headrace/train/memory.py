"""Bytes that a rank of a layout needs, from the sizes alone; `headrace.train.held` counts those of an engine's real tensors.

What DeepSpeed 0.19 allocates was read in its source: `runtime/zero/stage_1_and_2.py`, `runtime/zero/stage3.py`, `runtime/bf16_optimizer.py`
and `runtime/fp16/unfused_optimizer.py`. In every table of theirs weights lie in two flat groups, matrices and vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from headrace.model import ModelConfig
from headrace.train.activations import FP32, WIDTH, Passes
from headrace.train.config import TrainConfig
from headrace.train.layout import Layout
from headrace.train.stages import layer_weights, stage_bounds

MOMENTS = 2  # of AdamW
# Numbers reduced or gathered at once. DeepSpeed's default of 5e8 holds 2 GB a buffer; and on a CPU a buffer is taken anew in each step,
# of which the C library keeps no more than 32 MB for the next one.
BUCKET_ELEMENTS = 50_000_000
CPU_BUCKET_ELEMENTS = 4_000_000
REDUCED_ELEMENTS = 500_000_000  # numbers that the engine puts together for an all-reduce where ZeRO does not
LIVE_ELEMENTS = 1_000_000_000  # weights that ZeRO 3 keeps gathered at once, DeepSpeed's default


@dataclass(frozen=True)
class RankBytes:
    """Bytes of one rank while it accumulates a step."""

    parameters: int  # weights in the precision of a pass
    gradients: int
    optimizer: int  # float32 masters, where there are any, and AdamW's moments
    activations: int  # an estimate: what the forward passes keep for the backward ones
    buffers: int  # what is on its way between ranks or devices
    host: int  # how many of these bytes are in the memory of the host rather than the device's

    @property
    def total(self) -> int:
        return self.parameters + self.gradients + self.optimizer + self.activations + self.buffers

    @property
    def device(self) -> int:
        return self.total - self.host


def bucket_elements(on_gpu: bool) -> int:
    """Numbers that an engine reduces or gathers at once."""
    return BUCKET_ELEMENTS if on_gpu else CPU_BUCKET_ELEMENTS


def largest_rank(model: ModelConfig, config: TrainConfig, data: int, on_gpu: bool) -> RankBytes:
    """The rank that needs the most of its device; see `rank_bytes`."""
    found = (rank_bytes(model, config, data, stage, on_gpu=on_gpu) for stage in range(_layout(config).pipeline))
    return max(found, key=lambda need: need.device)


def rank_bytes(model: ModelConfig, config: TrainConfig, data: int, stage: int = 0, data_rank: int = 0, on_gpu: bool = False) -> RankBytes:
    """What a rank of a pipeline's stage needs.

    Args:
        config: with its layout chosen.
        data: data-parallel size.
    """
    layout = _layout(config)
    names = stage_layers(model, layout.pipeline, stage)
    shapes = local_shapes(model, layout, stage)
    groups = [[prod(shape) for shape in shapes if (len(shape) > 1) is matrices] for matrices in (True, False)]
    state = _State(layout, config.precision, data, data_rank, model.hidden, [group for group in groups if group])
    in_flight = min(config.accumulation_steps(data), layout.pipeline - stage)  # 1F1B, the schedule of Narayanan et al. 2021
    gradients, host_gradients = state.gradients()
    optimizer = state.optimizer()
    buffers, host_buffers = state.buffers(on_gpu)
    host = host_gradients + host_buffers + (optimizer if layout.offload else 0)
    activations = Passes(model, config, layout, names, on_gpu).peak(in_flight)
    return RankBytes(state.parameters(), gradients, optimizer, activations, buffers, host)


def stage_layers(model: ModelConfig, stages: int, stage: int) -> list[str]:
    """Canonical names of a stage's layers."""
    bounds = stage_bounds(model, stages)
    return list(layer_weights(model))[bounds[stage] : bounds[stage + 1]]


def local_shapes(model: ModelConfig, layout: Layout, stage: int = 0) -> list[tuple[int, ...]]:
    """Shapes of a rank's weights, in the order of the layers; a tied embedding is on the first stage and on the last."""
    layers = stage_layers(model, layout.pipeline, stage)
    weights = [weight for layer in layers for weight in layer_weights(model)[layer].values()]
    if model.tied_embeddings and 0 < stage == layout.pipeline - 1:
        weights += layer_weights(model)["embed"].values()
    return [
        tuple(
            weight.shard.local(layout.tensor) if weight.shard and dim == weight.shard.dim else size for dim, size in enumerate(weight.shape)
        )
        for weight in weights
    ]


@dataclass(frozen=True)
class _State:
    """The tensors that DeepSpeed keeps from one micro-batch to the next."""

    layout: Layout
    precision: str
    data: int
    data_rank: int
    hidden: int  # weights of no more numbers stay gathered at ZeRO 3
    groups: list[list[int]]  # numbers of each weight, by group of the optimizer

    @property
    def width(self) -> int:
        return WIDTH[self.precision]

    @property
    def weights(self) -> list[int]:
        return [size for group in self.groups for size in group]

    @property
    def numbers(self) -> int:
        return sum(self.weights)

    @property
    def flat(self) -> int:
        """Numbers of the flat groups, each filled up so that every rank's part begins at a whole four bytes."""
        return sum(-(-sum(group) // (2 * self.data)) * 2 * self.data for group in self.groups)

    @property
    def part(self) -> int:
        """Numbers of a rank's part of the flat groups."""
        return self.flat // self.data

    @property
    def third(self) -> int:
        """Numbers of a rank's parts at ZeRO 3, where each weight is filled up by itself."""
        return sum(-(-size // self.data) for size in self.weights)

    @property
    def touched(self) -> int:
        """Numbers of the weights of which a rank's part holds at least one."""
        total = 0
        for group in self.groups:
            size = -(-sum(group) // (2 * self.data)) * 2
            first, last, start = self.data_rank * size, (self.data_rank + 1) * size, 0
            for weight in group:
                total += weight if start < last and start + weight > first else 0
                start += weight
        return total

    def parameters(self) -> int:
        if self.layout.zero == 0:
            return self.width * self.numbers
        if self.layout.zero < 3:
            return self.width * self.flat
        whole = sum(size for size in self.weights if size <= self.hidden)
        return self.width * (self.third + whole)

    def gradients(self) -> tuple[int, int]:
        """Bytes, and how many of them are in the memory of the host."""
        zero, offload = self.layout.zero, self.layout.offload
        staged = FP32 * (self.third if zero == 3 else self.part) if offload else 0  # what the host's optimizer reads
        if zero == 0:
            return self.width * self.numbers, 0  # added up in the precision of the pass
        if zero == 1:
            if self.precision == "bf16" and not offload:
                return FP32 * self.flat + self.width * self.numbers, 0  # BF16_Optimizer keeps those of a pass, too
            return FP32 * self.numbers + staged, staged
        if zero == 2:
            if self.precision != "fp32":
                return FP32 * self.part + staged, staged
            held = FP32 * self.touched
            return held + staged, staged + (held if offload else 0)
        held = FP32 * self.third
        return held + staged, staged + (held if offload else 0)

    def optimizer(self) -> int:
        zero = self.layout.zero
        numbers = self.numbers if zero == 0 else self.third if zero == 3 else self.part
        steps = len(self.weights) if zero == 0 else len(self.groups)
        masters = 0 if zero == 0 and self.precision == "fp32" else 1
        return FP32 * ((masters + MOMENTS) * numbers + steps)

    def buffers(self, on_gpu: bool) -> tuple[int, int]:
        """Bytes, and how many of them are in the memory of the host.

        A CPU's memory is not taken before it is written to; on a GPU a bucket has its whole size, and there are two where
        communication overlaps with the backward pass.
        """
        zero, offload = self.layout.zero, self.layout.offload
        if zero == 0 and self.data == 1:
            return 0, 0
        if zero == 0 or (zero == 1 and self.precision == "bf16" and not offload):
            # Small gradients are put together for one all-reduce; a large one is reduced where it is.
            together = self.weights if zero == 0 else [sum(group) for group in self.groups]
            return (self.width if zero == 0 else FP32) * sum(size for size in together if size < REDUCED_ELEMENTS), 0
        bucket = bucket_elements(on_gpu) if on_gpu else min(bucket_elements(on_gpu), self.numbers)
        overlapped = 2 if on_gpu and zero < 3 and self.layout.pipeline == 1 else 1
        width = self.width if zero == 2 else FP32
        device = width * bucket * overlapped
        if zero == 3:
            device += self.width * min(self.numbers, LIVE_ELEMENTS)
        host = 0
        if offload and zero < 3:
            device += self.width * max(self.weights)
            host = self.width * (self.part + max(self.weights))
        return device + host, host


def _layout(config: TrainConfig) -> Layout:
    assert config.layout != "auto", "chosen before its bytes are counted"
    return config.layout
