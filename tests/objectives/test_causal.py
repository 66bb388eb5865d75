import math

import pytest
import torch

from headrace.model import DecoderConfig
from headrace.model.sequential import build_model
from headrace.objectives import CausalLM


def test_targets_are_the_next_tokens_and_none_follows_an_end_of_text() -> None:
    example = CausalLM().corrupt(torch.tensor([[4, 5, 0, 6, 0, 7]]), eos=0)
    assert example.tokens.tolist() == [[4, 5, 0, 6, 0]]
    assert example.targets.tolist() == [[5, 0, 6, 0, 7]]
    assert example.weights.tolist() == [[True, True, False, True, False]]
    assert example.num_targets == 3
    assert CausalLM().corrupt(torch.tensor([[4, 5, 0]]), 0, torch.tensor([9])).aux[..., 3].tolist() == [[9, 9]]


def test_a_uniform_model_costs_the_logarithm_of_the_vocabulary_a_target() -> None:
    example = CausalLM().corrupt(torch.tensor([[4, 5, 0, 6, 0, 7]]), eos=0)
    nats, targets = CausalLM().loss(torch.zeros(1, 5, 10), example)
    assert int(targets) == 3 and targets.dtype == torch.int64
    assert nats.item() == pytest.approx(3 * math.log(10)) and nats.dtype == torch.float32


def test_packing_changes_no_nats() -> None:
    objective, model = CausalLM(), build_model(DecoderConfig(layers=2, hidden=32, heads=4).sized(23, 16), 0)
    documents = [[3, 9, 4, 0], [8, 7, 0], [5, 6, 7, 8, 9, 0]]

    def nats(rows: list[int]) -> tuple[float, int]:
        example = objective.corrupt(torch.tensor([rows]), eos=0)
        total, count = objective.loss(model(example.tokens, example.aux), example)
        return total.item(), int(count)

    packed, count = nats([token for document in documents for token in document])
    alone = [nats(document) for document in documents]
    assert packed == pytest.approx(sum(total for total, _ in alone), rel=1e-5)
    assert count == sum(targets for _, targets in alone)
