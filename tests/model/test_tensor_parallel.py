import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.model.tensor_parallel import ALONE, Shard, TensorParallel, column_linear, cut, joined, parameter, shard_of, summed

SIZES = st.sampled_from([1, 2, 3, 4, 8])


@settings(deadline=None)
@given(size=SIZES, parts=st.lists(st.integers(1, 5), min_size=1, max_size=4), dim=st.sampled_from([0, 1]), other=st.integers(1, 3))
def test_joining_undoes_cutting(size: int, parts: list[int], dim: int, other: int) -> None:
    shard = Shard(dim, tuple(part * size for part in parts))
    length = sum(shard.parts)
    whole = torch.arange(length * other).view((length, other) if dim == 0 else (other, length))
    pieces = [cut(whole, shard, rank, size) for rank in range(size)]
    assert {piece.shape for piece in pieces} == {pieces[0].shape} and pieces[0].shape[dim] == shard.local(size) == length // size
    assert torch.equal(joined(pieces, shard), whole)
    assert sorted(number for piece in pieces for number in piece.flatten().tolist()) == list(range(length * other))


@settings(deadline=None)
@given(size=SIZES, parts=st.lists(st.integers(1, 20), min_size=1, max_size=3))
def test_padding_is_zeros_that_joining_takes_off(size: int, parts: list[int]) -> None:
    shard = Shard(0, tuple(parts), padded=True)
    whole = torch.arange(1, sum(parts) * 2 + 1).view(-1, 2)
    pieces = [cut(whole, shard, rank, size) for rank in range(size)]
    assert {len(piece) for piece in pieces} == {shard.local(size)}
    assert torch.equal(joined(pieces, shard), whole)
    assert sum(int((piece != 0).sum()) for piece in pieces) == whole.numel()


def test_each_part_is_cut_by_itself() -> None:
    shard = Shard(0, (4, 2, 2))  # two ranks of query, key and value rows
    whole = torch.tensor([[0], [1], [2], [3], [10], [11], [20], [21]])
    assert cut(whole, shard, 0, 2).flatten().tolist() == [0, 1, 10, 20]
    assert cut(whole, shard, 1, 2).flatten().tolist() == [2, 3, 11, 21]
    assert shard.ranges(1, 2) == [(2, 4), (5, 6), (7, 8)]


def test_the_last_ranks_may_hold_padding_alone() -> None:
    shard = Shard(0, (5,), padded=True)
    assert [shard.ranges(rank, 4) for rank in range(4)] == [[(0, 2)], [(2, 4)], [(4, 5)], [(5, 5)]]
    assert cut(torch.ones(5, 3), shard, 3, 4).tolist() == [[0.0] * 3] * 2


def test_what_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="part of 6 columns does not divide by a tensor size of 4"):
        cut(torch.ones(2, 10), Shard(1, (4, 6)), 0, 4)


def test_parameters_say_how_they_are_cut() -> None:
    shard = Shard(1, (6,))
    piece, whole = parameter((4, 6), shard, TensorParallel(None, 1, 2)), parameter((4, 6), shard, ALONE)
    assert piece.shape == (4, 3) and shard_of(piece) == shard and piece.tensor_model_parallel
    assert whole.shape == (4, 6) and shard_of(whole) == shard and not hasattr(whole, "tensor_model_parallel")
    assert shard_of(torch.nn.Parameter(torch.ones(3))) is None


def test_alone_nothing_is_copied() -> None:
    hidden, weight = torch.randn(2, 3, 4), torch.randn(5, 4)
    assert summed(hidden, ALONE) is hidden
    assert torch.equal(column_linear(hidden, weight, ALONE), torch.nn.functional.linear(hidden, weight))
