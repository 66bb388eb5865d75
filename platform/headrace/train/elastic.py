"""The layout of the workers that there are: a changed number of them changes how often a step accumulates, never its global batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from headrace.config import ConfigError
from headrace.model import ModelConfig
from headrace.train.auto import choose, legal_layouts
from headrace.train.config import TrainConfig
from headrace.train.layout import Layout
from headrace.train.room import Room
from headrace.train.rules import breaches, check, counted


@dataclass(frozen=True)
class Settled:
    """What a world of workers does."""

    layout: Layout  # its data-parallel size settled
    used: int  # ranks below this one train
    idle: int  # and so many wait
    accumulation: int  # micro-batches a step of each data-parallel rank
    explanation: tuple[str, ...]  # a sentence each


def settle(config: TrainConfig, model: ModelConfig, world: int, room: Room) -> Settled:
    """The layout for that many workers; a pure function of its arguments.

    With a fixed number of workers all of them train. With a range, as many as can keep the global batch: the largest data-parallel
    size that divides it, with the tensor and pipeline sizes as they are; the others wait for a world in which they are of use.

    Raises:
        ConfigError: the layout is illegal, or nobody can keep the batch, with the worlds that can; for `auto`, nothing fits.
    """
    elastic = isinstance(config.num_workers, tuple)
    if not elastic:
        used = world
    elif (found := next(_usable(config, model, world, room), None)) is not None:
        used = found
    else:
        raise ConfigError(_refusal(config, model, world, room))
    explanation: tuple[str, ...] = ()
    if config.layout == "auto":
        choice = choose(config, model, used, room)
        layout, explanation = choice.layout, choice.explanation
    else:
        check(config, model, used)
        layout = config.layout.with_data(used // config.layout.replica)
    assert layout.data is not None
    accumulation = config.accumulation_steps(layout.data)
    if elastic:
        share = f"{accumulation} micro-batches of {config.batch.micro_batch} on each of {layout.data} data-parallel ranks"
        explanation += (
            f"{used} of {counted(world)} train, {world - used} wait: {share} keep the global batch of {config.batch.global_batch}",
        )
    return Settled(layout, used, world - used, accumulation, explanation)


def usable_worlds(config: TrainConfig, model: ModelConfig, room: Room) -> list[int]:
    """Numbers of workers within `num_workers` that leave nobody idle."""
    assert isinstance(config.num_workers, tuple)
    lowest, highest = config.num_workers
    return sorted(used for used in _usable(config, model, highest, room) if used >= lowest)


def _usable(config: TrainConfig, model: ModelConfig, world: int, room: Room) -> Iterator[int]:
    """Numbers of ranks up to `world` that can train together, the largest first."""
    assert isinstance(config.num_workers, tuple)
    for used in range(min(world, config.num_workers[1]), 0, -1):
        if config.layout == "auto":
            if legal_layouts(config, model, used, room.per_node):
                yield used
        elif not breaches(config, model, used):
            yield used


def _refusal(config: TrainConfig, model: ModelConfig, world: int, room: Room) -> str:
    """Why none of these workers can train together."""
    assert isinstance(config.num_workers, tuple)
    said = f"train.num_workers = {list(config.num_workers)}: {counted(world)} cannot keep train.batch.global = {config.batch.global_batch}"
    if worlds := usable_worlds(config, model, room):
        return f"{said} in this layout; these numbers can: {', '.join(map(str, worlds))}."
    if config.layout == "auto":
        return f"{said}, nor can any other number in that range; it must be a multiple of train.batch.micro = {config.batch.micro_batch}."
    replica = config.layout.replica
    whole = max(replica, world // replica * replica)
    return "\n".join([f"{said}, nor can any other number in that range.", *(f"{breach}." for breach in breaches(config, model, whole))])
