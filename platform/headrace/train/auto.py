"""`layout: auto`: the least sharded layout that fits the workers' memory, and why it is that one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from headrace.config import ConfigError
from headrace.model import ModelConfig, parameter_count
from headrace.train.config import TrainConfig
from headrace.train.layout import Layout
from headrace.train.memory import RankBytes, largest_rank
from headrace.train.room import Room
from headrace.train.rules import breaches, counted

MARGIN = 0.1  # of the memory stays free: the allocator's gaps, the libraries' own buffers


@dataclass(frozen=True)
class Choice:
    """A layout, its data-parallel size settled, and how it was come by."""

    layout: Layout
    need: RankBytes  # of the rank that needs the most
    explanation: tuple[str, ...]  # a sentence each


def choose(config: TrainConfig, model: ModelConfig, world: int, room: Room) -> Choice:
    """The layout for a world of that many workers: a pure function of its arguments.

    Raises:
        ConfigError: no legal layout fits, with the bytes that are short and what would help; or none is legal.
    """
    legal = legal_layouts(config, model, world, room.per_node)
    if not legal:
        said = f"train.layout = auto: no layout of {counted(world)} keeps train.batch.global = {config.batch.global_batch}"
        raise ConfigError(f"{said} in micro-batches of {config.batch.micro_batch}; {_worlds_hint(config, world)}.")
    limit = int(room.memory * (1 - MARGIN))
    needs: list[RankBytes] = []
    for layout in legal:
        needs.append(_need(config, model, layout, room))
        if needs[-1].device <= limit:
            break
    else:
        raise ConfigError(_nothing_fits(config, model, world, room, legal, needs))
    setting = (
        f"{parameter_count(model):,} parameters in {config.precision}, {config.batch.micro_batch} x {model.sequence_length:,} tokens a "
        f"micro-batch, {counted(world)} of {as_bytes(room.memory)} each, {room.per_node} on a node; {MARGIN:.0%} of the memory stays free"
    )
    chosen = f"{named(layout)} takes {_parts(needs[-1])} a worker, and is the least sharded layout that fits"
    less = [
        f"{named(other)} would take {as_bytes(need.device)}, {as_bytes(need.device - limit)} too much"
        for other, need in zip(legal, needs[:-1])
    ]
    more = [f"{named(other)} would take {as_bytes(_need(config, model, other, room).device)}" for other in legal[len(needs) :][:1]]
    return Choice(layout, needs[-1], (setting, chosen, *less, *more))


def legal_layouts(config: TrainConfig, model: ModelConfig, world: int, per_node: int) -> list[Layout]:
    """Legal layouts of that many workers, the least sharded first: ZeRO's stages, then matrices within a node, then a pipeline."""
    return [
        layout
        for layout in _layouts(config, model, world, per_node)
        if not breaches(config.model_copy(update={"layout": layout}), model, world)
    ]


def _layouts(config: TrainConfig, model: ModelConfig, world: int, per_node: int) -> Iterator[Layout]:
    for pipeline in _divisors(world):
        for tensor in _divisors(world // pipeline):
            if per_node % tensor:
                continue  # its ranks would not all be on one node
            data = world // (pipeline * tensor)
            cuts = all((stop - start) % tensor == 0 for start, stop in model.streams(model.sequence_length))
            # With one data-parallel rank there is nothing to shard; for 16 bits ZeRO 1 is still what adds gradients up in float32.
            first = 0 if config.precision == "fp32" and data == 1 else 1
            last = first if data == 1 else 1 if pipeline > 1 else 3
            for zero in range(first, last + 1):
                yield Layout(data=data, tensor=tensor, pipeline=pipeline, zero=zero, sequence=tensor > 1 and cuts)


def named(layout: Layout) -> str:
    """A layout in a few words."""
    sizes = {"data": layout.data or 1, "tensor": layout.tensor, "pipeline": layout.pipeline}
    product = " x ".join(f"{name} {size}" for name, size in sizes.items() if size > 1) or "one rank"
    return f"{product}, ZeRO {layout.zero}" + ", sequence parallel" * layout.sequence + ", offload" * layout.offload


def _need(config: TrainConfig, model: ModelConfig, layout: Layout, room: Room) -> RankBytes:
    assert layout.data is not None
    need = largest_rank(model, config.model_copy(update={"layout": layout}), layout.data, room.on_gpu)
    # Without a GPU the host's memory is the device's.
    return need if room.on_gpu else RankBytes(need.parameters, need.gradients, need.optimizer, need.activations, need.buffers, 0)


def _nothing_fits(config: TrainConfig, model: ModelConfig, world: int, room: Room, legal: list[Layout], needs: list[RankBytes]) -> str:
    """How much is short in the layout that needs least, and each change that would be enough."""
    limit = int(room.memory * (1 - MARGIN))
    least = min(range(len(legal)), key=lambda place: needs[place].device)
    said = (
        f"train.layout = auto: nothing fits {counted(world)} of {as_bytes(room.memory)}, {MARGIN:.0%} of it left free: the smallest, "
        f"{named(legal[least])}, takes {_parts(needs[least])}, {as_bytes(needs[least].device - limit)} too much"
    )
    ways = [f"{override} would make it {as_bytes(size)}" for override, size in _ways_out(config, model, world, room, limit)]
    return f"{said}; {'; '.join(ways) or 'a smaller model is needed, or workers with more memory'}."


def _ways_out(config: TrainConfig, model: ModelConfig, world: int, room: Room, limit: int) -> Iterator[tuple[str, int]]:
    """Changes after which a layout fits, as overrides, and the bytes that the smallest then needs."""

    def least(changed: TrainConfig, workers: int = world) -> int:
        needs = [_need(changed, model, layout, room).device for layout in legal_layouts(changed, model, workers, room.per_node)]
        return min(needs, default=room.memory)

    changes: list[tuple[str, dict[str, Any]]] = [
        ("train.activation_checkpointing=block", {"activation_checkpointing": "block"}),
        ("train.batch.micro=1", {"batch": config.batch.model_copy(update={"micro_batch": 1})}),
        *([("train.precision=bf16", {"precision": "bf16"})] if config.precision == "fp32" else []),
    ]
    changes = [(override, change) for override, change in changes if config.model_copy(update=change) != config]
    alone = [(override, least(config.model_copy(update=change))) for override, change in changes]
    if enough := [(override, size) for override, size in alone if size <= limit]:
        yield from enough
    else:
        together = least(config.model_copy(update={name: value for _, change in changes for name, value in change.items()}))
        yield from [(" ".join(override for override, _ in changes), together)] * (together <= limit)
    offloaded = config.model_copy(update={"layout": Layout(data=world, zero=2, offload=True)})
    if room.on_gpu and not breaches(offloaded, model, world):
        size = largest_rank(model, offloaded, world, on_gpu=True).device
        yield from [("train.layout='{zero: 2, offload: true}'", size)] * (size <= limit)
    for workers in (2 * world, 4 * world, 8 * world):
        if (size := least(config, workers)) <= limit:
            yield f"train.num_workers={workers}", size
            return


def _worlds_hint(config: TrainConfig, world: int) -> str:
    passes, left = divmod(config.batch.global_batch, config.batch.micro_batch)
    if left:
        return f"train.batch.global={(passes + 1) * config.batch.micro_batch} is a multiple"
    return f"train.num_workers={max(size for size in _divisors(passes) if size <= world)} does"


def _parts(need: RankBytes) -> str:
    parts = [("weights", need.parameters), ("gradients", need.gradients), ("optimizer", need.optimizer), ("activations", need.activations)]
    return f"{as_bytes(need.device)} ({', '.join(f'{name} {as_bytes(size)}' for name, size in (*parts, ('buffers', need.buffers)))})"


def as_bytes(size: int) -> str:
    """A number of bytes for a person."""
    return f"{size / 1e9:.1f} GB" if size >= 5e7 else f"{size / 1e6:.1f} MB"


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]
