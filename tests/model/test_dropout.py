import numpy as np
import pytest
import torch

from headrace.model.aux import decoder_aux
from headrace.model.dropout import Dropout, _hashes, _mixed
from headrace.model.tensor_parallel import ALONE, TensorParallel


def aux(samples: list[int], length: int = 64) -> torch.Tensor:
    return decoder_aux(torch.ones(len(samples), length, dtype=torch.long), 0, torch.tensor(samples))


def mask(samples: list[int], seed: int = 1, site: str = "blocks.0.mlp", rate: float = 0.25, length: int = 64) -> torch.Tensor:
    return Dropout(rate, seed, site, ALONE)(torch.ones(len(samples), length, 48), aux(samples, length)) != 0


def test_the_hash_is_the_published_one() -> None:  # lowbias32 in unsigned arithmetic that wraps, as its author gives it
    numbers = np.random.default_rng(0).integers(0, 1 << 32, 1000, dtype=np.uint32)
    expected = numbers ^ (numbers >> np.uint32(16))
    expected = expected * np.uint32(0x7FEB352D)
    expected = expected ^ (expected >> np.uint32(15))
    expected = expected * np.uint32(0x846CA68B)
    expected = expected ^ (expected >> np.uint32(16))
    assert _mixed(torch.from_numpy(numbers.astype(np.int64))).tolist() == expected.tolist()


def test_masks_are_pinned() -> None:
    found = _hashes(torch.tensor([0x89ABCDEF, 0x01234567]), torch.tensor([0, (1 << 40) + 7]), torch.tensor([0, 9]), 3)
    assert found.tolist() == [[[53099, 64454, 60976], [25149, 43528, 45794]], [[45355, 19597, 34805], [31050, 18252, 51825]]]


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_rate_is_kept_and_so_is_the_mean(rate: float) -> None:
    values = torch.ones(64, 64, 128)
    dropped = Dropout(rate, 1, "embed", ALONE)(values, aux(list(range(64))))
    error = (rate * (1 - rate) / values.numel()) ** 0.5
    assert float((dropped == 0).float().mean()) == pytest.approx(rate, abs=5 * error)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=5 * error / (1 - rate))
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / (1 - rate)], rel=1e-4 / (1 - rate))


def test_numbers_are_dropped_independently() -> None:
    dropped = (~mask(list(range(256)), rate=0.5)).float()  # 786,432 numbers: correlations of noise have a spread of 0.0011
    centred = dropped - dropped.mean()
    for shifted in (centred.roll(1, 0), centred.roll(1, 1), centred.roll(1, 2), centred.roll(2, 2), centred.roll(24, 2)):
        assert abs(float((centred * shifted).mean()) / 0.25) < 0.006
    for dims in ((0, 1), (0, 2), (1, 2)):  # of each column, position and sequence
        share = dropped.mean(dims)
        count = dropped.numel() / share.numel()
        assert float((share - 0.5).abs().max()) < 5 * 0.5 / count**0.5


def test_sequences_steps_layers_and_seeds_differ() -> None:
    others = [
        mask([5]),
        mask([6]),
        mask([5 + (1 << 32)]),
        mask([5], seed=2),
        mask([5], site="blocks.1.mlp"),
        mask([5], site="blocks.0.attention"),
    ]
    for place, one in enumerate(others):
        for other in others[:place]:
            assert float((one == other).float().mean()) == pytest.approx(0.25**2 + 0.75**2, abs=0.05)


def test_a_mask_does_not_depend_on_the_batch_it_is_in() -> None:
    assert torch.equal(mask([3, 9, 4])[1], mask([9])[0])
    assert torch.equal(mask([9], length=20), mask([9])[:, :20])


def test_ranks_that_share_a_sequence_have_their_part_of_its_mask() -> None:
    whole = mask([3, 9])
    for rank in range(4):
        part = Dropout(0.25, 1, "blocks.0.mlp", TensorParallel(None, rank, 4, True))(torch.ones(2, 16, 48), aux([3, 9])) != 0
        assert torch.equal(part, whole[:, 16 * rank : 16 * rank + 16])
    stream = Dropout(0.25, 1, "blocks.0.mlp", TensorParallel(None, 1, 2, True))(torch.ones(2, 16, 48), aux([3, 9]), start=32) != 0
    assert torch.equal(stream, whole[:, 48:])  # the second half of the second half


def test_the_gradient_goes_where_the_values_went() -> None:
    values = torch.randn(2, 8, 48, requires_grad=True)
    made = Dropout(0.25, 1, "embed", ALONE)(values, aux([1, 2], 8))
    made.sum().backward()
    assert torch.equal(values.grad == 0, made == 0)
    torch.testing.assert_close(made, values * values.grad)


def test_nothing_happens_at_rate_zero_or_outside_training() -> None:
    values = torch.randn(1, 64, 48)
    assert Dropout(0.0, 1, "embed", ALONE)(values, aux([1])) is values
    assert Dropout(0.5, 1, "embed", ALONE).eval()(values, aux([1])) is values
