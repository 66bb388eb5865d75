from __future__ import annotations

import math

import numpy as np
import pytest

from headrace.dedup.minhash import HashFamily, band_keys, candidate_probability, document_band_keys, minhash_signature, optimal_param

BANDS, ROWS = 14, 8
FAMILY = HashFamily.draw(BANDS * ROWS, seed=0)


def planted_pair(rng, similarity, union=200):
    """Two sets of random shingles whose Jaccard similarity is exactly `similarity`."""
    values = rng.integers(0, 1 << 64, union, np.uint64)
    shared = round(similarity * union)
    half = shared + (union - shared) // 2
    return values[:half], np.concatenate([values[:shared], values[half:]])


@pytest.mark.parametrize("similarity, published", [(0.70, 0.56), (0.75, 0.77), (0.80, 0.92), (0.85, 0.988)])
def test_candidate_probability_is_fineweb_s(similarity, published):  # Penedo et al. 2024, arXiv:2406.17557
    assert candidate_probability(similarity, bands=14, rows=8) == pytest.approx(published, abs=0.005)


@pytest.mark.parametrize(
    "threshold, num_perm, published", [(0.7, 128, (14, 9)), (0.8, 128, (9, 13)), (0.7, 256, (25, 10)), (0.7, 240, (24, 10))]
)
def test_optimal_param_is_that_of_datasketch(threshold, num_perm, published):
    assert optimal_param(threshold, num_perm) == published


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 101])
def test_a_signature_holds_the_least_of_each_function_modulo_two_to_the_64(count):
    shingles = np.random.default_rng(count).integers(0, 1 << 64, count, np.uint64)
    functions = list(zip(FAMILY.multipliers.tolist(), FAMILY.offsets.tolist()))
    assert minhash_signature(shingles, FAMILY).tolist() == [min((a * x + b) % 2**64 for x in shingles.tolist()) for a, b in functions]


def test_order_and_repeats_do_not_matter():
    shingles = np.random.default_rng(0).integers(0, 1 << 64, 50, np.uint64)
    shuffled = np.random.default_rng(1).permutation(np.concatenate([shingles, shingles[:20]]))
    assert np.array_equal(minhash_signature(shingles, FAMILY), minhash_signature(shuffled, FAMILY))


def test_a_document_without_shingles_has_no_signature():
    with pytest.raises(ValueError, match="without shingles"):
        minhash_signature(np.empty(0, np.uint64), FAMILY)
    keys = document_band_keys(np.array([0, 0, 2, 2]), np.array([1, 2], np.uint64), FAMILY, BANDS, ROWS)
    assert not keys[[0, 2]].any()
    assert np.array_equal(keys[1], band_keys(minhash_signature(np.array([1, 2], np.uint64), FAMILY), BANDS, ROWS))


def test_functions_are_bijections_drawn_over_the_whole_field():
    family = HashFamily.draw(4096, seed=3)
    assert (family.multipliers & np.uint64(1)).all()
    assert len(np.unique(family.multipliers)) == len(np.unique(family.offsets)) == 4096
    for values in (family.multipliers >> np.uint64(1), family.offsets):
        ones = [int((values >> np.uint64(bit) & np.uint64(1)).sum()) for bit in range(63)]
        assert all(abs(count - 2048) < 5 * 32 for count in ones)  # standard deviation of a fair coin: 32
    assert not np.array_equal(HashFamily.draw(8, 0).offsets, HashFamily.draw(8, 1).offsets)


@pytest.mark.parametrize("similarity", [0.1, 0.5, 0.75, 0.95])
def test_the_share_of_equal_entries_estimates_jaccard_without_bias(similarity):
    rng = np.random.default_rng(11)
    pairs = 500
    shares = []
    for _ in range(pairs):
        first, second = (minhash_signature(found, FAMILY) for found in planted_pair(rng, similarity))
        shares.append(np.mean(first == second))
    sigma = math.sqrt(similarity * (1 - similarity) / (BANDS * ROWS))
    assert abs(np.mean(shares) - similarity) < 3 * sigma / math.sqrt(pairs)
    assert np.std(shares) == pytest.approx(sigma, rel=0.12)  # the functions are as good as independent: 3.8 of its own deviations


@pytest.mark.parametrize("similarity", [0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9])
def test_recall_follows_the_candidate_probability(similarity):
    rng = np.random.default_rng(5)
    pairs = 1000
    found = 0
    for _ in range(pairs):
        first, second = (band_keys(minhash_signature(members, FAMILY), BANDS, ROWS) for members in planted_pair(rng, similarity))
        found += bool((first == second).any())
    expected = candidate_probability(similarity, BANDS, ROWS)
    assert abs(found / pairs - expected) < 3 * math.sqrt(expected * (1 - expected) / pairs)


def test_bands_do_not_meet_one_another():
    signature = np.tile(np.arange(ROWS, dtype=np.uint64), BANDS)  # every band holds the same values
    assert len(np.unique(band_keys(signature, BANDS, ROWS))) == BANDS


def test_a_band_s_key_depends_on_every_row_and_on_no_other_band():
    signature = np.random.default_rng(2).integers(0, 1 << 64, BANDS * ROWS, np.uint64)
    keys = band_keys(signature, BANDS, ROWS)
    for place in range(BANDS * ROWS):
        changed = signature.copy()
        changed[place] ^= np.uint64(1)
        assert np.flatnonzero(band_keys(changed, BANDS, ROWS) != keys).tolist() == [place // ROWS]
