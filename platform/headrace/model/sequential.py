"""A model as an ordered list of layers, each `(hidden, aux) -> (hidden, aux)`, so that any cut makes a pipeline stage."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import xxhash
from torch import Tensor, nn

from headrace.model.compiled import compiled
from headrace.model.config import ModelConfig, SizedDecoder
from headrace.model.decoder import Block
from headrace.model.embedding import Embed, Head
from headrace.model.encoder_decoder import DecoderBlock, EncoderBlock, EncoderNorm
from headrace.model.recompute import Recompute, recomputed
from headrace.model.tensor_parallel import ALONE, Shard, TensorParallel, cut, shard_of

INIT_STD = 0.02
RESIDUAL = ("attention.out.weight", "cross.out.weight", "mlp.down.weight")  # projections that write into the residual stream


@dataclass(frozen=True)
class LayerSpec:
    """A layer that is not built yet; `build` leaves its matrices unset."""

    name: str  # canonical: its weights are called `<name>.<name in the layer>`
    build: Callable[[], nn.Module]


@dataclass(frozen=True)
class WeightShape:
    """The whole shape of a weight, and how it is cut; shard is None for one that every rank holds whole."""

    shape: tuple[int, ...]
    shard: Shard | None


def layer_specs(config: ModelConfig, seed: int, tensor: TensorParallel = ALONE) -> list[LayerSpec]:
    """The layers, first to last: `embed`, `blocks.0`, ..., `head`; or `embed`, `encoder.0`, ..., `encoder_norm`, `decoder.0`, ..., `head`.

    Args:
        seed: of the dropout.
    """

    def blocks(kind: Callable[..., nn.Module], place: str, count: int) -> list[LayerSpec]:
        names = [f"{place}.{index}" for index in range(count)]
        return [LayerSpec(name, functools.partial(kind, config, name, seed, tensor)) for name in names]

    embed = LayerSpec("embed", functools.partial(Embed, config, seed, tensor))
    head = LayerSpec("head", functools.partial(Head, config, tensor))
    if isinstance(config, SizedDecoder):
        return [embed, *blocks(Block, "blocks", config.layers), head]
    norm = LayerSpec("encoder_norm", functools.partial(EncoderNorm, config, tensor))
    encoder, decoder = blocks(EncoderBlock, "encoder", config.encoder_layers), blocks(DecoderBlock, "decoder", config.layers)
    return [embed, *encoder, norm, *decoder, head]


class SequentialModel(nn.Module):
    """The layers run one behind the other on one rank, or on each rank of a tensor-parallel group.

    Names of parameters are canonical: `embed.weight`, `blocks.<i>.attention.qkv.weight`, ..., `head.weight` (absent where it is
    tied to the embedding). They, and the whole shapes, are what checkpoints store, whatever the layout. The weights are left unset.

    Args:
        seed: of the dropout.
        compile: have torch's compiler make a block's kernels, at the first call.
    """

    def __init__(
        self, config: ModelConfig, seed: int = 0, tensor: TensorParallel = ALONE, recompute: Recompute = "none", compile: bool = False
    ) -> None:
        super().__init__()
        self.config = config
        self._names = []
        for spec in layer_specs(config, seed, tensor):
            place, _, index = spec.name.partition(".")
            layer = spec.build()
            if not index:
                self.add_module(place, layer)
            else:
                if index == "0":
                    self.add_module(place, nn.ModuleList())
                self.get_submodule(place).append(layer)
            self._names.append(spec.name)
        if config.tied_embeddings:
            self.head.weight = self.embed.weight
        called = compiled if compile else recomputed
        self._calls = [called(layer, recompute) for _, layer in self.layers()]

    def layers(self) -> Iterator[tuple[str, nn.Module]]:
        """Name and layer, first to last."""
        return ((name, self.get_submodule(name)) for name in self._names)

    def named_weights(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Canonical name and parameter; a tied one once, as the embedding's."""
        return self.named_parameters()

    def forward(self, tokens: Tensor, aux: Tensor) -> Tensor:
        """Logits [B, T', V], or this rank's share of them (see `Head`), for tokens int64 [B, T] and aux int64 [B, T, 4]."""
        hidden = tokens
        for call in self._calls:
            hidden, aux = call(hidden, aux)
        return hidden


def build_model(config: ModelConfig, seed: int | None, tensor: TensorParallel = ALONE, recompute: Recompute = "none") -> SequentialModel:
    """The model in float32 on the CPU, weights drawn from the seed; with None they are left unset, for a checkpoint to fill."""
    model = SequentialModel(config, seed or 0, tensor, recompute)
    if seed is not None:
        for name, layer in model.layers():
            draw(name, layer, config, seed, tensor)
    return model


def draw(layer_name: str, layer: nn.Module, config: ModelConfig, seed: int, tensor: TensorParallel = ALONE) -> None:
    """Fill a layer's weights as they are before the first step: each drawn whole, and cut."""
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            shard = shard_of(parameter)
            shape = list(parameter.shape)
            if shard is not None:
                shape[shard.dim] = sum(shard.parts)
            whole = initial_weight(config, seed, f"{layer_name}.{name}", tuple(shape))
            parameter.copy_(whole if shard is None else cut(whole, shard, tensor.rank, tensor.size))


def initial_weight(config: ModelConfig, seed: int, name: str, shape: tuple[int, ...]) -> Tensor:
    """One whole weight as it is before the first step: a function of the seed and its canonical name alone.

    So neither the order in which layers are made nor a layout that keeps a slice of it changes a number. Normal with
    standard deviation 0.02; projections into the residual stream are smaller by the square root of how many there are
    (Radford et al. 2019, GPT-2, section 2.3); norms start at one.
    """
    if len(shape) == 1:
        return torch.ones(shape)
    if name == "head.weight" and config.tied_embeddings:
        name = "embed.weight"
    std = INIT_STD / math.sqrt(_branches(config, name)) if name.endswith(RESIDUAL) else INIT_STD
    generator = torch.Generator().manual_seed(xxhash.xxh64_intdigest(f"{seed}/{name}".encode()) >> 1)
    return torch.empty(shape).normal_(0.0, std, generator=generator)


def _branches(config: ModelConfig, name: str) -> int:
    """How many projections write into the residual stream that the named one writes into."""
    if isinstance(config, SizedDecoder):
        return 2 * config.layers
    return 2 * config.encoder_layers if name.startswith("encoder.") else 3 * config.layers


def whole_shapes(config: ModelConfig) -> dict[str, WeightShape]:
    """Canonical name -> shape of every weight, nothing allocated."""
    with torch.device("meta"):
        model = SequentialModel(config)
    return {name: WeightShape(tuple(parameter.shape), shard_of(parameter)) for name, parameter in model.named_weights()}
