from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.config import ConfigError
from headrace.model import DecoderConfig, EncoderDecoderConfig, flops_per_token
from headrace.train.stages import balanced, layer_costs, layer_weights, stage_bounds


@given(costs=st.lists(st.integers(0, 9), min_size=1, max_size=8), data=st.data())
def test_no_other_cut_is_better(costs: list[int], data: st.DataObject) -> None:
    parts = data.draw(st.integers(1, len(costs)))

    def sizes(bounds: list[int]) -> list[int]:
        return [sum(costs[begin:end]) for begin, end in pairwise(bounds)]

    def badness(bounds: list[int]) -> tuple[int, int]:
        return max(sizes(bounds)), sum(size * size for size in sizes(bounds))

    found = balanced(costs, parts)
    assert len(found) == parts + 1 and all(begin < end for begin, end in pairwise(found))
    every = ([0, *inner, len(costs)] for inner in combinations(range(1, len(costs)), parts - 1))
    assert badness(found) == min(badness(bounds) for bounds in every)


def test_a_layer_is_the_least_that_a_stage_has() -> None:
    assert balanced([5, 5, 5], 3) == [0, 1, 2, 3]
    with pytest.raises(ConfigError, match="3 layers cannot be cut into 4 stages"):
        balanced([5, 5, 5], 4)


def test_the_costs_are_the_arithmetic_of_the_model() -> None:
    model = DecoderConfig(layers=5, hidden=64, heads=4).sized(500, 128)
    # Three passes, a multiplication and an addition each.
    assert 6 * sum(layer_costs(model)) == flops_per_token(model)
    tied = model.model_copy(update={"tied_embeddings": True})
    assert layer_costs(tied) == layer_costs(model), "a tied projection multiplies as much"


def test_a_vocabulary_weighs_what_its_projection_costs() -> None:
    small = DecoderConfig(layers=8, hidden=256, heads=4).sized(512, 64)
    assert stage_bounds(small, 2) == [0, 5, 10]
    assert stage_bounds(small.model_copy(update={"vocab_size": 8_192}), 2) == [0, 6, 10]
    assert stage_bounds(small.model_copy(update={"layers": 4, "vocab_size": 32_768}), 2) == [0, 5, 6], "the last stage projects only"


def test_every_weight_belongs_to_a_layer() -> None:
    model = EncoderDecoderConfig(layers=11, encoder_layers=2, hidden=32, heads=4).sized(97, 16)
    layers = layer_weights(model)
    assert list(layers)[:5] == ["embed", "encoder.0", "encoder.1", "encoder_norm", "decoder.0"] and list(layers)[-1] == "head"
    assert list(layers["encoder_norm"]) == ["norm.weight"] and set(layers["head"]) == {"norm.weight", "weight"}
    assert layers["decoder.1"].keys() == layers["decoder.10"].keys() > layers["encoder.1"].keys()
