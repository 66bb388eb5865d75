"""Where a pipeline cuts the list of layers: consecutive stages, as equal in work as they can be."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING

from headrace.config import ConfigError
from headrace.model import ModelConfig

if TYPE_CHECKING:  # with torch: most layouts are checked without a look at the layers
    from headrace.model.sequential import WeightShape


def stage_bounds(model: ModelConfig, stages: int) -> list[int]:
    """First layer of each stage, and the number of layers behind the last: int [stages + 1], rising.

    A pipeline is as fast as its slowest stage, so stages are balanced by arithmetic: a vocabulary's projection weighs as much as it
    costs, its look-up nothing.

    Raises:
        ConfigError: there are fewer layers than stages.
    """
    return list(_stage_bounds(model, stages))


@lru_cache(maxsize=256)
def _stage_bounds(model: ModelConfig, stages: int) -> tuple[int, ...]:
    return tuple(balanced(layer_costs(model), stages))


@lru_cache(maxsize=16)
def layer_weights(model: ModelConfig) -> dict[str, dict[str, WeightShape]]:
    """Canonical name of each layer, first to last -> name within it and shape of each of its weights; a tied one is the first layer's."""
    from headrace.model.sequential import layer_specs, whole_shapes

    layers: dict[str, dict[str, WeightShape]] = {spec.name: {} for spec in layer_specs(model, 0)}
    for name, found in whole_shapes(model).items():
        kind, _, inner = name.partition(".")
        index, _, rest = inner.partition(".")
        layer, weight = (f"{kind}.{index}", rest) if f"{kind}.{index}" in layers else (kind, inner)
        layers[layer][weight] = found
    return layers


def layer_costs(model: ModelConfig) -> list[int]:
    """Multiplications of each layer a token, forward: one for each weight of a matrix, two for each position that is attended to."""
    costs = []
    for weights in layer_weights(model).values():
        shapes = {name: found.shape for name, found in weights.items() if len(found.shape) > 1}
        matrices = sum(rows * columns for rows, columns in shapes.values())
        attended = sum(shape[1] for name, shape in shapes.items() if name.endswith("out.weight"))
        costs.append(matrices + 2 * model.sequence_length * attended)
    if model.tied_embeddings:
        costs[-1] += costs[0]
    return [0, *costs[1:]]  # a look-up multiplies nothing


def balanced(costs: Sequence[int], parts: int) -> list[int]:
    """Bounds [parts + 1] of consecutive parts, none empty: the costliest costs the least possible, and of those the most even.

    Raises:
        ConfigError: there are fewer items than parts.
    """
    items = len(costs)
    if not 1 <= parts <= items:
        raise ConfigError(f"{items} layers cannot be cut into {parts} stages.")
    sums = [0, *accumulate(costs)]
    most = _smallest_maximum(sums, parts)
    # Of all cuts whose parts stay within `most`, the one with the smallest sum of squares: best[j][i] covers the first i items by j parts.
    infinite = float("inf")
    best: list[list[float]] = [[0.0] + [infinite] * items]
    cut: list[list[int]] = [[0] * (items + 1)]
    for part in range(1, parts + 1):
        row, places = [infinite] * (items + 1), [0] * (items + 1)
        for end in range(part, items + 1):
            for begin in range(end - 1, part - 2, -1):
                size = sums[end] - sums[begin]
                if size > most:
                    break
                if (found := best[-1][begin] + size * size) < row[end]:
                    row[end], places[end] = found, begin
        best.append(row)
        cut.append(places)
    bounds = [items]
    for part in range(parts, 0, -1):
        bounds.append(cut[part][bounds[-1]])
    return bounds[::-1]


def _smallest_maximum(sums: Sequence[int], parts: int) -> int:
    """The smallest cost that the costliest of `parts` non-empty consecutive parts can have, from the running sums [items + 1]."""
    items = len(sums) - 1
    row = list(sums)
    for part in range(2, parts + 1):
        row = [
            min((max(row[begin], sums[end] - sums[begin]) for begin in range(part - 1, end)), default=sums[-1]) if end >= part else sums[-1]
            for end in range(items + 1)
        ]
    return row[items]
