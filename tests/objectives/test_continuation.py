import math

import pytest
import torch

from headrace.model import EncoderDecoderConfig
from headrace.model.sequential import build_model
from headrace.objectives import Continuation

ROW = [4, 5, 0, 6, 8, 9, 0, 7, 3]


def test_the_second_half_is_predicted_and_nothing_follows_an_end_of_text() -> None:
    example = Continuation().corrupt(torch.tensor([ROW]), eos=0, samples=torch.tensor([7]))
    assert example.tokens.tolist() == [[4, 5, 0, 6, 8, 9, 0, 7]]
    assert example.targets.tolist() == [[9, 0, 7, 3]]
    assert example.weights.tolist() == [[True, True, False, True]]
    assert example.aux[0, :, 2].tolist() == [1] * 4 + [0] * 4 and example.aux[0, :, 3].tolist() == [7] * 8


def test_a_uniform_model_costs_the_logarithm_of_the_vocabulary_a_target() -> None:
    example = Continuation().corrupt(torch.tensor([ROW]), eos=0)
    nats, targets = Continuation().loss(torch.zeros(1, 4, 10), example)
    assert int(targets) == 3 and targets.dtype == torch.int64
    assert nats.item() == pytest.approx(3 * math.log(10)) and nats.dtype == torch.float32


def test_packing_changes_no_nats() -> None:
    config = EncoderDecoderConfig(layers=2, encoder_layers=2, hidden=32, heads=4).sized(23, 16)
    objective, model = Continuation(), build_model(config, 0)

    def nats(row: list[int]) -> tuple[float, int]:
        example = objective.corrupt(torch.tensor([row]), eos=0)
        total, count = objective.loss(model(example.tokens, example.aux), example)
        return total.item(), int(count)

    # The first row's encoder reads a whole document and half of a second; its decoder continues that and begins a third.
    packed, count = nats([3, 9, 0, 7, 8, 5, 11, 12, 0, 13, 14, 15, 0])
    alone = [nats([7, 8, 5, 11, 12, 0, 1]), nats([1, 2, 0, 13, 14, 15, 0])]
    assert packed == pytest.approx(sum(total for total, _ in alone), rel=1e-5)
    assert count == sum(targets for _, targets in alone) == 5
