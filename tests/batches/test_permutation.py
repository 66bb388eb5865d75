import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.batches.permutation import key, mix, permuted, shuffled

SEEDS = st.integers(0, 2**64 - 1)


@settings(deadline=None)
@given(count=st.integers(1, 3000), seed=SEEDS)
def test_every_number_comes_once(count: int, seed: int) -> None:
    assert sorted(permuted(np.arange(count), count, seed).tolist()) == list(range(count))
    assert sorted(shuffled(count, seed).tolist()) == list(range(count))


@settings(deadline=None)
@given(count=st.integers(1, 2**62), seed=SEEDS, data=st.data())
def test_huge_counts_need_no_memory_and_stay_in_range(count: int, seed: int, data: st.DataObject) -> None:
    positions = np.array(data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=20, unique=True)))
    found = permuted(positions, count, seed)
    assert len(set(found.tolist())) == len(positions)
    assert found.min() >= 0 and found.max() < count
    assert permuted(positions[::-1], count, seed).tolist() == found[::-1].tolist(), "an entry does not depend on those asked for with it"


def test_it_mixes() -> None:
    count = 10_000
    found = permuted(np.arange(count), count, 3)
    # Of a random permutation about one entry stays in place, and neighbours are a third of the range apart.
    assert (found == np.arange(count)).sum() < 8
    assert np.abs(np.diff(found)).mean() == pytest.approx(count / 3, rel=0.05)
    assert (found != permuted(np.arange(count), count, 4)).mean() > 0.99


def test_the_hash_is_splitmix64() -> None:
    # First output of the reference generator seeded with 0 (Steele et al. 2014): the mix of its increment.
    assert int(mix(np.array([0x9E3779B97F4A7C15], dtype=np.uint64))[0]) == 0xE220A8397B1DCDAF
    assert key("a", 1) != key("a", 2) and key("a", 1) == key("a", 1)


def test_positions_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="not all below the count 5"):
        permuted(np.array([5]), 5, 0)
