"""Which layouts can be run: every rule a sentence, all broken ones told at once, with the nearest layout that breaks none.

The rules say what DeepSpeed 0.19 does with a layout (its source was read, and each combination run), and what our layers can be cut into.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import log2
from typing import Any, get_args

from headrace.config import ConfigError
from headrace.model import ModelConfig
from headrace.train.config import Precision, TrainConfig
from headrace.train.layout import Layout
from headrace.train.stages import layer_weights

FEW_BUBBLES = 4  # micro-batches a stage from which a pipeline idles for less than a fifth of a step


@dataclass(frozen=True)
class Case:
    """A layout, and what it is to be used for."""

    config: TrainConfig
    model: ModelConfig
    world: int  # ranks

    @property
    def layout(self) -> Layout:
        layout = self.config.layout
        assert layout != "auto", "chosen before it is held against the rules"
        return layout

    @property
    def data(self) -> int | None:
        """Data-parallel size; None where the layout does not make that many ranks."""
        data, left = divmod(self.world, self.layout.replica)
        return None if left or not data or self.layout.data not in (None, data) else data

    @property
    def accumulation(self) -> int | None:
        """Micro-batches a step of each data-parallel rank; None where the batch does not divide."""
        steps, left = divmod(self.config.batch.global_batch, self.config.batch.micro_batch * (self.data or 1))
        return None if self.data is None or left else steps

    @property
    def blocks(self) -> int:
        """Layers between which a pipeline can be cut and that are worth a stage."""
        return sum("." in name for name in layer_weights(self.model))


def ranks_of_a_layout(case: Case) -> str | None:
    """The groups must make up the world."""
    layout, world = case.layout, case.world
    if case.data is not None:
        return None
    if world % layout.replica:
        replica = f"train.layout.tensor = {layout.tensor} x pipeline = {layout.pipeline}"
        fits = _multiples(world, layout.replica)
        return f"{replica} = {layout.replica} ranks a replica, of which {counted(world)} make no multiple; {fits} do"
    found = f"train.layout.data = {layout.data} x tensor = {layout.tensor} x pipeline = {layout.pipeline}"
    ranks = (layout.data or 1) * layout.replica
    return f"{found} is {ranks} ranks, but the world is {counted(world)}; set train.layout.data={world // layout.replica}"


def batch_of_a_layout(case: Case) -> str | None:
    """The global batch is made of whole micro-batches."""
    if case.data is None or case.accumulation is not None:
        return None
    try:
        case.config.accumulation_steps(case.data)
    except ConfigError as error:
        return str(error).rstrip(".")
    return None


def heads_of_a_share(case: Case) -> str | None:
    """A tensor rank holds whole query heads, and the key and value heads that they read."""
    tensor, heads, keys = case.layout.tensor, case.model.heads, case.model.key_value_heads
    if heads % tensor == 0 and keys % tensor == 0:
        return None
    fits = [size for size in range(1, heads + 1) if heads % size == 0 and keys % size == 0]
    uneven = f"model.heads = {heads}" if heads % tensor else f"model.kv_heads = {keys}"
    return f"train.layout.tensor = {tensor} does not divide {uneven}; {_one_of(fits)}"


def mlp_of_a_share(case: Case) -> str | None:
    """A tensor rank holds equally much of the gate and of the up projection."""
    tensor, mlp = case.layout.tensor, case.model.mlp_size
    if mlp % tensor == 0:
        return None
    return f"train.layout.tensor = {tensor} does not divide model.mlp = {mlp}; model.mlp = {-(-mlp // tensor) * tensor} would do"


def sequence_of_a_share(case: Case) -> str | None:
    """Sequence parallelism cuts each stream of a row between tensor ranks."""
    layout, length = case.layout, case.model.sequence_length
    if not layout.sequence:
        return None
    if layout.tensor == 1:
        return "train.layout.sequence = true with tensor = 1: there is nobody to share a sequence with; set train.layout.sequence=false"
    streams = [stop - start for start, stop in case.model.streams(length)]
    if all(stream % layout.tensor == 0 for stream in streams):
        return None
    fits = len(streams) * layout.tensor
    named = f"tokens.sequence_length = {length}" + (" in two streams" if len(streams) > 1 else "")
    return f"train.layout.sequence = true: {named} does not divide by tensor = {layout.tensor}; {-(-length // fits) * fits} would do"


def depth_of_a_pipeline(case: Case) -> str | None:
    """A stage without a block would only pass on."""
    if case.layout.pipeline == 1 or case.layout.pipeline <= case.blocks:  # the layers are looked at where there is something to cut
        return None
    return (
        f"train.layout.pipeline = {case.layout.pipeline}, but the model has {case.blocks} blocks; set train.layout.pipeline={case.blocks}"
    )


def shards_of_a_pipeline(case: Case) -> str | None:
    """DeepSpeed's pipeline engine adds gradients up over micro-batches before it reduces them: ZeRO 2 and 3 reduce each."""
    if case.layout.pipeline == 1 or case.layout.zero < 2:
        return None
    named = f"train.layout.zero = {case.layout.zero} with pipeline = {case.layout.pipeline}"
    return f"{named}: DeepSpeed's pipelines know ZeRO 0 and 1; set train.layout.zero=1"


def offload_of_a_pipeline(case: Case) -> str | None:
    if case.layout.pipeline == 1 or not case.layout.offload:
        return None
    named = f"train.layout.offload = true with pipeline = {case.layout.pipeline}"
    return f"{named}: its stages keep their optimizer state; set train.layout.offload=false"


def fill_of_a_pipeline(case: Case) -> str | None:
    """Every stage should have work at least once at the same time."""
    pipeline, steps = case.layout.pipeline, case.accumulation
    if steps is None or steps >= pipeline:
        return None
    named = f"train.layout.pipeline = {pipeline} with {steps} micro-batches a step"
    fewer = (
        f"train.layout.pipeline={steps}"
        if steps > 1
        else f"train.batch.global={case.config.batch.micro_batch * (case.data or 1) * pipeline}"
    )
    return f"{named}: at least one a stage is needed; set a smaller train.batch.micro, or {fewer}"


def offload_of_shards(case: Case) -> str | None:
    if case.layout.zero > 0 or not case.layout.offload:
        return None
    return "train.layout.offload = true with zero = 0: it is a ZeRO optimizer's state that is offloaded; set train.layout.zero=1"


def compile_of_shards(case: Case) -> str | None:
    """ZeRO 3 gathers weights in hooks of each module; the compiler stops at every one of them, and after eight gives the block up."""
    if case.layout.zero < 3 or not case.config.compile:
        return None
    return "train.compile = true with zero = 3: the gathers between its products would leave nothing to compile; set train.layout.zero=2"


def bf16_of_a_pipeline(case: Case) -> str | None:
    if case.config.precision != "bf16" or case.layout.pipeline == 1 or case.layout.zero > 0:
        return None
    named = f"train.precision = bf16 with pipeline = {case.layout.pipeline} and zero = 0"
    return f"{named}: gradients of all micro-batches would be added up in bf16; set train.layout.zero=1"


def fp16_of_a_replica(case: Case) -> str | None:
    """FP16_UnfusedOptimizer divides gradients by a loss scale that the engine never multiplied the loss by: they are off by 65,536."""
    if case.config.precision != "fp16" or case.layout.zero > 0:
        return None
    return "train.precision = fp16 with zero = 0: DeepSpeed 0.19 unscales gradients there that it never scaled; set train.layout.zero=1"


def fp16_of_tied_embeddings(case: Case) -> str | None:
    """The engine sums `weight.grad` of the two copies; where gradients are added up in float32, they are elsewhere."""
    if case.config.precision != "fp16" or case.layout.pipeline == 1 or not case.model.tied_embeddings:
        return None
    named = f"train.precision = fp16 with pipeline = {case.layout.pipeline} and model.tied_embeddings = true"
    return f"{named}: the two copies of the embedding would drift apart; set train.precision=bf16"


RULES = (
    ranks_of_a_layout,
    batch_of_a_layout,
    heads_of_a_share,
    mlp_of_a_share,
    sequence_of_a_share,
    depth_of_a_pipeline,
    shards_of_a_pipeline,
    offload_of_a_pipeline,
    fill_of_a_pipeline,
    offload_of_shards,
    compile_of_shards,
    bf16_of_a_pipeline,
    fp16_of_a_replica,
    fp16_of_tied_embeddings,
)


def breaches(config: TrainConfig, model: ModelConfig, world: int) -> list[str]:
    """What is wrong with a layout for that many ranks, a sentence a rule with its own way out; empty for a legal one.

    Args:
        config: with its layout chosen, its data-parallel size settled or not.
    """
    case = Case(config, model, world)
    return [said for rule in RULES if (said := rule(case)) is not None]


def check(config: TrainConfig, model: ModelConfig, world: int) -> None:
    """Raises ConfigError with every rule that is broken and, as overrides, the nearest layout that breaks none."""
    if found := breaches(config, model, world):
        _, overrides = nearest_legal(config, model, world)
        raise ConfigError(
            "\n".join([*(f"{said}." for said in found), f"The nearest legal layout for {counted(world)}: {' '.join(overrides)}"])
        )


def nearest_legal(config: TrainConfig, model: ModelConfig, world: int) -> tuple[TrainConfig, list[str]]:
    """The legal configuration for that many ranks with the fewest changes, and the changes as `key=value`; there always is one.

    Sharding is changed before sizes of groups, those before the micro-batch, and last what changes the numbers: precision and global
    batch. Of equals the one with the nearest sizes is taken.
    """
    found = min(_variants(Case(config, model, world)), key=lambda variant: variant.distance)
    return found.config, [f"{key}={value}" for key, value in found.changes]


@dataclass(frozen=True)
class _Variant:
    config: TrainConfig
    changes: tuple[tuple[str, str], ...]
    distance: tuple[float, ...]


COST = {"zero": 1, "sequence": 2, "offload": 2, "pipeline": 3, "tensor": 3, "data": 3, "micro": 4, "precision": 6, "global": 7}
PLACE = {"micro": "train.batch.micro", "global": "train.batch.global", "precision": "train.precision"}


def _variants(case: Case) -> Iterator[_Variant]:
    """Legal configurations around an illegal one."""
    config, layout = case.config, case.layout
    precisions = sorted(get_args(Precision), key=lambda name: (name != config.precision, name))
    flags = [(False,) if not flag else (True, False) for flag in (layout.sequence, layout.offload)]
    for tensor, pipeline in _factors(case.world):
        data = None if layout.data is None else case.world // (tensor * pipeline)
        sizes = {"tensor": tensor, "pipeline": pipeline, "data": data}
        for zero, sequence, offload, precision in product(range(4), *flags, precisions):
            wanted = layout.model_copy(update={**sizes, "zero": zero, "sequence": sequence, "offload": offload})
            changed = config.model_copy(update={"layout": wanted, "precision": precision})
            for batch in _batches(Case(changed, case.model, case.world)):
                fitted = changed.model_copy(update={"batch": batch})
                if not breaches(fitted, case.model, case.world):
                    yield _variant(config, fitted)
                    break


def _batches(case: Case) -> Iterator[Any]:
    """The batch as it is; with the nearest micro-batch that fits the layout; with the nearest global batch."""
    batch, data, pipeline = case.config.batch, case.data or 1, case.layout.pipeline
    yield batch
    share, left = divmod(batch.global_batch, data)
    if not left:
        micros = [size for size in _divisors(share) if share // size >= pipeline]
        if micros:
            yield batch.model_copy(update={"micro_batch": min(micros, key=lambda size: abs(log2(size / batch.micro_batch)))})
    step = batch.micro_batch * data
    yield batch.model_copy(update={"global_batch": max(pipeline, round(batch.global_batch / step)) * step})


def _variant(before: TrainConfig, after: TrainConfig) -> _Variant:
    old, new = _fields(before), _fields(after)
    changed = [name for name in new if new[name] != old[name]]
    sizes = [
        (old[name], new[name]) for name in changed if isinstance(new[name], int) and not isinstance(new[name], bool) and name != "zero"
    ]
    away = sum(abs(log2(size / (was or 1))) for was, size in sizes) + abs(new["zero"] - old["zero"])
    changes = tuple((PLACE.get(name, f"train.layout.{name}"), str(new[name]).lower()) for name in changed)
    return _Variant(after, changes, (len(changed), sum(COST[name] for name in changed), away, new["tensor"], new["pipeline"], new["zero"]))


def _fields(config: TrainConfig) -> dict[str, Any]:
    assert config.layout != "auto"
    batch = {"micro": config.batch.micro_batch, "global": config.batch.global_batch}
    return {**config.layout.model_dump(), **batch, "precision": config.precision}


def hints(config: TrainConfig, model: ModelConfig, world: int, per_node: int | None = None) -> list[str]:
    """What a legal layout does that its user may not want; a sentence each.

    Args:
        per_node: workers on a node; None where that is not known.
    """
    case = Case(config, model, world)
    layout, steps, data = case.layout, case.accumulation, case.data
    assert steps is not None and data is not None, "legal"
    said = []
    if layout.pipeline > 1 and steps < FEW_BUBBLES * layout.pipeline:
        idle = bubble(layout.pipeline, steps)
        more = bubble(layout.pipeline, FEW_BUBBLES * layout.pipeline)
        way = f"{FEW_BUBBLES * layout.pipeline} (a smaller train.batch.micro, a larger train.batch.global) would make it {more:.0%}"
        said.append(f"the pipeline idles for {idle:.0%} of a step at {steps} micro-batches; {way}")
    if per_node is not None and per_node % layout.tensor:
        said.append(f"train.layout.tensor = {layout.tensor} with {per_node} workers on a node: each matrix product waits for the network")
    if data == 1 and layout.zero > (0 if config.precision == "fp32" else 1):
        lowest = 0 if config.precision == "fp32" else 1
        said.append(
            f"train.layout.zero = {layout.zero} shards over one data-parallel rank, which saves nothing; zero = {lowest} is simpler"
        )
    if config.precision == "bf16" and layout.zero == 0 and steps > 1:
        said.append("at train.layout.zero = 0 the gradients of a step's micro-batches are added up in bf16; zero = 1 does it in float32")
    return said


def bubble(pipeline: int, micro_batches: int) -> float:
    """Share of a step in which a stage waits for the others (Narayanan et al. 2021, arXiv:2104.04473, section 2.2)."""
    return (pipeline - 1) / (micro_batches + pipeline - 1)


def counted(world: int) -> str:
    """So many workers, in words."""
    return f"{world} worker{'s' * (world != 1)}"


def _factors(world: int) -> Iterator[tuple[int, int]]:
    """Every (tensor, pipeline) whose product divides the world."""
    for tensor in _divisors(world):
        yield from ((tensor, pipeline) for pipeline in _divisors(world // tensor))


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]


def _multiples(world: int, replica: int) -> str:
    below = world // replica * replica
    return " and ".join(str(size) for size in (below, below + replica) if size)


def _one_of(sizes: Sequence[int]) -> str:
    return f"{sizes[0]} does" if len(sizes) == 1 else f"one of {list(sizes)} does"
